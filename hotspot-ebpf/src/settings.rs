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
    /// The same as the uppermost byte of a flow's last word.
    ORIGIN: u64 = 0, read by origin);
setting!(
    /// Where the interface's tally lies in those of a half, in bytes.
    TALLY_OFFSET: u64 = 0, read by tally_offset);
setting!(
    /// Binary logarithm of the slots each CPU has per generation.
    SLOTS_PER_CPU_LOG2: u32 = 10, read by slots_per_cpu_log2);
setting!(
    /// Bytes of one CPU's ring.
    RING_BYTES: u64 = 1 << 20, read by ring_bytes);
setting!(
    /// Not 0: which side is the client is decided by address, not by hook (mirror ports).
    SIDES_BY_ADDRESS: u32 = 0, read by sides_by_address);
setting!(
    /// Not 0: the client is where it is without any of these options.
    IS_PLAIN: u32 = 1, read by is_plain);
setting!(
    /// Not 0: the client is looked for inside tunnels (`--decapsulate`).
    DECAPSULATE: u32 = 0, read by decapsulate);
