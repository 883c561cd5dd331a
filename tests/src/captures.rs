//! Captures of our own making, each about one thing a parser must get right.

mod learnt;
mod misread;

use crate::frames::{
    CLIENT, CLIENT_V4, CLIENT_V6, GATEWAY, SERVER_V4, SERVER_V6, ethernet, ethernet_between, ipv4, ipv4_between, ipv6,
    tcp, udp,
};

/// A name that says what it is about, and the frames.
pub struct Capture {
    pub name: &'static str,
    pub frames: Vec<Vec<u8>>,
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const MORE: u16 = 0x2000;

fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4(protocol, &[], 0, payload))
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV6, &ipv6(next, payload))
}

fn fragment_v4(identification: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = ipv4(UDP, &[], fragment, payload);
    packet[4..6].copy_from_slice(&identification.to_be_bytes());
    ethernet(&[], IPV4, &packet)
}

fn fragment_v6(identification: u32, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![UDP, 0];
    packet.extend(fragment.to_be_bytes());
    packet.extend(identification.to_be_bytes());
    packet.extend(payload);
    v6(44, &packet)
}

/// A datagram with a payload of this length.
fn udp_of(len: usize) -> Vec<u8> {
    let mut datagram = 5000_u16.to_be_bytes().to_vec();
    datagram.extend(53_u16.to_be_bytes());
    datagram.extend(u16::try_from(8 + len).unwrap_or(0).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(8 + len, 0x5a);
    datagram
}

/// An extension header of 8 bytes, of nothing but padding.
fn options(next: u8) -> Vec<u8> {
    vec![next, 0, 1, 4, 0, 0, 0, 0]
}

fn authentication(next: u8) -> Vec<u8> {
    [&[next, 4, 0, 0], &[7; 20][..]].concat()
}

fn error(kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat()
}

/// What the client got and complains about.
fn received_v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_between(SERVER_V4, CLIENT_V4, protocol, payload)
}

fn received_v6(next: u8, payload: &[u8]) -> Vec<u8> {
    crate::frames::ipv6_between(SERVER_V6, CLIENT_V6, next, payload)
}

/// A frame cut after each of its bytes, and whole.
fn cut_everywhere(whole: &[u8]) -> Vec<Vec<u8>> {
    (15..=whole.len()).map(|len| whole[..len].to_vec()).collect()
}

fn pppoe(protocol: u16, packet: &[u8]) -> Vec<u8> {
    let mut session = vec![0x11, 0, 0x12, 0x34];
    session.extend(u16::try_from(2 + packet.len()).unwrap_or(0).to_be_bytes());
    session.extend(protocol.to_be_bytes());
    session.extend(packet);
    ethernet(&[], 0x8864, &session)
}

fn gre(protocol: u16, inner: &[u8]) -> Vec<u8> {
    [&[0, 0], &protocol.to_be_bytes(), inner].concat()
}

fn vxlan(inner: &[u8]) -> Vec<u8> {
    let mut datagram = 50_000_u16.to_be_bytes().to_vec();
    datagram.extend(4789_u16.to_be_bytes());
    datagram.extend(u16::try_from(16 + inner.len()).unwrap_or(0).to_be_bytes());
    datagram.extend([0, 0, 0x08, 0, 0, 0, 0, 0, 42, 0]);
    datagram.extend(inner);
    datagram
}

