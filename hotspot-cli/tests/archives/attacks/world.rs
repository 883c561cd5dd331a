//! What is attacked: an archive that two gateways share, with three epochs, retentions, a hold, and deletions by right.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ed25519_dalek::{Signer, SigningKey};
use hotspot_archive::chain::{DeletedFile, EVENT_FORMAT, Event, EventLine, FileEntry, Line, NO_LINE, Record, parse};
use hotspot_archive::manifest::{GatewayKey, Manifest, Sealing, hash_file, key_id, to_hex};
use hotspot_archive::retention::{ClockEvidence, Hold, Moment, place_hold};
use hotspot_archive::segment::Origin;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::venue::{SECOND_NS, flow};

pub(crate) const DAY_NS: i64 = 86_400 * SECOND_NS;
/// 2025-01-01: long enough ago that no line is from the future.
pub(crate) const BEGIN_NS: i64 = 1_735_689_600 * SECOND_NS;
pub(crate) const GATEWAYS: [&str; 2] = ["gw1", "gw2"];
/// Flows of a sequence.
pub(crate) const ROWS: usize = 3;
/// Rows of a gateway that are left: those of sequences 2 (held), 5 and 6.
pub(crate) const LEFT: usize = 3 * ROWS;

/// A moment of a gateway that booted once, the day before all began.
pub(crate) fn moment(day: i64) -> Moment {
    let clock = ClockEvidence { boot: "boot-1".into(), boottime_ns: (day + 1) * DAY_NS, synchronised: true };
    Moment { wall_ns: BEGIN_NS + day * DAY_NS, clock: Some(clock) }
}

/// The archive before anybody attacks it, and what its gateways and its owner know.
pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = Self { dir };
        GATEWAYS.iter().for_each(|gateway| world.record(gateway));
        fs::write(world.dir.path().join("secret"), "root's").unwrap();
        world
    }

    /// Lines: 1 sequence 1, 2 policy, 3 sequence 2, 4 epoch, 5 and 6 sequences 3 and 4, 7 epoch, 8 hold, 9 sequence 5, 10 deleted, 11 sequence 6.
    fn record(&self, gateway: &str) {
        let root = self.dir.path();
        let archive = root.join("archive");
        let key = root.join(gateway).join("signing.key");
        let mut manifest = Manifest::open(&archive, gateway, GatewayKey::open(&key).unwrap()).unwrap();
        let keep = |epoch: u32| fs::copy(&key, root.join(gateway).join(format!("key-{epoch}"))).unwrap();
        keep(1);
        seal(&mut manifest, gateway, 1, 0);
        let policy = "flows=30d".parse().unwrap();
        manifest.state(Some(&policy), &moment(0)).unwrap();
        seal(&mut manifest, gateway, 2, 1);
        manifest.begin_epoch(moment(1).wall_ns, moment(1).clock).unwrap();
        keep(2);
        seal(&mut manifest, gateway, 3, 2);
        seal(&mut manifest, gateway, 4, 3);
        manifest.begin_epoch(moment(3).wall_ns, moment(3).clock).unwrap();
        keep(3);
        let held = GATEWAYS.map(|gateway| (gateway.to_owned(), 2));
        place_hold(&archive, &Hold::new("C-1", 1, held)).unwrap();
        manifest.state(Some(&policy), &moment(3)).unwrap();
        seal(&mut manifest, gateway, 5, 35);
        assert_eq!(manifest.expire(&policy, &moment(35)).unwrap().files, 6, "flows and indexes of 1, 3 and 4");
        fs::write(root.join(gateway).join("early-checkpoint"), manifest.checkpoint(moment(35).wall_ns).unwrap())
            .unwrap();
        seal(&mut manifest, gateway, 6, 36);
        fs::write(root.join(gateway).join("checkpoint"), manifest.checkpoint(moment(36).wall_ns).unwrap()).unwrap();
    }

    /// A copy to attack.
    pub(crate) fn copy(&self) -> Attacked {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), dir.path());
        Attacked { dir, archive: None, options: Vec::new() }
    }
}

fn seal(manifest: &mut Manifest, gateway: &str, sequence: u64, day: i64) {
    let opened_ns = moment(day).wall_ns;
    let origin = Origin { site: format!("site-{gateway}"), gateway: gateway.to_owned(), sequence };
    let mut draft = manifest.draft(&origin, opened_ns).unwrap();
    for number in 0..ROWS as u64 {
        let mut flow = flow(sequence, 1, number);
        (flow.start_ns, flow.end_ns) = (opened_ns + SECOND_NS, opened_ns + 2 * SECOND_NS);
        draft.flow(&flow).unwrap();
    }
    let sealing = Sealing {
        closed_ns: opened_ns + 300 * SECOND_NS,
        sealed_ns: opened_ns + 310 * SECOND_NS,
        clock: moment(day).clock,
        step_ns: 0,
        sessions: &[],
        devices: &[],
        coverage: &[],
    };
    manifest.seal(draft, &sealing).unwrap();
}

