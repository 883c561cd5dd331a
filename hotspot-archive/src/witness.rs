//! A witness: a second machine that remembers how large each tree was, and signs for a larger one only when it begins with the one before.
//!
//! Owns a state directory with one small file per origin. Guarantees that what it signs for is on disk before the signature leaves, that one process at
//! a time decides, and that no two of its signatures are for trees of which neither begins with the other, as long as the directory is not set back. Network
//! and clock are the caller's.

mod key;
mod request;
mod state;

use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;

pub use self::key::WitnessKey;
pub use self::request::{EPOCHS_MAX, EpochLine, REQUEST_BYTES_MAX, Request, Source};
use self::state::{Lock, Signer, Trusted};
use crate::chain::{self, Record};
use crate::cosignature::{TreeHead, audit_origin, cosign, gateway_origin};
use crate::manifest::{Event, to_hex};
use crate::merkle::{Hash, leaf_hash, verify_consistency, verify_inclusion};
use crate::note::{KeyKind, Note, SignatureLine, VerifierKey};
use crate::signing::{is_signed, key_id, parse_public_key};
use sha2::{Digest, Sha256};

/// Why a witness does not sign. The number of each is the status that C2SP `tlog-witness` has for it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the request is none: {0}")]
    Malformed(String),
    #[error("{origin} is not known here; `hotspot witness trust` makes it known")]
    UnknownOrigin { origin: String },
    #[error("{origin}: the checkpoint is not signed by the key that may sign for line {size}: {why}")]
    NotSigned { origin: String, size: u64, why: &'static str },
    #[error(
        "{origin}: {size} lines were signed for last, and the request goes on from {old}; ask again with --old {size}"
    )]
    Conflict { origin: String, old: u64, size: u64 },
    #[error(
        "{origin}: {why}. Nothing was signed: this is what the witness is there to find. Keep the request, and ask the gateway why"
    )]
    Inconsistent { origin: String, why: String },
    #[error("the clock is at {now_s}, and signed for {origin} at {last_s}: set the clock right")]
    ClockIsBehind { origin: String, now_s: u64, last_s: u64 },
    #[error("the state {} cannot be {operation}: {source}", path.display())]
    State { operation: &'static str, path: PathBuf, source: std::io::Error },
}

/// A witness with its state and its key.
pub struct Witness {
    dir: PathBuf,
    key: WitnessKey,
}

impl Witness {
    /// `dir` is made when an origin is first trusted.
    #[must_use]
    pub fn new(dir: &Path, key: WitnessKey) -> Self {
        Self { dir: dir.to_path_buf(), key }
    }

    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        self.key.verifier()
    }

    /// How many lines of an origin were signed for last.
    pub fn size(&self, origin: &str) -> Result<u64, Refusal> {
        let lock = Lock::take(&self.dir)?;
        Ok(lock.read(origin)?.ok_or_else(|| Refusal::UnknownOrigin { origin: origin.to_owned() })?.size)
    }

    /// The key of a gateway's first epoch, as it was made known here.
    pub fn first_key(&self, gateway: &str) -> Result<VerifyingKey, Refusal> {
        let origin = gateway_origin(gateway);
        let trusted = Lock::take(&self.dir)?.read(&origin)?;
        let key = trusted.and_then(|trusted| trusted.signer).and_then(|signer| parse_public_key(&signer.first));
        key.ok_or(Refusal::UnknownOrigin { origin })
    }

    /// Judges a request about a gateway's chain, and cosigns its checkpoint. `now_s`: seconds since 1970.
    pub fn add_checkpoint(&self, request: &Request, now_s: u64) -> Result<SignatureLine, Refusal> {
        let head = request.head()?;
        let lock = Lock::take(&self.dir)?;
        let unknown = || Refusal::UnknownOrigin { origin: head.origin.clone() };
        // What nobody signs is not believed from a request: see `see_audit_log`.
        let mut trusted = lock.read(&head.origin)?.filter(|trusted| trusted.signer.is_some()).ok_or_else(unknown)?;
        if let Some(signer) = &mut trusted.signer {
            let passed = follow_epochs(signer, request, &head)?;
            check_signer(signer, passed, request, &head)?;
        }
        self.cosign(&lock, trusted, request.old, &request.proof, &head, now_s)
    }

    /// Looks at an audit log, whose lines the witness read itself, and cosigns it. Nobody signs the log: the cosignature says that these lines were
    /// there at this time and began with those of before, and not who wrote them.
    pub fn see_audit_log(&self, name: &str, hashes: &[[u8; 32]], now_s: u64) -> Result<Note, Refusal> {
        let origin = audit_origin(name);
        let lock = Lock::take(&self.dir)?;
        let trusted = lock.read(&origin)?.ok_or_else(|| Refusal::UnknownOrigin { origin: origin.clone() })?;
        let leaves: Vec<Hash> = hashes.iter().map(|hash| leaf_hash(hash)).collect();
        let (head, proof, old) = request::grown(origin, &leaves, trusted.size)?;
        let line = self.cosign(&lock, trusted, old, &proof, &head, now_s)?;
        Ok(Note { text: head.text(), signatures: vec![line] })
    }

    /// The one place where a cosignature is made: the tree must begin with the one before, and is remembered first.
    fn cosign(
        &self,
        lock: &Lock,
        mut trusted: Trusted,
        old: u64,
        proof: &[Hash],
        head: &TreeHead,
        now_s: u64,
    ) -> Result<SignatureLine, Refusal> {
        let origin = head.origin.clone();
        if old > head.size {
            return Err(Refusal::Malformed(format!("it goes on from {old} lines to {}, which are fewer", head.size)));
        }
        if old != trusted.size {
            return Err(Refusal::Conflict { origin, old, size: trusted.size });
        }
        let old_root = trusted.root()?;
        if !verify_consistency(old, &old_root, head.size, &head.root, proof) {
            let why = if old == head.size && proof.is_empty() {
                format!("another tree of {old} lines was signed for before")
            } else {
                format!("the tree of {} lines does not begin with that of {old} lines", head.size)
            };
            return Err(Refusal::Inconsistent { origin, why });
        }
        if now_s < trusted.at_s {
            return Err(Refusal::ClockIsBehind { origin, now_s, last_s: trusted.at_s });
        }
        (trusted.size, trusted.root, trusted.at_s) = (head.size, to_hex(&head.root), now_s);
        lock.write(&trusted)?;
        Ok(cosign(&self.key.name, &self.key.key, &head.text(), now_s))
    }
}

