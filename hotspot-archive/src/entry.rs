//! Entries: what the payload of a journal frame means.
//!
//! An entry is a batch of facts together with what makes applying it exactly-once possible: the ring position or the
//! generation it stands for. Which entries count is decided by whoever replays the journal (see `docs/formats/journal.md`).

use hotspot_core::WallNs;
use hotspot_core::device::Device;
use hotspot_core::fact::{DeviceFact, FlowDelta, FlowOpened, NatFact, NatWatchFact, Overflow, SessionFact};
use hotspot_core::merge::OpenFlow;
use hotspot_core::record::CoverageRecord;
use serde::{Deserialize, Serialize};

/// Names one life of the kernel's maps: generations and ring positions count from zero in each.
pub type CaptureId = u64;

/// The first entry of every journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalHeader {
    /// The sequence of the journal and of the segment it becomes; from 1, without gaps, per gateway.
    pub sequence: u64,
    pub site: String,
    pub gateway: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    pub opened_ns: WallNs,
    /// `hotspot-agent` and its version.
    pub software: String,
    /// `None` in journals of early versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<JournalClock>,
}

/// The wall clock by which all times of a journal are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalClock {
    /// Its distance from `CLOCK_BOOTTIME` when the journal was opened, nanoseconds.
    pub boot_to_wall_ns: i64,
    /// How far it is from the clock of the journal before, nanoseconds: not 0 where the wall clock was set in between.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub step_ns: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl JournalHeader {
    /// How far the wall clock was set before this journal.
    #[must_use]
    pub fn step_ns(&self) -> i64 {
        self.clock.map_or(0, |clock| clock.step_ns)
    }
}

/// A name for an interface number in flow keys; the last one before a flow counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceName {
    pub number: u8,
    pub name: String,
}

/// What one CPU's ring held up to a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingBatch {
    pub capture: CaptureId,
    pub cpu: u32,
    /// Consumer position after this batch, in bytes since the ring was made; a batch that ends at or before one already
    /// replayed is a repetition.
    pub end_position: u64,
    pub opened: Vec<(u64, FlowOpened)>,
    /// With the generation each was counted in.
    pub evicted: Vec<(u64, FlowDelta)>,
    /// Evicted beyond what their clients may have in detail, likewise.
    pub totals: Vec<(u64, Overflow)>,
}

/// Part of what was read from the cache after a generation ended. Counts only if [`GenerationDone`] follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationPart {
    pub capture: CaptureId,
    pub generation: u64,
    pub deltas: Vec<FlowDelta>,
    pub overflow: Vec<Overflow>,
}

/// A generation was read completely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationDone {
    pub capture: CaptureId,
    pub generation: u64,
    /// Per interface.
    pub coverage: Vec<CoverageRecord>,
    /// `CLOCK_REALTIME` − `CLOCK_MONOTONIC` when it was read, nanoseconds.
    pub wall_offset_ns: i64,
    /// `CLOCK_BOOTTIME` − `CLOCK_MONOTONIC` when it was read, nanoseconds.
    pub boot_offset_ns: i64,
}

/// What the ring of notices held up to a position, as far as it was news.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceBatch {
    pub capture: CaptureId,
    /// Consumer position after this batch; as in [`RingBatch`].
    pub end_position: u64,
    pub facts: Vec<DeviceFact>,
}

/// One frame's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Header(JournalHeader),
    Interface(InterfaceName),
    Ring(RingBatch),
    Part(GenerationPart),
    Done(GenerationDone),
    /// Nothing was seen on an interface for some time, or something else went wrong: `gap` says what.
    Gap(CoverageRecord),
    Session(SessionFact),
    Nat(Vec<NatFact>),
    NatWatch(NatWatchFact),
    Devices(DeviceBatch),
    /// What a DHCP server reported of its leases.
    Leases(Vec<DeviceFact>),
    /// Only in state files.
    Sessions(Vec<SessionFact>),
    /// Only in state files.
    DeviceState(Vec<Device>),
    /// Only in state files.
    OpenFlows(Vec<OpenFlow>),
    /// The last entry of a journal that was closed in order, with the moment of closing.
    Closed {
        at_ns: WallNs,
        shutdown: bool,
    },
}

impl Entry {
    /// The latest moment it is about, of those that say until when a journal was written; `None` where it is about none.
    #[must_use]
    pub fn about_ns(&self) -> Option<WallNs> {
        match self {
            Self::Header(header) => Some(header.opened_ns),
            Self::Ring(batch) => batch.opened.iter().map(|(_, opened)| opened.at_ns).max(),
            Self::Done(done) => done.coverage.iter().map(|row| row.to_ns).max(),
            Self::Gap(gap) => Some(gap.to_ns),
            Self::Session(fact) => Some(fact.received_ns),
            Self::Devices(batch) => batch.facts.iter().map(|fact| fact.at_ns).max(),
            Self::Closed { at_ns, .. } => Some(*at_ns),
            Self::Interface(_)
            | Self::Part(_)
            | Self::Nat(_)
            | Self::NatWatch(_)
            | Self::Leases(_)
            | Self::Sessions(_)
            | Self::DeviceState(_)
            | Self::OpenFlows(_) => None,
        }
    }

    /// Moves all times, as they are said by a clock that is ahead of the entry's by so much.
    pub fn shift(&mut self, by_ns: i64) {
        match self {
            Self::Session(fact) => fact.shift(by_ns),
            Self::Sessions(facts) => facts.iter_mut().for_each(|fact| fact.shift(by_ns)),
            Self::Nat(facts) => facts.iter_mut().for_each(|fact| fact.at_ns = fact.at_ns.saturating_add(by_ns)),
            Self::NatWatch(fact) => fact.at_ns = fact.at_ns.saturating_add(by_ns),
            Self::Devices(batch) => {
                batch.facts.iter_mut().for_each(|fact| fact.at_ns = fact.at_ns.saturating_add(by_ns));
            }
            Self::Leases(facts) => facts.iter_mut().for_each(|fact| fact.at_ns = fact.at_ns.saturating_add(by_ns)),
            Self::DeviceState(devices) => devices.iter_mut().for_each(|device| device.shift(by_ns)),
            Self::OpenFlows(flows) => {
                flows.iter_mut().for_each(|flow| flow.last_ns = flow.last_ns.saturating_add(by_ns));
            }
            // Not carried from one journal to another.
            Self::Header(_)
            | Self::Interface(_)
            | Self::Ring(_)
            | Self::Part(_)
            | Self::Done(_)
            | Self::Gap(_)
            | Self::Closed { .. } => {}
        }
    }
}
