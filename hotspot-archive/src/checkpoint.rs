//! Checkpoints: the head of a chain at some moment, signed, and kept where the gateway cannot change it.
//!
//! Owns the text of a checkpoint and what it means for a chain. Version 2 carries the root over all lines and the head of the audit log, and the gateway's
//! signature over both kinds of text: the JSON line, and the C2SP checkpoint that witnesses cosign. The format is in `docs/formats/checkpoint.md`.

use ed25519_dalek::VerifyingKey;
use hotspot_core::WallNs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::audit::Head;
use crate::chain::{ChainCheck, is_spelled};
use crate::cosignature::{TreeHead, gateway_origin};
use crate::manifest::{GatewayKey, from_hex, split_signature, to_hex};
use crate::note::{KeyKind, Note, SignatureLine, VerifierKey};
use crate::signing::{is_signed, key_id};

/// Version of the checkpoints that are made. Those of version 1 have no root, no audit head and no note.
pub const CHECKPOINT_FORMAT: u32 = 2;

/// The head of a chain at some moment, without its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// 1 or [`CHECKPOINT_FORMAT`].
    pub checkpoint: u32,
    pub gateway: String,
    /// Number of the last line, from 1.
    pub line: u64,
    /// The last sequence sealed, 0 for none.
    pub sequence: u64,
    pub at_ns: WallNs,
    /// SHA-256 of the last line.
    pub hash: String,
    /// Root over the SHA-256 of every line, as hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// How far the archive's audit log was; nothing where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Head>,
    /// The gateway's signature line over the C2SP checkpoint of this head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub key: String,
}

/// A checkpoint as it was kept: behind whatever a log puts before it.
#[derive(Clone, Debug)]
pub struct SignedCheckpoint {
    pub checkpoint: Checkpoint,
    /// The whole object.
    text: String,
    /// Of version 2: the same head as a note with the gateway's signature.
    note: Option<(TreeHead, Note)>,
    signed: String,
    signature: String,
}

impl SignedCheckpoint {
    /// SHA-256 of the object's text: what a time-stamping authority is shown.
    #[must_use]
    pub fn imprint(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }

    /// The head, and the note that witnesses cosign; none of version 1.
    #[must_use]
    pub fn note(&self) -> Option<&(TreeHead, Note)> {
        self.note.as_ref()
    }

    /// Whether both of its signatures are this key's.
    pub(crate) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let is_noted = self.note.as_ref().is_none_or(|(head, note)| {
            let verifier = VerifierKey { name: head.origin.clone(), kind: KeyKind::Note, key: *key };
            note.is_signed_by(&verifier) == Some(true)
        });
        is_noted && key_id(key) == self.checkpoint.key && is_signed(key, &self.signed, &self.signature)
    }
}

/// The gateway's signature line over a head.
pub(crate) fn sign_head(key: &GatewayKey, head: &TreeHead) -> String {
    let verifier = VerifierKey { name: head.origin.clone(), kind: KeyKind::Note, key: key.public() };
    let signature = from_hex(&key.sign(head.text().as_bytes())).unwrap_or_default();
    SignatureLine { name: head.origin.clone(), id: verifier.id(), signature }.text()
}

/// Finds the checkpoint in a line of text; `None` where there is none.
#[must_use]
pub fn parse_checkpoint(text: &str) -> Option<SignedCheckpoint> {
    let text = &text[text.find("{\"checkpoint\":")?..];
    let text = &text[..=text.rfind('}')?];
    let (signed, signature) = split_signature(text)?;
    let checkpoint: Checkpoint = serde_json::from_str(&signed).ok()?;
    if !is_spelled(&checkpoint, &signed) {
        return None;
    }
    let note = match (checkpoint.checkpoint, &checkpoint.root, &checkpoint.note) {
        (1, None, None) => None,
        (CHECKPOINT_FORMAT, Some(root), Some(line)) => {
            let root = from_hex(root).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())?;
            let head = TreeHead { origin: gateway_origin(&checkpoint.gateway), size: checkpoint.line, root };
            let note = Note { text: head.text(), signatures: vec![SignatureLine::parse(line)?] };
            Some((head, note))
        }
        _ => return None,
    };
    let (text, signature) = (text.to_owned(), signature.to_owned());
    Some(SignedCheckpoint { checkpoint, text, note, signed, signature })
}

impl ChainCheck {
    /// Compares the chain with its head as it was kept elsewhere. `None`: it is there, as it was. The root is compared by whoever has it.
    #[must_use]
    pub fn compare(&self, kept: &SignedCheckpoint) -> Option<String> {
        let checkpoint = &kept.checkpoint;
        let lines = self.lines();
        let (line, sequence) = (checkpoint.line, checkpoint.sequence);
        if line > lines {
            return Some(format!(
                "ends at line {lines}, but had {line} lines up to sequence {sequence}: its end was cut off"
            ));
        }
        let Some(hash) = self.hash(line) else { return Some("the checkpoint names no line".to_owned()) };
        if to_hex(hash) != checkpoint.hash {
            return Some(format!("line {line} is not the one that was there when the checkpoint was made"));
        }
        if !self.is_signed_here(kept) {
            return Some(format!("the checkpoint of line {line} is not signed by its key"));
        }
        let until = self.ledger().sequences_until(line);
        (sequence != until)
            .then(|| format!("the checkpoint of line {line} says sequence {sequence}, the chain {until}"))
    }

