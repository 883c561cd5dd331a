//! What the pages tell people to type, as it stands there: every command of docs/identity.md is run against a real agent, every question of
//! the other pages against a real archive; what cannot run here is listed, with its reason.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use hotspot_tests::lab::{GATEWAY_V4, Lab};
use hotspot_tests::namespace::run;
use hotspot_tests::programs::{Agent, ask, path, rows, write_secret};

const HMAC_KEY: &str = "0123456789abcdef-hmac-key";

/// An example: what is typed, and what is said to come.
#[derive(Debug)]
struct Example {
    typed: String,
    said: Vec<String>,
}

fn page() -> String {
    read("docs/identity.md")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap()
}

/// All pages, by their names from the root of the repository.
fn pages() -> Vec<String> {
    let mut found = vec!["README.md".to_owned()];
    for dir in ["docs", "docs/formats"] {
        for entry in std::fs::read_dir(root().join(dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if Path::new(&name).extension().is_some_and(|kind| kind == "md") {
                found.push(format!("{dir}/{name}"));
            }
        }
    }
    found.sort();
    found
}

/// The blocks of one kind.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let opening = format!("\n```{kind}\n");
    page.split(&opening).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned() + "\n").collect()
}

/// Commands behind a prompt, with the lines that continue them, and the lines that answer.
fn examples(block: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let is_whole = |typed: &str| !typed.ends_with('\\') && typed.matches('\'').count().is_multiple_of(2);
    for line in block.lines() {
        let typed = line.strip_prefix("# ").or_else(|| line.strip_prefix("$ "));
        let heredoc = found.last().is_some_and(|last| {
            last.typed.starts_with("cat > ")
                && typed.is_some_and(|text| !text.contains(' ') || text.starts_with("the "))
        });
        match (typed, found.last_mut()) {
            (Some(_), Some(last)) if heredoc => last.said.push(line.to_owned()),
            (Some(typed), _) => found.push(Example { typed: typed.to_owned(), said: Vec::new() }),
            (None, Some(last)) if !is_whole(&last.typed) => last.typed = format!("{}\n{line}", last.typed),
            (None, Some(last)) => last.said.push(line.to_owned()),
            (None, None) => panic!("an answer to nothing: {line}"),
        }
    }
    found
}

/// A venue as the page describes it.
struct Venue {
    lab: Lab,
    agent: Agent,
}

impl Venue {
    /// With the secrets of the page, and the command line of the page but for what belongs to the machine.
    fn new(page: &str, seen: &mut Vec<String>) -> Self {
        let lab = Lab::new(0).unwrap();
        let all: Vec<Example> = blocks(page, "console").iter().flat_map(|block| examples(block)).collect();
        let secrets = all.iter().find(|example| example.typed.starts_with("cat > /etc/hotspot/radius.secret")).unwrap();
        write_secret(&lab.dir().join("radius.secret"), &(secrets.said.join("\n") + "\n")).unwrap();
        write_secret(&lab.dir().join("portal.secret"), &format!("hmac {HMAC_KEY}\n")).unwrap();
        let told = |start: &str| all.iter().find(|example| example.typed.starts_with(start)).unwrap().typed.clone();
        let radius = told("hotspot-agent run --interface");
        let portal = told("hotspot-agent run …");
        seen.extend([secrets.typed.clone(), radius.clone(), portal.clone()]);
        let words = [radius, portal].map(|typed| here(&lab, &typed.replace("\\\n", " ")));
        let options: Vec<&str> = words.iter().flat_map(|words| words.split_whitespace()).collect();
        let from = options.iter().position(|word| *word == "--radius-listen").unwrap();
        let options: Vec<&str> =
            options[from..].iter().copied().filter(|word| !["hotspot-agent", "run", "…"].contains(word)).collect();
        let (address, secret) = (format!("{GATEWAY_V4}:8017"), lab.dir().join("portal.secret").display().to_string());
        let more = ["--portal-listen", &address, "--portal-secret-file", &secret, "--grace", "0"];
        let agent = Agent::start(&lab.gateway, &lab.dir().join("data"), &[&options[..], &more].concat()).unwrap();
        Self { lab, agent }
    }

    fn stop(self) -> Lab {
        assert!(self.agent.stop().unwrap().success());
        self.lab
    }
}

