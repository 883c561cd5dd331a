//! A portal's report of any content: what somebody who has a token can send, and what a broken portal with one can.
//!
//! The first byte says what the request asks for, what follows up to a line feed of what its path speaks, and the rest is the body; or all
//! is a batch. What is taken must be what the parsers promise: texts that are not empty and in the archive's spelling, and no time ahead
//! of the clock; and taking it again must change nothing. The parsers are private to the agent, which is a large thing to build with a
//! sanitizer: their files are taken in here.
#![no_main]
#![allow(dead_code, reason = "what only the agent uses of them")]

use hotspot_core::device::{DeviceTable, DeviceTimeouts};
use hotspot_core::fact::{DeviceEvent, DeviceFact, SessionFact};
use hotspot_core::sessions::{SessionTable, SessionTimeouts};
use hotspot_core::text::is_spelled;
use libfuzzer_sys::fuzz_target;

#[path = "../../hotspot-agent/src/identity/portal"]
mod portal {
    mod fields;
    mod lease;
    mod report;

    pub(crate) use report::{Operation, Report, parse_batch, parse_one};
}

use portal::{Operation, Report, parse_batch, parse_one};

const NOW_NS: i64 = 1_795_392_000_000_000_000;
const AHEAD_MAX_NS: i64 = 300_000_000_000;

const OPERATIONS: [Operation; 7] = [
    Operation::Put,
    Operation::Patch,
    Operation::Delete,
    Operation::Reject,
    Operation::Reset,
    Operation::Lease,
    Operation::Release,
];

fuzz_target!(|bytes: &[u8]| {
    let [operation, rest @ ..] = bytes else { return };
    let split = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let subject = Some(&rest[..split]).filter(|subject| !subject.is_empty());
    let reports = match OPERATIONS.get(usize::from(operation.wrapping_sub(b'0'))) {
        Some(operation) => {
            let body = rest.get(split + 1..).unwrap_or_default();
            parse_one(*operation, subject, body, NOW_NS)
        }
        None => parse_batch(rest, NOW_NS),
    };
    let (mut sessions, mut devices) = (SessionTable::default(), DeviceTable::default());
    for report in reports.map(|read| read.reports).unwrap_or_default() {
        match report {
            Report::Session(fact) => apply(&mut sessions, *fact),
            Report::Lease(facts) => facts.iter().for_each(|fact| apply_to(&mut devices, fact)),
        }
    }
    let timeouts = SessionTimeouts::default();
    let lives = sessions.sessions(&timeouts, NOW_NS);
    sessions.forget(&lives, &timeouts, NOW_NS);
    std::hint::black_box(SessionTable::records(lives, NOW_NS, NOW_NS, NOW_NS));
    devices.forget(&DeviceTimeouts::default(), NOW_NS);
});

fn apply(sessions: &mut SessionTable, fact: SessionFact) {
    let texts = [&fact.user, &fact.auth_method, &fact.ssid, &fact.nas, &fact.nas_port, &fact.end_cause];
    assert!(texts.into_iter().flatten().all(|text| !text.is_empty() && is_spelled(text)));
    assert!(is_spelled(&fact.session_id));
    assert!(fact.at_ns <= NOW_NS + AHEAD_MAX_NS && fact.received_ns == NOW_NS);
    sessions.apply(fact.clone());
    let once = sessions.facts();
    sessions.apply(fact);
    assert!(once == sessions.facts(), "the same report again changes nothing");
}

fn apply_to(devices: &mut DeviceTable, fact: &DeviceFact) {
    if let DeviceEvent::Named(names) = &fact.event {
        let texts = [&names.hostname, &names.vendor_class, &names.dhcp_fingerprint, &names.client_id];
        assert!(texts.into_iter().flatten().all(|text| !text.is_empty() && is_spelled(text)));
    }
    assert!(fact.at_ns <= NOW_NS);
    devices.apply(fact);
    let once = devices.devices();
    devices.apply(fact);
    assert!(once == devices.devices(), "the same fact again changes nothing");
}
