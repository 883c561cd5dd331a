//! One agent per data directory and per interface.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Somebody else holds what this agent wants.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{what} is in use by the hotspot-agent with pid {pid}")]
    Held { what: String, pid: String },
    #[error("the lock {} cannot be taken", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Held until it is dropped, or the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a data directory.
    pub fn data_dir(path: &Path, dir: &Path) -> Result<Self, LockError> {
        Self::take(path, || format!("the data directory {}", dir.display()))
    }

    /// Takes the lock of an interface of this network namespace.
    pub fn interface(name: &str, index: u32) -> Result<Self, LockError> {
        let dir = Path::new("/run/hotspot");
        let namespace = fs::metadata("/proc/self/ns/net").map_or(0, |metadata| metadata.ino());
        let path = dir.join(format!("interface-{namespace}-{index}.lock"));
        fs::create_dir_all(dir).map_err(|source| LockError::Io { path: path.clone(), source })?;
        Self::take(&path, || format!("the interface {name}"))
    }

    fn take(path: &Path, what: impl Fn() -> String) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_path_buf(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed)?;
            return Err(LockError::Held { what: what(), pid: pid.trim().to_owned() });
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::data_dir(&path, dir.path()).unwrap();
        let refused = Lock::data_dir(&path, dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(held);
        assert!(Lock::data_dir(&path, dir.path()).is_ok());
    }
}
