//! The flow cache: key, slot, birth, ring record, overflow total.

use crate::WAYS;

/// Which way a packet travelled, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Client to peer.
    Out,
    /// Peer to client.
    In,
}

/// Set in [`FlowKey::origin`] for packets from peer to client; the other bits are the interface.
const ORIGIN_IN: u8 = 0x80;

/// [`FlowKey::peer_port`] of ICMP where only the first fragment of a datagram, which was not seen, says type and code. Type 255 is
/// reserved in both versions (RFC 4443 §2.1); 0 would be an echo reply.
pub const ICMP_NOT_KNOWN: u16 = 0xffff;

/// What makes two packets belong to the same flow and direction.
///
/// `repr(C)`, 48 bytes, no padding. Addresses are in network byte order, IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
/// The MAC is part of the key: two devices that claim one address are two flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct FlowKey {
    pub client_ip: [u8; 16],
    pub peer_ip: [u8; 16],
    pub client_mac: [u8; 6],
    /// Outer VLAN identifier, 1 to 4094; 0 where the frame carries no tag or only a priority tag.
    pub vlan: u16,
    /// Inner VLAN identifier of a double-tagged frame, 0 otherwise.
    pub inner_vlan: u16,
    /// TCP, UDP, SCTP: the client's port. ICMP, ICMPv6: the identifier of a query, 0 otherwise. Later fragments: 0.
    pub client_port: u16,
    /// TCP, UDP, SCTP: the peer's port. ICMP, ICMPv6: type in the high byte, code in the low one. Later fragments: 0, of ICMP
    /// [`ICMP_NOT_KNOWN`].
    pub peer_port: u16,
    /// IP protocol number; for IPv6 that of the first header that is not an extension header.
    pub protocol: u8,
    /// Interface (low 7 bits) and direction (high bit); see [`FlowKey::origin`].
    pub origin: u8,
}

impl FlowKey {
    /// The value of the field `origin` for an interface and a direction.
    #[must_use]
    pub const fn origin(interface: u8, direction: Direction) -> u8 {
        match direction {
            Direction::Out => interface & !ORIGIN_IN,
            Direction::In => interface | ORIGIN_IN,
        }
    }

    #[must_use]
    pub const fn direction(&self) -> Direction {
        if self.origin & ORIGIN_IN == 0 { Direction::Out } else { Direction::In }
    }

    /// The agent's number for the interface, below [`INTERFACES_MAX`](crate::INTERFACES_MAX).
    #[must_use]
    pub const fn interface(&self) -> u8 {
        self.origin & !ORIGIN_IN
    }

    /// The key made of the words [`Self::words`] gives.
    #[must_use]
    #[inline(always)]
    pub const fn from_words(words: [u64; 6]) -> Self {
        // SAFETY: same size, no padding (asserted below); every bit pattern is a key.
        unsafe { core::mem::transmute(words) }
    }

    /// The key as machine words, for hashing and comparing.
    #[must_use]
    #[inline(always)]
    pub const fn words(&self) -> &[u64; 6] {
        // SAFETY: FlowKey is repr(C), 48 bytes, aligned to 8 and without padding (asserted below); every bit pattern is a u64.
        unsafe { &*core::ptr::from_ref(self).cast::<[u64; 6]>() }
    }
}

/// One slot of the flow cache: what one CPU counted for one key in one generation. One cache line.
///
/// A slot with `packets == 0` is empty. A 32-bit field that would wrap evicts the slot first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Slot {
    pub key: FlowKey,
    /// Bytes on the wire: Ethernet frame without FCS, each segment of a GSO packet with its own headers.
    pub bytes: u32,
    /// Packets on the wire.
    pub packets: u32,
    /// Low 32 bits of the kernel's jiffies at the last packet (`bpf_jiffies64`, include/linux/jiffies.h).
    pub last_jiffies: u32,
    /// TCP flags seen, or-ed (RFC 9293 §3.1, byte 13 of the header).
    pub tcp_flags: u8,
    pub padding: [u8; 3],
}

/// The slots a flow may lie in, and when each was claimed: one element of the map `SLOTS`, five cache lines.
///
/// Adding to a known flow touches the line of its slot only; claiming one finds the line of the births on the same page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Set {
    pub slots: [Slot; WAYS as usize],
    pub births: [Birth; WAYS as usize],
}

/// When a slot was claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Birth {
    /// `CLOCK_MONOTONIC` at the slot's first packet, nanoseconds (`bpf_ktime_get_ns`).
    pub first_ns: u64,
    /// Low 32 bits of jiffies at the same moment: end = `first_ns` + (`last_jiffies` − `first_jiffies`) ticks.
    pub first_jiffies: u32,
    pub padding: u32,
}

/// What a record of the flow ring says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// A flow's first packet; the slot's counters are zero, because the flow is counted in the cache.
    Opened = 1,
    /// A slot gave way to another flow; its counters are here and nowhere else.
    Evicted = 2,
}

impl EventKind {
    /// Parses the integer of a ring record; `None` for a value no program of this layout writes.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Opened),
            2 => Some(Self::Evicted),
            _ => None,
        }
    }
}

/// One record of a CPU's flow ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowEvent {
    pub key: FlowKey,
    pub birth: Birth,
    pub bytes: u32,
    pub packets: u32,
    pub last_jiffies: u32,
    /// An [`EventKind`] as integer.
    pub kind: u32,
    /// Low 32 bits of the generation the slot was counted in.
    pub generation: u32,
    pub tcp_flags: u8,
    pub padding: [u8; 3],
}

/// Whose total a packet is added to when neither slot nor ring has room for its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct OverflowKey {
    pub client_ip: [u8; 16],
    pub client_mac: [u8; 6],
    /// As in [`FlowKey::origin`].
    pub origin: u8,
    /// Lowest bit of the generation: the half of the cache this total goes with.
    pub half: u8,
}

/// Packets and bytes of one client that could not be kept per flow, as one CPU counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OverflowTotal {
    pub packets: u64,
    pub bytes: u64,
    /// `CLOCK_MONOTONIC` of the first packet, nanoseconds.
    pub first_ns: u64,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 48 && align_of::<FlowKey>() == 8);
    assert!(core::mem::offset_of!(FlowKey, client_mac) == 32);
    assert!(core::mem::offset_of!(FlowKey, client_port) == 42);
    assert!(core::mem::offset_of!(FlowKey, origin) == 47);
    assert!(size_of::<Slot>() == 64 && align_of::<Slot>() == 64);
    assert!(core::mem::offset_of!(Slot, bytes) == 48);
    assert!(core::mem::offset_of!(Slot, tcp_flags) == 60);
    assert!(size_of::<Birth>() == 16);
    assert!(size_of::<Set>() == 5 * 64 && core::mem::offset_of!(Set, births) == 4 * 64);
    assert!(size_of::<FlowEvent>() == 88);
    assert!(core::mem::offset_of!(FlowEvent, kind) == 76);
    assert!(size_of::<OverflowKey>() == 24);
    assert!(size_of::<OverflowTotal>() == 24);
};
