//! What building and testing needs beyond Rust, and getting it. Quick when nothing is missing; never removes anything.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use ebpf_build::{MissingToolchain, Toolchain};

use crate::steps::{run_command, workspace};

/// Debian's compiler for the kernel programs, its source of `core`, and the LLVM that `bpf-linker` is linked with.
const TOOLCHAIN_PACKAGES: [&str; 7] =
    ["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"];
const BPF_LINKER_VERSION: &str = "0.13.0";
/// The S3 server of the tests: checks signatures, knows multipart uploads and conditions, keeps objects as files, and comes as source.
const S3_SERVER: &str = "s3s-fs";
const S3_SERVER_VERSION: &str = "0.14.1";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// Python packages of the tests, by the directory each is imported from.
const PYTHON: [(&str, &str); 5] = [
    ("cryptography", "cryptography==50.0.2"),
    ("duckdb", "duckdb==2.0.0"),
    ("pyarrow", "pyarrow==26.0.1"),
    ("pyspark", "pyspark==4.3.0"),
    ("schemathesis", "schemathesis==4.32.5"),
];

/// Programs the lab runs, and the packages they are in.
const PROGRAMS: [(&str, &str); 36] = [
    ("age", "age"),
    ("base64", "coreutils"),
    ("bpftool", "bpftool"),
    ("busybox", "busybox"),
    ("c++", "g++"),
    ("cc", "gcc"),
    ("conntrack", "conntrack"),
    ("curl", "curl"),
    ("dhclient", "isc-dhcp-client"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("ethtool", "ethtool"),
    ("faketime", "faketime"),
    ("freeradius", "freeradius"),
    ("hostapd", "hostapd"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    // What openNDS makes its rules with.
    ("iptables", "iptables"),
    ("java", "openjdk-17-jre-headless"),
    ("kea-dhcp4", "kea-dhcp4-server"),
    ("kea-dhcp6", "kea-dhcp6-server"),
    ("nfdump", "nfdump"),
    ("nft", "nftables"),
    ("nginx", "nginx-light"),
    ("nsenter", "util-linux"),
    ("opennds", "opennds"),
    ("ping", "iputils-ping"),
    ("python3", "python3-venv"),
    ("radclient", "freeradius-utils"),
    ("setpriv", "util-linux"),
    // Opens what is written for spreadsheets.
    ("soffice", "libreoffice-calc-nogui"),
    ("strace", "strace"),
    ("sysctl", "procps"),
    ("tshark", "tshark"),
    ("udhcpc", "udhcpc"),
    ("wpa_supplicant", "wpasupplicant"),
];

/// Programs that `bench peers` measures beside the agent, and nothing else needs.
const PEERS: [(&str, &str); 6] = [
    ("capinfos", "tshark"),
    ("nfcapd", "nfdump"),
    ("nfpcapd", "nfdump"),
    ("pmacctd", "pmacct"),
    ("softflowd", "softflowd"),
    ("tcpdump", "tcpdump"),
];

/// One thing that is missing, and how it is got.
enum Missing {
    Packages(Vec<&'static str>),
    Linker,
    Compiler,
    Python,
    S3Server,
    Bpffs,
}

impl Missing {
    fn describe(&self) -> String {
        match self {
            Self::Packages(packages) => format!("Debian packages: {}", packages.join(" ")),
            Self::Compiler => format!(
                "a compiler for the kernel programs: with rustup `rustup toolchain install nightly --component rust-src`, \
                 on Debian 12 the packages {}",
                TOOLCHAIN_PACKAGES.join(" ")
            ),
            Self::Linker => format!("bpf-linker {BPF_LINKER_VERSION}"),
            Self::Python => format!("Python packages in target/venv: {}", PYTHON.map(|(_, package)| package).join(" ")),
            Self::S3Server => format!("{S3_SERVER} {S3_SERVER_VERSION}, the S3 server of the tests"),
            Self::Bpffs => "a BPF file system on /sys/fs/bpf".to_owned(),
        }
    }
}

/// Says what is missing; fails if anything is.
pub(crate) fn check() -> Result<()> {
    let missing = find_missing();
    say_missing(&missing);
    ensure!(missing.is_empty(), "run `cargo xtask setup` as root");
    Ok(())
}

/// Gets what is missing.
pub(crate) fn run() -> Result<()> {
    let missing = find_missing();
    if missing.is_empty() {
        return Ok(());
    }
    say_missing(&missing);
    ensure!(is_root(), "setup needs root: it installs packages and mounts the BPF file system");
    for what in &missing {
        match what {
            Missing::Packages(packages) => install(packages)?,
            Missing::Compiler => install_compiler()?,
            Missing::Linker => install_linker()?,
            Missing::Python => install_python()?,
            Missing::S3Server => install_s3_server()?,
            Missing::Bpffs => run_command(Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))?,
        }
    }
    let left = find_missing();
    say_missing(&left);
    ensure!(left.is_empty(), "setup could not get everything");
    Ok(())
}

/// Gets what only `bench peers` needs.
pub(crate) fn peers() -> Result<()> {
    let missing = missing_packages(&PEERS);
    if missing.is_empty() {
        return Ok(());
    }
    say_missing(&[Missing::Packages(missing.clone())]);
    install(&missing)?;
    ensure!(missing_packages(&PEERS).is_empty(), "setup could not get everything");
    Ok(())
}

fn missing_packages(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        programs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

#[expect(clippy::print_stderr, reason = "tells the person at the terminal what happens to the machine")]
fn say_missing(missing: &[Missing]) {
    for what in missing {
        eprintln!("setup: missing: {}", what.describe());
    }
}

fn find_missing() -> Vec<Missing> {
    let mut missing = Vec::new();
    let packages = missing_packages(&PROGRAMS);
    let has_venv =
        Command::new("python3").args(["-c", "import ensurepip"]).output().is_ok_and(|output| output.status.success());
    let venv = (!has_venv && !packages.contains(&"python3-venv")).then_some("python3-venv");
    let packages: Vec<&str> = packages.into_iter().chain(venv).collect();
    if !packages.is_empty() {
        missing.push(Missing::Packages(packages));
    }
    match Toolchain::find() {
        Ok(_) => {}
        Err(MissingToolchain::Compiler) => {
            missing.push(Missing::Compiler);
            if find("bpf-linker").is_none() {
                missing.push(Missing::Linker);
            }
        }
        Err(MissingToolchain::Linker) => missing.push(Missing::Linker),
    }
    if !venv_dir().join("bin/python").exists() || !has_python() {
        missing.push(Missing::Python);
    }
    if find(S3_SERVER).is_none() {
        missing.push(Missing::S3Server);
    }
    if !Path::new("/sys/fs/bpf").exists() || !is_bpffs() {
        missing.push(Missing::Bpffs);
    }
    missing
}

fn is_bpffs() -> bool {
    fs::read_to_string("/proc/mounts").is_ok_and(|mounts| {
        mounts.lines().any(|line| {
            let mut words = line.split(' ').skip(1);
            words.next() == Some("/sys/fs/bpf") && words.next() == Some("bpf")
        })
    })
}

fn has_python() -> bool {
    let mut pythons = fs::read_dir(venv_dir().join("lib")).into_iter().flatten().flatten();
    pythons.any(|python| PYTHON.iter().all(|(import, _)| python.path().join("site-packages").join(import).exists()))
}

fn venv_dir() -> PathBuf {
    workspace().join("target/venv")
}

fn install(packages: &[&str]) -> Result<()> {
    ensure!(find("apt-get").is_some(), "no apt-get here; install by other means: {}", packages.join(" "));
    let _policy = NoServices::new()?;
    run_command(Command::new("apt-get").args(["update", "-qq"]))?;
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages);
    run_command(&mut apt)
}

fn install_compiler() -> Result<()> {
    for (package, conflicts_with) in [("rustc", "rustc-web"), ("rustup", "rustc-web")] {
        let installed = Command::new("dpkg-query").args(["-W", "-f=${Status}", package]).output();
        if installed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("install ok installed")) {
            bail!(
                "Debian's package {package} is installed, which conflicts with {conflicts_with}; with it, use \
                 `rustup toolchain install nightly --component rust-src`, or remove it yourself"
            );
        }
    }
    install(&TOOLCHAIN_PACKAGES)
}

fn install_linker() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["install", "bpf-linker", "--locked", "--version", BPF_LINKER_VERSION]);
    if Path::new(LLVM_PREFIX).exists() {
        cargo.env("LLVM_PREFIX", LLVM_PREFIX).args(["--no-default-features", "--features", "llvm-22"]);
    }
    // Not into this workspace's build.
    run_command(cargo.current_dir("/"))
}

fn install_s3_server() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["install", S3_SERVER, "--locked", "--version", S3_SERVER_VERSION, "--features", "binary"]);
    // Not optimised: what it serves is small, and it is built in two thirds of the time.
    cargo.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "0");
    // Not into this workspace's build.
    run_command(cargo.current_dir("/"))
}

fn install_python() -> Result<()> {
    run_command(Command::new("python3").args(["-m", "venv"]).arg(venv_dir()))?;
    // Not `bin/pip`, which belongs to wherever the directory was first.
    let mut pip = Command::new(venv_dir().join("bin/python"));
    pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]).args(PYTHON.map(|(_, package)| package));
    run_command(&mut pip)
}

/// While it lives, Debian packages do not start their services: nothing of the lab runs on the machine itself.
struct NoServices(PathBuf);

impl NoServices {
    fn new() -> Result<Option<Self>> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(None);
        }
        fs::write(&path, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {}", path.display()))?;
        run_command(Command::new("chmod").arg("755").arg(&path))?;
        Ok(Some(Self(path)))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

/// A program on `PATH`, in the directories only root's `PATH` has, or where cargo installs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin"));
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain(home)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}
