//! Writing a segment: rows in, a durable file out, whole or not at all.
//!
//! Holds one batch of rows as columns and one row group as compressed pages, whatever the number of rows. Encodings were chosen by
//! measurement (`cargo xtask bench archive --columns`, docs/performance.md); every one of them is in Parquet's 2.x specification and
//! read by `DuckDB`, pyarrow and Spark.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use hotspot_core::record::FlowRecord;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{
    DeltaBinaryPackedEncoderOptions, EnabledStatistics, WriterProperties, WriterPropertiesBuilder,
};
use parquet::schema::types::ColumnPath;

use super::flow_columns::FlowColumns;
use super::{FORMAT, Origin, ROW_SALTS, SegmentError, schema};
use crate::durable::Replacement;
use crate::keys::DataKey;
use crate::layout::Class;
use crate::regular;
use crate::rows::{FlowRows, RowsRoot, SaltKey};

/// Rows per row group: dictionaries, that of peers above all, are written once per group.
const ROW_GROUP_ROWS: usize = 1 << 20;
/// Rows of flows turned into columns at once: each address they name is made to text once.
const FLOWS_PER_BATCH: usize = 1 << 16;
/// Values of a column that the writer takes at once; it looks between them whether a page is full.
const VALUES_AT_ONCE: usize = 4096;
/// Rows of a page: whoever looks for one client unpacks a page of every column, and with fewer rows files grow.
const PAGE_ROWS: usize = 2 * VALUES_AT_ONCE;
/// zstd level of segments: 3 makes the files 1 % smaller and sealing 6 % slower, 9 takes twice the time for nothing.
const LEVEL: i32 = 1;
/// A dictionary of every peer a row group can name.
const DICTIONARY_BYTES_MAX: usize = 16 << 20;
/// Columns in which each value differs a little from the one before, or not at all, or in which few values occur twice.
const DELTAS: [&str; 10] = [
    "flow_id",
    "start",
    "end",
    "vlan",
    "inner_vlan",
    "client_port",
    "public_port",
    "icmp_code",
    "bytes_out",
    "bytes_in",
];
/// Columns in which the encoding leaves nothing to compress: packed differences of numbers that look random, and a few values in long runs. A
/// reader makes a decompressor for each of the others.
const INCOMPRESSIBLE: [&str; 15] = [
    "start",
    "end",
    "client_port",
    "public_port",
    "bytes_out",
    "bytes_in",
    "site",
    "gateway",
    "interface",
    "inner_vlan",
    "auth_method",
    "identity_source",
    "ssid",
    "nas",
    "device_vendor",
];
/// Columns of which minima and maxima help nobody to skip anything.
const WITHOUT_STATISTICS: [&str; 14] = [
    "site",
    "interface",
    "nat",
    "public_ip",
    "peer_ip",
    "end_reason",
    "attribution",
    "auth_method",
    "identity_source",
    "ap_mac",
    "ssid",
    "nas",
    "hostname",
    "device_vendor",
];

/// A segment in the making; its file appears with [`Self::finish`].
pub(super) struct SegmentWriter {
    path: PathBuf,
    file: Replacement,
    writer: ArrowWriter<File>,
}

impl SegmentWriter {
    /// Begins a file; what the salts of its rows are made of.
    pub(super) fn create(
        path: &Path,
        class: Class,
        origin: &Origin,
        key: Option<&DataKey>,
    ) -> Result<(Self, SaltKey), SegmentError> {
        let salts = key.map_or_else(SaltKey::generate, SaltKey::derived)?;
        let io_failed = |source| SegmentError::Io { operation: "written", path: path.to_path_buf(), source };
        regular::make_parent(path).map_err(io_failed)?;
        let file = Replacement::begin(path).map_err(io_failed)?;
        let target = file.file().map_err(io_failed)?;
        let writer = properties(class, origin, key, &salts).and_then(|properties| open(target, class, properties));
        let writer = writer.map_err(|source| SegmentError::Write { path: path.to_path_buf(), source })?;
        Ok((Self { path: path.to_path_buf(), file, writer }, salts))
    }

    pub(super) fn write(&mut self, batch: Result<RecordBatch, ArrowError>) -> Result<(), SegmentError> {
        let written = batch.map_err(ParquetError::from).and_then(|batch| self.writer.write(&batch));
        written.map_err(|source| SegmentError::Write { path: self.path.clone(), source })
    }

