//! Sessions: who held which device and address, when, from reports that come late, twice, or not at all.
//!
//! Guarantees that the order in which reports arrive does not matter, and that applying one again changes nothing: sessions are
//! always folded anew from the reports known about them, by the time they are about. Holds a few reports per session that is
//! going on or ended within [`SessionTimeouts::keep_ns`]; reports that say nothing new are forgotten with each segment.

mod claims;
mod fold;
mod resets;
mod succession;
mod threads;

use std::cmp::Ordering;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

pub use claims::Claims;
pub(crate) use claims::Span;

use self::resets::Resets;
use self::threads::Threads;
use crate::fact::{IdentitySource, SessionCounters, SessionDetails, SessionEvent, SessionFact};
use crate::person::Person;
use crate::record::{SessionRecord, SessionStatus};
use crate::{MacAddr, WallNs};

const SECOND: WallNs = 1_000_000_000;
/// Times and lengths come in whole seconds: what they say of one moment differs by less than this.
const ROUNDED_NS: WallNs = 2 * SECOND;

/// Flows of a later segment begin at most this long before the end of the one that was sealed: their first packets were still in
/// the kernel. What reports say of earlier times cannot be asked any more.
const ASKED_BACK_NS: WallNs = 180 * SECOND;

/// When a session nobody reports about any more is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimeouts {
    /// Added to twice the announced interim interval.
    pub grace_ns: WallNs,
    /// For sessions that announced no interim interval.
    pub silence_max_ns: WallNs,
    /// How long an ended session is kept for flows and reports that come late.
    pub keep_ns: WallNs,
}

impl Default for SessionTimeouts {
    fn default() -> Self {
        Self { grace_ns: 60 * SECOND, silence_max_ns: 24 * 3600 * SECOND, keep_ns: 3600 * SECOND }
    }
}

impl SessionTimeouts {
    /// How long a session is silent before it is over.
    pub(crate) fn silence_ns(&self, interim_interval_s: Option<u32>) -> WallNs {
        interim_interval_s.map_or(self.silence_max_ns, |interval| 2 * WallNs::from(interval) * SECOND + self.grace_ns)
    }
}

/// An address or prefix a session named, and from when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    pub ip: IpAddr,
    pub prefix_len: u8,
    pub from_ns: WallNs,
    pub to_ns: Option<WallNs>,
    /// When it was first named; what is named first is taken to have been held before.
    named_ns: WallNs,
}

impl Holding {
    fn covers(&self, ip: IpAddr, at_ns: WallNs) -> bool {
        at_ns >= self.from_ns && self.to_ns.is_none_or(|to| at_ns < to) && in_prefix(ip, self.ip, self.prefix_len)
    }

    fn is_host(&self) -> bool {
        self.prefix_len == host_len(self.ip)
    }
}

/// Where a session's device was attached, from some moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub from_ns: WallNs,
    pub ap_mac: Option<MacAddr>,
    pub ssid: Option<String>,
    pub nas_port: Option<String>,
}

/// One life of a session id: one user on one device, from a beginning to an end. An id may have several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub session_id: String,
    pub user: Option<String>,
    pub auth_method: Option<String>,
    pub source: IdentitySource,
    pub client_mac: Option<MacAddr>,
    pub holdings: Vec<Holding>,
    /// By time, never empty.
    pub attachments: Vec<Attachment>,
    pub nas: Option<String>,
    pub started_ns: WallNs,
    /// As reported or concluded.
    pub ended_ns: Option<WallNs>,
    pub end_cause: Option<String>,
    pub counters: Option<SessionCounters>,
    pub details: Option<Arc<SessionDetails>>,
    pub status: SessionStatus,
    /// The last moment it covers: a time reported in whole seconds stands for that second.
    until_ns: Option<WallNs>,
    /// The last moment at which no other had its device.
    alone_until_ns: WallNs,
    last_heard_ns: WallNs,
    /// When the last of its reports to arrive did.
    last_received_ns: WallNs,
    interim_interval_s: Option<u32>,
    /// Which thread of the table it is from, and where its reports begin there.
    thread: u32,
    first_report: usize,
    /// When it began by the first of its reports that says so; later ones correct that by what is rounded, and no further.
    told_ns: Option<WallNs>,
    /// It began no sooner, because the life before lasted until then.
    floor_ns: WallNs,
    /// The life before is told from it by what was reported, not by a reset alone.
    is_cut: bool,
    /// What ended it is a reset of its NAS: it was over by then, and may have been before.
    is_reset: bool,
}

impl Session {
    #[must_use]
    pub fn covers(&self, at_ns: WallNs) -> bool {
        self.status != SessionStatus::Rejected
            && self.started_ns <= at_ns
            && self.until_ns.is_none_or(|until| at_ns <= until)
    }

