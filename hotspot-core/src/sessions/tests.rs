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

fn by_portal(event: SessionEvent, at_s: i64) -> SessionFact {
    SessionFact { source: IdentitySource::Portal, nas: None, ..report(event, "t2", at_s) }
}

fn ended_s(found: &[Session]) -> Vec<Option<i64>> {
    found.iter().map(|session| session.ended_ns.map(|at| at / SECOND)).collect()
}

#[test]
fn a_portals_logout_ends_its_session_whether_it_repeats_where_that_was_or_not() {
    let login = SessionFact { nas: Some("portal1".to_owned()), ..by_portal(SessionEvent::Start, 10) };
    for nas in [None, Some("portal1".to_owned()), Some("elsewhere".to_owned())] {
        let bare = SessionFact {
            user: None,
            client_mac: None,
            client_ips: Vec::new(),
            nas,
            ..by_portal(SessionEvent::Stop, 20)
        };
        assert_eq!(ended_s(&sessions([login.clone(), bare], 30)), [Some(20)]);
    }
    let reset = SessionFact { session_id: String::new(), ..login.clone() };
    let reset = SessionFact { event: SessionEvent::NasReset, at_ns: 25 * SECOND, received_ns: 25 * SECOND, ..reset };
    assert_eq!(ended_s(&sessions([login.clone(), reset.clone()], 100)), [Some(25)]);
    let other = SessionFact { nas: Some("portal2".to_owned()), ..login };
    assert_eq!(ended_s(&sessions([other, reset], 100)), [None]);
}

#[test]
fn a_logout_ends_what_it_names_also_where_its_clock_is_behind_that_of_the_login() {
    for behind_ms in [1, 400, 5_000, 61_000, 599_000, 601_000, 7_200_000] {
        let login = by_portal(SessionEvent::Start, 10_000);
        let at_ns = login.at_ns - behind_ms * (SECOND / 1000);
        let logout = SessionFact { at_ns, ..by_portal(SessionEvent::Stop, 10_050) };
        assert_eq!(
            ended_s(&sessions([login.clone(), logout.clone()], 20_000)),
            [Some(10_050)],
            "{behind_ms} ms behind"
        );
        let renewed = [by_portal(SessionEvent::Start, 9_000), login, logout];
        let found = sessions(renewed, 20_000);
        assert!(behind_ms > 600_000 || ended_s(&found) == [Some(10_050)], "{behind_ms} ms behind: {found:#?}");
    }
}

#[test]
fn a_logout_of_the_login_before_does_not_end_this_one() {
    let late =
        |at_s, received_s| SessionFact { received_ns: received_s * SECOND, ..by_portal(SessionEvent::Stop, at_s) };
    let long_ago = [by_portal(SessionEvent::Start, 10), late(20, 2_000), by_portal(SessionEvent::Start, 1_000)];
    assert_eq!(ended_s(&sessions(long_ago, 3_000)), [Some(20), None]);
    let again = [by_portal(SessionEvent::Start, 10), late(20, 21), by_portal(SessionEvent::Start, 30), late(21, 40)];
    assert_eq!(ended_s(&sessions(again, 60)), [Some(20), None], "a logout that was sent again");
    let reset =
        SessionFact { session_id: String::new(), event: SessionEvent::NasReset, ..report(SessionEvent::Stop, "", 25) };
    let stop = SessionFact { received_ns: 40 * SECOND, ..report(SessionEvent::Stop, "a", 20) };
    let rebooted = [report(SessionEvent::Start, "a", 10), reset, report(SessionEvent::Start, "a", 30), stop];
    assert_eq!(ended_s(&sessions(rebooted, 60)), [Some(20), None]);
}

#[test]
fn a_session_does_not_begin_before_its_start_was_seen_whatever_was_counted() {
    for lasted_s in [52, 60, 1_200, 3_600, 86_400, 39 * 86_400, 1_795_392_000, i64::from(u32::MAX)] {
        for event in [SessionEvent::Interim, SessionEvent::Stop] {
            let counted = SessionFact { started_ns: Some((60 - lasted_s) * SECOND), ..report(event, "a", 60) };
            let found = sessions([report(SessionEvent::Start, "a", 10), counted.clone()], 61);
            let began = found.iter().map(|session| session.started_ns).min();
            assert!(began >= Some(8 * SECOND), "{lasted_s} s: {began:?}");
            let before = SessionFact { started_ns: Some(30 * SECOND), ..report(SessionEvent::Interim, "a", 40) };
            assert_eq!(sessions([before, counted], 61)[0].started_ns / SECOND, 30);
        }
    }
    let rounded = SessionFact { started_ns: Some(9 * SECOND), ..report(SessionEvent::Interim, "a", 60) };
    assert_eq!(sessions([report(SessionEvent::Start, "a", 10), rounded], 61)[0].started_ns, 9 * SECOND);
}

