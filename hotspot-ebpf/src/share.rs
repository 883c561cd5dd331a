//! Each client's share of the detail: who opens very many flows in a generation gets coarser records before anybody else does.
//!
//! Nothing counted lives here. Clients are told apart by a hash; one that falls together with a flooding client shares its limit.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use hotspot_common::{FlowKey, SHARES};

use crate::generation::Place;
use crate::{cache, settings};

/// A client may claim this part of a CPU's slots in a generation before others come first: one eighth.
const SHARE_SHIFT: u32 = 3;

/// What a client claimed.
#[repr(C)]
struct Claimed {
    generation: u32,
    slots: u32,
}

/// Index: CPU × [`SHARES`] + hash. The loader sets the size.
#[btf_map]
static CLAIMED: Array<Claimed, 1> = Array::new();

/// Notes that a client opens a flow; true where it has had its share.
#[inline(always)]
pub fn is_used_up(place: Place, client: &FlowKey) -> bool {
    let words = client.words();
    // Address and MAC.
    let hash = [0, 1, 4].iter().fold(0u64, |sum, word| sum.wrapping_add(cache::mix(words, *word, place)));
    let index = place.cpu() * SHARES + ((hash >> 52) as u32 & (SHARES - 1));
    let Some(claimed) = CLAIMED.get_ptr_mut(index) else { return false };
    // SAFETY: a live element that only this CPU writes.
    let claimed = unsafe { &mut *claimed };
    if claimed.generation != place.active.generation {
        claimed.generation = place.active.generation;
        claimed.slots = 0;
    }
    claimed.slots += 1;
    claimed.slots > 1 << settings::slots_per_cpu_log2() >> SHARE_SHIFT
}
