//! State files: what sealing one segment hands to the next, in the journal's own format.

use std::fs;
use std::path::Path;

use crate::durable;
use crate::entry::{Entry, JournalHeader};
use crate::journal::{JournalError, JournalKeys, JournalWriter, Tail, replay};

/// Writes a state so that it is there whole or not at all.
pub fn write(path: &Path, header: &JournalHeader, entries: &[Entry], keys: &JournalKeys) -> Result<(), JournalError> {
    let failed = |source| JournalError::Io { operation: "written", path: path.to_path_buf(), source };
    let temporary = durable::temporary_name(path);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let mut writer = JournalWriter::create(&temporary, header, keys)?;
    for entry in entries {
        writer.append(entry)?;
    }
    writer.append(&Entry::Closed { at_ns: header.opened_ns, shutdown: false })?;
    writer.commit()?;
    fs::rename(&temporary, path).map_err(failed)?;
    path.parent().map_or(Ok(()), durable::sync_dir).map_err(failed)
}

/// A state as it was read.
pub struct Read {
    pub entries: Vec<Entry>,
    /// Whether that is all there was.
    pub is_whole: bool,
}

/// Reads a state: what is left of it, where it is damaged or gone.
pub fn read(path: &Path, keys: &JournalKeys) -> Result<Read, JournalError> {
    let mut entries = Vec::new();
    let replayed = match replay(path, keys, |entry| entries.push(entry)) {
        Ok(replayed) => replayed,
        Err(JournalError::NotAJournal { .. } | JournalError::NoKey { .. }) => {
            return Ok(Read { entries, is_whole: false });
        }
        Err(JournalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Read { entries, is_whole: false });
        }
        Err(error) => return Err(error),
    };
    let is_whole = replayed.damage.is_empty()
        && matches!(replayed.tail, Tail::Clean { .. })
        && matches!(entries.last(), Some(Entry::Closed { .. }));
    Ok(Read { entries, is_whole })
}
