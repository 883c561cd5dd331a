//! Per CPU, interface and generation: packets seen, and those that are in no flow.
//!
//! Only the CPU that owns a tally writes it, so nothing here is atomic.

use hotspot_common::{Count, Happening, Head, INTERFACES_MAX, Outcome, Tally};

use crate::Wire;
use crate::generation::Place;
use crate::settings;

/// A tally that belongs to this program run.
#[derive(Clone, Copy)]
pub struct Counters(*mut Tally);

#[inline(always)]
pub fn of(place: Place) -> Counters {
    let of_half = place.half() as usize * size_of::<[Tally; INTERFACES_MAX as usize]>();
    let offset = core::mem::offset_of!(Head, tallies) + of_half + settings::tally_offset() as usize;
    // SAFETY: within the element: the half is 0 or 1, and the loader knows how long a half's tallies are.
    Counters(unsafe { place.head.byte_add(offset) }.cast())
}

impl Counters {
    #[inline(always)]
    pub fn see(self, wire: Wire) {
        // SAFETY: a live element of the map that only this CPU writes.
        add(unsafe { &mut (*self.0).seen }, wire);
    }

    /// Counts a packet that is in no flow; says whether it is the first of its kind in this generation.
    #[inline(always)]
    pub fn end(self, outcome: Outcome, wire: Wire) -> bool {
        // SAFETY: as above; the enum's values are the array's indices.
        let count = unsafe { (&raw mut (*self.0).outcomes).cast::<Count>().add(outcome as usize) };
        // SAFETY: in bounds, as above.
        let count = unsafe { &mut *count };
        let is_first = count.packets == 0;
        add(count, wire);
        is_first
    }

    #[inline(always)]
    pub fn note(self, happening: Happening) {
        // SAFETY: as above; the enum's values are the array's indices.
        let count = unsafe { (&raw mut (*self.0).happenings).cast::<u64>().add(happening as usize) };
        // SAFETY: in bounds, as above.
        unsafe { *count += 1 };
    }
}

#[inline(always)]
fn add(count: &mut Count, wire: Wire) {
    count.packets += wire.packets;
    count.bytes += wire.bytes;
}
