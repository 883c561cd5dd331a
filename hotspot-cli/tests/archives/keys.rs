//! Identities under a passphrase, and what the tool leaves of keys for others to find.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::venue::Venue;

const PASSPHRASE: &str = "con mèo đen ngủ trên mái nhà";

/// Runs the tool with passphrases on descriptor 3.
fn with_passphrases(passphrases: &str, arguments: &[&str]) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", "printf '%s\\n' \"$PASSPHRASES\" | { exec 3<&0; exec \"$@\"; }", "sh"]);
    shell.args([env!("CARGO_BIN_EXE_hotspot"), "--passphrase-fd", "3"]).args(arguments);
    shell.env("PASSPHRASES", passphrases).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An identity under [`PASSPHRASE`], and its public key.
fn new_identity(dir: &Path) -> (PathBuf, String) {
    let file = dir.join("officer.key");
    let made = with_passphrases(PASSPHRASE, &["keys", "new", "--passphrase", &file.display().to_string()]);
    assert!(made.status.success(), "{}", said(&made));
    (file, String::from_utf8(made.stdout).unwrap().trim().to_owned())
}

/// An archive that the identity under a passphrase can read.
fn readable_by(venue: &Venue, recipient: &str) {
    let (archive, identity) = (venue.archive(), venue.identity.clone().unwrap());
    let added = Command::new(env!("CARGO_BIN_EXE_hotspot"))
        .args(["keys", "add", "--recipient", recipient, "--archive"])
        .arg(archive)
        .arg("--identity")
        .arg(identity)
        .output()
        .unwrap();
    assert!(added.status.success(), "{}", said(&added));
}

fn count(venue: &Venue, passphrases: &str, identity: &Path) -> Output {
    let (archive, identity) = (venue.archive().display().to_string(), identity.display().to_string());
    with_passphrases(
        passphrases,
        &["find", "--archive", &archive, "--identity", &identity, "--json", "user", "0900000001"],
    )
}

#[test]
fn an_identity_under_a_passphrase_opens_an_archive_with_it_and_with_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (file, recipient) = new_identity(dir.path());
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") && !text.contains("AGE-SECRET-KEY"), "{text}");
    let venue = Venue::new(true);
    readable_by(&venue, &recipient);
    let found = count(&venue, PASSPHRASE, &file);
    assert!(found.status.success() && !found.stdout.is_empty(), "{}", said(&found));
    for (wrong, why) in [("con mèo trắng", "does not open"), ("", "holds no line"), (" ", "does not open")] {
        let refused = if wrong.is_empty() { count_without_lines(&venue, &file) } else { count(&venue, wrong, &file) };
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(4), 0), "{wrong:?}: {}", said(&refused));
        assert!(said(&refused).contains(why) && said(&refused).contains("officer.key"), "{}", said(&refused));
    }
}

