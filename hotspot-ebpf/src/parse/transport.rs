//! Ports, TCP flags, ICMP type and code: the first bytes of what IP carries.

use hotspot_common::Outcome;

use super::Network;
use crate::frame::Frame;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

const PORTS_LEN: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
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
pub(super) fn parse(frame: &Frame, network: &Network, transport: &mut Transport) -> Result<(), Outcome> {
    let offset = network.transport;
    if offset == 0 {
        return Ok(());
    }
    match network.protocol {
        TCP | UDP | SCTP | DCCP | UDP_LITE => ports(frame, network, transport),
        ICMP | ICMPV6 => icmp(frame, network, transport),
        _ => {
            transport.headers_len = offset;
            Ok(())
        }
    }
}

#[inline(always)]
fn ports(frame: &Frame, network: &Network, transport: &mut Transport) -> Result<(), Outcome> {
    let offset = network.transport;
    let Some(source) = frame.read::<u16>(offset) else { return Err(Outcome::TruncatedTransport) };
    let Some(destination) = frame.read::<u16>(offset + 2) else { return Err(Outcome::TruncatedTransport) };
    if offset + PORTS_LEN > network.end {
        return Err(Outcome::TruncatedTransport);
    }
    transport.first = u16::from_be(source);
    transport.second = u16::from_be(destination);
    transport.has_sides = true;
    transport.headers_len = offset + UDP_HEADER_LEN;
    // A first fragment may hold no more of TCP than its first 8 bytes (RFC 791 §3.2); the ports are still evidence.
    if network.protocol == TCP && offset + TCP_FLAGS < network.end {
        let Some([data_offset, flags]) = frame.read::<u16>(offset + TCP_DATA_OFFSET).map(u16::to_ne_bytes) else {
            return Err(Outcome::TruncatedTransport);
        };
        transport.tcp_flags = flags;
        transport.headers_len = offset + ((data_offset >> 4) as usize) * 4;
    }
    Ok(())
}

#[inline(always)]
fn icmp(frame: &Frame, network: &Network, transport: &mut Transport) -> Result<(), Outcome> {
    let offset = network.transport;
    let Some(type_and_code) = frame.read::<u16>(offset).map(u16::from_be) else {
        return Err(Outcome::TruncatedTransport);
    };
    if offset + PORTS_LEN > network.end {
        return Err(Outcome::TruncatedTransport);
    }
    if is_query(network.protocol, (type_and_code >> 8) as u8) && offset + 6 <= network.end {
        let Some(identifier) = frame.read::<u16>(offset + 4) else { return Err(Outcome::TruncatedTransport) };
        transport.first = u16::from_be(identifier);
    }
    transport.second = type_and_code;
    transport.headers_len = offset + 8;
    Ok(())
}

/// Types with an identifier: echo, timestamp, information, address mask (RFC 792, RFC 950), ICMPv6 echo (RFC 4443).
#[inline(always)]
fn is_query(protocol: u8, icmp_type: u8) -> bool {
    match protocol {
        ICMP => matches!(icmp_type, 0 | 8 | 13..=18),
        _ => matches!(icmp_type, 128 | 129),
    }
}
