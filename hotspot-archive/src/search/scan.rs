//! One segment: what its index rules out, then the columns that decide, then the rest.

use std::io;
use std::path::Path;
use std::sync::Arc;

use hotspot_core::record::FlowRecord;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use super::mask::Mask;
use super::totals::Totals;
use super::{Interval, Named, origin, plan};
use crate::filter::Filter;
use crate::index::{Index, IndexError, Rows, Said, Sealed};
use crate::keys::{DataKey, Keyring, sidecar_path};
use crate::manifest::FileEntry;
use crate::place::{Expected, Place};
use crate::regular;
use crate::segment::{Origin, Predicate, SegmentError, SegmentReader, Selection};

/// What is asked of every segment.
pub(super) struct Scan<'a> {
    interval: Interval,
    filter: &'a Filter,
    keyring: &'a Keyring,
    place: &'a dyn Place,
    is_indexed: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn new(interval: Interval, filter: &'a Filter, keyring: &'a Keyring, place: &'a dyn Place) -> Self {
        let (from_ns, to_ns) = filter.times();
        let interval = Interval { from_ns: interval.from_ns.max(from_ns), to_ns: interval.to_ns.min(to_ns) };
        Self { interval, filter, keyring, place, is_indexed: plan::can_help(filter) }
    }

    /// What is read of each segment first: its index, or, where all are searched, the key.
    pub(super) fn first_needed(&self, files: &[Named<'_>]) -> Vec<Expected> {
        let expected = |file: &FileEntry| Expected { path: file.path.clone(), sha256: file.sha256.clone() };
        let mut first = Vec::new();
        for named in files {
            if self.is_indexed {
                first.extend(named.index.as_ref().map(|(_, file)| expected(file)));
            } else if !self.keyring.is_empty() {
                let key = sidecar_path(Path::new(&named.file.path));
                first.extend(named.line.files.iter().filter(|file| Path::new(&file.path) == key).map(expected));
            }
        }
        first
    }

    /// When a match can lie.
    pub(super) fn interval(&self) -> Interval {
        self.interval
    }

    pub(super) fn filter(&self) -> &Filter {
        self.filter
    }

    /// Reads a segment, of which these rows can match; what was wrong with it.
    pub(super) fn search(
        &self,
        named: &Named<'_>,
        rows: Rows,
        read: impl FnOnce(&SegmentReader, Selection) -> Result<(), SegmentError>,
    ) -> Option<String> {
        named.bring_keys(self.place, self.keyring);
        let damage = self.blocks(named).and_then(|blocks| self.read(named, blocks, rows, read)).err();
        self.place.release(&named.file.path);
        damage
    }

    /// Brings a segment here, and says what its blocks must be; `None` where it was compared as a whole, for want of an index that says it.
    fn blocks(&self, named: &Named<'_>) -> Result<Option<Vec<u8>>, String> {
        let is_here = self.place.is_here() && self.place.bring(&named.file.path, None).is_ok();
        let blocks = if is_here { self.ask(named, Index::blocks).ok() } else { None };
        if blocks.is_none() {
            named.check(self.place)?;
        }
        Ok(blocks)
    }

    fn read(
        &self,
        named: &Named<'_>,
        blocks: Option<Vec<u8>>,
        rows: Rows,
        read: impl FnOnce(&SegmentReader, Selection) -> Result<(), SegmentError>,
    ) -> Result<(), String> {
        let reader = named.open(self.keyring, blocks)?;
        let selection = self.selection(&reader, rows);
        read(&reader, selection).map_err(|error| error.in_sequence(named.line.sequence))
    }

    fn selection(&self, reader: &SegmentReader, rows: Rows) -> Selection {
        let groups = reader.metadata().row_groups();
        let is_within = groups.iter().all(|group| {
            times(group).is_some_and(|(first_ns, last_ns)| {
                // A flow that begins before the end and ends after the beginning is in it, whatever its other end.
                self.interval.from_ns <= first_ns && last_ns < self.interval.to_ns
            })
        });
        let mask = Mask {
            filter: self.filter.clone(),
            interval: (!is_within && self.interval != Interval::ALWAYS).then_some(self.interval),
            origin: reader.origin().clone(),
        };
        let is_needed = mask.interval.is_some() || mask.filter != Filter::Everything;
        let predicate = is_needed.then(|| Arc::new(mask) as Arc<dyn Predicate>);
        Selection { rows, predicate, columns: None }
    }

    /// The rows an index says can match; an error says why it cannot.
    pub(super) fn rows(&self, named: &Named<'_>) -> Result<Rows, String> {
        if !self.is_indexed {
            return Ok(Rows::All);
        }
        self.ask(named, |index| plan::rows(self.filter, index))
    }

    /// Asks the index of a segment; an error says why it cannot be asked.
    pub(super) fn ask<T>(
        &self,
        named: &Named<'_>,
        question: impl FnOnce(&Index) -> Result<T, IndexError>,
    ) -> Result<T, String> {
        let (path, file) = named.index.as_ref().ok_or_else(|| format!("{} has no index", named.path.display()))?;
        // Whether a file is here shows when it is opened.
        let brought = if self.place.is_here() { Ok(()) } else { self.place.bring(&file.path, Some(&file.sha256)) };
        let asked = brought.map_err(unreadable).and_then(|()| {
            let index = self.index(named, path, file)?;
            question(&index).map_err(|error| error.to_string())
        });
        self.place.release(&file.path);
        asked.map_err(|error| format!("{} {error}", path.display()))
    }

    /// Opens an index.
    fn index(&self, named: &Named<'_>, path: &Path, entry: &FileEntry) -> Result<Index, String> {
        let file = regular::open_path(path).map_err(unreadable)?;
        let said = Said { head: entry.head.as_deref().unwrap_or_default(), segment: &named.file.sha256 };
        if entry.key.is_none() {
            return Index::in_file(file, said).map_err(|error| error.to_string());
        }
        let sealed = Sealed::read(file).map_err(|error| error.to_string())?;
        let origin = origin(named.line);
        let key = match sealed.chained_key(self.keyring) {
            Some(key) => key,
            None => self.index_key(named, &sealed, &origin)?,
        };
        let opened =
            sealed.open(&key, &origin).ok_or(IndexError::Damaged).and_then(|frames| Index::sealed(frames, said));
        opened.map_err(|error| error.to_string())
    }

    /// The key of an index by that of its segment, for whoever was not among the recipients at the time.
    fn index_key(&self, named: &Named<'_>, sealed: &Sealed, origin: &Origin) -> Result<DataKey, String> {
        named.bring_keys(self.place, self.keyring);
        let data_key = self.keyring.data_key(&named.path).map_err(|error| format!("cannot be opened: {error}"))?;
        sealed.key_by(&data_key, origin).ok_or_else(|| IndexError::OtherSegment.to_string())
    }
}

