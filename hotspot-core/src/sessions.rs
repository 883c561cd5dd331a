//! Sessions: who held which device and address, when, from reports that come late, twice, or not at all.
//!
//! Guarantees that the order in which reports arrive does not matter, and that applying one again changes nothing: a session is
//! always folded anew from the reports known about it, by the time they are about.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::fact::{IdentitySource, SessionCounters, SessionDetails, SessionEvent, SessionFact};
use crate::record::{SessionRecord, SessionStatus};
use crate::{MacAddr, WallNs};

const SECOND: WallNs = 1_000_000_000;

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
}

/// One life of a session id: it may be used again after the NAS was reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub session_id: String,
    pub user: Option<String>,
    pub auth_method: Option<String>,
    pub source: IdentitySource,
    pub client_mac: Option<MacAddr>,
    pub holdings: Vec<Holding>,
    pub ap_mac: Option<MacAddr>,
    pub ssid: Option<String>,
    pub nas: Option<String>,
    pub nas_port: Option<String>,
    pub started_ns: WallNs,
    pub ended_ns: Option<WallNs>,
    pub end_cause: Option<String>,
    pub counters: Option<SessionCounters>,
    pub details: Option<Arc<SessionDetails>>,
    pub status: SessionStatus,
    last_heard_ns: WallNs,
    interim_interval_s: Option<u32>,
}

impl Session {
    #[must_use]
    pub fn covers(&self, at_ns: WallNs) -> bool {
        self.status != SessionStatus::Rejected
            && self.started_ns <= at_ns
            && self.ended_ns.is_none_or(|end| at_ns <= end)
    }

    /// Whether the session named this address for that moment.
    #[must_use]
    pub fn holds(&self, ip: IpAddr, at_ns: WallNs) -> bool {
        self.holdings.iter().any(|holding| holding.covers(ip, at_ns))
    }

