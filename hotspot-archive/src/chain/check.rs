//! One pass over one chain: does each line follow from those before it, and may it say what it says?
//!
//! A [`ChainCheck`] reads the lines of one gateway in order. It knows which key signs (each epoch's last line names the next), what the
//! next line must say, and what its [`Ledger`] allows; whatever is otherwise it puts into words, and takes no part in. No I/O.

use ed25519_dalek::VerifyingKey;
use hotspot_core::WallNs;
use sha2::{Digest, Sha256};

use super::times::Times;
use super::{Deletion, Event, EventLine, Ledger, NO_LINE, Record, parse};
use crate::manifest::to_hex;
use crate::policy::{DAY_NS, Policy};
use crate::signing::{is_signed, key_id, parse_public_key};

/// How bad it is what a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing, and nothing is wrong.
    Notice,
    /// Needs an explanation that the archive does not give.
    Doubt,
    /// Something was changed, removed, or done without the right to.
    Damage,
}

/// What a check found about a line, or about the chain as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// From 1.
    pub line: Option<u64>,
    pub severity: Severity,
    pub what: String,
}

/// What a reader knows beside the chain.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Now, by the reader's clock: a line from the future deletes nothing.
    pub now_ns: Option<WallNs>,
    /// The last line until which the gateway is trusted. What later lines do is not done.
    pub trusted_until: Option<u64>,
    /// How long records have to be kept, whatever the chain says of it.
    pub policy: Policy,
}

/// One pass over one chain.
pub struct ChainCheck {
    gateway: String,
    beside: Beside,
    /// The keys of the epochs so far, with the last line of each that has ended.
    epochs: Vec<(VerifyingKey, Option<u64>)>,
    prev: String,
    sequence: u64,
    hashes: Vec<[u8; 32]>,
    /// A line stated what lines of early versions did not, so no later one may be one of those.
    is_strict: bool,
    times: Times,
    ledger: Ledger,
}

