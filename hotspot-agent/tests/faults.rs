//! What a disk can do to a gateway, and that nothing acknowledged is lost by it.
//!
//! The journals, the sealer and the recovery are the agent's own; only the kernel's side is played here (`life`). Every call that
//! changes the disk is noted on its way to the C library (`tap`). Power cuts: what was noted up to some call is put on a disk that
//! keeps, tears, reorders and loses what was not flushed (`model`), and the agent starts from what is left. Faults: each call in turn
//! fails, once or for a while.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how much was tried is worth knowing")]

#[path = "faults/chain.rs"]
mod chain;
#[path = "faults/life.rs"]
mod life;
#[path = "faults/model.rs"]
mod model;
#[path = "faults/tap.rs"]
mod tap;

use std::path::Path;

use hotspot_tests::random::Random;
use life::{Asked, Gateway, Secrets};
use model::{Disk, Tree};
use tap::{Fault, Op, Seen, Trouble};

/// In memory where that is possible: nothing is flushed here but in the model, while file systems on disks do it on their own.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Some of everything: recording, refusing, rotating, sealing, and being killed and started again.
fn live(root: &Path, secrets: &Secrets, asked: Asked) -> Asked {
    let mut gateway = Gateway::start(root, secrets, asked);
    gateway.flows(2);
    gateway.report();
    gateway.rotate();
    gateway.flows(1);
    let _ = gateway.seal();
    gateway.report();
    gateway.flows(3);
    gateway.rotate();
    let _ = gateway.seal();
    gateway.flows(1);
    let mut gateway = Gateway::start(root, secrets, gateway.kill());
    gateway.report();
    gateway.rotate();
    gateway.flows(2);
    let _ = gateway.seal();
    gateway.report();
    gateway.kill()
}

/// The rest of a life: something more, and an end in order.
fn settle(root: &Path, secrets: &Secrets, asked: Asked) -> Asked {
    let mut gateway = Gateway::start(root, secrets, asked);
    gateway.flows(1);
    gateway.report();
    gateway.stop()
}

/// What a program did to a disk that was `tree` when it began.
struct Recorded {
    tree: Tree,
    seen: Seen,
    asked: Asked,
}

fn record(tree: &Tree, fault: Option<Fault>, program: impl FnOnce(&Path) -> Asked) -> Recorded {
    let dir = directory();
    tree.make(dir.path());
    let (_, files) = Disk::of(tree);
    tap::open(dir.path(), fault, &files);
    let asked = program(dir.path());
    Recorded { tree: tree.clone(), seen: tap::close(), asked }
}

/// Starts from what a power cut left, and says what is wrong with what is there then. Sealing all of it takes ten times as long, so
/// that is done `to_the_end` only.
fn recover(tree: &Tree, secrets: &Secrets, asked: Asked, to_the_end: bool) -> Result<(), String> {
    let dir = directory();
    tree.make(dir.path());
    tap::open(dir.path(), None, &[]);
    let outcome = if to_the_end {
        settle(dir.path(), secrets, asked).check(dir.path(), secrets, true).map(drop)
    } else {
        let mut gateway = Gateway::start(dir.path(), secrets, asked);
        gateway.flows(1);
        gateway.kill().check_unsealed(dir.path(), secrets)
    };
    tap::close();
    outcome
}

fn acknowledged(asked: &Asked) -> Vec<usize> {
    (0..asked.items.len()).filter(|number| asked.items[*number].is_acknowledged).collect()
}

/// Cuts the power after each call, some times, and checks what a new start makes of it. Says how often, or what was wrong. Of a
/// hundred, after `deeper` the power goes again while the agent recovers.
fn cut_everywhere(
    recorded: &Recorded,
    secrets: &Secrets,
    times: usize,
    deeper: usize,
    random: &mut Random,
) -> Result<usize, String> {
    let (mut disk, _) = Disk::of(&recorded.tree);
    let (mut noted, mut cuts) = (Vec::new(), 0);
    for (at, op) in recorded.seen.ops.iter().enumerate() {
        disk.apply(op, random);
        if let Op::Note(number) = op {
            noted.push(*number);
        }
        for _ in 0..times {
            let seed = random.next();
            let mut random = Random::new(seed);
            let mut asked = recorded.asked.as_of(&noted);
            asked.lose_power();
            let tree = disk.cut(&mut random);
            cuts += 1;
            let outcome = if random.index(100) < deeper {
                cut_again(&tree, secrets, &asked, &mut random)
            } else {
                recover(&tree, secrets, asked, random.one_in(8))
            };
            outcome.map_err(|wrong| {
                let ops: Vec<String> = recorded.seen.ops[..=at].iter().map(brief).collect();
                format!("cut after call {at}, seed {seed}: {wrong}\n{ops:#?}")
            })?;
        }
    }
    Ok(cuts)
}

