//! Detail: how much of the disk the flows of one client may take, so that nobody can fill it.
//!
//! A flow is a row of each segment it lives in. What the rows of a client cost in any hour is bounded, and what those of an interface
//! cost, because a guest may have many addresses. Beyond that packets of flows that have no row yet go to totals of their client, as they do in the
//! kernel where there is no room. Decides from keys and times alone, and holds a few megabytes whatever comes.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hotspot_common::FlowKey;

use crate::fact::{FlowDelta, Overflow};
use crate::merge::flow_key;

/// What a row of a flow takes on disk at most, with its part of the index: floods to addresses and ports at random are the dearest
/// (docs/performance.md).
pub const ROW_BYTES: u64 = 64;

const HOUR_NS: u64 = 3_600_000_000_000;
/// A client that was there before this time is no newcomer.
const NEW_FOR_NS: u64 = 600_000_000_000;
/// Clients with an account; further ones share one for each interface until there is room.
const CLIENTS_MAX: usize = 65_536;
const ROOM_EVERY_NS: u64 = 100_000_000;
/// Flows of which it is remembered that they have a row; one that is forgotten is charged once more.
const FLOWS: usize = 1 << 20;
/// Totals of a segment: for each client, and for each interface. Further ones are added to one of the client, and one of the interface.
const TOTALS_PER_CLIENT: u32 = 16;
const TOTALS_PER_INTERFACE: u32 = 16_384;

/// Bytes of disk in any hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetailLimits {
    pub client: u64,
    pub interface: u64,
}

impl Default for DetailLimits {
    /// A million flows of one client, 64 times as many of an interface: more than anybody's who is not flooding.
    fn default() -> Self {
        Self { client: 64 << 20, interface: 4 << 30 }
    }
}

/// Interface and device.
type Client = (u8, [u8; 6]);

/// The account of those for whom there is none.
const NOBODY: [u8; 6] = [0; 6];

/// What was spent: at what moment all of it will be forgiven. Half of the limit may be spent at once, and as much is forgiven in an
/// hour, so no hour costs more than the limit.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    until_ns: u64,
}

impl Spent {
    /// What it would be with another row; `None` where that is more than `part_ns` of an hour's worth.
    fn with_row(self, now_ns: u64, limit: u64, part_ns: u64) -> Option<Self> {
        let row_ns = ROW_BYTES.saturating_mul(2 * HOUR_NS) / limit.max(1);
        let until_ns = self.until_ns.max(now_ns).saturating_add(row_ns);
        (until_ns - now_ns <= part_ns).then_some(Self { until_ns })
    }
}

#[derive(Clone, Copy, Debug)]
struct Account {
    spent: Spent,
    since_ns: u64,
}

/// Whose flows are kept, and whose total the others go to.
#[derive(Debug)]
pub struct Detail {
    limits: DetailLimits,
    clients: HashMap<Client, Account, RandomState>,
    interfaces: HashMap<u8, Spent, RandomState>,
    /// When room was made for clients last.
    made_room_ns: u64,
    /// Which flows have a row in this segment: the place is a part of a hash, and the value another.
    charged: Vec<u32>,
    hasher: RandomState,
    segment: u64,
    totals: HashSet<FlowKey, RandomState>,
    /// Totals by client, and by interface.
    totals_of: HashMap<Client, u32, RandomState>,
}

impl Default for Detail {
    fn default() -> Self {
        Self::new(DetailLimits::default())
    }
}

impl Detail {
    #[must_use]
    pub fn new(limits: DetailLimits) -> Self {
        Self {
            limits,
            clients: HashMap::default(),
            interfaces: HashMap::default(),
            made_room_ns: 0,
            charged: Vec::new(),
            hasher: RandomState::default(),
            segment: 0,
            totals: HashSet::default(),
            totals_of: HashMap::default(),
        }
    }

    /// Says which segment the flows from now on are of: each has a row of its own there.
    pub fn segment(&mut self, sequence: u64) {
        if self.segment != sequence {
            self.segment = sequence;
            self.totals.clear();
            self.totals_of.clear();
        }
    }

