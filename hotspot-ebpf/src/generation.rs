//! Which half of the cache is being written, and by whom: the place every counter of one program run belongs to.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_map;
use hotspot_common::{Active, Head};

use crate::settings;

/// `BPF_F_MMAPABLE`: the agent maps the array and reads it without system calls (include/uapi/linux/bpf.h).
pub const MMAPABLE: usize = 1 << 10;

/// Index: CPU. The loader sets the size.
#[btf_map]
static HEADS: Array<Head, 1, MMAPABLE> = Array::new();

/// Read once per program run, so that everything one packet causes lies in one generation.
#[derive(Clone, Copy)]
pub struct Place {
    pub head: *mut Head,
    pub active: Active,
}

/// A reach is too narrow when one in so many of its slots had to make room: one in 64.
const CROWDED_SHIFT: u32 = 6;

impl Place {
    #[inline(always)]
    pub fn half(self) -> u32 {
        self.active.generation & 1
    }

    /// Asked again where it is needed, because the straight path does not need it.
    #[inline(always)]
    pub fn cpu(self) -> u32 {
        cpu()
    }

    /// The first set of this CPU's range in the half that is not written.
    #[inline(always)]
    pub fn other_first_set(self) -> u32 {
        let other = (self.half() ^ 1) as usize;
        // SAFETY: a live element of the map, and the index is 0 or 1.
        unsafe { (&raw const (*self.head).first_sets).cast::<u32>().add(other).read() }
    }

    /// Which slots are used in the active half: see [`Head::reaches`].
    #[inline(always)]
    pub fn reach(self) -> u64 {
        self.reach_of(self.half())
    }

    /// The same of the half that is not written.
    #[inline(always)]
    pub fn other_reach(self) -> u64 {
        self.reach_of(self.half() ^ 1)
    }

    #[inline(always)]
    fn reach_of(self, half: u32) -> u64 {
        // SAFETY: a live element of the map, and the index is 0 or 1; volatile because the agent writes it.
        unsafe { (&raw const (*self.head).reaches).cast::<u32>().add(half as usize).read_volatile() as u64 }
    }

    /// Notes that a flow had to make room, and gives the flows all slots where that happens too often. Those that were counted go on in
    /// another slot then; their counts are added up as those of two generations are.
    #[inline(always)]
    pub fn crowd(self) {
        let half = self.half() as usize;
        // SAFETY: a live element of the map, and the index is 0 or 1.
        let crowded = unsafe { &mut *(&raw mut (*self.head).crowded).cast::<u32>().add(half) };
        *crowded += 1;
        if *crowded > self.reach() as u32 >> CROWDED_SHIFT {
            // SAFETY: as above. The agent writes only that of a half that is not written.
            let reach = unsafe { &mut *(&raw mut (*self.head).reaches).cast::<u32>().add(half) };
            *reach = (1 << settings::slots_per_cpu_log2()) - 1;
        }
    }

    /// One of the random multipliers of the slot hash.
    #[inline(always)]
    pub fn hash_key(self, word: usize) -> u64 {
        // SAFETY: a live element of the map, and `word` is below 6 in every caller.
        unsafe { (&raw const (*self.head).hash_keys).cast::<u64>().add(word).read() }
    }
}

/// `None` only where the loader made the map too small.
#[inline(always)]
pub fn here() -> Option<Place> {
    let head = HEADS.get_ptr_mut(cpu())?;
    // SAFETY: a live element of the map; volatile because the agent writes it.
    let active = Active::from_word(unsafe { (&raw const (*head).active).read_volatile() });
    Some(Place { head, active })
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: no arguments, no side effects.
    unsafe { bpf_get_smp_processor_id() }
}
