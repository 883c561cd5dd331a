//! Ports, TCP flags, ICMP type and code: the first bytes of what IP carries.

use hotspot_common::Outcome;

use super::fragments::{self, WHOLE};
use super::{Network, quote};
use crate::frame::Frame;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const DCCP: u8 = 33;
pub(super) const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

pub(super) const PORTS_LEN: usize = 4;
/// Up to the flags.
const TCP_START: usize = 14;
/// Type, code and checksum.
const ICMP_START: usize = 4;
/// The whole header; what errors quote comes after it.
pub(super) const ICMP_LEN: usize = 8;
/// With the identifier.
pub(super) const ICMP_QUERY_START: usize = 6;
const UDP_HEADER_LEN: usize = 8;

#[derive(Default)]
pub(super) struct Transport {
    /// Source port, or the identifier of an ICMP query.
    pub(super) first: u16,
    /// Destination port, or ICMP type (high byte) and code.
    pub(super) second: u16,
    /// Whether `first` belongs to the source and `second` to the destination.
    pub(super) has_sides: bool,
    pub(super) tcp_flags: u8,
    /// As in [`super::Parsed`]; 0 where the transport header is not known.
    pub(super) headers_len: usize,
}

/// Fills in a transport that was all zeros.
///
/// Not returned: the compiler would compute with what a failed parse leaves undefined, which the verifier refuses.
#[inline(always)]
pub(super) fn parse(frame: &Frame, network: &mut Network, transport: &mut Transport) -> Result<(), Outcome> {
    network.transport = frame.anywhere(network.transport);
    let offset = network.transport;
    if offset == 0 {
        fragments::recall(network, transport);
        return Ok(());
    }
    match network.protocol {
        protocol if has_ports(protocol) => ports(frame, network, transport)?,
        ICMP | ICMPV6 => icmp(frame, network, transport)?,
        _ => transport.headers_len = offset,
    }
    if network.datagram != WHOLE {
        fragments::note(network, transport);
    }
    Ok(())
}

/// Whether a protocol's header begins with two ports.
#[inline(always)]
pub(super) fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP | DCCP | UDP_LITE)
}

#[inline(always)]
fn ports(frame: &Frame, network: &Network, transport: &mut Transport) -> Result<(), Outcome> {
    let offset = network.transport;
    let Some(ports) = frame.bytes::<PORTS_LEN>(offset) else { return Err(Outcome::TruncatedTransport) };
    if offset + PORTS_LEN > network.end {
        return Err(Outcome::TruncatedTransport);
    }
    transport.first = ports.number::<0>();
    transport.second = ports.number::<2>();
    transport.has_sides = true;
    transport.headers_len = offset + UDP_HEADER_LEN;
    // A first fragment may hold no more of TCP than its first 8 bytes (RFC 791 §3.2); the ports are still evidence.
    if network.protocol == TCP && offset + TCP_START <= network.end {
        let Some(header) = frame.bytes::<TCP_START>(offset) else { return Err(Outcome::TruncatedTransport) };
        transport.tcp_flags = header.read::<u8, 13>();
        transport.headers_len = offset + ((header.read::<u8, 12>() >> 4) as usize) * 4;
    }
    Ok(())
}

#[inline(always)]
fn icmp(frame: &Frame, network: &mut Network, transport: &mut Transport) -> Result<(), Outcome> {
    let offset = network.transport;
    let Some(header) = frame.bytes::<ICMP_START>(offset) else { return Err(Outcome::TruncatedTransport) };
    if offset + ICMP_START > network.end {
        return Err(Outcome::TruncatedTransport);
    }
    let icmp_type = header.read::<u8, 0>();
    transport.headers_len = offset + ICMP_LEN;
    transport.second = header.number::<0>();
    if is_query(network.protocol, icmp_type) && offset + ICMP_QUERY_START <= network.end {
        let Some(query) = frame.bytes::<ICMP_QUERY_START>(offset) else { return Err(Outcome::TruncatedTransport) };
        transport.first = query.number::<4>();
    }
    if is_error(network.protocol, icmp_type) {
        quote::attribute(frame, network, transport);
    }
    Ok(())
}

/// Types with an identifier: echo, timestamp, information, address mask (RFC 792, RFC 950), ICMPv6 echo (RFC 4443).
#[inline(always)]
pub(super) fn is_query(protocol: u8, icmp_type: u8) -> bool {
    match protocol {
        ICMP => matches!(icmp_type, 0 | 8 | 13..=18),
        _ => matches!(icmp_type, 128 | 129),
    }
}

/// Types that quote the packet they are about: unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792),
/// and their like in ICMPv6 (RFC 4443 §2.1: those below 128; only the four that are defined).
#[inline(always)]
fn is_error(protocol: u8, icmp_type: u8) -> bool {
    match protocol {
        ICMP => matches!(icmp_type, 3..=5 | 11 | 12),
        _ => matches!(icmp_type, 1..=4),
    }
}
