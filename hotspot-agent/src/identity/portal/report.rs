//! Reports: what a portal says about a session, as JSON, and the fact that becomes of it; leases are in `lease`.
//!
//! Owns names, shapes and limits of the fields. No I/O, no clock: bytes and the moment of arrival go in, facts or a reason come out.

use hotspot_core::fact::{DeviceFact, IdentitySource, SessionCounters, SessionDetails, SessionEvent, SessionFact};
use hotspot_core::radius::station;
use hotspot_core::{WallNs, named_device};

use super::fields::{Fields, TEXT_CHARS_MAX, spelled};
use super::lease;

/// Fields of a session's report; `op` and `id` are for batches.
const FIELDS: [&str; 15] = [
    "op",
    "id",
    "user",
    "mac",
    "ips",
    "prefixes",
    "auth_method",
    "ap_mac",
    "ssid",
    "nas",
    "nas_port",
    "at",
    "interim_interval_s",
    "end_cause",
    "counters",
];
/// Lines of a batch.
const BATCH_LINES_MAX: usize = 10_000;
/// How far ahead of the gateway's clock a report may lie.
const AHEAD_MAX_NS: WallNs = 300 * SECOND;
/// How far behind it: a spool may have waited for weeks, a clock that was never set is years behind.
const BEHIND_MAX_NS: WallNs = 30 * 24 * 3600 * SECOND;
const SECOND: WallNs = 1_000_000_000;

/// What a report says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Operation {
    fn named(word: &str) -> Option<Self> {
        Some(match word {
            "put" => Self::Put,
            "patch" => Self::Patch,
            "delete" => Self::Delete,
            "reject" => Self::Reject,
            "reset" => Self::Reset,
            "lease" => Self::Lease,
            "release" => Self::Release,
            _ => return None,
        })
    }
}

/// Reports that can be recorded, and the fields that they count without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    pub reports: Vec<Report>,
    /// Names of fields that were not as they should be, once for each report.
    pub odd: Vec<&'static str>,
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
    #[error("the id is no text of 1 to {TEXT_CHARS_MAX} characters")]
    BadId,
    #[error("a login names mac, ips or prefixes; this one names none of them that can be read")]
    NobodyNamed,
    #[error("a login that failed names user, mac or ips; this one names none of them")]
    NobodyRejected,
    #[error("a reset names nas")]
    NoNas,
    #[error("no id")]
    NoId,
    #[error("a lease names ip and mac, of one device each; this one does not")]
    NoLease,
    #[error("at: {0} (write RFC 3339, like 2026-11-23T10:00:00+07:00)")]
    Time(String),
    #[error("at lies {ahead_s} s ahead of this gateway's clock; set the clocks by NTP, and send it again")]
    Ahead { ahead_s: i64 },
    #[error("at lies {behind_s} s behind this gateway's clock; set the clocks by NTP, and send it again")]
    Behind { behind_s: i64 },
    #[error("line {line}: {why}")]
    Line { line: usize, why: Box<BadReport> },
    #[error("more than {BATCH_LINES_MAX} lines; send several batches")]
    TooManyLines,
}

impl BadReport {
    /// Whether it is only one clock or the other that keeps the report from being taken: it may be taken later as it is.
    pub(super) fn is_undated(&self) -> bool {
        match self {
            Self::Ahead { .. } | Self::Behind { .. } => true,
            Self::Line { why, .. } => why.is_undated(),
            Self::Json(_)
            | Self::BadId
            | Self::NobodyNamed
            | Self::NobodyRejected
            | Self::NoNas
            | Self::NoId
            | Self::NoLease
            | Self::Time(_)
            | Self::TooManyLines => false,
        }
    }
}

