//! NAT: which public address and port a connection had, as of the moment.
//!
//! Bindings are found by the connection's whole tuple, so another client that gets the same public port a second later has a
//! binding of its own. Absence of a binding means "not translated" only while translations were being watched.
//!
//! A binding ends when its end is reported. Where reports were lost, the next dump shows which bindings are gone: those it did not
//! find ended at some moment in between, and are `uncertain` there. So nothing stays that the kernel does not hold either: the table
//! is bounded by the kernel's, and what ended in the time of one segment and [`KEEP_NS`] before it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::RandomState;

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

/// A binding covers this much time before it was reported: the first packet was seen before the connection was confirmed.
const LEAD_NS: WallNs = 2 * SECOND;
/// And this much after its end: the last packets may be counted a moment later.
const TRAIL_NS: WallNs = 2 * SECOND;

/// An address in four bytes: an IPv4 address itself, or the place of an IPv6 address among those there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Short(u32);

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

/// Times that are not known are the extremes, to save room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Binding {
    /// `MIN`: not reported.
    created_ns: WallNs,
    /// The last dump that found it; `MIN`: none.
    found_ns: WallNs,
    /// `MAX`: goes on.
    destroyed_ns: WallNs,
    /// From here on it is not certain that it was still there; `MAX`: its end was reported, or it goes on.
    doubtful_ns: WallNs,
    public: Short,
    public_port: u16,
    is_v4: bool,
}

/// The bindings one tuple had, almost always one.
#[derive(Clone, Debug)]
enum Bindings {
    One(Binding),
    Many(Vec<Binding>),
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

/// IPv6 addresses by number: they are seldom translated.
#[derive(Clone, Debug, Default)]
struct LongAddresses {
    numbers: HashMap<Ipv6Addr, u32, RandomState>,
    addresses: Vec<Ipv6Addr>,
}

impl LongAddresses {
    fn known(&self, ip: IpAddr) -> Option<Short> {
        match ip {
            IpAddr::V4(ip) => Some(Short(ip.to_bits())),
            IpAddr::V6(ip) => self.numbers.get(&ip).map(|number| Short(*number)),
        }
    }

    fn learn(&mut self, ip: IpAddr) -> Short {
        match ip {
            IpAddr::V4(ip) => Short(ip.to_bits()),
            IpAddr::V6(ip) => {
                let next = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
                let number = *self.numbers.entry(ip).or_insert(next);
                if number == next {
                    self.addresses.push(ip);
                }
                Short(number)
            }
        }
    }