    /// Whether the session named this address for that moment.
    #[must_use]
    pub fn holds(&self, ip: IpAddr, at_ns: WallNs) -> bool {
        self.holdings.iter().any(|holding| holding.covers(ip, at_ns))
    }

    /// Whether it says who, and not only which device: a MAC address names nobody.
    #[must_use]
    pub fn names_person(&self) -> bool {
        self.person().is_some()
    }

    pub(crate) fn person(&self) -> Option<Person<'_>> {
        let chargeable = self.details.as_deref().and_then(|details| details.chargeable_user.as_deref());
        Person::new(self.user.as_deref(), chargeable, self.client_mac)
    }

    /// Whether it had named addresses of this one's family by then, and never this one: it is somebody's with another address.
    #[must_use]
    pub(crate) fn is_elsewhere(&self, ip: IpAddr, at_ns: WallNs) -> bool {
        let of_family = || self.holdings.iter().filter(|held| held.ip.is_ipv4() == ip.is_ipv4());
        of_family().any(|held| held.named_ns <= at_ns.saturating_add(ROUNDED_NS))
            && of_family().all(|held| !in_prefix(ip, held.ip, held.prefix_len))
    }

    /// Whether it speaks for its device whatever the address: since another took the device it has its own addresses only.
    pub(crate) const fn is_alone(&self, at_ns: WallNs) -> bool {
        at_ns <= self.alone_until_ns
    }

    /// Which of [`Self::attachments`] counts at a moment.
    #[must_use]
    pub fn attachment_at(&self, at_ns: WallNs) -> usize {
        self.attachments.partition_point(|attachment| attachment.from_ns <= at_ns).saturating_sub(1)
    }

    /// When it began or ceased to hold an address, was attached elsewhere, or lost its device to another.
    pub(crate) fn changes(&self) -> impl Iterator<Item = WallNs> {
        let held = self.holdings.iter();
        let held = held.flat_map(|held| [Some(held.from_ns), held.to_ns, Some(held.named_ns - ROUNDED_NS)]).flatten();
        let alone = [self.alone_until_ns, self.alone_until_ns.saturating_add(1)];
        held.chain(self.attachments.iter().map(|attachment| attachment.from_ns)).chain(alone)
    }

    fn record(mut self) -> SessionRecord {
        let mut client_ips: Vec<IpAddr> =
            self.holdings.iter().filter(|held| held.is_host()).map(|held| held.ip).collect();
        client_ips.sort_unstable();
        client_ips.dedup();
        let prefixes = self.holdings.iter().filter(|held| !held.is_host());
        let mut client_prefixes: Vec<(IpAddr, u8)> = prefixes.map(|held| (held.ip, held.prefix_len)).collect();
        client_prefixes.sort_unstable();
        client_prefixes.dedup();
        let (ap_mac, ssid, nas_port) =
            self.attachments.pop().map_or((None, None, None), |last| (last.ap_mac, last.ssid, last.nas_port));
        SessionRecord {
            session_id: self.session_id,
            user: self.user,
            auth_method: self.auth_method,
            source: self.source,
            client_mac: self.client_mac,
            client_ips,
            client_prefixes,
            ap_mac,
            ssid,
            nas: self.nas,
            nas_port,
            started_ns: self.started_ns,
            ended_ns: self.ended_ns,
            end_cause: self.end_cause,
            counters: self.counters,
            details: self.details,
            status: self.status,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    source: IdentitySource,
    nas: Option<String>,
    session_id: String,
}

/// Session ids of one NAS that are known at a time. With this many reports of a NAS say nothing of who is there.
pub const SESSIONS_PER_NAS_MAX: usize = 262_144;

/// All reports that can still matter.
#[derive(Clone, Debug, Default)]
pub struct SessionTable {
    /// Per session id, by time.
    reports: BTreeMap<Key, Vec<SessionFact>>,
    resets: Resets,
    /// Ids by NAS.
    known: HashMap<(IdentitySource, Option<String>), usize, RandomState>,
    left_out: u64,
}

impl SessionTable {
    /// Applies a report; again has no effect. No report is about a time after its arrival: a clock that is ahead is held back.
    pub fn apply(&mut self, mut fact: SessionFact) {
        fact.at_ns = fact.at_ns.min(fact.received_ns);
        fact.client_mac = fact.client_mac.filter(|mac| mac.is_device());
        fact.ap_mac = fact.ap_mac.filter(|mac| mac.is_device());
        if fact.event == SessionEvent::NasReset {
            self.resets.apply(fact);
        } else {
            // A portal's ids are unique by themselves: what ends a session need not repeat where it was.
            let nas = fact.nas.clone().filter(|_| fact.source != IdentitySource::Portal);
            let key = Key { source: fact.source, nas, session_id: fact.session_id.clone() };
            match self.reports.entry(key) {
                Entry::Occupied(known) => insert(known.into_mut(), fact),
                Entry::Vacant(new) => {
                    let known = self.known.entry((fact.source, fact.nas.clone())).or_default();
                    if *known >= SESSIONS_PER_NAS_MAX {
                        self.left_out += 1;
                        return;
                    }
                    *known += 1;
                    new.insert(vec![fact]);
                }
            }
        }
    }

    /// Reports that were left out since [`Self::forget`], because their NAS has more sessions than [`SESSIONS_PER_NAS_MAX`].
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Every session, ended by what ended it: a stop, its NAS, its successor, or silence until `now_ns`.
    #[must_use]
    pub fn sessions(&self, timeouts: &SessionTimeouts, now_ns: WallNs) -> Vec<Session> {
        let mut sessions = Vec::with_capacity(self.reports.len());
        let mut number = 0;
        for reports in self.reports.values() {
            for thread in threads::threads(reports, &self.resets, timeouts).each() {
                fold::fold(thread, number, &self.resets, timeouts, now_ns, &mut sessions);
                number += 1;
            }
        }
        succession::supersede(&mut sessions);
        sessions
    }

    /// Sessions that were there at some moment after `from_ns` and until `to_ns`, or about which something arrived since `received_ns`:
    /// reports that come late are often about sessions that were over before. Segments adjoin: the moment they share is the earlier one's.
    #[must_use]
    pub fn records(sessions: Vec<Session>, from_ns: WallNs, to_ns: WallNs, received_ns: WallNs) -> Vec<SessionRecord> {
        sessions
            .into_iter()
            .filter(|session| {
                let is_there = session.ended_ns.is_none_or(|end| end > from_ns);
                let is_news = session.last_heard_ns > from_ns || session.last_received_ns >= received_ns;
                (is_there || is_news) && session.started_ns <= to_ns
            })
            .map(Session::record)
            .collect()
    }

    /// Forgets what cannot matter to a segment after `now_ns`, given what [`Self::sessions`] made of the reports: lives that ended
    /// long ago, and reports that say nothing new.
    pub fn forget(&mut self, sessions: &[Session], timeouts: &SessionTimeouts, now_ns: WallNs) {
        let before_ns = now_ns - timeouts.keep_ns;
        let awaited = succession::awaited(sessions);
        let may_succeed = |life: &Session| {
            succession::held(life).any(|held| awaited.get(&held).is_some_and(|at| *at < life.started_ns))
        };
        let matters = |life: &Session| {
            let is_recent = life.ended_ns.is_none_or(|end| end >= before_ns) || life.last_heard_ns >= before_ns;
            is_recent || may_succeed(life)
        };
        let mut lives = sessions.iter().peekable();
        let (resets, mut number) = (&self.resets, 0);
        self.reports.retain(|_, reports| {
            let mut first_that_matters = || {
                let of_thread = std::iter::from_fn(|| lives.next_if(|life| life.thread == number));
                let from = first_that_matters(of_thread, matters);
                number += 1;
                from
            };
            let asked_ns = now_ns - ASKED_BACK_NS;
            if let Threads::Several(threads) = threads::threads(reports, resets, timeouts) {
                // From now on they are what they were taken for.
                let kept = threads.into_iter().flat_map(|mut thread| {
                    let from = first_that_matters().unwrap_or(thread.len());
                    thread.drain(..from);
                    drop_redundant(&mut thread, resets, asked_ns);
                    thread
                });
                *reports = kept.collect();
                reports.sort_by(order);
            } else {
                reports.drain(..first_that_matters().unwrap_or(reports.len()));
                drop_redundant(reports, resets, asked_ns);
            }
            !reports.is_empty()
        });
        self.known.clear();
        for first in self.reports.values().filter_map(|reports| reports.first()) {
            *self.known.entry((first.source, first.nas.clone())).or_default() += 1;
        }
        self.left_out = 0;
        // A reset matters as long as a session it ended; and one whose last report is still to come may have begun long before.
        self.resets.forget_before(before_ns - timeouts.silence_max_ns);
    }

    /// Reports that make an equal table.
    #[must_use]
    pub fn facts(&self) -> Vec<SessionFact> {
        self.each_fact().cloned().collect()
    }

    /// The same, one after the other.
    pub fn each_fact(&self) -> impl Iterator<Item = &SessionFact> {
        self.resets.facts().chain(self.reports.values().flatten())
    }
}

/// Which of a thread's reports is the first that still matters.
fn first_that_matters<'a>(
    lives: impl Iterator<Item = &'a Session>,
    matters: impl Fn(&Session) -> bool,
) -> Option<usize> {
    let (mut before, mut keep_from) = (0, None);
    for life in lives {
        if keep_from.is_none() && matters(life) {
            // What was reported of the life before says that this one began no sooner.
            keep_from = Some(if life.is_cut { before } else { life.first_report });
        }
        if life.status != SessionStatus::Rejected {
            before = life.first_report;
        }
    }
    keep_from
}

