//! Floods: ten times more flows than the cache has slots, from one client and from very many, while another client works as ever.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use hotspot_tests::frames::ethernet_between;
use hotspot_tests::generator::{Load, send_frames};
use hotspot_tests::lab::{ECHO_PORT, Lab, SILENT_PORT};
use hotspot_tests::programs::{Agent, ask, coverage, ensure_whole, files, hotspot, questions, rows};

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
    if !options.contains(&"--ring-bytes") {
        ensure_whole(&archive).unwrap();
    }
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

/// 4 096 rows in an hour, half of which at once.
const LIMIT: &str = "256K";
const LIMIT_BYTES: u64 = 256 << 10;
const ROWS_AT_ONCE: usize = 2_048;

/// Rows of flows to the silent port, by client.
fn in_detail(archive: &Path) -> BTreeMap<String, usize> {
    let silent = SILENT_PORT.to_string();
    let mut rows: BTreeMap<String, usize> = BTreeMap::new();
    for flow in ask("find", archive, &["proto", "udp", "and", "dst", "port", &silent]).unwrap() {
        *rows.entry(flow["client_mac"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    rows
}

/// Bytes of the flows and their indexes.
fn size(archive: &Path) -> u64 {
    let of = |dir: &str| files(&archive.join(dir)).unwrap();
    let all = of("flows").into_iter().chain(of("index"));
    all.map(|file| fs::metadata(file).unwrap().len()).sum()
}

/// That answers, coverage and the log say that flows are missing, and no packet does.
fn is_said(data: &Path) {
    let archive = data.join("archive");
    let balance = coverage(&archive).unwrap();
    assert!(!balance.is_empty() && balance.iter().all(|row| row["balanced"] == true), "{balance:?}");
    assert!(balance.iter().any(|row| row["gaps"].to_string().contains("in their totals only")), "{balance:?}");
    assert!(rows(&archive, "coverage").unwrap().iter().any(|row| row.to_string().contains("beyond_detail")));
    assert!(fs::read_to_string(data.with_extension("log")).unwrap().contains("used up what they may have in detail"));
    let (shown, log) = (archive.display().to_string(), questions(&archive).display().to_string());
    let asked = hotspot(&["find", "--archive", &shown, "--audit", &log, "dst host 192.0.2.99"]).unwrap();
    let answer = format!("{}{}", String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr));
    assert!(answer.contains("in their totals only"), "{answer}");
    assert!(!answer.contains("the log is whole"), "{answer}");
}

#[test]
fn a_guest_that_opens_flows_without_end_costs_the_disk_its_limit_also_over_a_crash_and_nobody_else_anything() {
    let lab = Lab::new(2).unwrap();
    lab.clients[1].connect(&lab).unwrap();
    let data = lab.dir().join("data");
    let options = ["--generation", "1", "--grace", "0", "--client-detail", LIMIT];
    let floods = [Load { from: 0, to: 20_000, clients: 1 }, Load { from: 20_000, to: 40_000, clients: 1 }];
    for (number, load) in (0..).zip(&floods) {
        let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
        load.send(&lab.clients[0].namespace, lab.gateway_mac().unwrap()).unwrap();
        lab.clients[1].echo(20_000 + number * 50..20_050 + number * 50).unwrap();
        if number == 0 {
            // Its journal stays, and with it what the guest has had.
            agent.kill().unwrap();
        } else {
            assert!(agent.stop().unwrap().success());
        }
    }
    let archive = data.join("archive");
    let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (mac, sent) in floods.iter().copied().flat_map(Load::truth) {
        let total = expected.entry(mac).or_default();
        *total = (total.0 + sent.packets, total.1 + sent.bytes);
    }
    assert_eq!(totals(&archive), expected, "every packet and byte");
    let kept: usize = in_detail(&archive).values().sum();
    assert!((ROWS_AT_ONCE - 100..ROWS_AT_ONCE + 200).contains(&kept), "{kept} rows");
    assert!(size(&archive) < LIMIT_BYTES, "{} bytes", size(&archive));
    let echoes = ask("find", &archive, &["proto", "udp", "and", "dst", "port", &ECHO_PORT.to_string()]).unwrap();
    let found: BTreeSet<u64> = echoes.iter().map(|flow| flow["client_port"].as_u64().unwrap()).collect();
    assert_eq!(found, (20_000..20_100).collect::<BTreeSet<u64>>(), "the other client's detail");
    is_said(&data);
}

#[test]
fn a_guest_with_another_address_for_every_flow_costs_the_disk_no_more_than_its_interface_may() {
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    let agent = Agent::start(
        &lab.gateway,
        &data,
        &["--generation", "1", "--grace", "0", "--interface-detail", LIMIT, "--flow-slots", "65536"],
    )
    .unwrap();
    let load = Load { from: 0, to: 60_000, clients: 30_000 };
    load.send(&lab.clients[0].namespace, lab.gateway_mac().unwrap()).unwrap();
    assert!(agent.stop().unwrap().success());
    let archive = data.join("archive");
    let kept: usize = in_detail(&archive).values().sum();
    // They are all new: half of what an interface has is not for them.
    assert!((1_000..ROWS_AT_ONCE / 2 + 200).contains(&kept), "{kept} rows");
    let sent: u64 = load.truth().values().map(|sent| sent.packets).sum();
    let recorded: u64 = totals(&archive).values().map(|(packets, _)| packets).sum();
    assert!(recorded >= sent, "{recorded} of {sent} packets");
    let all = ask("find", &archive, &[]).unwrap();
    assert!(all.len() < 20_000, "as many totals as addresses: {}", all.len());
    is_said(&data);
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
