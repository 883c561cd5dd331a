//! Who can write to the archive and has no key: an operator's root before and after sealing, whoever holds a copy.

use std::fs;

use super::world::{Attacked, DAY_NS, LEFT, ROWS, deleted, deleted_path, moment, sign};
use super::{Attack, Found};

const ALL: Found = Found { exit: 0, rows: [LEFT, LEFT] };
const ALL_BUT_DAMAGED: Found = Found { exit: 3, ..ALL };
const NOTHING_OF_IT: Found = Found { exit: 3, rows: [0, LEFT] };
const ONE_GONE: Found = Found { exit: 3, rows: [LEFT - ROWS, LEFT] };

/// A line with a signature of zeros, and a path of the attacker's choice.
fn append_unsigned(it: &Attacked, path: &str, sha256: &str) {
    let line = it.event("gw1", "gw1", &it.key("gw1", 3), &moment(40), deleted_path(path, sha256));
    let (head, _) = line.rsplit_once(",\"signature\":\"").unwrap();
    it.append_text("gw1", format!("{head},\"signature\":\"{}\"}}", "0".repeat(128)));
}

/// A file that no retention reaches, named in a line of the gateway's own key.
fn append_signed(it: &Attacked, path: &str) {
    let sha256 = hotspot_archive::manifest::hash_file(&it.root().join("secret")).unwrap().0;
    it.append_event("gw1", &it.key("gw1", 3), &moment(40), deleted_path(path, &sha256));
}