/// One report; `subject`, the session's id or the lease's address, is from the request's line. An empty body names nothing.
pub fn parse_one(
    operation: Operation,
    subject: Option<&[u8]>,
    body: &[u8],
    received_ns: WallNs,
) -> Result<Reports, BadReport> {
    let fields = Fields::read(if is_blank(body) { b"{}" } else { body })?;
    only_in_batches("op", fields.has("op"))?;
    let mut reports = Reports::default();
    if matches!(operation, Operation::Lease | Operation::Release) {
        only_in_batches("ip", fields.has("ip"))?;
        let ip = subject.and_then(|ip| std::str::from_utf8(ip).ok()?.parse().ok()).ok_or(BadReport::NoLease)?;
        reports.add_lease(lease::facts(operation, Some(ip), fields, received_ns)?);
    } else {
        only_in_batches("id", subject.is_some() && fields.has("id"))?;
        let spelled = |id| spelled(id, TEXT_CHARS_MAX).ok_or(BadReport::BadId);
        reports.add_session(fact(operation, subject.map(spelled).transpose()?, fields, received_ns)?);
    }
    Ok(reports)
}

fn only_in_batches(field: &str, is_there: bool) -> Result<(), BadReport> {
    if is_there {
        return Err(BadReport::Json(format!("{field} is for batches; here the request's line says it")));
    }
    Ok(())
}

/// The reports of a batch: a JSON object per line, with `op`, and `id` or `ip`. One bad line refuses the whole batch.
pub fn parse_batch(body: &[u8], received_ns: WallNs) -> Result<Reports, BadReport> {
    let mut reports = Reports::default();
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if is_blank(line) {
            continue;
        }
        if reports.reports.len() == BATCH_LINES_MAX {
            return Err(BadReport::TooManyLines);
        }
        // In this order they arrived.
        let received_ns = received_ns + WallNs::try_from(reports.reports.len()).unwrap_or(0);
        let read = reports.add_line(line, received_ns);
        read.map_err(|why| BadReport::Line { line: number + 1, why: Box::new(why) })?;
    }
    Ok(reports)
}

impl Reports {
    fn add_line(&mut self, line: &[u8], received_ns: WallNs) -> Result<(), BadReport> {
        let mut fields = Fields::read(line)?;
        let operation = fields.value("op", Operation::named);
        match operation.ok_or_else(|| BadReport::Json("no op, or one that is unknown".to_owned()))? {
            operation @ (Operation::Lease | Operation::Release) => {
                self.add_lease(lease::facts(operation, None, fields, received_ns)?);
            }
            operation @ (Operation::Put
            | Operation::Patch
            | Operation::Delete
            | Operation::Reject
            | Operation::Reset) => self.add_session(fact(operation, None, fields, received_ns)?),
        }
        Ok(())
    }

