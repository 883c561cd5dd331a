//! What a report means, what is odd about it, and what is none.

use hotspot_core::fact::{DeviceEvent, DeviceNames, DeviceSource};

use super::*;

const NOW: WallNs = 1_795_392_000_000_000_000;
const MAC: &str = "02:aa:bb:cc:dd:ee";

fn parsed(operation: Operation, subject: Option<&str>, body: &[u8]) -> Result<(Report, Vec<&'static str>), BadReport> {
    let mut read = parse_one(operation, subject.map(str::as_bytes), body, NOW)?;
    assert_eq!(read.reports.len(), 1);
    Ok((read.reports.remove(0), read.odd))
}

fn one(operation: Operation, id: Option<&str>, body: &[u8]) -> Result<SessionFact, BadReport> {
    parsed(operation, id, body).map(|(report, _)| session(report))
}

fn session(report: Report) -> SessionFact {
    let Report::Session(fact) = report else { panic!("{report:?} is about no session") };
    *fact
}

fn put(body: &str) -> Result<SessionFact, BadReport> {
    one(Operation::Put, Some("s1"), body.as_bytes())
}

fn lease(operation: Operation, body: &[u8]) -> Result<Vec<DeviceEvent>, BadReport> {
    let (Report::Lease(facts), _) = parsed(operation, Some("10.20.0.14"), body)? else { panic!("no lease") };
    assert!(facts.iter().all(|fact| fact.source == DeviceSource::Lease && fact.at_ns <= NOW));
    Ok(facts.into_iter().map(|fact| fact.event).collect())
}

#[test]
fn a_lease_says_what_the_device_called_itself_and_which_address_it_has() {
    let ip = [10, 20, 0, 14].into();
    let body = b"{\"mac\":\"02:aa:bb:cc:dd:ee\",\"lease_s\":3600,\"hostname\":\"od\xff\\\\\x01\",\
                \"client_id\":\"01AB\",\"dhcp_fingerprint\":\"1,3,255\"}";
    let names = DeviceNames {
        hostname: Some(r"od\xff\\\x01".into()),
        dhcp_fingerprint: Some("1,3,255".into()),
        client_id: Some("01ab".into()),
        vendor_class: None,
    };
    let events = lease(Operation::Lease, body);
    assert_eq!(events, Ok(vec![DeviceEvent::Named(names), DeviceEvent::Leased { ip, lease_s: 3600 }]));
    let mac = br#"{"mac":"02:aa:bb:cc:dd:ee"}"#;
    assert_eq!(lease(Operation::Lease, mac), Ok(vec![DeviceEvent::Leased { ip, lease_s: u32::MAX }]));
    assert_eq!(lease(Operation::Release, mac), Ok(vec![DeviceEvent::Released { ip }]));
}

