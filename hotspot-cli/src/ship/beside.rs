//! What lies beside the chain: legal holds, and wrapped keys that were added later. No line names them, so they are compared.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use hotspot_archive::chain::Record;
use hotspot_archive::manifest::hash_file;

use super::pass::{LINES_AT_ONCE, Pass};
use super::{ShipError, about};
use crate::store::Store;

impl Pass<'_> {
    /// Legal holds go to `holds/<gateway>/`: gateways that share a target may use one name for different segments.
    pub(super) async fn ship_holds(&mut self) -> Result<(), ShipError> {
        let mut here = BTreeMap::new();
        for path in entries(&self.archive.join("holds"), ".json")? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            here.insert(name, hash_file(&path).map_err(about(&path))?.0);
        }
        if here == self.state.holds {
            return Ok(());
        }
        for (name, sha256) in &here {
            if self.state.holds.get(name) != Some(sha256) {
                let path = self.archive.join("holds").join(name);
                let bytes = fs::read(&path).map_err(about(&path))?;
                put_and_compare(self.to, &format!("holds/{}/{name}", self.gateway), bytes).await?;
            }
        }
        for name in self.state.holds.keys().filter(|name| !here.contains_key(*name)) {
            self.to.delete(&format!("holds/{}/{name}", self.gateway)).await?;
        }
        self.state.holds = here;
        Ok(self.state.write(self.archive)?)
    }

    /// Wrapped keys that were added, once the note of their recipient is new: it is written after them.
    pub(super) async fn ship_added_keys(&mut self) -> Result<(), ShipError> {
        let mut here = BTreeMap::new();
        for path in entries(&self.archive.join("recipients"), "")? {
            let changed = fs::metadata(&path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
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
                        if let Some(bytes) = read_if_there(&self.archive.join(&path))? {
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
            let here = self.archive.join(&path);
            put_and_compare(self.to, &path, fs::read(&here).map_err(about(&here))?).await?;
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

pub(super) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(about(path)(error)),
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
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() && name.ends_with(ending) && !name.starts_with('.') {
            paths.push(path);
        }
    }
    Ok(paths)
}
