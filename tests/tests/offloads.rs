//! Packets that travel as one and are several on the wire: counted as the wire would carry them, whatever the devices offload.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use hotspot_tests::lab::{BIG_BYTES, Lab, SERVER_V4};
use hotspot_tests::namespace::{Namespace, run};
use hotspot_tests::programs::{Agent, ask};
use hotspot_tests::wait_until;
use serde_json::Value;

const BURST_PORT: u16 = 7008;
const CLIENT_PORT: u16 = 30_000;
/// What a burst is cut into, and how long it is: 40 datagrams and a shorter one.
const SEGMENT: u64 = 1200;
const BURST: u64 = 40 * SEGMENT + 500;
/// Ethernet, IPv4 and UDP headers.
const UDP_HEADERS: u64 = 42;
/// Ethernet, IPv4, and TCP headers with time stamps.
const TCP_HEADERS: u64 = 66;
/// What the two first segments of a connection have beyond that: maximum segment size, SACK, window scale.
const SYN_OPTIONS: u64 = 8;

/// Answers `last` with a burst of its own (`UDP_SEGMENT` is 103: `include/uapi/linux/udp.h`).
fn server_script() -> String {
    format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('{SERVER_V4}', {BURST_PORT}))\n\
         s.setsockopt(17, 103, {SEGMENT})\nwhile True:\n    data, peer = s.recvfrom(65536)\n    \
         if data == b'last': s.sendto(b's' * {BURST}, peer)\n"
    )
}

fn client_script() -> String {
    format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(5)\ns.bind(('', {CLIENT_PORT}))\n\
         s.setsockopt(17, 103, {SEGMENT})\nto = ('{SERVER_V4}', {BURST_PORT})\ns.sendto(b'c' * {BURST}, to)\ns.sendto(b'last', to)\n\
         got = 0\nwhile got < {BURST}: got += len(s.recv(65536))\n"
    )
}

fn python(namespace: &Namespace, script: &str) {
    run(namespace.command("python3").args(["-c", script])).unwrap();
}

fn only(archive: &Path, filter: &[&str]) -> Value {
    let mut flows = ask("find", archive, filter).unwrap();
    assert_eq!(flows.len(), 1, "{filter:?}: {flows:?}");
    flows.remove(0)
}

fn number(flow: &Value, column: &str) -> u64 {
    flow[column].as_u64().unwrap()
}

fn check(offloads: &str, hook: &str) {
    let lab = Lab::new(1).unwrap();
    lab.clients[0].connect(&lab).unwrap();
    let client = &lab.clients[0].namespace;
    for (namespace, device) in [
        (client, "eth0"),
        (&lab.switch, "c1"),
        (&lab.switch, "gw"),
        (&lab.gateway, "lan"),
        (&lab.gateway, "wan"),
        (&lab.internet, "up"),
    ] {
        namespace.run(&format!("ethtool -K {device} {offloads}")).unwrap();
    }
    let mut server = lab.internet.spawn(lab.internet.command("python3").args(["-c", &server_script()])).unwrap();
    let is_bound = || lab.internet.run("ss -lun").unwrap().contains(&format!(":{BURST_PORT} "));
    wait_until("the server listens", Duration::from_secs(10), is_bound).unwrap();
    let data = lab.dir().join("data");
    let agent = Agent::start(&lab.gateway, &data, &["--hook", hook, "--generation", "1", "--grace", "0"]).unwrap();
    python(client, &client_script());
    client.run(&format!("curl -s -f -o /dev/null http://{SERVER_V4}/big")).unwrap();
    assert!(agent.stop().unwrap().success());
    server.kill().unwrap();
    server.wait().unwrap();
    let archive = data.join("archive");
    let what = format!("{offloads} {hook}");

    let burst = only(&archive, &["proto", "udp", "and", "src", "port", &CLIENT_PORT.to_string()]);
    let burst_bytes = BURST + 41 * UDP_HEADERS;
    assert_eq!((number(&burst, "packets_in"), number(&burst, "bytes_in")), (41, burst_bytes), "{what}");
    let last = UDP_HEADERS + 4;
    assert_eq!((number(&burst, "packets_out"), number(&burst, "bytes_out")), (42, burst_bytes + last), "{what}");

    // How TCP cuts a stream is its own affair, but every byte of it is in exactly one segment, each with its headers, and in
    // one more for each time the server sent it again.
    let download = only(&archive, &["proto", "tcp", "and", "dst", "port", "80"]);
    let (packets, bytes) = (number(&download, "packets_in"), number(&download, "bytes_in"));
    let payload = bytes - packets * TCP_HEADERS - SYN_OPTIONS;
    let file = BIG_BYTES as u64;
    let again = lab.retransmitted().unwrap() * 1448;
    assert!(
        (file..file + 400 + again).contains(&payload),
        "{what}: {payload} bytes of page and HTTP header, {again} again"
    );
    assert!(packets > file / 1448, "{what}: {packets} packets");
}

#[test]
fn offloads_do_not_change_what_is_counted() {
    for offloads in [
        "gso on tso on gro on",
        "gso off tso off gro off",
        "gso on tso on gro off",
        "gso on tso off gro on",
        "gso off tso off gro on",
        "gso on tso on gro on rx-udp-gro-forwarding on",
        "gso on tso on gro on tx-udp-segmentation off",
    ] {
        check(offloads, "tc");
    }
}

#[test]
fn xdp_counts_what_the_wire_carries() {
    for offloads in ["gso on tso on gro on", "gso off tso off gro off"] {
        check(offloads, "xdp");
    }
}
