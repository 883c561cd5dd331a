//! NAT: which public address and port a connection had, as of the moment.
//!
//! Bindings are found by the connection's whole tuple, so another client that gets the same public port a second later has a
//! binding of its own. Absence of a binding means "not translated" only while translations were being watched.

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;

use crate::WallNs;
use crate::fact::{NatEvent, NatFact, NatWatch, NatWatchFact};
use crate::record::{NatState, PublicEndpoint};

/// A connection as the client sees it. For ICMP the client's port is the query identifier and the peer's is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    pub protocol: u8,
    pub client_ip: IpAddr,
    pub client_port: u16,
    pub peer_ip: IpAddr,
    pub peer_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Binding {
    /// `None`: found in a dump, began some time before.
    created_ns: Option<WallNs>,
    /// When the report came, for one that was found.
    found_ns: WallNs,
    destroyed_ns: Option<WallNs>,
    public_ip: IpAddr,
    public_port: u16,
}

/// A binding covers this much time before it was reported: the first packet was seen before the connection was confirmed.
const LEAD_NS: WallNs = 2_000_000_000;
/// And this much after its end: the last packets may be counted a moment later.
const TRAIL_NS: WallNs = 2_000_000_000;

/// All bindings that can still matter.
#[derive(Clone, Debug, Default)]
pub struct NatTable {
    bindings: HashMap<Tuple, Vec<Binding>, RandomState>,
    /// Changes of the watch, by time.
    watch: Vec<NatWatchFact>,
}

impl NatTable {
    /// Applies a fact; again has no effect.
    pub fn apply(&mut self, fact: &NatFact) {
        let tuple = Tuple {
            protocol: fact.protocol,
            client_ip: fact.client_ip,
            client_port: fact.client_port,
            peer_ip: fact.peer_ip,
            peer_port: fact.peer_port,
        };
        let bindings = self.bindings.entry(tuple).or_default();
        let mut same = bindings
            .iter_mut()
            .rev()
            .filter(|binding| binding.public_ip == fact.public_ip && binding.public_port == fact.public_port);
        let at_ns = fact.at_ns;
        match fact.event {
            NatEvent::Created => {
                let known = same.find(|binding| match binding.created_ns {
                    Some(created) => created == at_ns,
                    // A dump, or the end, was reported before the beginning.
                    None => binding.destroyed_ns.is_none_or(|destroyed| destroyed >= at_ns),
                });
                match known {
                    Some(binding) => binding.created_ns = Some(at_ns),
                    None => bindings.push(Binding::new(fact, Some(at_ns), None)),
                }
            }
            NatEvent::Found => {
                if !same.any(|binding| binding.found_ns == at_ns || binding.overlap(at_ns, at_ns).is_some()) {
                    bindings.push(Binding::new(fact, None, None));
                }
            }
            NatEvent::Destroyed => {
                let known = same.find(|binding| match binding.destroyed_ns {
                    Some(destroyed) => destroyed == at_ns,
                    None => binding.created_ns.is_none_or(|created| created <= at_ns),
                });
                match known {
                    Some(binding) => binding.destroyed_ns = Some(at_ns),
                    None => bindings.push(Binding::new(fact, None, Some(at_ns))),
                }
            }
        }
    }

    /// Applies a change of the watch; again has no effect.
    pub fn apply_watch(&mut self, fact: NatWatchFact) {
        if !self.watch.contains(&fact) {
            let position = self.watch.partition_point(|known| known.at_ns <= fact.at_ns);
            self.watch.insert(position, fact);
        }
    }

    /// The translation of a connection that was seen from `start_ns` to `end_ns`; `None` where nobody watched.
    #[must_use]
    pub fn lookup(
        &self,
        tuple: &Tuple,
        start_ns: WallNs,
        end_ns: WallNs,
    ) -> (Option<NatState>, Option<PublicEndpoint>) {
        let best = self
            .bindings
            .get(tuple)
            .into_iter()
            .flatten()
            .filter_map(|binding| Some((binding.overlap(start_ns, end_ns)?, binding)))
            .max_by_key(|(overlap, binding)| (*overlap, binding.created_ns, binding.public_port));
        if let Some((_, binding)) = best {
            let public = PublicEndpoint { ip: binding.public_ip, port: Some(binding.public_port) };
            return (Some(NatState::Exact), Some(public));
        }
        (self.without_binding(start_ns, end_ns), None)
    }

