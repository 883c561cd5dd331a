//! Frames by which devices say who they are: what is copied to the agent, and that nothing else is.

use hotspot_archive::entry::Entry;
use hotspot_core::MacAddr;
use hotspot_core::fact::{DeviceEvent, DeviceFact, DeviceSource};
use hotspot_tests::frames::{
    CLIENT, CLIENT_V6, GATEWAY, SERVER_V4, SERVER_V6, dhcp_message, ethernet, ethernet_between, ipv4, ipv4_between,
    ipv6_between, udp_with,
};

use crate::rig::{Drained, Rig};

const ANYBODY: [u8; 4] = [255; 4];

pub(crate) fn facts(drained: &Drained) -> Vec<DeviceFact> {
    let batches = drained
        .read
        .rings
        .entries()
        .filter_map(|entry| if let Entry::Devices(batch) = entry { Some(batch.facts) } else { None });
    batches.flatten().collect()
}

pub(crate) fn happened(drained: &Drained, label: &str) -> u64 {
    let happenings = &drained.read.done.coverage[0].happenings;
    happenings.iter().find(|(name, _)| name == label).map_or(0, |(_, count)| *count)
}

pub(crate) fn arp(sender: [u8; 6], ip: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1][..], &sender, &ip, &[0; 6], &[10, 20, 0, 1], &[0; 18]].concat()
}

pub(crate) fn request(options: &[u8]) -> Vec<u8> {
    let payload = dhcp_message(3, CLIENT, [0; 4], options);
    ethernet(&[], 0x0800, &ipv4_between([0; 4], ANYBODY, 17, &udp_with(68, 67, &payload)))
}

/// The gateway's lease of 10.20.0.77 for the client, 300 s.
pub(crate) fn acknowledgement() -> Vec<u8> {
    let payload = dhcp_message(5, CLIENT, [10, 20, 0, 77], &[51, 4, 0, 0, 1, 44]);
    let packet = ipv4_between([10, 20, 0, 1], [10, 20, 0, 77], 17, &udp_with(67, 68, &payload));
    ethernet_between(GATEWAY, CLIENT, &[], 0x0800, &packet)
}

/// A neighbour advertisement of the client for its own address.
pub(crate) fn advertisement(hop_limit: u8) -> Vec<u8> {
    let message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &CLIENT_V6, &[2, 1], &CLIENT].concat();
    let mut packet = ipv6_between(CLIENT_V6, SERVER_V6, 58, &message);
    packet[7] = hop_limit;
    ethernet(&[], 0x86dd, &packet)
}

#[test]
fn a_request_is_a_flow_and_a_notice() {
    let mut rig = Rig::new(10, 1 << 16);
    let frame = request(&[12, 5, b'p', b'h', b'o', b'n', b'e']);
    for hook in ["hotspot_xdp", "hotspot_ingress"] {
        rig.at(hook, &frame);
        let drained = rig.drain();
        drained.assert_balanced();
        assert_eq!(drained.deltas().len(), 1, "{hook}");
        assert_eq!((happened(&drained, "noticed"), happened(&drained, "notice_skipped")), (1, 0), "{hook}");
        let found = facts(&drained);
        if hook == "hotspot_xdp" {
            let DeviceEvent::Named(names) = &found[0].event else { panic!("{found:?}") };
            assert_eq!(names.hostname.as_deref(), Some("phone"));
            assert_eq!((found[0].client_mac, found[0].source), (MacAddr(CLIENT), DeviceSource::Dhcp));
        } else {
            assert_eq!(found, [], "said again at once is no news");
        }
    }
}

#[test]
fn a_request_of_every_length_is_copied_up_to_what_a_frame_holds() {
    let mut rig = Rig::new(10, 1 << 16);
    for padding in [0, 1, 200, 1000, 1200] {
        let mut options = vec![12, 2, b'a', b'0' + u8::try_from(padding % 10).unwrap()];
        options.extend(vec![0; padding]);
        rig.xdp(&request(&options));
        let drained = rig.drain();
        drained.assert_balanced();
        assert_eq!(happened(&drained, "noticed"), 1, "padding {padding}");
    }
}

