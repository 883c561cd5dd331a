//! Attribution: which session a flow belongs to, and how sure that is.
//!
//! The moment that counts is the first packet of the row. Rules, first match wins:
//!
//! 1. Sessions that name the device and cover the moment. One user: `authenticated` where a session names the address too, else
//!    `mac_only`.
//! 2. Sessions that name the address, and no device at all: `ip_only`.
//! 3. No session covers the moment, but one that names the device began while the flow lasted or within
//!    [`LOGIN_WINDOW_NS`] after its first packet: `before_login`, by the first that did.
//! 4. Otherwise `unknown`. A session of another device that names the address is not enough: it would name the wrong person.
//!
//! Whoever else claims the flow makes it `ambiguous`, and all are listed: another user's session of this device; one that names the
//! address and no device; where no session of this device names the address, one of another device that does; and one of the first
//! two kinds that began while the flow lasted. Several sessions of one user (roaming, a re-authentication) are no contradiction: the
//! one that began last counts.
//!
//! Sessions that name a person count before those that name only a device (no user, or the device's own address for one, as access
//! points report them that know devices by address): by all four rules the first are asked, and only then the second.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::record::{Attribution, Identity};
use crate::sessions::{Claims, Session, Span};
use crate::{MacAddr, WallNs};

/// How long after a flow's first packet a login still says who it was.
pub const LOGIN_WINDOW_NS: WallNs = 600 * 1_000_000_000;

/// What makes a session a claimant, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ground {
    /// It names the device and covers the moment.
    Device,
    /// It names the address, and no device.
    Address,
    /// It is one of these, but began later, while the flow lasted.
    Later,
    /// It names the address and another device.
    Elsewhere,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    ground: Ground,
    span: Span,
}

/// A flow as attribution sees it.
#[derive(Clone, Copy)]
struct Seen {
    mac: MacAddr,
    ip: IpAddr,
    start_ns: WallNs,
    end_ns: WallNs,
}

/// A session and which of its attachments.
type Place = (u32, u32);

/// Joins flows with sessions. Identities are shared between the flows that have them; the usual flow costs no allocation.
pub struct Attributor<'a> {
    claims: Claims<'a>,
    /// Of the flow under way.
    claimants: Vec<Claim>,
    places: Vec<Place>,
    identities: HashMap<Vec<Place>, Arc<Identity>, RandomState>,
}

impl<'a> Attributor<'a> {
    #[must_use]
    pub fn new(sessions: &'a [Session]) -> Self {
        Self {
            claims: Claims::new(sessions),
            claimants: Vec::new(),
            places: Vec::new(),
            identities: HashMap::default(),
        }
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
        let seen = Seen { mac, ip, start_ns, end_ns };
        for persons_only in [true, false] {
            if let Some(sure) = self.collect(&seen, persons_only) {
                return self.decide(&seen, sure);
            }
        }
        (Attribution::Unknown, None)
    }

    /// Gathers who claims a flow; what it is if they are one, `None` where nobody does.
    fn collect(&mut self, seen: &Seen, persons_only: bool) -> Option<Attribution> {
        let Self { claims, claimants, .. } = self;
        claimants.clear();
        let counts = |span: &&Span| !persons_only || span.names_person;
        let of_device = claims.of_mac(seen.mac);
        let mut is_named = false;
        for span in of_device.iter().filter(counts) {
            if span.covers(seen.start_ns) {
                claimants.push(Claim { ground: Ground::Device, span: *span });
                is_named |= claims.session(span).holds(seen.ip, seen.start_ns);
            }
        }
        let has_device = !claimants.is_empty();
        let anonymous = claims.anonymous_of_ip(seen.ip).filter(counts);
        claimants.extend(
            anonymous
                .filter(|span| span.covers(seen.start_ns))
                .map(|span| Claim { ground: Ground::Address, span: *span }),
        );
        if claimants.is_empty() {
            return Self::before_login(of_device, claimants, seen, persons_only);
        }
        let anonymous = claims.anonymous_of_ip(seen.ip).filter(counts);
        let later = of_device.iter().filter(counts).chain(anonymous);
        claimants.extend(
            later
                .filter(|span| span.begins_within(seen.start_ns, seen.end_ns))
                .map(|span| Claim { ground: Ground::Later, span: *span }),
        );
        if has_device && !is_named {
            let elsewhere = claims
                .of_ip(seen.ip)
                .filter(counts)
                .filter(|span| span.covers(seen.start_ns) && claims.session(span).client_mac != Some(seen.mac));
            claimants.extend(elsewhere.map(|span| Claim { ground: Ground::Elsewhere, span: *span }));
        }
        Some(match (has_device, is_named) {
            (true, true) => Attribution::Authenticated,
            (true, false) => Attribution::MacOnly,
            (false, _) => Attribution::IpOnly,
        })
    }