    /// Whether a flow is kept in detail; charges its client where that makes a row. `now_ns`: by a clock that is never set.
    pub fn keeps(&mut self, key: &FlowKey, now_ns: u64) -> bool {
        if self.is_charged(key) {
            return true;
        }
        let (client, limits) = (self.client(key, now_ns), self.limits);
        let account = self.clients.entry(client).or_insert(Account { spent: Spent::default(), since_ns: now_ns });
        let of_interface = self.interfaces.entry(client.0).or_default();
        // One half of an interface's is there for everybody, the other for those who were there before.
        let is_new = client.1 == NOBODY || now_ns.saturating_sub(account.since_ns) < NEW_FOR_NS;
        let part_ns = if is_new { HOUR_NS / 2 } else { HOUR_NS };
        let spent = account.spent.with_row(now_ns, limits.client, HOUR_NS);
        let Some((own, all)) = spent.zip(of_interface.with_row(now_ns, limits.interface, part_ns)) else {
            return false;
        };
        (account.spent, *of_interface) = (own, all);
        self.charge(key);
        true
    }

    /// Notes a flow that is in a journal already, as an earlier agent left it.
    pub fn recall(&mut self, key: &FlowKey, now_ns: u64) {
        // What is beyond its limit is there all the same, and cannot cost more than the limit.
        let _ = self.keeps(key, now_ns);
    }

    /// Whose total a packet of a client goes to: its own, or a wider one where there are too many.
    pub fn total_of(&mut self, key: &FlowKey) -> FlowKey {
        let own =
            FlowKey { client_ip: key.client_ip, client_mac: key.client_mac, origin: key.origin, ..FlowKey::default() };
        let of_device = FlowKey { client_ip: [0; 16], ..own };
        let of_interface = FlowKey { client_mac: NOBODY, ..of_device };
        [own, of_device].into_iter().find(|total| self.has_total(total)).unwrap_or(of_interface)
    }

    /// Whether there is such a total in this segment, or room for one.
    fn has_total(&mut self, total: &FlowKey) -> bool {
        // Both directions are one row.
        let row = flow_key(total);
        if self.totals.contains(&row) {
            return true;
        }
        let interface = total.interface();
        let of_interface = self.totals_of.get(&(interface, NOBODY)).copied().unwrap_or(0);
        let of_client = self.totals_of.get(&(interface, total.client_mac)).copied().unwrap_or(0);
        let is_of_device = total.client_ip == [0; 16];
        if of_interface >= TOTALS_PER_INTERFACE || (of_client >= TOTALS_PER_CLIENT && !is_of_device) {
            return false;
        }
        self.totals.insert(row);
        *self.totals_of.entry((interface, NOBODY)).or_default() += 1;
        *self.totals_of.entry((interface, total.client_mac)).or_default() += 1;
        true
    }

    fn client(&mut self, key: &FlowKey, now_ns: u64) -> Client {
        let client = (key.interface(), key.client_mac);
        if self.clients.contains_key(&client) {
            return client;
        }
        // All are looked at for it, so not for every packet of somebody who has very many addresses.
        if self.clients.len() >= CLIENTS_MAX && now_ns.saturating_sub(self.made_room_ns) >= ROOM_EVERY_NS {
            self.made_room_ns = now_ns;
            self.make_room(now_ns);
        }
        if self.clients.len() >= CLIENTS_MAX { (key.interface(), NOBODY) } else { client }
    }

    /// Forgets clients to whom all is forgiven: newcomers, and where that is not enough, others.
    fn make_room(&mut self, now_ns: u64) {
        let owes = |account: &Account| account.spent.until_ns > now_ns;
        self.clients.retain(|_, account| owes(account) || now_ns.saturating_sub(account.since_ns) >= NEW_FOR_NS);
        if self.clients.len() > CLIENTS_MAX / 8 * 7 {
            self.clients.retain(|_, account| owes(account));
        }
    }

