//! What an answer says of itself: what was searched, what was not recorded, its verdict and its exit code.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use hotspot_archive::elapsed::ClockEvidence;
use hotspot_archive::manifest::Sealing;
use hotspot_archive::segment::Origin;
use hotspot_core::MacAddr;
use hotspot_core::record::{Attribution, CoverageRecord, FlowRecord, Tallied};
use serde_json::{Value, json};

use crate::venue::{BEGIN_NS, SECOND_NS, SEGMENTS, Venue, answer, flow, rows, text};

fn who(venue: &Venue, public: &str, at: &str, words: &[&str]) -> Output {
    venue.command("who").args(["--public", public, "--at", at]).args(words).output().unwrap()
}

/// Adds the next segment, with coverage and a clock of its own.
fn seal(venue: &Venue, sequence: u64, coverage: &[CoverageRecord], clock: Option<ClockEvidence>) {
    let mut manifest = venue.manifest();
    let opened_ns = BEGIN_NS + sequence as i64 * 300 * SECOND_NS;
    let origin = Origin { site: venue.site.clone(), gateway: venue.gateway.clone(), sequence };
    let draft = manifest.draft(&origin, opened_ns).unwrap();
    let closed_ns = opened_ns + 300 * SECOND_NS;
    let sealed_ns = closed_ns + 10 * SECOND_NS;
    let sealing = Sealing { closed_ns, sealed_ns, clock, step_ns: 0, sessions: &[], devices: &[], coverage };
    manifest.seal(draft, &sealing).unwrap();
}

/// One that says of itself that nothing was counted in its last minutes.
fn seal_with_gap(venue: &Venue, sequence: u64) {
    let end_ns = BEGIN_NS + (sequence as i64 + 1) * 300 * SECOND_NS;
    let gap = CoverageRecord::gap("", end_ns - 120 * SECOND_NS, end_ns, "nobody counted");
    seal(venue, sequence, &[gap], None);
}

#[test]
fn one_envelope_says_of_every_answer_what_it_is() {
    let venue = Venue::new(false);
    seal(
        &venue,
        SEGMENTS + 1,
        &[CoverageRecord {
            interface: "lan".into(),
            generation: 1,
            seen: Tallied { packets: 1, bytes: 60 },
            flows: Tallied { packets: 1, bytes: 60 },
            ..CoverageRecord::default()
        }],
        None,
    );
    let found = venue.find(&["--json", "--case", "7", "--to", "2026-11-23T02:10:00Z", "user 0900000007"]);
    let at = "2026-11-23T00:35:32Z";
    let candidate = who(&venue, "203.0.113.7:17003", at, &["--json"]);
    let coverage = venue.command("coverage").arg("--json").output().unwrap();
    let mut decode = Command::new(env!("CARGO_BIN_EXE_hotspot"));
    let segment = venue.files("flows")[0].display().to_string();
    let decoded = decode.args(["decode", "--json", &segment]).output().unwrap();
    for (output, command, count) in
        [(&found, "find", 60), (&candidate, "who", 1), (&coverage, "coverage", 1), (&decoded, "decode", 20)]
    {
        let said = answer(output);
        assert_eq!(
            (&said["command"], &said["found"], rows(output).len()),
            (&json!(command), &json!(count), count),
            "{said}"
        );
        assert_eq!((&said["verdict"], &said["complete"]), (&json!("found"), &json!(true)), "{said}");
        let mut names: Vec<&str> = said.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        let shape = [
            "asked",
            "command",
            "complete",
            "found",
            "not_recorded",
            "not_searched",
            "not_trusted",
            "of",
            "remarks",
            "searched",
            "sentence",
            "software",
            "verdict",
        ];
        assert_eq!(names, shape, "{command}");
        let searched = said["searched"].as_object().unwrap();
        assert_eq!(searched.keys().collect::<Vec<_>>(), ["from", "to", "segments", "gateways"], "{command}");
        assert!(
            rows(output).iter().all(|row| row.get("verdict").is_none() && row.get("answer").is_none()),
            "rows are as they were"
        );
    }
    let said = answer(&found);
    assert_eq!((&said["asked"]["filter"], &said["asked"]["case"]), (&json!("user \"0900000007\""), &json!("7")));
    let gateway = &said["searched"]["gateways"][0];
    assert_eq!(
        (&gateway["gateway"], &gateway["site"], &gateway["segments"]),
        (&json!("gw"), &json!("cafe"), &json!(SEGMENTS + 1))
    );
    assert_eq!(gateway["from"], "2026-11-23T00:05:00.000000Z");
    assert_eq!(gateway["clock"]["synchronised"], Value::Null, "these lines say nothing of it");
    let said = answer(&candidate);
    assert_eq!(
        (&said["asked"]["at_from"], &said["asked"]["at_to"]),
        (&json!("2026-11-23T00:35:32.000000Z"), &json!("2026-11-23T00:35:33.000000Z"))
    );
    assert_eq!(said["searched"]["segments"], 1);
    let words = text(&venue.find(&["--to", "2026-11-23T02:10:00Z", "user 0900000007"]).stderr);
    assert!(
        words.contains(
            "60 flows found: 2026-11-23 00:05:00+00:00 to 2026-11-23 02:10:00+00:00, gateway gw, 25 segments"
        ),
        "{words}"
    );
}

