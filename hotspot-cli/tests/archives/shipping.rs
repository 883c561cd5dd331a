//! `hotspot ship`, and asking and verifying what was shipped: to a directory, and to a real S3 server that fails in every way.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::s3::{S3, url as at};
use crate::venue::{BEGIN_NS, FLOWS, SEGMENTS, Venue, rows, text};

fn hotspot(command: &str, words: &[&str]) -> Command {
    let mut process = Command::new(env!("CARGO_BIN_EXE_hotspot"));
    process.arg(command).args(words);
    // Whatever is set where the tests run.
    for name in ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
    {
        process.env_remove(name);
    }
    process
}

fn ship(venue: &Venue, to: &str, words: &[&str]) -> Command {
    let mut process = hotspot("ship", &["--archive", &venue.archive().display().to_string(), "--to", to]);
    process.args(words);
    process
}

fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{command:?}: {output:?}");
    output
}

/// Files of the archive that belong elsewhere too: everything but what is about asking and shipping.
fn shipped_files(venue: &Venue) -> Vec<String> {
    let root = venue.archive();
    let (mut names, mut dirs) = (Vec::new(), vec![root.clone()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            if path.is_dir() {
                dirs.push(path);
            } else if !["manifest/", "audit/", "shipped/", "holds/"].iter().any(|other| name.starts_with(other)) {
                names.push(name);
            }
        }
    }
    names.sort();
    names
}

fn files_of(objects: &[String]) -> Vec<String> {
    let is_file = |name: &&String| !["manifest/", "holds/"].iter().any(|other| name.starts_with(other));
    objects.iter().filter(is_file).cloned().collect()
}

/// The chain at a target, put together.
fn chain(dir: &Path, gateway: &str) -> Vec<u8> {
    let mut pieces: Vec<_> = fs::read_dir(dir.join(format!("manifest/{gateway}.lines")))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pieces.sort();
    pieces.iter().flat_map(|piece| fs::read(piece).unwrap()).collect()
}

/// The verifier that was written from the description of the format alone.
fn verify_independently(archive: &Path, options: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join("target/venv/bin/python");
    let output =
        Command::new(&python).arg(root.join("tests/python/verify_manifest.py")).arg(archive).args(options).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", python.display()));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_directory_becomes_an_archive_that_verifies_and_is_asked() {
    for is_encrypted in [false, true] {
        let venue = Venue::new(is_encrypted);
        let target = tempfile::tempdir().unwrap();
        let to = target.path().display().to_string();
        let output = done(&mut ship(&venue, &to, &[]));
        assert!(text(&output.stdout).contains("24 lines"), "{output:?}");
        for file in shipped_files(&venue) {
            assert_eq!(fs::read(target.path().join(&file)).unwrap(), fs::read(venue.archive().join(&file)).unwrap());
        }
        assert_eq!(chain(target.path(), "gw"), fs::read(venue.archive().join("manifest/gw.jsonl")).unwrap());
        done(&mut hotspot("verify", &["--archive", &to]));
        verify_independently(target.path(), &[]);
        let mut find = hotspot("find", &["--archive", &to, "--json"]);
        if let Some(identity) = &venue.identity {
            find.arg("--identity").arg(identity);
        }
        let found = done(find.arg("user 0900000007"));
        assert_eq!(rows(&found).len() as u64, SEGMENTS / 7 * FLOWS);
        // Nothing is sent twice.
        let output = done(&mut ship(&venue, &to, &[]));
        assert!(text(&output.stdout).starts_with("gw: 0 lines, 0 files"), "{output:?}");
    }
}

