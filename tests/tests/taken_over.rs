//! Attacks on an archive that two running agents wrote, each as docs/threat-model.md has it, and what an agent does that starts over it.
//!
//! `hotspot-cli/tests/archives/attacks.rs` has all of them, on an archive that the agent's library wrote with years in it; here are those of
//! each attacker that need no years.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use hotspot_tests::lab::Lab;
use hotspot_tests::programs::{Agent, files, hotspot, path};
use hotspot_tests::wait_until;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const GATEWAYS: [&str; 2] = ["gw1", "gw2"];
/// Segments that each gateway has at least.
const SEGMENTS: usize = 3;

fn agent(lab: &Lab, gateway: &str, data: &Path, checkpoint: &Path) -> Command {
    let mut command = lab.gateway.command(&path("hotspot-agent").unwrap().display().to_string());
    command.args(["run", "--interface", "lan", "--site", "lab", "--gateway", gateway, "--retain", "flows=30d"]);
    command.args(["--rotate", "2", "--grace", "1", "--generation", "1", "--data-dir"]).arg(data);
    command.arg("--checkpoint").arg(format!("file:{}", checkpoint.display()));
    command
}

/// Two gateways, one after the other, each with clients that browse in each of its segments.
fn record(lab: &Lab) {
    lab.clients[0].connect(lab).unwrap();
    for gateway in GATEWAYS {
        let data = lab.dir().join(gateway);
        let checkpoint = lab.dir().join(format!("{gateway}.checkpoint"));
        let agent = Agent::start_command(&mut agent(lab, gateway, &data, &checkpoint), &data).unwrap();
        let flows = data.join("archive/flows");
        let sealed = || files(&flows).map_or(0, |segments| segments.len());
        for segments in 1..=SEGMENTS {
            lab.clients[0].browse().unwrap();
            wait_until("a segment is sealed", Duration::from_secs(60), || sealed() >= segments).unwrap();
        }
        assert!(agent.stop().unwrap().success());
    }
}

/// A copy under attack: the archive of the first gateway with that of the second in it, and what an attacker who has a gateway holds.
struct Attacked {
    dir: tempfile::TempDir,
}

impl Attacked {
    fn new(lab: &Lab) -> Self {
        let attacked = Self { dir: tempfile::tempdir().unwrap() };
        for gateway in GATEWAYS {
            let data = lab.dir().join(gateway);
            copy(&data.join("archive"), &attacked.archive());
            copy(&data.join("keys"), &attacked.dir.path().join(gateway).join("keys"));
            let checkpoint = format!("{gateway}.checkpoint");
            fs::copy(lab.dir().join(&checkpoint), attacked.dir.path().join(checkpoint)).unwrap();
        }
        attacked
    }

    /// Where the first gateway's agent looks for it.
    fn archive(&self) -> PathBuf {
        self.dir.path().join("gw1/archive")
    }

    fn chain(&self, gateway: &str) -> PathBuf {
        self.archive().join(format!("manifest/{gateway}.jsonl"))
    }

    fn lines(&self, gateway: &str) -> Vec<String> {
        fs::read_to_string(self.chain(gateway)).unwrap().lines().map(str::to_owned).collect()
    }

    fn write(&self, gateway: &str, lines: &[String]) {
        fs::write(self.chain(gateway), lines.join("\n") + "\n").unwrap();
    }

    fn key(&self, gateway: &str) -> SigningKey {
        let digits = fs::read_to_string(self.dir.path().join(gateway).join("keys/signing.key")).unwrap();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        SigningKey::from_bytes(&(0..64).step_by(2).map(byte).collect::<Vec<_>>().try_into().unwrap())
    }

    /// The entry of the flows of a gateway's last segment, and the number of its line.
    fn flows(&self, gateway: &str) -> (usize, Value) {
        let lines: Vec<Value> = self.lines(gateway).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let flows = |line: &Value| line["files"].as_array()?.iter().find(|file| file["class"] == "flows").cloned();
        let last = lines.iter().enumerate().rev().find_map(|(number, line)| Some((number, flows(line)?)));
        last.unwrap()
    }

