//! `hotspot witness`, `checkpoint` and what `verify` says of them, against whoever holds the gateway's key and can write the archive.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hotspot_archive::checkpoints;
use serde_json::Value;

use crate::s3::{S3, url as at};
use crate::venue::{BEGIN_NS, SECOND_NS, SEGMENTS, Venue, text};

pub(crate) fn hotspot(words: &[&str]) -> Command {
    let mut process = Command::new(env!("CARGO_BIN_EXE_hotspot"));
    process.args(words);
    process
}

/// A gateway's archive, and a witness's machine beside it.
pub(crate) struct Watched {
    pub(crate) venue: Venue,
    away: tempfile::TempDir,
    /// The witness's public key.
    witness: String,
}

impl Watched {
    fn new() -> Self {
        let watched = Self { venue: Venue::new(false), away: tempfile::tempdir().unwrap(), witness: String::new() };
        watched.checkpoint();
        let key = watched.away("witness.key");
        let made = done(&mut hotspot(&["witness", "new-key", &key, "--name", "w.example/1"]));
        watched.trust("gw", &watched.venue.archive());
        Self { witness: text(&made.stdout).trim().to_owned(), ..watched }
    }

    fn trust(&self, gateway: &str, archive: &Path) {
        let public = archive.join(format!("manifest/{gateway}.pub")).display().to_string();
        done(&mut hotspot(&["witness", "trust", "--state", &self.away("state"), gateway, &public]));
    }

    /// A path on the witness's machine.
    fn away(&self, name: &str) -> String {
        self.away.path().join(name).display().to_string()
    }

    fn archive(&self) -> String {
        self.venue.archive().display().to_string()
    }

    /// As the agent does after each segment.
    pub(crate) fn checkpoint(&self) -> String {
        let at_ns = BEGIN_NS + SEGMENTS as i64 * 300 * SECOND_NS;
        let checkpoint = self.venue.manifest().checkpoint(at_ns).unwrap();
        checkpoints::keep(&self.venue.archive(), "gw", &checkpoint).unwrap();
        checkpoint
    }

    fn seal(&self, segments: std::ops::RangeInclusive<u64>) {
        let mut manifest = self.venue.manifest();
        segments.for_each(|segment| self.venue.seal(&mut manifest, segment));
        self.checkpoint();
    }

    /// The gateway's machine asks for a request, the witness's answers it.
    fn ask(&self, old: u64) -> (Output, String) {
        let old = old.to_string();
        let words = ["checkpoint", "--archive", &self.archive(), "--gateway", "gw", "--old", &old];
        let request = text(&done(&mut hotspot(&words)).stdout);
        (self.sign(&request), request)
    }

    fn sign(&self, request: &str) -> Output {
        let mut sign =
            hotspot(&["witness", "sign", "--state", &self.away("state"), "--key", &self.away("witness.key")]);
        let mut child = sign.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Asks, and keeps the note with the cosignature in a file.
    fn cosigned(&self, old: u64, name: &str) -> PathBuf {
        let (answer, request) = self.ask(old);
        assert_eq!(answer.status.code(), Some(0), "{answer:?}");
        let note = request.split_once("\n\n").unwrap().1;
        let path = self.away.path().join(name);
        fs::write(&path, format!("{note}{}", text(&answer.stdout))).unwrap();
        path
    }

    /// Whoever holds the gateway's key writes everything after so many lines again, and otherwise.
    fn write_again(&self, lines: usize) {
        let chain = self.venue.archive().join("manifest/gw.jsonl");
        let kept: String = fs::read_to_string(&chain).unwrap().split_inclusive('\n').take(lines).collect();
        fs::write(&chain, kept).unwrap();
        fs::remove_file(self.venue.archive().join(checkpoints::path("gw"))).unwrap();
        let mut manifest = self.venue.manifest();
        for segment in lines as u64 + 1..=SEGMENTS {
            self.venue.seal_flows(&mut manifest, segment, &[crate::venue::flow(segment, 1, 1)]);
        }
        self.checkpoint();
    }

    fn verify(&self, words: &[&str]) -> (Option<i32>, String) {
        Self::verify_at(&self.archive(), words)
    }

    fn verify_at(archive: &str, words: &[&str]) -> (Option<i32>, String) {
        let output = hotspot(&["verify", "--archive", archive]).args(words).output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    fn verify_with(&self, note: &Path) -> (Option<i32>, String) {
        self.verify(&["--witness", &self.witness, "--checkpoint", &note.display().to_string()])
    }

    /// The verifier that was written from the description of the formats alone.
    fn verify_independently(&self, words: &[&str]) -> (Option<i32>, String) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let python = root.join("target/venv/bin/python");
        let mut command = Command::new(&python);
        command.arg(root.join("tests/python/verify_checkpoint.py")).args([&self.archive(), "gw"]).args(words);
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", python.display()));
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.stderr.is_empty(), "{said}");
        (output.status.code(), said)
    }
}

