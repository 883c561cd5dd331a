//! The one page through which the agent steers the programs and names the maps' life.

/// The only element of the map `CONTROL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// Number of the generation being written, from 0; its lowest bit says which half of the cache. Written by the agent.
    pub generation: u64,
    /// The last generation that was read and is on disk. Written and read by the agent only.
    pub drained: u64,
    /// Random, made with the maps; generations and ring positions count within it. Not read by the programs.
    pub capture: u64,
    /// Multipliers of the slot hash; odd. The programs get them as constants.
    pub hash_keys: [u64; 6],
    /// Binary logarithm of the slots each CPU has per generation.
    pub slots_per_cpu_log2: u32,
    /// How many CPUs have a range in the cache.
    pub cpus: u32,
    /// Bytes of one CPU's ring.
    pub ring_bytes: u32,
    pub padding: u32,
}

const _: () = assert!(size_of::<Control>() == 88);