#[test]
fn a_store_is_searched_and_verified_as_a_directory_is() {
    let s3 = S3::start();
    for (prefix, is_encrypted) in [("plain", false), ("deep/er/sealed", true)] {
        let venue = Venue::new(is_encrypted);
        let url = at(prefix);
        done(s3.env(&mut ship(&venue, &url, &[])));
        assert_eq!(files_of(&s3.objects(prefix)), shipped_files(&venue));
        let identity: Vec<String> =
            venue.identity.iter().flat_map(|path| ["--identity".to_owned(), path.display().to_string()]).collect();
        let verified = done(s3.env(hotspot("verify", &["--archive", &url, "--json"]).args(&identity)));
        let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
        assert_eq!(report["files"], shipped_files(&venue).len());
        assert_eq!(report["keys"], if is_encrypted { SEGMENTS } else { 0 });

        let views = tempfile::tempdir().unwrap();
        let log = venue.dir.path().join("queries.jsonl").display().to_string();
        let ask = |command: &str, words: &[&str]| {
            let mut process = hotspot(command, &["--archive", &url]);
            process.args(&identity).env("TMPDIR", views.path()).args(words);
            s3.env(&mut process).output().unwrap()
        };
        for filter in
            ["user 0900000007", "dst ip 198.51.100.3", "bytes > 0", "gateway g* and user 0900000002", "user nobody"]
        {
            let words = ["--json", "--to", "2026-11-23T02:05:00Z", filter];
            let found = ask("find", &[&["--audit", &log], &words[..]].concat());
            let here = venue.find(&words);
            assert_eq!(
                (found.status.code(), text(&found.stdout)),
                (here.status.code(), text(&here.stdout)),
                "{filter}"
            );
        }
        let who = ask("who", &["--audit", &log, "--public", "203.0.113.7:17003", "--at", "2026-11-23T00:35:32Z"]);
        assert!(text(&who.stdout).contains("0900000007"), "{who:?}");
        assert_eq!(fs::read_dir(views.path()).unwrap().count(), 0, "nothing is left of what was fetched");

        // The question is on disk before the answer, or there is none.
        assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 6);
        assert!(fs::read_to_string(&log).unwrap().contains(&format!("\"of\":\"{url}\"")));
        let refused = ask("find", &["user 0900000007"]);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{refused:?}");
        assert!(text(&refused.stderr).contains("--audit"));
        let refused = ask("find", &["--audit", "/dev/full", "--json", "user 0900000007"]);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(4), 0), "{refused:?}");
    }
}

#[test]
fn only_segments_that_can_match_are_fetched() {
    let s3 = S3::start();
    let venue = Venue::new(false);
    done(s3.env(&mut ship(&venue, &at("p"), &[])));
    // Every segment without client 7 is gone: its index says that it is not needed.
    for (number, path) in (1u64..).zip(venue.files("flows")) {
        if !number.is_multiple_of(7) {
            fs::remove_file(s3.object("p").join(path.strip_prefix(venue.archive()).unwrap())).unwrap();
        }
    }
    let log = venue.dir.path().join("log").display().to_string();
    let find = |filter: &str| {
        let url = at("p");
        s3.env(&mut hotspot("find", &["--archive", &url, "--audit", &log, "--json", filter])).output().unwrap()
    };
    let found = find("user 0900000007");
    assert_eq!(found.status.code(), Some(0), "{found:?}");
    assert_eq!(rows(&found).len() as u64, SEGMENTS / 7 * FLOWS);
    let found = find("user 0900000001");
    assert_eq!(found.status.code(), Some(3), "{found:?}");
    assert!(text(&found.stderr).contains("is not there"), "{found:?}");
    // Chains of gateways that the filter rules out are not looked at.
    fs::write(s3.object("p/manifest/gw.lines/000000000001.jsonl"), "garbage\n").unwrap();
    assert_eq!(find("gateway other and user 0900000007").status.code(), Some(3));
    assert_eq!(find("user 0900000007").status.code(), Some(3));
}

