//! What docs/identity.md tells operators to type, as it stands there: every command of its examples is run, against a real agent.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use hotspot_tests::lab::{GATEWAY_V4, Lab};
use hotspot_tests::namespace::run;
use hotspot_tests::programs::{Agent, path, rows, write_secret};

const HMAC_KEY: &str = "0123456789abcdef-hmac-key";

/// An example: what is typed, and what is said to come.
#[derive(Debug)]
struct Example {
    typed: String,
    said: Vec<String>,
}

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/identity.md")).unwrap()
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
        assert!(matches!(output.status.code(), Some(0 | 1)), "{typed}: {}", String::from_utf8_lossy(&output.stderr));
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
