//! Segments that are no longer here because they lie elsewhere: receipts for what was verified there before it was removed here.
//!
//! A receipt is no line of the chain, because the chain is the same at both places: a line that excuses a file which is missing here
//! would excuse it there too. Receipts lie only where files were taken away, prove nothing, and say where the proof is.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use hotspot_core::WallNs;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::regular::{self, Change};

/// That the files of a sequence were verified elsewhere, and removed here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// 1.
    pub moved: u32,
    pub gateway: String,
    pub sequence: u64,
    /// Where they are.
    pub to: String,
    pub at_ns: WallNs,
}

/// Where the sequences of an archive were moved to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved(BTreeMap<(String, u64), String>);

impl Moved {
    /// Reads the receipts of an archive. A last one that a crash cut was for files that are still there.
    pub fn read(archive: &Path) -> io::Result<Self> {
        let text = match regular::read_text(archive, RECEIPTS, regular::LINES_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let receipts = text.lines().filter_map(|line| serde_json::from_str::<Receipt>(line).ok());
        let receipts = receipts.filter(|receipt| receipt.moved == 1);
        Ok(Self(receipts.map(|receipt| ((receipt.gateway, receipt.sequence), receipt.to)).collect()))
    }

    /// Every receipt: gateway, sequence, and where it is.
    pub fn all(&self) -> impl Iterator<Item = (&str, u64, &str)> {
        self.0.iter().map(|((gateway, sequence), to)| (gateway.as_str(), *sequence, to.as_str()))
    }

    /// Where a sequence was moved to.
    #[must_use]
    pub fn to(&self, gateway: &str, sequence: u64) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(gateway.to_owned(), sequence)).map(String::as_str)
    }
}

/// Writes a receipt; when this returns, it is on disk, and the files may go.
pub fn record(archive: &Path, receipt: &Receipt) -> io::Result<()> {
    let dir = archive.join(SHIPPED);
    durable::make_dir(archive)?;
    regular::make_dir(archive, Path::new(SHIPPED))?;
    let mut file = regular::open_own(archive, RECEIPTS, Change::Begin)?;
    // What a crash left of a line must not swallow this one.
    let len = file.metadata()?.len();
    let mut last = [b'\n'];
    if len > 0 {
        file.read_exact_at(&mut last, len - 1)?;
    }
    let torn = last != *b"\n";
    let text = serde_json::to_string(receipt)?;
    file.write_all(format!("{}{text}\n", if torn { "\n" } else { "" }).as_bytes())?;
    file.sync_all()?;
    durable::sync_dir(&dir)
}

/// The receipts, relative to the archive.
const RECEIPTS: &str = "shipped/moved.jsonl";

/// What is known of an archive's copies elsewhere.
pub const SHIPPED: &str = "shipped";

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn a_receipt_that_a_crash_cut_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let receipt = |sequence| Receipt { moved: 1, gateway: "g".into(), sequence, to: "s3://b/p".into(), at_ns: 5 };
        assert_eq!(Moved::read(dir.path()).unwrap().to("g", 1), None);
        record(dir.path(), &receipt(1)).unwrap();
        let mut file = OpenOptions::new().append(true).open(dir.path().join(RECEIPTS)).unwrap();
        file.write_all(b"{\"moved\":1,\"gateway\":\"g\",\"sequ").unwrap();
        record(dir.path(), &receipt(3)).unwrap();
        let moved = Moved::read(dir.path()).unwrap();
        assert_eq!([1, 2, 3].map(|sequence| moved.to("g", sequence)), [Some("s3://b/p"), None, Some("s3://b/p")]);
        assert_eq!(moved.to("h", 1), None);
    }
}
