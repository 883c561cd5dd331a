//! `hotspot find`, `who` and `verify`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use hotspot_core::record::FlowRecord;

use crate::venue::{BEGIN_NS, CLIENTS, FLOWS, SECOND_NS, SEGMENTS, Venue, flow, rows, text};

#[test]
fn what_is_asked_for_is_found_encrypted_or_not() {
    for is_encrypted in [false, true] {
        let venue = Venue::new(is_encrypted);
        let of = |client: u64| (SEGMENTS / client * FLOWS) as usize;
        assert_eq!(venue.count("user 0900000007"), of(7));
        assert_eq!(venue.count("mac 02:00:00:00:00:05"), of(5));
        assert_eq!(venue.count("src ip 10.20.0.8 or src ip 10.20.0.9"), of(8) + of(9));
        assert_eq!(venue.count("dst ip 198.51.100.10"), of(10));
        assert_eq!(venue.count("dst net 198.51.100.8/30"), of(8) + of(9) + of(10));
        assert_eq!(venue.count("public ip 203.0.113.7 port 17003"), of(7) / FLOWS as usize);
        assert_eq!(venue.count("public ip 203.0.113.7 port 17003 at 2026-11-23T00:35:32Z"), 1);
        assert_eq!(venue.count("user 0900000007 and bytes = 1800 and not port 40000"), of(7) / 20 * 19);
        assert_eq!(venue.count("user nobody"), 0);
        assert_eq!(venue.count(""), (1..=CLIENTS).map(of).sum::<usize>());
        let output = venue.find(&["--json", "--limit", "3"]);
        assert_eq!(rows(&output).len(), 3);
        let who = venue.command("who").args(["--public", "203.0.113.7:17003", "--at", "2026-11-23T00:35:32Z"]).output();
        assert!(text(&who.unwrap().stdout).contains("0900000007"));
    }
}

