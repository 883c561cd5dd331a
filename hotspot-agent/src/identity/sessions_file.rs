//! Fixed or exported sessions, one JSON object per line:
//! `{"user": "…", "mac": "…", "ips": ["…"], "from": "2026-11-23T10:00:00+07:00", "to": …, "session_id": …, "auth_method": …,
//! "ap_mac": …, "ssid": …, "nas": …}`. Only `user` and one of `mac` and `ips` are needed.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hotspot_core::fact::{IdentitySource, SessionEvent, SessionFact};
use hotspot_core::text::escaped;
use hotspot_core::{MacAddr, WallNs};
use serde::Deserialize;

/// Why a sessions file is not used.
#[derive(Debug, thiserror::Error)]
pub enum SessionsFileError {
    #[error("the sessions file {} cannot be read", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}, line {line}: {what}", path.display())]
    Line { path: PathBuf, line: usize, what: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSession {
    user: String,
    mac: Option<MacAddr>,
    #[serde(default)]
    ips: Vec<IpAddr>,
    from: Option<String>,
    to: Option<String>,
    session_id: Option<String>,
    auth_method: Option<String>,
    ap_mac: Option<MacAddr>,
    ssid: Option<String>,
    nas: Option<String>,
}

/// Reads the file; a session without a beginning began at the epoch, one without an end goes on.
pub fn read(path: &Path, now_ns: WallNs) -> Result<Vec<SessionFact>, SessionsFileError> {
    let text = fs::read_to_string(path).map_err(|source| SessionsFileError::Io { path: path.to_path_buf(), source })?;
    let mut facts = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |what: String| SessionsFileError::Line { path: path.to_path_buf(), line: number + 1, what };
        let session: FileSession = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        facts.extend(session_facts(&session, number + 1, now_ns).map_err(bad)?);
    }
    Ok(facts)
}

fn session_facts(session: &FileSession, line: usize, now_ns: WallNs) -> Result<Vec<SessionFact>, String> {
    let mac = session.mac.filter(|mac| mac.is_device());
    if mac.is_none() && session.ips.is_empty() {
        return Err("names neither a device's MAC nor an address".to_owned());
    }
    let time = |text: &Option<String>, field: &str| match text {
        None => Ok(None),
        Some(text) => text
            .parse::<jiff::Timestamp>()
            .map(|time| i64::try_from(time.as_nanosecond()).ok())
            .map_err(|error| format!("{field}: {error} (write RFC 3339, like 2026-11-23T10:00:00+07:00)")),
    };
    let (from_ns, to_ns) = (time(&session.from, "from")?.unwrap_or(0), time(&session.to, "to")?);
    if to_ns.is_some_and(|to_ns| to_ns < from_ns) {
        return Err("ends before it begins".to_owned());
    }
    let start = SessionFact {
        event: SessionEvent::Start,
        source: IdentitySource::File,
        session_id: spelled(session.session_id.as_deref()).unwrap_or_else(|| format!("file/{line}")),
        user: Some(escaped(session.user.as_bytes())),
        auth_method: spelled(session.auth_method.as_deref()),
        client_mac: mac,
        client_ips: session.ips.iter().map(IpAddr::to_canonical).collect(),
        client_prefixes: Vec::new(),
        ap_mac: session.ap_mac,
        ssid: spelled(session.ssid.as_deref()),
        nas: spelled(session.nas.as_deref()),
        nas_port: None,
        at_ns: from_ns,
        started_ns: None,
        received_ns: now_ns,
        counters: None,
        end_cause: None,
        interim_interval_s: None,
        details: None,
    };
    let stop = to_ns.map(|at_ns| SessionFact { event: SessionEvent::Stop, at_ns, ..start.clone() });
    Ok(std::iter::once(start).chain(stop).collect())
}

/// In the archive's spelling.
fn spelled(text: Option<&str>) -> Option<String> {
    text.map(|text| escaped(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> Result<Vec<SessionFact>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, text).unwrap();
        read(&path, 5).map_err(|error| error.to_string().split("line").last().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_line_is_a_session() {
        let found = facts("\n{\"user\":\"printer\",\"mac\":\"02:00:00:00:00:07\",\"from\":\"1970-01-01T00:00:01Z\",\"to\":\"1970-01-01T00:00:02Z\"}\n").unwrap();
        assert_eq!(
            found.iter().map(|fact| (fact.event, fact.at_ns)).collect::<Vec<_>>(),
            [(SessionEvent::Start, 1_000_000_000), (SessionEvent::Stop, 2_000_000_000)]
        );
        assert_eq!(found[0].session_id, "file/2");
    }

    #[test]
    fn texts_are_spelled_as_every_other_source_spells_them() {
        let line = r#"{"user":"CORP\\anna\u001b[2J","ssid":"a\u202eb","nas":"n\u0085","ips":["::ffff:10.0.0.7"]}"#;
        let fact = facts(line).unwrap().remove(0);
        assert_eq!(fact.user.as_deref(), Some(r"CORP\\anna\x1b[2J"));
        assert_eq!((fact.ssid.as_deref(), fact.nas.as_deref()), (Some(r"a\u{202e}b"), Some(r"n\u{85}")));
        assert_eq!(fact.client_ips, [IpAddr::from([10, 0, 0, 7])]);
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(facts("{\"user\":\"x\"}"), Err(" 1: names neither a device's MAC nor an address".to_owned()));
        assert!(facts("{\"user\":\"x\",\"mac\":\"nonsense\"}").is_err());
        assert!(facts("{\"user\":\"x\",\"ips\":[\"10.0.0.1\"],\"from\":\"10:00\"}").unwrap_err().contains("RFC 3339"));
        assert!(facts("{\"user\":\"x\",\"typo\":1,\"ips\":[\"10.0.0.1\"]}").is_err());
    }
}
