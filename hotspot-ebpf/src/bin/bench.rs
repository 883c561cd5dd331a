//! Programs that are never attached: twins of the shipped one for `cargo xtask bench capture`, and a slow one for a test.
//!
//! `vary` gives each run the frame of another flow and calls the program under test, the shipped one included, so that all are
//! measured through the same door.
#![no_std]
#![no_main]

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_NOEXIST, xdp_action};
use aya_ebpf::btf_maps::{Array, HashMap, ProgramArray};
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use hotspot_common::{FlowKey, Slot};
use hotspot_ebpf::cache::Words;
use hotspot_ebpf::clock;
use hotspot_ebpf::frame::Frame;
use hotspot_ebpf::parse::{self, Parsed};
use hotspot_ebpf::plain;
use hotspot_ebpf::sides::Hook;

/// Which flow comes next.
#[repr(C)]
struct Course {
    random: u64,
    /// Flows − 1; their number is a power of two.
    mask: u64,
    /// Not 0: one flow after the other, to fill the maps before measuring.
    in_order: u64,
    /// Runs per flow before the next one.
    burst: u64,
    runs: u64,
}

#[btf_map]
static COURSE: Array<Course, 1> = Array::new();

/// The program under test, at index 0.
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();

/// Source address of an IPv4 packet in an untagged frame.
const SOURCE: usize = 14 + 12;
/// Source port of UDP after that.
const SOURCE_PORT: usize = 14 + 20;
/// 10.0.0.0/8: a flow is a client.
const NETWORK: u32 = 10 << 24;

