//! A UDP socket that answers from the address it was asked at.
//!
//! On a wildcard address the kernel would choose the source of an answer by its route, and a NAS ignores what comes from another
//! address than it asked (RFC 2865 §3). What it was is in a control message of each datagram (ip(7), ipv6(7)), which goes back with
//! the answer as it came.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::ptr;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// `cmsghdr` and the larger of `in_pktinfo` and `in6_pktinfo`, each on eight bytes.
const CONTROL_BYTES: usize = 40;

/// A control message of one datagram: which address of ours was asked.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control {
    bytes: [u8; CONTROL_BYTES],
}

/// A bound socket.
pub(super) struct Endpoint {
    socket: UdpSocket,
}

/// Who asked, and what of ours.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub(super) address: SocketAddr,
    control: Control,
    control_len: usize,
}

impl Endpoint {
    /// Binds; must be called inside the runtime. An IPv6 address takes IPv6 only, so that each family can have its own.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            turn_on(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
        } else {
            turn_on(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        }
        // A smaller buffer only means that a NAS has to ask again.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())? })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for a datagram; its length and who sent it.
    pub(super) async fn receive(&self, datagram: &mut [u8]) -> io::Result<(usize, Asker)> {
        self.socket.async_io(Interest::READABLE, || self.receive_now(datagram)).await
    }

    fn receive_now(&self, datagram: &mut [u8]) -> io::Result<(usize, Asker)> {
        let mut storage = SockAddrStorage::zeroed();
        let mut control = Control { bytes: [0; CONTROL_BYTES] };
        let mut into = libc::iovec { iov_base: datagram.as_mut_ptr().cast(), iov_len: datagram.len() };
        let mut message = message(&raw mut into);
        message.msg_name = (&raw mut storage).cast();
        message.msg_namelen = storage.size_of();
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = CONTROL_BYTES;
        // SAFETY: address, buffer and control outlive the call and have the lengths given.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the kernel wrote an address of this length.
        let address = unsafe { SockAddr::new(storage, message.msg_namelen) };
        let address = address.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        Ok((len, Asker { address, control, control_len: message.msg_controllen }))
    }

    /// Answers from the address that was asked.
    pub(super) async fn answer(&self, answer: &[u8], asker: &Asker) -> io::Result<()> {
        self.socket.async_io(Interest::WRITABLE, || self.answer_now(answer, asker)).await
    }

    fn answer_now(&self, answer: &[u8], asker: &Asker) -> io::Result<()> {
        let to = SockAddr::from(asker.address);
        // What is sent is only read.
        let mut from = libc::iovec { iov_base: answer.as_ptr().cast_mut().cast(), iov_len: answer.len() };
        let mut control = asker.source();
        let mut message = message(&raw mut from);
        message.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_namelen = to.len();
        if asker.control_len > 0 {
            message.msg_control = (&raw mut control).cast();
            message.msg_controllen = asker.control_len;
        }
        // SAFETY: address, buffer and control outlive the call and have the lengths given.
        let len = unsafe { libc::sendmsg(self.socket.as_raw_fd(), &raw const message, 0) };
        if len < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Asker {
    /// The control message to send: what came, without the interface, which is the route's to choose. Only a link-local address means
    /// nothing without it.
    fn source(&self) -> Control {
        /// Behind the `cmsghdr`: `ipi_ifindex` first in IPv4, `ipi6_ifindex` last in IPv6.
        const DATA: usize = size_of::<libc::cmsghdr>().next_multiple_of(size_of::<usize>());
        const V6_INTERFACE: usize = DATA + size_of::<libc::in6_addr>();
        let mut control = self.control;
        let keeps_interface = match self.address {
            SocketAddr::V4(_) => false,
            SocketAddr::V6(address) => address.ip().is_unicast_link_local(),
        };
        if !keeps_interface {
            let at = if self.address.is_ipv4() { DATA } else { V6_INTERFACE };
            control.bytes[at..at + size_of::<libc::c_int>()].fill(0);
        }
        control
    }
}

fn message(buffer: *mut libc::iovec) -> libc::msghdr {
    libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: buffer,
        msg_iovlen: 1,
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

fn turn_on(socket: &Socket, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = u32::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    // SAFETY: the value outlives the call and has the length given.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), len) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
