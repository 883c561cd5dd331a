//! Everything the programs can write, before and after, and the difference in words: what a test does not name must not change.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::{ArrayOfMaps, Map, MapData, PerCpuHashMap};
use hotspot_agent::capture::memory::MappedArray;
use hotspot_agent::capture::object::SHARED_MAPS;
use hotspot_agent::capture::ring::RingReader;
use hotspot_common::control::Control;
use hotspot_common::{
    Birth, EventKind, FlowEvent, FlowKey, Happening, Head, INTERFACES_MAX, NOTICE_RING_BYTES, Outcome, OverflowKey,
    OverflowTotal, Set, Slot, Tally, ethertype_of,
};

use crate::rig::Rig;

/// Address and MAC.
pub(crate) type Client = ([u8; 16], [u8; 6]);
/// Packets and bytes.
pub(crate) type Counted = (u64, u64);

/// The maps of a rig, opened beside the agent's own.
pub(crate) struct Maps {
    control: MappedArray<Control>,
    sets: MappedArray<Set>,
    heads: MappedArray<Head>,
    overflow: PerCpuHashMap<MapData, [u8; 24], [u64; 3]>,
    ethertypes: PerCpuHashMap<MapData, u32, [u64; 2]>,
    rings: ArrayOfMaps<MapData, MapData>,
    notices: MapData,
    sets_len: usize,
    cpus: u32,
    ring_bytes: u64,
}

impl Maps {
    pub(crate) fn of(rig: &Rig) -> Self {
        for name in SHARED_MAPS {
            match name {
                // In the last five nothing is counted: networks, ports of fragments, shares, room to put a notice together.
                "CONTROL" | "SLOTS" | "HEADS" | "RINGS" | "OVERFLOW" | "NOTICES" | "ETHERTYPES" | "CLIENT_NETS"
                | "FRAGMENTS" | "CLAIMED" | "NOTICE_DRAFTS" | "NOTICE_SHARES_USED" => {}
                other => panic!("{other}: a map that no test of exits looks at; put it into the snapshot"),
            }
        }
        let dir = rig.capture.pins_dir().to_path_buf();
        let dimensions = rig.capture.dimensions();
        let sets_len = dimensions.sets() as usize;
        assert_eq!(size_of::<OverflowKey>(), 24);
        assert_eq!(size_of::<OverflowTotal>(), 24);
        Self {
            control: MappedArray::new(pinned(&dir, "CONTROL").fd(), 1).unwrap(),
            sets: MappedArray::new(pinned(&dir, "SLOTS").fd(), sets_len).unwrap(),
            heads: MappedArray::new(pinned(&dir, "HEADS").fd(), dimensions.cpus as usize).unwrap(),
            overflow: Map::PerCpuHashMap(pinned(&dir, "OVERFLOW")).try_into().unwrap(),
            ethertypes: Map::PerCpuHashMap(pinned(&dir, "ETHERTYPES")).try_into().unwrap(),
            rings: Map::ArrayOfMaps(pinned(&dir, "RINGS")).try_into().unwrap(),
            notices: pinned(&dir, "NOTICES"),
            sets_len,
            cpus: dimensions.cpus,
            ring_bytes: u64::from(dimensions.ring_bytes),
        }
    }

    pub(crate) fn take(&self) -> Snapshot {
        let is_used = |slot: &Slot| *slot != Slot::default();
        Snapshot {
            control: self.control.read(0),
            slots: (0..self.sets_len)
                .map(|index| self.sets.read(index))
                .flat_map(|set| set.slots.into_iter().zip(set.births))
                .enumerate()
                .filter(|(_, (slot, _))| is_used(slot))
                .collect(),
            tallies: self.tallies().into_iter().enumerate().filter(|(_, tally)| *tally != Tally::default()).collect(),
            overflow: self
                .overflow
                .iter()
                .map(|entry| entry.map(|(key, totals)| (key, totals.iter().copied().collect())))
                .collect::<Result<_, _>>()
                .unwrap(),
            ethertypes: self.ethertypes(),
            rings: (0..self.cpus).map(|cpu| self.records(cpu)).collect(),
            notices: self.notices(),
            reaches: (0..self.cpus as usize).map(|cpu| self.heads.read(cpu).reaches).collect(),
        }
    }

    /// Which slots of this test's CPU are used in the active half, as a mask of their numbers.
    pub(crate) fn reach(&self) -> u32 {
        self.heads.reach(0, usize::from(self.control.read(0).generation & 1 == 1))
    }