/// Lets a witness sign for a gateway's chain, of whose first epoch this is the key.
pub fn trust(dir: &Path, gateway: &str, public: &VerifyingKey) -> Result<(), Refusal> {
    let origin = gateway_origin(gateway);
    let lock = Lock::make(dir)?;
    let first = to_hex(public.as_bytes());
    match lock.read(&origin)? {
        None => lock.write(&Trusted::new(&origin, Some(Signer { public: first.clone(), first, epoch: 1, began: 0 }))),
        Some(known) if known.signer.as_ref().is_some_and(|signer| signer.first == first) => Ok(()),
        Some(_) => Err(Refusal::Inconsistent { origin, why: "it is known here with another key".to_owned() }),
    }
}

/// Lets a witness sign for an audit log that it reads itself.
pub fn trust_audit_log(dir: &Path, name: &str) -> Result<(), Refusal> {
    let origin = audit_origin(name);
    let lock = Lock::make(dir)?;
    match lock.read(&origin)? {
        None => lock.write(&Trusted::new(&origin, None)),
        Some(_) => Ok(()),
    }
}

/// Learns the epochs that a request proves: each line is in the submitted tree at its place, and signed by the key before. The key that signed
/// before the last one that began.
fn follow_epochs(signer: &mut Signer, request: &Request, head: &TreeHead) -> Result<Option<VerifyingKey>, Refusal> {
    let mut before = None;
    for epoch in &request.epochs {
        // Known from an earlier request.
        if epoch.line <= signer.began {
            continue;
        }
        let refuse = |why: &str| Refusal::Inconsistent {
            origin: head.origin.clone(),
            why: format!("line {} is to begin an epoch, and {why}", epoch.line),
        };
        let leaf = leaf_hash(&Sha256::digest(epoch.text.as_bytes()));
        let place = epoch.line.checked_sub(1).ok_or_else(|| refuse("there is no such line"))?;
        if !verify_inclusion(&leaf, place, head.size, &epoch.path, &head.root) {
            return Err(refuse("is not in the tree at its place"));
        }
        let key = parse_public_key(&signer.public).ok_or_else(|| refuse("the key before is none"))?;
        let line = chain::parse(&epoch.text).ok_or_else(|| refuse("is no line"))?;
        let Record::Event(event) = &line.record else { return Err(refuse("is about something else")) };
        let Event::Epoch { epoch: number, public } = &event.event else {
            return Err(refuse("is about something else"));
        };
        let is_ours = gateway_origin(&event.gateway) == head.origin && *number == signer.epoch + 1;
        if !is_ours || event.key != key_id(&key) || !is_signed(&key, &line.signed, line.signature) {
            return Err(refuse("is not signed by the key of the epoch before"));
        }
        parse_public_key(public).ok_or_else(|| refuse("names a key that is none"))?;
        before = Some(key);
        (signer.public, signer.epoch, signer.began) = (public.clone(), *number, epoch.line);
    }
    Ok(before)
}

/// The key in use must have signed the note; where the last line is the one that ends an epoch, the key of that epoch may have.
fn check_signer(
    signer: &Signer,
    before: Option<VerifyingKey>,
    request: &Request,
    head: &TreeHead,
) -> Result<(), Refusal> {
    let refuse = |why| Refusal::NotSigned { origin: head.origin.clone(), size: head.size, why };
    let current = parse_public_key(&signer.public).ok_or_else(|| refuse("the key known here is none"))?;
    let keys = [Some(current), before.filter(|_| head.size == signer.began)];
    let mut is_signed = false;
    for key in keys.into_iter().flatten() {
        let verifier = VerifierKey { name: head.origin.clone(), kind: KeyKind::Note, key };
        match request.note.is_signed_by(&verifier) {
            Some(true) => is_signed = true,
            Some(false) => return Err(refuse("its signature does not fit")),
            None => {}
        }
    }
    let why = "it is another key's. A key whose epoch has ended signs no more; a new one has to be shown by the line that names it";
    if is_signed { Ok(()) } else { Err(refuse(why)) }
}

#[cfg(test)]
mod tests;
