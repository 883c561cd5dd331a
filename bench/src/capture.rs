//! The kernel program, by `BPF_PROG_TEST_RUN`: 64-byte frames of flows in random order.
//!
//! Four programs are run through the same door (a program that picks the next flow, and a tail call): the shipped one, a twin
//! that keeps flows in a hash map and reads the precise clock, a twin that only parses, and the memory floor (parse, coarse
//! clock, one random cache line). Rounds are interleaved and medians compared, because the machines are noisy. What the door
//! itself costs is measured in the same rounds with a program that does nothing, and subtracted.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use aya::maps::{Array, ProgramArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use hotspot_agent::capture::object::Object;
use hotspot_agent::capture::{Capture, CaptureSettings, HookChoice};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

const FLOWS: [u32; 4] = [1, 4096, 131_072, 1_048_576];
/// Twice the largest number of flows, for cache and hash map alike.
const SLOTS_LOG2: u32 = 21;

/// The same as in the kernel program.
#[repr(C)]
#[derive(Clone, Copy)]
struct Course {
    random: u64,
    mask: u64,
    in_order: u64,
    burst: u64,
    runs: u64,
}

// SAFETY: integers only.
unsafe impl Pod for Course {}

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
    // Each CPU has flows of its own: a benchmark that wandered would fill the cache anew.
    let mut here = CpuSet::new();
    here.set(rustix::thread::sched_getcpu());
    sched_setaffinity(None, &here)?;
    let mut rig = Rig::new()?;
    println!(
        "ns per packet, medians of {rounds} interleaved rounds of {runs} runs, 64-byte frames, flows in random order,\n\
         less what the harness costs"
    );
    println!(
        "{:>9}  {:>7}  {:>7}  {:>7}  {:>8}  {:>7}   {:>10}  {:>11}",
        "flows", "harness", "parse", "floor", "hash map", "hotspot", "/ hash map", "/ floor"
    );
    let mut rows = Vec::new();
    for flows in FLOWS {
        let row = rig.measure(flows, rounds, runs)?;
        println!(
            "{:>9}  {:>7.1}  {:>7.1}  {:>7.1}  {:>8.1}  {:>7.1}   {:>10.2}  {:>11.2}",
            row.flows,
            row.harness_ns,
            row.parse_ns,
            row.floor_ns,
            row.hash_ns,
            row.cache_ns,
            row.cache_ns / row.hash_ns,
            row.cache_ns / row.floor_ns,
        );
        rows.push(row);
    }
    println!("goals: / hash map at most 0.33, 0.40, 0.50, 0.50; / floor at most 1.8 from 131072 flows");
    if let Some(path) = json {
        fs::write(path, serde_json::to_vec_pretty(&rows)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

struct Rig {
    capture: Capture,
    bench: Ebpf,
    course: Array<aya::maps::MapData, Course>,
    target: ProgramArray<aya::maps::MapData>,
}

impl Rig {
    fn new() -> anyhow::Result<Self> {
        let settings = CaptureSettings {
            interfaces: Vec::new(),
            hook: HookChoice::Auto,
            client_nets: Vec::new(),
            decapsulate: false,
            bpffs: PathBuf::from("/sys/fs/bpf"),
            instance: format!("bench-{}", std::process::id()),
            slots_per_cpu_log2: SLOTS_LOG2,
            ring_bytes: 1 << 20,
        };
        let mut capture = Capture::start(&settings).context("the benchmark needs root")?;
        capture.load_unattached(0)?;
        let mut bench = EbpfLoader::new()
            .override_global("SLOTS_PER_CPU_LOG2", &SLOTS_LOG2, false)
            .map_max_entries("LINES", 1 << SLOTS_LOG2)
            .map_max_entries("FLOWS", 1 << SLOTS_LOG2)
            .load(Object::Bench.bytes()?)?;
        for name in ["vary", "empty", "parse_only", "floor", "hash"] {
            program(&mut bench, name)?.load()?;
        }
        let course = bench.take_map("COURSE").context("no map COURSE")?.try_into()?;
        let target = bench.take_map("TARGET").context("no map TARGET")?.try_into()?;
        Ok(Self { capture, bench, course, target })
    }

    fn measure(&mut self, flows: u32, rounds: usize, runs: u32) -> anyhow::Result<Row> {
        for name in ["floor", "hash", "hotspot_xdp"] {
            self.run(name, flows, true, flows.max(1000))?;
        }
        let names = ["empty", "parse_only", "floor", "hash", "hotspot_xdp"];
        let mut figures = [const { Vec::new() }; 5];
        for _ in 0..rounds {
            for (name, figures) in names.iter().zip(&mut figures) {
                figures.push(self.run(name, flows, false, runs)?);
            }
        }
        let [harness_ns, parse, floor, hash, cache] = figures.map(median);
        let [parse_ns, floor_ns, hash_ns, cache_ns] = [parse, floor, hash, cache].map(|gross| gross - harness_ns);
        // What was measured must have been counted: a program that dropped packets would be fast.
        let read = self.capture.drain()?;
        self.capture.drained(&read);
        let seen = read.done.coverage[0].seen.packets;
        let expected = u64::from(runs) * rounds as u64 + u64::from(flows.max(1000));
        anyhow::ensure!(read.done.coverage[0].balances() && seen == expected, "counted {seen} of {expected} packets");
        Ok(Row { flows, harness_ns, parse_ns, floor_ns, hash_ns, cache_ns })
    }

    /// Average nanoseconds per run, as the kernel measures it.
    fn run(&mut self, name: &str, flows: u32, in_order: bool, runs: u32) -> anyhow::Result<f64> {
        let course = Course {
            random: if in_order { 0 } else { 0x2545_f491_4f6c_dd1d },
            mask: u64::from(flows - 1),
            in_order: u64::from(in_order),
            burst: 1,
            runs: 0,
        };
        self.course.set(0, course, 0)?;
        let object = if name == "hotspot_xdp" { self.capture.programs(0) } else { &mut self.bench };
        let target = program(object, name)?.fd()?.try_clone()?;
        self.target.set(0, &target, 0)?;
        let options = TestRunOptions { data_in: Some(&FRAME), repeat: runs, ..TestRunOptions::default() };
        let result = program(&mut self.bench, "vary")?.test_run(options)?;
        anyhow::ensure!(result.return_value == 2, "{name} answered {}", result.return_value);
        Ok(result.duration.as_nanos() as f64)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.capture.remove_pins();
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A UDP packet in an Ethernet frame of the smallest size (without FCS 60 bytes; 64 here, as on the wire).
const FRAME: [u8; 64] = {
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
