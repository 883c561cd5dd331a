//! Who puts into an archive what is no file of it: a link, a second name of somebody else's file, a FIFO; and who takes files away.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hotspot_archive::chain::{DeletedFile, Event};
use hotspot_archive::manifest::{GatewayKey, Manifest, ManifestError};

use super::world::{Attacked, World, deleted, moment};

/// Far longer than anything here takes; what waits for the other end of a FIFO waits for ever.
const WITHIN: Duration = Duration::from_secs(60);

fn open(it: &Attacked, gateway: &str) -> Result<Manifest, ManifestError> {
    let key = GatewayKey::open(&it.root().join(gateway).join("signing.key")).unwrap();
    Manifest::open(&it.archive(), gateway, key)
}

fn fifo(path: &Path) {
    drop(fs::remove_file(path));
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// How a command ends; a panic where it does not.
fn code(mut command: Command) -> i32 {
    let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap();
        }
        if began.elapsed() > WITHIN {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the gateway's own program does, on a thread that may wait for ever.
fn within<T: Send + 'static>(what: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(sender.send(act())));
    receiver.recv_timeout(WITHIN).unwrap_or_else(|_| panic!("{what}: it does not end"))
}

#[test]
fn a_chain_that_is_a_link_or_has_a_second_name_is_not_gone_on_with() {
    let world = World::new();
    for how in ["link", "dangling link", "hard link", "link to the same chain"] {
        let it = world.copy();
        let (chain, secret) = (it.path("manifest/gw1.jsonl"), it.root().join("secret"));
        let (moved, new) = (it.root().join("moved.jsonl"), it.root().join("new"));
        fs::rename(&chain, &moved).unwrap();
        match how {
            "link" => symlink(&secret, &chain).unwrap(),
            "dangling link" => symlink(&new, &chain).unwrap(),
            "hard link" => fs::hard_link(&secret, &chain).unwrap(),
            _ => symlink(&moved, &chain).unwrap(),
        }
        let before = it.files();
        assert!(open(&it, "gw1").is_err(), "{how}");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "root's", "{how}");
        assert!(!new.exists(), "{how}");
        assert_eq!(it.files(), before, "{how}");
    }
}

/// The flows of sequence 5, deleted by right, and still there.
fn delete_by_right(it: &Attacked) -> String {
    let flows = it.flows("gw1", 9);
    it.append_event("gw1", &it.key("gw1", 3), &moment(70), deleted(&flows));
    flows.path
}

#[test]
fn a_deletion_by_right_removes_nothing_behind_a_link() {
    let it = World::new().copy();
    let path = delete_by_right(&it);
    let (dir, name) = path.rsplit_once('/').unwrap();
    let elsewhere = it.root().join("elsewhere");
    fs::rename(it.path(dir), &elsewhere).unwrap();
    symlink(&elsewhere, it.path(dir)).unwrap();
    let added = elsewhere.join(format!("{name}.0011223344556677.age"));
    fs::write(&added, "a key elsewhere").unwrap();
    let manifest = open(&it, "gw1").unwrap();
    assert!(manifest.finish_deletions().is_err(), "it says so");
    assert!(elsewhere.join(name).exists() && added.exists());
}

#[test]
fn beside_a_deleted_segment_only_added_keys_are_removed_and_only_their_own_bytes_overwritten() {
    let it = World::new().copy();
    let path = delete_by_right(&it);
    let beside = |suffix: &str| it.path(&format!("{path}.{suffix}.age"));
    let secret = it.root().join("secret");
    let foreign = ["my-notes", "0011223344556677.8899aabbccddeeff", "0011223344556 77", "00112233445566AA"].map(beside);
    foreign.iter().for_each(|path| fs::write(path, "somebody else's").unwrap());
    fs::hard_link(&secret, beside("0011223344556677")).unwrap();
    symlink(&secret, beside("1122334455667788")).unwrap();
    fifo(&beside("2233445566778899"));
    fs::write(beside("33445566778899aa"), "an added key").unwrap();
    let manifest = open(&it, "gw1").unwrap();
    within("deleting", move || manifest.finish_deletions().unwrap());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "root's");
    for path in &foreign {
        assert_eq!(fs::read_to_string(path).unwrap(), "somebody else's", "{}", path.display());
    }
    assert!(!it.path(&path).exists());
    for id in ["0011223344556677", "1122334455667788", "2233445566778899", "33445566778899aa"] {
        assert!(fs::symlink_metadata(beside(id)).is_err(), "{id}");
    }
}