    fn before_login(
        of_device: &[Span],
        claimants: &mut Vec<Claim>,
        seen: &Seen,
        persons_only: bool,
    ) -> Option<Attribution> {
        let until_ns = seen.end_ns.max(seen.start_ns.saturating_add(LOGIN_WINDOW_NS));
        let mut later = of_device
            .iter()
            .filter(|span| (!persons_only || span.names_person) && span.begins_within(seen.start_ns, until_ns));
        // Spans of a device are in the order of their beginning.
        let first = later.next()?;
        let as_soon = later.take_while(|span| span.from_ns == first.from_ns);
        claimants
            .extend(std::iter::once(first).chain(as_soon).map(|span| Claim { ground: Ground::Later, span: *span }));
        Some(Attribution::BeforeLogin)
    }

    /// One claimant per user; `sure` where that leaves one.
    fn decide(&mut self, seen: &Seen, sure: Attribution) -> (Attribution, Option<Arc<Identity>>) {
        let Self { claims, claimants, places, .. } = self;
        if claimants.len() > 1 {
            claimants.sort_unstable_by(|left, right| {
                let rank = |claim: &Claim| (claim.ground, Reverse(claim.span.from_ns));
                let (left_session, right_session) = (claims.session(&left.span), claims.session(&right.span));
                let by_user = user_of(left_session).cmp(&user_of(right_session));
                by_user.then_with(|| rank(left).cmp(&rank(right))).then_with(|| {
                    let id = |session: &'a Session| (&session.session_id, session.source, &session.nas);
                    id(left_session).cmp(&id(right_session))
                })
            });
            claimants
                .dedup_by(|other, first| user_of(claims.session(&other.span)) == user_of(claims.session(&first.span)));
        }
        places.clear();
        places.extend(claimants.iter().map(|claim| {
            let attachment = claims.session(&claim.span).attachment_at(seen.start_ns);
            (claim.span.session, u32::try_from(attachment).unwrap_or(u32::MAX))
        }));
        let attribution = if places.len() > 1 { Attribution::Ambiguous } else { sure };
        (attribution, Some(self.identity()))
    }

    /// The identity of [`Self::places`].
    fn identity(&mut self) -> Arc<Identity> {
        if let Some(known) = self.identities.get(&self.places) {
            return Arc::clone(known);
        }
        let sessions: Vec<&Session> = self.claimants.iter().map(|claim| self.claims.session(&claim.span)).collect();
        let identity = Arc::new(describe(&sessions, self.places[0].1 as usize));
        self.identities.insert(self.places.clone(), Arc::clone(&identity));
        identity
    }
}

/// What tells claimants apart: the person, or where none is named, the device.
fn user_of(session: &Session) -> (Option<&str>, Option<MacAddr>) {
    if session.names_person() { (session.user.as_deref(), None) } else { (None, session.client_mac) }
}

