//! Notices: copies of the few frames by which devices say who they are, on a ring of their own.
//!
//! DHCP and DHCPv6 between their own ports, ARP and neighbour discovery from clients, each checked to be what it seems before a byte
//! of it is handed over. Nothing else past a transport header ever leaves the kernel. A copy changes nothing about where the frame is
//! counted: DHCP is a flow, ARP an outcome. Each device has a share per generation, so that a flood of such frames costs a bounded time.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::btf_maps::{Array, RingBuf};
use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_skb_load_bytes, bpf_xdp_load_bytes};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::{TcContext, XdpContext};
use hotspot_common::{
    FlowKey, Happening, NOTICE_PAYLOAD_MAX, NOTICE_RING_BYTES, NOTICE_SHARES, Notice, NoticeHeader, NoticeKind,
};

use crate::cache::Packet;
use crate::clock;
use crate::frame::Frame;
use crate::generation::Place;
use crate::settings;
use crate::sides::Hook;
use crate::tally::Counters;

/// One for all CPUs: in a venue these frames are some per client and minute, and one position says what was read.
#[btf_map]
static NOTICES: RingBuf<Notice, { NOTICE_RING_BYTES as usize }> = RingBuf::new();

/// Where each CPU puts a notice together. Index: CPU. The loader sets the size.
#[btf_map]
static NOTICE_DRAFTS: Array<Notice, 1> = Array::new();

/// Notices of a device per CPU and generation; a lease takes four, an address two.
const PER_DEVICE_MAX: u32 = 64;

/// What a device had of its share.
#[repr(C)]
struct Share {
    generation: u32,
    notices: u32,
}

/// Index: CPU × [`NOTICE_SHARES`] + hash. The loader sets the size.
#[btf_map]
static NOTICE_SHARES_USED: Array<Share, 1> = Array::new();

const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Client port and, above it, peer port: a client and its server, a relay agent and its server (RFC 2131 §4.1, RFC 8415 §7.2).
const DHCP: u32 = 67 << 16 | 68;
const DHCP_RELAYED: u32 = 67 << 16 | 67;
/// The same where sides are told by address, and a client's address is none of its network's yet.
const DHCP_FROM_SERVER: u32 = 68 << 16 | 67;
const DHCPV6: u32 = 547 << 16 | 546;
const DHCPV6_RELAYED: u32 = 547 << 16 | 547;
const DHCPV6_FROM_SERVER: u32 = 546 << 16 | 547;

/// Router solicitation to neighbour advertisement (RFC 4861 §4).
const ND_TYPES: core::ops::RangeInclusive<u32> = 133..=136;
const ND_MIN: u32 = 8;
/// The longest of them with its link-layer address and nonce options.
const ND_MAX: u32 = 64;

/// ARP between IPv4 addresses on Ethernet (RFC 826).
const ARP_LEN: u32 = 28;
const UDP_LEN: usize = 8;
const IPV6_LEN: usize = 40;
const ICMP_LEN: usize = 8;

/// Fixed fields, and the cookie that says that options follow (RFC 2131 §3).
const DHCP_MIN: u32 = 240;
const DHCP_COOKIE: [u8; 4] = [99, 130, 83, 99];
const DHCPV6_MIN: u32 = 4;

/// A hook's context, from which bytes anywhere in the frame can be copied.
pub trait Source: EbpfContext {
    /// Copies `len` bytes at `offset` of the frame; `false` where they are not there.
    ///
    /// # Safety
    ///
    /// `to` must have room for `len` bytes.
    unsafe fn copy(&self, offset: u32, to: *mut u8, len: u32) -> bool;
}

impl Source for XdpContext {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: this program's context; the caller vouches for the room.
        unsafe { bpf_xdp_load_bytes(self.ctx, offset, to.cast(), len) == 0 }
    }
}

impl Source for TcContext {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: this program's context; the caller vouches for the room.
        unsafe { bpf_skb_load_bytes(self.skb.skb.cast(), offset, to.cast(), len) == 0 }
    }
}

