//! Small files and frames under a key: AES-256-GCM, a random nonce each, bound to what they are.
//!
//! Owns the bytes of sealed files and the nonces. A nonce is drawn for each sealing and never counted, so that nothing has to
//! be remembered across a crash; a key seals far fewer things than the 2³² for which that is safe.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::segment::Origin;

/// First bytes of a sealed file: what it is, then the version.
const MAGIC: [u8; 8] = *b"HSSEAL\x00\x01";
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

/// Seals a file under a key derived from `key` for this kind.
pub(crate) fn seal(key: &[u8; 32], origin: &Origin, kind: &str, plain: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = MAGIC.to_vec();
    FrameKey::derived(key, kind)?.seal(&binding(origin, kind), plain, &mut sealed)?;
    Some(sealed)
}

/// Opens what [`seal`] made of the same origin and kind.
pub(crate) fn open(key: &[u8; 32], origin: &Origin, kind: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    FrameKey::derived(key, kind)?.open(&binding(origin, kind), sealed.strip_prefix(&MAGIC)?)
}

/// A key ready to seal and open with.
pub(crate) struct FrameKey(LessSafeKey);

impl FrameKey {
    pub(crate) fn new(key: &[u8; 32]) -> Option<Self> {
        UnboundKey::new(&AES_256_GCM, key).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    /// HKDF-SHA-256 of `key` without salt, info `hotspot 1 <kind>`.
    fn derived(key: &[u8; 32], kind: &str) -> Option<Self> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key);
        let info = format!("hotspot 1 {kind}");
        let mut derived = Zeroizing::new([0; 32]);
        let info = [info.as_bytes()];
        secret.expand(&info, hkdf::HKDF_SHA256).ok()?.fill(&mut *derived).ok()?;
        Self::new(&derived)
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

    /// Opens nonce, ciphertext and tag.
    pub(crate) fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut plain = rest.to_vec();
        let len = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound), &mut plain).ok()?.len();
        plain.truncate(len);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(gateway: &str, sequence: u64) -> Origin {
        Origin { site: "s".into(), gateway: gateway.into(), sequence }
    }

    #[test]
    fn a_sealed_file_opens_only_as_what_it_was_sealed_as() {
        let key = [7; 32];
        let sealed = seal(&key, &origin("g", 1), "index", b"who was it").unwrap();
        assert_eq!(open(&key, &origin("g", 1), "index", &sealed).unwrap(), b"who was it");
        assert!(!sealed.windows(3).any(|window| window == b"who"));
        assert_eq!(open(&[8; 32], &origin("g", 1), "index", &sealed), None);
        assert_eq!(open(&key, &origin("h", 1), "index", &sealed), None);
        assert_eq!(open(&key, &origin("g", 2), "index", &sealed), None);
        assert_eq!(open(&key, &origin("g", 1), "other", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&key, &origin("g", 1), "index", &changed), None, "byte {at}");
            assert_eq!(open(&key, &origin("g", 1), "index", &sealed[..at]), None, "cut to {at}");
        }
        assert_ne!(sealed, seal(&key, &origin("g", 1), "index", b"who was it").unwrap(), "a nonce of its own");
    }
}
