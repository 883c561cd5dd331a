//! One agent per data directory and per interface.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
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
        let made = DirBuilder::new().recursive(true).mode(0o750).create(dir);
        made.map_err(|source| LockError::Io { path: path.clone(), source })?;
        Self::take(&path, || format!("the interface {name}"))
    }

    fn take(path: &Path, what: impl Fn() -> String) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_path_buf(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(path).map_err(failed)?;
        // flock(2) needs no more than a file open for reading: whoever may read a lock may hold it.
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
        }
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

    #[test]
    fn a_lock_is_for_its_owner_only_also_where_an_earlier_version_made_it_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let new = dir.path().join("new");
        let _held = Lock::data_dir(&new, dir.path()).unwrap();
        assert_eq!(mode(&new), 0o600);
        let old = dir.path().join("old");
        fs::write(&old, "").unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
        let _held = Lock::data_dir(&old, dir.path()).unwrap();
        assert_eq!(mode(&old), 0o600);
    }

    #[test]
    fn a_link_in_the_place_of_a_lock_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, aim) = (dir.path().join("lock"), dir.path().join("aim"));
        fs::write(&aim, "precious").unwrap();
        std::os::unix::fs::symlink(&aim, &lock).unwrap();
        assert!(matches!(Lock::data_dir(&lock, dir.path()), Err(LockError::Io { .. })));
        assert_eq!(fs::read_to_string(&aim).unwrap(), "precious");
    }
}
