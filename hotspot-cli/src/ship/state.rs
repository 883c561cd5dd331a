//! What a shipper remembers between two runs: how far it is. A help only: without it everything there is read back once more.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hotspot_archive::manifest::to_hex;
use hotspot_archive::moved::SHIPPED;
use hotspot_archive::regular;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How far one chain is at one target. Lies in the archive as `shipped/<gateway>-<8 digits of the target's hash>.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// 1.
    pub(crate) ship: u32,
    pub(crate) gateway: String,
    pub(crate) to: String,
    /// Up to this line files and lines were verified there.
    pub(crate) lines: u64,
    /// Up to this line what the chain calls deleted is deleted there.
    pub(crate) deleted: u64,
    /// Up to this line files were moved.
    pub(crate) moved: u64,
    /// Legal holds as they are there, by name with their SHA-256.
    pub(crate) holds: BTreeMap<String, String>,
    /// Recipients that were added, by id with the time of the file that notes them: it is written after their wrapped keys.
    pub(crate) recipients: BTreeMap<String, u128>,
}

impl State {
    /// What is remembered; from the beginning where nothing is, or where it is about another target.
    pub(crate) fn read(archive: &Path, gateway: &str, to: &str) -> Self {
        let fresh = Self { ship: 1, gateway: gateway.to_owned(), to: to.to_owned(), ..Self::default() };
        let text = regular::open_path(&path(archive, gateway, to)).and_then(io::read_to_string).unwrap_or_default();
        let read: Option<Self> = serde_json::from_str(&text).ok();
        read.filter(|state| state.ship == 1 && state.gateway == gateway && state.to == to).unwrap_or(fresh)
    }

    /// Keeps it, whole or not at all.
    pub(crate) fn write(&self, archive: &Path) -> io::Result<()> {
        let path = path(archive, &self.gateway, &self.to);
        self.write_to(&path, archive).map_err(super::about(&path))
    }

    fn write_to(&self, path: &Path, archive: &Path) -> io::Result<()> {
        let dir = path.parent().unwrap_or(archive);
        fs::create_dir_all(dir)?;
        let mut file = tempfile::Builder::new().prefix(".state").tempfile_in(dir)?;
        file.write_all(serde_json::to_string(self)?.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        fs::File::open(dir)?.sync_all()
    }
}

fn path(archive: &Path, gateway: &str, to: &str) -> PathBuf {
    let id = &to_hex(&Sha256::digest(to.as_bytes()))[..8];
    archive.join(SHIPPED).join(format!("{gateway}-{id}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_of_one_chain_and_one_target() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::read(dir.path(), "g", "s3://a");
        assert_eq!((state.ship, state.lines), (1, 0));
        state.lines = 7;
        state.write(dir.path()).unwrap();
        assert_eq!(State::read(dir.path(), "g", "s3://a").lines, 7);
        assert_eq!(State::read(dir.path(), "g", "s3://b").lines, 0);
        assert_eq!(State::read(dir.path(), "h", "s3://a").lines, 0);
        fs::write(path(dir.path(), "g", "s3://a"), "{").unwrap();
        assert_eq!(State::read(dir.path(), "g", "s3://a").lines, 0, "what is damaged is forgotten");
    }
}
