//! `cargo xtask …`: prepares the machine, runs the demo, the tests, the lints and the benchmarks.

mod fuzz;
mod setup;
mod steps;
mod vendors;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Prepares the machine, runs the demo, the tests, the lints and the benchmarks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs what is missing for building and testing; says what it does. Needs root on Debian
    Setup {
        /// Only says what is missing
        #[arg(long)]
        check: bool,
    },
    /// Builds a venue from network namespaces, records it, and shows what an investigator sees. Needs root
    Demo {
        /// Options of the demo: --scenario venue, --json FILE, --keep, --clean
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Runs all tests, or the long ones (`soak`). Needs root
    Test {
        /// Only tests whose name contains this; `soak` for the long tests, which take minutes and are not run otherwise
        filter: Option<String>,
    },
    /// Replays captures past an agent and compares its records with what tshark reads: `cargo xtask compare FILE…`. Needs root
    Compare {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Looks for inputs that break a parser: `cargo xtask fuzz radius --seconds 3600`
    Fuzz {
        /// A file of `fuzz/fuzz_targets`, without its ending
        target: String,
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        seconds: u32,
    },
    /// Makes the table of the makers of devices from the registry of the IEEE: oui.csv, mam.csv and oui36.csv
    Vendors {
        /// Where these files lie: Debian's package ieee-data puts them here, and its `update-ieee-data` gets newer ones
        #[arg(long, default_value = "/usr/share/ieee-data", value_name = "DIR")]
        registry: std::path::PathBuf,
        /// The table; this one is built into the agent
        #[arg(long, default_value = "hotspot-agent/data/vendors.zst", value_name = "FILE")]
        table: std::path::PathBuf,
    },
    /// Formatting and lints
    Lint,
    /// Measures: `cargo xtask bench capture --json FILE`. Needs root
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

#[expect(clippy::print_stderr, reason = "errors go to the person at the terminal")]
fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup { check: true } => setup::check(),
        Task::Setup { check: false } => setup::run(),
        Task::Demo { options } => {
            setup::run()?;
            steps::demo(&options)
        }
        Task::Test { filter } => {
            setup::run()?;
            match filter.as_deref() {
                Some("soak") => steps::soak(),
                filter => steps::test(filter),
            }
        }
        Task::Compare { options } => {
            setup::run()?;
            steps::compare(&options)
        }
        Task::Fuzz { target, seconds } => fuzz::run(&target, seconds),
        Task::Vendors { registry, table } => vendors::make(&registry, &table),
        Task::Lint => {
            setup::run()?;
            steps::lint()
        }
        Task::Bench { options } => {
            setup::run()?;
            if options.first().is_some_and(|bench| bench == "peers") {
                setup::peers()?;
            }
            steps::bench(&options)
        }
    }
}
