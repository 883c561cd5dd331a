//! Succession: sessions whose end was never reported, and that were over when another took what they held.
//!
//! A session that names a device and addresses holds just these pairs: behind a repeater several people have one device address,
//! and none of them succeeds another. A session that names a device only holds it whole. All sessions of one thing are looked at
//! together, by their beginnings, in time proportional to their number (times its logarithm).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use foldhash::fast::RandomState;

use super::{Session, fold};
use crate::fact::IdentitySource;
use crate::person::Person;
use crate::record::SessionStatus;
use crate::{MacAddr, WallNs};

/// What only one session can hold at a time: a device, or an address where no device is named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Held {
    Mac(MacAddr),
    Ip(IpAddr),
}

/// What a session holds, so that two compete for it only where they have one in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Hold {
    /// A device, by a session that names addresses of these families: IPv4, IPv6.
    Device(MacAddr, [bool; 2]),
    /// An address or prefix, of a device or of none.
    Pair(Option<MacAddr>, IpAddr, u8),
}

/// Numbers for things that are compared often.
struct Numbers<K> {
    of: HashMap<K, u32, RandomState>,
}

impl<K: Eq + Hash> Numbers<K> {
    fn new() -> Self {
        Self { of: HashMap::default() }
    }

    /// From 1 on.
    fn of(&mut self, key: K) -> u32 {
        let next = u32::try_from(self.of.len() + 1).unwrap_or(u32::MAX);
        *self.of.entry(key).or_insert(next)
    }
}

/// A session that holds something.
#[derive(Clone, Copy)]
struct Holder {
    /// What it holds, and the place where it does; 0 for all places together.
    bucket: (u32, u32),
    started_ns: WallNs,
    session: u32,
}

/// What is asked of the sessions that hold a thing from some position on.
#[derive(Clone, Copy)]
struct Later {
    /// When the first began of which the end is known.
    ended_from_ns: WallNs,
    /// The first to be over of all persons, and the first of another person than that.
    over: [Option<(WallNs, u32)>; 2],
}

/// Ends sessions whose stop was lost: those that were not heard of since another took what they held. Whose device another took, but
/// with other addresses, has just its own from then on.
pub(super) fn supersede(sessions: &mut [Session]) {
    let ends = Competition::new(sessions).ends();
    for (position, [over_ns, shared_ns]) in ends {
        let session = &mut sessions[position];
        if let Some(at_ns) = over_ns.filter(|at| session.until_ns.is_none_or(|until| *at <= until)) {
            (session.ended_ns, session.until_ns) = (Some(at_ns), Some(at_ns - 1));
            session.end_cause = Some(fold::SUPERSEDED.to_owned());
            if session.status == SessionStatus::Active {
                session.status = SessionStatus::Ended;
            }
        }
        session.alone_until_ns = shared_ns.map_or(WallNs::MAX, |at_ns| at_ns - 1);
    }
}

struct Competition<'a> {
    sessions: &'a [Session],
    holds: Numbers<Hold>,
    /// Of every session: its person, and its place when it began and at last; 0 for none.
    persons: Vec<u32>,
    last_places: Vec<u32>,
    /// By bucket and beginning.
    holders: Vec<Holder>,
    of: HashMap<(u32, u32), (u32, u32), RandomState>,
    /// Beside `holders`.
    later: Vec<Later>,
}

