//! The straight path: TCP and UDP right in IP with no or one tag, as nearly every packet is, read with few checks and few instructions.
//!
//! Knows nothing that [`parse`](crate::parse) does not know: what is not exactly of this form, or may need more than adding to a slot,
//! is `None` and goes there. A test gives both the same frames.

use hotspot_common::{Direction, FlowKey};

use crate::cache::Words;
use crate::frame::Frame;
use crate::parse::mapped;
use crate::settings;
use crate::sides::Hook;

/// UDP's header, and TCP's up to the flags.
const UDP_LEN: usize = 8;
const TCP_LEN: usize = 14;

const ETHERNET_LEN: usize = 14;
/// IEEE 802.1Q.
const TAG_LEN: usize = 4;

// Where headers start in a frame without a tag; a tag moves them all.
const IPV4: usize = ETHERNET_LEN;
const IPV4_TRANSPORT: usize = IPV4 + 20;
const IPV6: usize = ETHERNET_LEN;
const IPV6_TRANSPORT: usize = IPV6 + 40;

/// What devices send there is copied by [`notice`](crate::notice).
const DHCP_SERVER: u16 = 67;
const DHCPV6_SERVER: u16 = 547;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN_ACK: u8 = 0b0001_0010;
const SYN: u8 = 0b0000_0010;

/// As [`crate::parse::Parsed`], in registers.
pub struct Plain {
    pub key: Words,
    pub tcp_flags: u8,
    pub headers_len: usize,
}

/// Ethernet of a frame that may be one for the straight path.
pub struct Link {
    /// The client's address, and above it its VLAN.
    mac_and_vlan: u64,
    /// Bytes of tags in the frame.
    tag_len: usize,
}

/// Ethernet with no tag, or one in the frame or its metadata.
#[inline(always)]
pub fn link(frame: &Frame, hook: Hook) -> Option<Link> {
    if settings::is_plain() == 0 {
        return None;
    }
    let start = frame.bytes::<{ ETHERNET_LEN + TAG_LEN }>(0)?;
    // Each with the two bytes after it.
    let (source, destination) = (start.read::<u64, 6>(), start.read::<u64, 0>());
    let mac = sides(hook, source, destination).0 << 16 >> 16;
    let (control, tag_len) = match (frame.metadata_tag(), start.number::<12>()) {
        // Another in the frame is no IP.
        (Some(control), _) => (control, 0),
        (None, 0x8100 | 0x88a8) => (start.number::<14>(), TAG_LEN),
        (None, _) => return Some(Link { mac_and_vlan: mac, tag_len: 0 }),
    };
    Some(Link { mac_and_vlan: mac | (control as u64) << 52 >> 4, tag_len: frame.anywhere(tag_len) })
}

/// IPv4 without options that is no fragment, and TCP or UDP.
#[inline(always)]
pub fn ipv4(frame: &Frame, link: &Link, hook: Hook) -> Option<Plain> {
    let start = frame.bytes::<{ IPV4_TRANSPORT + UDP_LEN }>(link.tag_len)?;
    // Ethertype, version and header length as they lie in memory.
    if start.read::<u32, 12>() & 0x00ff_ffff != 0x45_0008 {
        return None;
    }
    // A fragment's offset, and whether more follow.
    if start.number::<20>() & 0x3fff != 0 {
        return None;
    }
    let end = IPV4 + start.number::<16>() as usize;
    if end + link.tag_len > frame.len() {
        return None;
    }
    let tcp = || {
        let start = frame.bytes::<{ IPV4_TRANSPORT + TCP_LEN }>(link.tag_len)?;
        Some(start.read::<u16, { IPV4_TRANSPORT + 12 }>())
    };
    let (protocol, ports) = (start.read::<u8, 23>(), start.read_pair::<IPV4_TRANSPORT>());
    let transport = Transport::new(protocol, ports, tcp, end, IPV4_TRANSPORT)?;
    let (source, destination) = (mapped(start.read::<u32, 26>())[1], mapped(start.read::<u32, 30>())[1]);
    let (client, peer) = sides(hook, source, destination);
    transport.plain([0, client, 0, peer], link, hook, DHCP_SERVER)
}

