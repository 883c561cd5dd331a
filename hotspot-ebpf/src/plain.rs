//! The straight path: TCP and UDP right in IP with no or one tag, as nearly every packet is, read with few checks and few instructions.
//!
//! Knows nothing that [`parse`](crate::parse) does not know: what is not exactly of this form, or may need more than adding to a slot,
//! is `None` and goes there. A test gives both the same frames.

use hotspot_common::{Direction, FlowKey};

use crate::cache::Words;
use crate::frame::{Bytes, Frame};
use crate::parse::mapped;
use crate::settings;
use crate::sides::Hook;

/// UDP's header, and TCP's up to the flags.
const UDP_LEN: usize = 8;
const TCP_LEN: usize = 14;

const ETHERNET_LEN: usize = 14;
/// IEEE 802.1Q.
const TAG_LEN: usize = 4;
/// Ethertypes of tags, as they lie in memory.
const CUSTOMER_TAG: u16 = 0x8100_u16.to_be();
const SERVICE_TAG: u16 = 0x88a8_u16.to_be();

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

/// The least that is read at once from where the frame starts, tags left out: the smallest frame of all, IPv4 with UDP.
const START_LEN: usize = IPV4_TRANSPORT + UDP_LEN;

/// Ethernet of a frame that may be one for the straight path.
pub struct Link {
    /// The client's address, and above it its VLAN.
    mac_and_vlan: u64,
    /// What is in the frame, tags left out.
    start: Bytes<START_LEN>,
    len: usize,
}

/// Ethernet with no tag, or one in the frame or its metadata.
#[inline(always)]
pub fn link(frame: &Frame, hook: Hook) -> Option<Link> {
    if settings::is_plain() == 0 {
        return None;
    }
    let start = frame.start::<START_LEN>()?;
    // Each with the two bytes beside it.
    let (source, destination) = (start.read::<u64, 4>() >> 16, start.read::<u64, 0>() << 16 >> 16);
    let mac = sides(hook, source, destination).0;
    let is_tagged = matches!(start.read::<u16, 12>(), CUSTOMER_TAG | SERVICE_TAG);
    match frame.metadata_tag() {
        // Another in the frame is no IP.
        Some(control) => Some(Link { mac_and_vlan: mac | vlan(control), start, len: frame.len() }),
        None if is_tagged => {
            let control = start.number::<14>();
            let start = frame.bytes::<START_LEN>(frame.anywhere(TAG_LEN))?;
            Some(Link { mac_and_vlan: mac | vlan(control), start, len: frame.len() - TAG_LEN })
        }
        None => Some(Link { mac_and_vlan: mac, start, len: frame.len() }),
    }
}

/// The identifier in a tag's control information, as it lies in the key's word.
#[inline(always)]
fn vlan(control: u16) -> u64 {
    (control as u64) << 52 >> 4
}

/// IPv4 without options that is no fragment, and TCP or UDP.
#[inline(always)]
pub fn ipv4(frame: &Frame, link: &Link, hook: Hook) -> Option<Plain> {
    let start = link.start;
    // Ethertype, version and header length as they lie in memory.
    if start.read::<u32, 12>() & 0x00ff_ffff != 0x45_0008 {
        return None;
    }
    // A fragment's offset, and whether more follow.
    if start.number::<20>() & 0x3fff != 0 {
        return None;
    }
    let end = IPV4 + start.number::<16>() as usize;
    if end > link.len {
        return None;
    }
    let tcp = || {
        let start = frame.longer::<START_LEN, { IPV4_TRANSPORT + TCP_LEN }>(start)?;
        Some(start.read::<u16, { IPV4_TRANSPORT + 12 }>())
    };
    let (protocol, ports) = (start.read::<u8, 23>(), start.read::<u32, IPV4_TRANSPORT>());
    let transport = Transport::new(protocol, ports, tcp, end, IPV4_TRANSPORT)?;
    let (source, destination) = (mapped(start.read::<u32, 26>())[1], mapped(start.read::<u32, 30>())[1]);
    let (client, peer) = sides(hook, source, destination);
    transport.plain([0, client, 0, peer], frame, link, hook, DHCP_SERVER)
}

/// IPv6 without extension headers, and TCP or UDP.
#[inline(always)]
pub fn ipv6(frame: &Frame, link: &Link, hook: Hook) -> Option<Plain> {
    let start = frame.longer::<START_LEN, { IPV6_TRANSPORT + UDP_LEN }>(link.start)?;
    // Ethertype and version.
    if start.read::<u32, 12>() & 0x00f0_ffff != 0x60_dd86 {
        return None;
    }
    let end = IPV6_TRANSPORT + start.number::<18>() as usize;
    if end > link.len {
        return None;
    }
    let tcp = || {
        let start = frame.longer::<START_LEN, { IPV6_TRANSPORT + TCP_LEN }>(link.start)?;
        Some(start.read::<u16, { IPV6_TRANSPORT + 12 }>())
    };
    let (protocol, ports) = (start.read::<u8, 20>(), start.read::<u32, IPV6_TRANSPORT>());
    let transport = Transport::new(protocol, ports, tcp, end, IPV6_TRANSPORT)?;
    let (client_high, peer_high) = sides(hook, start.read::<u64, 22>(), start.read::<u64, 38>());
    // May be in the form of IPv4's, which is refused.
    if client_high == 0 || peer_high == 0 {
        return None;
    }
    let (client_low, peer_low) = sides(hook, start.read::<u64, 30>(), start.read::<u64, 46>());
    let addresses = [client_high, client_low, peer_high, peer_low];
    transport.plain(addresses, frame, link, hook, DHCPV6_SERVER)
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
    /// Source port, and below it the destination's.
    ports: u32,
    tcp_flags: u8,
    /// As [`Plain`], without a tag.
    headers_len: usize,
}

impl Transport {
    /// `ports` are as they lie in memory; `tcp` reads the two bytes of TCP that hold its header's length and its flags; `end` is where the IP packet ends.
    #[inline(always)]
    fn new(protocol: u8, ports: u32, tcp: impl FnOnce() -> Option<u16>, end: usize, offset: usize) -> Option<Self> {
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
        Some(Self { protocol, ports: u32::from_be(ports), tcp_flags, headers_len: offset + header_len })
    }

    /// `None` where the peer's port is `server`: such a packet may be a notice.
    #[inline(always)]
    fn plain(
        self,
        [client_high, client_low, peer_high, peer_low]: [u64; 4],
        frame: &Frame,
        link: &Link,
        hook: Hook,
        server: u16,
    ) -> Option<Plain> {
        let ports = self.ports as u64;
        let (source, destination) = (ports >> 16, ports & 0xffff);
        if sides(hook, source, destination).1 == server as u64 {
            return None;
        }
        // The client's port above 16 bits, the peer's above 32.
        let (ports, direction) = match hook {
            Hook::Ingress => (source << 16 | destination << 32, Direction::Out),
            Hook::Egress => (ports << 16, Direction::In),
        };
        let origin = settings::origin() | (FlowKey::origin(0, direction) as u64) << 56;
        let last = ports | (self.protocol as u64) << 48 | origin;
        Some(Plain {
            key: [client_high, client_low, peer_high, peer_low, link.mac_and_vlan, last],
            tcp_flags: self.tcp_flags,
            headers_len: self.headers_len + (frame.len() - link.len),
        })
    }
}
