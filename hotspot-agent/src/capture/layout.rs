//! Layouts of the kernel's maps: the one this agent writes, and earlier ones whose remains it can still read.
//!
//! An upgrade finds the maps of the version before, full of what is not on disk. What differs between layouts is said here, so that
//! everything else reads both alike. A layout that was released stays here for as long as somebody may upgrade from it.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use aya::maps::MapData;
use hotspot_common::{Birth, Happening, Head, INTERFACES_MAX, LAYOUT_VERSION, Outcome, Set, Slot, Tally, WAYS};

use super::barrier::Waited;
use super::memory::MappedArray;

/// What differs between layouts. Variants of both enums are only ever added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub version: u32,
    /// How many of [`Outcome`] a tally counts.
    pub outcomes: usize,
    /// How many of [`Happening`].
    pub happenings: usize,
    /// Whether each CPU has a [`Head`] that says which generation it writes and holds its tallies. Before, programs read the generation
    /// in `CONTROL`, and tallies were a map of their own.
    pub has_heads: bool,
    /// Whether the times slots were claimed at lie beside them. Before, they were a map of their own.
    pub has_births_beside: bool,
}

/// What the programs of this agent write.
pub const CURRENT: Layout = Layout {
    version: LAYOUT_VERSION,
    outcomes: Outcome::ALL.len(),
    happenings: Happening::ALL.len(),
    has_heads: true,
    has_births_beside: true,
};

/// What this agent can read: keys, slots, records and totals are the same in all of them.
const READABLE: [Layout; 3] = [
    Layout { version: 1, outcomes: 16, happenings: 4, has_heads: false, has_births_beside: false },
    Layout { version: 2, outcomes: 16, happenings: 6, has_heads: true, has_births_beside: false },
    CURRENT,
];

impl Layout {
    /// The layout of a directory of pins, `v<version>`; `None` where it is not one that this agent can read.
    #[must_use]
    pub fn of_dir(name: &str) -> Option<Self> {
        let version: u32 = name.strip_prefix('v')?.parse().ok()?;
        READABLE.into_iter().find(|layout| layout.version == version)
    }

    #[must_use]
    pub fn dir_name(self) -> String {
        format!("v{}", self.version)
    }

    fn tally_words(self) -> usize {
        2 + 2 * self.outcomes + self.happenings
    }

    /// The map the tallies are in.
    pub(super) fn tallies_map(self) -> &'static str {
        if self.has_heads { "HEADS" } else { "TALLIES" }
    }
}

/// The slots and when each was claimed, whatever their layout. Index: slots of the halves, CPU by CPU.
pub(super) enum Slots {
    Apart { slots: MappedArray<Slot>, births: MappedArray<Birth> },
    Beside(MappedArray<Set>),
}

impl Slots {
    /// Opens so many slots; `map` opens a map by its name.
    pub(super) fn open<E>(
        layout: Layout,
        count: usize,
        map: impl Fn(&str) -> Result<MapData, E>,
    ) -> Result<io::Result<Self>, E> {
        let slots = map("SLOTS")?;
        if layout.has_births_beside {
            return Ok(MappedArray::new(slots.fd(), count / WAYS as usize).map(Self::Beside));
        }
        let births = map("BIRTHS")?;
        let both = || {
            Ok(Self::Apart {
                slots: MappedArray::new(slots.fd(), count)?,
                births: MappedArray::new(births.fd(), count)?,
            })
        };
        Ok(both())
    }

    /// Gives the slots of whole sets that hold a flow, and that no program writes any more.
    pub(super) fn in_use<E>(
        &self,
        range: Range<usize>,
        proof: &Waited,
        mut give: impl FnMut(usize, &Slot, &Birth) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut give_used = |index: usize, slot: &Slot, birth: &Birth| {
            if slot.packets == 0 { Ok(()) } else { give(index, slot, birth) }
        };
        match self {
            Self::Apart { slots, births } => {
                let both = slots.settled(range.clone(), proof).iter().zip(births.settled(range.clone(), proof));
                range.zip(both).try_for_each(|(index, (slot, birth))| give_used(index, slot, birth))
            }
            Self::Beside(sets) => {
                let ways = WAYS as usize;
                let settled = sets.settled(range.start / ways..range.end / ways, proof);
                range.step_by(ways).zip(settled).try_for_each(|(first, set)| {
                    let both = set.slots.iter().zip(&set.births);
                    (first..).zip(both).try_for_each(|(index, (slot, birth))| give_used(index, slot, birth))
                })
            }
        }
    }

