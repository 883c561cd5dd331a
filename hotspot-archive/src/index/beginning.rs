//! A file whose beginning is read at once, because most of what is asked for lies there.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{BYTES_MAX, IndexError};
use crate::blocks::read_exact_at;

/// Bytes that are read at once: key, header and most directories.
const FIRST_READ: usize = 4096;

/// A file, and its first bytes.
pub(super) struct Beginning {
    file: File,
    first: Vec<u8>,
}

impl Beginning {
    pub(super) fn read(file: File) -> Result<Self, IndexError> {
        let mut first = vec![0; FIRST_READ];
        let len = file.read_at(&mut first, 0).map_err(unreadable)?;
        first.truncate(len);
        Ok(Self { file, first })
    }

    /// So many bytes at a place.
    pub(super) fn get(&self, at: u64, len: usize) -> Result<Cow<'_, [u8]>, IndexError> {
        if len > BYTES_MAX {
            return Err(IndexError::Damaged);
        }
        if let Some(bytes) = usize::try_from(at).ok().and_then(|at| self.first.get(at..)?.get(..len)) {
            return Ok(Cow::Borrowed(bytes));
        }
        match read_exact_at(&self.file, at, len) {
            Ok(bytes) => Ok(Cow::Owned(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(IndexError::Damaged),
            Err(error) => Err(unreadable(error)),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn unreadable(error: io::Error) -> IndexError {
    IndexError::Unreadable(error.to_string())
}
