//! What is checked before the Parquet reader believes a file: that no length in it asks for more memory than is due.
//!
//! The reader allocates what footers and page headers say, and falls over negative offsets. So every list of the footer and of
//! the page indexes is counted first, every offset must lie in the file, and the header of every page is read before the page is
//! unpacked. Of encrypted files only the lengths outside can be checked here; what is inside can only have been written by
//! somebody who has the segment's key.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::reader::{ChunkReader, Length};

use super::thrift::{self, Walk};
use crate::blocks::BlockFile;

/// Longest footer.
const FOOTER_BYTES_MAX: u64 = 16 << 20;
/// Columns of a file.
const COLUMNS_MAX: usize = 256;
/// Rows of a row group; bounds what a page can claim to hold.
const GROUP_ROWS_MAX: i64 = 1 << 24;
/// Items of the lists of a row group, on an average.
const ITEMS_MAX: i64 = 256;
/// Longest data page, unpacked.
const PAGE_BYTES_MAX: i64 = 8 << 20;
/// Longest dictionary page, unpacked.
const DICTIONARY_BYTES_MAX: i64 = 32 << 20;
/// Dictionaries of one row group together, unpacked.
const DICTIONARIES_BYTES_MAX: u64 = 128 << 20;

/// Whether a column has a value, or none, for each row. In a column of lists each item is a value.
fn is_as_long(column: &ColumnChunkMetaData, rows: i64) -> bool {
    if column.column_descr().max_rep_level() == 0 {
        return column.num_values() == rows;
    }
    (rows..=rows.saturating_mul(ITEMS_MAX)).contains(&column.num_values())
}

fn refuse(what: impl Into<String>) -> ParquetError {
    ParquetError::General(what.into())
}

/// A file of which the reader gets only what was checked.
#[derive(Clone, Debug)]
pub(crate) struct Guarded {
    file: Arc<BlockFile>,
    /// The footer, and so the pages, are encrypted.
    is_sealed: bool,
    pages: Pages,
}

/// How page headers are found.
#[derive(Clone, Debug)]
enum Pages {
    /// The footer is being read: no page is.
    Unread,
    /// Pages are read whole, by the offset index.
    ByIndex { dictionaries: Arc<AtomicU64> },
    /// Headers are read one after the other.
    InOrder { dictionaries: Arc<AtomicU64> },
    /// They are encrypted.
    Sealed,
}

impl Guarded {
    /// Checks the end of the file, and of a file in the clear its footer.
    pub(crate) fn new(file: BlockFile) -> Result<Self, ParquetError> {
        let len = file.len();
        let mut guarded = Self { file: Arc::new(file), is_sealed: false, pages: Pages::Unread };
        let tail = guarded.get_bytes(len.checked_sub(8).ok_or_else(|| refuse("it is too short for a segment"))?, 8)?;
        let footer_len = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        if footer_len > FOOTER_BYTES_MAX || footer_len + 12 > len {
            return Err(refuse(format!("its footer claims to have {footer_len} bytes")));
        }
        guarded.is_sealed = &tail[4..] == b"PARE";
        if !guarded.is_sealed {
            let footer = guarded.get_bytes(len - 8 - footer_len, usize::try_from(footer_len).unwrap_or(usize::MAX))?;
            Walk::new(&footer).check().map_err(|error| refuse(format!("its footer {error}")))?;
        }
        Ok(guarded)
    }

