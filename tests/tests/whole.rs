//! "All was recorded" is a claim about the whole time asked for: stops, kills and restarts of a real agent, frames that nobody reads, and
//! packets that a device drops.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotspot_tests::lab::{Client, ECHO_PORT, Lab};
use hotspot_tests::namespace::{Namespace, run};
use hotspot_tests::programs::{Agent, ask, coverage, decoded, files, hotspot, questions};
use hotspot_tests::wait_until;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than what lies between two segments of an agent of an early version.
const REST_S: f64 = 2.5;

fn venue() -> (Lab, PathBuf) {
    let lab = Lab::new(1).unwrap();
    lab.clients[0].connect(&lab).unwrap();
    let data = lab.dir().join("data");
    (lab, data)
}

fn start(lab: &Lab, data: &Path, options: &[&str]) -> Agent {
    Agent::start(&lab.gateway, data, &[&["--generation", "1", "--grace", "0", "--no-nat"], options].concat()).unwrap()
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn rest() {
    let until_s = now_s() + REST_S;
    wait_until("some time passes", PATIENCE, || now_s() > until_s).unwrap();
}

/// What a question about some time says on standard error.
fn asked(archive: &Path, from_s: f64, to_s: f64, words: &[&str]) -> String {
    let log = questions(archive).display().to_string();
    let (from, to) = (format!("@{from_s:.3}"), format!("@{to_s:.3}"));
    let archive = archive.display().to_string();
    let question = ["find", "--archive", &archive, "--audit", &log, "--from", &from, "--to", &to, "user", "nobody"];
    String::from_utf8(hotspot(&[&question, words].concat()).unwrap().stderr).unwrap()
}

/// What `verify` says was not recorded, as words and what: that it is sealed no further, left out.
fn unrecorded(archive: &Path) -> Vec<(String, String)> {
    let verified = ask("verify", archive, &[]).unwrap();
    assert_eq!(verified[0]["verify"], "ok", "{verified:?}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = verified[0]["unrecorded"].as_array().unwrap().iter();
    let told = all.map(|one| (text(&one["why"]), text(&one["what"])));
    told.filter(|(why, _)| why != "not_sealed").collect()
}

/// Beginning and end of each segment, by the chain.
fn segments(archive: &Path) -> Vec<(i64, i64)> {
    // It is not there before something is sealed.
    let chain = std::fs::read_to_string(archive.join("manifest/gw1.jsonl")).unwrap_or_default();
    let lines = chain.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| Some((line["from_ns"].as_i64()?, line["to_ns"].as_i64()?))).collect()
}

/// Everything that coverage rows say, of one class of happenings.
fn happened(archive: &Path, prefix: &str) -> u64 {
    let rows: Vec<Value> =
        files(&archive.join("coverage")).unwrap().iter().flat_map(|file| decoded(file).unwrap()).collect();
    let of_packets = rows.iter().filter(|row| row["gap"].is_null());
    let happenings = of_packets.filter_map(|row| {
        let happenings = &row["happenings"];
        // Text that holds JSON, as the column does.
        match happenings {
            Value::String(text) => serde_json::from_str(text).ok(),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Some(other.clone())
            }
        }
    });
    let counts = happenings.flat_map(|all: Value| all.as_object().cloned().unwrap_or_default());
    counts.filter(|(label, _)| label.starts_with(prefix)).map(|(_, count)| count.as_u64().unwrap()).sum()
}

#[test]
fn an_orderly_stop_is_a_hole_until_the_next_start() {
    let (lab, data) = venue();
    let archive = data.join("archive");
    let agent = start(&lab, &data, &[]);
    lab.clients[0].echo(20_000..20_010).unwrap();
    assert!(agent.stop().unwrap().success());
    let stopped_s = now_s();
    rest();
    let agent = start(&lab, &data, &[]);
    lab.clients[0].echo(20_010..20_020).unwrap();
    assert!(agent.stop().unwrap().success());

    let words = "recorded nothing between segments 1 and 2";
    let said = asked(&archive, stopped_s + 0.5, stopped_s + 1.0, &[]);
    assert!(said.contains(words) && said.matches("not everything was recorded").count() == 1, "{said}");
    // Of a gateway that is not here, and of the gateway itself.
    let elsewhere = asked(&archive, stopped_s + 0.5, stopped_s + 1.0, &["and", "gateway", "gw2"]);
    assert!(!elsewhere.contains(words) && elsewhere.contains("no gateway of this archive"), "{elsewhere}");
    assert!(asked(&archive, stopped_s + 0.5, stopped_s + 1.0, &["and", "gateway", "gw1"]).contains(words));
    let [first, second] = segments(&archive)[..] else { panic!() };
    let within = |(from_ns, to_ns): (i64, i64)| {
        let (from_s, to_s) = (from_ns as f64 / 1e9, to_ns as f64 / 1e9);
        asked(&archive, from_s + 0.1, to_s - 0.1, &[])
    };
    assert!(!within(first).contains("not everything was recorded"), "{}", within(first));
    let [(why, what)] = &unrecorded(&archive).into_iter().filter(|(why, _)| why != "untold").collect::<Vec<_>>()[..]
    else {
        panic!("{:?}", unrecorded(&archive))
    };
    assert!(why == "between_segments" && what.contains(words), "{what}");
    let told = hotspot(&["coverage", "--archive", &archive.display().to_string()]).unwrap();
    assert!(String::from_utf8_lossy(&told.stderr).contains(words), "{told:?}");
    assert_eq!(told.status.code(), Some(3));
    assert!(second.0 > first.1);
}

