//! A section of an index: values in order, in pieces that are read and checked one by one, and a directory that says what is in which.

use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};

use super::IndexError;
use super::bytes::{Bytes, put_varint};

/// A piece ends with the value that fills it so far. A question reads the directory and one piece, which are about as long with some
/// thousand values.
const PIECE_BYTES: usize = 2048;
const HASH_BYTES: usize = 32;

/// A section, not yet in a file.
#[derive(Default)]
pub(super) struct Section {
    pub(super) directory: Vec<u8>,
    pub(super) pieces: Vec<Vec<u8>>,
}

/// A section that is being written.
#[derive(Default)]
pub(super) struct SectionWriter {
    section: Section,
    /// The piece that is not yet full, and its first value.
    piece: Vec<u8>,
    first: Vec<u8>,
    /// The last value of the piece; empty at its beginning.
    previous: Vec<u8>,
}

impl SectionWriter {
    /// Adds the next value. `write` gets the piece and the value before it there, which is empty for the first.
    pub(super) fn put(&mut self, value: &[u8], write: impl FnOnce(&mut Vec<u8>, &[u8])) {
        if self.piece.len() >= PIECE_BYTES {
            self.end_piece();
        }
        if self.piece.is_empty() {
            self.first = value.to_vec();
        }
        write(&mut self.piece, &self.previous);
        self.previous.clear();
        self.previous.extend_from_slice(value);
    }

    fn end_piece(&mut self) {
        if self.piece.is_empty() {
            return;
        }
        let directory = &mut self.section.directory;
        put_varint(directory, self.piece.len() as u128);
        put_varint(directory, self.first.len() as u128);
        directory.extend_from_slice(&self.first);
        directory.extend_from_slice(&Sha256::digest(&self.piece));
        self.section.pieces.push(std::mem::take(&mut self.piece));
        self.previous.clear();
    }

    pub(super) fn finish(mut self) -> Section {
        self.end_piece();
        self.section
    }
}

/// A piece, by its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// How many pieces of the section lie before it, and bytes of them.
    pub(super) number: usize,
    pub(super) begin: u64,
    pub(super) len: usize,
    first: &'a [u8],
    hash: &'a [u8],
}

impl Piece<'_> {
    /// Whether these are its bytes.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        Sha256::digest(bytes)[..] == *self.hash
    }
}

/// The pieces in which values of a range can be: those that begin in it, and the one before.
pub(super) fn pieces_with<'a>(
    directory: &'a [u8],
    asked: &RangeInclusive<&[u8]>,
) -> Result<Vec<Piece<'a>>, IndexError> {
    let mut bytes = Bytes(directory);
    let mut found = Vec::new();
    let (mut number, mut begin) = (0, 0);
    while !bytes.0.is_empty() {
        let len = bytes.number()? as usize;
        let first_len = bytes.number()? as usize;
        let piece = Piece { number, begin, len, first: bytes.take(first_len)?, hash: bytes.take(HASH_BYTES)? };
        if piece.first > *asked.end() {
            break;
        }
        if piece.first <= *asked.start() {
            found.clear();
        }
        found.push(piece);
        number += 1;
        begin += len as u64;
    }
    Ok(found)
}

/// The pieces in which values of any of these ranges can be; the ranges are in order and apart from each other.
pub(super) fn pieces_within<'a>(
    directory: &'a [u8],
    ranges: &[(Vec<u8>, Vec<u8>)],
) -> Result<Vec<Piece<'a>>, IndexError> {
    let all = pieces_with(directory, &(&[][..]..=&[u8::MAX; 64][..]))?;
    let ends = all.iter().skip(1).map(|next| Some(next.first)).chain([None]);
    let is_within = |piece: &Piece<'_>, end: Option<&[u8]>| {
        // The first range that does not end before the piece; does it begin before the next piece?
        let position = ranges.partition_point(|(_, greatest)| &greatest[..] < piece.first);
        ranges.get(position).is_some_and(|(least, _)| end.is_none_or(|end| &least[..] < end))
    };
    Ok(all.iter().copied().zip(ends).filter(|(piece, end)| is_within(piece, *end)).map(|(piece, _)| piece).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// With pieces of any length.
        #[test]
        fn the_pieces_of_a_range_have_all_values_in_it_and_no_more_than_one_piece_has_none(
            values in prop::collection::btree_map(any::<u16>(), 1usize..PIECE_BYTES, 0..40),
            (one, other) in any::<(u16, u16)>(),
        ) {
            let mut writer = SectionWriter::default();
            for (value, len) in &values {
                writer.put(&value.to_be_bytes(), |piece, previous| {
                    assert_eq!(previous.is_empty(), piece.is_empty());
                    piece.extend(value.to_be_bytes());
                    piece.resize(piece.len() + len, 0);
                });
            }
            let section = writer.finish();
            let (least, greatest) = (one.min(other), one.max(other));
            let (least_bytes, greatest_bytes) = (least.to_be_bytes(), greatest.to_be_bytes());
            let found = pieces_with(&section.directory, &(&least_bytes[..]..=&greatest_bytes[..])).unwrap();
            let whole = section.pieces.concat();
            let mut read = Vec::new();
            let mut in_vain = 0;
            for piece in found {
                let bytes = &whole[usize::try_from(piece.begin).unwrap()..][..piece.len];
                prop_assert_eq!(bytes, &section.pieces[piece.number]);
                prop_assert!(piece.is(bytes) && !piece.is(&bytes[1..]));
                let (mut at, before) = (0, read.len());
                while at < bytes.len() {
                    let value = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
                    at += 2 + values[&value];
                    read.extend(Some(value).filter(|value| (least..=greatest).contains(value)));
                }
                in_vain += usize::from(read.len() == before);
            }
            prop_assert!(in_vain <= 1);
            prop_assert_eq!(read, values.range(least..=greatest).map(|(value, _)| *value).collect::<Vec<_>>());
        }
    }
}
