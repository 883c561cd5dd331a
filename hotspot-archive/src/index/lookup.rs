//! Asking an index: which rows can hold a value.

use std::borrow::Cow;
use std::fs::File;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use hotspot_core::MacAddr;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::beginning::Beginning;
use super::builder::{BITMAP_BYTES, BITMAP_FROM};
use super::bytes::Bytes;
use super::rows::united;
use super::sealed::{Frames, Part};
use super::section::{Piece, pieces_with, pieces_within};
use super::{FORMAT, IndexError, Kind, MAGIC, Parts, Rows, mapped};
use crate::filter::Alike;
use crate::manifest::from_hex;

/// Bytes before the directories.
pub(super) const HEADER_BYTES: usize = ENTRIES_AT + Kind::ALL.len() * ENTRY_BYTES;
/// Where the header says what sections there are.
const ENTRIES_AT: usize = 8 + 4 + 4 + 32;
/// A section's kind, bytes of its directory, bytes and number of its pieces, SHA-256 of the directory.
const ENTRY_BYTES: usize = 4 + 4 + 4 + 4 + 32;

/// Ranges of rows in an answer; with more, all rows are read instead of remembered.
const RANGES_MAX: usize = 1 << 14;

/// Where the bytes of an index are.
enum Source {
    Clear(Beginning),
    Sealed(Box<Frames>),
}

impl Source {
    /// The file as far as the header goes.
    fn head(&self) -> Result<Cow<'_, [u8]>, IndexError> {
        match self {
            Self::Clear(beginning) => beginning.get(0, HEADER_BYTES),
            Self::Sealed(frames) => frames.head(),
        }
    }

    /// A part with a length; so many parts lie before it, and `at` bytes of them.
    fn part(&self, part: Part, before: usize, at: u64, len: usize) -> Result<Cow<'_, [u8]>, IndexError> {
        match self {
            Self::Clear(beginning) => beginning.get(at, len),
            Self::Sealed(frames) => frames.part(part, before, at, len).map(Cow::Owned),
        }
    }
}

/// What a manifest line says of an index, in hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said<'a> {
    /// SHA-256 of the file as far as the header goes.
    pub(crate) head: &'a str,
    /// SHA-256 of the segment it is of.
    pub(crate) segment: &'a str,
}

/// An index. What is read of it is checked then.
pub(crate) struct Index {
    source: Source,
    header: [u8; HEADER_BYTES],
    rows: u32,
}

impl Index {
    /// Takes a file; `said` is what the manifest says of it.
    pub(crate) fn in_file(file: File, said: Said<'_>) -> Result<Self, IndexError> {
        Self::of(Source::Clear(Beginning::read(file)?), said)
    }

    /// The same of an encrypted one.
    pub(crate) fn sealed(frames: Frames, said: Said<'_>) -> Result<Self, IndexError> {
        Self::of(Source::Sealed(Box::new(frames)), said)
    }

    fn of(source: Source, said: Said<'_>) -> Result<Self, IndexError> {
        let header = source.part(Part::Header, 0, 0, HEADER_BYTES)?;
        let header = <[u8; HEADER_BYTES]>::try_from(&*header).map_err(|_| IndexError::Damaged)?;
        if !header.starts_with(&MAGIC) || word(&header, 8) != FORMAT {
            return Err(IndexError::Format);
        }
        if from_hex(said.head).as_deref() != Some(&Sha256::digest(source.head()?)[..]) {
            return Err(IndexError::Damaged);
        }
        if from_hex(said.segment).as_deref() != Some(&header[16..48]) {
            return Err(IndexError::OtherSegment);
        }
        Ok(Self { source, rows: word(&header, 12), header })
    }

    /// Whether it is the index with these parts: its header has the hashes of all that is in it.
    pub(crate) fn is(&self, parts: &Parts) -> bool {
        self.header[..] == parts.header[..]
    }

    /// The hashes of the segment's blocks.
    pub(crate) fn blocks(&self) -> Result<Vec<u8>, IndexError> {
        self.pieces(Kind::Blocks, &(&[]..=&[])).map(|pieces| pieces.concat())
    }

    pub(crate) fn mac(&self, mac: MacAddr) -> Result<Rows, IndexError> {
        self.places(Kind::Mac, &(&mac.0..=&mac.0))
    }

    pub(crate) fn user(&self, user: &str) -> Result<Rows, IndexError> {
        self.places(Kind::User, &(user.as_bytes()..=user.as_bytes()))
    }