/// Starts from what a power cut left, cuts the power once more meanwhile, and starts again.
fn cut_again(tree: &Tree, secrets: &Secrets, asked: &Asked, random: &mut Random) -> Result<(), String> {
    let recorded = record(tree, None, |root| settle(root, secrets, asked.clone()));
    let (mut disk, _) = Disk::of(tree);
    let mut noted = acknowledged(asked);
    let until = random.index(recorded.seen.ops.len()) + 1;
    for op in &recorded.seen.ops[..until] {
        disk.apply(op, random);
        if let Op::Note(number) = op {
            noted.push(*number);
        }
    }
    let mut asked = recorded.asked.as_of(&noted);
    asked.lose_power();
    let outcome = recover(&disk.cut(random), secrets, asked, true);
    outcome.map_err(|wrong| {
        let ops: Vec<String> = recorded.seen.ops[..until].iter().map(brief).collect();
        format!("recovering, {wrong}\n{ops:#?}")
    })
}

/// An operation without its bytes.
fn brief(op: &Op) -> String {
    if let Op::Write { file, at, bytes } = op {
        format!("write {} to {file} at {at}", bytes.len())
    } else {
        format!("{op:?}")
    }
}

fn power_cuts(wanted: usize, seed: u64, deeper: usize) {
    let mut random = Random::new(seed);
    let (mut cuts, mut lives, mut records) = (0, 0, 0);
    while cuts < wanted {
        let secrets = Secrets::new(lives % 2 == 1);
        // Every other life on a disk that fails now and then.
        let trouble = Trouble::ALL[random.index(Trouble::ALL.len())];
        let fault = (lives % 4 >= 2).then(|| Fault { trouble, at: random.index(300), calls: 1 + random.index(12) });
        let recorded = record(&Tree::default(), fault, |root| live(root, &secrets, Asked::default()));
        records += acknowledged(&recorded.asked).len();
        let times = ((wanted - cuts) / (4 * recorded.seen.ops.len())).clamp(1, 20);
        cuts +=
            cut_everywhere(&recorded, &secrets, times, deeper, &mut random).unwrap_or_else(|wrong| panic!("{wrong}"));
        lives += 1;
    }
    println!("{cuts} power cuts in {lives} lives with {records} records acknowledged");
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    power_cuts(2_000, 1, 10);
}

#[test]
#[ignore = "minutes; `cargo xtask test soak`"]
fn no_power_cut_of_a_hundred_thousand_loses_what_was_acknowledged() {
    power_cuts(100_000, 2, 15);
}

