//! Flows of any segments as one Parquet file, with the archive's columns: what a search found, for other engines.

use std::fs::File;
use std::path::{Path, PathBuf};

use hotspot_core::record::FlowRecord;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;

use super::flow_columns::FlowColumns;
use super::{BATCH_ROWS, Origin, SegmentError, writer};
use crate::durable::Replacement;

/// A file of flows that is being written; it has its name once it is whole, and without [`Self::finish`] nothing is left of it.
pub struct FlowFile {
    path: PathBuf,
    file: Replacement,
    writer: ArrowWriter<File>,
    origin: Option<Origin>,
    columns: FlowColumns,
}

impl FlowFile {
    pub fn create(path: &Path) -> Result<Self, SegmentError> {
        let failed = |source| SegmentError::Io { operation: "created", path: path.to_path_buf(), source };
        let file = Replacement::begin(path).map_err(failed)?;
        let target = file.file().map_err(failed)?;
        let writer =
            writer::export(target).map_err(|source| SegmentError::Write { path: path.to_path_buf(), source })?;
        Ok(Self { path: path.to_path_buf(), file, writer, origin: None, columns: FlowColumns::new(BATCH_ROWS) })
    }

    pub fn push(&mut self, origin: &Origin, flow: &FlowRecord) -> Result<(), SegmentError> {
        if self.origin.as_ref() != Some(origin) || self.columns.is_full() {
            self.write()?;
            self.origin = Some(origin.clone());
        }
        self.columns.push(flow);
        Ok(())
    }

    /// Ends the file and gives it its name.
    pub fn finish(mut self) -> Result<(), SegmentError> {
        self.write()?;
        let Self { path, file, writer, .. } = self;
        if let Err(source) = writer.close() {
            return Err(SegmentError::Write { path, source });
        }
        file.commit().map_err(|source| SegmentError::Io { operation: "written", path, source })
    }

    fn write(&mut self) -> Result<(), SegmentError> {
        let Some(origin) = self.origin.as_ref().filter(|_| !self.columns.is_empty()) else { return Ok(()) };
        let written = self.columns.finish(origin).map_err(ParquetError::from);
        written
            .and_then(|batch| self.writer.write(&batch))
            .map_err(|source| SegmentError::Write { path: self.path.clone(), source })
    }
}
