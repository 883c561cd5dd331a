//! What is said of times that were not recorded, by two gateways at different sites, one of which rested and has stopped.

use hotspot_archive::manifest::{GatewayKey, Manifest, Sealing};
use hotspot_archive::segment::Origin;
use hotspot_core::record::{CoverageRecord, PublicEndpoint};

use crate::venue::{BEGIN_NS, SECOND_NS, SEGMENTS, Venue, flow, text};

const ROTATE_NS: i64 = 300 * SECOND_NS;

/// A second gateway in a venue's archive: sequences at these places of five minutes each, each with a gap row where it says one.
fn second_gateway(venue: &Venue, places: &[(i64, Option<CoverageRecord>)], public: [u8; 4]) {
    let key = GatewayKey::open(&venue.dir.path().join("second.key")).unwrap();
    let manifest = Manifest::open(&venue.archive(), "gw2", key).unwrap();
    let mut manifest = manifest.encrypted_for(venue.recipients.clone());
    for (sequence, (place, gap)) in (1..).zip(places) {
        let opened_ns = BEGIN_NS + place * ROTATE_NS;
        let origin = Origin { site: "bar".into(), gateway: "gw2".into(), sequence };
        let mut draft = manifest.draft(&origin, opened_ns).unwrap();
        // Of its one client, translated to an address of its own.
        let mut flow = flow(place.cast_unsigned(), 1, 0);
        flow.public = Some(PublicEndpoint { ip: public.into(), port: Some(1) });
        draft.flow(&flow).unwrap();
        let coverage: Vec<CoverageRecord> = gap.iter().cloned().collect();
        let sealing = Sealing {
            closed_ns: opened_ns + ROTATE_NS,
            sealed_ns: opened_ns + ROTATE_NS + SECOND_NS,
            clock: None,
            step_ns: 0,
            sessions: &[],
            devices: &[],
            coverage: &coverage,
        };
        manifest.seal(draft, &sealing).unwrap();
    }
}

/// Runs from place 1 to 4, and from 8 to 11; the other from 1 to 24 without a hole.
fn venue(is_encrypted: bool) -> Venue {
    let venue = Venue::new(is_encrypted);
    let of = |place: i64| {
        let at_ns = BEGIN_NS + place * ROTATE_NS;
        let gap = CoverageRecord::gap("wlan0", at_ns + SECOND_NS, at_ns + 2 * SECOND_NS, "somebody took a program off");
        (place, (place == 2).then_some(gap))
    };
    second_gateway(&venue, &[1, 2, 3, 8, 9, 10].map(of), [203, 0, 113, 99]);
    venue
}

fn at(place: i64, minutes: i64) -> String {
    format!("@{}", (BEGIN_NS + place * ROTATE_NS) / SECOND_NS + minutes * 60)
}

fn said(venue: &Venue, from: &str, to: &str, words: &[&str]) -> Vec<String> {
    let output = venue.find(&[&["--from", from, "--to", to, "user nobody"], words].concat());
    let lines = text(&output.stderr);
    let told = lines.lines().filter_map(|line| line.split_once("not everything was recorded: "));
    // Lines without a time are about gateways that sealed nothing.
    told.filter_map(|(_, what)| Some(what.split_once("Z: ")?.1.to_owned())).collect()
}

#[test]
fn a_hole_of_one_gateway_is_told_to_whom_it_may_concern() {
    for is_encrypted in [false, true] {
        let venue = venue(is_encrypted);
        let hole = ["gateway gw2 recorded nothing between segments 3 and 4"];
        let (from, to) = (at(5, 0), at(6, 0));
        assert_eq!(said(&venue, &from, &to, &[]), hole);
        for concerned in
            ["gateway gw2", "site bar", "site b*", "not gateway gw", "gateway gw or port 443", "not site cafe"]
        {
            assert_eq!(said(&venue, &from, &to, &[&format!("and ({concerned})")]), hole, "{concerned}");
        }
        for unconcerned in ["gateway gw", "site cafe", "not gateway gw2", "not (site bar or port 443)"] {
            assert_eq!(said(&venue, &from, &to, &[&format!("and ({unconcerned})")]), [""; 0], "{unconcerned}");
        }
        // Of a gateway that is not here nothing is known.
        let elsewhere = ["no gateway of this archive can have seen what is asked for"];
        assert_eq!(said(&venue, &from, &to, &["and gateway gw3"]), elsewhere);
        // By the words of the question itself; nobody is known to have had this address.
        let moment = format!("@{}", BEGIN_NS / SECOND_NS + 5 * 300 + 10);
        let output = venue.command("who").args(["--public", "203.0.113.8:1", "--at", &moment]).output().unwrap();
        assert!(text(&output.stderr).contains(hole[0]), "{output:?}");
        assert_eq!(said(&venue, &at(1, 0), &at(24, 0), &[&format!("and at {moment}")]), hole);
    }
}

