//! Keys of encrypted segments: made on the gateway, wrapped for those who may read, unwrapped by them.
//!
//! Owns the data key of a segment, the recipients it is wrapped for (age, X25519) and the sidecars that hold it. The gateway has
//! public keys only and forgets a data key once its files are written. Keys are wiped from memory when they are dropped, and
//! neither `Debug` nor an error ever shows one. The format is in `docs/formats/encryption.md`.

mod identity_file;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use age::x25519;
use parquet::encryption::decrypt::FileDecryptionProperties;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use identity_file::{Ask, written as identity_file};

use crate::index::KnownChains;
use crate::layout::Class;
use crate::manifest::to_hex;
use crate::segment::Origin;
use crate::{durable, regular, sealed};

/// With fewer, one lost key loses the archive.
pub const RECIPIENTS_MIN: usize = 2;
/// Sidecars are small; anything larger is none.
const SIDECAR_BYTES_MAX: u64 = 1 << 20;
/// Data keys a keyring remembers, so that a search unwraps each once.
const REMEMBERED_MAX: usize = 8192;
const KEY_LEN: usize = 32;

/// What went wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{} cannot be {operation}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("recipient {number} is none; it begins with age1 and is shown by `hotspot keys new`")]
    NotARecipient { number: usize },
    #[error("one recipient is given twice; the second must be somebody else's")]
    RecipientTwice,
    #[error("{found} recipient: a lost key would lose the archive; give another, or say --allow-one-recipient")]
    TooFewRecipients { found: usize },
    #[error("{} holds no identity (a line that begins with AGE-SECRET-KEY-1)", path.display())]
    NoIdentityInFile { path: PathBuf },
    #[error("{} can be read by others; `chmod 600` it", path.display())]
    IdentityIsOpen { path: PathBuf },
    #[error("{} has a passphrase, and none was given: {source}", path.display())]
    NoPassphrase { path: PathBuf, source: io::Error },
    #[error("the passphrase does not open {}", path.display())]
    WrongPassphrase { path: PathBuf },
    #[error("{} is not an identity under a passphrase: {why}", path.display())]
    BadIdentityFile { path: PathBuf, why: String },
    #[error("{} is encrypted; give the identity of one of its recipients with --identity FILE", path.display())]
    NoIdentity { path: PathBuf },
    #[error("{} is not wrapped for any identity given", path.display())]
    NotForUs { path: PathBuf },
    #[error("{} has no sidecar {}; without it nobody can open it", path.display(), sidecar.display())]
    NoSidecar { path: PathBuf, sidecar: PathBuf },
    #[error("{} is not a wrapped key: {why}", path.display())]
    BadSidecar { path: PathBuf, why: String },
    #[error("the key cannot be wrapped: {why}")]
    Wrap { why: String },
    #[error("the kernel gave no random bytes")]
    NoRandomness,
}

/// A key of 32 bytes: that of one segment, which is its Parquet footer key, or that of one index.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey(Zeroizing<[u8; KEY_LEN]>);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey")
    }
}

impl DataKey {
    /// A key nobody has had before.
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        sealed::fill_random(&mut *key).ok_or(KeyError::NoRandomness)?;
        Ok(Self(key))
    }

    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// The key itself, for whoever hands it to another program.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// What a manifest line says of the key: enough to tell that an unwrapped key is the right one, of no use for reading.
    #[must_use]
    pub fn commitment(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"hotspot data key 1");
        hash.update(&self.0[..]);
        to_hex(&hash.finalize())
    }

    /// Uniform AES-256-GCM with an encrypted footer, bound to gateway, sequence and class.
    pub(crate) fn encryption(
        &self,
        origin: &Origin,
        class: Class,
    ) -> Result<Arc<FileEncryptionProperties>, ParquetError> {
        FileEncryptionProperties::builder(self.0.to_vec())
            .with_aad_prefix(sealed::binding(origin, class.label()))
            // So that readers of others need nothing but the key.
            .with_aad_prefix_storage(true)
            .build()
    }

    pub(crate) fn decryption(&self) -> Result<Arc<FileDecryptionProperties>, ParquetError> {
        FileDecryptionProperties::builder(self.0.to_vec()).build()
    }
}

