//! The one page in which the agent keeps the maps' life: what the next agent has to know. No program reads it.

/// The only element of the map `CONTROL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// Number of the generation being written, from 0; its lowest bit says which half of the cache. Each CPU's
    /// [`Head`](crate::Head) follows.
    pub generation: u64,
    /// The last generation that was read and is on disk.
    pub drained: u64,
    /// Random, made with the maps; generations and ring positions count within it.
    pub capture: u64,
    /// Multipliers of the slot hash; odd. The programs read each CPU's copy in [`Head`](crate::Head).
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