    /// What it means that there is no binding.
    fn without_binding(&self, start_ns: WallNs, end_ns: WallNs) -> Option<NatState> {
        let before = self.watch.iter().rev().find(|fact| fact.at_ns <= start_ns + LEAD_NS).map(|fact| fact.watch);
        let during = self
            .watch
            .iter()
            .any(|fact| fact.watch != NatWatch::Started && fact.at_ns >= start_ns && fact.at_ns <= end_ns + TRAIL_NS);
        match before {
            Some(NatWatch::Started) if !during => Some(NatState::None),
            Some(NatWatch::Started | NatWatch::Lost) => Some(NatState::Uncertain),
            // Watched from some later moment on: what began before may have been translated.
            None | Some(NatWatch::Stopped) => None,
        }
    }

    /// Forgets what ended before `before_ns`.
    pub fn forget(&mut self, before_ns: WallNs) {
        self.bindings.retain(|_, bindings| {
            bindings.retain(|binding| binding.destroyed_ns.is_none_or(|destroyed| destroyed >= before_ns));
            !bindings.is_empty()
        });
        // The last change before still says how it stood then.
        let keep_from = self.watch.partition_point(|fact| fact.at_ns < before_ns).saturating_sub(1);
        self.watch.drain(..keep_from);
    }

    /// Facts that make an equal table.
    #[must_use]
    pub fn facts(&self) -> (Vec<NatFact>, Vec<NatWatchFact>) {
        let mut tuples: Vec<_> = self.bindings.iter().collect();
        tuples.sort_unstable_by_key(|(tuple, _)| **tuple);
        let facts =
            tuples.into_iter().flat_map(|(tuple, bindings)| bindings.iter().flat_map(|binding| binding.facts(tuple)));
        (facts.collect(), self.watch.clone())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.bindings.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }
}

impl Binding {
    fn new(fact: &NatFact, created_ns: Option<WallNs>, destroyed_ns: Option<WallNs>) -> Self {
        Self {
            created_ns,
            found_ns: fact.at_ns,
            destroyed_ns,
            public_ip: fact.public_ip,
            public_port: fact.public_port,
        }
    }

    /// How much of an interval the binding covers, `None` for nothing. A single moment it covers counts as one.
    fn overlap(&self, start_ns: WallNs, end_ns: WallNs) -> Option<WallNs> {
        let from = self.created_ns.map_or(WallNs::MIN, |created| created - LEAD_NS);
        let to = self.destroyed_ns.map_or(WallNs::MAX, |destroyed| destroyed + TRAIL_NS);
        let (from, to) = (from.max(start_ns), to.min(end_ns));
        (from <= to).then(|| to - from + 1)
    }

