//! Histories in which the join that forgets once answered otherwise than the one that forgets nothing: each is here for ever.

use hotspot_core::WallNs;
use hotspot_core::fact::{IdentitySource, SessionDetails, SessionEvent, SessionFact};

use crate::histories::{Flow, HALF, History, mac};

/// A report about the session of one name and number, at a moment and arriving at one, in half seconds.
fn report(event: SessionEvent, at: i64, received: i64) -> SessionFact {
    SessionFact {
        event,
        source: IdentitySource::Radius,
        session_id: "1".to_owned(),
        user: None,
        auth_method: None,
        client_mac: None,
        client_ips: Vec::new(),
        client_prefixes: Vec::new(),
        ap_mac: None,
        ssid: None,
        nas: Some("nas0".to_owned()),
        nas_port: None,
        at_ns: at * HALF,
        started_ns: None,
        received_ns: received * HALF,
        counters: None,
        end_cause: None,
        interim_interval_s: None,
        details: None,
    }
}

fn start(at: i64) -> SessionFact {
    report(SessionEvent::Start, at, at)
}

fn of(device: u8, fact: SessionFact) -> SessionFact {
    SessionFact { client_mac: Some(mac(device)), ..fact }
}

fn by(user: &str, fact: SessionFact) -> SessionFact {
    SessionFact { user: Some(user.to_owned()), ..fact }
}

fn since(began: i64, fact: SessionFact) -> SessionFact {
    SessionFact { started_ns: Some(began * HALF), ..fact }
}

fn history(facts: Vec<SessionFact>, device: u8, ip: &str, asked: i64) -> History {
    let start_ns: WallNs = asked * HALF + 1;
    let flow = Flow { mac: mac(device), ip: ip.parse().unwrap(), vlan: 0, start_ns, end_ns: start_ns };
    History { facts, shown: Vec::new(), flows: vec![flow], now_ns: 1600 * HALF }
}

/// What each is about, and the history.
pub(crate) fn all() -> Vec<(&'static str, History)> {
    use SessionEvent::{Interim, NasReset, Stop};
    let reset = |at| SessionFact { session_id: String::new(), ..report(NasReset, at, at) };
    let updates = (1..14).map(|number| of(1, by("ann", report(Interim, number * 100, number * 100))));
    let outlived = [of(1, by("ann", start(0))), reset(150)].into_iter().chain(updates);
    let outlived = outlived.chain([of(1, by("ann", since(200, report(Interim, 1400, 1400))))]).collect();
    let chargeable = |fact| {
        let chargeable_user = Some("cui-0".to_owned());
        SessionFact { details: SessionDetails { chargeable_user, ..SessionDetails::default() }.shared(), ..fact }
    };
    let prefix = |fact| SessionFact { client_prefixes: vec![("2001:db8::".parse().unwrap(), 64)], ..fact };
    vec![
        (
            "an update that carries a beginning older than the resets that are kept",
            history(outlived, 1, "10.0.0.0", 1390),
        ),
        (
            "a login long before, which decides whether an update is late or its clock is behind",
            history(vec![start(0), of(1, start(899)), report(Interim, 2, 1079)], 1, "10.0.0.0", 1079),
        ),
        (
            "a beginning before the end of what was long over",
            history(
                vec![
                    report(Stop, 413, 413),
                    of(1, by("ann", since(412, start(1067)))),
                    SessionFact { session_id: "2".to_owned(), ..of(1, by("ann", since(413, start(965)))) },
                    SessionFact { session_id: "2".to_owned(), ..report(Stop, 413, 413) },
                    SessionFact { session_id: "2".to_owned(), ..by("ann", report(Interim, 851, 851)) },
                ],
                1,
                "10.0.0.0",
                947,
            ),
        ),
        (
            "a device that had the number long before",
            history(
                vec![of(2, start(0)), of(1, by("bob", start(1017))), by("bob", since(1197, start(1218)))],
                1,
                "10.0.0.0",
                1197,
            ),
        ),
        (
            "a device whose report arrives long after one that names none",
            history(
                vec![
                    of(1, start(392)),
                    by("bob", report(SessionEvent::Start, 961, 962)),
                    of(2, by("bob", report(Interim, 376, 1341))),
                ],
                2,
                "10.0.0.0",
                947,
            ),
        ),
        (
            "a report that names no device and arrives late, before one that is in time",
            history(
                vec![
                    of(1, start(0)),
                    prefix(by("bob", report(SessionEvent::Start, 1108, 1418))),
                    by("ann", start(1109)),
                ],
                1,
                "2001:db8::3",
                1109,
            ),
        ),
        (
            "a report that names no device, long after the only one that did",
            history(
                vec![of(1, report(Stop, 1191, 1191)), prefix(since(825, report(SessionEvent::Start, 1576, 1574)))],
                1,
                "2001:db8::3",
                825,
            ),
        ),
        (
            "a report long before that was taken for a device's which came later",
            history(
                vec![
                    start(0),
                    of(1, by("bob", report(SessionEvent::Start, 1088, 1469))),
                    chargeable(by("bob", start(1268))),
                ],
                1,
                "10.0.0.0",
                947,
            ),
        ),
    ]
}
