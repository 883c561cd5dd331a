//! `hotspot`: what investigators and compliance officers ask an archive. Needs no root, and changes nothing that a gateway signed;
//! what is asked goes into the audit log.
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod address;
mod arguments;
mod ask;
mod checkpoint;
mod clock;
mod columns;
mod coverage;
mod decode;
mod envelope;
mod find;
mod kept;
mod keys;
mod nat_map;
mod output;
mod passphrase;
mod progress;
mod remote;
mod retention;
mod ship;
mod spreadsheet;
mod stamp;
mod store;
mod time;
mod totals;
mod trust;
mod tsa;
mod verify;
mod who;
mod witness;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;

/// How a command ended; the numbers are the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done = 0,
    /// And everything that was searched was recorded.
    NothingFound = 1,
    /// What was asked for cannot be here.
    WrongQuestion = 2,
    /// Damaged, not recorded, or not written.
    Damaged = 3,
    /// The rest are verdicts of `verify`.
    Moved = 5,
    Receipts = 6,
    Cut = 7,
    Unanchored = 8,
    Doubtful = 9,
}

/// Why a command could not be carried out.
#[derive(Debug)]
enum Failure {
    /// The question is not one; exit code 2.
    Usage(String),
    /// The data is damaged or not there; exit code 3.
    Damaged(String),
    /// The question may not be answered; exit code 4.
    Refused(String),
    /// Writing the answer failed; exit code 3.
    Output(std::io::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

fn main() -> ExitCode {
    hotspot_archive::private::mask_files();
    let arguments = Arguments::parse();
    if let Some(descriptor) = arguments.passphrase_fd
        && let Err(error) = passphrase::read_from(descriptor)
    {
        output::say(format!("--passphrase-fd {descriptor}: {error}"));
        return ExitCode::from(2);
    }
    let outcome = match arguments.command {
        Command::Find(arguments) => find::run(&arguments),
        Command::Who(arguments) => who::run(&arguments),
        Command::Decode(arguments) => decode::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Keys { command } => keys::run(&command),
        Command::Hold { command } => retention::hold(&command),
        Command::Expire(arguments) => retention::expire(&arguments),
        Command::Coverage(arguments) => coverage::run(&arguments),
        Command::Clock(arguments) => clock::run(&arguments),
        Command::Ship(arguments) => ship::run(&arguments),
        Command::Checkpoint(arguments) => checkpoint::run(&arguments),
        Command::Witness { command } => witness::run(&command),
        Command::Stamp(arguments) => stamp::run(&arguments),
    };
    match outcome {
        Ok(outcome) => ExitCode::from(outcome as u8),
        Err(Failure::Usage(what)) => {
            output::say_lines(&what);
            ExitCode::from(2)
        }
        Err(Failure::Damaged(what)) => {
            output::say(what);
            ExitCode::from(3)
        }
        Err(Failure::Refused(what)) => {
            output::say(format!("refused: {what}"));
            ExitCode::from(4)
        }
        // Whoever read the answer has seen enough, and need not be told; but all of it was not written.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(3),
        Err(Failure::Output(error)) => {
            output::say(format!("the answer cannot be written: {error}"));
            // Not 1: nobody may take that for "nothing found".
            ExitCode::from(3)
        }
    }
}
