//! State files: what sealing one segment hands to the next, in the journal's own format.

use std::fs;
use std::path::Path;

use crate::durable;
use crate::entry::{Entry, JournalHeader};
use crate::journal::{JournalError, JournalKeys, JournalWriter, Tail, replay};

/// What is written of a state at a time: it is never all in memory once more.
const PENDING_MAX: usize = 4 << 20;

/// Writes a state so that it is there whole or not at all.
pub fn write(
    path: &Path,
    header: &JournalHeader,
    entries: impl IntoIterator<Item = Entry>,
    keys: &JournalKeys,
) -> Result<(), JournalError> {
    let failed = |source| JournalError::Io { operation: "written", path: path.to_path_buf(), source };
    let temporary = durable::temporary_name(path);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let mut writer = JournalWriter::create(&temporary, header, keys)?;
    for entry in entries {
        append(&mut writer, entry)?;
        if writer.mark() >= PENDING_MAX {
            writer.commit()?;
        }
    }
    writer.append(&Entry::Closed { at_ns: header.opened_ns, shutdown: false })?;
    writer.commit()?;
    fs::rename(&temporary, path).map_err(failed)?;
    durable::sync_dir(durable::parent(path)).map_err(failed)
}

/// Appends an entry; reports that are too many for a frame in several.
fn append(writer: &mut JournalWriter, entry: Entry) -> Result<(), JournalError> {
    match (writer.append(&entry), entry) {
        (Err(JournalError::TooLarge { .. }), Entry::Sessions(mut facts)) if facts.len() > 1 => {
            let rest = facts.split_off(facts.len() / 2);
            append(writer, Entry::Sessions(facts))?;
            append(writer, Entry::Sessions(rest))
        }
        (outcome, _) => outcome,
    }
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

#[cfg(test)]
mod tests {
    use hotspot_core::fact::{IdentitySource, SessionEvent, SessionFact};

    use super::*;
    use crate::journal::PAYLOAD_MAX;

    #[test]
    fn reports_that_are_too_many_for_a_frame_are_written_in_several() {
        let fact = |number: usize| SessionFact {
            event: SessionEvent::Start,
            source: IdentitySource::Portal,
            session_id: format!("{number}"),
            user: Some("x".repeat(100_000)),
            auth_method: None,
            client_mac: None,
            client_ips: Vec::new(),
            client_prefixes: Vec::new(),
            ap_mac: None,
            ssid: None,
            nas: None,
            nas_port: None,
            at_ns: 1,
            started_ns: None,
            received_ns: 1,
            counters: None,
            end_cause: None,
            interim_interval_s: None,
            details: None,
        };
        let facts: Vec<SessionFact> = (0..512).map(fact).collect();
        assert!(facts.len() * 100_000 > 2 * PAYLOAD_MAX, "or this tests nothing");
        let dir = tempfile::tempdir().unwrap();
        let (path, keys) = (dir.path().join("1.state"), JournalKeys::none());
        let header = JournalHeader {
            sequence: 1,
            site: "s".into(),
            gateway: "g".into(),
            boot_id: "b".into(),
            opened_ns: 1,
            software: "test".into(),
            clock: None,
        };
        write(&path, &header, [Entry::Sessions(facts.clone())], &keys).unwrap();
        let state = read(&path, &keys).unwrap();
        assert!(state.is_whole);
        let found = state
            .entries
            .into_iter()
            .filter_map(|entry| if let Entry::Sessions(facts) = entry { Some(facts) } else { None });
        assert!(found.flatten().eq(facts));
    }
}
