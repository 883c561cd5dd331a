//! The manifest: one signed line per sequence, chained by hashes, so that the archive can prove that it is whole.
//!
//! Owns the lines and the order in which they and the files come about. Guarantees that a line is appended only after its files are durable, and never twice. What
//! lines mean is in [`crate::chain`], verifying in [`crate::verify`]. The format is in `docs/formats/manifest.md`.

mod lost;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hotspot_core::WallNs;
use hotspot_core::record::{CoverageRecord, DeviceRecord, SessionRecord};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::audit;
pub(crate) use crate::chain::split_signature;
use crate::chain::{
    self, Believed, Beside, ChainCheck, Ledger, Record, SIGNATURE_FIELD, believe, lasted_until_ns, needed_step_ns,
};
pub use crate::chain::{
    CoverageSummary, DeletedFile, EVENT_FORMAT, Event, EventLine, FORMAT, FileEntry, Line, NO_LINE,
};
use crate::checkpoint::sign_head;
use crate::cosignature::{TreeHead, gateway_origin};
use crate::draft::Draft;
use crate::durable;
use crate::elapsed::ClockEvidence;
use crate::first;
use crate::index::{IndexKey, KeyChain};
use crate::keys::{DataKey, KeyError, Recipients, sidecar_path};
pub use crate::layout::SIDECAR;
use crate::layout::{Class, segment_path};
use crate::merkle::{Tree, leaf_hash};
use crate::regular::{self, Change};
use crate::retention::RetentionError;
use crate::rows::RowsRoot;
use crate::segment::{self, Origin, SegmentError};
pub use crate::signing::{GatewayKey, key_id, read_public_key};

/// What went wrong with keys or the manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{} cannot be {operation}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("the signing key {} can be read by others; `chmod 600` it, and consider it known", path.display())]
    KeyIsOpen { path: PathBuf },
    #[error("{} is not a signing key", path.display())]
    NotAKey { path: PathBuf },
    #[error("{}: line {line} {what}. Nothing is added to this chain, and nothing deleted: run `hotspot verify`, and begin with a new data directory", path.display())]
    Broken { path: PathBuf, line: u64, what: String },
    #[error(
        "{} ends at sequence {found}, and {what}: lines were lost. Nothing is added to this chain, and nothing written over: put the chain back from a copy, or begin with a new data directory",
        path.display()
    )]
    Lost { path: PathBuf, found: u64, what: String },
    #[error("{} was changed while it was in use; run `hotspot verify`", path.display())]
    Changed { path: PathBuf },
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

/// When the last sequence of a chain ended and was sealed, and what was known of time then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSequence {
    pub to_ns: WallNs,
    pub sealed_ns: WallNs,
    pub clock: Option<ClockEvidence>,
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
    /// Everything the chain says, checked.
    check: ChainCheck,
    /// Over the hashes of all lines.
    tree: Tree,
    epoch_began_ns: Option<WallNs>,
    last: Option<LastSequence>,
    /// When the sequences so far had ended.
    until_ns: Option<WallNs>,
    gateway: String,
    /// Length of the file up to and with the last line.
    len: u64,
    /// An append failed, so that the file may be longer than that.
    unfinished: bool,
}

