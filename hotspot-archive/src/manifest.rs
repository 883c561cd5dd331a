//! The manifest: one signed line per sequence, chained by hashes, so that the archive can prove that it is whole.
//!
//! Owns the lines and the order in which they and the files come about. Guarantees that a line is appended only after its files are durable, and never twice. What
//! lines mean is in [`crate::chain`], verifying in [`crate::verify`]. The format is in `docs/formats/manifest.md`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use hotspot_core::WallNs;
use hotspot_core::record::{CoverageRecord, DeviceRecord, SessionRecord};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::chain::{self, Record};
use crate::draft::Draft;
use crate::durable;
use crate::index::{IndexKey, KeyChain};
use crate::keys::{DataKey, KeyError, Recipients, sidecar_path};
use crate::layout::{Class, segment_path};
use crate::retention::{ClockEvidence, Elapsed, RetentionError};
use crate::segment::{self, Origin, SegmentError};
pub use crate::signing::{GatewayKey, key_id, read_public_key};

/// `prev` of a chain's first line.
pub const NO_LINE: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Version of the line; the first field of each.
pub const FORMAT: u32 = 1;
/// Class of a wrapped key in a line.
pub const SIDECAR: &str = "key";
/// Version of lines about something else than a segment.
pub const EVENT_FORMAT: u32 = 2;
/// What follows the signed bytes of a line.
const SIGNATURE_FIELD: &str = ",\"signature\":\"";

/// What went wrong with keys or the manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{} cannot be {operation}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("the signing key {} can be read by others; `chmod 600` it, and consider it known", path.display())]
    KeyIsOpen { path: PathBuf },
    #[error("{} is not a signing key", path.display())]
    NotAKey { path: PathBuf },
    #[error("{}: line {line} is not a manifest line; run `hotspot verify`", path.display())]
    BadLine { path: PathBuf, line: usize },
    #[error("{} is not the public half of the gateway's key; restore the key that signed this archive, or begin with a new data directory", path.display())]
    KeyChanged { path: PathBuf },
    #[error("{} ends at sequence {found}, so {asked} cannot follow", path.display())]
    OutOfOrder { path: PathBuf, found: u64, asked: u64 },
    #[error("nothing is deleted: {0}")]
    Retention(#[from] RetentionError),
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A file a line vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub class: String,
    /// Relative to the archive's root, with `/`.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    /// [`DataKey::commitment`] of the key an encrypted file is under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Of an index: SHA-256 of the file as far as its header goes, which vouches for the rest of it, and for the segment block by block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
}

/// What was seen on all interfaces in a sequence, and whether it is accounted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageSummary {
    pub seen_packets: u64,
    pub seen_bytes: u64,
    /// Whether every packet seen is in a flow, an overflow total or a named outcome, in every generation.
    pub balanced: bool,
    /// Rows that say that something was not seen.
    pub gaps: u64,
}

/// A line without its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub format: u32,
    pub gateway: String,
    pub site: String,
    pub sequence: u64,
    pub from_ns: WallNs,
    pub to_ns: WallNs,
    pub sealed_ns: WallNs,
    pub files: Vec<FileEntry>,
    pub coverage: CoverageSummary,
    /// Those the keys of the files are wrapped for; none where nothing is encrypted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// What was known of time when the line was written; not in lines of early versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockEvidence>,
    /// How far the gateway's wall clock was set between the segment before and this one: all times of this one are by the new clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_step_ns: Option<i64>,
    /// SHA-256 of the line before, without its line feed; [`NO_LINE`] for the first.
    pub prev: String,
    /// First 16 hexadecimal digits of the SHA-256 of the public key.
    pub key: String,
}

/// A line about something else than a segment, without its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// [`EVENT_FORMAT`].
    pub format: u32,
    pub gateway: String,
    pub at_ns: WallNs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockEvidence>,
    pub event: Event,
    pub prev: String,
    pub key: String,
}

/// What happened to an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A new key signs from the next line on. `public`: 64 hexadecimal digits.
    Epoch { epoch: u64, public: String },
    /// Files were deleted because their time was over.
    Deleted { why: String, files: Vec<DeletedFile> },
}

/// A file that a line before vouched for, and that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedFile {
    pub path: String,
    pub sha256: String,
}

/// The signed bytes of an object that ends with its signature, and the signature.
pub(crate) fn split_signature(text: &str) -> Option<(String, &str)> {
    let (head, tail) = text.rsplit_once(SIGNATURE_FIELD)?;
    Some((format!("{head}}}"), tail.strip_suffix("\"}")?))
}

