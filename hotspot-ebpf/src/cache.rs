//! The flow cache: each CPU's own set-associative range of a memory-mapped array, in two halves.
//!
//! Guarantees that no counter is overwritten: a slot that must make room is handed over first, or stays. The CPU is the only writer of
//! its range (softirqs do not nest, and process context counts with softirqs off), so there is no lock and no atomic.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use hotspot_common::{Birth, FlowKey, Set, Slot, WAYS};

use crate::generation::{MMAPABLE, Place};
use crate::overflow::{self, Coarse, Full};
use crate::parse::Parsed;
use crate::tally::Counters;
use crate::{Wire, announce, clock, settings, share};

/// Index: (half × CPUs + CPU) × sets per CPU + set. The loader sets the size. A flow may lie in each slot of one set, so that one
/// look-up finds them all, and when each was claimed.
#[btf_map]
static SLOTS: Array<Set, 1, MMAPABLE> = Array::new();

/// TCP flags that end and begin a connection.
const FIN_OR_RST: u8 = 0b0000_0101;
const SYN: u8 = 0b0000_0010;
const ACK: u8 = 0b0001_0000;

/// A key as [`FlowKey::words`] gives it.
pub type Words = [u64; 6];

/// One packet, as far as the cache is concerned.
pub struct Packet {
    pub parsed: Parsed,
    pub wire: Wire,
    pub place: Place,
    /// As [`hash`] gives it.
    pub hash: u64,
}

/// What has to happen before a slot can be the packet's.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Room {
    /// Nothing: the slot is empty.
    Free,
    /// Another flow has to go.
    Taken,
    /// The flow itself has to go: a counter would wrap, or its connection was opened anew. It is not announced again.
    Own,
}

/// Adds a packet to its flow where that is the first slot that is looked at, as it nearly always is; `false` where it is not, or has
/// to begin anew. The key must not be all zeros, as that of an empty slot is, and the packet must not open a connection.
#[inline(always)]
pub fn add_to_first(words: &Words, hash: u64, wire: Wire, tcp_flags: u8, place: Place) -> bool {
    let Some(set) = set_of(place.active.first_set, hash & place.reach()) else { return false };
    // SAFETY: a live slot of the map that only this CPU writes.
    let slot = unsafe { &mut *slot_in(set, hash, 0) };
    same(slot.key.words(), words) && grow(slot, wire, tcp_flags)
}

const ADDED: u32 = 1;

/// Adds a packet to its flow, wherever that is. Does not return [`ADDED`] only where neither slot, ring nor overflow total has room.
///
/// A function of its own, with plain integers in and out: this way the straight path keeps its registers and the program its stack.
#[inline(never)]
fn add_anywhere(packet: &Packet, tally: Counters) -> u32 {
    let hash = packet.place.forget(packet.hash & packet.place.reach());
    let Some(set) = set_of(packet.place.active.first_set, hash) else { return 0 };
    let mut victim = Victim { slot: slot_in(set, hash, 0), birth: birth_in(set, hash, 0), age: 0 };
    let now = clock::jiffies();
    for way in 0..WAYS {
        let (address, birth) = (slot_in(set, hash, way), birth_in(set, hash, way));
        // SAFETY: a live slot of the map that only this CPU writes.
        let slot = unsafe { &mut *address };
        if same(slot.key.words(), packet.parsed.key.words()) && slot.packets != 0 {
            let is_opened_anew = packet.parsed.tcp_flags & (SYN | ACK) == SYN && slot.tcp_flags & FIN_OR_RST != 0;
            let has_grown = !is_opened_anew && grow(slot, packet.wire, packet.parsed.tcp_flags);
            return if has_grown { ADDED } else { claim(packet, address, birth, Room::Own as u32, tally) };
        }
        // Ways fill in order and never empty within a generation, so the flow is in no later one.
        if slot.packets == 0 {
            return claim(packet, address, birth, Room::Free as u32, tally);
        }
        victim.consider(address, birth, now.wrapping_sub(slot.last_jiffies));
    }
    packet.place.crowd();
    claim(packet, victim.slot, victim.birth, Room::Taken as u32, tally)
}

/// Adds a packet to its flow. `Err` only where neither slot, ring nor overflow total has room.
#[inline(always)]
pub fn add(packet: &Packet, tally: Counters) -> Result<(), Full> {
    if add_anywhere(packet, tally) == ADDED { Ok(()) } else { Err(Full) }
}

/// Adds to the slot that holds the flow; `false` where the slot has to begin anew first.
#[inline(always)]
fn grow(slot: &mut Slot, wire: Wire, tcp_flags: u8) -> bool {
    let bytes = slot.bytes as u64 + wire.bytes;
    // No packet is without bytes, so packets do not wrap before bytes do.
    if bytes >> 32 != 0 {
        return false;
    }
    slot.bytes = bytes as u32;
    slot.packets += wire.packets as u32;
    slot.last_jiffies = clock::jiffies();
    slot.tcp_flags |= tcp_flags;
    true
}