    /// Makes the hash that of every run. No packet has been counted yet.
    pub(crate) fn settle_hash(&self) {
        // The digits of π, odd.
        const KEYS: [u64; 6] = [
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7345,
            0xa409_3822_299f_31d1,
            0x082e_fa98_ec4e_6c89,
            0x4528_21e6_38d0_1377,
            0xbe54_66cf_34e9_0c6d,
        ];
        for cpu in 0..self.cpus as usize {
            let head = self.heads.read(cpu);
            self.heads.prepare(cpu, KEYS, head.first_sets, head.reaches);
        }
    }

    /// Writes over a slot.
    pub(crate) fn write_slot(&self, index: usize, slot: Slot) {
        self.sets.write_slot(index, slot);
    }

    /// Packets and bytes by the key of an ethertype.
    fn ethertypes(&self) -> BTreeMap<u32, Counted> {
        let counts = self.ethertypes.iter().map(|entry| {
            let (key, counts) = entry.unwrap();
            (key, counts.iter().fold((0, 0), |sum, [packets, bytes]| (sum.0 + packets, sum.1 + bytes)))
        });
        counts.collect()
    }

    /// In the order (half, CPU, interface).
    fn tallies(&self) -> Vec<Tally> {
        let heads: Vec<Head> = (0..self.cpus as usize).map(|cpu| self.heads.read(cpu)).collect();
        (0..2).flat_map(|half| heads.iter().flat_map(move |head| head.tallies[half])).collect()
    }

    /// What a CPU's ring holds that is not released.
    fn records(&self, cpu: u32) -> Vec<FlowEvent> {
        let ring = self.rings.get(&cpu, 0).unwrap();
        let mut reader = RingReader::new(ring.fd().as_fd().try_clone_to_owned().unwrap(), self.ring_bytes).unwrap();
        let mut records = Vec::new();
        reader.read(|event| records.push(*event));
        records
    }

    /// What the ring of notices holds that is not released.
    fn notices(&self) -> Vec<Vec<u8>> {
        let ring = self.notices.fd().as_fd().try_clone_to_owned().unwrap();
        let mut notices = Vec::new();
        RingReader::new(ring, u64::from(NOTICE_RING_BYTES)).unwrap().read_bytes(|notice| notices.push(notice.to_vec()));
        notices
    }

    /// The tally of this test's CPU, interface 0, in the active half.
    fn expected_tally(&self) -> usize {
        let half = usize::from(self.control.read(0).generation & 1 == 1);
        half * self.cpus as usize * INTERFACES_MAX as usize
    }
}

fn pinned(dir: &Path, name: &str) -> MapData {
    MapData::from_pin(dir.join(name)).unwrap()
}

#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    control: Control,
    pub(crate) slots: BTreeMap<usize, (Slot, Birth)>,
    tallies: BTreeMap<usize, Tally>,
    overflow: BTreeMap<[u8; 24], Vec<[u64; 3]>>,
    ethertypes: BTreeMap<u32, Counted>,
    rings: Vec<Vec<FlowEvent>>,
    notices: Vec<Vec<u8>>,
    /// By CPU.
    reaches: Vec<[u32; 2]>,
}

/// What happened to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotChange {
    /// It was empty, and holds a flow now.
    Filled(FlowKey, Counted),
    /// Its flow got more.
    Grown(FlowKey, Counted),
    /// Its flow began anew.
    Restarted(FlowKey, Counted),
    /// It holds another flow.
    Replaced { before: FlowKey, after: FlowKey, counted: Counted },
}

/// A difference between two snapshots; what is not here did not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) seen: Counted,
    pub(crate) outcomes: Vec<(Outcome, Counted)>,
    pub(crate) happenings: Vec<(Happening, u64)>,
    pub(crate) slots: Vec<SlotChange>,
    /// By client address and MAC.
    pub(crate) overflow: Vec<(Client, Counted)>,
    /// Kind, key and counters of each new record, in their order.
    pub(crate) ring: Vec<(EventKind, FlowKey, Counted)>,
    /// How many notices are new.
    pub(crate) notices: usize,
}

impl Change {
    /// Where the packets of this change are, by the change itself: slots, records, totals, outcomes; less what lay in slots before.
    pub(crate) fn placed(&self, before_in_slots: Counted) -> Counted {
        let mut sum = (0, 0);
        let mut add = |counted: Counted| sum = (sum.0 + counted.0, sum.1 + counted.1);
        for slot in &self.slots {
            match slot {
                SlotChange::Filled(_, counted)
                | SlotChange::Grown(_, counted)
                | SlotChange::Restarted(_, counted)
                | SlotChange::Replaced { counted, .. } => add(*counted),
            }
        }
        self.outcomes.iter().for_each(|(_, counted)| add(*counted));
        self.overflow.iter().for_each(|(_, counted)| add(*counted));
        self.ring.iter().for_each(|(_, _, counted)| add(*counted));
        (sum.0 - before_in_slots.0, sum.1 - before_in_slots.1)
    }
}

