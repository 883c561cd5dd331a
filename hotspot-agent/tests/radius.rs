//! The accounting listener against `FreeRADIUS`'s `radclient`, with a real journal behind it.
//!
//! What radclient accepts as an answer is decided by `FreeRADIUS`, not by us; what was recorded is read back from the journal's
//! file. Needs root (one test fills a file system of its own) and the package freeradius-utils; fails where it cannot run.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hotspot_agent::identity::radius::{RadiusCounters, RadiusListener, RadiusSettings};
use hotspot_agent::recorder::{NotRecorded, Recorder, Submission};
use hotspot_archive::entry::{Entry, InterfaceName, JournalHeader};
use hotspot_archive::journal::{JournalKeys, JournalWriter, replay};
use hotspot_core::fact::{IdentitySource, SessionCounters, SessionEvent, SessionFact};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

const SECRET: &str = "s3cret-of-the-lab";

const IDENTITY: &str = r#"User-Name = "alice@example.net"
NAS-Identifier = "ap1"
NAS-Port-Id = "wlan0"
Acct-Session-Id = "5f00"
Framed-IP-Address = 10.20.0.14
Calling-Station-Id = "02-AA-BB-CC-DD-EE"
Called-Station-Id = "00-10-A4-23-19-C0:Cafe: upstairs"
Acct-Authentic = RADIUS
"#;

/// How radclient fared.
struct Asked {
    is_answered: bool,
    transcript: String,
}