#[test]
fn an_acknowledgement_of_the_gateway_is_a_lease_and_one_of_a_client_is_not() {
    let mut rig = Rig::new(10, 1 << 16);
    let frame = acknowledgement();
    rig.tc("hotspot_egress", &frame);
    let found = facts(&rig.drain());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].event, DeviceEvent::Leased { ip: [10, 20, 0, 77].into(), lease_s: 300 });
    rig.tc("hotspot_ingress", &ethernet(&[], 0x0800, &frame[14..]));
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!((happened(&drained, "noticed"), facts(&drained)), (0, vec![]));
}

#[test]
fn where_addresses_tell_the_sides_leases_count_that_left_by_the_interface_and_no_others() {
    const GUEST: [u8; 6] = [2, 0, 0, 0, 9, 9];
    // As a guest sends it from its own address or one it made up, and as the gateway's server does.
    let acknowledgement = |from: [u8; 6], source: [u8; 4]| {
        let payload = dhcp_message(5, CLIENT, [10, 20, 0, 77], &[51, 4, 0, 0, 1, 44]);
        let packet = ipv4_between(source, [10, 20, 0, 77], 17, &udp_with(67, 68, &payload));
        ethernet_between(from, CLIENT, &[], 0x0800, &packet)
    };
    let sources = [[10, 20, 0, 66], [10, 20, 0, 1], [192, 0, 2, 1]];
    let mut rig = Rig::with(|settings| settings.client_nets = vec!["10.20.0.0/16".parse().unwrap()]);
    // What comes in: from a guest on a bridge, or all there is on a mirror port, the server's own frames too.
    for (hook, source) in
        ["hotspot_xdp", "hotspot_ingress"].into_iter().flat_map(|hook| sources.map(|source| (hook, source)))
    {
        for from in [GUEST, GATEWAY] {
            rig.at(hook, &acknowledgement(from, source));
            let drained = rig.drain();
            drained.assert_balanced();
            assert_eq!((happened(&drained, "noticed"), facts(&drained)), (1, vec![]), "{hook} {source:?}");
        }
    }
    for source in [[10, 20, 0, 1], [192, 0, 2, 1]] {
        let mut rig = Rig::with(|settings| settings.client_nets = vec!["10.20.0.0/16".parse().unwrap()]);
        rig.tc("hotspot_egress", &acknowledgement(GATEWAY, source));
        let found = facts(&rig.drain());
        assert_eq!(found.len(), 1, "{source:?}");
        let leased = DeviceEvent::Leased { ip: [10, 20, 0, 77].into(), lease_s: 300 };
        assert_eq!((found[0].client_mac, &found[0].event), (MacAddr(CLIENT), &leased));
    }
}

#[test]
fn a_guest_that_makes_up_an_address_names_and_releases_nobody_else() {
    // Its source is no client's, so the addresses say that the frame is on its way to the client that it is sent to.
    let mut rig = Rig::with(|settings| settings.client_nets = vec!["10.20.0.0/16".parse().unwrap()]);
    for kind in [3, 7] {
        let payload = dhcp_message(kind, CLIENT, [0; 4], &[12, 1, b'x']);
        let packet = ipv4_between([192, 0, 2, 1], [10, 20, 0, 14], 17, &udp_with(67, 68, &payload));
        rig.tc("hotspot_ingress", &ethernet_between([2, 0, 0, 0, 9, 9], CLIENT, &[], 0x0800, &packet));
        let drained = rig.drain();
        assert_eq!((happened(&drained, "noticed"), facts(&drained)), (1, vec![]), "{kind}");
    }
}

