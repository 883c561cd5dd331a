//! `cargo xtask demo`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use hotspot_tests::demo::run_demo;
use hotspot_tests::namespace;
use hotspot_tests::venue::run_venue;
use serde::Serialize;

/// Builds a venue from network namespaces, records it, and shows what an investigator sees.
#[derive(Parser)]
struct Arguments {
    /// What happens there
    #[arg(long, value_enum, default_value_t = Scenario::Evening)]
    scenario: Scenario,
    /// Writes what was found here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leaves the lab running
    #[arg(long)]
    keep: bool,
    /// Removes a lab that was kept
    #[arg(long)]
    clean: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    /// Four devices, and what can be asked about them
    Evening,
    /// Forty devices at three access points that roam, swap, forge and lose what can be lost, judged by what the devices did
    Venue,
}

#[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.clean {
        namespace::remove_all();
        println!("removed");
        return Ok(());
    }
    match arguments.scenario {
        Scenario::Evening => evening(&arguments),
        Scenario::Venue => venue(&arguments),
    }
}

fn write(json: Option<&Path>, findings: &impl Serialize) -> Result<()> {
    let Some(path) = json else { return Ok(()) };
    std::fs::write(path, serde_json::to_vec_pretty(findings)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
fn evening(arguments: &Arguments) -> Result<()> {
    let demo = run_demo(&mut std::io::stdout().lock())?;
    write(arguments.json.as_deref(), &demo.findings)?;
    demo.findings.check()?;
    println!("── Everything found is what the lab knows to be true.");
    if arguments.keep {
        println!("\nThe lab goes on. Look around with");
        println!("  nsenter --net={} bash        # the gateway", demo.lab.gateway.path().display());
        for client in &demo.lab.clients {
            println!("  nsenter --net={} bash        # {}", client.namespace.path().display(), client.name);
        }
        println!("  target/release/hotspot find --archive {}", demo.data_dir.join("archive").display());
        println!("and remove it with: cargo xtask demo --clean");
        demo.lab.keep();
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
fn venue(arguments: &Arguments) -> Result<()> {
    let evening = run_venue(&mut std::io::stdout().lock())?;
    write(arguments.json.as_deref(), &evening.findings)?;
    let verdict = evening.findings.check();
    if arguments.keep {
        println!("The lab goes on, with its archive in {}.", evening.archive().display());
        println!("Remove it with: cargo xtask demo --clean");
        evening.keep();
    }
    verdict?;
    println!("── Nobody was taken for somebody else, and what was clear was said.");
    Ok(())
}
