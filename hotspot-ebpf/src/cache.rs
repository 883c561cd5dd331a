//! The flow cache: each CPU's own set-associative range of a memory-mapped array, in two halves.
//!
//! Guarantees that no counter is overwritten: a slot that must make room is handed over first, or stays. The CPU is the only writer of
//! its range (softirqs do not nest, and process context counts with softirqs off), so there is no lock and no atomic.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use hotspot_common::{Birth, FlowKey, Slot, WAYS};

use crate::generation::{MMAPABLE, Place};
use crate::overflow::{self, Coarse, Full};
use crate::tally::Counters;
use crate::{Wire, announce, clock, settings, share};

/// Index: (half × CPUs + CPU) × slots per CPU + slot. The loader sets the size, of both maps.
#[btf_map]
static SLOTS: Array<Slot, 1, MMAPABLE> = Array::new();

/// When each slot was claimed; apart, because adding to a known flow does not touch it.
#[btf_map]
static BIRTHS: Array<Birth, 1, MMAPABLE> = Array::new();

/// TCP flags that end and begin a connection.
const FIN_OR_RST: u8 = 0b0000_0101;
const SYN: u8 = 0b0000_0010;
const ACK: u8 = 0b0001_0000;

/// One packet, as far as the cache is concerned.
pub struct Packet {
    pub key: FlowKey,
    pub wire: Wire,
    pub tcp_flags: u8,
    pub place: Place,
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

/// Adds a packet to its flow. `Err` only where neither slot, ring nor overflow total has room.
#[inline(always)]
pub fn add(packet: &Packet, tally: Counters) -> Result<(), Full> {
    let hash = hash(&packet.key);
    let base = range(packet.place.half(), packet.place.cpu);
    let mut victim = Victim::none();
    for way in 0..WAYS {
        let index = base + (hash ^ way);
        let Some(slot) = SLOTS.get_ptr_mut(index) else { return Err(Full) };
        // SAFETY: a live element of the map that only this CPU writes.
        let slot = unsafe { &mut *slot };
        if same(&slot.key, &packet.key) && slot.packets != 0 {
            return if grow(slot, packet) { Ok(()) } else { settle(packet, index, hash, Room::Own, tally) };
        }
        // Ways fill in order and never empty within a generation, so the flow is in no later one.
        if slot.packets == 0 {
            return settle(packet, index, hash, Room::Free, tally);
        }
        victim.consider(index, slot);
    }
    settle(packet, victim.index, hash, Room::Taken, tally)
}

/// Adds to the slot that holds the flow; `false` where the slot has to begin anew first.
#[inline(always)]
fn grow(slot: &mut Slot, packet: &Packet) -> bool {
    let bytes = slot.bytes as u64 + packet.wire.bytes;
    let packets = slot.packets as u64 + packet.wire.packets;
    let reopened = packet.tcp_flags & (SYN | ACK) == SYN && slot.tcp_flags & FIN_OR_RST != 0;
    if (bytes | packets) >> 32 != 0 || reopened {
        return false;
    }
    slot.bytes = bytes as u32;
    slot.packets = packets as u32;
    slot.last_jiffies = clock::jiffies();
    slot.tcp_flags |= packet.tcp_flags;
    true
}

#[inline(always)]
fn settle(packet: &Packet, index: u32, hash: u32, room: Room, tally: Counters) -> Result<(), Full> {
    if claim(packet, index, hash, room as u32, tally) == CLAIMED { Ok(()) } else { Err(Full) }
}

const CLAIMED: u32 = 1;

/// Makes room in a slot, gives it to the packet's flow, and announces the flow if it is new. Where there is no room for the one who
/// has to go, the packet goes to its client's overflow total.
///
/// A function of its own, with plain integers in and out: this way the hot path keeps its registers and the program its stack.
#[inline(never)]
fn claim(packet: &Packet, index: u32, hash: u32, room: u32, tally: Counters) -> u32 {
    let (Some(slot), Some(birth)) = (SLOTS.get_ptr_mut(index), BIRTHS.get_ptr_mut(index)) else { return 0 };
    // SAFETY: live elements of the maps that only this CPU writes.
    let (slot, birth) = unsafe { (&mut *slot, &mut *birth) };
    let is_new = room != Room::Own as u32;
    let has_had_its_share = is_new && share::is_used_up(packet.place, &packet.key);
    if room != Room::Free as u32 && !announce::evicted(packet.place, slot, birth, has_had_its_share, tally) {
        if is_new {
            // The slot stays whose it is: those who were there before keep their detail.
            let coarse = Coarse { key: &packet.key, wire: packet.wire, first_ns: clock::monotonic_ns() };
            return if overflow::fold(packet.place, &coarse, tally).is_ok() { CLAIMED } else { 0 };
        }
        let wire = Wire { packets: slot.packets as u64, bytes: slot.bytes as u64 };
        let coarse = Coarse { key: &slot.key, wire, first_ns: birth.first_ns };
        if overflow::fold(packet.place, &coarse, tally).is_err() {
            return 0;
        }
    }
    copy(&packet.key, &mut slot.key);
    slot.bytes = packet.wire.bytes as u32;
    slot.packets = packet.wire.packets as u32;
    slot.last_jiffies = clock::jiffies();
    slot.tcp_flags = packet.tcp_flags;
    *birth = Birth { first_ns: clock::monotonic_ns(), first_jiffies: slot.last_jiffies, padding: 0 };
    if is_new && !is_known(packet.place, &packet.key, hash) {
        announce::opened(packet.place, slot, birth, tally);
    }
    CLAIMED
}

/// Whether the other half holds the flow: then it is not new, but begins a new generation.
///
/// The agent may be clearing that half at this moment; the worst that makes is a second announcement.
#[inline(always)]
fn is_known(place: Place, key: &FlowKey, hash: u32) -> bool {
    let base = range(place.half() ^ 1, place.cpu);
    for way in 0..WAYS {
        let Some(slot) = SLOTS.get_ptr(base + (hash ^ way)) else { return false };
        // SAFETY: a live element of the map, read only.
        let slot = unsafe { &*slot };
        if slot.packets == 0 {
            return false;
        }
        if same(&slot.key, key) {
            return true;
        }
    }
    false
}

/// The slot whose last packet is the longest ago.
struct Victim {
    index: u32,
    age: u32,
    now: u32,
}

impl Victim {
    #[inline(always)]
    fn none() -> Self {
        Self { index: 0, age: 0, now: 0 }
    }

