//! ICMP errors are packets of the flow they quote; one that cannot be about such a flow is a flow of its own.

use hotspot_common::FlowKey;

use crate::rig::Rig;
use hotspot_tests::frames::{
    CLIENT, CLIENT_V4, CLIENT_V6, GATEWAY, SERVER_V4, SERVER_V6, ethernet, ethernet_between, ipv4, ipv4_between, ipv6,
    ipv6_between, tcp, udp,
};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ROUTER_V4: [u8; 4] = [198, 51, 100, 1];
const ROUTER_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Destination unreachable, as type and code.
const UNREACHABLE_V4: [u8; 2] = [3, 1];
const UNREACHABLE_V6: [u8; 2] = [1, 4];

fn error([kind, code]: [u8; 2], quoted: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat()
}

fn router_v4(destination: [u8; 4], kind: [u8; 2], quoted: &[u8]) -> Vec<u8> {
    let packet = ipv4_between(ROUTER_V4, destination, ICMP, &error(kind, quoted));
    ethernet_between(GATEWAY, CLIENT, &[], 0x0800, &packet)
}

fn router_v6(destination: [u8; 16], kind: [u8; 2], quoted: &[u8]) -> Vec<u8> {
    let packet = ipv6_between(ROUTER_V6, destination, ICMPV6, &error(kind, quoted));
    ethernet_between(GATEWAY, CLIENT, &[], 0x86dd, &packet)
}

/// The key of the only flow.
fn only(rig: &mut Rig) -> FlowKey {
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(drained.outcomes(), []);
    let deltas = drained.deltas();
    assert_eq!(deltas.len(), 1, "{deltas:?}");
    deltas[0].key
}

/// What the client gets in answer, but for the direction, has the key of what it sent.
fn assert_answers(rig: &mut Rig, sent: &[u8], error: &[u8]) {
    rig.xdp(sent);
    let sent = only(rig);
    rig.tc("hotspot_egress", error);
    let answered = only(rig);
    let turned = FlowKey { origin: sent.origin | 0x80, ..sent };
    assert_eq!(answered, turned);
}

#[test]
fn an_error_is_a_packet_of_the_flow_it_quotes() {
    let mut rig = Rig::new(10, 1 << 16);
    let with_options = ipv4(17, &[1; 8], 0, &udp(5000, 53));
    for sent in [
        ipv4(17, &[], 0, &udp(5000, 53)),
        ipv4(6, &[], 0, &tcp(2)),
        ipv4(ICMP, &[], 0, &[8, 0, 0, 0, 1, 2, 0, 1]),
        with_options,
    ] {
        // RFC 792: the header and 8 bytes; routers of today quote more (RFC 1812 §4.3.2.3).
        let header_len = usize::from(sent[0] & 0x0f) * 4;
        for quoted in [&sent[..header_len + 8], &sent] {
            for kind in [UNREACHABLE_V4, [4, 0], [5, 1], [11, 0], [12, 0]] {
                assert_answers(&mut rig, &ethernet(&[], 0x0800, &sent), &router_v4(CLIENT_V4, kind, quoted));
            }
        }
    }
    for sent in [ipv6(17, &udp(5000, 53)), ipv6(6, &tcp(2)), ipv6(ICMPV6, &[128, 0, 0, 0, 1, 2, 0, 1])] {
        for kind in [UNREACHABLE_V6, [2, 0], [3, 0], [4, 1]] {
            assert_answers(&mut rig, &ethernet(&[], 0x86dd, &sent), &router_v6(CLIENT_V6, kind, &sent));
        }
    }
}

#[test]
fn an_error_of_the_client_is_a_packet_of_the_flow_it_rejects() {
    let mut rig = Rig::new(10, 1 << 16);
    let received = ipv4_between(SERVER_V4, CLIENT_V4, 17, &udp(53, 5000));
    rig.tc("hotspot_egress", &ethernet_between(GATEWAY, CLIENT, &[], 0x0800, &received));
    let received_key = only(&mut rig);
    rig.xdp(&ethernet(&[], 0x0800, &ipv4(ICMP, &[], 0, &error([3, 3], &received))));
    assert_eq!(only(&mut rig), FlowKey { origin: received_key.origin & 0x7f, ..received_key });
    assert_eq!((received_key.client_port, received_key.peer_port), (5000, 53));
}

#[test]
fn an_error_about_a_packet_of_somebody_else_is_a_flow_of_its_own() {
    let mut rig = Rig::new(10, 1 << 16);
    let of_another = ipv4_between([10, 20, 0, 99], SERVER_V4, 17, &udp(5000, 53));
    rig.tc("hotspot_egress", &router_v4(CLIENT_V4, UNREACHABLE_V4, &of_another));
    let key = only(&mut rig);
    assert_eq!((key.protocol, key.client_port, key.peer_port), (ICMP, 0, 0x0301));
    assert_eq!((&key.client_ip[12..], &key.peer_ip[12..]), (&CLIENT_V4[..], &ROUTER_V4[..]));
    let of_another = ipv6_between(SERVER_V6, ROUTER_V6, 17, &udp(5000, 53));
    rig.tc("hotspot_egress", &router_v6(CLIENT_V6, UNREACHABLE_V6, &of_another));
    let key = only(&mut rig);
    assert_eq!((key.protocol, key.client_port, key.peer_port), (ICMPV6, 0, 0x0104));
}

#[test]
fn an_error_that_quotes_too_little_is_a_flow_of_its_own() {
    let mut rig = Rig::new(10, 1 << 16);
    let mut later_fragment = ipv4(17, &[], 1, &udp(5000, 53));
    later_fragment[6..8].copy_from_slice(&1u16.to_be_bytes());
    let sent = ipv4(17, &[], 0, &udp(5000, 53));
    let error_in_error = ipv4(ICMP, &[], 0, &[3, 1, 0, 0, 1, 2, 0, 1]);
    for quoted in [&[], &sent[..19], &sent[..23], &later_fragment[..], &error_in_error] {
        rig.tc("hotspot_egress", &router_v4(CLIENT_V4, UNREACHABLE_V4, quoted));
        let key = only(&mut rig);
        assert_eq!((key.protocol, key.client_port, key.peer_port), (ICMP, 0, 0x0301), "{quoted:?}");
    }
}