/// Those who can read what is sealed from now on.
#[derive(Clone)]
pub struct Recipients(Vec<x25519::Recipient>);

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Recipients {
    /// Reads recipients as `hotspot keys new` shows them.
    pub fn parse(texts: &[String], allow_one: bool) -> Result<Self, KeyError> {
        let recipients = texts
            .iter()
            .enumerate()
            // Not shown: somebody may have given a secret key by mistake.
            .map(|(at, text)| text.trim().parse().map_err(|_| KeyError::NotARecipient { number: at + 1 }))
            .collect::<Result<Vec<x25519::Recipient>, _>>()?;
        let recipients = Self(recipients);
        if recipients.names().collect::<BTreeSet<_>>().len() != texts.len() {
            return Err(KeyError::RecipientTwice);
        }
        let min = if allow_one { 1 } else { RECIPIENTS_MIN };
        if texts.len() < min {
            return Err(KeyError::TooFewRecipients { found: texts.len() });
        }
        Ok(recipients)
    }

    /// Their public keys, as text.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(ToString::to_string)
    }

    /// A new key for a segment, wrapped into its sidecar. Doing it again, after a crash, replaces the sidecar.
    pub fn fresh_key(&self, segment: &Path) -> Result<DataKey, KeyError> {
        let key = DataKey::generate()?;
        self.wrap_to(&key, &sidecar_path(segment))?;
        Ok(key)
    }

    /// A key as an age file that these recipients can read.
    pub(crate) fn wrap(&self, key: &DataKey) -> Result<Vec<u8>, KeyError> {
        let failed = |why: String| KeyError::Wrap { why };
        let each = self.0.iter().map(|recipient| -> &dyn age::Recipient { recipient });
        let encryptor = age::Encryptor::with_recipients(each).map_err(|error| failed(error.to_string()))?;
        let mut wrapped = Vec::new();
        let mut writer = encryptor.wrap_output(&mut wrapped).map_err(|error| failed(error.to_string()))?;
        writer.write_all(key.expose()).map_err(|error| failed(error.to_string()))?;
        writer.finish().map_err(|error| failed(error.to_string()))?;
        Ok(wrapped)
    }

    /// Writes a data key, readable for these recipients only, so that it is there whole or not at all.
    pub fn wrap_to(&self, key: &DataKey, sidecar: &Path) -> Result<(), KeyError> {
        let wrapped = self.wrap(key)?;
        let io = |source| KeyError::Io { operation: "written", path: sidecar.to_path_buf(), source };
        regular::make_parent(sidecar).map_err(io)?;
        durable::replace(sidecar, |file| file.write_all(&wrapped)).map_err(io)
    }
}

/// The short name of a recipient in names of files: 16 digits of the SHA-256 of its text.
#[must_use]
pub fn recipient_id(recipient: &str) -> String {
    to_hex(&Sha256::digest(recipient.as_bytes()))[..16].to_owned()
}

/// Where the wrapped key of a segment lies that its gateway wrote: `x.parquet.age`.
#[must_use]
pub fn sidecar_path(segment: &Path) -> PathBuf {
    with_suffix(segment, ".age")
}

/// Where the key lies that was wrapped later for one more recipient: `x.parquet.<id>.age`.
#[must_use]
pub fn added_sidecar_path(segment: &Path, recipient: &str) -> PathBuf {
    with_suffix(segment, &format!(".{}.age", recipient_id(recipient)))
}

/// Whether a file beside a segment is a key that was added for one more recipient, by both their names.
#[must_use]
pub fn is_added_sidecar(segment: &str, name: &str) -> bool {
    let id = name.strip_prefix(segment).and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".age"));
    id.is_some_and(|id| id.len() == 16 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// An identity: the secret half of a recipient.
pub struct Identity(x25519::Identity);

impl Identity {
    #[must_use]
    pub fn generate() -> Self {
        Self(x25519::Identity::generate())
    }

    #[cfg(test)]
    pub(crate) fn copy(&self) -> Self {
        Self(self.expose().parse().unwrap())
    }

    /// The public half, which gateways are given.
    #[must_use]
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    /// The secret half, as an identity file holds it.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        use age::secrecy::ExposeSecret;
        Zeroizing::new(self.0.to_string().expose_secret().to_owned())
    }
}