/// What is sealed together with the flows of a [`Draft`].
pub struct Sealing<'a> {
    pub closed_ns: WallNs,
    pub sealed_ns: WallNs,
    pub clock: Option<ClockEvidence>,
    /// How far the wall clock was set before this segment; 0 where it was not.
    pub step_ns: i64,
    pub sessions: &'a [SessionRecord],
    pub devices: &'a [DeviceRecord],
    pub coverage: &'a [CoverageRecord],
}

/// The manifest of one gateway, opened for appending.
pub struct Manifest {
    archive: PathBuf,
    path: PathBuf,
    key: GatewayKey,
    /// Those who may read what is sealed from now on; nothing is encrypted where there are none.
    recipients: Option<Recipients>,
    /// From the first index on that is encrypted.
    index_keys: Option<KeyChain>,
    sequence: u64,
    /// Number of the last line, and its hash.
    line: u64,
    head: String,
    epoch: u64,
    epoch_began_ns: Option<WallNs>,
    elapsed: Elapsed,
    gateway: String,
    /// Length of the file up to and with that line.
    len: u64,
    /// An append failed, so that the file may be longer than that.
    unfinished: bool,
}

impl Manifest {
    /// Opens or makes the chain of a gateway; cuts a last line that a crash left without its end.
    pub fn open(archive: &Path, gateway: &str, key: GatewayKey) -> Result<Self, ManifestError> {
        let dir = archive.join("manifest");
        let path = dir.join(format!("{gateway}.jsonl"));
        let failed = |operation, source| ManifestError::Io { operation, path: path.clone(), source };
        durable::make_dir(&dir).map_err(|source| failed("created", source))?;
        let public = dir.join(format!("{gateway}.pub"));
        if !public.exists() {
            let text = format!("{}\n", to_hex(key.public().as_bytes()));
            durable::replace(&public, |file| file.write_all(text.as_bytes()))
                .map_err(|source| failed("created", source))?;
        }
        let root = read_public_key(&public)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(failed("read", source)),
        };
        let whole = finished_len(&text);
        if !text.is_empty() {
            settle(&path, &text[..whole]).map_err(|source| failed("cut", source))?;
        }
        let mut opened = Self {
            archive: archive.to_path_buf(),
            path: path.clone(),
            key,
            recipients: None,
            index_keys: None,
            sequence: 0,
            line: 0,
            head: NO_LINE.to_owned(),
            epoch: 1,
            epoch_began_ns: None,
            elapsed: Elapsed::default(),
            gateway: gateway.to_owned(),
            len: whole as u64,
            unfinished: false,
        };
        let mut current = root;
        for (number, line) in text[..whole].lines().enumerate() {
            let bad = || ManifestError::BadLine { path: path.clone(), line: number + 1 };
            let signed = chain::parse(line).ok_or_else(bad)?;
            opened.learn(&signed.record, line);
            if let Record::Event(EventLine { event: Event::Epoch { public, .. }, .. }) = &signed.record {
                current = crate::signing::parse_public_key(public).ok_or_else(bad)?;
            }
        }
        opened.take_over(&current, public)
    }

    /// The key must be the one the chain goes on with. An exchange of keys that a crash interrupted is finished.
    fn take_over(mut self, current: &VerifyingKey, public: PathBuf) -> Result<Self, ManifestError> {
        if self.key.public() == *current {
            return Ok(self);
        }
        match self.key.pending()? {
            Some(next) if next.public() == *current => {
                self.key = next;
                self.key.settle()?;
                Ok(self)
            }
            Some(_) | None => Err(ManifestError::KeyChanged { path: public }),
        }
    }

    fn learn(&mut self, record: &Record, text: &str) {
        self.line += 1;
        self.head = to_hex(&Sha256::digest(text.as_bytes()));
        match record {
            Record::Segment(line) => {
                self.sequence = line.sequence;
                self.epoch_began_ns.get_or_insert(line.sealed_ns);
            }
            Record::Event(EventLine { event: Event::Epoch { epoch, .. }, at_ns, .. }) => {
                self.epoch = *epoch;
                self.epoch_began_ns = Some(*at_ns);
            }
            Record::Event(_) => {}
        }
        self.elapsed.learn(record);
    }

    /// Encrypts what is sealed from now on, for these recipients.
    #[must_use]
    pub fn encrypted_for(mut self, recipients: Option<Recipients>) -> Self {
        self.recipients = recipients;
        self.index_keys = None;
        self
    }

    /// A key for the next index.
    fn index_key(&mut self, recipients: &Recipients) -> Result<IndexKey, KeyError> {
        if let Some(key) = self.index_keys.as_mut().and_then(KeyChain::take) {
            return Ok(key);
        }
        let chain = self.index_keys.insert(KeyChain::begin(recipients)?);
        chain.take().ok_or(KeyError::NoRandomness)
    }

    /// The last sequence that is sealed, 0 for none.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.sequence
    }

    /// When the key in use began to sign; `None` before its first line.
    #[must_use]
    pub fn epoch_began_ns(&self) -> Option<WallNs> {
        self.epoch_began_ns
    }

    #[must_use]
    pub fn archive(&self) -> &Path {
        &self.archive
    }

    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// How much time has passed since each line, as far as the chain can tell.
    #[must_use]
    pub fn elapsed(&self) -> &Elapsed {
        &self.elapsed
    }

    /// The lines, read again.
    pub fn records(&self) -> Result<Vec<Record>, ManifestError> {
        let failed = |source| ManifestError::Io { operation: "read", path: self.path.clone(), source };
        let mut text = String::new();
        let file = File::open(&self.path).map_err(failed)?;
        file.take(self.len).read_to_string(&mut text).map_err(failed)?;
        let bad = |line: usize| ManifestError::BadLine { path: self.path.clone(), line };
        let lines = text.lines().enumerate();
        lines.map(|(at, line)| chain::parse(line).map(|signed| signed.record).ok_or_else(|| bad(at + 1))).collect()
    }

    /// Lets a new key sign from now on, and destroys the one before.
    pub fn begin_epoch(&mut self, at_ns: WallNs, clock: Option<ClockEvidence>) -> Result<(), ManifestError> {
        // From the last exchange, if the files were not in their places then.
        self.key.settle()?;
        // It stays where the line cannot be written: the line may be on disk all the same.
        let next = self.key.next()?;
        let public = to_hex(next.public().as_bytes());
        self.append_event(at_ns, clock, Event::Epoch { epoch: self.epoch + 1, public })?;
        // From here on only the new key may sign, whatever becomes of the files.
        self.key = next;
        self.key.settle()
    }

    /// Appends a line about something else than a segment.
    pub(crate) fn append_event(
        &mut self,
        at_ns: WallNs,
        clock: Option<ClockEvidence>,
        event: Event,
    ) -> Result<(), ManifestError> {
        let (prev, key) = (self.head.clone(), key_id(&self.key.public()));
        let line = EventLine { format: EVENT_FORMAT, gateway: self.gateway.clone(), at_ns, clock, event, prev, key };
        self.append(&Record::Event(line))
    }

    /// The head of the chain, signed: kept elsewhere, it shows later that nothing was cut off. `None` for an empty chain.
    #[must_use]
    pub fn checkpoint(&self, at_ns: WallNs) -> Option<String> {
        let checkpoint = chain::Checkpoint {
            checkpoint: chain::CHECKPOINT_FORMAT,
            gateway: self.gateway.clone(),
            line: self.line,
            sequence: self.sequence,
            at_ns,
            hash: self.head.clone(),
            key: key_id(&self.key.public()),
        };
        (self.line > 0).then(|| self.sign(&checkpoint).ok()).flatten()
    }

    /// An object as text, with the signature over it as its last field.
    fn sign(&self, object: &impl Serialize) -> Result<String, serde_json::Error> {
        let signed = serde_json::to_string(object)?;
        let signature = self.key.sign(signed.as_bytes());
        Ok(format!("{}{SIGNATURE_FIELD}{signature}\"}}", signed.strip_suffix('}').unwrap_or(&signed)))
    }

    /// Begins a sequence: its flows come first, row by row.
    pub fn draft(&mut self, origin: &Origin, opened_ns: WallNs) -> Result<Draft, ManifestError> {
        // The line of an attempt that failed may be found after a power cut: then the files must be the ones it names.
        self.undo_unfinished()?;
        if origin.sequence != self.last_sequence() + 1 {
            return Err(ManifestError::OutOfOrder {
                path: self.path.clone(),
                found: self.last_sequence(),
                asked: origin.sequence,
            });
        }
        let encryption = match self.recipients.clone() {
            Some(recipients) => {
                let key = self.index_key(&recipients)?;
                Some((recipients, key))
            }
            None => None,
        };
        Ok(Draft::new(&self.archive, origin, opened_ns, encryption))
    }

    /// Writes what else is in a sequence, then its line. Repeating it after a crash is harmless.
    pub fn seal(&mut self, draft: Draft, sealing: &Sealing<'_>) -> Result<Line, ManifestError> {
        let (origin, opened_ns) = (draft.origin().clone(), draft.opened_ns());
        let mut files = draft.finish()?;
        for class in Class::ALL {
            let rows = match class {
                // In the draft.
                Class::Flows => 0,
                Class::Sessions => sealing.sessions.len(),
                Class::Devices => sealing.devices.len(),
                Class::Coverage => sealing.coverage.len(),
            };
            if rows == 0 {
                continue;
            }
            let relative = segment_path(class, &origin.site, &origin.gateway, origin.sequence, opened_ns);
            let path = self.archive.join(&relative);
            let key = self.recipients.as_ref().map(|recipients| recipients.fresh_key(&path)).transpose()?;
            match class {
                Class::Flows => {}
                Class::Sessions => segment::write_sessions(&path, &origin, key.as_ref(), sealing.sessions)?,
                Class::Devices => segment::write_devices(&path, &origin, key.as_ref(), sealing.devices)?,
                Class::Coverage => segment::write_coverage(&path, &origin, key.as_ref(), sealing.coverage)?,
            }
            files.extend(file_entries(class, &self.archive, &relative, rows as u64, key.as_ref())?);
        }
        // The files' own directories are flushed with them; here the way to those.
        let mut dirs: Vec<&Path> = files.iter().filter_map(|file| Path::new(&file.path).parent()).collect();
        dirs.push(Path::new("manifest"));
        dirs.dedup();
        for dir in dirs {
            durable::sync_up(&self.archive.join(dir), &self.archive).map_err(|source| ManifestError::Io {
                operation: "flushed",
                path: self.archive.join(dir),
                source,
            })?;
        }
        let line = Line {
            format: FORMAT,
            gateway: origin.gateway.clone(),
            site: origin.site.clone(),
            sequence: origin.sequence,
            from_ns: opened_ns,
            to_ns: sealing.closed_ns,
            sealed_ns: sealing.sealed_ns,
            files,
            coverage: summarise(sealing.coverage),
            recipients: self.recipients.iter().flat_map(Recipients::names).collect(),
            clock: sealing.clock.clone(),
            clock_step_ns: Some(sealing.step_ns).filter(|step_ns| *step_ns != 0),
            prev: self.head.clone(),
            key: key_id(&self.key.public()),
        };
        self.append(&Record::Segment(line.clone()))?;
        Ok(line)
    }

    fn append(&mut self, record: &Record) -> Result<(), ManifestError> {
        self.undo_unfinished()?;
        let failed = |source| ManifestError::Io { operation: "appended to", path: self.path.clone(), source };
        let text = match record {
            Record::Segment(line) => self.sign(line),
            Record::Event(line) => self.sign(line),
        };
        let text = text.map_err(|error| failed(error.into()))?;
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path).map_err(failed)?;
        self.unfinished = true;
        file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        self.path.parent().map_or(Ok(()), durable::sync_dir).map_err(failed)?;
        self.unfinished = false;
        self.len += text.len() as u64 + 1;
        self.learn(record, &text);
        Ok(())
    }

    /// Cuts off what a failed append left, for good: nobody was told of that line, and one behind half a line would break the chain
    /// for ever.
    fn undo_unfinished(&mut self) -> Result<(), ManifestError> {
        if !self.unfinished {
            return Ok(());
        }
        let cut = match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) => file.set_len(self.len).and_then(|()| file.sync_all()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        cut.map_err(|source| ManifestError::Io { operation: "cut", path: self.path.clone(), source })?;
        self.unfinished = false;
        Ok(())
    }
}

