//! Reports: what a portal says about a session, as JSON, and the fact that becomes of it; leases are in `lease`.
//!
//! Owns names, shapes and limits of the fields. No I/O, no clock: bytes and the moment of arrival go in, facts or a reason come out.

use std::net::IpAddr;

use hotspot_core::fact::{DeviceFact, IdentitySource, SessionCounters, SessionEvent, SessionFact};
use hotspot_core::{MacAddr, WallNs};
use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::lease::{self, Lease};

/// Characters of any text in a report, the session's id included.
const TEXT_CHARS_MAX: usize = 253;
/// Addresses and prefixes of one report.
const ADDRESSES_MAX: usize = 64;
/// Lines of a batch.
const BATCH_LINES_MAX: usize = 10_000;
/// How far ahead of the gateway's clock a report may lie.
const AHEAD_MAX_NS: WallNs = 300 * 1_000_000_000;

/// What a report says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Somebody logged in.
    Put,
    /// The session goes on; what is named replaces what was known.
    Patch,
    /// The session ended.
    Delete,
    /// A login that failed.
    Reject,
    /// The portal (`nas`) began anew: all its sessions from before are over.
    Reset,
    /// A DHCP server gave a device an address.
    Lease,
    /// The device has it no more.
    Release,
}

/// What a report says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    Session(Box<SessionFact>),
    Lease(Vec<DeviceFact>),
}

/// Why a report is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReport {
    #[error("not the JSON of a report: {0}")]
    Json(String),
    #[error("{field} is longer than {TEXT_CHARS_MAX} characters")]
    TooLong { field: &'static str },
    #[error("{field} is empty or holds control characters")]
    NotText { field: &'static str },
    #[error("more than {ADDRESSES_MAX} addresses")]
    TooManyAddresses,
    #[error("a login names mac, ips or prefixes; this one names none of them")]
    NobodyNamed,
    #[error("a login that failed names user, mac or ips; this one names none of them")]
    NobodyRejected,
    #[error("a reset names nas")]
    NoNas,
    #[error("no id")]
    NoId,
    #[error("a lease names ip and mac, of one device each; this one does not")]
    NoLease,
    #[error("dhcp_fingerprint: write the codes of option 55 with commas, like 1,3,6,15")]
    BadFingerprint,
    #[error("client_id: write 2 to 510 hexadecimal digits")]
    BadClientId,
    #[error("at: {0} (write RFC 3339, like 2026-11-23T10:00:00+07:00)")]
    Time(String),
    #[error("at lies {ahead_s} s ahead of this gateway's clock; set the clocks by NTP")]
    Ahead { ahead_s: i64 },
    #[error("line {line}: {why}")]
    Line { line: usize, why: Box<BadReport> },
    #[error("more than {BATCH_LINES_MAX} lines; send several batches")]
    TooManyLines,
}

/// What a line of a batch is about.
#[derive(Deserialize)]
struct Kind {
    op: Option<Operation>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    op: Option<Operation>,
    id: Option<String>,
    user: Option<String>,
    mac: Option<MacAddr>,
    #[serde(default)]
    ips: Vec<IpAddr>,
    #[serde(default)]
    prefixes: Vec<IpNet>,
    auth_method: Option<String>,
    ap_mac: Option<MacAddr>,
    ssid: Option<String>,
    nas: Option<String>,
    nas_port: Option<String>,
    at: Option<String>,
    interim_interval_s: Option<u32>,
    end_cause: Option<String>,
    counters: Option<Counters>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Counters {
    packets_out: u64,
    bytes_out: u64,
    packets_in: u64,
    bytes_in: u64,
}

/// One report; `subject`, the session's id or the lease's address, is from the request's line. An empty body names nothing.
pub fn parse_one(
    operation: Operation,
    subject: Option<&str>,
    body: &[u8],
    received_ns: WallNs,
) -> Result<Report, BadReport> {
    let body = if is_blank(body) { b"{}" } else { body };
    if matches!(operation, Operation::Lease | Operation::Release) {
        let mut parsed: Lease = json(body)?;
        only_in_batches("op", parsed.op.is_some())?;
        only_in_batches("ip", parsed.ip.is_some())?;
        parsed.ip = subject.and_then(|ip| ip.parse().ok());
        return lease::facts(operation, parsed, received_ns).map(Report::Lease);
    }
    let mut parsed: Body = json(body)?;
    only_in_batches("op", parsed.op.is_some())?;
    only_in_batches("id", subject.is_some() && parsed.id.is_some())?;
    parsed.id = subject.map(str::to_owned).or(parsed.id);
    Ok(Report::Session(Box::new(fact(operation, parsed, received_ns)?)))
}

fn only_in_batches(field: &str, is_there: bool) -> Result<(), BadReport> {
    if is_there {
        return Err(BadReport::Json(format!("{field} is for batches; here the request's line says it")));
    }
    Ok(())
}

/// The reports of a batch: a JSON object per line, with `op`, and `id` or `ip`. One bad line refuses the whole batch.
pub fn parse_batch(body: &[u8], received_ns: WallNs) -> Result<Vec<Report>, BadReport> {
    let mut reports = Vec::new();
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if is_blank(line) {
            continue;
        }
        if reports.len() == BATCH_LINES_MAX {
            return Err(BadReport::TooManyLines);
        }
        let parse = || match json::<Kind>(line)?.op {
            None => Err(BadReport::Json("no op".to_owned())),
            Some(operation @ (Operation::Lease | Operation::Release)) => {
                lease::facts(operation, json(line)?, received_ns).map(Report::Lease)
            }
            Some(operation) => Ok(Report::Session(Box::new(fact(operation, json(line)?, received_ns)?))),
        };
        reports.push(parse().map_err(|why| BadReport::Line { line: number + 1, why: Box::new(why) })?);
    }
    Ok(reports)
}

fn is_blank(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_whitespace)
}