    fn whole(&self, short: Short, is_v4: bool) -> IpAddr {
        if is_v4 {
            return Ipv4Addr::from_bits(short.0).into();
        }
        self.addresses.get(short.0 as usize).copied().unwrap_or(Ipv6Addr::UNSPECIFIED).into()
    }
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
        let reported = Binding {
            created_ns: WallNs::MIN,
            found_ns: WallNs::MIN,
            destroyed_ns: WallNs::MAX,
            doubtful_ns: WallNs::MAX,
            public: self.long.learn(fact.public_ip),
            public_port: fact.public_port,
            is_v4: fact.public_ip.is_ipv4(),
        };
        let of_client = self.clients.entry(client).or_default();
        let bindings = of_client.entry(connection).or_insert(Bindings::Many(Vec::new()));
        match fact.event {
            NatEvent::Created => bindings.created(reported, fact.at_ns),
            NatEvent::Found => bindings.found(reported, fact.at_ns),
            NatEvent::Destroyed => bindings.destroyed(reported, fact.at_ns),
        }
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
        let best = self
            .bindings(tuple)
            .into_iter()
            .flat_map(Bindings::as_slice)
            .filter_map(|binding| Some((binding.overlap(start_ns, end_ns)?, binding)))
            .max_by_key(|(overlap, binding)| (*overlap, binding.created_ns, binding.public_port));
        if let Some((_, binding)) = best {
            let state = if binding.is_certain(start_ns, end_ns) { NatState::Exact } else { NatState::Uncertain };
            let ip = self.long.whole(binding.public, binding.is_v4);
            return (Some(state), Some(PublicEndpoint { ip, port: Some(binding.public_port) }));
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

impl Bindings {
    fn as_slice(&self) -> &[Binding] {
        match self {
            Self::One(binding) => std::slice::from_ref(binding),
            Self::Many(bindings) => bindings,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Binding] {
        match self {
            Self::One(binding) => std::slice::from_mut(binding),
            Self::Many(bindings) => bindings,
        }
    }

    fn push(&mut self, binding: Binding) {
        match self {
            Self::Many(bindings) if bindings.is_empty() => *self = Self::One(binding),
            Self::Many(bindings) => bindings.push(binding),
            Self::One(first) => *self = Self::Many(vec![*first, binding]),
        }
    }

    /// Whether any is left.
    fn keep(&mut self, matters: impl Fn(&Binding) -> bool) -> bool {
        match self {
            Self::One(binding) => matters(binding),
            Self::Many(bindings) => {
                bindings.retain(matters);
                !bindings.is_empty()
            }
        }
    }

    fn find(&mut self, reported: &Binding, is_it: impl Fn(&Binding) -> bool) -> Option<&mut Binding> {
        let endpoint = |binding: &Binding| (binding.public, binding.public_port, binding.is_v4);
        self.as_mut_slice().iter_mut().rev().find(|known| endpoint(known) == endpoint(reported) && is_it(known))
    }

    fn created(&mut self, reported: Binding, at_ns: WallNs) {
        // A dump, or the end, was reported before the beginning.
        let begins_then = |known: &Binding| {
            let was_found_before = known.found_ns != WallNs::MIN && known.found_ns < at_ns;
            known.created_ns == WallNs::MIN && known.destroyed_ns >= at_ns && !was_found_before
        };
        if let Some(known) = self.find(&reported, begins_then) {
            known.created_ns = at_ns;
            return;
        }
        // The same beginning may be known by another clock: the event's, the connection's, or that of its reading.
        let is_known = |known: &Binding| {
            let is_twin =
                (known.created_ns.saturating_sub(at_ns)).saturating_abs() <= LEAD_NS && known.destroyed_ns >= at_ns;
            is_twin || (known.created_ns.max(known.found_ns) <= at_ns && known.destroyed_ns > at_ns)
        };
        if self.find(&reported, is_known).is_none() {
            self.push(Binding { created_ns: at_ns, ..reported });
        }
    }

    fn found(&mut self, reported: Binding, at_ns: WallNs) {
        let is_there = |known: &Binding| {
            let from_ns = if known.created_ns == WallNs::MIN { known.found_ns } else { known.created_ns - LEAD_NS };
            from_ns <= at_ns && known.destroyed_ns >= at_ns
        };
        match self.find(&reported, is_there) {
            Some(known) => known.found_ns = known.found_ns.max(at_ns),
            None => self.push(Binding { found_ns: at_ns, ..reported }),
        }
    }

    fn destroyed(&mut self, reported: Binding, at_ns: WallNs) {
        if self.find(&reported, |known| known.destroyed_ns == at_ns && known.doubtful_ns == WallNs::MAX).is_some() {
            return;
        }
        let is_open = |known: &Binding| {
            (known.destroyed_ns == WallNs::MAX || known.doubtful_ns != WallNs::MAX)
                && known.created_ns.max(known.found_ns) <= at_ns
        };
        match self.find(&reported, is_open) {
            Some(known) => (known.destroyed_ns, known.doubtful_ns) = (at_ns, WallNs::MAX),
            None => self.push(Binding { destroyed_ns: at_ns, ..reported }),
        }
    }
}

impl Binding {
    /// A dump that was made from `at_ns` on did not find it: it ended at some moment since `doubtful_ns`.
    fn end_unless_found(&mut self, at_ns: WallNs, doubtful_ns: WallNs) {
        let began_ns = self.created_ns.max(self.found_ns);
        if self.destroyed_ns == WallNs::MAX && began_ns < at_ns {
            (self.destroyed_ns, self.doubtful_ns) = (at_ns, doubtful_ns.max(began_ns));
        }
    }

    /// How much of an interval the binding covers, `None` for nothing. A single moment it covers counts as one.
    fn overlap(&self, start_ns: WallNs, end_ns: WallNs) -> Option<WallNs> {
        let from = self.created_ns.saturating_sub(LEAD_NS).max(start_ns);
        let to = self.destroyed_ns.saturating_add(TRAIL_NS).min(end_ns);
        (from <= to).then(|| to - from + 1)
    }

    /// Whether it was there for sure when a flow was seen that it overlaps: it may have begun at any time before it was found, and
    /// ended at any time since it was doubtful.
    fn is_certain(&self, start_ns: WallNs, end_ns: WallNs) -> bool {
        let began = self.created_ns != WallNs::MIN
            || self.found_ns == WallNs::MIN
            || end_ns >= self.found_ns.saturating_sub(LEAD_NS);
        began && start_ns <= self.doubtful_ns.saturating_add(TRAIL_NS)
    }

    fn facts(&self, fact: NatFact) -> impl Iterator<Item = NatFact> {
        let reported = |event, at_ns: WallNs| (![WallNs::MIN, WallNs::MAX].contains(&at_ns)).then_some((event, at_ns));
        let ended = if self.doubtful_ns == WallNs::MAX { self.destroyed_ns } else { WallNs::MAX };
        let facts = [
            reported(NatEvent::Created, self.created_ns),
            reported(NatEvent::Found, self.found_ns),
            reported(NatEvent::Destroyed, ended),
        ];
        facts.into_iter().flatten().map(move |(event, at_ns)| NatFact { event, at_ns, ..fact })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn a_binding_that_was_found_may_cover_what_was_before() {
        let mut table = NatTable::default();
        table.apply(&fact(NatEvent::Found, 10, 1, 5000));
        assert_eq!(port(&table, 1, 1, 2), (Some(NatState::Uncertain), Some(5000)));
        assert_eq!(port(&table, 1, 1, 11), (Some(NatState::Exact), Some(5000)), "it went on when it was found");
        table.apply(&fact(NatEvent::Created, 1, 1, 5000));
        assert_eq!(port(&table, 1, 1, 2), (Some(NatState::Exact), Some(5000)), "its beginning was learnt later");
    }

    fn watch(table: &mut NatTable, watch: NatWatch, at_s: i64) {
        table.apply_watch(NatWatchFact { watch, at_ns: at_s * S });
    }

    #[test]
    fn what_a_dump_does_not_find_has_ended() {
        let mut table = NatTable::default();
        watch(&mut table, NatWatch::Started, 0);
        for client in [1, 2, 3] {
            table.apply(&fact(NatEvent::Created, 10, client, 5000));
        }
        watch(&mut table, NatWatch::Lost, 50);
        table.apply(&fact(NatEvent::Found, 60, 1, 5000));
        watch(&mut table, NatWatch::Started, 60);
        assert_eq!(port(&table, 1, 70, 80), (Some(NatState::Exact), Some(5000)), "it was found");
        assert_eq!(port(&table, 2, 20, 49), (Some(NatState::Exact), Some(5000)), "nothing was lost then");
        assert_eq!(port(&table, 2, 55, 59), (Some(NatState::Uncertain), Some(5000)));
        assert_eq!(port(&table, 2, 70, 80), (Some(NatState::None), None), "it is gone");
        // The end of one was under way while the dump was made.
        table.apply(&fact(NatEvent::Destroyed, 61, 3, 5000));
        assert_eq!(port(&table, 3, 55, 59), (Some(NatState::Exact), Some(5000)));
        let mut rebuilt = NatTable::default();
        table.facts().0.iter().for_each(|fact| rebuilt.apply(fact));
        table.facts().1.into_iter().for_each(|fact| rebuilt.apply_watch(fact));
        for client in [1, 2, 3] {
            for at in 5..80 {
                assert_eq!(port(&rebuilt, client, at, at), port(&table, client, at, at), "client {client} at {at}");
            }
        }
        table.forget(65 * S);
        assert_eq!(table.len(), 1, "only what goes on stays");
    }

    #[test]
    fn a_port_is_another_clients_within_a_second() {
        let mut table = NatTable::default();
        watch(&mut table, NatWatch::Started, 0);
        let at = |event, at_ms: i64, client| NatFact { at_ns: at_ms * 1_000_000, ..fact(event, 0, client, 5000) };
        for fact in
            [at(NatEvent::Created, 10_000, 1), at(NatEvent::Destroyed, 10_300, 1), at(NatEvent::Created, 10_600, 2)]
        {
            table.apply(&fact);
        }
        assert_eq!(port(&table, 1, 10, 10), (Some(NatState::Exact), Some(5000)));
        assert_eq!(port(&table, 2, 11, 11), (Some(NatState::Exact), Some(5000)));
        assert_eq!(port(&table, 1, 13, 13), (Some(NatState::None), None));
    }

    #[test]
    fn ipv6_is_translated_too() {
        let mut table = NatTable::default();
        let client: IpAddr = "fd00::1".parse().unwrap();
        let public: IpAddr = "2001:db8::1".parse().unwrap();
        let peer: IpAddr = "2001:db8:1::1".parse().unwrap();
        let fact =
            NatFact { client_ip: client, peer_ip: peer, public_ip: public, ..fact(NatEvent::Created, 10, 1, 5000) };
        table.apply(&fact);
        let tuple = Tuple { client_ip: client, peer_ip: peer, ..tuple(1) };
        assert_eq!(table.lookup(&tuple, 11 * S, 12 * S).1.map(|found| found.ip), Some(public));
        assert_eq!(table.lookup(&Tuple { client_ip: peer, ..tuple }, 11 * S, 12 * S).1, None);
        assert_eq!(table.facts().0, [fact]);
    }

    fn any_fact() -> impl Strategy<Value = NatFact> {
        let event = prop::sample::select(vec![NatEvent::Created, NatEvent::Found, NatEvent::Destroyed]);
        (event, 0i64..100, 1u8..3, 5000u16..5002).prop_map(|(event, at, client, port)| fact(event, at, client, port))
    }

    proptest! {
        #[test]
        fn exported_facts_give_the_same_answers(mut facts in prop::collection::vec(any_fact(), 0..12), lost in 0i64..50, whole in 50i64..100) {
            facts.sort_by_key(|fact| fact.at_ns);
            let mut table = NatTable::default();
            watch(&mut table, NatWatch::Started, 0);
            facts.iter().for_each(|fact| table.apply(fact));
            watch(&mut table, NatWatch::Lost, lost);
            watch(&mut table, NatWatch::Started, whole);
            let mut rebuilt = NatTable::default();
            let (exported, watched) = table.facts();
            exported.iter().for_each(|fact| rebuilt.apply(fact));
            watched.into_iter().for_each(|fact| rebuilt.apply_watch(fact));
            for at in 0..110 {
                for client in 1..3 {
                    prop_assert_eq!(port(&rebuilt, client, at, at + 1), port(&table, client, at, at + 1));
                }
            }
        }
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