#[test]
fn nothing_found_is_said_only_where_everything_was_recorded() {
    let venue = Venue::new(false);
    seal_with_gap(&venue, SEGMENTS + 1);
    let ask = |from: &str, to: &str, filter: &str| {
        let output = venue.find(&["--json", "--from", from, "--to", to, filter]);
        let said = answer(&output);
        (output.status.code().unwrap(), said["verdict"].as_str().unwrap().to_owned(), said)
    };
    let (code, verdict, said) = ask("2026-11-23T00:10:00Z", "2026-11-23T01:00:00Z", "user nobody");
    assert_eq!((code, &*verdict, &said["complete"]), (1, "nothing_found", &json!(true)), "{said}");
    let (code, verdict, said) = ask("2026-11-23T00:10:00Z", "2026-11-23T02:09:00Z", "user nobody");
    assert_eq!((code, &*verdict, &said["complete"]), (3, "not_recorded", &json!(false)), "{said}");
    assert!(said["not_recorded"][0].as_str().unwrap().contains("nobody counted"), "{said}");
    let (code, verdict, said) = ask("2026-11-23T00:10:00Z", "2026-11-23T02:09:00Z", "user 0900000001");
    assert_eq!((code, &*verdict, &said["complete"]), (0, "found", &json!(false)), "{said}");
    let (code, verdict, _) = ask("2026-11-23T00:10:00Z", "2026-11-23T01:00:00Z", "gateway elsewhere");
    assert_eq!((code, &*verdict), (3, "not_recorded"), "nothing of it was searched");
    // The other commands agree.
    let coverage = venue.command("coverage").arg("--json").output().unwrap();
    assert_eq!((coverage.status.code(), &answer(&coverage)["verdict"]), (Some(3), &json!("not_recorded")));
    let held = |filter: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotspot"));
        command.args(["hold", "add", "--case", "C", "--archive"]).arg(venue.archive()).arg(filter).output().unwrap()
    };
    assert_eq!(held("user nobody").status.code(), Some(3));
    let sums = venue.find(&["--json", "--by", "user", "user nobody"]);
    assert_eq!((sums.status.code(), &answer(&sums)["verdict"]), (Some(3), &json!("not_recorded")));
    // What cannot be read weighs more than what was found.
    fs::write(&venue.files("flows")[3], "PAR1").unwrap();
    let (code, verdict, said) = ask("2026-11-23T00:05:00Z", "2026-11-23T01:00:00Z", "user 0900000001");
    assert_eq!((code, &*verdict), (3, "unreadable"), "{said}");
    assert!(
        said["found"].as_u64().unwrap() > 0 && said["not_searched"][0].as_str().unwrap().contains("gw-0000000004"),
        "{said}"
    );
}