/// A command with this machine's paths.
fn here(lab: &Lab, typed: &str) -> String {
    let dir = lab.dir().display().to_string();
    typed
        .replace("/etc/hotspot", &dir)
        .replace("/run/hotspot", &dir)
        .replace("/var/lib/hotspot", &format!("{dir}/data"))
        .replace("gw1:1813", &format!("{GATEWAY_V4}:1813"))
}

fn shell(lab: &Lab, from_afar: bool, typed: &str) -> String {
    let namespace = if from_afar { &lab.switch } else { &lab.gateway };
    run(namespace.command("sh").args(["-c", typed])).unwrap()
}

#[test]
fn every_example_of_the_page_does_what_it_says() {
    let page = page();
    let mut seen: Vec<String> = Vec::new();
    let venue = Venue::new(&page, &mut seen);
    let all: Vec<Example> = blocks(&page, "console").iter().flat_map(|block| examples(block)).collect();

    for example in all.iter().filter(|example| example.typed.starts_with("curl ")) {
        let said = shell(&venue.lab, false, &here(&venue.lab, &format!("curl -s {}", &example.typed[5..])));
        assert_eq!(said.trim(), r#"{"recorded":1}"#, "{}", example.typed);
        seen.push(example.typed.clone());
    }
    let asked = all.iter().find(|example| example.typed.contains("radclient")).unwrap();
    let said = shell(&venue.lab, true, &here(&venue.lab, &asked.typed));
    assert!(said.contains("Received Accounting-Response"), "{said}");
    seen.push(asked.typed.clone());
    for script in blocks(&page, "sh") {
        let said = shell(&venue.lab, true, &format!("KEY={HMAC_KEY}\n{}", script.replace("curl ", "curl -s ")));
        assert_eq!(said.trim(), r#"{"recorded":1}"#, "{script}");
    }
    let lab = venue.stop();

    let found = rows(&lab.dir().join("data/archive"), "sessions").unwrap();
    let of = |id: &str| {
        found.iter().filter(|session| session["session_id"].as_str().unwrap().ends_with(id)).collect::<Vec<_>>()
    };
    // The login and the logout of the first example, and the login by signature.
    let voucher = of("voucher-17");
    assert_eq!(
        voucher.iter().map(|session| &session["status"]).collect::<Vec<_>>(),
        ["ended", "active"],
        "{voucher:?}"
    );
    assert_eq!((voucher[0]["user"].as_str(), voucher[1]["user"].as_str()), (Some("0912345678"), Some("x")));
    assert_eq!(of("test1")[0]["client_mac"], "02:00:00:00:00:01");

    let bin = path("hotspot").unwrap();
    let bin = bin.parent().unwrap().display().to_string();
    for example in all.iter().filter(|example| example.typed.starts_with("hotspot ")) {
        let typed = here(&lab, &example.typed).replace("site=cafe-1/date=…/….parquet", "site=lab/date=*/*.parquet");
        let output = Command::new("sh").args(["-c", &format!("PATH={bin}:$PATH; {typed}")]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // The agent was stopped: what is asked for up to now was not recorded.
        let is_answered = match output.status.code() {
            Some(3) => said.contains("has not sealed a segment of that time"),
            code => code == Some(0),
        };
        assert!(is_answered, "{typed}: {said}");
        seen.push(example.typed.clone());
    }
    let preparations = ["install -d", "chmod 600"];
    let unseen: Vec<&Example> = all
        .iter()
        .filter(|example| {
            !seen.contains(&example.typed) && !preparations.iter().any(|start| example.typed.starts_with(start))
        })
        .collect();
    assert!(unseen.is_empty(), "examples that nobody ran: {unseen:#?}");
}

/// Blocks that are run elsewhere or nowhere, by page and first line, and why.
const NOT_RUN_HERE: [(&str, &str, &str); 34] = [
    ("README.md", "cargo xtask demo ", "the demo and the tests are what `cargo xtask` runs"),
    ("README.md", "cargo build --release", "builds and installs; its `hotspot-agent run` is that of docs/identity.md"),
    ("docs/devices.md", "update-ieee-data ", "downloads from the IEEE"),
    ("docs/scale.md", "s3://records/wifi/", "a listing"),
    ("docs/scale.md", "CREATE TEMPORARY VIEW flows", "Spark: tests/python/fleet.py"),
    ("docs/scale.md", "CREATE SCHEMA hive.wifi", "Trino is not on this machine"),
    ("docs/scale.md", "{\"Statement\": [", "a policy of Amazon's"),
    ("docs/witness.md", "hotspot witness new-key", "needs two machines: hotspot-cli/tests/archives/outside.rs"),
    ("docs/witness.md", "restrict,command=", "a line of sshd's"),
    ("docs/witness.md", "[ -e gw1.size ]", "needs ssh: hotspot-cli/tests/archives/outside.rs without it"),
    ("docs/witness.md", "hotspot witness watch", "does not end: hotspot-cli/tests/archives/outside.rs"),
    ("docs/witness.md", "hotspot verify --archive s3:", "needs a witness: hotspot-cli/tests/archives/outside.rs"),
    ("docs/formats/encryption.md", "hotspot 1 <gateway>", "a format"),
    ("docs/formats/encryption.md", "first       32 random bytes", "a format"),
    ("docs/formats/encryption.md", "openssl rand 32 |", "needs systemd and a TPM"),
    ("docs/formats/row-proof.md", "leaf content", "a format"),
    ("docs/formats/row-proof.md", "hotspot row proof 1", "a format"),
    ("docs/formats/checkpoint.md", "cosignature/v1", "a format"),
    ("docs/formats/checkpoint.md", "epoch <line>", "a format"),
    ("docs/formats/checkpoint.md", "30 39 02 01 01", "a format"),
    ("docs/formats/checkpoint.md", "gw1: unchanged since", "what `hotspot verify` says"),
    ("docs/formats/checkpoint.md", "root of three", "vectors: hotspot-archive/src/witness/tests.rs"),
    ("docs/formats/checkpoint.md", "hotspot/g", "vectors: hotspot-archive/src/witness/tests.rs"),
    ("docs/formats/records.md", "-- DuckDB: rows that", "put to engines: hotspot-archive/tests/engines.rs"),
    ("docs/formats/nat-map.md", "[[block]] ", "the map's own tests: hotspot-cli/src/nat_map.rs"),
    ("docs/identity.md", "home_server hotspot {", "FreeRADIUS with it: tests/src/aaa.rs"),
    ("docs/identity.md", "update control {", "FreeRADIUS with it: tests/src/aaa.rs"),
    ("docs/identity.md", "modules {", "FreeRADIUS with it: tests/src/aaa.rs"),
    ("docs/identity.md", "post-auth {", "a controller's authentication is not in the lab"),
    ("docs/identity.md", "acct_server_addr=", "hostapd with it: tests/tests/radius.rs"),
    ("docs/identity.md", "/system identity set", "RouterOS is not on this machine"),
    ("docs/identity.md", "dhcp-script=", "dnsmasq with it: tests/tests/portal_hooks.rs"),
    ("docs/identity.md", "# ", "run by the test above"),
    ("docs/identity.md", "$ ", "run by the test above"),
];

/// Blocks whose commands are run by the tests here.
fn is_run(page: &str, first: &str) -> bool {
    (page == "docs/identity.md" && first.starts_with("now=")) || (page != "docs/identity.md" && first.starts_with("$ "))
}

/// First lines of all blocks of a page.
fn openings(page: &str) -> Vec<String> {
    let text = read(page);
    let mut lines = text.lines();
    let mut found = Vec::new();
    while lines.by_ref().any(|line| line.starts_with("```")) {
        found.push(lines.by_ref().find(|line| !line.is_empty()).unwrap().to_owned());
        if !found.last().unwrap().starts_with("```") {
            assert!(lines.by_ref().any(|line| line.starts_with("```")), "{page}: a block without an end");
        }
    }
    found
}

#[test]
fn every_block_of_every_page_is_run_or_has_a_reason() {
    let mut used = [false; NOT_RUN_HERE.len()];
    let mut blocks = 0;
    for page in pages() {
        for first in openings(&page) {
            blocks += 1;
            let listed = NOT_RUN_HERE.iter().position(|(of, start, _)| *of == page && first.starts_with(start));
            listed.into_iter().for_each(|position| used[position] = true);
            assert!(listed.is_some() || is_run(&page, &first), "{page}: nobody runs {first:?}, and no reason is given");
        }
    }
    assert!(blocks >= NOT_RUN_HERE.len(), "{blocks}");
    let unused: Vec<_> = NOT_RUN_HERE.iter().zip(used).filter(|(_, used)| !used).collect();
    assert!(unused.is_empty(), "reasons for what is not there: {unused:?}");
}

/// An archive to which the questions of the pages can be put: somebody logged in, browsed, and is in it.
fn asked_archive(lab: &Lab) -> PathBuf {
    let (data, client) = (lab.dir().join("data"), &lab.clients[0]);
    let socket = lab.dir().join("portal.sock").display().to_string();
    let checkpoints = format!("file:{}", data.with_extension("checkpoints").display());
    let options = ["--portal-listen", &socket, "--grace", "0", "--checkpoint", &checkpoints];
    let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
    client.connect(lab).unwrap();
    let login = format!(r#"{{"user":"0912345678","mac":"{}"}}"#, client.mac);
    let mut curl = lab.gateway.command("curl");
    curl.args(["-s", "--unix-socket", &socket, "-X", "PUT", "-d", &login, "http://hotspot/v1/sessions/voucher-17"]);
    assert_eq!(run(&mut curl).unwrap().trim(), r#"{"recorded":1}"#);
    client.browse().unwrap();
    assert!(agent.stop().unwrap().success());
    data.join("archive")
}

/// A question of a page, put to this archive about what is in it.
fn put_to(archive: &Path, typed: &str, row: &serde_json::Value) -> String {
    let (shown, text) = (archive.display().to_string(), |name: &str| row[name].as_str().unwrap().to_owned());
    let log = archive.parent().unwrap().with_extension("checkpoints").display().to_string();
    let public = format!("{}:{}", text("public_ip"), row["public_port"]);
    let typed = typed.split("   # ").next().unwrap().split("     # ").next().unwrap();
    typed
        .replace(
            "DIR/devices/site=cafe-1/date=2026-11-24/gw1-0000000001.parquet",
            "DIR/devices/site=*/date=*/*.parquet",
        )
        .replace("decode FILE", "decode DIR/flows/site=*/date=*/*.parquet")
        .replace("--checkpoint LOG", &format!("--checkpoint {log}"))
        .replace("--public-key PINS", "--public-key DIR/manifest/gw1.pub")
        .replace("--audit LOG", &format!("--audit {shown}.questions.jsonl"))
        .replace("203.0.113.7:55536", &public)
        .replace("2026-11-24T07:07:04.856+07:00", &text("start"))
        .replace(
            "--from 2026-11-23T10:00:00+07:00 --to 2026-11-23T11:00:00+07:00",
            &format!("--from {}", text("start")),
        )
        .replace("s3://records/wifi", "DIR")
        .replace("/var/lib/hotspot/archive", "DIR")
        .replace("DIR", &shown)
}

#[test]
fn every_question_of_the_pages_is_answered() {
    let lab = Lab::new(1).unwrap();
    let archive = asked_archive(&lab);
    let found = ask("find", &archive, &["user", "0912345678", "and", "proto", "tcp"]).unwrap();
    let row = found.iter().find(|row| row["public_port"].is_u64()).unwrap();
    let bin = path("hotspot").unwrap();
    let bin = bin.parent().unwrap().display().to_string();
    let mut asked = 0;
    for page in pages().iter().filter(|page| *page != "docs/identity.md") {
        for example in blocks(&read(page), "console").iter().flat_map(|block| examples(block)) {
            let typed = put_to(&archive, &example.typed, row);
            let output = Command::new("sh").args(["-c", &format!("PATH={bin}:$PATH; {typed}")]).output().unwrap();
            // Nothing here has ten megabytes, and nothing was recorded since the agent was stopped; of the questions before it the archive's own log has no head that was kept elsewhere.
            let expected = match () {
                () if typed.contains("bytes > 10M") => 3,
                () if typed.starts_with("hotspot verify") => 8,
                () => 0,
            };
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(expected), "{page}: {typed}\n{said}");
            asked += 1;
        }
    }
    assert!(asked >= 10, "{asked}");
}
