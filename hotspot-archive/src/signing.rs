//! Signing keys of gateways: made, read, exchanged for the next, and their public halves.
//!
//! A key signs for one epoch. The next is named in a line that the last one signs, and then the last one is destroyed: whoever takes
//! a gateway over can sign from then on, and cannot change what was signed before. Destroyed means that the old key's file is
//! overwritten and flushed before the next key takes its name, so that no file is replaced while it still holds a key. A power cut on
//! the way leaves a file with zeros in it, and the next key beside it: the next start goes on from there.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::at_rest::{AtRest, NotOpened};
use crate::durable;
use crate::manifest::{ManifestError, from_hex, to_hex};
use crate::regular;
use crate::sealed;

/// The gateway's key: signs lines, and never leaves the gateway.
pub struct GatewayKey {
    key: SigningKey,
    /// Where it lies.
    path: PathBuf,
    /// Where the key in use lies.
    home: PathBuf,
    at_rest: AtRest,
    /// It has its name, which a power cut may still undo.
    is_unflushed: bool,
}

impl GatewayKey {
    /// Reads the key, or makes one that only the owner can read.
    pub fn open(path: &Path) -> Result<Self, ManifestError> {
        Self::open_under(path, &AtRest::plain())
    }

    /// The same where keys lie on disk as `at_rest` has it.
    pub fn open_under(path: &Path, at_rest: &AtRest) -> Result<Self, ManifestError> {
        match read(path, at_rest)? {
            Found::Key(seed) => Ok(Self::of(&seed, path, at_rest)),
            Found::Nothing => Self::create(path, at_rest),
            // Only a key that the chain has left is overwritten: the next one signs by now.
            Found::Destroyed => {
                let next = path.with_extension("next");
                let Found::Key(seed) = read(&next, at_rest)? else {
                    return Err(ManifestError::NotAKey { path: path.to_path_buf() });
                };
                let mut key = Self { home: path.to_path_buf(), ..Self::of(&seed, &next, at_rest) };
                key.settle()?;
                Ok(key)
            }
        }
    }

    fn of(seed: &[u8; 32], path: &Path, at_rest: &AtRest) -> Self {
        let (path, home) = (path.to_path_buf(), path.to_path_buf());
        Self { key: SigningKey::from_bytes(seed), path, home, at_rest: at_rest.clone(), is_unflushed: false }
    }

    fn create(path: &Path, at_rest: &AtRest) -> Result<Self, ManifestError> {
        let failed = |source| ManifestError::Io { operation: "created", path: path.to_path_buf(), source };
        let mut seed = Zeroizing::new([0; 32]);
        sealed::fill_random(&mut seed[..])
            .ok_or_else(|| failed(io::Error::other("the kernel gave no random bytes")))?;
        if let Some(dir) = path.parent() {
            durable::make_dir(dir).map_err(failed)?;
        }
        let lying = at_rest.close(KIND, &seed).ok_or_else(|| failed(io::Error::other("it cannot be sealed")))?;
        // Under another name first: half a key, left by a full disk, would be in the way for ever.
        durable::write_secret(path, Zeroizing::new(to_hex(&lying)).as_bytes()).map_err(failed)?;
        Ok(Self::of(&seed, path, at_rest))
    }

    /// The key that comes after this one, made if it is not there yet.
    pub(crate) fn next(&self) -> Result<Self, ManifestError> {
        let next = Self::open_under(&self.home.with_extension("next"), &self.at_rest)?;
        Ok(Self { home: self.home.clone(), ..next })
    }

    /// The next key, if there is one: an exchange that was not finished left it.
    pub(crate) fn pending(&self) -> Result<Option<Self>, ManifestError> {
        if self.home.with_extension("next").exists() { self.next().map(Some) } else { Ok(None) }
    }

