//! A gateway that somebody takes away: what is on its disk names nobody, and whoever holds one of the keys loses nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use hotspot_tests::lab::{Client, GATEWAY_V4, Lab};
use hotspot_tests::programs::{Agent, ask, files, hotspot, users, write_secret};
use hotspot_tests::wait_until;
use serde_json::Value;

const SECRET: &str = "not-a-secret-in-a-lab";
const USER: &str = "nguyen.van.an@example.vn";

/// An identity of one of those who may read, and the public key that the gateway is given.
struct Reader {
    identity: String,
    recipient: String,
    /// Where this reader's questions are noted: they name people, and have no business on a gateway.
    audit: String,
}

impl Reader {
    fn new(dir: &Path, name: &str) -> Self {
        let identity = dir.join(name).display().to_string();
        let recipient = said(&["keys", "new", &identity]).trim().to_owned();
        assert!(recipient.starts_with("age1") && !recipient.contains('\n'), "{recipient}");
        let audit = dir.join("audit.jsonl").display().to_string();
        Self { identity, recipient, audit }
    }

    fn find(&self, archive: &Path, filter: &[&str]) -> Vec<Value> {
        let output = self.ask(archive, filter);
        assert!(output.status.success(), "{filter:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let rows = text.lines().filter(|line| !line.starts_with("{\"answer\":"));
        rows.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn ask(&self, archive: &Path, filter: &[&str]) -> Output {
        let archive = archive.display().to_string();
        let question = ["find", "--archive", &archive, "--json", "--identity", &self.identity, "--audit", &self.audit];
        hotspot(&[&question, filter].concat()).unwrap()
    }
}

/// What the tool prints when all is well.
fn said(arguments: &[&str]) -> String {
    let output = hotspot(arguments).unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What of a client would say that it was here, as text and as it is on the wire.
fn traces(client: &Client) -> Vec<Vec<u8>> {
    let mac: Vec<u8> = client.mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let mut traces = vec![USER.into(), format!("{}-phone", client.name).into(), client.mac.clone().into(), mac];
    traces.extend(client.addresses().unwrap().into_iter().map(String::into_bytes));
    traces
}

/// Files with any of the traces in them.
fn telltales(dir: &Path, traces: &[Vec<u8>]) -> Vec<PathBuf> {
    let tells = |file: &PathBuf| {
        let bytes = fs::read(file).unwrap();
        traces.iter().any(|trace| bytes.windows(trace.len()).any(|window| window == trace))
    };
    files(dir).unwrap().into_iter().filter(tells).collect()
}

#[test]
fn a_stolen_gateway_names_nobody_and_either_of_two_keys_opens_everything() {
    let lab = Lab::new(1).unwrap();
    let (data, client) = (lab.dir().join("data"), &lab.clients[0]);
    let [officer, auditor, later] = ["officer", "auditor", "later"].map(|name| Reader::new(lab.dir(), name));
    let (listen, secret) = (format!("{GATEWAY_V4}:1813"), lab.dir().join("secret"));
    write_secret(&secret, SECRET).unwrap();
    let secret = secret.display().to_string();
    let options = [
        &["--recipient", &officer.recipient, "--recipient", &auditor.recipient][..],
        &["--radius-listen", &listen, "--radius-secret-file", &secret],
        &["--rotate", "3", "--grace", "1", "--generation", "1"],
    ]
    .concat();
    let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
    client.connect(&lab).unwrap();
    let start = format!(
        "Acct-Status-Type = Start\nAcct-Session-Id = \"s1\"\nUser-Name = \"{USER}\"\nCalling-Station-Id = \"{}\"\n",
        client.mac
    );
    lab.account(&start, SECRET).unwrap();
    let archive = data.join("archive");
    let sealed = || files(&archive.join("index")).map_or(0, |indexes| indexes.len());
    for round in 1..=2 {
        client.browse().unwrap();
        let more = || sealed() >= round * 2;
        wait_until("segments are sealed", Duration::from_secs(60), more).unwrap();
    }
    client.browse().unwrap();
    agent.kill().unwrap();

    // Taken away: all that is on the disk, the journal's own key included.
    assert_eq!(telltales(&data, &traces(client)), Vec::<PathBuf>::new());
    let shown = archive.display().to_string();
    let keyless = hotspot(&["find", "--archive", &shown, "--audit", &officer.audit, "user", USER]).unwrap();
    assert_eq!(keyless.status.code(), Some(3));
    assert!(keyless.stdout.is_empty() && String::from_utf8_lossy(&keyless.stderr).contains("--identity"));
    let refused = Reader::new(lab.dir(), "stranger").ask(&archive, &["user", USER]);
    assert_eq!(refused.status.code(), Some(3));
    // No row, and a line that says why.
    let printed = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(printed.starts_with("{\"answer\":") && printed.lines().count() == 1, "{printed}");

    // Brought back: nothing was lost, and whole it is without any key.
    let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
    client.browse().unwrap();
    assert!(agent.stop().unwrap().success());
    assert_eq!(telltales(&data, &traces(client)), Vec::<PathBuf>::new());
    let verified = ask("verify", &archive, &[]).unwrap();
    assert_eq!(verified[0]["verify"], "ok", "{verified:?}");
    let all = officer.find(&archive, &[]);
    let pages = all.iter().filter(|row| users(row) == [USER] && row["peer_port"] == 80 && row["protocol"] == 6).count();
    assert!(pages >= 4 * 3, "{all:?}");
    for filter in [&["user", USER][..], &["mac", &client.mac], &["dst", "port", "7007"]] {
        let found = officer.find(&archive, filter);
        assert!(!found.is_empty(), "{filter:?}");
        assert_eq!(found, auditor.find(&archive, filter), "{filter:?}");
    }

    // The auditor's key is lost: somebody else is let in, and finds the same, by the indexes too.
    said(&["keys", "add", "--archive", &shown, "--identity", &officer.identity, "--recipient", &later.recipient]);
    assert_eq!(later.find(&archive, &[]), all);
    let by_index = later.ask(&archive, &["user", USER]);
    assert!(by_index.status.success() && !String::from_utf8_lossy(&by_index.stderr).contains("index"));

    // A case holds what it needs, and nothing is over yet.
    let hold = [
        "hold",
        "add",
        "--archive",
        &shown,
        "--case",
        "2026-17",
        "--identity",
        &officer.identity,
        "--audit",
        &officer.audit,
    ];
    said(&[&hold[..], &["user", USER]].concat());
    assert!(said(&["hold", "list", "--archive", &shown]).contains("2026-17"));
    let expired = hotspot(&["expire", "--dry-run", "--archive", &shown, "--retain", "flows=1d,sessions=1d"]).unwrap();
    let said = String::from_utf8_lossy(&expired.stdout).into_owned();
    assert_eq!(expired.status.code(), Some(0), "{said}");
    assert!(said.starts_with("0 bytes would be deleted\nnothing is, because"), "{said}");
    let coverage = ask("coverage", &archive, &["--identity", &officer.identity]).unwrap();
    let is_whole = |row: &Value| row["balanced"] == true && row["gaps"] == serde_json::json!([]);
    assert!(!coverage.is_empty() && coverage.iter().all(is_whole), "{coverage:?}");
}

/// What the search above would find if nothing were encrypted.
#[test]
fn what_lies_in_the_clear_is_found() {
    let lab = Lab::new(1).unwrap();
    let (data, client) = (lab.dir().join("data"), &lab.clients[0]);
    let (listen, secret) = (format!("{GATEWAY_V4}:1813"), lab.dir().join("secret"));
    write_secret(&secret, SECRET).unwrap();
    let secret = secret.display().to_string();
    let options = ["--radius-listen", &listen, "--radius-secret-file", &secret, "--grace", "0"];
    let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
    client.connect(&lab).unwrap();
    let start = format!(
        "Acct-Status-Type = Start\nAcct-Session-Id = \"s1\"\nUser-Name = \"{USER}\"\nCalling-Station-Id = \"{}\"\n",
        client.mac
    );
    lab.account(&start, SECRET).unwrap();
    client.browse().unwrap();
    assert!(agent.stop().unwrap().success());
    let traces = traces(client);
    for trace in &traces[..3] {
        let found = telltales(&data, std::slice::from_ref(trace));
        assert!(!found.is_empty(), "{}", String::from_utf8_lossy(trace));
    }
}