pub(crate) fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// An archive under attack.
pub(crate) struct Attacked {
    dir: tempfile::TempDir,
    /// Where it lies, if not where its gateways write it.
    archive: Option<PathBuf>,
    /// What the verifier leans on beside the archive.
    pub(crate) options: Vec<String>,
}

impl Attacked {
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Every file there is.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        list(self.root(), &mut files);
        files
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.archive.clone().unwrap_or_else(|| self.dir.path().join("archive"))
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.archive().join(relative)
    }

    pub(crate) fn verify_with(&mut self, option: &str, value: impl Into<String>) {
        self.options.extend([option.to_owned(), value.into()]);
    }

    /// Gives the verifier the head of a chain as it was kept elsewhere.
    pub(crate) fn verify_with_checkpoint(&mut self, gateway: &str) {
        let path = self.root().join(gateway).join("checkpoint");
        self.verify_with("--checkpoint", path.display().to_string());
    }

    /// Gives the verifier the keys of both gateways as they were when the archive began.
    pub(crate) fn pin(&mut self) {
        let key = |gateway: &str| to_hex(self.key(gateway, 1).verifying_key().as_bytes());
        let pins = GATEWAYS.map(|gateway| format!("{gateway} {}\n", key(gateway))).concat();
        let path = self.root().join("pins");
        fs::write(&path, pins).unwrap();
        self.verify_with("--public-key", path.display().to_string());
    }

    /// The key of an epoch. The last is the one that a thief finds.
    pub(crate) fn key(&self, gateway: &str, epoch: u32) -> SigningKey {
        let text = fs::read_to_string(self.root().join(gateway).join(format!("key-{epoch}"))).unwrap();
        let digits = text.trim();
        let bytes: Vec<u8> =
            (0..64).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
        SigningKey::from_bytes(&bytes.try_into().unwrap())
    }

    fn chain_path(&self, gateway: &str) -> PathBuf {
        self.path(&format!("manifest/{gateway}.jsonl"))
    }

    pub(crate) fn lines(&self, gateway: &str) -> Vec<String> {
        fs::read_to_string(self.chain_path(gateway)).unwrap().lines().map(str::to_owned).collect()
    }

    pub(crate) fn write(&self, gateway: &str, lines: &[String]) {
        let mut text = lines.join("\n");
        if !lines.is_empty() {
            text.push('\n');
        }
        fs::write(self.chain_path(gateway), text).unwrap();
    }

    pub(crate) fn record(&self, gateway: &str, line: usize) -> Record {
        parse(&self.lines(gateway)[line - 1]).unwrap().record
    }

    pub(crate) fn segment(&self, gateway: &str, line: usize) -> Line {
        match self.record(gateway, line) {
            Record::Segment(line) => line,
            Record::Event(_) => panic!("line {line} is about something else"),
        }
    }

    /// The entry of the flows of a line.
    pub(crate) fn flows(&self, gateway: &str, line: usize) -> FileEntry {
        self.segment(gateway, line).files.into_iter().find(|file| file.class == "flows").unwrap()
    }

    fn prev(&self, gateway: &str) -> String {
        self.lines(gateway).last().map_or_else(|| NO_LINE.to_owned(), |line| to_hex(&Sha256::digest(line)))
    }

    pub(crate) fn append_text(&self, gateway: &str, line: String) {
        let mut lines = self.lines(gateway);
        lines.push(line);
        self.write(gateway, &lines);
    }

    /// Appends a line as its gateway would, with a key of the attacker's choice.
    pub(crate) fn append_segment(&self, gateway: &str, key: &SigningKey, line: Line) {
        let line = Line { prev: self.prev(gateway), key: key_id(&key.verifying_key()), ..line };
        self.append_text(gateway, sign(key, &line));
    }

    /// The line of a thief of gw1 as she would spell it, signed.
    pub(crate) fn append_spelled(&self, line: Line, spell: impl Fn(String) -> String) {
        let key = self.key("gw1", 3);
        let line = Line { prev: self.prev("gw1"), key: key_id(&key.verifying_key()), ..line };
        self.append_text("gw1", sign_text(&key, &spell(serde_json::to_string(&line).unwrap())));
    }

    /// Writes the last line of gw1 again, changed, as a thief would.
    pub(crate) fn change_last(&self, change: impl Fn(&mut Line)) {
        let lines = self.lines("gw1");
        let mut line = self.segment("gw1", 11);
        change(&mut line);
        self.write("gw1", &lines[..10]);
        self.append_segment("gw1", &self.key("gw1", 3), line);
    }

    /// Gives the verifier a log of checkpoints of gw1 as somebody made it from the one that was kept.
    pub(crate) fn verify_with_log(&mut self, log: impl Fn(&str) -> Vec<u8>) {
        let kept = fs::read_to_string(self.root().join("gw1/checkpoint")).unwrap();
        let path = self.root().join("log");
        fs::write(&path, log(&kept)).unwrap();
        self.verify_with("--checkpoint", path.display().to_string());
    }

    pub(crate) fn append_event(&self, gateway: &str, key: &SigningKey, now: &Moment, event: Event) {
        self.append_text(gateway, self.event(gateway, gateway, key, now, event));
    }

    /// A line in the chain of one gateway that says it is of another.
    pub(crate) fn event(&self, chain: &str, gateway: &str, key: &SigningKey, now: &Moment, event: Event) -> String {
        let line = EventLine {
            format: EVENT_FORMAT,
            gateway: gateway.to_owned(),
            at_ns: now.wall_ns,
            clock: now.clock.clone(),
            event,
            prev: self.prev(chain),
            key: key_id(&key.verifying_key()),
        };
        sign(key, &line)
    }

    /// Deletes a file of a line, with a line that says so.
    pub(crate) fn delete_signed(&self, gateway: &str, key: &SigningKey, now: &Moment, line: usize) {
        let file = self.flows(gateway, line);
        self.append_event(gateway, key, now, deleted(&file));
        fs::remove_file(self.path(&file.path)).unwrap();
    }

    /// The next sequence, with its flows, as the gateway would seal it on a day.
    pub(crate) fn seal_next(&self, gateway: &str, day: i64) {
        let key = self.root().join(gateway).join("signing.key");
        let mut manifest = Manifest::open(&self.archive(), gateway, GatewayKey::open(&key).unwrap()).unwrap();
        let sequence = manifest.last_sequence() + 1;
        seal(&mut manifest, gateway, sequence, day);
    }

    /// Starts the gateway's own program over what is there: whether it goes on, and then finishes its deletions.
    pub(crate) fn gateway_goes_on(&self, gateway: &str) -> bool {
        let key = self.root().join(gateway).join("signing.key");
        let opened = Manifest::open(&self.archive(), gateway, GatewayKey::open(&key).unwrap());
        opened.is_ok_and(|manifest| manifest.finish_deletions().is_ok())
    }

    /// From now on the archive is looked at there, and not where its gateways write it; where it was looked at before.
    pub(crate) fn lies_at(&mut self, place: Option<PathBuf>) -> Option<PathBuf> {
        std::mem::replace(&mut self.archive, place)
    }

    pub(crate) fn verify_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotspot"));
        command.args(["verify", "--json", "--archive"]).arg(self.archive()).args(&self.options);
        command
    }

    pub(crate) fn verify(&self) -> Output {
        self.verify_command().output().unwrap()
    }

    /// The verifier that was written from the description of the format alone.
    pub(crate) fn verify_independently(&self) -> Output {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let python = root.join("target/venv/bin/python");
        let mut command = Command::new(&python);
        command.arg(root.join("tests/python/verify_manifest.py")).arg(self.archive()).args(&self.options);
        command.output().unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", python.display()))
    }

    /// Everything that a search finds, in a log of its own so that the archive stays as it is.
    pub(crate) fn find_command(&self) -> Command {
        let is_of_both = |option: &&[String]| option[0] == "--public-key" || option[0] == "--trusted-until";
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotspot"));
        command.args(["find", "--json", "--archive"]).arg(self.archive());
        command.args(self.options.chunks(2).filter(is_of_both).flatten());
        command.arg("--audit").arg(self.root().join("queries.jsonl"));
        command
    }

    pub(crate) fn find(&self) -> Output {
        self.find_command().output().unwrap()
    }
}

/// An object with its signature as its last field, as lines are.
pub(crate) fn sign(key: &SigningKey, object: &impl Serialize) -> String {
    sign_text(key, &serde_json::to_string(object).unwrap())
}

/// The same of text that is spelled in any way.
pub(crate) fn sign_text(key: &SigningKey, signed: &str) -> String {
    let signature = to_hex(&key.sign(signed.as_bytes()).to_bytes());
    format!("{},\"signature\":\"{signature}\"}}", signed.strip_suffix('}').unwrap())
}

pub(crate) fn deleted(file: &FileEntry) -> Event {
    deleted_path(&file.path, &file.sha256)
}

pub(crate) fn deleted_path(path: &str, sha256: &str) -> Event {
    let file = DeletedFile { path: path.to_owned(), sha256: sha256.to_owned() };
    Event::Deleted { why: "retention flows=30d".into(), files: vec![file] }
}

/// An entry for a file that the attacker made.
pub(crate) fn entry_of(archive: &Path, entry: &FileEntry, path: &str) -> FileEntry {
    let (sha256, bytes) = hash_file(&archive.join(path)).unwrap();
    FileEntry { path: path.to_owned(), sha256, bytes, ..entry.clone() }
}
