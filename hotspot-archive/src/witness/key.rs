//! The witness's own key: a file with its name and seed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::manifest::to_hex;
use crate::note::{KeyKind, VerifierKey, is_key_name};
use crate::output_file::OutputFile;

/// Begins the text of a signing key, as the note tools of Go have it.
const PREFIX: &str = "PRIVATE+KEY+";

/// Signs cosignatures under a name.
pub struct WitnessKey {
    pub(super) name: String,
    pub(super) key: SigningKey,
}

impl WitnessKey {
    /// Makes a key in a new file that only its owner can read.
    pub fn create(path: &Path, name: &str) -> io::Result<Self> {
        if !is_key_name(name) {
            return Err(io::Error::other(format!("{name:?} cannot be a witness's name: no spaces and no '+'")));
        }
        let file = OutputFile::begin_secret(path)?;
        let mut seed = Zeroizing::new([0; 32]);
        let filled = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty());
        if filled != Ok(seed.len()) {
            return Err(io::Error::other("the kernel gave no random bytes"));
        }
        let made = Self { name: name.to_owned(), key: SigningKey::from_bytes(&seed) };
        let bytes = Zeroizing::new([&[KeyKind::Cosignature as u8][..], &seed[..]].concat());
        let id = to_hex(&made.verifier().id());
        let text = Zeroizing::new(format!("{PREFIX}{name}+{id}+{}\n", STANDARD.encode(&bytes)));
        file.file()?.write_all(text.as_bytes())?;
        file.commit()?;
        Ok(made)
    }

    /// Reads a key.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if file.metadata()?.mode() & 0o077 != 0 {
            return Err(io::Error::other("it can be read by others; `chmod 600` it, and consider it known"));
        }
        let mut text = Zeroizing::new(String::new());
        Read::by_ref(&mut file).take(4096).read_to_string(&mut text)?;
        let bad = || io::Error::other("it holds no witness's key; `hotspot witness new-key` makes one");
        let rest = text.trim().strip_prefix(PREFIX).ok_or_else(bad)?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else { return Err(bad()) };
        let bytes = Zeroizing::new(STANDARD.decode(key).map_err(|_| bad())?);
        let (kind, seed) = bytes.split_first().ok_or_else(bad)?;
        let seed = <[u8; 32]>::try_from(seed).map(Zeroizing::new).map_err(|_| bad())?;
        let opened = Self { name: name.to_owned(), key: SigningKey::from_bytes(&seed) };
        let is_ours = *kind == KeyKind::Cosignature as u8 && to_hex(&opened.verifier().id()) == id;
        if is_ours { Ok(opened) } else { Err(bad()) }
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey { name: self.name.clone(), kind: KeyKind::Cosignature, key: self.key.verifying_key() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made_and_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.key");
        let made = WitnessKey::create(&path, "witness.example/w1").unwrap();
        assert_eq!(WitnessKey::open(&path).unwrap().verifier(), made.verifier());
        assert!(WitnessKey::create(&path, "witness.example/w1").is_err(), "never written over");
        let text = std::fs::read_to_string(&path).unwrap();
        for changed in
            [text.replace("w1+", "w2+"), text.replace("PRIVATE", "private"), text[..text.len() - 9].to_owned()]
        {
            std::fs::write(&path, changed).unwrap();
            assert!(WitnessKey::open(&path).is_err());
        }
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(WitnessKey::open(&path).is_err());
        assert!(WitnessKey::create(&dir.path().join("x"), "a name").is_err());
    }
}
