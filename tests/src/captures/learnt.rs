//! What captures of others taught: each of these once made a difference.

use super::{Capture, ICMP, IPV4, IPV6, MORE, TCP, UDP, capture, changed, fragment_v6, options, pppoe, udp_of, v4, v6};
use crate::frames::{CLIENT_V4, SERVER_V4, SERVER_V6, ethernet, ipv4, ipv6, ipv6_between, tcp, udp};

const NO_NEXT_HEADER: u8 = 59;
const FRAGMENT: u8 = 44;
const MOBILITY: u8 = 135;

pub(super) fn all() -> Vec<Capture> {
    let with_options = |options: &[u8]| ethernet(&[], IPV4, &ipv4(TCP, options, 0, &tcp(2)));
    let route = |kind: u8| [&[kind, 7, 4], &SERVER_V4[..], &[0]].concat();
    let compressed = |protocol: u16, packet: &[u8]| {
        let mut frame = pppoe(protocol, packet);
        frame.remove(20);
        frame
    };
    let icmp_fragment = |fragment: u16, payload: &[u8]| {
        let mut packet = ipv4(ICMP, &[], fragment, payload);
        packet[4..6].copy_from_slice(&[0, 77]);
        ethernet(&[], IPV4, &packet)
    };
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, CLIENT_V4[0], CLIENT_V4[1], CLIENT_V4[2], CLIENT_V4[3]];
    let far = [
        &[UDP, 127, 1, 254][..],
        &[0; 254],
        &[1, 254],
        &[0; 254],
        &[1, 254],
        &[0; 254],
        &[1, 252],
        &[0; 252],
        &udp(5000, 53),
    ]
    .concat();
    let long = v4(UDP, &udp_of(600));
    let nested = [&[FRAGMENT, 0, 0, 1, 0, 0, 0, 7], &[UDP, 0, 0, 0, 0, 0, 0, 8][..], &udp(5000, 53)].concat();
    vec![
        capture("source-routes", vec![with_options(&route(131)), with_options(&route(137)), with_options(&route(7))]),
        capture("bad-security-option", vec![with_options(&[130, 2, 0, 0]), with_options(&[1, 1, 1, 0])]),
        capture(
            "pppoe-compressed-protocol",
            vec![
                compressed(0x0021, &ipv4(UDP, &[], 0, &udp(5000, 53))),
                compressed(0x0057, &ipv6(UDP, &udp(5000, 53))),
            ],
        ),
        capture(
            "icmp-fragments",
            vec![
                icmp_fragment(2, &[0x41; 16]),
                icmp_fragment(MORE, &[8, 0, 0, 0, 0x12, 0x34, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]),
                icmp_fragment(2, &[0x41; 16]),
            ],
        ),
        capture(
            "ipv4-mapped-addresses",
            vec![ethernet(&[], IPV6, &ipv6_between(mapped, SERVER_V6, UDP, &udp(5000, 53)))],
        ),
        capture("cut-by-a-snapshot-length", [60, 64, 96, 128, 600].iter().map(|len| long[..*len].to_vec()).collect()),
        capture("ports-behind-a-kilobyte-of-options", vec![v6(60, &far)]),
        capture("ports-of-0", vec![v4(TCP, &changed(changed(tcp(2), 0, 0), 1, 0)), v4(UDP, &udp(0, 0))]),
        capture("two-fragment-headers", vec![v6(FRAGMENT, &nested), fragment_v6(7, 2 << 3, &udp(1, 2))]),
        capture(
            "mobility",
            vec![v6(MOBILITY, &[NO_NEXT_HEADER, 0, 0, 0, 0, 0, 0, 0]), v6(60, &options(NO_NEXT_HEADER))],
        ),
    ]
}
