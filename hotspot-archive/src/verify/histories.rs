//! Whatever happens to a gateway is no finding: rotations, restarts, clocks that are set, keys that are exchanged, retention and holds.

use std::io;

use super::mutations::{Clocks, DAY_NS, Dice, MINUTE_NS, open, seal};
use super::{Finding, Kind, Trust, verify};
use crate::manifest;
use crate::retention::Policy;

/// What a gateway says itself, and `verify` repeats.
fn is_a_clock_set_back(finding: &Finding) -> bool {
    finding.kind == Kind::Notice && finding.what.contains("follows a clock that was set back")
}

#[test]
fn a_year_of_rotations_restarts_and_clock_steps_is_no_finding() {
    let dir = tempfile::tempdir().unwrap();
    let mut clocks = Clocks::new(true);
    let mut dice = Dice(42);
    let mut checkpoints = Vec::new();
    let mut manifest = open(dir.path(), None);
    let (mut epochs, mut restarts) = (1, 0);
    // Journals of six hours, so that a year takes seconds.
    for number in 0..4 * 365 {
        clocks.pass(360 * MINUTE_NS);
        seal(&mut manifest, &clocks, 360 * MINUTE_NS, &[]);
        match dice.below(12) {
            0 => {
                restarts += 1;
                clocks.reboot_after(i64::try_from(dice.below(600)).unwrap() * MINUTE_NS);
                manifest = open(dir.path(), None);
            }
            1 => clocks.wall_ns += (i64::try_from(dice.below(400)).unwrap() - 200) * DAY_NS,
            2 => clocks.synchronised = !clocks.synchronised,
            3 => manifest = open(dir.path(), None),
            _ => {}
        }
        if number % 4 == 3 {
            let moment = clocks.moment();
            manifest.begin_epoch(moment.wall_ns, moment.clock).unwrap();
            epochs += 1;
        }
        if number % 100 == 0 {
            checkpoints.extend(manifest.checkpoint(clocks.wall_ns));
        }
    }
    let trust = Trust { checkpoints: &checkpoints, ..Trust::default() };
    let report = verify(&dir.path().join("archive"), &trust, |_| {}).unwrap();
    // Checkpoints that are weeks apart are told of.
    let is_gap = |found: &Finding| found.what.starts_with("no checkpoint for");
    let is_expected = |found: &Finding| is_gap(found) || is_a_clock_set_back(found);
    assert!(report.findings.iter().all(is_expected), "{:?}", report.findings);
    assert_eq!((report.lines, report.checkpoints), (1460, checkpoints.len()));
    assert!(epochs == 366 && restarts > 50, "{epochs} epochs, {restarts} restarts");
}

#[test]
fn a_cut_end_shows_against_a_checkpoint_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = open(dir.path(), None);
    let mut clocks = Clocks::new(true);
    for _ in 0..3 {
        clocks.pass(DAY_NS);
        seal(&mut manifest, &clocks, MINUTE_NS, &[]);
    }
    let checkpoints = [format!("Nov 24 host hotspot-agent: {}", manifest.checkpoint(1).unwrap())];
    let archive = dir.path().join("archive");
    let path = archive.join("manifest/g.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let cut: String = text.split_inclusive('\n').take(2).collect();
    std::fs::write(&path, cut).unwrap();
    assert!(matches!(manifest.records(), Err(manifest::ManifestError::Changed { .. })), "the agent notices it as well");
    let file =
        std::fs::read_dir(archive.join("coverage/site=s")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    std::fs::remove_dir_all(file).unwrap();
    assert!(verify(&archive, &Trust::default(), |_| {}).unwrap().is_whole(), "the rest is whole");
    let trust = Trust { checkpoints: &checkpoints, ..Trust::default() };
    let report = verify(&archive, &trust, |_| {}).unwrap();
    assert!(report.findings[0].what.contains("its end was cut off"), "{:?}", report.findings);
    let forged = [checkpoints[0].replace("\"sequence\":3", "\"sequence\":2")];
    std::fs::write(&path, text).unwrap();
    let trust = Trust { checkpoints: &forged, ..Trust::default() };
    let report = verify(&archive, &trust, |_| {}).unwrap();
    assert!(
        report.findings.iter().any(|finding| finding.what.contains("not signed by its key")),
        "{:?}",
        report.findings
    );
}

#[test]
fn an_exchange_of_keys_that_a_crash_interrupted_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = open(dir.path(), None);
    let mut clocks = Clocks::new(true);
    clocks.pass(DAY_NS);
    seal(&mut manifest, &clocks, MINUTE_NS, &[]);
    let old = std::fs::read(dir.path().join("keys/k")).unwrap();
    manifest.begin_epoch(clocks.wall_ns, None).unwrap();
    let new = std::fs::read(dir.path().join("keys/k")).unwrap();
    assert_ne!(old, new);
    assert!(!dir.path().join("keys/k.next").exists());
    // As it was before the new key had its place.
    std::fs::rename(dir.path().join("keys/k"), dir.path().join("keys/k.next")).unwrap();
    {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(dir.path().join("keys/k"))
            .unwrap();
        io::Write::write_all(&mut file, &old).unwrap();
    }
    let mut manifest = open(dir.path(), None);
    assert_eq!(std::fs::read(dir.path().join("keys/k")).unwrap(), new);
    clocks.pass(DAY_NS);
    seal(&mut manifest, &clocks, MINUTE_NS, &[]);
    manifest.begin_epoch(clocks.wall_ns, None).unwrap();
    clocks.pass(DAY_NS);
    seal(&mut manifest, &clocks, MINUTE_NS, &[]);
    assert_eq!(verify(&dir.path().join("archive"), &Trust::default(), |_| {}).unwrap().findings, []);
}

