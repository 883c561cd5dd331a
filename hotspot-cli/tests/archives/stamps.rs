//! Time stamps of a real authority (`openssl ts`), and forged ones.

use std::fs;
use std::path::Path;
use std::process::Command;

use hotspot_archive::chain::parse_checkpoint;
use hotspot_archive::checkpoints;
use hotspot_archive::manifest::to_hex;

use crate::outside::{done, hotspot};
use crate::venue::{BEGIN_NS, SECOND_NS, SEGMENTS, Venue, text};

/// An authority with its keys, and an archive with a checkpoint.
struct Stamped {
    dir: tempfile::TempDir,
    venue: Venue,
    checkpoint: String,
}

impl Stamped {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        done(python().args(["make", &dir.path().display().to_string()]));
        fs::write(dir.path().join("serial"), "01\n").unwrap();
        let venue = Venue::new(false);
        let checkpoint = venue.manifest().checkpoint(BEGIN_NS + SEGMENTS as i64 * 300 * SECOND_NS).unwrap();
        checkpoints::keep(&venue.archive(), "gw", &checkpoint).unwrap();
        Self { dir, venue, checkpoint }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// A command that answers as the authority does.
    fn authority(&self, name: &str) -> String {
        let question = self.path("question");
        format!(
            "cat > {question}; openssl ts -reply -config {} -queryfile {question} 2>/dev/null",
            self.path(&format!("{name}.conf"))
        )
    }

    fn stamp(&self, words: &[&str]) -> std::process::Output {
        hotspot(&["stamp", "--archive", &self.venue.archive().display().to_string()]).args(words).output().unwrap()
    }

    fn file(&self) -> std::path::PathBuf {
        self.venue.archive().join("checkpoints/gw-24.tsr")
    }

    fn verify(&self, root: &str) -> (Option<i32>, String) {
        let mut verify = hotspot(&["verify", "--archive", &self.venue.archive().display().to_string()]);
        let output = verify.args(["--tsa-ca", &self.path(root)]).output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    fn imprint(&self) -> String {
        to_hex(&parse_checkpoint(&self.checkpoint).unwrap().imprint())
    }

    /// A stamp that says what it is told to.
    fn forge(&self, signer: &str, imprint: &str, time: &str) {
        let forged = done(python().args(["forge", &self.path(""), signer, imprint, time]));
        fs::write(self.file(), forged.stdout).unwrap();
    }

    fn refuse(&self, root: &str, part: &str) {
        let (code, said) = self.verify(root);
        assert!(code == Some(3) && said.contains(part), "{part}: {said}");
        assert!(said.contains("by the gateway's own word, and nobody else's"), "{said}");
    }
}

fn python() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(root.join("target/venv/bin/python"));
    command.arg(root.join("tests/python/tsa.py"));
    command
}

#[test]
fn a_checkpoint_is_stamped_by_authorities_of_either_kind_and_openssl_agrees() {
    for (name, authority) in [("ec", "Test TSA"), ("rsa", "Test RSA TSA")] {
        let stamped = Stamped::new();
        let output = stamped.stamp(&["--tsa-command", &stamped.authority(name), "--tsa-ca", &stamped.path("root.pem")]);
        assert!(output.status.success(), "{output:?}");
        let (code, said) = stamped.verify("root.pem");
        let sentence = format!("(line 24) by authority {authority}\n");
        assert!(code == Some(0) && said.contains("gw: unchanged since 20") && said.contains(&sentence), "{said}");
        fs::write(stamped.path("text"), &stamped.checkpoint).unwrap();
        let tsr = stamped.file().display().to_string();
        let mut openssl = Command::new("openssl");
        openssl.args([
            "ts",
            "-verify",
            "-in",
            &tsr,
            "-data",
            &stamped.path("text"),
            "-CAfile",
            &stamped.path("root.pem"),
        ]);
        done(openssl.args(["-untrusted", &stamped.path("middle.pem")]));
        // It is not asked for twice, and counts for nothing where its authority is not named.
        let again = stamped.stamp(&["--tsa-command", "false"]);
        assert!(again.status.success() && text(&again.stdout).contains("has its stamp already"), "{again:?}");
        let output =
            hotspot(&["verify", "--archive", &stamped.venue.archive().display().to_string()]).output().unwrap();
        assert!(text(&output.stdout).contains("1 time stamps were not looked at"), "{output:?}");
        // What was stamped before the chain was written again says so.
        let chain = stamped.venue.archive().join("manifest/gw.jsonl");
        let kept: String = fs::read_to_string(&chain).unwrap().split_inclusive('\n').take(20).collect();
        fs::write(&chain, kept).unwrap();
        let (code, said) = stamped.verify("root.pem");
        assert!(code == Some(3) && said.contains(&format!("(a checkpoint that {authority} stamped at 20")), "{said}");
    }
}