    /// Whether a key of the chain is called so.
    pub(crate) fn has_key(&self, name: &str) -> bool {
        self.epochs().iter().any(|(key, _)| key_id(key) == name)
    }

    /// Whether a key signed a checkpoint that may sign for its line.
    pub(crate) fn is_signed_here(&self, kept: &SignedCheckpoint) -> bool {
        let line = kept.checkpoint.line;
        // The line that ends an epoch may be the head while either key signs.
        self.epochs().iter().any(|(key, ended)| ended.is_none_or(|last| line <= last) && kept.is_signed_by(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Manifest, Sealing};
    use crate::merkle::{leaf_hash, root_of};
    use crate::segment::Origin;

    fn manifest(dir: &std::path::Path) -> Manifest {
        let key = GatewayKey::open(&dir.join("keys/k")).unwrap();
        let mut manifest = Manifest::open(&dir.join("archive"), "g", key).unwrap();
        let draft = manifest.draft(&Origin { site: "s".into(), gateway: "g".into(), sequence: 1 }, 1).unwrap();
        let (sessions, devices, coverage) = (&[], &[], &[]);
        let sealing = Sealing { closed_ns: 2, sealed_ns: 3, clock: None, step_ns: 0, sessions, devices, coverage };
        manifest.seal(draft, &sealing).unwrap();
        manifest
    }

    #[test]
    fn a_checkpoint_carries_the_root_the_audit_head_and_a_note_that_others_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = manifest(dir.path());
        let without = parse_checkpoint(&manifest.checkpoint(5).unwrap()).unwrap();
        assert_eq!(without.checkpoint.audit, None);
        let log = crate::audit::default_path(&dir.path().join("archive"));
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, "not finished\n").unwrap();
        manifest.begin_epoch(4, None).unwrap();
        let text = manifest.checkpoint(5).unwrap();
        assert!(
            text.starts_with("{\"checkpoint\":2,\"gateway\":\"g\",\"line\":2,\"sequence\":1,\"at_ns\":5,\"hash\":\""),
            "{text}"
        );
        let kept = parse_checkpoint(&format!("<85>1 then: {text}\n")).unwrap();
        assert_eq!(kept.imprint(), <[u8; 32]>::from(Sha256::digest(&text)));
        assert_eq!(kept.checkpoint.audit.as_ref().map(|head| head.lines), Some(1));
        let lines = std::fs::read_to_string(dir.path().join("archive/manifest/g.jsonl")).unwrap();
        let leaves: Vec<_> = lines.lines().map(|line| leaf_hash(&Sha256::digest(line))).collect();
        let (head, note) = kept.note().unwrap();
        assert_eq!((head.origin.as_str(), head.size, head.root), ("hotspot/g", 2, root_of(&leaves)));
        let key = crate::signing::read_public_key(&dir.path().join("archive/manifest/g.pub")).unwrap();
        let mut check = ChainCheck::new("g", key, crate::chain::Beside::default());
        lines.lines().for_each(|line| drop(check.push(line.as_bytes(), |remark| panic!("{remark:?}"))));
        assert_eq!(check.compare(&kept), None);
        let signer = VerifierKey { name: "hotspot/g".into(), kind: KeyKind::Note, key: check.epochs()[1].0 };
        assert_eq!(Note::parse(&note.bytes()).unwrap().is_signed_by(&signer), Some(true));
    }

    #[test]
    fn a_note_of_another_head_does_not_pass_with_a_genuine_line() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = manifest(dir.path());
        let genuine = parse_checkpoint(&manifest.checkpoint(5).unwrap()).unwrap();
        let key = GatewayKey::open(&dir.path().join("keys/k")).unwrap();
        assert!(genuine.is_signed_by(&key.public()));
        let mut forged = genuine.clone();
        let (head, note) = forged.note.as_mut().unwrap();
        head.root[0] ^= 1;
        note.text = head.text();
        assert!(!forged.is_signed_by(&key.public()), "the root of the note was changed");
    }

    #[test]
    fn versions_have_their_fields_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let text = manifest(dir.path()).checkpoint(5).unwrap();
        assert!(parse_checkpoint(&text).is_some());
        for changed in [
            text.replacen("{\"checkpoint\":2", "{\"checkpoint\":1", 1),
            text.replacen("{\"checkpoint\":2", "{\"checkpoint\":3", 1),
            text.replacen("\"root\":\"", "\"root\":\"0", 1),
            text.replacen("\"note\":\"", "\"note\":\"x", 1),
            text.replacen(",\"note\":", ",\"nota\":", 1),
        ] {
            assert!(parse_checkpoint(&changed).is_none(), "{changed}");
        }
    }
}
