//! What each CPU owns beside its slots: where to count, and what was counted of packets in no flow.

use crate::{INTERFACES_MAX, Tally};

/// One element of the map `HEADS`, whose index is the CPU. One lookup gives a program all it needs beside the slots.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Head {
    /// An [`Active`] as one word, written by the agent and read once per program run.
    pub active: u64,
    /// Multipliers of the slot hash, odd; on the line that is read anyway.
    pub hash_keys: [u64; 6],
    /// By half: which of the CPU's slots are used, as a mask of their numbers. Few flows are kept together, on few pages of memory; a
    /// program whose flows get crowded takes all slots, and the agent narrows it again before a generation begins.
    pub reaches: [u32; 2],
    /// The first set of the CPU's range in each half.
    pub first_sets: [u32; 2],
    /// By half: how many flows had to make room.
    pub crowded: [u32; 2],
    pub padding: [u64; 6],
    /// By half and interface. Only programs on this CPU write them.
    pub tallies: [[Tally; INTERFACES_MAX as usize]; 2],
}

impl Head {
    /// A CPU's head before anything was counted.
    pub const EMPTY: Self = Self {
        active: 0,
        hash_keys: [0; 6],
        reaches: [0; 2],
        first_sets: [0; 2],
        crowded: [0; 2],
        padding: [0; 6],
        tallies: [[Tally::EMPTY; INTERFACES_MAX as usize]; 2],
    };
}

impl Default for Head {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Which generation a CPU writes, and where: both change at the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// Low 32 bits of the generation's number; its lowest bit is the half.
    pub generation: u32,
    /// The first set of the CPU's range in that half.
    pub first_set: u32,
}

impl Active {
    #[must_use]
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { generation: word as u32, first_set: (word >> 32) as u32 }
    }

    #[must_use]
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.generation as u64 | (self.first_set as u64) << 32
    }
}

const _: () = {
    assert!(core::mem::offset_of!(Head, first_sets) == 64);
    assert!(core::mem::offset_of!(Head, tallies) == 128);
    assert!(size_of::<Head>() == 128 + 2 * INTERFACES_MAX as usize * size_of::<Tally>());
};
