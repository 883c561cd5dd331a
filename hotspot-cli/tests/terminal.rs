//! Files that somebody forged, or that an earlier version wrote, with names that would drive a terminal.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hotspot_archive::segment::{Origin, write_coverage, write_sessions};
use hotspot_core::fact::IdentitySource;
use hotspot_core::record::{CoverageRecord, SessionRecord, SessionStatus, Tallied};
use hotspot_core::text::changes_display;

/// A title for the window, a cleared screen, C1, DEL, text turned round, a tag, and a line that looks like another record.
const FORGED: &str = "x\u{1b}]0;PWN\u{7}\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\u{e0041}\u{200b}\nsession user=victim";

fn origin() -> Origin {
    Origin { site: FORGED.into(), gateway: FORGED.into(), sequence: 1 }
}

fn coverage(dir: &Path) -> PathBuf {
    let path = dir.join("coverage.parquet");
    let row = CoverageRecord {
        interface: FORGED.into(),
        hook: FORGED.into(),
        outcomes: [(FORGED.to_owned(), Tallied::default())].into(),
        gap: Some(FORGED.into()),
        ..CoverageRecord::default()
    };
    write_coverage(&path, &origin(), None, &[row]).unwrap();
    path
}

fn sessions(dir: &Path) -> PathBuf {
    let path = dir.join("sessions.parquet");
    let text = || Some(FORGED.to_owned());
    let row = SessionRecord {
        session_id: FORGED.into(),
        user: text(),
        auth_method: text(),
        source: IdentitySource::Portal,
        client_mac: None,
        client_ips: Vec::new(),
        client_prefixes: Vec::new(),
        ap_mac: None,
        ssid: text(),
        nas: text(),
        nas_port: text(),
        started_ns: 0,
        ended_ns: None,
        end_cause: text(),
        counters: None,
        details: None,
        status: SessionStatus::Active,
    };
    write_sessions(&path, &origin(), None, &[row]).unwrap();
    path
}

fn decode(options: &[&str], files: &[&PathBuf]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hotspot")).arg("decode").args(options).args(files).output().unwrap()
}

/// Lines of what was said, in which nothing but their ends controls a terminal.
fn lines(said: &[u8]) -> Vec<String> {
    let text = String::from_utf8(said.to_vec()).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(lines.iter().all(|line| !line.contains(changes_display)), "{text:?}");
    lines
}

#[test]
fn no_column_of_any_record_reaches_the_terminal_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let files = [coverage(dir.path()), sessions(dir.path())];
    for options in [&[][..], &["--json"]] {
        let output = decode(options, &[&files[0], &files[1]]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // In JSON the last line says what the answer is.
        let expected = if options.is_empty() { 2 } else { 3 };
        assert_eq!(lines(&output.stdout).len(), expected, "a value is no line of its own");
        lines(&output.stderr);
    }
    let json = decode(&["--json"], &[&files[1]]);
    let row: serde_json::Value = serde_json::from_str(&lines(&json.stdout)[0]).unwrap();
    assert_eq!(row["user"], FORGED, "JSON is true to the value");
}

#[test]
fn what_the_tool_says_of_a_file_is_one_line_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FORGED.replace('/', "-"));
    std::fs::write(&path, "nothing").unwrap();
    let output = decode(&[], &[&path]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(lines(&output.stderr).len(), 2, "what is wrong, and the verdict");
}

#[test]
fn several_files_are_shown_in_their_order_and_a_bad_one_holds_up_none() {
    let dir = tempfile::tempdir().unwrap();
    let (coverage, sessions) = (coverage(dir.path()), sessions(dir.path()));
    let kinds = |output: &Output| -> Vec<String> {
        lines(&output.stdout).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let both = decode(&[], &[&sessions, &coverage]);
    assert_eq!((both.status.code(), kinds(&both)), (Some(0), vec!["session".into(), "coverage".into()]));
    let gone = dir.path().join("gone.journal");
    let rest = decode(&[], &[&sessions, &gone, &coverage]);
    assert_eq!((rest.status.code(), kinds(&rest)), (Some(3), vec!["session".into(), "coverage".into()]));
    assert!(String::from_utf8_lossy(&rest.stderr).contains("gone.journal cannot be read"));
    assert_eq!(decode(&[], &[&gone]).status.code(), Some(2), "one file that is not there is a wrong question");
    assert_eq!(decode(&[], &[]).status.code(), Some(2));
}
