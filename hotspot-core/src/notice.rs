//! From a notice, as the kernel copied it, to the facts it holds about a device.
//!
//! What a device says counts about itself only: its own Ethernet address must be in the message. What a server says counts where it
//! comes from the gateway's side, which the hook tells and no address: whoever is among the clients can write any. On a mirror port all
//! frames come in, so leases there are evidence of nothing.

use std::net::{IpAddr, Ipv6Addr};

use hotspot_common::{Direction, FlowKey, NoticeHeader, NoticeKind};

use crate::dhcp::{self, MessageType};
use crate::dhcpv6;
use crate::fact::{DeviceEvent, DeviceFact, DeviceNames, DeviceSource};
use crate::neighbour;
use crate::text::{escaped, hex};
use crate::{MacAddr, WallNs};

/// Why a notice says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Dhcp(#[from] dhcp::Refused),
    #[error(transparent)]
    Neighbour(#[from] neighbour::Refused),
    #[error("about another device than the one that sent it")]
    AboutAnother,
    #[error("a kind of notice that nobody writes")]
    Unknown,
}

/// What a notice says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub facts: Vec<DeviceFact>,
    /// Names of the fields that did not keep to their format, and cost themselves.
    pub odd: Vec<&'static str>,
}

/// What is said in a notice that was seen at `at_ns`.
///
/// `sides_by_address`: the direction in the header is what the addresses say (`--client-net`), and not what the hook does.
pub fn facts(header: &NoticeHeader, payload: &[u8], at_ns: WallNs, sides_by_address: bool) -> Result<Said, Refused> {
    let sender = MacAddr(header.client_mac);
    let direction = FlowKey { origin: header.origin, ..FlowKey::default() }.direction();
    let of_server = header.has_left == 1 || (direction == Direction::In && !sides_by_address);
    // Where addresses tell the sides, the Ethernet address of what comes in is the receiver's: it would be spoken for.
    let of_sender = direction == Direction::Out;
    let fact = |source, client_mac, event| DeviceFact {
        at_ns,
        client_mac,
        vlan: header.vlan,
        inner_vlan: header.inner_vlan,
        source,
        event,
    };
    let uses = |source, ip: Option<IpAddr>| {
        let facts = ip.map(|ip| fact(source, sender, DeviceEvent::Uses { ip })).into_iter().collect();
        Said { facts, odd: Vec::new() }
    };
    match NoticeKind::from_raw(header.kind).ok_or(Refused::Unknown)? {
        NoticeKind::Arp if direction == Direction::Out => Ok(uses(DeviceSource::Arp, neighbour::arp(payload, sender)?)),
        NoticeKind::NeighbourDiscovery if direction == Direction::Out => {
            let source = Ipv6Addr::from(header.client_ip);
            Ok(uses(DeviceSource::Nd, neighbour::discovery(payload, sender, source)?))
        }
        // What the gateway says of itself is nothing about a device.
        NoticeKind::Arp | NoticeKind::NeighbourDiscovery => Ok(Said::default()),
        NoticeKind::Dhcp => {
            let message = dhcp::parse(payload)?;
            let event = dhcp_event(&message, of_server);
            let of_client = !matches!(message.kind, MessageType::Offer | MessageType::Ack | MessageType::Nak);
            // Behind a relay agent among the clients are other networks, whose devices' own frames never come here.
            if of_client && (!of_sender || message.client_mac != sender || !message.relay_ip.is_unspecified()) {
                return Err(Refused::AboutAnother);
            }
            let facts = event.into_iter().map(|event| fact(DeviceSource::Dhcp, message.client_mac, event)).collect();
            Ok(Said { facts, odd: message.odd })
        }
        NoticeKind::Dhcpv6 => {
            let Some(message) = dhcpv6::parse(payload)? else { return Ok(Said::default()) };
            // The message names no Ethernet address: that of the frame must be the client's.
            let of_client = !matches!(message.kind, dhcpv6::MessageType::Reply | dhcpv6::MessageType::Advertise);
            if of_client && !of_sender {
                return Err(Refused::AboutAnother);
            }
            if !of_client && (of_sender || !of_server) {
                return Ok(Said::default());
            }
            let odd = message.odd.clone();
            let events = dhcpv6_events(message).into_iter();
            Ok(Said { facts: events.map(|event| fact(DeviceSource::Dhcpv6, sender, event)).collect(), odd })
        }
    }
}