/// Copies the packet of a flow where it is one that devices are known by. Not in tunnels on a mirror port: looking there too
/// would take the verifier beyond half of its limit.
#[inline(always)]
pub fn of_flow<S: Source>(ctx: &S, frame: &Frame, hook: Hook, packet: &Packet, place: Place, tally: Counters) {
    if settings::decapsulate() != 0 && settings::sides_by_address() != 0 {
        return;
    }
    // Nearly all packets leave here.
    let protocol = packet.parsed.key.protocol;
    if protocol == UDP || protocol == ICMPV6 {
        tell(of_packet(ctx, frame, matches!(hook, Hook::Egress), packet, &place), tally);
    }
}

/// A function of its own: it keeps the program's stack within the limit.
#[inline(never)]
fn of_packet<S: Source>(ctx: &S, frame: &Frame, has_left: bool, packet: &Packet, place: &Place) -> u32 {
    let (key, headers_len) = (&packet.parsed.key, packet.parsed.headers_len);
    let last = key.words()[5];
    let (ports, protocol) = ((last >> 16) as u32, (last >> 48) as u8);
    let (kind, found) = if protocol == UDP {
        let mirrored = settings::sides_by_address() != 0;
        match ports {
            DHCP | DHCP_RELAYED => {}
            DHCPV6 | DHCPV6_RELAYED => {}
            DHCP_FROM_SERVER | DHCPV6_FROM_SERVER if mirrored => {}
            _ => return NOT_ONE,
        }
        let is_v4 = matches!(ports, DHCP | DHCP_RELAYED | DHCP_FROM_SERVER);
        let kind = if is_v4 { NoticeKind::Dhcp } else { NoticeKind::Dhcpv6 };
        (kind, udp_payload(frame, headers_len, kind))
    } else if ND_TYPES.contains(&(ports >> 24)) {
        (NoticeKind::NeighbourDiscovery, discovery(frame, headers_len))
    } else {
        return NOT_ONE;
    };
    let Some(message) = found else { return NOT_ONE };
    put(ctx, key, message.packed(), kind as u32 | (has_left as u32) << 8, place)
}

/// Where a message lies in the frame.
#[derive(Clone, Copy)]
struct Message {
    offset: u32,
    len: u32,
}

impl Message {
    /// As one word, because a function of its own takes five arguments.
    #[inline(always)]
    fn packed(self) -> u64 {
        self.offset as u64 | (self.len as u64) << 32
    }
}

#[inline(always)]
fn udp_payload(frame: &Frame, headers_len: usize, kind: NoticeKind) -> Option<Message> {
    // A fragment without the header has a length of 0.
    if headers_len < UDP_LEN {
        return None;
    }
    let header = frame.bytes::<UDP_LEN>(frame.anywhere(headers_len - UDP_LEN))?;
    let stated = (header.number::<4>() as u32).wrapping_sub(UDP_LEN as u32);
    message(frame, headers_len, stated, if matches!(kind, NoticeKind::Dhcp) { DHCP_MIN } else { DHCPV6_MIN })
}

/// Neighbour discovery comes straight behind the IPv6 header, from a neighbour: no router passes it on (RFC 4861 §7.1, RFC 6980).
#[inline(always)]
fn discovery(frame: &Frame, headers_len: usize) -> Option<Message> {
    if headers_len < IPV6_LEN + ICMP_LEN {
        return None;
    }
    let start = headers_len - ICMP_LEN;
    let header = frame.bytes::<IPV6_LEN>(frame.anywhere(start - IPV6_LEN))?;
    if header.read::<u8, 0>() >> 4 != 6 || header.read::<u8, 6>() != ICMPV6 || header.read::<u8, 7>() != 255 {
        return None;
    }
    let stated = header.number::<4>() as u32;
    message(frame, start, if stated > ND_MAX { ND_MAX } else { stated }, ND_MIN)
}

/// A message of the length its header states, cut to what is there and to what is copied.
#[inline(always)]
fn message(frame: &Frame, offset: usize, stated: u32, min: u32) -> Option<Message> {
    let there = (frame.len() as u32).wrapping_sub(offset as u32);
    let len = if stated < there { stated } else { there };
    if len < min || len > u16::MAX as u32 { None } else { Some(Message { offset: offset as u32, len }) }
}

/// Copies an ARP packet of a client.
#[inline(always)]
pub fn of_arp<S: Source>(ctx: &S, frame: &Frame, hook: Hook, place: Place, tally: Counters) {
    // What goes to the clients is the gateway's own.
    if matches!(hook, Hook::Egress) {
        return;
    }
    tell(of_arp_packet(ctx, frame, &place), tally);
}

