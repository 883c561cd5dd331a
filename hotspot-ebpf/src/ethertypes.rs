//! Of what is not read because of its ethertype, how much there was of each: off the straight path, and of a bounded number of them.
//!
//! Beside `other_ethertype`, which counts all of it: an ethertype for which there is no room is in that sum only.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::PerCpuHashMap;
use aya_ebpf::macros::btf_map;
use hotspot_common::{Count, ETHERTYPES_MAX, ethertype_key};

use crate::Wire;
use crate::frame::Frame;
use crate::{parse, settings};

/// A count per CPU, so that nothing here is atomic.
#[btf_map]
static ETHERTYPES: PerCpuHashMap<u32, Count, { ETHERTYPES_MAX as usize }> = PerCpuHashMap::new();

/// Counts a frame that ended as `other_ethertype`. A function of its own, so that the straight path does not grow.
#[inline(never)]
pub fn count(frame: &Frame, half: u32, packets: u64, bytes: u64) {
    let Some(ethertype) = parse::ethertype(frame) else { return };
    let key = ethertype_key(half, settings::interface() as u8, ethertype);
    let wire = Wire { packets, bytes };
    if !add(&key, wire) {
        // Another CPU may have made the element meanwhile; then it is found below.
        let _ = ETHERTYPES.insert(&key, &Count { packets: 0, bytes: 0 }, BPF_NOEXIST as u64);
        add(&key, wire);
    }
}

#[inline(always)]
fn add(key: &u32, wire: Wire) -> bool {
    let Some(count) = ETHERTYPES.get_ptr_mut(key) else { return false };
    // SAFETY: this CPU's own value; the agent deletes the element only after this generation has ended.
    let count = unsafe { &mut *count };
    count.packets += wire.packets;
    count.bytes += wire.bytes;
    true
}
