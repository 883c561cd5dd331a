//! Retention: whose time is over, what is held, and what time it certainly is. Deleting leaves a signed line.
//!
//! A class of a segment is deleted when it is older than its class may get both by the wall clock and by the time that the chain
//! itself proves to have passed, so that a clock that is set wrong deletes nothing early; and never while a legal hold names it.
//! The line comes first, the files go after it: a crash leaves files that a line calls deleted, and the next run removes them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hotspot_core::WallNs;
use serde::{Deserialize, Serialize};

use crate::chain::Record;
use crate::durable;
use crate::keys::sidecar_path;
use crate::layout::{Class, INDEX, is_name};
use crate::manifest::{DeletedFile, Event, Line, Manifest, ManifestError, SIDECAR};

const DAY_NS: i64 = 86_400 * 1_000_000_000;
/// Files named in one line: bounds its length.
const FILES_PER_LINE: usize = 256;

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error("{text:?} is no retention; write `flows=365d,sessions=730d`")]
    Policy { text: String },
    #[error("the legal holds in {} cannot be {operation}", path.display())]
    Holds { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a legal hold; mend or remove it", path.display())]
    BadHold { path: PathBuf },
    #[error("{case:?} is no name of a case: up to 64 letters, digits, '-', '_' and '.', not beginning with '.'")]
    BadCase { case: String },
}

/// How long the records of each class are kept. Classes that are not named are kept for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy(BTreeMap<Class, i64>);

impl FromStr for Policy {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let bad = || RetentionError::Policy { text: text.to_owned() };
        let mut policy = BTreeMap::new();
        for part in text.split(',') {
            let (class, days) = part.trim().split_once('=').ok_or_else(bad)?;
            let class = Class::from_label(class).ok_or_else(bad)?;
            let days: i64 = days.strip_suffix('d').and_then(|days| days.parse().ok()).ok_or_else(bad)?;
            let kept_ns = days.checked_mul(DAY_NS).filter(|_| days > 0).ok_or_else(bad)?;
            if policy.insert(class, kept_ns).is_some() {
                return Err(bad());
            }
        }
        Ok(Self(policy))
    }
}

/// What a gateway knew of time when it wrote a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockEvidence {
    /// Names the boot: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// `CLOCK_BOOTTIME`: cannot be set, and counts while the machine sleeps.
    pub boottime_ns: i64,
    /// Whether the kernel's clock was synchronised then (`adjtimex`).
    pub synchronised: bool,
}

/// A moment, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    pub wall_ns: WallNs,
    /// `None` away from the gateway.
    pub clock: Option<ClockEvidence>,
}

/// How much time a chain proves to have passed up to each sequence.
///
/// Within one boot the boot clock tells. Across a reboot the new boot's own age counts, and the time between only where the wall
/// clock was synchronised on both sides: a clock that came up wrong proves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elapsed {
    total_ns: i64,
    last: Option<(WallNs, ClockEvidence)>,
    /// Total at each sequence, from 1 on.
    at: Vec<i64>,
}

impl Elapsed {
    pub(crate) fn learn(&mut self, record: &Record) {
        match record {
            Record::Segment(line) => {
                self.advance(line.sealed_ns, line.clock.as_ref());
                self.at.push(self.total_ns);
            }
            Record::Event(line) => self.advance(line.at_ns, line.clock.as_ref()),
        }
    }

    fn advance(&mut self, wall_ns: WallNs, clock: Option<&ClockEvidence>) {
        let Some(clock) = clock else { return };
        self.total_ns = self.total_at(wall_ns, clock);
        self.last = Some((wall_ns, clock.clone()));
    }

    fn total_at(&self, wall_ns: WallNs, clock: &ClockEvidence) -> i64 {
        let Some((last_ns, last)) = &self.last else { return self.total_ns };
        let passed_ns = if last.boot == clock.boot {
            clock.boottime_ns.saturating_sub(last.boottime_ns)
        } else {
            let booted_ns = wall_ns.saturating_sub(clock.boottime_ns);
            let off_ns = if last.synchronised && clock.synchronised { booted_ns.saturating_sub(*last_ns) } else { 0 };
            clock.boottime_ns.saturating_add(off_ns.max(0))
        };
        self.total_ns.saturating_add(passed_ns.max(0))
    }

