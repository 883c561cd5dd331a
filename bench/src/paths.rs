//! Every path through the shipped programs, one after the other, and what reading the cache costs.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use hotspot_agent::capture::barrier::wait_for_programs;
use hotspot_tests::frames::{ethernet, ipv4, ipv6, tcp, udp};
use hotspot_tests::random::Random;
use serde::Serialize;

use crate::capture::FRAME;
use crate::rig::{Course, Rig, median};
use crate::write_json;

/// Runs of a path with one flow.
const RUNS: u32 = 1_000_000;
/// Flows of a path that makes new ones: so few that their records fit the ring.
const NEW_FLOWS: u32 = 50_000;
const RING_BYTES: u32 = 16 << 20;
/// A cache that has room, and one in which every new flow makes another go.
const LARGE_LOG2: u32 = 21;
const SMALL_LOG2: u32 = 10;
/// Flow numbers, before they begin again.
const NUMBERS: u32 = 1 << 24;

/// Lines of the memory that is walked through: as many as a large cache has slots.
const LINES: usize = 1 << LARGE_LOG2;
const LINE_WORDS: usize = 64 / size_of::<u64>();

#[derive(Serialize)]
struct Figures {
    paths: Vec<PathFigure>,
    /// What one line from memory takes on this machine, each asked for when the one before is there.
    memory_ns: f64,
    drain: Vec<DrainFigure>,
    verifier: Vec<VerifierFigure>,
}

#[derive(Serialize)]
struct PathFigure {
    path: &'static str,
    /// Without what the harness costs.
    ns: f64,
}

#[derive(Serialize)]
struct DrainFigure {
    flows: u32,
    /// What so many flows are spread over.
    slots: u64,
    /// Of this, waiting for programs that still run.
    barrier_ms: f64,
    milliseconds: f64,
    /// The same of a generation without flows, spread as widely.
    empty_milliseconds: f64,
}

#[derive(Serialize)]
struct VerifierFigure {
    program: String,
    instructions: u32,
}

/// Measures, prints the tables, and writes the file.
#[expect(clippy::print_stdout, reason = "the tables are what this program is for")]
pub(crate) fn run(json: Option<&Path>, rounds: usize) -> anyhow::Result<()> {
    let paths = paths(rounds)?;
    let figures = Figures { paths, memory_ns: memory(rounds), drain: drain(rounds)?, verifier: verifier()? };
    println!("ns per packet, medians of {rounds} interleaved rounds, less what the harness costs\n");
    for figure in &figures.paths {
        println!("{:<46} {:>7.1}", figure.path, figure.ns);
    }
    println!("{:<46} {:>7.1}", "one line from memory", figures.memory_ns);
    println!("\nreading a generation with room for {} flows, medians\n", 1_u64 << LARGE_LOG2);
    println!(
        "{:>9}  {:>9}  {:>10}  {:>8}  {:>11}  {:>11}",
        "flows", "slots", "barrier ms", "all ms", "ns per slot", "and per flow"
    );
    for figure in &figures.drain {
        let DrainFigure { flows, slots, barrier_ms, milliseconds, empty_milliseconds } = figure;
        let per_slot = (empty_milliseconds - barrier_ms) * 1e6 / *slots as f64;
        let per_flow = (milliseconds - empty_milliseconds) * 1e6 / f64::from(*flows);
        println!("{flows:>9}  {slots:>9}  {barrier_ms:>10.1}  {milliseconds:>8.1}  {per_slot:>11.2}  {per_flow:>11.1}");
    }
    println!("\ninstructions the verifier walks through, of 1 000 000\n");
    for figure in &figures.verifier {
        println!("{:<20} {:>8}", figure.program, figure.instructions);
    }
    write_json(json, &figures)
}

/// Paths of one flow, by program, and the name of the program whose cost is the harness's.
fn single_flow() -> [(&'static str, &'static str, Vec<u8>); 9] {
    let payload = udp(5000, 53);
    let v4 = ethernet(&[], 0x0800, &ipv4(17, &[], 0, &payload));
    let v6 = ethernet(&[], 0x86dd, &ipv6(17, &payload));
    [
        ("XDP, IPv4 UDP", "hotspot_xdp", v4.clone()),
        ("XDP, IPv4 TCP", "hotspot_xdp", ethernet(&[], 0x0800, &ipv4(6, &[], 0, &tcp(0x10)))),
        ("XDP, IPv4 with 40 bytes of options", "hotspot_xdp", ethernet(&[], 0x0800, &ipv4(17, &[1; 40], 0, &payload))),
        ("XDP, VLAN", "hotspot_xdp", ethernet(&[100], 0x0800, &ipv4(17, &[], 0, &payload))),
        ("XDP, QinQ", "hotspot_xdp", ethernet(&[100, 200], 0x0800, &ipv4(17, &[], 0, &payload))),
        ("XDP, IPv6 UDP", "hotspot_xdp", v6.clone()),
        ("tc, IPv4 UDP", "hotspot_ingress", v4.clone()),
        ("tc, IPv6 UDP", "hotspot_ingress", v6),
        ("tc to the client, IPv4 UDP", "hotspot_egress", v4),
    ]
}

