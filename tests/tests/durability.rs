//! What is acknowledged was flushed first: seen from outside, in the order of the agent's system calls.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use hotspot_tests::lab::{GATEWAY_V4, Lab};
use hotspot_tests::mount::Mount;
use hotspot_tests::programs::{Agent, ask, coverage};
use hotspot_tests::wait_until;

#[test]
fn a_radius_request_is_answered_only_after_the_journal_was_flushed() {
    let lab = Lab::new(0).unwrap();
    let data = lab.dir().join("data");
    let secret = lab.dir().join("secret");
    std::fs::write(&secret, "s3cret").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let listen = format!("{GATEWAY_V4}:1813");
    // Nothing but the request makes the agent flush: no translations, one long generation.
    let options = [
        "--radius-listen",
        &listen,
        "--radius-secret-file",
        &secret.display().to_string(),
        "--generation",
        "60",
        "--no-nat",
    ];
    let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
    let trace = lab.dir().join("trace");
    let mut strace = Command::new("strace")
        .args(["-f", "-e", "trace=fdatasync,sendmsg", "-o"])
        .arg(&trace)
        .args(["-p", &agent.pid().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let calls = || std::fs::read_to_string(&trace).unwrap_or_default();
    let traced = || {
        std::fs::read_to_string(format!("/proc/{}/status", agent.pid()))
            .is_ok_and(|text| !text.contains("TracerPid:\t0"))
    };
    wait_until("strace is attached", Duration::from_secs(10), traced).unwrap();
    for number in 0..5 {
        let request = format!("Acct-Status-Type = Start\nAcct-Session-Id = \"{number}\"\nUser-Name = \"x\"\n");
        lab.account(&request, "s3cret").unwrap();
    }
    wait_until("five answers", Duration::from_secs(10), || answers(&calls()) >= 5).unwrap();
    Command::new("kill").arg(strace.id().to_string()).status().unwrap();
    strace.wait().unwrap();
    let calls = calls();
    let mut flushed = 0;
    for line in calls.lines() {
        // A call that is interrupted in the trace returns on its "resumed" line.
        if line.contains("fdatasync") && line.ends_with("= 0") {
            flushed += 1;
        } else if line.contains("sendmsg(") {
            assert!(flushed > 0, "an answer before its flush:\n{calls}");
            flushed = 0;
        }
    }
    assert!(agent.stop().unwrap().success());
}

#[test]
fn without_inodes_and_on_a_read_only_directory_nothing_is_lost_and_work_resumes() {
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let mount = Mount::tmpfs(&data, "size=64m,nr_inodes=400").unwrap();
    let agent = Agent::start(&lab.gateway, &data, &["--generation", "1", "--rotate", "2", "--grace", "0"]).unwrap();
    let client = &lab.clients[0];
    client.namespace.ip("addr add 10.20.0.9/24 dev eth0").unwrap();
    let ping = || client.namespace.run(&format!("ping -c 3 -i 0.2 -W 2 {GATEWAY_V4}")).unwrap();
    let times = |what: &str| agent.log().matches(what).count();
    let resumes = |number: usize| {
        wait_until("work resumes", Duration::from_secs(30), || times("the journal can be written again") >= number)
            .unwrap();
    };
    ping();

    // Every inode is taken: neither a journal nor a segment can be made.
    let fillers = data.join("fillers");
    std::fs::create_dir(&fillers).unwrap();
    let full = (0..400).find(|number| std::fs::write(fillers.join(number.to_string()), "").is_err());
    assert!(full.is_some(), "a file system of 400 inodes is full by now");
    wait_until("that is noticed", Duration::from_secs(30), || times("no new journal") >= 1).unwrap();
    ping();
    std::fs::remove_dir_all(&fillers).unwrap();
    resumes(1);
    ping();

    let read_only = Mount::read_only(&data.join("journal")).unwrap();
    wait_until("that is noticed", Duration::from_secs(30), || times("no new journal") >= 2).unwrap();
    ping();
    drop(read_only);
    resumes(2);

    assert!(agent.stop().unwrap().success());
    let archive = data.join("archive");
    let pings = ask("find", &archive, &["proto", "icmp", "and", "src", "ip", "10.20.0.9"]).unwrap();
    let packets: u64 = pings.iter().map(|flow| flow["packets_out"].as_u64().unwrap()).sum();
    assert_eq!(packets, 12);
    let coverage = coverage(&archive).unwrap();
    assert!(coverage.iter().all(|row| row["balanced"] == true), "{coverage:?}");
    let gaps = serde_json::to_string(&coverage).unwrap().matches("nothing could be recorded for").count();
    assert_eq!(gaps, 2, "{coverage:?}");
    let verified = ask("verify", &archive, &[]).unwrap();
    assert_eq!(verified[0]["verify"], "ok", "{verified:?}");
    drop(mount);
}

fn answers(calls: &str) -> usize {
    calls.lines().filter(|line| line.contains("sendmsg(")).count()
}
