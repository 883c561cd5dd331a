//! Which flow or outcome a frame becomes.

use hotspot_core::fact::FlowDelta;

use crate::rig::{Rig, flow, outcome};
use hotspot_tests::frames::{CLIENT, GATEWAY, ethernet, ipv4, ipv6, tcp, udp};

#[test]
fn a_udp_packet_becomes_its_flow() {
    let mut rig = Rig::new(10, 1 << 16);
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp(5000, 53)))).key;
    assert_eq!(key.client_mac, CLIENT);
    assert_eq!(key.client_ip[10..], [0xff, 0xff, 10, 20, 0, 14]);
    assert_eq!(key.peer_ip[10..], [0xff, 0xff, 203, 0, 113, 7]);
    assert_eq!((key.client_port, key.peer_port, key.protocol, key.origin), (5000, 53, 17, 0));
    assert_eq!((key.vlan, key.inner_vlan), (0, 0));
}

#[test]
fn what_the_client_gets_is_the_other_direction_of_the_same_flow() {
    let mut rig = Rig::new(10, 1 << 16);
    rig.tc("hotspot_egress", &ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp(53, 5000))));
    let drained = rig.drain();
    drained.assert_balanced();
    let key = drained.deltas()[0].key;
    assert_eq!(key.client_mac, GATEWAY, "the destination of this frame");
    assert_eq!(key.client_ip[12..], [203, 0, 113, 7]);
    assert_eq!((key.client_port, key.peer_port, key.origin), (5000, 53, 0x80));
}

#[test]
fn xdp_and_tc_make_the_same_key() {
    let mut rig = Rig::new(10, 1 << 16);
    for frame in [
        ethernet(&[], 0x0800, &ipv4(6, &[], 0, &tcp(2))),
        ethernet(&[100], 0x86dd, &ipv6(17, &udp(1, 2))),
        ethernet(&[100, 200], 0x0800, &ipv4(17, &[1, 1, 1, 1], 0, &udp(1, 2))),
    ] {
        let by_xdp = flow(&mut rig, &frame).key;
        rig.tc("hotspot_ingress", &frame);
        assert_eq!(rig.drain().deltas()[0].key, by_xdp);
    }
}

#[test]
fn ports_lie_behind_options_and_extension_headers() {
    let mut rig = Rig::new(10, 1 << 16);
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(17, &[1; 12], 0, &udp(7, 8)))).key;
    assert_eq!((key.client_port, key.peer_port), (7, 8));
    let mut chain = vec![60, 0, 1, 4, 0, 0, 0, 0];
    chain.extend([51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    chain.extend([44, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    chain.extend([17, 0, 0, 1, 0, 0, 0, 9]);
    chain.extend(udp(9, 10));
    let key = flow(&mut rig, &ethernet(&[], 0x86dd, &ipv6(0, &chain))).key;
    assert_eq!((key.client_port, key.peer_port, key.protocol), (9, 10, 17));
}

#[test]
fn tags_are_part_of_the_key_and_priority_tags_are_none() {
    let mut rig = Rig::new(10, 1 << 16);
    let inner = ipv4(17, &[], 0, &udp(1, 2));
    let tags = |delta: FlowDelta| (delta.key.vlan, delta.key.inner_vlan);
    assert_eq!(tags(flow(&mut rig, &ethernet(&[0xe064], 0x0800, &inner))), (100, 0), "priority bits are no identifier");
    assert_eq!(tags(flow(&mut rig, &ethernet(&[100, 200], 0x0800, &inner))), (100, 200));
    assert_eq!(tags(flow(&mut rig, &ethernet(&[0xe000], 0x0800, &inner))), (0, 0));
    assert_eq!(outcome(&mut rig, &ethernet(&[1, 2, 3], 0x0800, &inner)), "too_many_vlans");
}

#[test]
fn icmp_has_an_identifier_and_a_type() {
    let mut rig = Rig::new(10, 1 << 16);
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(1, &[], 0, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]))).key;
    assert_eq!((key.client_port, key.peer_port), (0x1234, 0x0800));
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(1, &[], 0, &[3, 1, 0, 0, 0x12, 0x34, 0, 1]))).key;
    assert_eq!((key.client_port, key.peer_port), (0, 0x0301));
    let key = flow(&mut rig, &ethernet(&[], 0x86dd, &ipv6(58, &[128, 0, 0, 0, 0x12, 0x34, 0, 1]))).key;
    assert_eq!((key.client_port, key.peer_port), (0x1234, 0x8000));
}