fn dhcp_event(message: &dhcp::Message, of_server: bool) -> Option<DeviceEvent> {
    match message.kind {
        MessageType::Discover | MessageType::Request | MessageType::Inform => {
            let name = message.hostname.as_deref().or(message.fqdn.as_deref());
            let names = DeviceNames {
                hostname: name.map(escaped),
                vendor_class: message.vendor_class.as_deref().map(escaped),
                dhcp_fingerprint: message
                    .parameters
                    .as_deref()
                    .map(|codes| codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
                client_id: message.client_id.as_deref().map(hex),
            };
            (names != DeviceNames::default()).then_some(DeviceEvent::Named(names))
        }
        // Without a lease time it answers an Inform, and gives nothing.
        MessageType::Ack if of_server && !message.your_ip.is_unspecified() => {
            message.lease_s.map(|lease_s| DeviceEvent::Leased { ip: message.your_ip.into(), lease_s })
        }
        MessageType::Release if !message.client_ip.is_unspecified() => {
            Some(DeviceEvent::Released { ip: message.client_ip.into() })
        }
        MessageType::Decline => message.requested_ip.map(|ip| DeviceEvent::Released { ip: ip.into() }),
        MessageType::Offer | MessageType::Ack | MessageType::Nak | MessageType::Release | MessageType::Other(_) => None,
    }
}

fn dhcpv6_events(message: dhcpv6::Message) -> Vec<DeviceEvent> {
    match message.kind {
        dhcpv6::MessageType::Asks => {
            let names = DeviceNames {
                hostname: message.fqdn.as_deref().map(escaped),
                vendor_class: message.vendor_class.as_deref().map(escaped),
                dhcp_fingerprint: None,
                client_id: message.client_id.as_deref().map(hex),
            };
            if names == DeviceNames::default() { Vec::new() } else { vec![DeviceEvent::Named(names)] }
        }
        dhcpv6::MessageType::Reply => {
            // An address with no time left is taken back (RFC 8415 §18.3.4).
            let event = |lease: dhcpv6::Lease| match lease.valid_s {
                0 => DeviceEvent::Released { ip: lease.ip.into() },
                lease_s => DeviceEvent::Leased { ip: lease.ip.into(), lease_s },
            };
            message.leases.into_iter().map(event).collect()
        }
        dhcpv6::MessageType::Release | dhcpv6::MessageType::Decline => {
            message.leases.into_iter().map(|lease| DeviceEvent::Released { ip: lease.ip.into() }).collect()
        }
        dhcpv6::MessageType::Advertise => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::tests::message;
    use crate::neighbour::tests::arp_packet;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn header(kind: NoticeKind, mac: MacAddr, direction: Direction) -> NoticeHeader {
        NoticeHeader {
            client_mac: mac.0,
            kind: kind as u8,
            origin: FlowKey::origin(0, direction),
            ..NoticeHeader::default()
        }
    }

    fn events(
        kind: NoticeKind,
        mac: MacAddr,
        direction: Direction,
        payload: &[u8],
    ) -> Result<Vec<DeviceEvent>, Refused> {
        let has_left = u8::from(direction == Direction::In);
        let found = facts(&NoticeHeader { has_left, ..header(kind, mac, direction) }, payload, 5, false)?.facts;
        assert!(found.iter().all(|fact| fact.at_ns == 5 && fact.client_mac == MAC));
        Ok(found.into_iter().map(|fact| fact.event).collect())
    }

    #[test]
    fn a_clients_request_names_it() {
        let names = DeviceNames {
            hostname: Some("tv\\xff".into()),
            dhcp_fingerprint: Some("1,121,3".into()),
            ..DeviceNames::default()
        };
        let request = message(3, &[12, 3, b't', b'v', 0xff, 55, 3, 1, 121, 3]);
        assert_eq!(events(NoticeKind::Dhcp, MAC, Direction::Out, &request), Ok(vec![DeviceEvent::Named(names)]));
        let other = MacAddr([2, 0, 0, 0, 0, 9]);
        let forged = events(NoticeKind::Dhcp, other, Direction::Out, &request);
        assert_eq!(forged, Err(Refused::AboutAnother), "nobody names another device");
    }

    #[test]
    fn only_the_gateways_side_grants_a_lease() {
        let mut ack = message(5, &[51, 4, 0, 0, 0x0e, 0x10]);
        ack[16..20].copy_from_slice(&[10, 0, 0, 7]);
        let leased = DeviceEvent::Leased { ip: [10, 0, 0, 7].into(), lease_s: 3600 };
        let broadcast = MacAddr([0xff; 6]);
        assert_eq!(events(NoticeKind::Dhcp, broadcast, Direction::In, &ack), Ok(vec![leased]));
        assert_eq!(events(NoticeKind::Dhcp, broadcast, Direction::Out, &ack), Ok(vec![]), "a rogue server");
    }

    #[test]
    fn where_addresses_tell_the_sides_only_what_left_by_the_interface_grants_a_lease() {
        let mut ack = message(5, &[51, 4, 0, 0, 0x0e, 0x10]);
        ack[16..20].copy_from_slice(&[10, 0, 0, 7]);
        let leases = |direction, has_left, sides_by_address| {
            let header = NoticeHeader { has_left, ..header(NoticeKind::Dhcp, MacAddr([0xff; 6]), direction) };
            facts(&header, &ack, 5, sides_by_address).unwrap().facts.len()
        };
        // A guest's own address, one it made up, and the gateway's server.
        assert_eq!(
            [leases(Direction::Out, 0, true), leases(Direction::In, 0, true), leases(Direction::In, 1, true)],
            [0, 0, 1]
        );
        assert_eq!(leases(Direction::Out, 1, true), 1, "the server's own address is one of the clients' network");
        assert_eq!(leases(Direction::In, 0, false), 1, "programs of before the flag");
    }

    #[test]
    fn nobody_speaks_for_the_receiver_of_a_frame() {
        for sides_by_address in [false, true] {
            let received = |kind, payload: &[u8]| {
                facts(&header(kind, MAC, Direction::In), payload, 5, sides_by_address).map(|said| said.facts.len())
            };
            for kind in [1, 3, 4, 7, 8] {
                let named = message(kind, &[12, 1, b'x', 50, 4, 10, 0, 0, 7]);
                assert_eq!(received(NoticeKind::Dhcp, &named), Err(Refused::AboutAnother), "{kind}");
            }
            // Solicit, Release and Decline (RFC 8415 §7.3) with a client identifier.
            for kind in [1, 8, 9] {
                let named = [&[kind, 0, 0, 1][..], &[0, 1, 0, 10, 0, 3, 0, 1], &MAC.0].concat();
                assert_eq!(received(NoticeKind::Dhcpv6, &named), Err(Refused::AboutAnother), "{kind}");
            }
        }
    }

    #[test]
    fn the_gateways_own_arp_says_nothing_about_a_device() {
        let packet = arp_packet(MAC, [10, 0, 0, 1]);
        let uses = DeviceEvent::Uses { ip: [10, 0, 0, 1].into() };
        assert_eq!(events(NoticeKind::Arp, MAC, Direction::Out, &packet), Ok(vec![uses]));
        assert_eq!(events(NoticeKind::Arp, MAC, Direction::In, &packet), Ok(vec![]));
    }
}
