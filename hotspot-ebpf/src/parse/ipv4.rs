//! IPv4 (RFC 791), with options and fragments.

use hotspot_common::Outcome;

use super::fragments::{WHOLE, datagram};
use super::{Address, Network};
use crate::frame::Frame;

const HEADER_MIN: usize = 20;
/// Fragment offset, in units of 8 bytes.
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// The flag of every fragment but the last.
const MORE_FRAGMENTS: u16 = 0x2000;

#[inline(always)]
pub(super) fn parse(frame: &Frame, offset: usize) -> Result<Network, Outcome> {
    let Some(header) = frame.bytes::<HEADER_MIN>(offset) else { return Err(Outcome::BadIpv4) };
    let version_ihl = header.read::<u8, 0>();
    let total_len = header.number::<2>();
    let fragment = header.number::<6>();
    let header_len = ((version_ihl & 0x0f) as usize) * 4;
    if version_ihl >> 4 != 4 || header_len < HEADER_MIN {
        return Err(Outcome::BadIpv4);
    }
    // A packet too large for the field says 0; only segmentation offload makes those ("BIG TCP").
    let stated = if total_len == 0 && frame.is_gso() { frame.len() } else { offset + total_len as usize };
    // Mirror ports may cut packets: what is left of one is still of its flow.
    let end = if stated > frame.len() { frame.len() } else { stated };
    if offset + header_len > end {
        return Err(Outcome::BadIpv4);
    }
    let first = fragment & FRAGMENT_OFFSET == 0;
    Ok(Network {
        source: mapped(header.read::<u32, 12>()),
        destination: mapped(header.read::<u32, 16>()),
        protocol: header.read::<u8, 9>(),
        transport: if first { offset + header_len } else { 0 },
        end,
        datagram: if fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) == 0 {
            WHOLE
        } else {
            datagram(header.number::<4>() as u32)
        },
    })
}

/// The third word of a mapped address, as it lies in memory.
pub(super) const MAPPED: u32 = 0xffff_0000;

/// `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2), from the address as it lies in memory.
#[inline(always)]
pub fn mapped(address: u32) -> Address {
    [0, (address as u64) << 32 | MAPPED as u64]
}