#[test]
fn other_protocols_are_flows_without_ports() {
    let mut rig = Rig::new(10, 1 << 16);
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(47, &[], 0, &[0; 8]))).key;
    assert_eq!((key.client_port, key.peer_port, key.protocol), (0, 0, 47));
}

#[test]
fn every_transport_that_begins_with_ports_has_them() {
    let mut rig = Rig::new(10, 1 << 16);
    for protocol in [6, 17, 33, 132, 136] {
        let payload = [&tcp(0)[..], &[0; 8]].concat();
        let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(protocol, &[], 0, &payload))).key;
        assert_eq!((key.client_port, key.peer_port, key.protocol), (40_000, 443, protocol));
        let key = flow(&mut rig, &ethernet(&[], 0x86dd, &ipv6(protocol, &payload))).key;
        assert_eq!((key.client_port, key.peer_port, key.protocol), (40_000, 443, protocol));
    }
}

#[test]
fn frames_that_are_not_ip_are_counted_by_name() {
    let mut rig = Rig::new(10, 1 << 16);
    for (ethertype, name) in [
        (0x0806, "arp"),
        (0x888e, "eapol"),
        (0x88cc, "lldp"),
        (0x8863, "pppoe"),
        (0x8864, "pppoe"),
        (0x0026, "llc"),
        (0x1234, "other_ethertype"),
    ] {
        assert_eq!(outcome(&mut rig, &ethernet(&[], ethertype, &[0; 46])), name);
    }
}

#[test]
fn bad_headers_are_counted_by_name() {
    let mut rig = Rig::new(10, 1 << 16);
    let good = ipv4(17, &[], 0, &udp(1, 2));
    let with = |position: usize, value: u8| {
        let mut packet = good.clone();
        packet[position] = value;
        ethernet(&[], 0x0800, &packet)
    };
    assert_eq!(outcome(&mut rig, &with(0, 0x55)), "bad_ipv4", "version 5");
    assert_eq!(outcome(&mut rig, &with(0, 0x44)), "bad_ipv4", "header of 16 bytes");
    assert_eq!(outcome(&mut rig, &with(0, 0x4f)), "bad_ipv4", "header longer than the packet");
    assert_eq!(outcome(&mut rig, &with(3, 22)), "truncated_transport", "padding is not ports");
    let mut packet = ipv6(17, &udp(1, 2));
    packet[0] = 0x50;
    assert_eq!(outcome(&mut rig, &ethernet(&[], 0x86dd, &packet)), "bad_ipv6");
    let endless: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
    assert_eq!(outcome(&mut rig, &ethernet(&[], 0x86dd, &ipv6(60, &endless))), "too_many_extensions");
    assert_eq!(outcome(&mut rig, &ethernet(&[], 0x86dd, &ipv6(60, &[17, 9, 0, 0, 0, 0, 0, 0]))), "truncated_extension");
}

/// As a mirror port that cuts packets hands them over.
#[test]
fn a_packet_that_was_cut_is_of_its_flow_as_long_as_it_has_ports() {
    let mut rig = Rig::new(10, 1 << 16);
    let long = [&tcp(2)[..], &[0x5a; 400]].concat();
    for (whole, ports_end) in
        [(ethernet(&[], 0x0800, &ipv4(6, &[1; 8], 0, &long)), 46), (ethernet(&[9], 0x86dd, &ipv6(6, &long)), 62)]
    {
        for len in [ports_end, ports_end + 9, ports_end + 10, 128] {
            let delta = flow(&mut rig, &whole[..len]);
            assert_eq!((delta.key.client_port, delta.key.peer_port), (40_000, 443));
            assert_eq!(delta.tcp_flags, if len < ports_end + 10 { 0 } else { 2 }, "{len} bytes");
        }
        assert_eq!(outcome(&mut rig, &whole[..ports_end - 1]), "truncated_transport");
    }
}

#[test]
fn an_address_that_stands_for_ipv4_is_no_ipv6_address() {
    let mut rig = Rig::new(10, 1 << 16);
    let mut packet = ipv6(17, &udp(1, 2));
    packet[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 20, 0, 14]);
    assert_eq!(outcome(&mut rig, &ethernet(&[], 0x86dd, &packet)), "bad_ipv6", "it would be recorded as 10.20.0.14");
    packet[18] = 0xfe;
    assert_eq!(flow(&mut rig, &ethernet(&[], 0x86dd, &packet)).key.client_ip[10..12], [0xfe, 0xff]);
}
