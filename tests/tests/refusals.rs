//! What is wrong is said, with the way out and the exit code; and nothing is left behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hotspot_tests::lab::{GATEWAY_V4, Lab, SERVER_V4};
use hotspot_tests::mount::Mount;
use hotspot_tests::programs::{Agent, ask, coverage, hotspot, path, users};
use hotspot_tests::wait_until;

/// How an agent that does not start ends: its exit code, and what it says.
fn refusal(lab: &Lab, data: &Path, options: &[&str]) -> (Option<i32>, String) {
    let output = Agent::command(&lab.gateway, data, options).unwrap().output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn secret_file(lab: &Lab, mode: u32) -> String {
    let file = lab.dir().join(format!("secret-{mode:o}"));
    std::fs::write(&file, "s3cret").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    file.display().to_string()
}

#[test]
fn an_agent_that_cannot_run_says_why() {
    let lab = Lab::new(0).unwrap();
    let data = lab.dir().join("data");
    let check = |options: &[&str], code: i32, said: &[&str]| {
        let (found, text) = refusal(&lab, &data, options);
        assert_eq!(found, Some(code), "{options:?}: {text}");
        assert!(said.iter().all(|part| text.contains(part)), "{options:?}: {text}");
    };
    check(&["--interface", "nosuch0"], 2, &["nosuch0", "lan"]);
    check(&["--bpffs", "/tmp"], 4, &["not a BPF file system", "mount -t bpf"]);
    let open = secret_file(&lab, 0o644);
    check(&["--radius-listen", "127.0.0.1:1813", "--radius-secret-file", &open], 4, &[&open, "chmod 600"]);
    let (code, text) = refusal(&lab, Path::new("/proc/nothing"), &[]);
    assert!(code == Some(4) && text.contains("the data directory /proc/nothing"), "{text}");
    check(&["--rotate", "0"], 2, &["--rotate"]);
    let mut unprivileged = lab.gateway.command("setpriv");
    let agent = path("hotspot-agent").unwrap();
    unprivileged.args(["--reuid=65534", "--clear-groups"]).arg(&agent);
    let output = unprivileged
        .args(["run", "--interface", "lan", "--site", "s", "--gateway", "g", "--data-dir", "/tmp/x"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("needs root"), "{text}");
}

#[test]
fn who_asks_before_the_first_segment_is_told_when_it_comes() {
    let lab = Lab::new(0).unwrap();
    let data = lab.dir().join("data");
    let agent = Agent::start(&lab.gateway, &data, &["--rotate", "3600", "--grace", "5"]).unwrap();
    let archive = data.join("archive").display().to_string();
    let ask = |command: &str| {
        let output = hotspot(&[command, "--archive", &archive]).unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    let announced = std::fs::read_to_string(data.join("archive/manifest/gw1.first")).unwrap();
    let announced: serde_json::Value = serde_json::from_str(&announced).unwrap();
    let ns = |name: &str| announced[name].as_i64().unwrap();
    assert_eq!(ns("expected_ns") - ns("began_ns"), 3_605_000_000_000);
    for command in ["find", "coverage", "verify", "clock"] {
        let (code, said) = ask(command);
        assert_eq!(code, Some(3), "{command}: {said}");
        assert!(
            said.contains("nothing is sealed yet by gateway gw1; the first segment comes at "),
            "{command}: {said}"
        );
    }
    assert!(agent.stop().unwrap().success());
    let (code, said) = ask("coverage");
    assert!(code == Some(0) && said.contains("everything was recorded"), "{said}");
    assert!(!data.join("archive/manifest/gw1.first").exists());
}

#[test]
fn a_second_agent_is_told_who_the_first_is() {
    let lab = Lab::new(0).unwrap();
    let data = lab.dir().join("data");
    let agent = Agent::start(&lab.gateway, &data, &[]).unwrap();
    let pid = format!("pid {}", agent.pid());
    let (code, text) = refusal(&lab, &data, &[]);
    assert_eq!(code, Some(4));
    assert!(text.contains("data directory") && text.contains(&pid), "{text}");
    let (code, text) = refusal(&lab, &lab.dir().join("other"), &[]);
    assert_eq!(code, Some(4));
    assert!(text.contains("interface lan") && text.contains(&pid), "{text}");
    assert!(agent.stop().unwrap().success());
}

#[test]
fn an_agent_that_ends_leaves_nothing_attached_unless_asked() {
    let lab = Lab::new(0).unwrap();
    let data = lab.dir().join("data");
    // A program lives as long as something attaches or pins it; the kernel frees it a moment later.
    let programs = || -> HashSet<String> {
        let shown = hotspot_tests::namespace::run(Command::new("bpftool").args(["prog", "show"])).unwrap();
        shown.lines().filter(|line| line.contains("name hotspot_")).map(str::to_owned).collect()
    };
    let before = programs();
    let attached = || programs().difference(&before).count() > 0;
    let gone = || wait_until("the programs are gone", Duration::from_secs(10), || !attached()).unwrap();
    let agent = Agent::start(&lab.gateway, &data, &[]).unwrap();
    assert!(attached());
    assert!(agent.stop().unwrap().success());
    gone();
    let agent = Agent::start(&lab.gateway, &data, &["--keep-attached"]).unwrap();
    assert!(agent.stop().unwrap().success());
    assert!(attached(), "counting goes on");
    let agent = Agent::start(&lab.gateway, &data, &[]).unwrap();
    assert!(agent.log().contains("took over from an earlier agent"));
    assert!(agent.stop().unwrap().success());
    gone();
}

#[test]
fn bad_radius_packets_are_counted_and_the_daemon_goes_on() {
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    let secret = secret_file(&lab, 0o600);
    let listen = format!("{GATEWAY_V4}:1813");
    let options = ["--radius-listen", &listen, "--radius-secret-file", &secret, "--grace", "0"];
    let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
    let start = "Acct-Status-Type = Start\nAcct-Session-Id = \"x\"\nUser-Name = \"late\"\nCalling-Station-Id = \"02-00-00-00-01-01\"\n";
    assert!(lab.account(start, "another secret").is_err(), "a forged packet is not answered");
    let short = format!(
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'\\x04\\x01', ('{GATEWAY_V4}', 1813))\n"
    );
    hotspot_tests::namespace::run(lab.switch.command("python3").args(["-c", &short])).unwrap();
    wait_until("the refusal is logged", Duration::from_secs(5), || agent.log().contains("refused")).unwrap();

    // A login that is reported late, after the traffic, with the time it happened: it still counts. That it is late, and not the clock of
    // the NAS wrong, shows by a report that was in time and came before it.
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let other = "Acct-Status-Type = Start\nAcct-Session-Id = \"y\"\nCalling-Station-Id = \"02-00-00-00-01-09\"\n";
    lab.account(&format!("{other}Event-Timestamp = {}\n", now()), "s3cret").unwrap();
    let client = &lab.clients[0];
    client.connect(&lab).unwrap();
    let login = now();
    // Event-Timestamp is a whole second, so what it says is a second off.
    std::thread::sleep(Duration::from_secs(2));
    client.namespace.run(&format!("ping -c 1 -W 5 {SERVER_V4}")).unwrap();
    let ip = client.addresses().unwrap().into_iter().find(|ip| !ip.contains(':')).unwrap();
    // Time has to pass: less than some seconds is no lateness.
    std::thread::sleep(Duration::from_secs(5));
    lab.account(&format!("{start}Event-Timestamp = {login}\nFramed-IP-Address = {ip}\n"), "s3cret").unwrap();
    assert!(agent.stop().unwrap().success());
    let pings = ask("find", &data.join("archive"), &["proto", "icmp", "and", "dst", "ip", SERVER_V4]).unwrap();
    assert_eq!(pings.len(), 1);
    assert_eq!((users(&pings[0]), pings[0]["attribution"].as_str()), (vec!["late"], Some("authenticated")));
}

#[test]
fn a_full_disk_stops_nothing_and_loses_nothing() {
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let mount = Mount::tmpfs(&data, "size=3m").unwrap();
    let agent = Agent::start(&lab.gateway, &data, &["--generation", "1", "--rotate", "60", "--grace", "0"]).unwrap();
    let ballast = data.join("ballast");
    hotspot_tests::namespace::run(
        Command::new("sh").args(["-c", &format!("head -c 100M /dev/zero > {} || true", ballast.display())]),
    )
    .unwrap();
    let client = &lab.clients[0];
    client.namespace.ip("addr add 10.20.0.9/24 dev eth0").unwrap();
    client.namespace.run(&format!("ping -c 3 -i 0.2 -W 2 {GATEWAY_V4}")).unwrap();
    wait_until("the full disk is noticed", Duration::from_secs(30), || agent.log().contains("cannot be written"))
        .unwrap();
    std::fs::remove_file(&ballast).unwrap();
    wait_until("the journal goes on", Duration::from_secs(30), || agent.log().contains("can be written again"))
        .unwrap();
    assert!(agent.stop().unwrap().success());
    let archive = data.join("archive");
    let pings = ask("find", &archive, &["proto", "icmp", "and", "src", "ip", "10.20.0.9"]).unwrap();
    let packets: u64 = pings.iter().map(|flow| flow["packets_out"].as_u64().unwrap()).sum();
    assert_eq!(packets, 3);
    assert!(coverage(&archive).unwrap().iter().all(|row| row["balanced"] == true));
    drop(mount);
}

#[test]
fn questions_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().display().to_string();
    let check = |arguments: &[&str], code: i32, said: &str| {
        let output = hotspot(arguments).unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    };
    std::fs::create_dir(dir.path().join("manifest")).unwrap();
    let reversed = ["find", "--archive", &archive, "--from", "2026-11-23T11:00:00Z", "--to", "2026-11-23T10:00:00Z"];
    check(&reversed, 2, "not before");
    check(&["find", "--archive", &archive, "--from", "2026-11-23T11:00:00"], 2, "zone");
    check(&["find", "--archive", &archive, "usr x"], 2, "^");
    check(&["find", "--archive", "/nonexistent"], 3, "not an archive");
    check(&["find", "--archive", &archive], 3, "no gateway of this archive");
    check(
        &["who", "--archive", &archive, "--public", "203.0.113.7", "--at", "@1"],
        2,
        "behind one address are many people",
    );
    check(&["who", "--archive", &archive, "--public", "2001:db8::1:443", "--at", "@1"], 2, "perhaps [2001:db8::1]:443");
    check(&["find", "--archive", &archive, "user x --json"], 2, "options go before the filter");
    check(&["verify", "--archive", &archive], 3, "");
    check(&["decode", "/etc/passwd"], 3, "neither");
}
