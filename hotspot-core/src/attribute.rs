//! Attribution: which session a flow belongs to, and how sure that is.
//!
//! The moment that counts is the flow's first packet. Rules, first match wins, among sessions that cover that moment:
//!
//! 1. Sessions that name the device. One user: `authenticated` where the session names the address too, else `mac_only`. But
//!    where another user's session names the address, or several users' sessions name the device: `ambiguous`, all of them listed.
//! 2. Sessions that name the address and no device at all: `ip_only`, or `ambiguous`.
//! 3. No session covers the moment, but one that names the device began while the flow lasted or within
//!    [`LOGIN_WINDOW_NS`] after its first packet: `before_login`, by that session.
//! 4. Otherwise `unknown`. A session of another device that names the address is not enough: it would name the wrong person.
//!
//! Several sessions of one user (a re-authentication) are no contradiction: the one that began last counts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::record::{Attribution, Identity};
use crate::sessions::{Claims, Session};
use crate::{MacAddr, WallNs};

/// How long after a flow's first packet a login still says who it was.
pub const LOGIN_WINDOW_NS: WallNs = 600 * 1_000_000_000;

/// Joins flows with sessions. Identities are shared between the flows that have them.
pub struct Attributor<'a> {
    claims: Claims<'a>,
    identities: HashMap<Vec<*const Session>, Arc<Identity>, RandomState>,
}

impl<'a> Attributor<'a> {
    #[must_use]
    pub fn new(sessions: &'a [Session]) -> Self {
        Self { claims: Claims::new(sessions), identities: HashMap::default() }
    }

    /// Who a flow belongs to.
    pub fn attribute(
        &mut self,
        mac: MacAddr,
        ip: IpAddr,
        start_ns: WallNs,
        end_ns: WallNs,
    ) -> (Attribution, Option<Arc<Identity>>) {
        if mac.is_group() {
            return (Attribution::Unknown, None);
        }
        let of_device: Vec<&Session> = self.claims.of_mac(mac).filter(|session| session.covers(start_ns)).collect();
        if !of_device.is_empty() {
            return self.by_device(of_device, mac, ip, start_ns);
        }
        let of_address: Vec<&Session> = self
            .claims
            .of_ip(ip)
            .filter(|session| session.client_mac.is_none() && session.covers(start_ns) && session.holds(ip, start_ns))
            .collect();
        if !of_address.is_empty() {
            return self.decide(of_address, Attribution::IpOnly);
        }
        let until_ns = end_ns.max(start_ns.saturating_add(LOGIN_WINDOW_NS));
        let later =
            self.claims.of_mac(mac).filter(|session| session.started_ns > start_ns && session.started_ns <= until_ns);
        match later.min_by_key(|session| session.started_ns) {
            Some(first) => (Attribution::BeforeLogin, Some(self.identity(&[first]))),
            None => (Attribution::Unknown, None),
        }
    }

    fn by_device(
        &mut self,
        mut claimants: Vec<&'a Session>,
        mac: MacAddr,
        ip: IpAddr,
        at_ns: WallNs,
    ) -> (Attribution, Option<Arc<Identity>>) {
        let is_named = claimants.iter().any(|session| session.holds(ip, at_ns));
        if !is_named {
            let others = self.claims.of_ip(ip).filter(|session| {
                session.client_mac.is_some_and(|other| other != mac)
                    && session.covers(at_ns)
                    && session.holds(ip, at_ns)
            });
            claimants.extend(others);
        }
        self.decide(claimants, if is_named { Attribution::Authenticated } else { Attribution::MacOnly })
    }

    fn decide(&mut self, claimants: Vec<&'a Session>, sure: Attribution) -> (Attribution, Option<Arc<Identity>>) {
        let mut users: HashMap<Option<&str>, &Session, RandomState> = HashMap::default();
        for session in claimants {
            let latest = users.entry(session.user.as_deref()).or_insert(session);
            if (session.started_ns, &session.session_id) > (latest.started_ns, &latest.session_id) {
                *latest = session;
            }
        }
        let mut claimants: Vec<&Session> = users.into_values().collect();
        claimants.sort_by(|left, right| (&left.user, &left.session_id).cmp(&(&right.user, &right.session_id)));
        let attribution = if claimants.len() > 1 { Attribution::Ambiguous } else { sure };
        (attribution, Some(self.identity(&claimants)))
    }

    fn identity(&mut self, claimants: &[&Session]) -> Arc<Identity> {
        let key: Vec<*const Session> = claimants.iter().map(|session| std::ptr::from_ref(*session)).collect();
        Arc::clone(self.identities.entry(key).or_insert_with(|| Arc::new(describe(claimants))))
    }
}