    /// Whether what is in the file can only be read with a key.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Checks what the footer says, and the offset indexes it points to; pages are checked from now on.
    pub(crate) fn check(&mut self, metadata: &ParquetMetaData) -> Result<(), ParquetError> {
        if metadata.file_metadata().schema_descr().num_columns() > COLUMNS_MAX {
            return Err(refuse("it has more than 256 columns"));
        }
        let is_flat = metadata.file_metadata().schema_descr().columns().iter().all(|column| {
            let levels = (column.max_rep_level(), column.max_def_level(), column.path().parts().len());
            matches!(levels, (0, 0..=1, 1)) || matches!(levels, (1, 1..=3, 3))
        });
        let mut rows = 0i64;
        for group in metadata.row_groups() {
            let in_bounds = (0..=GROUP_ROWS_MAX).contains(&group.num_rows());
            rows = rows.saturating_add(group.num_rows());
            if !is_flat || !in_bounds || rows > i64::from(u32::MAX) {
                return Err(refuse("its row groups are none of ours"));
            }
            group.columns().iter().try_for_each(|column| self.check_column(column, group.num_rows()))?;
        }
        if rows != metadata.file_metadata().num_rows() {
            return Err(refuse(format!(
                "it claims {} rows, its row groups {rows}",
                metadata.file_metadata().num_rows()
            )));
        }
        let columns = || metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
        let with_index = columns().filter(|column| column.offset_index_length().is_some()).count();
        let dictionaries = Arc::new(AtomicU64::new(0));
        self.pages = match with_index {
            _ if self.is_sealed => Pages::Sealed,
            0 => Pages::InOrder { dictionaries },
            with_index if with_index == columns().count() => Pages::ByIndex { dictionaries },
            _ => return Err(refuse("only some of its columns have an offset index")),
        };
        Ok(())
    }

    fn check_column(&self, column: &ColumnChunkMetaData, rows: i64) -> Result<(), ParquetError> {
        let in_file = |start: i64, len: i64| {
            start >= 0 && len >= 0 && start.checked_add(len).is_some_and(|end| end.unsigned_abs() <= self.file.len())
        };
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let is_ours = in_file(start, column.compressed_size())
            && column.data_page_offset() >= start
            && is_as_long(column, rows)
            && matches!(column.compression(), Compression::UNCOMPRESSED | Compression::ZSTD(_));
        if !is_ours {
            return Err(refuse(format!("column {} points out of the file", column.column_path().string())));
        }
        for (offset, len) in [
            (column.offset_index_offset(), column.offset_index_length()),
            (column.column_index_offset(), column.column_index_length()),
        ] {
            if (offset.is_some() != len.is_some())
                || offset.zip(len).is_some_and(|(offset, len)| !in_file(offset, i64::from(len)))
            {
                return Err(refuse(format!(
                    "an index of column {} points out of the file",
                    column.column_path().string()
                )));
            }
        }
        if let (Some(offset), Some(len), false) =
            (column.offset_index_offset(), column.offset_index_length(), self.is_sealed)
        {
            let bytes = self.get_bytes(offset.unsigned_abs(), len.unsigned_abs() as usize)?;
            Walk::new(&bytes).check().map_err(|error| refuse(format!("an offset index {error}")))?;
        }
        Ok(())
    }

    /// Checks the offset indexes after they were read: pages in the file, rows in order.
    pub(crate) fn check_indexes(&self, metadata: &ParquetMetaData) -> Result<(), ParquetError> {
        let Some(indexes) = metadata.page_index() else { return Ok(()) };
        for (position, group) in metadata.row_groups().iter().enumerate() {
            for column in 0..group.columns().len() {
                if let Some(index) = indexes.offset_index(position, column) {
                    self.check_pages(index, group.num_rows())?;
                }
            }
        }
        Ok(())
    }

    fn check_pages(&self, index: &OffsetIndexMetaData, rows: i64) -> Result<(), ParquetError> {
        let mut last = -1;
        for page in index.page_locations() {
            let is_in_order = if last < 0 { page.first_row_index == 0 } else { page.first_row_index > last };
            let end = page.offset.checked_add(i64::from(page.compressed_page_size));
            let in_file = page.offset >= 0
                && page.compressed_page_size >= 0
                && end.is_some_and(|end| end.unsigned_abs() <= self.file.len());
            if !is_in_order || !in_file || page.first_row_index >= rows.max(1) {
                return Err(refuse("an offset index does not fit the file"));
            }
            last = page.first_row_index;
        }
        if last < 0 && rows > 0 { Err(refuse("an offset index names no page")) } else { Ok(()) }
    }

    /// A row group begins: its dictionaries are counted anew.
    pub(crate) fn begin_group(&self) {
        if let Pages::ByIndex { dictionaries } | Pages::InOrder { dictionaries } = &self.pages {
            dictionaries.store(0, Ordering::Relaxed);
        }
    }