/// Of a public address that one gateway had at the time, and the other, which rested, certainly had not: before and after it had another.
#[test]
fn a_public_address_that_is_certainly_anothers_concerns_nobody_else() {
    for is_encrypted in [false, true] {
        let question =
            |venue: &Venue, public: &str| said(venue, &at(5, 0), &at(6, 0), &[&format!("and public ip {public}")]);
        let hole = ["gateway gw2 recorded nothing between segments 3 and 4"];
        let venue = venue(is_encrypted);
        assert_eq!(question(&venue, "203.0.113.7"), [""; 0]);
        assert_eq!(question(&venue, "203.0.113.99"), hole, "its own");
        assert_eq!(question(&venue, "203.0.113.8"), hole, "nobody's");
        let either = said(&venue, &at(5, 0), &at(6, 0), &["and (public ip 203.0.113.7 or public ip 203.0.113.99)"]);
        assert_eq!(either, hole);
        // Behind one address upstream.
        let shared = Venue::new(is_encrypted);
        second_gateway(&shared, &[1, 2, 3, 8, 9].map(|place| (place, None)), [203, 0, 113, 7]);
        assert_eq!(question(&shared, "203.0.113.7"), hole);
        // One that did not come back is known by what it had last.
        let last = said(&venue, &at(12, 0), &at(13, 0), &["and public ip 203.0.113.7"]);
        assert_eq!(last, [""; 0]);
    }
}

#[test]
fn coverage_rows_of_an_interface_concern_questions_about_it() {
    for is_encrypted in [false, true] {
        let venue = venue(is_encrypted);
        let row = ["gateway gw2, wlan0: somebody took a program off"];
        let of = |words: &[&str]| said(&venue, &at(2, 0), &at(3, 0), words);
        assert_eq!(of(&[]), row);
        assert_eq!(of(&["and interface wlan0"]), row);
        assert_eq!(of(&["and interface lan"]), [""; 0]);
        // It lay in the first seconds.
        assert_eq!(said(&venue, &at(2, 1), &at(3, 0), &[]), [""; 0]);
        // Where the row is gone, its line still says that there was one.
        for file in venue.files("coverage") {
            std::fs::remove_file(file).unwrap();
        }
        let output = venue.find(&["--from", &at(2, 0), "--to", &at(3, 0), "user nobody"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
    }
}

#[test]
fn every_command_tells_of_the_same_times() {
    for is_encrypted in [false, true] {
        let venue = venue(is_encrypted);
        let verified = venue.command("verify").arg("--json").output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
        let by_verify: Vec<String> = report["unrecorded"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["what"].as_str().unwrap().to_owned())
            .collect();
        let found = venue.find(&["user nobody"]);
        let covered = venue.command("coverage").output().unwrap();
        let words = |lines: &[u8]| -> Vec<String> {
            let lines = text(lines);
            let told = lines.lines().filter_map(|line| line.split_once("not everything was recorded: "));
            told.map(|(_, what)| what.to_owned()).collect()
        };
        let is_hole = |what: &String| what.contains("between segments");
        let holes = |all: Vec<String>| all.into_iter().filter(is_hole).collect::<Vec<_>>();
        assert_eq!(holes(by_verify.clone()).len(), 1);
        assert_eq!(holes(by_verify.clone()), holes(words(&found.stderr)));
        // Up to now, which is not the same moment.
        let ended =
            |all: Vec<String>| all.into_iter().filter(|what| !what.contains("has not sealed")).collect::<Vec<_>>();
        assert_eq!(ended(words(&found.stderr)), ended(words(&covered.stderr)));
        let tails = |all: &[String]| all.iter().filter(|what| what.contains("has not sealed")).count();
        assert_eq!((tails(&by_verify), tails(&words(&found.stderr))), (2, 2), "of both gateways: {by_verify:?}");
        // Whoever cannot open it knows that there are rows.
        assert!(by_verify.iter().any(|what| what.contains("gateway gw2, segment 2: 1 coverage rows")), "{by_verify:?}");
    }
}

#[test]
fn a_gateway_that_sealed_nothing_is_told_of() {
    let venue = Venue::new(false);
    second_gateway(&venue, &[], [203, 0, 113, 99]);
    std::fs::write(venue.archive().join("manifest/gw2.jsonl"), "").unwrap();
    let told = said(&venue, &at(2, 0), &at(3, 0), &[]);
    assert_eq!(told, ["gateway gw2 has not sealed a segment of that time"]);
    let last = SEGMENTS as i64;
    assert_eq!(said(&venue, &at(last, 0), &at(last + 1, 0), &["and gateway gw"]), [""; 0]);
    assert_eq!(said(&venue, &at(last, 0), &at(last + 1, 1), &["and gateway gw"]).len(), 1);
}
