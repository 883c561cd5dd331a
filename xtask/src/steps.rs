//! What the tasks run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The workspace's root: that of the checkout `cargo xtask` was said in, which may share what is built with the one this was built in.
pub(crate) fn workspace() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = Path::new(&manifest);
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Runs a command to its end, its output on the terminal.
pub(crate) fn run_command(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// What cargo says of `xtask` itself is not handed on: crates that watch these variables would be built again whenever a task follows
/// a plain `cargo build`.
fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args(words);
    let of_this_crate = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_crate)) {
        cargo.env_remove(name);
    }
    cargo
}

/// All programs of the workspace, as the tests build them: packages alone would be built once more, with fewer features.
fn build() -> Result<()> {
    run_command(&mut cargo(&["build", "--quiet", "--release", "--locked", "--workspace", "--bins"]))
}

/// Runs one of the programs that were built.
fn run_program(name: &str, options: &[String]) -> Result<()> {
    build()?;
    run_command(Command::new(workspace().join("target/release").join(name)).current_dir(workspace()).args(options))
}

pub(crate) fn demo(options: &[String]) -> Result<()> {
    run_program("hotspot-demo", options)
}

/// All tests, one after the other: those on the lab share the machine, and exact counts need it quiet.
pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    // Builds the agent and the tool too: both have tests of their own.
    let mut tests = cargo(&["test", "--release", "--locked", "--workspace", "--no-fail-fast"]);
    tests.args(filter).args(["--", "--test-threads=1"]);
    run_command(&mut tests)
}

/// The long tests.
pub(crate) fn soak() -> Result<()> {
    build()?;
    let mut tests = cargo(&["test", "--release", "--locked", "--workspace", "--no-fail-fast"]);
    tests.args(["--test", "join", "--test", "damage", "--test", "faults", "--test", "soak"]);
    run_command(tests.args(["--", "--ignored", "--test-threads=1"]))
}

pub(crate) fn lint() -> Result<()> {
    run_command(&mut cargo(&["fmt", "--all", "--check"]))?;
    run_command(cargo(&["fmt", "--check"]).current_dir(workspace().join("hotspot-ebpf")))?;
    let clippy = &mut cargo(&["clippy", "--quiet", "--locked", "--workspace", "--all-targets"]);
    run_command(clippy.args(["--", "-D", "warnings"]))?;
    // A workspace of its own, which nothing else builds.
    run_command(cargo(&["check", "--quiet", "--locked"]).current_dir(workspace().join("fuzz")))
}

/// Compares captures as the agent records them with tshark.
pub(crate) fn compare(options: &[String]) -> Result<()> {
    run_program("hotspot-compare", options)
}

pub(crate) fn bench(options: &[String]) -> Result<()> {
    run_program("hotspot-bench", options)
}
