//! The netlink sockets: one subscribed to events, one per dump.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SocketFlags, sockopt};
use tracing::warn;

use crate::netlink;

/// `NF_NETLINK_CONNTRACK_NEW` | `NF_NETLINK_CONNTRACK_DESTROY` (`include/uapi/linux/netfilter/nfnetlink_compat.h`).
const GROUPS: u32 = 0x1 | 0x4;
const BUFFER_BYTES: usize = 32 << 20;
/// `NFNL_SUBSYS_CTNETLINK` << 8 | `IPCTNL_MSG_CT_GET`.
const GET: u16 = 1 << 8 | 1;
const DUMPS_MAX: u32 = 5;

/// What one read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// So many bytes of messages.
    Messages(usize),
    Nothing,
    /// Messages were dropped because the buffer was full.
    Overrun,
}

/// Where messages are read into.
pub(super) type ReadBuffer = Box<[u8]>;

pub(super) fn read_buffer() -> ReadBuffer {
    vec![0; netlink::MESSAGE_MAX].into_boxed_slice()
}

/// A socket subscribed to new and destroyed connections.
pub(super) struct ConntrackSocket(OwnedFd);

impl ConntrackSocket {
    pub(super) fn subscribe() -> io::Result<Self> {
        let socket = netlink::open(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        // Forced beyond the system's limit where we may; an overrun is noticed anyway.
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES)?;
        }
        let granted = sockopt::socket_recv_buffer_size(&socket)?;
        if granted < BUFFER_BYTES {
            warn!(
                granted,
                wanted = BUFFER_BYTES,
                "the receive buffer for translations is small, and bursts will overrun it; \
                 run with CAP_NET_ADMIN, or raise net.core.rmem_max"
            );
        }
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    pub(super) fn receive(&self, buffer: &mut ReadBuffer) -> io::Result<Received> {
        match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((len, _)) => Ok(Received::Messages(len)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Received::Nothing),
            Err(rustix::io::Errno::NOBUFS) => Ok(Received::Overrun),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsRawFd for ConntrackSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for ConntrackSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// All connections there are, as the kernel's messages.
///
/// A dump that was disturbed (the table changed under it so that entries may be missing) is made again.
pub(super) fn dump() -> io::Result<Vec<Vec<u8>>> {
    for _ in 0..DUMPS_MAX {
        if let Some(answers) = netlink::dump(GET)? {
            return Ok(answers);
        }
    }
    Err(io::Error::other(format!("the connection table changed under each of {DUMPS_MAX} dumps")))
}
