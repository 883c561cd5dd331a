//! Sessions: who held which device and address, when, from reports that come late, twice, or not at all.
//!
//! Guarantees that the order in which reports arrive does not matter, and that applying one again changes nothing: sessions are
//! always folded anew from the reports known about them, by the time they are about. Holds a few reports per session that is
//! going on or ended within [`SessionTimeouts::keep_ns`]; reports that say nothing new are forgotten with each segment.

mod claims;
mod fold;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use claims::Claims;
pub(crate) use claims::Span;

use crate::fact::{IdentitySource, SessionCounters, SessionDetails, SessionEvent, SessionFact};
use crate::record::{SessionRecord, SessionStatus};
use crate::{MacAddr, WallNs};

const SECOND: WallNs = 1_000_000_000;

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

/// An address or prefix a session named, and from when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    pub ip: IpAddr,
    pub prefix_len: u8,
    pub from_ns: WallNs,
    pub to_ns: Option<WallNs>,
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
    last_heard_ns: WallNs,
    /// When the last of its reports to arrive did.
    last_received_ns: WallNs,
    interim_interval_s: Option<u32>,
    /// Where its reports begin among those of its id.
    first_report: usize,
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

    /// Whether it says who, and not only which device: a user name that is the device's address names nobody.
    #[must_use]
    pub fn names_person(&self) -> bool {
        self.user.as_deref().is_some_and(|user| match self.client_mac {
            Some(mac) => user.parse() != Ok(mac),
            None => true,
        })
    }

    /// Which of [`Self::attachments`] counts at a moment.
    #[must_use]
    pub fn attachment_at(&self, at_ns: WallNs) -> usize {
        self.attachments.partition_point(|attachment| attachment.from_ns <= at_ns).saturating_sub(1)
    }

    /// When it began or ceased to hold an address, or was attached elsewhere.
    pub(crate) fn changes(&self) -> impl Iterator<Item = WallNs> {
        let held = self.holdings.iter().flat_map(|held| [Some(held.from_ns), held.to_ns]).flatten();
        held.chain(self.attachments.iter().map(|attachment| attachment.from_ns))
    }

    fn record(&self) -> SessionRecord {
        let mut client_ips: Vec<IpAddr> =
            self.holdings.iter().filter(|held| held.is_host()).map(|held| held.ip).collect();
        client_ips.sort_unstable();
        client_ips.dedup();
        let prefixes = self.holdings.iter().filter(|held| !held.is_host());
        let mut client_prefixes: Vec<(IpAddr, u8)> = prefixes.map(|held| (held.ip, held.prefix_len)).collect();
        client_prefixes.sort_unstable();
        client_prefixes.dedup();
        let attachment = self.attachments.last();
        SessionRecord {
            session_id: self.session_id.clone(),
            user: self.user.clone(),
            auth_method: self.auth_method.clone(),
            source: self.source,
            client_mac: self.client_mac,
            client_ips,
            client_prefixes,
            ap_mac: attachment.and_then(|attachment| attachment.ap_mac),
            ssid: attachment.and_then(|attachment| attachment.ssid.clone()),
            nas: self.nas.clone(),
            nas_port: attachment.and_then(|attachment| attachment.nas_port.clone()),
            started_ns: self.started_ns,
            ended_ns: self.ended_ns,
            end_cause: self.end_cause.clone(),
            counters: self.counters,
            details: self.details.clone(),
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

/// All reports that can still matter.
#[derive(Clone, Debug, Default)]
pub struct SessionTable {
    /// Per session id, by time.
    reports: BTreeMap<Key, Vec<SessionFact>>,
    /// By time.
    resets: Vec<SessionFact>,
}

impl SessionTable {
    /// Applies a report; again has no effect. No report is about a time after its arrival: a clock that is ahead is held back.
    pub fn apply(&mut self, mut fact: SessionFact) {
        fact.at_ns = fact.at_ns.min(fact.received_ns);
        if fact.event == SessionEvent::NasReset {
            insert(&mut self.resets, fact);
        } else {
            let key = Key { source: fact.source, nas: fact.nas.clone(), session_id: fact.session_id.clone() };
            insert(self.reports.entry(key).or_default(), fact);
        }
    }

    /// Every session, ended by what ended it: a stop, its NAS, its successor, or silence until `now_ns`.
    #[must_use]
    pub fn sessions(&self, timeouts: &SessionTimeouts, now_ns: WallNs) -> Vec<Session> {
        let mut sessions = Vec::with_capacity(self.reports.len());
        for reports in self.reports.values() {
            fold::fold(reports, &self.resets, timeouts, now_ns, &mut sessions);
        }
        fold::supersede(&mut sessions);
        sessions
    }

    /// Sessions that were there at some moment from `from_ns` to `to_ns`, or about which something arrived since `received_ns`:
    /// reports that come late are often about sessions that were over before.
    #[must_use]
    pub fn records(sessions: &[Session], from_ns: WallNs, to_ns: WallNs, received_ns: WallNs) -> Vec<SessionRecord> {
        sessions
            .iter()
            .filter(|session| {
                let is_there = session.ended_ns.is_none_or(|end| end >= from_ns);
                let is_news = session.last_heard_ns >= from_ns || session.last_received_ns >= received_ns;
                (is_there || is_news) && session.started_ns <= to_ns
            })
            .map(Session::record)
            .collect()
    }

    /// Forgets what cannot matter to a segment after `now_ns`, given what [`Self::sessions`] made of the reports: lives that ended
    /// long ago, and reports that say nothing new.
    pub fn forget(&mut self, sessions: &[Session], timeouts: &SessionTimeouts, now_ns: WallNs) {
        let before_ns = now_ns - timeouts.keep_ns;
        let awaited = fold::awaited(sessions);
        let may_succeed =
            |life: &Session| fold::held(life).any(|held| awaited.get(&held).is_some_and(|at| *at < life.started_ns));
        let matters = |life: &Session| {
            let is_recent = life.ended_ns.is_none_or(|end| end >= before_ns) || life.last_heard_ns >= before_ns;
            is_recent || may_succeed(life)
        };
        let mut lives = sessions.iter().peekable();
        let resets = &self.resets;
        self.reports.retain(|key, reports| {
            let is_of_key = |life: &&&Session| {
                life.session_id == key.session_id && life.source == key.source && life.nas == key.nas
            };
            let (mut before, mut keep_from) = (0, None);
            while let Some(life) = lives.next_if(|life| is_of_key(&life)) {
                if keep_from.is_none() && matters(life) {
                    // What was reported of the life before says that this one began no sooner.
                    keep_from = Some(if life.is_cut { before } else { life.first_report });
                }
                if life.status != SessionStatus::Rejected {
                    before = life.first_report;
                }
            }
            if let Some(from) = keep_from {
                reports.drain(..from);
                drop_redundant(reports, resets, now_ns - ASKED_BACK_NS);
            }
            keep_from.is_some()
        });
        // A reset matters as long as a session it ended; and one whose last report is still to come may have begun long before.
        self.resets.retain(|reset| reset.at_ns >= before_ns - timeouts.silence_max_ns);
    }

    /// Reports that make an equal table.
    #[must_use]
    pub fn facts(&self) -> Vec<SessionFact> {
        self.resets.iter().chain(self.reports.values().flatten()).cloned().collect()
    }
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
fn drop_redundant(reports: &mut Vec<SessionFact>, resets: &[SessionFact], before_ns: WallNs) {
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
            && !resets.iter().any(|reset| reset.at_ns >= first.at_ns && reset.at_ns <= last.at_ns)
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
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn report(event: SessionEvent, id: &str, at_s: i64) -> SessionFact {
        SessionFact {
            event,
            source: IdentitySource::Radius,
            session_id: id.to_owned(),
            user: Some(format!("user-{id}")),
            auth_method: None,
            client_mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            client_ips: vec![[10, 0, 0, 1].into()],
            client_prefixes: Vec::new(),
            ap_mac: None,
            ssid: None,
            nas: Some("nas".to_owned()),
            nas_port: None,
            at_ns: at_s * SECOND,
            started_ns: None,
            received_ns: at_s * SECOND,
            counters: None,
            end_cause: None,
            interim_interval_s: None,
            details: None,
        }
    }

    fn sessions(reports: impl IntoIterator<Item = SessionFact>, now_s: i64) -> Vec<Session> {
        let mut table = SessionTable::default();
        reports.into_iter().for_each(|report| table.apply(report));
        table.sessions(&SessionTimeouts::default(), now_s * SECOND)
    }

    #[test]
    fn a_stop_before_its_start_makes_one_session() {
        let found = sessions([report(SessionEvent::Stop, "a", 20), report(SessionEvent::Start, "a", 10)], 30);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].started_ns, found[0].ended_ns), (10 * SECOND, Some(20 * SECOND)));
    }

    #[test]
    fn an_interim_report_tells_when_an_unknown_session_began() {
        let fact = SessionFact { started_ns: Some(5 * SECOND), ..report(SessionEvent::Interim, "a", 60) };
        assert_eq!(sessions([fact], 61)[0].started_ns, 5 * SECOND);
    }

    #[test]
    fn silence_ends_a_session() {
        let fact = SessionFact { interim_interval_s: Some(60), ..report(SessionEvent::Start, "a", 0) };
        assert_eq!(sessions([fact.clone()], 180)[0].status, SessionStatus::Active);
        let silent = &sessions([fact], 181)[0];
        assert_eq!((silent.status, silent.ended_ns), (SessionStatus::TimedOut, Some(180 * SECOND)));
    }

    #[test]
    fn a_reset_ends_sessions_and_frees_their_ids() {
        let reset = SessionFact { session_id: String::new(), ..report(SessionEvent::NasReset, "", 50) };
        let found = sessions([report(SessionEvent::Start, "a", 10), reset, report(SessionEvent::Start, "a", 60)], 70);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].ended_ns, found[1].ended_ns), (Some(50 * SECOND), None));
    }

    #[test]
    fn who_lost_a_device_before_a_reset_did_not_have_it_until_then() {
        let on = |id: &str, at_s| SessionFact {
            ap_mac: Some(MacAddr([2, 0, 0, 0, 0xff, 1])),
            ..report(SessionEvent::Start, id, at_s)
        };
        let reset = SessionFact { session_id: String::new(), ..report(SessionEvent::NasReset, "", 50) };
        let found = sessions([on("a", 10), on("b", 30), reset], 70);
        assert_eq!((found[0].ended_ns, found[1].ended_ns), (Some(30 * SECOND), Some(50 * SECOND)));
    }

    #[test]
    fn who_was_on_a_device_before_somebody_else_elsewhere_is_there_again_only_if_heard() {
        let first = |event, at_s| SessionFact { interim_interval_s: Some(600), ..report(event, "a", at_s) };
        let second = |event, at_s| SessionFact { nas: Some("other".to_owned()), ..report(event, "b", at_s) };
        let facts = [first(SessionEvent::Start, 10), second(SessionEvent::Start, 100), second(SessionEvent::Stop, 200)];
        let ended = |facts: &[SessionFact]| {
            let found = sessions(facts.iter().cloned(), 300);
            found.iter().find(|session| session.session_id == "a").unwrap().ended_ns
        };
        assert_eq!(ended(&facts[..2]), None, "both claim the device");
        assert_eq!(ended(&facts), Some(201 * SECOND));
        let heard = [&facts[..], &[first(SessionEvent::Interim, 250)]].concat();
        assert_eq!(ended(&heard), None);
        let mut himself = facts.clone();
        himself.iter_mut().for_each(|fact| fact.user = Some("ann".to_owned()));
        assert_eq!(ended(&himself), None, "who came back is the same");
        let mut written = facts;
        written[0].source = IdentitySource::File;
        assert_eq!(ended(&written), None, "a file says so still");
    }

    #[test]
    fn a_network_that_comes_up_ends_no_session_of_another_on_the_same_access_point() {
        let at = |mac: u8| Some(MacAddr([2, 0, 0, 0, 0xff, mac]));
        let reset = SessionFact { session_id: String::new(), ap_mac: at(2), ..report(SessionEvent::NasReset, "", 50) };
        let on = |id: &str, mac| SessionFact { ap_mac: at(mac), ..report(SessionEvent::Start, id, 10) };
        let found = sessions([on("a", 1), on("b", 2), reset], 70);
        assert_eq!((found[0].ended_ns, found[1].ended_ns), (None, Some(50 * SECOND)));
    }

    #[test]
    fn a_failed_login_holds_nothing() {
        let found = sessions([report(SessionEvent::Rejected, "a", 10)], 20);
        assert_eq!(found[0].status, SessionStatus::Rejected);
        assert!(!found[0].covers(10 * SECOND));
        assert!(Claims::new(&found).of_mac(MacAddr([2, 0, 0, 0, 0, 1])).is_empty());
    }

    #[test]
    fn an_address_is_held_from_when_to_when_it_was_named() {
        let moved = SessionFact { client_ips: vec![[10, 0, 0, 9].into()], ..report(SessionEvent::Interim, "a", 50) };
        let found = sessions([report(SessionEvent::Start, "a", 10), moved], 60);
        let (old, new) = ([10, 0, 0, 1].into(), [10, 0, 0, 9].into());
        assert!(found[0].holds(old, 49 * SECOND) && !found[0].holds(old, 50 * SECOND));
        assert!(!found[0].holds(new, 49 * SECOND) && found[0].holds(new, 50 * SECOND));
    }

    #[test]
    fn a_prefix_holds_the_addresses_in_it() {
        let prefix = ("2001:db8:1::".parse().unwrap(), 64);
        let fact = SessionFact { client_prefixes: vec![prefix], ..report(SessionEvent::Start, "a", 10) };
        let found = sessions([fact], 20);
        assert!(found[0].holds("2001:db8:1::abcd".parse().unwrap(), 11 * SECOND));
        assert!(!found[0].holds("2001:db8:2::abcd".parse().unwrap(), 11 * SECOND));
    }

    fn any_report() -> impl Strategy<Value = SessionFact> {
        let event = prop::sample::select(vec![
            SessionEvent::Start,
            SessionEvent::Interim,
            SessionEvent::Stop,
            SessionEvent::NasReset,
        ]);
        (event, 0u8..3, 0i64..100, 0u8..3).prop_map(|(event, id, at_s, ip)| SessionFact {
            client_ips: vec![[10, 0, 0, ip].into()],
            ..report(event, &id.to_string(), at_s)
        })
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(reports in prop::collection::vec(any_report(), 0..25)) {
            let forward = sessions(reports.iter().cloned(), 200);
            let backward = sessions(reports.iter().rev().cloned(), 200);
            let twice = sessions(reports.iter().chain(&reports).cloned(), 200);
            prop_assert_eq!(&forward, &backward);
            prop_assert_eq!(&forward, &twice);
        }

        #[test]
        fn exported_reports_make_the_same_sessions(reports in prop::collection::vec(any_report(), 0..25)) {
            let mut table = SessionTable::default();
            reports.into_iter().for_each(|fact| table.apply(fact));
            let now_ns = 200 * SECOND;
            let before = table.sessions(&SessionTimeouts::default(), now_ns);
            prop_assert_eq!(before, sessions(table.facts(), 200));
        }
    }
}