    fn is_charged(&self, key: &FlowKey) -> bool {
        let (place, value) = self.place(key);
        self.charged.get(place) == Some(&value)
    }

    fn charge(&mut self, key: &FlowKey) {
        let (place, value) = self.place(key);
        if self.charged.is_empty() {
            self.charged.resize(FLOWS, 0);
        }
        self.charged[place] = value;
    }

    fn place(&self, key: &FlowKey) -> (usize, u32) {
        let hash = self.hasher.hash_one((*flow_key(key).words(), self.segment));
        let [low, high] = [hash & u64::from(u32::MAX), hash >> u32::BITS].map(|half| u32::try_from(half).unwrap_or(0));
        // 0 is an empty place.
        (low as usize % FLOWS, high.max(1))
    }
}

/// What was not kept in detail, added up by client.
#[derive(Debug, Default)]
pub struct Totals {
    by_key: HashMap<FlowKey, Overflow, RandomState>,
}

impl Totals {
    /// Adds a delta to the total with a key; see [`Detail::total_of`].
    pub fn add(&mut self, key: FlowKey, delta: &FlowDelta) {
        let FlowDelta { first_ns, last_ns, packets, bytes, .. } = *delta;
        self.join(Overflow { key, first_ns, last_ns, packets, bytes });
    }

    /// Adds a total to the one with its key.
    pub fn join(&mut self, other: Overflow) {
        let empty = Overflow { packets: 0, bytes: 0, ..other };
        let total = self.by_key.entry(other.key).or_insert(empty);
        total.first_ns = total.first_ns.min(other.first_ns);
        total.last_ns = total.last_ns.max(other.last_ns);
        total.packets += other.packets;
        total.bytes += other.bytes;
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All of them, by key.
    #[must_use]
    pub fn take(&mut self) -> Vec<Overflow> {
        let mut totals: Vec<Overflow> = self.by_key.drain().map(|(_, total)| total).collect();
        totals.sort_unstable_by_key(|total| *total.key.words());
        totals
    }
}

#[cfg(test)]
mod tests {
    use hotspot_common::Direction;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn flow(client: u32, number: u32) -> FlowKey {
        let mut key = FlowKey { protocol: 17, peer_port: 443, ..FlowKey::default() };
        key.client_mac[0] = 2;
        key.client_mac[2..].copy_from_slice(&client.to_be_bytes());
        key.peer_ip[10..12].copy_from_slice(&[0xff, 0xff]);
        key.peer_ip[12..].copy_from_slice(&number.to_be_bytes());
        key
    }

    fn detail(client_rows: u64, interface_rows: u64) -> Detail {
        Detail::new(DetailLimits { client: client_rows * ROW_BYTES, interface: interface_rows * ROW_BYTES })
    }

    /// How many of so many new flows of a client are kept, from flow `from` on.
    fn kept(detail: &mut Detail, client: u32, from: u32, count: u32, now_s: u64) -> usize {
        (from..from + count).filter(|number| detail.keeps(&flow(client, *number), now_s * SECOND)).count()
    }

    #[test]
    fn no_hour_costs_a_client_more_than_its_limit_and_the_next_client_nothing() {
        let mut detail = detail(2_000, 1_000_000);
        let mut at = Vec::new();
        // A flood of three hours, a flow a second at least.
        for now_s in 0..3 * 3_600 {
            let first = u32::try_from(now_s).unwrap() * 20;
            at.extend(vec![now_s; kept(&mut detail, 1, first, 20, now_s)]);
        }
        let most = (0..at.len()).map(|from| at[from..].iter().take_while(|now_s| **now_s < at[from] + 3_600).count());
        let most = most.max().unwrap();
        assert!((1_900..=2_000).contains(&most), "{most}");
        assert_eq!(kept(&mut detail, 2, 0, 900, 3 * 3_600), 900, "somebody else");
    }

