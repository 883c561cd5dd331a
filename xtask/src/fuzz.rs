//! Fuzzing: the targets in `fuzz/`, with the inputs kept there and those found here before.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::setup::find;
use crate::steps::{run_command, workspace};

const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// Memory of a target; beyond it the input is a finding.
const RSS_MAX_MIB: u32 = 2048;

/// Runs a target for so long; fails when it finds an input that makes it panic, hang or take too much memory.
pub(crate) fn run(target: &str, seconds: u32) -> Result<()> {
    let targets = targets()?;
    ensure!(
        targets.iter().any(|known| known == target),
        "no fuzz target {target:?}; there are: {}",
        targets.join(", ")
    );
    if find("cargo-fuzz").is_none() {
        // Not into this workspace's build.
        run_command(
            cargo().args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ_VERSION]).current_dir("/"),
        )?;
    }
    // New inputs go to the first directory; what is kept in the repository is only read.
    let found = workspace().join("target/fuzz-corpus").join(target);
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let kept = workspace().join("fuzz/corpus").join(target);
    let mut fuzz = cargo();
    // The sanitizer's options are unstable; a stable compiler takes them with this.
    fuzz.env("RUSTC_BOOTSTRAP", "1").args(["fuzz", "run", target]).arg(&found).arg(&kept).arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-rss_limit_mb={RSS_MAX_MIB}"),
        "-max_len=8192".to_owned(),
        "-timeout=10".to_owned(),
        "-print_final_stats=1".to_owned(),
    ]);
    run_command(fuzz.current_dir(workspace()))
}

/// Names of the targets.
fn targets() -> Result<Vec<String>> {
    let dir = workspace().join("fuzz/fuzz_targets");
    let files = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names: Vec<String> =
        files.flatten().map(|file| PathBuf::from(file.file_name()).with_extension("").display().to_string()).collect();
    names.sort();
    Ok(names)
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
