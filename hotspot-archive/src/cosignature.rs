//! Tree heads as text, and what witnesses sign of them: <https://c2sp.org/tlog-checkpoint> and <https://c2sp.org/tlog-cosignature> (v1.0.0).
//!
//! A cosignature says: at this time, the largest tree that I saw of this origin had this size and root. It covers the whole text of the head and the
//! time, so it can be moved to no other head and to no other time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};

use crate::merkle::Hash;
use crate::note::{self, KeyKind, Note, SignatureLine, VerifierKey};

/// Before the name of a gateway: the origin of its chain.
const GATEWAY: &str = "hotspot/";
/// Before the name of an audit log: its origin.
const AUDIT: &str = "hotspot-audit/";

/// A tree as it was: the body of a C2SP checkpoint, without extension lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Whose tree.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    pub root: Hash,
}

/// The origin of a gateway's chain.
#[must_use]
pub fn gateway_origin(gateway: &str) -> String {
    format!("{GATEWAY}{gateway}")
}

/// The origin of an audit log.
#[must_use]
pub fn audit_origin(name: &str) -> String {
    format!("{AUDIT}{name}")
}

impl TreeHead {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Reads the text of a note. Extension lines are refused: nobody here vouches for them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        if lines.next().is_some() || origin.is_empty() {
            return None;
        }
        let root = <[u8; 32]>::try_from(STANDARD.decode(root).ok()?).ok()?;
        Some(Self { origin: origin.to_owned(), size: parse_size(size)?, root })
    }

    /// The gateway whose chain it is of.
    #[must_use]
    pub fn gateway(&self) -> Option<&str> {
        self.origin.strip_prefix(GATEWAY)
    }

    /// The audit log it is of.
    #[must_use]
    pub fn audit_log(&self) -> Option<&str> {
        self.origin.strip_prefix(AUDIT)
    }
}

/// A number of leaves: digits without zeros before them.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// What is signed of a head at a time, in seconds since 1970.
fn message(text: &str, at_s: u64) -> String {
    format!("cosignature/v1\ntime {at_s}\n{text}")
}

/// Cosigns the text of a head.
pub(crate) fn cosign(name: &str, key: &SigningKey, text: &str, at_s: u64) -> SignatureLine {
    let verifier = VerifierKey { name: name.to_owned(), kind: KeyKind::Cosignature, key: key.verifying_key() };
    let signature = key.sign(message(text, at_s).as_bytes()).to_bytes();
    SignatureLine {
        name: name.to_owned(),
        id: verifier.id(),
        signature: [&at_s.to_be_bytes()[..], &signature].concat(),
    }
}

/// When a witness saw the head of a note, in seconds since 1970. `None`: it signed nothing here.
#[must_use]
pub fn seen_at(note: &Note, witness: &VerifierKey) -> Option<Result<u64, CosignatureError>> {
    let mut lines = note.signatures.iter().filter(|line| line.is_of(witness)).peekable();
    lines.peek()?;
    let mut earliest = u64::MAX;
    for line in lines {
        let Some((at, signature)) = line.signature.split_first_chunk::<8>() else { return Some(Err(CosignatureError)) };
        let at_s = u64::from_be_bytes(*at);
        // C2SP: a time of zero says nothing of when, and none is above 2^63 - 1.
        let is_time = at_s > 0 && i64::try_from(at_s).is_ok();
        if !is_time || !note::is_signature(witness, message(&note.text, at_s).as_bytes(), signature) {
            return Some(Err(CosignatureError));
        }
        earliest = earliest.min(at_s);
    }
    Some(Ok(earliest))
}

/// A line that says it is of a witness whose key did not make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cosignature does not fit the note: it was made for another, or changed")]
pub struct CosignatureError;

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of tlog-cosignature, "Ed25519 signed message".
    const SIGNED: &str = "cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    const BODY: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    /// The line of that example's witness, whose name and time it shows.
    const LINE: &str = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==";

    fn witness() -> (SigningKey, VerifierKey) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let verifier = VerifierKey { name: "w/1".into(), kind: KeyKind::Cosignature, key: key.verifying_key() };
        (key, verifier)
    }

    #[test]
    fn the_specification_s_texts_are_ours() {
        let head = TreeHead::parse(BODY).unwrap();
        assert_eq!((head.origin.as_str(), head.size), ("example.com/behind-the-sofa", 20_852_163));
        assert_eq!(head.text(), BODY);
        assert_eq!(message(BODY, 1_679_315_147), SIGNED);
        let line = SignatureLine::parse(LINE).unwrap();
        assert_eq!(line.name, "witness.example.com/w1");
        assert_eq!(line.signature[..8], 1_679_315_147_u64.to_be_bytes());
        assert_eq!((line.signature.len(), line.text().as_str()), (72, LINE));
    }

    #[test]
    fn a_cosignature_fits_its_head_its_time_and_its_witness_alone() {
        let (key, verifier) = witness();
        let line = cosign("w/1", &key, BODY, 1_800_000_000);
        let note = |text: &str, line: &SignatureLine| Note { text: text.into(), signatures: vec![line.clone()] };
        assert_eq!(seen_at(&note(BODY, &line), &verifier), Some(Ok(1_800_000_000)));
        let other = BODY.replace("20852163", "20852164");
        assert_eq!(seen_at(&note(&other, &line), &verifier), Some(Err(CosignatureError)), "moved to another note");
        for at in 0..line.signature.len() {
            let mut changed = line.clone();
            changed.signature[at] ^= 1;
            assert_eq!(seen_at(&note(BODY, &changed), &verifier), Some(Err(CosignatureError)), "byte {at}");
        }
        let zero = cosign("w/1", &key, BODY, 0);
        assert_eq!(seen_at(&note(BODY, &zero), &verifier), Some(Err(CosignatureError)), "a time of zero");
        let renamed = VerifierKey { name: "w/2".into(), ..verifier };
        assert_eq!(seen_at(&note(BODY, &line), &renamed), None, "an unknown witness is not judged");
    }

    #[test]
    fn heads_have_one_spelling() {
        for text in [
            "",
            "o\n1\n",
            "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
            "o\n01\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
            "o\n+1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
            "o\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I\n",
            "o\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\nmore\n",
            "o\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=\n",
        ] {
            assert_eq!(TreeHead::parse(text), None, "{text:?}");
        }
        assert_eq!((parse_size("0"), parse_size("00"), parse_size("18446744073709551616")), (Some(0), None, None));
    }
}
