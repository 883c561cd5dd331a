//! Attacks on an archive that two gateways share, each carried out on a copy of it, and what comes of it.
//!
//! Expected is what docs/threat-model.md says. The verifier of the tool and the one written from the description of the format alone have to
//! agree; a search must lose no row that it does not say is lost; and a gateway that starts over what was attacked removes nothing that its
//! own checked lines do not delete.

mod files;
mod neighbour;
mod store;
mod thief;
mod world;
mod writer;

use std::fs;
use std::path::Path;
use std::process::Output;

use self::world::{Attacked, GATEWAYS, World};
use crate::s3::S3;
use crate::venue::text;

/// One attack. Its name is how docs/threat-model.md calls it.
pub(crate) struct Attack {
    name: &'static str,
    act: fn(&mut Attacked),
    /// Exit code of `hotspot verify`.
    verify: i32,
    find: Found,
}

/// What a search for everything finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    exit: i32,
    /// Rows of each gateway.
    rows: [usize; 2],
}

impl Found {
    fn of(output: &Output) -> Self {
        let rows: String = text(&output.stdout).split_inclusive('\n').filter(is_row).collect();
        let of = |gateway: &str| rows.matches(&format!("\"gateway\":\"{gateway}\"")).count();
        Self { exit: output.status.code().unwrap(), rows: GATEWAYS.map(of) }
    }
}

fn carry_out(world: &World, attacks: &[Attack]) {
    let s3 = S3::start();
    let mut failures = Vec::new();
    for (number, attack) in attacks.iter().enumerate() {
        let mut attacked = world.copy();
        (attack.act)(&mut attacked);
        let verified = attacked.verify();
        if verified.status.code() != Some(attack.verify) {
            failures.push(format!("{}: verify ended with {verified:?}, not {}", attack.name, attack.verify));
        }
        let independent = attacked.verify_independently();
        if independent.status.code() != Some(attack.verify) {
            failures.push(format!(
                "{}: the independent verifier ended with {independent:?}, not {}",
                attack.name, attack.verify
            ));
        }
        let searched = attacked.find();
        if Found::of(&searched) != attack.find {
            failures.push(format!("{}: {searched:?}, not {:?}", attack.name, attack.find));
        }
        // Receipts lie where files were taken away only, and are not looked for in a bucket.
        if !attacked.path("shipped").exists() {
            let (verified, found) = store::in_bucket(&s3, &mut attacked, number);
            if verified.status.code() != Some(attack.verify) || found != attack.find {
                failures.push(format!("{}, in a bucket: {found:?}, {verified:?}", attack.name));
            }
        }
        // What was there before a gateway starts over this, and is not deleted by right, is there after it.
        let before = attacked.files();
        GATEWAYS.iter().for_each(|gateway| {
            attacked.gateway_goes_on(gateway);
        });
        let lost: Vec<_> = before.iter().filter(|path| !path.exists()).collect();
        if !lost.is_empty() {
            failures.push(format!("{}: a gateway removed {lost:?}", attack.name));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), attacks.len(), failures.join("\n"));
}

#[test]
fn what_is_not_attacked_is_whole() {
    let attacked = World::new().copy();
    assert_eq!(attacked.verify().status.code(), Some(0), "{:?}", attacked.verify());
    assert_eq!(attacked.verify_independently().status.code(), Some(0), "{:?}", attacked.verify_independently());
    assert_eq!(Found::of(&attacked.find()), Found { exit: 0, rows: [world::LEFT; 2] });
    assert!(GATEWAYS.iter().all(|gateway| attacked.gateway_goes_on(gateway)));
}

#[test]
fn a_thief_of_a_gateway_does_what_the_threat_model_says_and_no_more() {
    carry_out(&World::new(), thief::ATTACKS);
}

#[test]
fn whoever_writes_without_a_key_does_what_the_threat_model_says_and_no_more() {
    carry_out(&World::new(), writer::ATTACKS);
}

#[test]
fn a_neighbour_does_what_the_threat_model_says_and_no_more() {
    carry_out(&World::new(), neighbour::ATTACKS);
}

/// Whether a line is a row, and not what the answer says of itself.
fn is_row(line: &&str) -> bool {
    !line.starts_with("{\"answer\":")
}