/// What is different. Fails where something changed that no packet may change.
pub(crate) fn difference(maps: &Maps, before: &Snapshot, after: &Snapshot) -> Change {
    assert_eq!(before.control, after.control, "only the agent writes there");
    let mut change = Change::default();
    compare_tallies(maps, before, after, &mut change);
    compare_ethertypes(before, after, &change);
    for (index, (slot, birth)) in &before.slots {
        let (now, born) = after.slots.get(index).expect("no program empties a slot");
        if slot == now {
            assert_eq!(birth, born, "slot {index} was not touched");
        }
    }
    for (index, (slot, birth)) in &after.slots {
        let counted = |slot: &Slot| (u64::from(slot.packets), u64::from(slot.bytes));
        match before.slots.get(index) {
            None => change.slots.push(SlotChange::Filled(slot.key, counted(slot))),
            Some((was, _)) if was == slot => {}
            Some((was, born)) if was.key == slot.key && born == birth => {
                let (now, then) = (counted(slot), counted(was));
                change.slots.push(SlotChange::Grown(slot.key, (now.0 - then.0, now.1 - then.1)));
            }
            Some((was, _)) if was.key == slot.key => change.slots.push(SlotChange::Restarted(slot.key, counted(slot))),
            Some((was, _)) => {
                change.slots.push(SlotChange::Replaced { before: was.key, after: slot.key, counted: counted(slot) });
            }
        }
    }
    for (key, totals) in &after.overflow {
        let sum =
            |totals: &Vec<[u64; 3]>| totals.iter().fold((0, 0), |sum, total| (sum.0 + total[0], sum.1 + total[1]));
        let (now, then) = (sum(totals), before.overflow.get(key).map_or((0, 0), sum));
        if now != then {
            let client = (key[..16].try_into().unwrap(), key[16..22].try_into().unwrap());
            change.overflow.push((client, (now.0 - then.0, now.1 - then.1)));
        }
    }
    assert!(before.overflow.keys().all(|key| after.overflow.contains_key(key)), "no program removes a total");
    for (cpu, records) in after.rings.iter().enumerate() {
        let new = &records[before.rings[cpu].len()..];
        assert_eq!(records[..before.rings[cpu].len()], before.rings[cpu], "records stay as they are");
        assert!(cpu == 0 || new.is_empty(), "a record on another CPU's ring");
        for event in new {
            let counted = (u64::from(event.packets), u64::from(event.bytes));
            assert_eq!(u64::from(event.generation), after.control.generation);
            change.ring.push((EventKind::from_raw(event.kind).unwrap(), event.key, counted));
        }
    }
    assert!(after.notices.starts_with(&before.notices), "notices stay as they are");
    assert_eq!(after.reaches, before.reaches, "the cache is as small as it gets, so its reach stays");
    change.notices = after.notices.len() - before.notices.len();
    change
}

/// What ended for its ethertype is counted by it, in this generation, and nothing else is.
fn compare_ethertypes(before: &Snapshot, after: &Snapshot, change: &Change) {
    let mut grown = (0, 0);
    for (key, now) in &after.ethertypes {
        let then = before.ethertypes.get(key).copied().unwrap_or_default();
        let (half, interface, _) = ethertype_of(*key);
        assert!(*now == then || (u64::from(half), interface) == (after.control.generation & 1, 0), "{key:x}");
        grown = (grown.0 + now.0 - then.0, grown.1 + now.1 - then.1);
    }
    assert!(before.ethertypes.keys().all(|key| after.ethertypes.contains_key(key)), "no program removes a count");
    let unread = change.outcomes.iter().find(|(outcome, _)| *outcome == Outcome::OtherEthertype);
    assert_eq!(grown, unread.map_or((0, 0), |(_, counted)| *counted));
}

fn compare_tallies(maps: &Maps, before: &Snapshot, after: &Snapshot, change: &mut Change) {
    for (index, now) in &after.tallies {
        let then = before.tallies.get(index).copied().unwrap_or_default();
        if *now == then {
            continue;
        }
        assert_eq!(*index, maps.expected_tally(), "a tally of another interface, CPU or generation");
        change.seen = (now.seen.packets - then.seen.packets, now.seen.bytes - then.seen.bytes);
        for (outcome, (now, then)) in Outcome::ALL.iter().zip(now.outcomes.iter().zip(&then.outcomes)) {
            if now != then {
                change.outcomes.push((*outcome, (now.packets - then.packets, now.bytes - then.bytes)));
            }
        }
        for (happening, (now, then)) in Happening::ALL.iter().zip(now.happenings.iter().zip(&then.happenings)) {
            if now != then {
                change.happenings.push((*happening, now - then));
            }
        }
    }
    assert!(before.tallies.keys().all(|index| after.tallies.contains_key(index)), "no program clears a tally");
}
