//! What a witness remembers: per origin one file, whole or not at all, under one lock for all of them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Refusal;
use crate::durable;
use crate::manifest::{from_hex, to_hex};
use crate::merkle::{Hash, Tree};
use crate::regular;

/// Where the origins stand that were ever made known.
const KNOWN: &str = "known";
const RESTORE: &str = "restore the newest copy, or retire this witness's key";
/// Version of the file.
const FORMAT: u32 = 1;

/// Who signs an origin's checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signer {
    /// Key of the first epoch, as it was made known.
    pub(super) first: String,
    /// Key of the epoch that is known last.
    pub(super) public: String,
    pub(super) epoch: u64,
    /// The line that began it; 0 for the first.
    pub(super) began: u64,
}

/// An origin, and the tree of it that was signed for last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trusted {
    /// [`FORMAT`].
    pub(super) witness: u32,
    pub(super) origin: String,
    /// Nobody signs an audit log.
    pub(super) signer: Option<Signer>,
    pub(super) size: u64,
    pub(super) root: String,
    /// When it was signed for, in seconds since 1970; 0 for never.
    pub(super) at_s: u64,
}

impl Trusted {
    pub(super) fn new(origin: &str, signer: Option<Signer>) -> Self {
        let root = to_hex(&Tree::default().root());
        Self { witness: FORMAT, origin: origin.to_owned(), signer, size: 0, root, at_s: 0 }
    }

    pub(super) fn root(&self) -> Result<Hash, Refusal> {
        let root = from_hex(&self.root).and_then(|bytes| Hash::try_from(bytes).ok());
        root.ok_or_else(|| Refusal::Malformed(format!("the state of {} has no root", self.origin)))
    }
}

/// The state directory while one process decides.
pub(super) struct Lock {
    dir: PathBuf,
    /// Held as long as it is open.
    _file: File,
}

impl Lock {
    /// Takes the lock of a directory that is there. One that is not there was lost or misspelt: to begin anew would forget what was signed.
    pub(super) fn take(dir: &Path) -> Result<Self, Refusal> {
        let failed = |operation| move |source| Refusal::State { operation, path: dir.to_path_buf(), source };
        if !dir.is_dir() {
            let why =
                io::Error::new(io::ErrorKind::NotFound, "there is no such directory; `hotspot witness trust` makes it");
            return Err(failed("read")(why));
        }
        let path = dir.join("lock");
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed("locked"))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| failed("locked")(error.into()))?;
        Ok(Self { dir: dir.to_path_buf(), _file: file })
    }

    /// The same of a directory that may have to be made.
    pub(super) fn make(dir: &Path) -> Result<Self, Refusal> {
        let failed = |source| Refusal::State { operation: "made", path: dir.to_path_buf(), source };
        durable::make_dir(dir).map_err(failed)?;
        Self::take(dir)
    }

    fn path(&self, origin: &str) -> PathBuf {
        self.dir.join(format!("{}.json", to_hex(&Sha256::digest(origin))))
    }

    /// The origins that were ever made known, one a line: what is gone of them was lost, and is no new origin.
    fn known(&self) -> Result<BTreeSet<String>, Refusal> {
        let path = self.dir.join(KNOWN);
        match regular::open_other(&path).and_then(io::read_to_string) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(source) => Err(Refusal::State { operation: "read", path, source }),
        }
    }

    /// What is known of an origin. A file that cannot be read, or is damaged, is an error: it must not be taken for a new origin.
    pub(super) fn read(&self, origin: &str) -> Result<Option<Trusted>, Refusal> {
        let path = self.path(origin);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.known()?.contains(origin) => {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = format!("{origin} was known, and its state is gone: {RESTORE}");
                return Err(Refusal::State { operation: "read", path, source: io::Error::other(what) });
            }
            Err(source) => return Err(Refusal::State { operation: "read", path, source }),
        };
        let read: Option<Trusted> = serde_json::from_str(&text).ok();
        let read = read.filter(|trusted| trusted.witness == FORMAT && trusted.origin == origin);
        let damaged = || io::Error::other(format!("it is damaged; {RESTORE}"));
        read.map(Some).ok_or_else(|| Refusal::State { operation: "read", path, source: damaged() })
    }

    /// Remembers; when this returns, it is on disk.
    pub(super) fn write(&self, trusted: &Trusted) -> Result<(), Refusal> {
        let path = self.path(&trusted.origin);
        let text = serde_json::to_string(trusted).map_err(io::Error::from);
        let written = text.and_then(|text| durable::replace(&path, |file| writeln!(file, "{text}")));
        written.map_err(|source| Refusal::State { operation: "written", path, source })?;
        let mut known = self.known()?;
        if known.insert(trusted.origin.clone()) {
            let path = self.dir.join(KNOWN);
            let written =
                durable::replace(&path, |file| known.iter().try_for_each(|origin| writeln!(file, "{origin}")));
            return written.map_err(|source| Refusal::State { operation: "written", path, source });
        }
        Ok(())
    }
}
