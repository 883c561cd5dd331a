//! Searching an archive: what cannot match is not read.
//!
//! Manifest line by time → row group by statistics → rows. A damaged file does not end a search: the others are searched, and
//! what was wrong is said. Also says whether the log was whole in the interval, because "nothing found" means something only
//! where it was.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hotspot_core::MacAddr;
use hotspot_core::WallNs;
use hotspot_core::record::{CoverageRecord, FlowRecord};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use crate::chain::{self, Record};
use crate::filter::Filter;
use crate::keys::Keyring;
use crate::layout::Class;
use crate::manifest::{Event, Line};
use crate::segment::{Origin, Records, SegmentReader};
use crate::verify::chains;

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
}

/// What a search saw beside its hits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub segments: usize,
    pub rows: u64,
    /// Files and lines that could not be searched.
    pub damage: Vec<String>,
    /// Times in the interval at which not everything was recorded.
    pub gaps: Vec<String>,
}

/// A segment a manifest line names.
struct Named {
    line: Line,
    path: PathBuf,
    class: Class,
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
}

impl Archive {
    /// Reads the manifests. What is encrypted is opened with the keyring.
    pub fn open(root: &Path, keyring: Keyring) -> Result<Self, NoArchive> {
        let failed = |source| NoArchive { path: root.to_path_buf(), source };
        let chains = chains(root).map_err(|error| failed(io::Error::other(error.to_string())))?;
        let (mut lines, mut damage): (Vec<Line>, Vec<String>) = (Vec::new(), Vec::new());
        let mut deleted = std::collections::HashSet::new();
        for chain in chains {
            let text = fs::read_to_string(&chain.path).map_err(failed)?;
            for (number, text) in text.lines().enumerate() {
                match chain::parse(text).map(|signed| signed.record) {
                    Some(Record::Segment(line)) => lines.push(line),
                    Some(Record::Event(line)) => {
                        if let Event::Deleted { files, .. } = line.event {
                            deleted.extend(files.into_iter().map(|file| file.path));
                        }
                    }
                    None => damage.push(format!("{}, line {}: not a manifest line", chain.path.display(), number + 1)),
                }
            }
        }
        // What a signed line calls deleted is not there, and not damage.
        for line in &mut lines {
            line.files.retain(|file| !deleted.contains(&file.path));
        }
        lines.sort_by_key(|line| (line.from_ns, line.sequence));
        Ok(Self { root: root.to_path_buf(), lines, damage, keyring })
    }

    /// Hands over every flow that matches; `each` says whether to go on.
    pub fn search(&self, interval: Interval, filter: &Filter, mut each: impl FnMut(Hit) -> bool) -> Seen {
        let mut seen = Seen { damage: self.damage.clone(), ..Seen::default() };
        for named in self.files(Class::Flows, interval) {
            seen.segments += 1;
            let goes_on = read_flows(&named, &self.keyring, interval, filter, &mut seen, &mut each);
            match goes_on {
                Ok(true) => {}
                Ok(false) => return seen,
                Err(error) => seen.damage.push(error),
            }
        }
        seen.gaps = self.gaps(interval, &mut seen.damage);
        seen
    }

    /// Every coverage row of an interval.
    pub fn coverage(&self, interval: Interval, damage: &mut Vec<String>) -> Vec<CoverageRecord> {
        let mut rows = Vec::new();
        for named in self.files(Class::Coverage, interval) {
            match read_records(&named, &self.keyring) {
                Err(error) => damage.push(error),
                Ok(records) => rows.extend(records.into_iter().filter_map(|records| match records {
                    Records::Coverage(rows) => Some(rows),
                    Records::Flows(_) | Records::Sessions(_) | Records::Devices(_) => None,
                })),
            }
        }
        rows.into_iter().flatten().filter(|row| interval.touches(row.from_ns, row.to_ns)).collect()
    }

    /// Times at which not everything was recorded, in words.
    fn gaps(&self, interval: Interval, damage: &mut Vec<String>) -> Vec<String> {
        let mut gaps: Vec<String> = self.coverage(interval, damage).iter().filter_map(describe_gap).collect();
        if interval != Interval::ALWAYS && !self.lines.iter().any(|line| interval.touches(line.from_ns, line.to_ns)) {
            gaps.push("no segment of this archive covers the time asked for".to_owned());
        }
        gaps
    }