fn with_ethertype(tags: &[(u16, u16)], inner: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [GATEWAY, CLIENT].concat();
    for (ethertype, tag) in tags {
        frame.extend(ethertype.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(inner.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A change of one byte.
fn changed(mut frame: Vec<u8>, position: usize, value: u8) -> Vec<u8> {
    frame[position] = value;
    frame
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Capture> {
    [transports(), networks(), links(), fragments(), errors(), tunnels(), damaged(), learnt::all(), misread::misread()]
        .into_iter()
        .flatten()
        .collect()
}

fn capture(name: &'static str, frames: Vec<Vec<u8>>) -> Capture {
    Capture { name, frames }
}

fn transports() -> Vec<Capture> {
    let session: Vec<u8> = vec![0x02, 0x10, 0x18, 0x18, 0x11, 0x10];
    let long_tcp = {
        let mut header = tcp(0x18);
        header[12] = 0xf0;
        [&header[..], &[1; 40], b"data"].concat()
    };
    let ports = |first: u16, second: u16| [first.to_be_bytes(), second.to_be_bytes()].concat();
    let sctp = [&ports(6000, 7000)[..], &[0, 0, 0, 1, 0, 0, 0, 0, 3, 0, 0, 16], &[0; 12]].concat();
    let dccp = [&ports(6001, 7001)[..], &[4, 0, 0, 0, 0x05, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]].concat();
    vec![
        capture("tcp-v4-session", session.iter().map(|flags| v4(TCP, &tcp(*flags))).collect()),
        capture("tcp-v6-session", session.iter().map(|flags| v6(TCP, &tcp(*flags))).collect()),
        capture("tcp-reopened", [2, 0x11, 2, 0x10, 4, 2].iter().map(|flags| v4(TCP, &tcp(*flags))).collect()),
        capture("tcp-options", vec![v4(TCP, &long_tcp), v6(TCP, &long_tcp)]),
        capture("udp-v4-lengths", (0..40).map(|len| v4(UDP, &udp_of(len))).collect()),
        capture("udp-v6-lengths", (0..40).map(|len| v6(UDP, &udp_of(len))).collect()),
        capture("sctp", vec![v4(132, &sctp), v6(132, &sctp)]),
        capture("dccp", vec![v4(33, &dccp), v6(33, &dccp)]),
        capture("udp-lite", vec![v4(136, &udp(5000, 53)), v6(136, &udp(5000, 53))]),
        capture("esp-igmp-ospf-vrrp", [50, 2, 89, 112].iter().map(|protocol| v4(*protocol, &[0x16; 24])).collect()),
        capture("no-next-header", vec![v6(59, &[]), v6(59, &[1, 2, 3])]),
        capture(
            "icmp-queries",
            [0, 8, 13, 17].map(|kind| v4(ICMP, &[&[kind, 0, 0, 0, 0x12, 0x34, 0, 1][..], &[0; 12]].concat())).to_vec(),
        ),
        capture("icmpv6-queries", [128, 129].map(|kind| v6(ICMPV6, &[kind, 0, 0, 0, 0x12, 0x34, 0, 1])).to_vec()),
        capture(
            "neighbour-discovery",
            [133, 135, 136].map(|kind| v6(ICMPV6, &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &SERVER_V6].concat())).to_vec(),
        ),
    ]
}

fn networks() -> Vec<Capture> {
    let all_options = (0..=10).map(|words| ethernet(&[], IPV4, &ipv4(UDP, &vec![1; words * 4], 0, &udp(5000, 53))));
    let routing = [&[UDP, 2, 4, 0, 0, 0, 0, 0][..], &SERVER_V6, &udp(5000, 53)].concat();
    let last_header = v6(43, &[&[59, 2, 4, 0, 0, 0, 0, 0][..], &SERVER_V6].concat());
    let chains = [
        [&options(60)[..], &options(UDP), &udp(5000, 53)].concat(),
        [&options(51)[..], &authentication(60), &options(UDP), &udp(5000, 53)].concat(),
        [&options(44)[..], &[60, 0, 0, 0, 0, 0, 0, 9], &options(UDP), &udp(5000, 53)].concat(),
        [&options(43)[..], &routing].concat(),
    ];
    let long = |count: usize| [&options(60).repeat(count - 1)[..], &options(UDP), &udp(5000, 53)].concat();
    let multicast = |destination: [u8; 4]| {
        let packet = ipv4_between(CLIENT_V4, destination, UDP, &udp_of(20));
        ethernet_between(
            CLIENT,
            [1, 0, 0x5e, destination[1] & 0x7f, destination[2], destination[3]],
            &[],
            IPV4,
            &packet,
        )
    };
    let broadcast = ipv4_between([0; 4], [255; 4], UDP, &udp_of(244));
    vec![
        capture("ipv4-options", all_options.collect()),
        capture("hop-by-hop-and-destination", chains.iter().map(|chain| v6(0, chain)).collect()),
        capture("routing-header", vec![v6(43, &routing)]),
        capture("routing-header-cut", (54..=last_header.len()).map(|len| last_header[..len].to_vec()).collect()),
        capture(
            "authentication-header",
            vec![
                v6(51, &[&authentication(TCP)[..], &tcp(2)].concat()),
                v4(51, &[&authentication(TCP)[..], &tcp(2)].concat()),
            ],
        ),
        capture("eight-extension-headers", vec![v6(60, &long(8))]),
        capture("nine-extension-headers", vec![v6(60, &long(9))]),
        capture(
            "multicast-and-broadcast",
            vec![
                multicast([224, 0, 0, 251]),
                multicast([239, 255, 255, 250]),
                ethernet_between(CLIENT, [0xff; 6], &[], IPV4, &broadcast),
            ],
        ),
        capture("same-ports-other-protocol", vec![v4(TCP, &tcp(2)), v4(UDP, &udp(40_000, 443)), v6(TCP, &tcp(2))]),
        capture("jumbo-frames", [1473, 4000, 8958].iter().map(|len| v4(UDP, &udp_of(*len))).collect()),
    ]
}

fn links() -> Vec<Capture> {
    let packet = ipv4(UDP, &[], 0, &udp(5000, 53));
    let packet_v6 = ipv6(UDP, &udp(5000, 53));
    let padded = |len: usize| {
        let mut frame = v4(UDP, &udp_of(2));
        frame.resize(len, 0);
        frame
    };
    let to = |destination: [u8; 6], ethertype: u16| ethernet_between(CLIENT, destination, &[], ethertype, &[0x42; 46]);
    vec![
        capture("vlan", vec![ethernet(&[100], IPV4, &packet), ethernet(&[4094], IPV6, &packet_v6)]),
        capture(
            "qinq",
            vec![
                ethernet(&[100, 200], IPV4, &packet),
                with_ethertype(&[(0x88a8, 100), (0x8100, 200)], IPV4, &packet),
                with_ethertype(&[(0x88a8, 100), (0x8100, 200)], IPV6, &packet_v6),
            ],
        ),
        capture(
            "priority-tags",
            vec![
                ethernet(&[0xe000], IPV4, &packet),
                ethernet(&[0xe064], IPV4, &packet),
                ethernet(&[0xa000, 300], IPV4, &packet),
            ],
        ),
        capture("three-tags", vec![ethernet(&[1, 2, 3], IPV4, &packet)]),
        capture("padding", [46, 60, 64, 100].iter().map(|len| padded(*len)).collect()),
        capture(
            "arp-and-others",
            vec![
                ethernet_between(CLIENT, [0xff; 6], &[], 0x0806, &[0; 46]),
                to([1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc),
                to([1, 0x80, 0xc2, 0, 0, 3], 0x888e),
                to([1, 0x80, 0xc2, 0, 0, 0], 0x0026),
                to(GATEWAY, 0x8863),
                to(GATEWAY, 0x88b5),
            ],
        ),
        capture(
            "pppoe-session",
            vec![pppoe(0x0021, &packet), pppoe(0x0057, &packet_v6), pppoe(0xc021, &[9, 1, 0, 8, 0, 0, 0, 0])],
        ),
    ]
}

fn fragments() -> Vec<Capture> {
    let rest = udp(6666, 7777);
    vec![
        capture(
            "fragments-v4-in-order",
            vec![fragment_v4(7, MORE, &udp_of(8)), fragment_v4(7, MORE | 2, &rest), fragment_v4(7, 3, &rest)],
        ),
        capture(
            "fragments-v4-last-first",
            vec![fragment_v4(8, 3, &rest), fragment_v4(8, MORE, &udp_of(8)), fragment_v4(8, MORE | 2, &rest)],
        ),
        capture(
            "fragments-v4-interleaved",
            vec![
                fragment_v4(9, MORE, &udp_of(8)),
                changed(fragment_v4(10, MORE, &udp_of(8)), 35, 99),
                fragment_v4(10, 2, &rest),
                fragment_v4(9, 2, &rest),
                fragment_v4(11, 2, &rest),
            ],
        ),
        capture(
            "fragments-v6-in-order",
            vec![fragment_v6(7, 1, &udp_of(8)), fragment_v6(7, 2 << 3 | 1, &rest), fragment_v6(7, 3 << 3, &rest)],
        ),
        capture(
            "fragments-v6-last-first",
            vec![fragment_v6(8, 3 << 3, &rest), fragment_v6(8, 1, &udp_of(8)), fragment_v6(8, 2 << 3 | 1, &rest)],
        ),
        capture("atomic-fragment", vec![fragment_v6(9, 0, &udp_of(8)), fragment_v6(9, 2 << 3, &rest)]),
    ]
}

fn errors() -> Vec<Capture> {
    let quoted_v4 =
        [received_v4(UDP, &udp(53, 5000)), received_v4(TCP, &tcp(2)), received_v4(ICMP, &[8, 0, 0, 0, 0, 9, 0, 1])];
    let quoted_v6 =
        [received_v6(UDP, &udp(53, 5000)), received_v6(TCP, &tcp(2)), received_v6(ICMPV6, &[128, 0, 0, 0, 0, 9, 0, 1])];
    let of_another = ipv4_between(SERVER_V4, [10, 20, 0, 99], UDP, &udp(53, 5000));
    let of_another = ipv4_between([192, 0, 2, 1], [10, 20, 0, 99], UDP, &of_another[20..]);
    vec![
        capture(
            "icmp-errors",
            [3, 11, 12]
                .iter()
                .flat_map(|kind| quoted_v4.iter().map(|quoted| v4(ICMP, &error(*kind, 1, quoted))))
                .collect(),
        ),
        capture(
            "icmp-errors-that-quote-8-bytes",
            quoted_v4.iter().map(|quoted| v4(ICMP, &error(3, 3, &quoted[..28]))).collect(),
        ),
        capture(
            "icmpv6-errors",
            [1, 2, 3]
                .iter()
                .flat_map(|kind| quoted_v6.iter().map(|quoted| v6(ICMPV6, &error(*kind, 0, quoted))))
                .collect(),
        ),
        capture("icmp-errors-about-others", vec![v4(ICMP, &error(3, 3, &of_another))]),
    ]
}

fn tunnels() -> Vec<Capture> {
    let inner = ethernet(&[300], IPV4, &ipv4(TCP, &[], 0, &tcp(2)));
    let inner_packet = ipv4(TCP, &[], 0, &tcp(2));
    vec![
        capture(
            "gre",
            vec![v4(47, &gre(IPV4, &inner_packet)), v4(47, &gre(0x6558, &inner)), v6(47, &gre(0x6558, &inner))],
        ),
        capture("vxlan", vec![v4(UDP, &vxlan(&inner)), v6(UDP, &vxlan(&inner))]),
        capture("ip-in-ip", vec![v4(4, &inner_packet), v4(41, &ipv6(UDP, &udp(5000, 53)))]),
    ]
}

fn damaged() -> Vec<Capture> {
    let good = v4(UDP, &udp(5000, 53));
    let good_v6 = v6(UDP, &udp(5000, 53));
    let chain = [&options(60)[..], &options(TCP), &tcp(2)].concat();
    vec![
        capture("cut-v4", cut_everywhere(&ethernet(&[100], IPV4, &ipv4(TCP, &[1; 8], 0, &tcp(2))))),
        capture("cut-v6", cut_everywhere(&v6(0, &chain))),
        capture(
            "bad-lengths",
            vec![
                changed(good.clone(), 14, 0x44),
                changed(good.clone(), 14, 0x4f),
                changed(good.clone(), 17, 200),
                changed(good.clone(), 17, 22),
                changed(good, 17, 19),
                changed(good_v6, 19, 200),
            ],
        ),
    ]
}

/// Whether the kernel hands a frame to tc: it drops a frame that ends inside a VLAN tag before (`skb_vlan_untag` in
/// `net/core/skbuff.c`).
#[must_use]
pub fn reaches_tc(frame: &[u8]) -> bool {
    let is_tagged = matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
    !is_tagged || frame.len() >= 20
}
