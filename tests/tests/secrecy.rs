//! What others on the machine, and whoever takes its disk, can do with the agent's files, memory and keys.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use hotspot_tests::generator::Load;
use hotspot_tests::lab::{Lab, SILENT_PORT};
use hotspot_tests::mount::Mount;
use hotspot_tests::programs::{Agent, ask, files, hotspot, write_secret};
use hotspot_tests::wait_until;

/// A command as a user of the machine who is nobody to the agent.
fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
    command
}

/// A new identity, and its public key.
fn identity(dir: &Path, name: &str) -> (String, String) {
    let file = dir.join(name).display().to_string();
    let made = hotspot(&["keys", "new", &file]).unwrap();
    assert!(made.status.success());
    (file, String::from_utf8(made.stdout).unwrap().trim().to_owned())
}

/// Everything below a directory, with it.
fn all(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut waiting) = (vec![dir.to_path_buf()], vec![dir.to_path_buf()]);
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

/// Locks that an agent holds of interfaces; those of others may lie beside them.
fn interface_locks(pid: u32) -> Vec<PathBuf> {
    let locks =
        all(Path::new("/run/hotspot")).into_iter().filter(|path| path.display().to_string().contains("interface-"));
    locks.filter(|path| fs::read_to_string(path).is_ok_and(|holder| holder.trim() == pid.to_string())).collect()
}

/// Rights of a file or directory.
fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn nothing_the_agent_writes_is_for_everybody_and_what_is_not_the_archive_is_its_owners_alone() {
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    // As an earlier version left it.
    fs::create_dir_all(data.join("journal")).unwrap();
    for dir in [&data, &data.join("journal")] {
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let socket = lab.dir().join("run/portal.sock");
    let (_, officer) = identity(lab.dir(), "officer");
    let listen = socket.display().to_string();
    let options = [
        &["--recipient", &officer, "--allow-one-recipient", "--rotate", "2", "--grace", "0", "--generation", "1"][..],
        &["--portal-listen", &listen],
    ]
    .concat();
    let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
    lab.clients[0].connect(&lab).unwrap();
    wait_until("a segment is sealed", Duration::from_secs(60), || {
        // While it is written it has another name.
        let is_whole = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "parquet");
        files(&data.join("archive/flows")).is_ok_and(|files| files.iter().any(is_whole))
    })
    .unwrap();
    let found = all(&data);
    for path in &found {
        assert_eq!(mode(path) & 0o027, 0, "{}: {:o}", path.display(), mode(path));
        // What lies beside the archive nobody else can enter or open.
        let is_beside = path.parent() == Some(&data) && *path != data.join("archive");
        assert!(!is_beside || mode(path) & 0o070 == 0, "{}: {:o}", path.display(), mode(path));
    }
    assert!(found.iter().any(|path| path.extension().is_some_and(|kind| kind == "parquet")));
    assert!(found.iter().any(|path| path.extension().is_some_and(|kind| kind == "journal")));
    assert!(found.contains(&data.join("lock")) && found.contains(&data.join("keys/signing.key")));
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    assert_eq!(mode(&socket), 0o600);
    let locks = interface_locks(agent.pid());
    assert!(!locks.is_empty());
    for lock in locks {
        assert_eq!(mode(&lock) & 0o077, 0, "{}: {:o}", lock.display(), mode(&lock));
    }
    assert!(agent.stop().unwrap().success());
}