    /// Destroys the key before, and puts a next key, which the chain names by now, into its place. What could not be done is done by
    /// calling it again.
    pub(crate) fn settle(&mut self) -> Result<(), ManifestError> {
        let failed =
            |home: &Path, source| ManifestError::Io { operation: "replaced", path: home.to_path_buf(), source };
        if self.path != self.home {
            durable::overwrite_file(&self.home).map_err(|source| failed(&self.home, source))?;
            fs::rename(&self.path, &self.home).map_err(|source| failed(&self.home, source))?;
            self.path.clone_from(&self.home);
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            let flushed = durable::sync_dir(durable::parent(&self.home));
            flushed.map_err(|source| failed(&self.home, source))?;
            self.is_unflushed = false;
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

/// What a key's file holds.
enum Found {
    Key(Zeroizing<[u8; 32]>),
    Nothing,
    /// Zeros, if not all the way: a key that was being overwritten.
    Destroyed,
}

fn read(path: &Path, at_rest: &AtRest) -> Result<Found, ManifestError> {
    let failed = |operation, source| ManifestError::Io { operation, path: path.to_path_buf(), source };
    let mut file = match regular::open_other(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(source) => return Err(failed("opened", source)),
    };
    let metadata = file.metadata().map_err(|source| failed("read", source))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(ManifestError::KeyIsOpen { path: path.to_path_buf() });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    (&mut file).take(BYTES_MAX).read_to_end(&mut bytes).map_err(|source| failed("read", source))?;
    // Keys are text.
    if bytes.contains(&0) {
        return Ok(Found::Destroyed);
    }
    let lying = std::str::from_utf8(&bytes).ok().and_then(|text| from_hex(text.trim())).map(Zeroizing::new);
    let lying = lying.ok_or_else(|| ManifestError::NotAKey { path: path.to_path_buf() })?;
    match at_rest.open(KIND, &lying) {
        Ok(seed) => Ok(Found::Key(seed)),
        Err(NotOpened::NotAKey) => Err(ManifestError::NotAKey { path: path.to_path_buf() }),
        Err(why @ (NotOpened::NoSecret | NotOpened::OtherSecret)) => {
            Err(failed("opened", io::Error::new(io::ErrorKind::PermissionDenied, why)))
        }
    }
}

/// What a signing key is sealed as, where keys lie under a secret.
const KIND: &str = "signing key";
/// More than any key's file.
const BYTES_MAX: u64 = 4096;

/// The name of a public key in lines.
#[must_use]
pub fn key_id(key: &VerifyingKey) -> String {
    to_hex(&Sha256::digest(key.as_bytes()))[..16].to_owned()
}

/// Reads a public key as `manifest/<gateway>.pub` holds it.
pub fn read_public_key(path: &Path) -> Result<VerifyingKey, ManifestError> {
    let read = regular::open_path(path).and_then(|file| regular::read_open(file, BYTES_MAX));
    let bytes = read.map_err(|source| ManifestError::Io { operation: "read", path: path.to_path_buf(), source })?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    parse_public_key(text.trim()).ok_or_else(|| ManifestError::NotAKey { path: path.to_path_buf() })
}

/// A public key as text holds it.
#[must_use]
pub fn parse_public_key(text: &str) -> Option<VerifyingKey> {
    let bytes = <[u8; 32]>::try_from(from_hex(text)?).ok()?;
    // Of a weak key anybody can make signatures.
    VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak())
}

/// Whether a signature, as hexadecimal digits, is this key's over exactly these bytes.
pub(crate) fn is_signed(key: &VerifyingKey, signed: &str, signature: &str) -> bool {
    let bytes = from_hex(signature).and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    bytes.is_some_and(|bytes| key.verify_strict(signed.as_bytes(), &Signature::from_bytes(&bytes)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    /// A data directory whose chain has just left its first key; with the text of that key, and of the next.
    fn in_exchange(at_rest: &AtRest) -> (tempfile::TempDir, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        let first = GatewayKey::open_under(&path, at_rest).unwrap();
        let old = fs::read_to_string(&path).unwrap();
        let next = first.next().unwrap();
        let new = fs::read_to_string(path.with_extension("next")).unwrap();
        drop(next);
        let mut manifest = Manifest::open(&dir.path().join("archive"), "g", first).unwrap();
        manifest.begin_epoch(1, None).unwrap();
        (dir, old, new)
    }

    /// The step after `done` steps of an exchange: so many bytes overwritten, and perhaps renamed.
    fn cut(dir: &Path, old: &str, new: &str, overwritten: usize) {
        let path = dir.join("signing.key");
        let mut lying = old.as_bytes().to_vec();
        lying[..overwritten].fill(0);
        durable::write_secret(&path, &lying).unwrap();
        durable::write_secret(&path.with_extension("next"), new.as_bytes()).unwrap();
    }

    #[test]
    fn a_start_finishes_an_exchange_of_keys_wherever_it_was_cut() {
        for at_rest in [AtRest::plain(), AtRest::under(&[5; 40]).unwrap()] {
            let (dir, old, new) = in_exchange(&at_rest);
            let path = dir.path().join("signing.key");
            assert_eq!(fs::read_to_string(&path).unwrap(), new);
            for overwritten in 0..=old.len() {
                cut(dir.path(), &old, &new, overwritten);
                let key = GatewayKey::open_under(&path, &at_rest).unwrap();
                let mut manifest = Manifest::open(&dir.path().join("archive"), "g", key).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), new, "cut after {overwritten} bytes");
                assert!(!path.with_extension("next").exists(), "cut after {overwritten} bytes");
                if overwritten == old.len() {
                    manifest.begin_epoch(2, None).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_key_without_the_next_one_is_not_made_anew_when_it_was_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        durable::write_secret(&path, &[0; 64]).unwrap();
        assert!(matches!(GatewayKey::open(&path), Err(ManifestError::NotAKey { .. })));
    }

    #[test]
    fn keys_under_a_secret_follow_those_that_lay_there_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (path, archive) = (dir.path().join("signing.key"), dir.path().join("archive"));
        let plain = GatewayKey::open(&path).unwrap();
        let public = plain.public();
        Manifest::open(&archive, "g", plain).unwrap();
        let under = AtRest::under(b"a secret that only the TPM of this machine opens").unwrap();
        let key = GatewayKey::open_under(&path, &under).unwrap();
        assert_eq!(key.public(), public);
        let mut manifest = Manifest::open(&archive, "g", key).unwrap();
        manifest.begin_epoch(1, None).unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), 120, "sealed");
        let without = GatewayKey::open(&path).map(drop).unwrap_err();
        let why = std::error::Error::source(&without).unwrap().to_string();
        assert!(why.contains("hotspot.keys"), "{why}");
        assert!(GatewayKey::open_under(&path, &AtRest::under(&[9; 32]).unwrap()).is_err());
        Manifest::open(&archive, "g", GatewayKey::open_under(&path, &under).unwrap()).unwrap();
    }
}
