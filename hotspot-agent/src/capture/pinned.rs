//! BPF objects with a name in a BPF file system: they outlive this process, and it keeps hold of them.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info};
use hotspot_common::Direction;

/// A link, or a program where the kernel attaches without links. Held twice: by its pin, so that it goes on when this process
/// is killed, and by this process, so that it goes on when somebody removes the pin.
#[derive(Debug)]
pub struct Pinned {
    fd: OwnedFd,
    path: PathBuf,
}

impl Pinned {
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let mut attributes = empty();
        attributes.__bindgen_anon_4.pathname = name.as_ptr() as u64;
        let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attributes)?;
        // SAFETY: the kernel just opened it for us.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, path: path.to_path_buf() })
    }

    /// Gives an object its name, also where another had it.
    pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let pinned = Self { fd: object.try_clone_to_owned()?, path: path.to_path_buf() };
        pinned.make_pin()?;
        Ok(pinned)
    }

    fn make_pin(&self) -> io::Result<()> {
        let name = CString::new(self.path.as_os_str().as_bytes())?;
        let mut attributes = empty();
        // SAFETY: writing a member of a union of integers.
        let pin = unsafe { &mut attributes.__bindgen_anon_4 };
        pin.pathname = name.as_ptr() as u64;
        pin.bpf_fd = u32::try_from(self.fd.as_raw_fd()).unwrap_or(u32::MAX);
        bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes).map(drop)
    }

    /// Makes the pin again where somebody removed it; true where that was so.
    pub fn keep_pinned(&self) -> io::Result<bool> {
        if self.path.exists() {
            return Ok(false);
        }
        self.make_pin()?;
        Ok(true)
    }

    /// Gives the pin another name, now or, where somebody removed it, when it is made again.
    pub fn rename(&mut self, path: &Path) -> io::Result<()> {
        match fs::rename(&self.path, path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.path = path.to_path_buf();
        Ok(())
    }

    /// Removes the name, and with this handle the object if nobody else holds it.
    pub fn remove(self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The index of the device a link is on; 0 where it is on none any more, because the device went or somebody detached it.
    pub fn link_device(&self) -> io::Result<u32> {
        // SAFETY: links of XDP and tcx both begin with the index of their device.
        Ok(unsafe { self.link_info()?.__bindgen_anon_1.xdp.ifindex })
    }

    /// The program that runs by a link.
    pub fn link_program(&self) -> io::Result<u32> {
        Ok(self.link_info()?.prog_id)
    }

    fn link_info(&self) -> io::Result<bpf_link_info> {
        // SAFETY: all zeros is a value of a structure of integers.
        let mut info: bpf_link_info = unsafe { mem::zeroed() };
        let mut attributes = empty();
        attributes.info.bpf_fd = u32::try_from(self.fd.as_raw_fd()).unwrap_or(u32::MAX);
        attributes.info.info_len = u32::try_from(size_of::<bpf_link_info>()).unwrap_or(0);
        attributes.info.info = (&raw mut info) as u64;
        bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
        Ok(info)
    }
}

/// The program that tcx runs first on one end of a device; 0 where there is none.
pub(super) fn first_of_tcx(device: u32, direction: Direction) -> io::Result<u32> {
    let mut program = 0_u32;
    let mut attributes = empty();
    // SAFETY: writing members of a union of integers.
    let query = unsafe { &mut attributes.query };
    query.__bindgen_anon_1.target_ifindex = device;
    query.attach_type = match direction {
        Direction::Out => bpf_attach_type::BPF_TCX_INGRESS as u32,
        Direction::In => bpf_attach_type::BPF_TCX_EGRESS as u32,
    };
    query.prog_ids = (&raw mut program) as u64;
    query.__bindgen_anon_2.count = 1;
    match bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes) {
        // There are more of them, or none.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::ENOENT)) => Err(error),
        _ => Ok(program),
    }
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn empty() -> bpf_attr {
    // SAFETY: all zeros is a value of a union of integers.
    unsafe { mem::zeroed() }
}

/// `bpf(2)`.
fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: the attributes and what they point to outlive the call, and have the size given.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_int, std::ptr::from_mut(attributes), size_of::<bpf_attr>())
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(RawFd::try_from(outcome).unwrap_or(-1)) }
}