#[test]
fn an_authority_is_asked_by_http_and_again_where_it_did_not_answer() {
    use std::io::{BufRead, BufReader, Read, Write};
    let stamped = Stamped::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/tsa", listener.local_addr().unwrap());
    let command = stamped.authority("ec");
    let server = std::thread::spawn(move || {
        let mut types = Vec::new();
        for number in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line).unwrap() > 2 {
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                types.extend(lower.strip_prefix("content-type: ").map(|value| value.trim().to_owned()));
                line.clear();
            }
            let mut question = vec![0; length];
            reader.read_exact(&mut question).unwrap();
            if number == 0 {
                stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
                continue;
            }
            let mut child = Command::new("/bin/sh")
                .args(["-c", &command])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(&question).unwrap();
            let reply = child.wait_with_output().unwrap().stdout;
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", reply.len()).unwrap();
            stream.write_all(&reply).unwrap();
        }
        types
    });
    let output = stamped.stamp(&["--tsa", &url]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.join().unwrap(), ["application/timestamp-query"; 2]);
    assert_eq!(stamped.verify("root.pem").0, Some(0));
}

#[test]
fn what_comes_back_and_is_no_stamp_is_not_kept() {
    let stamped = Stamped::new();
    let other = stamped.path("other");
    fs::write(stamped.path("c"), "something else").unwrap();
    let question = stamped.path("q");
    done(Command::new("openssl").args([
        "ts",
        "-query",
        "-sha256",
        "-cert",
        "-data",
        &stamped.path("c"),
        "-out",
        &question,
    ]));
    let mut reply = Command::new("openssl");
    done(reply.args(["ts", "-reply", "-config", &stamped.path("ec.conf"), "-queryfile", &question, "-out", &other]));
    for command in
        ["false".to_owned(), "echo '<html>'".to_owned(), format!("cat {other}"), "cat > /dev/null".to_owned()]
    {
        let output = stamped.stamp(&["--tsa-command", &command]);
        assert!(output.status.code() == Some(3) && !stamped.file().exists(), "{command}: {output:?}");
    }
}

#[test]
fn forged_stamps_are_found() {
    let stamped = Stamped::new();
    let (imprint, time) = (stamped.imprint(), "20261123030203Z");
    stamped.forge("ec", &imprint, time);
    let (code, said) = stamped.verify("root.pem");
    assert!(
        code == Some(0) && said.contains("unchanged since 2026-11-23T03:02:03Z (line 24) by authority Test TSA"),
        "the way of forging: {said}"
    );
    for (signer, part) in [
        ("web", "is not for time stamping, and for that alone"),
        ("both", "is not for time stamping, and for that alone"),
        ("loose", "is not for time stamping, and for that alone"),
        ("self-signed", "does not lead to one given with --tsa-ca"),
        ("under-expired", "does not lead to one given with --tsa-ca"),
        ("over", "does not lead to one given with --tsa-ca"),
    ] {
        stamped.forge(signer, &imprint, time);
        stamped.refuse("root.pem", part);
    }
    stamped.forge("under-expired", &imprint, time);
    stamped.refuse("expired-root.pem", "no certificate given with --tsa-ca was valid at the time that it stamps");
    stamped.forge("under-expired", &imprint, "20201123030203Z");
    let (code, said) = stamped.verify("expired-root.pem");
    // While it was valid; but then the lines say that they were written years after they were stamped.
    assert!(said.contains("unchanged since 2020-11-23T03:02:03Z (line 24) by authority"), "{said}");
    let is_told = said.contains("was written later than 2020-11-23T03:02:03Z by its own word, when authority");
    assert!(code == Some(9) && is_told, "{code:?}: {said}");
    stamped.forge("ec", &"00".repeat(32), time);
    stamped.refuse("root.pem", "is the time stamp of something else");
    stamped.forge("ec", &imprint, "20261323030203Z");
    stamped.refuse("root.pem", "its time cannot be read");
}

#[test]
fn any_byte_of_a_stamp_that_is_changed_is_found() {
    let stamped = Stamped::new();
    stamped.forge("ec", &stamped.imprint(), "20261123030203Z");
    let genuine = fs::read(stamped.file()).unwrap();
    let at = |part: &[u8]| genuine.windows(part.len()).position(|found| found == part).unwrap();
    let time = at(b"20261123030203Z");
    let imprint = at(&parse_checkpoint(&stamped.checkpoint).unwrap().imprint());
    for (what, place) in [("time", time + 7), ("imprint", imprint + 3), ("signature", genuine.len() - 9)] {
        let mut changed = genuine.clone();
        changed[place] ^= 1;
        fs::write(stamped.file(), &changed).unwrap();
        stamped.refuse(
            "root.pem",
            if what == "signature" { "its signature does not fit" } else { "its content is not what was signed" },
        );
    }
    // Whatever else is changed, it attests nothing new: the same stamp, or a finding.
    let step = genuine.len() / 60;
    for place in (0..genuine.len()).step_by(step) {
        let mut changed = genuine.clone();
        changed[place] ^= 0x10;
        fs::write(stamped.file(), &changed).unwrap();
        let (code, said) = stamped.verify("root.pem");
        let is_same = code == Some(0) && said.contains("since 2026-11-23T03:02:03Z (line 24) by authority Test TSA");
        assert!(code == Some(3) || is_same, "byte {place}: {said}");
    }
    fs::write(stamped.file(), &genuine[..genuine.len() / 2]).unwrap();
    stamped.refuse("root.pem", "is no answer of a time-stamping authority");
}
