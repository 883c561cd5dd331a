//! What the lines of a chain add up to: which files it introduced, which it deleted and with what right, what it promised to keep.
//!
//! A signature says who wrote a line, not that the line is right. A deletion counts only where an earlier line of this chain introduced the
//! file, under the same hash, where no hold kept it, and where its time was over by every retention that was in force since it was sealed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use hotspot_core::WallNs;

use super::{DeletedFile, FORMAT, FileEntry, Line};
use crate::elapsed::{Elapsed, Moment};
use crate::layout::{Class, FileKind, FileName, is_name, partition_of};
use crate::manifest::from_hex;
use crate::policy::{DAY_NS, Policy};

/// What a chain says of one sequence.
#[derive(Clone, Debug)]
struct Sequence {
    line: u64,
    site: Arc<str>,
    from_ns: WallNs,
    /// The latest moment that the line names: a journal may be closed by a clock that was set back.
    latest_ns: WallNs,
    /// Time that had passed when the line was written.
    elapsed_ns: i64,
    files: Vec<File>,
}

#[derive(Clone, Debug)]
struct File {
    kind: FileKind,
    sha256: [u8; 32],
    /// The line that deletes it, with every right.
    deleted_by: Option<NonZeroU32>,
}

/// What became of a file that a line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    Kept,
    /// A later line deletes it, with every right.
    Deleted,
    /// It is not the line's to name.
    Foreign,
}

/// A line that deletes, as it was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    pub line: u64,
    pub at_ns: WallNs,
    /// As the line says it.
    pub why: String,
    pub files: usize,
    /// Files whose deletion counts.
    pub right: usize,
    /// Of these, files of which no line before said how long they are kept: the deletion is by the gateway's word.
    pub unstated: usize,
}

/// The sum of the lines so far.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Whose chain it is; empty before its first sequence.
    gateway: String,
    sequences: Vec<Sequence>,
    /// What the reader says has to be kept.
    pinned: Policy,
    /// By the line that states each.
    policies: Vec<(u64, Policy)>,
    holds: BTreeMap<String, Vec<(u64, u64)>>,
    /// All of them together, first to last, without overlaps.
    held: BTreeMap<u64, u64>,
    elapsed: Elapsed,
    deletions: Vec<Deletion>,
}

impl Ledger {
    /// Of a chain of which nothing is read yet. By `pinned` records have to be kept whatever the chain says.
    pub(crate) fn keeping(pinned: Policy) -> Self {
        Self { pinned, ..Self::default() }
    }

    /// How much time has passed up to the last line.
    #[must_use]
    pub fn elapsed(&self) -> &Elapsed {
        &self.elapsed
    }

    pub(crate) fn advance(&mut self, wall_ns: WallNs, clock: Option<&crate::elapsed::ClockEvidence>) {
        self.elapsed.advance(wall_ns, clock);
    }

    /// Takes a line about a sequence; a file that is not its own is not introduced, and said.
    pub(crate) fn introduce(&mut self, number: u64, line: &Line, find: &mut dyn FnMut(String)) {
        if self.gateway.is_empty() {
            self.gateway.clone_from(&line.gateway);
        }
        let partition = partition_of(&line.site, &line.gateway, line.sequence, line.from_ns);
        let mut files: Vec<File> = Vec::with_capacity(line.files.len());
        let is_strict = line.format == FORMAT;
        if !is_name(&line.site) {
            find(format!("names a site that is none: {:?}", line.site));
        }
        for file in &line.files {
            let kind = partition.kind_of(&file.path);
            match (kind.filter(|kind| kind.label() == file.class), parse_hash(&file.sha256)) {
                (None, _) => find(not_its_own(line, file)),
                (Some(_), None) => find(format!("names no SHA-256 of {}", file.path)),
                (Some(kind), Some(_)) if files.iter().any(|other| other.kind == kind) => {
                    find(format!("names a file twice: {}", file.path));
                }
                (Some(kind), Some(sha256)) => {
                    // Without it no row could be proved alone, and rows could be exchanged for others.
                    if is_strict && matches!(kind, FileKind::Rows(_)) && file.rows_root.is_none() {
                        find(format!("names no root over the rows of {}", file.path));
                    }
                    // Without it an index vouches for nothing block by block.
                    if is_strict && kind == FileKind::Index && file.head.is_none() {
                        find(format!("names no head of {}", file.path));
                    }
                    let hashes = [&file.rows_root, &file.head, &file.key].into_iter().flatten();
                    for hash in hashes.filter(|hash| parse_hash(hash).is_none()) {
                        find(format!("says of {} what is no SHA-256: {hash:?}", file.path));
                    }
                    files.push(File { kind, sha256, deleted_by: None });
                }
            }
        }
        files.shrink_to_fit();
        // A gateway mostly stays where it is, so one text serves all its sequences.
        let site = self.sequences.last().map(|last| &last.site).filter(|site| ***site == *line.site);
        let site = site.map_or_else(|| line.site.as_str().into(), Arc::clone);
        self.sequences.push(Sequence {
            line: number,
            site,
            from_ns: line.from_ns,
            latest_ns: line.to_ns.max(line.sealed_ns).max(line.from_ns),
            elapsed_ns: self.elapsed.total_ns(),
            files,
        });
    }