fn json<T: DeserializeOwned>(text: &[u8]) -> Result<T, BadReport> {
    serde_json::from_slice(text).map_err(|error| BadReport::Json(error.to_string()))
}

fn fact(operation: Operation, body: Body, received_ns: WallNs) -> Result<SessionFact, BadReport> {
    check_texts(&body)?;
    if body.ips.len() + body.prefixes.len() > ADDRESSES_MAX {
        return Err(BadReport::TooManyAddresses);
    }
    let names_somebody = body.mac.is_some() || !body.ips.is_empty() || !body.prefixes.is_empty();
    let (event, session_id) = match operation {
        Operation::Put if !names_somebody => return Err(BadReport::NobodyNamed),
        Operation::Reject if !names_somebody && body.user.is_none() => return Err(BadReport::NobodyRejected),
        Operation::Reset if body.nas.is_none() => return Err(BadReport::NoNas),
        Operation::Reset => (SessionEvent::NasReset, String::new()),
        // A login that failed has no session; device, name and moment tell two apart.
        Operation::Reject => {
            (SessionEvent::Rejected, body.id.clone().unwrap_or_else(|| rejected_id(&body, received_ns)))
        }
        Operation::Put => (SessionEvent::Start, body.id.clone().ok_or(BadReport::NoId)?),
        Operation::Patch => (SessionEvent::Interim, body.id.clone().ok_or(BadReport::NoId)?),
        Operation::Delete => (SessionEvent::Stop, body.id.clone().ok_or(BadReport::NoId)?),
        Operation::Lease | Operation::Release => return Err(BadReport::NoLease),
    };
    Ok(SessionFact {
        event,
        source: IdentitySource::Portal,
        session_id,
        user: body.user,
        auth_method: body.auth_method.or_else(|| (operation == Operation::Put).then(|| "portal".to_owned())),
        client_mac: body.mac,
        client_ips: body.ips,
        client_prefixes: body.prefixes.iter().map(|net| (net.network(), net.prefix_len())).collect(),
        ap_mac: body.ap_mac,
        ssid: body.ssid,
        nas: body.nas,
        nas_port: body.nas_port,
        at_ns: moment(body.at.as_deref(), received_ns)?,
        started_ns: None,
        received_ns,
        counters: body.counters.map(|counted| SessionCounters {
            packets_out: counted.packets_out,
            bytes_out: counted.bytes_out,
            packets_in: counted.packets_in,
            bytes_in: counted.bytes_in,
        }),
        end_cause: body.end_cause,
        interim_interval_s: body.interim_interval_s,
        details: None,
    })
}

fn rejected_id(body: &Body, received_ns: WallNs) -> String {
    let device = body.mac.map(|mac| mac.to_string()).unwrap_or_default();
    format!("rejected/{device}/{}", body.at.clone().unwrap_or_else(|| received_ns.to_string()))
}

fn check_texts(body: &Body) -> Result<(), BadReport> {
    let texts = [
        ("id", &body.id),
        ("user", &body.user),
        ("auth_method", &body.auth_method),
        ("ssid", &body.ssid),
        ("nas", &body.nas),
        ("nas_port", &body.nas_port),
        ("end_cause", &body.end_cause),
    ];
    for (field, text) in texts {
        let Some(text) = text else { continue };
        if text.chars().count() > TEXT_CHARS_MAX {
            return Err(BadReport::TooLong { field });
        }
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(BadReport::NotText { field });
        }
    }
    Ok(())
}

pub(super) fn moment(text: Option<&str>, received_ns: WallNs) -> Result<WallNs, BadReport> {
    let Some(text) = text else { return Ok(received_ns) };
    let time: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| BadReport::Time(error.to_string()))?;
    let at_ns = WallNs::try_from(time.as_nanosecond()).map_err(|error| BadReport::Time(error.to_string()))?;
    if at_ns - received_ns > AHEAD_MAX_NS {
        return Err(BadReport::Ahead { ahead_s: (at_ns - received_ns) / 1_000_000_000 });
    }
    Ok(at_ns)
}