#[test]
fn rows_after_the_last_trusted_line_say_so_in_every_form() {
    let mut attacked = World::new().copy();
    attacked.seal_next("gw1", 37);
    attacked.verify_with("--trusted-until", "gw1:11");
    let output = attacked.find();
    let (marked, others): (Vec<&str>, Vec<&str>) = std::str::from_utf8(&output.stdout)
        .unwrap()
        .lines()
        .filter(is_row)
        .partition(|row| row.contains("\"trusted\":false"));
    assert_eq!((marked.len(), others.len()), (world::ROWS, 2 * world::LEFT));
    assert!(text(&output.stderr).contains("not trusted: 1 segments"), "{output:?}");
}

#[test]
fn whoever_asks_over_a_chain_that_cannot_be_read_is_told() {
    let attacked = World::new().copy();
    fs::rename(attacked.path("manifest/gw1.jsonl"), attacked.root().join("gw1.jsonl")).unwrap();
    fs::create_dir(attacked.path("manifest/gw1.jsonl")).unwrap();
    let log = attacked.root().join("queries.jsonl");
    let ask = |words: &[&str], has_log: bool| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hotspot"));
        command.arg(words[0]).arg("--archive").arg(attacked.archive());
        if has_log {
            command.arg("--audit").arg(&log);
        }
        command.args(&words[1..]).output().unwrap()
    };
    for (words, has_log) in [
        (&["find", "gateway", "gw1"][..], true),
        (&["who", "--public", "203.0.113.7:1", "--at", "@1"], true),
        (&["coverage"], false),
        (&["clock"], false),
    ] {
        let output = ask(words, has_log);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(3) && said.contains("manifest/gw1.jsonl"), "{words:?}: {output:?}");
    }
}

#[test]
fn what_a_reader_is_told_twice_must_be_the_same() {
    let mut attacked = World::new().copy();
    attacked.pin();
    let other = attacked.root().join("other-pins");
    let key = hotspot_archive::manifest::to_hex(attacked.key("gw2", 1).verifying_key().as_bytes());
    fs::write(&other, format!("gw1 {key}\n")).unwrap();
    attacked.verify_with("--public-key", other.display().to_string());
    let refused = attacked.verify();
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains("another key of gw1"), "{refused:?}");
    attacked.options.clear();
    let log = attacked.root().join("log");
    let kept = |name: &str| fs::read_to_string(attacked.root().join("gw1").join(name)).unwrap() + "\n";
    fs::write(&log, kept("early-checkpoint") + &kept("checkpoint")).unwrap();
    attacked.verify_with("--trusted-until", log.display().to_string());
    let refused = attacked.verify();
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains("several checkpoints"), "{refused:?}");
    attacked.options.clear();
    attacked.verify_with("--trusted-until", "gw1:0");
    assert!(!text(&attacked.verify().stdout).contains("is the last that is trusted"), "nothing of it is trusted");
}

/// Every attack stands in the table, and every row of the table is carried out.
#[test]
fn the_threat_model_lists_what_is_carried_out() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/threat-model.md");
    let page = fs::read_to_string(path).unwrap();
    // Rows of attacks end with an exit code.
    let is_code = |row: &&str| row.trim_end_matches(" |").ends_with(|last: char| last.is_ascii_digit());
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")).filter(is_code);
    let listed: Vec<&str> = rows.filter_map(|row| row.split(" | ").next()).collect();
    let carried = || [thief::ATTACKS, writer::ATTACKS, neighbour::ATTACKS, store::ATTACKS].into_iter().flatten();
    for attack in carried() {
        let row = page.lines().find(|line| line.starts_with(&format!("| {} | ", attack.name)));
        let row = row.unwrap_or_else(|| panic!("docs/threat-model.md has no row of {:?}", attack.name));
        assert!(row.contains(&format!("| {} |", attack.verify)), "another exit code: {row}");
    }
    let is_carried = |name: &&str| carried().any(|attack| attack.name == *name);
    let made_up: Vec<_> = listed.iter().filter(|name| !is_carried(name)).collect();
    assert!(made_up.is_empty(), "not carried out: {made_up:?}");
    assert_eq!(listed.len(), carried().count());
}
