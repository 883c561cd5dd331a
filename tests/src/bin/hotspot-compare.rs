//! Replays captures past an agent, and compares what it recorded with what tshark reads in them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use hotspot_tests::cable::Cable;
use hotspot_tests::captures::reaches_tc;
use hotspot_tests::pcap::{self, Packets};

/// An Ethernet header: shorter frames cannot be sent.
const FRAME_MIN: usize = 14;
/// With the largest MTU of a virtual cable.
const FRAME_MAX: usize = 14 + 65_535;

/// So much is replayed past one agent.
const GROUP_CAPTURES: usize = 64;
const GROUP_FRAMES: usize = 100_000;

#[derive(Parser)]
#[command(about = "Replays captures past an agent, and compares what it recorded with what tshark reads in them")]
struct Arguments {
    /// How the agent attaches
    #[arg(long, value_enum, default_value_t = Hook::Tc)]
    hook: Hook,
    /// Captures of Ethernet, raw IP or Linux's cooked packets, in any format Wireshark reads
    #[arg(required = true)]
    captures: Vec<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Hook {
    Tc,
    Clsact,
    Xdp,
    Xdpgeneric,
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Clsact => "clsact",
            Self::Xdp => "xdp",
            Self::Xdpgeneric => "xdpgeneric",
        }
    }
}

#[expect(clippy::print_stderr, reason = "errors go to the person at the terminal")]
fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hotspot-compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True where every capture could be compared, and nothing is different.
#[expect(clippy::print_stdout, reason = "the comparison is what this program is for")]
fn compare(arguments: &Arguments) -> Result<bool> {
    let cable = Cable::new()?;
    let mut seen = Seen { cable, hook: arguments.hook, equal: 0, different: 0, frames: 0 };
    let mut refused = 0;
    let mut group = Group::default();
    for path in &arguments.captures {
        match seen.sendable(path) {
            Ok(frames) => group.push(path, frames),
            Err(error) => {
                println!("{}: not compared: {error:#}", path.display());
                refused += 1;
            }
        }
        if group.frames >= GROUP_FRAMES || group.captures.len() >= GROUP_CAPTURES {
            seen.compare(&std::mem::take(&mut group).captures)?;
        }
    }
    seen.compare(&group.captures)?;
    let Seen { equal, different, frames, .. } = seen;
    println!("{equal} captures equal with {frames} frames, {different} different, {refused} not compared");
    Ok(different == 0 && refused == 0)
}

/// Captures replayed one after the other past one agent.
#[derive(Default)]
struct Group<'a> {
    captures: Vec<(&'a Path, Vec<Vec<u8>>)>,
    frames: usize,
}

impl<'a> Group<'a> {
    fn push(&mut self, path: &'a Path, frames: Vec<Vec<u8>>) {
        self.frames += frames.len();
        self.captures.push((path, frames));
    }
}

/// Whether a frame has to be left out for a reason.
type Applies<'a> = &'a dyn Fn(&[u8]) -> bool;

/// What has been compared so far, and where.
struct Seen {
    cable: Cable,
    hook: Hook,
    equal: usize,
    different: usize,
    frames: usize,
}

impl Seen {
    /// Compares captures together and, where something is different, each half by itself, down to single captures.
    #[expect(clippy::print_stdout, reason = "the comparison is what this program is for")]
    fn compare(&mut self, captures: &[(&Path, Vec<Vec<u8>>)]) -> Result<()> {
        if captures.is_empty() {
            return Ok(());
        }
        let all: Vec<Vec<u8>> = captures.iter().flat_map(|(_, frames)| frames).cloned().collect();
        let (told, recorded) = self.cable.compare(&all, self.hook.name())?;
        let differences = told.differences(&recorded);
        if differences.is_empty() {
            self.equal += captures.len();
            self.frames += all.len();
            for (path, frames) in captures {
                println!("{}: equal, {} frames", path.display(), frames.len());
            }
            return Ok(());
        }
        if let [(path, _)] = captures {
            self.different += 1;
            differences.iter().for_each(|difference| println!("{}: {difference}", path.display()));
            return Ok(());
        }
        let (first, second) = captures.split_at(captures.len() / 2);
        self.compare(first)?;
        self.compare(second)
    }

    /// The frames of a capture that a cable carries as far as the hook; says what is left out.
    #[expect(clippy::print_stdout, reason = "the comparison is what this program is for")]
    fn sendable(&self, path: &Path) -> Result<Vec<Vec<u8>>> {
        let Packets { mut frames, others } = pcap::read(path, self.cable.dir())?;
        for (link_type, count) in &others {
            ensure!(
                !frames.is_empty(),
                "its {count} packets are of link type {link_type}, which is not Ethernet and cannot be put on it"
            );
            println!("{}: left out {count} packets of link type {link_type}", path.display());
        }
        let through_tc = matches!(self.hook, Hook::Tc | Hook::Clsact);
        let reasons: [(&str, Applies<'_>); 3] = [
            ("shorter than an Ethernet header", &|frame| frame.len() < FRAME_MIN),
            ("longer than a cable of MTU 65535 carries", &|frame| frame.len() > FRAME_MAX),
            ("cut inside a VLAN tag, which never reach tc", &|frame| through_tc && !reaches_tc(frame)),
        ];
        for (reason, applies) in reasons {
            let before = frames.len();
            frames.retain(|frame| !applies(frame));
            if frames.len() != before {
                println!("{}: left out {} frames {reason}", path.display(), before - frames.len());
            }
        }
        Ok(frames)
    }
}