    fn record(&self) -> SessionRecord {
        let mut client_ips: Vec<IpAddr> =
            self.holdings.iter().filter(|held| is_host(held)).map(|held| held.ip).collect();
        client_ips.sort_unstable();
        client_ips.dedup();
        let prefixes = self.holdings.iter().filter(|held| !is_host(held));
        let mut client_prefixes: Vec<(IpAddr, u8)> = prefixes.map(|held| (held.ip, held.prefix_len)).collect();
        client_prefixes.sort_unstable();
        client_prefixes.dedup();
        SessionRecord {
            session_id: self.session_id.clone(),
            user: self.user.clone(),
            auth_method: self.auth_method.clone(),
            source: self.source,
            client_mac: self.client_mac,
            client_ips,
            client_prefixes,
            ap_mac: self.ap_mac,
            ssid: self.ssid.clone(),
            nas: self.nas.clone(),
            nas_port: self.nas_port.clone(),
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
    reports: BTreeMap<Key, Vec<SessionFact>>,
    resets: Vec<SessionFact>,
}

impl SessionTable {
    /// Applies a report.
    pub fn apply(&mut self, fact: SessionFact) {
        if fact.event == SessionEvent::NasReset {
            if !self.resets.contains(&fact) {
                self.resets.push(fact);
                self.resets.sort_by(|left, right| (left.at_ns, &left.nas).cmp(&(right.at_ns, &right.nas)));
            }
            return;
        }
        let key = Key { source: fact.source, nas: fact.nas.clone(), session_id: fact.session_id.clone() };
        let reports = self.reports.entry(key).or_default();
        let position = reports.partition_point(|known| order(known) < order(&fact));
        let is_known = reports.iter().any(|known| is_same_report(known, &fact));
        if !is_known {
            reports.insert(position, fact);
        }
    }

    /// Every session, ended by what ended it: a stop, its NAS, or silence until `now_ns`.
    #[must_use]
    pub fn sessions(&self, timeouts: &SessionTimeouts, now_ns: WallNs) -> Vec<Session> {
        self.reports.values().flat_map(|reports| fold(reports, &self.resets, timeouts, now_ns)).collect()
    }

    /// Sessions that were there at some moment from `from_ns` on, or about which something was reported then.
    #[must_use]
    pub fn records(sessions: &[Session], from_ns: WallNs) -> Vec<SessionRecord> {
        sessions
            .iter()
            .filter(|session| session.ended_ns.is_none_or(|end| end >= from_ns) || session.last_heard_ns >= from_ns)
            .map(Session::record)
            .collect()
    }

    /// Forgets sessions of which every life ended long ago.
    pub fn forget(&mut self, timeouts: &SessionTimeouts, now_ns: WallNs) {
        let before_ns = now_ns - timeouts.keep_ns;
        let resets = std::mem::take(&mut self.resets);
        self.reports.retain(|_, reports| {
            let lives = fold(reports, &resets, timeouts, now_ns);
            lives.iter().any(|life| life.ended_ns.is_none_or(|end| end >= before_ns) || life.last_heard_ns >= before_ns)
        });
        self.reports.values_mut().for_each(drop_redundant);
        // A reset ends sessions whose last report may still come; after the longest silence it cannot matter.
        self.resets = resets.into_iter().filter(|reset| reset.at_ns >= now_ns - timeouts.silence_max_ns).collect();
    }

    /// Reports that make an equal table.
    #[must_use]
    pub fn facts(&self) -> Vec<SessionFact> {
        self.resets.iter().chain(self.reports.values().flatten()).cloned().collect()
    }
}

type Order<'a> = (WallNs, u8, &'a [IpAddr], Option<&'a str>, Option<MacAddr>);

/// Where a report belongs in its session's history.
fn order(fact: &SessionFact) -> Order<'_> {
    let rank = match fact.event {
        SessionEvent::NasReset => 0,
        SessionEvent::Start => 1,
        SessionEvent::Interim | SessionEvent::Rejected => 2,
        SessionEvent::Stop => 3,
    };
    (fact.at_ns, rank, &fact.client_ips, fact.user.as_deref(), fact.client_mac)
}

/// The same report, perhaps received again.
fn is_same_report(left: &SessionFact, right: &SessionFact) -> bool {
    let neutral = |fact: &SessionFact| SessionFact { received_ns: 0, ..fact.clone() };
    left.event == right.event && left.at_ns == right.at_ns && neutral(left) == neutral(right)
}

/// Of three interim reports in a row that say the same about identity, the middle one adds nothing.
fn drop_redundant(reports: &mut Vec<SessionFact>) {
    let says_same = |left: &SessionFact, right: &SessionFact| {
        left.event == SessionEvent::Interim
            && right.event == SessionEvent::Interim
            && left.user == right.user
            && left.client_mac == right.client_mac
            && left.client_ips == right.client_ips
            && left.client_prefixes == right.client_prefixes
            && (left.ap_mac, &left.ssid) == (right.ap_mac, &right.ssid)
    };
    let mut position = 2;
    while position < reports.len() {
        let middle = position - 1;
        if says_same(&reports[position - 2], &reports[middle]) && says_same(&reports[middle], &reports[position]) {
            reports.remove(middle);
        } else {
            position += 1;
        }
    }
}

/// The lives a session's reports tell of.
fn fold(reports: &[SessionFact], resets: &[SessionFact], timeouts: &SessionTimeouts, now_ns: WallNs) -> Vec<Session> {
    let mut lives: Vec<Session> = Vec::new();
    for report in reports {
        let began_anew = match lives.last() {
            None => true,
            Some(life) => {
                report.event == SessionEvent::Start && (life.ended_ns.is_some() || reset_between(life, report, resets))
            }
        };
        if began_anew {
            lives.push(begin(report));
        }
        if let Some(life) = lives.last_mut() {
            learn(life, report);
        }
    }
    for life in &mut lives {
        end(life, resets, timeouts, now_ns);
    }
    lives
}

fn begin(report: &SessionFact) -> Session {
    Session {
        session_id: report.session_id.clone(),
        user: None,
        auth_method: None,
        source: report.source,
        client_mac: None,
        holdings: Vec::new(),
        ap_mac: None,
        ssid: None,
        nas: report.nas.clone(),
        nas_port: None,
        started_ns: report.started_ns.unwrap_or(report.at_ns),
        ended_ns: None,
        end_cause: None,
        counters: None,
        details: None,
        status: SessionStatus::Active,
        last_heard_ns: report.at_ns,
        interim_interval_s: None,
    }
}

fn learn(life: &mut Session, report: &SessionFact) {
    fn newer<T: Clone>(known: &mut Option<T>, reported: Option<&T>) {
        if let Some(reported) = reported {
            *known = Some(reported.clone());
        }
    }
    life.last_heard_ns = life.last_heard_ns.max(report.at_ns);
    life.started_ns = life.started_ns.min(report.started_ns.unwrap_or(report.at_ns));
    newer(&mut life.user, report.user.as_ref());
    newer(&mut life.auth_method, report.auth_method.as_ref());
    newer(&mut life.client_mac, report.client_mac.as_ref());
    newer(&mut life.ap_mac, report.ap_mac.as_ref());
    newer(&mut life.ssid, report.ssid.as_ref());
    newer(&mut life.nas_port, report.nas_port.as_ref());
    newer(&mut life.counters, report.counters.as_ref());
    newer(&mut life.interim_interval_s, report.interim_interval_s.as_ref());
    SessionDetails::merge(&mut life.details, report.details.as_ref());
    hold(life, report);
    match report.event {
        SessionEvent::Stop => {
            life.ended_ns = Some(report.at_ns);
            life.end_cause.clone_from(&report.end_cause);
            life.status = SessionStatus::Ended;
        }
        SessionEvent::Rejected => {
            life.ended_ns = Some(report.at_ns);
            life.status = SessionStatus::Rejected;
        }
        SessionEvent::Start | SessionEvent::Interim | SessionEvent::NasReset => {}
    }
}

/// Notes the addresses a report names. What an earlier one named of the same family and this one does not is given up.
fn hold(life: &mut Session, report: &SessionFact) {
    let hosts = report.client_ips.iter().map(|ip| (*ip, if ip.is_ipv4() { 32 } else { 128 }));
    let named: Vec<(IpAddr, u8)> = hosts.chain(report.client_prefixes.iter().copied()).collect();
    for holding in life.holdings.iter_mut().filter(|holding| holding.to_ns.is_none()) {
        let family_named = named.iter().any(|(ip, _)| ip.is_ipv4() == holding.ip.is_ipv4());
        if family_named && holding.ip.is_ipv4() && !named.contains(&(holding.ip, holding.prefix_len)) {
            holding.to_ns = Some(report.at_ns);
        }
    }
    let is_first = life.holdings.is_empty();
    for (ip, prefix_len) in named {
        let held =
            life.holdings.iter().any(|held| held.to_ns.is_none() && (held.ip, held.prefix_len) == (ip, prefix_len));
        if !held {
            // What the first report names was held from the beginning.
            let from_ns = if is_first { life.started_ns } else { report.at_ns };
            life.holdings.push(Holding { ip, prefix_len, from_ns, to_ns: None });
        }
    }
}

fn reset_between(life: &Session, report: &SessionFact, resets: &[SessionFact]) -> bool {
    resets.iter().any(|reset| resets_this(reset, life) && reset.at_ns <= report.at_ns)
}

/// Whether a reset ended this life. hostapd reports one for each of its networks, by Called-Station-Id: the others go on.
fn resets_this(reset: &SessionFact, life: &Session) -> bool {
    let is_elsewhere = reset.ap_mac.is_some() && life.ap_mac.is_some() && reset.ap_mac != life.ap_mac;
    reset.nas == life.nas && reset.at_ns > life.started_ns && !is_elsewhere
}

fn end(life: &mut Session, resets: &[SessionFact], timeouts: &SessionTimeouts, now_ns: WallNs) {
    let reset = resets.iter().find(|reset| resets_this(reset, life)).map(|reset| reset.at_ns);
    if let Some(at_ns) = reset.filter(|at_ns| life.ended_ns.is_none_or(|end| end > *at_ns)) {
        life.ended_ns = Some(at_ns);
        life.end_cause = Some("NAS-Reboot".to_owned());
        life.status = SessionStatus::Ended;
    }
    if life.ended_ns.is_none() && life.source != IdentitySource::File {
        let silence = life
            .interim_interval_s
            .map_or(timeouts.silence_max_ns, |interval| 2 * WallNs::from(interval) * SECOND + timeouts.grace_ns);
        let deadline = life.last_heard_ns.saturating_add(silence);
        if deadline < now_ns {
            life.ended_ns = Some(deadline);
            life.status = SessionStatus::TimedOut;
        }
    }
}

fn is_host(holding: &Holding) -> bool {
    holding.prefix_len == if holding.ip.is_ipv4() { 32 } else { 128 }
}

fn in_prefix(ip: IpAddr, prefix: IpAddr, len: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let ((ip_bits, ip_len), (prefix_bits, prefix_width)) = (bits(ip), bits(prefix));
    let len = u32::from(len.min(prefix_width));
    ip_len == prefix_width && (len == 0 || (ip_bits ^ prefix_bits) >> (128 - len) == 0)
}

/// Sessions by what they name, for many lookups.
pub struct Claims<'a> {
    sessions: &'a [Session],
    by_mac: HashMap<MacAddr, Vec<usize>, RandomState>,
    by_ip: HashMap<IpAddr, Vec<usize>, RandomState>,
    with_prefix: Vec<usize>,
}