#[test]
fn a_gateway_that_stopped_is_not_whole_up_to_now() {
    let (lab, data) = venue();
    let archive = data.join("archive");
    let agent = start(&lab, &data, &[]);
    let began_s = now_s();
    assert!(agent.stop().unwrap().success());
    let said = |from_s, to_s| asked(&archive, from_s, to_s, &[]);
    let words = "gateway gw1 has not sealed a segment of that time";
    assert!(said(began_s, now_s() + 86_400.0).contains(words));
    // As if it had stopped yesterday.
    assert!(said(now_s() + 86_400.0, now_s() + 86_401.0).contains(words));
    assert!(said(began_s - 86_400.0, began_s - 86_399.0).contains("gateway gw1 has no segment that old"));
}

#[test]
fn segments_of_a_gateway_that_counts_on_adjoin_to_the_nanosecond() {
    let (lab, data) = venue();
    let archive = data.join("archive");
    let options = ["--rotate", "2"];
    let sealed = |count: usize| {
        wait_until("segments are sealed", PATIENCE, || segments(&archive).len() >= count).unwrap();
    };
    let agent = start(&lab, &data, &options);
    sealed(2);
    agent.kill().unwrap();
    // The programs count without an agent.
    rest();
    lab.clients[0].echo(20_000..20_010).unwrap();
    let agent = start(&lab, &data, &[&options[..], &["--keep-attached"]].concat());
    sealed(4);
    assert!(agent.stop().unwrap().success());
    rest();
    lab.clients[0].echo(20_010..20_020).unwrap();
    let before = segments(&archive).len();
    let agent = start(&lab, &data, &options);
    sealed(before + 1);
    assert!(agent.stop().unwrap().success());
    let segments = segments(&archive);
    assert!(segments.windows(2).all(|pair| pair[0].1 == pair[1].0), "{segments:?}");
    assert_eq!(unrecorded(&archive), []);
    let echoes = ask("find", &archive, &["proto", "udp", "and", "dst", "port", &ECHO_PORT.to_string()]).unwrap();
    assert_eq!(echoes.len(), 20, "{echoes:?}");
}

/// Killed, and with nothing that counts on: as a machine that went down leaves it.
#[test]
fn a_kill_that_also_ends_the_programs_is_a_hole() {
    let (lab, data) = venue();
    let archive = data.join("archive");
    let agent = start(&lab, &data, &["--keep-attached"]);
    assert!(agent.stop().unwrap().success());
    for instance in std::fs::read_dir("/sys/fs/bpf/hotspot").unwrap().flatten() {
        if instance.file_name().to_string_lossy().starts_with("gw1-") {
            std::fs::remove_dir_all(instance.path()).unwrap();
        }
    }
    let stopped_s = now_s();
    rest();
    let agent = start(&lab, &data, &[]);
    assert!(agent.stop().unwrap().success());
    let said = asked(&archive, stopped_s + 0.5, stopped_s + 1.0, &[]);
    assert!(said.contains("recorded nothing between segments 1 and 2"), "{said}");
}

/// Sends so many frames of an ethertype from a client, as fast as it can.
fn flood(client: &Client, ethertype: u16, frames: u32) {
    let script = format!(
        "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ns.bind(('eth0', 0))\n\
         frame = b'\\xff' * 6 + bytes([2, 0, 0, 0, 9, 9]) + bytes([{}, {}]) + bytes(200)\n\
         for _ in range({frames}):\n    s.send(frame)\n",
        ethertype >> 8,
        ethertype & 0xff
    );
    run(client.namespace.command("python3").args(["-c", &script])).unwrap();
}