/// Where the lines end that were written to their end. Behind them lies what a power cut left of one: without a line feed, or with
/// zeros where blocks of it did not reach the disk.
fn finished_len(text: &str) -> usize {
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let last = text[..whole].trim_end_matches('\n').rfind('\n').map_or(0, |end| end + 1);
    if text[last..whole].contains('\0') { last } else { whole }
}

/// Cuts a chain to its lines and makes the last of them durable: an agent that was killed before its flush had ended, or after it had
/// failed, leaves a line that is read and yet not on disk, and whose journal is about to be removed. A page that failed to be
/// written counts as clean, so flushing alone would not do.
fn settle(path: &Path, lines: &str) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(lines.len() as u64)?;
    let last = lines.trim_end_matches('\n').rfind('\n').map_or(0, |end| end + 1);
    file.write_all_at(&lines.as_bytes()[last..], last as u64)?;
    file.sync_all()?;
    path.parent().map_or(Ok(()), durable::sync_dir)
}

fn summarise(coverage: &[CoverageRecord]) -> CoverageSummary {
    CoverageSummary {
        seen_packets: coverage.iter().map(|row| row.seen.packets).sum(),
        seen_bytes: coverage.iter().map(|row| row.seen.bytes).sum(),
        balanced: coverage.iter().all(CoverageRecord::balances),
        gaps: coverage.iter().filter(|row| row.gap.is_some()).count() as u64,
    }
}