#[test]
fn an_answer_that_cannot_be_written_is_none() {
    let venue = Venue::new(false);
    let segment = venue.files("flows")[0].display().to_string();
    let archive = venue.archive().display().to_string();
    let commands: [&[&str]; 8] = [
        &["find", "--archive", &archive, "any"],
        &["find", "--archive", &archive, "--json", "any"],
        &["find", "--archive", &archive, "--csv", "any"],
        &["find", "--archive", &archive, "--by", "user"],
        &["who", "--archive", &archive, "--public", "203.0.113.7:17003", "--at", "2026-11-23T00:35:32Z"],
        &["decode", &segment],
        &["verify", "--archive", &archive],
        &["clock", "--archive", &archive],
    ];
    for words in commands {
        let run = |to: Stdio| {
            Command::new(env!("CARGO_BIN_EXE_hotspot")).args(words).stdout(to).stderr(Stdio::null()).status().unwrap()
        };
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(run(full.into()).code(), Some(3), "{words:?} on a full disk");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(run(writer.into()).code(), Some(3), "{words:?} into a pipe that nobody reads");
        // Where only the summary cannot be said, the exit code still says how it ended.
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = Command::new(env!("CARGO_BIN_EXE_hotspot"))
            .args(words)
            .stdout(Stdio::null())
            .stderr(full)
            .status()
            .unwrap();
        assert!(matches!(ended.code(), Some(0 | 8)), "{words:?}: {ended}");
    }
}

#[test]
fn a_moment_in_a_question_is_as_long_as_it_was_written() {
    let venue = Venue::new(false);
    // Client 7 has this port from 00:35:30 to 00:35:35, 01:10:30 to 01:10:35 and 01:45:30 to 01:45:35.
    for (at, tz, code, count) in [
        ("2026-11-23T00:35:32Z", &[][..], 0, 1),
        ("2026-11-23T00:35Z", &[], 0, 1),
        ("2026-11-23T00Z", &[], 0, 1),
        ("2026-11-23T01Z", &[], 0, 2),
        ("2026-11-23T07:35", &["--tz", "Asia/Ho_Chi_Minh"], 0, 1),
        ("2026-11-23T08", &["--tz", "Asia/Ho_Chi_Minh"], 0, 2),
        ("2026-11-23", &["--tz", "Asia/Ho_Chi_Minh"], 0, 3),
        ("2026-11-23T00:36Z", &[], 1, 0),
    ] {
        let output = who(&venue, "203.0.113.7:17003", at, &[&["--json", "--tolerance", "0"], tz].concat());
        let found = rows(&output);
        assert_eq!(found.len(), count, "{at}: {output:?}");
        assert!(found.iter().all(|row| row["at_that_moment"] == true), "{at}");
        // A day is longer than what is sealed of it.
        let expected = if at == "2026-11-23" { 0 } else { code };
        assert_eq!(output.status.code(), Some(expected), "{at}: {output:?}");
        let mut words: Vec<&str> = tz.to_vec();
        let filter = format!("public 203.0.113.7:17003 at {at} within 0s");
        words.extend(["--json", &filter]);
        assert_eq!(rows(&venue.find(&words)).len(), count, "{at} in a filter");
    }
    assert_eq!(who(&venue, "203.0.113.7:17003", "2026-11-23", &[]).status.code(), Some(2), "a day has a zone");
}

#[test]
fn a_flow_that_was_not_going_on_is_said_so_in_words() {
    let venue = Venue::new(false);
    let after = who(&venue, "203.0.113.7:17003", "2026-11-23T00:35:36.500Z", &[]);
    let said = text(&after.stdout);
    assert!(
        said.contains("NOT AT THAT MOMENT")
            && said.contains("NOT GOING ON at that moment: it had ended 1.500 s before"),
        "{said}"
    );
    let before = text(&who(&venue, "203.0.113.7:17003", "2026-11-23T00:35:28Z", &[]).stdout);
    assert!(before.contains("NOT GOING ON at that moment: it began 1.000 s after"), "{before}");
    let during = text(&who(&venue, "203.0.113.7:17003", "2026-11-23T00:35:32Z", &[]).stdout);
    assert!(!during.contains("NOT"), "{during}");
    let found = venue.find(&["--json", "public 203.0.113.7:17003 at 2026-11-23T00:35:36Z"]);
    let remark = &answer(&found)["remarks"][0];
    assert!(remark.as_str().is_some_and(|said| said.starts_with("none of these flows was going on")), "{remark}");
}