fn receipt(it: &Attacked, gateway: &str, sequence: u64, to: &str) {
    fs::create_dir_all(it.path("shipped")).unwrap();
    let text = format!(
        "{{\"moved\":1,\"gateway\":\"{gateway}\",\"sequence\":{sequence},\"to\":\"{to}\",\"at_ns\":{DAY_NS}}}\n"
    );
    fs::write(it.path("shipped/moved.jsonl"), text).unwrap();
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "a line without a signature deletes a key outside of the archive",
        act: |it| append_unsigned(it, "../gw1/signing.key", &"0".repeat(64)),
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a line without a signature deletes by an absolute path",
        act: |it| append_unsigned(it, &it.root().join("secret").display().to_string(), &"0".repeat(64)),
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a line without a signature deletes a segment",
        act: |it| append_unsigned(it, &it.flows("gw1", 9).path, &it.flows("gw1", 9).sha256),
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a signed line deletes a file outside of the archive, with its right hash",
        act: |it| append_signed(it, "../secret"),
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a signed line deletes a legal hold",
        act: |it| append_signed(it, "holds/C-1.json"),
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a signed line deletes a chain",
        act: |it| append_signed(it, "manifest/gw2.jsonl"),
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a signed line deletes by a path with a step up in it",
        act: |it| append_signed(it, "flows/site=site-gw1/date=2025-02-05/../../../../secret"),
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a signed line deletes a segment under another hash",
        act: |it| {
            let path = it.flows("gw1", 9).path;
            it.append_event("gw1", &it.key("gw1", 3), &moment(70), deleted_path(&path, &"0".repeat(64)));
        },
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a link lies where a deleted segment lay",
        act: |it| {
            let path = it.path(&it.flows("gw1", 1).path);
            std::os::unix::fs::symlink(it.root().join("secret"), path).unwrap();
        },
        verify: 3,
        find: ALL,
    },
    Attack {
        name: "another file lies where a deleted segment lay",
        act: |it| fs::write(it.path(&it.flows("gw1", 1).path), "evidence").unwrap(),
        verify: 3,
        find: ALL,
    },
    Attack {
        name: "one byte of a line in the middle is changed",
        act: |it| {
            let mut lines = it.lines("gw1");
            lines[8] = lines[8].replacen("\"rows\":3", "\"rows\":4", 1);
            it.write("gw1", &lines);
        },
        verify: 3,
        find: Found { exit: 3, rows: [ROWS, LEFT] },
    },
    Attack {
        name: "the last line is changed and keeps its signature",
        act: |it| {
            let mut lines = it.lines("gw1");
            lines[10] = lines[10].replacen("\"rows\":3", "\"rows\":4", 1);
            it.write("gw1", &lines);
        },
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "a line is changed and signed with a key of the attacker",
        act: |it| {
            let mut lines = it.lines("gw1");
            lines[10] = sign(&it.key("gw2", 3), &it.segment("gw1", 11));
            it.write("gw1", &lines);
        },
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "a line in the middle is taken out",
        act: |it| {
            let mut lines = it.lines("gw1");
            lines.remove(8);
            it.write("gw1", &lines);
        },
        verify: 3,
        find: Found { exit: 3, rows: [ROWS, LEFT] },
    },
    Attack {
        name: "two lines are exchanged",
        act: |it| {
            let mut lines = it.lines("gw1");
            lines.swap(4, 5);
            it.write("gw1", &lines);
        },
        verify: 3,
        find: Found { exit: 3, rows: [ROWS, LEFT] },
    },
    Attack {
        name: "the end of a chain is cut off with its files, and a checkpoint was kept",
        act: |it| {
            it.segment("gw1", 11).files.iter().for_each(|file| fs::remove_file(it.path(&file.path)).unwrap());
            let lines = it.lines("gw1");
            it.write("gw1", &lines[..10]);
            it.verify_with_checkpoint("gw1");
        },
        verify: 7,
        find: Found { exit: 0, rows: [LEFT - ROWS, LEFT] },
    },
    Attack {
        name: "a whole chain is taken away with its files, and its key was pinned",
        act: |it| {
            for line in [3, 9, 11] {
                it.segment("gw1", line).files.iter().for_each(|file| fs::remove_file(it.path(&file.path)).unwrap());
            }
            fs::rename(it.path("manifest/gw1.jsonl"), it.root().join("gw1.jsonl")).unwrap();
            fs::rename(it.path("manifest/gw1.pub"), it.root().join("gw1.pub")).unwrap();
            it.pin();
        },
        verify: 3,
        find: Found { exit: 3, rows: [0, LEFT] },
    },
    Attack {
        name: "a chain and its public key are replaced by the attacker's, and the key was pinned",
        act: |it| {
            let (key, line) = (it.key("gw2", 3), it.segment("gw1", 1));
            let public = hotspot_archive::manifest::to_hex(key.verifying_key().as_bytes());
            fs::write(it.path("manifest/gw1.pub"), format!("{public}\n")).unwrap();
            it.write("gw1", &[]);
            it.append_segment("gw1", &key, line);
            it.pin();
        },
        verify: 3,
        find: Found { exit: 3, rows: [0, LEFT] },
    },
    Attack {
        name: "the public key of a chain is taken away",
        act: |it| fs::remove_file(it.path("manifest/gw1.pub")).unwrap(),
        verify: 3,
        find: Found { exit: 3, rows: [0, LEFT] },
    },
    Attack {
        name: "a segment is changed",
        act: |it| {
            let path = it.path(&it.flows("gw1", 9).path);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        },
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "a segment is taken away",
        act: |it| fs::remove_file(it.path(&it.flows("gw1", 9).path)).unwrap(),
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "two segments are exchanged",
        act: |it| {
            let (left, right) = (it.path(&it.flows("gw1", 9).path), it.path(&it.flows("gw1", 11).path));
            let kept = fs::read(&left).unwrap();
            fs::copy(&right, &left).unwrap();
            fs::write(right, kept).unwrap();
        },
        verify: 3,
        find: Found { exit: 3, rows: [ROWS, LEFT] },
    },
    Attack {
        name: "an index is exchanged for that of another segment",
        act: |it| {
            let index =
                |line: usize| it.segment("gw1", line).files.into_iter().find(|file| file.class == "index").unwrap();
            fs::copy(it.path(&index(9).path), it.path(&index(11).path)).unwrap();
        },
        verify: 3,
        find: ALL,
    },
    Attack {
        name: "a segment is added",
        act: |it| {
            let path = it.flows("gw1", 11).path;
            fs::copy(it.path(&path), it.path(&path.replace("0000000006", "0000000009"))).unwrap();
        },
        verify: 3,
        find: ALL,
    },
    Attack {
        name: "a receipt excuses a segment that was taken away",
        act: |it| {
            it.segment("gw1", 9).files.iter().for_each(|file| fs::remove_file(it.path(&file.path)).unwrap());
            receipt(it, "gw1", 5, "s3://records/wifi");
        },
        verify: 5,
        find: ONE_GONE,
    },
    Attack {
        name: "a receipt excuses a segment that was taken away, and the place is looked at",
        act: |it| {
            it.segment("gw1", 9).files.iter().for_each(|file| fs::remove_file(it.path(&file.path)).unwrap());
            let there = it.root().join("there");
            fs::create_dir(&there).unwrap();
            let there = there.display().to_string();
            receipt(it, "gw1", 5, &there);
            it.verify_with("--moved-at", there);
        },
        verify: 6,
        find: ONE_GONE,
    },
    Attack {
        name: "a receipt names a sequence that no chain has",
        act: |it| receipt(it, "gw1", 99, "s3://records/wifi"),
        verify: 6,
        find: ALL,
    },
    Attack {
        name: "a chain lies there as a file and in pieces",
        act: |it| {
            fs::create_dir(it.path("manifest/gw1.lines")).unwrap();
            fs::copy(it.path("manifest/gw1.jsonl"), it.path("manifest/gw1.lines/000000000001.jsonl")).unwrap();
        },
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a retention that the verifier sets was not kept",
        act: |it| it.verify_with("--policy", "flows=365d"),
        verify: 3,
        find: ALL,
    },
    Attack {
        name: "a deletion that was right is taken out of the middle of the chain",
        act: |it| {
            let mut lines = it.lines("gw1");
            assert!(lines.remove(9).contains("\"deleted\""));
            it.write("gw1", &lines);
        },
        verify: 3,
        find: Found { exit: 3, rows: [LEFT - ROWS, LEFT] },
    },
    Attack {
        name: "a deletion is copied to the end of the chain",
        act: |it| {
            let lines = it.lines("gw1");
            it.append_text("gw1", lines[9].clone());
        },
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a signed line deletes what no line ever named",
        act: |it| {
            let mut file = it.flows("gw1", 11);
            file.path = file.path.replace("0000000006", "0000000007");
            it.append_event("gw1", &it.key("gw1", 3), &moment(70), deleted(&file));
        },
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a chain is emptied and its files are taken away, and its key was pinned",
        act: |it| {
            for line in [3, 9, 11] {
                it.segment("gw1", line).files.iter().for_each(|file| fs::remove_file(it.path(&file.path)).unwrap());
            }
            it.write("gw1", &[]);
            it.pin();
        },
        verify: 3,
        find: NOTHING_OF_IT,
    },
    Attack {
        name: "a chain is emptied, and its files are left",
        act: |it| it.write("gw1", &[]),
        verify: 3,
        find: NOTHING_OF_IT,
    },
    Attack {
        name: "a chain is taken away, and its files are left",
        act: |it| {
            fs::rename(it.path("manifest/gw1.jsonl"), it.root().join("gw1.jsonl")).unwrap();
            fs::rename(it.path("manifest/gw1.pub"), it.root().join("gw1.pub")).unwrap();
        },
        verify: 3,
        find: NOTHING_OF_IT,
    },
    Attack {
        name: "a directory lies in the place of a chain",
        act: |it| {
            fs::rename(it.path("manifest/gw1.jsonl"), it.root().join("gw1.jsonl")).unwrap();
            fs::create_dir(it.path("manifest/gw1.jsonl")).unwrap();
        },
        verify: 3,
        find: NOTHING_OF_IT,
    },
    Attack {
        name: "a file lies in the place of a chain's pieces",
        act: |it| {
            fs::rename(it.path("manifest/gw1.jsonl"), it.root().join("gw1.jsonl")).unwrap();
            fs::write(it.path("manifest/gw1.lines"), "").unwrap();
        },
        verify: 3,
        find: NOTHING_OF_IT,
    },
    Attack {
        name: "a checkpoint that nobody signed says that a chain was longer",
        act: |it| it.verify_with_log(|kept| kept.replacen("\"line\":11", "\"line\":999999", 1).into_bytes()),
        verify: 3,
        find: ALL,
    },
    Attack {
        name: "a checkpoint that nobody signed names a gateway that is not there",
        act: |it| it.verify_with_log(|kept| kept.replacen("\"gw1\"", "\"gw9\"", 1).into_bytes()),
        verify: 3,
        find: ALL,
    },
    Attack {
        name: "a log of checkpoints holds bytes that are no text, and the end of the chain is cut off",
        act: |it| {
            it.verify_with_log(|kept| [b"\xff\0\n", kept.as_bytes(), b"\n"].concat());
            it.segment("gw1", 11).files.iter().for_each(|file| fs::remove_file(it.path(&file.path)).unwrap());
            let lines = it.lines("gw1");
            it.write("gw1", &lines[..10]);
        },
        verify: 7,
        find: Found { exit: 0, rows: [LEFT - ROWS, LEFT] },
    },
];
