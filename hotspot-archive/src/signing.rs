//! Signing keys of gateways: made, read, exchanged for the next, and their public halves.
//!
//! A key signs for one epoch. The next is named in a line that the last one signs, and then the last one is destroyed: whoever takes
//! a gateway over can sign from then on, and cannot change what was signed before.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::durable;
use crate::manifest::{ManifestError, from_hex, to_hex};

/// The gateway's key: signs lines, and never leaves the gateway.
pub struct GatewayKey {
    key: SigningKey,
    /// Where it lies.
    path: PathBuf,
    /// Where the key in use lies.
    home: PathBuf,
    /// The key before, which lost its name and is not destroyed yet.
    replaced: Option<File>,
}

impl GatewayKey {
    /// Reads the key, or makes one that only the owner can read.
    pub fn open(path: &Path) -> Result<Self, ManifestError> {
        let failed = |operation, source| ManifestError::Io { operation, path: path.to_path_buf(), source };
        match File::open(path) {
            Ok(mut file) => {
                let metadata = file.metadata().map_err(|source| failed("read", source))?;
                if metadata.mode() & 0o077 != 0 {
                    return Err(ManifestError::KeyIsOpen { path: path.to_path_buf() });
                }
                let mut text = Zeroizing::new(String::new());
                file.read_to_string(&mut text).map_err(|source| failed("read", source))?;
                let seed = from_hex(text.trim()).map(Zeroizing::new);
                let seed = seed.and_then(|bytes| <[u8; 32]>::try_from(&bytes[..]).ok()).map(Zeroizing::new);
                let seed = seed.ok_or_else(|| ManifestError::NotAKey { path: path.to_path_buf() })?;
                Ok(Self::of(&seed, path))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(source) => Err(failed("opened", source)),
        }
    }

    fn of(seed: &[u8; 32], path: &Path) -> Self {
        Self { key: SigningKey::from_bytes(seed), path: path.to_path_buf(), home: path.to_path_buf(), replaced: None }
    }

    fn create(path: &Path) -> Result<Self, ManifestError> {
        let failed = |source| ManifestError::Io { operation: "created", path: path.to_path_buf(), source };
        let mut seed = Zeroizing::new([0; 32]);
        let filled = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty());
        if filled != Ok(seed.len()) {
            return Err(failed(io::Error::other("the kernel gave no random bytes")));
        }
        if let Some(dir) = path.parent() {
            durable::make_dir(dir).map_err(failed)?;
        }
        // Under another name first: half a key, left by a full disk, would be in the way for ever.
        durable::write_secret(path, Zeroizing::new(to_hex(&seed[..])).as_bytes()).map_err(failed)?;
        Ok(Self::of(&seed, path))
    }

    /// The key that comes after this one, made if it is not there yet.
    pub(crate) fn next(&self) -> Result<Self, ManifestError> {
        let next = Self::open(&self.home.with_extension("next"))?;
        Ok(Self { home: self.home.clone(), ..next })
    }

    /// The next key, if there is one: an exchange that was not finished left it.
    pub(crate) fn pending(&self) -> Result<Option<Self>, ManifestError> {
        if self.home.with_extension("next").exists() { self.next().map(Some) } else { Ok(None) }
    }

    /// Puts a next key, which the chain names by now, into the place of the one before, and destroys that. What could not be done is
    /// done by calling it again.
    pub(crate) fn settle(&mut self) -> Result<(), ManifestError> {
        let failed =
            |home: &Path, source| ManifestError::Io { operation: "replaced", path: home.to_path_buf(), source };
        if self.path != self.home {
            let old = match File::options().write(true).open(&self.home) {
                Ok(old) => Some(old),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(failed(&self.home, error)),
            };
            fs::rename(&self.path, &self.home).map_err(|source| failed(&self.home, source))?;
            (self.path, self.replaced) = (self.home.clone(), old);
        }
        if let Some(replaced) = &self.replaced {
            let settled =
                self.home.parent().map_or(Ok(()), durable::sync_dir).and_then(|()| durable::overwrite(replaced));
            settled.map_err(|source| failed(&self.home, source))?;
            self.replaced = None;
        }
        Ok(())
    }

    /// Signs, as 128 hexadecimal digits.
    pub(crate) fn sign(&self, bytes: &[u8]) -> String {
        to_hex(&self.key.sign(bytes).to_bytes())
    }

    #[must_use]
    pub fn public(&self) -> VerifyingKey {
        self.key.verifying_key()
    }
}

/// The name of a public key in lines.
#[must_use]
pub fn key_id(key: &VerifyingKey) -> String {
    to_hex(&Sha256::digest(key.as_bytes()))[..16].to_owned()
}

/// Reads a public key as `manifest/<gateway>.pub` holds it.
pub fn read_public_key(path: &Path) -> Result<VerifyingKey, ManifestError> {
    let text = fs::read_to_string(path).map_err(|source| ManifestError::Io {
        operation: "read",
        path: path.to_path_buf(),
        source,
    })?;
    parse_public_key(text.trim()).ok_or_else(|| ManifestError::NotAKey { path: path.to_path_buf() })
}

/// A public key as text holds it.
#[must_use]
pub fn parse_public_key(text: &str) -> Option<VerifyingKey> {
    let bytes = <[u8; 32]>::try_from(from_hex(text)?).ok()?;
    VerifyingKey::from_bytes(&bytes).ok()
}

/// Whether a signature, as hexadecimal digits, is this key's over exactly these bytes.
pub(crate) fn is_signed(key: &VerifyingKey, signed: &str, signature: &str) -> bool {
    let bytes = from_hex(signature).and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    bytes.is_some_and(|bytes| key.verify_strict(signed.as_bytes(), &Signature::from_bytes(&bytes)).is_ok())
}
