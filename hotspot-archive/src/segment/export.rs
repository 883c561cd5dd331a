//! Flows of any segments as one Parquet file, with the archive's columns: what a search found, for other engines.

use std::fs::File;
use std::path::{Path, PathBuf};

use hotspot_core::record::FlowRecord;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;

use super::flow_columns::FlowColumns;
use super::{BATCH_ROWS, Origin, SegmentError, writer};
use crate::output_file::OutputFile;

/// A file of flows that is being written; it has its name once it is whole, and without [`Self::finish`] nothing is left of it.
pub struct FlowFile {
    path: PathBuf,
    file: OutputFile,
    writer: ArrowWriter<File>,
    origin: Option<Origin>,
    pushed: u64,
    columns: FlowColumns,
}

impl FlowFile {
    /// `may_replace`: a regular file that is there already.
    pub fn create(path: &Path, may_replace: bool) -> Result<Self, SegmentError> {
        let failed = |source| SegmentError::Io { operation: "created", path: path.to_path_buf(), source };
        let file = OutputFile::begin(path, may_replace).map_err(failed)?;
        let target = file.file().map_err(failed)?;
        let writer =
            writer::export(target).map_err(|source| SegmentError::Write { path: path.to_path_buf(), source })?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            writer,
            origin: None,
            pushed: 0,
            columns: FlowColumns::new(BATCH_ROWS),
        })
    }

    pub fn push(&mut self, origin: &Origin, flow: &FlowRecord) -> Result<(), SegmentError> {
        if self.origin.as_ref() != Some(origin) || self.columns.is_full() {
            self.write()?;
            self.origin = Some(origin.clone());
        }
        self.columns.push(flow);
        self.pushed += 1;
        Ok(())
    }

    /// Ends the file and gives it its name; how many flows it says it holds, which are those that were given to it.
    pub fn finish(mut self) -> Result<u64, SegmentError> {
        self.write()?;
        let Self { path, file, writer, pushed, .. } = self;
        let written = match writer.close() {
            Ok(metadata) => metadata.file_metadata().num_rows(),
            Err(source) => return Err(SegmentError::Write { path, source }),
        };
        if u64::try_from(written) != Ok(pushed) {
            let source = std::io::Error::other(format!("{written} of {pushed} flows are in it"));
            return Err(SegmentError::Io { operation: "written", path, source });
        }
        file.commit().map_err(|source| SegmentError::Io { operation: "written", path, source })?;
        Ok(pushed)
    }

    fn write(&mut self) -> Result<(), SegmentError> {
        let Some(origin) = self.origin.as_ref().filter(|_| !self.columns.is_empty()) else { return Ok(()) };
        let written = self.columns.finish(origin).map_err(ParquetError::from);
        written
            .and_then(|batch| self.writer.write(&batch))
            .map_err(|source| SegmentError::Write { path: self.path.clone(), source })
    }
}
