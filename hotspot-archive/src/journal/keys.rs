//! Keys of journals and states: one per file, made with it, destroyed with it.
//!
//! Sealed segments can be opened by their recipients only; what is not sealed yet must be read by the gateway itself, so its key
//! lies there. A key is only as old as its file: whoever takes a gateway away reads what was open, and nothing of what was sealed
//! before, not even from blocks the file system has not yet used again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::JournalError;
use crate::durable;
use crate::sealed::{self, FrameKey};

/// Where the keys of journals and states lie, and whether new ones get one.
#[derive(Clone, Debug)]
pub struct JournalKeys {
    dir: PathBuf,
    encrypts: bool,
}

impl JournalKeys {
    /// New files are encrypted if `encrypts`; those that are encrypted can be read either way.
    #[must_use]
    pub fn new(dir: PathBuf, encrypts: bool) -> Self {
        Self { dir, encrypts }
    }

    /// Nothing is encrypted, and nothing that is can be read.
    #[must_use]
    pub fn none() -> Self {
        Self::new(PathBuf::new(), false)
    }

    /// A key for a file that is about to be made, on disk before the file is.
    pub(super) fn create(&self, file: &Path) -> Result<Option<FrameKey>, JournalError> {
        if !self.encrypts {
            return Ok(None);
        }
        let path = self.path(file);
        let failed = |source| JournalError::Io { operation: "created", path: path.clone(), source };
        let mut key = Zeroizing::new([0; 32]);
        sealed::fill_random(&mut *key).ok_or_else(|| failed(io::Error::other("no random bytes")))?;
        durable::make_dir(&self.dir).map_err(failed)?;
        // One that is there belongs to an attempt that failed: its file never got its name.
        let mut options = OpenOptions::new();
        let mut key_file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(failed)?;
        key_file.write_all(&key[..]).and_then(|()| key_file.sync_all()).map_err(failed)?;
        durable::sync_dir(&self.dir).map_err(failed)?;
        FrameKey::new(&key).ok_or_else(|| failed(io::ErrorKind::InvalidData.into())).map(Some)
    }

    /// The key of an encrypted file.
    pub(super) fn open(&self, file: &Path) -> Result<FrameKey, JournalError> {
        let path = self.path(file);
        let missing = || JournalError::NoKey { path: file.to_path_buf(), key: path.clone() };
        let bytes = match fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            Err(source) => return Err(JournalError::Io { operation: "read", path, source }),
        };
        bytes.as_slice().try_into().ok().and_then(FrameKey::new).ok_or_else(missing)
    }

    /// Destroys the key of a file that is no longer needed.
    pub fn forget(&self, file: &Path) -> io::Result<()> {
        durable::shred(&self.path(file))
    }

    /// A file got another name, and its key with it.
    pub fn keep_as(&self, file: &Path, renamed: &Path) -> io::Result<()> {
        match fs::rename(self.path(file), self.path(renamed)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(_) => Ok(()),
            Ok(()) => durable::sync_dir(&self.dir),
        }
    }

    /// Destroys the keys whose files are gone.
    pub fn forget_orphans(&self, dirs: &[PathBuf]) -> io::Result<()> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default();
            if path.extension().is_some_and(|kind| kind == "key") && !dirs.iter().any(|dir| dir.join(name).exists()) {
                durable::shred(&path)?;
            }
        }
        Ok(())
    }

    /// Files are written under a temporary name first; the key has the final one.
    fn path(&self, file: &Path) -> PathBuf {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        self.dir.join(format!("{}.key", name.trim_end_matches(".tmp")))
    }
}
