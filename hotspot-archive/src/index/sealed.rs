//! An encrypted index: header, directories and pieces sealed each on its own, so that a question opens only what it reads.

use std::borrow::Cow;
use std::fs::File;

use super::beginning::Beginning;
use super::builder::{IndexFile, Parts};
use super::keys::IndexKey;
use super::lookup::{HEADER_BYTES, word};
use super::{IndexError, Kind};
use crate::keys::{DataKey, KeyError, Keyring};
use crate::layout::INDEX;
use crate::sealed::{FrameKey, OVERHEAD, binding};
use crate::segment::Origin;

/// What an encrypted index begins with: what it is, then the version.
const MAGIC: [u8; 8] = *b"HSINSEA\x04";
/// The magic, the number of the key in its chain, the length of the wrapped key.
const PROLOGUE_BYTES: usize = MAGIC.len() + 4 + 4;
/// Longest wrapped key that is read; every recipient takes some 150 bytes of it.
const WRAPPED_MAX: usize = 64 << 10;
/// The index's key, sealed under the segment's.
const KEY_BYTES: usize = 32 + OVERHEAD;

/// What is bound to the key that is sealed under the segment's.
fn key_binding(origin: &Origin) -> Vec<u8> {
    binding(origin, "index key")
}

/// A part of an index that is sealed on its own.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Header,
    Directory(Kind),
    /// The piece of a section with a number, from 0.
    Piece(Kind, usize),
}

impl Part {
    /// What is bound to it.
    fn binding(self, origin: &Origin) -> Vec<u8> {
        let part = match self {
            Self::Header => "0".to_owned(),
            Self::Directory(kind) => (kind as u32).to_string(),
            Self::Piece(kind, number) => format!("{} {number}", kind as u32),
        };
        binding(origin, &format!("{INDEX} {part}"))
    }
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
        let mut put = |part: Part, bytes: &[u8]| {
            frames.seal(&part.binding(origin), bytes, &mut file)?;
            Some(file.len())
        };
        let head_len = put(Part::Header, &parts.header)?;
        let sections = || Kind::ALL.into_iter().zip(&parts.sections);
        for (kind, section) in sections() {
            put(Part::Directory(kind), &section.directory)?;
        }
        for (kind, section) in sections() {
            for (number, piece) in section.pieces.iter().enumerate() {
                put(Part::Piece(kind, number), piece)?;
            }
        }
        Some(IndexFile { bytes: file, head_len })
    };
    seal_into(file).ok_or(KeyError::NoRandomness)
}

/// An encrypted index of which only what is in the clear was read.
pub(crate) struct Sealed {
    beginning: Beginning,
    /// The chain's first key as it is wrapped, and the number of the index's key in the chain.
    wrapped: Vec<u8>,
    number: u32,
}

impl Sealed {
    /// Reads what is in the clear.
    pub(crate) fn read(file: File) -> Result<Self, IndexError> {
        let beginning = Beginning::read(file)?;
        let prologue = beginning.get(0, PROLOGUE_BYTES)?;
        if !prologue.starts_with(&MAGIC) {
            return Err(IndexError::Format);
        }
        let (number, len) = (word(&prologue, 8), word(&prologue, 12) as usize);
        if len > WRAPPED_MAX {
            return Err(IndexError::Damaged);
        }
        let wrapped = beginning.get(PROLOGUE_BYTES as u64, len)?.into_owned();
        Ok(Self { beginning, wrapped, number })
    }

    /// The index's key for whoever the chain was wrapped for.
    pub(crate) fn chained_key(&self, keyring: &Keyring) -> Option<DataKey> {
        keyring.chains().key(keyring, &self.wrapped, self.number)
    }

    /// The same for whoever has the key of the segment, as those have who were added later.
    pub(crate) fn key_by(&self, data_key: &DataKey, origin: &Origin) -> Option<DataKey> {
        let frames = FrameKey::derived(data_key.expose(), "index key")?;
        let sealed = self.beginning.get(self.key_at() as u64, KEY_BYTES).ok()?.into_owned();
        frames.open(&key_binding(origin), sealed).and_then(|key| DataKey::from_bytes(&key))
    }

    /// Where the index's key begins, behind the wrapped one.
    fn key_at(&self) -> usize {
        PROLOGUE_BYTES + self.wrapped.len()
    }

    /// Goes on with the key.
    pub(crate) fn open(self, key: &DataKey, origin: &Origin) -> Option<Frames> {
        let begin = self.key_at() + KEY_BYTES;
        Some(Frames { beginning: self.beginning, begin, key: FrameKey::new(key.expose())?, origin: origin.clone() })
    }
}

/// Header, directories and pieces, opened one by one.
pub(crate) struct Frames {
    beginning: Beginning,
    /// Where the header begins.
    begin: usize,
    key: FrameKey,
    origin: Origin,
}

impl Frames {
    /// All as far as the header goes, as it lies in the file.
    pub(super) fn head(&self) -> Result<Cow<'_, [u8]>, IndexError> {
        self.beginning.get(0, self.begin + HEADER_BYTES + OVERHEAD)
    }

    /// A part with a length; so many parts lie before it, and `at` bytes of them without their seals.
    pub(super) fn part(&self, part: Part, before: usize, at: u64, len: usize) -> Result<Vec<u8>, IndexError> {
        let at = self.begin as u64 + at + before as u64 * OVERHEAD as u64;
        let sealed = self.beginning.get(at, len + OVERHEAD)?.into_owned();
        self.key.open(&part.binding(&self.origin), sealed).ok_or(IndexError::Damaged)
    }
}