fn describe(claimants: &[&Session]) -> Identity {
    let join = |texts: Vec<&str>| (!texts.is_empty()).then(|| Arc::<str>::from(texts.join(", ")));
    let first = claimants[0];
    let only = |value: Option<&str>| (claimants.len() == 1).then_some(value).flatten().map(Arc::<str>::from);
    Identity {
        user: join(claimants.iter().filter_map(|session| session.user.as_deref()).collect()),
        session_id: join(claimants.iter().map(|session| &*session.session_id).collect()).unwrap_or_default(),
        auth_method: only(first.auth_method.as_deref()),
        source: first.source,
        ap_mac: (claimants.len() == 1).then_some(first.ap_mac).flatten(),
        ssid: only(first.ssid.as_deref()),
        nas: only(first.nas.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{SessionEvent, SessionFact};
    use crate::sessions::tests::report;
    use crate::sessions::{SessionTable, SessionTimeouts};

    const S: WallNs = 1_000_000_000;
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn ask(reports: Vec<SessionFact>, mac: MacAddr, ip: [u8; 4], start_s: i64) -> (Attribution, Option<String>) {
        let mut table = SessionTable::default();
        reports.into_iter().for_each(|report| table.apply(report));
        let sessions = table.sessions(&SessionTimeouts::default(), 10_000 * S);
        let (attribution, identity) =
            Attributor::new(&sessions).attribute(mac, ip.into(), start_s * S, (start_s + 1) * S);
        (attribution, identity.and_then(|identity| identity.user.as_deref().map(str::to_owned)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what `ask` returns")]
    fn named(user: &str) -> Option<String> {
        Some(user.to_owned())
    }

    #[test]
    fn device_and_address_agree() {
        assert_eq!(
            ask(vec![report(SessionEvent::Start, "a", 10)], MAC, [10, 0, 0, 1], 11),
            (Attribution::Authenticated, named("user-a"))
        );
    }

    #[test]
    fn a_report_that_came_late_counts_from_its_own_time() {
        let late = SessionFact { received_ns: 5000 * S, ..report(SessionEvent::Start, "a", 10) };
        assert_eq!(ask(vec![late], MAC, [10, 0, 0, 1], 11).0, Attribution::Authenticated);
    }

    #[test]
    fn a_session_without_this_address_names_the_device_only() {
        assert_eq!(
            ask(vec![report(SessionEvent::Start, "a", 10)], MAC, [10, 0, 0, 7], 11),
            (Attribution::MacOnly, named("user-a"))
        );
    }

    #[test]
    fn the_user_before_is_not_the_user_after() {
        let reports = vec![
            report(SessionEvent::Start, "a", 10),
            report(SessionEvent::Stop, "a", 20),
            report(SessionEvent::Start, "b", 30),
        ];
        assert_eq!(ask(reports.clone(), MAC, [10, 0, 0, 1], 15).1, named("user-a"));
        assert_eq!(ask(reports.clone(), MAC, [10, 0, 0, 1], 25), (Attribution::BeforeLogin, named("user-b")));
        assert_eq!(ask(reports, MAC, [10, 0, 0, 1], 35).1, named("user-b"));
    }

    #[test]
    fn two_users_of_one_device_are_ambiguous_and_both_named() {
        let reports = vec![report(SessionEvent::Start, "b", 10), report(SessionEvent::Start, "a", 12)];
        assert_eq!(ask(reports, MAC, [10, 0, 0, 1], 15), (Attribution::Ambiguous, named("user-a, user-b")));
    }

    #[test]
    fn a_second_login_of_the_same_user_is_no_contradiction() {
        let again = SessionFact { user: named("user-a"), ..report(SessionEvent::Start, "z", 12) };
        assert_eq!(
            ask(vec![report(SessionEvent::Start, "a", 10), again], MAC, [10, 0, 0, 1], 15),
            (Attribution::Authenticated, named("user-a"))
        );
    }

    #[test]
    fn another_device_with_this_address_is_nobody() {
        let other = MacAddr([2, 0, 0, 0, 0, 9]);
        assert_eq!(
            ask(vec![report(SessionEvent::Start, "a", 10)], other, [10, 0, 0, 1], 15),
            (Attribution::Unknown, None)
        );
    }

    #[test]
    fn a_device_that_takes_anothers_address_is_ambiguous() {
        let other = MacAddr([2, 0, 0, 0, 0, 9]);
        let thief = SessionFact {
            client_mac: Some(other),
            client_ips: vec![[10, 0, 0, 9].into()],
            ..report(SessionEvent::Start, "b", 10)
        };
        let reports = vec![report(SessionEvent::Start, "a", 10), thief];
        assert_eq!(ask(reports, other, [10, 0, 0, 1], 15), (Attribution::Ambiguous, named("user-a, user-b")));
    }

    #[test]
    fn an_address_is_enough_where_the_session_names_no_device() {
        let fact = SessionFact { client_mac: None, ..report(SessionEvent::Start, "a", 10) };
        assert_eq!(ask(vec![fact], MAC, [10, 0, 0, 1], 15), (Attribution::IpOnly, named("user-a")));
    }

    #[test]
    fn a_login_long_after_is_somebody_else() {
        assert_eq!(ask(vec![report(SessionEvent::Start, "a", 1000)], MAC, [10, 0, 0, 1], 10).0, Attribution::Unknown);
    }
}
