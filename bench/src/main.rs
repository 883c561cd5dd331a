//! `cargo xtask bench …`: every figure is measured beside its twins in one run, and compared by ratio.

mod archive;
mod capture;
mod forward;
mod identity;
mod load;
mod nfdump;
mod paths;
mod peers;
mod rig;
mod search;
mod traffic;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, Subcommand};
use serde::Serialize;

#[derive(Parser)]
#[command(about = "Measures hotspot beside its alternatives", version)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Nanoseconds per packet of the shipped XDP program, a hash-map twin, and the memory floor. Needs root.
    Capture {
        /// Writes the figures here as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Interleaved rounds; the median counts.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// Runs of each program per round.
        #[arg(long, default_value_t = 1_000_000)]
        runs: u32,
    },
    /// Nanoseconds per packet of every path through the shipped programs, and of reading the cache. Needs root.
    Paths {
        /// Writes the figures here as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Interleaved rounds; the median counts.
        #[arg(long, default_value_t = 15)]
        rounds: usize,
    },
    /// The agent's processor time and memory while so many flows begin in a second, and whether all are recorded. Needs root.
    Load {
        /// Writes the figures here as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// New flows per second; may be given several times.
        #[arg(long = "rate", default_values_t = [50_000, 200_000])]
        rates: Vec<u32>,
        /// How long.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
    },
    /// softflowd, pmacctd, nfpcapd and tcpdump beside the agent: packets offered, accounted, processor seconds. Needs root.
    Peers {
        /// Writes the figures here as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Turns of each; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// How long packets come in each turn.
        #[arg(long, default_value_t = 5)]
        seconds: u32,
    },
    /// What a gateway forwards with hotspot and without, in turns. Needs root.
    Forward {
        /// Writes the figures here as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Turns of each; the median counts.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// How long each turn takes.
        #[arg(long, default_value_t = 3)]
        seconds: u32,
    },
    /// RADIUS requests per second and how long each waits for its answer, translations per second and how many are lost, by the whole
    /// agent; what joining a flow costs. Needs root.
    Identity {
        /// Writes the figures here as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        #[command(flatten)]
        options: identity::Options,
    },
    /// Bytes per flow of sealed segments beside nfdump's files of the same flows, and what sealing costs. Needs root.
    Archive {
        /// Writes the figures here as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        #[command(flatten)]
        options: archive::Options,
    },
    /// Seconds that questions to an archive take, in the clear and encrypted, beside nfdump and `DuckDB` over the same flows. Needs root.
    Search {
        /// Writes the figures here as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        #[command(flatten)]
        options: search::Options,
    },
    /// Seconds that `hotspot verify` takes for a gateway's months.
    Verify {
        /// Writes the figures here as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        #[command(flatten)]
        options: verify::Options,
    },
    /// Seals a journal in this process; what `archive` starts.
    #[command(hide = true)]
    SealJournal { dir: PathBuf },
}

/// Writes figures to the file that was asked for.
fn write_json(path: Option<&Path>, figures: &impl Serialize) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, serde_json::to_vec_pretty(figures)?).with_context(|| format!("cannot write {}", path.display()))
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().bench {
        Bench::Capture { json, rounds, runs } => capture::run(json.as_deref(), rounds, runs),
        Bench::Paths { json, rounds } => paths::run(json.as_deref(), rounds),
        Bench::Load { json, rates, seconds } => load::run(json.as_deref(), &rates, seconds),
        Bench::Peers { json, rounds, seconds } => peers::run(json.as_deref(), rounds, seconds),
        Bench::Identity { json, options } => identity::run(json.as_deref(), &options),
        Bench::Forward { json, rounds, seconds } => forward::run(json.as_deref(), rounds, seconds),
        Bench::Archive { json, options } => archive::run(json.as_deref(), &options),
        Bench::Search { json, options } => search::run(json.as_deref(), &options),
        Bench::Verify { json, options } => verify::run(json.as_deref(), &options),
        Bench::SealJournal { dir } => archive::journal::seal_here(dir),
    }
}
