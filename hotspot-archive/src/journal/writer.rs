//! Appending: buffered until [`JournalWriter::commit`], which returns after the flush.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::reader::{Replayed, replay};
use super::{JournalError, PAYLOAD_MAX, codec, frame};
use crate::durable;
use crate::entry::{Entry, JournalHeader};

/// Space is reserved in steps of this size, so that a flush rarely has to change the file's metadata.
const RESERVE_STEP: u64 = 4 << 20;

/// The only writer of a journal.
pub struct JournalWriter {
    file: File,
    path: PathBuf,
    /// Bytes that are acknowledged.
    len: u64,
    reserved: u64,
    /// Frames not yet acknowledged.
    pending: Vec<u8>,
    next_frame: u64,
    condemned: bool,
}

impl JournalWriter {
    /// Makes a new journal and commits its header.
    pub fn create(path: &Path, header: &JournalHeader) -> Result<Self, JournalError> {
        let failed = |source| JournalError::Io { operation: "created", path: path.to_path_buf(), source };
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(failed)?;
        let mut writer = Self {
            file,
            path: path.to_path_buf(),
            len: 0,
            reserved: 0,
            pending: frame::file_header().to_vec(),
            next_frame: 0,
            condemned: false,
        };
        writer.append(&Entry::Header(header.clone()))?;
        writer.commit()?;
        path.parent().map_or(Ok(()), durable::sync_dir).map_err(failed)?;
        Ok(writer)
    }

    /// Goes on with a journal that a crash left open: hands every entry over, and cuts a torn tail.
    pub fn reopen(path: &Path, each: impl FnMut(Entry)) -> Result<(Self, Replayed), JournalError> {
        let replayed = replay(path, each)?;
        let failed = |source| JournalError::Io { operation: "opened for writing", path: path.to_path_buf(), source };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let len = replayed.tail.end();
        file.set_len(len).and_then(|()| file.sync_all()).map_err(failed)?;
        let writer = Self {
            file,
            path: path.to_path_buf(),
            len,
            reserved: len,
            pending: Vec::new(),
            next_frame: replayed.next_frame,
            condemned: false,
        };
        Ok((writer, replayed))
    }

    /// Buffers an entry. Nothing is safe before [`Self::commit`].
    pub fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let (kind, payload) = codec::encode(entry);
        if payload.len() > PAYLOAD_MAX {
            return Err(JournalError::TooLarge { bytes: payload.len() });
        }
        frame::write(&mut self.pending, kind, self.next_frame, &payload).map_err(|source| self.failed("compressed", source))?;
        self.next_frame += 1;
        Ok(())
    }

    /// Whether something waits for [`Self::commit`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes and flushes what is buffered. After an error the file is never written again: what was not acknowledged stays
    /// buffered for [`Self::move_to`], because nobody can know what of it reached the disk.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        if self.condemned {
            return Err(JournalError::Condemned { path: self.path.clone() });
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let end = self.len + self.pending.len() as u64;
        let written = self
            .reserve(end)
            .and_then(|()| self.file.write_all_at(&self.pending, self.len))
            .and_then(|()| self.file.flush())
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            self.condemned = true;
            return Err(self.failed("written", source));
        }
        self.len = end;
        self.pending.clear();
        Ok(())
    }

    /// Goes on in a new file with what was not acknowledged. The old one keeps what was.
    pub fn move_to(self, path: &Path, header: &JournalHeader) -> Result<Self, (Box<Self>, JournalError)> {
        match Self::create(path, header) {
            Ok(mut fresh) => {
                // Frame numbers go on where the old file's end; the reader only asks that they rise.
                fresh.next_frame = fresh.next_frame.max(self.next_frame);
                fresh.pending = self.pending.clone();
                match fresh.commit() {
                    Ok(()) => Ok(fresh),
                    Err(error) => Err((Box::new(self), error)),
                }
            }
            Err(error) => Err((Box::new(self), error)),
        }
    }

    fn reserve(&mut self, end: u64) -> std::io::Result<()> {
        if end <= self.reserved {
            return Ok(());
        }
        let target = end.next_multiple_of(RESERVE_STEP);
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.reserved, target - self.reserved) {
            Ok(()) => self.reserved = target,
            // Not every file system can; it is only about speed. A full disk shows when writing.
            Err(_) => self.reserved = end,
        }
        Ok(())
    }

    /// Bytes acknowledged.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes to another file from now on, to see what a full disk does.
    #[cfg(test)]
    pub(super) fn write_to(&mut self, file: File) {
        self.file = file;
    }

    fn failed(&self, operation: &'static str, source: std::io::Error) -> JournalError {
        JournalError::Io { operation, path: self.path.clone(), source }
    }
}