    #[inline(always)]
    fn consider(&mut self, index: u32, slot: &Slot) {
        if self.now == 0 {
            self.now = clock::jiffies();
            self.index = index;
        }
        let age = self.now.wrapping_sub(slot.last_jiffies);
        if age > self.age {
            self.index = index;
            self.age = age;
        }
    }
}

#[inline(always)]
fn range(half: u32, cpu: u32) -> u32 {
    (half * settings::cpus() + cpu) << settings::slots_per_cpu_log2()
}

/// Multilinear hash of the key's words with random odd multipliers, cut to the slots of one CPU.
#[inline(always)]
fn hash(key: &FlowKey) -> u32 {
    let words = key.words();
    let mut sum = 0u64;
    for word in 0..words.len() {
        sum = sum.wrapping_add(mix(words, word));
    }
    ((sum >> 32) as u32) & settings::slots_mask()
}

/// What one word adds to a hash. The upper half is folded in so that the multiplier spreads every bit over the upper half.
#[inline(always)]
pub fn mix(words: &[u64; 6], word: usize) -> u64 {
    (words[word] ^ (words[word] >> 32)).wrapping_mul(settings::hash_key(word))
}

#[inline(always)]
fn same(left: &FlowKey, right: &FlowKey) -> bool {
    let (left, right) = (left.words(), right.words());
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
