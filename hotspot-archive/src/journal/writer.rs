//! Appending: buffered until [`JournalWriter::commit`], which returns after the flush.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::reader::{Replayed, replay};
use super::{JournalError, JournalKeys, PAYLOAD_MAX, codec, frame};
use crate::durable;
use crate::entry::{Entry, JournalHeader};
use crate::sealed::FrameKey;

/// Space is reserved in steps of this size, so that a flush rarely has to change the file's metadata.
const RESERVE_STEP: u64 = 4 << 20;

/// Makes durable what an earlier process wrote to a journal: what is read of it now is taken for recorded.
pub fn flush(path: &Path) -> Result<(), JournalError> {
    let flushed = File::open(path).and_then(|file| file.sync_all());
    flushed.map_err(|source| JournalError::Io { operation: "flushed", path: path.to_path_buf(), source })
}

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
    /// Bytes of the entries before they were compressed.
    content: u64,
    condemned: bool,
    keys: JournalKeys,
    /// Encrypts the frames, where the file is encrypted.
    key: Option<FrameKey>,
    compressor: frame::Compressor,
}

impl JournalWriter {
    /// Makes a new journal and commits its header. It has its name only once the header is durable, so that neither a crash nor
    /// a full disk leaves a file that is no journal.
    pub fn create(path: &Path, header: &JournalHeader, keys: &JournalKeys) -> Result<Self, JournalError> {
        let failed = |source| JournalError::Io { operation: "created", path: path.to_path_buf(), source };
        if path.try_exists().map_err(failed)? {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        let temporary = durable::temporary_name(path);
        let written = Self::create_as(&temporary, header, keys);
        let named = written.and_then(|writer| fs::rename(&temporary, path).map(|()| writer).map_err(failed));
        let mut writer = match named {
            Ok(writer) => writer,
            Err(error) => {
                // It is no journal; that it could not be removed either would hide the first error.
                let _ = fs::remove_file(&temporary);
                return Err(error);
            }
        };
        durable::sync_dir(durable::parent(path)).map_err(failed)?;
        writer.path = path.to_path_buf();
        Ok(writer)
    }

    fn create_as(path: &Path, header: &JournalHeader, keys: &JournalKeys) -> Result<Self, JournalError> {
        let key = keys.create(path)?;
        let version = if key.is_some() { frame::VERSION_ENCRYPTED } else { frame::VERSION_PLAIN };
        let failed = |source| JournalError::Io { operation: "created", path: path.to_path_buf(), source };
        let compressor = frame::compressor().map_err(failed)?;
        let file = durable::create_anew(path, 0o600).map_err(failed)?;
        let mut writer = Self {
            file,
            path: path.to_path_buf(),
            len: 0,
            reserved: 0,
            pending: frame::file_header(version).to_vec(),
            next_frame: 0,
            content: 0,
            condemned: false,
            keys: keys.clone(),
            key,
            compressor,
        };
        writer.append(&Entry::Header(header.clone()))?;
        writer.commit()?;
        Ok(writer)
    }

    /// Goes on with a journal that a crash left open: hands every entry over, and cuts a torn tail.
    pub fn reopen(path: &Path, keys: &JournalKeys, each: impl FnMut(Entry)) -> Result<(Self, Replayed), JournalError> {
        let replayed = replay(path, keys, each)?;
        let key = if replayed.encrypted { Some(keys.open(path)?) } else { None };
        let failed = |source| JournalError::Io { operation: "opened for writing", path: path.to_path_buf(), source };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let len = replayed.tail.end();
        file.set_len(len).and_then(|()| file.sync_all()).map_err(failed)?;
        let compressor = frame::compressor().map_err(failed)?;
        let writer = Self {
            file,
            path: path.to_path_buf(),
            len,
            reserved: len,
            pending: Vec::new(),
            next_frame: replayed.next_frame,
            content: replayed.content,
            condemned: false,
            keys: keys.clone(),
            key,
            compressor,
        };
        Ok((writer, replayed))
    }

    /// Buffers an entry. Nothing is safe before [`Self::commit`].
    pub fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let (kind, payload) = codec::encode(entry);
        if payload.len() > PAYLOAD_MAX {
            return Err(JournalError::TooLarge { bytes: payload.len() });
        }
        let number = self.next_number();
        frame::write(&mut self.pending, kind, number, &payload, self.key.as_ref(), &mut self.compressor)
            .map_err(|source| self.failed("compressed", source))?;
        self.next_frame = number + 1;
        self.content += payload.len() as u64;
        Ok(())
    }