#[test]
fn what_is_damaged_there_is_noticed_and_sent_again() {
    let s3 = S3::start();
    let venue = Venue::new(true);
    let url = at("p");
    done(s3.env(&mut ship(&venue, &url, &[])));
    let verify = || s3.env(&mut hotspot("verify", &["--archive", &url])).output().unwrap();
    let flip = |name: &str| {
        let path = s3.object("p").join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let segment = venue.files("flows")[3].strip_prefix(venue.archive()).unwrap().display().to_string();
    let gone = venue.files("index")[5].strip_prefix(venue.archive()).unwrap().display().to_string();
    flip(&segment);
    flip("manifest/gw.lines/000000000001.jsonl");
    fs::remove_file(s3.object("p").join(&gone)).unwrap();
    let damaged = verify();
    assert_eq!(damaged.status.code(), Some(3));
    assert!(text(&damaged.stdout).contains(&segment) && text(&damaged.stdout).contains("is missing"), "{damaged:?}");
    let mended = done(s3.env(&mut ship(&venue, &url, &["--recheck"])));
    assert!(text(&mended.stdout).contains("2 were damaged there or gone, and shipped again"), "{mended:?}");
    assert_eq!(verify().status.code(), Some(0), "{:?}", verify());

    // A search says what was changed there, and does not answer from it.
    flip(&segment);
    let log = venue.dir.path().join("log").display().to_string();
    let identity = venue.identity.as_ref().unwrap().display().to_string();
    let words = ["--archive", &url, "--audit", &log, "--identity", &identity, "--json", "user 0900000004"];
    let found = s3.env(&mut hotspot("find", &words)).output().unwrap();
    assert_eq!(found.status.code(), Some(3));
    assert!(text(&found.stderr).contains("SHA-256 differs"), "{found:?}");

    // Damage since it was verified is found before anything goes here.
    let moved = done(s3.env(&mut ship(&venue, &url, &["--keep-here", "0"])));
    assert!(text(&moved.stdout).contains("1 were damaged there"), "{moved:?}");
    assert_eq!(verify().status.code(), Some(0));
}

#[test]
fn nothing_goes_here_before_it_is_there_and_the_chain_here_still_verifies() {
    let venue = Venue::new(true);
    let target = tempfile::tempdir().unwrap();
    let to = target.path().display().to_string();
    done(&mut ship(&venue, &to, &[]));
    let before = shipped_files(&venue);
    // Cannot be mended: a directory is in the place of the file.
    let segment = venue.files("flows")[1].clone();
    let there = target.path().join(segment.strip_prefix(venue.archive()).unwrap());
    fs::remove_file(&there).unwrap();
    fs::create_dir_all(there.join("x")).unwrap();
    let failed = ship(&venue, &to, &["--keep-here", "0"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(3), "{failed:?}");
    assert!(segment.exists(), "nothing of that segment went");
    assert!(
        before.iter().filter(|file| file.contains("gw-0000000002")).all(|file| venue.archive().join(file).exists())
    );
    fs::remove_dir_all(&there).unwrap();

    let hold = ["--archive", &venue.archive().display().to_string(), "--case", "C-1", "--segment", "gw:5"];
    done(hotspot("hold", &["add"]).args(hold));
    done(&mut ship(&venue, &to, &["--keep-here", "36500"]));
    assert!(segment.exists(), "it is not that old");
    done(&mut ship(&venue, &to, &["--keep-here", "0"]));
    let left = shipped_files(&venue);
    assert!(!left.is_empty() && left.iter().all(|file| file.contains("gw-0000000005")), "{left:?}");
    assert!(target.path().join("holds/gw/C-1.json").exists());

    let verified = venue.command("verify").output().unwrap();
    assert_eq!(verified.status.code(), Some(5), "not whole: nobody looked there: {verified:?}");
    assert!(text(&verified.stdout).contains(&format!("{} moved (0 looked at there)", before.len() - left.len())));
    assert!(text(&verified.stdout).contains(&format!("--moved-at {to}")));
    // Whole; but the archive's own log has the holds in it, and nobody outside vouches for that.
    let look = |venue: &Venue| venue.command("verify").args(["--moved-at", &to]).output().unwrap();
    let verified = look(&venue);
    assert_eq!(verified.status.code(), Some(8), "{verified:?}");
    let count = before.len() - left.len();
    assert!(text(&verified.stdout).contains(&format!("{count} moved ({count} looked at there)")), "{verified:?}");
    verify_independently(&venue.archive(), &["--moved-at", &to]);
    done(&mut hotspot("verify", &["--archive", &to]));
    // Only the receipt excuses what is gone, and only here.
    let kept = fs::read(&there).unwrap();
    fs::remove_file(&there).unwrap();
    assert_eq!(hotspot("verify", &["--archive", &to]).output().unwrap().status.code(), Some(3));
    let unproved = venue.command("verify").args(["--moved-at", &to]).output().unwrap();
    assert_eq!(unproved.status.code(), Some(6), "the receipt is worth nothing: {unproved:?}");
    fs::write(&there, kept).unwrap();

    let found = venue.find(&["--json", "user 0900000007"]);
    assert_eq!(found.status.code(), Some(3), "an answer that is not whole says so");
    assert!(text(&found.stderr).contains("moved to") && text(&found.stderr).contains(&to), "{found:?}");
    // The gateway goes on, and so does shipping; the hold is lifted, and the rest goes too.
    let mut manifest = venue.manifest();
    venue.seal(&mut manifest, SEGMENTS + 1);
    done(hotspot("hold", &["lift"]).args(&hold[..4]));
    done(&mut ship(&venue, &to, &["--keep-here", "0"]));
    assert_eq!(shipped_files(&venue), Vec::<String>::new());
    assert!(!target.path().join("holds/gw/C-1.json").exists());
    assert_eq!(look(&venue).status.code(), Some(8));
}

#[test]
fn what_the_chain_calls_deleted_goes_there_too_if_asked_and_not_held() {
    let venue = Venue::new(true);
    let target = tempfile::tempdir().unwrap();
    let to = target.path().display().to_string();
    done(&mut ship(&venue, &to, &[]));
    let mut manifest = venue.manifest();
    // Five days after it began: over, and no time that is still to come.
    let wall_ns = BEGIN_NS + 5 * 86_400_000_000_000;
    let now = hotspot_archive::retention::Moment { wall_ns, clock: None };
    assert_eq!(manifest.expire(&"flows=1d".parse().unwrap(), &now).unwrap().files, 0, "no clock proves the time");
    let clock = |days: i64| hotspot_archive::retention::ClockEvidence {
        boot: "b".into(),
        boottime_ns: days * 86_400_000_000_000,
        synchronised: true,
    };
    manifest.begin_epoch(1, Some(clock(1))).unwrap();
    let now = hotspot_archive::retention::Moment { wall_ns, clock: Some(clock(9)) };
    let files = manifest.expire(&"flows=1d".parse().unwrap(), &now).unwrap().files;
    assert_eq!(files, SEGMENTS * 3, "flows, keys, indexes");

    done(&mut ship(&venue, &to, &[]));
    let verify = || done(&mut hotspot("verify", &["--archive", &to, "--json"]));
    let notices = |output: &Output| text(&output.stdout).matches("though a line says").count() as u64;
    assert_eq!(notices(&verify()), SEGMENTS * 3, "the lines are there, the files still are");
    let hold = ["--archive", &venue.archive().display().to_string(), "--case", "C-1", "--segment", "gw:5"];
    done(hotspot("hold", &["add"]).args(hold));
    done(&mut ship(&venue, &to, &["--delete-expired"]));
    assert_eq!(notices(&verify()), 3, "what is on hold stays");
    done(hotspot("hold", &["lift"]).args(&hold[..4]));
    done(&mut ship(&venue, &to, &["--delete-expired"]));
    assert_eq!(notices(&verify()), 0);

    // A target that comes later gets lines and deletions at once: it verifies, too.
    let later = tempfile::tempdir().unwrap();
    let to = later.path().display().to_string();
    done(&mut ship(&venue, &to, &[]));
    done(&mut hotspot("verify", &["--archive", &to]));
}

#[test]
fn keys_that_are_added_and_taken_away_follow() {
    let s3 = S3::start();
    let venue = Venue::new(true);
    let url = at("p");
    done(s3.env(&mut ship(&venue, &url, &[])));
    let identity = venue.identity.as_ref().unwrap().display().to_string();
    let archive = venue.archive().display().to_string();
    let new = |name: &str| {
        let file = venue.dir.path().join(name).display().to_string();
        let made = done(hotspot("keys", &["new"]).arg(&file));
        (file, text(&made.stdout).trim().to_owned())
    };
    let rewrap = |recipient: &str| {
        let words = ["rewrap", "--archive", &archive, "--identity", &identity, "--recipient", recipient];
        done(&mut hotspot("keys", &words));
        done(s3.env(&mut ship(&venue, &url, &[])));
    };
    let count = |file: &str| {
        let log = venue.dir.path().join("log").display().to_string();
        let words = ["--archive", &url, "--audit", &log, "--identity", file, "--json", "user 0900000007"];
        let found = s3.env(&mut hotspot("find", &words)).output().unwrap();
        rows(&found).len() as u64
    };
    let (first, first_recipient) = new("first");
    assert_eq!(count(&first), 0);
    rewrap(&first_recipient);
    assert_eq!(count(&first), SEGMENTS / 7 * FLOWS);
    let (second, second_recipient) = new("second");
    rewrap(&second_recipient);
    assert_eq!((count(&first), count(&second)), (0, SEGMENTS / 7 * FLOWS), "whoever was taken away is so there too");
    let verified = s3.env(&mut hotspot("verify", &["--archive", &url, "--identity", &second])).output().unwrap();
    assert!(text(&verified.stdout).contains(&format!("{SEGMENTS} keys")), "{verified:?}");
}

#[test]
fn another_chain_is_never_written_over() {
    let s3 = S3::start();
    let url = at("p");
    let (ours, theirs) = (Venue::new(false), Venue::new(false));
    done(s3.env(&mut ship(&ours, &url, &[])));
    let before = s3.objects("p");
    let refused = s3.env(&mut ship(&theirs, &url, &[])).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused.stderr).contains("another chain of gateway gw: its public key"), "{refused:?}");
    assert_eq!(s3.objects("p"), before);

    // The same gateway, set back to an earlier state: what it signed since is there only.
    let manifest = ours.archive().join("manifest/gw.jsonl");
    let whole = fs::read_to_string(&manifest).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    fs::write(&manifest, lines[..20].concat()).unwrap();
    let refused = s3.env(&mut ship(&ours, &url, &["--recheck"])).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused.stderr).contains("goes on otherwise"), "{refused:?}");
    fs::write(&manifest, &whole).unwrap();
    done(s3.env(&mut ship(&ours, &url, &["--recheck"])));
    done(s3.env(&mut hotspot("verify", &["--archive", &url])));
}

