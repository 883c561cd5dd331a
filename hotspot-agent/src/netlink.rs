//! The messages of a netlink datagram (`include/uapi/linux/netlink.h`).
//!
//! Bounded: what does not parse ends the datagram, and nothing makes it panic.

const NLMSG_HEADER_LEN: usize = 16;
const NLMSG_ERROR: u16 = 2;

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