    fn files(&self, class: Class, interval: Interval) -> impl Iterator<Item = Named> {
        self.lines.iter().flat_map(move |line| {
            // A flow may begin before its journal was opened: its first packet was still in the kernel.
            let touches = interval.touches(line.from_ns.saturating_sub(EARLY_NS), line.to_ns);
            line.files.iter().filter(move |file| touches && file.class == class.label()).map(move |file| Named {
                line: line.clone(),
                path: self.root.join(&file.path),
                class,
            })
        })
    }
}

/// When and where something was not recorded, and why; `None` for a row about packets.
#[must_use]
pub fn describe_gap(row: &CoverageRecord) -> Option<String> {
    let gap = row.gap.as_ref()?;
    let (from, to) = (show(row.from_ns), show(row.to_ns));
    // What concerns all interfaces names none.
    let interface = if row.interface.is_empty() { String::new() } else { format!("{}: ", row.interface) };
    Some(format!("{from} to {to}: {interface}{gap}"))
}

/// How much earlier than its segment a flow may begin.
const EARLY_NS: WallNs = 120 * 1_000_000_000;

fn read_records(named: &Named, keyring: &Keyring) -> Result<Vec<Records>, String> {
    let failed = |error: crate::segment::SegmentError| format!("{error} (sequence {})", named.line.sequence);
    let reader = SegmentReader::open(&named.path, keyring).map_err(failed)?;
    if reader.class() != named.class {
        return Err(format!("{} is not a segment of {}", named.path.display(), named.class.label()));
    }
    reader.read(|_, _| true).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

fn read_flows(
    named: &Named,
    keyring: &Keyring,
    interval: Interval,
    filter: &Filter,
    seen: &mut Seen,
    each: &mut impl FnMut(Hit) -> bool,
) -> Result<bool, String> {
    let failed = |error: crate::segment::SegmentError| format!("{error} (sequence {})", named.line.sequence);
    let reader = SegmentReader::open(&named.path, keyring).map_err(failed)?;
    let origin = reader.origin().clone();
    let batches = reader.read(|metadata, group| may_hold(metadata, group, interval, filter)).map_err(failed)?;
    for batch in batches {
        let Records::Flows(flows) = batch.map_err(failed)? else {
            return Err(format!("{} is not a segment of flows", named.path.display()));
        };
        seen.rows += flows.len() as u64;
        for flow in flows {
            let is_hit = interval.touches(flow.start_ns, flow.end_ns) && filter.matches(&flow);
            if is_hit && !each(Hit { origin: origin.clone(), flow }) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Whether a row group can hold a match, by the minima and maxima its file keeps.
fn may_hold(metadata: &ParquetMetaData, group: usize, interval: Interval, filter: &Filter) -> bool {
    let group = metadata.row_group(group);
    let times = |name| match statistics(group, name) {
        Some(Statistics::Int64(values)) => Some((*values.min_opt()?, *values.max_opt()?)),
        _ => None,
    };
    if let (Some((first, _)), Some((_, last))) = (times("start"), times("end"))
        && !interval.touches(first.saturating_mul(1000), last.saturating_mul(1000).saturating_add(999))
    {
        return false;
    }
    match statistics(group, "client_mac") {
        Some(Statistics::ByteArray(values)) => {
            let mac = |bytes: Option<&parquet::data_type::ByteArray>| -> Option<MacAddr> {
                bytes?.as_utf8().ok()?.parse().ok()
            };
            match (mac(values.min_opt()), mac(values.max_opt())) {
                (Some(least), Some(greatest)) => filter.may_match_mac(least, greatest),
                _ => true,
            }
        }
        _ => true,
    }
}

fn statistics<'a>(group: &'a RowGroupMetaData, name: &str) -> Option<&'a Statistics> {
    let column = group.columns().iter().find(|column| column.column_path().string() == name)?;
    column.statistics()
}

fn show(at_ns: WallNs) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at_ns)).map_or_else(|_| at_ns.to_string(), |time| format!("{time:.3}"))
}
