//! Netfilter's netlink: asking for a dump, and the messages of a datagram (`include/uapi/linux/netlink.h`).
//!
//! Bounded: what does not parse ends the datagram, and nothing makes it panic.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The kernel never sends more at once (`net/netlink/af_netlink.c`).
pub(crate) const MESSAGE_MAX: usize = 64 << 10;

const NLMSG_HEADER_LEN: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST` | `NLM_F_DUMP`.
const DUMP_FLAGS: u16 = 0x001 | 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLA_TYPE_MASK`: the bits above say nested and byte order.
const TYPE_MASK: u16 = 0x3fff;

pub(crate) fn open(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?)
}

/// Everything of one kind (subsystem << 8 | message) of all families; `None` where the dump was disturbed.
pub(crate) fn dump(kind: u16) -> io::Result<Option<Vec<Vec<u8>>>> {
    let socket = open(SocketFlags::CLOEXEC)?;
    // nlmsghdr: length, type, flags, sequence, port; nfgenmsg: family (0 is all), version, resource.
    let mut request = Vec::with_capacity(20);
    request.extend(20u32.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(DUMP_FLAGS.to_ne_bytes());
    request.extend([0; 12]);
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut answers = Vec::new();
    let mut is_whole = true;
    loop {
        let mut buffer = vec![0; MESSAGE_MAX];
        let (len, _) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty())?;
        buffer.truncate(len);
        let mut is_last = len == 0;
        for message in messages(&buffer) {
            is_whole &= message.flags & NLM_F_DUMP_INTR == 0;
            is_last |= message.kind == NLMSG_DONE;
            if let Some(code) = message.error_code() {
                return Err(io::Error::from_raw_os_error(code));
            }
        }
        answers.push(buffer);
        if is_last {
            return Ok(is_whole.then_some(answers));
        }
    }
}

/// One message.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: &'a [u8],
}

impl Message<'_> {
    /// What the kernel answers to a request: an error as `errno` gives it, or 0 for done. `None` for any other message.
    pub(crate) fn error_code(&self) -> Option<i32> {
        let code = self.body.first_chunk().filter(|_| self.kind == NLMSG_ERROR)?;
        Some(-i32::from_ne_bytes(*code))
    }
}

/// The messages of a datagram, up to the first whose length is wrong.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let len = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*rest.get(4..)?.first_chunk()?);
        let flags = u16::from_ne_bytes(*rest.get(6..)?.first_chunk()?);
        let body = rest.get(NLMSG_HEADER_LEN..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, flags, body })
    })
}

/// Type-length-value attributes, up to the first whose length is wrong.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & TYPE_MASK;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(crate) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}