#[xdp(frags)]
pub fn vary(ctx: XdpContext) -> u32 {
    let Some(course) = COURSE.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: one test runs at a time.
    let course = unsafe { &mut *course };
    course.runs += 1;
    if course.in_order != 0 {
        course.random += 1;
    } else if course.runs & (course.burst - 1) == 0 {
        // xorshift64 (Marsaglia 2003)
        course.random ^= course.random << 13;
        course.random ^= course.random >> 7;
        course.random ^= course.random << 17;
    }
    let flow = (course.random & course.mask) as u32;
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + SOURCE_PORT + size_of::<u16>() > end {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: inside the frame, as just checked. One store, because loads that span several wait for all of them.
    unsafe { ((start + SOURCE) as *mut u32).write((NETWORK | flow).to_be()) };
    // Addresses in a row would be spread more evenly than chance does it; a port of no order makes flows share sets as real ones do.
    let port = (flow.wrapping_mul(0x9e37_79b1) >> 16) as u16;
    // SAFETY: inside the frame, as checked.
    unsafe { ((start + SOURCE_PORT) as *mut u16).write(port) };
    // SAFETY: does not come back where it succeeds.
    let _ = unsafe { TARGET.tail_call(&ctx, 0) };
    xdp_action::XDP_ABORTED
}

/// What measuring itself costs.
#[xdp(frags)]
pub fn empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The same for tc.
#[classifier]
pub fn empty_tc(_ctx: TcContext) -> i32 {
    -1
}

/// Whether the straight path reads a frame as the parser for all frames does: passed where it does, dropped where it leaves the frame
/// to the other, aborted where they differ.
#[xdp(frags)]
pub fn agree(ctx: XdpContext) -> u32 {
    let frame = Frame::from_xdp(&ctx);
    let (out, back) = (agree_on(&ctx, &frame, Hook::Ingress), agree_on(&ctx, &frame, Hook::Egress));
    if out == back { out } else { xdp_action::XDP_ABORTED }
}

/// What the parser reads: on the stack it would be too much.
#[btf_map]
static AT_HAND: Array<Parsed, 1> = Array::new();

/// A function of its own: both directions in one would need more stack than a program has.
#[inline(never)]
fn agree_on(ctx: &XdpContext, frame: &Frame, hook: Hook) -> u32 {
    let link = plain::link(frame, hook);
    let plain = link.and_then(|link| match plain::ipv4(frame, &link, hook) {
        None => plain::ipv6(frame, &link, hook),
        plain => plain,
    });
    let Some(plain) = plain else { return xdp_action::XDP_DROP };
    let Some(memory) = AT_HAND.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: a live element of which nothing is read before it is written; one test runs at a time.
    let parsed = unsafe { &mut *memory.cast::<MaybeUninit<Parsed>>() };
    if parse::parse_into(&Frame::anew(ctx), matches!(hook, Hook::Egress), parsed) != parse::PARSED {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the answer says that it was written.
    let Parsed { key, tcp_flags, headers_len } = unsafe { parsed.assume_init_ref() };
    let is_same = *key.words() == plain.key && *tcp_flags == plain.tcp_flags && *headers_len == plain.headers_len;
    if is_same { xdp_action::XDP_PASS } else { xdp_action::XDP_ABORTED }
}

/// What the shipped program does before it looks for a flow: its parsers, in its order. The rest is put behind each of them, as there.
#[inline(always)]
fn read(frame: &Frame, rest: impl Fn(&Words, u8, usize)) {
    let link = plain::link(frame, Hook::Ingress);
    if let Some(plain) = link.as_ref().and_then(|link| plain::ipv4(frame, link, Hook::Ingress)) {
        rest(&plain.key, plain.tcp_flags, plain.headers_len);
    } else if let Some(plain) = link.as_ref().and_then(|link| plain::ipv6(frame, link, Hook::Ingress)) {
        rest(&plain.key, plain.tcp_flags, plain.headers_len);
    } else {
        let (mut memory, mut parsed) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        if parse::parse_into(frame.put(&mut memory), false, &mut parsed) == parse::PARSED {
            // SAFETY: the answer says that it was written.
            let parsed = unsafe { parsed.assume_init_ref() };
            rest(parsed.key.words(), parsed.tcp_flags, parsed.headers_len);
        }
    }
}

/// Made of every word, so that the compiler leaves nothing of the parse out.
#[inline(always)]
fn all_of(words: &Words) -> u64 {
    words.iter().fold(0, |sum, word| sum ^ word)
}

#[btf_map]
static SEEN: Array<u64, 1> = Array::new();

#[xdp(frags)]
pub fn parse_only(ctx: XdpContext) -> u32 {
    read(&Frame::from_xdp(&ctx), |words, tcp_flags, _| {
        if let Some(seen) = SEEN.get_ptr_mut(0) {
            // SAFETY: one test runs at a time.
            unsafe { *seen += all_of(words) ^ tcp_flags as u64 };
        }
    });
    xdp_action::XDP_PASS
}

#[btf_map]
static LINES: Array<Slot, 1> = Array::new();

/// The least that any per-flow counter costs: parse, read a clock for nothing, touch one random cache line.
#[xdp(frags)]
pub fn floor(ctx: XdpContext) -> u32 {
    let frame = Frame::from_xdp(&ctx);
    read(&frame, |words, tcp_flags, headers_len| {
        let wire = frame.on_wire(headers_len);
        if let Some(line) = LINES.get_ptr_mut(spread(words)) {
            // SAFETY: one test runs at a time.
            let line = unsafe { &mut *line };
            line.packets += wire.packets as u32;
            line.bytes += wire.bytes as u32;
            line.last_jiffies = clock::jiffies();
            line.tcp_flags |= tcp_flags;
            // SAFETY: the key's first word.
            unsafe { (&raw mut line.key).cast::<u64>().write(all_of(words)) };
        }
    });
    xdp_action::XDP_PASS
}

/// A line for each flow, spread over all of them: the flow is the client's address, as `vary` writes it.
#[inline(always)]
fn spread(words: &Words) -> u32 {
    let flow = ((words[1] >> 32) as u32).swap_bytes() & !NETWORK;
    // Multiplicative hashing (Knuth, The Art of Computer Programming 3, §6.4).
    flow.wrapping_mul(0x9e37_79b1) >> (32 - hotspot_ebpf::settings::slots_per_cpu_log2())
}

/// A flow in a hash map.
#[repr(C)]
struct Flow {
    packets: u64,
    bytes: u64,
    first_ns: u64,
    last_ns: u64,
    tcp_flags: u64,
}

#[btf_map]
static FLOWS: HashMap<FlowKey, Flow, 1> = HashMap::new();

/// The usual design: one preallocated hash map, the precise clock on every packet.
#[xdp(frags)]
pub fn hash(ctx: XdpContext) -> u32 {
    let frame = Frame::from_xdp(&ctx);
    read(&frame, |words, tcp_flags, headers_len| {
        let wire = frame.on_wire(headers_len);
        let (key, now) = (FlowKey::from_words(*words), clock::monotonic_ns());
        if let Some(flow) = FLOWS.get_ptr_mut(&key) {
            // SAFETY: one test runs at a time, and nothing deletes.
            let flow = unsafe { &mut *flow };
            flow.packets += wire.packets;
            flow.bytes += wire.bytes;
            flow.last_ns = now;
            flow.tcp_flags |= tcp_flags as u64;
        } else {
            let flow = Flow {
                packets: wire.packets,
                bytes: wire.bytes,
                first_ns: now,
                last_ns: now,
                tcp_flags: tcp_flags as u64,
            };
            let _ = FLOWS.insert(&key, &flow, BPF_NOEXIST as u64);
        }
    });
    xdp_action::XDP_PASS
}

/// How far `linger` is: 1 it runs, 2 it has ended.
#[btf_map]
static LINGERING: Array<u64, 1, { hotspot_ebpf::generation::MMAPABLE }> = Array::new();

/// A program that runs for long, to see whether waiting for programs waits for it.
#[xdp]
pub fn linger(_ctx: XdpContext) -> u32 {
    if let Some(state) = LINGERING.get_ptr_mut(0) {
        // SAFETY: a live element; volatile because a test watches it.
        unsafe { state.write_volatile(1) };
        for _ in 0..8 {
            // SAFETY: the callback takes the arguments bpf_loop gives.
            let _ = unsafe { bpf_loop(1 << 23, step as *mut core::ffi::c_void, core::ptr::null_mut(), 0) };
        }
        // SAFETY: as above.
        unsafe { state.write_volatile(2) };
    }
    xdp_action::XDP_PASS
}

#[inline(never)]
extern "C" fn step(_index: u64, _context: *mut core::ffi::c_void) -> i64 {
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
