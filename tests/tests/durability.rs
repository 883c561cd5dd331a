//! What is acknowledged was flushed first: seen from outside, in the order of the agent's system calls.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use hotspot_tests::lab::{GATEWAY_V4, Lab};
use hotspot_tests::programs::Agent;
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

fn answers(calls: &str) -> usize {
    calls.lines().filter(|line| line.contains("sendmsg(")).count()
}