#[test]
fn clients_may_hide_in_frames_that_nobody_reads() {
    let (lab, data) = venue();
    let archive = data.join("archive");
    let agent = start(&lab, &data, &[]);
    let began_s = now_s();
    flood(&lab.clients[0], 0x8847, 1_500);
    flood(&lab.clients[0], 0x88e5, 500);
    let is_told = || agent.log().contains("clients may hide in packets that were not read");
    wait_until("the agent tells", PATIENCE, is_told).unwrap();
    flood(&lab.clients[0], 0x88e7, 400);
    let told = agent.log().matches("clients may hide").count();
    assert!(agent.stop().unwrap().success());
    assert_eq!(told, 1, "once");
    let said = asked(&archive, began_s, now_s(), &[]);
    let line = said.lines().find(|line| line.contains("clients may hide")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("gateway gw1, lan: ") && line.contains(" % of the packets"), "{line}");
    let ethertypes = "other_ethertype 2400 (of it 0x8847 1500, 0x88e5 500, 0x88e7 400)";
    assert!(line.contains(ethertypes), "{line}");
    assert_eq!(happened(&archive, "ethertype_"), 2_400);
    assert!(asked(&archive, began_s, now_s(), &["and", "interface", "lan"]).contains("clients may hide"));
    assert!(!asked(&archive, began_s, now_s(), &["and", "interface", "other"]).contains("clients may hide"));
}

#[test]
fn frames_of_all_ethertypes_are_counted_in_bounded_memory() {
    let (lab, data) = venue();
    let archive = data.join("archive");
    let agent = start(&lab, &data, &[]);
    let script = "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ns.bind(('eth0', 0))\n\
                  for kind in range(0x9500, 0x9900):\n    s.send(b'\\xff' * 6 + bytes([2, 0, 0, 0, 9, 9]) + kind.to_bytes(2, 'big') + bytes(60))\n";
    run(lab.clients[0].namespace.command("python3").args(["-c", script])).unwrap();
    assert!(agent.stop().unwrap().success());
    let rows = coverage(&archive).unwrap();
    let lan = rows.iter().find(|row| row["interface"] == "lan").unwrap();
    assert_eq!(lan["outcomes"]["other_ethertype"]["packets"], 0x400, "{lan}");
    assert_eq!(lan["balanced"], true);
    assert!(happened(&archive, "ethertype_") > 0);
}

/// The threads that poll a device, once it has some of its own.
fn polling_threads(gateway: &Namespace) -> Vec<String> {
    // /sys of the gateway's network namespace.
    let script = "mount -t sysfs none /sys && echo 1 > /sys/class/net/lan/threaded";
    run(Command::new("nsenter")
        .arg(format!("--net={}", gateway.path().display()))
        .args(["unshare", "-m", "sh", "-c", script]))
    .unwrap();
    let find = || run(Command::new("pgrep").args(["napi/lan-"])).unwrap_or_default();
    wait_until("the device is polled by threads", PATIENCE, || !find().trim().is_empty()).unwrap();
    find().split_whitespace().map(str::to_owned).collect()
}

fn transmit_drops(namespace: &Namespace, device: &str) -> u64 {
    let text = namespace.ip(&format!("-s -j link show dev {device}")).unwrap();
    let links: Value = serde_json::from_str(&text).unwrap();
    links[0]["stats64"]["tx"]["dropped"].as_u64().unwrap()
}

/// A process that keeps a processor busy, ended with this.
struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The programs get what a device does not drop before. With XDP a veth has a ring, and who polls it may be late.
#[test]
fn what_a_device_drops_before_it_can_be_counted_is_lost_evidence() {
    let (lab, data) = venue();
    let archive = data.join("archive");
    let agent = start(&lab, &data, &["--hook", "xdp"]);
    let began_s = now_s();
    for thread in polling_threads(&lab.gateway) {
        run(Command::new("taskset").args(["-pc", "0", &thread])).unwrap();
        run(Command::new("chrt").args(["-i", "-p", "0", &thread])).unwrap();
    }
    let dropped_before = transmit_drops(&lab.switch, "gw");
    let spin = Command::new("taskset").args(["-c", "0", "python3", "-c", "while True: pass"]).spawn().unwrap();
    let busy = Busy(spin);
    let mut sent = 0;
    while transmit_drops(&lab.switch, "gw") == dropped_before && sent < 100_000 {
        // For experiments: the stack drops it after the programs saw it, which is no loss.
        flood(&lab.clients[0], 0x88b5, 2_000);
        sent += 2_000;
    }
    drop(busy);
    let is_told = || agent.log().contains("packets are dropped before they can be counted");
    wait_until("the agent tells", PATIENCE, is_told).unwrap();
    assert!(agent.stop().unwrap().success());
    let dropped = transmit_drops(&lab.switch, "gw") - dropped_before;
    assert!(dropped > 0, "of {sent}");
    assert_eq!(happened(&archive, "dropped_"), dropped);
    let said = asked(&archive, began_s, now_s(), &[]);
    let words = format!("packets were dropped before they could be counted (veth_peer_tx_dropped {dropped})");
    assert!(said.contains(&words), "{said}");
}