impl ChainCheck {
    /// `root` is the key of the first epoch.
    #[must_use]
    pub fn new(gateway: &str, root: VerifyingKey, beside: Beside) -> Self {
        let ledger = Ledger::keeping(beside.policy.clone());
        Self {
            gateway: gateway.to_owned(),
            beside,
            epochs: vec![(root, None)],
            prev: NO_LINE.to_owned(),
            sequence: 0,
            hashes: Vec::new(),
            is_strict: false,
            times: Times::default(),
            ledger,
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

    /// What the lines add up to.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Hashes of the lines, in order.
    #[must_use]
    pub fn hashes(&self) -> &[[u8; 32]] {
        &self.hashes
    }

    /// Lines so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.hashes.len() as u64
    }

    /// SHA-256 of a line, which counts from 1.
    #[must_use]
    pub fn hash(&self, line: u64) -> Option<&[u8; 32]> {
        self.hashes.get(usize::try_from(line.checked_sub(1)?).ok()?)
    }

    /// Hash of the last line; [`NO_LINE`] where there is none.
    #[must_use]
    pub fn head(&self) -> &str {
        &self.prev
    }

    /// The keys of the epochs, with the last line of each that has ended.
    #[must_use]
    pub fn epochs(&self) -> &[(VerifyingKey, Option<u64>)] {
        &self.epochs
    }

    /// The key that signs the next line.
    #[must_use]
    pub fn key(&self) -> &VerifyingKey {
        &self.epochs[self.epochs.len() - 1].0
    }

    /// Whether a line is one that the reader trusts the gateway to have written.
    #[must_use]
    pub fn is_trusted(&self, line: u64) -> bool {
        self.beside.trusted_until.is_none_or(|last| line <= last)
    }

    /// Takes the next line, without its line feed, and checks its signature.
    pub fn push(&mut self, bytes: &[u8], mut find: impl FnMut(Remark)) -> Option<Record> {
        let hash = Sha256::digest(bytes).into();
        let number = self.lines() + 1;
        let mut damage = |what: String| find(Remark { line: Some(number), severity: Severity::Damage, what });
        let Some(line) = std::str::from_utf8(bytes).ok().and_then(parse) else {
            damage("is not a manifest line".to_owned());
            self.hashes.push(hash);
            self.prev = to_hex(&hash);
            return None;
        };
        let signed = self.check_key(&line.record).and_then(|()| {
            let is_genuine = is_signed(self.key(), &line.signed, line.signature);
            if is_genuine { Ok(()) } else { Err("the signature does not fit the line: it was changed".to_owned()) }
        });
        let is_genuine = signed.is_ok();
        if let Err(what) = signed {
            damage(what);
        }
        self.take(&line.record, hash, is_genuine, &mut find);
        Some(line.record)
    }

    /// Whether a line names the key whose turn it is.
    pub(super) fn check_key(&self, record: &Record) -> Result<(), String> {
        let (name, expected) = (record.key(), key_id(self.key()));
        if name == expected {
            return Ok(());
        }
        let earlier = self.epochs.iter().position(|(key, _)| key_id(key) == name);
        Err(match earlier {
            Some(at) => format!("was signed with the key of epoch {}, which had ended", at + 1),
            None => format!("was signed with another key ({name}, expected {expected})"),
        })
    }

    /// Whether a line names the hash of the one before it.
    pub(super) fn follows(&self, record: &Record) -> bool {
        record.prev() == self.prev
    }

    /// Takes the next line. One that is not `is_genuine` does nothing: nobody else names a key or declares a file deleted.
    pub(super) fn take(&mut self, record: &Record, hash: [u8; 32], is_genuine: bool, find: &mut impl FnMut(Remark)) {
        let number = self.lines() + 1;
        let mut damage = |what: String| find(Remark { line: Some(number), severity: Severity::Damage, what });
        if !self.follows(record) {
            damage("does not follow the line before it: lines were removed, reordered or changed".to_owned());
        }
        self.hashes.push(hash);
        self.prev = to_hex(&hash);
        let is_own = record.gateway() == self.gateway;
        if !is_own {
            damage(format!("belongs to gateway {}", record.gateway()));
        }
        if record.is_early() && self.is_strict {
            damage("is of an early format, though lines before it are not".to_owned());
        }
        if let Record::Segment(line) = record {
            if line.sequence != self.sequence + 1 {
                damage(format!("has sequence {}, expected {}", line.sequence, self.sequence + 1));
            }
            self.sequence = line.sequence;
        }
        if is_genuine && is_own {
            self.is_strict |= !record.is_early();
            self.apply(number, record, find);
        }
    }

    fn apply(&mut self, number: u64, record: &Record, find: &mut impl FnMut(Remark)) {
        let now_ns = self.beside.now_ns;
        let mut timed = |line, severity, what| find(Remark { line: Some(line), severity, what });
        self.times.push(number, record, now_ns, &mut timed);
        match record {
            Record::Segment(line) => {
                self.ledger.advance(line.sealed_ns, line.clock.as_ref());
                few(number, find, |damage| self.ledger.introduce(number, line, damage));
            }
            Record::Event(line) => {
                self.ledger.advance(line.at_ns, line.clock.as_ref());
                few(number, find, |damage| self.apply_event(number, line, damage));
            }
        }
    }

    fn apply_event(&mut self, number: u64, line: &EventLine, damage: &mut dyn FnMut(String)) {
        let is_trusted = self.is_trusted(number);
        match &line.event {
            Event::Epoch { epoch, public } => self.begin_epoch(number, *epoch, public, damage),
            Event::Policy(policy) if is_trusted => self.ledger.state_policy(number, policy),
            Event::Hold { case, sequences } => {
                if sequences.iter().any(|(first, last)| *first == 0 || first > last) {
                    damage("holds what is no range of sequences".to_owned());
                }
                self.ledger.hold(case, sequences);
            }
            Event::Lifted { case } if is_trusted => {
                if !self.ledger.lift(case) {
                    damage(format!("lifts {case}, which nothing was held for"));
                }
            }
            // A gateway that is not trusted neither shortens a promise nor lifts a hold.
            Event::Policy(_) | Event::Lifted { .. } => {}
            Event::Deleted { why, files } => {
                let is_to_come = self.beside.now_ns.is_some_and(|now_ns| line.at_ns > now_ns.saturating_add(DAY_NS));
                let refuse = if !is_trusted {
                    Some("the gateway is not trusted any more")
                } else if is_to_come {
                    Some("the line says a time that has not come yet")
                } else {
                    None
                };
                let deletion = Deletion {
                    line: number,
                    at_ns: line.at_ns,
                    why: why.clone(),
                    files: files.len(),
                    right: 0,
                    unstated: 0,
                };
                self.ledger.delete(deletion, files, &self.gateway, refuse, damage);
            }
        }
    }

    fn begin_epoch(&mut self, number: u64, epoch: u64, public: &str, damage: &mut dyn FnMut(String)) {
        let expected = self.epochs.len() as u64 + 1;
        if epoch != expected {
            damage(format!("begins epoch {epoch}, expected {expected}"));
        }
        match parse_public_key(public) {
            None => damage("names a key that is none".to_owned()),
            Some(key) => {
                if self.epochs.iter().any(|(earlier, _)| *earlier == key) {
                    damage("names a key that signed before: an epoch begins with a new one".to_owned());
                }
                if let Some((_, last_line)) = self.epochs.last_mut() {
                    *last_line = Some(number);
                }
                self.epochs.push((key, None));
            }
        }
    }

    /// Says what only a line to come can explain.
    pub fn finish(&self, mut find: impl FnMut(Remark)) {
        self.times.finish(&mut |line, severity, what| find(Remark { line: Some(line), severity, what }));
    }
}

/// What is wrong with one line, each as a remark; of a line that is full of it the first, and how many more.
fn few(number: u64, find: &mut impl FnMut(Remark), say: impl FnOnce(&mut dyn FnMut(String))) {
    let mut count = 0usize;
    let mut damage = |what: String| find(Remark { line: Some(number), severity: Severity::Damage, what });
    say(&mut |what| {
        count += 1;
        if count <= REMARKS_MAX {
            damage(what);
        }
    });
    if count > REMARKS_MAX {
        damage(format!("and {} more like it", count - REMARKS_MAX));
    }
}

/// Remarks of one kind about one line.
const REMARKS_MAX: usize = 16;
