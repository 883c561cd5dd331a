//! Frames under a key: AES-256-GCM, a random nonce each, bound to what they are.
//!
//! Owns the bytes of sealed frames and the nonces. A nonce is drawn for each sealing and never counted, so that nothing has to
//! be remembered across a crash; a key seals far fewer things than the 2³² for which that is safe.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::segment::Origin;

/// Bytes that sealing adds to a payload: nonce and tag.
pub(crate) const OVERHEAD: usize = NONCE_LEN + 16;

/// `None` where the kernel gives no random bytes.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Option<()> {
    SystemRandom::new().fill(bytes).ok()
}

/// What is bound to a ciphertext besides its content: `hotspot 1 <gateway> <sequence> <kind>`.
pub(crate) fn binding(origin: &Origin, kind: &str) -> Vec<u8> {
    format!("hotspot 1 {} {} {kind}", origin.gateway, origin.sequence).into_bytes()
}

/// HKDF-SHA-256 of `key` without salt, for each info `hotspot 1 <kind>`.
pub(crate) fn derived<const N: usize>(key: &[u8; 32], kinds: [&str; N]) -> Option<[Zeroizing<[u8; 32]>; N]> {
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key);
    let mut derived = [(); N].map(|()| Zeroizing::new([0; 32]));
    for (key, kind) in derived.iter_mut().zip(kinds) {
        let info = format!("hotspot 1 {kind}");
        let info = [info.as_bytes()];
        secret.expand(&info, hkdf::HKDF_SHA256).ok()?.fill(&mut **key).ok()?;
    }
    Some(derived)
}

/// A key ready to seal and open with.
pub(crate) struct FrameKey(LessSafeKey);

impl FrameKey {
    pub(crate) fn new(key: &[u8; 32]) -> Option<Self> {
        UnboundKey::new(&AES_256_GCM, key).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    /// The key that is [`derived`] for a kind.
    pub(crate) fn derived(key: &[u8; 32], kind: &str) -> Option<Self> {
        let [key] = derived(key, [kind])?;
        Self::new(&key)
    }

    /// Appends nonce, ciphertext and tag to `to`.
    pub(crate) fn seal(&self, bound: &[u8], plain: &[u8], to: &mut Vec<u8>) -> Option<()> {
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce)?;
        to.reserve(plain.len() + OVERHEAD);
        to.extend(nonce);
        let start = to.len();
        to.extend(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(bound), &mut to[start..]).ok()?;
        to.extend(tag.as_ref());
        Some(())
    }

    /// Opens nonce, ciphertext and tag, where they are.
    pub(crate) fn open(&self, bound: &[u8], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let nonce = Nonce::assume_unique_for_key(*sealed.first_chunk::<NONCE_LEN>()?);
        let len = self.0.open_within(nonce, Aad::from(bound), &mut sealed, NONCE_LEN..).ok()?.len();
        sealed.truncate(len);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(gateway: &str, sequence: u64) -> Origin {
        Origin { site: "s".into(), gateway: gateway.into(), sequence }
    }

    #[test]
    fn a_frame_opens_only_as_what_it_was_sealed_as() {
        let frames = FrameKey::derived(&[7; 32], "index").unwrap();
        let seal = |bound: &[u8]| {
            let mut sealed = Vec::new();
            frames.seal(bound, b"who was it", &mut sealed).unwrap();
            sealed
        };
        let bound = binding(&origin("g", 1), "index");
        let sealed = seal(&bound);
        assert_eq!(frames.open(&bound, sealed.clone()).unwrap(), b"who was it");
        assert!(!sealed.windows(3).any(|window| window == b"who"));
        for other in
            [FrameKey::derived(&[8; 32], "index"), FrameKey::derived(&[7; 32], "other"), FrameKey::new(&[7; 32])]
        {
            assert_eq!(other.unwrap().open(&bound, sealed.clone()), None);
        }
        for (gateway, sequence, kind) in [("h", 1, "index"), ("g", 2, "index"), ("g", 1, "other")] {
            assert_eq!(frames.open(&binding(&origin(gateway, sequence), kind), sealed.clone()), None);
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(frames.open(&bound, changed), None, "byte {at}");
            assert_eq!(frames.open(&bound, sealed[..at].to_vec()), None, "cut to {at}");
        }
        assert_ne!(sealed, seal(&bound), "a nonce of its own");
    }
}
