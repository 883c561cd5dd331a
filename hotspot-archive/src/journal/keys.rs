//! Keys of journals and states: one per file, made with it, destroyed with it.
//!
//! Sealed segments can be opened by their recipients only; what is not sealed yet must be read by the gateway itself, so its key
//! lies there. A key is only as old as its file: whoever takes a gateway away reads what was open, and nothing of what was sealed
//! before, not even from blocks the file system has not yet used again. Beside each file lies its key wrapped for the recipients, from
//! before the file is there: what is kept because it is damaged, or because the gateway lost its key, is theirs to read, and no longer
//! the gateway's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::JournalError;
use crate::at_rest::{AtRest, NotOpened};
use crate::durable;
use crate::keys::{DataKey, Keyring, Recipients};
use crate::sealed::FrameKey;

/// Where the keys of journals and states lie, and for whom new ones are wrapped.
#[derive(Clone, Debug)]
pub struct JournalKeys {
    dir: PathBuf,
    /// Nothing is encrypted where there are none.
    recipients: Option<Recipients>,
    at_rest: AtRest,
    /// Opens wrapped keys, where somebody reads who is a recipient.
    keyring: Option<Arc<Keyring>>,
}

impl JournalKeys {
    /// New files are encrypted if there are recipients; those that are encrypted can be read either way.
    #[must_use]
    pub fn new(dir: PathBuf, recipients: Option<Recipients>) -> Self {
        Self { dir, recipients, at_rest: AtRest::plain(), keyring: None }
    }

    /// Nothing is encrypted, and nothing that is can be read.
    #[must_use]
    pub fn none() -> Self {
        Self::new(PathBuf::new(), None)
    }

    /// The same, where keys lie on disk as `at_rest` has it.
    #[must_use]
    pub fn lying(self, at_rest: AtRest) -> Self {
        Self { at_rest, ..self }
    }

    /// The same for somebody who may be a recipient.
    #[must_use]
    pub fn with_keyring(self, keyring: Keyring) -> Self {
        Self { keyring: Some(Arc::new(keyring)), ..self }
    }

    /// A key for a file that is about to be made, on disk and wrapped before the file is.
    ///
    /// One that is there already stays in use: an earlier attempt at the same file may be what is found after a power cut.
    pub(super) fn create(&self, file: &Path) -> Result<Option<FrameKey>, JournalError> {
        let Some(recipients) = &self.recipients else { return Ok(None) };
        let path = self.path(file);
        let failed = |source| JournalError::Io { operation: "created", path: path.clone(), source };
        durable::make_dir(&self.dir).map_err(failed)?;
        let wrapped = wrapped_key_path(file);
        if let Some(key) = self.read(file)? {
            if !wrapped.exists() {
                recipients.wrap_to(&key, &wrapped)?;
            }
            durable::sync_dir(&self.dir).map_err(failed)?;
            return frame_key(&key, &path).map(Some);
        }
        let key = DataKey::generate()?;
        // First: a key that is found is taken for wrapped.
        recipients.wrap_to(&key, &wrapped)?;
        let lying = self.at_rest.close(KIND, key.expose()).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        durable::write_secret(&path, &lying).map_err(failed)?;
        frame_key(&key, &path).map(Some)
    }

    /// The key of an encrypted file.
    pub(super) fn open(&self, file: &Path) -> Result<FrameKey, JournalError> {
        self.find(file)?.ok_or_else(|| JournalError::NoKey { path: file.to_path_buf(), key: self.path(file) })
    }

    /// The key of a file; `None` where there is none, or one that is not whole.
    pub(super) fn find(&self, file: &Path) -> Result<Option<FrameKey>, JournalError> {
        if let Some(key) = self.read(file)? {
            return frame_key(&key, file).map(Some);
        }
        let wrapped = wrapped_key_path(file);
        match &self.keyring {
            Some(keyring) if wrapped.exists() => frame_key(&keyring.data_key_in(file, &wrapped)?, file).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    /// The key that lies here for a file.
    fn read(&self, file: &Path) -> Result<Option<DataKey>, JournalError> {
        let path = self.path(file);
        let failed = |source| JournalError::Io { operation: "read", path: path.clone(), source };
        let lying = match fs::read(&path).map(zeroize::Zeroizing::new) {
            Ok(lying) => lying,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        match self.at_rest.open(KIND, &lying) {
            Ok(key) => Ok(DataKey::from_bytes(&key[..])),
            Err(NotOpened::NotAKey) => Ok(None),
            Err(why @ (NotOpened::NoSecret | NotOpened::OtherSecret)) => {
                Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, why)))
            }
        }
    }

    /// Whether only the recipients can read a file, because its key was in memory when the machine stopped.
    #[must_use]
    pub fn has_lost(&self, file: &Path) -> bool {
        wrapped_key_path(file).exists() && !self.path(file).exists()
    }

