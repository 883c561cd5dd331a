//! IPv6 (RFC 8200), with its chain of extension headers.

use hotspot_common::Outcome;

use super::{Address, Network};
use crate::frame::Frame;

const HEADER_LEN: usize = 40;
/// How many extension headers are followed; a longer chain is an outcome. RFC 8504 §5.3 lets nodes refuse such chains.
const EXTENSIONS_MAX: usize = 8;

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
    let Some([version, _]) = frame.read::<u16>(offset).map(u16::to_ne_bytes) else { return Err(Outcome::BadIpv6) };
    let Some(payload_len) = frame.read::<u16>(offset + 4).map(u16::from_be) else { return Err(Outcome::BadIpv6) };
    let Some([next, _]) = frame.read::<u16>(offset + 6).map(u16::to_ne_bytes) else { return Err(Outcome::BadIpv6) };
    let Some(source) = address(frame, offset + 8) else { return Err(Outcome::BadIpv6) };
    let Some(destination) = address(frame, offset + 24) else { return Err(Outcome::BadIpv6) };
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
        let Some([following, len_field]) = frame.read::<u16>(offset).map(u16::to_ne_bytes) else {
            return Err(Outcome::TruncatedExtension);
        };
        let len = match next {
            // RFC 4302 §2.2: in units of 4 bytes, minus 2.
            AUTHENTICATION => 8 + len_field as usize * 4,
            FRAGMENT => 8,
            _ => 8 + len_field as usize * 8,
        };
        if offset + len > end {
            return Err(Outcome::TruncatedExtension);
        }
        if next == FRAGMENT {
            let Some(fragment) = frame.read::<u16>(offset + 2).map(u16::from_be) else {
                return Err(Outcome::TruncatedExtension);
            };
            if fragment >> 3 != 0 {
                return Ok((following, 0));
            }
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

#[inline(always)]
fn address(frame: &Frame, offset: usize) -> Option<Address> {
    Some([frame.read::<u64>(offset)?, frame.read::<u64>(offset + 8)?])
}
