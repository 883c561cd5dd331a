//! Overflow totals: what a client sent when neither slot nor ring had room. Coarser than a flow, never absent.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::PerCpuHashMap;
use aya_ebpf::macros::btf_map;
use hotspot_common::{FlowKey, Happening, OverflowKey, OverflowTotal};

use crate::Wire;
use crate::generation::Place;
use crate::tally::Counters;

/// A total per CPU, so that nothing here is atomic. The loader sets the size.
#[btf_map]
static OVERFLOW: PerCpuHashMap<OverflowKey, OverflowTotal, 1> = PerCpuHashMap::new();

/// There is no total for this client and no room for one: the caller counts the packet as an outcome.
pub struct Full;

/// Counters that get coarser.
pub struct Coarse<'a> {
    pub key: &'a FlowKey,
    pub wire: Wire,
    pub first_ns: u64,
}

/// Adds counters to their client's total.
#[inline(always)]
pub fn fold(place: Place, coarse: &Coarse, tally: Counters) -> Result<(), Full> {
    let key = OverflowKey {
        client_ip: coarse.key.client_ip,
        client_mac: coarse.key.client_mac,
        origin: coarse.key.origin,
        half: place.half() as u8,
    };
    if !add(&key, coarse) {
        // Another CPU may have made the element meanwhile; then it is found below.
        let _ = OVERFLOW.insert(&key, &OverflowTotal { packets: 0, bytes: 0, first_ns: 0 }, BPF_NOEXIST as u64);
        if !add(&key, coarse) {
            return Err(Full);
        }
    }
    tally.note(Happening::ToOverflow);
    Ok(())
}

#[inline(always)]
fn add(key: &OverflowKey, coarse: &Coarse) -> bool {
    let Some(total) = OVERFLOW.get_ptr_mut(key) else { return false };
    // SAFETY: this CPU's own value; the agent deletes the element only after this generation has ended.
    let total = unsafe { &mut *total };
    if total.packets == 0 {
        total.first_ns = coarse.first_ns;
    }
    total.packets += coarse.wire.packets;
    total.bytes += coarse.wire.bytes;
    true
}
