//! Searching an archive: what cannot match is not read.
//!
//! Manifest line by time → index → pages that hold the rows it names → few columns → the rest of the rows that match. Segments
//! are searched by as many threads as there are processors, and answered in order of time. Memory is bounded by the threads, not
//! by the archive: see `docs/limits.md`. Nothing is believed that a manifest line does not vouch for: of a segment with an index the blocks
//! that are read, of any other file all of it. One that was changed does not end a search: the others are searched, and what was wrong is said. Also says whether the log was whole in the interval, because "nothing
//! found" means something only where it was.

mod concern;
mod coverage;
mod extent;
mod in_order;
mod mask;
mod plan;
mod scan;
mod totals;
mod unvouched;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotspot_core::WallNs;
use hotspot_core::record::FlowRecord;

pub use self::coverage::describe_gap;
pub use self::extent::{Clock, Extent};
use self::in_order::{Flow, in_order, side_by_side};
use self::scan::Scan;
pub use self::totals::{By, Sums, Totals};
use crate::chain::{Believed, FileState, Ledger, Pins, Record};
use crate::filter::Filter;
use crate::first::{self, Unsealed};
use crate::index::Rows;
use crate::keys::{Keyring, added_sidecar_path, sidecar_path};
use crate::layout::{Class, INDEX};
use crate::manifest::{FileEntry, Line, hash_file};
use crate::moved::Moved;
use crate::pieces::read_chains;
use crate::place::{Here, Place};
use crate::segment::{Origin, SegmentError, SegmentReader, Selection};
use crate::unrecorded::{Timeline, Unrecorded};

/// A half-open interval of time; a flow is in it if any of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub from_ns: WallNs,
    pub to_ns: WallNs,
}

impl Interval {
    pub const ALWAYS: Self = Self { from_ns: WallNs::MIN, to_ns: WallNs::MAX };

    #[must_use]
    pub fn touches(&self, start_ns: WallNs, end_ns: WallNs) -> bool {
        start_ns < self.to_ns && end_ns >= self.from_ns
    }
}

/// A segment's flow, and whose segment it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    pub origin: Origin,
    pub flow: FlowRecord,
    /// Whether the segment's line is one that its gateway is trusted to have written.
    pub is_trusted: bool,
}

/// What a search saw beside its hits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Segments that lie in the time asked for.
    pub segments: usize,
    /// Of these, segments that were opened because their index did not rule them out.
    pub opened: usize,
    /// Segments without an index that can be used: they were searched all the same.
    pub unindexed: Vec<String>,
    /// Files and lines that could not be searched.
    pub damage: Vec<String>,
    /// Times in the interval at which not everything was recorded, by gateways that the question can concern; in words.
    pub gaps: Vec<String>,
    /// The same, to be told apart.
    pub unrecorded: Vec<Unrecorded>,
    /// Segments whose lines their gateways are not trusted to have written.
    pub untrusted: usize,
}

/// How far a search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub segments_done: usize,
    pub segments: usize,
}

/// A file that a manifest line names.
struct Named<'a> {
    line: &'a Line,
    file: &'a FileEntry,
    path: PathBuf,
    /// The index of a segment of flows.
    index: Option<(PathBuf, &'a FileEntry)>,
}