    fn check_page(bytes: &[u8], dictionaries: &AtomicU64) -> Result<(), ParquetError> {
        let header = thrift::page_header(bytes).map_err(|error| refuse(format!("a page header {error}")))?;
        let bytes_max = if header.is_dictionary { DICTIONARY_BYTES_MAX } else { PAGE_BYTES_MAX };
        let values_max = if header.is_dictionary { header.unpacked_bytes } else { GROUP_ROWS_MAX };
        if !(0..=bytes_max).contains(&header.unpacked_bytes) || !(0..=values_max).contains(&header.values) {
            return Err(refuse(format!("a page claims {} values in {} bytes", header.values, header.unpacked_bytes)));
        }
        if header.is_dictionary {
            let bytes = header.unpacked_bytes.unsigned_abs();
            if dictionaries.fetch_add(bytes, Ordering::Relaxed) + bytes > DICTIONARIES_BYTES_MAX {
                return Err(refuse("its dictionaries are too large"));
            }
        }
        Ok(())
    }
}

impl Length for Guarded {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Guarded {
    type T = BufReader<ReadFrom>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        if let Pages::InOrder { dictionaries } = &self.pages {
            let len = usize::try_from(self.file.len().saturating_sub(start))
                .unwrap_or(usize::MAX)
                .min(thrift::HEADER_BYTES_MAX);
            Self::check_page(&self.file.read_at(start, len)?, dictionaries)?;
        }
        Ok(BufReader::new(ReadFrom { file: Arc::clone(&self.file), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.file.read_at(start, length)?;
        if let Pages::ByIndex { dictionaries } = &self.pages {
            Self::check_page(&bytes, dictionaries)?;
        }
        Ok(bytes)
    }
}

/// Reads a file from a place on, without moving any other reader of it.
#[derive(Debug)]
pub(crate) struct ReadFrom {
    file: Arc<BlockFile>,
    at: u64,
}

impl Read for ReadFrom {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.file.len().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let bytes = self.file.read_at(self.at, buffer.len().min(left))?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "numbers of small files")]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_writer::ArrowWriterOptions;
    use parquet::basic::ZstdLevel;
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;

    use super::*;
    use crate::blocks::hash_blocks;
    use crate::keys::Keyring;
    use crate::layout::Class;
    use crate::segment::flow_columns::FlowColumns;
    use crate::segment::tests::varied;
    use crate::segment::{FORMAT, Origin, SegmentError, SegmentReader, Selection, schema, write_flows};

    fn origin() -> Origin {
        Origin { site: "s".into(), gateway: "g".into(), sequence: 1 }
    }

    /// Reads everything; what matters is that it comes back.
    fn read(path: &Path) -> Result<usize, SegmentError> {
        let reader = SegmentReader::open(path, &Keyring::none())?;
        let mut rows = 0;
        for records in reader.read() {
            if let crate::segment::Records::Flows(flows) = records? {
                rows += flows.len();
            }
        }
        Ok(rows)
    }

    #[test]
    fn no_change_of_what_a_file_says_of_itself_makes_the_reader_fall() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let rows: Vec<_> = (0..300).map(varied).collect();
        write_flows(&path, &origin(), None, &rows).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(read(&path).unwrap(), 300);
        let (mut state, mut refused) = (7u64, 0);
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        // Offset indexes and footer, which follow the pages: every byte is changed once, and then several at once.
        let reader = SegmentReader::open(&path, &Keyring::none()).unwrap();
        let columns = reader.metadata().row_group(0).columns();
        let begin = columns.iter().filter_map(ColumnChunkMetaData::offset_index_offset).min().unwrap();
        let begin = usize::try_from(begin).unwrap();
        let said = bytes.len() - begin;
        for round in 0..said + 6_000 {
            let mut changed = bytes.clone();
            if round < said {
                changed[begin + round] ^= 1 << random(8);
            } else {
                for _ in 0..=random(4) {
                    let at = begin + random(said);
                    changed[at] = [0, 0x7f, 0x80, 0xff, random(256) as u8][random(5)];
                }
            }
            std::fs::write(&path, &changed).unwrap();
            refused += usize::from(read(&path).is_err());
        }
        // What is in a page is vouched for by the manifest, which a search checks first; reading it comes back all the same.
        for _ in 0..400 {
            let mut changed = bytes.clone();
            changed[random(begin)] = random(256) as u8;
            std::fs::write(&path, &changed).unwrap();
            drop(read(&path));
        }
        assert!(refused > said / 2, "only {refused} of {} were refused", said + 6_000);
    }

