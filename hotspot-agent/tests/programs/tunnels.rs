//! Frames in frames: `PPPoE` always, VXLAN and Ethernet in GRE where `--decapsulate` asks for the clients inside.

use std::net::IpAddr;

use hotspot_common::FlowKey;
use hotspot_core::MacAddr;
use hotspot_core::fact::{DeviceEvent, DeviceFact};
use hotspot_tests::frames::{CLIENT, CLIENT_V6, GATEWAY, ethernet, ethernet_between, ipv4, ipv6, udp};

use crate::notices::{acknowledgement, advertisement, arp, facts, happened, request};
use crate::rig::{Rig, flow, outcome};

const ACCESS_POINT: [u8; 6] = [0x02, 0, 0, 0, 1, 1];
const CONTROLLER: [u8; 6] = [0x02, 0, 0, 0, 1, 2];
const GRE: u8 = 47;
const UDP: u8 = 17;
const VXLAN: u16 = 4789;

fn decapsulating() -> Rig {
    Rig::with(|settings| settings.decapsulate = true)
}

fn pppoe(protocol: u16, packet: &[u8]) -> Vec<u8> {
    let mut session = vec![0x11, 0, 0x12, 0x34];
    session.extend(u16::try_from(2 + packet.len()).unwrap().to_be_bytes());
    session.extend(protocol.to_be_bytes());
    session.extend(packet);
    ethernet(&[7], 0x8864, &session)
}

/// From the access point to the controller.
fn outer(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    ethernet_between(ACCESS_POINT, CONTROLLER, tags, ethertype, packet)
}

fn vxlan(port: u16, inner: &[u8]) -> Vec<u8> {
    let mut datagram = 50_000u16.to_be_bytes().to_vec();
    datagram.extend(port.to_be_bytes());
    datagram.extend(u16::try_from(16 + inner.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0, 0x08, 0, 0, 0, 0, 0, 42, 0]);
    datagram.extend(inner);
    datagram
}

fn gre(flags: u16, protocol: u16, inner: &[u8]) -> Vec<u8> {
    let options = [0x8000, 0x2000, 0x1000].iter().filter(|flag| flags & **flag != 0).count() * 4;
    let mut packet = flags.to_be_bytes().to_vec();
    packet.extend(protocol.to_be_bytes());
    packet.extend(vec![0xee; options]);
    packet.extend(inner);
    packet
}

/// What every tunnel carries in these tests.
fn inner() -> Vec<u8> {
    ethernet(&[300], 0x0800, &ipv4(UDP, &[], 0, &udp(5000, 53)))
}

fn assert_inner(key: FlowKey) {
    assert_eq!((key.client_mac, key.vlan, key.protocol), (CLIENT, 300, UDP));
    assert_eq!((key.client_port, key.peer_port), (5000, 53));
    assert_eq!(key.client_ip[12..], [10, 20, 0, 14]);
}

#[test]
fn a_pppoe_session_is_seen_through() {
    let mut rig = Rig::new(10, 1 << 16);
    let key = flow(&mut rig, &pppoe(0x0021, &ipv4(UDP, &[], 0, &udp(5000, 53)))).key;
    assert_eq!((key.client_mac, key.vlan, key.client_port, key.peer_port), (CLIENT, 7, 5000, 53));
    let key = flow(&mut rig, &pppoe(0x0057, &ipv6(UDP, &udp(5000, 53)))).key;
    assert_eq!((key.client_ip[..2].to_vec(), key.client_port, key.peer_port), (vec![0x20, 0x01], 5000, 53));
}

/// RFC 1661 §6.5: the first byte of the protocol, which is 0, may be left out.
#[test]
fn a_compressed_protocol_field_is_read() {
    let mut rig = Rig::new(10, 1 << 16);
    for (protocol, packet) in [(0x21, ipv4(UDP, &[], 0, &udp(5000, 53))), (0x57, ipv6(UDP, &udp(5000, 53)))] {
        let mut frame = pppoe(protocol, &packet);
        frame.remove(24);
        let key = flow(&mut rig, &frame).key;
        assert_eq!((key.vlan, key.client_port, key.peer_port), (7, 5000, 53));
    }
}

