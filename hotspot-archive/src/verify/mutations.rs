//! Whatever is done to an archive is found; whatever happens to a gateway is no finding.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ed25519_dalek::VerifyingKey;
use hotspot_core::record::{CoverageRecord, FlowRecord, Tallied};

use super::{Finding, Kind, Trust, verify};
use crate::keys::{Identity, Recipients};
use crate::manifest::{self, GatewayKey, Manifest, Sealing, to_hex};
use crate::retention::{ClockEvidence, Moment, Policy};
use crate::segment::Origin;

const MINUTE_NS: i64 = 60_000_000_000;
const DAY_NS: i64 = 1440 * MINUTE_NS;
const BEGIN_NS: i64 = 1_795_392_000_000_000_000;

/// A clock as a gateway has it.
#[derive(Clone)]
struct Clocks {
    wall_ns: i64,
    boot: u32,
    boottime_ns: i64,
    synchronised: bool,
}

impl Clocks {
    fn new(synchronised: bool) -> Self {
        Self { wall_ns: BEGIN_NS, boot: 1, boottime_ns: MINUTE_NS, synchronised }
    }

    fn pass(&mut self, ns: i64) {
        self.wall_ns += ns;
        self.boottime_ns += ns;
    }

    fn reboot_after(&mut self, off_ns: i64) {
        self.wall_ns += off_ns + MINUTE_NS;
        self.boot += 1;
        self.boottime_ns = MINUTE_NS;
    }

    fn moment(&self) -> Moment {
        let clock = ClockEvidence {
            boot: self.boot.to_string(),
            boottime_ns: self.boottime_ns,
            synchronised: self.synchronised,
        };
        Moment { wall_ns: self.wall_ns, clock: Some(clock) }
    }
}

fn open(dir: &Path, recipients: Option<Recipients>) -> Manifest {
    let key = GatewayKey::open(&dir.join("keys/k")).unwrap();
    Manifest::open(&dir.join("archive"), "g", key).unwrap().encrypted_for(recipients)
}

fn seal(manifest: &mut Manifest, clocks: &Clocks, length_ns: i64, flows: &[FlowRecord]) {
    let sequence = manifest.last_sequence() + 1;
    let tallied = Tallied { packets: sequence, bytes: 60 };
    let row = CoverageRecord {
        interface: "lan".into(),
        generation: 1,
        seen: tallied,
        flows: tallied,
        ..CoverageRecord::default()
    };
    let moment = clocks.moment();
    let origin = Origin { site: "s".into(), gateway: "g".into(), sequence };
    let mut draft = manifest.draft(&origin, clocks.wall_ns - length_ns).unwrap();
    flows.iter().for_each(|row| draft.flow(row).unwrap());
    let sealing = Sealing {
        closed_ns: clocks.wall_ns,
        sealed_ns: moment.wall_ns,
        clock: moment.clock,
        step_ns: 0,
        sessions: &[],
        devices: &[],
        coverage: &[row],
    };
    manifest.seal(draft, &sealing).unwrap();
}

/// An archive in memory: the chain's text, and hash and length of each file.
#[derive(Clone)]
struct Held {
    text: Vec<u8>,
    files: BTreeMap<String, Vec<u8>>,
}

struct World {
    held: Held,
    root: VerifyingKey,
    /// The head while it was whole.
    checkpoint: String,
    /// Keys of the epochs, oldest first.
    keys: Vec<ed25519_dalek::SigningKey>,
}

