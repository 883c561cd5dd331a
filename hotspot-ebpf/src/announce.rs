//! The rings, one per CPU: flows that opened, and slots that gave way.
//!
//! Records are submitted without waking the agent, which reads by a timer; only a ring that passes half of its size wakes it.
//! Announcements leave a quarter of the ring to evictions, because an announced flow is in the cache anyway.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::btf_maps::{ArrayOfMaps, RingBuf};
use aya_ebpf::helpers::generated::bpf_ringbuf_query;
use aya_ebpf::macros::btf_map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use hotspot_common::{Birth, EventKind, FlowEvent, Happening, Slot};

use crate::cache;
use crate::generation::Place;
use crate::settings;
use crate::tally::Counters;

type Ring = RingBuf<FlowEvent, { 1 << 12 }>;

/// Index: CPU. The loader sets the size and puts the rings in.
#[btf_map]
static RINGS: ArrayOfMaps<Ring, 1> = ArrayOfMaps::new();

/// Announces a flow's first packet; where the ring is too full, says so in a counter.
#[inline(always)]
pub fn opened(place: Place, slot: &Slot, birth: &Birth, tally: Counters) {
    let Some(ring) = RINGS.get(place.cpu()) else {
        tally.note(Happening::AnnouncementSkipped);
        return;
    };
    let filled = fill_of(ring);
    if filled > settings::ring_bytes() / 4 * 3 {
        tally.note(Happening::AnnouncementSkipped);
        return;
    }
    let Some(entry) = ring.reserve(0) else {
        tally.note(Happening::AnnouncementSkipped);
        return;
    };
    write(entry, EventKind::Opened, place, slot, birth, filled);
    tally.note(Happening::Announced);
}

/// Hands over a slot that gives way; `false` where the ring has no room for it.
///
/// One half of the ring is there for everybody. The other is closed to clients that have had their share.
#[inline(always)]
pub fn evicted(place: Place, slot: &Slot, birth: &Birth, has_had_its_share: bool, tally: Counters) -> bool {
    let Some(ring) = RINGS.get(place.cpu()) else { return false };
    let filled = fill_of(ring);
    if has_had_its_share && filled > settings::ring_bytes() / 2 {
        return false;
    }
    let Some(entry) = ring.reserve(0) else { return false };
    write(entry, EventKind::Evicted, place, slot, birth, filled);
    tally.note(Happening::Evicted);
    true
}

#[inline(always)]
fn write(mut entry: RingBufEntry<FlowEvent>, kind: EventKind, place: Place, slot: &Slot, birth: &Birth, filled: u64) {
    let event = entry.as_mut_ptr();
    // An announced flow is counted in its slot, and only there.
    let (bytes, packets) = if matches!(kind, EventKind::Evicted) { (slot.bytes, slot.packets) } else { (0, 0) };
    // SAFETY: the ring gave room for one event; every field is written below before it is submitted.
    cache::copy(&slot.key, unsafe { &mut (*event).key });
    // SAFETY: as above.
    unsafe {
        (*event).birth = *birth;
        (*event).bytes = bytes;
        (*event).packets = packets;
        (*event).last_jiffies = slot.last_jiffies;
        (*event).kind = kind as u32;
        (*event).generation = place.active.generation;
        // With the padding, as one little-endian word.
        (&raw mut (*event).tcp_flags).cast::<u32>().write(slot.tcp_flags as u32);
    }
    // One wake-up costs more than twenty records, so only the record that crosses the middle asks for it.
    let half = settings::ring_bytes() / 2;
    let crosses = filled < half && filled + RECORD_BYTES >= half;
    entry.submit(if crosses { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP } as u64);
}

/// A record with its header (kernel/bpf/ringbuf.c, `BPF_RINGBUF_HDR_SZ`).
const RECORD_BYTES: u64 = size_of::<FlowEvent>() as u64 + 8;

/// Bytes the agent has not consumed.
#[inline(always)]
fn fill_of(ring: &Ring) -> u64 {
    // SAFETY: `ring` is a ring buffer the verifier handed out.
    unsafe { bpf_ringbuf_query(core::ptr::from_ref(ring).cast_mut().cast(), BPF_RB_AVAIL_DATA as u64) }
}