    /// The least that a sequence's line is old.
    fn since(&self, sequence: u64, now: &Moment) -> i64 {
        let at = usize::try_from(sequence).ok().and_then(|sequence| self.at.get(sequence.checked_sub(1)?));
        let total_ns = now.clock.as_ref().map_or(self.total_ns, |clock| self.total_at(now.wall_ns, clock));
        at.map_or(0, |at_ns| total_ns - at_ns)
    }
}

/// A legal hold: what must not be deleted, whatever its age. Lies in the archive as `holds/<case>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// 1.
    pub hold: u32,
    pub case: String,
    pub placed_ns: WallNs,
    /// Per gateway the first and last sequence of each range.
    pub sequences: BTreeMap<String, Vec<(u64, u64)>>,
}

impl Hold {
    /// Puts sequences that follow each other into ranges.
    #[must_use]
    pub fn new(case: &str, placed_ns: WallNs, segments: impl IntoIterator<Item = (String, u64)>) -> Self {
        let mut sorted: Vec<(String, u64)> = segments.into_iter().collect();
        sorted.sort();
        sorted.dedup();
        let mut sequences: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for (gateway, sequence) in sorted {
            let ranges = sequences.entry(gateway).or_default();
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == sequence => *last = sequence,
                Some(_) | None => ranges.push((sequence, sequence)),
            }
        }
        Self { hold: 1, case: case.to_owned(), placed_ns, sequences }
    }

    #[must_use]
    pub fn holds(&self, gateway: &str, sequence: u64) -> bool {
        let ranges = self.sequences.get(gateway);
        ranges.is_some_and(|ranges| ranges.iter().any(|(first, last)| (*first..=*last).contains(&sequence)))
    }

    /// Segments held.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.sequences.values().flatten().map(|(first, last)| last.saturating_sub(*first).saturating_add(1)).sum()
    }
}

/// Places a hold; one of the same case is replaced.
pub fn place_hold(archive: &Path, hold: &Hold) -> Result<(), RetentionError> {
    let path = hold_path(archive, &hold.case)?;
    let failed = |source| RetentionError::Holds { operation: "written", path: path.clone(), source };
    let text = serde_json::to_string(hold).map_err(|error| failed(error.into()))?;
    durable::make_dir(&archive.join("holds")).map_err(failed)?;
    durable::replace(&path, |file| io::Write::write_all(file, format!("{text}\n").as_bytes())).map_err(failed)
}

/// Lifts the hold of a case. `false`: there was none.
pub fn lift_hold(archive: &Path, case: &str) -> Result<bool, RetentionError> {
    let path = hold_path(archive, case)?;
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(RetentionError::Holds { operation: "removed", path, source }),
    }
}

fn hold_path(archive: &Path, case: &str) -> Result<PathBuf, RetentionError> {
    if !is_name(case) {
        return Err(RetentionError::BadCase { case: case.to_owned() });
    }
    Ok(archive.join("holds").join(format!("{case}.json")))
}

/// Every hold there is. One that cannot be read is an error: what it held must not be deleted.
pub fn read_holds(archive: &Path) -> Result<Vec<Hold>, RetentionError> {
    let dir = archive.join("holds");
    let failed = |source| RetentionError::Holds { operation: "read", path: dir.clone(), source };
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut holds = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        // Written under a temporary name first.
        if path.extension().is_some_and(|kind| kind == "tmp") {
            continue;
        }
        let bad = || RetentionError::BadHold { path: path.clone() };
        let text = fs::read_to_string(&path).map_err(failed)?;
        let hold: Hold = serde_json::from_str(&text).map_err(|_| bad())?;
        if hold.hold != 1 {
            return Err(bad());
        }
        holds.push(hold);
    }
    holds.sort_by(|left, right| left.case.cmp(&right.case));
    Ok(holds)
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

