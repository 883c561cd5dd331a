//! Claims: sessions by what they hold, for many lookups without allocation.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::ops::Range;

use foldhash::fast::RandomState;

use super::{Session, masked};
use crate::record::SessionStatus;
use crate::{MacAddr, WallNs};

/// When a session holds something. Both ends are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from_ns: WallNs,
    pub(crate) to_ns: WallNs,
    /// Among [`Claims::sessions`].
    pub(crate) session: u32,
    pub(crate) names_person: bool,
}

impl Span {
    pub(crate) const fn covers(&self, at_ns: WallNs) -> bool {
        self.from_ns <= at_ns && at_ns <= self.to_ns
    }

    pub(crate) const fn begins_within(&self, after_ns: WallNs, until_ns: WallNs) -> bool {
        after_ns < self.from_ns && self.from_ns <= until_ns
    }
}

/// Spans in one piece of memory, those of a key together.
#[derive(Debug)]
struct Spans<K> {
    spans: Vec<Span>,
    of: HashMap<K, (u32, u32), RandomState>,
}

impl<K: Copy + Ord + Hash> Spans<K> {
    fn new(mut keyed: Vec<(K, Span)>) -> Self {
        keyed.sort_unstable_by_key(|(key, span)| (*key, span.from_ns, span.session));
        let mut of: HashMap<K, (u32, u32), RandomState> =
            HashMap::with_capacity_and_hasher(keyed.len(), RandomState::default());
        for (position, (key, _)) in keyed.iter().enumerate() {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            of.entry(*key).or_insert((position, position)).1 = position + 1;
        }
        Self { spans: keyed.into_iter().map(|(_, span)| span).collect(), of }
    }

    fn of(&self, key: &K) -> Range<usize> {
        self.of.get(key).map_or(0..0, |(from, to)| *from as usize..*to as usize)
    }

    fn get(&self, key: &K) -> &[Span] {
        &self.spans[self.of(key)]
    }
}

/// An address or prefix: family, length, bits.
type Network = (bool, u8, u128);

/// Holdings by network.
#[derive(Debug)]
struct Held {
    spans: Spans<Network>,
    /// Lengths there are, by family.
    lengths: Vec<(bool, u8)>,
}

impl Held {
    fn new(keyed: Vec<(Network, Span)>) -> Self {
        let mut lengths: Vec<(bool, u8)> = keyed.iter().map(|((is_v4, len, _), _)| (*is_v4, *len)).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self { spans: Spans::new(keyed), lengths }
    }

    fn of(&self, ip: IpAddr) -> impl Iterator<Item = &Span> {
        let lengths = self.lengths.iter().filter(move |(is_v4, _)| *is_v4 == ip.is_ipv4());
        lengths.flat_map(move |(is_v4, len)| self.spans.get(&(*is_v4, *len, masked(ip, *len))))
    }
}

/// An address as a number, which is compared in one step.
fn number(mac: MacAddr) -> u64 {
    mac.0.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Sessions by what they name.
#[derive(Debug)]
pub struct Claims<'a> {
    sessions: &'a [Session],
    by_mac: Spans<u64>,
    /// Addresses held by sessions that name a device.
    by_ip: Held,
    /// Addresses held by sessions that name none.
    anonymous_by_ip: Held,
}

impl<'a> Claims<'a> {
    #[must_use]
    pub fn new(sessions: &'a [Session]) -> Self {
        let (mut by_mac, mut by_ip, mut anonymous_by_ip) = (Vec::new(), Vec::new(), Vec::new());
        for (position, session) in sessions.iter().enumerate() {
            if session.status == SessionStatus::Rejected {
                continue;
            }
            let span = Span {
                from_ns: session.started_ns,
                to_ns: session.until_ns.unwrap_or(WallNs::MAX),
                session: u32::try_from(position).unwrap_or(u32::MAX),
                names_person: session.names_person(),
            };
            by_mac.extend(session.client_mac.map(|mac| (number(mac), span)).filter(|_| span.from_ns <= span.to_ns));
            let held_by = if session.client_mac.is_some() { &mut by_ip } else { &mut anonymous_by_ip };
            held_by.extend(session.holdings.iter().filter_map(|held| {
                let network = (held.ip.is_ipv4(), held.prefix_len, masked(held.ip, held.prefix_len));
                let from_ns = held.from_ns.max(span.from_ns);
                let to_ns = held.to_ns.map_or(span.to_ns, |to| span.to_ns.min(to - 1));
                (from_ns <= to_ns).then_some((network, Span { from_ns, to_ns, ..span }))
            }));
        }
        Self {
            sessions,
            by_mac: Spans::new(by_mac),
            by_ip: Held::new(by_ip),
            anonymous_by_ip: Held::new(anonymous_by_ip),
        }
    }

    pub(crate) fn session(&self, span: &Span) -> &'a Session {
        &self.sessions[span.session as usize]
    }

    /// Where among [`Self::spans`] it stands when sessions that name this device were going on.
    pub(crate) fn of_mac(&self, mac: MacAddr) -> Range<usize> {
        self.by_mac.of(&number(mac))
    }

    /// Spans of one device, by their beginning.
    pub(crate) fn spans(&self, of_mac: &Range<usize>) -> &[Span] {
        &self.by_mac.spans[of_mac.clone()]
    }

    /// When sessions that name a device held this address.
    pub(crate) fn of_ip(&self, ip: IpAddr) -> impl Iterator<Item = &Span> {
        self.by_ip.of(ip)
    }

    /// When sessions that name no device held this address.
    pub(crate) fn anonymous_of_ip(&self, ip: IpAddr) -> impl Iterator<Item = &Span> {
        self.anonymous_by_ip.of(ip)
    }
}