#[test]
fn an_update_does_not_precede_the_login_that_came_before_it() {
    let late = SessionFact { at_ns: SECOND, ..report(SessionEvent::Interim, "a", 60) };
    let found = sessions([report(SessionEvent::Start, "a", 10), late], 61);
    assert_eq!((found.len(), found[0].started_ns), (1, 10 * SECOND));
}

#[test]
fn access_points_that_share_a_name_and_a_count_have_sessions_apart() {
    use SessionEvent::{Interim, Start, Stop};
    let [ann, bob] = [1, 2].map(|last| Some(MacAddr([2, 0, 0, 0, 9, last])));
    let of = |event, user: &str, client_mac, at_s| {
        let last = if client_mac == ann { 91 } else { 92 };
        SessionFact {
            user: Some(user.to_owned()),
            client_mac,
            client_ips: vec![[10, 20, 0, last].into()],
            ..report(event, "2A", at_s)
        }
    };
    let both =
        [of(Start, "ann", ann, 1), of(Start, "bob", bob, 2), of(Interim, "ann", ann, 10), of(Interim, "bob", bob, 20)];
    assert_eq!(ended_s(&sessions(both.clone(), 30)), [None, None]);
    for (user, mac, ends) in [("ann", ann, [Some(25), None]), ("bob", bob, [None, Some(25)])] {
        assert_eq!(ended_s(&sessions([&both[..], &[of(Stop, user, mac, 25)]].concat(), 30)), ends);
        let bare = SessionFact { client_mac: None, client_ips: Vec::new(), ..of(Stop, user, mac, 25) };
        assert_eq!(ended_s(&sessions([&both[..], &[bare]].concat(), 30)), ends, "known by its user");
    }
    let place = |mut fact: SessionFact, last| {
        fact.ap_mac = Some(MacAddr([2, 0, 0, 0, 0xff, last]));
        fact
    };
    let reset = SessionFact {
        session_id: String::new(),
        user: None,
        client_mac: None,
        ..report(SessionEvent::NasReset, "", 200)
    };
    let there = [place(both[0].clone(), 1), place(both[1].clone(), 2), place(reset, 2)];
    assert_eq!(ended_s(&sessions(there, 300)), [None, Some(200)]);
}

#[test]
fn people_behind_one_device_address_do_not_end_each_others_sessions() {
    for ap_mac in [None, Some(MacAddr([2, 0, 0, 0, 0xff, 1]))] {
        let on = |id: &str, ip: IpAddr, at_s| SessionFact {
            ap_mac,
            client_ips: vec![ip],
            ..report(SessionEvent::Start, id, at_s)
        };
        let v4 = |last| IpAddr::from([10, 20, 0, last]);
        let v6 = |last: u8| format!("2001:db8::{last}").parse().unwrap();
        for [first, second] in [[v4(31), v4(32)], [v6(1), v6(2)]] {
            assert_eq!(ended_s(&sessions([on("a", first, 10), on("b", second, 20)], 30)), [None, None]);
        }
        let same = ended_s(&sessions([on("a", v4(31), 10), on("b", v4(31), 20)], 30));
        assert_eq!(same, [ap_mac.map(|_| 20), None], "one address changes hands");
    }
}

#[test]
fn addresses_that_no_device_has_name_none() {
    for mac in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
        let of = |id: &str, last| SessionFact {
            client_mac: mac.parse().ok(),
            client_ips: vec![[10, 0, 0, last].into()],
            ap_mac: Some(MacAddr([2, 0, 0, 0, 0xff, 1])),
            ..report(SessionEvent::Start, id, i64::from(last))
        };
        let found = sessions([of("a", 6), of("b", 7)], 30);
        assert_eq!(ended_s(&found), [None, None], "{mac}");
        assert!(found.iter().all(|session| session.client_mac.is_none()), "{mac}");
    }
}

#[test]
fn sessions_of_a_nas_beyond_the_limit_are_left_out_and_counted() {
    let mut table = SessionTable::default();
    for number in 0..=SESSIONS_PER_NAS_MAX {
        table.apply(SessionFact {
            client_mac: None,
            client_ips: Vec::new(),
            ..report(SessionEvent::Start, &number.to_string(), 1)
        });
    }
    assert_eq!((table.left_out(), table.facts().len()), (1, SESSIONS_PER_NAS_MAX));
    table.apply(SessionFact { nas: Some("other".to_owned()), ..report(SessionEvent::Start, "a", 1) });
    assert_eq!(table.left_out(), 1, "another NAS has room of its own");
    let timeouts = SessionTimeouts::default();
    let found = table.sessions(&timeouts, 100_000 * SECOND);
    table.forget(&found, &timeouts, 100_000 * SECOND);
    table.apply(report(SessionEvent::Start, "new", 100_000));
    assert_eq!((table.left_out(), table.facts().len()), (0, 1), "what is over makes room");
}
