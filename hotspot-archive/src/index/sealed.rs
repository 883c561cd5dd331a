//! An encrypted index: header and sections sealed each on its own, so that one question opens one section.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::builder::{IndexFile, Parts};
use super::keys::IndexKey;
use super::lookup::HEADER_BYTES;
use super::{IndexError, Kind, read_at};
use crate::keys::{DataKey, KeyError, Keyring};
use crate::layout::INDEX;
use crate::sealed::{FrameKey, OVERHEAD, binding};
use crate::segment::Origin;

/// What an encrypted index begins with: what it is, then the version.
const MAGIC: [u8; 8] = *b"HSINSEA\x03";
/// The magic, the number of the key in its chain, the length of the wrapped key.
const PROLOGUE_BYTES: usize = MAGIC.len() + 4 + 4;
/// Longest wrapped key that is read; every recipient takes some 150 bytes of it.
const WRAPPED_MAX: usize = 64 << 10;
/// The index's key, sealed under the segment's.
const KEY_BYTES: usize = 32 + OVERHEAD;
/// What of a file is read at once: with up to four recipients, all up to the header.
const FIRST_READ: usize = 1200;

/// What is bound to the key that is sealed under the segment's.
fn key_binding(origin: &Origin) -> Vec<u8> {
    binding(origin, "index key")
}

/// What is bound to a part: the header is 0, a section its kind.
fn part_binding(origin: &Origin, part: u32) -> Vec<u8> {
    binding(origin, &format!("{INDEX} {part}"))
}

/// The file of an encrypted index.
pub(crate) fn seal(parts: &Parts, key: &IndexKey, data_key: &DataKey, origin: &Origin) -> Result<IndexFile, KeyError> {
    let mut file = MAGIC.to_vec();
    file.extend(key.number.to_le_bytes());
    let len = u32::try_from(key.wrapped.len()).ok().filter(|len| *len as usize <= WRAPPED_MAX);
    let len = len.ok_or_else(|| KeyError::Wrap { why: "there are too many recipients".to_owned() })?;
    file.extend(len.to_le_bytes());
    file.extend_from_slice(&key.wrapped);
    let seal_into = |mut file: Vec<u8>| {
        FrameKey::derived(data_key.expose(), "index key")?.seal(&key_binding(origin), key.key.expose(), &mut file)?;
        let frames = FrameKey::new(key.key.expose())?;
        frames.seal(&part_binding(origin, 0), &parts.header, &mut file)?;
        let head_len = file.len();
        for (kind, section) in Kind::ALL.into_iter().zip(&parts.sections) {
            frames.seal(&part_binding(origin, kind as u32), section, &mut file)?;
        }
        Some(IndexFile { bytes: file, head_len })
    };
    seal_into(file).ok_or(KeyError::NoRandomness)
}

/// An encrypted index of which only what is in the clear was read.
pub(crate) struct Sealed {
    file: File,
    /// The beginning of the file: as far as the index's key, and more where one read gives it.
    first: Vec<u8>,
    number: u32,
    /// Where the index's key begins, behind the wrapped one.
    key_at: usize,
}

impl Sealed {
    /// Reads what is in the clear.
    pub(crate) fn read(file: File) -> Result<Self, IndexError> {
        let mut first = vec![0; FIRST_READ];
        let len = file.read_at(&mut first, 0).map_err(|error| IndexError::Unreadable(error.to_string()))?;
        first.truncate(len);
        if !first.starts_with(&MAGIC) {
            return Err(IndexError::Format);
        }
        let word = |at: usize| first.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        let (number, len) = word(8).zip(word(12)).ok_or(IndexError::Damaged)?;
        let len = usize::try_from(len).ok().filter(|len| *len <= WRAPPED_MAX).ok_or(IndexError::Damaged)?;
        let key_at = PROLOGUE_BYTES + len;
        if first.len() < key_at + KEY_BYTES {
            first = read_at(&file, 0, key_at + KEY_BYTES)?;
        }
        Ok(Self { file, first, number, key_at })
    }

    /// The index's key for whoever the chain was wrapped for.
    pub(crate) fn chained_key(&self, keyring: &Keyring) -> Option<DataKey> {
        keyring.chains().key(keyring, &self.first[PROLOGUE_BYTES..self.key_at], self.number)
    }

    /// The same for whoever has the key of the segment, as those have who were added later.
    pub(crate) fn key_by(&self, data_key: &DataKey, origin: &Origin) -> Option<DataKey> {
        let frames = FrameKey::derived(data_key.expose(), "index key")?;
        let sealed = self.first[self.key_at..self.key_at + KEY_BYTES].to_vec();
        frames.open(&key_binding(origin), sealed).and_then(|key| DataKey::from_bytes(&key))
    }

    /// Goes on with the key.
    pub(crate) fn open(self, key: &DataKey, origin: &Origin) -> Option<Frames> {
        let begin = self.key_at + KEY_BYTES;
        Some(Frames {
            file: self.file,
            first: self.first,
            begin,
            key: FrameKey::new(key.expose())?,
            origin: origin.clone(),
        })
    }
}

/// Header and sections, opened one by one.
pub(crate) struct Frames {
    file: File,
    /// The beginning of the file, as far as it was read.
    first: Vec<u8>,
    /// Where the header begins.
    begin: usize,
    key: FrameKey,
    origin: Origin,
}

impl Frames {
    pub(super) fn header(&self) -> Result<Vec<u8>, IndexError> {
        self.frame(0, self.begin, HEADER_BYTES)
    }

    /// All as far as the header goes, as it lies in the file.
    pub(super) fn head(&self) -> Result<Vec<u8>, IndexError> {
        let len = self.begin + HEADER_BYTES + OVERHEAD;
        self.first.get(..len).map_or_else(|| read_at(&self.file, 0, len), |head| Ok(head.to_vec()))
    }

    /// A section of a kind; `position` frames lie before it, and the header, `begin` bytes long without their seals.
    pub(super) fn section(&self, kind: u32, position: usize, begin: usize, len: usize) -> Result<Vec<u8>, IndexError> {
        self.frame(kind, self.begin + begin + (position + 1) * OVERHEAD, len)
    }

    fn frame(&self, part: u32, at: usize, len: usize) -> Result<Vec<u8>, IndexError> {
        let len = len + OVERHEAD;
        let sealed = match self.first.get(at..at + len) {
            Some(sealed) => sealed.to_vec(),
            None => read_at(&self.file, at, len)?,
        };
        self.key.open(&part_binding(&self.origin, part), sealed).ok_or(IndexError::Damaged)
    }
}