    pub(super) fn clear(&self, index: usize) {
        match self {
            Self::Apart { slots, .. } => slots.write(index, Slot::default()),
            Self::Beside(sets) => sets.write_slot(index / WAYS as usize, index % WAYS as usize, Slot::default()),
        }
    }
}

const HEAD_WORDS: usize = size_of::<Head>() / size_of::<u64>();
/// Words of a head before its tallies.
const HEAD_START: usize = std::mem::offset_of!(Head, tallies) / size_of::<u64>();

/// The tallies, whatever their layout. Index: (half × CPUs + CPU) × [`INTERFACES_MAX`] + interface.
pub(super) struct Tallies {
    words: MappedArray<u64>,
    layout: Layout,
    cpus: usize,
}

impl Tallies {
    pub(super) fn new(map: impl AsFd, cpus: u32, layout: Layout) -> io::Result<Self> {
        let cpus = usize::try_from(cpus).map_err(io::Error::other)?;
        let alone = 2 * cpus * INTERFACES_MAX as usize * layout.tally_words();
        let words = if layout.has_heads { cpus * HEAD_WORDS } else { alone };
        Ok(Self { words: MappedArray::new(map, words)?, layout, cpus })
    }

    /// Where a tally's words are.
    fn range(&self, index: usize) -> Range<usize> {
        let words = self.layout.tally_words();
        let mut first = index * words;
        if self.layout.has_heads {
            let (row, interface) = (index / INTERFACES_MAX as usize, index % INTERFACES_MAX as usize);
            let (half, cpu) = (row / self.cpus, row % self.cpus);
            first = cpu * HEAD_WORDS + HEAD_START + (half * INTERFACES_MAX as usize + interface) * words;
        }
        first..first + words
    }

    /// What a tally holds now; may be torn while a program writes it.
    pub(super) fn read(&self, index: usize) -> Tally {
        let range = self.range(index);
        self.tally(|word| self.words.read(range.start + word))
    }

    /// A tally that no program writes any more.
    pub(super) fn settled(&self, index: usize, proof: &Waited) -> Tally {
        let settled = self.words.settled(self.range(index), proof);
        self.tally(|word| settled[word])
    }

    pub(super) fn clear(&self, index: usize) {
        self.range(index).for_each(|word| self.words.write(word, 0));
    }

    fn tally(&self, word: impl Fn(usize) -> u64) -> Tally {
        let mut tally = Tally::default();
        (tally.seen.packets, tally.seen.bytes) = (word(0), word(1));
        for (position, count) in tally.outcomes.iter_mut().take(self.layout.outcomes).enumerate() {
            (count.packets, count.bytes) = (word(2 + 2 * position), word(3 + 2 * position));
        }
        for (position, count) in tally.happenings.iter_mut().take(self.layout.happenings).enumerate() {
            *count = word(2 + 2 * self.layout.outcomes + position);
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the counters of a released layout mean never changes.
    #[test]
    fn the_counters_of_released_layouts_are_where_they_were() {
        let outcomes: Vec<&str> = Outcome::ALL.iter().take(16).map(|outcome| outcome.label()).collect();
        assert_eq!(
            outcomes.join(" "),
            "runt truncated_vlan too_many_vlans arp eapol lldp pppoe llc other_ethertype bad_ipv4 bad_ipv6 truncated_extension \
             too_many_extensions truncated_transport no_client overflow_full"
        );
        let happenings: Vec<&str> = Happening::ALL.iter().take(6).map(|happening| happening.label()).collect();
        assert_eq!(happenings.join(" "), "announced announcement_skipped evicted to_overflow noticed notice_skipped");
    }

    #[test]
    fn a_tally_is_as_long_as_its_words() {
        assert_eq!(CURRENT.tally_words() * 8, size_of::<Tally>());
        assert_eq!(Layout::of_dir("v1").map(Layout::tally_words), Some(38));
        assert_eq!(Layout::of_dir("v2").map(Layout::tally_words), Some(40));
        assert_eq!(Layout::of_dir(&CURRENT.dir_name()), Some(CURRENT));
        assert_eq!(Layout::of_dir("v99"), None);
    }
}
