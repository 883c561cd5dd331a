//! Replaying: every entry that is whole, and what lies between and behind them.

use std::fs;
use std::path::Path;

use super::{JournalError, JournalKeys, codec, frame};
use crate::entry::Entry;
use crate::sealed::FrameKey;

/// Bytes of a journal that hold no frame although frames follow, or a frame nobody can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    pub from: u64,
    pub to: u64,
}

/// How a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The last frame, or the damage behind it, ends where the file ends.
    Clean { end: u64 },
    /// Behind the last frame lies the beginning of one: a write that a crash cut short.
    Torn { end: u64, file_len: u64 },
}

impl Tail {
    /// Where the last whole frame ends.
    #[must_use]
    pub fn end(self) -> u64 {
        match self {
            Self::Clean { end } | Self::Torn { end, .. } => end,
        }
    }
}

/// What a replay found beside the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub entries: u64,
    pub damage: Vec<Damage>,
    pub tail: Tail,
    /// Number for the next frame.
    pub next_frame: u64,
    /// Bytes of the entries before they were compressed.
    pub content: u64,
    pub encrypted: bool,
}

/// Hands over every whole entry in order. Holds the file in memory.
pub fn replay(path: &Path, keys: &JournalKeys, mut each: impl FnMut(Entry)) -> Result<Replayed, JournalError> {
    let failed = |source| JournalError::Io { operation: "read", path: path.to_path_buf(), source };
    let bytes = fs::read(path).map_err(failed)?;
    let mut decompressor = frame::Decompressor::new().map_err(failed)?;
    let (key, header_is_whole) = opening(&bytes, path, keys)?;
    let mut position = frame::FILE_HEADER_LEN;
    let mut replayed = Replayed {
        entries: 0,
        damage: Vec::new(),
        tail: Tail::Clean { end: position as u64 },
        next_frame: 0,
        content: 0,
        encrypted: key.is_some(),
    };
    if !header_is_whole {
        replayed.damage.push(Damage { from: 0, to: position as u64 });
    }
    while position < bytes.len() {
        let Some((found, next)) = next_frame(&bytes, position, replayed.next_frame) else {
            let (end, file_len) = (position as u64, bytes.len() as u64);
            if frame::is_cut_short(&bytes[position..]) {
                replayed.tail = Tail::Torn { end, file_len };
            } else {
                replayed.damage.push(Damage { from: end, to: file_len });
                replayed.tail = Tail::Clean { end: file_len };
            }
            return Ok(replayed);
        };
        if found != position {
            if !begins_commit_behind(&bytes, found) {
                // The last commit, of which a part is missing: a power cut may have torn it, and then it was not acknowledged.
                let end = bytes.len() as u64;
                replayed.damage.push(Damage { from: position as u64, to: end });
                replayed.tail = Tail::Clean { end };
                return Ok(replayed);
            }
            replayed.damage.push(Damage { from: position as u64, to: found as u64 });
        }
        let end = found + next.len();
        let payload = next.open(key.as_ref(), &mut decompressor);
        match payload.as_ref().and_then(|payload| codec::decode(next.kind, payload)) {
            Some(entry) => {
                each(entry);
                replayed.entries += 1;
                replayed.content += payload.map_or(0, |payload| payload.len() as u64);
            }
            None => replayed.damage.push(Damage { from: found as u64, to: end as u64 }),
        }
        replayed.next_frame = next.sequence.saturating_add(1);
        position = end;
    }
    replayed.tail = Tail::Clean { end: position as u64 };
    Ok(replayed)
}

/// The same of a file that is a journal by its name: where none of it is one any more, or its key is gone, all of it is damage.
pub fn replay_what_is_left(path: &Path, keys: &JournalKeys, each: impl FnMut(Entry)) -> Result<Replayed, JournalError> {
    match replay(path, keys, each) {
        Err(JournalError::NotAJournal { .. } | JournalError::NoKey { .. }) => {
            let failed = |source| JournalError::Io { operation: "read", path: path.to_path_buf(), source };
            let end = fs::metadata(path).map_err(failed)?.len();
            let damage = vec![Damage { from: 0, to: end }];
            Ok(Replayed { entries: 0, damage, tail: Tail::Clean { end }, next_frame: 0, content: 0, encrypted: false })
        }
        outcome => outcome,
    }
}

