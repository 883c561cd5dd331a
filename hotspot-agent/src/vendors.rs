//! The table of the makers of devices: built in, or a newer one from a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotspot_core::vendor::{BadLine, VendorTable};
use tracing::info;

/// Made by `cargo xtask vendors` from the registry of the IEEE.
static BUILT_IN: &[u8] = include_bytes!("../data/vendors.zst");

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum VendorsError {
    #[error("the table of makers {} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a table of makers; `cargo xtask vendors` makes one", path.display())]
    BadLine { path: PathBuf, source: BadLine },
    #[error("the table of makers that is built in is damaged")]
    BuiltIn,
}

/// Reads the file, or what is built in where none is named.
pub fn load(path: Option<&Path>) -> Result<Arc<VendorTable>, VendorsError> {
    let Some(path) = path else {
        let text = zstd::decode_all(BUILT_IN).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let table = text.and_then(|text| VendorTable::parse(text).ok());
        return table.map(Arc::new).ok_or(VendorsError::BuiltIn);
    };
    let failed = |source| VendorsError::Read { path: path.to_path_buf(), source };
    let bytes = fs::read(path).map_err(failed)?;
    // As `cargo xtask vendors` writes it, or unpacked.
    let bytes = if bytes.starts_with(&ZSTD_MAGIC) { zstd::decode_all(&*bytes).map_err(failed)? } else { bytes };
    let text = String::from_utf8(bytes).map_err(|error| failed(io::Error::other(error)))?;
    let table =
        VendorTable::parse(text).map_err(|source| VendorsError::BadLine { path: path.to_path_buf(), source })?;
    info!(blocks = table.len(), path = %path.display(), "read the table of makers");
    Ok(Arc::new(table))
}

/// RFC 8878 §3.1.1.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_table_knows_blocks_of_every_size() {
        let table = load(None).unwrap();
        assert!(table.len() > 35_000, "{} blocks", table.len());
        let of = |text: &str| table.of(text.parse().unwrap());
        // As /usr/share/ieee-data of Debian's ieee-data 20220827 has them.
        assert_eq!(of("00:1b:21:00:00:01"), Some("Intel Corporate"));
        assert_eq!(of("20:85:93:b1:23:45"), Some("IOG Products LLC"));
        assert_eq!(of("02:1b:21:00:00:01"), None);
    }

    #[test]
    fn a_file_takes_its_place_packed_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table");
        for bytes in [b"001B21\tSomebody\n".to_vec(), zstd::encode_all(&b"001B21\tSomebody\n"[..], 3).unwrap()] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(load(Some(&path)).unwrap().of("00:1b:21:00:00:01".parse().unwrap()), Some("Somebody"));
        }
        fs::write(&path, "nonsense\n").unwrap();
        assert!(matches!(load(Some(&path)), Err(VendorsError::BadLine { .. })));
        assert!(matches!(load(Some(dir.path())), Err(VendorsError::Read { .. })));
    }
}
