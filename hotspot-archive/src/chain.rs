//! The chain: what each line means, and whether it follows from the line before. No I/O.
//!
//! One [`ChainCheck`] reads the lines of one gateway in order. It knows which key signs (each epoch's last line names the next) and
//! what the next line must say, and puts into words whatever is otherwise. The format is in `docs/formats/manifest.md`.

use std::collections::HashMap;

use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

pub use crate::checkpoint::{CHECKPOINT_FORMAT, Checkpoint, SignedCheckpoint, parse_checkpoint};
use crate::manifest::{EVENT_FORMAT, Event, EventLine, FORMAT, Line, NO_LINE, split_signature, to_hex};
use crate::signing::{is_signed, key_id, parse_public_key};

/// A line's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Segment(Line),
    Event(EventLine),
}

impl Record {
    #[must_use]
    pub fn gateway(&self) -> &str {
        match self {
            Self::Segment(line) => &line.gateway,
            Self::Event(line) => &line.gateway,
        }
    }

    fn prev(&self) -> &str {
        match self {
            Self::Segment(line) => &line.prev,
            Self::Event(line) => &line.prev,
        }
    }

    fn key(&self) -> &str {
        match self {
            Self::Segment(line) => &line.key,
            Self::Event(line) => &line.key,
        }
    }
}

/// A line of any kind as text, taken apart.
pub struct Signed<'a> {
    pub record: Record,
    pub signed: String,
    pub signature: &'a str,
}

/// Takes a line apart; `None` where it is not one.
#[must_use]
pub fn parse(text: &str) -> Option<Signed<'_>> {
    let (signed, signature) = split_signature(text)?;
    // Nearly all lines are of segments.
    let record = match serde_json::from_str::<Line>(&signed) {
        Ok(line) if line.format == FORMAT => Record::Segment(line),
        _ => {
            let line: EventLine = serde_json::from_str(&signed).ok()?;
            (line.format == EVENT_FORMAT).then_some(Record::Event(line))?
        }
    };
    Some(Signed { record, signed, signature })
}

/// One pass over one chain.
pub struct ChainCheck {
    gateway: String,
    /// The keys of the epochs so far, with the last line of each that has ended.
    epochs: Vec<(VerifyingKey, Option<u64>)>,
    prev: String,
    sequence: u64,
    hashes: Vec<[u8; 32]>,
    /// Files deleted, with the line that says so.
    deleted: HashMap<String, (u64, String)>,
}

impl ChainCheck {
    /// `root` is the key of the first epoch.
    #[must_use]
    pub fn new(gateway: &str, root: VerifyingKey) -> Self {
        Self {
            gateway: gateway.to_owned(),
            epochs: vec![(root, None)],
            prev: NO_LINE.to_owned(),
            sequence: 0,
            hashes: Vec::new(),
            deleted: HashMap::new(),
        }
    }

    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The sequence that would come next.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.sequence + 1
    }

    /// Line and hash of a file that a line says is deleted.
    #[must_use]
    pub fn deleted(&self, path: &str) -> Option<&(u64, String)> {
        self.deleted.get(path)
    }

    pub(crate) fn all_deleted(&self) -> &HashMap<String, (u64, String)> {
        &self.deleted
    }

    /// Takes the next line, without its line feed. Says what is wrong with it.
    pub fn push(&mut self, bytes: &[u8], mut find: impl FnMut(String)) -> Option<Record> {
        let hash = Sha256::digest(bytes);
        self.hashes.push(hash.into());
        let prev = std::mem::replace(&mut self.prev, to_hex(&hash));
        let Some(line) = std::str::from_utf8(bytes).ok().and_then(parse) else {
            find("is not a manifest line".to_owned());
            return None;
        };
        let is_genuine = self.check_signature(&line, &mut find);
        if line.record.prev() != prev {
            find("does not follow the line before it: lines were removed, reordered or changed".to_owned());
        }
        if line.record.gateway() != self.gateway {
            find(format!("belongs to gateway {}", line.record.gateway()));
        }
        match &line.record {
            Record::Segment(segment) => {
                if segment.sequence != self.sequence + 1 {
                    find(format!("has sequence {}, expected {}", segment.sequence, self.sequence + 1));
                }
                self.sequence = segment.sequence;
            }
            // Nobody else names a key or declares a file deleted.
            Record::Event(event) if is_genuine => self.apply(&event.event, &mut find),
            Record::Event(_) => {}
        }
        Some(line.record)
    }

    fn check_signature(&self, line: &Signed<'_>, find: &mut impl FnMut(String)) -> bool {
        let (key, _) = &self.epochs[self.epochs.len() - 1];
        let name = line.record.key();
        if name != key_id(key) {
            let earlier = self.epochs.iter().position(|(key, _)| key_id(key) == name);
            find(match earlier {
                Some(at) => format!("was signed with the key of epoch {}, which had ended", at + 1),
                None => format!("was signed with another key ({name}, expected {})", key_id(key)),
            });
            return false;
        }
        let is_genuine = is_signed(key, &line.signed, line.signature);
        if !is_genuine {
            find("the signature does not fit the line: it was changed".to_owned());
        }
        is_genuine
    }

    fn apply(&mut self, event: &Event, find: &mut impl FnMut(String)) {
        let number = self.hashes.len() as u64;
        match event {
            Event::Epoch { epoch, public } => {
                let expected = self.epochs.len() as u64 + 1;
                if *epoch != expected {
                    find(format!("begins epoch {epoch}, expected {expected}"));
                }
                match parse_public_key(public) {
                    None => find("names a key that is none".to_owned()),
                    Some(key) => {
                        if let Some((_, last_line)) = self.epochs.last_mut() {
                            *last_line = Some(number);
                        }
                        self.epochs.push((key, None));
                    }
                }
            }
            Event::Deleted { files, .. } => {
                for file in files {
                    self.deleted.insert(file.path.clone(), (number, file.sha256.clone()));
                }
            }
        }
    }

    /// How many lines there were so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.hashes.len() as u64
    }

    /// SHA-256 of a line, by its number from 1.
    #[must_use]
    pub fn hash(&self, line: u64) -> Option<&[u8; 32]> {
        self.hashes.get(usize::try_from(line).ok()?.checked_sub(1)?)
    }

    /// The keys of the epochs so far, with the last line of each that has ended.
    pub(crate) fn epochs(&self) -> &[(VerifyingKey, Option<u64>)] {
        &self.epochs
    }
}
