//! The compiled kernel programs, and loading them for one interface with the maps that all interfaces share.

use std::path::Path;

use aya::programs::{Program, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use hotspot_common::{NOTICE_SHARES, SHARES, Tally, WAYS};

use super::CaptureError;

/// What the agent attaches; empty in a build without the toolchain for it.
static HOTSPOT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/hotspot.o"));
/// Twins and probes for benchmarks and tests.
static BENCH: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.o"));

/// Clients whose totals are kept apart when cache and rings are full.
const OVERFLOW_CLIENTS_MAX: u32 = 65_536;

/// Slots in reach for each flow, at least: so few flows share a set that hardly any has to make room.
const SLOTS_PER_FLOW: usize = 4;
/// The smallest reach.
const REACH_MIN: usize = 16_384;

/// Maps that outlive one load: pinned, and shared by the programs of all interfaces.
pub const SHARED_MAPS: [&str; 12] = [
    "CONTROL",
    "SLOTS",
    "HEADS",
    "RINGS",
    "OVERFLOW",
    "CLIENT_NETS",
    "FRAGMENTS",
    "CLAIMED",
    "NOTICES",
    "NOTICE_DRAFTS",
    "NOTICE_SHARES_USED",
    "ETHERTYPES",
];

/// How large the maps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimensions {
    pub cpus: u32,
    pub slots_per_cpu_log2: u32,
    pub ring_bytes: u32,
}

impl Dimensions {
    /// Slots of both halves, all CPUs.
    #[must_use]
    pub fn slots(&self) -> u32 {
        (2 * self.cpus) << self.slots_per_cpu_log2
    }

    /// All slots of a CPU, as a mask of their numbers.
    #[must_use]
    pub fn whole_reach(&self) -> u32 {
        (1 << self.slots_per_cpu_log2) - 1
    }

    /// The reach that suits a CPU with so many flows.
    #[must_use]
    pub fn reach_for(&self, flows: usize) -> u32 {
        let slots = (flows * SLOTS_PER_FLOW).next_power_of_two().max(REACH_MIN);
        u32::try_from(slots - 1).map_or(self.whole_reach(), |reach| reach.min(self.whole_reach()))
    }

    /// The first set of a CPU's range in a half (0 or 1).
    #[must_use]
    pub fn first_set(&self, half: u32, cpu: u32) -> u32 {
        (half * self.cpus + cpu) << self.slots_per_cpu_log2 >> WAYS.ilog2()
    }

    /// The first slot of a CPU's range in a half (0 or 1).
    #[must_use]
    pub fn first_slot(&self, half: usize, cpu: u32) -> usize {
        (half * self.cpus as usize + cpu as usize) << self.slots_per_cpu_log2
    }

    /// Sets of both halves, all CPUs.
    #[must_use]
    pub fn sets(&self) -> u32 {
        self.slots() / WAYS
    }
}

/// Which of the embedded objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Hotspot,
    Bench,
    /// One of an earlier version, for tests of upgrades.
    Earlier(&'static [u8]),
}

impl Object {
    pub fn bytes(self) -> Result<&'static [u8], CaptureError> {
        let bytes = match self {
            Self::Hotspot => HOTSPOT,
            Self::Bench => BENCH,
            Self::Earlier(bytes) => bytes,
        };
        if bytes.is_empty() { Err(CaptureError::NoProgram) } else { Ok(bytes) }
    }
}

/// How packets are read, a constant to the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which side is the client is decided by address, not by hook.
    pub sides_by_address: bool,
    /// The client is looked for inside tunnels.
    pub decapsulate: bool,
}

/// Hands a program to the kernel, which verifies it.
pub fn verify(program: &mut Program) -> Result<(), CaptureError> {
    let loaded = match <&mut Xdp>::try_from(&mut *program) {
        Ok(xdp) => xdp.load(),
        Err(_) => <&mut SchedClassifier>::try_from(program).and_then(SchedClassifier::load),
    };
    loaded.map_err(|source| CaptureError::Load(aya::EbpfError::ProgramError(source)))
}

/// Reads an object for one interface; its maps are opened in `pins`, or made there. Its programs are not in the kernel yet.
pub fn load(
    object: Object,
    pins: &Path,
    interface: u8,
    dimensions: Dimensions,
    reading: Reading,
) -> Result<Ebpf, CaptureError> {
    let bytes = object.bytes()?;
    let tally_offset = u64::from(interface) * size_of::<Tally>() as u64;
    let origin = u64::from(interface) << (u64::BITS - u8::BITS);
    let is_plain = u32::from(!reading.sides_by_address && !reading.decapsulate);
    let interface = u32::from(interface);
    let (sides_by_address, decapsulate) = (u32::from(reading.sides_by_address), u32::from(reading.decapsulate));
    let ring_bytes = u64::from(dimensions.ring_bytes);
    // Earlier programs are told how far to shift a hash, and nothing of a last word.
    let is_ours = !matches!(object, Object::Earlier(_));
    let hash_shift = u64::from(u64::BITS - dimensions.slots_per_cpu_log2);
    let mut loader = EbpfLoader::new();
    loader
        .override_global("INTERFACE", &interface, true)
        .override_global("TALLY_OFFSET", &tally_offset, true)
        .override_global("SLOTS_PER_CPU_LOG2", &dimensions.slots_per_cpu_log2, true)
        .override_global("ORIGIN", &origin, is_ours)
        .override_global("HASH_SHIFT", &hash_shift, !is_ours)
        .override_global("RING_BYTES", &ring_bytes, true)
        .override_global("SIDES_BY_ADDRESS", &sides_by_address, true)
        .override_global("DECAPSULATE", &decapsulate, true)
        .override_global("IS_PLAIN", &is_plain, true)
        .map_max_entries("SLOTS", dimensions.sets())
        .map_max_entries("HEADS", dimensions.cpus)
        .map_max_entries("PACKETS", dimensions.cpus)
        .map_max_entries("RINGS", dimensions.cpus)
        .map_max_entries("OVERFLOW", OVERFLOW_CLIENTS_MAX)
        .map_max_entries("CLAIMED", dimensions.cpus * SHARES)
        .map_max_entries("NOTICE_DRAFTS", dimensions.cpus)
        .map_max_entries("NOTICE_SHARES_USED", dimensions.cpus * NOTICE_SHARES);
    for name in SHARED_MAPS {
        loader.map_pin_path(name, pins.join(name));
    }
    loader.load(bytes).map_err(CaptureError::Load)
}