    /// Destroys the key of a file that is no longer needed.
    pub fn forget(&self, file: &Path) -> io::Result<()> {
        durable::shred(&self.path(file))?;
        durable::remove(&wrapped_key_path(file))
    }

    /// Keeps a damaged file under another name, and returns that. With recipients its key goes to them, and lies here no longer.
    pub fn set_aside(&self, file: &Path) -> Result<PathBuf, JournalError> {
        let kept = damaged_name(file);
        let failed = |source| JournalError::Io { operation: "kept", path: file.to_path_buf(), source };
        self.wrap(file)?;
        fs::rename(file, &kept).map_err(failed)?;
        // A file that had its earlier name again after a power cut would be taken for one whose key was destroyed because it is sealed.
        durable::sync_dir(durable::parent(file)).map_err(failed)?;
        self.leave_to_recipients(file)?;
        Ok(kept)
    }

    /// Wraps a key that an earlier version made, or another list of options.
    fn wrap(&self, file: &Path) -> Result<(), JournalError> {
        let wrapped = wrapped_key_path(file);
        match (&self.recipients, self.read(file)?) {
            (Some(recipients), Some(key)) if !wrapped.exists() => Ok(recipients.wrap_to(&key, &wrapped)?),
            _ => Ok(()),
        }
    }

    fn leave_to_recipients(&self, file: &Path) -> Result<(), JournalError> {
        let path = self.path(file);
        let is_theirs = self.recipients.is_some() && wrapped_key_path(file).exists();
        let gone = if is_theirs { durable::shred(&path) } else { Ok(()) };
        gone.map_err(|source| JournalError::Io { operation: "destroyed", path, source })
    }

    /// Destroys the keys whose files are gone, and finishes handing over those whose files are kept.
    pub fn forget_orphans(&self, dirs: &[PathBuf]) -> Result<(), JournalError> {
        let unusable = |source| JournalError::Io { operation: "read", path: self.dir.clone(), source };
        for path in files_named(&self.dir, "key").map_err(unusable)? {
            let name = path.file_stem().unwrap_or_default();
            if dirs.iter().any(|dir| dir.join(name).exists()) {
                continue;
            }
            match dirs.iter().map(|dir| dir.join(name)).find(|file| damaged_name(file).exists()) {
                Some(file) => {
                    self.wrap(&file)?;
                    self.leave_to_recipients(&file)?;
                }
                None => durable::shred(&path).map_err(unusable)?,
            }
        }
        for dir in dirs {
            for wrapped in files_named(dir, "age").map_err(unusable)? {
                let file = wrapped.with_extension("");
                if !file.exists() && !damaged_name(&file).exists() {
                    durable::remove(&wrapped).map_err(unusable)?;
                }
            }
        }
        Ok(())
    }

    fn path(&self, file: &Path) -> PathBuf {
        self.dir.join(format!("{}.key", plain_name(file)))
    }
}

/// What a journal's key is sealed as, where keys lie under a secret.
const KIND: &str = "journal key";

fn frame_key(key: &DataKey, of: &Path) -> Result<FrameKey, JournalError> {
    let unusable = || JournalError::NoKey { path: of.to_path_buf(), key: of.to_path_buf() };
    FrameKey::new(key.expose()).ok_or_else(unusable)
}

/// Where the key of a journal or state lies that is wrapped for the recipients: `x.journal.age`, also for `x.journal.damaged`.
#[must_use]
pub fn wrapped_key_path(file: &Path) -> PathBuf {
    file.with_file_name(format!("{}.age", plain_name(file)))
}

/// Files are written under a temporary name first, and kept under another where they are damaged: the key has the name between.
fn plain_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(".tmp").trim_end_matches(DAMAGED).to_owned()
}

/// The files of a directory with an extension; none where there is no directory.
fn files_named(dir: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == extension)).collect())
}

const DAMAGED: &str = ".damaged";