/// What a chain's retention comes to now.
#[must_use]
pub fn plan(records: &[Record], policy: &Policy, holds: &[Hold], now: &Moment) -> Vec<Expired> {
    let mut elapsed = Elapsed::default();
    let mut gone = std::collections::HashSet::new();
    for record in records {
        elapsed.learn(record);
        if let Record::Event(line) = record
            && let Event::Deleted { files, .. } = &line.event
        {
            gone.extend(files.iter().map(|file| file.path.as_str()));
        }
    }
    let mut expired = Vec::new();
    for record in records {
        let Record::Segment(line) = record else { continue };
        // A journal that was closed by a clock set back counts from the latest moment it names.
        let latest_ns = line.to_ns.max(line.sealed_ns).max(line.from_ns);
        let age_ns = now.wall_ns.saturating_sub(latest_ns).min(elapsed.since(line.sequence, now));
        for (class, kept_ns) in &policy.0 {
            if age_ns < *kept_ns {
                continue;
            }
            let entries = || files_of(line, *class).filter(|file| !gone.contains(file.path.as_str()));
            let files: Vec<_> =
                entries().map(|file| DeletedFile { path: file.path.clone(), sha256: file.sha256.clone() }).collect();
            if files.is_empty() {
                continue;
            }
            let hold = holds.iter().find(|hold| hold.holds(&line.gateway, line.sequence));
            expired.push(Expired {
                sequence: line.sequence,
                class: *class,
                to_ns: line.to_ns,
                bytes: entries().map(|file| file.bytes).sum(),
                files,
                held_by: hold.map(|hold| hold.case.clone()),
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
    /// Removes what a line calls deleted and a crash left.
    pub fn finish_deletions(&self) -> Result<(), ManifestError> {
        for record in self.records()? {
            if let Record::Event(line) = record
                && let Event::Deleted { files, .. } = &line.event
            {
                self.remove(files)?;
            }
        }
        Ok(())
    }

    /// Deletes what is over, after a signed line says so.
    pub fn expire(&mut self, policy: &Policy, now: &Moment) -> Result<Expiry, ManifestError> {
        let records = self.records()?;
        let holds = read_holds(self.archive())?;
        let (kept, over): (Vec<_>, Vec<_>) =
            plan(&records, policy, &holds, now).into_iter().partition(|expired| expired.held_by.is_some());
        let mut done = Expiry { held: kept.len() as u64, ..Expiry::default() };
        let mut by_class: BTreeMap<Class, Vec<DeletedFile>> = BTreeMap::new();
        for expired in over {
            done.bytes += expired.bytes;
            by_class.entry(expired.class).or_default().extend(expired.files);
        }
        for (class, files) in by_class {
            let days = policy.0.get(&class).map_or(0, |kept_ns| kept_ns / DAY_NS);
            let why = format!("retention {}={days}d", class.label());
            for files in files.chunks(FILES_PER_LINE) {
                let event = Event::Deleted { why: why.clone(), files: files.to_vec() };
                self.append_event(now.wall_ns, now.clock.clone(), event)?;
                self.remove(files)?;
                done.files += files.len() as u64;
            }
        }
        Ok(done)
    }

    /// Removes files, wrapped keys first: without them nothing of the rest can be read, whatever a disk still holds.
    fn remove(&self, files: &[DeletedFile]) -> Result<(), ManifestError> {
        let is_key = |file: &&DeletedFile| Path::new(&file.path).extension().is_some_and(|ending| ending == "age");
        for file in files.iter().filter(is_key).chain(files.iter().filter(|file| !is_key(file))) {
            let path = self.archive().join(&file.path);
            let failed = |source| ManifestError::Io { operation: "removed", path: path.clone(), source };
            if is_key(&file) {
                durable::shred(&path).map_err(failed)?;
                continue;
            }
            if !path.try_exists().map_err(failed)? {
                continue;
            }
            for added in added_sidecars(&path).map_err(failed)? {
                durable::shred(&added).map_err(failed)?;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Wrapped keys that were added beside a segment after it was sealed.
fn added_sidecars(segment: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (segment.parent(), segment.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_added = path.file_name().and_then(|name| name.to_str()).is_some_and(|other| {
            other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.') && rest.strip_suffix(".age").is_some())
        });
        if is_added {
            found.push(path);
        }
    }
    Ok(found)
}