    fn facts(&self, tuple: &Tuple) -> impl Iterator<Item = NatFact> {
        let fact = |event, at_ns| NatFact {
            event,
            at_ns,
            protocol: tuple.protocol,
            client_ip: tuple.client_ip,
            client_port: tuple.client_port,
            peer_ip: tuple.peer_ip,
            peer_port: tuple.peer_port,
            public_ip: self.public_ip,
            public_port: self.public_port,
        };
        let began = match (self.created_ns, self.destroyed_ns) {
            (Some(created), _) => Some(fact(NatEvent::Created, created)),
            (None, None) => Some(fact(NatEvent::Found, self.found_ns)),
            (None, Some(_)) => None,
        };
        let ended = self.destroyed_ns.map(|destroyed| fact(NatEvent::Destroyed, destroyed));
        began.into_iter().chain(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: WallNs = 1_000_000_000;

    fn tuple(client: u8) -> Tuple {
        Tuple {
            protocol: 6,
            client_ip: [10, 0, 0, client].into(),
            client_port: 1000,
            peer_ip: [198, 51, 100, 1].into(),
            peer_port: 80,
        }
    }

    fn fact(event: NatEvent, at_s: i64, client: u8, public_port: u16) -> NatFact {
        let tuple = tuple(client);
        NatFact {
            event,
            at_ns: at_s * S,
            protocol: tuple.protocol,
            client_ip: tuple.client_ip,
            client_port: tuple.client_port,
            peer_ip: tuple.peer_ip,
            peer_port: tuple.peer_port,
            public_ip: [203, 0, 113, 1].into(),
            public_port,
        }
    }

    fn port(table: &NatTable, client: u8, start_s: i64, end_s: i64) -> (Option<NatState>, Option<u16>) {
        let (state, public) = table.lookup(&tuple(client), start_s * S, end_s * S);
        (state, public.and_then(|public| public.port))
    }

    #[test]
    fn a_port_used_by_two_clients_in_turn_has_two_owners() {
        let mut table = NatTable::default();
        table.apply_watch(NatWatchFact { watch: NatWatch::Started, at_ns: 0 });
        table.apply(&fact(NatEvent::Created, 10, 1, 5000));
        table.apply(&fact(NatEvent::Destroyed, 20, 1, 5000));
        table.apply(&fact(NatEvent::Created, 21, 2, 5000));
        assert_eq!(port(&table, 1, 10, 19), (Some(NatState::Exact), Some(5000)));
        assert_eq!(port(&table, 2, 21, 25), (Some(NatState::Exact), Some(5000)));
        assert_eq!(port(&table, 1, 30, 31), (Some(NatState::None), None));
    }

    #[test]
    fn the_binding_that_covers_most_of_the_flow_counts() {
        let mut table = NatTable::default();
        for (event, at, port) in
            [(NatEvent::Created, 10, 5000), (NatEvent::Destroyed, 20, 5000), (NatEvent::Created, 21, 6000)]
        {
            table.apply(&fact(event, at, 1, port));
        }
        assert_eq!(port(&table, 1, 10, 20).1, Some(5000));
        assert_eq!(port(&table, 1, 21, 60).1, Some(6000));
    }

    #[test]
    fn absence_means_something_only_while_somebody_watched() {
        let mut table = NatTable::default();
        assert_eq!(port(&table, 1, 1, 2), (None, None));
        table.apply_watch(NatWatchFact { watch: NatWatch::Started, at_ns: 10 * S });
        assert_eq!(port(&table, 1, 1, 2), (None, None));
        assert_eq!(port(&table, 1, 11, 12), (Some(NatState::None), None));
        table.apply_watch(NatWatchFact { watch: NatWatch::Lost, at_ns: 20 * S });
        assert_eq!(port(&table, 1, 15, 21), (Some(NatState::Uncertain), None));
        assert_eq!(port(&table, 1, 22, 23), (Some(NatState::Uncertain), None));
        table.apply_watch(NatWatchFact { watch: NatWatch::Started, at_ns: 30 * S });
        assert_eq!(port(&table, 1, 31, 32), (Some(NatState::None), None));
    }

    #[test]
    fn a_binding_that_was_found_covers_what_was_before() {
        let mut table = NatTable::default();
        table.apply(&fact(NatEvent::Found, 10, 1, 5000));
        assert_eq!(port(&table, 1, 1, 2), (Some(NatState::Exact), Some(5000)));
    }

    #[test]
    fn facts_applied_again_or_exported_make_the_same_table() {
        let facts = [
            fact(NatEvent::Created, 10, 1, 5000),
            fact(NatEvent::Destroyed, 20, 1, 5000),
            fact(NatEvent::Created, 21, 1, 5000),
            fact(NatEvent::Found, 5, 2, 6000),
            fact(NatEvent::Destroyed, 7, 3, 7000),
        ];
        let mut once = NatTable::default();
        facts.iter().for_each(|fact| once.apply(fact));
        let mut twice = once.clone();
        facts.iter().for_each(|fact| twice.apply(fact));
        assert_eq!(once.facts(), twice.facts());
        let mut rebuilt = NatTable::default();
        once.facts().0.iter().for_each(|fact| rebuilt.apply(fact));
        assert_eq!(rebuilt.facts(), once.facts());
        rebuilt.forget(15 * S);
        assert_eq!(port(&rebuilt, 3, 6, 7).1, None, "forgotten");
        assert_eq!(port(&rebuilt, 1, 18, 19).1, Some(5000));
    }
}
