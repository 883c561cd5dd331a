//! Whatever is done to an archive is found, and no search lies over it.

mod forgeries;

use std::collections::BTreeMap;
use std::path::Path;

use hotspot_core::record::{CoverageRecord, FlowRecord, Tallied};

use super::{Kind, Outside, Trust, verify};
use crate::audit::{self, Question, Requester};
use crate::chain::Record;
use crate::checkpoint::parse_checkpoint;
use crate::cosignature::cosign;
use crate::filter::Filter;
use crate::keys::{Identity, Keyring, Recipients};
use crate::manifest::{self, GatewayKey, Manifest, Sealing, to_hex};
use crate::note::{KeyKind, Note, VerifierKey};
use crate::retention::{ClockEvidence, Moment, Policy};
use crate::search::{Archive, Hit, Interval};
use crate::segment::Origin;

pub(super) const MINUTE_NS: i64 = 60_000_000_000;
pub(super) const DAY_NS: i64 = 1440 * MINUTE_NS;
pub(super) const BEGIN_NS: i64 = 1_795_392_000_000_000_000;

/// A clock as a gateway has it.
#[derive(Clone)]
pub(super) struct Clocks {
    pub(super) wall_ns: i64,
    boot: u32,
    boottime_ns: i64,
    pub(super) synchronised: bool,
}

impl Clocks {
    pub(super) fn new(synchronised: bool) -> Self {
        Self { wall_ns: BEGIN_NS, boot: 1, boottime_ns: MINUTE_NS, synchronised }
    }

    pub(super) fn pass(&mut self, ns: i64) {
        self.wall_ns += ns;
        self.boottime_ns += ns;
    }

    pub(super) fn reboot_after(&mut self, off_ns: i64) {
        self.wall_ns += off_ns + MINUTE_NS;
        self.boot += 1;
        self.boottime_ns = MINUTE_NS;
    }

    pub(super) fn moment(&self) -> Moment {
        let clock = ClockEvidence {
            boot: self.boot.to_string(),
            boottime_ns: self.boottime_ns,
            synchronised: self.synchronised,
        };
        Moment { wall_ns: self.wall_ns, clock: Some(clock) }
    }
}

pub(super) fn open(dir: &Path, recipients: Option<Recipients>) -> Manifest {
    let key = GatewayKey::open(&dir.join("keys/k")).unwrap();
    Manifest::open(&dir.join("archive"), "g", key).unwrap().encrypted_for(recipients)
}

pub(super) fn seal(manifest: &mut Manifest, clocks: &Clocks, length_ns: i64, flows: &[FlowRecord]) {
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

/// An archive in memory: the chain's text, and everything that lies beside it.
#[derive(Clone)]
struct Held {
    text: Vec<u8>,
    files: BTreeMap<String, Vec<u8>>,
    /// Whether the verifier has the checkpoint that was kept elsewhere. Without it the witness has to notice.
    has_checkpoint: bool,
}

struct World {
    held: Held,
    /// The head while it was whole.
    checkpoint: String,
    /// The same head, and the signature of a witness under it.
    seen: Note,
    witness: VerifierKey,
    /// Keys of the epochs, oldest first.
    keys: Vec<ed25519_dalek::SigningKey>,
    identity: Identity,
    /// Every flow that is left.
    flows: Vec<FlowRecord>,
}

/// Segments of three epochs, one of them deleted in order, encrypted.
fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let (identity, other) = (Identity::generate(), Identity::generate());
    let recipients = Recipients::parse(&[identity.recipient(), other.recipient()], false).unwrap();
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
    (0..3).for_each(|number| ask(&archive, number));
    let text = std::fs::read(archive.join("manifest/g.jsonl")).unwrap();
    let mut files = BTreeMap::new();
    let named = manifest.records().unwrap().into_iter().flat_map(|record| match record {
        Record::Segment(line) => line.files.into_iter().map(|file| file.path).collect(),
        Record::Event(_) => Vec::new(),
    });
    for path in named.chain(["manifest/g.pub".to_owned(), AUDIT.to_owned()]) {
        if let Ok(bytes) = std::fs::read(archive.join(&path)) {
            files.insert(path, bytes);
        }
    }
    let checkpoint = manifest.checkpoint(clocks.wall_ns).unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let witness = VerifierKey { name: "w/1".into(), kind: KeyKind::Cosignature, key: key.verifying_key() };
    let (_, mut seen) = parse_checkpoint(&checkpoint).unwrap().note().unwrap().clone();
    let at_s = u64::try_from(clocks.wall_ns / 1_000_000_000).unwrap();
    seen.signatures.push(cosign(&witness.name, &key, &seen.text, at_s));
    let held = Held { text, files, has_checkpoint: true };
    World { held, checkpoint, seen, witness, keys, identity, flows: flows[..15].to_vec() }
}

const AUDIT: &str = "audit/queries.jsonl";

