//! Salts of rows: without that of a row nobody can try what its hash stands for, and that of one tells nothing of another's.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use crate::keys::{DataKey, KeyError};
use crate::manifest::{from_hex, to_hex};
use crate::sealed;

pub(super) const SALT_BYTES: usize = 16;
pub(super) type Salt = [u8; SALT_BYTES];
/// Salts made at once.
const BATCH: usize = 256;

/// The key of which all salts of a file are the stream.
pub(crate) struct SaltKey(Zeroizing<[u8; 32]>);

impl SaltKey {
    /// That of an encrypted file: who can open it can make its salts.
    pub(crate) fn derived(key: &DataKey) -> Result<Self, KeyError> {
        let derived = sealed::derived(key.expose(), ["row salts"]);
        let [key] = derived.ok_or_else(|| KeyError::Wrap { why: "no key of salts can be derived".to_owned() })?;
        Ok(Self(key))
    }

    /// For a file in the clear, which says it itself.
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; 32]);
        sealed::fill_random(&mut *key).ok_or(KeyError::NoRandomness)?;
        Ok(Self(key))
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(from_hex(text)?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    pub(crate) fn to_text(&self) -> String {
        to_hex(&self.0[..])
    }
}

/// The salts of one row after the other.
pub(super) struct Salts {
    stream: ChaCha20,
    batch: Box<[Salt; BATCH]>,
    next: usize,
}

impl Salts {
    pub(super) fn new(key: &SaltKey) -> Self {
        let stream = ChaCha20::new(&(*key.0).into(), &[0; 12].into());
        Self { stream, batch: Box::new([[0; SALT_BYTES]; BATCH]), next: BATCH }
    }

    /// A stream has 2³⁴ salts, more than a file can have rows.
    #[inline]
    pub(super) fn next(&mut self) -> Salt {
        if self.next == BATCH {
            let bytes = self.batch.as_flattened_mut();
            bytes.fill(0);
            self.stream.apply_keystream(bytes);
            self.next = 0;
        }
        self.next += 1;
        self.batch[self.next - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_are_the_key_stream_of_rfc_8439() {
        // Appendix A.1, test vectors 1 and 2: a key of zeros, blocks 0 and 1.
        let mut salts = Salts::new(&SaltKey::from_text(&"00".repeat(32)).unwrap());
        let first: Vec<u8> = (0..8).flat_map(|_| salts.next()).collect();
        assert_eq!(
            to_hex(&first),
            "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586\
             9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
        );
    }

    #[test]
    fn no_salt_comes_twice() {
        let mut salts = Salts::new(&SaltKey::generate().unwrap());
        let all: std::collections::HashSet<Salt> = (0..10_000).map(|_| salts.next()).collect();
        assert_eq!(all.len(), 10_000);
    }

    #[test]
    fn the_salts_of_encrypted_files_are_of_the_data_key() {
        let of = |key: u8| SaltKey::derived(&DataKey::from_bytes(&[key; 32]).unwrap()).unwrap().to_text();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_ne!(of(1), "01".repeat(32), "a salt shows nothing of the data key");
    }
}
