//! Building an index while a segment is written: one call per row, in the order of the rows.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use foldhash::fast::FixedState;
use hotspot_core::record::FlowRecord;
use sha2::{Digest, Sha256};

use super::bytes::{put_value, put_varint};
use super::section::{Section, SectionWriter};
use super::{FORMAT, Kind, MAGIC, mapped};
use crate::filter::{public_endpoint, users};
use crate::manifest::{from_hex, to_hex};

/// Ports of one address are a bitmap from so many on: 8 KiB are smaller than their list then.
pub(super) const BITMAP_FROM: usize = 6_000;
pub(super) const BITMAP_BYTES: usize = 8_192;

/// Collects the values of a segment's rows. Its memory is at most some 60 bytes per row, where no two rows share a value.
#[derive(Default)]
pub(crate) struct Builder {
    rows: u32,
    macs: Places,
    client_ips: Places,
    users: Places,
    public: HashMap<[u8; 16], Endpoints, FixedState>,
    peers: HashSet<[u8; 16], FixedState>,
}

impl Builder {
    /// Adds the next row.
    pub(crate) fn add(&mut self, flow: &FlowRecord) {
        let row = self.rows;
        self.rows += 1;
        self.macs.add(&flow.client_mac.0, row);
        self.client_ips.add(&mapped(flow.client_ip), row);
        users(flow).filter(|user| !user.is_empty()).for_each(|user| self.users.add(user.as_bytes(), row));
        let (ip, port) = public_endpoint(flow);
        let endpoints = self.public.entry(mapped(ip)).or_default();
        endpoints.ports.extend(port);
        endpoints.is_translated |= flow.public.is_some();
        if let Some(ip) = flow.peer_ip {
            self.peers.insert(mapped(ip));
        }
    }

    /// The parts of the index; `sha256` is that of the segment's file, 64 hexadecimal digits, `blocks` are those of its blocks.
    #[must_use]
    pub(crate) fn finish(self, sha256: &str, blocks: &[u8]) -> Parts {
        let sections = [
            self.macs.into_section(),
            self.client_ips.into_section(),
            self.users.into_section(),
            public_section(self.public),
            peer_section(self.peers),
            block_section(blocks),
        ];
        let mut header = MAGIC.to_vec();
        header.extend(FORMAT.to_le_bytes());
        header.extend(self.rows.to_le_bytes());
        let mut hash = from_hex(sha256).unwrap_or_default();
        hash.resize(32, 0);
        header.extend(hash);
        for (kind, Section { directory, pieces }) in Kind::ALL.into_iter().zip(&sections) {
            let pieces_len = pieces.iter().map(Vec::len).sum();
            header.extend((kind as u32).to_le_bytes());
            // A journal holds no more than 512 MiB, so no section comes near 4 GiB.
            for number in [directory.len(), pieces_len, pieces.len()] {
                header.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
            }
            header.extend_from_slice(&Sha256::digest(directory));
        }
        Parts { header, sections }
    }
}

/// An index, not yet in one piece.
pub(crate) struct Parts {
    pub(super) header: Vec<u8>,
    /// In the order of [`Kind::ALL`].
    pub(super) sections: [Section; Kind::ALL.len()],
}

impl Parts {
    /// The file where nothing is encrypted.
    #[must_use]
    pub(crate) fn in_the_clear(self) -> IndexFile {
        let head_len = self.header.len();
        let mut bytes = self.header;
        self.sections.iter().for_each(|section| bytes.extend_from_slice(&section.directory));
        self.sections.iter().flat_map(|section| &section.pieces).for_each(|piece| bytes.extend_from_slice(piece));
        IndexFile { bytes, head_len }
    }
}

/// An index as it lies in a file.
pub(crate) struct IndexFile {
    pub(crate) bytes: Vec<u8>,
    /// As far as the header goes.
    pub(super) head_len: usize,
}

impl IndexFile {
    /// What the manifest line says of it beside the hash of all.
    #[must_use]
    pub(crate) fn head(&self) -> String {
        to_hex(&Sha256::digest(&self.bytes[..self.head_len]))
    }
}

/// The ports of one address by which the other side knew clients.
#[derive(Default)]
struct Endpoints {
    ports: Vec<u16>,
    /// Some row has it after translation; else it is its clients' own.
    is_translated: bool,
}

/// Values and the rows they are in.
#[derive(Default)]
struct Places {
    ranges: HashMap<Box<[u8]>, Vec<Range<u32>>, FixedState>,
    /// Rows of one client lie together: the value of the last row, not yet in `ranges`.
    open: Option<(Vec<u8>, Range<u32>)>,
}

impl Places {
    fn add(&mut self, value: &[u8], row: u32) {
        match &mut self.open {
            Some((open, range)) if open == value && range.end >= row => range.end = row + 1,
            _ => {
                self.close();
                self.open = Some((value.to_vec(), row..row + 1));
            }
        }
    }

    fn close(&mut self) {
        if let Some((value, range)) = self.open.take() {
            self.ranges.entry(value.into_boxed_slice()).or_default().push(range);
        }
    }

    fn into_section(mut self) -> Section {
        self.close();
        let mut values: Vec<_> = self.ranges.into_iter().collect();
        values.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        let mut section = SectionWriter::default();
        for (value, ranges) in &values {
            section.put(value, |piece, previous| {
                put_value(piece, previous, value);
                put_varint(piece, ranges.len() as u128);
                let mut end = 0;
                for range in ranges {
                    put_varint(piece, u128::from(range.start - end));
                    put_varint(piece, u128::from(range.end - range.start));
                    end = range.end;
                }
            });
        }
        section.finish()
    }
}

fn public_section(endpoints: HashMap<[u8; 16], Endpoints, FixedState>) -> Section {
    let mut endpoints: Vec<_> = endpoints.into_iter().collect();
    endpoints.sort_unstable_by_key(|(ip, _)| *ip);
    let mut section = SectionWriter::default();
    for (ip, Endpoints { ports, is_translated }) in &mut endpoints {
        ports.sort_unstable();
        ports.dedup();
        section.put(ip, |piece, previous| {
            put_value(piece, previous, ip);
            put_varint(piece, (ports.len() as u128) << 1 | u128::from(*is_translated));
            put_ports(piece, ports);
        });
    }
    section.finish()
}

fn put_ports(piece: &mut Vec<u8>, ports: &[u16]) {
    if ports.len() < BITMAP_FROM {
        let mut last = 0;
        for port in ports {
            put_varint(piece, u128::from(*port - last));
            last = *port;
        }
    } else {
        let mut bitmap = [0u8; BITMAP_BYTES];
        ports.iter().for_each(|port| bitmap[usize::from(port >> 3)] |= 1 << (port & 7));
        piece.extend_from_slice(&bitmap);
    }
}

fn peer_section(peers: HashSet<[u8; 16], FixedState>) -> Section {
    let mut peers: Vec<_> = peers.into_iter().collect();
    peers.sort_unstable();
    let mut section = SectionWriter::default();
    for peer in peers {
        section.put(&peer, |piece, previous| {
            let previous = previous.try_into().map_or(0, u128::from_be_bytes);
            put_varint(piece, u128::from_be_bytes(peer) - previous);
        });
    }
    section.finish()
}

/// One piece, whose first value is empty.
fn block_section(hashes: &[u8]) -> Section {
    let mut section = SectionWriter::default();
    section.put(&[], |piece, _| piece.extend_from_slice(hashes));
    section.finish()
}