    /// Appends an event as a gateway would, signed with a key.
    fn append(&self, gateway: &str, key: &SigningKey, event: &Value) {
        let mut lines = self.lines(gateway);
        let last = lines.last().unwrap();
        let now: Value = serde_json::from_str(last).unwrap();
        let at_ns = now.get("sealed_ns").or(now.get("at_ns")).unwrap();
        let (prev, id) = (sha256(last.as_bytes()), &sha256(key.verifying_key().as_bytes())[..16]);
        let text = format!(
            r#"{{"format":4,"gateway":"{gateway}","at_ns":{at_ns},"clock":{},"event":{event},"prev":"{prev}","key":"{id}"}}"#,
            now["clock"]
        );
        lines.push(signed(key, &text));
        self.write(gateway, &lines);
    }

    /// Says that a file was deleted, and deletes it.
    fn delete(&self, gateway: &str, key: &SigningKey, file: &Value) {
        self.append(gateway, key, &deleted(&file["path"], &file["sha256"]));
        fs::remove_file(self.archive().join(file["path"].as_str().unwrap())).unwrap();
    }

    /// As `deleted`, by a line that nobody signed.
    fn claim_unsigned(&self, path: &str, sha256: &str) {
        self.append("gw1", &self.key("gw1"), &deleted(&json!(path), &json!(sha256)));
        let mut lines = self.lines("gw1");
        let last = lines.pop().unwrap();
        let (object, _) = last.rsplit_once(r#","signature":"#).unwrap();
        lines.push(format!(r#"{object},"signature":"{}"}}"#, "00".repeat(64)));
        self.write("gw1", &lines);
    }

    /// What root's key says and is, beside the archive.
    fn secret(&self) -> (PathBuf, String) {
        let path = self.dir.path().join("gw1/keys/signing.key");
        let hash = sha256(&fs::read(&path).unwrap());
        (path, hash)
    }

    /// Writes a gateway's chain again from a line on, each line changed, linked and signed anew with the gateway's own key.
    fn write_again(&self, gateway: &str, from: usize, change: impl Fn(&mut Value)) {
        let key = self.key(gateway);
        let mut lines = self.lines(gateway);
        for number in from..lines.len() {
            let mut line: Value = serde_json::from_str(&lines[number]).unwrap();
            change(&mut line);
            line["prev"] = json!(sha256(lines[number - 1].as_bytes()));
            line.as_object_mut().unwrap().remove("signature");
            lines[number] = signed(&key, &line.to_string());
        }
        self.write(gateway, &lines);
    }

    fn cut(&self, gateway: &str, number: usize) {
        let lines = self.lines(gateway);
        for line in &lines[number..] {
            let line: Value = serde_json::from_str(line).unwrap();
            for file in line["files"].as_array().into_iter().flatten() {
                fs::remove_file(self.archive().join(file["path"].as_str().unwrap())).unwrap();
            }
        }
        self.write(gateway, &lines[..number]);
    }

    fn checkpoint(&self) -> [String; 2] {
        ["--checkpoint".to_owned(), self.dir.path().join("gw1.checkpoint").display().to_string()]
    }

    fn verify(&self, options: &[String]) -> (Option<i32>, String) {
        let archive = self.archive().display().to_string();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let output = hotspot(&[&["verify", "--json", "--archive", &archive], &options[..]].concat()).unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn verify_independently(&self, options: &[String]) -> Option<i32> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut command = Command::new(root.join("target/venv/bin/python"));
        command.arg(root.join("tests/python/verify_manifest.py")).arg(self.archive()).args(options);
        command.output().expect("`cargo xtask setup` makes target/venv").status.code()
    }

    /// How a search for everything ends, and how many rows it has of each gateway.
    fn find(&self) -> (Option<i32>, [usize; 2]) {
        let archive = self.archive().display().to_string();
        let audit = self.dir.path().join("questions.jsonl").display().to_string();
        let output = hotspot(&["find", "--json", "--archive", &archive, "--audit", &audit]).unwrap();
        let rows = String::from_utf8(output.stdout).unwrap();
        let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
        let of = |gateway: &str| rows.iter().filter(|row| row["gateway"] == gateway).count();
        (output.status.code(), GATEWAYS.map(of))
    }

    /// Starts the first gateway's agent over it, until it captures or ends.
    fn start_agent(&self, lab: &Lab) -> String {
        let data = self.dir.path().join("gw1");
        let checkpoint = self.dir.path().join("later.checkpoint");
        let mut agent = Agent::begin(&mut agent(lab, "gw1", &data, &checkpoint), &data).unwrap();
        let captures = agent.wait_until_it_captures().is_ok();
        let log = agent.log();
        if captures {
            agent.stop().unwrap();
        }
        log
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// An object with its signature as its last field.
fn signed(key: &SigningKey, object: &str) -> String {
    let signature = hex(&key.sign(object.as_bytes()).to_bytes());
    format!(r#"{},"signature":"{signature}"}}"#, object.strip_suffix('}').unwrap())
}

fn deleted(path: &Value, sha256: &Value) -> Value {
    json!({"deleted": {"why": "retention flows=30d", "files": [{"path": path, "sha256": sha256}]}})
}

/// What a search comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Every row of both gateways, and it says that all is well.
    All,
    /// Every row, and it says what is wrong.
    AllAndWhatIsWrong,
    /// Rows of the first gateway are missing, and it says that some are.
    LessAndSaysSo,
    /// Rows of the first gateway are missing, and only who kept a checkpoint knows.
    LessUnnoticed,
}

/// An attack as docs/threat-model.md calls it, and what a search finds afterwards. It returns what the verifier is given beside the archive.
type Attack = (&'static str, fn(&Attacked) -> Vec<String>, Found);

const ATTACKS: &[Attack] = &[
    (
        "a thief deletes what the policy she inherited keeps, with a line she signs",
        |it| {
            it.delete("gw1", &it.key("gw1"), &it.flows("gw1").1);
            Vec::new()
        },
        Found::LessAndSaysSo,
    ),
    (
        "a thief states a shorter retention and deletes by it",
        |it| {
            it.append("gw1", &it.key("gw1"), &json!({"policy": {"flows": 1}}));
            it.delete("gw1", &it.key("gw1"), &it.flows("gw1").1);
            Vec::new()
        },
        Found::LessAndSaysSo,
    ),
    (
        "a thief writes the lines of her epoch again, and a checkpoint was kept",
        |it| {
            let (last, _) = it.flows("gw1");
            it.write_again("gw1", last, |line| {
                if let Some(seen) = line["coverage"]["seen_packets"].as_u64() {
                    line["coverage"]["seen_packets"] = json!(seen + 1);
                }
            });
            it.checkpoint().into()
        },
        Found::All,
    ),
    (
        "a thief cuts lines of her epoch with their files, and a checkpoint was kept",
        |it| {
            it.cut("gw1", it.flows("gw1").0);
            it.checkpoint().into()
        },
        Found::LessUnnoticed,
    ),
    (
        "a line without a signature deletes a key outside of the archive",
        |it| {
            it.claim_unsigned("../keys/signing.key", &it.secret().1);
            Vec::new()
        },
        Found::AllAndWhatIsWrong,
    ),
    (
        "a line without a signature deletes by an absolute path",
        |it| {
            let (path, hash) = it.secret();
            it.claim_unsigned(path.to_str().unwrap(), &hash);
            Vec::new()
        },
        Found::AllAndWhatIsWrong,
    ),
    (
        "a signed line deletes a file outside of the archive, with its right hash",
        |it| {
            it.append("gw1", &it.key("gw1"), &deleted(&json!("../keys/signing.key"), &json!(it.secret().1)));
            Vec::new()
        },
        Found::AllAndWhatIsWrong,
    ),
    (
        "a line without a signature deletes a segment",
        |it| {
            let (_, flows) = it.flows("gw1");
            it.claim_unsigned(flows["path"].as_str().unwrap(), flows["sha256"].as_str().unwrap());
            Vec::new()
        },
        Found::AllAndWhatIsWrong,
    ),
    (
        "one byte of a line in the middle is changed",
        |it| {
            let mut lines = it.lines("gw1");
            let (last, _) = it.flows("gw1");
            lines[last - 1] = lines[last - 1].replacen("_ns\":1", "_ns\":2", 1);
            it.write("gw1", &lines);
            Vec::new()
        },
        Found::LessAndSaysSo,
    ),
    (
        "a segment is changed",
        |it| {
            let path = it.archive().join(it.flows("gw1").1["path"].as_str().unwrap());
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
            Vec::new()
        },
        Found::LessAndSaysSo,
    ),
    (
        "a segment is taken away",
        |it| {
            fs::remove_file(it.archive().join(it.flows("gw1").1["path"].as_str().unwrap())).unwrap();
            Vec::new()
        },
        Found::LessAndSaysSo,
    ),
    (
        "a gateway deletes a file of its neighbour",
        |it| {
            let (_, flows) = it.flows("gw1");
            it.append("gw2", &it.key("gw2"), &deleted(&flows["path"], &flows["sha256"]));
            Vec::new()
        },
        Found::AllAndWhatIsWrong,
    ),
    (
        "a gateway writes into the chain of its neighbour",
        |it| {
            let (_, flows) = it.flows("gw1");
            it.append("gw1", &it.key("gw2"), &deleted(&flows["path"], &flows["sha256"]));
            Vec::new()
        },
        Found::AllAndWhatIsWrong,
    ),
];

/// The exit code that docs/threat-model.md says.
fn code_of(name: &str) -> i32 {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/threat-model.md");
    let page = fs::read_to_string(page).unwrap();
    let row = page.lines().find(|line| line.starts_with(&format!("| {name} | ")));
    let row = row.unwrap_or_else(|| panic!("docs/threat-model.md has no row of {name:?}"));
    row.trim_end_matches(" |").rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn attacks_on_what_running_agents_wrote_end_as_the_threat_model_says() {
    let lab = Lab::new(1).unwrap();
    record(&lab);
    let honest = Attacked::new(&lab);
    assert_eq!(honest.verify(&honest.checkpoint()).0, Some(0), "{:?}", honest.verify(&[]));
    assert_eq!(honest.verify_independently(&honest.checkpoint()), Some(0));
    let (exit, all) = honest.find();
    assert!(exit == Some(0) && all.iter().all(|rows| *rows >= SEGMENTS), "{exit:?}, {all:?}");

    for (name, act, expected) in ATTACKS {
        let attacked = Attacked::new(&lab);
        let options = act(&attacked);
        let code = Some(code_of(name));
        let verified = attacked.verify(&options);
        assert_eq!(verified.0, code, "{name}: {}", verified.1);
        assert_eq!(attacked.verify_independently(&options), code, "{name}: the independent verifier");
        let (exit, rows) = attacked.find();
        let found = match (exit, rows == all) {
            (Some(0), true) => Found::All,
            (Some(3), true) => Found::AllAndWhatIsWrong,
            (Some(3), false) => Found::LessAndSaysSo,
            (Some(0), false) => Found::LessUnnoticed,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!((found, rows[1]), (*expected, all[1]), "{name}: {rows:?} of {all:?}");
        let before = files(attacked.dir.path()).unwrap();
        let log = attacked.start_agent(&lab);
        let lost: Vec<_> = before.iter().filter(|path| !path.exists()).collect();
        assert!(lost.is_empty(), "{name}: the agent removed {lost:?}\n{log}");
    }
}
