//! Floods: ten times more flows than the cache has slots, from one client and from very many, while another client works as ever.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use hotspot_tests::frames::ethernet_between;
use hotspot_tests::generator::{Load, send_frames};
use hotspot_tests::lab::{ECHO_PORT, Lab, SILENT_PORT};
use hotspot_tests::programs::{Agent, ask, coverage, ensure_whole, rows};

const SLOTS: u32 = 4096;

/// Packets and bytes of every client that sent to the silent port or is in overflow totals, by MAC.
fn totals(archive: &Path) -> BTreeMap<String, (u64, u64)> {
    let mut totals: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let silent = SILENT_PORT.to_string();
    let mut flows = ask("find", archive, &["proto", "udp", "and", "dst", "port", &silent]).unwrap();
    let all = ask("find", archive, &[]).unwrap();
    flows.extend(all.into_iter().filter(|flow| flow["end_reason"] == "overflow"));
    for flow in flows {
        let total = totals.entry(flow["client_mac"].as_str().unwrap().to_owned()).or_default();
        total.0 += flow["packets_out"].as_u64().unwrap();
        total.1 += flow["bytes_out"].as_u64().unwrap();
    }
    totals
}

/// Memory the agent ever had, in MiB.
fn peak_memory(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Returns the packets that are in overflow totals.
fn flood(load: Load, options: &[&str]) -> u64 {
    let lab = Lab::new(2).unwrap();
    lab.clients[1].connect(&lab).unwrap();
    let data = lab.dir().join("data");
    let slots = SLOTS.to_string();
    let options = [&["--flow-slots", &slots, "--generation", "1", "--grace", "0"], options].concat();
    let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
    let ports = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| load.send(&lab.clients[0].namespace, lab.gateway_mac().unwrap()));
        let mut ports = 20_000..20_000;
        while !flooding.is_finished() {
            lab.clients[1].echo(ports.end..ports.end + 50).unwrap();
            ports.end += 50;
        }
        flooding.join().unwrap().unwrap();
        ports
    });
    let peak = peak_memory(&agent);
    assert!(agent.stop().unwrap().success());
    let archive = data.join("archive");
    let expected: BTreeMap<String, (u64, u64)> =
        load.truth().into_iter().map(|(mac, sent)| (mac, (sent.packets, sent.bytes))).collect();
    assert_eq!(totals(&archive), expected, "every client's packets and bytes");
    let echoes = ask("find", &archive, &["proto", "udp", "and", "dst", "port", &ECHO_PORT.to_string()]).unwrap();
    let found: BTreeSet<u64> = echoes
        .iter()
        .filter(|flow| flow["packets_out"] == 1 && flow["packets_in"] == 1)
        .map(|flow| flow["client_port"].as_u64().unwrap())
        .collect();
    assert_eq!(found, ports.map(u64::from).collect::<BTreeSet<u64>>(), "the other client's detail");
    ensure_whole(&archive).unwrap();
    // The rings of two CPUs, the cache, a journal, and what merging holds: far from growing with the flood's length.
    assert!(peak < 400, "{peak} MiB");
    coverage(&archive).unwrap().iter().map(|row| row["overflow_packets"].as_u64().unwrap()).sum()
}

#[test]
fn a_flood_from_one_client_costs_nobody_anything() {
    flood(Load { from: 0, to: SLOTS * 10, clients: 1 }, &[]);
}

#[test]
fn a_flood_from_very_many_clients_costs_nobody_anything() {
    flood(Load { from: 0, to: SLOTS * 10, clients: SLOTS * 5 }, &[]);
}

/// With a ring of 157 records the flood's detail cannot be kept; its totals are, and the other client's detail.
#[test]
fn a_flood_that_no_ring_can_hold_gets_coarser_alone() {
    let overflow = flood(Load { from: 0, to: SLOTS * 10, clients: 1 }, &["--ring-bytes", "16384"]);
    assert!(overflow > 0, "the ring held everything");
}

#[test]
fn a_flood_that_keeps_out_what_newcomers_say_of_themselves_is_said_in_the_log() {
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    let agent = Agent::start(&lab.gateway, &data, &["--generation", "60", "--grace", "0"]).unwrap();
    lab.clients[0].connect(&lab).unwrap();
    assert!(agent.stop().unwrap().success());
    let said = |log: String| log.contains("may lack names and addresses");
    assert!(!said(fs::read_to_string(data.with_extension("log")).unwrap()), "an ordinary client is no flood");
    // Far more than the share of a device, on each processor, in the generation that lasts until the end.
    let agent = Agent::start(&lab.gateway, &data, &["--generation", "60", "--grace", "0"]).unwrap();
    let frames: Vec<_> = (0..64_000_u32)
        .map(|number| {
            let [_, _, b, c] = number.to_be_bytes();
            let mac = [2, 0, 9, 0, 0, c & 15];
            let packet = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &[10, 21, b, c], &[0; 6], &[10, 20, 0, 1], &[0; 18]];
            ethernet_between(mac, [0xff; 6], &[], 0x0806, &packet.concat())
        })
        .collect();
    send_frames(&lab.clients[0].namespace, "eth0", &frames).unwrap();
    assert!(agent.stop().unwrap().success());
    assert!(said(fs::read_to_string(data.with_extension("log")).unwrap()));
    let counted = rows(&data.join("archive"), "coverage").unwrap().iter().any(|row| {
        let text = row.to_string();
        text.contains("notice_skipped") || text.contains("device_facts_left_out")
    });
    assert!(counted);
}
