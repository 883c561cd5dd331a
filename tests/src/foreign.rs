//! Programs of somebody else on an interface: they let every packet pass, and end the chain of programs there.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};

use crate::namespace::Namespace;

/// Commands of `bpf(2)`, program and attach types (`include/uapi/linux/bpf.h`).
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const SCHED_CLS: u32 = 3;
const XDP: u32 = 6;
const AT_XDP: u32 = 37;
const AT_TCX_INGRESS: u32 = 46;
/// Before all others.
const BEFORE: u32 = 1 << 3;

/// Where it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignHook {
    Xdp,
    TcxIngress,
}

/// Attached until it is dropped.
#[derive(Debug)]
pub struct ForeignProgram {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl ForeignProgram {
    /// Loads the program and attaches it before all others.
    pub fn attach(namespace: &Namespace, interface: &str, hook: ForeignHook) -> Result<Self> {
        let path = namespace.path();
        std::thread::scope(|scope| {
            // A thread of its own enters the namespace, and ends in it.
            scope
                .spawn(|| attach_from_here(&path, interface, hook))
                .join()
                .map_err(|_| anyhow::anyhow!("attaching panicked"))?
        })
    }
}

fn attach_from_here(namespace: &std::path::Path, interface: &str, hook: ForeignHook) -> Result<ForeignProgram> {
    let namespace = File::open(namespace)?;
    // SAFETY: moves only this thread, which ends soon.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error()).context("setns");
    }
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: a NUL-terminated name.
    let device = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let (kind, attach_type, flags, answer) = match hook {
        ForeignHook::Xdp => (XDP, AT_XDP, 0, 2),
        ForeignHook::TcxIngress => (SCHED_CLS, AT_TCX_INGRESS, BEFORE, 0),
    };
    let program = load(kind, answer).context("loading")?;
    // struct { prog_fd, target_ifindex, attach_type, flags, relative … } link_create
    let mut attributes = [0_u32; 16];
    attributes[..4].copy_from_slice(&[u32::try_from(program.as_raw_fd())?, device, attach_type, flags]);
    let link = bpf(LINK_CREATE, attributes.as_mut_ptr().cast(), size_of_val(&attributes)).context("attaching")?;
    Ok(ForeignProgram { _program: program, _link: link })
}

/// `r0 = answer; exit`.
fn load(kind: u32, answer: u64) -> io::Result<OwnedFd> {
    let instructions: [u64; 2] = [0xb7 | answer << 32, 0x95];
    let license = c"GPL";
    // struct { prog_type, insn_cnt; insns, license; … }
    let mut attributes = [0_u64; 16];
    attributes[0] = u64::from(kind) | 2 << 32;
    attributes[1] = instructions.as_ptr() as u64;
    attributes[2] = license.as_ptr() as u64;
    bpf(PROG_LOAD, attributes.as_mut_ptr().cast(), size_of_val(&attributes))
}

fn bpf(command: libc::c_int, attributes: *mut libc::c_void, len: usize) -> io::Result<OwnedFd> {
    // SAFETY: the attributes and what they point to outlive the call, and have the length given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, len) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap_or(-1)) })
}