/// The key a journal is read with, and whether the file's own header is as it was written. Where that is not, or does not fit what
/// lies beside the file, the first frame tells: a changed byte must not cost the frames.
fn opening(bytes: &[u8], path: &Path, keys: &JournalKeys) -> Result<(Option<FrameKey>, bool), JournalError> {
    let said = frame::version(bytes);
    let key = keys.find(path)?;
    match (said, &key) {
        (Some(frame::VERSION_PLAIN), None) | (Some(frame::VERSION_ENCRYPTED), Some(_)) => return Ok((key, true)),
        (Some(_) | None, _) => {}
    }
    let first = next_frame(bytes, frame::FILE_HEADER_LEN.min(bytes.len()), 0).map(|(_, first)| first);
    let opens = |key: Option<&FrameKey>| {
        let mut decompressor = frame::Decompressor::new().ok();
        first.as_ref().zip(decompressor.as_mut()).is_some_and(|(first, with)| first.open(key, with).is_some())
    };
    if opens(None) || (said == Some(frame::VERSION_PLAIN) && !opens(key.as_ref())) {
        return Ok((None, said == Some(frame::VERSION_PLAIN)));
    }
    match key {
        Some(key) if opens(Some(&key)) => Ok((Some(key), said == Some(frame::VERSION_ENCRYPTED))),
        Some(_) | None if said == Some(frame::VERSION_ENCRYPTED) => keys.open(path).map(|key| (Some(key), true)),
        Some(_) | None => Err(JournalError::NotAJournal { path: path.to_path_buf() }),
    }
}

/// The first whole frame at or behind `from` whose number is not lower than expected, and where it is.
fn next_frame(bytes: &[u8], from: usize, expected: u64) -> Option<(usize, frame::Frame<'_>)> {
    (from..bytes.len().saturating_sub(frame::HEADER_LEN - 1))
        .find_map(|at| frame::parse(&bytes[at..]).filter(|found| found.sequence >= expected).map(|found| (at, found)))
}

/// Whether a commit begins at or behind `from`, where a frame is.
fn begins_commit_behind(bytes: &[u8], mut from: usize) -> bool {
    while let Some((at, found)) = next_frame(bytes, from, 0) {
        if frame::begins_commit(found.sequence) {
            return true;
        }
        from = at + found.len();
    }
    false
}

#[cfg(test)]
mod tests {
    use hotspot_core::fact::{FlowDelta, NatEvent, NatFact, NatWatch, NatWatchFact};

    use super::*;
    use crate::entry::{GenerationPart, JournalHeader, RingBatch};
    use crate::journal::JournalWriter;
    use crate::keys::{Identity, Recipients};

    fn header() -> JournalHeader {
        JournalHeader {
            sequence: 1,
            site: "s".into(),
            gateway: "g".into(),
            boot_id: "b".into(),
            opened_ns: 1,
            software: "test".into(),
            clock: None,
        }
    }

    fn sample(number: u64) -> Entry {
        let delta = FlowDelta {
            key: hotspot_common::FlowKey::default(),
            first_ns: 1,
            last_ns: 2,
            packets: number,
            bytes: 60,
            tcp_flags: 2,
        };
        match number % 3 {
            0 => Entry::Part(GenerationPart {
                capture: 1,
                generation: number,
                deltas: vec![delta; 3],
                overflow: Vec::new(),
            }),
            1 => Entry::NatWatch(NatWatchFact { watch: NatWatch::Started, at_ns: 5 }),
            _ => Entry::Ring(RingBatch {
                capture: 1,
                cpu: 0,
                end_position: number,
                opened: Vec::new(),
                evicted: vec![(7, delta)],
                totals: Vec::new(),
            }),
        }
    }

    fn journal(dir: &Path, entries: u64) -> (std::path::PathBuf, Vec<Entry>) {
        let path = dir.join("j");
        let mut writer = JournalWriter::create(&path, &header(), &JournalKeys::none()).unwrap();
        let mut all = vec![Entry::Header(header())];
        for number in 0..entries {
            writer.append(&sample(number)).unwrap();
            writer.commit().unwrap();
            all.push(sample(number));
        }
        (path, all)
    }