    #[test]
    fn a_flow_is_charged_once_in_a_segment_whichever_way_its_packets_go() {
        let mut detail = detail(200, 1_000_000);
        let mut back = flow(1, 7);
        back.origin = FlowKey::origin(0, Direction::In);
        for _ in 0..1_000 {
            assert!(detail.keeps(&flow(1, 7), SECOND) && detail.keeps(&back, SECOND));
        }
        assert_eq!(kept(&mut detail, 1, 100, 1_000, 1), 99, "half of the limit at once, less the one flow");
        assert!(detail.keeps(&back, SECOND), "a flow that has a row goes on");
        detail.segment(2);
        assert!(!detail.keeps(&back, SECOND), "in another segment it would have another");
    }

    #[test]
    fn many_addresses_do_not_get_more_than_an_interface_has_and_leave_half_to_those_who_were_there() {
        let mut detail = detail(2_000, 20_000);
        assert_eq!(kept(&mut detail, 1, 0, 1, 0), 1);
        let now_s = NEW_FOR_NS / SECOND + 1;
        let flood = (10..40_010).filter(|client| kept(&mut detail, *client, 0, 1, now_s) == 1).count();
        assert!((4_999..=5_001).contains(&flood), "{flood}");
        assert_eq!(kept(&mut detail, 1, 1, 900, now_s), 900, "who was there before");
        let mut elsewhere = flow(50_000, 0);
        elsewhere.origin = FlowKey::origin(3, Direction::Out);
        assert!(detail.keeps(&elsewhere, now_s * SECOND), "another interface has its own");
    }

    #[test]
    fn memory_is_bounded_and_a_newcomer_has_room_again_when_the_flood_is_forgiven() {
        let mut detail = Detail::default();
        let clients = u32::try_from(CLIENTS_MAX).unwrap() * 3;
        for client in 0..clients {
            detail.keeps(&flow(client, 0), SECOND);
            detail.keeps(&flow(client, 1), SECOND);
        }
        assert!(detail.clients.len() <= CLIENTS_MAX + 1);
        assert!(detail.keeps(&flow(clients + 1, 0), 3_600 * SECOND));
        assert!(detail.clients.contains_key(&(0, flow(clients + 1, 0).client_mac)));
    }

    #[test]
    fn totals_are_bounded_for_a_client_with_many_addresses_and_for_an_interface_with_many_clients() {
        let mut detail = Detail::default();
        let of_address = |client: u32, address: u8| {
            let mut key = flow(client, 0);
            key.client_ip[15] = address;
            key
        };
        let rows = |detail: &mut Detail, keys: &mut dyn Iterator<Item = FlowKey>| {
            keys.map(|key| flow_key(&detail.total_of(&key))).collect::<HashSet<_>>()
        };
        let one = rows(&mut detail, &mut (1..=200).map(|address| of_address(1, address)));
        assert_eq!(one.len(), TOTALS_PER_CLIENT as usize + 1);
        assert!(one.iter().all(|row| row.client_mac == flow(1, 0).client_mac));
        let many = rows(&mut detail, &mut (2..40_000).map(|client| of_address(client, 1)));
        assert!(many.len() + one.len() <= TOTALS_PER_INTERFACE as usize + 1, "{}", many.len());
        assert!(many.iter().any(|row| row.client_mac == NOBODY));
        detail.segment(2);
        assert_eq!(detail.total_of(&of_address(39_999, 1)).client_mac, flow(39_999, 0).client_mac);
    }

    #[test]
    fn totals_hold_every_packet() {
        let mut totals = Totals::default();
        for number in 1..=10 {
            let delta = FlowDelta {
                key: flow(1, number),
                first_ns: i64::from(number),
                last_ns: i64::from(number) + 5,
                packets: u64::from(number),
                bytes: 60,
                tcp_flags: 0,
            };
            totals.add(FlowKey::default(), &delta);
        }
        let taken = totals.take();
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].packets, taken[0].bytes, taken[0].first_ns, taken[0].last_ns), (55, 600, 1, 15));
        assert!(totals.is_empty());
    }
}