/// Segments of three epochs, one of them deleted in order, encrypted.
fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let recipients: Vec<String> = (0..2).map(|_| Identity::generate().recipient()).collect();
    let recipients = Recipients::parse(&recipients, false).unwrap();
    let mut manifest = open(dir.path(), Some(recipients));
    let mut clocks = Clocks::new(true);
    let mut keys = vec![signing_key(dir.path())];
    let flows: Vec<_> = (0..20).map(crate::segment::tests::flow).collect();
    for number in 0..4 {
        clocks.pass(DAY_NS);
        seal(&mut manifest, &clocks, MINUTE_NS, &flows[..number * 5]);
        if number % 2 == 1 {
            let moment = clocks.moment();
            manifest.begin_epoch(moment.wall_ns, moment.clock).unwrap();
            keys.push(signing_key(dir.path()));
        }
    }
    let policy: Policy = "flows=1d".parse().unwrap();
    assert_eq!(
        manifest.expire(&policy, &clocks.moment()).unwrap().files,
        6,
        "flows, index and key of sequences 2 and 3"
    );
    let archive = dir.path().join("archive");
    assert_eq!(verify(&archive, &Trust::default(), |_| {}).unwrap().findings, []);
    let text = std::fs::read(archive.join("manifest/g.jsonl")).unwrap();
    let mut files = BTreeMap::new();
    for record in manifest.records().unwrap() {
        let crate::chain::Record::Segment(line) = record else { continue };
        for file in line.files {
            if let Ok(bytes) = std::fs::read(archive.join(&file.path)) {
                files.insert(file.path, bytes);
            }
        }
    }
    let root = manifest::read_public_key(&archive.join("manifest/g.pub")).unwrap();
    let checkpoint = manifest.checkpoint(clocks.wall_ns).unwrap();
    World { held: Held { text, files }, root, checkpoint, keys }
}

fn signing_key(dir: &Path) -> ed25519_dalek::SigningKey {
    let text = std::fs::read_to_string(dir.join("keys/k")).unwrap();
    ed25519_dalek::SigningKey::from_bytes(&manifest::from_hex(text.trim()).unwrap().try_into().unwrap())
}

/// An archive on disk that is brought to what is held, so that a change goes through all that `hotspot verify` does.
struct Bench<'a> {
    world: &'a World,
    dir: tempfile::TempDir,
    on_disk: Held,
}

impl<'a> Bench<'a> {
    fn new(world: &'a World) -> Self {
        // In memory where there is such a place: each change is a few files.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let mut bench = Self { world, dir: dir.unwrap(), on_disk: Held { text: Vec::new(), files: BTreeMap::new() } };
        let public = to_hex(world.root.as_bytes());
        std::fs::create_dir_all(bench.dir.path().join("manifest")).unwrap();
        std::fs::write(bench.dir.path().join("manifest/g.pub"), public).unwrap();
        bench.bring(&world.held);
        bench
    }

    fn bring(&mut self, held: &Held) {
        if held.text != self.on_disk.text {
            std::fs::write(self.dir.path().join("manifest/g.jsonl"), &held.text).unwrap();
        }
        for (path, bytes) in &held.files {
            if self.on_disk.files.get(path) != Some(bytes) {
                let path = self.dir.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
        for path in self.on_disk.files.keys().filter(|path| !held.files.contains_key(*path)) {
            std::fs::remove_file(self.dir.path().join(path)).unwrap();
        }
        self.on_disk = held.clone();
    }

    /// Whether anything is found.
    fn notices(&mut self, held: &Held) -> bool {
        self.bring(held);
        let checkpoints = [self.world.checkpoint.clone()];
        let trust = Trust { checkpoints: &checkpoints, ..Trust::default() };
        !verify(self.dir.path(), &trust, |_| {}).unwrap().is_whole()
    }
}

/// xorshift: the same changes in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }
}

fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Signs a changed line again with the key of some epoch, and names that key in it.
fn sign_again(line: &[u8], key: &ed25519_dalek::SigningKey, dice: &mut Dice) -> Option<Vec<u8>> {
    use ed25519_dalek::Signer;
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let (head, _) = text.rsplit_once(",\"signature\":\"")?;
    let (before, _) = head.rsplit_once("\"key\":\"")?;
    let id = manifest::key_id(&key.verifying_key());
    let mut signed = format!("{before}\"key\":\"{id}\"}}");
    if dice.below(2) == 0 {
        // A number somewhere in it, so that it stays a line.
        let digits: Vec<usize> =
            signed.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_digit()).map(|(at, _)| at).collect();
        let at = digits[dice.below(digits.len())];
        let digit = char::from(b'1' + u8::try_from(dice.below(9)).unwrap());
        signed.replace_range(at..=at, &digit.to_string());
    }
    let signature = to_hex(&key.sign(signed.as_bytes()).to_bytes());
    Some(format!("{},\"signature\":\"{signature}\"}}\n", signed.strip_suffix('}')?).into_bytes())
}

