//! IPv6 (RFC 8200), with its chain of extension headers.

use hotspot_common::Outcome;

use super::fragments::{WHOLE, datagram};
use super::{Address, Network, ipv4};
use crate::frame::Frame;

const HEADER_LEN: usize = 40;
/// How many extension headers are followed; a longer chain is an outcome. RFC 8504 §5.3 lets nodes refuse such chains.
const EXTENSIONS_MAX: usize = 8;

/// No extension header is shorter than 8 bytes; the first four hold all that is asked here.
const EXTENSION_START: usize = 4;

/// The fragment header (RFC 8200 §4.5).
const FRAGMENT_LEN: usize = 8;
const RESERVED: u16 = 0b110;

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
    let stated = if payload_len == 0 && next == HOP_BY_HOP || payload_len == 0 && frame.is_gso() {
        frame.len()
    } else {
        offset + HEADER_LEN + payload_len as usize
    };
    // Mirror ports may cut packets: what is left of one is still of its flow.
    let end = if stated > frame.len() { frame.len() } else { stated };
    if version >> 4 != 6 || is_mapped(source) || is_mapped(destination) {
        return Err(Outcome::BadIpv6);
    }
    let chain = follow(frame, next, offset + HEADER_LEN, end)?;
    let Chain { protocol, transport, datagram } = chain;
    Ok(Network { source, destination, protocol, transport, end, datagram })
}

/// Whether an address has the form in which keys hold IPv4. No packet may carry one, and Linux takes none with such a source
/// (`ip6_rcv_core` in net/ipv6/ip6_input.c): in a key it would be IPv4's, and could be forged.
#[inline(always)]
fn is_mapped(address: Address) -> bool {
    address[0] == 0 && address[1] as u32 == ipv4::MAPPED
}

/// What the extension headers lead to; the fields are those of [`Network`].
struct Chain {
    protocol: u8,
    transport: usize,
    datagram: u64,
}

#[inline(always)]
fn follow(frame: &Frame, first: u8, start: usize, end: usize) -> Result<Chain, Outcome> {
    let mut fragment = WHOLE;
    let mut next = first;
    let mut offset = start;
    for _ in 0..EXTENSIONS_MAX {
        if !is_extension(next) {
            return Ok(Chain { protocol: next, transport: offset, datagram: fragment });
        }
        let Some(header) = frame.bytes::<EXTENSION_START>(offset) else { return Err(Outcome::TruncatedExtension) };
        let (following, len_field) = (header.read::<u8, 0>(), header.read::<u8, 1>());
        let len = match next {
            // RFC 4302 §2.2: in units of 4 bytes, minus 2.
            AUTHENTICATION => 8 + len_field as usize * 4,
            FRAGMENT => FRAGMENT_LEN,
            _ => 8 + len_field as usize * 8,
        };
        if offset + len > end {
            return Err(Outcome::TruncatedExtension);
        }
        if next == FRAGMENT {
            let Some(header) = frame.bytes::<FRAGMENT_LEN>(offset) else { return Err(Outcome::TruncatedExtension) };
            // Offset in units of 8 bytes, two reserved bits, and whether more follow: all zero in an "atomic" fragment (RFC 6946).
            let position = header.number::<2>() & !RESERVED;
            if position != 0 {
                fragment = datagram(header.read::<u32, 4>());
            }
            if position >> 3 != 0 {
                return Ok(Chain { protocol: following, transport: 0, datagram: fragment });
            }
        }
        next = following;
        offset = frame.anywhere(offset + len);
    }
    if is_extension(next) {
        return Err(Outcome::TooManyExtensions);
    }
    Ok(Chain { protocol: next, transport: offset, datagram: fragment })
}

#[inline(always)]
fn is_extension(header: u8) -> bool {
    matches!(header, HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | HIP | SHIM6 | AUTHENTICATION | FRAGMENT)
}
