//! Reading what the programs counted: rings at any time, a generation of the cache after it ended.
//!
//! Nothing is cleared and no ring position moves until the caller says that what was read is on disk. The order is: clear the
//! half that is on disk already, flip, wait, read the rings, read the half that ended. What is read is handed over part by part, so that all
//! parts have the same memory: the kernel took longer to clear pages for one list of all flows than reading them takes.

use std::collections::BTreeMap;

use hotspot_archive::entry::{Entry, GenerationDone, GenerationPart, RingBatch};
use hotspot_common::{EventKind, FlowEvent, FlowKey, Happening, INTERFACES_MAX, Outcome, Slot, Tally, ethertype_of};
use hotspot_core::WallNs;
use hotspot_core::detail::{Detail, Totals};
use hotspot_core::fact::{FlowDelta, FlowOpened, Overflow};
use hotspot_core::losses::{ETHERTYPE_PREFIX, ETHERTYPES_TOLD};
use hotspot_core::record::{CoverageRecord, Tallied};

use tracing::warn;

use super::barrier::{Waited, wait_for_programs};
use super::clock::ClockReading;
use super::notices::NoticesRead;
use super::pins::PodKey;
use super::{Capture, CaptureError};

/// Flows, and parts of flows, that went to totals because their clients had used up their detail.
const BEYOND_DETAIL: &str = "beyond_detail";

/// Deltas per journal entry: bounds the memory of one entry to about 3 MB.
const DELTAS_PER_PART: usize = 32_768;

/// What a ring held, and how to give its room back once it is on disk.
pub struct RingRead {
    pub batches: Vec<RingBatch>,
    /// Position per CPU to release after the commit.
    positions: Vec<u64>,
    notices: NoticesRead,
}

impl RingRead {
    /// What has to be on disk before the rings' room is given back.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let devices = self.notices.batch.iter().cloned().map(Entry::Devices);
        self.batches.iter().cloned().map(Entry::Ring).chain(devices)
    }
}

/// One generation, read but not yet cleared.
pub struct GenerationRead {
    pub generation: u64,
    pub rings: RingRead,
    pub done: GenerationDone,
}

/// A generation's evictions, which came through the rings before it ended.
#[derive(Clone, Debug, Default)]
pub struct Evictions {
    /// Low 32 bits of the generation.
    pub generation: u32,
    pub per_interface: Vec<Tallied>,
    /// Of those beyond their client's detail.
    pub in_totals: Vec<Tallied>,
    /// Flows and parts of flows that these are; of an earlier agent's it is not known.
    beyond_detail: Vec<u64>,
}

impl Evictions {
    #[must_use]
    pub fn of(generation: u32) -> Self {
        let none = vec![Tallied::default(); INTERFACES_MAX as usize];
        let beyond_detail = vec![0; INTERFACES_MAX as usize];
        Self { generation, per_interface: none.clone(), in_totals: none, beyond_detail }
    }

    fn add(&mut self, interface: u8, packets: u64, bytes: u64) {
        add(&mut self.per_interface, interface, packets, bytes);
    }

    fn add_total(&mut self, total: &Overflow) {
        add(&mut self.in_totals, total.key.interface(), total.packets, total.bytes);
    }

    fn note_beyond_detail(&mut self, key: &FlowKey) {
        if let Some(count) = self.beyond_detail.get_mut(usize::from(key.interface())) {
            *count += 1;
        }
    }
}

fn add(per_interface: &mut [Tallied], interface: u8, packets: u64, bytes: u64) {
    if let Some(tallied) = per_interface.get_mut(usize::from(interface)) {
        tallied.packets += packets;
        tallied.bytes += bytes;
    }
}

