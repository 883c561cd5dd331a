//! Files of identities: lines of `AGE-SECRET-KEY-1…` as they are, or in an age file under a passphrase (scrypt), as `age -p` makes it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::SecretString;
use zeroize::Zeroizing;

use super::{Identity, KeyError};

/// Asks whoever is there for the passphrase of a file.
pub type Ask<'a> = dyn FnMut(&Path) -> io::Result<Zeroizing<String>> + 'a;

/// Larger files hold something else.
const BYTES_MAX: u64 = 1 << 20;
const BINARY: &[u8] = b"age-encryption.org/";
const ARMORED: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";

/// The identities in a file.
pub(super) fn read(path: &Path, ask: &mut Ask<'_>) -> Result<Vec<Identity>, KeyError> {
    let failed = |source| KeyError::Io { operation: "read", path: path.to_path_buf(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        return Err(KeyError::IdentityIsOpen { path: path.to_path_buf() });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.starts_with(BINARY) || bytes.trim_ascii_start().starts_with(ARMORED) {
        bytes = opened(path, bytes.trim_ascii_start(), ask)?;
    }
    let nothing = || KeyError::NoIdentityInFile { path: path.to_path_buf() };
    let text = std::str::from_utf8(&bytes).map_err(|_| nothing())?;
    let found: Vec<Identity> = text.lines().filter_map(|line| line.trim().parse().ok().map(Identity)).collect();
    if found.is_empty() { Err(nothing()) } else { Ok(found) }
}

fn opened(path: &Path, bytes: &[u8], ask: &mut Ask<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let bad =
        |why: &dyn std::fmt::Display| KeyError::BadIdentityFile { path: path.to_path_buf(), why: why.to_string() };
    let decryptor = age::Decryptor::new(ArmoredReader::new(bytes)).map_err(|error| bad(&error))?;
    if !decryptor.is_scrypt() {
        return Err(bad(&"it is encrypted for a key, and not by a passphrase"));
    }
    let passphrase = ask(path).map_err(|source| KeyError::NoPassphrase { path: path.to_path_buf(), source })?;
    let identity = age::scrypt::Identity::new(SecretString::from(passphrase.as_str().to_owned()));
    let mut reader = match decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)) {
        Ok(reader) => reader,
        Err(age::DecryptError::DecryptionFailed | age::DecryptError::NoMatchingKeys) => {
            return Err(KeyError::WrongPassphrase { path: path.to_path_buf() });
        }
        Err(error) => return Err(bad(&error)),
    };
    // As long as the whole file, so that no half of it is left in memory when it grows.
    let mut text = Zeroizing::new(Vec::with_capacity(bytes.len()));
    reader.read_to_end(&mut text).map_err(|error| bad(&error))?;
    Ok(text)
}

/// The content of a file for an identity: as it is, or under a passphrase.
pub fn written(identity: &Identity, passphrase: Option<&str>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let text = Zeroizing::new(format!("# public key: {}\n{}\n", identity.recipient(), *identity.expose()));
    let Some(passphrase) = passphrase else { return Ok(Zeroizing::new(text.as_bytes().to_vec())) };
    let failed = |error: &dyn std::fmt::Display| KeyError::Wrap { why: error.to_string() };
    let recipient = age::scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
        .map_err(|error| failed(&error))?;
    let mut file = Zeroizing::new(Vec::new());
    let armored = ArmoredWriter::wrap_output(&mut *file, Format::AsciiArmor).map_err(|error| failed(&error))?;
    let mut writer = encryptor.wrap_output(armored).map_err(|error| failed(&error))?;
    writer.write_all(text.as_bytes()).map_err(|error| failed(&error))?;
    writer.finish().and_then(ArmoredWriter::finish).map_err(|error| failed(&error))?;
    Ok(file)
}
