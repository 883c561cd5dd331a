//! The kernel program, by `BPF_PROG_TEST_RUN`: 64-byte frames of flows in random order.
//!
//! Four programs are run through the same door (a program that picks the next flow, and a tail call): the shipped one, a twin
//! that keeps flows in a hash map and reads the precise clock, a twin that only parses, and the memory floor (parse, coarse
//! clock, one random cache line). Rounds are interleaved and their middles compared, because the machines are noisy. What the door
//! itself costs is measured in each round with a program that does nothing, and subtracted.

use std::path::Path;

use serde::Serialize;

use crate::rig::{Course, Rig, middle};
use crate::write_json;

const FLOWS: [u32; 4] = [1, 4096, 131_072, 1_048_576];
/// Twice the largest number of flows, for cache and hash map alike.
const SLOTS_LOG2: u32 = 21;

#[derive(Serialize)]
struct Row {
    flows: u32,
    /// What the loop, choosing the flow and the tail call cost; already subtracted from the other figures.
    harness_ns: f64,
    parse_ns: f64,
    floor_ns: f64,
    hash_ns: f64,
    cache_ns: f64,
}

/// Measures, prints the table, and writes the file.
#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
pub(crate) fn run(json: Option<&Path>, rounds: usize, runs: u32) -> anyhow::Result<()> {
    let mut rig = Rig::new(SLOTS_LOG2, 1 << 20)?;
    println!(
        "ns per packet, middle of {rounds} interleaved rounds of {runs} runs, 64-byte frames, flows in random order,\n\
         less what the harness costs; in the last column with it"
    );
    println!(
        "{:>9}  {:>7}  {:>7}  {:>7}  {:>8}  {:>7}   {:>10}  {:>7}  {:>7}",
        "flows", "harness", "parse", "floor", "hash map", "hotspot", "/ hash map", "/ floor", "gross"
    );
    let mut rows = Vec::new();
    for flows in FLOWS {
        let row = measure(&mut rig, flows, rounds, runs)?;
        println!(
            "{:>9}  {:>7.1}  {:>7.1}  {:>7.1}  {:>8.1}  {:>7.1}   {:>10.2}  {:>7.2}  {:>7.2}",
            row.flows,
            row.harness_ns,
            row.parse_ns,
            row.floor_ns,
            row.hash_ns,
            row.cache_ns,
            row.cache_ns / row.hash_ns,
            row.cache_ns / row.floor_ns,
            (row.cache_ns + row.harness_ns) / (row.floor_ns + row.harness_ns),
        );
        rows.push(row);
    }
    println!("goals: / hash map at most 0.33, 0.40, 0.50, 0.50; / floor at most 1.3 with one flow, 1.8 from 131072");
    write_json(json, &rows)
}

fn measure(rig: &mut Rig, flows: u32, rounds: usize, runs: u32) -> anyhow::Result<Row> {
    // As it is where as many flows were there a while ago.
    rig.settle(Course::in_order(0, flows), &FRAME, flows)?;
    for name in ["floor", "hash", "hotspot_xdp"] {
        rig.vary(name, Course::in_order(0, flows), &FRAME, flows.max(1000))?;
    }
    let names = ["empty", "parse_only", "floor", "hash", "hotspot_xdp"];
    let mut figures = [const { Vec::new() }; 5];
    for _ in 0..rounds {
        for (name, figures) in names.iter().zip(&mut figures) {
            figures.push(rig.vary(name, Course::at_random(flows), &FRAME, runs)?);
        }
    }
    let [harness, programs @ ..] = figures;
    let net = |gross: Vec<f64>| middle(gross.iter().zip(&harness).map(|(gross, harness)| gross - harness).collect());
    let [parse_ns, floor_ns, hash_ns, cache_ns] = programs.map(net);
    let harness_ns = middle(harness);
    // What was measured must have been counted: a program that dropped packets would be fast.
    let read = rig.drain()?;
    let seen = read.done.coverage[0].seen.packets;
    let expected = u64::from(runs) * rounds as u64 + u64::from(flows.max(1000));
    anyhow::ensure!(seen == expected, "counted {seen} of {expected} packets");
    Ok(Row { flows, harness_ns, parse_ns, floor_ns, hash_ns, cache_ns })
}

/// A UDP packet in an Ethernet frame of the smallest size (without FCS 60 bytes; 64 here, as on the wire).
pub(crate) const FRAME: [u8; 64] = {
    let mut frame = [0; 64];
    let header = [
        2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 203, 0, 113, 7, // IPv4
        0x13, 0x88, 0, 53, 0, 30, 0, 0, // UDP
    ];
    let mut position = 0;
    while position < header.len() {
        frame[position] = header[position];
        position += 1;
    }
    frame
};
