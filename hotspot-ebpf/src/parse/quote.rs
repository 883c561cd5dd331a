//! ICMP errors belong to the flow whose packet they quote, as connection tracking counts them too.
//!
//! An error is believed only where it goes to the address that sent the quoted packet; any other is a flow of its own, by type and
//! code. What it quotes is part of the packet's payload, of which only addresses and ports are read.

use super::transport::{self, ICMP, ICMP_LEN, ICMP_QUERY_START, ICMPV6, PORTS_LEN, Transport};
use super::{Address, Network, ipv4};
use crate::frame::Frame;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// Fragment offset; a later fragment has no ports.
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// The quoted packet, turned round: as if its destination answered.
#[derive(Clone, Copy)]
struct Quote {
    is_known: u32,
    protocol: u32,
    source: Address,
    destination: Address,
    first: u16,
    second: u16,
    has_sides: u32,
}

/// Makes the error a packet of the flow it quotes, where it quotes one.
#[inline(always)]
pub(super) fn attribute(frame: &Frame, network: &mut Network, transport: &mut Transport) {
    // A copy, so that the frame itself stays in registers.
    let frame = *frame;
    let mut quote =
        Quote { is_known: 0, protocol: 0, source: [0; 2], destination: [0; 2], first: 0, second: 0, has_sides: 0 };
    read(&frame, network.transport + ICMP_LEN, network.end, network.protocol as u32, &mut quote);
    if quote.is_known == 0 || quote.destination != network.destination {
        return;
    }
    network.source = quote.source;
    network.protocol = quote.protocol as u8;
    transport.first = quote.first;
    transport.second = quote.second;
    transport.has_sides = quote.has_sides != 0;
}

#[inline(never)]
fn read(frame: &Frame, offset: usize, end: usize, error_protocol: u32, quote: &mut Quote) {
    let header_len = if error_protocol == ICMP as u32 {
        let Some(header) = frame.bytes::<IPV4_LEN>(offset) else { return };
        if header.read::<u8, 0>() >> 4 != 4 || header.number::<6>() & FRAGMENT_OFFSET != 0 {
            return;
        }
        quote.protocol = header.read::<u8, 9>() as u32;
        quote.destination = ipv4::mapped(header.read::<u32, 12>());
        quote.source = ipv4::mapped(header.read::<u32, 16>());
        ((header.read::<u8, 0>() & 0x0f) as usize) * 4
    } else {
        let Some(header) = frame.bytes::<IPV6_LEN>(offset) else { return };
        if header.read::<u8, 0>() >> 4 != 6 {
            return;
        }
        // Extension headers of a quoted packet are not followed: what comes first is taken for the protocol, and it has no ports.
        quote.protocol = header.read::<u8, 6>() as u32;
        quote.destination = [header.read::<u64, 8>(), header.read::<u64, 16>()];
        quote.source = [header.read::<u64, 24>(), header.read::<u64, 32>()];
        IPV6_LEN
    };
    let protocol = quote.protocol as u8;
    let start = offset + header_len;
    if transport::has_ports(protocol) {
        let Some(ports) = frame.bytes::<PORTS_LEN>(start) else { return };
        if start + PORTS_LEN > end {
            return;
        }
        quote.first = ports.number::<2>();
        quote.second = ports.number::<0>();
        quote.has_sides = 1;
    } else if matches!(protocol, ICMP | ICMPV6) {
        let Some(header) = frame.bytes::<ICMP_QUERY_START>(start) else { return };
        if start + ICMP_QUERY_START > end || !transport::is_query(protocol, header.read::<u8, 0>()) {
            return;
        }
        quote.first = header.number::<4>();
        quote.second = header.number::<0>();
    } else {
        return;
    }
    quote.is_known = 1;
}
