//! Later fragments join the flow of the first, and their payload is never taken for ports.

use hotspot_core::fact::FlowDelta;

use crate::rig::Rig;
use hotspot_tests::frames::{SERVER_V4, ethernet, ipv4, ipv4_between, ipv6, udp};

const MORE: u16 = 0x2000;
const ICMP: u8 = 1;
const UDP: u8 = 17;
const UDP_LITE: u8 = 136;

fn v4(identification: u16, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = ipv4(protocol, &[], fragment, payload);
    packet[4..6].copy_from_slice(&identification.to_be_bytes());
    ethernet(&[], 0x0800, &packet)
}

/// `fragment` as in the header: offset in units of 8 bytes, shifted left by three, and whether more follow.
fn v6(identification: u32, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![UDP, 0];
    packet.extend(fragment.to_be_bytes());
    packet.extend(identification.to_be_bytes());
    packet.extend(payload);
    // With a destination options header before it.
    ethernet(&[], 0x86dd, &ipv6(60, &[&[44, 0, 1, 4, 0, 0, 0, 0], &packet[..]].concat()))
}

/// What looks like ports 6666 and 7777 to one who does not look at the offset.
fn payload() -> Vec<u8> {
    udp(6666, 7777)
}

/// Ports and packets of every flow there is.
fn flows(rig: &mut Rig) -> Vec<(u16, u16, u64)> {
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(drained.outcomes(), []);
    let ports = |delta: &FlowDelta| (delta.key.client_port, delta.key.peer_port, delta.packets);
    let mut flows: Vec<_> = drained.deltas().iter().map(ports).collect();
    flows.sort_unstable();
    flows
}

#[test]
fn later_fragments_are_packets_of_the_flow_of_the_first() {
    let mut rig = Rig::new(10, 1 << 16);
    for frame in [v4(1, UDP, MORE, &udp(7, 8)), v4(1, UDP, MORE | 1, &payload()), v4(1, UDP, 2, &payload())] {
        rig.xdp(&frame);
    }
    assert_eq!(flows(&mut rig), [(7, 8, 3)]);
    for frame in [v6(1, 1, &udp(9, 10)), v6(1, 2 << 3 | 1, &payload()), v6(1, 3 << 3, &payload())] {
        rig.xdp(&frame);
    }
    assert_eq!(flows(&mut rig), [(9, 10, 3)]);
    rig.xdp(&v4(2, ICMP, MORE, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]));
    rig.xdp(&v4(2, ICMP, 1, &payload()));
    assert_eq!(flows(&mut rig), [(0x1234, 0x0800, 2)], "an echo request");
}

#[test]
fn a_fragment_that_comes_before_the_first_is_one_of_the_address_pair() {
    let mut rig = Rig::new(10, 1 << 16);
    for frame in [v4(1, UDP, 2, &payload()), v4(1, UDP, MORE, &udp(7, 8)), v4(1, UDP, MORE | 1, &payload())] {
        rig.xdp(&frame);
    }
    assert_eq!(flows(&mut rig), [(0, 0, 1), (7, 8, 2)]);
    for frame in [v6(1, 2 << 3, &payload()), v6(1, 1, &udp(7, 8)), v6(1, 1 << 3 | 1, &payload())] {
        rig.xdp(&frame);
    }
    assert_eq!(flows(&mut rig), [(0, 0, 1), (7, 8, 2)]);
}

/// Type and code are not known then; 0 would be an echo reply.
#[test]
fn a_fragment_of_icmp_without_its_first_is_no_echo_reply() {
    let mut rig = Rig::new(10, 1 << 16);
    rig.xdp(&v4(1, ICMP, 2, &payload()));
    assert_eq!(flows(&mut rig), [(0, hotspot_common::flow::ICMP_NOT_KNOWN, 1)]);
}

#[test]
fn fragments_of_another_datagram_do_not_join() {
    let mut rig = Rig::new(10, 1 << 16);
    rig.xdp(&v4(1, UDP, MORE, &udp(7, 8)));
    let mut elsewhere = ipv4_between([10, 20, 0, 15], SERVER_V4, UDP, &payload());
    elsewhere[7] = 1;
    for frame in [
        v4(2, UDP, 1, &payload()),
        v4(1, UDP_LITE, 1, &payload()),
        v6(1, 1 << 3, &payload()),
        ethernet(&[], 0x0800, &elsewhere),
    ] {
        rig.xdp(&frame);
        assert_eq!(flows(&mut rig).iter().filter(|flow| (flow.0, flow.1) == (0, 0)).count(), 1);
    }
}

#[test]
fn the_first_of_a_new_datagram_counts_where_an_identification_is_used_again() {
    let mut rig = Rig::new(10, 1 << 16);
    for port in [7, 9] {
        rig.xdp(&v4(1, UDP, MORE, &udp(port, 8)));
        rig.xdp(&v4(1, UDP, 1, &payload()));
        assert_eq!(flows(&mut rig), [(port, 8, 2)]);
    }
}

#[test]
fn what_one_hook_saw_of_a_datagram_the_other_knows() {
    let mut rig = Rig::new(10, 1 << 16);
    rig.xdp(&v4(1, UDP, MORE, &udp(7, 8)));
    rig.tc("hotspot_ingress", &v4(1, UDP, 1, &payload()));
    assert_eq!(flows(&mut rig), [(7, 8, 2)]);
}

/// The whole datagram is in the packet, so its header is not a fragment's (RFC 6946).
#[test]
fn an_atomic_fragment_is_no_fragment() {
    let mut rig = Rig::new(10, 1 << 16);
    rig.xdp(&v6(1, 0, &udp(7, 8)));
    rig.xdp(&v6(1, 1 << 3, &payload()));
    assert_eq!(flows(&mut rig), [(0, 0, 1), (7, 8, 1)]);
}

#[test]
fn a_first_fragment_may_hold_no_more_than_the_ports() {
    let mut rig = Rig::new(10, 1 << 16);
    rig.xdp(&v4(1, 6, MORE, &[0x9c, 0x40, 1, 0xbb, 0, 0, 0, 1]));
    assert_eq!(flows(&mut rig), [(40_000, 443, 1)]);
}
