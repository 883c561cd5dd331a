//! Times: right to some milliseconds, and in order, explained and reparable where somebody sets the clock.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotspot_tests::lab::{ECHO_PORT, GATEWAY_V4, Lab, SERVER_V4};
use hotspot_tests::namespace::run;
use hotspot_tests::programs::{Agent, ask, coverage, users, write_secret};
use hotspot_tests::wait_until;
use serde_json::Value;

const HOUR_S: i64 = 3600;
/// What the agent's wall clock may be wrong by.
const ERROR_S: f64 = 0.005;

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Recorded echoes: the client's port, the first packet's time, and the flow.
fn echoes(archive: &Path) -> Vec<(u64, f64, Value)> {
    let filter = ["proto", "udp", "and", "dst", "port", &ECHO_PORT.to_string()];
    let flows = ask("find", archive, &filter).unwrap();
    let mut echoes: Vec<(u64, f64, Value)> =
        flows.into_iter().map(|flow| (flow["client_port"].as_u64().unwrap(), seconds(&flow["start"]), flow)).collect();
    echoes.sort_by_key(|(port, _, _)| *port);
    echoes
}

/// A time as the tool writes it.
fn seconds(time: &Value) -> f64 {
    let date = run(Command::new("date").args(["-d", time.as_str().unwrap(), "+%s.%N"])).unwrap();
    date.trim().parse().unwrap()
}

#[test]
fn a_packets_time_is_that_of_the_wall_clock() {
    let lab = Lab::new(1).unwrap();
    lab.clients[0].connect(&lab).unwrap();
    let data = lab.dir().join("data");
    let agent = Agent::start(&lab.gateway, &data, &["--generation", "1", "--grace", "0"]).unwrap();
    // Before it is sent, and after the answer came, which passed the gateway later.
    let script = format!(
        "import socket, time\nfor port in range(20000, 20050):\n    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
         s.settimeout(5)\n    s.bind(('', port))\n    before = time.time()\n    s.sendto(b'e', ('{SERVER_V4}', {ECHO_PORT}))\n    \
         s.recvfrom(2048)\n    print(port, before, time.time())\n    time.sleep(0.05)\n"
    );
    let sent = run(lab.clients[0].namespace.command("python3").args(["-c", &script])).unwrap();
    assert!(agent.stop().unwrap().success());
    let recorded = echoes(&data.join("archive"));
    assert_eq!(recorded.len(), 50);
    for (line, (port, start_s, _)) in sent.lines().zip(recorded) {
        let (sent_port, times) = line.split_once(' ').unwrap();
        assert_eq!(sent_port, port.to_string());
        let (before, after) = times.split_once(' ').unwrap();
        let [before_s, after_s] = [before, after].map(|word| word.parse::<f64>().unwrap());
        assert!(before_s - ERROR_S <= start_s && start_s <= after_s + ERROR_S, "{line}: {start_s}");
    }
}

/// The wall clock of one program, ahead of the machine's by what is in a file.
struct Clock(PathBuf);

impl Clock {
    fn set(&self, ahead_s: i64) {
        // In one step: the library reads it at any moment.
        let fresh = self.0.with_extension("new");
        std::fs::write(&fresh, format!("{ahead_s:+}\n")).unwrap();
        std::fs::rename(&fresh, &self.0).unwrap();
    }

