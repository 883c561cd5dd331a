//! One segment: what its index rules out, then the columns that decide, then the rest.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use hotspot_core::record::FlowRecord;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use super::mask::Mask;
use super::totals::{By, Totals};
use super::{Interval, Named, origin, plan};
use crate::filter::Filter;
use crate::index::{BYTES_MAX, Index, Rows};
use crate::keys::{Keyring, sidecar_path};
use crate::layout::{Class, INDEX};
use crate::manifest::FileEntry;
use crate::place::{Expected, Place};
use crate::segment::{Predicate, SegmentError, SegmentReader, Selection};

/// What is asked of every segment.
pub(super) struct Scan<'a> {
    interval: Interval,
    filter: &'a Filter,
    keyring: &'a Keyring,
    place: &'a dyn Place,
    is_indexed: bool,
}

/// How a segment was searched.
#[derive(Default)]
pub(super) struct Found {
    pub(super) was_opened: bool,
    pub(super) unindexed: Option<String>,
    pub(super) damage: Option<String>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(interval: Interval, filter: &'a Filter, keyring: &'a Keyring, place: &'a dyn Place) -> Self {
        let (from_ns, to_ns) = filter.times();
        let interval = Interval { from_ns: interval.from_ns.max(from_ns), to_ns: interval.to_ns.min(to_ns) };
        Self { interval, filter, keyring, place, is_indexed: plan::can_help(filter) }
    }

    /// What is read of each segment before it is known whether the segment is: its index, and the key of both.
    pub(super) fn first_needed(&self, files: &[Named<'_>]) -> Vec<Expected> {
        let expected = |file: &FileEntry| Expected { path: file.path.clone(), sha256: file.sha256.clone() };
        let mut first = Vec::new();
        for named in files {
            let key = sidecar_path(Path::new(&named.file.path));
            let is_key = |file: &&FileEntry| !self.keyring.is_empty() && Path::new(&file.path) == key;
            first.extend(named.line.files.iter().filter(is_key).map(expected));
            let index = named.index.as_ref().filter(|_| self.is_indexed);
            first.extend(index.map(|(_, file)| expected(file)));
        }
        first
    }

    /// When a match can lie.
    pub(super) fn interval(&self) -> Interval {
        self.interval
    }

    /// Gives the flows of a segment that match.
    pub(super) fn flows(&self, named: &Named<'_>, give: &mut dyn FnMut(Vec<FlowRecord>) -> bool) -> Found {
        self.search(named, |reader, selection| {
            for batch in reader.select(selection) {
                let batch = batch?;
                if batch.num_rows() > 0 && !give(reader.flows(&batch)?) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Gives the sums of a segment.
    pub(super) fn sums(&self, named: &Named<'_>, by: By, give: &mut dyn FnMut(Totals) -> bool) -> Found {
        self.search(named, |reader, mut selection| {
            selection.columns = Some(by.columns());
            let mut totals = Totals::new(by);
            for batch in reader.select(selection) {
                totals.add_batch(&batch?, reader.origin()).map_err(|source| reader.damaged(source))?;
            }
            give(totals);
            Ok(())
        })
    }

    fn search(
        &self,
        named: &Named<'_>,
        read: impl FnOnce(&SegmentReader, Selection) -> Result<(), SegmentError>,
    ) -> Found {
        let mut found = Found::default();
        named.bring_keys(self.place, self.keyring);
        let rows = match self.rows(named) {
            Ok(rows) => rows,
            Err(why) => {
                found.unindexed = Some(why);
                Rows::All
            }
        };
        if rows.is_none() {
            return found;
        }
        found.was_opened = true;
        found.damage = named.check(self.place).and_then(|()| self.read(named, rows, read)).err();
        self.place.release(&named.file.path);
        found
    }

    fn read(
        &self,
        named: &Named<'_>,
        rows: Rows,
        read: impl FnOnce(&SegmentReader, Selection) -> Result<(), SegmentError>,
    ) -> Result<(), String> {
        let opened = SegmentReader::open(&named.path, self.keyring).and_then(|reader| {
            if reader.class() != Class::Flows {
                return Err(reader.another_class());
            }
            let selection = self.selection(&reader, rows);
            read(&reader, selection)
        });
        opened.map_err(|error| error.in_sequence(named.line.sequence))
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
    fn rows(&self, named: &Named<'_>) -> Result<Rows, String> {
        if !self.is_indexed {
            return Ok(Rows::All);
        }
        let (path, file) = named.index.as_ref().ok_or_else(|| format!("{} has no index", named.path.display()))?;
        let asked = self.place.bring(&file.path, Some(&file.sha256)).map_err(unreadable).and_then(|()| {
            let index = self.index(named, path, file.key.is_some())?;
            plan::rows(self.filter, &index).map_err(|error| error.to_string())
        });
        self.place.release(&file.path);
        asked.map_err(|error| format!("{} {error}", path.display()))
    }

    /// Opens an index; what is encrypted is read whole, because it is sealed as one.
    fn index(&self, named: &Named<'_>, path: &Path, is_encrypted: bool) -> Result<Index, String> {
        let file = File::open(path).map_err(unreadable)?;
        let index = if is_encrypted {
            let bytes = read_whole(&file).map_err(unreadable)?;
            let key = self.keyring.data_key(&named.path).map_err(|error| format!("cannot be opened: {error}"))?;
            let opened = key.open_bytes(&origin(named.line), INDEX, &bytes);
            Index::new(opened.ok_or("is damaged or of another segment")?, &named.file.sha256)
        } else {
            Index::in_file(file, &named.file.sha256)
        };
        index.map_err(|error| error.to_string())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn unreadable(error: io::Error) -> String {
    format!("cannot be read: {error}")
}

/// Reads a whole index, which is small.
fn read_whole(file: &File) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    if len > BYTES_MAX {
        return Err(io::Error::other("it is too large for an index"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
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