/// A program that does not do what it should, seen from the disk.
#[derive(Clone, Copy, Debug)]
enum Omission {
    /// Files whose paths begin with this are not flushed.
    Flush(&'static str),
    /// Directories whose paths begin with this are not flushed.
    FlushOfNames(&'static str),
    /// Sources are told before the flush.
    Patience,
}

impl Omission {
    fn apply(self, ops: &mut Vec<Op>) {
        let mut files = std::collections::BTreeMap::new();
        for op in ops.iter() {
            if let Op::MakeFile { path, file } = op {
                files.insert(*file, path.clone());
            }
        }
        match self {
            Self::Flush(of) => ops.retain(|op| match op {
                Op::SyncFile { file, .. } => !files[file].starts_with(of),
                Op::MakeFile { .. }
                | Op::MakeDir { .. }
                | Op::Write { .. }
                | Op::SetLen { .. }
                | Op::SyncDir { .. }
                | Op::Rename { .. }
                | Op::Remove { .. }
                | Op::Note(_) => true,
            }),
            Self::FlushOfNames(of) => ops.retain(|op| !matches!(op, Op::SyncDir { path } if path.starts_with(of))),
            Self::Patience => {
                for at in 1..ops.len() {
                    if matches!((&ops[at - 1], &ops[at]), (Op::SyncFile { .. }, Op::Note(_))) {
                        ops.swap(at - 1, at);
                    }
                }
            }
        }
    }
}

#[test]
fn a_flush_left_out_and_an_early_answer_are_noticed() {
    let omissions = [
        Omission::Flush("journal"),
        Omission::Flush("archive/flows"),
        Omission::Flush("archive/manifest"),
        Omission::FlushOfNames("journal"),
        Omission::FlushOfNames("archive/flows"),
        Omission::FlushOfNames("archive/manifest"),
        Omission::Patience,
    ];
    for omission in omissions {
        let secrets = Secrets::new(false);
        let mut recorded = record(&Tree::default(), None, |root| live(root, &secrets, Asked::default()));
        omission.apply(&mut recorded.seen.ops);
        // An agent that does not start at all panics.
        let cut = std::panic::AssertUnwindSafe(|| cut_everywhere(&recorded, &secrets, 4, 0, &mut Random::new(3)));
        let outcome = std::panic::catch_unwind(cut);
        drop(tap::close());
        assert!(!matches!(outcome, Ok(Ok(_))), "{omission:?} does no harm, or this test cannot see any");
    }
}

/// Lets one fault happen in one life, ends it, and looks what is on record. Returns how many calls failed.
fn suffer(fault: Option<Fault>, secrets: &Secrets) -> (Seen, usize) {
    let dir = directory();
    tap::open(dir.path(), fault, &[]);
    let asked = live(dir.path(), secrets, Asked::default());
    let asked = settle(dir.path(), secrets, asked);
    let seen = tap::close();
    match asked.check(dir.path(), secrets, false) {
        Ok(gaps) => {
            let refused = asked.items.iter().filter(|item| !item.is_acknowledged).count();
            let is_on_record = gaps.iter().any(|gap| gap.starts_with("nothing could be recorded"));
            assert_eq!(asked.gap_is_due, is_on_record, "{fault:?}: {gaps:?}");
            (seen, refused)
        }
        Err(wrong) => panic!("{fault:?}: {wrong}\n{:#?}", seen.ops.iter().map(brief).collect::<Vec<_>>()),
    }
}

fn faults(every: usize, lengths: &[usize]) {
    let (mut faults, mut refused) = (0, 0);
    for encrypts in [false, true] {
        let secrets = Secrets::new(encrypts);
        let (without, _) = suffer(None, &secrets);
        assert!(without.calls > 200, "{}", without.calls);
        for at in 0..without.calls {
            for (number, trouble) in Trouble::ALL.into_iter().enumerate() {
                for (variant, calls) in lengths.iter().enumerate() {
                    if (at + number + variant) % every != 0 {
                        continue;
                    }
                    let (seen, some) = suffer(Some(Fault { trouble, at, calls: *calls }), &secrets);
                    faults += usize::from(seen.failed > 0);
                    refused += some;
                }
            }
        }
    }
    println!("{faults} faults, in which {refused} reports were refused");
    assert!(refused > 0, "else this tests nothing");
}

#[test]
fn no_fault_of_the_disk_loses_or_doubles_anything_and_the_gap_is_on_record() {
    faults(4, &[1, 7]);
}

#[test]
#[ignore = "minutes; `cargo xtask test soak`"]
fn no_fault_of_the_disk_of_any_kind_and_length_loses_or_doubles_anything() {
    faults(1, &[1, 2, 7, 40]);
}

#[test]
fn signing_keys_take_over_whatever_the_disk_does() {
    let dir = directory();
    tap::open(dir.path(), None, &[]);
    chain::live(dir.path());
    let seen = tap::close();
    assert_eq!(chain::check(dir.path(), 9), Ok(()));
    for at in 0..seen.calls {
        for trouble in Trouble::ALL {
            let dir = directory();
            let fault = Fault { trouble, at, calls: 1 + at % 7 };
            tap::open(dir.path(), Some(fault), &[]);
            chain::live(dir.path());
            tap::close();
            assert_eq!(chain::check(dir.path(), 9), Ok(()), "{fault:?}");
        }
    }
    assert_eq!(chain::keys_replaced_while_they_were_there(&seen.ops), (3, 0));
    let (mut disk, mut sealed, mut random) = (Disk::of(&Tree::default()).0, 0, Random::new(4));
    for op in &seen.ops {
        disk.apply(op, &mut random);
        if let Op::Note(sequence) = op {
            sealed = *sequence as u64;
        }
        for _ in 0..10 {
            let dir = directory();
            disk.cut(&mut random).make(dir.path());
            tap::open(dir.path(), None, &[]);
            let outcome = chain::check(dir.path(), sealed);
            tap::close();
            assert_eq!(outcome, Ok(()), "{}", brief(op));
        }
    }
}
