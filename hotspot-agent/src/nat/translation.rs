//! What a conntrack message says about translations.
//!
//! A connection may be translated at either end. Where its source is, somebody inside began it, and is seen outside as the destination of
//! the replies. Where its destination is (a forwarded port, `UPnP`, a connection that a helper expected), somebody inside was reached by
//! what the original was sent to. Where both are, there are two translations.

use hotspot_core::WallNs;
use hotspot_core::fact::{NatEvent, NatFact};

use super::message::Message;

/// How far the kernel's times may be from that of reading: further off, the clock was set in between.
const AGE_MAX_NS: WallNs = 60 * 1_000_000_000;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A translation that a dump found, and when it began where that is known.
pub(super) struct Found {
    pub(super) fact: NatFact,
    pub(super) began: Option<NatFact>,
}

/// What an event says about translations.
pub(super) fn event(message: &Message, now_ns: WallNs) -> impl Iterator<Item = NatFact> + use<> {
    let told_ns = if message.is_destroyed { message.ended_ns } else { message.began_ns };
    let at_ns = message.happened_ns.or(told_ns).filter(|at_ns| (now_ns - at_ns).abs() <= AGE_MAX_NS).unwrap_or(now_ns);
    let event = if message.is_destroyed { NatEvent::Destroyed } else { NatEvent::Created };
    translations(message, event, at_ns)
}

/// What a dump from `now_ns` on says.
pub(super) fn found(message: &Message, now_ns: WallNs) -> impl Iterator<Item = Found> + use<> {
    let began_ns = message.began_ns.filter(|began_ns| *began_ns < now_ns);
    translations(message, NatEvent::Found, now_ns).map(move |fact| {
        let began = began_ns.map(|at_ns| NatFact { event: NatEvent::Created, at_ns, ..fact });
        Found { fact, began }
    })
}

fn translations(message: &Message, event: NatEvent, at_ns: WallNs) -> impl Iterator<Item = NatFact> + use<> {
    [of_source(message, event, at_ns), of_destination(message, event, at_ns)].into_iter().flatten()
}

fn of_source(message: &Message, event: NatEvent, at_ns: WallNs) -> Option<NatFact> {
    let (original, reply) = (&message.original, &message.reply);
    let is_translated = original.source != reply.destination || original.source_port != reply.destination_port;
    is_translated.then_some(NatFact {
        event,
        at_ns,
        protocol: original.protocol,
        client_ip: original.source,
        client_port: original.source_port,
        peer_ip: original.destination,
        peer_port: original.destination_port,
        public_ip: reply.destination,
        public_port: reply.destination_port,
    })
}

fn of_destination(message: &Message, event: NatEvent, at_ns: WallNs) -> Option<NatFact> {
    let (original, reply) = (&message.original, &message.reply);
    let is_translated = original.destination != reply.source || original.destination_port != reply.source_port;
    // The identifier of a query stands for the client's port, whoever asked.
    let is_query = matches!(original.protocol, ICMP | ICMPV6);
    let (client_port, peer_port, public_port) = if is_query {
        (reply.destination_port, 0, original.source_port)
    } else {
        (reply.source_port, reply.destination_port, original.destination_port)
    };
    is_translated.then_some(NatFact {
        event,
        at_ns,
        protocol: original.protocol,
        client_ip: reply.source,
        client_port,
        peer_ip: reply.destination,
        peer_port,
        public_ip: original.destination,
        public_port,
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::message::Tuple;
    use super::*;

    fn side(protocol: u8, source: (&str, u16), destination: (&str, u16)) -> Tuple {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        Tuple {
            source: ip(source.0),
            destination: ip(destination.0),
            protocol,
            source_port: source.1,
            destination_port: destination.1,
        }
    }

    /// Client, peer and public endpoint of each translation.
    fn told(original: Tuple, reply: Tuple) -> Vec<[(String, u16); 3]> {
        let message =
            Message { is_destroyed: false, original, reply, began_ns: None, ended_ns: None, happened_ns: None };
        let endpoints = |fact: NatFact| {
            [(fact.client_ip, fact.client_port), (fact.peer_ip, fact.peer_port), (fact.public_ip, fact.public_port)]
                .map(|(ip, port)| (ip.to_string(), port))
        };
        event(&message, 1).map(endpoints).collect()
    }

    fn endpoints(all: [(&str, u16); 3]) -> [(String, u16); 3] {
        all.map(|(ip, port)| (ip.to_owned(), port))
    }

    #[test]
    fn what_is_not_translated_is_none() {
        let (client, peer) = (("10.0.0.5", 1000), ("198.51.100.1", 80));
        assert_eq!(told(side(6, client, peer), side(6, peer, client)), Vec::<[(String, u16); 3]>::new());
    }

    #[test]
    fn who_is_reached_by_a_forwarded_port_is_the_client() {
        for (inside, public, outside) in [
            (("10.0.0.5", 80), ("203.0.113.7", 8080), ("198.51.100.1", 40_000)),
            (("2001:db8::5", 22), ("2001:db8:1::7", 2222), ("2001:db8:2::1", 40_000)),
        ] {
            for protocol in [6, 17] {
                let found = told(side(protocol, outside, public), side(protocol, inside, outside));
                assert_eq!(found, [endpoints([inside, outside, public])]);
            }
        }
    }

    #[test]
    fn a_forwarded_query_has_its_identifier_on_the_client_s_side() {
        let found =
            told(side(ICMP, ("198.51.100.1", 7), ("203.0.113.7", 0)), side(ICMP, ("10.0.0.5", 0), ("198.51.100.1", 7)));
        assert_eq!(found, [endpoints([("10.0.0.5", 7), ("198.51.100.1", 0), ("203.0.113.7", 7)])]);
    }

    #[test]
    fn a_hairpin_is_two_translations() {
        let (asks, serves) = (("10.0.0.5", 1000), ("10.0.0.9", 80));
        let (public, gateway) = (("203.0.113.7", 8080), ("10.0.0.1", 2000));
        let found = told(side(6, asks, public), side(6, serves, gateway));
        assert_eq!(found, [endpoints([asks, public, gateway]), endpoints([serves, gateway, public])]);
    }
}
