//! Retention: whose time is over, what is held, and what time it certainly is. Deleting leaves a signed line.
//!
//! A class of a segment is deleted when it is older than its class may get both by the wall clock and by the time that the chain
//! itself proves to have passed, so that a clock that is set wrong deletes nothing early; and never while a legal hold names it.
//! The line comes first, the files go after it: a crash leaves files that a line calls deleted, and the next run removes them. Nothing is
//! removed but what a checked line of this chain deletes with every right, by path and hash.

mod holds;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use hotspot_core::WallNs;

pub use self::holds::{Hold, lift_hold, place_hold, read_holds};
use crate::chain::{FileState, Ledger, Record};
use crate::durable;
pub use crate::elapsed::{ClockEvidence, Elapsed, Moment};
use crate::keys::{is_added_sidecar, sidecar_path};
use crate::layout::{Class, FileName, INDEX};
use crate::manifest::{DeletedFile, Event, Line, Manifest, ManifestError, SIDECAR, hash_open};
use crate::policy::DAY_NS;
pub use crate::policy::{BadPolicy, Policy};
use crate::regular::Dir;

/// Files named in one line: bounds its length.
const FILES_PER_LINE: usize = 256;
/// Ranges of sequences in one line: bounds its length.
const RANGES_PER_LINE: usize = 1024;

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error("the legal holds in {} cannot be {operation}", path.display())]
    Holds { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a legal hold; mend or remove it", path.display())]
    BadHold { path: PathBuf },
    #[error("{case:?} is no name of a case: up to 64 letters, digits, '-', '_' and '.', not beginning with '.'")]
    BadCase { case: String },
}

/// The files of one class of one sequence whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    pub sequence: u64,
    pub class: Class,
    pub to_ns: WallNs,
    pub files: Vec<DeletedFile>,
    pub bytes: u64,
    /// The case that keeps it all the same.
    pub held_by: Option<String>,
}

/// What a chain's retention comes to now, by this policy and by those that the chain states.
#[must_use]
pub fn plan(records: &[Record], ledger: &Ledger, policy: &Policy, holds: &[Hold], now: &Moment) -> Vec<Expired> {
    let mut expired = Vec::new();
    for record in records {
        let Record::Segment(line) = record else { continue };
        for (class, kept_ns) in policy.classes() {
            let kept_ns = ledger.promised_ns(line.sequence, class).map_or(kept_ns, |promised| promised.max(kept_ns));
            if ledger.age_ns(line.sequence, now) < kept_ns {
                continue;
            }
            let state = ledger.files_of(line);
            let entries = || files_of(line, class).filter(|file| state(file) == FileState::Kept);
            let files: Vec<_> =
                entries().map(|file| DeletedFile { path: file.path.clone(), sha256: file.sha256.clone() }).collect();
            if files.is_empty() {
                continue;
            }
            let hold = holds.iter().find(|hold| hold.holds(&line.gateway, line.sequence)).map(|hold| hold.case.clone());
            expired.push(Expired {
                sequence: line.sequence,
                class,
                to_ns: line.to_ns,
                bytes: entries().map(|file| file.bytes).sum(),
                files,
                held_by: hold.or_else(|| ledger.held_by(line.sequence).map(str::to_owned)),
            });
        }
    }
    expired
}

/// A class's own files, the index made of them, and the wrapped keys of both.
fn files_of(line: &Line, class: Class) -> impl Iterator<Item = &crate::manifest::FileEntry> {
    let is_own = move |label: &str| label == class.label() || (class == Class::Flows && label == INDEX);
    line.files.iter().filter(move |file| {
        if file.class != SIDECAR {
            return is_own(&file.class);
        }
        line.files
            .iter()
            .any(|owner| is_own(&owner.class) && sidecar_path(Path::new(&owner.path)) == Path::new(&file.path))
    })
}

/// What a run of retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    pub files: u64,
    pub bytes: u64,
    /// Segments that a hold keeps although their time is over.
    pub held: u64,
}

impl Manifest {
    /// States what is in force where the chain does not say so yet: retentions, holds that were placed, and holds that were lifted.
    pub fn state(&mut self, policy: Option<&Policy>, now: &Moment) -> Result<(), ManifestError> {
        let holds = read_holds(self.archive())?;
        let stated = self.ledger().policy();
        let policy = policy.cloned().unwrap_or_default();
        if stated.map_or(!policy.is_empty(), |stated| *stated != policy) {
            self.append_event(now.wall_ns, now.clock.clone(), Event::Policy(policy))?;
        }
        for event in changes_of_holds(self.ledger(), &holds, self.gateway()) {
            self.append_event(now.wall_ns, now.clock.clone(), event)?;
        }
        Ok(())
    }