#[test]
fn an_address_that_is_none_of_the_gateways_is_not_called_nobody() {
    let at = "2026-11-23T00:35:32Z";
    let venue = Venue::new(false);
    let verdict = |output: &Output| (output.status.code(), answer(output)["verdict"].as_str().unwrap().to_owned());
    assert_eq!(verdict(&who(&venue, "203.0.113.9:17003", at, &["--json"])), (Some(2), "not_an_address".into()));
    assert_eq!(
        verdict(&who(&venue, "203.0.113.7:1", at, &["--json"])),
        (Some(1), "nothing_found".into()),
        "a port that nobody had"
    );
    let find = |filter: &str| verdict(&venue.find(&["--json", "--to", "2026-11-23T02:05:00Z", filter]));
    assert_eq!(find("public ip 203.0.113.9"), (Some(2), "not_an_address".into()));
    assert_eq!(find("public ip 203.0.113.9 and user 0900000007"), (Some(2), "not_an_address".into()));
    assert_eq!(find("public ip 203.0.113.9 or public ip 203.0.113.8"), (Some(2), "not_an_address".into()));
    assert_eq!(find("public ip 203.0.113.7 port 1"), (Some(1), "nothing_found".into()));
    assert_eq!(
        find("public ip 203.0.113.9 or user nobody"),
        (Some(1), "nothing_found".into()),
        "it asks for more than an address"
    );
    assert_eq!(find("public ip 10.20.0.7"), (Some(2), "not_an_address".into()), "a client's own, which is translated");
    let said = text(&who(&venue, "203.0.113.9:17003", at, &[]).stderr);
    assert!(said.contains("203.0.113.9 is not an address of these gateways"), "{said}");
    // Where it was not recorded for a while it may have been theirs then.
    seal_with_gap(&venue, SEGMENTS + 1);
    let output = venue.find(&["--json", "public ip 203.0.113.9"]);
    assert_eq!(verdict(&output), (Some(3), "not_recorded".into()));
    assert!(answer(&output)["remarks"][0].as_str().unwrap().contains("not an address of these gateways"));
    // Where nobody watched translations no address is known, and where IPv6 is not translated clients have all of a network.
    let unwatched = Venue::with("cafe", "gw", false, |segment| {
        vec![FlowRecord {
            public: None,
            nat: None,
            client_ip: "2001:db8:20::7".parse().unwrap(),
            ..flow(segment, 7, 3)
        }]
    });
    assert_eq!(verdict(&who(&unwatched, "203.0.113.9:17003", at, &["--json"])), (Some(1), "nothing_found".into()));
    let v6 = Venue::with("cafe", "gw", false, |segment| {
        let nat = Some(hotspot_core::record::NatState::None);
        vec![FlowRecord { public: None, nat, client_ip: "2001:db8:20::7".parse().unwrap(), ..flow(segment, 7, 3) }]
    });
    assert_eq!(verdict(&who(&v6, "[2001:db8:20::9]:1", at, &["--json"])), (Some(1), "nothing_found".into()));
    assert_eq!(verdict(&who(&v6, "[2001:db8:21::9]:1", at, &["--json"])), (Some(2), "not_an_address".into()));
}