impl Capture {
    /// Reads what the rings hold now.
    pub fn read_rings(&mut self) -> RingRead {
        let clock = ClockReading::now();
        let tick = self.tick_ns;
        let capture = self.control().capture;
        let active = self.control().generation;
        let notices = self.read_notices(&clock);
        let mut read = RingRead { batches: Vec::new(), positions: Vec::with_capacity(self.maps.rings.len()), notices };
        for (cpu, ring) in self.maps.rings.iter_mut().enumerate() {
            let before = ring.position();
            let mut batch = RingBatch {
                capture,
                cpu: u32::try_from(cpu).unwrap_or(u32::MAX),
                end_position: before,
                opened: Vec::new(),
                evicted: Vec::new(),
                totals: Vec::new(),
            };
            let mut sorter = Sorter {
                clock: &clock,
                tick_ns: tick,
                active,
                detail: &mut self.detail,
                evictions: &mut self.evictions,
                totals: BTreeMap::new(),
            };
            let end_position = ring.read(|event| sorter.sort(event, &mut batch));
            batch.end_position = end_position;
            batch.totals = sorter.into_totals();
            read.positions.push(batch.end_position);
            if batch.end_position != before {
                read.batches.push(batch);
            }
        }
        read
    }

    /// Gives the rings' room back: what was read is on disk.
    pub fn release_rings(&mut self, read: &RingRead) {
        for (ring, position) in self.maps.rings.iter().zip(&read.positions) {
            ring.release(*position);
        }
        self.maps.notices.release(read.notices.end_position);
    }