/// Puts a report in its place; one that is known stays once, with its earliest arrival.
fn insert(reports: &mut Vec<SessionFact>, fact: SessionFact) {
    match reports.binary_search_by(|known| order(known, &fact)) {
        Ok(position) => reports[position].received_ns = reports[position].received_ns.min(fact.received_ns),
        Err(position) => reports.insert(position, fact),
    }
}

/// The order of a session's reports: total over all they say, so that it does not depend on how they arrived.
fn order(left: &SessionFact, right: &SessionFact) -> Ordering {
    let rank = |fact: &SessionFact| match fact.event {
        SessionEvent::NasReset => 0u8,
        SessionEvent::Start => 1,
        SessionEvent::Interim | SessionEvent::Rejected => 2,
        SessionEvent::Stop => 3,
    };
    let is_rejected = |fact: &SessionFact| fact.event == SessionEvent::Rejected;
    let counted = |fact: &SessionFact| {
        fact.counters.map(|counted| (counted.packets_out, counted.bytes_out, counted.packets_in, counted.bytes_in))
    };
    left.at_ns
        .cmp(&right.at_ns)
        .then_with(|| (rank(left), is_rejected(left)).cmp(&(rank(right), is_rejected(right))))
        .then_with(|| (&left.nas, left.source).cmp(&(&right.nas, right.source)))
        .then_with(|| identity(left).cmp(&identity(right)))
        .then_with(|| (left.started_ns, &left.end_cause).cmp(&(right.started_ns, &right.end_cause)))
        .then_with(|| (counted(left), left.interim_interval_s).cmp(&(counted(right), right.interim_interval_s)))
        .then_with(|| left.details.cmp(&right.details))
}

