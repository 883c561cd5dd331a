//! Clients behind an access point that brings their frames to the gateway in a tunnel.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use hotspot_tests::lab::{BIG_BYTES, Client, GATEWAY_V4, Lab, PUBLIC_V4, SERVER_V4, connect};
use hotspot_tests::namespace::Namespace;
use hotspot_tests::programs::{Agent, ask, ensure_whole};
use hotspot_tests::wait_until;
use serde_json::Value;

const AP_V4: &str = "10.20.0.60";
const PHONE_MAC: &str = "02:00:00:00:02:01";
const PHONE_V4: &str = "10.30.0.10";
/// Ethernet, IPv4, UDP and VXLAN headers in front of the frame inside: bytes are counted as the wire carries them.
const TUNNEL_HEADERS: u64 = 14 + 20 + 8 + 8;
/// Ethernet, IPv4, and TCP headers with time stamps, of the frames inside.
const TCP_HEADERS: u64 = 66;
/// What the first segment of a connection has beyond that: maximum segment size, SACK, window scale.
const SYN_OPTIONS: u64 = 8;

/// An access point in the venue's network, which tunnels to the gateway, and a phone behind it.
fn tunnelled(lab: &Lab) -> (Namespace, Client) {
    let (ap, namespace) = (lab.namespace("ap").unwrap(), lab.namespace("ph").unwrap());
    connect(&lab.switch, "ap1", &ap, "eth0").unwrap();
    lab.switch.ip("link set ap1 master br0").unwrap();
    ap.ip(&format!("addr add {AP_V4}/24 dev eth0")).unwrap();
    connect(&ap, "wlan0", &namespace, "eth0").unwrap();
    namespace.ip(&format!("link set eth0 address {PHONE_MAC} mtu 1400")).unwrap();
    ap.ip(&format!("link add tun0 type vxlan id 42 dstport 4789 local {AP_V4} remote {GATEWAY_V4}")).unwrap();
    ap.ip("link add br0 type bridge").unwrap();
    for port in ["wlan0", "tun0"] {
        ap.ip(&format!("link set {port} master br0 up")).unwrap();
    }
    ap.ip("link set br0 up").unwrap();
    lab.gateway.ip(&format!("link add tun0 type vxlan id 42 dstport 4789 local {GATEWAY_V4} remote {AP_V4}")).unwrap();
    lab.gateway.ip("addr add 10.30.0.1/24 dev tun0").unwrap();
    lab.gateway.ip("link set tun0 up").unwrap();
    let mut server = lab.dhcp_server("tun0", &format!("{PHONE_V4},{PHONE_V4}"), "tunnel-leases");
    lab.gateway.spawn(&mut server).map(drop).unwrap();
    wait_until("the DHCP server listens", Duration::from_secs(10), || {
        lab.gateway.run("ss -Hlun sport = :67").is_ok_and(|text| text.contains("tun0"))
    })
    .unwrap();
    (ap, Client { name: "phone".into(), mac: PHONE_MAC.into(), namespace })
}

/// What the agent recorded of a phone that downloads something.
fn recorded(lab: &Lab, options: &[&str]) -> PathBuf {
    let (_ap, phone) = tunnelled(lab);
    let data = lab.dir().join("data");
    let agent = Agent::start(&lab.gateway, &data, &[&["--generation", "1", "--grace", "0"], options].concat()).unwrap();
    phone.lease(lab, &["-x", "hostname:phone"]).unwrap();
    phone.namespace.run(&format!("curl -s -f -o /dev/null http://{SERVER_V4}/big")).unwrap();
    assert!(agent.stop().unwrap().success());
    let archive = data.join("archive");
    ensure_whole(&archive).unwrap();
    archive
}

fn find(archive: &Path, filter: &str) -> Vec<Value> {
    ask("find", archive, &[filter]).unwrap()
}

fn check_inside(hook: &str) {
    let lab = Lab::new(0).unwrap();
    let archive = recorded(&lab, &["--decapsulate", "--hook", hook]);
    let flows = find(&archive, "proto tcp");
    let [flow] = flows.as_slice() else { panic!("{hook}: {flows:?}") };
    for (column, expected) in [
        ("client_mac", PHONE_MAC),
        ("client_ip", PHONE_V4),
        ("public_ip", PUBLIC_V4),
        ("nat", "exact"),
        ("hostname", "phone"),
        ("interface", "lan"),
    ] {
        assert_eq!(flow[column], expected, "{hook}: {column} of {flow:?}");
    }
    let request = lab.web_log().unwrap().into_iter().find(|request| request.path == "/big").unwrap();
    let (public, at) = (format!("{PUBLIC_V4}:{}", request.port), format!("@{}", request.at));
    let who = ask("who", &archive, &["--public", &public, "--at", &at]).unwrap();
    assert_eq!(who[0]["client_mac"], PHONE_MAC, "{hook}");

    let count = |column: &str| flow[column].as_u64().unwrap();
    let (packets, bytes) = (count("packets_in"), count("bytes_in"));
    let payload = bytes - packets * (TUNNEL_HEADERS + TCP_HEADERS) - SYN_OPTIONS;
    let (file, again) = (BIG_BYTES as u64, lab.retransmitted().unwrap() * 1448);
    assert!(
        (file..file + 400 + again).contains(&payload),
        "{hook}: {payload} bytes of page and HTTP header in {packets} packets, {again} again"
    );
    let outside = find(&archive, &format!("ip {AP_V4}"));
    assert_eq!(outside, Vec::<Value>::new(), "{hook}: the tunnel itself is no flow");
}

#[test]
fn a_client_in_a_tunnel_is_the_one_inside() {
    check_inside("tc");
    check_inside("xdp");
}

#[test]
fn a_tunnel_that_is_not_opened_is_a_flow_of_its_ends() {
    let lab = Lab::new(0).unwrap();
    let archive = recorded(&lab, &[]);
    let flows = find(&archive, "proto udp and port 4789");
    let bytes: u64 = flows.iter().filter_map(|flow| flow["bytes_in"].as_u64()).sum();
    assert!(bytes > BIG_BYTES as u64 && flows.iter().all(|flow| flow["client_ip"] == AP_V4), "{flows:?}");
    assert_eq!(find(&archive, &format!("mac {PHONE_MAC}")), Vec::<Value>::new());
}