    /// Rows of the users whose name is this one in some spelling.
    pub(crate) fn user_alike(&self, user: &Alike) -> Result<Rows, IndexError> {
        let is_same = |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| user.is_same(name));
        self.places_of(Kind::User, user.ranges(), is_same)
    }

    /// Rows whose client has an address in a network.
    pub(crate) fn client(&self, net: IpNet) -> Result<Rows, IndexError> {
        let (least, greatest) = bounds(net);
        self.places(Kind::ClientIp, &(&least..=&greatest))
    }

    /// Whether any row was translated to an address in a network.
    pub(crate) fn has_translated(&self, net: IpNet) -> Result<bool, IndexError> {
        let mut is_there = false;
        self.endpoints(net, |endpoint| is_there |= endpoint.is_translated)?;
        Ok(is_there)
    }

    /// Whether the other side knew any row's client by this address, and port if one is given; if so, whether any row was translated to it.
    pub(crate) fn public(&self, ip: IpAddr, port: Option<u16>) -> Result<Option<bool>, IndexError> {
        let mut is_translated = None;
        self.endpoints(ip.into(), |endpoint| {
            if port.is_none_or(|port| endpoint.ports.contains(port)) {
                is_translated = Some(endpoint.is_translated);
            }
        })?;
        Ok(is_translated)
    }

    /// Whether any row's peer is in a network.
    pub(crate) fn has_peer(&self, net: IpNet) -> Result<bool, IndexError> {
        let (least, greatest) = bounds(net);
        let asked = u128::from_be_bytes(least)..=u128::from_be_bytes(greatest);
        for piece in self.pieces(Kind::Peer, &(&least..=&greatest))? {
            let mut bytes = Bytes(&piece);
            let mut peer = 0u128;
            while !bytes.0.is_empty() && peer <= *asked.end() {
                peer = peer.checked_add(bytes.varint()?).ok_or(IndexError::Damaged)?;
                if asked.contains(&peer) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Rows of the values in a range.
    fn places(&self, kind: Kind, asked: &RangeInclusive<&[u8]>) -> Result<Rows, IndexError> {
        let mut found = Found { rows: self.rows, ranges: Vec::new() };
        for piece in self.pieces(kind, asked)? {
            let mut bytes = Bytes(&piece);
            let mut value = bytes.first_from(asked.start())?;
            while let Some(reached) = value.take_if(|value| value.as_slice() <= *asked.end()) {
                if !found.add(&mut bytes, true)? {
                    return Ok(Rows::All);
                }
                if !bytes.0.is_empty() {
                    value = Some(bytes.value_after(reached)?);
                }
            }
        }
        Ok(Rows::Some(united(found.ranges)))
    }

    /// Rows of the values that are asked for; all of them lie in these ranges, which are in order.
    fn places_of(
        &self,
        kind: Kind,
        ranges: &[(Vec<u8>, Vec<u8>)],
        is_asked: impl Fn(&[u8]) -> bool,
    ) -> Result<Rows, IndexError> {
        let mut found = Found { rows: self.rows, ranges: Vec::new() };
        for piece in self.pieces_in(kind, |directory| pieces_within(directory, ranges))? {
            let mut bytes = Bytes(&piece);
            let mut value = Vec::new();
            while !bytes.0.is_empty() {
                value = bytes.value_after(value)?;
                let is_asked = is_asked(&value);
                if !found.add(&mut bytes, is_asked)? {
                    return Ok(Rows::All);
                }
            }
        }
        Ok(Rows::Some(united(found.ranges)))
    }

    /// Gives the public addresses in a network.
    fn endpoints(&self, net: IpNet, mut give: impl FnMut(Endpoint<'_>)) -> Result<(), IndexError> {
        let (least, greatest) = bounds(net);
        for piece in self.pieces(Kind::Public, &(&least..=&greatest))? {
            let mut bytes = Bytes(&piece);
            let mut ip = Vec::new();
            while !bytes.0.is_empty() {
                ip = bytes.value_after(ip)?;
                let number = bytes.number()?;
                let endpoint = Endpoint {
                    is_translated: number & 1 != 0,
                    ports: Ports::read(&mut bytes, (number >> 1) as usize)?,
                };
                if (&least[..]..=&greatest[..]).contains(&&ip[..]) {
                    give(endpoint);
                }
            }
        }
        Ok(())
    }

    /// The pieces of a section in which values of a range can be.
    fn pieces(&self, kind: Kind, asked: &RangeInclusive<&[u8]>) -> Result<Vec<Cow<'_, [u8]>>, IndexError> {
        self.pieces_in(kind, |directory| pieces_with(directory, asked))
    }

    /// The pieces of a section that are picked from its directory.
    fn pieces_in(
        &self,
        kind: Kind,
        pick: impl for<'d> FnOnce(&'d [u8]) -> Result<Vec<Piece<'d>>, IndexError>,
    ) -> Result<Vec<Cow<'_, [u8]>>, IndexError> {
        let place = self.place(kind)?;
        let directory = self.source.part(Part::Directory(kind), place.before, place.at, place.len)?;
        if Sha256::digest(&directory)[..] != *place.hash {
            return Err(IndexError::Damaged);
        }
        let read = |piece: Piece<'_>| {
            let at = place.pieces_at + piece.begin;
            let before = place.pieces_before.saturating_add(piece.number);
            let bytes = self.source.part(Part::Piece(kind, piece.number), before, at, piece.len)?;
            if piece.is(&bytes) { Ok(bytes) } else { Err(IndexError::Damaged) }
        };
        pick(&directory)?.into_iter().map(read).collect()
    }

    /// Where a section lies, by the header.
    fn place(&self, kind: Kind) -> Result<SectionPlace<'_>, IndexError> {
        let entries = || self.header[ENTRIES_AT..].chunks_exact(ENTRY_BYTES);
        let sum =
            |at: usize, sections: usize| entries().take(sections).map(|entry| u64::from(word(entry, at))).sum::<u64>();
        let position = Kind::ALL.iter().position(|candidate| *candidate == kind).ok_or(IndexError::Damaged)?;
        let entry = entries().nth(position).filter(|entry| word(entry, 0) == kind as u32).ok_or(IndexError::Damaged)?;
        Ok(SectionPlace {
            before: 1 + position,
            at: HEADER_BYTES as u64 + sum(4, position),
            len: word(entry, 4) as usize,
            hash: &entry[16..],
            pieces_before: usize::try_from(sum(12, position)).map_err(|_| IndexError::Damaged)? + 1 + Kind::ALL.len(),
            pieces_at: HEADER_BYTES as u64 + sum(4, Kind::ALL.len()) + sum(8, position),
        })
    }
}

