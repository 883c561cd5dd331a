//! Which half of the cache is being written, and by whom: the place every counter of one program run belongs to.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_map;
use hotspot_common::control::Control;

/// `BPF_F_MMAPABLE`: the agent maps the array and reads it without system calls (include/uapi/linux/bpf.h).
pub const MMAPABLE: usize = 1 << 10;

#[btf_map]
static CONTROL: Array<Control, 1, MMAPABLE> = Array::new();

/// Read once per program run, so that everything one packet causes lies in one generation.
#[derive(Clone, Copy)]
pub struct Place {
    pub cpu: u32,
    /// Low 32 bits of the generation's number; its lowest bit is the half.
    pub generation: u32,
}

impl Place {
    #[inline(always)]
    pub fn half(self) -> u32 {
        self.generation & 1
    }
}

#[inline(always)]
pub fn here() -> Place {
    let generation = match CONTROL.get_ptr(0) {
        // SAFETY: element 0 exists; volatile because the agent writes it.
        Some(control) => unsafe { core::ptr::read_volatile(&raw const (*control).generation) as u32 },
        None => 0,
    };
    // SAFETY: no arguments, no side effects.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    Place { cpu, generation }
}