pub(crate) fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{command:?}: {output:?}");
    output
}

#[test]
fn a_witness_signs_for_a_chain_that_grows_and_verify_says_since_when() {
    let watched = Watched::new();
    let first = watched.cosigned(0, "first");
    let (code, said) = watched.verify_with(&first);
    assert!(
        code == Some(0)
            && said.contains("gw: unchanged since 20")
            && said.contains("(line 24) by witness w.example/1\n"),
        "{said}"
    );
    watched.seal(25..=27);
    watched.venue.manifest().begin_epoch(BEGIN_NS + (28 * 300 + 11) * SECOND_NS, None).unwrap();
    watched.seal(28..=28);
    let (conflict, _) = watched.ask(7);
    assert_eq!((conflict.status.code(), text(&conflict.stdout)), (Some(1), "24\n".into()), "{conflict:?}");
    let second = watched.cosigned(24, "second");
    let both = watched.away("both");
    fs::write(&both, fs::read_to_string(&first).unwrap() + "\n" + &fs::read_to_string(&second).unwrap()).unwrap();
    watched.venue.seal(&mut watched.venue.manifest(), 29);
    let (code, said) = watched.verify_with(Path::new(&both));
    assert!(code == Some(0), "{said}");
    for part in [
        "(line 29) by witness w.example/1; before that since ",
        "(line 24) by witness w.example/1",
        "after that, 1 lines by the gateway's own word",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let json = watched.verify(&["--json", "--witness", &watched.witness, "--checkpoint", &both]).1;
    let proved: Value = serde_json::from_str::<Value>(&json).unwrap()["proved"][0].clone();
    assert_eq!((&proved["of"], &proved["lines"]), (&"gw".into(), &30.into()), "{json}");
    assert_eq!(proved["attested"][1]["name"], "w.example/1");
    // What was written from the documents alone says the same.
    let request = watched.away("request");
    fs::write(&request, watched.ask(24).1).unwrap();
    let kept = watched.venue.archive().join(checkpoints::path("gw")).display().to_string();
    let words = ["--witness", &watched.witness, "--request", &request, &both, &kept];
    let (code, said) = watched.verify_independently(&words);
    assert!(code == Some(0) && said.matches("seen ").count() == 2, "{said}");
    watched.write_again(28);
    let (code, said) = watched.verify_independently(&["--witness", &watched.witness, &both]);
    assert!(code == Some(3) && said.contains("ends at line 28, had 29"), "{said}");
}

#[test]
fn a_cosigned_note_that_cannot_be_read_is_said_with_its_number() {
    let watched = Watched::new();
    let first = fs::read_to_string(watched.cosigned(0, "first")).unwrap();
    watched.seal(25..=25);
    let second = fs::read_to_string(watched.cosigned(24, "second")).unwrap();
    let chain = watched.venue.archive().join("manifest/gw.jsonl");
    let lines: String = fs::read_to_string(&chain).unwrap().split_inclusive('\n').take(24).collect();
    fs::write(&chain, lines).unwrap();
    let kept = watched.away("kept");
    for (what, broken) in [
        ("other ends of lines", second.replace('\n', "\r\n")),
        ("a signature that is no base64", second.replacen("==\n", "=\n", 1) + "\u{2014} x !\n"),
        ("no last line feed", second.trim_end().to_owned()),
        ("no signatures", second.split_once("\n\n").unwrap().0.to_owned()),
    ] {
        fs::write(&kept, format!("{first}\n{broken}")).unwrap();
        let (code, said) = watched.verify(&["--witness", &watched.witness, "--checkpoint", &kept]);
        assert!(code == Some(3) && said.contains("note 2, from line"), "{what}: {code:?} {said}");
    }
}

#[test]
fn a_chain_that_the_gateway_s_own_key_wrote_again_is_found_by_the_witness_alone() {
    let watched = Watched::new();
    let note = watched.cosigned(0, "note");
    watched.write_again(20);
    let (code, said) = watched.verify(&[]);
    assert!(
        code == Some(0) && said.contains("24 lines by the gateway's own word, and nobody else's"),
        "by itself it is whole: {said}"
    );
    let (code, said) = watched.verify_with(&note);
    assert!(code == Some(3) && said.contains("is not the chain that was seen by witness w.example/1"), "{said}");
    let (answer, request) = watched.ask(24);
    assert_eq!(answer.status.code(), Some(3), "{answer:?}");
    assert!(text(&answer.stderr).contains("another tree of 24 lines"), "{answer:?}");
    assert!(request.contains("\nhotspot/gw\n24\n"));
    // Lines that are cut off instead.
    let watched = Watched::new();
    let note = watched.cosigned(0, "note");
    let chain = watched.venue.archive().join("manifest/gw.jsonl");
    let kept: String = fs::read_to_string(&chain).unwrap().split_inclusive('\n').take(23).collect();
    fs::write(&chain, kept).unwrap();
    let (code, said) = watched.verify_with(&note);
    assert!(
        code == Some(7) && said.contains("ends at line 23, but had 24 lines when it was seen by witness"),
        "{said}"
    );
}

#[test]
fn of_two_trees_shown_to_two_readers_a_cosigned_note_fits_one() {
    let watched = Watched::new();
    let shown_first = tempfile::tempdir().unwrap();
    copy(&watched.venue.archive(), shown_first.path());
    let note = watched.cosigned(0, "note").display().to_string();
    watched.write_again(12);
    let words = ["--witness", &watched.witness, "--checkpoint", &note];
    assert_eq!(Watched::verify_at(&shown_first.path().display().to_string(), &words).0, Some(0));
    assert_eq!(watched.verify(&words).0, Some(3));
}

#[test]
fn a_checkpoint_in_the_archive_speaks_against_it_and_never_for_it() {
    let watched = Watched::new();
    let path = watched.venue.archive().join(checkpoints::path("gw"));
    let (_, said) = watched.verify(&[]);
    assert!(said.contains("24 lines by the gateway's own word, and nobody else's\n"), "{said}");
    let before = fs::read_to_string(&path).unwrap();
    watched.write_again(20);
    fs::write(&path, &before).unwrap();
    let (code, said) = watched.verify(&[]);
    assert!(
        code == Some(3)
            && said.contains("line 24 is not the one that was there")
            && said.contains("checkpoints/gw.jsonl, line 1"),
        "{said}"
    );
    // What no key of the gateway signed is told, and changes nothing.
    fs::write(&path, before.replacen("\"line\":24", "\"line\":25", 1) + "nonsense\n").unwrap();
    let (code, said) = watched.verify(&[]);
    assert!(
        code == Some(0)
            && said.contains("line 1 is not signed by the gateway")
            && said.contains("line 2 is no checkpoint"),
        "{said}"
    );
}

#[test]
fn cosignatures_of_strangers_and_of_other_notes_count_for_nothing() {
    let watched = Watched::new();
    let note = watched.cosigned(0, "note");
    let genuine = fs::read_to_string(&note).unwrap();
    let other = watched.away("other.key");
    let stranger = text(&done(&mut hotspot(&["witness", "new-key", &other, "--name", "w.example/2"])).stdout);
    let words = ["--witness", stranger.trim(), "--checkpoint", &note.display().to_string()];
    let (code, said) = watched.verify(&words);
    assert!(
        code == Some(0)
            && said.contains("no witness given with --witness has signed")
            && said.contains("nobody else's"),
        "{said}"
    );
    // Moved to the note of another tree.
    watched.seal(25..=26);
    let later = watched.cosigned(24, "later");
    let line = |text: &str| text.lines().last().unwrap().to_owned();
    let moved =
        fs::read_to_string(&later).unwrap().replace(&line(&fs::read_to_string(&later).unwrap()), &line(&genuine));
    fs::write(&note, moved).unwrap();
    let (code, said) = watched.verify_with(&note);
    assert!(code == Some(3) && said.contains("the cosignature does not fit the note"), "{said}");
    // A cosigned note about a gateway that is not here, and one about something else altogether.
    let elsewhere = Venue::of("cafe", "elsewhere", false);
    let checkpoint = elsewhere.manifest().checkpoint(BEGIN_NS).unwrap();
    checkpoints::keep(&elsewhere.archive(), "elsewhere", &checkpoint).unwrap();
    watched.trust("elsewhere", &elsewhere.archive());
    let archive = elsewhere.archive().display().to_string();
    let request = text(&done(&mut hotspot(&["checkpoint", "--archive", &archive, "--gateway", "elsewhere"])).stdout);
    let answer = watched.sign(&request);
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
    fs::write(&note, request.split_once("\n\n").unwrap().1.to_owned() + &text(&answer.stdout)).unwrap();
    let (code, said) = watched.verify_with(&note);
    assert!(code == Some(7) && said.contains("elsewhere.jsonl: was seen by witness"), "{said}");
    // The wrong origin at the witness: the gateway's signature is over its own.
    let answer = watched.sign(&request.replace("\nhotspot/elsewhere\n", "\nhotspot/gw\n"));
    assert_eq!(answer.status.code(), Some(4), "{answer:?}");
    let answer = watched.sign(&request.replace("hotspot/elsewhere", "hotspot/nowhere"));
    assert!(answer.status.code() == Some(4) && text(&answer.stderr).contains("not known here"), "{answer:?}");
    assert_eq!(watched.sign("old 1\n").status.code(), Some(2));
}

#[test]
fn a_witness_that_was_set_back_contradicts_itself() {
    let watched = Watched::new();
    let saved = tempfile::tempdir().unwrap();
    watched.cosigned(0, "early");
    copy(Path::new(&watched.away("state")), saved.path());
    watched.seal(25..=26);
    let late = watched.cosigned(24, "late");
    // A snapshot of the state is restored, and the lines after it are written again.
    copy(saved.path(), Path::new(&watched.away("state")));
    let chain = watched.venue.archive().join("manifest/gw.jsonl");
    let kept: String = fs::read_to_string(&chain).unwrap().split_inclusive('\n').take(24).collect();
    fs::write(&chain, kept).unwrap();
    let mut manifest = watched.venue.manifest();
    for segment in 25..=26 {
        watched.venue.seal_flows(&mut manifest, segment, &[crate::venue::flow(segment, 1, 1)]);
    }
    fs::remove_file(watched.venue.archive().join(checkpoints::path("gw"))).unwrap();
    watched.checkpoint();
    let forked = watched.cosigned(24, "forked");
    assert_eq!(watched.verify_with(&forked).0, Some(0), "the witness signed for it");
    let (code, said) = watched.verify_with(&late);
    assert!(code == Some(3) && said.contains("is not the chain that was seen by witness"), "{said}");
    // One that lost its state altogether does not begin anew.
    fs::remove_dir_all(watched.away("state")).unwrap();
    assert_eq!(watched.ask(0).0.status.code(), Some(3));
}

#[test]
fn a_witness_that_watches_reads_directories_and_buckets_by_itself() {
    let s3 = S3::start();
    let watched = Watched::new();
    let (shipped, to, key) = (at("watched"), watched.away("cosigned"), watched.away("witness.key"));
    let other = Venue::of("cafe", "unknown", false);
    for archive in [watched.archive(), other.archive().display().to_string()] {
        done(s3.env(&mut hotspot(&["ship", "--archive", &archive, "--to", &shipped])));
    }
    let watch = |archive: &str| {
        let state = watched.away("state");
        let words = ["witness", "watch", "--state", &state, "--key", &key, "--archive", archive, "--to", &to];
        s3.env(&mut hotspot(&words)).output().unwrap()
    };
    let output = watch(&shipped);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stderr).contains("hotspot/unknown is not watched"), "{output:?}");
    let mut manifest = watched.venue.manifest();
    manifest.begin_epoch(BEGIN_NS + (25 * 300 + 11) * SECOND_NS, None).unwrap();
    watched.seal(25..=25);
    assert_eq!(watch(&watched.archive()).status.code(), Some(0), "ahead of what was shipped");
    let output = watch(&shipped);
    assert!(output.status.code() == Some(3) && text(&output.stderr).contains("its end was cut off"), "{output:?}");
    done(s3.env(&mut hotspot(&["ship", "--archive", &watched.archive(), "--to", &shipped])));
    assert_eq!(watch(&shipped).status.code(), Some(0));
    let words = ["verify", "--archive", &shipped, "--witness", &watched.witness, "--checkpoint", &to];
    let output = s3.env(&mut hotspot(&words)).output().unwrap();
    let said = text(&output.stdout);
    assert!(
        output.status.code() == Some(0)
            && said.contains("gw: unchanged since ")
            && said.contains("(line 26) by witness"),
        "{output:?}"
    );
    assert_eq!(fs::read_to_string(&to).unwrap().matches("hotspot/gw\n").count(), 3);
    watched.write_again(25);
    let output = watch(&watched.archive());
    assert!(output.status.code() == Some(3) && text(&output.stderr).contains("its end was cut off"), "{output:?}");
    assert_eq!(fs::read_to_string(&to).unwrap().matches("hotspot/gw\n").count(), 3, "nothing was signed for");
}

