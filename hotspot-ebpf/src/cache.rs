//! The flow cache: each CPU's own set-associative range of a memory-mapped array, in two halves.
//!
//! Guarantees that no counter is overwritten: a slot that must make room is handed over first, or stays. The CPU is the only writer of
//! its range (softirqs do not nest, and process context counts with softirqs off), so there is no lock and no atomic.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use hotspot_common::{Active, Birth, FlowKey, Head, Set, Slot, WAYS};

use crate::generation::{MMAPABLE, Place};
use crate::overflow::{self, Coarse, Full};
use crate::parse::Parsed;
use crate::tally::Counters;
use crate::{Wire, announce, clock, settings, share};

/// Index: (half × CPUs + CPU) × sets per CPU + set. The loader sets the size. A flow may lie in each slot of a set, so that one look-up
/// finds them all, and when each was claimed; where the set was full, in its neighbour.
#[btf_map]
static SLOTS: Array<Set, 1, MMAPABLE> = Array::new();

/// How many sets a flow may lie in.
const SETS: u32 = 2;

/// How many slots of the first one the straight path looks at.
const WAYS_AT_ONCE: u32 = 2;

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
    pub active: Active,
    /// As [`hash`] gives it.
    pub hash: u64,
}

/// Where each CPU keeps the packet at hand, unless it can just be added to its flow. Index: CPU. The loader sets the size.
///
/// Not on the stack, because of what is read from a map the verifier knows nothing: it need not follow each way in which a packet was
/// parsed through all that comes after.
#[btf_map]
static PACKETS: Array<Packet, 1> = Array::new();

