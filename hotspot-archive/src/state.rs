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

/// Reads a state. One that is not whole is none.
pub fn read(path: &Path, keys: &JournalKeys) -> Result<Option<Vec<Entry>>, JournalError> {
    let mut entries = Vec::new();
    let replayed = replay(path, keys, |entry| entries.push(entry))?;
    let whole = replayed.damage.is_empty()
        && matches!(replayed.tail, Tail::Clean { .. })
        && matches!(entries.last(), Some(Entry::Closed { .. }));
    Ok(whole.then_some(entries))
}
