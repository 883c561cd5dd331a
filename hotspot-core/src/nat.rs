//! NAT: which public address and port a connection had, as of the moment.
//!
//! Bindings are found by the connection's whole tuple, so another client that gets the same public port a second later has a
//! binding of its own. Absence of a binding means "not translated" only while translations were being watched.
//!
//! A binding ends when its end is reported. Where reports were lost, the next dump shows which bindings are gone: those it did not
//! find ended at some moment in between, and are `uncertain` there. A row whose time two bindings share is `uncertain` too. So nothing stays that the kernel does not hold either: the table
//! is bounded by the kernel's, and what ended in the time of one segment and [`KEEP_NS`] before it.

mod addresses;
mod bindings;

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;

use self::addresses::{LongAddresses, Short};
use self::bindings::{Binding, Bindings, LEAD_NS, TRAIL_NS};
use crate::WallNs;
use crate::fact::{NatEvent, NatFact, NatWatch, NatWatchFact};
use crate::record::{NatState, PublicEndpoint};

const SECOND: WallNs = 1_000_000_000;

/// A connection as the client sees it. For ICMP the client's port is the query identifier and the peer's is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    pub protocol: u8,
    pub client_ip: IpAddr,
    pub client_port: u16,
    pub peer_ip: IpAddr,
    pub peer_port: u16,
}

/// Flows of a later segment begin at most two minutes before the end of the one that was sealed: what ended longer ago cannot
/// matter to them.
pub const KEEP_NS: WallNs = 125 * SECOND;

/// The client's side of a [`Tuple`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client {
    address: Short,
    is_v4: bool,
}

/// The rest of it, in 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Connection {
    peer: Short,
    client_port: u16,
    peer_port: u16,
    protocol: u8,
}

/// Bindings of one client.
type OfClient = HashMap<Connection, Bindings, RandomState>;

/// All bindings that can still matter. Those of a client lie together, because its flows are looked up one after the other.
#[derive(Clone, Debug, Default)]
pub struct NatTable {
    clients: HashMap<Client, OfClient, RandomState>,
    long: LongAddresses,
    /// Changes of the watch, by time.
    watch: Vec<NatWatchFact>,
}

impl NatTable {
    /// Applies a fact; again has no effect.
    pub fn apply(&mut self, fact: &NatFact) {
        let client = Client { address: self.long.learn(fact.client_ip), is_v4: fact.client_ip.is_ipv4() };
        let connection = Connection {
            peer: self.long.learn(fact.peer_ip),
            client_port: fact.client_port,
            peer_port: fact.peer_port,
            protocol: fact.protocol,
        };
        let public = self.long.learn(fact.public_ip);
        let reported = Binding::to(public, fact.public_port, fact.public_ip.is_ipv4());
        let of_client = self.clients.entry(client).or_default();
        let bindings = of_client.entry(connection).or_insert(Bindings::Many(Vec::new()));
        bindings.apply(fact.event, reported, fact.at_ns);
    }

    /// Applies a change of the watch; again has no effect. What was found by the dump that begins a watch must be applied before.
    pub fn apply_watch(&mut self, fact: NatWatchFact) {
        if self.watch.contains(&fact) {
            return;
        }
        let position = self.watch.partition_point(|known| known.at_ns <= fact.at_ns);
        if fact.watch == NatWatch::Started {
            let doubtful_ns = self.watch[..position].last().map_or(WallNs::MIN, |before| match before.watch {
                NatWatch::Started => fact.at_ns,
                NatWatch::Lost | NatWatch::Stopped => before.at_ns,
            });
            let all = self.clients.values_mut().flat_map(OfClient::values_mut).flat_map(Bindings::as_mut_slice);
            all.for_each(|binding| binding.end_unless_found(fact.at_ns, doubtful_ns));
        }
        self.watch.insert(position, fact);
    }

