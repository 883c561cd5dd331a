//! Signed notes: a text and the lines of those who signed it, as <https://c2sp.org/signed-note> (v1.0.0) has them.
//!
//! Owns the text form, and keys of the two kinds used here: Ed25519 over the text (0x01), by which gateways sign, and timestamped cosignatures
//! (0x04), by which witnesses do. Signatures of keys that nobody asked for are kept and never judged.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

/// What a line of a signature begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";
/// Longest note that is read. C2SP asks for 16 signatures at least, of up to 5 kB where they are post-quantum.
pub const BYTES_MAX: usize = 1 << 18;
/// Most signatures that are read of a note.
pub const SIGNATURES_MAX: usize = 64;

/// What a key signs, by the byte that the specification gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The text of a note.
    Note = 0x01,
    /// A checkpoint as it was seen at a time: `cosignature/v1`.
    Cosignature = 0x04,
}

/// Who signed, and with which key: a verifier key (`<name>+<id>+<kind and public key>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    pub name: String,
    pub kind: KeyKind,
    pub key: VerifyingKey,
}

impl VerifierKey {
    /// The first four bytes of SHA-256 over name, line feed, kind and key.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let hash = Sha256::new()
            .chain_update(self.name.as_bytes())
            .chain_update([b'\n', self.kind as u8])
            .chain_update(self.key.as_bytes());
        let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
        [a, b, c, d]
    }

    /// Reads a verifier key; what is wrong with it otherwise.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(format!("{text:?} is no verifier key: write NAME+8 HEXADECIMAL DIGITS+BASE64"));
        };
        if !is_key_name(name) {
            return Err(format!("{name:?} is no name of a key: it must have no space and no '+'"));
        }
        let bytes = STANDARD.decode(key).map_err(|error| format!("the key of {name} is no base64: {error}"))?;
        let Some((kind, key)) = bytes.split_first() else { return Err(format!("the key of {name} is empty")) };
        let kind = match kind {
            0x01 => KeyKind::Note,
            0x04 => KeyKind::Cosignature,
            other => return Err(format!("the key of {name} is of kind {other:#04x}; only 0x01 and 0x04 are known")),
        };
        let key = <[u8; 32]>::try_from(key).ok().and_then(|key| VerifyingKey::from_bytes(&key).ok());
        let Some(key) = key else { return Err(format!("the key of {name} is no Ed25519 key")) };
        let parsed = Self { name: name.to_owned(), kind, key };
        if crate::manifest::to_hex(&parsed.id()) != id {
            return Err(format!("the key of {name} does not belong to its id {id}: it was mistyped or changed"));
        }
        Ok(parsed)
    }

    /// The key as text.
    #[must_use]
    pub fn text(&self) -> String {
        let bytes = [&[self.kind as u8][..], self.key.as_bytes()].concat();
        format!("{}+{}+{}", self.name, crate::manifest::to_hex(&self.id()), STANDARD.encode(bytes))
    }
}

/// Whether a key may be called so.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.chars().any(|at| at.is_whitespace() || at.is_control() || at == '+')
}

/// One line of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    pub name: String,
    pub id: [u8; 4],
    pub signature: Vec<u8>,
}

impl SignatureLine {
    /// Reads a line, without its line feed.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
        let bytes = STANDARD.decode(signature).ok()?;
        let (id, signature) = bytes.split_first_chunk::<4>()?;
        let is_one = is_key_name(name) && !signature.is_empty();
        is_one.then(|| Self { name: name.to_owned(), id: *id, signature: signature.to_vec() })
    }

    /// The line as text, without its line feed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{DASH}{} {}", self.name, STANDARD.encode([&self.id[..], &self.signature].concat()))
    }

    /// Whether the line says that it is of this key.
    #[must_use]
    pub fn is_of(&self, key: &VerifierKey) -> bool {
        self.name == key.name && self.id == key.id()
    }
}

/// A text with the signatures it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Ends with a line feed.
    pub text: String,
    pub signatures: Vec<SignatureLine>,
}

impl Note {
    /// Reads one note; `None` where it is none.
    #[must_use]
    pub fn parse(bytes: &str) -> Option<Self> {
        let is_clean = |bytes: &str| bytes.bytes().all(|byte| byte >= 0x20 || byte == b'\n');
        if bytes.len() > BYTES_MAX || !is_clean(bytes) {
            return None;
        }
        let (text, signatures) = bytes.rsplit_once("\n\n")?;
        let lines: Vec<&str> = signatures.strip_suffix('\n')?.split('\n').collect();
        if lines.len() > SIGNATURES_MAX {
            return None;
        }
        let signatures = lines.into_iter().map(SignatureLine::parse).collect::<Option<Vec<_>>>()?;
        Some(Self { text: format!("{text}\n"), signatures })
    }

    /// The note as text.
    #[must_use]
    pub fn bytes(&self) -> String {
        let signatures: Vec<String> = self.signatures.iter().map(|line| format!("{}\n", line.text())).collect();
        format!("{}\n{}", self.text, signatures.concat())
    }

