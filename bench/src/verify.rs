//! What proving a gateway's months takes: `hotspot verify` of many small segments, in the clear and encrypted.
//!
//! A chain's length is what counts, so the segments are small: with larger ones `verify` takes what the SHA-256 of their bytes takes on top.
//! Every figure is of the shipped tool as a process. With `--keep` the archives stay in `target/bench` for the next run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use hotspot_archive::keys::{Identity, Recipients};
use hotspot_archive::manifest::{GatewayKey, Manifest};
use serde::Serialize;

use crate::search::{ROTATE_NS, WARM_RUNS, seal, warm};
use crate::traffic::{BEGIN_NS, SEGMENTS as HOUR_SEGMENTS, Traffic};
use crate::write_json;

/// How long the chain is, and how much its segments hold.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Segments of the gateway: 20 000 are seventy days
    #[arg(long, default_value_t = 20_000)]
    segments: u64,
    /// Flows of each
    #[arg(long, default_value_t = 200)]
    flows: u64,
    /// Leaves the archives for the next run of as many segments and flows
    #[arg(long)]
    keep: bool,
}

#[derive(Serialize)]
struct Figure {
    plain_s: f64,
    encrypted_s: f64,
}

/// Measures, prints the figures, and writes the file.
#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
pub(crate) fn run(json: Option<&Path>, options: &Options) -> anyhow::Result<()> {
    let dir = PathBuf::from(format!("target/bench/verify-{}-{}", options.segments, options.flows));
    let made = dir.join("made");
    if !made.exists() {
        // Half of an archive is none.
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        make(&dir, options)?;
        fs::write(&made, [])?;
    }
    println!("{} segments of {} flows; seconds, medians of warm runs", options.segments, options.flows);
    let figure = Figure { plain_s: time(&dir.join("plain"))?, encrypted_s: time(&dir.join("encrypted"))? };
    println!("plain {:.3}, encrypted {:.3}", figure.plain_s, figure.encrypted_s);
    write_json(json, &figure)?;
    if !options.keep {
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// Makes both archives, hour by hour, the last of them before the hour that other benchmarks begin with.
#[expect(clippy::print_stdout, reason = "says how far it is; so many segments take minutes")]
fn make(dir: &Path, options: &Options) -> anyhow::Result<()> {
    let hour_segments = HOUR_SEGMENTS as u64;
    let names: Vec<String> = [Identity::generate(), Identity::generate()].iter().map(Identity::recipient).collect();
    let open = |name: &str, recipients| -> anyhow::Result<Manifest> {
        let key = GatewayKey::open(&dir.join(format!("{name}.key")))?;
        Ok(Manifest::open(&dir.join(name), "gw1", key)?.encrypted_for(recipients))
    };
    fs::create_dir_all(dir)?;
    let mut manifests = [open("plain", None)?, open("encrypted", Some(Recipients::parse(&names, false)?))?];
    let begin_ns = BEGIN_NS - i64::try_from(options.segments)? * ROTATE_NS;
    for hour in 0..options.segments.div_ceil(hour_segments) {
        let mut traffic = Traffic::new(hour, options.flows * hour_segments);
        for segment in hour * hour_segments..options.segments.min((hour + 1) * hour_segments) {
            let mut rows = traffic.next_segment().context("an hour has twelve segments")?;
            let opened_ns = begin_ns + i64::try_from(segment)? * ROTATE_NS;
            for row in &mut rows {
                (row.start_ns, row.end_ns) = (opened_ns, opened_ns + ROTATE_NS);
            }
            manifests.iter_mut().try_for_each(|manifest| seal(manifest, segment + 1, opened_ns, &rows))?;
        }
        if hour % 100 == 99 {
            println!("{} of {} segments made", (hour + 1) * hour_segments, options.segments);
        }
    }
    Ok(())
}

fn time(archive: &Path) -> anyhow::Result<f64> {
    let (seconds, ()) = warm(WARM_RUNS, || {
        let output = Command::new("target/release/hotspot").arg("verify").arg("--archive").arg(archive).output()?;
        ensure!(output.status.success(), "hotspot verify: {output:?}");
        Ok(())
    })?;
    Ok(seconds)
}