    /// Ends the active generation and reads it, as [`Self::read_generation`] does.
    pub fn drain<E: From<CaptureError>>(
        &mut self,
        put: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<GenerationRead, E> {
        let control = self.control();
        let ended = control.generation;
        self.clear_half(ended + 1)?;
        self.set_reaches(ended + 1);
        self.count_losses();
        self.maps.begin(ended + 1);
        self.read_generation(ended, put)
    }

    /// Reads a generation that is no longer active: after a flip, or because an earlier agent died between flip and commit.
    ///
    /// `put` is given all that has to be on disk before [`Self::drained`] is called: what the rings held, the flows part by part, and
    /// [`Entry::Done`] as the last.
    pub fn read_generation<E: From<CaptureError>>(
        &mut self,
        generation: u64,
        mut put: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<GenerationRead, E> {
        let waited = wait_for_programs().map_err(|source| CaptureError::Barrier { source })?;
        let rings = self.read_rings();
        rings.entries().try_for_each(&mut put)?;
        let clock = ClockReading::now();
        let capture = self.control().capture;
        let mut flows = Evictions::of(low32(generation));
        if let Some(position) = self.evictions.iter().position(|evicted| evicted.generation == low32(generation)) {
            flows = self.evictions.swap_remove(position);
        }
        let part = |deltas, overflow| Entry::Part(GenerationPart { capture, generation, deltas, overflow });
        let mut deltas = Vec::with_capacity(DELTAS_PER_PART);
        let mut totals = Totals::default();
        // Lent, because reading the slots needs the rest of it.
        let mut detail = std::mem::take(&mut self.detail);
        let slots = self.read_slots(generation, &clock, &waited, |delta| {
            if !detail.keeps(&delta.key, clock.monotonic_ns) {
                flows.note_beyond_detail(&delta.key);
                totals.add(detail.total_of(&delta.key), &delta);
                return Ok(());
            }
            flows.add(delta.key.interface(), delta.packets, delta.bytes);
            deltas.push(delta);
            if deltas.len() < DELTAS_PER_PART {
                return Ok(());
            }
            // Gone before the next is made, which gets its memory.
            put(part(std::mem::take(&mut deltas), Vec::new()))?;
            deltas.reserve_exact(DELTAS_PER_PART);
            Ok::<_, E>(())
        });
        self.detail = detail;
        slots?;
        for total in self.read_overflow(generation, &clock)? {
            totals.join(Overflow { key: self.detail.total_of(&total.key), ..total });
        }
        let totals = totals.take();
        totals.iter().for_each(|total| flows.add_total(total));
        put(part(deltas, totals))?;
        let mut coverage = self.coverage(generation, &clock, &flows, &waited);
        self.say_what_is_coarse(&coverage);
        self.generation_began = clock.monotonic_ns;
        self.notices.say_what_is_missing(&coverage);
        // Counted by the agent, for all interfaces together: it stands in the first row.
        if let Some(row) = coverage.first_mut() {
            row.happenings.extend(self.notices.take_counts());
            row.happenings.extend(self.losses.of_machine());
        }
        self.losses.say(&coverage);
        let done = GenerationDone {
            capture,
            generation,
            coverage,
            wall_offset_ns: clock.wall_offset_ns,
            boot_offset_ns: clock.boot_offset_ns,
        };
        put(Entry::Done(done.clone()))?;
        Ok(GenerationRead { generation, rings, done })
    }

    fn say_what_is_coarse(&self, coverage: &[CoverageRecord]) {
        let happenings = coverage.iter().flat_map(|row| &row.happenings);
        let flows: u64 = happenings.filter(|(label, _)| label == BEYOND_DETAIL).map(|(_, count)| count).sum();
        if flows > 0 && self.coarse.is_time() {
            warn!(
                flows,
                "clients have used up what they may have in detail (--client-detail, --interface-detail): more of their flows are in totals \
                 only, without peers and ports (logged at most every 10 s)"
            );
        }
    }

    /// The generation is on disk: its half may be cleared when it is needed next.
    pub fn drained(&mut self, read: &GenerationRead) {
        self.release_rings(&read.rings);
        self.maps.control.write_drained(read.generation);
    }

    fn read_slots<E>(
        &mut self,
        generation: u64,
        clock: &ClockReading,
        waited: &Waited,
        mut each: impl FnMut(FlowDelta) -> Result<(), E>,
    ) -> Result<(), E> {
        self.occupied.clear();
        self.occupied_half = None;
        let (occupied, tick_ns) = (&mut self.occupied, self.tick_ns);
        for cpu in 0..self.maps.dimensions.cpus {
            let start = self.maps.dimensions.first_slot(half(generation), cpu);
            let before = occupied.len();
            let range = start..start + self.maps.reach(cpu, half(generation)) as usize + 1;
            self.maps.sets.in_use(range, waited, |index, slot, birth| {
                occupied.push(u32::try_from(index).unwrap_or(u32::MAX));
                let ticks = slot.last_jiffies.wrapping_sub(birth.first_jiffies);
                each(FlowDelta {
                    key: slot.key,
                    first_ns: clock.wall(birth.first_ns),
                    last_ns: last_ns(birth.first_ns, ticks, tick_ns, clock),
                    packets: u64::from(slot.packets),
                    bytes: u64::from(slot.bytes),
                    tcp_flags: slot.tcp_flags,
                })
            })?;
            self.flows_of_cpus[cpu as usize] = occupied.len() - before;
        }
        self.occupied_half = Some(generation & 1);
        Ok(())
    }

    fn read_overflow(&self, generation: u64, clock: &ClockReading) -> Result<Vec<Overflow>, CaptureError> {
        let mut totals = Vec::new();
        for entry in &self.maps.overflow {
            let (PodKey(key), values) = entry.map_err(CaptureError::Map)?;
            if usize::from(key.half) != half(generation) {
                continue;
            }
            let first_ns = values.iter().filter(|value| value.0.packets != 0).map(|value| value.0.first_ns).min();
            totals.push(Overflow {
                key: FlowKey {
                    client_ip: key.client_ip,
                    client_mac: key.client_mac,
                    origin: key.origin,
                    ..FlowKey::default()
                },
                first_ns: clock.wall(first_ns.unwrap_or(clock.monotonic_ns)),
                last_ns: clock.wall_now(),
                packets: values.iter().map(|value| value.0.packets).sum(),
                bytes: values.iter().map(|value| value.0.bytes).sum(),
            });
        }
        Ok(totals)
    }

    /// Says how far the flows of each CPU may be spread in the half a generation is about to be written to: as far as as many as were
    /// read last need it, and at least half as far as in the generation that ends now, which may have been too narrow.
    fn set_reaches(&self, generation: u64) {
        if !self.maps.layout.has_reaches {
            return;
        }
        let (dimensions, next) = (self.maps.dimensions, half(generation));
        for (cpu, flows) in (0..dimensions.cpus).zip(&self.flows_of_cpus) {
            let before = self.maps.reach(cpu, 1 - next);
            self.maps.heads.write_reach(cpu as usize, next, dimensions.reach_for(*flows).max(before / 2));
        }
    }

    /// Empties the half a generation is about to be written to.
    fn clear_half(&mut self, generation: u64) -> Result<(), CaptureError> {
        let dimensions = self.maps.dimensions;
        if self.occupied_half == Some(generation & 1) {
            for index in self.occupied.drain(..) {
                self.maps.sets.write_slot(index as usize, Slot::default());
            }
        } else {
            let start = dimensions.first_slot(half(generation), 0);
            for index in start..start + dimensions.slots() as usize / 2 {
                self.maps.sets.write_slot(index, Slot::default());
            }
        }
        for cpu in 0..dimensions.cpus as usize {
            self.maps.heads.clear_tallies(cpu, half(generation));
        }
        let stale: Vec<PodKey> = self
            .maps
            .overflow
            .keys()
            .filter_map(Result::ok)
            .filter(|PodKey(key)| usize::from(key.half) == half(generation))
            .collect();
        for key in stale {
            self.maps.overflow.remove(&key).map_err(CaptureError::Map)?;
        }
        self.maps.open_ethertypes(&self.pins)?;
        if let Some(ethertypes) = &mut self.maps.ethertypes {
            let is_stale = |key: &u32| ethertype_of(*key).0 as usize == half(generation);
            let stale: Vec<u32> = ethertypes.keys().filter_map(Result::ok).filter(is_stale).collect();
            stale.iter().try_for_each(|key| ethertypes.remove(key)).map_err(CaptureError::Map)?;
        }
        Ok(())
    }

    fn coverage(
        &mut self,
        generation: u64,
        clock: &ClockReading,
        flows: &Evictions,
        waited: &Waited,
    ) -> Vec<CoverageRecord> {
        let mut losses = std::mem::take(&mut self.losses);
        let rows = self
            .interfaces
            .iter()
            .filter_map(|attached| {
                let tally = self.tally(generation, attached.number, waited);
                if attached.is_gone() && tally.seen.packets == 0 {
                    return None;
                }
                let number = usize::from(attached.number);
                let beyond_detail = Some(flows.beyond_detail[number]).filter(|count| *count > 0);
                let happenings = named_happenings(&tally)
                    .chain(self.ethertypes(generation, attached.number))
                    .chain(losses.of(attached.number, &tally))
                    .chain(beyond_detail.map(|count| (BEYOND_DETAIL.to_owned(), count)));
                Some(CoverageRecord {
                    interface: attached.spelled_name(),
                    generation,
                    // By the same clock as the flows of this generation, also where the clock was set meanwhile.
                    from_ns: clock.wall(self.generation_began),
                    to_ns: clock.wall(self.detached_ns.unwrap_or(clock.monotonic_ns)),
                    hook: attached.hooks.clone(),
                    seen: Tallied { packets: tally.seen.packets, bytes: tally.seen.bytes },
                    flows: flows.per_interface[number],
                    overflow: flows.in_totals[number],
                    outcomes: named_outcomes(&tally),
                    happenings: happenings.collect(),
                    clock_offset_ns: Some(clock.wall_offset_ns),
                    gap: None,
                })
            })
            .collect();
        self.losses = losses;
        rows
    }

    /// Of frames that were not read, how many there were of each ethertype.
    fn ethertypes(&self, generation: u64, number: u8) -> Vec<(String, u64)> {
        let Some(ethertypes) = &self.maps.ethertypes else { return Vec::new() };
        // What is not read here is in the sum of all, which no map can lose.
        let mut found: Vec<(u16, u64)> = ethertypes
            .iter()
            .filter_map(Result::ok)
            .filter_map(|(key, counts)| {
                let (of_half, interface, ethertype) = ethertype_of(key);
                let is_asked = of_half as usize == half(generation) && interface == number;
                is_asked.then(|| (ethertype, counts.iter().map(|count| count.0.packets).sum()))
            })
            .collect();
        found.sort_unstable_by_key(|(ethertype, packets)| (std::cmp::Reverse(*packets), *ethertype));
        found.truncate(ETHERTYPES_TOLD);
        found.into_iter().map(|(ethertype, packets)| (format!("{ETHERTYPE_PREFIX}{ethertype:04x}"), packets)).collect()
    }

    /// All CPUs' tallies of one interface, summed.
    fn tally(&self, generation: u64, number: u8, waited: &Waited) -> Tally {
        let cpus = self.maps.dimensions.cpus as usize;
        let mut sum = Tally::default();
        for cpu in 0..cpus {
            let tally = self.maps.heads.settled_tally(cpu, half(generation), number, waited);
            sum.seen.packets += tally.seen.packets;
            sum.seen.bytes += tally.seen.bytes;
            for (to, from) in sum.outcomes.iter_mut().zip(&tally.outcomes) {
                to.packets += from.packets;
                to.bytes += from.bytes;
            }
            for (to, from) in sum.happenings.iter_mut().zip(&tally.happenings) {
                *to += from;
            }
        }
        sum
    }

    /// Evictions in the active generation so far: when they grow, the generation should end sooner.
    #[must_use]
    pub fn evictions_so_far(&self) -> u64 {
        let generation = self.control().generation;
        let cpus = self.maps.dimensions.cpus as usize;
        (0..cpus)
            .flat_map(|cpu| self.interfaces.iter().map(move |attached| (cpu, attached.number)))
            .map(|(cpu, number)| {
                let tally = self.maps.heads.tally(cpu, half(generation), number);
                tally.happenings[Happening::Evicted as usize] + tally.happenings[Happening::ToOverflow as usize]
            })
            .sum()
    }
}

/// Puts the records of one ring where they belong.
struct Sorter<'a> {
    clock: &'a ClockReading,
    tick_ns: u64,
    active: u64,
    detail: &'a mut Detail,
    evictions: &'a mut Vec<Evictions>,
    /// Of clients that had used up their detail, by generation.
    totals: BTreeMap<u64, Totals>,
}

impl Sorter<'_> {
    fn sort(&mut self, event: &FlowEvent, batch: &mut RingBatch) {
        let generation = whole_generation(event.generation, self.active);
        let kind = EventKind::from_raw(event.kind);
        let is_kept = kind.is_some() && self.detail.keeps(&event.key, self.clock.monotonic_ns);
        match kind {
            Some(EventKind::Opened) if is_kept => {
                let at_ns = self.clock.wall(event.birth.first_ns);
                batch.opened.push((generation, FlowOpened { key: event.key, at_ns }));
            }
            Some(EventKind::Evicted) => {
                let delta = self.delta(event);
                if is_kept {
                    note_eviction(self.evictions, event.generation, &delta);
                    batch.evicted.push((generation, delta));
                } else {
                    of(self.evictions, event.generation).note_beyond_detail(&event.key);
                    self.totals.entry(generation).or_default().add(self.detail.total_of(&event.key), &delta);
                }
            }
            // A flow that is not kept says no more than its counts, which come with its slot. Only a program of another layout writes other
            // kinds, and it has other maps.
            Some(EventKind::Opened) | None => {}
        }
    }