/// The first owner's end is a tick coarse, and so reaches into the time of the second.
#[test]
fn who_had_a_port_that_changed_hands_is_the_one_who_had_it_last() {
    const MS_NS: i64 = 1_000_000;
    let changes_ns = BEGIN_NS + 400 * SECOND_NS + 500 * MS_NS;
    let venue = Venue::with("cafe", "gw", false, |segment| {
        let (first, second) = (flow(segment, 1, 1), flow(segment, 2, 2));
        let public = first.public;
        let flows = vec![
            FlowRecord { start_ns: changes_ns - 90 * MS_NS, end_ns: changes_ns + 4 * MS_NS, ..first },
            FlowRecord { start_ns: changes_ns, end_ns: changes_ns + 4 * MS_NS, public, ..second },
        ];
        if segment == 1 { flows } else { Vec::new() }
    });
    let who = |at: &str, json: &[&str]| {
        let mut asked = venue.command("who");
        asked.args(["--public", "203.0.113.7:11001", "--at", at]).args(json).output().unwrap()
    };
    for (at, first_user, had_it_then) in [
        ("2026-11-23T00:06:40.450Z", "0900000001", 1),
        ("2026-11-23T00:06:40.499Z", "0900000001", 1),
        ("2026-11-23T00:06:40.500Z", "0900000002", 2),
        ("2026-11-23T00:06:40.508Z", "0900000002", 2),
        ("2026-11-23T00:06:40.550Z", "", 0),
        // Any moment of this second.
        ("2026-11-23T00:06:40Z", "0900000002", 2),
    ] {
        let answers = rows(&who(at, &["--json"]));
        assert_eq!(answers.len(), 2, "{at}: both are told");
        assert!(had_it_then == 0 || answers[0]["user"][0] == first_user, "{at}: {answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer["at_that_moment"] == true).count(), had_it_then, "{at}");
        let said = text(&who(at, &[]).stdout);
        assert_eq!(said.contains("NOT SURE: 2 devices"), had_it_then == 2, "{at}");
    }
}

#[test]
fn nothing_encrypted_is_shown_without_an_identity() {
    let mut venue = Venue::new(true);
    venue.identity = None;
    let output = venue.find(&["--json", "user 0900000007"]);
    assert_eq!((output.status.code(), rows(&output).len()), (Some(3), 0), "{output:?}");
    assert!(text(&output.stderr).contains("--identity"));
}

#[test]
fn flows_are_summed_sorted_and_exported() {
    let venue = Venue::new(false);
    let output = venue.find(&["--by", "user", "--top", "2", "--sort", "bytes", "--csv"]);
    assert_eq!(
        text(&output.stdout),
        "user,flows,packets_out,bytes_out,packets_in,bytes_in\r\n0900000001,480,960,96000,480,480000\r\n\
         0900000002,240,480,72000,240,240000\r\n"
    );
    for (by, groups) in [("peer", 10), ("mac", 10), ("site", 1), ("hour", 3), ("day", 1), ("proto", 1), ("vlan", 1)] {
        let output = venue.find(&["--by", by, "--json"]);
        let rows = rows(&output);
        assert_eq!(rows.len(), groups, "{by}");
        let flows: u64 = rows.iter().map(|row| row["flows"].as_u64().unwrap()).sum();
        assert_eq!(flows as usize, venue.count(""), "{by}");
    }
    let output = venue.find(&["--sort", "bytes", "--limit", "1", "--json"]);
    assert!(text(&output.stdout).contains("\"bytes_out\":1100"));
    let file = venue.dir.path().join("found.parquet");
    let output = venue.find(&["--parquet", &file.display().to_string(), "user 0900000003"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let bytes = fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
}

#[test]
fn a_missing_or_damaged_index_only_makes_it_slow() {
    let venue = Venue::new(false);
    let indexes = venue.files("index");
    assert_eq!(indexes.len() as u64, SEGMENTS);
    fs::remove_file(&indexes[0]).unwrap();
    let mut bytes = fs::read(&indexes[6]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&indexes[6], &bytes).unwrap();
    // Of another segment, though whole.
    fs::copy(&indexes[9], &indexes[13]).unwrap();
    // Of another segment, and made to say that it is of this one: it would hide client 7.
    let mut forged = fs::read(&indexes[9]).unwrap();
    let whole = fs::read(&indexes[20]).unwrap();
    forged[16..48].copy_from_slice(&whole[16..48]);
    fs::write(&indexes[20], forged).unwrap();
    for (filter, client) in [("user 0900000007", 7), ("mac 02:00:00:00:00:01", 1), ("dst ip 198.51.100.2", 2)] {
        assert_eq!(venue.count(filter) as u64, SEGMENTS / client * FLOWS, "{filter}");
    }
    let output = venue.find(&["--json", "user 0900000007"]);
    assert!(text(&output.stderr).contains("without an index"), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
    let verified = venue.command("verify").output().unwrap();
    assert_eq!(verified.status.code(), Some(3));
    assert!(text(&verified.stdout).contains(".index: is missing"), "{verified:?}");
}

#[test]
fn every_search_is_audited_first_or_refused() {
    let venue = Venue::new(false);
    assert_eq!(venue.audited(), 0);
    venue.find(&["--case", "2026/117", "user 0900000007"]);
    venue.command("who").args(["--public", "203.0.113.7:1", "--at", "@1"]).output().unwrap();
    let segment = &venue.files("flows")[0];
    let decoded = Command::new(env!("CARGO_BIN_EXE_hotspot")).arg("decode").arg(segment).output().unwrap();
    assert_eq!(decoded.status.code(), Some(0), "{decoded:?}");
    assert_eq!(venue.audited(), 3);
    // A question that is none is not asked.
    assert_eq!(venue.find(&["usr x"]).status.code(), Some(2));
    assert_eq!(venue.audited(), 3);
    let log = venue.archive().join("audit/queries.jsonl");
    let first: serde_json::Value =
        serde_json::from_str(fs::read_to_string(&log).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(first["case"], "2026/117");
    assert_eq!(first["query"]["filter"], "user \"0900000007\"");
    // Nobody outside of the archive has its head.
    assert_eq!(venue.command("verify").output().unwrap().status.code(), Some(8));

    for elsewhere in ["/dev/full", "/proc/audit.jsonl"] {
        let output = venue.find(&["--audit", elsewhere, "--json", "user 0900000007"]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 0), "{output:?}");
    }
    fs::write(venue.archive().join("audit/case-required"), "").unwrap();
    assert_eq!(venue.find(&["user 0900000007"]).status.code(), Some(4));
    assert_eq!(venue.find(&["--case", "x", "user 0900000007"]).status.code(), Some(0));

    let changed = fs::read_to_string(&log).unwrap().replace("2026/117", "2026/118");
    fs::write(&log, changed).unwrap();
    let verified = venue.command("verify").output().unwrap();
    assert_eq!(verified.status.code(), Some(3));
    assert!(text(&verified.stdout).contains("audit/queries.jsonl"), "{verified:?}");
}

#[test]
fn a_tool_that_finds_nothing_says_whether_the_log_was_whole() {
    let venue = Venue::new(false);
    let said = |from: &str, to: &str, code: i32| {
        let output = venue.find(&["--from", from, "--to", to, "user nobody"]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        text(&output.stderr)
    };
    let whole = said("2026-11-23T00:10:00Z", "2026-11-23T01:00:00Z", 1);
    assert!(whole.contains("nothing found, and everything searched was recorded"), "{whole}");
    assert!(whole.contains("2026-11-23 00:10:00+00:00 to 2026-11-23 01:00:00+00:00, gateway gw, "), "{whole}");
    assert!(said("2026-11-23T00:10:00Z", "2026-11-23T05:00:00Z", 3).contains("has not sealed a segment of that time"));
    assert!(said("2026-11-22T00:00:00Z", "2026-11-23T01:00:00Z", 3).contains("no segment that old"));
    assert!(said("2026-11-25T00:00:00Z", "2026-11-26T01:00:00Z", 3).contains("has not sealed a segment of that time"));
}

#[test]
fn a_hold_by_filter_is_audited_and_names_what_matches() {
    let venue = Venue::new(false);
    let archive = venue.archive().display().to_string();
    let hold = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotspot"));
        command.args(["hold", "add", "--archive", &archive, "--case", "C-17"]).args(words).output().unwrap()
    };
    let output = hold(&["user", "0900000007"]);
    assert!(text(&output.stdout).contains("3 segments are held for C-17"), "{output:?}");
    let log = fs::read_to_string(venue.archive().join("audit/queries.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!((&line["command"], &line["case"]), (&"hold".into(), &"C-17".into()));
    assert_eq!(hold(&["--audit", "/dev/full", "user 0900000007"]).status.code(), Some(4));
    // Whoever holds segments by their numbers says for which case, too.
    assert_eq!(hold(&["--segment", "gw:5"]).status.code(), Some(0));
    assert_eq!(venue.audited(), 2);
}

/// Searches within so much address space, which is more than memory in use.
fn find_within(venue: &Venue, bytes: u64, words: &[&str]) -> Output {
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--as={bytes}")).arg(env!("CARGO_BIN_EXE_hotspot")).arg("find").arg("--archive");
    limited.arg(venue.archive()).args(words).output().unwrap()
}

#[test]
fn hostile_files_are_errors_within_the_bound() {
    const BOUND: u64 = 1 << 30;
    let venue = Venue::new(false);
    let segments = venue.files("flows");
    let whole = fs::read(&segments[0]).unwrap();
    let footer = |claimed: u32| {
        let mut bytes = whole.clone();
        let end = bytes.len();
        bytes[end - 8..end - 4].copy_from_slice(&claimed.to_le_bytes());
        bytes
    };
    // A footer whose list claims two thousand million elements, one that claims to be 4 GiB, and one that is only zeros.
    let mut list = b"PAR1\x15\x02\x19\xfc\xff\xff\xff\xff\x07".to_vec();
    list.extend(9u32.to_le_bytes());
    list.extend(b"PAR1");
    for (segment, bytes) in segments.iter().zip([footer(u32::MAX), footer(1 << 30), list, vec![0; 4096]]) {
        fs::write(segment, bytes).unwrap();
    }
    for index in &venue.files("index")[..4] {
        fs::remove_file(index).unwrap();
    }
    let output = find_within(&venue, BOUND, &["--json"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = text(&output.stderr);
    assert_eq!(said.matches("not searched").count(), 4, "{said}");
    assert!(said.contains("SHA-256 differs"), "{said}");
    // The files alone are refused by what they say of themselves.
    for segment in &segments[..4] {
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--as={BOUND}")).arg(env!("CARGO_BIN_EXE_hotspot")).arg("decode").arg(segment);
        assert_eq!(limited.output().unwrap().status.code(), Some(3));
    }
    // The others were searched.
    assert!(rows(&output).len() > 500);
    fs::remove_dir_all(Path::new(&venue.archive()).join("flows")).unwrap();
    assert_eq!(find_within(&venue, BOUND, &["--json"]).status.code(), Some(3));
}
