//! What it costs to forward: the lab's gateway routes and translates, with hotspot and without, in turns.

use std::fs;
use std::path::Path;

use anyhow::Context;
use hotspot_tests::generator::{Load, send_for};
use hotspot_tests::lab::{Lab, SERVER_V4};
use hotspot_tests::namespace::Namespace;
use hotspot_tests::programs::Agent;
use serde::Serialize;

use crate::rig::median;
use crate::write_json;

#[derive(Serialize)]
struct Figures {
    packets_per_s_without: f64,
    packets_per_s_with: f64,
    packets_ratio: f64,
    bits_per_s_without: f64,
    bits_per_s_with: f64,
    bits_ratio: f64,
}

/// Measures, prints the table, and writes the file.
#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
pub(crate) fn run(json: Option<&Path>, rounds: usize, seconds: u32) -> anyhow::Result<()> {
    let lab = Lab::new(1)?;
    lab.clients[0].connect(&lab)?;
    let mut server = lab.internet.spawn(lab.internet.command("iperf3").args(["-s", "--logfile", "/dev/null"]))?;
    let [mut packets_without, mut packets_with, mut bits_without, mut bits_with] = [const { Vec::new() }; 4];
    for round in 0..rounds {
        let data = lab.dir().join(format!("data-{round}"));
        packets_without.push(packets_per_second(&lab, seconds)?);
        bits_without.push(bits_per_second(&lab, seconds)?);
        let agent = Agent::start(&lab.gateway, &data, &[])?;
        packets_with.push(packets_per_second(&lab, seconds)?);
        bits_with.push(bits_per_second(&lab, seconds)?);
        agent.stop()?;
        fs::remove_dir_all(&data)?;
    }
    server.kill()?;
    server.wait()?;
    // Ratios of neighbours, because the machine is another one a minute later.
    let ratio = |with: &[f64], without: &[f64]| {
        median(with.iter().zip(without).map(|(with, without)| with / without).collect())
    };
    let figures = Figures {
        packets_ratio: ratio(&packets_with, &packets_without),
        bits_ratio: ratio(&bits_with, &bits_without),
        packets_per_s_without: median(packets_without),
        packets_per_s_with: median(packets_with),
        bits_per_s_without: median(bits_without),
        bits_per_s_with: median(bits_with),
    };
    println!("forwarded by a gateway that translates, medians of {rounds} turns of {seconds} s each\n");
    println!("{:<24} {:>12} {:>12} {:>8}", "", "without", "with", "ratio");
    println!(
        "{:<24} {:>12.0} {:>12.0} {:>8.3}",
        "packets/s, 60 bytes", figures.packets_per_s_without, figures.packets_per_s_with, figures.packets_ratio
    );
    println!(
        "{:<24} {:>12.2} {:>12.2} {:>8.3}",
        "Gbit/s, TCP (iperf3)",
        figures.bits_per_s_without / 1e9,
        figures.bits_per_s_with / 1e9,
        figures.bits_ratio
    );
    write_json(json, &figures)
}

/// Packets that came out of the gateway while a client sent as fast as it could, over and over the same 4096 flows.
fn packets_per_second(lab: &Lab, seconds: u32) -> anyhow::Result<f64> {
    let load = Load { from: 0, to: 4096, clients: 16 };
    let before = received(&lab.internet)?;
    let took = send_for(&lab.clients[0].namespace, "eth0", load, lab.gateway_mac()?, seconds)?;
    Ok((received(&lab.internet)? - before) / took.as_secs_f64())
}

fn received(internet: &Namespace) -> anyhow::Result<f64> {
    let text = internet.ip("-s -j link show dev up")?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    links[0]["stats64"]["rx"]["packets"].as_f64().context("ip -s -j link")
}

fn bits_per_second(lab: &Lab, seconds: u32) -> anyhow::Result<f64> {
    let text = lab.clients[0].namespace.run(&format!("iperf3 -J -c {SERVER_V4} -t {seconds}"))?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 -J")
}