    pub(crate) fn state_policy(&mut self, number: u64, policy: &Policy) {
        self.policies.push((number, policy.clone()));
    }

    /// The retention that was stated last; `None` where none ever was.
    #[must_use]
    pub fn policy(&self) -> Option<&Policy> {
        self.policies.last().map(|(_, policy)| policy)
    }

    pub(crate) fn hold(&mut self, case: &str, sequences: &[(u64, u64)]) {
        self.holds.entry(case.to_owned()).or_default().extend(sequences);
        sequences.iter().for_each(|range| unite(&mut self.held, *range));
    }

    pub(crate) fn lift(&mut self, case: &str) -> bool {
        let is_lifted = self.holds.remove(case).is_some();
        if is_lifted {
            self.held.clear();
            self.holds.values().flatten().for_each(|range| unite(&mut self.held, *range));
        }
        is_lifted
    }

    fn is_held(&self, sequence: u64) -> bool {
        self.held.range(..=sequence).next_back().is_some_and(|(_, last)| *last >= sequence)
    }

    /// Sequences whose lines are among the first so many of the chain.
    pub(crate) fn sequences_until(&self, line: u64) -> u64 {
        self.sequences.partition_point(|sequence| sequence.line <= line) as u64
    }

    /// What is held, by case: ranges of sequences, both ends included.
    #[must_use]
    pub fn holds(&self) -> &BTreeMap<String, Vec<(u64, u64)>> {
        &self.holds
    }

    /// The case that a signed line holds a sequence for.
    #[must_use]
    pub fn held_by(&self, sequence: u64) -> Option<&str> {
        if !self.is_held(sequence) {
            return None;
        }
        let holds = |ranges: &[(u64, u64)]| ranges.iter().any(|(first, last)| (*first..=*last).contains(&sequence));
        self.holds.iter().find(|(_, ranges)| holds(ranges)).map(|(case, _)| case.as_str())
    }

    /// How long a class of a sequence is kept by the retentions that were in force since it was sealed: the longest counts, so that nobody
    /// shortens what an earlier key promised. `None` where none of them names the class.
    #[must_use]
    pub fn promised_ns(&self, sequence: u64, class: Class) -> Option<i64> {
        let line = self.sequence(sequence)?.line;
        let inherited = self.policies.iter().rposition(|(stated, _)| *stated < line).unwrap_or(0);
        let stated = self.policies[inherited..].iter().map(|(_, policy)| policy);
        stated.chain([&self.pinned]).filter_map(|policy| policy.kept_ns(class)).max()
    }

    /// The least that a sequence is old, by the wall clock and by the time that the chain proves.
    #[must_use]
    pub fn age_ns(&self, sequence: u64, now: &Moment) -> i64 {
        let Some(sealed) = self.sequence(sequence) else { return 0 };
        let passed_ns = self.elapsed.total_until(now).saturating_sub(sealed.elapsed_ns);
        now.wall_ns.saturating_sub(sealed.latest_ns).min(passed_ns)
    }

    fn sequence(&self, sequence: u64) -> Option<&Sequence> {
        self.sequences.get(usize::try_from(sequence.checked_sub(1)?).ok()?)
    }

    /// Takes a line that deletes. What it may not delete stays, and is said; `refuse` is said of all of it.
    pub(crate) fn delete(
        &mut self,
        deletion: Deletion,
        files: &[DeletedFile],
        gateway: &str,
        refuse: Option<&str>,
        find: &mut dyn FnMut(String),
    ) {
        let mut deletion = deletion;
        let moment = Moment { wall_ns: deletion.at_ns, clock: None };
        for file in files {
            let judged = match refuse {
                Some(why) => Err(why.to_owned()),
                None => self.judge(file, gateway, &moment),
            };
            match judged {
                Err(why) => find(format!("deletes {}: {why}", file.path)),
                Ok(Judged { sequence, position, is_stated }) => {
                    self.sequences[sequence].files[position].deleted_by =
                        u32::try_from(deletion.line).ok().and_then(NonZeroU32::new);
                    deletion.right += 1;
                    deletion.unstated += usize::from(!is_stated);
                }
            }
        }
        self.deletions.push(deletion);
    }