#[cfg(test)]
mod tests {
    use hotspot_core::fact::{DeviceEvent, DeviceNames, DeviceSource};

    use super::*;

    const NOW: WallNs = 1_795_392_000_000_000_000;

    fn one(operation: Operation, id: Option<&str>, body: &[u8]) -> Result<SessionFact, BadReport> {
        parse_one(operation, id, body, NOW).map(session)
    }

    fn session(report: Report) -> SessionFact {
        let Report::Session(fact) = report else { panic!("{report:?} is about no session") };
        *fact
    }

    fn put(body: &str) -> Result<SessionFact, BadReport> {
        one(Operation::Put, Some("s1"), body.as_bytes())
    }

    fn lease(operation: Operation, body: &[u8]) -> Result<Vec<DeviceEvent>, BadReport> {
        let Report::Lease(facts) = parse_one(operation, Some("10.20.0.14"), body, NOW)? else { panic!("no lease") };
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
        let with =
            |field: &str| lease(Operation::Lease, format!(r#"{{"mac":"02:aa:bb:cc:dd:ee",{field}}}"#).as_bytes());
        assert_eq!(lease(Operation::Lease, b"{}"), Err(BadReport::NoLease));
        assert_eq!(lease(Operation::Lease, br#"{"mac":"ff:ff:ff:ff:ff:ff"}"#), Err(BadReport::NoLease));
        assert_eq!(with(r#""dhcp_fingerprint":"1,256""#), Err(BadReport::BadFingerprint));
        assert_eq!(with(r#""client_id":"x""#), Err(BadReport::BadClientId));
        for bad in [r#""hostname":"""#, r#""user":"a""#, r#""ip":"10.0.0.1""#, r#""op":"lease""#] {
            assert!(matches!(with(bad), Err(BadReport::Json(_))), "{bad}");
        }
        assert!(matches!(with(&format!(r#""hostname":"{}""#, "x".repeat(256))), Err(BadReport::Json(_))));
        let elsewhere = parse_one(Operation::Lease, Some("10.20.0"), br#"{"mac":"02:aa:bb:cc:dd:ee"}"#, NOW);
        assert_eq!(elsewhere, Err(BadReport::NoLease));
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
        assert_eq!(put(r#"{"mac":"02:00:00:00:00:01","user":""}"#), Err(BadReport::NotText { field: "user" }));
        assert_eq!(put(r#"{"mac":"02:00:00:00:00:01","user":"a\u0000b"}"#), Err(BadReport::NotText { field: "user" }));
        let long = format!(r#"{{"mac":"02:00:00:00:00:01","user":"{}"}}"#, "x".repeat(254));
        assert_eq!(put(&long), Err(BadReport::TooLong { field: "user" }));
        assert!(matches!(put(r#"{"mac":"02:00:00:00:00:01","usr":"a"}"#), Err(BadReport::Json(_))));
        assert!(matches!(put(r#"{"mac":"02:00:00:00:00:01","op":"put"}"#), Err(BadReport::Json(_))));
        assert!(matches!(put(r#"{"mac":"02:00:00:00:00:01","at":"10:00"}"#), Err(BadReport::Time(_))));
        let ahead = put(r#"{"mac":"02:00:00:00:00:01","at":"2026-11-23T01:00:00Z"}"#);
        assert_eq!(ahead, Err(BadReport::Ahead { ahead_s: 3600 }));
        let many = format!(r#"{{"ips":[{}]}}"#, vec![r#""10.0.0.1""#; 65].join(","));
        assert_eq!(put(&many), Err(BadReport::TooManyAddresses));
        assert_eq!(one(Operation::Reset, None, b""), Err(BadReport::NoNas));
        assert_eq!(one(Operation::Reject, None, b""), Err(BadReport::NobodyRejected));
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
        let reports = parse_batch(lines.as_bytes(), NOW).unwrap();
        let events: Vec<_> = reports.into_iter().map(|report| session(report).event).collect();
        assert_eq!(events, [SessionEvent::Start, SessionEvent::Stop]);
        let bad = format!("{lines}{{\"op\":\"put\",\"id\":\"b\"}}");
        let refused = parse_batch(bad.as_bytes(), NOW);
        assert_eq!(refused, Err(BadReport::Line { line: 4, why: Box::new(BadReport::NobodyNamed) }));
        let many = "{\"op\":\"delete\",\"id\":\"a\"}\n".repeat(BATCH_LINES_MAX + 1);
        assert_eq!(parse_batch(many.as_bytes(), NOW), Err(BadReport::TooManyLines));
        let mixed = r#"{"op":"lease","ip":"10.0.0.1","mac":"02:aa:bb:cc:dd:ee"}"#.to_owned() + "\n" + lines;
        let reports = parse_batch(mixed.as_bytes(), NOW).unwrap();
        assert!(matches!(reports[..], [Report::Lease(_), Report::Session(_), Report::Session(_)]), "{reports:?}");
    }
}
