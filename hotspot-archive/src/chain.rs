//! The chain: what each line means, and whether it follows from the line before. No I/O.
//!
//! One [`ChainCheck`] reads the lines of one gateway in order. It knows which key signs (each epoch's last line names the next) and
//! what the next line must say, and puts into words whatever is otherwise. The format is in `docs/formats/manifest.md`.

use std::collections::HashMap;

use ed25519_dalek::VerifyingKey;
use hotspot_core::WallNs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::manifest::{EVENT_FORMAT, Event, EventLine, FORMAT, Line, NO_LINE, split_signature, to_hex};
use crate::signing::{is_signed, key_id, parse_public_key};

/// Version of checkpoints.
pub const CHECKPOINT_FORMAT: u32 = 1;

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

/// The head of a chain at some moment, without its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// [`CHECKPOINT_FORMAT`].
    pub checkpoint: u32,
    pub gateway: String,
    /// Number of the last line, from 1.
    pub line: u64,
    /// The last sequence sealed, 0 for none.
    pub sequence: u64,
    pub at_ns: WallNs,
    /// SHA-256 of the last line.
    pub hash: String,
    pub key: String,
}

/// A checkpoint as it was kept: behind whatever a log puts before it.
pub struct SignedCheckpoint {
    pub checkpoint: Checkpoint,
    signed: String,
    signature: String,
}

/// Finds the checkpoint in a line of text; `None` where there is none.
#[must_use]
pub fn parse_checkpoint(text: &str) -> Option<SignedCheckpoint> {
    let text = &text[text.find("{\"checkpoint\":")?..];
    let text = &text[..=text.rfind('}')?];
    let (signed, signature) = split_signature(text)?;
    let checkpoint: Checkpoint = serde_json::from_str(&signed).ok()?;
    let signature = signature.to_owned();
    (checkpoint.checkpoint == CHECKPOINT_FORMAT).then_some(SignedCheckpoint { checkpoint, signed, signature })
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

    /// Compares the chain with its head as it was kept elsewhere. `None`: it is there, as it was.
    #[must_use]
    pub fn compare(&self, kept: &SignedCheckpoint) -> Option<String> {
        let checkpoint = &kept.checkpoint;
        let lines = self.hashes.len() as u64;
        let (line, sequence) = (checkpoint.line, checkpoint.sequence);
        if line > lines {
            return Some(format!(
                "ends at line {lines}, but had {line} lines up to sequence {sequence}: its end was cut off"
            ));
        }
        let hash = usize::try_from(line).ok().and_then(|line| self.hashes.get(line.checked_sub(1)?));
        let Some(hash) = hash else { return Some("the checkpoint names no line".to_owned()) };
        if to_hex(hash) != checkpoint.hash {
            return Some(format!("line {line} is not the one that was there when the checkpoint was made"));
        }
        // The line that ends an epoch may be the head while either key signs.
        let is_theirs = |(key, ended): &(VerifyingKey, Option<u64>)| {
            ended.is_none_or(|last_line| line <= last_line)
                && key_id(key) == checkpoint.key
                && is_signed(key, &kept.signed, &kept.signature)
        };
        (!self.epochs.iter().any(is_theirs)).then(|| format!("the checkpoint of line {line} is not signed by its key"))
    }
}