#[test]
fn hours_and_days_are_those_of_the_zone() {
    let venue = Venue::with("cafe", "gw", false, |segment| {
        let start_ns = BEGIN_NS + segment as i64 * 3600 * SECOND_NS;
        vec![FlowRecord { start_ns, end_ns: start_ns + SECOND_NS, ..flow(1, 1, segment) }]
    });
    let groups = |by: &str, tz: &[&str]| -> Vec<(String, u64)> {
        let output = venue.find(&[&["--json", "--by", by][..], tz].concat());
        let mut groups: Vec<(String, u64)> = rows(&output)
            .iter()
            .map(|row| (row[by].as_str().unwrap().to_owned(), row["flows"].as_u64().unwrap()))
            .collect();
        groups.sort();
        groups
    };
    let group = |name: &str, flows: u64| (name.to_owned(), flows);
    assert_eq!(groups("day", &[]), [group("2026-11-23T00:00:00Z", 23), group("2026-11-24T00:00:00Z", 1)]);
    let hanoi = ["--tz", "Asia/Ho_Chi_Minh"];
    assert_eq!(groups("day", &hanoi), [group("2026-11-23T00:00:00+07:00", 16), group("2026-11-24T00:00:00+07:00", 8)]);
    assert_eq!(groups("hour", &hanoi)[0], group("2026-11-23T08:00:00+07:00", 1));
    let kathmandu = groups("hour", &["--tz", "Asia/Kathmandu"]);
    assert_eq!(
        (kathmandu.len(), &kathmandu[0]),
        (24, &group("2026-11-23T06:00:00+05:45", 1)),
        "01:00 UTC is 06:45 there"
    );
}

#[test]
fn who_waits_for_the_first_segment_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    let key = hotspot_archive::manifest::GatewayKey::open(&dir.path().join("signing.key")).unwrap();
    hotspot_archive::manifest::Manifest::open(&archive, "gw", key).unwrap();
    let expected_ns = BEGIN_NS + 366 * 86_400 * SECOND_NS;
    let expected = hotspot_archive::first::Expected { began_ns: BEGIN_NS, expected_ns };
    hotspot_archive::first::announce(&archive, "gw", expected).unwrap();
    for words in [
        &["find", "any"][..],
        &["coverage"],
        &["clock"],
        &["verify"],
        &["who", "--public", "203.0.113.7:1", "--at", "2026-11-24T00Z"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotspot"));
        let output = command.arg(words[0]).arg("--archive").arg(&archive).args(&words[1..]).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{words:?}: {said}");
        assert!(
            said.contains("nothing is sealed yet by gateway gw; the first segment comes at 2027-11-24T00:00:00Z"),
            "{words:?}: {said}"
        );
    }
    let verified = Command::new(env!("CARGO_BIN_EXE_hotspot"))
        .args(["verify", "--json", "--archive"])
        .arg(&archive)
        .output()
        .unwrap();
    assert!(text(&verified.stdout).contains("\"verify\":\"nothing_sealed\""), "{verified:?}");
    // Files without a line are what they always were.
    let flows = archive.join("flows/site=s/date=2026-11-23");
    fs::create_dir_all(&flows).unwrap();
    fs::write(flows.join("gw-0000000009.parquet"), "x").unwrap();
    let verified = Command::new(env!("CARGO_BIN_EXE_hotspot"))
        .args(["verify", "--json", "--archive"])
        .arg(&archive)
        .output()
        .unwrap();
    assert!(text(&verified.stdout).contains("\"verify\":\"damaged\""), "{verified:?}");
}

#[test]
fn clocks_are_told_of_with_the_answer() {
    let venue = Venue::with("cafe", "gw", false, |_| Vec::new());
    let clock =
        |boot: &str, synchronised: bool| Some(ClockEvidence { boot: boot.into(), boottime_ns: 0, synchronised });
    seal(&venue, SEGMENTS + 1, &[], clock("a", true));
    seal(&venue, SEGMENTS + 2, &[], clock("b", false));
    let of = |sequence: u64| {
        let at = jiff_utc(BEGIN_NS + (sequence as i64 * 300 + 150) * SECOND_NS);
        let output = venue.find(&["--json", &format!("at {at}")]);
        (answer(&output)["searched"]["gateways"][0]["clock"]["synchronised"].clone(), text(&output.stderr))
    };
    let (synchronised, said) = of(SEGMENTS + 1);
    assert!(synchronised == true && !said.contains("the clock of"), "{said}");
    let (synchronised, said) = of(SEGMENTS + 2);
    assert!(
        synchronised == false && said.contains("the clock of gw was never synchronised: its error is unknown"),
        "{said}"
    );
    let (synchronised, said) = of(3);
    assert!(synchronised.is_null() && said.contains("whether it was synchronised was not recorded"), "{said}");
    let shown = text(&venue.command("clock").output().unwrap().stdout);
    assert!(shown.contains("never synchronised: error unknown"), "{shown}");
}

