//! The filter language: words nfdump and tcpdump users know, over flows. Reference with examples: `docs/search.md`.
//!
//! A filter is a tree; it says what it means in its own language ([`Filter`]'s `Display` is parsed back to the same tree), which
//! times a match can lie in, and whether a record matches. Unknown values match nothing, so `not` of them matches.

mod alike;
mod error;
mod field;
mod lexer;
mod parser;
mod print;
mod value;

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use hotspot_core::record::FlowRecord;
use hotspot_core::{MacAddr, WallNs};
use ipnet::IpNet;

pub use alike::Alike;
pub use error::FilterError;
pub(crate) use error::nearest;
pub use field::{Compare, NumberField, Pattern, TextField};
pub(crate) use field::{duration_ns, spelled};
pub use parser::{parse, parse_in};

use crate::segment::Origin;
use crate::when::When;

/// How far `at` reaches to both sides, unless `within` says otherwise: clocks differ.
pub const WITHIN_NS: WallNs = 2_000_000_000;

/// Which end of a flow; the client is the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
    Either,
}

/// Where flows were seen, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) gateway: &'a str,
    pub(crate) site: Option<&'a str>,
    pub(crate) interface: Option<&'a str>,
}

/// A parsed filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Everything,
    Text(TextField, Pattern),
    Mac(MacAddr),
    Ip(Side, IpAddr),
    Net(Side, IpNet),
    Port(Side, RangeInclusive<u16>),
    Protocol(u8),
    /// The client's address is IPv4 (or else IPv6).
    IsV4(bool),
    /// The address after translation; a flow that is not translated has its own.
    Public(IpAddr, Option<u16>),
    Vlan(u16),
    Number(Side, NumberField, Compare, u64),
    /// Was going on at a moment, which is as long as it was written, or so close to it.
    At {
        when: When,
        within_ns: WallNs,
    },
    /// All of them hold.
    All(Vec<Self>),
    /// One of them holds.
    Any(Vec<Self>),
    Not(Box<Self>),
}

impl Filter {
    /// Whether a flow of this origin is asked for.
    #[must_use]
    pub fn matches(&self, origin: &Origin, flow: &FlowRecord) -> bool {
        match self {
            Self::Everything => true,
            Self::Text(TextField::User, pattern) => users(flow).any(|user| pattern.matches(user)),
            Self::Text(TextField::Session, pattern) => sessions(flow).iter().any(|id| pattern.matches(id)),
            Self::Text(field, pattern) => field.of(origin, flow).is_some_and(|text| field.matches(pattern, &text)),
            Self::Mac(mac) => flow.client_mac == *mac,
            Self::Ip(side, ip) => addresses(flow, *side).any(|found| found == *ip),
            Self::Net(side, net) => addresses(flow, *side).any(|found| net.contains(&found)),
            Self::Port(side, asked) => ports(flow, *side).any(|found| asked.contains(&found)),
            Self::Protocol(protocol) => flow.protocol == Some(*protocol),
            Self::IsV4(is_v4) => flow.client_ip.is_ipv4() == *is_v4,
            Self::Public(ip, port) => {
                let (found, found_port) = public_endpoint(flow);
                found == *ip && port.is_none_or(|port| found_port == Some(port))
            }
            Self::Vlan(vlan) => flow.vlan == Some(*vlan) || flow.inner_vlan == Some(*vlan),
            Self::Number(side, field, compare, value) => compare.holds(field.of(*side, flow), *value),
            Self::At { when, within_ns } => is_at(flow.start_ns, flow.end_ns, *when, *within_ns),
            Self::All(parts) => parts.iter().all(|part| part.matches(origin, flow)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(origin, flow)),
            Self::Not(inner) => !inner.matches(origin, flow),
        }
    }

    /// Whether a flow of this gateway can match, by what the filter says of gateways.
    #[must_use]
    pub fn may_match_gateway(&self, gateway: &str) -> bool {
        self.may_match_at(&Seen { gateway, site: None, interface: None })
    }