fn describe(claimants: &[&Session], attachment: usize) -> Identity {
    let join = |texts: Vec<&str>| (!texts.is_empty()).then(|| Arc::<str>::from(texts.join(", ")));
    let first = claimants[0];
    let only = |value: Option<&str>| (claimants.len() == 1).then_some(value).flatten().map(Arc::<str>::from);
    let attached = &first.attachments[attachment];
    Identity {
        user: join(claimants.iter().filter_map(|session| session.user.as_deref()).collect()),
        session_id: join(claimants.iter().map(|session| &*session.session_id).collect()).unwrap_or_default(),
        auth_method: only(first.auth_method.as_deref()),
        source: first.source,
        ap_mac: (claimants.len() == 1).then_some(attached.ap_mac).flatten(),
        ssid: only(attached.ssid.as_deref()),
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

    fn ask_long(reports: &[SessionFact], start_s: i64, end_s: i64) -> (Attribution, Option<String>) {
        let mut table = SessionTable::default();
        reports.iter().for_each(|report| table.apply(report.clone()));
        let sessions = table.sessions(&SessionTimeouts::default(), 10_000 * S);
        let mut attributor = Attributor::new(&sessions);
        let (attribution, identity) = attributor.attribute(MAC, [10, 0, 0, 1].into(), start_s * S, end_s * S);
        (attribution, identity.and_then(|identity| identity.user.as_deref().map(str::to_owned)))
    }

    #[test]
    fn a_flow_that_outlives_its_user_names_both() {
        let reports = [
            report(SessionEvent::Start, "a", 10),
            report(SessionEvent::Stop, "a", 100),
            report(SessionEvent::Start, "b", 200),
        ];
        assert_eq!(ask_long(&reports, 50, 199), (Attribution::Authenticated, named("user-a")));
        assert_eq!(ask_long(&reports, 50, 200), (Attribution::Ambiguous, named("user-a, user-b")));
        assert_eq!(ask_long(&reports, 200, 300), (Attribution::Authenticated, named("user-b")), "the next row");
    }

    #[test]
    fn who_moves_to_another_access_point_stays_who_he_is_and_is_where_he_went() {
        let [first, second] = [1, 2].map(|last| Some(MacAddr([2, 2, 0, 0, 0, last])));
        let before = SessionFact { ap_mac: first, ..report(SessionEvent::Start, "a", 10) };
        let stop = SessionFact { ap_mac: first, ..report(SessionEvent::Stop, "a", 25) };
        let after = SessionFact {
            user: named("user-a"),
            nas: Some("other".to_owned()),
            ap_mac: second,
            ..report(SessionEvent::Start, "b", 20)
        };
        let mut table = SessionTable::default();
        [after, before, stop].into_iter().for_each(|fact| table.apply(fact));
        let sessions = table.sessions(&SessionTimeouts::default(), 100 * S);
        let mut attributor = Attributor::new(&sessions);
        for (at, ap) in [(15, first), (22, second), (30, second)] {
            let (attribution, identity) = attributor.attribute(MAC, [10, 0, 0, 1].into(), at * S, at * S);
            assert_eq!((attribution, identity.unwrap().ap_mac), (Attribution::Authenticated, ap), "at {at}");
        }
    }

    #[test]
    fn a_person_comes_before_the_device_that_is_its_own_user() {
        let device = SessionFact { user: named("02-00-00-00-00-01"), ..report(SessionEvent::Start, "ap", 10) };
        let portal = SessionFact { user: named("ann"), ..report(SessionEvent::Start, "portal", 100) };
        let reports = [device, portal];
        assert_eq!(ask_long(&reports, 150, 160), (Attribution::Authenticated, named("ann")));
        assert_eq!(ask_long(&reports, 50, 60), (Attribution::BeforeLogin, named("ann")));
        assert_eq!(ask_long(&reports[..1], 50, 60), (Attribution::Authenticated, named("02-00-00-00-00-01")));
    }

    #[test]
    fn a_second_in_which_a_session_stopped_belongs_to_it() {
        let reports = [report(SessionEvent::Start, "a", 10), report(SessionEvent::Stop, "a", 20)];
        let mut table = SessionTable::default();
        reports.into_iter().for_each(|fact| table.apply(fact));
        let sessions = table.sessions(&SessionTimeouts::default(), 100 * S);
        assert!(sessions[0].covers(20 * S + S / 2) && !sessions[0].covers(21 * S));
    }
}