#[test]
fn the_rest_of_pppoe_is_an_outcome() {
    let mut rig = Rig::new(10, 1 << 16);
    assert_eq!(outcome(&mut rig, &pppoe(0xc021, &[1, 1, 0, 4])), "pppoe", "LCP");
    assert_eq!(outcome(&mut rig, &pppoe(0x8021, &[1, 1, 0, 4])), "pppoe", "IPCP");
    let mut discovery = pppoe(0x0021, &ipv4(UDP, &[], 0, &udp(5000, 53)));
    discovery[19] = 0x09;
    assert_eq!(outcome(&mut rig, &discovery), "pppoe", "a code that is not data");
    assert_eq!(outcome(&mut rig, &pppoe(0x0021, &[])), "bad_ipv4");
}

#[test]
fn a_tunnel_is_a_flow_of_its_ends() {
    let mut rig = Rig::new(10, 1 << 16);
    let key = flow(&mut rig, &outer(&[], &ipv4(UDP, &[], 0, &vxlan(VXLAN, &inner())))).key;
    assert_eq!((key.client_mac, key.vlan, key.protocol), (ACCESS_POINT, 0, UDP));
    assert_eq!((key.client_port, key.peer_port), (50_000, VXLAN));
    let key = flow(&mut rig, &outer(&[], &ipv4(GRE, &[], 0, &gre(0, 0x6558, &inner())))).key;
    assert_eq!((key.client_mac, key.protocol, key.client_port, key.peer_port), (ACCESS_POINT, GRE, 0, 0));
}

#[test]
fn vxlan_is_opened() {
    let mut rig = decapsulating();
    for packet in [
        ipv4(UDP, &[], 0, &vxlan(VXLAN, &inner())),
        ipv4(UDP, &[1; 8], 0, &vxlan(8472, &inner())),
        ipv6(UDP, &vxlan(VXLAN, &inner())),
    ] {
        assert_inner(flow(&mut rig, &outer(&[100, 200], &packet)).key);
    }
}

#[test]
fn ethernet_in_gre_is_opened() {
    let mut rig = decapsulating();
    for flags in [0, 0x2000, 0x3000, 0xb000] {
        assert_inner(flow(&mut rig, &outer(&[], &ipv4(GRE, &[], 0, &gre(flags, 0x6558, &inner())))).key);
        assert_inner(flow(&mut rig, &outer(&[], &ipv6(GRE, &gre(flags, 0x6558, &inner())))).key);
    }
}

#[test]
fn a_lease_is_seen_in_a_tunnel_too() {
    for is_gre in [false, true] {
        let mut rig = decapsulating();
        let inner = acknowledgement();
        let (protocol, tunnel) = if is_gre { (GRE, gre(0x2000, 0x6558, &inner)) } else { (UDP, vxlan(VXLAN, &inner)) };
        let frame = ethernet_between(CONTROLLER, ACCESS_POINT, &[], 0x0800, &ipv4(protocol, &[], 0, &tunnel));
        rig.tc("hotspot_egress", &frame);
        let drained = rig.drain();
        drained.assert_balanced();
        let found = facts(&drained);
        assert_eq!(found.len(), 1, "GRE {is_gre}");
        assert_eq!(found[0].event, DeviceEvent::Leased { ip: [10, 20, 0, 77].into(), lease_s: 300 });
        assert_eq!(found[0].client_mac, MacAddr(CLIENT));
    }
}