/// Where a damaged journal is kept after what was whole of it is sealed.
#[must_use]
pub fn damaged_name(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(DAMAGED);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, JournalHeader};
    use crate::journal::{JournalWriter, replay};
    use crate::keys::Identity;

    fn header() -> Entry {
        Entry::Header(of_sequence(1))
    }

    fn of_sequence(sequence: u64) -> JournalHeader {
        let (site, gateway, boot_id, software) = ("s".into(), "g".into(), "b".into(), "t".into());
        JournalHeader { sequence, site, gateway, boot_id, opened_ns: 1, software, clock: None }
    }

    /// A gateway's keys and a journal, with the identities of those who may read.
    struct Gateway {
        dir: tempfile::TempDir,
        journal: PathBuf,
        key: PathBuf,
        keys: JournalKeys,
        readers: Vec<Identity>,
    }

    impl Gateway {
        fn new(encrypts: bool) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let readers = vec![Identity::generate(), Identity::generate()];
            let texts: Vec<String> = readers.iter().map(Identity::recipient).collect();
            let recipients = encrypts.then(|| Recipients::parse(&texts, false).unwrap());
            let keys = JournalKeys::new(dir.path().join("keys"), recipients);
            let journal = dir.path().join("1.journal");
            drop(JournalWriter::create(&journal, &of_sequence(1), &keys).unwrap());
            let key = dir.path().join("keys/1.journal.key");
            Self { dir, journal, key, keys, readers }
        }

        fn start(&self) {
            self.keys.forget_orphans(&[self.dir.path().to_path_buf()]).unwrap();
        }

        fn read(&self, file: &Path, identity: Option<Identity>) -> Result<Vec<Entry>, JournalError> {
            let keys = JournalKeys::new(self.dir.path().join("keys"), None);
            let keys = match identity {
                Some(identity) => keys.with_keyring(Keyring::of(vec![identity])),
                None => keys,
            };
            let mut entries = Vec::new();
            replay(file, &keys, |entry| entries.push(entry)).map(|_| entries)
        }
    }

    #[test]
    fn a_kept_journal_is_its_recipients_and_no_longer_the_gateways() {
        let mut gateway = Gateway::new(true);
        let kept = gateway.keys.set_aside(&gateway.journal).unwrap();
        assert!(!gateway.key.exists() && !gateway.journal.exists());
        gateway.start();
        for reader in std::mem::take(&mut gateway.readers) {
            assert_eq!(gateway.read(&kept, Some(reader)).unwrap(), [header()]);
        }
        assert!(matches!(gateway.read(&kept, None), Err(JournalError::NoKey { .. })));
        let stranger = gateway.read(&kept, Some(Identity::generate()));
        assert!(matches!(stranger, Err(JournalError::Key(crate::keys::KeyError::NotForUs { .. }))));
    }

    #[test]
    fn a_gateway_without_recipients_keeps_a_journal_as_it_is() {
        let gateway = Gateway::new(false);
        let kept = gateway.keys.set_aside(&gateway.journal).unwrap();
        gateway.start();
        assert_eq!(gateway.read(&kept, None).unwrap(), [header()]);
        assert!(!wrapped_key_path(&kept).exists());
    }

    #[test]
    fn a_start_hands_over_the_keys_of_journals_that_were_kept_before_wherever_that_was_cut() {
        // Renamed and not wrapped, as an earlier version left it; wrapped and not destroyed, as a power cut leaves it.
        for is_wrapped in [false, true] {
            let mut gateway = Gateway::new(true);
            fs::rename(&gateway.journal, damaged_name(&gateway.journal)).unwrap();
            if !is_wrapped {
                fs::remove_file(wrapped_key_path(&gateway.journal)).unwrap();
            }
            gateway.start();
            assert!(!gateway.key.exists(), "wrapped: {is_wrapped}");
            let reader = gateway.readers.pop();
            assert_eq!(gateway.read(&damaged_name(&gateway.journal), reader).unwrap(), [header()]);
        }
    }

    #[test]
    fn a_journal_whose_gateway_lost_its_key_is_still_its_recipients() {
        let mut gateway = Gateway::new(true);
        fs::remove_dir_all(gateway.key.parent().unwrap()).unwrap();
        let reader = gateway.readers.pop();
        assert_eq!(gateway.read(&gateway.journal, reader).unwrap(), [header()]);
        let kept = gateway.keys.set_aside(&gateway.journal).unwrap();
        let reader = gateway.readers.pop();
        assert_eq!(gateway.read(&kept, reader).unwrap(), [header()]);
    }

    #[test]
    fn what_is_sealed_takes_its_key_and_its_wrapped_key_with_it() {
        let gateway = Gateway::new(true);
        fs::remove_file(&gateway.journal).unwrap();
        gateway.keys.forget(&gateway.journal).unwrap();
        assert!(!gateway.key.exists() && !wrapped_key_path(&gateway.journal).exists());
        // The same where a power cut came between.
        let gateway = Gateway::new(true);
        fs::remove_file(&gateway.journal).unwrap();
        gateway.start();
        assert!(!gateway.key.exists() && !wrapped_key_path(&gateway.journal).exists());
    }

    #[test]
    fn journals_are_read_under_the_secret_they_were_written_under() {
        let gateway = Gateway::new(true);
        let under = gateway.keys.clone().lying(AtRest::under(&[3; 32]).unwrap());
        let path = gateway.dir.path().join("2.journal");
        drop(JournalWriter::create(&path, &of_sequence(2), &under).unwrap());
        for file in [&gateway.journal, &path] {
            assert_eq!(replay(file, &under, |_| {}).unwrap().entries, 1, "{}", file.display());
        }
        let without = replay(&path, &gateway.keys, |_| {}).unwrap_err();
        assert!(matches!(without, JournalError::Io { source, .. } if source.to_string().contains("hotspot.keys")));
    }
}
