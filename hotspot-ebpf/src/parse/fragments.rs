//! Later fragments join the flow of the first: only it has ports.
//!
//! Remembers what the first fragment of a datagram said, for as long as a receiver would wait for the rest. A later fragment that
//! comes before the first, or long after it, is a packet of its address pair, without ports. Nothing counted lives here: an
//! element that is pushed out costs a fragment its ports, never its count.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::macros::btf_map;
use hotspot_common::flow::ICMP_NOT_KNOWN;

use super::transport::{ICMP, ICMPV6, Transport};
use super::{Address, Network};
use crate::clock;
use crate::settings;

/// In [`Network::datagram`]: not a fragment.
pub(super) const WHOLE: u64 = 0;

/// In [`Network::datagram`]: a fragment, and the identification its datagram has.
#[inline(always)]
pub(super) fn datagram(identification: u32) -> u64 {
    1 << 32 | identification as u64
}

/// RFC 791 §3.2 and RFC 8200 §4.5 let a receiver wait this long; after it an identification may be used again.
const REMEMBERED_NS: u64 = 60_000_000_000;

/// What all fragments of a datagram share (RFC 791 §3.2). No padding.
#[repr(C)]
struct Datagram {
    source: Address,
    destination: Address,
    identification: u64,
    protocol: u32,
    interface: u32,
}

/// What only the first fragment holds.
#[repr(C)]
struct First {
    seen_ns: u64,
    first: u16,
    second: u16,
    has_sides: u32,
}

#[btf_map]
static FRAGMENTS: LruHashMap<Datagram, First, 16_384> = LruHashMap::new();

/// Remembers a first fragment.
#[inline(always)]
pub(super) fn note(network: &Network, transport: &Transport) {
    let first =
        First { seen_ns: 0, first: transport.first, second: transport.second, has_sides: transport.has_sides as u32 };
    insert(&key(network), &first);
}

/// Gives a later fragment the ports of the first, where that was seen.
#[inline(always)]
pub(super) fn recall(network: &Network, transport: &mut Transport) {
    let second = if matches!(network.protocol, ICMP | ICMPV6) { ICMP_NOT_KNOWN } else { 0 };
    let mut first = First { seen_ns: 0, first: 0, second, has_sides: 0 };
    find(&key(network), &mut first);
    transport.first = first.first;
    transport.second = first.second;
    transport.has_sides = first.has_sides != 0;
}

#[inline(always)]
fn key(network: &Network) -> Datagram {
    Datagram {
        source: network.source,
        destination: network.destination,
        identification: network.datagram,
        protocol: network.protocol as u32,
        interface: settings::interface(),
    }
}

/// Apart from the hot path, which keeps its registers this way.
#[inline(never)]
fn insert(datagram: &Datagram, first: &First) {
    let first = First { seen_ns: clock::monotonic_ns(), ..*first };
    // Where it fails the later fragments have no ports.
    let _ = FRAGMENTS.insert(datagram, &first, BPF_ANY as u64);
}

#[inline(never)]
fn find(datagram: &Datagram, found: &mut First) {
    let Some(first) = FRAGMENTS.get_ptr(datagram) else { return };
    // SAFETY: a live element; another CPU may be writing it, which mixes up no more than one datagram's ports with another's
    // of the same identification.
    let first = unsafe { &*first };
    if clock::monotonic_ns().wrapping_sub(first.seen_ns) > REMEMBERED_NS {
        return;
    }
    found.first = first.first;
    found.second = first.second;
    found.has_sides = first.has_sides;
}