/// Gives the flows of a segment that match.
pub(super) fn flows(
    reader: &SegmentReader,
    selection: Selection,
    give: &mut dyn FnMut(Vec<FlowRecord>) -> bool,
) -> Result<(), SegmentError> {
    for batch in reader.select(selection) {
        let batch = batch?;
        if batch.num_rows() > 0 && !give(reader.flows(&batch)?) {
            break;
        }
    }
    Ok(())
}

/// Gives the sums of a segment.
pub(super) fn sums(
    reader: &SegmentReader,
    mut selection: Selection,
    asked: &Totals,
    give: &mut dyn FnMut(Totals) -> bool,
) -> Result<(), SegmentError> {
    selection.columns = Some(asked.by().columns());
    let mut totals = asked.part();
    for batch in reader.select(selection) {
        totals.add_batch(&batch?, reader.origin()).map_err(|source| reader.damaged(source))?;
    }
    give(totals);
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn unreadable(error: io::Error) -> String {
    format!("cannot be read: {error}")
}

/// First start and last end of a row group, by its statistics.
fn times(group: &RowGroupMetaData) -> Option<(i64, i64)> {
    let column =
        |name: &str| match group.columns().iter().find(|column| column.column_path().string() == name)?.statistics()? {
            Statistics::Int64(values) => Some((*values.min_opt()?, *values.max_opt()?)),
            Statistics::Boolean(_)
            | Statistics::Int32(_)
            | Statistics::Int96(_)
            | Statistics::Float(_)
            | Statistics::Double(_)
            | Statistics::ByteArray(_)
            | Statistics::FixedLenByteArray(_) => None,
        };
    Some((column("start")?.0.saturating_mul(1000), column("end")?.1.saturating_mul(1000).saturating_add(999)))
}