    /// Removes what a line deletes and a crash left. What is held by now stays.
    pub fn finish_deletions(&self) -> Result<(), ManifestError> {
        let holds = read_holds(self.archive())?;
        for (number, record) in (1..).zip(self.records()?) {
            if let Record::Event(line) = record
                && let Event::Deleted { files, .. } = &line.event
            {
                self.remove(number, files, &holds)?;
            }
        }
        Ok(())
    }

    /// Deletes what is over, after a signed line says so.
    pub fn expire(&mut self, policy: &Policy, now: &Moment) -> Result<Expiry, ManifestError> {
        self.state(Some(policy), now)?;
        let records = self.records()?;
        let holds = read_holds(self.archive())?;
        let (kept, over): (Vec<_>, Vec<_>) = plan(&records, self.ledger(), policy, &holds, now)
            .into_iter()
            .partition(|expired| expired.held_by.is_some());
        let mut done = Expiry { held: kept.len() as u64, ..Expiry::default() };
        let mut by_class: BTreeMap<Class, Vec<DeletedFile>> = BTreeMap::new();
        for expired in over {
            done.bytes += expired.bytes;
            by_class.entry(expired.class).or_default().extend(expired.files);
        }
        for (class, files) in by_class {
            let days = policy.kept_ns(class).map_or(0, |kept_ns| kept_ns / DAY_NS);
            let why = format!("retention {}={days}d", class.label());
            for files in files.chunks(FILES_PER_LINE) {
                let event = Event::Deleted { why: why.clone(), files: files.to_vec() };
                self.append_event(now.wall_ns, now.clock.clone(), event)?;
                self.remove(self.lines(), files, &holds)?;
                done.files += files.len() as u64;
            }
        }
        Ok(done)
    }

    /// Removes files, wrapped keys first: without them nothing of the rest can be read, whatever a disk still holds.
    ///
    /// Only what this line deletes with every right, and no hold names; and only the very file, by its path and hash.
    fn remove(&self, line: u64, files: &[DeletedFile], holds: &[Hold]) -> Result<(), ManifestError> {
        let named = |file: &DeletedFile| {
            self.ledger().deleted_by(&file.path, &file.sha256).filter(|by| *by == line)?;
            let name = FileName::parse(&file.path)?;
            let is_held = holds.iter().any(|hold| hold.holds(&name.gateway, name.sequence));
            (!is_held).then(|| (name.is_key(), file.clone()))
        };
        let mut files: Vec<(bool, DeletedFile)> = files.iter().filter_map(named).collect();
        files.sort_by_key(|(is_key, _)| !is_key);
        for (is_key, file) in files {
            let removed = remove_file(self.archive(), &file, is_key);
            removed.map_err(|source| ManifestError::Io {
                operation: "removed",
                path: self.archive().join(&file.path),
                source,
            })?;
        }
        Ok(())
    }
}

/// Removes a file, if it is the one that the line deletes: by its hash, regular, and behind no link. Another one is not what the line deletes, and
/// `verify` says so.
fn remove_file(archive: &Path, file: &DeletedFile, is_key: bool) -> io::Result<()> {
    let Some((dir, name)) = file.path.rsplit_once('/') else { return Ok(()) };
    // Seen once: whatever becomes of its path meanwhile, everything below happens in this directory.
    let dir = match Dir::open(archive, dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        dir => dir?,
    };
    if !dir.file(name).and_then(hash_open).is_ok_and(|(sha256, _)| sha256 == file.sha256) {
        return Ok(());
    }
    if is_key {
        shred(&dir, name)?;
    } else {
        for added in dir.names()?.iter().filter(|other| is_added_sidecar(name, other)) {
            shred(&dir, added)?;
        }
        dir.remove(name)?;
    }
    dir.sync()
}

/// Overwrites a wrapped key, and removes it. What is no regular file, or has another name elsewhere, is somebody else's: only its name goes.
fn shred(dir: &Dir, name: &str) -> io::Result<()> {
    if let Ok(file) = dir.own_file(name) {
        durable::overwrite(&file)?;
    }
    dir.remove(name)
}

/// What a chain has to state so that it says of holds what their files say.
fn changes_of_holds(ledger: &Ledger, holds: &[Hold], gateway: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let now: BTreeMap<&str, &[(u64, u64)]> =
        holds.iter().map(|hold| (hold.case.as_str(), hold.ranges(gateway))).filter(|(_, at)| !at.is_empty()).collect();
    for (case, stated) in ledger.holds() {
        if now.get(case.as_str()).is_none_or(|ranges| *ranges != stated.as_slice()) {
            events.push(Event::Lifted { case: case.clone() });
        }
    }
    for (case, ranges) in now {
        if ledger.holds().get(case).is_none_or(|stated| stated.as_slice() != ranges) {
            let chunks = ranges.chunks(RANGES_PER_LINE);
            events.extend(chunks.map(|part| Event::Hold { case: case.to_owned(), sequences: part.to_vec() }));
        }
    }
    events
}
