//! The flows of a sequence on their way into the archive, before the manifest vouches for them.
//!
//! Guarantees that rows are written as they come, so that no number of them fills the memory; a draft that is dropped leaves nothing.

use std::io::Write;
use std::path::{Path, PathBuf};

use hotspot_core::WallNs;
use hotspot_core::record::FlowRecord;

use crate::blocks::hash_blocks;
use crate::durable;
use crate::index::{self, IndexKey};
use crate::keys::{DataKey, Recipients};
use crate::layout::{Class, INDEX, index_path, segment_path};
use crate::manifest::{FileEntry, ManifestError, file_entries, file_entry};
use crate::regular;
use crate::segment::{FlowWriter, Origin};

/// See [`crate::manifest::Manifest::draft`].
pub struct Draft {
    archive: PathBuf,
    origin: Origin,
    opened_ns: WallNs,
    /// Where it will be encrypted: for whom, and the key of the index.
    encryption: Option<(Recipients, IndexKey)>,
    /// From the first row on: a sequence without flows has no file of them.
    flows: Option<Flows>,
}

/// The file of flows in the making, and the index of what is in it.
struct Flows {
    writer: FlowWriter,
    key: Option<DataKey>,
    index: index::Builder,
}

impl Draft {
    pub(crate) fn new(
        archive: &Path,
        origin: &Origin,
        opened_ns: WallNs,
        encryption: Option<(Recipients, IndexKey)>,
    ) -> Self {
        Self { archive: archive.to_path_buf(), origin: origin.clone(), opened_ns, encryption, flows: None }
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
            let key = self.encryption.as_ref().map(|(recipients, _)| recipients.fresh_key(&path)).transpose()?;
            let writer = FlowWriter::create(&path, &self.origin, key.as_ref())?;
            self.flows.insert(Flows { writer, key, index: index::Builder::default() })
        };
        flows.index.add(row);
        Ok(flows.writer.push(row)?)
    }

    fn relative(&self) -> PathBuf {
        let Origin { site, gateway, sequence } = &self.origin;
        segment_path(Class::Flows, site, gateway, *sequence, self.opened_ns)
    }

    /// Makes the files durable; the entries of the flows, of their key, and of their index.
    pub(crate) fn finish(mut self) -> Result<Vec<FileEntry>, ManifestError> {
        let Some(Flows { writer, key, index }) = self.flows.take() else { return Ok(Vec::new()) };
        let written = writer.finish()?;
        let mut files = file_entries(Class::Flows, &self.archive, &self.relative(), written, key.as_ref())?;
        let sha256 = files.first().map(|flows| flows.sha256.clone()).unwrap_or_default();
        let path = self.archive.join(self.relative());
        let blocks = regular::open_path(&path).and_then(hash_blocks);
        let blocks = blocks.map_err(|source| ManifestError::Io { operation: "read", path, source })?;
        files.push(self.write_index(index.finish(&sha256, &blocks), written.rows, key.as_ref())?);
        Ok(files)
    }

    fn write_index(&self, parts: index::Parts, rows: u64, key: Option<&DataKey>) -> Result<FileEntry, ManifestError> {
        let Origin { site, gateway, sequence } = &self.origin;
        let relative = index_path(site, gateway, *sequence, self.opened_ns);
        let path = self.archive.join(&relative);
        let index = match self.encryption.as_ref().zip(key) {
            Some(((_, index_key), key)) => index::seal(&parts, index_key, key, &self.origin)?,
            None => parts.in_the_clear(),
        };
        let failed = |source| ManifestError::Io { operation: "written", path: path.clone(), source };
        regular::make_parent(&path).map_err(failed)?;
        durable::replace(&path, |file| file.write_all(&index.bytes)).map_err(failed)?;
        let entry = file_entry(INDEX, &self.archive, &relative, rows)?;
        Ok(FileEntry { key: key.map(DataKey::commitment), head: Some(index.head()), ..entry })
    }
}
