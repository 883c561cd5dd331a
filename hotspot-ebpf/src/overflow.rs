//! Overflow totals: what a client sent when neither slot nor ring had room. Coarser than a flow, never absent.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::PerCpuHashMap;
use aya_ebpf::macros::btf_map;
use hotspot_common::{Birth, OverflowKey, OverflowTotal, Slot};

use crate::generation::Place;

/// A total per CPU, so that nothing here is atomic. The loader sets the size.
#[btf_map]
static OVERFLOW: PerCpuHashMap<OverflowKey, OverflowTotal, 1> = PerCpuHashMap::new();

/// There is no total for this client and no room for one: the caller counts the packet as an outcome.
pub struct Full;

/// Adds a slot's counters to its client's total.
#[inline(always)]
pub fn fold(place: Place, slot: &Slot, birth: &Birth) -> Result<(), Full> {
    let key = OverflowKey {
        client_ip: slot.key.client_ip,
        client_mac: slot.key.client_mac,
        origin: slot.key.origin,
        half: place.half() as u8,
    };
    if add(&key, slot, birth) {
        return Ok(());
    }
    // Another CPU may have made the element meanwhile; then it is found below.
    let _ = OVERFLOW.insert(&key, &OverflowTotal { packets: 0, bytes: 0, first_ns: 0 }, BPF_NOEXIST as u64);
    if add(&key, slot, birth) { Ok(()) } else { Err(Full) }
}

#[inline(always)]
fn add(key: &OverflowKey, slot: &Slot, birth: &Birth) -> bool {
    let Some(total) = OVERFLOW.get_ptr_mut(key) else { return false };
    // SAFETY: this CPU's own value; the agent deletes the element only after this generation has ended.
    let total = unsafe { &mut *total };
    if total.packets == 0 {
        total.first_ns = birth.first_ns;
    }
    total.packets += slot.packets as u64;
    total.bytes += slot.bytes as u64;
    true
}