    fn delta(&self, event: &FlowEvent) -> FlowDelta {
        let ticks = event.last_jiffies.wrapping_sub(event.birth.first_jiffies);
        FlowDelta {
            key: event.key,
            first_ns: self.clock.wall(event.birth.first_ns),
            last_ns: last_ns(event.birth.first_ns, ticks, self.tick_ns, self.clock),
            packets: u64::from(event.packets),
            bytes: u64::from(event.bytes),
            tcp_flags: event.tcp_flags,
        }
    }

    /// With the generation of each; their sums are kept for its balance.
    fn into_totals(self) -> Vec<(u64, Overflow)> {
        let mut all = Vec::new();
        for (generation, mut totals) in self.totals {
            for total in totals.take() {
                note_total(self.evictions, low32(generation), &total);
                all.push((generation, total));
            }
        }
        all
    }
}

/// Keeps the sum of a generation's evictions for its balance.
pub fn note_eviction(evictions: &mut Vec<Evictions>, generation: u32, delta: &FlowDelta) {
    of(evictions, generation).add(delta.key.interface(), delta.packets, delta.bytes);
}

/// The same of what went to a total.
pub fn note_total(evictions: &mut Vec<Evictions>, generation: u32, total: &Overflow) {
    of(evictions, generation).add_total(total);
}

