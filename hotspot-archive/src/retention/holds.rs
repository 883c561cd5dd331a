//! Legal holds: what must not be deleted, whatever its age.
//!
//! A hold is a file that an operator places and lifts. The gateway states it in its chain, so that a deletion can be judged by it later.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hotspot_core::WallNs;
use serde::{Deserialize, Serialize};

use super::RetentionError;
use crate::durable;
use crate::layout::is_name;
use crate::regular;

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

    /// The ranges of one gateway.
    #[must_use]
    pub fn ranges(&self, gateway: &str) -> &[(u64, u64)] {
        self.sequences.get(gateway).map_or(&[], Vec::as_slice)
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
    regular::make_dir(archive, Path::new("holds")).map_err(failed)?;
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
        let failed = |source| RetentionError::Holds { operation: "read", path: path.clone(), source };
        let text = path.file_name().ok_or_else(bad).and_then(|name| {
            let read = regular::read_text(archive, Path::new("holds").join(name), regular::SMALL_BYTES_MAX);
            read.map_err(failed)
        })?;
        let hold: Hold = serde_json::from_str(&text).map_err(|_| bad())?;
        // The name of the file is what is lifted, so it must be the case's own.
        let is_its_own = hold_path(archive, &hold.case).is_ok_and(|own| own == path);
        let is_range = |(first, last): &(u64, u64)| *first > 0 && first <= last;
        if hold.hold != 1 || !is_its_own || !hold.sequences.values().flatten().all(is_range) {
            return Err(bad());
        }
        holds.push(hold);
    }
    holds.sort_by(|left, right| left.case.cmp(&right.case));
    Ok(holds)
}
