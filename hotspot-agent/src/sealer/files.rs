//! What becomes of journals and states that are sealed, and when they were written.

use std::fs;
use std::path::{Path, PathBuf};

use hotspot_archive::journal::{JournalError, JournalKeys, replay};
use hotspot_archive::layout::DataDir;
use hotspot_core::WallNs;
use tracing::warn;

use super::SealError;

/// Removes a journal that is sealed. One that is damaged is kept under another name, because it is evidence; `None`: look.
pub(crate) fn put_away(
    data: &DataDir,
    keys: &JournalKeys,
    sequence: u64,
    is_damaged: Option<bool>,
) -> Result<(), SealError> {
    let path = data.journal(sequence);
    let is_damaged = match is_damaged {
        Some(is_damaged) => is_damaged,
        // Without its key, which goes after it, nobody can look.
        None => match replay(&path, keys, |_| {}) {
            Ok(replayed) => !replayed.damage.is_empty(),
            Err(error) => matches!(error, JournalError::NotAJournal { .. }),
        },
    };
    if !is_damaged {
        return remove(keys, path);
    }
    let kept = keys.set_aside(&path)?;
    warn!(sequence, kept = %kept.display(), "a damaged journal is kept");
    Ok(())
}

/// Removes a journal or state, and with its key whatever the disk may still hold of it.
pub(super) fn remove(keys: &JournalKeys, path: PathBuf) -> Result<(), SealError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(SealError::Remove { path, source });
        }
        Ok(()) | Err(_) => {}
    }
    keys.forget(&path).map_err(|source| SealError::Remove { path, source })
}

/// When a file was written last, as far as the file system knows.
pub(super) fn written_ns(path: &Path) -> WallNs {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let since = written.and_then(|written| written.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|since| WallNs::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

/// When a file was made, as far as the file system knows.
pub(super) fn made_ns(path: &Path) -> WallNs {
    let made = fs::metadata(path).and_then(|metadata| metadata.created().or_else(|_| metadata.modified()));
    let since = made.ok().and_then(|made| made.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|since| WallNs::try_from(since.as_nanos()).ok()).unwrap_or(WallNs::MAX)
}
