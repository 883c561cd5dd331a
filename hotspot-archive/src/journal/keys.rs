//! Keys of journals and states: one per file, made with it, destroyed with it.
//!
//! Sealed segments can be opened by their recipients only; what is not sealed yet must be read by the gateway itself, so its key
//! lies there. A key is only as old as its file: whoever takes a gateway away reads what was open, and nothing of what was sealed
//! before, not even from blocks the file system has not yet used again.

use std::fs;
use std::io;
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
    ///
    /// One that is there already stays in use: an earlier attempt at the same file may be what is found after a power cut.
    pub(super) fn create(&self, file: &Path) -> Result<Option<FrameKey>, JournalError> {
        if !self.encrypts {
            return Ok(None);
        }
        let path = self.path(file);
        let failed = |source| JournalError::Io { operation: "created", path: path.clone(), source };
        durable::make_dir(&self.dir).map_err(failed)?;
        if let Some(key) = self.find(file)? {
            durable::sync_dir(&self.dir).map_err(failed)?;
            return Ok(Some(key));
        }
        let mut key = Zeroizing::new([0; 32]);
        sealed::fill_random(&mut *key).ok_or_else(|| failed(io::Error::other("no random bytes")))?;
        durable::write_secret(&path, &key[..]).map_err(failed)?;
        FrameKey::new(&key).ok_or_else(|| failed(io::ErrorKind::InvalidData.into())).map(Some)
    }

    /// The key of an encrypted file.
    pub(super) fn open(&self, file: &Path) -> Result<FrameKey, JournalError> {
        self.find(file)?.ok_or_else(|| JournalError::NoKey { path: file.to_path_buf(), key: self.path(file) })
    }

    /// The key of a file; `None` where there is none, or one that is not whole.
    pub(super) fn find(&self, file: &Path) -> Result<Option<FrameKey>, JournalError> {
        let path = self.path(file);
        match fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => Ok(bytes.as_slice().try_into().ok().and_then(FrameKey::new)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(JournalError::Io { operation: "read", path, source }),
        }
    }

    /// Destroys the key of a file that is no longer needed.
    pub fn forget(&self, file: &Path) -> io::Result<()> {
        durable::shred(&self.path(file))
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
            let is_used = |dir: &PathBuf| dir.join(name).exists() || damaged_name(&dir.join(name)).exists();
            if path.extension().is_some_and(|kind| kind == "key") && !dirs.iter().any(is_used) {
                durable::shred(&path)?;
            }
        }
        Ok(())
    }

    /// Files are written under a temporary name first, and kept under another where they are damaged: the key has the name between.
    fn path(&self, file: &Path) -> PathBuf {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        self.dir.join(format!("{}.key", name.trim_end_matches(".tmp").trim_end_matches(DAMAGED)))
    }
}

const DAMAGED: &str = ".damaged";

/// Where a damaged journal is kept after what was whole of it is sealed.
#[must_use]
pub fn damaged_name(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(DAMAGED);
    name.into()
}