#[test]
fn devices_say_who_they_are_in_a_tunnel_too() {
    let said = [
        request(&[12, 5, b'p', b'h', b'o', b'n', b'e']),
        ethernet(&[], 0x0806, &arp(CLIENT, [10, 20, 0, 14])),
        advertisement(255),
    ];
    for hook in ["hotspot_xdp", "hotspot_ingress"] {
        for is_gre in [false, true] {
            let mut rig = decapsulating();
            for inner in &said {
                let (protocol, tunnel) =
                    if is_gre { (GRE, gre(0x2000, 0x6558, inner)) } else { (UDP, vxlan(VXLAN, inner)) };
                rig.at(hook, &outer(&[100], &ipv4(protocol, &[], 0, &tunnel)));
            }
            let drained = rig.drain();
            drained.assert_balanced();
            assert_eq!(happened(&drained, "noticed"), 3, "{hook}, GRE {is_gre}");
            let found = facts(&drained);
            assert!(found.iter().all(|fact| (fact.client_mac, fact.vlan) == (MacAddr(CLIENT), 0)), "{found:?}");
            let [DeviceFact { event: DeviceEvent::Named(names), .. }, uses @ ..] = &found[..] else {
                panic!("{found:?}")
            };
            assert_eq!(names.hostname.as_deref(), Some("phone"));
            let uses: Vec<_> = uses.iter().map(|fact| fact.event.clone()).collect();
            let ips = [IpAddr::from([10, 20, 0, 14]), IpAddr::from(CLIENT_V6)];
            assert_eq!(uses, ips.map(|ip| DeviceEvent::Uses { ip }));
        }
    }
}

#[test]
fn what_goes_to_the_client_is_found_in_the_tunnel_too() {
    let mut rig = decapsulating();
    let inner = ethernet_between(GATEWAY, CLIENT, &[], 0x0800, &ipv4(UDP, &[], 0, &udp(53, 5000)));
    rig.tc("hotspot_egress", &outer(&[], &ipv4(UDP, &[], 0, &vxlan(VXLAN, &inner))));
    let key = rig.drain().deltas()[0].key;
    assert_eq!((key.client_mac, key.client_port, key.peer_port, key.origin), (CLIENT, 5000, 53, 0x80));
}

#[test]
fn an_inner_frame_that_is_no_flow_is_counted_by_name() {
    let mut rig = decapsulating();
    let mut tunnelled = |inner: &[u8]| outcome(&mut rig, &outer(&[], &ipv4(UDP, &[], 0, &vxlan(VXLAN, inner))));
    assert_eq!(tunnelled(&ethernet(&[], 0x0806, &[0; 28])), "arp");
    assert_eq!(tunnelled(&[0; 13]), "runt");
    assert_eq!(tunnelled(&[]), "runt");
    assert_eq!(tunnelled(&inner()[..30]), "bad_ipv4");
    assert_eq!(tunnelled(&inner()[..40]), "truncated_transport");
}

#[test]
fn what_only_resembles_a_tunnel_is_a_flow_of_its_ends() {
    let mut rig = decapsulating();
    let mut without_flag = vxlan(VXLAN, &inner());
    without_flag[8] = 0;
    for packet in [
        ipv4(UDP, &[], 0, &vxlan(5353, &inner())),
        ipv4(UDP, &[], 0, &without_flag),
        ipv4(UDP, &[], 0x2000, &vxlan(VXLAN, &inner())),
        ipv4(GRE, &[], 0, &gre(0, 0x0800, &inner())),
        ipv4(GRE, &[], 0, &gre(0x2001, 0x6558, &inner())),
        ipv4(GRE, &[], 0, &[0, 0]),
    ] {
        let key = flow(&mut rig, &outer(&[], &packet)).key;
        assert_eq!(key.client_mac, ACCESS_POINT);
    }
    // Frames that are in no tunnel at all.
    assert_inner(flow(&mut rig, &inner()).key);
    assert_eq!(outcome(&mut rig, &ethernet(&[], 0x0806, &[0; 28])), "arp");
}