    fn read(path: &Path) -> (Vec<Entry>, Replayed) {
        let mut entries = Vec::new();
        let replayed = replay(path, &JournalKeys::none(), |entry| entries.push(entry)).unwrap();
        (entries, replayed)
    }

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let (path, all) = journal(dir.path(), 9);
        let nat = NatFact {
            event: NatEvent::Created,
            at_ns: 3,
            protocol: 6,
            client_ip: [10, 0, 0, 1].into(),
            client_port: 1,
            peer_ip: [203, 0, 113, 1].into(),
            peer_port: 2,
            public_ip: [198, 51, 100, 1].into(),
            public_port: 3,
        };
        let (mut writer, _) = JournalWriter::reopen(&path, &JournalKeys::none(), |_| {}).unwrap();
        writer.append(&Entry::Nat(vec![nat])).unwrap();
        writer.append(&Entry::Closed { at_ns: 9, shutdown: true }).unwrap();
        writer.commit().unwrap();
        let (entries, replayed) = read(&path);
        assert_eq!(entries[..10], all[..]);
        assert_eq!(entries[10..], [Entry::Nat(vec![nat]), Entry::Closed { at_ns: 9, shutdown: true }]);
        assert!(replayed.damage.is_empty());
        assert!(matches!(replayed.tail, Tail::Clean { .. }));
    }

    #[test]
    fn a_journal_cut_at_any_byte_gives_a_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let (path, all) = journal(dir.path(), 4);
        let bytes = fs::read(&path).unwrap();
        let cut = dir.path().join("cut");
        for len in frame::FILE_HEADER_LEN..bytes.len() {
            fs::write(&cut, &bytes[..len]).unwrap();
            let (entries, replayed) = read(&cut);
            assert_eq!(entries, all[..entries.len()], "cut to {len}");
            assert!(entries.len() < all.len());
            assert!(replayed.damage.is_empty(), "a cut is a torn tail, not damage");
            let (_, reopened) = JournalWriter::reopen(&cut, &JournalKeys::none(), |_| {}).unwrap();
            assert_eq!(fs::metadata(&cut).unwrap().len(), reopened.tail.end(), "the torn tail is gone");
        }
    }

    #[test]
    fn any_flipped_byte_is_named_and_costs_at_most_one_entry() {
        let dir = tempfile::tempdir().unwrap();
        let (path, all) = journal(dir.path(), 4);
        let bytes = fs::read(&path).unwrap();
        let flipped = dir.path().join("flipped");
        for at in frame::FILE_HEADER_LEN..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x41;
            fs::write(&flipped, &changed).unwrap();
            let (entries, replayed) = read(&flipped);
            assert_eq!(entries.len(), all.len() - 1, "byte {at}");
            assert!(entries.iter().all(|entry| all.contains(entry)));
            let torn = matches!(replayed.tail, Tail::Torn { .. });
            assert!(torn || replayed.damage.len() == 1, "byte {at}: {replayed:?}");
        }
    }

    #[test]
    fn a_changed_last_frame_is_damage_and_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, all) = journal(dir.path(), 2);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 0x41;
        fs::write(&path, &bytes).unwrap();
        let (mut writer, reopened) = JournalWriter::reopen(&path, &JournalKeys::none(), |_| {}).unwrap();
        assert_eq!(reopened.damage.len(), 1, "it was acknowledged, so it is not a torn tail");
        writer.append(&sample(2)).unwrap();
        writer.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap()[..bytes.len()], bytes, "what was damaged is evidence");
        let (entries, replayed) = read(&path);
        assert_eq!(entries, [all[0].clone(), all[1].clone(), sample(2)]);
        assert_eq!(replayed.damage, reopened.damage);
    }

    #[test]
    fn zeros_behind_the_last_frame_are_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let (path, all) = journal(dir.path(), 2);
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.len() as u64;
        bytes.extend([0; 5000]);
        fs::write(&path, &bytes).unwrap();
        let (entries, replayed) = read(&path);
        assert_eq!((entries, replayed.damage.len()), (all, 0));
        assert_eq!(replayed.tail, Tail::Torn { end, file_len: end + 5000 });
    }

    #[test]
    fn frames_of_a_failed_commit_are_in_the_next_journal_only() {
        let dir = tempfile::tempdir().unwrap();
        let (path, all) = journal(dir.path(), 1);
        let (mut writer, _) = JournalWriter::reopen(&path, &JournalKeys::none(), |_| {}).unwrap();
        writer.append(&sample(1)).unwrap();
        writer.append(&sample(2)).unwrap();
        writer.commit_but_fail_to_flush();
        assert_eq!(read(&path).0.len(), all.len() + 2, "they reached the file, or this tests nothing");
        writer.move_to(&dir.path().join("next"), &header()).unwrap();
        assert_eq!(read(&path).0, all);
        assert_eq!(read(writer.path()).0, [Entry::Header(header()), sample(1), sample(2)]);
    }

    #[test]
    fn what_a_failed_commit_refused_is_taken_back_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = journal(dir.path(), 1);
        let (mut writer, _) = JournalWriter::reopen(&path, &JournalKeys::none(), |_| {}).unwrap();
        writer.append(&sample(1)).unwrap();
        let mark = writer.mark();
        writer.append(&sample(2)).unwrap();
        writer.commit_but_fail_to_flush();
        writer.withdraw(mark);
        writer.append(&sample(3)).unwrap();
        writer.move_to(&dir.path().join("next"), &header()).unwrap();
        assert_eq!(read(writer.path()).0, [Entry::Header(header()), sample(1), sample(3)]);
    }

    #[test]
    fn a_journal_that_cannot_be_made_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        fs::create_dir(dir.path().join("j.tmp")).unwrap();
        assert!(matches!(JournalWriter::create(&path, &header(), &JournalKeys::none()), Err(JournalError::Io { .. })));
        assert!(!path.exists());
        fs::remove_dir(dir.path().join("j.tmp")).unwrap();
        fs::write(dir.path().join("j.tmp"), "HSJ").unwrap();
        drop(JournalWriter::create(&path, &header(), &JournalKeys::none()).unwrap());
        assert_eq!(read(&path).0, [Entry::Header(header())]);
        assert!(
            JournalWriter::create(&path, &header(), &JournalKeys::none()).is_err(),
            "a journal is never written over"
        );
        assert_eq!(read(&path).0, [Entry::Header(header())]);
    }

    #[test]
    fn other_files_are_not_journals() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "PAR1").unwrap();
        assert!(matches!(replay(&path, &JournalKeys::none(), |_| {}), Err(JournalError::NotAJournal { .. })));
    }

    #[test]
    fn a_full_disk_keeps_what_was_not_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let full = Path::new("/dev/full");
        let (path, _) = journal(dir.path(), 1);
        let (mut writer, _) = JournalWriter::reopen(&path, &JournalKeys::none(), |_| {}).unwrap();
        writer.write_to(fs::OpenOptions::new().write(true).open(full).unwrap());
        writer.append(&sample(1)).unwrap();
        assert!(matches!(writer.commit(), Err(JournalError::Io { .. })));
        assert!(matches!(writer.commit(), Err(JournalError::Condemned { .. })), "a failed flush stays failed");
        writer.move_to(&dir.path().join("next"), &header()).unwrap();
        assert_eq!(read(writer.path()).0, [Entry::Header(header()), sample(1)]);
    }

    fn recipients() -> Recipients {
        let texts = [Identity::generate().recipient(), Identity::generate().recipient()];
        Recipients::parse(&texts, false).unwrap()
    }

    fn encrypted_journal(dir: &Path, entries: u64) -> (std::path::PathBuf, JournalKeys, Vec<Entry>) {
        let (path, keys) = (dir.join("1.journal"), JournalKeys::new(dir.join("keys"), Some(recipients())));
        let mut writer = JournalWriter::create(&path, &header(), &keys).unwrap();
        let mut all = vec![Entry::Header(header())];
        for number in 0..entries {
            writer.append(&sample(number)).unwrap();
            writer.commit().unwrap();
            all.push(sample(number));
        }
        (path, keys, all)
    }

    fn read_with(path: &Path, keys: &JournalKeys) -> (Vec<Entry>, Replayed) {
        let mut entries = Vec::new();
        let replayed = replay(path, keys, |entry| entries.push(entry)).unwrap();
        (entries, replayed)
    }

    #[test]
    fn an_encrypted_journal_is_read_and_goes_on_with_its_key_and_is_lost_without() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (path, keys, mut all) = encrypted_journal(dir.path(), 3);
        let key = dir.path().join("keys/1.journal.key");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let (mut writer, _) = JournalWriter::reopen(&path, &keys, |_| {}).unwrap();
        writer.append(&sample(3)).unwrap();
        writer.commit().unwrap();
        all.push(sample(3));
        assert_eq!(read_with(&path, &keys).0, all);
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"test"), "the header names the software");
        keys.forget(&path).unwrap();
        assert!(!key.exists());
        assert!(matches!(replay(&path, &keys, |_| {}), Err(JournalError::NoKey { .. })));
    }

    #[test]
    fn any_flipped_byte_of_an_encrypted_journal_is_named_and_costs_at_most_one_entry() {
        let dir = tempfile::tempdir().unwrap();
        let (path, keys, all) = encrypted_journal(dir.path(), 3);
        let bytes = fs::read(&path).unwrap();
        for at in frame::FILE_HEADER_LEN..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x41;
            fs::write(&path, &changed).unwrap();
            let (entries, replayed) = read_with(&path, &keys);
            assert_eq!(entries.len(), all.len() - 1, "byte {at}");
            assert!(entries.iter().all(|entry| all.contains(entry)));
            assert!(matches!(replayed.tail, Tail::Torn { .. }) || replayed.damage.len() == 1, "byte {at}");
        }
        for len in frame::FILE_HEADER_LEN..bytes.len() {
            fs::write(&path, &bytes[..len]).unwrap();
            let (entries, replayed) = read_with(&path, &keys);
            assert_eq!(entries, all[..entries.len()], "cut to {len}");
            assert!(replayed.damage.is_empty(), "cut to {len}");
        }
    }

    #[test]
    fn a_frame_that_was_put_into_another_place_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let (path, keys, _) = encrypted_journal(dir.path(), 1);
        let mut bytes = fs::read(&path).unwrap();
        let first = frame::FILE_HEADER_LEN;
        // Another kind, with a checksum that fits: only the key's owner can say that it was not written so.
        bytes[first + 4] = 11;
        let len = frame::parse(&fs::read(&path).unwrap()[first..]).unwrap().len();
        let payload = bytes[first + frame::HEADER_LEN..first + len].to_vec();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[first..first + 20]), &payload);
        bytes[first + 20..first + 24].copy_from_slice(&checksum.to_le_bytes());
        assert!(frame::parse(&bytes[first..]).is_some(), "the frame is whole, or this tests nothing");
        fs::write(&path, &bytes).unwrap();
        let (entries, replayed) = read_with(&path, &keys);
        assert_eq!((entries, replayed.damage.len()), (vec![sample(0)], 1));
    }

    #[test]
    fn what_a_failed_commit_left_is_encrypted_again_in_the_next_journal() {
        let dir = tempfile::tempdir().unwrap();
        let (path, keys, all) = encrypted_journal(dir.path(), 1);
        let (mut writer, _) = JournalWriter::reopen(&path, &keys, |_| {}).unwrap();
        writer.append(&sample(1)).unwrap();
        writer.commit_but_fail_to_flush();
        let next = dir.path().join("2.journal");
        writer.move_to(&next, &header()).unwrap();
        assert_eq!(read_with(&path, &keys).0, all);
        keys.forget(&path).unwrap();
        assert_eq!(read_with(writer.path(), &keys).0, [Entry::Header(header()), sample(1)]);
        drop(writer);
        fs::remove_file(&path).unwrap();
        keys.forget_orphans(&[dir.path().to_path_buf()]).unwrap();
        assert!(dir.path().join("keys/2.journal.key").exists());
    }
}
