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
use crate::layout::{Class, FileKind, FileName, partition_of};
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
    pub(crate) fn introduce(&mut self, number: u64, line: &Line, find: &mut impl FnMut(String)) {
        if self.gateway.is_empty() {
            self.gateway.clone_from(&line.gateway);
        }
        let partition = partition_of(&line.site, &line.gateway, line.sequence, line.from_ns);
        let mut files: Vec<File> = Vec::with_capacity(line.files.len());
        let is_strict = line.format == FORMAT;
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
    }

    pub(crate) fn lift(&mut self, case: &str) -> bool {
        self.holds.remove(case).is_some()
    }

    /// What is held, by case: ranges of sequences, both ends included.
    #[must_use]
    pub fn holds(&self) -> &BTreeMap<String, Vec<(u64, u64)>> {
        &self.holds
    }

    /// The case that a signed line holds a sequence for.
    #[must_use]
    pub fn held_by(&self, sequence: u64) -> Option<&str> {
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
        find: &mut impl FnMut(String),
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
        if let Some(case) = self.held_by(name.sequence) {
            return Err(format!("it is held for {case}"));
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

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    from_hex(text)?.try_into().ok()
}

fn days(ns: i64) -> i64 {
    ns.max(0) / DAY_NS
}
