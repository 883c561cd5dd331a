//! Who holds the account of the store that segments were shipped to: a directory and a bucket, which lie there alike.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::world::{Attacked, GATEWAYS, LEFT, ROWS, World, copy_dir, list};
use super::{Attack, Found};
use crate::s3::{S3, url};

const ALL: Found = Found { exit: 0, rows: [LEFT, LEFT] };
const NOTHING_OF_IT: Found = Found { exit: 3, rows: [0, LEFT] };
const LAST_GONE: Found = Found { exit: 0, rows: [LEFT - ROWS, LEFT] };

/// The chain lies there in two pieces: lines 1 to 10, and line 11.
fn piece(it: &Attacked, gateway: &str, first_line: u64) -> PathBuf {
    it.path(&hotspot_archive::pieces::path(gateway, first_line))
}

fn last_segment(it: &Attacked) -> Vec<PathBuf> {
    let text = fs::read_to_string(piece(it, "gw1", 11)).unwrap();
    super::thief::segment_of(text.trim_end()).files.into_iter().map(|file| it.path(&file.path)).collect()
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "a store loses the last piece of a chain with its files, and a checkpoint was kept",
        act: |it| {
            last_segment(it).iter().for_each(|path| fs::remove_file(path).unwrap());
            fs::remove_file(piece(it, "gw1", 11)).unwrap();
            it.verify_with_checkpoint("gw1");
        },
        verify: 7,
        find: LAST_GONE,
    },
    Attack {
        name: "a store loses the last piece of a chain and keeps its files, and a checkpoint was kept",
        act: |it| {
            fs::remove_file(piece(it, "gw1", 11)).unwrap();
            it.verify_with_checkpoint("gw1");
        },
        verify: 7,
        find: LAST_GONE,
    },
    Attack {
        name: "a store loses the last piece of a chain, as if shipping went on, and no checkpoint was kept",
        act: |it| fs::remove_file(piece(it, "gw1", 11)).unwrap(),
        verify: 0,
        find: LAST_GONE,
    },
    Attack {
        name: "a store has files far behind the end of a chain",
        act: |it| {
            let flows =
                last_segment(it).into_iter().find(|path| path.extension().is_some_and(|kind| kind == "parquet"));
            let flows = flows.unwrap();
            let far = flows.to_str().unwrap().replace("0000000006", "0000000999");
            fs::copy(flows, far).unwrap();
        },
        verify: 7,
        find: ALL,
    },
    Attack {
        name: "a store loses the first piece of a chain",
        act: |it| fs::remove_file(piece(it, "gw1", 1)).unwrap(),
        verify: 3,
        find: NOTHING_OF_IT,
    },
    Attack {
        name: "a store exchanges two pieces of a chain",
        act: |it| {
            let (first, last) = (piece(it, "gw1", 1), piece(it, "gw1", 11));
            let kept = fs::read(&first).unwrap();
            fs::copy(&last, &first).unwrap();
            fs::write(last, kept).unwrap();
        },
        verify: 3,
        find: NOTHING_OF_IT,
    },
    Attack {
        name: "a store shows one gateway's piece for another's",
        act: |it| {
            fs::copy(piece(it, "gw2", 1), piece(it, "gw1", 1)).unwrap();
        },
        verify: 3,
        find: NOTHING_OF_IT,
    },
    Attack {
        name: "a store changes a segment",
        act: |it| {
            let flows = &last_segment(it)[0];
            let mut bytes = fs::read(flows).unwrap();
            bytes[40] ^= 1;
            fs::write(flows, bytes).unwrap();
        },
        verify: 3,
        find: Found { exit: 3, ..LAST_GONE },
    },
    Attack {
        name: "a store loses a segment",
        act: |it| fs::remove_file(&last_segment(it)[0]).unwrap(),
        verify: 3,
        find: Found { exit: 3, ..LAST_GONE },
    },
    Attack {
        name: "a store exchanges the public key of a chain",
        act: |it| {
            fs::copy(it.path("manifest/gw2.pub"), it.path("manifest/gw1.pub")).unwrap();
        },
        verify: 3,
        find: NOTHING_OF_IT,
    },
    Attack {
        name: "a store exchanges the public key of a chain, and the key was pinned",
        act: |it| {
            fs::copy(it.path("manifest/gw2.pub"), it.path("manifest/gw1.pub")).unwrap();
            it.pin();
        },
        verify: 0,
        find: ALL,
    },
    Attack {
        name: "a store empties the chain of a gateway that is pinned, and loses its files",
        act: |it| {
            let mut files = Vec::new();
            ["flows", "index"].iter().for_each(|class| list(&it.path(class), &mut files));
            let is_its = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("gw1-");
            files.iter().filter(is_its).for_each(|path| fs::remove_file(path).unwrap());
            fs::remove_file(piece(it, "gw1", 11)).unwrap();
            fs::write(piece(it, "gw1", 1), "").unwrap();
            it.pin();
        },
        verify: 3,
        find: NOTHING_OF_IT,
    },
    Attack {
        name: "a store empties a chain, and its files are left",
        act: |it| {
            fs::remove_file(piece(it, "gw1", 11)).unwrap();
            fs::write(piece(it, "gw1", 1), "").unwrap();
        },
        verify: 3,
        find: NOTHING_OF_IT,
    },
    Attack {
        name: "a store names a piece by another line than its first",
        act: |it| fs::rename(piece(it, "gw1", 11), piece(it, "gw1", 2)).unwrap(),
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a store puts one line into two pieces",
        act: |it| {
            let (first, last) = (piece(it, "gw1", 1), piece(it, "gw1", 11));
            let (text, rest) = (fs::read_to_string(&first).unwrap(), fs::read_to_string(&last).unwrap());
            let (head, tail) = text.split_at(text.len() - 100);
            fs::write(first, head).unwrap();
            fs::write(last, format!("{tail}{rest}")).unwrap();
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
];

/// Ships what both gateways sealed to a directory, as the shipper of each would.
fn shipped(world: &World) -> Attacked {
    let mut attacked = world.copy();
    let to = attacked.root().join("shipped-to");
    fs::create_dir(&to).unwrap();
    let mut ship = Command::new(env!("CARGO_BIN_EXE_hotspot"));
    let output = ship.args(["ship", "--archive"]).arg(attacked.archive()).arg("--to").arg(&to).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    attacked.lies_at(Some(to));
    for gateway in GATEWAYS {
        let whole = fs::read_to_string(piece(&attacked, gateway, 1)).unwrap();
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        fs::write(piece(&attacked, gateway, 1), lines[..10].concat()).unwrap();
        fs::write(piece(&attacked, gateway, 11), lines[10]).unwrap();
    }
    attacked
}

/// The same archive in a bucket: what verifying and searching it there come to.
pub(super) fn in_bucket(s3: &S3, attacked: &mut Attacked, number: usize) -> (Output, Found) {
    let prefix = format!("attack-{number}");
    copy_dir(&attacked.archive(), &s3.object(&prefix));
    let here = attacked.lies_at(Some(url(&prefix).into()));
    let verified = s3.env(&mut attacked.verify_command()).output().unwrap();
    let searched = s3.env(&mut attacked.find_command()).output().unwrap();
    attacked.lies_at(here);
    (verified, Found::of(&searched))
}

#[test]
fn a_store_does_what_the_threat_model_says_and_no_more() {
    let (world, s3) = (World::new(), S3::start());
    let mut failures = Vec::new();
    for (number, attack) in ATTACKS.iter().enumerate() {
        let mut attacked = shipped(&world);
        (attack.act)(&mut attacked);
        let independent = attacked.verify_independently();
        let in_directory = (attacked.verify(), Found::of(&attacked.find()));
        let in_bucket = in_bucket(&s3, &mut attacked, number);
        if independent.status.code() != Some(attack.verify) {
            failures.push(format!("{}: the independent verifier ended with {independent:?}", attack.name));
        }
        for (place, (verified, found)) in [("directory", in_directory), ("bucket", in_bucket)] {
            if verified.status.code() != Some(attack.verify) || found != attack.find {
                failures.push(format!("{}, {place}: {found:?}, {verified:?}", attack.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), ATTACKS.len(), failures.join("\n"));
}