#[test]
fn nobody_else_can_hold_the_locks_and_keep_the_agent_from_starting() {
    let lab = Lab::new(0).unwrap();
    fs::set_permissions(lab.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let data = lab.dir().join("data");
    let agent = Agent::start(&lab.gateway, &data, &[]).unwrap();
    let locks: Vec<_> = interface_locks(agent.pid()).into_iter().chain([data.join("lock")]).collect();
    assert!(agent.stop().unwrap().success());
    // As if the directories could be entered.
    for dir in [&data, Path::new("/run/hotspot")] {
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    assert!(locks.len() >= 2);
    for lock in locks {
        let held = as_nobody("flock").args(["--exclusive", "--nonblock"]).arg(&lock).arg("true").output().unwrap();
        assert!(
            !held.status.success() && String::from_utf8_lossy(&held.stderr).contains("denied"),
            "{}",
            lock.display()
        );
    }
    assert!(Agent::start(&lab.gateway, &data, &[]).unwrap().stop().unwrap().success());
}

#[test]
fn the_agents_memory_is_locked_and_goes_into_no_dump() {
    let lab = Lab::new(0).unwrap();
    let data = lab.dir().join("data");
    let agent = Agent::start(&lab.gateway, &data, &[]).unwrap();
    let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", agent.pid())).unwrap();
    let limits = read("limits");
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{cores}");
    let status = read("status");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    assert!(kib("VmLck:") >= kib("RssAnon:"), "{status}");
    assert!(!agent.log().contains("swap"), "{}", agent.log());
    assert!(agent.stop().unwrap().success());
}

/// A gateway whose keys are in memory, with two who may read.
struct Forgetful {
    lab: Lab,
    data: PathBuf,
    keys: PathBuf,
    identity: String,
    recipient: String,
}

impl Forgetful {
    fn new() -> Self {
        let lab = Lab::new(1).unwrap();
        let (data, keys) = (lab.dir().join("data"), lab.dir().join("keys-in-memory"));
        fs::create_dir(&keys).unwrap();
        let (identity, recipient) = identity(lab.dir(), "officer");
        Self { lab, data, keys, identity, recipient }
    }

    fn start(&self) -> Agent {
        let keys = self.keys.display().to_string();
        let options = ["--recipient", &self.recipient, "--allow-one-recipient", "--grace", "0", "--key-dir", &keys];
        Agent::start(&self.lab.gateway, &self.data, &options).unwrap()
    }

    fn send(&self, from: u32, to: u32) {
        let load = Load { from, to, clients: 5 };
        load.send(&self.lab.clients[0].namespace, self.lab.gateway_mac().unwrap()).unwrap();
    }
}

fn decode(file: &Path, options: &[&str]) -> Output {
    hotspot(&[&["decode", "--json", &file.display().to_string()], options].concat()).unwrap()
}

#[test]
fn keys_in_memory_end_with_the_power_and_what_was_open_is_its_recipients() {
    let gateway = Forgetful::new();
    let memory = Mount::tmpfs(&gateway.keys, "size=1m,mode=700").unwrap();
    let agent = gateway.start();
    gateway.send(0, 500);
    agent.kill().unwrap();
    let journal = gateway.data.join("journal/0000000001.journal");
    assert!(journal.exists() && !gateway.data.join("keys/journal").exists());
    // On the gateway, while it is on, its keys open the journal.
    let keys = gateway.keys.display().to_string();
    assert!(decode(&journal, &["--key-dir", &keys]).status.success());
    // A restart without loss of power goes on with the journal.
    let agent = gateway.start();
    assert!(agent.log().contains("went on with an open journal"), "{}", agent.log());
    agent.kill().unwrap();
    drop(memory);

    let refused = decode(&journal, &["--key-dir", &keys]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--identity"), "{refused:?}");
    let memory = Mount::tmpfs(&gateway.keys, "size=1m,mode=700").unwrap();
    let agent = gateway.start();
    assert!(agent.log().contains("the key of a journal is gone"), "{}", agent.log());
    assert!(agent.stop().unwrap().success());
    let kept = gateway.data.join("journal/0000000001.journal.damaged");
    let opened = decode(&kept, &["--identity", &gateway.identity]);
    assert!(opened.status.success(), "{opened:?}");
    let text = String::from_utf8(opened.stdout).unwrap();
    assert!(text.lines().filter(|line| line.contains("\"opened\"")).count() >= 500, "{}", text.lines().count());
    let archive = gateway.data.join("archive");
    let shown = archive.display().to_string();
    let coverage = hotspot(&["coverage", "--archive", &shown, "--json", "--identity", &gateway.identity]).unwrap();
    assert_eq!(coverage.status.code(), Some(3), "something is missing");
    let gaps = String::from_utf8(coverage.stdout).unwrap();
    assert!(gaps.contains("its key is gone"), "{gaps}");
    let verified = hotspot(&["verify", "--archive", &shown, "--json"]).unwrap();
    let verified = String::from_utf8(verified.stdout).unwrap();
    // Whole; what was decoded stands in the archive's own log, for which nobody outside vouches.
    assert!(verified.contains("\"verify\":\"audit_unanchored\""), "{verified}");
    drop(memory);
}

/// The agent with a directory such as systemd makes for `LoadCredentialEncrypted=`.
fn with_credentials(lab: &Lab, data: &Path, dir: Option<&Path>, options: &[&str]) -> Command {
    let mut command = Agent::command(&lab.gateway, data, options).unwrap();
    match dir {
        Some(dir) => command.env("CREDENTIALS_DIRECTORY", dir),
        None => command.env_remove("CREDENTIALS_DIRECTORY"),
    };
    command
}

#[test]
fn keys_under_a_credential_open_with_it_and_without_it_the_agent_says_what_is_missing() {
    let lab = Lab::new(1).unwrap();
    let (data, credentials) = (lab.dir().join("data"), lab.dir().join("credentials"));
    fs::create_dir(&credentials).unwrap();
    write_secret(&credentials.join("hotspot.keys"), &"k".repeat(64)).unwrap();
    let (identity, recipient) = identity(lab.dir(), "officer");
    let options = ["--recipient", &recipient, "--allow-one-recipient", "--grace", "0"];
    let start =
        || Agent::start_command(&mut with_credentials(&lab, &data, Some(&credentials), &options), &data).unwrap();
    let agent = start();
    assert!(agent.log().contains("under the credential"), "{}", agent.log());
    let load = |from, to| Load { from, to, clients: 5 };
    let (mac, client) = (lab.gateway_mac().unwrap(), &lab.clients[0].namespace);
    load(0, 500).send(client, mac).unwrap();
    agent.kill().unwrap();
    // Neither key lies there as it is: 64 hexadecimal digits, or 32 bytes.
    assert_eq!(fs::read(data.join("keys/signing.key")).unwrap().len(), 2 * (12 + 32 + 16));
    assert_eq!(fs::read(data.join("keys/journal/0000000001.journal.key")).unwrap().len(), 12 + 32 + 16);

    let other = lab.dir().join("other");
    fs::create_dir(&other).unwrap();
    write_secret(&other.join("hotspot.keys"), &"x".repeat(64)).unwrap();
    for (dir, why) in [(None, "not given"), (Some(other.as_path()), "another secret")] {
        let refused = with_credentials(&lab, &data, dir, &options).output().unwrap();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(4), "{text}");
        assert!(text.contains(why) && text.contains("hotspot.keys"), "{text}");
    }
    write_secret(&other.join("hotspot.keys"), "short").unwrap();
    let refused = with_credentials(&lab, &data, Some(&other), &options).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("openssl rand"), "{refused:?}");

    let agent = start();
    load(500, 1_000).send(client, mac).unwrap();
    assert!(agent.stop().unwrap().success());
    let port = SILENT_PORT.to_string();
    let found = ask("find", &data.join("archive"), &["--identity", &identity, "dst", "port", &port]).unwrap();
    let flows: HashSet<_> = found.iter().map(|flow| flow["flow_id"].as_u64().unwrap()).collect();
    assert_eq!(flows.len(), 1_000);
}
