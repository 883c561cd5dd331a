//! Notices: the few frames by which devices say who they are and which address is theirs, copied to the agent.
//!
//! DHCP, DHCPv6, ARP and neighbour discovery only. They hold addresses and names of devices, nothing that a user said to anybody.

/// Bytes of a message that are copied at most: what an Ethernet frame of 1 500 bytes holds behind IPv4 and UDP.
pub const NOTICE_PAYLOAD_MAX: usize = 1472;

/// Size of the ring of notices; there is one for all CPUs, because these frames are rare.
pub const NOTICE_RING_BYTES: u32 = 1 << 20;

/// What a notice holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NoticeKind {
    /// The ARP packet (RFC 826).
    Arp = 1,
    /// The ICMPv6 message (RFC 4861): router and neighbour solicitations and advertisements.
    NeighbourDiscovery = 2,
    /// The UDP payload (RFC 2131).
    Dhcp = 3,
    /// The UDP payload (RFC 8415).
    Dhcpv6 = 4,
}

impl NoticeKind {
    /// Parses the integer of a record; `None` for a value no program of this layout writes.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Arp),
            2 => Some(Self::NeighbourDiscovery),
            3 => Some(Self::Dhcp),
            4 => Some(Self::Dhcpv6),
            _ => None,
        }
    }
}

/// What precedes the message in a record of the ring; the record is as long as the message needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NoticeHeader {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub seen_ns: u64,
    /// As in `FlowKey`; zero for ARP.
    pub client_ip: [u8; 16],
    /// As in `FlowKey`: the frame's source on the way out, its destination on the way in.
    pub client_mac: [u8; 6],
    /// Outer VLAN identifier, 0 for none.
    pub vlan: u16,
    pub inner_vlan: u16,
    /// Interface and direction, as in `FlowKey`.
    pub origin: u8,
    /// A [`NoticeKind`] as integer.
    pub kind: u8,
    /// Bytes of the message in this record.
    pub payload_len: u16,
    /// Whether the frame left by the interface, which no client's frame does on its way in; 0 or 1. Programs of before the flag say 0.
    pub has_left: u8,
    pub padding: u8,
}

/// Where a CPU puts a notice together.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Notice {
    pub header: NoticeHeader,
    pub payload: [u8; NOTICE_PAYLOAD_MAX],
}

const _: () = {
    assert!(size_of::<NoticeHeader>() == 40);
    assert!(core::mem::offset_of!(NoticeHeader, client_mac) == 24);
    assert!(core::mem::offset_of!(NoticeHeader, payload_len) == 36);
    assert!(size_of::<Notice>() == 40 + NOTICE_PAYLOAD_MAX);
};
