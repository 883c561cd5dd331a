//! From the bytes of a frame to the key of its flow, or the outcome that says why there is none.
//!
//! Header lengths are read, never assumed; ports come from a transport header that is really there, never from payload or
//! padding. No byte past the transport header is read, but for the headers that ICMP errors quote and tunnels carry.

mod ethernet;
mod fragments;
mod ipv4;
mod ipv6;
mod quote;
mod transport;
mod tunnel;

use core::mem::MaybeUninit;

use hotspot_common::{Direction, FlowKey, Outcome};

use crate::frame::Frame;
use crate::settings;
use crate::sides::{self, Hook};
use ethernet::{Ethernet, Version};
use transport::Transport;

pub use ipv4::mapped;

pub struct Parsed {
    pub key: FlowKey,
    /// 0 for other protocols than TCP.
    pub tcp_flags: u8,
    /// Bytes from the start of the frame to the end of the transport header: what every segment of a GSO packet repeats. 0 where it was
    /// made use of, and nothing needs it any more.
    pub headers_len: usize,
}

/// An address in the key's form, as two machine words; words stay in registers where arrays of bytes would be copied.
pub type Address = [u64; 2];

/// What the network layer says.
struct Network {
    source: Address,
    destination: Address,
    protocol: u8,
    /// Where the transport header starts; 0 in a fragment that does not hold it.
    transport: usize,
    /// Where the IP packet ends; what follows is padding.
    end: usize,
    /// Which datagram this is a fragment of; see [`fragments`].
    datagram: u64,
}

/// What [`parse_into`] answers where it filled in `parsed`; else it is an [`Outcome`].
pub const PARSED: u32 = u32::MAX;

/// [`parse`] as a function of its own, out of the straight path's way: the registers and the stack it takes are given back.
#[inline(never)]
pub fn parse_into(frame: &Frame, is_egress: bool, parsed: &mut MaybeUninit<Parsed>) -> u32 {
    match parse(frame, if is_egress { Hook::Egress } else { Hook::Ingress }) {
        Ok(found) => {
            parsed.write(found);
            PARSED
        }
        Err(outcome) => outcome as u32,
    }
}

#[inline(always)]
pub fn parse(frame: &Frame, hook: Hook) -> Result<Parsed, Outcome> {
    let start = if settings::decapsulate() == 0 { 0 } else { tunnel::inner_frame(frame) };
    let ethernet = ethernet::parse(frame, start)?;
    let mut network = network(frame, &ethernet)?;
    let mut transport = Transport::default();
    transport::parse(frame, &mut network, &mut transport)?;
    let direction = sides::direction(hook, network.source, network.destination)?;
    let outward = matches!(direction, Direction::Out);
    let (client, peer, client_mac) = if outward {
        (network.source, network.destination, ethernet.source)
    } else {
        (network.destination, network.source, ethernet.destination)
    };
    let (client_port, peer_port) = if outward || !transport.has_sides {
        (transport.first, transport.second)
    } else {
        (transport.second, transport.first)
    };
    let origin = FlowKey::origin(settings::interface() as u8, direction);
    let key = FlowKey::from_words([
        client[0],
        client[1],
        peer[0],
        peer[1],
        client_mac | ethernet.vlan << 48,
        ethernet.inner_vlan
            | (client_port as u64) << 16
            | (peer_port as u64) << 32
            | (network.protocol as u64) << 48
            | (origin as u64) << 56,
    ]);
    Ok(Parsed { key, tcp_flags: transport.tcp_flags, headers_len: transport.headers_len })
}

/// Client and place of the ARP packet in a frame that [`parse`] found to be one.
#[inline(always)]
pub fn arp(frame: &Frame) -> Option<(FlowKey, usize)> {
    let start = if settings::decapsulate() == 0 { 0 } else { tunnel::inner_frame(frame) };
    let found = ethernet::arp(frame, start)?;
    let origin = FlowKey::origin(settings::interface() as u8, Direction::Out);
    let words = [0, 0, 0, 0, found.source | found.vlan << 48, found.inner_vlan | (origin as u64) << 56];
    Some((FlowKey::from_words(words), found.payload))
}

/// The ethertype of a frame that [`parse`] found to be of none that is read.
#[inline(always)]
pub fn ethertype(frame: &Frame) -> Option<u16> {
    let start = if settings::decapsulate() == 0 { 0 } else { tunnel::inner_frame(frame) };
    ethernet::ethertype(frame, start)
}

#[inline(always)]
fn network(frame: &Frame, ethernet: &Ethernet) -> Result<Network, Outcome> {
    match ethernet.version {
        Version::V4 => ipv4::parse(frame, ethernet.payload),
        Version::V6 => ipv6::parse(frame, ethernet.payload),
    }
}

#[cfg(not(target_endian = "little"))]
compile_error!("the key is put together from little-endian words");