impl<'a> Competition<'a> {
    fn new(sessions: &'a [Session]) -> Self {
        let (mut holds, mut places, mut names) = (Numbers::new(), Numbers::new(), Numbers::new());
        let mut persons = Vec::with_capacity(sessions.len());
        let mut last_places = Vec::with_capacity(sessions.len());
        let mut holders: Vec<Holder> = Vec::with_capacity(sessions.len());
        for (position, session) in sessions.iter().enumerate() {
            let person = session.person();
            persons.push(person.map_or(0, |person: Person<'_>| names.of(person)));
            let mut place = |ap: Option<MacAddr>| ap.map_or(0, |ap| places.of((session.source, &session.nas, ap)));
            let first = place(session.attachments.first().and_then(|place| place.ap_mac));
            last_places.push(place(session.attachments.last().and_then(|place| place.ap_mac)));
            for hold in own(session) {
                let (hold, session_number) = (holds.of(hold), u32::try_from(position).unwrap_or(u32::MAX));
                let holder =
                    |place| Holder { bucket: (hold, place), started_ns: session.started_ns, session: session_number };
                holders.push(holder(0));
                if first != 0 {
                    holders.push(holder(first));
                }
            }
        }
        holders.sort_unstable_by_key(|holder| (holder.bucket, holder.started_ns, holder.session));
        let mut of: HashMap<(u32, u32), (u32, u32), RandomState> = HashMap::default();
        for (position, holder) in holders.iter().enumerate() {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            of.entry(holder.bucket).or_insert((position, position)).1 = position + 1;
        }
        let mut competition = Self { sessions, holds, persons, last_places, holders, of, later: Vec::new() };
        competition.later = competition.look_ahead();
        competition
    }

    /// For each holder what is true of it and those after it in its bucket.
    fn look_ahead(&self) -> Vec<Later> {
        let none = Later { ended_from_ns: WallNs::MAX, over: [None, None] };
        let mut later = vec![none; self.holders.len()];
        for position in (0..self.holders.len()).rev() {
            let holder = self.holders[position];
            let session = &self.sessions[holder.session as usize];
            let next = later.get(position + 1).filter(|_| self.holders[position + 1].bucket == holder.bucket);
            let mut here = next.copied().unwrap_or(none);
            if session.ended_ns.is_some() {
                here.ended_from_ns = holder.started_ns;
            }
            let person = self.persons[holder.session as usize];
            if let Some(until_ns) = session.until_ns.filter(|_| person != 0) {
                here.over = first_over(here.over, (until_ns.saturating_add(1), person));
            }
            later[position] = here;
        }
        later
    }

    /// Of sessions that were over sooner than was known: when, and when another had their device, with whatever address.
    fn ends(&self) -> Vec<(usize, [Option<WallNs>; 2])> {
        let may_be_over = |session: &Session| {
            // What stands in a file is true until it is taken out.
            (session.is_reset || matches!(session.status, SessionStatus::TimedOut | SessionStatus::Active))
                && session.source != IdentitySource::File
        };
        let candidates = self.sessions.iter().enumerate().filter(|(_, session)| may_be_over(session));
        let ends = candidates.map(|(position, session)| {
            let over_ns = self.over_ns(position, session, rivals(session));
            (position, [over_ns, self.over_ns(position, session, on_its_device(session))])
        });
        ends.filter(|(_, ends)| ends.iter().any(Option::is_some)).collect()
    }

    /// When a session was over that was silent since another began.
    ///
    /// At once where both are on one access point, which has a device once; else where silence has shown it, or where it never said
    /// how soon it would be heard of, and the other has come and gone. Where one may have its device still and somebody else had it
    /// meanwhile: not before that one left; until then both claim it.
    fn over_ns(&self, position: usize, session: &Session, rivals: impl Iterator<Item = Hold>) -> Option<WallNs> {
        let silent_ns = session.last_heard_ns.max(session.started_ns);
        let (place, person) = (self.last_places[position], self.persons[position]);
        let mut first: Option<WallNs> = None;
        let mut may_be = |at_ns: Option<WallNs>| first = [first, at_ns].into_iter().flatten().min();
        for hold in rivals {
            let Some(hold) = self.holds.of.get(&hold) else { continue };
            if let Some(next) = self.next((*hold, 0), silent_ns) {
                let later = self.later[next];
                if session.status == SessionStatus::TimedOut {
                    may_be(Some(self.holders[next].started_ns));
                }
                if session.interim_interval_s.is_none() {
                    may_be(Some(later.ended_from_ns).filter(|at| *at != WallNs::MAX));
                }
                let others = later.over.into_iter().flatten().filter(|(_, other)| person != 0 && *other != person);
                may_be(others.map(|(at_ns, _)| at_ns).min());
            }
            if place != 0 {
                may_be(self.next((*hold, place), silent_ns).map(|next| self.holders[next].started_ns));
            }
        }
        first
    }

    /// The first holder in a bucket that began after a moment.
    fn next(&self, bucket: (u32, u32), after_ns: WallNs) -> Option<usize> {
        let (from, to) = self.of.get(&bucket).map(|(from, to)| (*from as usize, *to as usize))?;
        let next = from + self.holders[from..to].partition_point(|holder| holder.started_ns <= after_ns);
        (next < to).then_some(next)
    }
}

/// The first two to be over, of two persons.
fn first_over(known: [Option<(WallNs, u32)>; 2], new: (WallNs, u32)) -> [Option<(WallNs, u32)>; 2] {
    match known {
        [None, _] => [Some(new), None],
        [Some(first), _] if new.1 == first.1 => [Some(first.min(new)), known[1]],
        [Some(first), _] if new < first => [Some(new), Some(first)],
        [Some(first), second] => [Some(first), Some(second.map_or(new, |second| second.min(new)))],
    }
}

/// Families in which a session names addresses: IPv4, IPv6.
fn families(session: &Session) -> [bool; 2] {
    [true, false].map(|is_v4| session.holdings.iter().any(|held| held.ip.is_ipv4() == is_v4))
}

fn pairs(session: &Session) -> impl Iterator<Item = Hold> {
    let mac = session.client_mac;
    // A prefix without a device may be a whole network's.
    let holdings = session.holdings.iter().filter(move |held| mac.is_some() || held.is_host());
    holdings.map(move |held| Hold::Pair(mac, held.ip, held.prefix_len))
}

/// What others find a session by.
fn own(session: &Session) -> impl Iterator<Item = Hold> {
    let device = session.client_mac.map(|mac| Hold::Device(mac, families(session)));
    let is_there = session.status != SessionStatus::Rejected;
    device.into_iter().chain(pairs(session)).filter(move |_| is_there)
}

const FAMILIES: [[bool; 2]; 4] = [[false, false], [true, false], [false, true], [true, true]];

/// Its device, whoever names whatever address of it.
fn on_its_device(session: &Session) -> impl Iterator<Item = Hold> {
    session.client_mac.into_iter().flat_map(|mac| FAMILIES.map(|families| Hold::Device(mac, families)))
}

/// What a session competes for: the pairs it names, and its device with all who name addresses in none of its families.
fn rivals(session: &Session) -> impl Iterator<Item = Hold> {
    let [v4, v6] = families(session);
    let devices = session.client_mac.into_iter().flat_map(move |mac| {
        let apart = move |other: &[bool; 2]| (v4 && other[0]) || (v6 && other[1]);
        FAMILIES.into_iter().filter(move |other| !apart(other)).map(move |other| Hold::Device(mac, other))
    });
    devices.chain(pairs(session))
}

/// Of sessions that may yet prove to have been over: when the last was heard of, by what they hold. Their successors must be known then.
pub(super) fn awaited(sessions: &[Session]) -> HashMap<Held, WallNs, RandomState> {
    let mut awaited: HashMap<Held, WallNs, RandomState> = HashMap::default();
    for session in sessions.iter().filter(|session| session.status == SessionStatus::Active || session.is_reset) {
        for held in held(session) {
            let heard_ns = awaited.entry(held).or_insert(session.last_heard_ns);
            *heard_ns = session.last_heard_ns.min(*heard_ns);
        }
    }
    awaited
}

pub(super) fn held(session: &Session) -> impl Iterator<Item = Held> {
    let device = session.client_mac.map(Held::Mac);
    let addresses = session.holdings.iter().filter(|held| held.is_host()).map(|held| Held::Ip(held.ip));
    let addresses = addresses.filter(move |_| device.is_none());
    device.into_iter().chain(addresses).filter(|_| session.status != SessionStatus::Rejected)
}