impl Named<'_> {
    /// Brings the file here if it lies elsewhere, and says whether all of it is what its line vouches for. What is read after this was
    /// written by whoever wrote the line.
    fn check(&self, place: &dyn Place) -> Result<(), String> {
        let (path, sequence) = (self.path.display(), self.line.sequence);
        // Compared below, as a file is that always lay here.
        let brought = place.bring(&self.file.path, None);
        match brought.and_then(|()| hash_file(&self.path)) {
            Ok((sha256, _)) if sha256 == self.file.sha256 => Ok(()),
            Ok(_) => Err(format!("{path} was changed (SHA-256 differs from sequence {sequence})")),
            Err(error) => Err(format!("{path} cannot be read: {error} (sequence {sequence})")),
        }
    }

    /// Opens the file, and compares what it says of itself with its line: whose it is, which sequence, and the key it is under.
    fn open(&self, keyring: &Keyring, blocks: Option<Vec<u8>>) -> Result<SegmentReader, String> {
        let sequence = self.line.sequence;
        let failed = |error: SegmentError| error.in_sequence(sequence);
        let reader = SegmentReader::open_comparing(&self.path, keyring, blocks).map_err(failed)?;
        let is_sealed = reader.is_sealed();
        let (path, line) = (self.path.display(), format!("sequence {sequence}"));
        if is_sealed != self.file.key.is_some() {
            return Err(format!(
                "{path} is {}encrypted, its line says otherwise ({line})",
                if is_sealed { "" } else { "not " }
            ));
        }
        if let Some(commitment) = &self.file.key {
            let key = keyring.data_key(&self.path).map_err(|error| failed(error.into()))?;
            if key.commitment() != *commitment {
                return Err(format!("{path}: its wrapped key is another one than its line says ({line})"));
            }
        }
        if *reader.origin() != origin(self.line) || reader.class().label() != self.file.class {
            let Origin { site, gateway, sequence } = reader.origin();
            let class = reader.class().label();
            return Err(format!(
                "{path} says that it is {class} of {gateway} at {site}, sequence {sequence}, its line otherwise ({line})"
            ));
        }
        Ok(reader)
    }

    /// Brings the wrapped keys that the keyring may open. One that is not there is missed when it is needed.
    fn bring_keys(&self, place: &dyn Place, keyring: &Keyring) {
        if self.file.key.is_none() || keyring.is_empty() {
            return;
        }
        let path = Path::new(&self.file.path);
        let _ = place.bring(&sidecar_path(path).to_string_lossy(), None);
        let mine: Vec<String> = keyring.recipients().collect();
        if !self.line.recipients.iter().any(|recipient| mine.contains(recipient)) {
            for recipient in mine {
                let _ = place.bring(&added_sidecar_path(path, &recipient).to_string_lossy(), None);
            }
        }
    }
}

/// An archive that could not be opened at all.
#[derive(Debug, thiserror::Error)]
#[error("{} is not an archive (it has no manifest directory)", path.display())]
pub struct NoArchive {
    pub path: PathBuf,
    pub source: io::Error,
}

/// An archive opened for searching.
pub struct Archive {
    root: PathBuf,
    lines: Vec<Line>,
    damage: Vec<String>,
    keyring: Keyring,
    place: Arc<dyn Place>,
    /// Segments that are no longer here: from when to when, and where they are.
    moved: Vec<(WallNs, WallNs, String)>,
    /// Segments whose flows were deleted: from when to when, and of which gateway.
    deleted: Vec<(WallNs, WallNs, String)>,
    /// By gateway the last sequence that it is trusted to have written.
    trusted: HashMap<String, u64>,
    /// What each chain says of the time its gateway recorded.
    timelines: Vec<Timeline>,
    /// By the clock of whoever asks.
    now_ns: Option<WallNs>,
    /// Gateways of which there is no segment.
    unsealed: Vec<Unsealed>,
}

impl Archive {
    /// Reads the manifests of an archive that lies here. What is encrypted is opened with the keyring.
    pub fn open(root: &Path, keyring: Keyring) -> Result<Self, NoArchive> {
        Self::open_at(root, Arc::new(Here(root.to_path_buf())), keyring, &Pins::default(), None)
    }

    /// Reads the manifests below `root`; what else is needed is brought there from the place. Lines are believed that a checked signature
    /// vouches for, of gateways with the pinned keys where keys are pinned. `now_ns`: a line from the future deletes nothing.
    pub fn open_at(
        root: &Path,
        place: Arc<dyn Place>,
        keyring: Keyring,
        pins: &Pins,
        now_ns: Option<WallNs>,
    ) -> Result<Self, NoArchive> {
        let failed = |source| NoArchive { path: root.to_path_buf(), source };
        let read = read_chains(root, pins, now_ns).map_err(|error| failed(io::Error::other(error.to_string())))?;
        let (mut lines, mut damage) = (Vec::new(), read.damage);
        damage.extend(unvouched::find(root, &*place, &read.chains));
        let (mut deleted, mut trusted) = (Vec::new(), HashMap::new());
        let mut timelines = Vec::new();
        for chain in read.chains {
            damage.extend(chain.damage());
            let mut timeline = Timeline::new(&chain.gateway);
            chain.segments().for_each(|line| timeline.push(line));
            timelines.push(timeline);
            let Believed { records, check, .. } = chain.believed;
            for (number, record) in records {
                let Record::Segment(mut line) = record else { continue };
                if check.is_trusted(number) {
                    trusted.insert(line.gateway.clone(), line.sequence);
                } else {
                    trusted.entry(line.gateway.clone()).or_insert(0);
                }
                if leave_out_deleted(&mut line, check.ledger()) {
                    deleted.push((line.from_ns, line.to_ns, line.gateway.clone()));
                }
                lines.push(line);
            }
        }
        lines.sort_by_key(|line| (line.from_ns, line.sequence));
        let unsealed = first::unsealed(root, |gateway| trusted.contains_key(gateway)).map_err(failed)?;
        let moved = leave_out_moved(root, &mut lines, &Moved::read(root).map_err(failed)?);
        let root = root.to_path_buf();
        Ok(Self { root, lines, damage, keyring, place, moved, deleted, trusted, timelines, now_ns, unsealed })
    }