/// Ranges of rows that were found so far.
struct Found {
    /// How many the segment has.
    rows: u32,
    ranges: Vec<std::ops::Range<u32>>,
}

impl Found {
    /// Takes or passes over the rows of a value; whether they are few enough to be remembered.
    fn add(&mut self, bytes: &mut Bytes<'_>, is_asked: bool) -> Result<bool, IndexError> {
        let mut end = 0u32;
        for _ in 0..bytes.number()? {
            let start = end.checked_add(bytes.number()?).ok_or(IndexError::Damaged)?;
            end = start.checked_add(bytes.number()?).filter(|end| *end <= self.rows).ok_or(IndexError::Damaged)?;
            if start < end && is_asked {
                self.ranges.push(start..end);
            }
            if self.ranges.len() > RANGES_MAX {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Where a section lies: how many parts are before its directory and its pieces, and how many bytes.
struct SectionPlace<'a> {
    before: usize,
    at: u64,
    /// Length and SHA-256 of the directory.
    len: usize,
    hash: &'a [u8],
    pieces_before: usize,
    pieces_at: u64,
}

/// A public address.
struct Endpoint<'a> {
    is_translated: bool,
    ports: Ports<'a>,
}

/// Ports of one address.
enum Ports<'a> {
    List(&'a [u8]),
    Bitmap(&'a [u8]),
}

impl<'a> Ports<'a> {
    fn read(bytes: &mut Bytes<'a>, count: usize) -> Result<Self, IndexError> {
        if count >= BITMAP_FROM {
            return bytes.take(BITMAP_BYTES).map(Self::Bitmap);
        }
        let begin = bytes.0;
        bytes.skip(count as u64)?;
        Ok(Self::List(&begin[..begin.len() - bytes.0.len()]))
    }

    fn contains(&self, port: u16) -> bool {
        match self {
            Self::Bitmap(bitmap) => bitmap[usize::from(port >> 3)] & 1 << (port & 7) != 0,
            Self::List(list) => {
                let (mut bytes, mut found) = (Bytes(list), 0u128);
                // Numbers were passed over before, so the list does not end within one.
                while let Ok(step) = bytes.varint() {
                    found = found.saturating_add(step);
                    if found >= u128::from(port) {
                        return found == u128::from(port);
                    }
                }
                false
            }
        }
    }
}

/// A little-endian word; the length was checked before.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// First and last address of a network.
fn bounds(net: IpNet) -> ([u8; 16], [u8; 16]) {
    (mapped(net.network()), mapped(net.broadcast()))
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "random bytes and places in a small file")]
mod tests;