/// Sends one accounting request: as often as `attempts`, one second apart, until an answer is accepted.
async fn radclient(address: SocketAddr, secret: &str, attempts: u32, attributes: String) -> Asked {
    let arguments =
        ["-x", "-t", "1", "-r", &attempts.to_string(), &address.to_string(), "acct", secret].map(str::to_owned);
    tokio::task::spawn_blocking(move || {
        let mut child = Command::new("radclient")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("needs radclient, of the package freeradius-utils");
        child.stdin.take().unwrap().write_all(attributes.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let transcript =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        let is_answered = output.status.success() && transcript.contains("Received Accounting-Response");
        Asked { is_answered, transcript }
    })
    .await
    .unwrap()
}

fn settings(dir: &Path, secret_file: &str) -> RadiusSettings {
    let path = dir.join("radius.secret");
    std::fs::write(&path, secret_file).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    RadiusSettings::new(path).unwrap()
}

fn journal(dir: &Path) -> (JournalWriter, PathBuf) {
    let path = dir.join("0000000001.journal");
    let header = JournalHeader {
        sequence: 1,
        site: "cafe".to_owned(),
        gateway: "gw1".to_owned(),
        boot_id: "b0071d".to_owned(),
        opened_ns: 0,
        software: "test".to_owned(),
        clock: None,
    };
    (JournalWriter::create(&path, &header, &JournalKeys::none()).unwrap(), path)
}

/// Does what the agent's journal thread does: appends, flushes, and only then says so.
fn keep(mut writer: JournalWriter, mut submissions: mpsc::Receiver<Submission>, delay: Duration) {
    tokio::spawn(async move {
        while let Some(submission) = submissions.recv().await {
            tokio::time::sleep(delay).await;
            let outcome = submission
                .entries
                .iter()
                .try_for_each(|entry| writer.append(entry))
                .and_then(|()| writer.commit())
                .map_err(|error| NotRecorded::Journal(error.to_string()));
            // The listener may be gone at the end of a test.
            let _ = submission.committed.send(outcome);
        }
    });
}

/// A listener on a port of its own, and the directory that holds its secret and journal.
struct Rig {
    dir: TempDir,
    address: SocketAddr,
    counters: Arc<RadiusCounters>,
    journal: PathBuf,
}

impl Rig {
    fn new(secret_file: &str, commit_delay: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (writer, journal) = journal(dir.path());
        let (recorder, submissions) = Recorder::new();
        keep(writer, submissions, commit_delay);
        let (address, counters) = listen(&settings(dir.path(), secret_file), recorder);
        Self { dir, address, counters, journal }
    }

    /// What the journal's file holds, read from the disk.
    fn sessions(&self) -> Vec<SessionFact> {
        let mut facts = Vec::new();
        replay(&self.journal, &JournalKeys::none(), |entry| {
            if let Entry::Session(fact) = entry {
                facts.push(fact);
            }
        })
        .unwrap();
        assert!(self.dir.path().exists(), "the journal lives as long as the rig");
        facts
    }
}

fn listen(settings: &RadiusSettings, recorder: Recorder) -> (SocketAddr, Arc<RadiusCounters>) {
    let mut listener = RadiusListener::new(settings);
    let address = listener.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let counters = listener.counters();
    tokio::spawn(async move {
        let (_stop, stopped) = watch::channel(false);
        listener.run(recorder, stopped).await
    });
    (address, counters)
}

fn now_ns() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_from_start_to_stop_is_on_disk_when_radclient_has_its_answers() {
    let rig = Rig::new(SECRET, Duration::ZERO);
    let before_ns = now_ns();
    let reports = [
        "Acct-Status-Type = Start\nAcct-Delay-Time = 3\n",
        "Acct-Status-Type = Interim-Update\nAcct-Session-Time = 60\n",
        "Acct-Status-Type = Stop\nAcct-Session-Time = 90\nAcct-Terminate-Cause = Idle-Timeout\n\
         Acct-Input-Octets = 1000\nAcct-Output-Octets = 7\nAcct-Output-Gigawords = 1\n\
         Acct-Input-Packets = 10\nAcct-Output-Packets = 20\n",
    ];
    for (number, report) in reports.iter().enumerate() {
        let asked = radclient(rig.address, SECRET, 1, format!("{IDENTITY}{report}")).await;
        assert!(asked.is_answered, "{}", asked.transcript);
        assert_eq!(rig.sessions().len(), number + 1, "on disk before the answer");
    }
    let after_ns = now_ns();
    let facts = rig.sessions();
    let events: Vec<_> = facts.iter().map(|fact| fact.event).collect();
    assert_eq!(events, [SessionEvent::Start, SessionEvent::Interim, SessionEvent::Stop]);
    for fact in &facts {
        assert_eq!(fact.source, IdentitySource::Radius);
        assert_eq!(fact.session_id, "ap1/5f00");
        assert_eq!(fact.user.as_deref(), Some("alice@example.net"));
        assert_eq!(fact.client_mac, Some("02:aa:bb:cc:dd:ee".parse().unwrap()));
        assert_eq!(fact.client_ips, ["10.20.0.14".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(fact.ap_mac, Some("00:10:a4:23:19:c0".parse().unwrap()));
        assert_eq!(fact.ssid.as_deref(), Some("Cafe: upstairs"));
        assert_eq!((fact.nas.as_deref(), fact.nas_port.as_deref()), (Some("ap1"), Some("wlan0")));
        assert_eq!(fact.auth_method.as_deref(), Some("radius"));
        assert!((before_ns..=after_ns).contains(&fact.received_ns));
    }
    assert_eq!(facts[0].at_ns, facts[0].received_ns, "a NAS that was never heard of cannot have waited for an answer");
    assert_eq!(facts[1].started_ns, Some(facts[1].at_ns - 60_000_000_000));
    assert_eq!(facts[2].end_cause.as_deref(), Some("Idle-Timeout"));
    let counted = SessionCounters { packets_out: 10, bytes_out: 1000, packets_in: 20, bytes_in: (1 << 32) + 7 };
    assert_eq!(facts[2].counters, Some(counted), "input of the NAS is the client's out");
    assert_eq!(rig.counters.to_string(), "recorded=3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_of_the_nas_is_recorded_and_answered() {
    let rig = Rig::new(SECRET, Duration::ZERO);
    for status in ["Accounting-On", "Accounting-Off"] {
        let report = format!("NAS-Identifier = \"ap1\"\nAcct-Status-Type = {status}\n");
        let asked = radclient(rig.address, SECRET, 1, report).await;
        assert!(asked.is_answered, "{}", asked.transcript);
    }
    let facts = rig.sessions();
    assert!(facts.iter().all(|fact| fact.event == SessionEvent::NasReset && fact.nas.as_deref() == Some("ap1")));
    assert_eq!(facts.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_gets_no_answer_and_is_counted() {
    let rig = Rig::new(SECRET, Duration::ZERO);
    let asked = radclient(rig.address, "another", 1, format!("{IDENTITY}Acct-Status-Type = Start\n")).await;
    assert!(!asked.is_answered, "{}", asked.transcript);
    assert!(asked.transcript.contains("No reply"), "{}", asked.transcript);
    assert_eq!(rig.counters.to_string(), "bad_authenticator=1");
    assert_eq!(rig.sessions(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_secret_gets_no_answer_and_is_counted() {
    let rig = Rig::new(&format!("10.20.0.0/24 {SECRET}\n"), Duration::ZERO);
    let asked = radclient(rig.address, SECRET, 1, format!("{IDENTITY}Acct-Status-Type = Start\n")).await;
    assert!(!asked.is_answered, "{}", asked.transcript);
    assert_eq!(rig.counters.to_string(), "unknown_client=1");
    assert_eq!(rig.sessions(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_prefix_has_the_secret() {
    let rig = Rig::new(&format!("127.0.0.0/8 another\n127.0.0.1 {SECRET}\n0.0.0.0/0 third\n"), Duration::ZERO);
    let asked = radclient(rig.address, SECRET, 1, format!("{IDENTITY}Acct-Status-Type = Start\n")).await;
    assert!(asked.is_answered, "{}", asked.transcript);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_sent_again_while_it_is_being_recorded_is_recorded_once() {
    let rig = Rig::new(SECRET, Duration::from_millis(2500));
    let asked = radclient(rig.address, SECRET, 5, format!("{IDENTITY}Acct-Status-Type = Start\n")).await;
    assert!(asked.is_answered, "{}", asked.transcript);
    assert_eq!(rig.sessions().len(), 1);
    let counters = &rig.counters;
    assert_eq!(counters.recorded() + counters.duplicates(), counters.total());
    assert!(counters.duplicates() >= 1, "radclient asks again after one second: {}", asked.transcript);
}

/// A file system of 256 KiB.
struct TinyDisk(TempDir);

impl TinyDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tiny"]).arg(dir.path()).status().unwrap();
        assert!(mounted.success(), "needs root: a file system to fill");
        Self(dir)
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // Lazily, because the journal may still be open.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_when_the_disk_is_full() {
    let disk = TinyDisk::mount();
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = journal(disk.0.path());
    let filler = Entry::Interface(InterfaceName { number: 0, name: incompressible() });
    let full = (0..1000).find_map(|_| writer.append(&filler).and_then(|()| writer.commit()).err());
    assert!(full.is_some(), "a file system of 256 KiB is full by now");
    let (recorder, submissions) = Recorder::new();
    keep(writer, submissions, Duration::ZERO);
    let (address, counters) = listen(&settings(dir.path(), SECRET), recorder);
    let asked = radclient(address, SECRET, 2, format!("{IDENTITY}Acct-Status-Type = Start\n")).await;
    assert!(!asked.is_answered, "{}", asked.transcript);
    assert_eq!(counters.to_string(), "not_recorded=2", "each attempt is tried anew");
}

/// Two kilobytes of text that zstd cannot shorten much.
fn incompressible() -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut text = String::with_capacity(256 * 8);
    for _ in 0..256 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        write!(text, "{:08x}", state >> 32).unwrap();
    }
    text
}
