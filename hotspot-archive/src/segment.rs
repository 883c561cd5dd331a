//! Segments: records as Parquet files, compressed with zstd, readable by every engine as they lie.
//!
//! Column names and types are in [`schema`] and `docs/formats/records.md`. A file is written under a temporary name, flushed and
//! renamed, so that one with its name is whole.

pub(crate) mod columns;
mod coverage;
mod devices;
mod export;
mod flow_columns;
mod flows;
mod guard;
mod joined;
pub mod schema;
mod select;
mod sessions;
mod shared_columns;
mod text_column;
mod thrift;
mod validity;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use hotspot_core::record::{CoverageRecord, DeviceRecord, FlowRecord, SessionRecord};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

pub use self::export::FlowFile;
pub(crate) use self::flows::source_label;
use self::guard::Guarded;
pub(crate) use self::select::{Predicate, Selection};
pub(crate) use self::shared_columns::are_same;
pub use self::writer::FlowWriter;
use self::writer::SegmentWriter;
use crate::blocks::BlockFile;
use crate::keys::{DataKey, KeyError, Keyring};
use crate::layout::Class;
use crate::regular;
use crate::rows::{BatchRows, RowsRoot, SaltKey};

/// Version of the columns that is written; in every file's metadata under `hotspot.format`.
pub const FORMAT: &str = "3";
/// Versions that are read.
const FORMATS: [&str; 3] = ["1", "2", FORMAT];
/// Those in which what is several was one text.
const JOINED: [&str; 2] = ["1", "2"];
/// Where a file in the clear says what the salts of its rows are made of.
const ROW_SALTS: &str = "hotspot.row_salts";
/// Rows turned into records at once: bounds the memory of reading.
const BATCH_ROWS: usize = 8192;

/// What went wrong with a segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("{} cannot be {operation}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a whole segment", path.display())]
    Damaged { path: PathBuf, source: ParquetError },
    #[error("{}: column {column} is missing or of another type", path.display())]
    Column { path: PathBuf, column: &'static str },
    #[error("{}: column {column} holds {value:?}", path.display())]
    Value { path: PathBuf, column: &'static str, value: String },
    #[error("{}: no segment of format 1 to {FORMAT} (found {found:?})", path.display())]
    Format { path: PathBuf, found: Option<String> },
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: ParquetError },
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl SegmentError {
    /// With its cause and the sequence of the segment, on one line.
    pub(crate) fn in_sequence(&self, sequence: u64) -> String {
        let cause = std::error::Error::source(self).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{self}{cause} (sequence {sequence})")
    }
}

/// Whose segment it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub site: String,
    pub gateway: String,
    pub sequence: u64,
}

/// Records of any class, as they are read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    Flows(Vec<FlowRecord>),
    Sessions(Vec<SessionRecord>),
    Devices(Vec<DeviceRecord>),
    Coverage(Vec<CoverageRecord>),
}

/// Writes `flows`, in the order given; encrypted where there is a key.
pub fn write_flows(
    path: &Path,
    origin: &Origin,
    key: Option<&DataKey>,
    rows: &[FlowRecord],
) -> Result<RowsRoot, SegmentError> {
    let mut writer = FlowWriter::create(path, origin, key)?;
    rows.iter().try_for_each(|row| writer.push(row))?;
    writer.finish()
}

/// Writes `sessions`.
pub fn write_sessions(
    path: &Path,
    origin: &Origin,
    key: Option<&DataKey>,
    rows: &[SessionRecord],
) -> Result<RowsRoot, SegmentError> {
    write(path, Class::Sessions, origin, key, rows.chunks(BATCH_ROWS).map(|rows| sessions::to_batch(origin, rows)))
}

/// Writes `devices`.
pub fn write_devices(
    path: &Path,
    origin: &Origin,
    key: Option<&DataKey>,
    rows: &[DeviceRecord],
) -> Result<RowsRoot, SegmentError> {
    write(path, Class::Devices, origin, key, rows.chunks(BATCH_ROWS).map(|rows| devices::to_batch(origin, rows)))
}

/// Writes `coverage`.
pub fn write_coverage(
    path: &Path,
    origin: &Origin,
    key: Option<&DataKey>,
    rows: &[CoverageRecord],
) -> Result<RowsRoot, SegmentError> {
    write(path, Class::Coverage, origin, key, rows.chunks(BATCH_ROWS).map(|rows| coverage::to_batch(origin, rows)))
}