fn paths(rounds: usize) -> anyhow::Result<Vec<PathFigure>> {
    let single = single_flow();
    let mut large = Rig::new(LARGE_LOG2, RING_BYTES)?;
    let mut small = Rig::new(SMALL_LOG2, RING_BYTES)?;
    let mut figures: Vec<(&'static str, Vec<f64>)> = single.iter().map(|(path, ..)| (*path, Vec::new())).collect();
    let varied =
        ["XDP, new flow, announced", "XDP, known flow in a new generation", "XDP, new flow that makes another go"];
    figures.extend(varied.map(|path| (path, Vec::new())));
    for round in 0..rounds {
        let (empty_xdp, empty_tc) =
            (large.repeat_xdp("empty", &FRAME, RUNS)?, large.repeat_tc("empty_tc", &FRAME, RUNS)?);
        for ((_, program, frame), (_, figures)) in single.iter().zip(&mut figures) {
            let is_xdp = *program == "hotspot_xdp";
            let gross =
                if is_xdp { large.repeat_xdp(program, frame, RUNS)? } else { large.repeat_tc(program, frame, RUNS)? };
            figures.push(gross - if is_xdp { empty_xdp } else { empty_tc });
        }
        large.drain()?;
        let course = Course::in_order(u64::from(NEW_FLOWS) * round as u64, NUMBERS);
        let empty = large.vary("empty", course, &FRAME, NEW_FLOWS)?;
        let new = large.vary("hotspot_xdp", course, &FRAME, NEW_FLOWS)?;
        let announced = large.drain()?.rings.batches.iter().map(|batch| batch.opened.len()).sum::<usize>();
        anyhow::ensure!(announced == NEW_FLOWS as usize, "{announced} flows were announced");
        let again = large.vary("hotspot_xdp", course, &FRAME, NEW_FLOWS)?;
        large.drain()?;
        let evicting = small.vary("hotspot_xdp", course, &FRAME, NEW_FLOWS)?;
        let evicted = small.drain()?.rings.batches.iter().map(|batch| batch.evicted.len()).sum::<usize>();
        anyhow::ensure!(evicted >= NEW_FLOWS as usize - (1 << SMALL_LOG2), "{evicted} flows were handed over");
        for ((_, figures), gross) in figures.iter_mut().skip(single.len()).zip([new, again, evicting]) {
            figures.push(gross - empty);
        }
    }
    Ok(figures.into_iter().map(|(path, figures)| PathFigure { path, ns: median(figures) }).collect())
}

/// Walks through lines in no order, as flows come: no program that has to see a line of its own gets there sooner.
fn memory(rounds: usize) -> f64 {
    let mut lines = vec![0_u64; LINES * LINE_WORDS];
    // Every line leads to another, and all of them lie on one way (S. Sattolo: An algorithm to generate a random cyclic permutation, 1986).
    let mut next: Vec<usize> = (0..LINES).collect();
    let mut random = Random::new(1);
    for line in (1..LINES).rev() {
        next.swap(line, random.index(line));
    }
    for (line, next) in next.iter().enumerate() {
        lines[line * LINE_WORDS] = (next * LINE_WORDS) as u64;
    }
    let mut place = 0;
    let figures = (0..rounds).map(|_| {
        let began = Instant::now();
        for _ in 0..NEW_FLOWS {
            place = usize::try_from(black_box(lines[place])).unwrap_or(0);
        }
        began.elapsed().as_nanos() as f64 / f64::from(NEW_FLOWS)
    });
    median(figures.collect())
}

fn drain(rounds: usize) -> anyhow::Result<Vec<DrainFigure>> {
    let mut rig = Rig::new(LARGE_LOG2, RING_BYTES)?;
    [4096, 131_072, 1_048_576]
        .map(|flows: u32| {
            let course = Course::in_order(0, NUMBERS);
            let (mut barrier, mut all, mut empty) = (Vec::new(), Vec::new(), Vec::new());
            rig.settle(course, &FRAME, flows)?;
            for _ in 0..rounds {
                barrier.push(milliseconds(wait_for_programs)?);
                rig.vary("hotspot_xdp", course, &FRAME, flows)?;
                all.push(milliseconds(|| rig.drain())?);
            }
            for _ in 0..rounds {
                // Two generations are as wide as the flows of the two before needed them, and the second finds nothing to clear.
                for _ in 0..2 {
                    rig.vary("hotspot_xdp", course, &FRAME, flows)?;
                    rig.drain()?;
                }
                rig.drain()?;
                empty.push(milliseconds(|| rig.drain())?);
            }
            Ok(DrainFigure {
                flows,
                slots: u64::from(rig.capture.dimensions().reach_for(flows as usize)) + 1,
                barrier_ms: median(barrier),
                milliseconds: median(all),
                empty_milliseconds: median(empty),
            })
        })
        .into_iter()
        .collect()
}

fn milliseconds<T, E: Into<anyhow::Error>>(work: impl FnOnce() -> Result<T, E>) -> anyhow::Result<f64> {
    let began = Instant::now();
    work().map_err(Into::into)?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn verifier() -> anyhow::Result<Vec<VerifierFigure>> {
    let mut rig = Rig::new(SMALL_LOG2, 1 << 16)?;
    rig.capture
        .programs(0)
        .programs()
        .map(|(name, program)| {
            let instructions = program.info()?.verified_instruction_count().context("the kernel does not say")?;
            Ok(VerifierFigure { program: name.to_owned(), instructions })
        })
        .collect()
}