/// What a reader has: nothing, or identities.
#[derive(Default)]
pub struct Keyring {
    identities: Vec<Identity>,
    remembered: Mutex<HashMap<PathBuf, DataKey>>,
    chains: KnownChains,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring of {}", self.identities.len())
    }
}

impl Keyring {
    /// For archives that are not encrypted.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn of(identities: Vec<Identity>) -> Self {
        Self { identities, ..Self::default() }
    }

    /// Reads identity files: lines that begin with `AGE-SECRET-KEY-1`, beside empty ones and comments. Those that have a passphrase
    /// are asked for.
    pub fn read(paths: &[PathBuf], ask: &mut Ask<'_>) -> Result<Self, KeyError> {
        let files = paths.iter().map(|path| identity_file::read(path, ask)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of(files.into_iter().flatten().collect()))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }

    /// Public halves of the identities.
    pub fn recipients(&self) -> impl Iterator<Item = String> {
        self.identities.iter().map(Identity::recipient)
    }

    /// The key of an encrypted segment: from the sidecar its gateway wrote, or from one that was added for an identity here.
    pub fn data_key(&self, segment: &Path) -> Result<DataKey, KeyError> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(segment).cloned();
        if let Some(key) = remembered {
            return Ok(key);
        }
        if self.is_empty() {
            return Err(KeyError::NoIdentity { path: segment.to_path_buf() });
        }
        let written = sidecar_path(segment);
        let mut outcome = self.unwrap(&written);
        for recipient in self.recipients() {
            if outcome.is_ok() {
                break;
            }
            // What the gateway's sidecar has against it is said, unless another one helps.
            outcome = self.unwrap(&added_sidecar_path(segment, &recipient)).or(outcome);
        }
        let key = outcome.map_err(|error| {
            if matches!(&error, KeyError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound) {
                KeyError::NoSidecar { path: segment.to_path_buf(), sidecar: written }
            } else {
                error
            }
        })?;
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(segment.to_path_buf(), key.clone());
        Ok(key)
    }

    /// The key of a file other than a segment, wrapped in a file beside it.
    pub(crate) fn data_key_in(&self, file: &Path, wrapped: &Path) -> Result<DataKey, KeyError> {
        if self.is_empty() {
            return Err(KeyError::NoIdentity { path: file.to_path_buf() });
        }
        self.unwrap(wrapped)
    }

    /// Unwraps the key a sidecar holds.
    pub fn unwrap(&self, sidecar: &Path) -> Result<DataKey, KeyError> {
        let failed = |source| KeyError::Io { operation: "read", path: sidecar.to_path_buf(), source };
        let mut wrapped = Vec::new();
        let file = regular::open_path(sidecar).map_err(failed)?;
        file.take(SIDECAR_BYTES_MAX).read_to_end(&mut wrapped).map_err(failed)?;
        self.unwrap_bytes(&wrapped).map_err(|error| match error {
            UnwrapError::NotForUs => KeyError::NotForUs { path: sidecar.to_path_buf() },
            UnwrapError::Bad(why) => KeyError::BadSidecar { path: sidecar.to_path_buf(), why },
        })
    }

    /// Unwraps the key an age file holds.
    pub(crate) fn unwrap_bytes(&self, wrapped: &[u8]) -> Result<DataKey, UnwrapError> {
        let bad = |why: String| UnwrapError::Bad(why);
        let decryptor = age::Decryptor::new(wrapped).map_err(|error| bad(error.to_string()))?;
        let each = self.identities.iter().map(|identity| -> &dyn age::Identity { &identity.0 });
        let reader = match decryptor.decrypt(each) {
            Ok(reader) => reader,
            Err(age::DecryptError::NoMatchingKeys) => return Err(UnwrapError::NotForUs),
            Err(error) => return Err(bad(error.to_string())),
        };
        let mut key = Zeroizing::new(Vec::with_capacity(KEY_LEN + 1));
        reader.take(KEY_LEN as u64 + 1).read_to_end(&mut key).map_err(|error| bad(error.to_string()))?;
        DataKey::from_bytes(&key).ok_or_else(|| bad("it does not hold 32 bytes".to_owned()))
    }

    /// The keys of indexes, as far as they are known.
    pub(crate) fn chains(&self) -> &KnownChains {
        &self.chains
    }
}