#[test]
fn arp_stays_an_outcome_and_says_who_has_an_address() {
    let mut rig = Rig::new(10, 1 << 16);
    rig.xdp(&ethernet(&[], 0x0806, &arp(CLIENT, [10, 20, 0, 14])));
    rig.xdp(&ethernet(&[100, 7], 0x0806, &arp(CLIENT, [10, 20, 0, 15])));
    // About somebody else, and cut short.
    rig.xdp(&ethernet(&[], 0x0806, &arp([2, 9, 9, 9, 9, 9], [10, 20, 0, 16])));
    rig.xdp(&ethernet(&[], 0x0806, &arp(CLIENT, [10, 20, 0, 17])[..20]));
    rig.tc("hotspot_egress", &ethernet_between(GATEWAY, CLIENT, &[], 0x0806, &arp(GATEWAY, [10, 20, 0, 1])));
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(drained.outcomes(), [("arp".to_owned(), 5)]);
    assert_eq!((happened(&drained, "noticed"), happened(&drained, "notice_refused")), (3, 1));
    let found: Vec<_> = facts(&drained).into_iter().map(|fact| (fact.vlan, fact.inner_vlan, fact.event)).collect();
    let uses = |last| DeviceEvent::Uses { ip: [10, 20, 0, last].into() };
    assert_eq!(found, [(0, 0, uses(14)), (100, 7, uses(15))]);
}

#[test]
fn discovery_from_a_neighbour_says_who_has_an_address() {
    let mut rig = Rig::new(10, 1 << 16);
    rig.tc("hotspot_ingress", &advertisement(255));
    rig.xdp(&advertisement(64));
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(happened(&drained, "noticed"), 1, "no router passes it on, so another hop limit is forged");
    let found = facts(&drained);
    assert_eq!((found[0].source, &found[0].event), (DeviceSource::Nd, &DeviceEvent::Uses { ip: CLIENT_V6.into() }));
}

#[test]
fn what_only_looks_like_them_is_not_copied() {
    let mut rig = Rig::new(10, 1 << 16);
    let message = dhcp_message(3, CLIENT, [0; 4], &[]);
    let mut no_cookie = message.clone();
    no_cookie[236] = 0;
    for payload in [udp_with(68, 5000, &message), udp_with(5000, 67, &message), udp_with(68, 67, &no_cookie)] {
        rig.xdp(&ethernet(&[], 0x0800, &ipv4_between([10, 20, 0, 14], SERVER_V4, 17, &payload)));
    }
    rig.xdp(&ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp_with(53, 53, &message))));
    rig.xdp(&ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp_with(68, 67, &message[..239]))));
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!((happened(&drained, "noticed"), facts(&drained)), (0, vec![]));
    // A later fragment of a request holds no message, though the first one's ports are its own.
    rig.xdp(&ethernet(&[], 0x0800, &ipv4(17, &[], 0x2000, &udp_with(68, 67, &message))));
    rig.drain();
    rig.xdp(&ethernet(&[], 0x0800, &ipv4(17, &[], 0x0020, &message)));
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!((happened(&drained, "noticed"), facts(&drained)), (0, vec![]));
}

#[test]
fn a_device_has_its_share_of_a_generation_and_no_more() {
    let mut rig = Rig::new(10, 1 << 16);
    let frame = ethernet(&[], 0x0806, &arp(CLIENT, [10, 20, 0, 14]));
    rig.xdp_repeat(&frame, 1000);
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!((happened(&drained, "noticed"), happened(&drained, "notice_skipped")), (64, 936));
    rig.xdp(&frame);
    assert_eq!(happened(&rig.drain(), "noticed"), 1, "another generation, another share");
}

#[test]
fn a_full_ring_skips_notices_and_counts_them() {
    let mut rig = Rig::new(10, 1 << 16);
    let sent = 14_000_u32;
    for number in 0..sent {
        let [_, a, b, c] = number.to_be_bytes();
        let mac = [2, 0, 0, a, b, c];
        rig.xdp(&ethernet_between(mac, GATEWAY, &[], 0x0806, &arp(mac, [10, 21, b, c])));
    }
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(drained.outcomes(), [("arp".to_owned(), u64::from(sent))]);
    let (noticed, skipped) = (happened(&drained, "noticed"), happened(&drained, "notice_skipped"));
    assert_eq!(noticed + skipped, u64::from(sent));
    assert!(skipped > 0, "{noticed} noticed");
    assert_eq!(facts(&drained).len() as u64, noticed);
}