impl<'a> Claims<'a> {
    #[must_use]
    pub fn new(sessions: &'a [Session]) -> Self {
        let mut claims =
            Self { sessions, by_mac: HashMap::default(), by_ip: HashMap::default(), with_prefix: Vec::new() };
        for (position, session) in sessions.iter().enumerate() {
            if session.status == SessionStatus::Rejected {
                continue;
            }
            if let Some(mac) = session.client_mac {
                claims.by_mac.entry(mac).or_default().push(position);
            }
            for holding in &session.holdings {
                if is_host(holding) {
                    let positions = claims.by_ip.entry(holding.ip).or_default();
                    if positions.last() != Some(&position) {
                        positions.push(position);
                    }
                }
            }
            if session.holdings.iter().any(|holding| !is_host(holding)) {
                claims.with_prefix.push(position);
            }
        }
        claims
    }

    /// Sessions that name this device.
    pub fn of_mac(&self, mac: MacAddr) -> impl Iterator<Item = &'a Session> {
        self.by_mac.get(&mac).into_iter().flatten().map(|position| &self.sessions[*position])
    }

    /// Sessions that name this address or a prefix it is in.
    pub fn of_ip(&self, ip: IpAddr) -> impl Iterator<Item = &'a Session> {
        let hosts = self.by_ip.get(&ip).into_iter().flatten();
        let prefixes = self.with_prefix.iter().filter(move |position| {
            self.sessions[**position]
                .holdings
                .iter()
                .any(|held| !is_host(held) && in_prefix(ip, held.ip, held.prefix_len))
        });
        hosts.chain(prefixes).map(|position| &self.sessions[*position])
    }
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
        assert_eq!(Claims::new(&found).of_mac(MacAddr([2, 0, 0, 0, 0, 1])).count(), 0);
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