fn of(evictions: &mut Vec<Evictions>, generation: u32) -> &mut Evictions {
    let position = evictions.iter().position(|evicted| evicted.generation == generation).unwrap_or_else(|| {
        evictions.push(Evictions::of(generation));
        evictions.len() - 1
    });
    &mut evictions[position]
}

/// The generation's full number from its low half: never more than a few behind the active one.
fn whole_generation(low: u32, active: u64) -> u64 {
    active.wrapping_sub(u64::from(low32(active).wrapping_sub(low)))
}

fn low32(generation: u64) -> u32 {
    u32::try_from(generation & u64::from(u32::MAX)).unwrap_or(0)
}

fn half(generation: u64) -> usize {
    usize::from(generation & 1 == 1)
}

/// First packet's precise time plus whole ticks; never in the future.
fn last_ns(first_ns: u64, ticks: u32, tick_ns: u64, clock: &ClockReading) -> WallNs {
    clock.wall((first_ns + u64::from(ticks) * tick_ns).min(clock.monotonic_ns.max(first_ns)))
}

fn named_outcomes(tally: &Tally) -> Vec<(String, Tallied)> {
    Outcome::ALL
        .iter()
        .zip(&tally.outcomes)
        .filter(|(_, count)| count.packets != 0)
        .map(|(outcome, count)| (outcome.label().to_owned(), Tallied { packets: count.packets, bytes: count.bytes }))
        .collect()
}

fn named_happenings(tally: &Tally) -> impl Iterator<Item = (String, u64)> {
    Happening::ALL
        .iter()
        .zip(tally.happenings)
        .filter(|(_, count)| *count != 0)
        .map(|(happening, count)| (happening.label().to_owned(), count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_known_by_its_low_half() {
        assert_eq!(whole_generation(7, 7), 7);
        assert_eq!(whole_generation(6, 7), 6);
        assert_eq!(whole_generation(u32::MAX, 1 << 32), (1 << 32) - 1);
        assert_eq!(whole_generation(1, (1 << 32) + 2), (1 << 32) + 1);
    }

    #[test]
    fn a_last_packet_is_never_in_the_future() {
        let clock = ClockReading { monotonic_ns: 10_000, wall_offset_ns: 1_000, boot_offset_ns: 0 };
        assert_eq!(last_ns(9_000, 3, 4_000, &clock), 11_000);
        assert_eq!(last_ns(1_000, 2, 4_000, &clock), 10_000);
    }
}
