//! What keeps a process that holds keys to itself: no core dump, no tracer of the same user, no page in swap, no file for everybody.
//!
//! Used by the agent from its start, and by the tool before it reads an identity. Nothing here can undo what root does.

use std::io;

use rustix::fs::Mode;
use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::CapabilitySet;

/// What others than owner and group may never do with files that are made from now on, and what a group may not: write.
const MASK: Mode = Mode::from_raw_mode(0o027);

/// Files and directories that this process makes can be read by their owner and one group only.
pub fn mask_files() {
    let before = rustix::process::umask(MASK);
    rustix::process::umask(before | MASK);
}

/// Memory goes into no core file, and no process of the same user looks into it.
pub fn forbid_dumps() -> io::Result<()> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // The limit says nothing where cores go to a program (core(5)); this does, and it refuses ptrace(2) to others than root.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Keeps all memory out of swap, pages as they are first used. `Err` says why that is not so.
///
/// Where the limit on locked memory is finite nothing is locked: beyond it, allocating would fail.
pub fn lock_memory() -> io::Result<()> {
    let unlimited = Rlimit { current: None, maximum: None };
    let is_privileged =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let may = is_privileged
        || rustix::process::setrlimit(Resource::Memlock, unlimited).is_ok()
        || rustix::process::getrlimit(Resource::Memlock).current.is_none();
    if !may {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the limit on locked memory (ulimit -l) is finite",
        ));
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    Ok(rustix::mm::mlockall(flags)?)
}