    fn judge(&self, file: &DeletedFile, gateway: &str, at: &Moment) -> Result<Judged, String> {
        let name = FileName::parse(&file.path).ok_or("that is no file of an archive")?;
        if name.gateway != gateway {
            return Err(format!("it is of gateway {}", name.gateway));
        }
        let unnamed = "no line before names it";
        let index = name.sequence.checked_sub(1).and_then(|index| usize::try_from(index).ok()).ok_or(unnamed)?;
        let sequence = self.sequences.get(index).ok_or(unnamed)?;
        let position = sequence.files.iter().position(|known| known.kind == name.kind).ok_or(unnamed)?;
        if !name.is_of(&sequence.site, gateway, name.sequence, sequence.from_ns) {
            return Err(unnamed.to_owned());
        }
        let known = &sequence.files[position];
        if Some(known.sha256) != parse_hash(&file.sha256) {
            return Err("the line that names it has another hash of it".to_owned());
        }
        if let Some(line) = known.deleted_by {
            return Err(format!("line {line} deleted it before"));
        }
        if self.is_held(name.sequence) {
            return Err(format!("it is held for {}", self.held_by(name.sequence).unwrap_or_default()));
        }
        let class = name.kind.class();
        let promised_ns = self.promised_ns(name.sequence, class);
        let age_ns = self.age_ns(name.sequence, at);
        if let Some(kept_ns) = promised_ns.filter(|kept_ns| age_ns < *kept_ns) {
            let (age, kept) = (days(age_ns), days(kept_ns));
            return Err(format!("{} are kept for {kept} days, and only {age} have certainly passed", class.label()));
        }
        Ok(Judged { sequence: index, position, is_stated: promised_ns.is_some() })
    }

    /// The line that deletes a file of this chain, with every right: the very path, and the hash that an earlier line has of it.
    #[must_use]
    pub fn deleted_by(&self, path: &str, sha256: &str) -> Option<u64> {
        let name = FileName::parse(path)?;
        let sequence = self.sequence(name.sequence)?;
        if !name.is_of(&sequence.site, &self.gateway, name.sequence, sequence.from_ns) {
            return None;
        }
        let sha256 = parse_hash(sha256)?;
        let file = sequence.files.iter().find(|file| file.kind == name.kind && file.sha256 == sha256)?;
        file.deleted_by.map(|line| line.get().into())
    }

    /// What became of the files of a line: asked once per line, then per file.
    pub fn files_of<'a>(&'a self, line: &Line) -> impl Fn(&FileEntry) -> FileState + use<'a> {
        let partition = partition_of(&line.site, &line.gateway, line.sequence, line.from_ns);
        let known = self.sequence(line.sequence).map_or(&[][..], |sequence| &sequence.files);
        move |file| {
            let (kind, sha256) = (partition.kind_of(&file.path), parse_hash(&file.sha256));
            let is_it = |other: &&File| Some(other.kind) == kind && Some(other.sha256) == sha256;
            match known.iter().find(is_it) {
                None => FileState::Foreign,
                Some(File { deleted_by: Some(_), .. }) => FileState::Deleted,
                Some(File { deleted_by: None, .. }) => FileState::Kept,
            }
        }
    }

    /// Every line that deletes, in order.
    #[must_use]
    pub fn deletions(&self) -> &[Deletion] {
        &self.deletions
    }

    /// Sequences so far.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.sequences.len() as u64
    }
}

/// A deletion that counts.
struct Judged {
    sequence: usize,
    position: usize,
    is_stated: bool,
}

fn not_its_own(line: &Line, file: &FileEntry) -> String {
    match FileName::parse(&file.path) {
        None => format!("names what is no file of an archive: {}", file.path),
        Some(name) if name.gateway != line.gateway => {
            format!("names a file of gateway {}: {}", name.gateway, file.path)
        }
        Some(_) => format!("names a file of another sequence, place or class: {}", file.path),
    }
}

/// Adds a range to others that do not overlap.
fn unite(ranges: &mut BTreeMap<u64, u64>, (first, last): (u64, u64)) {
    if first > last {
        return;
    }
    let (mut first, mut last) = (first, last);
    while let Some((&begin, &end)) = ranges.range(..=last).next_back() {
        if end < first {
            break;
        }
        (first, last) = (first.min(begin), last.max(end));
        ranges.remove(&begin);
    }
    ranges.insert(first, last);
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    from_hex(text)?.try_into().ok()
}

fn days(ns: i64) -> i64 {
    ns.max(0) / DAY_NS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_held_is_what_the_ranges_say_however_they_overlap() {
        let mut seed = 7u64;
        let mut below = |most: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % most
        };
        for _ in 0..200 {
            let mut ledger = Ledger::default();
            let mut expected: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
            for _ in 0..below(30) {
                let case = format!("C-{}", below(3));
                if below(5) == 0 {
                    assert_eq!(ledger.lift(&case), expected.remove(&case).is_some());
                } else {
                    let (first, length) = (1 + below(60), below(9));
                    ledger.hold(&case, &[(first, first + length), (9, 8)]);
                    expected.entry(case).or_default().extend(first..=first + length);
                }
            }
            for sequence in 0..80 {
                let is_held = expected.values().any(|held| held.contains(&sequence));
                assert_eq!((ledger.is_held(sequence), ledger.held_by(sequence).is_some()), (is_held, is_held));
            }
        }
        let mut ledger = Ledger::default();
        ledger.hold("C-1", &[(1, u64::MAX)]);
        assert!(ledger.is_held(u64::MAX) && !ledger.is_held(0));
    }
}