/// The entries of a segment and of the key it is under.
pub(crate) fn file_entries(
    class: Class,
    archive: &Path,
    relative: &Path,
    rows: u64,
    key: Option<&DataKey>,
) -> Result<Vec<FileEntry>, ManifestError> {
    let entry = file_entry(class.label(), archive, relative, rows)?;
    let mut entries = vec![FileEntry { key: key.map(DataKey::commitment), ..entry }];
    if key.is_some() {
        entries.push(file_entry(SIDECAR, archive, &sidecar_path(relative), 0)?);
    }
    Ok(entries)
}

/// The entry of one file.
pub(crate) fn file_entry(class: &str, archive: &Path, relative: &Path, rows: u64) -> Result<FileEntry, ManifestError> {
    let path = archive.join(relative);
    let (sha256, bytes) = hash_file(&path).map_err(|source| ManifestError::Io { operation: "read", path, source })?;
    Ok(FileEntry {
        class: class.to_owned(),
        path: relative.to_string_lossy().into_owned(),
        rows,
        bytes,
        sha256,
        key: None,
        head: None,
    })
}

/// SHA-256 and length of a file, without holding it in memory.
pub fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((to_hex(&hash.finalize()), bytes));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    // Only one spelling of each value, so that a changed letter is a changed line.
    let is_ours = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !text.len().is_multiple_of(2) || !is_ours {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Trust, verify};

    fn seal(manifest: &mut Manifest, sequence: u64) -> Result<Line, ManifestError> {
        let draft = manifest.draft(&Origin { site: "s".into(), gateway: "g".into(), sequence }, 1)?;
        let (sessions, devices, coverage) = (&[], &[], &[]);
        manifest
            .seal(draft, &Sealing { closed_ns: 2, sealed_ns: 3, clock: None, step_ns: 0, sessions, devices, coverage })
    }

    #[test]
    fn an_append_that_failed_half_way_is_undone_by_the_next() {
        for written in ["", "{\"format\":1,\"gateway\":\"g\"", "{\"format\":1}\n"] {
            let dir = tempfile::tempdir().unwrap();
            let archive = dir.path().join("archive");
            let key = GatewayKey::open(&dir.path().join("key")).unwrap();
            let mut manifest = Manifest::open(&archive, "g", key).unwrap();
            seal(&mut manifest, 1).unwrap();
            // What a full disk or a failed flush leaves behind.
            let mut file = OpenOptions::new().append(true).open(&manifest.path).unwrap();
            file.write_all(written.as_bytes()).unwrap();
            manifest.unfinished = true;
            seal(&mut manifest, 2).unwrap();
            seal(&mut manifest, 3).unwrap();
            let report = verify(&archive, &Trust::default(), |_| {}).unwrap();
            assert_eq!((report.lines, report.findings.as_slice()), (3, [].as_slice()), "after {written:?}");
        }
    }

    #[test]
    fn an_append_that_fails_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let key = GatewayKey::open(&dir.path().join("key")).unwrap();
        let mut manifest = Manifest::open(&dir.path().join("archive"), "g", key).unwrap();
        seal(&mut manifest, 1).unwrap();
        let path = std::mem::replace(&mut manifest.path, "/dev/full".into());
        assert!(matches!(seal(&mut manifest, 2), Err(ManifestError::Io { operation: "appended to", .. })));
        assert!(manifest.unfinished);
        assert_eq!(manifest.last_sequence(), 1);
        manifest.path = path;
        seal(&mut manifest, 2).unwrap();
        assert!(!manifest.unfinished);
        assert_eq!(verify(&dir.path().join("archive"), &Trust::default(), |_| {}).unwrap().findings, []);
    }

    #[test]
    fn a_chain_does_not_go_on_with_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        let key = |name| GatewayKey::open(&dir.path().join(name)).unwrap();
        seal(&mut Manifest::open(&archive, "g", key("first")).unwrap(), 1).unwrap();
        assert!(matches!(Manifest::open(&archive, "g", key("second")), Err(ManifestError::KeyChanged { .. })));
        assert!(Manifest::open(&archive, "g", key("first")).is_ok());
    }
}