#[test]
fn an_audit_log_that_was_cut_is_found_by_checkpoints_and_by_a_witness() {
    let watched = Watched::new();
    let question = || drop(watched.venue.command("find").arg("user 0900000001").output().unwrap());
    (0..3).for_each(|_| question());
    let log = watched.venue.archive().join("audit/queries.jsonl");
    let whole = fs::read_to_string(&log).unwrap();
    let (code, said) = watched.verify(&[]);
    assert!(code == Some(8) && said.contains("has 3 lines, and nobody else has its head"), "{said}");
    let kept = watched.away("kept");
    fs::write(&kept, watched.checkpoint()).unwrap();
    let by_checkpoint = |expected: i32, part: &str| {
        let (code, said) = watched.verify(&["--checkpoint", &kept]);
        assert!(code == Some(expected) && said.contains(part), "{part}: {said}");
    };
    question();
    by_checkpoint(0, "whole");
    // The witness saw the log where it lies, as `office`.
    let (to, state, key) = (watched.away("cosigned"), watched.away("state"), watched.away("witness.key"));
    let named = format!("office={}", log.display());
    let watch = || {
        let words = ["witness", "watch", "--state", &state, "--key", &key, "--audit", &named, "--to", &to];
        hotspot(&words).output().unwrap().status.code()
    };
    assert_eq!(watch(), Some(3), "a log that nobody made known");
    done(&mut hotspot(&["witness", "trust", "--state", &state, "--audit-log", "office"]));
    assert_eq!(watch(), Some(0));
    question();
    assert_eq!(watch(), Some(0));
    let (code, said) = watched.verify_with(Path::new(&to));
    assert!(
        code == Some(0)
            && said.contains("audit/queries.jsonl: unchanged since ")
            && said.contains("(line 5) by witness"),
        "{said}"
    );
    let five = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = five.split_inclusive('\n').collect();
    for (what, changed, checkpoint, witness) in [
        ("cut by one", lines[..4].concat(), "whole", "has 4 lines, but had 5 when it was seen by witness"),
        (
            "cut by three",
            lines[..2].concat(),
            "has 2 lines, but had 3 when the checkpoint of line 24 was made",
            "had 5 when it was seen",
        ),
    ] {
        fs::write(&log, changed).unwrap();
        by_checkpoint(if checkpoint == "whole" { 0 } else { 7 }, checkpoint);
        let words = ["--witness", &watched.witness, "--checkpoint", &to, "--audit", &named];
        let (code, said) = watched.verify(&words);
        assert!(code == Some(7) && said.contains(witness), "{what}: {said}");
        assert_eq!(watch(), Some(3), "{what}: the witness refuses");
    }
    // Another log in its place, and none.
    fs::remove_file(&log).unwrap();
    by_checkpoint(7, "is not here, but had 3 lines when the checkpoint of line 24 was made");
    (0..6).for_each(|_| question());
    by_checkpoint(3, "line 3 is not the one that was there when the checkpoint of line 24 was made");
    // One that was moved away stays part of the proof.
    let moved = watched.away("queries-1.jsonl");
    fs::write(&moved, &whole).unwrap();
    let (code, said) = watched.verify(&["--checkpoint", &kept, "--audit", &moved]);
    assert!(code == Some(8) && said.contains("has 6 lines, and nobody else"), "the new one has no head yet: {said}");
}

#[test]
fn lines_that_were_long_without_a_checkpoint_are_told_of() {
    let watched = Watched::new();
    let kept = watched.away("kept");
    fs::write(&kept, watched.checkpoint()).unwrap();
    let (code, said) = watched.verify(&["--checkpoint", &kept]);
    assert!(code == Some(0) && !said.contains("no checkpoint for"), "two hours are no day: {said}");
    let (code, said) = watched.verify(&["--checkpoint", &kept, "--checkpoint-gap", "90m"]);
    assert!(
        code == Some(9) && said.contains("no checkpoint for 1 h, from 2026-11-23T00:10:10Z until that of line 24"),
        "{said}"
    );
    let (code, said) = watched.verify(&["--checkpoint", &kept, "--checkpoint-gap", "2h"]);
    assert!(code == Some(0), "{said}");
    let (code, said) = watched.verify(&["--checkpoint-gap", "90m"]);
    assert!(code == Some(9) && said.contains("until the end"), "the archive's own count for nothing: {said}");
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name())
        };
        if path.is_dir() { copy(&path, &to.join(name)) } else { fs::copy(&path, to.join(name)).map(drop).unwrap() }
    }
}
