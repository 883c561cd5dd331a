//! Replays captures past an agent, and compares what it recorded with what tshark reads in them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use hotspot_tests::cable::Cable;
use hotspot_tests::captures::{self, reaches_tc};
use hotspot_tests::namespace::run;

/// An Ethernet header: shorter frames cannot be sent.
const FRAME_MIN: usize = 14;

#[derive(Parser)]
#[command(about = "Replays captures past an agent, and compares what it recorded with what tshark reads in them")]
struct Arguments {
    /// How the agent attaches
    #[arg(long, value_enum, default_value_t = Hook::Tc)]
    hook: Hook,
    /// Captures of Ethernet, in any format tshark reads
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

/// True where nothing is different.
#[expect(clippy::print_stdout, reason = "the comparison is what this program is for")]
fn compare(arguments: &Arguments) -> Result<bool> {
    let cable = Cable::new()?;
    let mut is_equal = true;
    for capture in &arguments.captures {
        let mut frames = frames(&cable, capture)?;
        let before = frames.len();
        let through_tc = matches!(arguments.hook, Hook::Tc | Hook::Clsact);
        frames.retain(|frame| frame.len() >= FRAME_MIN && (!through_tc || reaches_tc(frame)));
        if frames.len() != before {
            println!("{}: {} frames cannot be sent, or never reach the hook", capture.display(), before - frames.len());
        }
        let (told, recorded) = cable.compare(&frames, arguments.hook.name())?;
        let differences = told.differences(&recorded);
        is_equal &= differences.is_empty();
        if differences.is_empty() {
            println!("{}: equal, {} frames, {} flows", capture.display(), told.packets(), told.flows.len());
        }
        differences.iter().for_each(|difference| println!("{}: {difference}", capture.display()));
    }
    Ok(is_equal)
}

/// The frames of a capture in any format.
fn frames(cable: &Cable, capture: &Path) -> Result<Vec<Vec<u8>>> {
    let plain = cable.dir().join("plain.pcap");
    run(Command::new("tshark").args(["-F", "pcap", "-r"]).arg(capture).arg("-w").arg(&plain))?;
    captures::read(&plain)
}
