//! What lies beside the chain: legal holds, and wrapped keys that were added later. No line names them, so they are compared.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use hotspot_archive::chain::Record;
use hotspot_archive::manifest::to_hex;
use hotspot_archive::regular;
use sha2::{Digest, Sha256};

use super::pass::{LINES_AT_ONCE, Pass};
use super::{ShipError, about};
use crate::store::Store;

impl Pass<'_> {
    /// Legal holds go to `holds/<gateway>/`: gateways that share a target may use one name for different segments.
    pub(super) async fn ship_holds(&mut self) -> Result<(), ShipError> {
        let mut here = BTreeMap::new();
        for path in entries(&self.archive.join("holds"), ".json")? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = read(self.archive, &format!("holds/{name}"))?;
            here.insert(name, (to_hex(&Sha256::digest(&bytes)), bytes));
        }
        let hashes: BTreeMap<String, String> =
            here.iter().map(|(name, (sha256, _))| (name.clone(), sha256.clone())).collect();
        if hashes == self.state.holds {
            return Ok(());
        }
        for (name, (sha256, bytes)) in here {
            if self.state.holds.get(&name) != Some(&sha256) {
                put_and_compare(self.to, &format!("holds/{}/{name}", self.gateway), bytes).await?;
            }
        }
        for name in self.state.holds.keys().filter(|name| !hashes.contains_key(*name)) {
            self.to.delete(&format!("holds/{}/{name}", self.gateway)).await?;
        }
        self.state.holds = hashes;
        Ok(self.state.write(self.archive)?)
    }

    /// Wrapped keys that were added, once the note of their recipient is new: it is written after them.
    pub(super) async fn ship_added_keys(&mut self) -> Result<(), ShipError> {
        let mut here = BTreeMap::new();
        for path in entries(&self.archive.join("recipients"), "")? {
            let changed = fs::symlink_metadata(&path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            here.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), changed.as_nanos());
        }
        if here == self.state.recipients {
            return Ok(());
        }
        let news: Vec<String> = here
            .iter()
            .filter(|(id, at)| self.state.recipients.get(*id) != Some(at))
            .map(|(id, _)| id.clone())
            .collect();
        let gone: Vec<String> = self.state.recipients.keys().filter(|id| !here.contains_key(*id)).cloned().collect();
        let mut first = 1;
        while first <= self.state.lines {
            let last = (first + LINES_AT_ONCE - 1).min(self.state.lines);
            for (_, record) in self.lines.records(first, last)? {
                let Record::Segment(line) = record else { continue };
                for file in line.files.iter().filter(|file| file.key.is_some() && file.path.ends_with(".parquet")) {
                    for id in &news {
                        let path = format!("{}.{id}.age", file.path);
                        if let Some(bytes) = read_if_there(self.archive, &path)? {
                            put_and_compare(self.to, &path, bytes).await?;
                        }
                    }
                    for id in &gone {
                        self.to.delete(&format!("{}.{id}.age", file.path)).await?;
                    }
                }
            }
            first = last + 1;
        }
        for id in &news {
            let path = format!("recipients/{id}");
            put_and_compare(self.to, &path, read(self.archive, &path)?).await?;
        }
        self.state.recipients = here;
        Ok(self.state.write(self.archive)?)
    }
}

/// Puts a small file, unless it is there already, and reads it back.
pub(super) async fn put_and_compare(to: &Store, path: &str, bytes: Vec<u8>) -> Result<(), ShipError> {
    match to.get(path).await {
        Ok(found) if found == bytes => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    to.put(path, bytes.clone()).await?;
    if to.get(path).await? == bytes {
        return Ok(());
    }
    Err(ShipError::ReadBack { path: path.to_owned(), to: to.url().to_owned() })
}

/// A small file of the archive: never what a link names, which may be anything that the shipper can read.
pub(super) fn read(archive: &Path, path: &str) -> io::Result<Vec<u8>> {
    regular::read(archive, path, regular::SMALL_BYTES_MAX).map_err(about(&archive.join(path)))
}

pub(super) fn read_if_there(archive: &Path, path: &str) -> io::Result<Option<Vec<u8>>> {
    match read(archive, path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The files of a directory whose names end so; none where there is no directory.
fn entries(dir: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(about(dir)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry?;
        let (path, is_dir) = (entry.path(), entry.file_type()?.is_dir());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A link or a FIFO is listed, and refused when it is read: a hold that cannot be read must be mended.
        if !is_dir && name.ends_with(ending) && !name.starts_with('.') {
            paths.push(path);
        }
    }
    Ok(paths)
}
