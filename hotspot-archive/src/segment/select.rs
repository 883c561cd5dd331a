//! Reading only what is asked for: rows an index named, of these the ones a predicate lets through by few columns, and only of
//! those the other columns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowFilter, RowSelection, RowSelector,
};
use parquet::errors::ParquetError;

use super::{BATCH_ROWS, SegmentError, SegmentReader, joined};
use crate::index::Rows;

/// Which rows of a batch to keep, by some columns.
pub(crate) trait Predicate: Send + Sync {
    fn columns(&self) -> Vec<&'static str>;
    fn keep(&self, batch: &RecordBatch) -> Result<BooleanArray, ArrowError>;
}

/// What to read of a segment.
pub(crate) struct Selection {
    pub(crate) rows: Rows,
    pub(crate) predicate: Option<Arc<dyn Predicate>>,
    /// All columns where it is `None`.
    pub(crate) columns: Option<Vec<&'static str>>,
}

impl Default for Selection {
    fn default() -> Self {
        Self { rows: Rows::All, predicate: None, columns: None }
    }
}

/// The columns with text as dictionaries: a value that occurs many times is looked at once.
pub(super) fn schema(plain: &Schema) -> SchemaRef {
    Arc::new(Schema::new(plain.fields().iter().map(as_dictionary).collect::<Vec<_>>()))
}

/// The same of one column; of lists their items are.
pub(super) fn as_dictionary(field: &Arc<Field>) -> Arc<Field> {
    let kind = if let DataType::List(item) = field.data_type() {
        DataType::List(as_dictionary(item))
    } else if *field.data_type() == DataType::Utf8 {
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
    } else {
        return Arc::clone(field);
    };
    Arc::new(field.as_ref().clone().with_data_type(kind))
}

impl SegmentReader {
    /// Reads a selection, in batches, row group by row group.
    pub(crate) fn select(&self, selection: Selection) -> impl Iterator<Item = Result<RecordBatch, SegmentError>> {
        let columns =
            selection.columns.map(|columns| if self.is_joined { joined::needed(self.class, columns) } else { columns });
        self.read_stored(Selection { columns, ..selection }).map(|batch| {
            let batch = batch?;
            if self.is_joined {
                joined::as_lists(self.class, &batch).map_err(|error| self.damaged(error))
            } else {
                Ok(batch)
            }
        })
    }

    /// All columns as they are stored, whatever the format.
    pub(crate) fn stored(&self) -> impl Iterator<Item = Result<RecordBatch, SegmentError>> {
        self.read_stored(Selection::default())
    }

    fn read_stored(&self, selection: Selection) -> impl Iterator<Item = Result<RecordBatch, SegmentError>> {
        let damaged = |source| SegmentError::Damaged { path: self.path.clone(), source };
        let mut first = 0u64;
        let mut groups = Vec::new();
        for (position, group) in self.metadata().row_groups().iter().enumerate() {
            let count = u64::try_from(group.num_rows()).unwrap_or(0);
            let rows = selected(&selection.rows, first, count);
            if count > 0 && rows.as_ref().is_none_or(RowSelection::selects_any) {
                groups.push((position, rows));
            }
            first += count;
        }
        groups.into_iter().flat_map(move |(position, rows)| {
            let mut reader = Some(unwound(|| self.reader(position, rows, &selection)));
            std::iter::from_fn(move || {
                // Taken out: after an error there is nothing to believe.
                let mut open = match reader.take()? {
                    Ok(open) => open,
                    Err(error) => return Some(Err(damaged(error))),
                };
                let batch = unwound(|| open.next().transpose().map_err(ParquetError::from)).transpose()?;
                if batch.is_ok() {
                    reader = Some(Ok(open));
                }
                Some(batch.map_err(damaged))
            })
        })
    }

    fn reader(
        &self,
        group: usize,
        rows: Option<RowSelection>,
        selection: &Selection,
    ) -> Result<ParquetRecordBatchReader, ParquetError> {
        self.file.begin_group();
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
            .with_row_groups(vec![group])
            .with_batch_size(BATCH_ROWS);
        if let Some(rows) = rows {
            builder = builder.with_row_selection(rows);
        }
        let columns = |names: &[&'static str]| ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
        let shown = selection.columns.as_ref().map(|names| columns(names));
        let filter = selection.predicate.as_ref().map(|predicate| {
            let (is_joined, class, predicate) = (self.is_joined, self.class, Arc::clone(predicate));
            let of_predicate = predicate.columns();
            let mask = columns(&if is_joined { joined::needed(class, of_predicate) } else { of_predicate });
            RowFilter::new(vec![Box::new(ArrowPredicateFn::new(mask, move |batch: RecordBatch| {
                if is_joined { predicate.keep(&joined::as_lists(class, &batch)?) } else { predicate.keep(&batch) }
            }))])
        });
        if let Some(shown) = shown {
            builder = builder.with_projection(shown);
        }
        if let Some(filter) = filter {
            builder = builder.with_row_filter(filter);
        }
        builder.build()
    }
}

/// The Parquet reader falls over some pages whose content lies: that is damage of their file, and no reason to end.
fn unwound<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ParquetError::General("what a page holds made the reader fall over".to_owned())))
}

/// The rows of one row group, which begins at `first`; `None` for all.
fn selected(rows: &Rows, first: u64, count: u64) -> Option<RowSelection> {
    let Rows::Some(ranges) = rows else { return None };
    let mut selectors = Vec::new();
    let mut next = 0;
    for range in ranges {
        let start = u64::from(range.start).clamp(first, first + count) - first;
        let end = u64::from(range.end).clamp(first, first + count) - first;
        if start < end && start >= next {
            if start > next {
                selectors.push(RowSelector::skip(count_of(next, start)));
            }
            selectors.push(RowSelector::select(count_of(start, end)));
            next = end;
        }
    }
    if next < count {
        selectors.push(RowSelector::skip(count_of(next, count)));
    }
    Some(RowSelection::from(selectors))
}

/// Rows of one row group, which the guard holds below 2²⁴.
fn count_of(from: u64, to: u64) -> usize {
    usize::try_from(to - from).unwrap_or(usize::MAX)
}