impl Manifest {
    /// Opens or makes the chain of a gateway; cuts a last line that a crash left without its end. Fails where a line does not check: what
    /// is added would vouch for it.
    pub fn open(archive: &Path, gateway: &str, key: GatewayKey) -> Result<Self, ManifestError> {
        let dir = archive.join("manifest");
        let path = dir.join(format!("{gateway}.jsonl"));
        let failed = |operation, source| ManifestError::Io { operation, path: path.clone(), source };
        durable::make_dir(archive)
            .and_then(|()| regular::make_dir(archive, Path::new("manifest")))
            .map_err(|source| failed("created", source))?;
        let public = dir.join(format!("{gateway}.pub"));
        if !public.exists() {
            let text = format!("{}\n", to_hex(key.public().as_bytes()));
            durable::replace(&public, |file| file.write_all(text.as_bytes()))
                .map_err(|source| failed("created", source))?;
        }
        let root = read_public_key(&public)?;
        // What is added to later is opened as that: one that is a link, or has another name, is refused before anything is done.
        let read = regular::open_own(archive, relative(gateway), Change::Write);
        let text = match read.and_then(|file| regular::read_open(file, regular::LINES_BYTES_MAX)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(failed("read", source)),
        };
        let whole = finished_len(&text);
        let believed = believe(gateway, root, &text[..whole], Beside::default());
        if let Some(broken) = believed.broken() {
            let (line, what) = (broken.line.unwrap_or_default(), broken.what.clone());
            return Err(ManifestError::Broken { path, line, what });
        }
        let Believed { records, check, .. } = believed;
        if records.is_empty() {
            lost::none_was_there(archive, gateway).map_err(|what| ManifestError::Lost {
                path: path.clone(),
                found: 0,
                what,
            })?;
        }
        if !text.is_empty() {
            settle(archive, gateway, &text[..whole]).map_err(|source| failed("cut", source))?;
        }
        let mut opened = Self {
            archive: archive.to_path_buf(),
            path: path.clone(),
            key,
            recipients: None,
            index_keys: None,
            tree: tree_of(&check),
            check,
            epoch_began_ns: None,
            last: None,
            until_ns: None,
            gateway: gateway.to_owned(),
            len: whole as u64,
            unfinished: false,
        };
        records.iter().for_each(|(_, record)| opened.note(record));
        opened.take_over(public)
    }

    /// The key must be the one the chain goes on with. An exchange of keys that a crash interrupted is finished.
    fn take_over(mut self, public: PathBuf) -> Result<Self, ManifestError> {
        let current = *self.check.key();
        if self.key.public() == current {
            return Ok(self);
        }
        match self.key.pending()? {
            Some(next) if next.public() == current => {
                self.key = next;
                self.key.settle()?;
                Ok(self)
            }
            Some(_) | None => Err(ManifestError::KeyChanged { path: public }),
        }
    }

    fn note(&mut self, record: &Record) {
        match record {
            Record::Segment(line) => {
                self.epoch_began_ns.get_or_insert(line.sealed_ns);
                let (to_ns, sealed_ns, clock) = (line.to_ns, line.sealed_ns, line.clock.clone());
                self.last = Some(LastSequence { to_ns, sealed_ns, clock });
                self.until_ns = Some(if record.is_early() { line.to_ns } else { lasted_until_ns(self.until_ns, line) });
            }
            Record::Event(EventLine { event: Event::Epoch { .. }, at_ns, .. }) => self.epoch_began_ns = Some(*at_ns),
            Record::Event(_) => {}
        }
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
        self.check.next_sequence() - 1
    }

    /// `None` where nothing was sealed.
    #[must_use]
    pub fn last_segment(&self) -> Option<&LastSequence> {
        self.last.as_ref()
    }

    /// Lines so far.
    pub(crate) fn lines(&self) -> u64 {
        self.check.lines()
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

    /// What the lines add up to.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        self.check.ledger()
    }

