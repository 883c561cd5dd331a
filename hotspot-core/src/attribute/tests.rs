use super::*;
use crate::fact::{DeviceEvent, DeviceFact, DeviceSource, SessionEvent, SessionFact};
use crate::sessions::tests::report;
use crate::sessions::{SessionTable, SessionTimeouts};

const S: WallNs = 1_000_000_000;
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn seen(mac: MacAddr, ip: [u8; 4], start_s: i64, end_s: i64) -> Seen {
    Seen { mac, ip: ip.into(), vlan: 0, inner_vlan: 0, start_ns: start_s * S, end_ns: end_s * S }
}

fn ask(reports: Vec<SessionFact>, mac: MacAddr, ip: [u8; 4], start_s: i64) -> (Attribution, Option<String>) {
    let mut table = SessionTable::default();
    reports.into_iter().for_each(|report| table.apply(report));
    let sessions = table.sessions(&SessionTimeouts::default(), 10_000 * S);
    let (attribution, identity) = Attributor::new(&sessions).attribute(&seen(mac, ip, start_s, start_s + 1));
    (attribution, names(identity.as_deref()))
}

/// The claimants' names in one text.
fn names(identity: Option<&Identity>) -> Option<String> {
    identity.map(|identity| identity.users.join(", ")).filter(|names| !names.is_empty())
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
    assert_eq!(ask(vec![report(SessionEvent::Start, "a", 10)], other, [10, 0, 0, 1], 15), (Attribution::Unknown, None));
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

/// Flows of a client are asked about one after the other, and what was found for one may count for the next.
#[test]
fn the_next_flow_may_be_near_enough_to_a_login() {
    let mut table = SessionTable::default();
    table.apply(report(SessionEvent::Start, "a", 1000));
    // An access point knew the device all the while.
    table.apply(SessionFact { user: None, ..report(SessionEvent::Start, "ap", 100) });
    let sessions = table.sessions(&SessionTimeouts::default(), 10_000 * S);
    let mut attributor = Attributor::new(&sessions);
    for (start, attribution, user) in [
        (10, Attribution::BeforeLogin, None),
        (20, Attribution::BeforeLogin, None),
        (300, Attribution::Authenticated, None),
        (310, Attribution::Authenticated, None),
        (450, Attribution::BeforeLogin, Some("user-a")),
        (999, Attribution::BeforeLogin, Some("user-a")),
        (1000, Attribution::Authenticated, Some("user-a")),
        (1001, Attribution::Authenticated, Some("user-a")),
        (300, Attribution::Authenticated, None),
    ] {
        let (said, identity) = attributor.attribute(&seen(MAC, [10, 0, 0, 1], start, start + 1));
        let named = names(identity.as_deref());
        assert_eq!((said, named.as_deref()), (attribution, user), "at {start}");
    }
}

fn ask_long(reports: &[SessionFact], start_s: i64, end_s: i64) -> (Attribution, Option<String>) {
    let mut table = SessionTable::default();
    reports.iter().for_each(|report| table.apply(report.clone()));
    let sessions = table.sessions(&SessionTimeouts::default(), 10_000 * S);
    let mut attributor = Attributor::new(&sessions);
    let (attribution, identity) = attributor.attribute(&seen(MAC, [10, 0, 0, 1], start_s, end_s));
    (attribution, names(identity.as_deref()))
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
        let (attribution, identity) = attributor.attribute(&seen(MAC, [10, 0, 0, 1], at, at));
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

const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn device(mac: MacAddr, at_s: i64, event: DeviceEvent) -> DeviceFact {
    DeviceFact { at_ns: at_s * S, client_mac: mac, vlan: 0, inner_vlan: 0, source: DeviceSource::Arp, event }
}

fn says(mac: MacAddr, ip: [u8; 4], at_s: i64) -> DeviceFact {
    device(mac, at_s, DeviceEvent::Uses { ip: ip.into() })
}

fn leased(mac: MacAddr, ip: [u8; 4], at_s: i64) -> DeviceFact {
    device(mac, at_s, DeviceEvent::Leased { ip: ip.into(), lease_s: 3600 })
}

/// Sessions `a` of [`MAC`] with address 10.0.0.1 and `b` of [`OTHER`] with 10.0.0.9, both from 10 s on.
fn ask_with(facts: &[DeviceFact], seen: &Seen) -> (Attribution, Option<String>) {
    let other = SessionFact {
        client_mac: Some(OTHER),
        client_ips: vec![[10, 0, 0, 9].into()],
        ..report(SessionEvent::Start, "b", 10)
    };
    let mut table = SessionTable::default();
    [report(SessionEvent::Start, "a", 10), other].into_iter().for_each(|report| table.apply(report));
    let sessions = table.sessions(&SessionTimeouts::default(), 10_000 * S);
    let mut devices = DeviceTable::default();
    facts.iter().for_each(|fact| devices.apply(fact));
    let (attribution, identity) = Attributor::new(&sessions).with_devices(&devices).attribute(seen);
    (attribution, names(identity.as_deref()))
}

#[test]
fn an_address_the_device_says_is_its_own_is_as_good_as_one_a_session_names() {
    let privacy = [10, 0, 0, 77];
    assert_eq!(ask_with(&[], &seen(MAC, privacy, 20, 21)), (Attribution::MacOnly, named("user-a")));
    let facts = [says(MAC, privacy, 22)];
    assert_eq!(ask_with(&facts, &seen(MAC, privacy, 20, 21)), (Attribution::Authenticated, named("user-a")));
    let tagged = Seen { vlan: 20, ..seen(MAC, privacy, 20, 21) };
    assert_eq!(ask_with(&facts, &tagged).0, Attribution::MacOnly, "another network");
}

#[test]
fn who_takes_anothers_lease_is_in_conflict_and_the_other_is_not() {
    let facts = [leased(MAC, [10, 0, 0, 1], 5), says(OTHER, [10, 0, 0, 1], 20)];
    assert_eq!(ask_with(&facts, &seen(OTHER, [10, 0, 0, 1], 25, 26)), (Attribution::Conflict, named("user-a, user-b")));
    assert_eq!(ask_with(&facts, &seen(MAC, [10, 0, 0, 1], 25, 26)), (Attribution::Authenticated, named("user-a")));
    assert_eq!(ask_with(&facts, &seen(OTHER, [10, 0, 0, 9], 25, 26)).0, Attribution::Authenticated);
}

#[test]
fn an_address_that_two_devices_say_is_theirs_is_in_conflict() {
    let twice = [10, 0, 0, 50];
    let stranger = MacAddr([2, 0, 0, 0, 0, 7]);
    let facts = [says(MAC, twice, 20), says(stranger, twice, 21), says(MAC, twice, 22), says(stranger, twice, 23)];
    let during = seen(MAC, twice, 21, 22);
    assert_eq!(ask_with(&facts, &during), (Attribution::Conflict, named("user-a")), "nobody knows whose the other is");
    assert_eq!(ask_with(&facts, &Seen { mac: stranger, ..during }), (Attribution::Unknown, None));
    assert_eq!(ask_with(&facts[..1], &during).0, Attribution::Authenticated);
}

#[test]
fn a_lease_outlives_what_a_session_once_named() {
    // They swapped addresses; their sessions do not know yet.
    let facts = [leased(MAC, [10, 0, 0, 9], 30), leased(OTHER, [10, 0, 0, 1], 30)];
    assert_eq!(ask_with(&facts, &seen(MAC, [10, 0, 0, 9], 40, 41)), (Attribution::Authenticated, named("user-a")));
    assert_eq!(ask_with(&facts, &seen(OTHER, [10, 0, 0, 1], 40, 41)), (Attribution::Authenticated, named("user-b")));
    let said = [says(MAC, [10, 0, 0, 9], 30)];
    assert_eq!(
        ask_with(&said, &seen(MAC, [10, 0, 0, 9], 40, 41)),
        (Attribution::Ambiguous, named("user-a, user-b")),
        "its own word is not enough"
    );
}

#[test]
fn an_address_given_back_was_a_lease_until_then() {
    let released = device(MAC, 30, DeviceEvent::Released { ip: [10, 0, 0, 1].into() });
    let facts = [leased(MAC, [10, 0, 0, 1], 5), says(OTHER, [10, 0, 0, 1], 20), released];
    assert_eq!(ask_with(&facts, &seen(MAC, [10, 0, 0, 1], 25, 26)).0, Attribution::Authenticated);
    assert_eq!(ask_with(&facts, &seen(OTHER, [10, 0, 0, 1], 25, 26)).0, Attribution::Conflict);
}

const REPEATER: MacAddr = MacAddr([2, 0xaa, 0xbb, 0xcc, 3, 1]);

/// Behind the repeater: anna from 10 s on with 10.0.0.31, binh from 20 s on with 10.0.0.32.
fn behind(devices: &[DeviceFact], reports: &[SessionFact], seen: &Seen) -> (Attribution, Option<String>) {
    let mut table = SessionTable::default();
    let on = |user: &str, ips: &[&str], at_s| SessionFact {
        user: named(user),
        client_mac: Some(REPEATER),
        client_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..report(SessionEvent::Start, user, at_s)
    };
    for report in [on("anna", &["10.0.0.31", "2001:db8::31"], 10), on("binh", &["10.0.0.32", "2001:db8::32"], 20)] {
        table.apply(report);
    }
    reports.iter().for_each(|report| table.apply(report.clone()));
    let sessions = table.sessions(&SessionTimeouts::default(), 10_000 * S);
    let mut known = DeviceTable::default();
    devices.iter().for_each(|fact| known.apply(fact));
    let (attribution, identity) = Attributor::new(&sessions).with_devices(&known).attribute(seen);
    (attribution, names(identity.as_deref()))
}

#[test]
fn behind_one_device_address_the_ip_address_decides() {
    let (anna, binh) = ([10, 0, 0, 31], [10, 0, 0, 32]);
    let in_turns =
        [says(REPEATER, anna, 5), says(REPEATER, binh, 6), says(REPEATER, anna, 30), says(REPEATER, binh, 31)];
    for devices in
        [&[][..], &in_turns, &[leased(REPEATER, anna, 5)], &[leased(REPEATER, anna, 5), leased(REPEATER, binh, 6)]]
    {
        for (ip, user) in [(anna, "anna"), (binh, "binh")] {
            assert_eq!(behind(devices, &[], &seen(REPEATER, ip, 40, 41)), (Attribution::Authenticated, named(user)));
        }
        for (ip, user) in [("2001:db8::31", "anna"), ("2001:db8::32", "binh")] {
            let seen = Seen { ip: ip.parse().unwrap(), ..seen(REPEATER, anna, 40, 41) };
            assert_eq!(behind(devices, &[], &seen), (Attribution::Authenticated, named(user)));
        }
        let nobodys = behind(devices, &[], &seen(REPEATER, [10, 0, 0, 33], 40, 41));
        assert_eq!(nobodys, (Attribution::Ambiguous, named("anna, binh")));
    }
    let long = behind(&[], &[], &seen(REPEATER, anna, 15, 100));
    assert_eq!(long, (Attribution::Authenticated, named("anna")), "who comes meanwhile has another address");
}

#[test]
fn a_neighbour_behind_the_same_repeater_is_not_who_logged_in_first() {
    let (anna, binh) = ([10, 0, 0, 31], [10, 0, 0, 32]);
    let in_turns = [says(REPEATER, anna, 5), says(REPEATER, binh, 6), says(REPEATER, anna, 8), says(REPEATER, binh, 9)];
    let before = |ip| behind(&in_turns, &[], &seen(REPEATER, ip, 15, 16));
    assert_eq!(before(binh), (Attribution::BeforeLogin, named("binh")));
    assert_eq!(before([10, 0, 0, 33]), (Attribution::Ambiguous, named("anna")), "nobody's, and yet hers perhaps");
    assert_eq!(behind(&[], &[], &seen(REPEATER, binh, 5, 6)), (Attribution::BeforeLogin, named("binh")));
}

#[test]
fn who_was_silent_since_another_took_the_device_has_only_the_address_it_named() {
    let on = |id: &str, ip: [u8; 4], at_s| SessionFact {
        ap_mac: Some(MacAddr([2, 0, 0, 0, 0xff, 1])),
        client_ips: vec![ip.into()],
        ..report(SessionEvent::Start, id, at_s)
    };
    let reports = vec![on("a", [10, 0, 0, 5], 10), on("b", [10, 0, 0, 6], 20)];
    assert_eq!(ask(reports, MAC, [10, 0, 0, 77], 30), (Attribution::MacOnly, named("user-b")));
}

#[test]
fn people_behind_one_outer_identity_are_two() {
    let of = |id: &str, at_s| SessionFact {
        user: named("anonymous@uni.example"),
        details: crate::fact::SessionDetails { chargeable_user: named(id), ..Default::default() }.shared(),
        ..report(SessionEvent::Start, id, at_s)
    };
    let (attribution, users) = ask(vec![of("cui-anna", 10), of("cui-binh", 12)], MAC, [10, 0, 0, 1], 15);
    let both = r"anonymous@uni.example \(cui-anna), anonymous@uni.example \(cui-binh)";
    assert_eq!((attribution, users), (Attribution::Ambiguous, named(both)));
    let one = ask(vec![of("cui-anna", 10)], MAC, [10, 0, 0, 1], 15);
    assert_eq!(one, (Attribution::Authenticated, named(r"anonymous@uni.example \(cui-anna)")));
}

#[test]
fn a_device_that_thousands_claim_lists_a_few_of_them() {
    let reports: Vec<_> = (0..1000).map(|number| report(SessionEvent::Start, &number.to_string(), 10)).collect();
    let (attribution, users) = ask(reports, MAC, [10, 0, 0, 1], 15);
    assert_eq!((attribution, users.unwrap().split(", ").count()), (Attribution::Ambiguous, CLAIMANTS_MAX));
}

#[test]
fn a_comma_in_a_name_makes_nobody_else_a_claimant() {
    for name in ["x, victim", ", ", ",", "victim,", "\"x\", \"victim\"", "[\"victim\"]"] {
        let of =
            |user: &str, id: &str, at_s| SessionFact { user: named(user), ..report(SessionEvent::Start, id, at_s) };
        let mut table = SessionTable::default();
        [of(name, "s1", 10), of("other", "t1, t2", 12)].into_iter().for_each(|report| table.apply(report));
        let sessions = table.sessions(&SessionTimeouts::default(), 10_000 * S);
        let (attribution, identity) = Attributor::new(&sessions).attribute(&seen(MAC, [10, 0, 0, 1], 15, 16));
        let identity = identity.unwrap();
        assert_eq!(attribution, Attribution::Ambiguous);
        let mut users = identity.users.clone();
        users.sort_unstable();
        let mut expected = [name, "other"];
        expected.sort_unstable();
        assert_eq!(users, expected);
        assert!(identity.session_ids.len() == 2 && identity.session_ids.contains(&"t1, t2".to_owned()), "{identity:?}");
    }
}
