//! Finds the toolchain for the kernel programs and builds them: the one place that decides which compiler is used.
//!
//! The programs need a compiler that accepts `-Z build-std=core`, the source of `core` for exactly that compiler, and
//! `bpf-linker` linked against the same LLVM. Two kinds of machine have them: one with rustup (a nightly with `rust-src`),
//! and Debian 12 with the packages `rustc-web`, `cargo-web` and `rust-web-src`. Never installs anything: `cargo xtask setup`
//! does.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Target of the kernel programs; maps are read on the same machine, so its byte order is the machine's.
const TARGET: &str = "bpfel-unknown-none";

/// A compiler that can build the kernel programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    pub kind: Kind,
    cargo: PathBuf,
    rustc: PathBuf,
    linker_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A rustup nightly with the component `rust-src`.
    RustupNightly,
    /// Debian's `rustc-web`, `cargo-web` and `rust-web-src`, allowed to use unstable options by `RUSTC_BOOTSTRAP`.
    DebianWeb,
}

/// What is not on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingToolchain {
    Compiler,
    Linker,
}

impl fmt::Display for MissingToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compiler => {
                "no compiler for the kernel programs (a rustup nightly with rust-src, or Debian's rustc-web with rust-web-src); \
                 run `cargo xtask setup`"
            }
            Self::Linker => "bpf-linker is not installed; run `cargo xtask setup`",
        })
    }
}

impl std::error::Error for MissingToolchain {}

/// The build itself failed; the compiler's messages are on standard error.
#[derive(Debug)]
pub enum BuildError {
    Spawn(std::io::Error),
    Failed(std::process::ExitStatus),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(error) => write!(f, "could not start cargo for the kernel programs: {error}"),
            Self::Failed(status) => write!(f, "building the kernel programs failed ({status})"),
        }
    }
}

impl std::error::Error for BuildError {}

impl Toolchain {
    /// Looks for a toolchain, rustup's first.
    pub fn find() -> Result<Self, MissingToolchain> {
        let (kind, cargo, rustc) = rustup_nightly().or_else(debian_web).ok_or(MissingToolchain::Compiler)?;
        let linker = find_program("bpf-linker").ok_or(MissingToolchain::Linker)?;
        let linker_dir = linker.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { kind, cargo, rustc, linker_dir })
    }

    /// Flags by which the objects name no directory of this machine: builds of the same source are the same anywhere.
    fn remapped_paths(&self, source: &Path) -> impl Iterator<Item = String> {
        let workspace = source.canonicalize().ok().and_then(|source| source.parent().map(Path::to_path_buf));
        let sysroot = path_printed_by(Command::new(&self.rustc).args(["--print", "sysroot"]));
        [(workspace, "hotspot"), (cargo_home(), "cargo"), (sysroot, "rust")]
            .into_iter()
            .filter_map(|(path, name)| Some(format!("--remap-path-prefix={}={name}", path?.display())))
    }

    /// Builds the programs in `source` (the directory `hotspot-ebpf`) and returns where the objects are.
    pub fn build(&self, source: &Path, target_dir: &Path) -> Result<Objects, BuildError> {
        let flags = [
            format!("--cfg=bpf_target_arch=\"{}\"", bpf_arch()),
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            // 32-bit instructions: Linux 5.1, older than the ring buffers (5.8).
            "-Ctarget-cpu=v3".to_owned(),
        ];
        let flags = flags.into_iter().chain(self.remapped_paths(source)).collect::<Vec<_>>();
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(std::iter::once(self.linker_dir.clone()).chain(env::split_paths(&path)));
        let mut build = Command::new(&self.cargo);
        build
            .current_dir(source)
            .args([
                "build",
                "--quiet",
                "--release",
                "--locked",
                "-Z",
                "build-std=core",
                "--target",
                TARGET,
                "--target-dir",
            ])
            .arg(target_dir)
            .env("PATH", path.unwrap_or_default())
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        // What cargo tells build scripts and aliases is about the other compiler.
        for name in [
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTUP_TOOLCHAIN",
            "CARGO",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "RUSTDOC",
        ] {
            build.env_remove(name);
        }
        let status = build.status().map_err(BuildError::Spawn)?;
        if !status.success() {
            return Err(BuildError::Failed(status));
        }
        let release = target_dir.join(TARGET).join("release");
        Ok(Objects { hotspot: release.join("hotspot"), bench: release.join("bench") })
    }
}

/// What a program prints, as a path.
fn path_printed_by(command: &mut Command) -> Option<PathBuf> {
    let output = command.output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The compiled programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objects {
    /// What the agent loads.
    pub hotspot: PathBuf,
    /// Twins for benchmarks and tests; never shipped.
    pub bench: PathBuf,
}

/// The name the bindings use for this machine's architecture.
fn bpf_arch() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "x86_64",
        "aarch64" => "aarch64",
        "arm" => "arm",
        "riscv64" => "riscv64",
        "powerpc64" => "powerpc64",
        "s390x" => "s390x",
        "loongarch64" => "loongarch64",
        other => other,
    }
}

fn rustup_nightly() -> Option<(Kind, PathBuf, PathBuf)> {
    let which =
        |program: &str| path_printed_by(Command::new("rustup").args(["which", "--toolchain", "nightly", program]));
    let (cargo, rustc) = (which("cargo")?, which("rustc")?);
    has_core_source(&rustc).then_some((Kind::RustupNightly, cargo, rustc))
}

fn debian_web() -> Option<(Kind, PathBuf, PathBuf)> {
    let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
    (cargo.exists() && rustc.exists() && has_core_source(&rustc)).then_some((Kind::DebianWeb, cargo, rustc))
}

fn has_core_source(rustc: &Path) -> bool {
    path_printed_by(Command::new(rustc).args(["--print", "sysroot"]))
        .is_some_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists())
}

/// A program on `PATH` or where cargo installs programs.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home().map(|home| home.join("bin")))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}