/// A function of its own, like [`of_packet`].
#[inline(never)]
fn of_arp_packet<S: Source>(ctx: &S, frame: &Frame, place: &Place) -> u32 {
    let Some((key, offset)) = crate::parse::arp(frame) else { return NOT_ONE };
    let message = Message { offset: offset as u32, len: ARP_LEN };
    put(ctx, &key, message.packed(), NoticeKind::Arp as u32, place)
}

#[inline(always)]
fn tell(done: u32, tally: Counters) {
    match done {
        COPIED => tally.note(Happening::Noticed),
        SKIPPED => tally.note(Happening::NoticeSkipped),
        _ => {}
    }
}

const NOT_ONE: u32 = 0;
const COPIED: u32 = 1;
const SKIPPED: u32 = 2;

#[inline(never)]
fn put<S: Source>(ctx: &S, key: &FlowKey, message: u64, kind: u32, place: &Place) -> u32 {
    let (offset, mut len) = (message as u32, (message >> 32) as u32);
    let (kind, has_left, cpu) = (kind as u8, (kind >> 8) as u8, place.cpu());
    if has_had_its_share(cpu, place, key) {
        return SKIPPED;
    }
    let Some(draft) = NOTICE_DRAFTS.get_ptr_mut(cpu) else { return SKIPPED };
    // SAFETY: a live element that only this CPU writes.
    let draft = unsafe { &mut *draft };
    if len > NOTICE_PAYLOAD_MAX as u32 {
        len = NOTICE_PAYLOAD_MAX as u32;
    }
    len = bounded(len);
    // SAFETY: the draft has room for the longest message.
    if !unsafe { ctx.copy(offset, (&raw mut draft.payload).cast(), len) } {
        return NOT_ONE;
    }
    if kind == NoticeKind::Dhcp as u8 && draft.payload[236..240] != DHCP_COOKIE {
        return NOT_ONE;
    }
    draft.header = NoticeHeader {
        seen_ns: clock::monotonic_ns(),
        client_ip: key.client_ip,
        client_mac: key.client_mac,
        vlan: key.vlan,
        inner_vlan: key.inner_vlan,
        origin: key.origin,
        kind,
        payload_len: len as u16,
        has_left,
        padding: 0,
    };
    let ring = (&raw const NOTICES).cast_mut().cast();
    let bytes = size_of::<NoticeHeader>() as u64 + len as u64;
    // SAFETY: the draft is at least that long.
    let refused = unsafe { bpf_ringbuf_output(ring, (&raw mut *draft).cast(), bytes, BPF_RB_NO_WAKEUP as u64) };
    if refused == 0 { COPIED } else { SKIPPED }
}

/// The length, within bounds that the verifier sees: 1 to [`NOTICE_PAYLOAD_MAX`].
#[inline(always)]
fn bounded(mut len: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: comparisons of a register with constants; the compiler must not reason about them beforehand.
    unsafe {
        core::arch::asm!(
            "if {0} > 0 goto +1",
            "{0} = 1",
            "if {0} <= {max} goto +1",
            "{0} = {max}",
            inout(reg) len,
            max = const NOTICE_PAYLOAD_MAX,
            options(pure, nomem, nostack)
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        len = core::hint::black_box(len);
    }
    len
}

/// Notes that a device sends such a frame; true where it has had its share. Devices that fall on one value share it.
#[inline(always)]
fn has_had_its_share(cpu: u32, place: &Place, key: &FlowKey) -> bool {
    let mac = key.words()[4] & 0xffff_ffff_ffff;
    let hash = (mac ^ mac >> 24).wrapping_mul(place.hash_key(4)) >> 54;
    let Some(share) = NOTICE_SHARES_USED.get_ptr_mut(cpu * NOTICE_SHARES + (hash as u32 & (NOTICE_SHARES - 1))) else {
        return true;
    };
    // SAFETY: a live element that only this CPU writes.
    let share = unsafe { &mut *share };
    if share.generation != place.active.generation {
        share.generation = place.active.generation;
        share.notices = 0;
    }
    share.notices += 1;
    share.notices > PER_DEVICE_MAX
}
