//! What may go: there, what the chain calls deleted; here, what is there.
//!
//! Guarantees that nothing is removed here before all of its segment was read back there in this very run, and a receipt is on disk;
//! and that nothing is removed, here or there, while a legal hold names it.

use std::fs;
use std::io;
use std::path::Path;

use hotspot_archive::chain::Record;
use hotspot_archive::keys::is_added_sidecar;
use hotspot_archive::layout::FileName;
use hotspot_archive::manifest::{DeletedFile, Line};
use hotspot_archive::moved::{self, Receipt};
use hotspot_archive::regular;

use super::beside::{put_and_compare, read};
use super::files::ensure;
use super::pass::{LINES_AT_ONCE, Pass, deleted_files};
use super::{ShipError, about};
use crate::time::now_ns;

impl Pass<'_> {
    /// Deletes there what lines that are there call deleted: wrapped keys first.
    pub(super) async fn delete_there(&mut self) -> Result<(), ShipError> {
        let mut is_all_deleted = true;
        while self.state.deleted < self.state.lines {
            let (first, last) = (self.state.deleted + 1, (self.state.deleted + LINES_AT_ONCE).min(self.state.lines));
            for (_, record) in self.lines.records(first, last)? {
                let right = |file: &&DeletedFile| self.ledger.deleted_by(&file.path, &file.sha256).is_some();
                let (keys, files): (Vec<_>, Vec<_>) =
                    deleted_files(&record).iter().filter(right).partition(|file| is_key(&file.path));
                for file in keys.into_iter().chain(files) {
                    if self.is_path_held(&file.path) {
                        is_all_deleted = false;
                        continue;
                    }
                    self.delete_file_there(file).await?;
                }
            }
            // What is held now is looked at again when the hold is lifted.
            if !is_all_deleted {
                return Ok(());
            }
            self.state.deleted = last;
            self.state.write(self.archive)?;
        }
        Ok(())
    }

    /// Deletes one file there, if it is the very one that the line deletes.
    async fn delete_file_there(&mut self, file: &DeletedFile) -> Result<(), ShipError> {
        match self.to.hash(&file.path).await {
            Ok((sha256, _)) if sha256 == file.sha256 => {}
            Ok(_) => {
                return Err(ShipError::AnotherThere { path: file.path.clone(), to: self.to.url().to_owned() });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for id in self.state.recipients.keys().filter(|_| file.path.ends_with(".parquet")) {
            self.to.delete(&format!("{}.{id}.age", file.path)).await?;
        }
        self.to.delete(&file.path).await?;
        self.done.deleted += 1;
        Ok(())
    }

    fn is_path_held(&self, path: &str) -> bool {
        let held = |name: FileName| self.holds.iter().any(|hold| hold.holds(&name.gateway, name.sequence));
        FileName::parse(path).is_some_and(held)
    }

    /// Removes here the segments that are older, each after all of it was read back there.
    pub(super) async fn move_away(&mut self, keep_here_ns: i64) -> Result<(), ShipError> {
        let now_ns = now_ns();
        let mut is_all_moved = true;
        let mut first = self.state.moved + 1;
        while first <= self.state.lines {
            let last = (first + LINES_AT_ONCE - 1).min(self.state.lines);
            for (_, record) in self.lines.records(first, last)? {
                let Record::Segment(line) = record else { continue };
                if now_ns.saturating_sub(line.to_ns.max(line.sealed_ns)) < keep_here_ns {
                    return Ok(());
                }
                if self.is_held(&line) {
                    is_all_moved = false;
                } else {
                    self.move_segment(&line, now_ns).await?;
                }
            }
            if is_all_moved {
                self.state.moved = last;
                self.state.write(self.archive)?;
            }
            first = last + 1;
        }
        Ok(())
    }

    async fn move_segment(&mut self, line: &Line, now_ns: i64) -> Result<(), ShipError> {
        let mut here = Vec::new();
        for file in &line.files {
            if self.archive.join(&file.path).try_exists()? {
                here.push(file.clone());
            }
        }
        if here.is_empty() {
            return Ok(());
        }
        let added = added_keys(self.archive, line)?;
        // Read back now, whatever was read back before: what was damaged there since is put again while it can be.
        let sent = ensure(self.archive, self.to, here.clone()).await?;
        // All of it was there once.
        self.done.sent.mended += sent.files;
        for path in &added {
            put_and_compare(self.to, path, read(self.archive, path)?).await?;
        }
        let receipt = Receipt {
            moved: 1,
            gateway: line.gateway.clone(),
            sequence: line.sequence,
            to: self.to.url().to_owned(),
            at_ns: now_ns,
        };
        if self.moved.to(&line.gateway, line.sequence) != Some(self.to.url()) {
            moved::record(self.archive, &receipt)?;
        }
        for path in here.iter().map(|file| &file.path).chain(&added) {
            regular::remove(self.archive, path).map_err(about(&self.archive.join(path)))?;
        }
        self.done.moved += 1;
        self.done.moved_bytes += here.iter().map(|file| file.bytes).sum::<u64>();
        Ok(())
    }
}

fn is_key(path: &str) -> bool {
    path.strip_suffix(".age").is_some()
}

/// Wrapped keys that were added to the files of a line.
fn added_keys(archive: &Path, line: &Line) -> io::Result<Vec<String>> {
    let mut added = Vec::new();
    for file in line.files.iter().filter(|file| file.path.ends_with(".parquet")) {
        let (Some(dir), Some((_, name))) = (Path::new(&file.path).parent(), file.path.rsplit_once('/')) else {
            continue;
        };
        for entry in fs::read_dir(archive.join(dir))? {
            let other = entry?.file_name().to_string_lossy().into_owned();
            if is_added_sidecar(name, &other) {
                added.push(dir.join(other).to_string_lossy().into_owned());
            }
        }
    }
    Ok(added)
}