    /// Whether a key of kind [`KeyKind::Note`] signed the text. `None`: the key signed nothing here; a signature that says it is this key's and is not,
    /// makes it `Some(false)` whatever else there is.
    #[must_use]
    pub fn is_signed_by(&self, key: &VerifierKey) -> Option<bool> {
        let mut lines = self.signatures.iter().filter(|line| line.is_of(key)).peekable();
        lines.peek()?;
        Some(key.kind == KeyKind::Note && lines.all(|line| is_signature(key, self.text.as_bytes(), &line.signature)))
    }
}

/// Whether these 64 bytes are the key's signature over exactly this message.
pub(crate) fn is_signature(key: &VerifierKey, message: &[u8], signature: &[u8]) -> bool {
    let signature = <[u8; 64]>::try_from(signature).map(|bytes| Signature::from_bytes(&bytes));
    signature.is_ok_and(|signature| key.key.verify_strict(message, &signature).is_ok())
}

/// The notes of a text in which they follow one another, and each piece between them that is none, with the line it begins at. Empty lines between
/// them do not count.
#[must_use]
pub fn split(text: &str) -> Vec<(usize, Result<Note, String>)> {
    let mut notes = Vec::new();
    let (mut piece, mut began, mut signed) = (String::new(), 1, false);
    let mut close = |piece: &mut String, began: usize| {
        let text = std::mem::take(piece);
        if !text.trim().is_empty() {
            notes.push((began, Note::parse(&text).ok_or(text)));
        }
    };
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let is_signature = line.starts_with(DASH);
        if signed && !is_signature {
            close(&mut piece, began);
        }
        if piece.trim().is_empty() {
            piece.clear();
            began = at + 1;
        }
        piece.push_str(line);
        signed = is_signature;
    }
    close(&mut piece, began);
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, section "Verifier keys".
    const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo \
        Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    #[test]
    fn the_specification_s_example_verifies_and_no_other_text_does() {
        let key = VerifierKey::parse(KEY).unwrap();
        assert_eq!((key.name.as_str(), key.kind, key.text().as_str()), ("example.com/foo", KeyKind::Note, KEY));
        let note = Note::parse(NOTE).unwrap();
        assert_eq!(note.bytes(), NOTE);
        assert_eq!(note.is_signed_by(&key), Some(true));
        let changed = Note { text: "This is another message.\n".into(), ..note.clone() };
        assert_eq!(changed.is_signed_by(&key), Some(false));
        let mut twice = note.clone();
        twice.signatures.push(note.signatures[0].clone());
        twice.signatures[1].signature[9] ^= 1;
        assert_eq!(
            twice.is_signed_by(&key),
            Some(false),
            "a known key's signature that fails makes the note malformed"
        );
        let stranger = VerifierKey { name: "example.com/bar".into(), ..key };
        assert_eq!(note.is_signed_by(&stranger), None);
    }

    #[test]
    fn keys_that_are_none_are_refused_with_a_reason() {
        for (text, why) in [
            ("", "no verifier key"),
            ("a+b", "no verifier key"),
            ("exa mple+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", "no name"),
            ("example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", "does not belong"),
            ("example.com/foo+530d903a+BOkyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", "does not belong"),
            ("example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", "0x02"),
            ("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2", "no base64"),
            ("example.com/foo+530d903a+AekyeRrm", "no Ed25519 key"),
        ] {
            let error = VerifierKey::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn texts_that_are_no_notes_are_none() {
        for text in [
            "",
            "\n",
            "a\n",
            "a\n\n",
            "a\n\nb\n",
            "a\n\n\u{2014} n\n",
            "a\n\n\u{2014} n AAAA\n",
            "a\n\n\u{2014} n AAAAAAAA",
        ] {
            assert_eq!(Note::parse(text), None, "{text:?}");
        }
        assert!(Note::parse("a\n\n\u{2014} n AAAAAAAA\n").is_some());
        assert!(Note::parse("a\tb\n\n\u{2014} n AAAAAAAA\n").is_none(), "control characters");
        let many = format!("a\n\n{}", "\u{2014} n AAAAAAAA\n".repeat(SIGNATURES_MAX + 1));
        assert!(Note::parse(&many).is_none());
    }

    #[test]
    fn notes_that_follow_one_another_are_told_apart() {
        let line = "\u{2014} n AAAAAAAA\n";
        let file = format!("\na\n\nb\n\n{line}{line}\n\nnonsense\n\nc\n\n{line}d\n\n{line}\u{2014} n AAA");
        let found = split(&file);
        let seen: Vec<_> =
            found.iter().map(|(at, note)| (*at, note.as_ref().ok().map(|note| note.text.as_str()))).collect();
        // What lies before a note belongs to its text, as the specification has it: the reader of the text says that it is no checkpoint.
        assert_eq!(seen, [(2, Some("a\n\nb\n")), (10, Some("nonsense\n\nc\n")), (15, None)]);
        assert_eq!(found[0].1.as_ref().unwrap().signatures.len(), 2);
    }
}