    fn add_lease(&mut self, (facts, odd): (Vec<DeviceFact>, Vec<&'static str>)) {
        self.reports.push(Report::Lease(facts));
        self.odd.extend(odd);
    }

    fn add_session(&mut self, (fact, odd): (SessionFact, Vec<&'static str>)) {
        self.reports.push(Report::Session(Box::new(fact)));
        self.odd.extend(odd);
    }
}

fn is_blank(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_whitespace)
}

/// The fact a report makes of a session, and the names of its odd fields; `id` is in the archive's spelling, or else a field.
fn fact(
    operation: Operation,
    id: Option<String>,
    mut fields: Fields,
    received_ns: WallNs,
) -> Result<(SessionFact, Vec<&'static str>), BadReport> {
    let has_id = fields.has("id");
    let id = id.or_else(|| fields.text("id"));
    let at = fields.time("at");
    // Judged last: what is wrong otherwise does not get right by waiting.
    let dated = moment(at.as_deref(), received_ns);
    let at_ns = *dated.as_ref().unwrap_or(&received_ns);
    let (user, mac) = (fields.text("user"), fields.mac("mac"));
    // Who does not know the device writes zeros, and who knows only the device writes it where a person would be named.
    let in_a_name = user.as_deref().and_then(|user| named_device(user, None));
    let client_mac = mac.filter(|mac| mac.is_device()).or(in_a_name).filter(|mac| mac.is_device());
    let (client_ips, client_prefixes) = (fields.ips("ips"), fields.prefixes("prefixes"));
    let nas = fields.text("nas");
    let names_somebody = client_mac.is_some() || !client_ips.is_empty() || !client_prefixes.is_empty();
    // A login that failed has no session; device and moment tell two apart.
    let rejected_id = || {
        let device = client_mac.map(|mac| mac.to_string()).unwrap_or_default();
        format!("rejected/{device}/{}", at.clone().unwrap_or_else(|| received_ns.to_string()))
    };
    let id = match operation {
        Operation::Put if !names_somebody => return Err(BadReport::NobodyNamed),
        Operation::Reject if !names_somebody && user.is_none() => return Err(BadReport::NobodyRejected),
        Operation::Reset if nas.is_none() => return Err(BadReport::NoNas),
        Operation::Reset => String::new(),
        // By its id alone a session is known again, so no part of one will do.
        _ if has_id && id.is_none() => return Err(BadReport::BadId),
        Operation::Reject => id.unwrap_or_else(rejected_id),
        Operation::Put | Operation::Patch | Operation::Delete => id.ok_or(BadReport::NoId)?,
        Operation::Lease | Operation::Release => return Err(BadReport::NoLease),
    };
    let access_point = AccessPoint::read(&mut fields);
    let counters = fields.counts("counters", ["packets_out", "bytes_out", "packets_in", "bytes_in"]);
    let fact = SessionFact {
        event: event(operation),
        source: IdentitySource::Portal,
        session_id: id,
        user,
        auth_method: fields.text("auth_method").or_else(|| (operation == Operation::Put).then(|| "portal".to_owned())),
        client_mac,
        client_ips,
        client_prefixes,
        ap_mac: access_point.mac.filter(|mac| mac.is_device()),
        ssid: access_point.ssid,
        nas,
        nas_port: fields.text("nas_port"),
        at_ns,
        started_ns: None,
        received_ns,
        counters: counters.map(|[packets_out, bytes_out, packets_in, bytes_in]| SessionCounters {
            packets_out,
            bytes_out,
            packets_in,
            bytes_in,
        }),
        end_cause: fields.text("end_cause"),
        // 0 is what some portals send for "no updates".
        interim_interval_s: fields.number("interim_interval_s").filter(|interval_s| *interval_s > 0),
        details: SessionDetails { called_station: access_point.named, ..SessionDetails::default() }.shared(),
    };
    let odd = fields.end(&FIELDS)?;
    dated.map(|_| (fact, odd))
}

const fn event(operation: Operation) -> SessionEvent {
    match operation {
        Operation::Put | Operation::Lease => SessionEvent::Start,
        Operation::Patch => SessionEvent::Interim,
        Operation::Delete | Operation::Release => SessionEvent::Stop,
        Operation::Reject => SessionEvent::Rejected,
        Operation::Reset => SessionEvent::NasReset,
    }
}

/// Where the client is attached.
#[derive(Default)]
struct AccessPoint {
    mac: Option<hotspot_core::MacAddr>,
    ssid: Option<String>,
    /// What the portal calls it, where that is no MAC.
    named: Option<String>,
}

impl AccessPoint {
    /// `ap_mac` is the MAC; portals that pass Called-Station-Id on have the SSID behind it, or a name of their own.
    fn read(fields: &mut Fields) -> Self {
        let (called, ssid) = (fields.text("ap_mac"), fields.text("ssid"));
        let Some(called) = called else { return Self { ssid, ..Self::default() } };
        if let Ok(mac) = called.trim().parse() {
            return Self { mac: Some(mac), ssid, named: None };
        }
        let (mac, behind) = station::called(&called);
        let named = mac.is_none().then_some(called);
        fields.is_odd("ap_mac", Self { mac, ssid: ssid.or(behind), named })
    }
}

pub(super) fn moment(text: Option<&str>, received_ns: WallNs) -> Result<WallNs, BadReport> {
    let Some(text) = text else { return Ok(received_ns) };
    let time: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| BadReport::Time(error.to_string()))?;
    let at_ns = WallNs::try_from(time.as_nanosecond()).map_err(|error| BadReport::Time(error.to_string()))?;
    let ahead_ns = at_ns.saturating_sub(received_ns);
    if ahead_ns > AHEAD_MAX_NS {
        return Err(BadReport::Ahead { ahead_s: ahead_ns / SECOND });
    }
    if ahead_ns < -BEHIND_MAX_NS {
        return Err(BadReport::Behind { behind_s: ahead_ns.saturating_neg() / SECOND });
    }
    Ok(at_ns)
}

#[cfg(test)]
mod tests;