type Identity<'a> =
    (Option<&'a str>, Option<MacAddr>, &'a [IpAddr], &'a [(IpAddr, u8)], Option<MacAddr>, [Option<&'a str>; 3]);

/// What a report says of who, what and where.
fn identity(fact: &SessionFact) -> Identity<'_> {
    (
        fact.user.as_deref(),
        fact.client_mac,
        &fact.client_ips,
        &fact.client_prefixes,
        fact.ap_mac,
        [fact.ssid.as_deref(), fact.nas_port.as_deref(), fact.auth_method.as_deref()],
    )
}

/// Of three reports in a row that say the same the middle one adds nothing, once nobody asks about the time before the third.
fn drop_redundant(reports: &mut Vec<SessionFact>, resets: &Resets, before_ns: WallNs) {
    let begin = |fact: &SessionFact| fact.started_ns.unwrap_or(fact.at_ns);
    let is_redundant = |first: &SessionFact, middle: &SessionFact, last: &SessionFact| {
        middle.event == SessionEvent::Interim
            && matches!(first.event, SessionEvent::Start | SessionEvent::Interim)
            && matches!(last.event, SessionEvent::Interim | SessionEvent::Stop)
            && last.at_ns < before_ns
            && identity(first) == identity(middle)
            && identity(middle) == identity(last)
            && middle.details == last.details
            && begin(middle) >= begin(first).min(begin(last))
            && (last.counters.is_some() || middle.counters.is_none())
            && middle.interim_interval_s == last.interim_interval_s
            && (middle.started_ns.is_none() || first.event == SessionEvent::Start || first.started_ns.is_some())
            && !resets.any_of(middle, first.at_ns - 1, last.at_ns)
    };
    let mut kept = Vec::with_capacity(reports.len().min(4));
    let mut rest = std::mem::take(reports).into_iter().peekable();
    while let Some(report) = rest.next() {
        let redundant = match (kept.last(), rest.peek()) {
            (Some(first), Some(last)) => is_redundant(first, &report, last),
            _ => false,
        };
        if !redundant {
            kept.push(report);
        }
    }
    *reports = kept;
}

const fn host_len(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// An address as 128 bits, the family apart.
fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    }
}

fn masked(ip: IpAddr, len: u8) -> u128 {
    let (bits, width) = bits(ip);
    bits & u128::MAX.checked_shl(128 - u32::from(len.min(width))).unwrap_or(0)
}

fn in_prefix(ip: IpAddr, prefix: IpAddr, len: u8) -> bool {
    ip.is_ipv4() == prefix.is_ipv4() && masked(ip, len) == masked(prefix, len)
}

#[cfg(test)]
pub(crate) mod tests;