#[test]
fn a_copy_of_the_neighbour_s_file_that_is_deleted_by_right_takes_no_other_with_it() {
    let it = World::new().copy();
    it.seal_next("gw2", 37);
    let theirs = it.flows("gw2", 12);
    let own_path = theirs.path.replace("gw2", "gw1");
    fs::create_dir_all(it.path(&own_path).parent().unwrap()).unwrap();
    fs::copy(it.path(&theirs.path), it.path(&own_path)).unwrap();
    let mut line = it.segment("gw2", 12);
    (line.gateway, line.site) = ("gw1".into(), "site-gw1".into());
    let mut own = theirs.clone();
    own.path.clone_from(&own_path);
    line.files = vec![own.clone()];
    let key = it.key("gw1", 3);
    it.append_segment("gw1", &key, line);
    let other_site = own_path.replace("site=site-gw1", "site=elsewhere");
    fs::create_dir_all(it.path(&other_site).parent().unwrap()).unwrap();
    fs::copy(it.path(&own_path), it.path(&other_site)).unwrap();
    let named = |path: &str| DeletedFile { path: path.to_owned(), sha256: theirs.sha256.clone() };
    let files = [&own_path, &theirs.path, &other_site].map(|path| named(path)).to_vec();
    it.append_event("gw1", &key, &moment(80), Event::Deleted { why: "retention flows=30d".into(), files });
    open(&it, "gw1").unwrap().finish_deletions().unwrap();
    assert!(!it.path(&own_path).exists(), "its own, by right");
    assert!(it.path(&theirs.path).exists() && it.path(&other_site).exists());
}

#[test]
fn a_gateway_whose_chain_was_taken_away_begins_no_other_over_its_segments() {
    for how in ["gone", "empty"] {
        let it = World::new().copy();
        let chain = it.path("manifest/gw1.jsonl");
        fs::remove_file(&chain).unwrap();
        if how == "empty" {
            fs::write(&chain, "").unwrap();
        }
        assert!(matches!(open(&it, "gw1"), Err(ManifestError::Lost { found: 0, .. })), "{how}");
    }
}

#[test]
fn holds_and_checkpoints_that_are_no_files_stop_no_sealing() {
    for (dir, name) in [("holds", "C-9.json"), ("checkpoints", "gw1.jsonl")] {
        let it = World::new().copy();
        fs::create_dir_all(it.path(dir)).unwrap();
        fifo(&it.path(dir).join(name));
        let archive = it.archive();
        let mut manifest = open(&it, "gw1").unwrap();
        let failed = within(dir, move || {
            let head = manifest.checkpoint(1).unwrap();
            let kept = hotspot_archive::checkpoints::keep(&archive, "gw1", &head).is_err();
            manifest.state(None, &moment(38)).is_err() || kept
        });
        assert!(failed, "{dir}: it is said");
        it.seal_next("gw1", 38);
    }
}

#[test]
fn readers_do_not_wait_for_what_is_no_file() {
    let world = World::new();
    for path in
        ["manifest/gw1.jsonl", "manifest/gw1.pub", "checkpoints/gw1.jsonl", "shipped/moved.jsonl", "flows", "index"]
    {
        let it = world.copy();
        let of = |class: &str| it.segment("gw1", 11).files.into_iter().find(|file| file.class == class);
        let relative = of(path).map_or_else(|| path.to_owned(), |file| file.path);
        fs::create_dir_all(it.path(&relative).parent().unwrap()).unwrap();
        fifo(&it.path(&relative));
        assert!(code(it.verify_command()) > 1, "{path}");
        assert!(code(it.find_command()) != 1, "{path}: nothing found, it says");
    }
}

#[test]
fn a_shipper_sends_nothing_that_a_link_names() {
    for dir in ["holds/C-9.json", "recipients/0011223344556677"] {
        let it = World::new().copy();
        fs::create_dir_all(it.path(dir).parent().unwrap()).unwrap();
        symlink(it.root().join("secret"), it.path(dir)).unwrap();
        let there = it.root().join("there");
        fs::create_dir(&there).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotspot"));
        command.arg("ship").arg("--archive").arg(it.archive()).arg("--to").arg(&there);
        assert_ne!(code(command), 0, "{dir}");
        let sent = Command::new("grep").args(["-rl", "root's"]).arg(&there).output().unwrap();
        assert!(sent.stdout.is_empty(), "{dir}: {sent:?}");
    }
}
