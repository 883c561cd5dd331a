//! What the agent sets before the programs are loaded: constants to the verifier, so they cost nothing.

macro_rules! setting {
    ($(#[$doc:meta])* $name:ident: $type:ty = $default:expr, read by $reader:ident) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        static $name: $type = $default;

        #[inline(always)]
        pub fn $reader() -> $type {
            // SAFETY: points to a static; volatile because the loader replaces the value after compilation.
            unsafe { core::ptr::read_volatile(&raw const $name) }
        }
    };
}

setting!(
    /// The agent's number of the interface this load is attached to.
    INTERFACE: u32 = 0, read by interface);
setting!(
    /// How many CPUs have a range of their own in the cache.
    CPUS: u32 = 1, read by cpus);
setting!(
    /// Binary logarithm of the slots each CPU has per generation.
    SLOTS_PER_CPU_LOG2: u32 = 10, read by slots_per_cpu_log2);
/// Slots per CPU − 1.
#[inline(always)]
pub fn slots_mask() -> u32 {
    (1 << slots_per_cpu_log2()) - 1
}

setting!(
    /// Bytes of one CPU's ring.
    RING_BYTES: u64 = 1 << 20, read by ring_bytes);
setting!(
    /// Not 0: which side is the client is decided by address, not by hook (mirror ports).
    SIDES_BY_ADDRESS: u32 = 0, read by sides_by_address);

setting!(
    /// Not 0: the client is looked for inside tunnels (`--decapsulate`).
    DECAPSULATE: u32 = 0, read by decapsulate);

/// Multipliers of the slot hash, odd and random, so that nobody outside can choose flows that share a set.
#[unsafe(no_mangle)]
static HASH_KEYS: [u64; 6] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
];

#[inline(always)]
pub fn hash_key(word: usize) -> u64 {
    // SAFETY: `word` is below 6 in every caller, and the loader replaces the value after compilation.
    unsafe { core::ptr::read_volatile((&raw const HASH_KEYS).cast::<u64>().add(word)) }
}
