//! IPv6 (RFC 8200), with its chain of extension headers.

use hotspot_common::Outcome;

use super::Network;
use crate::frame::Frame;

const HEADER_LEN: usize = 40;
/// How many extension headers are followed; a longer chain is an outcome. RFC 8504 §5.3 lets nodes refuse such chains.
const EXTENSIONS_MAX: usize = 8;

/// No extension header is shorter than 8 bytes; the first four hold all that is asked here.
const EXTENSION_START: usize = 4;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

#[inline(always)]
pub(super) fn parse(frame: &Frame, offset: usize) -> Result<Network, Outcome> {
    let Some(header) = frame.bytes::<HEADER_LEN>(offset) else { return Err(Outcome::BadIpv6) };
    let version = header.read::<u8, 0>();
    let payload_len = header.number::<4>();
    let next = header.read::<u8, 6>();
    let source = [header.read::<u64, 8>(), header.read::<u64, 16>()];
    let destination = [header.read::<u64, 24>(), header.read::<u64, 32>()];
    // A jumbogram (RFC 2675) and a packet too large for the field ("BIG TCP") say 0.
    let end = if payload_len == 0 && next == HOP_BY_HOP || payload_len == 0 && frame.is_gso() {
        frame.len()
    } else {
        offset + HEADER_LEN + payload_len as usize
    };
    if version >> 4 != 6 || end > frame.len() {
        return Err(Outcome::BadIpv6);
    }
    let (protocol, transport) = follow(frame, next, offset + HEADER_LEN, end)?;
    Ok(Network { source, destination, protocol, transport, end })
}

/// The protocol after the extension headers, and where it starts; 0 in a later fragment.
#[inline(always)]
fn follow(frame: &Frame, first: u8, start: usize, end: usize) -> Result<(u8, usize), Outcome> {
    let mut next = first;
    let mut offset = start;
    for _ in 0..EXTENSIONS_MAX {
        if !is_extension(next) {
            return Ok((next, offset));
        }
        let Some(header) = frame.bytes::<EXTENSION_START>(offset) else { return Err(Outcome::TruncatedExtension) };
        let (following, len_field) = (header.read::<u8, 0>(), header.read::<u8, 1>());
        let len = match next {
            // RFC 4302 §2.2: in units of 4 bytes, minus 2.
            AUTHENTICATION => 8 + len_field as usize * 4,
            FRAGMENT => 8,
            _ => 8 + len_field as usize * 8,
        };
        if offset + len > end {
            return Err(Outcome::TruncatedExtension);
        }
        if next == FRAGMENT && header.number::<2>() >> 3 != 0 {
            return Ok((following, 0));
        }
        next = following;
        offset += len;
    }
    if is_extension(next) { Err(Outcome::TooManyExtensions) } else { Ok((next, offset)) }
}

#[inline(always)]
fn is_extension(header: u8) -> bool {
    matches!(header, HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | HIP | SHIM6 | AUTHENTICATION | FRAGMENT)
}
