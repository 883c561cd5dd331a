//! A frame as a hook hands it over, and the one door through which its bytes are read.
//!
//! Every read is checked against the end of the packet. Owns also what only the hook knows: the tag in the frame's metadata,
//! and how many frames on the wire a GSO packet stands for.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::Wire;

/// Headers are looked for in this much of a frame at most: all of one that is not a jumbo, so that no client can hide its ports behind
/// extension headers that routers would forward.
const HEADERS_MAX: usize = 1536;

/// How much of a frame should be readable at once: enough for two tags, IPv6, extension headers and TCP, and in a tunnel for
/// both sets of headers.
const LINEAR_MIN: usize = 192;

/// Bytes of an 802.1Q tag.
const TAG_LEN: u64 = 4;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Frame {
    data: usize,
    data_end: usize,
    /// Bytes of the frame, also those that are not in the linear part.
    len: usize,
    /// 1 where a tag was taken out of the frame, else 0.
    metadata_tags: u32,
    /// Tag control information of that tag.
    metadata_tag: u32,
    /// Payload bytes per segment; 0 where the frame is a single one.
    gso_size: u32,
    gso_segments: u32,
}

impl Frame {
    #[inline(always)]
    pub fn from_xdp(ctx: &XdpContext) -> Self {
        let (data, data_end) = (ctx.data(), ctx.data_end());
        let mut len = data_end - data;
        // A frame in several buffers fills the first one; asking for the whole length costs a call, so only then.
        if len > 1500 {
            // SAFETY: `ctx` is the context this program was called with.
            len = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as usize;
        }
        Self { data, data_end, len, metadata_tags: 0, metadata_tag: 0, gso_size: 0, gso_segments: 0 }
    }

    /// The same frame, read from the context again: the verifier walks through what follows for each of the ways in which it has come to
    /// know the first one's pointers, and of these it knows nothing yet.
    #[inline(always)]
    pub fn anew(ctx: &XdpContext) -> Self {
        Self::from_xdp(&XdpContext::new(as_computed(ctx.ctx as usize) as *mut xdp_md))
    }

    /// The same frame, with its headers in the linear part where that can be had: all that is read lies there. Copies the head of a
    /// packet that somebody else holds too, so only where it is needed.
    #[inline(always)]
    pub fn pulled(ctx: &TcContext) -> Self {
        let frame = Self::from_skb(ctx);
        let linear = frame.data_end - frame.data;
        if linear < LINEAR_MIN && linear < frame.len {
            let wanted = if frame.len < LINEAR_MIN { frame.len } else { LINEAR_MIN };
            // Where it fails the frame is parsed as far as it can be read, and ends in an outcome.
            let _ = ctx.pull_data(wanted as u32);
            return Self::from_skb(ctx);
        }
        frame
    }

    #[inline(always)]
    pub fn from_skb(ctx: &TcContext) -> Self {
        let skb = ctx.skb.skb;
        // SAFETY: the verifier turns reads of __sk_buff's fields into reads of the packet's own.
        let (tagged, tag) = unsafe { ((*skb).vlan_present, (*skb).vlan_tci) };
        // SAFETY: as above.
        let (gso_size, gso_segments) = unsafe { ((*skb).gso_size, (*skb).gso_segs) };
        Self {
            data: ctx.data(),
            data_end: ctx.data_end(),
            len: ctx.len() as usize,
            metadata_tags: tagged & 1,
            metadata_tag: tag,
            gso_size,
            gso_segments,
        }
    }

    /// The frame in memory, written there word by word: for zeros the compiler calls a function.
    #[inline(always)]
    pub fn put(self, memory: &mut MaybeUninit<Self>) -> &Self {
        // SAFETY: same size, no padding: three words and four halves.
        let words = unsafe { core::mem::transmute::<Self, [u64; 5]>(self) };
        for (word, value) in words.iter().enumerate() {
            // SAFETY: inside the frame's memory; volatile so that the stores stay apart.
            unsafe { memory.as_mut_ptr().cast::<u64>().add(word).write_volatile(*value) };
        }
        // SAFETY: all of it was written.
        unsafe { memory.assume_init_ref() }
    }