    fn put_before(&self, command: &mut Command) {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
        assert!(Path::new(&library).exists(), "{library}: run `cargo xtask setup`");
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &self.0);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

/// A gateway wakes up in 1970, finds the time, is set an hour wrong, and right again.
#[test]
fn a_clock_that_is_set_is_explained_and_times_are_reparable() {
    let lab = Lab::new(1).unwrap();
    let client = &lab.clients[0];
    client.connect(&lab).unwrap();
    let data = lab.dir().join("data");
    let secret = lab.dir().join("secret");
    write_secret(&secret, "s3cret").unwrap();
    let clock = Clock(lab.dir().join("clock"));
    let began_s = now_s();
    // Some days after 1970 began.
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
    let to_1970_s = 864_000 - began_s as i64;
    clock.set(to_1970_s);
    let listen = format!("{GATEWAY_V4}:1813");
    // The kernel's times of translations are by the machine's clock, which is not set here.
    let options = ["--generation", "1", "--grace", "0", "--no-nat", "--radius-listen", &listen, "--radius-secret-file"];
    let secret = secret.display().to_string();
    let mut command = Agent::command(&lab.gateway, &data, &[&options[..], &[&secret]].concat()).unwrap();
    clock.put_before(&mut command);
    let agent = Agent::start_command(&mut command, &data).unwrap();
    let login = "Acct-Status-Type = Start\nAcct-Session-Id = \"1\"\nUser-Name = \"ann\"\nCalling-Station-Id = \"02-00-00-00-01-01\"\n";
    lab.account(login, "s3cret").unwrap();
    client.echo(20_000..20_010).unwrap();
    for (position, ahead_s) in [0, HOUR_S, 0].into_iter().enumerate() {
        clock.set(ahead_s);
        let noticed = || agent.log().matches("the wall clock was set").count() == position + 1;
        wait_until("the step is noticed", Duration::from_secs(5), noticed).unwrap();
        // What is logged first is done after it.
        std::thread::sleep(Duration::from_millis(500));
        let first = 20_100 + 100 * u16::try_from(position).unwrap();
        client.echo(first..first + 10).unwrap();
    }
    assert!(agent.stop().unwrap().success());
    let ended_s = now_s();

    let archive = data.join("archive");
    assert_eq!(ask("verify", &archive, &[]).unwrap()[0]["verify"], "ok");
    let recorded = echoes(&archive);
    assert_eq!(recorded.len(), 40);
    for (port, _, flow) in &recorded {
        assert_eq!(users(flow), ["ann"], "{port}");
        // The login names no address. Whether the device showed it to be its own meanwhile is up to its neighbours.
        assert!(["authenticated", "mac_only"].contains(&flow["attribution"].as_str().unwrap()), "{flow}");
        let lasted_s = seconds(&flow["end"]) - seconds(&flow["start"]);
        assert!((0.0..60.0).contains(&lasted_s), "{flow}");
    }
    let rows = coverage(&archive).unwrap();
    let gaps: Vec<&str> =
        rows.iter().flat_map(|row| row["gaps"].as_array().unwrap()).filter_map(Value::as_str).collect();
    let steps = |way: &str| gaps.iter().filter(|gap| gap.contains(way)).count();
    assert_eq!((gaps.len(), steps("set forward by"), steps("set back by 3600.")), (3, 2, 1), "{gaps:?}");

    let clocks = ask("clock", &archive, &[]).unwrap();
    let corrections: Vec<f64> = clocks.iter().map(|row| row["correction_s"].as_f64().unwrap()).collect();
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let expected = [-to_1970_s as f64, 0.0, -HOUR_S as f64, 0.0];
    assert_eq!(corrections.len(), expected.len(), "{clocks:?}");
    assert!(
        corrections.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1.0),
        "{corrections:?}"
    );

    // A flow that lasts for no rotation is in the segment its id begins with (docs/formats/records.md).
    let to_be_added_s = |flow: &Value| {
        let sequence = flow["flow_id"].as_u64().unwrap() >> 32;
        let of_it = |row: &&Value| {
            (row["first_sequence"].as_u64().unwrap()..=row["last_sequence"].as_u64().unwrap()).contains(&sequence)
        };
        clocks.iter().find(of_it).unwrap()["correction_s"].as_f64().unwrap()
    };
    let mut before_s = began_s - ERROR_S;
    for (port, start_s, flow) in recorded {
        let start_s = start_s + to_be_added_s(&flow);
        assert!(before_s <= start_s && start_s <= ended_s + ERROR_S, "{port}: {start_s} is not after {before_s}");
        before_s = start_s;
    }
}