/// Room for the packet at hand; `None` only where the loader made the map too small.
#[inline(always)]
pub fn packet_at_hand(place: Place) -> Option<*mut Packet> {
    PACKETS.get_ptr_mut(place.cpu())
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

impl Room {
    /// With the way it is about as one word, because a function of its own takes five arguments.
    #[inline(always)]
    fn of(self, way: u32) -> u64 {
        (self as u64) << u32::BITS | way as u64
    }
}

/// Adds a packet to its flow where that is in one of the slots that are looked at first, as it nearly always is; `false` where it is not,
/// or has to begin anew. The key must not be all zeros, as that of an empty slot is, and the packet must not open a connection.
#[inline(always)]
pub fn add_at_once(words: &Words, hash: u64, wire: Wire, tcp_flags: u8, place: Place) -> bool {
    let Some(set) = set_of(place.active.first_set, hash & place.reach()) else { return false };
    for way in 0..WAYS_AT_ONCE {
        // SAFETY: a live slot of the map that only this CPU writes.
        let slot = unsafe { &mut *slot_of(set, way_of(hash, way)) };
        if same(slot.key.words(), words) {
            return grow(slot, wire, tcp_flags);
        }
    }
    false
}

/// The packet is counted.
const ADDED: u32 = 1;
/// The flow is not in a set whose slots are all taken.
const SET_IS_FULL: u32 = 2;

/// Adds a packet to its flow, wherever that is. `Err` only where neither slot, ring nor overflow total has room.
#[inline(always)]
pub fn add(packet: &Packet, place: Place, tally: Counters) -> Result<(), Full> {
    let mut done = SET_IS_FULL;
    for turn in 0..SETS {
        if done == SET_IS_FULL {
            done = add_in_set(packet, place.head, turn, tally);
        }
    }
    if done == SET_IS_FULL {
        done = add_instead(packet, place.head, tally);
    }
    if done == ADDED { Ok(()) } else { Err(Full) }
}

/// Adds a packet to its flow in one of the sets, where the flow is there or a slot is free.
///
/// A function of its own, with plain integers in and out: this way the straight path keeps its registers and the program its stack.
#[inline(never)]
fn add_in_set(packet: &Packet, head: *mut Head, turn: u32, tally: Counters) -> u32 {
    let place = Place { head, active: packet.active };
    let hash = in_turn(packet.hash & place.reach(), turn);
    let Some(set) = set_of(place.active.first_set, hash) else { return 0 };
    for way in 0..WAYS {
        let way = way_of(hash, way);
        // SAFETY: a live slot of the map that only this CPU writes.
        let slot = unsafe { &mut *slot_of(set, way) };
        if same(slot.key.words(), packet.parsed.key.words()) && slot.packets != 0 {
            let is_opened_anew = packet.parsed.tcp_flags & (SYN | ACK) == SYN && slot.tcp_flags & FIN_OR_RST != 0;
            let has_grown = !is_opened_anew && grow(slot, packet.wire, packet.parsed.tcp_flags);
            return if has_grown { ADDED } else { claim(packet, head, set, Room::Own.of(way), tally) };
        }
        // Ways fill in order and never empty within a generation, so the flow is in no later one.
        if slot.packets == 0 {
            return claim(packet, head, set, Room::Free.of(way), tally);
        }
    }
    SET_IS_FULL
}

/// Gives the packet's flow the slot of its first set whose last packet is the longest ago.
#[inline(never)]
fn add_instead(packet: &Packet, head: *mut Head, tally: Counters) -> u32 {
    let place = Place { head, active: packet.active };
    let hash = packet.hash & place.reach();
    // Only now: a wider reach would mean another set.
    place.crowd();
    let Some(set) = set_of(place.active.first_set, hash) else { return 0 };
    let (now, mut victim, mut oldest) = (clock::jiffies(), 0, 0);
    for way in 0..WAYS {
        // SAFETY: a live slot of the map.
        let age = now.wrapping_sub(unsafe { (*slot_of(set, way)).last_jiffies });
        if age > oldest {
            (victim, oldest) = (way, age);
        }
    }
    claim(packet, head, set, Room::Taken.of(victim), tally)
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
fn claim(packet: &Packet, head: *mut Head, set: *mut Set, choice: u64, tally: Counters) -> u32 {
    let place = Place { head, active: packet.active };
    let (room, way) = ((choice >> u32::BITS) as u32, choice as u32);
    // SAFETY: in a live element of the map that only this CPU writes.
    let slot = unsafe { &mut *slot_of(set, way) };
    // SAFETY: as above.
    let birth = unsafe { &mut *birth_of(set, way) };
    let is_new = room != Room::Own as u32;
    // Three lines that are likely to come from memory, asked for together: the clock waits for loads that are under way, and the ring's
    // lock for stores.
    // SAFETY: a live element of the map.
    let _ = unsafe { (&raw const birth.padding).read_volatile() };
    let is_announced = !is_new || is_known(packet, place);
    let has_had_its_share = is_new && share::is_used_up(place, &packet.parsed.key);
    if room != Room::Free as u32 && !announce::evicted(place, slot, birth, has_had_its_share, tally) {
        if is_new {
            // The slot stays whose it is: those who were there before keep their detail.
            let coarse = Coarse { key: &packet.parsed.key, wire: packet.wire, first_ns: clock::monotonic_ns() };
            return if overflow::fold(place, &coarse, tally).is_ok() { ADDED } else { 0 };
        }
        let wire = Wire { packets: slot.packets as u64, bytes: slot.bytes as u64 };
        let coarse = Coarse { key: &slot.key, wire, first_ns: birth.first_ns };
        if overflow::fold(place, &coarse, tally).is_err() {
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
        announce::opened(place, slot, birth, tally);
    }
    ADDED
}

/// Whether the other half holds the flow: then it is not new, but begins a new generation.
///
/// The agent may be clearing that half at this moment; the worst that makes is a second announcement.
#[inline(always)]
fn is_known(packet: &Packet, place: Place) -> bool {
    let hash = packet.hash & place.other_reach();
    for turn in 0..SETS {
        let Some(set) = set_of(place.other_first_set(), in_turn(hash, turn)) else { return false };
        for way in 0..WAYS {
            // SAFETY: a live slot of the map, read only.
            let slot = unsafe { &*slot_of(set, way_of(hash, way)) };
            if slot.packets == 0 {
                return false;
            }
            if same(slot.key.words(), packet.parsed.key.words()) {
                return true;
            }
        }
    }
    false
}

/// The set a flow may lie in, of those that begin with `first_set`.
#[inline(always)]
fn set_of(first_set: u32, hash: u64) -> Option<*mut Set> {
    SLOTS.get_ptr_mut(first_set + hash as u32 / WAYS)
}

/// The same for the set that is looked at as number `turn`: where a set is full its neighbour is tried.
#[inline(always)]
fn in_turn(hash: u64, turn: u32) -> u64 {
    hash ^ (turn * WAYS) as u64
}

/// A slot of a set.
#[inline(always)]
fn slot_of(set: *mut Set, way: u32) -> *mut Slot {
    set.cast::<Slot>().wrapping_add((way % WAYS) as usize)
}

/// When that slot was claimed.
#[inline(always)]
fn birth_of(set: *mut Set, way: u32) -> *mut Birth {
    let births = set.wrapping_byte_add(core::mem::offset_of!(Set, births));
    births.cast::<Birth>().wrapping_add((way % WAYS) as usize)
}

/// The way that is looked at as number `way`. Flows that share a set begin with different ones.
#[inline(always)]
fn way_of(hash: u64, way: u32) -> u32 {
    hash as u32 % WAYS ^ way
}

/// 2⁶⁴ divided by the golden ratio, odd (D. Knuth, The Art of Computer Programming 3, §6.4).
const FINAL: u64 = 0x9e37_79b9_7f4a_7c15;

/// What is left of a hash: more than there are slots, whose number the reach cuts it to.
const HASH_BITS: u32 = 28;

/// Multilinear hash of the key's words with random odd multipliers.
///
/// Two keys hardly ever have the same sum, unless they differ in nothing but the uppermost bits of words (M. Dietzfelbinger, T. Hagerup,
/// J. Katajainen, M. Penttonen: A reliable randomized algorithm for the closest-pair problem, 1997), but sums of keys that resemble each
/// other lie in patterns: the last step spreads them, so that how full sets get does not depend on luck with the multipliers.
#[inline(always)]
pub fn hash(words: &Words, place: Place) -> u64 {
    let mut sum = 0u64;
    for word in 0..words.len() {
        sum = sum.wrapping_add(mix(words, word, place));
    }
    (sum ^ sum >> 32).wrapping_mul(FINAL) >> (u64::BITS - HASH_BITS)
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
