//! `cargo xtask demo`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use hotspot_tests::demo::run_demo;
use hotspot_tests::namespace;

/// Builds a venue from network namespaces, records it, and shows what an investigator sees.
#[derive(Parser)]
struct Arguments {
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

#[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.clean {
        namespace::remove_all();
        println!("removed");
        return Ok(());
    }
    let demo = run_demo(&mut std::io::stdout().lock())?;
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&demo.findings)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
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