fn write(
    path: &Path,
    class: Class,
    origin: &Origin,
    key: Option<&DataKey>,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<RowsRoot, SegmentError> {
    let (mut writer, salts) = SegmentWriter::create(path, class, origin, key)?;
    let mut rows = BatchRows::new(class, &salts);
    for batch in batches {
        let batch = batch.map_err(|error| SegmentError::Write { path: path.to_path_buf(), source: error.into() })?;
        rows.push(path, &batch)?;
        writer.write(Ok(batch))?;
    }
    writer.finish()?;
    Ok(rows.finish())
}

/// A segment opened for reading.
pub struct SegmentReader {
    path: PathBuf,
    class: Class,
    origin: Origin,
    /// What is several is one text in it.
    is_joined: bool,
    file: Guarded,
    metadata: ArrowReaderMetadata,
    key: Option<DataKey>,
}

impl SegmentReader {
    /// Opens a file, with a key of the keyring where it is encrypted, and checks that it is a segment of this format.
    pub fn open(path: &Path, keyring: &Keyring) -> Result<Self, SegmentError> {
        Self::open_comparing(path, keyring, None)
    }

    /// The same; what is read of the file is compared with what its blocks were.
    pub(crate) fn open_comparing(
        path: &Path,
        keyring: &Keyring,
        blocks: Option<Vec<u8>>,
    ) -> Result<Self, SegmentError> {
        let damaged = |source| SegmentError::Damaged { path: path.to_path_buf(), source };
        let io_failed = |source| SegmentError::Io { operation: "opened", path: path.to_path_buf(), source };
        let file = regular::open_path(path).and_then(|file| BlockFile::new(file, blocks)).map_err(io_failed)?;
        let file = Guarded::new(file).map_err(damaged)?;
        let key = file.is_sealed().then(|| keyring.data_key(path)).transpose()?;
        let (file, metadata) = load(file, key.as_ref()).map_err(damaged)?;
        let value = |key: &str| value_of(metadata.metadata(), key).map(str::to_owned);
        let format_error = || SegmentError::Format { path: path.to_path_buf(), found: value("hotspot.format") };
        let format = value("hotspot.format").filter(|format| FORMATS.contains(&&**format)).ok_or_else(format_error)?;
        let is_joined = JOINED.contains(&&*format);
        let class = value("hotspot.class").as_deref().and_then(Class::from_label).ok_or_else(format_error)?;
        let origin = Origin {
            site: value("hotspot.site").ok_or_else(format_error)?,
            gateway: value("hotspot.gateway").ok_or_else(format_error)?,
            sequence: value("hotspot.sequence").and_then(|text| text.parse().ok()).ok_or_else(format_error)?,
        };
        Ok(Self { path: path.to_path_buf(), class, origin, is_joined, file, metadata, key })
    }

    /// The file, for whoever says what is wrong with it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the salts of its rows are made of; `None` for a file in the clear that was written before rows had any.
    pub(crate) fn salt_key(&self) -> Result<Option<SaltKey>, SegmentError> {
        let Some(key) = &self.key else {
            let Some(text) = value_of(self.metadata(), ROW_SALTS) else { return Ok(None) };
            let unexpected =
                || SegmentError::Value { path: self.path.clone(), column: ROW_SALTS, value: text.to_owned() };
            return SaltKey::from_text(text).map(Some).ok_or_else(unexpected);
        };
        Ok(Some(SaltKey::derived(key)?))
    }

    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.file.is_sealed()
    }

    /// What the file says about its row groups: minima and maxima of columns.
    #[must_use]
    pub fn metadata(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// Reads all records, in batches.
    pub fn read(&self) -> impl Iterator<Item = Result<Records, SegmentError>> {
        self.select(Selection::default()).map(|batch| {
            let (path, batch) = (&self.path, batch?);
            match self.class {
                Class::Flows => flows::from_batch(path, &batch).map(Records::Flows),
                Class::Sessions => sessions::from_batch(path, &batch).map(Records::Sessions),
                Class::Devices => devices::from_batch(path, &batch).map(Records::Devices),
                Class::Coverage => coverage::from_batch(path, &batch).map(Records::Coverage),
            }
        })
    }

    pub(crate) fn damaged(&self, source: ArrowError) -> SegmentError {
        SegmentError::Damaged { path: self.path.clone(), source: source.into() }
    }

    /// The flows of a batch that was selected.
    pub(crate) fn flows(&self, batch: &RecordBatch) -> Result<Vec<FlowRecord>, SegmentError> {
        flows::from_batch(&self.path, batch)
    }
}

/// What a file says of itself under a name.
fn value_of<'a>(metadata: &'a ParquetMetaData, name: &str) -> Option<&'a str> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    pairs.iter().find(|pair| pair.key == name)?.value.as_deref()
}

/// Reads the footer and the offset indexes of a file, after checking them.
fn load(mut file: Guarded, key: Option<&DataKey>) -> Result<(Guarded, ArrowReaderMetadata), ParquetError> {
    // Columns are taken as Parquet itself describes them; what an Arrow schema in the file says is not looked at.
    let mut options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    if let Some(key) = key {
        options = options.with_file_decryption_properties(key.decryption()?);
    }
    let metadata = ArrowReaderMetadata::load(&file, options.clone())?;
    let unchecked = file.clone();
    file.check(metadata.metadata())?;
    let mut indexes = ParquetMetaDataReader::new_with_metadata(metadata.metadata().as_ref().clone())
        .with_column_index_policy(PageIndexPolicy::Skip)
        .with_offset_index_policy(PageIndexPolicy::Optional);
    indexes.read_page_indexes(&unchecked)?;
    let parquet = Arc::new(indexes.finish()?);
    file.check_indexes(&parquet)?;
    let text_as_dictionaries = select::schema(metadata.schema());
    let metadata = ArrowReaderMetadata::try_new(parquet, options.with_schema(text_as_dictionaries))?;
    Ok((file, metadata))
}

#[cfg(test)]
pub(crate) mod tests;