    #[test]
    fn every_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        write_flows(&path, &origin(), None, &(0..20).map(varied).collect::<Vec<_>>()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert!(read(&path).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_footer_that_claims_too_much_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        write_flows(&path, &origin(), None, &[varied(1)]).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let len = bytes.len();
        for claimed in [u32::MAX, i32::MAX as u32, len as u32, 0, 1] {
            bytes[len - 8..len - 4].copy_from_slice(&claimed.to_le_bytes());
            std::fs::write(&path, &bytes).unwrap();
            assert!(read(&path).is_err(), "{claimed}");
        }
        // A list of two thousand million row groups in a footer of 20 bytes, and a tower of structures.
        for footer in [b"\x15\x02\x19\xfc\xff\xff\xff\xff\x07".to_vec(), vec![0x1c; 1 << 20]] {
            let mut bytes = b"PAR1".to_vec();
            bytes.extend(&footer);
            bytes.extend((footer.len() as u32).to_le_bytes());
            bytes.extend(b"PAR1");
            std::fs::write(&path, &bytes).unwrap();
            assert!(read(&path).is_err());
        }
    }

    /// A segment whose column `interface` holds a long value in every row, written without any limit.
    fn bomb(path: &Path, value: &str, rows: u64, dictionary: bool) {
        let metadata = [("format", FORMAT), ("class", "flows"), ("site", "s"), ("gateway", "g"), ("sequence", "1")];
        let pairs = metadata.iter().map(|(key, value)| KeyValue::new(format!("hotspot.{key}"), (*value).to_owned()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
            .set_dictionary_enabled(dictionary)
            .set_dictionary_page_size_limit(usize::MAX)
            .set_data_page_size_limit(usize::MAX)
            .set_key_value_metadata(Some(pairs.collect()))
            .build();
        let file = File::create(path).unwrap();
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(file, schema::of(Class::Flows), options).unwrap();
        let mut flow = varied(1);
        flow.interface = value.into();
        let mut columns = FlowColumns::new(1 << 20);
        (0..rows).for_each(|_| columns.push(&flow));
        writer.write(&columns.finish(&origin()).unwrap()).unwrap();
        writer.close().unwrap();
    }

    /// What was not read is not known; what was read is right.
    #[test]
    fn a_change_is_noticed_where_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let rows: Vec<_> = (0..60_000).map(varied).collect();
        write_flows(&path, &origin(), None, &rows).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let blocks = hash_blocks(bytes.as_slice()).unwrap();
        assert!(blocks.len() >= 32 * 20, "{} blocks", blocks.len() / 32);
        let two_columns = || {
            let reader = SegmentReader::open_comparing(&path, &Keyring::none(), Some(blocks.clone()))?;
            let selection = Selection { columns: Some(vec!["client_ip", "bytes_in"]), ..Selection::default() };
            reader.select(selection).collect::<Result<Vec<_>, _>>()
        };
        let right = two_columns().unwrap();
        let mut noticed = 0;
        let places = (0..bytes.len()).step_by(bytes.len() / 100);
        let count = places.clone().count();
        for at in places {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            std::fs::write(&path, changed).unwrap();
            match two_columns() {
                Ok(read) => assert_eq!(read, right, "byte {at}"),
                Err(error) => {
                    let said = error.in_sequence(1);
                    assert!(said.contains("SHA-256 differs"), "byte {at}: {said}");
                    noticed += 1;
                }
            }
        }
        assert!((1..count).contains(&noticed), "{noticed} of {count}");
    }

    #[test]
    fn bombs_are_refused_before_they_are_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        // A page of 64 MiB in some kilobytes; a dictionary of as much.
        for dictionary in [false, true] {
            bomb(&path, &"0".repeat(1 << 26), 1, dictionary);
            assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
            let error = read(&path).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains("a page claims"), "{cause}");
        }
        // A value of 128 KiB that many rows name would be as many copies.
        bomb(&path, &"0".repeat(1 << 17), 1_000, true);
        assert!(matches!(read(&path), Err(SegmentError::Value { column: "interface", .. })));
    }
}