    /// Flushes the file and gives it its name.
    pub(super) fn finish(self) -> Result<(), SegmentError> {
        let Self { path, file, writer } = self;
        if let Err(source) = writer.close() {
            return Err(SegmentError::Write { path, source });
        }
        file.commit().map_err(|source: io::Error| SegmentError::Io { operation: "written", path, source })
    }
}

/// A segment of flows in the making, row by row.
pub struct FlowWriter {
    writer: SegmentWriter,
    origin: Origin,
    columns: FlowColumns,
    rows: FlowRows,
}

impl FlowWriter {
    /// Begins a file; encrypted where there is a key. It has its name only after [`Self::finish`].
    pub fn create(path: &Path, origin: &Origin, key: Option<&DataKey>) -> Result<Self, SegmentError> {
        let (writer, salts) = SegmentWriter::create(path, Class::Flows, origin, key)?;
        let columns = FlowColumns::new(FLOWS_PER_BATCH);
        Ok(Self { writer, origin: origin.clone(), columns, rows: FlowRows::new(origin, &salts) })
    }

    /// Adds a row behind the others; rows of one client belong together.
    pub fn push(&mut self, row: &FlowRecord) -> Result<(), SegmentError> {
        self.columns.push(row);
        self.rows.push(row);
        if self.columns.is_full() { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SegmentError> {
        let batch = self.columns.finish(&self.origin);
        self.writer.write(batch)
    }

    /// Makes the file durable; says how many rows it holds, and what stands for them.
    pub fn finish(mut self) -> Result<RowsRoot, SegmentError> {
        if !self.columns.is_empty() {
            self.flush()?;
        }
        self.writer.finish()?;
        Ok(self.rows.finish())
    }
}

/// A writer of flows of any segments, for other engines: nobody's segment, so that it says nothing of itself.
pub(super) fn export(target: File) -> Result<ArrowWriter<File>, ParquetError> {
    open(target, Class::Flows, encodings(compressed()?)?.build())
}

fn open(target: File, class: Class, properties: WriterProperties) -> Result<ArrowWriter<File>, ParquetError> {
    // Text goes in by reference; the file says nothing of that.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(target, schema::of(class), options)
}

fn compressed() -> Result<WriterPropertiesBuilder, ParquetError> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
        .set_write_batch_size(VALUES_AT_ONCE)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_statistics_enabled(EnabledStatistics::Page))
}

/// How a segment is written: compression, encodings, row groups, statistics, what it says of itself, and encryption where there is
/// a key.
fn properties(
    class: Class,
    origin: &Origin,
    key: Option<&DataKey>,
    salts: &SaltKey,
) -> Result<WriterProperties, ParquetError> {
    let mut metadata = vec![
        ("hotspot.format", FORMAT.to_owned()),
        ("hotspot.class", class.label().to_owned()),
        ("hotspot.site", origin.site.clone()),
        ("hotspot.gateway", origin.gateway.clone()),
        ("hotspot.sequence", origin.sequence.to_string()),
    ];
    if key.is_none() {
        metadata.push((ROW_SALTS, salts.to_text()));
    }
    let properties = compressed()?
        .set_key_value_metadata(Some(
            metadata.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect(),
        ))
        // The writer would leave Bloom filters in the clear in an encrypted file.
        .set_bloom_filter_enabled(false);
    let properties = if class == Class::Flows { encodings(properties)? } else { properties };
    Ok(match key {
        Some(key) => properties.with_file_encryption_properties(key.encryption(origin, class)?).build(),
        None => properties.build(),
    })
}

fn encodings(mut properties: WriterPropertiesBuilder) -> Result<WriterPropertiesBuilder, ParquetError> {
    // A wide value widens 32 others, not 64.
    properties = properties.set_delta_binary_packed_encoder_options(DeltaBinaryPackedEncoderOptions::try_new(128, 4)?);
    for column in DELTAS.map(ColumnPath::from) {
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    for column in INCOMPRESSIBLE.map(ColumnPath::from) {
        properties = properties.set_column_compression(column, Compression::UNCOMPRESSED);
    }
    for column in WITHOUT_STATISTICS {
        properties = properties.set_column_statistics_enabled(ColumnPath::from(column), EnabledStatistics::None);
    }
    Ok(properties)
}
