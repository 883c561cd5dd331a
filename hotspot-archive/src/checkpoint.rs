//! Checkpoints: the head of a chain at some moment, signed, and kept where the gateway cannot change it.
//!
//! Owns the text of a checkpoint and what it means for a chain. The format is in `docs/formats/manifest.md`.

use ed25519_dalek::VerifyingKey;
use hotspot_core::WallNs;
use serde::{Deserialize, Serialize};

use crate::chain::ChainCheck;
use crate::manifest::{split_signature, to_hex};
use crate::signing::{is_signed, key_id};

/// Version of checkpoints.
pub const CHECKPOINT_FORMAT: u32 = 1;

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

impl ChainCheck {
    /// Compares the chain with its head as it was kept elsewhere. `None`: it is there, as it was.
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
        // The line that ends an epoch may be the head while either key signs.
        let is_theirs = |(key, ended): &(VerifyingKey, Option<u64>)| {
            ended.is_none_or(|last_line| line <= last_line)
                && key_id(key) == checkpoint.key
                && is_signed(key, &kept.signed, &kept.signature)
        };
        (!self.epochs().iter().any(is_theirs))
            .then(|| format!("the checkpoint of line {line} is not signed by its key"))
    }
}
