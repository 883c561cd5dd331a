//! How a gateway's own keys lie on its disk: as they are, or sealed under a secret that is not on the disk.
//!
//! The secret comes from whoever starts the agent, which is systemd with `LoadCredentialEncrypted=` and a TPM. Whoever has the disk alone
//! then opens no key, neither the one in use nor what a disk keeps of keys that were overwritten. A key is told from a sealed one by its
//! length, so that a secret can be brought in at any time: keys that are there stay as they are, new ones are sealed. The format is in
//! `docs/formats/encryption.md`.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::sealed::{self, FrameKey};

/// Fewer bytes could be guessed.
pub const SECRET_BYTES_MIN: usize = 32;
const KEY_LEN: usize = 32;

/// Why a key is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    #[error("it is not a key")]
    NotAKey,
    #[error(
        "it is sealed under a secret that was not given; start the agent by its unit, with the credential hotspot.keys that it was sealed under"
    )]
    NoSecret,
    #[error("it is sealed under another secret than the credential hotspot.keys; give the one it was sealed under")]
    OtherSecret,
}

/// The secret, if there is one.
#[derive(Clone, Default)]
pub struct AtRest(Option<Arc<FrameKey>>);

impl std::fmt::Debug for AtRest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "AtRest under a secret" } else { "AtRest plain" })
    }
}

impl AtRest {
    /// Keys lie there as they are.
    #[must_use]
    pub fn plain() -> Self {
        Self::default()
    }

    /// Under a secret of [`SECRET_BYTES_MIN`] bytes or more; `None` for a shorter one.
    #[must_use]
    pub fn under(secret: &[u8]) -> Option<Self> {
        if secret.len() < SECRET_BYTES_MIN {
            return None;
        }
        let secret = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(secret)));
        FrameKey::derived(&secret, "keys at rest").map(|key| Self(Some(Arc::new(key))))
    }

    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.0.is_none()
    }

    /// A key as its file holds it.
    pub(crate) fn close(&self, kind: &str, key: &[u8; KEY_LEN]) -> Option<Zeroizing<Vec<u8>>> {
        let mut lying = Zeroizing::new(Vec::with_capacity(KEY_LEN + sealed::OVERHEAD));
        match &self.0 {
            Some(secret) => secret.seal(&bound(kind), key, &mut lying)?,
            None => lying.extend(key),
        }
        Some(lying)
    }

    /// The key that a file holds.
    pub(crate) fn open(&self, kind: &str, lying: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, NotOpened> {
        if let Ok(plain) = <[u8; KEY_LEN]>::try_from(lying) {
            return Ok(Zeroizing::new(plain));
        }
        if lying.len() != KEY_LEN + sealed::OVERHEAD {
            return Err(NotOpened::NotAKey);
        }
        let secret = self.0.as_ref().ok_or(NotOpened::NoSecret)?;
        let opened = secret.open(&bound(kind), lying.to_vec()).map(Zeroizing::new).ok_or(NotOpened::OtherSecret)?;
        <[u8; KEY_LEN]>::try_from(&opened[..]).map(Zeroizing::new).map_err(|_| NotOpened::NotAKey)
    }
}

fn bound(kind: &str) -> Vec<u8> {
    format!("hotspot 1 {kind}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_under_its_secret_and_as_what_it_is_only() {
        let under = |byte: u8| AtRest::under(&[byte; 32]).unwrap();
        let lying = under(1).close("a key", &[7; 32]).unwrap();
        assert!(!lying.windows(4).any(|window| window == [7; 4]));
        assert_eq!(*under(1).open("a key", &lying).unwrap(), [7; 32]);
        assert_eq!(under(1).open("another", &lying), Err(NotOpened::OtherSecret));
        assert_eq!(under(2).open("a key", &lying), Err(NotOpened::OtherSecret));
        assert_eq!(AtRest::plain().open("a key", &lying), Err(NotOpened::NoSecret));
        assert_eq!(under(1).open("a key", &lying[1..]), Err(NotOpened::NotAKey));
        assert_eq!(*under(1).open("a key", &[7; 32]).unwrap(), [7; 32], "a key from before there was a secret");
        assert!(AtRest::under(&[1; 31]).is_none());
    }
}
