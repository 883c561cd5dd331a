//! An upgrade to another layout: what an agent of the layout before left is taken over, read to the end, and removed.
//!
//! Guarantees that every packet is counted once. Its programs are exchanged for ours in one step at each hook, so a packet meets one of
//! them and never both; from then on its maps only hold what is to be read. They stay pinned until all of it is on disk: an agent
//! that is killed on the way is followed by one that finds the same, and skips what the journal holds already.

use std::collections::BTreeSet;

use hotspot_archive::entry::Entry;
use hotspot_common::INTERFACES_MAX;
use hotspot_common::control::Control;
use tracing::info;

use super::interfaces::{Attached, Chosen};
use super::layout::Layout;
use super::pins::{Maps, PinnedHook, Pins};
use super::{Capture, CaptureError, Evictions, hooks};

impl Capture {
    /// Opens what agents of other layouts left.
    pub(super) fn open_earlier(&mut self, others: Vec<(Pins, Layout)>) -> Result<(), CaptureError> {
        for (pins, layout) in others {
            if !pins.dir().join("CONTROL").exists() {
                // It died while it made its maps, and had attached nothing.
                pins.remove()?;
                continue;
            }
            info!(layout = layout.version, "taking over from an agent of another layout");
            let maps = Maps::open(&pins, layout, self.object, self.maps.dimensions)?;
            let nothing = Chosen::new(&[])?;
            self.earlier.push(Self::of(pins, maps, self.object, nothing, self.hook, self.reading));
        }
        if !self.earlier.is_empty() && !self.maps.resumed {
            // Where the kernel refuses our programs, the earlier ones go on as if nothing had been tried.
            if let Err(error) = self.load_programs(0, &hooks::PROGRAMS) {
                self.earlier.clear();
                return Err(error);
            }
        }
        Ok(())
    }

    /// What names the maps of agents of other layouts and says how far they were read, in the order of [`Self::take_earlier`].
    #[must_use]
    pub fn earlier(&self) -> Vec<Control> {
        self.earlier.iter().map(Self::control).collect()
    }

    pub(super) fn hooks_of_earlier(&self) -> Result<Vec<PinnedHook>, CaptureError> {
        let mut hooks = Vec::new();
        for earlier in &self.earlier {
            hooks.extend(earlier.pins.hooks()?);
        }
        Ok(hooks)
    }

    /// Interfaces of which something was counted there: their numbers are not anybody else's before it is read.
    pub(super) fn numbers_of_earlier(&self) -> BTreeSet<u8> {
        let all = 0..u8::try_from(INTERFACES_MAX).unwrap_or(u8::MAX);
        let mut numbers = BTreeSet::new();
        for earlier in &self.earlier {
            numbers.extend(all.clone().filter(|number| earlier.has_counted(*number)));
        }
        numbers
    }

    fn has_counted(&self, number: u8) -> bool {
        (0..self.maps.dimensions.cpus as usize)
            .flat_map(|cpu| [self.maps.heads.tally(cpu, 0, number), self.maps.heads.tally(cpu, 1, number)])
            .any(|tally| tally.seen.packets != 0)
    }

    /// What agents of other layouts left, to be read with [`Self::read_remains`]; their programs run no more. Interfaces are named
    /// as they are here, by their numbers.
    pub fn take_earlier(&mut self) -> Vec<Self> {
        let mut all = std::mem::take(&mut self.earlier);
        for earlier in &mut all {
            earlier.interfaces = self
                .interfaces
                .iter()
                .map(|attached| Attached::left(attached.number, &attached.device.name, &attached.hooks))
                .collect();
        }
        all
    }

    /// Reads every generation after `drained` to the end; then the pins are removed. `keep` puts all of it on disk before it answers to
    /// the [`Entry::Done`] of each.
    ///
    /// `positions`, `notices`, `evictions` and `last_ns` as in [`Self::resume_from`].
    pub fn read_remains<E: From<CaptureError>>(
        mut self,
        drained: u64,
        positions: &[(u32, u64)],
        notices: u64,
        evictions: Vec<Evictions>,
        last_ns: i64,
        mut keep: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        self.resume_from(positions, notices, evictions, last_ns);
        for generation in drained + 1..=self.control().generation {
            let read = self.read_generation(generation, &mut keep)?;
            self.drained(&read);
            info!(generation, "read what an agent of another layout left");
        }
        self.remove_pins()?;
        Ok(())
    }
}