    /// Bytes of the frame, without a tag that is only in metadata.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub fn metadata_tag(&self) -> Option<u16> {
        if self.metadata_tags != 0 { Some(self.metadata_tag as u16) } else { None }
    }

    /// Whether the frame stands for several on the wire.
    #[inline(always)]
    pub fn is_gso(&self) -> bool {
        self.gso_size != 0
    }

    /// The same offset, of which the verifier knows nothing any more.
    ///
    /// It follows every value an offset may have for itself, through all that comes after: tags, options and extension headers
    /// multiply. Where nothing is known there is one case to follow, and the check before a read is made anyway.
    #[inline(always)]
    pub fn anywhere(&self, mut offset: usize) -> usize {
        #[cfg(target_arch = "bpf")]
        // SAFETY: arithmetic, which gives back what came in: x ^ y ^ y is x.
        unsafe {
            core::arch::asm!("{0} ^= {1}", "{0} ^= {1}", inout(reg) offset, in(reg) self.len, options(pure, nomem, nostack));
        }
        #[cfg(not(target_arch = "bpf"))]
        {
            offset = core::hint::black_box(offset);
        }
        offset
    }

    /// The `LEN` bytes at an offset; `None` where the frame ends before they do.
    #[inline(always)]
    pub fn bytes<const LEN: usize>(&self, offset: usize) -> Option<Bytes<LEN>> {
        if offset > HEADERS_MAX {
            return None;
        }
        let start = as_computed(self.data + offset);
        if as_computed(start + LEN) > self.data_end {
            return None;
        }
        Some(Bytes { start })
    }

    /// The first `LEN` bytes; `None` where the frame is shorter.
    #[inline(always)]
    pub fn start<const LEN: usize>(&self) -> Option<Bytes<LEN>> {
        self.longer(Bytes::<0> { start: self.data })
    }

    /// More bytes from where others are; `None` where the frame ends before they do.
    #[inline(always)]
    pub fn longer<const LEN: usize, const MORE: usize>(&self, bytes: Bytes<LEN>) -> Option<Bytes<MORE>> {
        let start = bytes.start;
        if as_computed(start + MORE) > self.data_end {
            return None;
        }
        Some(Bytes { start })
    }

    /// Packets and bytes on the wire: each segment of a GSO packet is a frame with its own `headers_len` bytes of headers.
    #[inline(always)]
    pub fn on_wire(&self, headers_len: usize) -> Wire {
        let tag = self.metadata_tags as u64 * TAG_LEN;
        let len = self.len as u64;
        if self.gso_size == 0 || headers_len == 0 {
            return Wire { packets: 1, bytes: len + tag };
        }
        let headers = headers_len as u64;
        let segments = if self.gso_segments != 0 {
            self.gso_segments as u64
        } else {
            // Packets from outside (a virtual machine's) carry no count.
            let size = self.gso_size as u64;
            len.wrapping_sub(headers).wrapping_add(size - 1).checked_div(size).unwrap_or(1)
        };
        let more = if segments > 0 { segments - 1 } else { 0 };
        Wire { packets: more + 1, bytes: len + tag + more * (headers + tag) }
    }
}

/// Bytes that are there: one check against the end of the packet serves all reads of a header.
#[derive(Clone, Copy)]
pub struct Bytes<const LEN: usize> {
    start: usize,
}

impl<const LEN: usize> Bytes<LEN> {
    /// The `T` at a constant offset, in network byte order where that matters.
    #[inline(always)]
    pub fn read<T: Plain, const OFFSET: usize>(self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= LEN) };
        // SAFETY: within the packet, as checked above and again by the verifier. The load may be unaligned: it compiles to
        // one BPF instruction, which the verifier accepts only where the machine can do it.
        unsafe { ((self.start + OFFSET) as *const T).read() }
    }

    /// The 16-bit number in network byte order at a constant offset.
    #[inline(always)]
    pub fn number<const OFFSET: usize>(self) -> u16 {
        u16::from_be(self.read::<u16, OFFSET>())
    }
}

/// The value, in a register the compiler knows nothing about.
///
/// The verifier learns from a comparison only about the very pointer that was compared; without this the compiler compares
/// something equivalent (`start > end - 2`) and reads through a pointer it computed again.
#[inline(always)]
fn as_computed(mut pointer: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    // SAFETY: a move of a register to itself. (No instruction at all would leave a line number without one.)
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        pointer = core::hint::black_box(pointer);
    }
    pointer
}

/// Types that any bytes are a value of.
///
/// # Safety
///
/// Every bit pattern must be valid, and there must be no padding.
pub unsafe trait Plain: Copy {}

// SAFETY: integers.
unsafe impl Plain for u8 {}
// SAFETY: integers.
unsafe impl Plain for u16 {}
// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: integers.
unsafe impl Plain for u64 {}
