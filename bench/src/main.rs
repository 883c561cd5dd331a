//! `cargo xtask bench …`: every figure is measured beside its twins in one run, and compared by ratio.

mod capture;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().bench {
        Bench::Capture { json, rounds, runs } => capture::run(json.as_deref(), rounds, runs),
    }
}