    /// Even for the first frame of a commit, odd for the others.
    fn next_number(&self) -> u64 {
        let is_first = self.pending.is_empty() || (self.len == 0 && self.pending.len() == frame::FILE_HEADER_LEN);
        if frame::begins_commit(self.next_frame) == is_first { self.next_frame } else { self.next_frame + 1 }
    }

    /// Where in the buffer that begins which is appended from now on.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.pending.len()
    }

    /// Takes back what was appended since a mark and could not be committed: whoever reported it was told so, and does it again.
    pub fn withdraw(&mut self, mark: usize) {
        self.pending.truncate(mark);
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
        self.reserve(end);
        let written = self
            .file
            .write_all_at(&self.pending, self.len)
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

    /// Goes on in a new file with what was not acknowledged. The old one keeps what was, and nothing else: frames of a failed
    /// commit that reached it would count twice, so while they cannot be cut off there is no going on. After an error this is to be
    /// called again, with the same path: what the attempt left there is removed.
    pub fn move_to(&mut self, path: &Path, header: &JournalHeader) -> Result<(), JournalError> {
        self.cut_unacknowledged().map_err(|source| self.failed("cut back to what was acknowledged", source))?;
        durable::remove(path).map_err(|source| JournalError::Io {
            operation: "removed",
            path: path.to_path_buf(),
            source,
        })?;
        let mut fresh = Self::create(path, header, &self.keys)?;
        self.hand_pending_to(&mut fresh)?;
        fresh.commit()?;
        *self = fresh;
        Ok(())
    }

    /// The frames that wait, under the key of another file and numbered for it.
    fn hand_pending_to(&self, fresh: &mut Self) -> Result<(), JournalError> {
        let failed = |source| self.failed("written again", source);
        // Frame numbers go on where the old file's end; the reader only asks that they rise.
        fresh.next_frame = fresh.next_frame.max(self.next_frame);
        let mut decompressor = frame::Decompressor::new().map_err(failed)?;
        let mut at = 0;
        while at < self.pending.len() {
            let unreadable = || failed(io::ErrorKind::InvalidData.into());
            let found = frame::parse(&self.pending[at..]).ok_or_else(unreadable)?;
            let payload = found.open(self.key.as_ref(), &mut decompressor).ok_or_else(unreadable)?;
            let number = fresh.next_number();
            let (to, key) = (&mut fresh.pending, fresh.key.as_ref());
            frame::write(to, found.kind, number, &payload, key, &mut fresh.compressor).map_err(failed)?;
            fresh.next_frame = number + 1;
            fresh.content += payload.len() as u64;
            at += found.len();
        }
        Ok(())
    }

    /// By name, because the descriptor of a file that failed may fail for ever.
    fn cut_unacknowledged(&self) -> io::Result<()> {
        match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) if file.metadata()?.len() > self.len => file.set_len(self.len).and_then(|()| file.sync_all()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn reserve(&mut self, end: u64) {
        if end <= self.reserved {
            return;
        }
        let target = end.next_multiple_of(RESERVE_STEP);
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.reserved, target - self.reserved) {
            Ok(()) => self.reserved = target,
            // Not every file system can; it is only about speed. A full disk shows when writing.
            Err(_) => self.reserved = end,
        }
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

    /// Bytes of what was appended, before it was compressed: what reading the journal takes is in proportion to this.
    #[must_use]
    pub fn content(&self) -> u64 {
        self.content
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

    /// Commits, and is told that the flush failed, although everything reached the file.
    #[cfg(test)]
    pub(super) fn commit_but_fail_to_flush(&mut self) {
        let unacknowledged = (self.len, self.pending.clone());
        self.commit().unwrap();
        (self.len, self.pending) = unacknowledged;
        self.condemned = true;
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> JournalError {
        JournalError::Io { operation, path: self.path.clone(), source }
    }
}
