//! Conntrack messages: nested type-length-value attributes (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).
//!
//! Strict and bounded: what does not parse yields nothing, and nothing makes it panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{find, messages};

/// After the netlink header: family, version, resource.
const NFGEN_LEN: usize = 4;
/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1;
const CT_NEW: u16 = 0;
const CT_DELETE: u16 = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
/// When the connection began and ended; only where `net.netfilter.nf_conntrack_timestamp` was on when it began.
const CTA_TIMESTAMP: u16 = 20;
const CTA_TIMESTAMP_START: u16 = 1;
const CTA_TIMESTAMP_STOP: u16 = 2;
/// When what the event tells of happened; on the same condition, since Linux 6.14.
const CTA_TIMESTAMP_EVENT: u16 = 27;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMPV6_ID: u16 = 7;

/// One side of a connection. For ICMP the query identifier stands for the client's port, on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
}

/// A connection that was made, found or destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) is_destroyed: bool,
    pub(super) original: Tuple,
    pub(super) reply: Tuple,
    /// Wall-clock times of the kernel's, where it gives them.
    pub(super) began_ns: Option<i64>,
    pub(super) ended_ns: Option<i64>,
    pub(super) happened_ns: Option<i64>,
}

/// Every connection a datagram tells about; `None` for one that cannot be read.
pub(super) fn parse(datagram: &[u8]) -> impl Iterator<Item = Option<Message>> {
    messages(datagram).filter_map(|message| {
        let is_destroyed = match (message.kind >> 8, message.kind & 0xff) {
            (SUBSYSTEM, CT_NEW) => false,
            (SUBSYSTEM, CT_DELETE) => true,
            _ => return None,
        };
        Some(connection(message.body, is_destroyed))
    })
}

fn connection(body: &[u8], is_destroyed: bool) -> Option<Message> {
    let attributes = body.get(NFGEN_LEN..)?;
    let original = tuple(find(attributes, CTA_TUPLE_ORIG)?, false)?;
    let reply = tuple(find(attributes, CTA_TUPLE_REPLY)?, true)?;
    let times = find(attributes, CTA_TIMESTAMP).unwrap_or_default();
    Some(Message {
        is_destroyed,
        original,
        reply,
        began_ns: time(times, CTA_TIMESTAMP_START),
        ended_ns: time(times, CTA_TIMESTAMP_STOP),
        happened_ns: time(attributes, CTA_TIMESTAMP_EVENT),
    })
}

fn time(bytes: &[u8], kind: u16) -> Option<i64> {
    let value = find(bytes, kind)?;
    i64::try_from(u64::from_be_bytes(value.try_into().ok()?)).ok().filter(|at_ns| *at_ns != 0)
}

fn tuple(bytes: &[u8], is_reply: bool) -> Option<Tuple> {
    let ip = find(bytes, CTA_TUPLE_IP)?;
    let address = |v4, v6| {
        let v4 =
            find(ip, v4).and_then(|value| <[u8; 4]>::try_from(value).ok()).map(|value| Ipv4Addr::from(value).into());
        v4.or_else(|| {
            find(ip, v6).and_then(|value| <[u8; 16]>::try_from(value).ok()).map(|value| Ipv6Addr::from(value).into())
        })
    };
    let proto = find(bytes, CTA_TUPLE_PROTO)?;
    let port = |kind| find(proto, kind).and_then(|value| value.try_into().ok()).map(u16::from_be_bytes);
    let identifier = port(CTA_PROTO_ICMP_ID).or_else(|| port(CTA_PROTO_ICMPV6_ID));
    let (source_port, destination_port) = match identifier {
        // The identifier belongs to who asked: the source of the request, the destination of the reply.
        Some(identifier) if is_reply => (0, identifier),
        Some(identifier) => (identifier, 0),
        None => (port(CTA_PROTO_SRC_PORT).unwrap_or(0), port(CTA_PROTO_DST_PORT).unwrap_or(0)),
    };
    Some(Tuple {
        source: address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        destination: address(CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        protocol: *find(proto, CTA_PROTO_NUM)?.first()?,
        source_port,
        destination_port,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = 4 + value.len();
        let mut bytes = u16::try_from(len).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(len.next_multiple_of(4), 0);
        bytes
    }

    fn side(kind: u16, source: [u8; 4], destination: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
        let ip = [attribute(CTA_IP_V4_SRC, &source), attribute(CTA_IP_V4_DST, &destination)].concat();
        let proto = [
            attribute(CTA_PROTO_NUM, &[6]),
            attribute(CTA_PROTO_SRC_PORT, &ports.0.to_be_bytes()),
            attribute(CTA_PROTO_DST_PORT, &ports.1.to_be_bytes()),
        ];
        let inner =
            [attribute(0x8000 | CTA_TUPLE_IP, &ip), attribute(0x8000 | CTA_TUPLE_PROTO, &proto.concat())].concat();
        attribute(0x8000 | kind, &inner)
    }

    fn datagram() -> Vec<u8> {
        let body = [
            vec![2, 0, 0, 0],
            side(CTA_TUPLE_ORIG, [10, 0, 0, 1], [198, 51, 100, 1], (1000, 80)),
            side(CTA_TUPLE_REPLY, [198, 51, 100, 1], [203, 0, 113, 7], (80, 45678)),
        ]
        .concat();
        let mut message = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend((1u16 << 8 | CT_NEW).to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    #[test]
    fn both_sides_of_a_connection_are_read() {
        let found: Vec<_> = parse(&[datagram(), datagram()].concat()).flatten().collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].original.source_port, found[0].reply.destination_port), (1000, 45678));
        assert_eq!(found[0].reply.destination, IpAddr::from([203, 0, 113, 7]));
    }

    #[test]
    fn times_of_the_kernel_are_read_where_they_are() {
        let stamp = |kind, at_ns: u64| attribute(kind, &at_ns.to_be_bytes());
        let mut bytes = datagram();
        let times = [stamp(CTA_TIMESTAMP_START, 5), stamp(CTA_TIMESTAMP_STOP, 0)].concat();
        bytes.extend(attribute(0x8000 | CTA_TIMESTAMP, &times));
        bytes.extend(stamp(CTA_TIMESTAMP_EVENT, 7));
        let len = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        let found: Vec<_> = parse(&bytes).flatten().collect();
        assert_eq!((found[0].began_ns, found[0].ended_ns, found[0].happened_ns), (Some(5), None, Some(7)));
        let without = parse(&datagram()).flatten().next().unwrap();
        assert_eq!((without.began_ns, without.ended_ns, without.happened_ns), (None, None, None));
    }

    #[test]
    fn a_cut_message_yields_nothing() {
        let whole = datagram();
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]).count(), 0, "cut to {len}");
        }
    }

    #[test]
    fn a_connection_without_a_side_is_reported_as_unreadable() {
        let mut without_reply = datagram();
        let reply = without_reply.len() / 2 + 10;
        let at = without_reply[reply..].windows(2).position(|pair| pair == (0x8000 | CTA_TUPLE_REPLY).to_ne_bytes());
        without_reply[reply + at.unwrap()] = 77;
        assert_eq!(parse(&without_reply).collect::<Vec<_>>(), [None]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes).count();
        }

        #[test]
        fn no_flipped_byte_makes_it_panic(at in 0usize..120, value in any::<u8>()) {
            let mut changed = datagram();
            let at = at % changed.len();
            changed[at] = value;
            let _ = parse(&changed).count();
        }
    }
}