/// One change; `None` where it changed nothing.
fn mutate(world: &World, other: &World, dice: &mut Dice) -> Option<Held> {
    let mut held = world.held.clone();
    let mut rows = lines(&held.text);
    let at = dice.below(rows.len());
    let names: Vec<String> = held.files.keys().cloned().collect();
    let name = names[dice.below(names.len())].clone();
    match dice.below(14) {
        0 => {
            let byte = dice.below(held.text.len());
            held.text[byte] ^= 1 << dice.below(8);
            return Some(held);
        }
        1 => held.text.truncate(dice.below(held.text.len())),
        2 => {
            rows.remove(at);
        }
        3 => {
            let with = dice.below(rows.len());
            rows.swap(at, with);
        }
        4 => rows.insert(dice.below(rows.len() + 1), world_line(world, at)),
        5 => rows[at] = world_line(other, dice.below(lines(&other.held.text).len())),
        6 => rows.insert(at, world_line(other, dice.below(lines(&other.held.text).len()))),
        7 => {
            let key = &world.keys[dice.below(world.keys.len())];
            rows[at] = sign_again(&rows[at], key, dice)?;
        }
        8 => {
            // A part of a line from another one.
            let from = world_line(world, dice.below(rows.len()));
            let (start, cut) = (dice.below(rows[at].len()), 1 + dice.below(40));
            let end = (start + cut).min(rows[at].len()).min(from.len());
            if start >= end {
                return None;
            }
            rows[at][start..end].copy_from_slice(&from[start..end]);
        }
        9 => {
            let bytes = held.files.get_mut(&name)?;
            let byte = dice.below(bytes.len());
            bytes[byte] ^= 1 << dice.below(8);
        }
        10 => {
            let bytes = held.files.get_mut(&name)?;
            bytes.truncate(dice.below(bytes.len()));
        }
        11 => {
            held.files.remove(&name);
        }
        12 => {
            let with = names[dice.below(names.len())].clone();
            let (left, right) = (held.files.get(&name)?.clone(), held.files.get(&with)?.clone());
            held.files.insert(name, right);
            held.files.insert(with, left);
        }
        _ => {
            held.files.insert(format!("{name}x"), vec![0; dice.below(100)]);
        }
    }
    if held.text == world.held.text {
        held.text = rows.concat();
    }
    let is_changed = held.text != world.held.text || held.files != world.held.files;
    is_changed.then_some(held)
}

fn world_line(world: &World, at: usize) -> Vec<u8> {
    lines(&world.held.text)[at].clone()
}

/// How many changes; `HOTSPOT_MUTATIONS` asks for more.
fn mutations() -> usize {
    std::env::var("HOTSPOT_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

#[test]
fn a_hundred_thousand_changes_are_all_found() {
    let (world, other) = (world(), world());
    assert!(!Bench::new(&world).notices(&world.held), "nothing was changed");
    let each = mutations().div_ceil(2);
    let missed: usize = std::thread::scope(|scope| {
        let runs: Vec<_> = (1..=2u64)
            .map(|run| {
                let (world, other) = (&world, &other);
                scope.spawn(move || {
                    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 * run);
                    let (mut done, mut missed) = (0, 0);
                    let mut bench = Bench::new(world);
                    while done < each {
                        let Some(held) = mutate(world, other, &mut dice) else { continue };
                        done += 1;
                        missed += usize::from(!bench.notices(&held));
                    }
                    missed
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert_eq!(missed, 0);
}

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