    /// The public address that every match has.
    pub(crate) fn public_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Public(ip, _) => Some(*ip),
            Self::All(parts) => parts.iter().find_map(Self::public_ip),
            Self::Any(parts) => {
                let mut all = parts.iter().map(Self::public_ip);
                all.next().flatten().filter(|first| all.all(|ip| ip == Some(*first)))
            }
            Self::Everything
            | Self::Text(..)
            | Self::Mac(_)
            | Self::Ip(..)
            | Self::Net(..)
            | Self::Port(..)
            | Self::Protocol(_)
            | Self::IsV4(_)
            | Self::Vlan(_)
            | Self::Number(..)
            | Self::At { .. }
            | Self::Not(_) => None,
        }
    }

    /// Whether a flow that was seen there can match, by what the filter says of places.
    pub(crate) fn may_match_at(&self, seen: &Seen<'_>) -> bool {
        self.of_flows_at(seen) != Some(false)
    }

    /// Whether all flows of a place match, or none; `None`: that depends on the flow.
    fn of_flows_at(&self, seen: &Seen<'_>) -> Option<bool> {
        let decided = |parts: &[Self], by: bool| {
            let mut all = Some(!by);
            for part in parts {
                match part.of_flows_at(seen) {
                    Some(matches) if matches == by => return Some(by),
                    Some(_) => {}
                    None => all = None,
                }
            }
            all
        };
        match self {
            Self::Everything => Some(true),
            Self::Text(TextField::Gateway, pattern) => Some(TextField::Gateway.matches(pattern, seen.gateway)),
            Self::Text(TextField::Site, pattern) => seen.site.map(|site| TextField::Site.matches(pattern, site)),
            Self::Text(TextField::Interface, pattern) => {
                seen.interface.map(|interface| TextField::Interface.matches(pattern, interface))
            }
            Self::All(parts) => decided(parts, false),
            Self::Any(parts) => decided(parts, true),
            Self::Not(inner) => inner.of_flows_at(seen).map(|matches| !matches),
            Self::Text(..)
            | Self::Mac(_)
            | Self::Ip(..)
            | Self::Net(..)
            | Self::Port(..)
            | Self::Protocol(_)
            | Self::IsV4(_)
            | Self::Public(..)
            | Self::Vlan(_)
            | Self::Number(..)
            | Self::At { .. } => None,
        }
    }

    /// The names of users it asks for in any spelling.
    pub fn alike(&self) -> Vec<&Alike> {
        match self {
            Self::Text(_, Pattern::Alike(alike)) => vec![alike],
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::alike).collect(),
            Self::Not(inner) => inner.alike(),
            Self::Everything
            | Self::Text(..)
            | Self::Mac(_)
            | Self::Ip(..)
            | Self::Net(..)
            | Self::Port(..)
            | Self::Protocol(_)
            | Self::IsV4(_)
            | Self::Public(..)
            | Self::Vlan(_)
            | Self::Number(..)
            | Self::At { .. } => Vec::new(),
        }
    }

    /// The moments at which flows must have been going on, or nearly, to match; as far as the filter asks for them all.
    #[must_use]
    pub fn moments(&self) -> Vec<When> {
        match self {
            Self::At { when, .. } => vec![*when],
            Self::All(parts) => parts.iter().flat_map(Self::moments).collect(),
            Self::Everything
            | Self::Text(..)
            | Self::Mac(_)
            | Self::Ip(..)
            | Self::Net(..)
            | Self::Port(..)
            | Self::Protocol(_)
            | Self::IsV4(_)
            | Self::Public(..)
            | Self::Vlan(_)
            | Self::Number(..)
            | Self::Any(_)
            | Self::Not(_) => Vec::new(),
        }
    }

    /// The public addresses of which every match has one; none where flows of other addresses can match too.
    #[must_use]
    pub fn public_addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Public(ip, _) => vec![*ip],
            Self::All(parts) => {
                parts.iter().map(Self::public_addresses).find(|ips| !ips.is_empty()).unwrap_or_default()
            }
            Self::Any(parts) => {
                let parts: Vec<_> = parts.iter().map(Self::public_addresses).collect();
                if parts.iter().any(Vec::is_empty) { Vec::new() } else { parts.concat() }
            }
            Self::Everything
            | Self::Text(..)
            | Self::Mac(_)
            | Self::Ip(..)
            | Self::Net(..)
            | Self::Port(..)
            | Self::Protocol(_)
            | Self::IsV4(_)
            | Self::Vlan(_)
            | Self::Number(..)
            | Self::At { .. }
            | Self::Not(_) => Vec::new(),
        }
    }

    /// Both of them; `Everything` adds nothing.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Everything, filter) | (filter, Self::Everything) => filter,
            (left, right) => Self::All(vec![left, right]),
        }
    }

    /// From when to when (exclusive) a match can lie, by its own words.
    #[must_use]
    pub fn times(&self) -> (WallNs, WallNs) {
        const ALWAYS: (WallNs, WallNs) = (WallNs::MIN, WallNs::MAX);
        match self {
            Self::At { when, within_ns } => {
                (when.from_ns.saturating_sub(*within_ns), when.last_ns.saturating_add(*within_ns).saturating_add(1))
            }
            Self::All(parts) => {
                parts.iter().map(Self::times).fold(ALWAYS, |all, part| (all.0.max(part.0), all.1.min(part.1)))
            }
            Self::Any(parts) => parts
                .iter()
                .map(Self::times)
                .reduce(|any, part| (any.0.min(part.0), any.1.max(part.1)))
                .unwrap_or(ALWAYS),
            Self::Everything
            | Self::Text(..)
            | Self::Mac(_)
            | Self::Ip(..)
            | Self::Net(..)
            | Self::Port(..)
            | Self::Protocol(_)
            | Self::IsV4(_)
            | Self::Public(..)
            | Self::Vlan(_)
            | Self::Number(..)
            | Self::Not(_) => ALWAYS,
        }
    }
}

pub(crate) fn is_at(start_ns: WallNs, end_ns: WallNs, when: When, within_ns: WallNs) -> bool {
    start_ns <= when.last_ns.saturating_add(within_ns) && end_ns >= when.from_ns.saturating_sub(within_ns)
}

/// The users a flow names: several where it is ambiguous or in conflict.
pub(crate) fn users(flow: &FlowRecord) -> impl Iterator<Item = Cow<'_, str>> {
    flow.identity.iter().flat_map(|identity| &identity.users).flat_map(|user| names(user))
}

fn sessions(flow: &FlowRecord) -> &[String] {
    flow.identity.as_deref().map_or(&[], |identity| &identity.session_ids)
}

/// The names of a claimant. Whom a NAS names twice, `outer identity \(chargeable identity)`, goes by either, and by both with or without
/// the backslash. In the name of somebody who has brackets in it there is none.
pub(crate) fn names(claimant: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let twice = claimant.strip_suffix(')').and_then(|name| name.split_once(r" \("));
    let of_both = twice
        .map(|(outer, chargeable)| [outer.into(), chargeable.into(), Cow::Owned(format!("{outer} ({chargeable})"))]);
    std::iter::once(claimant.into()).chain(of_both.into_iter().flatten())
}

/// Address and port by which the other side knew the client.
pub(crate) fn public_endpoint(flow: &FlowRecord) -> (IpAddr, Option<u16>) {
    match flow.public {
        Some(public) => (public.ip, public.port),
        None => (flow.client_ip, flow.client_port),
    }
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

#[cfg(test)]
pub(crate) mod tests;