    /// The translation of a connection that was seen from `start_ns` to `end_ns`; `None` where nobody watched.
    #[must_use]
    pub fn lookup(
        &self,
        tuple: &Tuple,
        start_ns: WallNs,
        end_ns: WallNs,
    ) -> (Option<NatState>, Option<PublicEndpoint>) {
        let known = self.bindings(tuple).map_or(&[][..], Bindings::as_slice);
        let covering = known.iter().filter_map(|binding| Some((binding.overlap(start_ns, end_ns)?, binding)));
        let best = covering.max_by_key(|(overlap, binding)| {
            let as_reported = binding.overlap_as_reported(start_ns, end_ns);
            let is_certain = as_reported.is_some() && binding.is_certain(start_ns, end_ns);
            (is_certain, as_reported, *overlap, binding.created_ns, binding.public_port)
        });
        if let Some((_, best)) = best {
            let may_be = |other: &Binding| {
                !other.is_same_endpoint(best)
                    && other.overlap_as_reported(start_ns, end_ns).is_some_and(|overlap| overlap > LEAD_NS)
            };
            let is_exact = best.is_certain(start_ns, end_ns) && !known.iter().any(may_be);
            let state = if is_exact { NatState::Exact } else { NatState::Uncertain };
            let ip = self.long.whole(best.public, best.is_v4);
            return (Some(state), Some(PublicEndpoint { ip, port: Some(best.public_port) }));
        }
        (self.without_binding(start_ns, end_ns), None)
    }

    fn bindings(&self, tuple: &Tuple) -> Option<&Bindings> {
        let client = Client { address: self.long.known(tuple.client_ip)?, is_v4: tuple.client_ip.is_ipv4() };
        let connection = Connection {
            peer: self.long.known(tuple.peer_ip)?,
            client_port: tuple.client_port,
            peer_port: tuple.peer_port,
            protocol: tuple.protocol,
        };
        self.clients.get(&client)?.get(&connection)
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
        self.clients.retain(|_, of_client| {
            of_client.retain(|_, bindings| bindings.keep(|binding| binding.destroyed_ns >= before_ns));
            // A client that once had very many would keep the room for them.
            if of_client.capacity() > 4 * of_client.len() {
                of_client.shrink_to_fit();
            }
            !of_client.is_empty()
        });
        // The last change before still says how it stood then.
        let keep_from = self.watch.partition_point(|fact| fact.at_ns < before_ns).saturating_sub(1);
        self.watch.drain(..keep_from);
    }

    /// Facts that make an equal table.
    #[must_use]
    pub fn facts<'a>(&'a self) -> (Vec<NatFact>, Vec<NatWatchFact>) {
        let of_client = |(client, bindings): (&Client, &'a OfClient)| {
            let client = *client;
            bindings.iter().map(move |(connection, bindings)| (self.tuple(client, connection), bindings))
        };
        let mut tuples: Vec<(Tuple, &Bindings)> = self.clients.iter().flat_map(of_client).collect();
        tuples.sort_unstable_by_key(|(tuple, _)| *tuple);
        let facts = tuples.into_iter().flat_map(|(tuple, bindings)| {
            bindings.as_slice().iter().flat_map(move |binding| binding.facts(self.of(&tuple, binding)))
        });
        (facts.collect(), self.watch.clone())
    }

    fn tuple(&self, client: Client, connection: &Connection) -> Tuple {
        Tuple {
            protocol: connection.protocol,
            client_ip: self.long.whole(client.address, client.is_v4),
            client_port: connection.client_port,
            peer_ip: self.long.whole(connection.peer, client.is_v4),
            peer_port: connection.peer_port,
        }
    }

    fn of(&self, tuple: &Tuple, binding: &Binding) -> NatFact {
        NatFact {
            event: NatEvent::Created,
            at_ns: 0,
            protocol: tuple.protocol,
            client_ip: tuple.client_ip,
            client_port: tuple.client_port,
            peer_ip: tuple.peer_ip,
            peer_port: tuple.peer_port,
            public_ip: self.long.whole(binding.public, binding.is_v4),
            public_port: binding.public_port,
        }
    }

    /// Connections whose bindings are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.values().map(HashMap::len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

#[cfg(test)]
mod tests;