#[test]
fn who_may_not_is_told_so_and_nothing_is_lost() {
    let s3 = S3::start();
    let venue = Venue::new(false);
    let url = at("p");
    let denied = |command: &mut Command| {
        let output = s3.env(command).env("AWS_SECRET_ACCESS_KEY", "wrong").output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("access denied") && said.contains("AWS_SECRET_ACCESS_KEY"), "{said}");
    };
    denied(&mut ship(&venue, &url, &[]));
    assert_eq!(s3.objects("p"), Vec::<String>::new());
    done(s3.env(&mut ship(&venue, &url, &[])));
    let before = shipped_files(&venue);
    denied(&mut ship(&venue, &url, &["--keep-here", "0"]));
    assert_eq!(shipped_files(&venue), before);
    let log = venue.dir.path().join("log").display().to_string();
    denied(&mut hotspot("find", &["--archive", &url, "--audit", &log, "user x"]));
    denied(&mut hotspot("verify", &["--archive", &url]));

    // This server makes a bucket that is written to; asked for what is in one, it says that there is none.
    let missing = s3.env(&mut hotspot("verify", &["--archive", "s3://nowhere/p"])).output().unwrap();
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
    assert!(text(&missing.stderr).contains("no such bucket"), "{missing:?}");
    let empty = s3.env(&mut hotspot("verify", &["--archive", &at("empty")])).output().unwrap();
    assert_eq!(empty.status.code(), Some(3));
    assert!(text(&empty.stderr).contains("is not an archive"), "{empty:?}");
    for (command, words) in
        [("hold", &["list"][..]), ("keys", &["show"]), ("expire", &["--retain", "flows=1d", "--dry-run"])]
    {
        let refused = hotspot(command, words).args(["--archive", &url]).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
}