#[test]
fn a_lease_that_is_none_is_refused() {
    let with = |field: &str| lease(Operation::Lease, format!(r#"{{"mac":"02:aa:bb:cc:dd:ee",{field}}}"#).as_bytes());
    assert_eq!(lease(Operation::Lease, b"{}"), Err(BadReport::NoLease));
    assert_eq!(lease(Operation::Lease, br#"{"mac":"ff:ff:ff:ff:ff:ff"}"#), Err(BadReport::NoLease));
    assert_eq!(lease(Operation::Lease, br#"{"mac":"no-mac"}"#), Err(BadReport::NoLease));
    for bad in [r#""user":"a""#, r#""ip":"10.0.0.1""#, r#""op":"lease""#] {
        assert!(matches!(with(bad), Err(BadReport::Json(_))), "{bad}");
    }
    for subject in [&b"10.20.0"[..], b"\xff"] {
        let elsewhere = parse_one(Operation::Lease, Some(subject), br#"{"mac":"02:aa:bb:cc:dd:ee"}"#, NOW);
        assert_eq!(elsewhere, Err(BadReport::NoLease));
    }
}

#[test]
fn an_odd_field_of_a_lease_costs_itself_and_is_named() {
    let ip = [10, 20, 0, 14].into();
    for (field, value) in [
        ("dhcp_fingerprint", "\"1,256\"".to_owned()),
        ("dhcp_fingerprint", "\"\"".to_owned()),
        ("client_id", "\"x\"".to_owned()),
        ("hostname", format!("\"{}\"", "x".repeat(256))),
        ("vendor_class", "[1]".to_owned()),
        ("lease_s", "-3".to_owned()),
    ] {
        let body = format!(r#"{{"mac":"{MAC}","{field}":{value}}}"#);
        let (Report::Lease(facts), odd) = parsed(Operation::Lease, Some("::ffff:10.20.0.14"), body.as_bytes()).unwrap()
        else {
            panic!("no lease")
        };
        assert_eq!(odd, [field], "{value}");
        let events: Vec<DeviceEvent> = facts.into_iter().map(|fact| fact.event).collect();
        assert_eq!(events, [DeviceEvent::Leased { ip, lease_s: u32::MAX }], "{value}");
    }
    let body = format!(r#"{{"mac":"{MAC}","client_id":"01:02:aB","hostname":""}}"#);
    let events = lease(Operation::Lease, body.as_bytes()).unwrap();
    let names = DeviceNames { client_id: Some("0102ab".into()), ..DeviceNames::default() };
    assert_eq!(events[0], DeviceEvent::Named(names), "as dnsmasq shows it");
}

#[test]
fn a_login_is_the_start_of_a_session() {
    let fact =
        put(r#"{"user":"0912345678","mac":"02-AA-BB-CC-DD-EE","ips":["10.20.0.14"],"prefixes":["2001:db8:1::/64"],
        "ssid":"Cafe","nas":"portal1","at":"2026-11-23T07:00:00+07:00"}"#)
        .unwrap();
    assert_eq!((fact.event, fact.source, &*fact.session_id), (SessionEvent::Start, IdentitySource::Portal, "s1"));
    assert_eq!(fact.client_mac, Some("02:aa:bb:cc:dd:ee".parse().unwrap()));
    assert_eq!(fact.client_prefixes, [("2001:db8:1::".parse().unwrap(), 64)]);
    assert_eq!((fact.at_ns, fact.received_ns), (NOW, NOW));
    assert_eq!(fact.auth_method.as_deref(), Some("portal"));
}

#[test]
fn what_is_wrong_is_said() {
    assert_eq!(put("{}"), Err(BadReport::NobodyNamed));
    assert_eq!(put(r#"{"mac":"hotspot1","ips":["x"]}"#), Err(BadReport::NobodyNamed), "none that can be read");
    assert!(matches!(put(r#"{"mac":"02:00:00:00:00:01","usr":"a"}"#), Err(BadReport::Json(_))));
    assert!(matches!(put(r#"{"mac":"02:00:00:00:00:01","op":"put"}"#), Err(BadReport::Json(_))));
    assert!(matches!(put(r#"{"mac":"02:00:00:00:00:01","at":"10:00"}"#), Err(BadReport::Time(_))));
    let ahead = put(r#"{"mac":"02:00:00:00:00:01","at":"2026-11-23T01:00:00Z"}"#);
    assert_eq!(ahead, Err(BadReport::Ahead { ahead_s: 3600 }));
    assert_eq!(one(Operation::Reset, None, b""), Err(BadReport::NoNas));
    assert_eq!(one(Operation::Reject, None, b""), Err(BadReport::NobodyRejected));
    let long = "i".repeat(TEXT_CHARS_MAX + 1);
    assert_eq!(one(Operation::Delete, Some(&long), b""), Err(BadReport::BadId));
    let line = format!(r#"{{"op":"delete","id":"{long}"}}"#);
    let refused = parse_batch(line.as_bytes(), NOW);
    assert_eq!(refused, Err(BadReport::Line { line: 1, why: Box::new(BadReport::BadId) }));
}

#[test]
fn an_odd_field_costs_itself_and_is_named_and_the_login_stands() {
    let long = format!("\"{}\"", "x".repeat(TEXT_CHARS_MAX + 1));
    for (field, value) in [
        ("user", &*long),
        ("user", "true"),
        ("ssid", "{}"),
        ("nas", "[]"),
        ("ap_mac", "\"hotspot1\""),
        ("interim_interval_s", "-1"),
        ("counters", "{\"bytes_in\":\"many\"}"),
        ("prefixes", "[\"2001:db8::/200\"]"),
        ("end_cause", "7.5e400"),
    ] {
        let body = format!(r#"{{"mac":"{MAC}","ips":["::ffff:10.20.0.14"],"{field}":{value}}}"#);
        let Ok((report, odd)) = parsed(Operation::Put, Some("s1"), body.as_bytes()) else {
            assert_eq!(value, "7.5e400", "no JSON reader has such a number");
            continue;
        };
        let fact = session(report);
        assert_eq!((fact.client_mac, &*fact.client_ips), (MAC.parse().ok(), &[[10, 20, 0, 14].into()][..]), "{body}");
        assert_eq!(odd, [field], "{body}");
    }
    // Of device and address one is enough.
    let (report, odd) = parsed(Operation::Put, Some("s1"), br#"{"mac":"hotspot1","ips":["10.20.0.14"]}"#).unwrap();
    assert_eq!((session(report).client_mac, odd), (None, vec!["mac"]));
}

#[test]
fn an_access_point_may_have_its_network_behind_it_or_a_name() {
    let access_point = |said: &str| {
        let (report, odd) =
            parsed(Operation::Put, Some("s1"), format!(r#"{{"mac":"{MAC}","ap_mac":"{said}"}}"#).as_bytes()).unwrap();
        let fact = session(report);
        (
            fact.ap_mac.map(|mac| mac.to_string()),
            fact.ssid,
            fact.details.and_then(|details| details.called_station.clone()),
            odd,
        )
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(access_point("02-00-00-00-FF-01"), (text("02:00:00:00:ff:01"), None, None, vec![]));
    assert_eq!(access_point("02-00-00-00-FF-01:Cafe"), (text("02:00:00:00:ff:01"), text("Cafe"), None, vec!["ap_mac"]));
    assert_eq!(access_point("hotspot1"), (None, None, text("hotspot1"), vec!["ap_mac"]));
}

#[test]
fn a_name_is_spelled_as_radius_spells_it() {
    let user = |name: &[u8]| {
        one(Operation::Put, Some("s1"), &[&br#"{"mac":"02:aa:bb:cc:dd:ee","user":""#[..], name, b"\"}"].concat())
    };
    for (said, kept) in [(&b"Ren\xe9"[..], r"Ren\xe9"), (br"CORP\\anna", r"CORP\\anna"), (br"a\u0085b", r"a\u{85}b")] {
        assert_eq!(user(said).unwrap().user.as_deref(), Some(kept));
    }
    assert_eq!(user("7".repeat(254).as_bytes()).unwrap().user.unwrap().len(), 254);
    let fact = parse_one(Operation::Delete, Some(b"CORP\\\xff"), b"", NOW).unwrap().reports.remove(0);
    assert_eq!(session(fact).session_id, r"CORP\\\xff", "the id too");
}

#[test]
fn an_interval_of_no_seconds_promises_no_updates() {
    let interval =
        |said: &str| put(&format!(r#"{{"mac":"{MAC}","interim_interval_s":{said}}}"#)).unwrap().interim_interval_s;
    assert_eq!(
        (interval("0"), interval("null"), interval("300"), interval("\"300\"")),
        (None, None, Some(300), Some(300))
    );
}

#[test]
fn an_end_needs_no_body_and_a_rejection_no_id() {
    let stop = one(Operation::Delete, Some("s1"), b" ").unwrap();
    assert_eq!((stop.event, stop.at_ns), (SessionEvent::Stop, NOW));
    let rejected = one(Operation::Reject, None, br#"{"user":"x","mac":"02:00:00:00:00:01"}"#).unwrap();
    assert_eq!(rejected.event, SessionEvent::Rejected);
    assert!(rejected.session_id.starts_with("rejected/02:00:00:00:00:01/"));
}

#[test]
fn a_batch_is_taken_as_a_whole_or_not_at_all() {
    let lines = "{\"op\":\"put\",\"id\":\"a\",\"ips\":[\"10.0.0.1\"]}\n\n{\"op\":\"delete\",\"id\":\"a\"}\n";
    let reports = parse_batch(lines.as_bytes(), NOW).unwrap().reports;
    let events: Vec<_> = reports.into_iter().map(|report| session(report).event).collect();
    assert_eq!(events, [SessionEvent::Start, SessionEvent::Stop]);
    let bad = format!("{lines}{{\"op\":\"put\",\"id\":\"b\"}}");
    let refused = parse_batch(bad.as_bytes(), NOW);
    assert_eq!(refused, Err(BadReport::Line { line: 4, why: Box::new(BadReport::NobodyNamed) }));
    let many = "{\"op\":\"delete\",\"id\":\"a\"}\n".repeat(BATCH_LINES_MAX + 1);
    assert_eq!(parse_batch(many.as_bytes(), NOW), Err(BadReport::TooManyLines));
    let mixed = r#"{"op":"lease","ip":"10.0.0.1","mac":"02:aa:bb:cc:dd:ee"}"#.to_owned() + "\n" + lines;
    let reports = parse_batch(mixed.as_bytes(), NOW).unwrap().reports;
    assert!(matches!(reports[..], [Report::Lease(_), Report::Session(_), Report::Session(_)]), "{reports:?}");
}

#[test]
fn a_time_that_only_a_wrong_clock_can_say_waits_until_the_clocks_agree() {
    let at = |at_ns: WallNs| {
        let at = jiff::Timestamp::from_nanosecond(at_ns.into()).unwrap();
        put(&format!(r#"{{"mac":"02:00:00:00:00:01","at":"{at}"}}"#)).map(|fact| fact.at_ns)
    };
    for taken in [NOW - BEHIND_MAX_NS, NOW - 3 * SECOND, NOW + AHEAD_MAX_NS] {
        assert_eq!(at(taken), Ok(taken));
    }
    for waits in [0, 60 * SECOND, 946_684_800 * SECOND, NOW - BEHIND_MAX_NS - 1, NOW + AHEAD_MAX_NS + 1, 2 * NOW] {
        assert!(at(waits).unwrap_err().is_undated(), "{waits}");
    }
    assert!(!put(r#"{"mac":"02:00:00:00:00:01","at":"10:00"}"#).unwrap_err().is_undated());
}

#[test]
fn a_mac_that_can_be_no_devices_is_none_and_a_mac_for_a_user_is_the_device() {
    for nothing in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
        assert_eq!(put(&format!(r#"{{"mac":"{nothing}"}}"#)), Err(BadReport::NobodyNamed));
        let fact = put(&format!(r#"{{"mac":"{nothing}","ips":["10.0.0.1"],"ap_mac":"{nothing}"}}"#)).unwrap();
        assert_eq!((fact.client_mac, fact.ap_mac), (None, None), "{nothing}");
    }
    let fact = put(r#"{"user":"02aabbcc1301","ips":["10.0.0.1"]}"#).unwrap();
    assert_eq!(fact.client_mac, Some("02:aa:bb:cc:13:01".parse().unwrap()));
}
