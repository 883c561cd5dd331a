//! The two clocks: a precise one that costs a call, and one that costs a load.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};

/// `CLOCK_MONOTONIC`, nanoseconds. About 30 ns: for a flow's first packet only.
#[inline(always)]
pub fn monotonic_ns() -> u64 {
    // SAFETY: no arguments, no side effects.
    unsafe { bpf_ktime_get_ns() }
}

/// Low 32 bits of jiffies, steps of 1 to 10 ms; inlined by the verifier to a load.
#[inline(always)]
pub fn jiffies() -> u32 {
    // SAFETY: no arguments, no side effects.
    unsafe { bpf_jiffies64() as u32 }
}
