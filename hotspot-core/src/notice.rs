//! From a notice, as the kernel copied it, to the facts it holds about a device.
//!
//! What a device says counts about itself only: its own Ethernet address must be in the message. What a server says counts where it
//! comes from the gateway's side.

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
/// `servers_are_clients`: the frames are a mirror port's, where a server's replies come in like everything else.
pub fn facts(header: &NoticeHeader, payload: &[u8], at_ns: WallNs, servers_are_clients: bool) -> Result<Said, Refused> {
    let sender = MacAddr(header.client_mac);
    let direction = FlowKey { origin: header.origin, ..FlowKey::default() }.direction();
    let of_server = direction == Direction::In || servers_are_clients;
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
            if of_client && (message.client_mac != sender || !message.relay_ip.is_unspecified()) {
                return Err(Refused::AboutAnother);
            }
            let facts = event.into_iter().map(|event| fact(DeviceSource::Dhcp, message.client_mac, event)).collect();
            Ok(Said { facts, odd: message.odd })
        }
        NoticeKind::Dhcpv6 => {
            let Some(message) = dhcpv6::parse(payload)? else { return Ok(Said::default()) };
            // The message names no Ethernet address; on a mirror port the reply's frame is the server's.
            if direction == Direction::Out && message.kind == dhcpv6::MessageType::Reply {
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
        let found = facts(&header(kind, mac, direction), payload, 5, false)?.facts;
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
    fn the_gateways_own_arp_says_nothing_about_a_device() {
        let packet = arp_packet(MAC, [10, 0, 0, 1]);
        let uses = DeviceEvent::Uses { ip: [10, 0, 0, 1].into() };
        assert_eq!(events(NoticeKind::Arp, MAC, Direction::Out, &packet), Ok(vec![uses]));
        assert_eq!(events(NoticeKind::Arp, MAC, Direction::In, &packet), Ok(vec![]));
    }
}
