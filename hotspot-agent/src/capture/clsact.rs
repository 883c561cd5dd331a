//! tc's older way to run a program, for kernels before 6.6: a filter on the clsact qdisc.
//!
//! Speaks rtnetlink itself, so that a filter can be asked for, and exchanged for another without a moment between them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use hotspot_common::Direction;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::netlink::messages;

const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
/// `NLM_F_REQUEST` | `NLM_F_ACK`.
const REQUEST: u16 = 0x001 | 0x004;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;

/// `TC_H_CLSACT` and the two ends below it (`include/uapi/linux/pkt_sched.h`).
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_MAJOR: u32 = 0xffff_0000;
const INGRESS_MINOR: u32 = 0xfff2;
const EGRESS_MINOR: u32 = 0xfff3;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// `include/uapi/linux/pkt_cls.h`.
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// The program's answer is the action.
const DIRECT_ACTION: u32 = 1;
const ETH_P_ALL: u16 = 0x0003;

/// Names our filter among those of the same priority.
const HANDLE: u32 = 0x6873;
/// First in the chain, so that a filter that ends it hides nothing from us; the other where that priority belongs to filters
/// of another kind.
const PRIORITIES: [u16; 2] = [1, 0x6873];

/// Makes a program the filter of one end of a device, in the place of the one before.
pub(super) fn put(device: u32, direction: Direction, program: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    add_qdisc(device)?;
    if let Some(priority) = find(device, direction)? {
        return add(device, direction, priority, program, name);
    }
    let [first, fallback] = PRIORITIES;
    add(device, direction, first, program, name).or_else(|_| add(device, direction, fallback, program, name))
}

/// Whether our filter is on one end of a device.
pub(super) fn is_there(device: u32, direction: Direction) -> io::Result<bool> {
    Ok(find(device, direction)?.is_some())
}

/// The priority our filter has there.
fn find(device: u32, direction: Direction) -> io::Result<Option<u16>> {
    for priority in PRIORITIES {
        if get(device, direction, priority)? {
            return Ok(Some(priority));
        }
    }
    Ok(None)
}

/// Removes our filter; the qdisc stays, because others may use it too.
pub(super) fn remove(device: u32, direction: Direction) -> io::Result<()> {
    match find(device, direction)? {
        Some(priority) => ask(filter(RTM_DELTFILTER, REQUEST, device, direction, priority)),
        None => Ok(()),
    }
}

fn add_qdisc(device: u32) -> io::Result<()> {
    let mut request = header(RTM_NEWQDISC, REQUEST | CREATE | EXCLUSIVE, device, CLSACT_MAJOR, CLSACT, 0);
    attribute(&mut request, TCA_KIND, b"clsact\0");
    match ask(request) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        outcome => outcome,
    }
}

fn add(device: u32, direction: Direction, priority: u16, program: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut request = filter(RTM_NEWTFILTER, REQUEST | CREATE, device, direction, priority);
    let mut options = Vec::new();
    attribute(&mut options, TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
    attribute(&mut options, TCA_BPF_NAME, &[name.as_bytes(), b"\0"].concat());
    attribute(&mut options, TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes());
    attribute(&mut request, TCA_OPTIONS, &options);
    ask(request)
}

fn get(device: u32, direction: Direction, priority: u16) -> io::Result<bool> {
    match ask(filter(RTM_GETTFILTER, REQUEST, device, direction, priority)) {
        Ok(()) => Ok(true),
        // No such filter, no such qdisc, or filters of another kind at this priority.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn filter(kind: u16, flags: u16, device: u32, direction: Direction, priority: u16) -> Vec<u8> {
    let minor = match direction {
        Direction::Out => INGRESS_MINOR,
        Direction::In => EGRESS_MINOR,
    };
    let info = u32::from(priority) << 16 | u32::from(ETH_P_ALL.to_be());
    let mut request = header(kind, flags, device, HANDLE, CLSACT_MAJOR | minor, info);
    attribute(&mut request, TCA_KIND, b"bpf\0");
    request
}

/// `nlmsghdr` and `tcmsg`; the length is filled in by [`ask`].
fn header(kind: u16, flags: u16, device: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut request = vec![0; 4];
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    // Sequence and port; family and padding.
    request.extend([0; 8]);
    request.extend([0; 4]);
    for number in [device, handle, parent, info] {
        request.extend(number.to_ne_bytes());
    }
    request
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    to.extend(len.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Sends a request and reads until its acknowledgement.
fn ask(mut request: Vec<u8>) -> io::Result<()> {
    let len = u32::try_from(request.len()).unwrap_or(u32::MAX);
    request[..4].copy_from_slice(&len.to_ne_bytes());
    // No protocol is protocol 0, NETLINK_ROUTE.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut buffer = vec![0; 32 << 10];
    loop {
        let (received, _) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty())?;
        for message in messages(&buffer[..received]) {
            match message.error_code() {
                Some(0) => return Ok(()),
                Some(code) => return Err(io::Error::from_raw_os_error(code)),
                None => {}
            }
        }
    }
}