/// The descriptor is there and empty.
fn count_without_lines(venue: &Venue, identity: &Path) -> Output {
    let mut find = venue.command("find");
    find.arg("--identity").arg(identity).args(["--passphrase-fd", "0"]).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_age_tool_and_this_one_open_each_others_files() {
    let dir = tempfile::tempdir().unwrap();
    let (file, recipient) = new_identity(dir.path());
    let opened = on_a_terminal(&[PASSPHRASE], Command::new("age").arg("-d").arg(&file));
    assert!(opened.contains("AGE-SECRET-KEY-1") && opened.contains(&recipient), "{opened}");
    // And a file that age made, in binary.
    let (plain, theirs) = (dir.path().join("plain.key"), dir.path().join("theirs.key"));
    let made = Command::new(env!("CARGO_BIN_EXE_hotspot")).args(["keys", "new"]).arg(&plain).output().unwrap();
    on_a_terminal(&[PASSPHRASE, PASSPHRASE], Command::new("age").arg("-p").arg("-o").arg(&theirs).arg(&plain));
    fs::set_permissions(&theirs, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(fs::read(&theirs).unwrap().starts_with(b"age-encryption.org/v1\n"));
    let venue = Venue::new(true);
    readable_by(&venue, String::from_utf8(made.stdout).unwrap().trim());
    let found = count(&venue, PASSPHRASE, &theirs);
    assert!(found.status.success() && !found.stdout.is_empty(), "{}", said(&found));
}

#[test]
fn a_passphrase_is_asked_for_on_the_terminal_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("asked.key");
    let mut new = Command::new(env!("CARGO_BIN_EXE_hotspot"));
    let shown = on_a_terminal(&[PASSPHRASE, PASSPHRASE], new.args(["keys", "new", "--passphrase"]).arg(&file));
    assert!(shown.contains("Passphrase for") && shown.contains("age1") && !shown.contains("mèo"), "{shown}");
    let venue = Venue::new(true);
    readable_by(&venue, shown.lines().rfind(|line| line.starts_with("age1")).unwrap().trim());
    let mut find = venue.command("find");
    let shown = on_a_terminal(&[PASSPHRASE], find.arg("--identity").arg(&file).args(["--json", "user", "0900000001"]));
    assert!(shown.contains("\"user\"") && !shown.contains("mèo"), "{shown}");
    let other = dir.path().join("other.key");
    let mut new = Command::new(env!("CARGO_BIN_EXE_hotspot"));
    let shown = on_a_terminal(&[PASSPHRASE, "another"], new.args(["keys", "new", "--passphrase"]).arg(&other));
    assert!(shown.contains("differ") && !other.exists(), "{shown}");
}

/// Runs a command on a terminal of its own and types a line after each question, all that it shows.
fn on_a_terminal(lines: &[&str], command: &Command) -> String {
    const SCRIPT: &str = "
import os, pty, select, sys, time
lines = os.environ['TYPED'].split('|')
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
shown, asked, until = b'', 0, time.monotonic() + 60
while time.monotonic() < until:
    if select.select([terminal], [], [], 0.2)[0]:
        try:
            some = os.read(terminal, 65536)
        except OSError:
            break
        if not some:
            break
        shown += some
    elif lines and shown.rstrip().endswith(b':'):
        os.write(terminal, lines.pop(0).encode() + b'\\n')
        shown += b'\\n'
os.waitpid(pid, 0)
sys.stdout.buffer.write(shown)
";
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).arg(command.get_program()).args(command.get_args()).env("TYPED", lines.join("|"));
    String::from_utf8_lossy(&python.output().unwrap().stdout).into_owned()
}

#[test]
fn while_it_holds_identities_the_tool_is_not_dumped_and_its_memory_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let (key, pipe) = (dir.path().join("a.key"), dir.path().join("b.key"));
    let made = Command::new(env!("CARGO_BIN_EXE_hotspot")).args(["keys", "new"]).arg(&key).output().unwrap();
    assert!(made.status.success());
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());
    let venue = Venue::new(true);
    for path in [dir.path(), &key, &pipe] {
        assert!(Command::new("chown").arg("65534").arg(path).status().unwrap().success());
    }
    let find = venue.command("find");
    let mut running = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", "--inh-caps=+ipc_lock", "--ambient-caps=+ipc_lock", "--no-new-privs"])
        .arg(find.get_program())
        .args(["find", "--archive"])
        .arg(venue.archive())
        .arg("--identity")
        .arg(&key)
        .arg("--identity")
        .arg(&pipe)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let proc = PathBuf::from(format!("/proc/{}", running.id()));
    // It waits for the second identity, and holds the first.
    let until = Instant::now() + Duration::from_secs(30);
    let limits = loop {
        let limits = fs::read_to_string(proc.join("limits")).unwrap();
        let cores = limits.lines().find(|line| line.starts_with("Max core file size"));
        if cores.is_some_and(|line| line.split_whitespace().skip(4).take(2).eq(["0", "0"])) {
            break limits;
        }
        assert!(Instant::now() < until, "{limits}");
        std::thread::yield_now();
    };
    assert!(!limits.is_empty());
    // What belongs to a process that may not be looked into is root's, whoever runs it (proc(5)).
    assert_eq!(fs::metadata(proc.join("mem")).unwrap().uid(), 0);
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    assert_ne!(locked.trim(), "0 kB", "{status}");
    fs::OpenOptions::new().write(true).open(&pipe).unwrap().write_all(&fs::read(&key).unwrap()).unwrap();
    running.wait().unwrap();
}