/// Why a wrapped key was not unwrapped.
#[derive(Debug)]
pub(crate) enum UnwrapError {
    NotForUs,
    Bad(String),
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::segment::tests::flow;
    use crate::segment::{Records, SegmentError, SegmentReader, write_flows};

    fn origin() -> Origin {
        Origin { site: "s".into(), gateway: "g".into(), sequence: 1 }
    }

    fn recipients(identities: &[&Identity]) -> Recipients {
        let texts: Vec<String> = identities.iter().map(|identity| identity.recipient()).collect();
        Recipients::parse(&texts, false).unwrap()
    }

    fn copy(identity: &Identity) -> Identity {
        Identity(identity.expose().parse().unwrap())
    }

    #[test]
    fn either_of_two_identities_opens_a_segment_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let (first, second, other) = (Identity::generate(), Identity::generate(), Identity::generate());
        let key = recipients(&[&first, &second]).fresh_key(&path).unwrap();
        let rows: Vec<_> = (0..20_000).map(flow).collect();
        write_flows(&path, &origin(), Some(&key), &rows).unwrap();
        for identity in [first, second] {
            let keyring = Keyring::of(vec![identity]);
            let reader = SegmentReader::open(&path, &keyring).unwrap();
            assert_eq!(reader.origin(), &origin());
            let mut read = Vec::new();
            for records in reader.read() {
                let Records::Flows(flows) = records.unwrap() else { panic!("another class") };
                read.extend(flows);
            }
            assert_eq!(read, rows);
        }
        let stranger = SegmentReader::open(&path, &Keyring::of(vec![other]));
        assert!(matches!(stranger, Err(SegmentError::Key(KeyError::NotForUs { .. }))));
        let nobody = SegmentReader::open(&path, &Keyring::none());
        assert!(matches!(nobody, Err(SegmentError::Key(KeyError::NoIdentity { .. }))));
    }

    #[test]
    fn a_recipient_can_be_added_and_a_lost_sidecar_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let (first, second, added) = (Identity::generate(), Identity::generate(), Identity::generate());
        let key = recipients(&[&first, &second]).fresh_key(&path).unwrap();
        let only = Recipients::parse(&[added.recipient()], true).unwrap();
        only.wrap_to(&key, &added_sidecar_path(&path, &added.recipient())).unwrap();
        assert_eq!(Keyring::of(vec![copy(&added)]).data_key(&path).unwrap(), key);
        fs::remove_file(sidecar_path(&path)).unwrap();
        assert_eq!(Keyring::of(vec![copy(&added)]).data_key(&path).unwrap(), key);
        assert!(matches!(Keyring::of(vec![first]).data_key(&path), Err(KeyError::NoSidecar { .. })));
    }

    #[test]
    fn every_changed_byte_of_a_sidecar_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let (first, second) = (Identity::generate(), Identity::generate());
        recipients(&[&first, &second]).fresh_key(&path).unwrap();
        let sidecar = sidecar_path(&path);
        let bytes = fs::read(&sidecar).unwrap();
        let keyring = Keyring::of(vec![first]);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&sidecar, &changed).unwrap();
            assert!(keyring.unwrap(&sidecar).is_err(), "byte {at}");
        }
        fs::write(&sidecar, &bytes).unwrap();
        assert!(keyring.unwrap(&sidecar).is_ok());
    }

    #[test]
    fn one_recipient_is_refused_unless_it_is_allowed() {
        let one = [Identity::generate().recipient()];
        assert!(matches!(Recipients::parse(&one, false), Err(KeyError::TooFewRecipients { found: 1 })));
        assert!(Recipients::parse(&one, true).is_ok());
        let twice = [one[0].clone(), one[0].clone()];
        assert!(matches!(Recipients::parse(&twice, false), Err(KeyError::RecipientTwice)));
        let secret = [Identity::generate().expose().to_string(), one[0].clone()];
        assert!(matches!(Recipients::parse(&secret, false), Err(KeyError::NotARecipient { .. })));
    }

    #[test]
    fn keys_do_not_show() {
        let key = DataKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "DataKey");
        assert_eq!(format!("{:?}", Keyring::of(vec![Identity::generate()])), "Keyring of 1");
    }
}