    /// Whether a segment's line is one that its gateway is trusted to have written.
    #[must_use]
    pub fn is_trusted(&self, origin: &Origin) -> bool {
        self.trusted.get(&origin.gateway).is_some_and(|last| origin.sequence <= *last)
    }

    /// The directory that the files are read in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// In words, what is wrong with chains, or lies there without one.
    #[must_use]
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// Hands over every flow that matches, segments in order of time; `each` says whether to go on.
    pub fn search(
        &self,
        interval: Interval,
        filter: &Filter,
        mut each: impl FnMut(Hit) -> bool,
        mut progress: impl FnMut(Progress),
    ) -> Seen {
        let scan = Scan::new(interval, filter, &self.keyring, &*self.place);
        self.run(
            &scan,
            scan::flows,
            |found, origin| {
                let is_trusted = self.is_trusted(origin);
                found.into_iter().all(|flow| each(Hit { origin: origin.clone(), flow, is_trusted }))
            },
            &mut progress,
        )
    }

    /// Sums what matches by the values of a column. `totals` are complete where the search is.
    pub fn sum(
        &self,
        interval: Interval,
        filter: &Filter,
        totals: &mut Totals,
        mut progress: impl FnMut(Progress),
    ) -> Seen {
        let scan = Scan::new(interval, filter, &self.keyring, &*self.place);
        let asked = totals.part();
        let mut is_full = false;
        let mut seen = self.run(
            &scan,
            |reader, selection, give| scan::sums(reader, selection, &asked, give),
            |part: Totals, _| {
                is_full = !totals.add(part);
                !is_full
            },
            &mut progress,
        );
        if is_full {
            seen.damage.push(totals::TOO_MANY.to_owned());
        }
        seen
    }

    /// Searches segments side by side; `each` gets what they give in order.
    fn run<T: Send>(
        &self,
        scan: &Scan<'_>,
        work: impl Fn(&SegmentReader, Selection, &mut dyn FnMut(T) -> bool) -> Result<(), SegmentError> + Sync,
        mut each: impl FnMut(T, &Origin) -> bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Seen {
        let mut seen = Seen { damage: self.damage.clone(), ..Seen::default() };
        let asked = scan.interval();
        seen.damage.extend(self.moved_away(asked));
        let files: Vec<Named<'_>> = self.files(Class::Flows, asked).collect();
        seen.segments = files.len();
        seen.untrusted = files.iter().filter(|named| !self.is_trusted(&origin(named.line))).count();
        self.place.expect(scan.first_needed(&files));
        let mut done = 0;
        let mut is_ended = false;
        for block in files.chunks(BLOCK) {
            let candidates = candidates(block, scan, &mut seen);
            in_order(
                &candidates,
                |candidate, give| {
                    let rows = candidate.rows.clone();
                    let damage = scan.search(candidate.named, rows, |reader, selection| {
                        work(reader, selection, &mut |part| give(Flow::Part(part)))
                    });
                    give(Flow::End(damage));
                },
                |position, flow| match flow {
                    Flow::Part(part) => {
                        is_ended = !each(part, &candidates[position].origin);
                        !is_ended
                    }
                    Flow::End(damage) => {
                        seen.damage.extend(damage);
                        let segments_done = done + candidates[position].position + 1;
                        progress(Progress { segments_done, segments: files.len() });
                        true
                    }
                },
            );
            if is_ended {
                break;
            }
            done += block.len();
            progress(Progress { segments_done: done, segments: files.len() });
        }
        if !is_ended {
            seen.unrecorded = self.unrecorded(asked, scan.filter(), &mut seen.damage);
            seen.gaps = seen.unrecorded.iter().map(Unrecorded::to_string).collect();
        }
        seen
    }

    /// The files of a class whose segments an interval touches, in order of time.
    fn files(&self, class: Class, interval: Interval) -> impl Iterator<Item = Named<'_>> {
        self.lines.iter().flat_map(move |line| {
            // A flow may begin before its journal was opened: its first packet was still in the kernel.
            let touches = interval.touches(line.from_ns.saturating_sub(EARLY_NS), line.to_ns);
            let of = move |label: &'static str| line.files.iter().filter(move |file| touches && file.class == label);
            of(class.label()).map(move |file| Named {
                line,
                file,
                path: self.path(file),
                index: of(INDEX).next().map(|index| (self.path(index), index)),
            })
        })
    }