#[test]
fn a_clock_that_jumps_deletes_nothing_early() {
    let policy: Policy = "flows=30d,coverage=30d".parse().unwrap();
    let flows = [crate::segment::tests::flow(1)];
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = open(dir.path(), None);
    let mut clocks = Clocks::new(false);
    let true_age = |days: i64| days * DAY_NS;
    clocks.pass(true_age(1));
    seal(&mut manifest, &clocks, MINUTE_NS, &flows);
    // Ten days, then a jump of two years forward, seen by a running agent and after a reboot.
    clocks.pass(true_age(10));
    seal(&mut manifest, &clocks, MINUTE_NS, &[]);
    clocks.wall_ns += true_age(730);
    assert_eq!(manifest.expire(&policy, &clocks.moment()).unwrap().files, 0);
    clocks.reboot_after(true_age(730));
    seal(&mut manifest, &clocks, MINUTE_NS, &[]);
    assert_eq!(manifest.expire(&policy, &clocks.moment()).unwrap().files, 0);
    // Back again, and thirty days of running later it is over.
    clocks.wall_ns -= true_age(1460);
    for _ in 0..19 {
        clocks.pass(true_age(1));
        seal(&mut manifest, &clocks, MINUTE_NS, &[]);
        assert_eq!(manifest.expire(&policy, &clocks.moment()).unwrap().files, 0);
    }
    clocks.pass(true_age(2));
    assert_eq!(manifest.expire(&policy, &clocks.moment()).unwrap().files, 3, "flows, index and coverage of sequence 1");
    let report = verify(&dir.path().join("archive"), &Trust::default(), |_| {}).unwrap();
    assert!(report.findings.iter().all(is_a_clock_set_back), "{:?}", report.findings);
    assert_eq!(report.findings.len(), 1);
}

#[test]
fn the_time_a_gateway_was_off_counts_where_its_clock_was_right_on_both_sides() {
    let policy: Policy = "coverage=30d".parse().unwrap();
    for (synchronised, expected) in [(true, 1), (false, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = open(dir.path(), None);
        let mut clocks = Clocks::new(synchronised);
        seal(&mut manifest, &clocks, MINUTE_NS, &[]);
        clocks.reboot_after(31 * DAY_NS);
        seal(&mut manifest, &clocks, MINUTE_NS, &[]);
        assert_eq!(manifest.expire(&policy, &clocks.moment()).unwrap().files, expected);
    }
}

#[test]
fn a_hold_keeps_what_is_over_and_a_damaged_hold_keeps_everything() {
    use crate::retention::{Hold, lift_hold, place_hold};
    let policy: Policy = "flows=10d,coverage=20d".parse().unwrap();
    let flows = [crate::segment::tests::flow(1)];
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    let mut manifest = open(dir.path(), None);
    let mut clocks = Clocks::new(true);
    for _ in 0..3 {
        seal(&mut manifest, &clocks, MINUTE_NS, &flows);
        clocks.pass(MINUTE_NS);
    }
    clocks.pass(11 * DAY_NS);
    place_hold(&archive, &Hold::new("C-1", 1, [("g".to_owned(), 2)])).unwrap();
    std::fs::write(archive.join("holds/C-2.json"), "{").unwrap();
    assert!(manifest.expire(&policy, &clocks.moment()).is_err());
    std::fs::remove_file(archive.join("holds/C-2.json")).unwrap();
    let done = manifest.expire(&policy, &clocks.moment()).unwrap();
    assert_eq!((done.files, done.held), (4, 1), "flows and index of 1 and 3; coverage is not over");
    let kept = "flows/site=s/date=2026-11-22/g-0000000002.parquet";
    let kept = archive.join(kept).exists() || archive.join(kept.replace("-22", "-23")).exists();
    assert!(kept);
    assert_eq!(verify(&archive, &Trust::default(), |_| {}).unwrap().findings, []);
    assert!(lift_hold(&archive, "C-1").unwrap() && !lift_hold(&archive, "C-1").unwrap());
    assert_eq!(manifest.expire(&policy, &clocks.moment()).unwrap().files, 2);
    let report = verify(&archive, &Trust::default(), |_| {}).unwrap();
    assert_eq!((report.findings.as_slice(), report.deleted), ([].as_slice(), 6));
}

#[test]
fn files_that_a_crash_left_after_their_line_go_with_the_next_run() {
    let policy: Policy = "coverage=1d".parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive");
    let mut manifest = open(dir.path(), None);
    let mut clocks = Clocks::new(true);
    seal(&mut manifest, &clocks, MINUTE_NS, &[]);
    clocks.pass(2 * DAY_NS);
    let path = archive.join("coverage/site=s");
    let copy = dir.path().join("copy");
    std::fs::rename(&path, &copy).unwrap();
    assert_eq!(manifest.expire(&policy, &clocks.moment()).unwrap().files, 1);
    std::fs::rename(&copy, &path).unwrap();
    let report = verify(&archive, &Trust::default(), |_| {}).unwrap();
    assert!(report.is_whole() && report.findings.len() == 1, "{:?}", report.findings);
    manifest.finish_deletions().unwrap();
    assert_eq!(verify(&archive, &Trust::default(), |_| {}).unwrap().findings, []);
}
