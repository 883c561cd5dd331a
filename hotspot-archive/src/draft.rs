//! The flows of a sequence on their way into the archive, before the manifest vouches for them.
//!
//! Guarantees that rows are written as they come, so that no number of them fills the memory; a draft that is dropped leaves nothing.

use std::path::{Path, PathBuf};

use hotspot_core::WallNs;
use hotspot_core::record::FlowRecord;

use crate::keys::{DataKey, Recipients};
use crate::layout::{Class, segment_path};
use crate::manifest::{FileEntry, ManifestError, file_entries};
use crate::segment::{FlowWriter, Origin};

/// See [`crate::manifest::Manifest::draft`].
pub struct Draft {
    archive: PathBuf,
    origin: Origin,
    opened_ns: WallNs,
    recipients: Option<Recipients>,
    /// From the first row on: a sequence without flows has no file of them.
    flows: Option<(FlowWriter, Option<DataKey>)>,
}

impl Draft {
    pub(crate) fn new(archive: &Path, origin: &Origin, opened_ns: WallNs, recipients: Option<Recipients>) -> Self {
        Self { archive: archive.to_path_buf(), origin: origin.clone(), opened_ns, recipients, flows: None }
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn opened_ns(&self) -> WallNs {
        self.opened_ns
    }

    /// Adds a row behind the others.
    pub fn flow(&mut self, row: &FlowRecord) -> Result<(), ManifestError> {
        let flows = if let Some(flows) = &mut self.flows {
            flows
        } else {
            let path = self.archive.join(self.relative());
            let key = self.recipients.as_ref().map(|recipients| recipients.fresh_key(&path)).transpose()?;
            let writer = FlowWriter::create(&path, &self.origin, key.as_ref())?;
            self.flows.insert((writer, key))
        };
        Ok(flows.0.push(row)?)
    }

    fn relative(&self) -> PathBuf {
        let Origin { site, gateway, sequence } = &self.origin;
        segment_path(Class::Flows, site, gateway, *sequence, self.opened_ns)
    }

    /// Makes the file durable; the entries of it and of its key.
    pub(crate) fn finish(mut self) -> Result<Vec<FileEntry>, ManifestError> {
        let Some((writer, key)) = self.flows.take() else { return Ok(Vec::new()) };
        let rows = writer.finish()?;
        file_entries(Class::Flows, &self.archive, &self.relative(), rows, key.as_ref())
    }
}