    /// What cannot be searched here because it lies elsewhere.
    fn moved_away(&self, interval: Interval) -> impl Iterator<Item = String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (from_ns, to_ns, to) in &self.moved {
            if interval.touches(from_ns.saturating_sub(EARLY_NS), *to_ns) {
                *counts.entry(to).or_default() += 1;
            }
        }
        let say = |(to, count)| format!("{count} segments that were moved to {to}; ask there too: --archive {to}");
        counts.into_iter().map(say).collect::<Vec<_>>().into_iter()
    }

    /// Where a file lies, which is below the root: lines name others in vain.
    fn path(&self, file: &FileEntry) -> PathBuf {
        self.root.join(&file.path)
    }
}

/// A segment that can hold what is asked for.
struct Candidate<'a> {
    named: &'a Named<'a>,
    /// In its block.
    position: usize,
    rows: Rows,
    origin: Origin,
}

/// Those of a block that their indexes do not rule out.
fn candidates<'a>(block: &'a [Named<'a>], scan: &Scan<'_>, seen: &mut Seen) -> Vec<Candidate<'a>> {
    let asked = side_by_side(block, |named| scan.rows(named));
    let mut candidates = Vec::new();
    for (position, (named, rows)) in block.iter().zip(asked).enumerate() {
        let rows = rows.unwrap_or_else(|why| {
            seen.unindexed.push(why);
            Rows::All
        });
        if !rows.is_none() {
            candidates.push(Candidate { named, position, rows, origin: origin(named.line) });
        }
    }
    seen.opened += candidates.len();
    candidates
}

/// Takes out of a line what was deleted and what is not its own, which is no reason to skip anything elsewhere. Whether flows were deleted.
fn leave_out_deleted(line: &mut Line, ledger: &Ledger) -> bool {
    let mut is_deleted = false;
    let state = ledger.files_of(line);
    let mut files = std::mem::take(&mut line.files);
    files.retain(|file| {
        let state = state(file);
        is_deleted |= state == FileState::Deleted && file.class == Class::Flows.label();
        state == FileState::Kept
    });
    drop(state);
    line.files = files;
    is_deleted
}

/// Takes the files out of lines that were moved and are not here; from when to when, and where to.
fn leave_out_moved(root: &Path, lines: &mut [Line], moved: &Moved) -> Vec<(WallNs, WallNs, String)> {
    let mut away = Vec::new();
    for line in lines {
        let Some(to) = moved.to(&line.gateway, line.sequence) else { continue };
        let before = line.files.len();
        line.files.retain(|file| root.join(&file.path).exists());
        if line.files.len() < before {
            away.push((line.from_ns, line.to_ns, to.to_owned()));
        }
    }
    away
}

fn origin(line: &Line) -> Origin {
    Origin { site: line.site.clone(), gateway: line.gateway.clone(), sequence: line.sequence }
}

/// Segments whose indexes are asked before the first of them is read.
const BLOCK: usize = 256;
/// How much earlier than its segment a flow may begin.
const EARLY_NS: WallNs = 120 * 1_000_000_000;
