//! The filter language: words nfdump and tcpdump users know, over flows.
//!
//! `user X` · `mac X` · `ip X` (client, peer or public) · `net CIDR` · `src ip X` and `dst ip X` (the client is src) · `port N` ·
//! `src port N` · `dst port N` · `proto tcp` · `public ip X [port P]` · `vlan N` · `and`, `or`, `not`, parentheses.

mod lexer;
mod parser;

use std::net::IpAddr;

use hotspot_core::MacAddr;
use hotspot_core::record::FlowRecord;
use ipnet::IpNet;

pub use parser::parse;

/// What is wrong with a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}\n  {text}\n  {caret:>width$}", caret = '^', width = at + 1)]
pub struct FilterError {
    pub what: String,
    pub text: String,
    /// Characters before the place.
    pub at: usize,
}

/// Which end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
    Either,
}

/// A parsed filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Everything,
    User(String),
    Mac(MacAddr),
    Ip(Side, IpAddr),
    Net(Side, IpNet),
    Port(Side, u16),
    Protocol(u8),
    /// The address after translation; a flow that is not translated has its own.
    Public(IpAddr, Option<u16>),
    Vlan(u16),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
}

impl Filter {
    /// Whether a flow is asked for.
    #[must_use]
    pub fn matches(&self, flow: &FlowRecord) -> bool {
        match self {
            Self::Everything => true,
            Self::User(user) => users(flow).any(|found| found == user),
            Self::Mac(mac) => flow.client_mac == *mac,
            Self::Ip(side, ip) => addresses(flow, *side).any(|found| found == *ip),
            Self::Net(side, net) => addresses(flow, *side).any(|found| net.contains(&found)),
            Self::Port(side, port) => ports(flow, *side).any(|found| found == *port),
            Self::Protocol(protocol) => flow.protocol == Some(*protocol),
            Self::Public(ip, port) => is_public(flow, *ip, *port),
            Self::Vlan(vlan) => flow.vlan == Some(*vlan) || flow.inner_vlan == Some(*vlan),
            Self::And(left, right) => left.matches(flow) && right.matches(flow),
            Self::Or(left, right) => left.matches(flow) || right.matches(flow),
            Self::Not(inner) => !inner.matches(flow),
        }
    }

    /// Whether a flow could match whose client MAC lies between two.
    #[must_use]
    pub fn may_match_mac(&self, least: MacAddr, greatest: MacAddr) -> bool {
        match self {
            Self::Mac(mac) => (least..=greatest).contains(mac),
            Self::And(left, right) => left.may_match_mac(least, greatest) && right.may_match_mac(least, greatest),
            Self::Or(left, right) => left.may_match_mac(least, greatest) || right.may_match_mac(least, greatest),
            Self::Everything
            | Self::User(_)
            | Self::Ip(..)
            | Self::Net(..)
            | Self::Port(..)
            | Self::Protocol(_)
            | Self::Public(..)
            | Self::Vlan(_)
            | Self::Not(_) => true,
        }
    }
}

/// The users a flow names: several where it is ambiguous or in conflict.
fn users(flow: &FlowRecord) -> impl Iterator<Item = &str> {
    let name = flow.identity.as_deref().and_then(|identity| identity.user.as_deref()).unwrap_or_default();
    let is_list = flow.attribution.lists_claimants();
    name.split(move |c| is_list && c == ',').map(move |part| if is_list { part.trim() } else { part })
}

fn addresses(flow: &FlowRecord, side: Side) -> impl Iterator<Item = IpAddr> {
    let client = (side != Side::Destination).then_some(flow.client_ip);
    let public = (side != Side::Destination).then_some(flow.public).flatten().map(|public| public.ip);
    let peer = (side != Side::Source).then_some(flow.peer_ip).flatten();
    [client, public, peer].into_iter().flatten()
}

fn ports(flow: &FlowRecord, side: Side) -> impl Iterator<Item = u16> {
    let client = (side != Side::Destination).then_some(flow.client_port).flatten();
    let public = (side != Side::Destination).then_some(flow.public).flatten().and_then(|public| public.port);
    let peer = (side != Side::Source).then_some(flow.peer_port).flatten();
    [client, public, peer].into_iter().flatten()
}

fn is_public(flow: &FlowRecord, ip: IpAddr, port: Option<u16>) -> bool {
    let (found, found_port) = match flow.public {
        Some(public) => (public.ip, public.port),
        None => (flow.client_ip, flow.client_port),
    };
    found == ip && port.is_none_or(|port| found_port == Some(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(text: &str) -> bool {
        parse(text).unwrap().matches(&crate::segment::tests::flow(2))
    }

    #[test]
    fn every_word_finds_its_column() {
        for text in [
            "",
            "user 0912345678",
            "mac 02-00-00-00-00-01",
            "ip 10.20.0.14",
            "ip 203.0.113.7",
            "ip 198.51.100.1",
            "src ip 10.20.0.14 and dst ip 198.51.100.1",
            "net 198.51.100.0/24",
            "port 443 or port 1",
            "dst port 443",
            "src port 45678",
            "proto tcp",
            "proto 6",
            "public ip 203.0.113.7 port 45678",
            "public ip 203.0.113.7",
            "not (user nobody or vlan 7)",
            "user \"0912345678\" and not proto udp",
        ] {
            assert!(is_match(text), "{text}");
        }
    }

    #[test]
    fn what_is_elsewhere_is_not_found() {
        for text in [
            "user 091234567",
            "dst ip 10.20.0.14",
            "src port 443",
            "proto udp",
            "public ip 203.0.113.7 port 1",
            "public ip 10.20.0.14",
            "vlan 1",
            "not mac 02:00:00:00:00:01",
        ] {
            assert!(!is_match(text), "{text}");
        }
    }

    #[test]
    fn a_flow_that_is_not_translated_has_its_own_address() {
        let flow = crate::segment::tests::flow(1);
        assert!(parse("public ip 2001:db8::14 port 40000").unwrap().matches(&flow));
    }

    #[test]
    fn errors_point_at_the_place() {
        let error = parse("user x and prot tcp").unwrap_err();
        assert_eq!(error.at, 11);
        assert!(error.to_string().ends_with("\n  user x and prot tcp\n             ^"), "{error}");
        for text in [
            "user",
            "ip 10.0.0",
            "port 99999",
            "(user x",
            "user x)",
            "and",
            "user x user y",
            "proto nonsense",
            "public port 5",
            "\"open",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