fn jiff_utc(ns: i64) -> String {
    format!("@{}", ns / SECOND_NS)
}

#[test]
fn two_devices_with_one_address_are_not_told_apart_by_a_more_exact_time() {
    let venue = Venue::with("cafe", "gw", false, |segment| {
        let taken =
            FlowRecord { client_mac: MacAddr([6; 6]), attribution: Attribution::Conflict, ..flow(segment, 1, 1) };
        if segment == 1 { vec![flow(segment, 1, 1), taken] } else { Vec::new() }
    });
    let said = text(&who(&venue, "203.0.113.7:11001", "2026-11-23T00:05:12Z", &[]).stdout);
    assert!(said.contains("NOT SURE: 2 devices claim the address 10.20.0.1") && said.contains("forged ARP"), "{said}");
    assert!(!said.contains("a more exact time tells them apart"), "{said}");
    let venue = Venue::with("cafe", "gw", false, |segment| {
        vec![FlowRecord { attribution: Attribution::MacOnly, ..flow(segment, 1, 1) }]
    });
    let said = text(&who(&venue, "203.0.113.7:11001", "2026-11-23T00:05:12Z", &[]).stdout);
    assert!(said.contains("the device is certain") && said.contains("its address was not confirmed"), "{said}");
}

#[test]
fn why_nothing_is_deleted_and_who_can_read_from_now_on_is_said() {
    let venue = Venue::new(true);
    let archive = venue.archive().display().to_string();
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hotspot")).args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        text(&output.stdout)
    };
    let said = run(&["expire", "--dry-run", "--archive", &archive, "--retain", "flows=36500d"]);
    assert!(
        said.contains("0 bytes would be deleted\nnothing is, because the oldest segment of gw is not old enough"),
        "{said}"
    );
    let said = run(&["expire", "--dry-run", "--archive", &archive, "--retain", "devices=1d"]);
    assert!(said.contains("nothing is, because gw has no segment of these classes"), "{said}");
    let new = |name: &str| run(&["keys", "new", &venue.dir.path().join(name).display().to_string()]).trim().to_owned();
    let (first, second) = (new("first"), new("second"));
    let identity = venue.identity.as_ref().unwrap().display().to_string();
    let rewrap = |recipient: &str| {
        run(&["keys", "rewrap", "--archive", &archive, "--identity", &identity, "--recipient", recipient])
    };
    assert_eq!(rewrap(&first), format!("added: {first}, for {SEGMENTS} segments\n"));
    let said = rewrap(&second);
    assert!(said.contains(&format!("added: {second}, for {SEGMENTS} segments\n")), "{said}");
    assert!(said.contains(&format!("taken away: {first}, from {SEGMENTS} segments")), "{said}");
    assert!(rewrap(&second).starts_with(&format!("was added before: {second}")));
    // A key is never written over, whatever lies in its way.
    symlink("/nonexistent/aim", venue.dir.path().join("link")).unwrap();
    for name in ["first", "link"] {
        let file = venue.dir.path().join(name);
        let refused = Command::new(env!("CARGO_BIN_EXE_hotspot")).args(["keys", "new"]).arg(&file).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        let refused = Command::new(env!("CARGO_BIN_EXE_hotspot"))
            .args(["witness", "new-key", "--name", "w"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(!refused.status.success(), "{refused:?}");
    }
    assert!(fs::symlink_metadata(venue.dir.path().join("link")).unwrap().is_symlink());
}
