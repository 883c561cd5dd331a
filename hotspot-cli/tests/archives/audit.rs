//! What leaves a line in the audit log, and that nobody gets around it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use hotspot_archive::keys::Identity;
use serde_json::Value;

use crate::venue::Venue;

fn lines(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// `hotspot WORDS… --archive DIR`
fn tool(venue: &Venue, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotspot"));
    command.args(words).arg("--archive").arg(venue.archive());
    command
}

fn segment(venue: &Venue) -> std::path::PathBuf {
    venue.archive().join("flows/site=cafe/date=2026-11-23/gw-0000000001.parquet")
}

#[test]
fn whatever_opens_keeps_or_lets_go_of_segments_leaves_a_line() {
    let venue = Venue::new(true);
    let identity = venue.identity.clone().unwrap();
    let (first, second) = (Identity::generate().recipient(), Identity::generate().recipient());
    let log = venue.archive().join("audit/queries.jsonl");
    let done = |command: &mut Command| {
        let output = run(command);
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        lines(&log).last().cloned().unwrap()
    };
    let held = done(tool(&venue, &["hold", "add"]).args(["--case", "C-1", "--segment", "gw:1", "--segment", "gw:2"]));
    assert_eq!(
        (&held["command"], &held["case"], &held["query"]["segments"]),
        (&"hold".into(), &"C-1".into(), &"gw:1 gw:2".into())
    );
    let lifted = done(tool(&venue, &["hold", "lift"]).args(["--case", "C-1"]));
    assert_eq!((&lifted["command"], &lifted["case"]), (&"hold lift".into(), &"C-1".into()));
    let add = |words: &[&str], recipient: &str| {
        let mut command = tool(&venue, words);
        command.arg("--identity").arg(&identity).args(["--recipient", recipient, "--case", "2026/9"]);
        command
    };
    let added = done(&mut add(&["keys", "add"], &first));
    assert_eq!((&added["command"], &added["query"]["recipients"]), (&"keys add".into(), &first.clone().into()));
    assert_eq!(added["case"], "2026/9");
    let rewrapped = done(&mut add(&["keys", "rewrap"], &second));
    assert_eq!((&rewrapped["command"], &rewrapped["query"]["recipients"]), (&"keys rewrap".into(), &second.into()));
    let mut unwrap = Command::new(env!("CARGO_BIN_EXE_hotspot"));
    let unwrapped = done(unwrap.args(["keys", "unwrap", "--identity"]).arg(&identity).arg(segment(&venue)));
    assert_eq!(unwrapped["command"], "keys unwrap");
    assert!(unwrapped["query"]["file"].as_str().unwrap().ends_with("gw-0000000001.parquet"));
    assert_eq!(lines(&log).len(), 5);
    let verified = run(&mut tool(&venue, &["verify"]));
    assert_eq!(verified.status.code(), Some(8), "whole, and nobody outside vouches for the log: {verified:?}");
}

#[test]
fn what_cannot_be_recorded_opens_nothing() {
    let venue = Venue::new(true);
    let identity = venue.identity.clone().unwrap();
    fs::create_dir_all(venue.archive().join("audit/queries.jsonl")).unwrap();
    let mut unwrap = Command::new(env!("CARGO_BIN_EXE_hotspot"));
    let output = run(unwrap.args(["keys", "unwrap", "--identity"]).arg(&identity).arg(segment(&venue)));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 0));
    let recipient = Identity::generate().recipient();
    let mut add = tool(&venue, &["keys", "add", "--recipient", &recipient]);
    let output = run(add.arg("--identity").arg(&identity));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 0));
    assert!(!venue.archive().join("recipients").exists());
    let output = run(tool(&venue, &["hold", "add"]).args(["--case", "C-1", "--segment", "gw:1"]));
    assert_eq!(output.status.code(), Some(4));
    assert!(!venue.archive().join("holds").exists());
}

#[test]
fn a_case_that_names_nothing_is_refused_with_words() {
    let venue = Venue::new(false);
    for case in ["", " ", "\t", "-", "…"] {
        for words in [&["find"][..], &["hold", "add", "--segment", "gw:1"], &["hold", "lift"]] {
            let output = run(tool(&venue, words).arg(format!("--case={case}")));
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 0), "{words:?} {case:?}: {text}");
            assert!(text.contains("--case names nothing"), "{text}");
        }
    }
    assert_eq!(lines(&venue.archive().join("audit/queries.jsonl")), Vec::<Value>::new());
}

#[test]
fn an_archive_that_demands_its_own_log_is_not_asked_by_way_of_another() {
    let venue = Venue::new(false);
    let (own, elsewhere) = (venue.archive().join("audit"), venue.dir.path().join("elsewhere.jsonl"));
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("own-log-required"), "").unwrap();
    let mut decode = Command::new(env!("CARGO_BIN_EXE_hotspot"));
    decode.arg("decode").arg(segment(&venue));
    let asked = [
        tool(&venue, &["find"]),
        tool(&venue, &["hold", "add", "--case", "C-1", "--segment", "gw:1"]),
        tool(&venue, &["hold", "lift", "--case", "C-1"]),
        decode,
    ];
    for mut command in asked {
        let output = run(command.arg("--audit").arg(&elsewhere));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 0), "{command:?}: {text}");
        assert!(text.contains("own-log-required") && text.contains("leave --audit away"), "{text}");
    }
    assert!(!elsewhere.exists());
    let output = run(&mut tool(&venue, &["find", "--json"]));
    assert!(output.status.success());
    assert_eq!(lines(&own.join("queries.jsonl")).len(), 1);
}