fn ask(archive: &Path, number: u32) {
    let question = Question {
        at: "2026-11-23T03:02:03.000000Z".into(),
        requester: Requester { uid: 1000, name: Some("anna".into()), sudo_uid: None },
        case: Some(format!("case {number}")),
        command: "find".into(),
        of: "/srv/archive".into(),
        query: BTreeMap::new(),
        software: "hotspot".into(),
    };
    audit::record(&audit::default_path(archive), &question).unwrap();
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
        let on_disk = Held { text: Vec::new(), files: BTreeMap::new(), has_checkpoint: true };
        let mut bench = Self { world, dir: dir.unwrap(), on_disk };
        bench.bring(&world.held);
        bench
    }

    fn bring(&mut self, held: &Held) {
        let write = |path: &str, bytes: &[u8]| {
            let path = self.dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        if held.text != self.on_disk.text {
            write("manifest/g.jsonl", &held.text);
        }
        for (path, bytes) in held.files.iter().filter(|(path, bytes)| self.on_disk.files.get(*path) != Some(bytes)) {
            write(path, bytes);
        }
        for path in self.on_disk.files.keys().filter(|path| !held.files.contains_key(*path)) {
            std::fs::remove_file(self.dir.path().join(path)).unwrap();
        }
        self.on_disk = held.clone();
    }

    /// Whether anything is found, by what `hotspot verify --checkpoint --witness` does.
    fn notices(&mut self, held: &Held) -> bool {
        self.bring(held);
        let kept = [self.world.checkpoint.clone()];
        let (witnesses, notes) = ([self.world.witness.clone()], [("w".to_owned(), self.world.seen.clone())]);
        let outside = Outside { witnesses: &witnesses, notes: &notes, ..Outside::default() };
        let checkpoints = if held.has_checkpoint { &kept[..] } else { &[] };
        let report = verify(self.dir.path(), &Trust { checkpoints, outside, ..Trust::default() }, |_| {}).unwrap();
        // Without a checkpoint nobody vouches for the audit log, which is not what was changed.
        report.findings.iter().any(|finding| finding.kind > Kind::Unanchored)
    }

    /// Whether a search shows a row that was never recorded, or loses one and does not say so.
    fn lies(&mut self, held: &Held) -> bool {
        self.bring(held);
        let keyring = Keyring::of(vec![self.world.identity.copy()]);
        let Ok(archive) = Archive::open(self.dir.path(), keyring) else { return false };
        let mut found = Vec::new();
        let mut each = |hit: Hit| {
            found.push(hit.flow);
            true
        };
        let seen = archive.search(Interval::ALWAYS, &Filter::Everything, &mut each, |_| {});
        let invents = found.iter().any(|flow| !self.world.flows.contains(flow));
        // Only somebody who kept a checkpoint knows of lines that are cut off the end, or written again by the gateway's own key.
        let is_told = !seen.damage.is_empty() || !seen.gaps.is_empty() || is_cut(&self.world.held.text, &held.text);
        invents || (found.len() != self.world.flows.len() && !is_told && held.has_checkpoint)
    }
}

/// Whether a chain is the beginning of another.
fn is_cut(whole: &[u8], text: &[u8]) -> bool {
    let lines = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    whole.starts_with(&text[..lines])
}

/// xorshift: the same changes in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
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

/// One change of a kind; `None` where it changed nothing.
fn mutate(world: &World, other: &World, kind: usize, dice: &mut Dice) -> Option<Held> {
    let mut held = world.held.clone();
    let mut rows = lines(&held.text);
    let at = dice.below(rows.len());
    let names: Vec<String> = held.files.keys().cloned().collect();
    let name = names[dice.below(names.len())].clone();
    // A key is the same with and without its line feed, and what lies beside a log or a chain is nobody's.
    if name.starts_with("manifest/") || (kind == 13 && name == AUDIT) {
        return None;
    }
    match kind {
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
        13 => {
            held.files.insert(format!("{name}x"), vec![0; dice.below(100)]);
        }
        forgery => return forgeries::forge(world, other, forgery - 14, dice),
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

/// One change in so many is searched, too.
const SEARCHED_EVERY: usize = 5;

/// How many changes; `HOTSPOT_MUTATIONS` asks for more.
fn mutations() -> usize {
    std::env::var("HOTSPOT_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

#[test]
fn a_hundred_thousand_changes_are_all_found() {
    let (world, other) = (world(), world());
    assert!(!Bench::new(&world).notices(&world.held) && !Bench::new(&world).lies(&world.held), "nothing was changed");
    let each = mutations().div_ceil(2);
    let missed: BTreeMap<(usize, &str), usize> = std::thread::scope(|scope| {
        let runs: Vec<_> = (1..=2u64)
            .map(|run| {
                let (world, other) = (&world, &other);
                scope.spawn(move || changes(world, other, each, 0x9e37_79b9_7f4a_7c15 * run))
            })
            .collect();
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(missed, BTreeMap::new(), "by kind of change, what failed to notice it");
}

/// Makes so many changes, each from the archive as it was.
fn changes(world: &World, other: &World, count: usize, seed: u64) -> BTreeMap<(usize, &'static str), usize> {
    let (mut dice, mut bench) = (Dice(seed), Bench::new(world));
    let (mut done, mut missed) = (0, BTreeMap::new());
    while done < count {
        let kind = dice.below(KINDS);
        let Some(held) = mutate(world, other, kind, &mut dice) else { continue };
        done += 1;
        if !bench.notices(&held) {
            *missed.entry((kind, "verify")).or_default() += 1;
        }
        // A search takes longer than a verification of so small an archive.
        if done % SEARCHED_EVERY == 0 && bench.lies(&held) {
            *missed.entry((kind, "search")).or_default() += 1;
        }
    }
    missed
}

/// Kinds of changes.
const KINDS: usize = 22;
