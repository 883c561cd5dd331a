//! Waiting until no program still runs that began before now.
//!
//! After the active generation was changed, a program that read the old number may still be adding to the old half. Programs
//! run inside an RCU read-side section, and `membarrier(MEMBARRIER_CMD_GLOBAL)` returns after a grace period
//! (kernel/sched/membarrier.c: `synchronize_rcu`), so that afterwards all of those have ended.

use std::io;

/// Proof that a grace period has passed since a generation ended.
#[derive(Debug)]
pub struct Waited(());

/// `MEMBARRIER_CMD_GLOBAL` (include/uapi/linux/membarrier.h).
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Waits for every program run that is under way. 16 to 140 ms on an idle machine.
///
/// Fails with `EINVAL` on kernels booted with `nohz_full=`, which refuse the command.
pub fn wait_for_programs() -> io::Result<Waited> {
    // SAFETY: the command takes no pointers.
    let outcome = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if outcome == 0 { Ok(Waited(())) } else { Err(io::Error::last_os_error()) }
}