#[test]
fn a_server_that_is_killed_in_the_middle_and_comes_back_loses_nothing() {
    let s3 = S3::start();
    let venue = Venue::new(true);
    let gate = s3.gate();
    let mut killed = 0;
    for run in 0..12 {
        let url = at(&format!("run{run}"));
        gate.kill_after(3_000 + run * 17_001);
        let mut shipping = gate.env(&mut ship(&venue, &url, &[])).stdout(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while shipping.try_wait().unwrap().is_none() && !gate.was_killed() {
            assert!(Instant::now() < until, "it neither ended nor was the server killed");
            thread::sleep(Duration::from_millis(2));
        }
        if gate.was_killed() {
            killed += 1;
            thread::sleep(Duration::from_millis(50));
            s3.run();
        }
        // It tries again by itself.
        let status = shipping.wait().unwrap();
        assert!(status.success(), "run {run}: {status}");
        done(s3.env(&mut hotspot("verify", &["--archive", &url])));
        assert_eq!(files_of(&s3.objects(&format!("run{run}"))), shipped_files(&venue), "run {run}");
    }
    assert!(killed >= 8, "the server was killed {killed} times");
}

#[test]
fn a_shipper_that_is_killed_at_any_moment_leaves_an_archive_that_verifies() {
    let s3 = S3::start();
    let venue = Venue::new(true);
    let url = at("p");
    let began = Instant::now();
    done(s3.env(&mut ship(&venue, &at("whole"), &[])));
    let whole = began.elapsed();
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut kill_within = |limit: Duration, words: &[&str]| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let mut shipping = s3.env(&mut ship(&venue, &url, words)).stdout(Stdio::null()).spawn().unwrap();
        thread::sleep(limit.mul_f64((dice >> 11) as f64 / (1_u64 << 53) as f64));
        let was_killed = shipping.try_wait().unwrap().is_none();
        // SIGKILL; it may have ended.
        let _ = shipping.kill();
        shipping.wait().unwrap();
        was_killed
    };
    let verify = || {
        let verified = done(s3.env(&mut hotspot("verify", &["--archive", &url, "--json"])));
        let report: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
        report["lines"].as_u64().unwrap()
    };
    let (mut limit, mut runs, mut kills) = (whole, 0, 0);
    while kills < 15 {
        assert!(runs < 400, "{kills} kills only");
        if kill_within(limit, &[]) {
            kills += 1;
        } else {
            // It was too fast for that.
            limit = limit.mul_f64(0.9);
        }
        // The server makes a directory before it puts the first object into it.
        if !s3.objects("p/manifest/gw.lines").is_empty() {
            verify();
        }
        runs += 1;
        if runs % 6 == 0 && kills < 15 && s3.object("p").exists() {
            // From the beginning.
            s3.remove_all("p");
            limit = whole;
        }
    }
    done(s3.env(&mut ship(&venue, &url, &[])));
    assert_eq!(verify(), SEGMENTS);
    let files = shipped_files(&venue);
    assert_eq!(files_of(&s3.objects("p")), files);
    // While segments go here.
    for _ in 0..20 {
        kill_within(whole, &["--keep-here", "0"]);
        assert_eq!(verify(), SEGMENTS);
        done(s3.env(venue.command("verify").args(["--moved-at", &url])));
    }
    done(s3.env(&mut ship(&venue, &url, &["--keep-here", "0"])));
    assert_eq!((shipped_files(&venue), files_of(&s3.objects("p"))), (Vec::new(), files));
    verify();
}