    /// The lines, read again. Fails where they are not those that were checked or written.
    pub fn records(&self) -> Result<Vec<Record>, ManifestError> {
        let failed = |source| ManifestError::Io { operation: "read", path: self.path.clone(), source };
        let mut text = Vec::new();
        match regular::open(&self.archive, relative(&self.gateway)) {
            Ok(file) => file.take(self.len).read_to_end(&mut text).map(drop).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.len == 0 => {}
            Err(error) => return Err(failed(error)),
        }
        let changed = || ManifestError::Changed { path: self.path.clone() };
        let mut records = Vec::new();
        let lines = text.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line));
        for (line, hash) in lines.zip(self.check.hashes()) {
            if Sha256::digest(line)[..] != hash[..] {
                return Err(changed());
            }
            let text = std::str::from_utf8(line).map_err(|_| changed())?;
            records.push(chain::parse(text).ok_or_else(changed)?.record);
        }
        if records.len() == self.check.hashes().len() { Ok(records) } else { Err(changed()) }
    }

    /// Lets a new key sign from now on, and destroys the one before.
    pub fn begin_epoch(&mut self, at_ns: WallNs, clock: Option<ClockEvidence>) -> Result<(), ManifestError> {
        // From the last exchange, if the files were not in their places then.
        self.key.settle()?;
        // It stays where the line cannot be written: the line may be on disk all the same.
        let next = self.key.next()?;
        let public = to_hex(next.public().as_bytes());
        self.append_event(at_ns, clock, Event::Epoch { epoch: self.check.epochs().len() as u64 + 1, public })?;
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
        let (prev, key) = (self.check.head().to_owned(), key_id(&self.key.public()));
        let line = EventLine { format: EVENT_FORMAT, gateway: self.gateway.clone(), at_ns, clock, event, prev, key };
        self.append(&Record::Event(line))
    }

    /// The head of the chain, signed: kept elsewhere, it shows later that nothing was cut off. `None` for an empty chain.
    #[must_use]
    pub fn checkpoint(&self, at_ns: WallNs) -> Option<String> {
        let head = TreeHead { origin: gateway_origin(&self.gateway), size: self.tree.len(), root: self.tree.root() };
        let checkpoint = chain::Checkpoint {
            checkpoint: chain::CHECKPOINT_FORMAT,
            gateway: self.gateway.clone(),
            line: self.check.lines(),
            sequence: self.last_sequence(),
            at_ns,
            hash: self.check.head().to_owned(),
            root: Some(to_hex(&head.root)),
            // A log that cannot be read has no head here; `verify` finds that it had one before.
            audit: audit::head(&audit::default_path(&self.archive)).unwrap_or_default(),
            note: Some(sign_head(&self.key, &head)),
            key: key_id(&self.key.public()),
        };
        (self.check.lines() > 0).then(|| self.sign(&checkpoint).ok()).flatten()
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
            let written = match class {
                Class::Flows => continue,
                Class::Sessions => segment::write_sessions(&path, &origin, key.as_ref(), sealing.sessions)?,
                Class::Devices => segment::write_devices(&path, &origin, key.as_ref(), sealing.devices)?,
                Class::Coverage => segment::write_coverage(&path, &origin, key.as_ref(), sealing.coverage)?,
            };
            files.extend(file_entries(class, &self.archive, &relative, written, key.as_ref())?);
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
        let step_ns = self.step_to_state(opened_ns, sealing.step_ns);
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
            clock_step_ns: Some(step_ns).filter(|step_ns| *step_ns != 0),
            prev: self.check.head().to_owned(),
            key: key_id(&self.key.public()),
        };
        self.append(&Record::Segment(line.clone()))?;
        if line.sequence == 1 {
            // It is for words only, and the next start takes it away too.
            let _ = first::forget(&self.archive, &self.gateway);
        }
        Ok(line)
    }

    /// The step that a sequence has to state. A clock that was set back while no agent ran, or before the gateway booted, shows only
    /// in the interval: then it was set back by that much at least.
    fn step_to_state(&self, from_ns: WallNs, measured_ns: i64) -> i64 {
        let needed_ns = self.until_ns.map_or(0, |until_ns| needed_step_ns(until_ns, from_ns));
        if needed_ns < measured_ns.min(0) { needed_ns } else { measured_ns }
    }

    fn append(&mut self, record: &Record) -> Result<(), ManifestError> {
        self.undo_unfinished()?;
        let failed = |source| ManifestError::Io { operation: "appended to", path: self.path.clone(), source };
        let text = match record {
            Record::Segment(line) => self.sign(line),
            Record::Event(line) => self.sign(line),
        };
        let text = text.map_err(|error| failed(error.into()))?;
        // From here on what lies there may be longer than what is known of it.
        self.unfinished = true;
        let change = if self.len == 0 { Change::Begin } else { Change::Append };
        let mut file = regular::open_own(&self.archive, relative(&self.gateway), change).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() != self.len {
            self.unfinished = false;
            return Err(ManifestError::Changed { path: self.path.clone() });
        }
        file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        durable::sync_dir(durable::parent(&self.path)).map_err(failed)?;
        self.unfinished = false;
        self.len += text.len() as u64 + 1;
        let bytes = text.as_bytes();
        // What a line may not say is not done, and `verify` names it; a line that was written stays.
        self.check.push(bytes, |_| {});
        self.tree.push(leaf_hash(&Sha256::digest(bytes)));
        self.note(record);
        Ok(())
    }

    /// Cuts off what a failed append left, for good: nobody was told of that line, and one behind half a line would break the chain
    /// for ever.
    fn undo_unfinished(&mut self) -> Result<(), ManifestError> {
        if !self.unfinished {
            return Ok(());
        }
        let cut = match regular::open_own(&self.archive, relative(&self.gateway), Change::Write) {
            Ok(file) => file.set_len(self.len).and_then(|()| file.sync_all()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        cut.map_err(|source| ManifestError::Io { operation: "cut", path: self.path.clone(), source })?;
        self.unfinished = false;
        Ok(())
    }
}

/// Where a gateway's chain lies in an archive.
fn relative(gateway: &str) -> PathBuf {
    Path::new("manifest").join(format!("{gateway}.jsonl"))
}

/// The tree over the lines of a chain.
fn tree_of(check: &ChainCheck) -> Tree {
    let mut tree = Tree::default();
    check.hashes().iter().for_each(|hash| tree.push(leaf_hash(hash)));
    tree
}

/// Where the lines end that were written to their end. Behind them lies what a power cut left of one: without a line feed, or with
/// zeros where blocks of it did not reach the disk.
fn finished_len(text: &[u8]) -> usize {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let last = last_line(&text[..whole]);
    if text[last..whole].contains(&0) { last } else { whole }
}

/// Where the last line begins.
fn last_line(lines: &[u8]) -> usize {
    let before = lines.strip_suffix(b"\n").unwrap_or(lines);
    before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// Cuts a chain to its lines and makes the last of them durable: an agent that was killed before its flush had ended, or after it had
/// failed, leaves a line that is read and yet not on disk, and whose journal is about to be removed. A page that failed to be
/// written counts as clean, so flushing alone would not do.
fn settle(archive: &Path, gateway: &str, lines: &[u8]) -> io::Result<()> {
    let file = regular::open_own(archive, relative(gateway), Change::Write)?;
    file.set_len(lines.len() as u64)?;
    let last = last_line(lines);
    file.write_all_at(&lines[last..], last as u64)?;
    file.sync_all()?;
    durable::sync_dir(&archive.join("manifest"))
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
    written: RowsRoot,
    key: Option<&DataKey>,
) -> Result<Vec<FileEntry>, ManifestError> {
    let entry = file_entry(class.label(), archive, relative, written.rows)?;
    let rows_root = Some(to_hex(&written.root));
    let mut entries = vec![FileEntry { key: key.map(DataKey::commitment), rows_root, ..entry }];
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
        rows_root: None,
    })
}

/// SHA-256 and length of a file, without holding it in memory.
pub fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    hash_open(regular::open_path(path)?)
}

/// The same of an open file.
pub(crate) fn hash_open(mut file: File) -> io::Result<(String, u64)> {
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
            let mut file = std::fs::OpenOptions::new().append(true).open(&manifest.path).unwrap();
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
        let kept = dir.path().join("kept");
        std::fs::rename(&manifest.path, &kept).unwrap();
        std::fs::create_dir(&manifest.path).unwrap();
        assert!(matches!(seal(&mut manifest, 2), Err(ManifestError::Io { operation: "appended to", .. })));
        assert!(manifest.unfinished);
        assert_eq!(manifest.last_sequence(), 1);
        std::fs::remove_dir(&manifest.path).unwrap();
        std::fs::rename(&kept, &manifest.path).unwrap();
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