/// IPv6 without extension headers, and TCP or UDP.
#[inline(always)]
pub fn ipv6(frame: &Frame, link: &Link, hook: Hook) -> Option<Plain> {
    let start = frame.bytes::<{ IPV6_TRANSPORT + UDP_LEN }>(link.tag_len)?;
    // Ethertype and version.
    if start.read::<u32, 12>() & 0x00f0_ffff != 0x60_dd86 {
        return None;
    }
    let end = IPV6_TRANSPORT + start.number::<18>() as usize;
    if end + link.tag_len > frame.len() {
        return None;
    }
    let tcp = || {
        let start = frame.bytes::<{ IPV6_TRANSPORT + TCP_LEN }>(link.tag_len)?;
        Some(start.read::<u16, { IPV6_TRANSPORT + 12 }>())
    };
    let (protocol, ports) = (start.read::<u8, 20>(), start.read_pair::<IPV6_TRANSPORT>());
    let transport = Transport::new(protocol, ports, tcp, end, IPV6_TRANSPORT)?;
    let (client_high, peer_high) = sides(hook, start.read::<u64, 22>(), start.read::<u64, 38>());
    // May be in the form of IPv4's, which is refused.
    if client_high == 0 || peer_high == 0 {
        return None;
    }
    let (client_low, peer_low) = sides(hook, start.read::<u64, 30>(), start.read::<u64, 46>());
    let addresses = [client_high, client_low, peer_high, peer_low];
    transport.plain(addresses, link, hook, DHCPV6_SERVER)
}

#[inline(always)]
fn sides<T>(hook: Hook, source: T, destination: T) -> (T, T) {
    match hook {
        Hook::Ingress => (source, destination),
        Hook::Egress => (destination, source),
    }
}

/// What is read of TCP or UDP.
struct Transport {
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    tcp_flags: u8,
    /// As [`Plain`], without a tag.
    headers_len: usize,
}

impl Transport {
    /// `tcp` reads the two bytes of TCP that hold its header's length and its flags; `end` is where the IP packet ends.
    #[inline(always)]
    fn new(
        protocol: u8,
        (source_port, destination_port): (u16, u16),
        tcp: impl FnOnce() -> Option<u16>,
        end: usize,
        offset: usize,
    ) -> Option<Self> {
        let (tcp_flags, header_len, len_min) = match protocol {
            UDP => (0, UDP_LEN, UDP_LEN),
            TCP => {
                let [len, flags] = tcp()?.to_le_bytes();
                (flags, (len >> 4) as usize * 4, TCP_LEN)
            }
            _ => return None,
        };
        // Opens a connection: perhaps one that is known, anew.
        if offset + len_min > end || tcp_flags & SYN_ACK == SYN {
            return None;
        }
        Some(Self { protocol, source_port, destination_port, tcp_flags, headers_len: offset + header_len })
    }

    /// `None` where the peer's port is `server`: such a packet may be a notice.
    #[inline(always)]
    fn plain(
        self,
        [client_high, client_low, peer_high, peer_low]: [u64; 4],
        link: &Link,
        hook: Hook,
        server: u16,
    ) -> Option<Plain> {
        let (client_port, peer_port) = sides(hook, self.source_port, self.destination_port);
        if peer_port == server {
            return None;
        }
        let direction = match hook {
            Hook::Ingress => Direction::Out,
            Hook::Egress => Direction::In,
        };
        let origin = FlowKey::origin(settings::interface() as u8, direction);
        let last = (client_port as u64) << 16
            | (peer_port as u64) << 32
            | (self.protocol as u64) << 48
            | (origin as u64) << 56;
        Some(Plain {
            key: [client_high, client_low, peer_high, peer_low, link.mac_and_vlan, last],
            tcp_flags: self.tcp_flags,
            headers_len: self.headers_len + link.tag_len,
        })
    }
}