/// Makes room in a slot, gives it to the packet's flow, and announces the flow if it is new. Where there is no room for the one who
/// has to go, the packet goes to its client's overflow total.
#[inline(never)]
fn claim(packet: &Packet, slot: *mut Slot, birth: *mut Birth, room: u32, tally: Counters) -> u32 {
    // SAFETY: in a live element of the map that only this CPU writes.
    let (slot, birth) = unsafe { (&mut *slot, &mut *birth) };
    let is_new = room != Room::Own as u32;
    // Three lines that are likely to come from memory, asked for together: the clock waits for loads that are under way, and the ring's
    // lock for stores.
    // SAFETY: a live element of the map.
    let _ = unsafe { (&raw const birth.padding).read_volatile() };
    let is_announced = !is_new || is_known(packet);
    let has_had_its_share = is_new && share::is_used_up(packet.place, &packet.parsed.key);
    if room != Room::Free as u32 && !announce::evicted(packet.place, slot, birth, has_had_its_share, tally) {
        if is_new {
            // The slot stays whose it is: those who were there before keep their detail.
            let coarse = Coarse { key: &packet.parsed.key, wire: packet.wire, first_ns: clock::monotonic_ns() };
            return if overflow::fold(packet.place, &coarse, tally).is_ok() { ADDED } else { 0 };
        }
        let wire = Wire { packets: slot.packets as u64, bytes: slot.bytes as u64 };
        let coarse = Coarse { key: &slot.key, wire, first_ns: birth.first_ns };
        if overflow::fold(packet.place, &coarse, tally).is_err() {
            return 0;
        }
    }
    copy(&packet.parsed.key, &mut slot.key);
    slot.bytes = packet.wire.bytes as u32;
    slot.packets = packet.wire.packets as u32;
    slot.last_jiffies = clock::jiffies();
    slot.tcp_flags = packet.parsed.tcp_flags;
    *birth = Birth { first_ns: clock::monotonic_ns(), first_jiffies: slot.last_jiffies, padding: 0 };
    if !is_announced {
        announce::opened(packet.place, slot, birth, tally);
    }
    ADDED
}

/// Whether the other half holds the flow: then it is not new, but begins a new generation.
///
/// The agent may be clearing that half at this moment; the worst that makes is a second announcement.
#[inline(always)]
fn is_known(packet: &Packet) -> bool {
    let hash = packet.place.forget(packet.hash & packet.place.other_reach());
    let Some(set) = set_of(packet.place.other_first_set(), hash) else { return false };
    for way in 0..WAYS {
        // SAFETY: a live slot of the map, read only.
        let slot = unsafe { &*slot_in(set, hash, way) };
        if slot.packets == 0 {
            return false;
        }
        if same(slot.key.words(), packet.parsed.key.words()) {
            return true;
        }
    }
    false
}

/// The slot whose last packet is the longest ago.
struct Victim {
    slot: *mut Slot,
    birth: *mut Birth,
    age: u32,
}

impl Victim {
    #[inline(always)]
    fn consider(&mut self, slot: *mut Slot, birth: *mut Birth, age: u32) {
        if age > self.age {
            *self = Self { slot, birth, age };
        }
    }
}

/// The set a flow may lie in, of those that begin with `first_set`.
#[inline(always)]
fn set_of(first_set: u32, hash: u64) -> Option<*mut Set> {
    SLOTS.get_ptr_mut(first_set + (hash / WAYS as u64) as u32)
}

/// The slot of a set that is looked at as number `way`. Flows that share a set begin with different ones.
#[inline(always)]
fn slot_in(set: *mut Set, hash: u64, way: u32) -> *mut Slot {
    set.cast::<Slot>().wrapping_add(way_of(hash, way) as usize)
}

/// When that slot was claimed.
#[inline(always)]
fn birth_in(set: *mut Set, hash: u64, way: u32) -> *mut Birth {
    let births = set.wrapping_byte_add(core::mem::offset_of!(Set, births));
    births.cast::<Birth>().wrapping_add(way_of(hash, way) as usize)
}

#[inline(always)]
fn way_of(hash: u64, way: u32) -> u32 {
    hash as u32 % WAYS ^ way
}

/// Multilinear hash of the key's words with random odd multipliers, cut to the slots of one CPU.
///
/// The highest bits are those that every bit of a word reaches. Two keys share a slot with a probability of at most two in the number
/// of slots, unless they differ in nothing but the uppermost bits of words (M. Dietzfelbinger, T. Hagerup, J. Katajainen,
/// M. Penttonen: A reliable randomized algorithm for the closest-pair problem, 1997).
#[inline(always)]
pub fn hash(words: &Words, place: Place) -> u64 {
    let mut sum = 0u64;
    for word in 0..words.len() {
        sum = sum.wrapping_add(mix(words, word, place));
    }
    sum >> settings::hash_shift()
}

/// What one word adds to a hash. The first four are addresses, whose last bytes vary most: they must not be the uppermost.
#[inline(always)]
pub fn mix(words: &Words, word: usize, place: Place) -> u64 {
    let value = if word < 4 { words[word].swap_bytes() } else { words[word] };
    value.wrapping_mul(place.hash_key(word))
}

#[inline(always)]
fn same(left: &Words, right: &Words) -> bool {
    left[5] == right[5]
        && left[4] == right[4]
        && left[3] == right[3]
        && left[2] == right[2]
        && left[1] == right[1]
        && left[0] == right[0]
}

/// Word by word: an assignment of 48 bytes becomes a call of a function that copies bytes.
#[inline(always)]
pub fn copy(from: &FlowKey, to: &mut FlowKey) {
    let from = from.words();
    let to = (&raw mut *to).cast::<u64>();
    for (word, value) in from.iter().enumerate() {
        // SAFETY: the key is six words (asserted where it is defined); volatile so that the stores stay apart.
        unsafe { to.add(word).write_volatile(*value) };
    }
}
