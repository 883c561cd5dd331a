//! `hotspot witness`: the second machine, which signs for chains that only grow.
//!
//! Owns reading requests and archives, and where cosignatures go. What is signed for, and what is refused, is decided in `hotspot_archive::witness`.

mod watch;

use std::io::{Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use hotspot_archive::layout::is_name;
use hotspot_archive::signing::{parse_public_key, read_public_key};
use hotspot_archive::witness::{REQUEST_BYTES_MAX, Refusal, Request, Witness, WitnessKey, trust, trust_audit_log};

use crate::arguments::{WitnessCommand, WitnessKeyArguments, WitnessSignArguments, WitnessTrustArguments};
use crate::output::{say, stdout};
use crate::{Failure, Outcome};

pub(crate) fn run(command: &WitnessCommand) -> Result<Outcome, Failure> {
    match command {
        WitnessCommand::NewKey(arguments) => new_key(arguments),
        WitnessCommand::Trust(arguments) => make_known(arguments),
        WitnessCommand::Sign(arguments) => sign(arguments),
        WitnessCommand::Watch(arguments) => watch::run(arguments),
    }
}

fn new_key(arguments: &WitnessKeyArguments) -> Result<Outcome, Failure> {
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => format!("hotspot-witness/{}", machine()?),
    };
    let made = WitnessKey::create(&arguments.file, &name)
        .map_err(|error| Failure::Usage(format!("{} cannot be made: {error}", arguments.file.display())))?;
    let mut to = stdout();
    writeln!(to, "{}", made.verifier().text())?;
    to.flush()?;
    Ok(Outcome::Done)
}

fn machine() -> Result<String, Failure> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_owned();
    if is_name(&name) {
        Ok(name)
    } else {
        Err(Failure::Usage("this machine's name will not do; give --name".to_owned()))
    }
}

fn make_known(arguments: &WitnessTrustArguments) -> Result<Outcome, Failure> {
    let check = |name: &str| {
        let is_ours = is_name(name);
        if is_ours {
            Ok(())
        } else {
            Err(Failure::Usage(format!("{name:?} is no name (letters, digits, '-', '_', '.')")))
        }
    };
    if let Some(name) = &arguments.audit_log {
        check(name)?;
        trust_audit_log(&arguments.state, name).map_err(|refusal| failure(&refusal))?;
    }
    if let (Some(gateway), Some(text)) = (&arguments.gateway, &arguments.public_key) {
        check(gateway)?;
        let key = match parse_public_key(text) {
            Some(key) => key,
            None => read_public_key(Path::new(text)).map_err(|error| Failure::Usage(error.to_string()))?,
        };
        trust(&arguments.state, gateway, &key).map_err(|refusal| failure(&refusal))?;
    }
    Ok(Outcome::Done)
}

fn sign(arguments: &WitnessSignArguments) -> Result<Outcome, Failure> {
    let witness = open(arguments)?;
    let mut text = String::new();
    let read = std::io::stdin().take(REQUEST_BYTES_MAX as u64 + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::Usage(format!("the request cannot be read: {error}")))?;
    let signed = Request::parse(&text).and_then(|request| witness.add_checkpoint(&request, now_s()));
    let mut to = stdout();
    match signed {
        Ok(line) => {
            writeln!(to, "{}", line.text())?;
            to.flush()?;
            Ok(Outcome::Done)
        }
        Err(conflict @ Refusal::Conflict { size, .. }) => {
            writeln!(to, "{size}")?;
            to.flush()?;
            say(conflict.to_string());
            Ok(Outcome::NothingFound)
        }
        Err(refusal) => Err(failure(&refusal)),
    }
}

/// A witness with its key.
fn open(arguments: &WitnessSignArguments) -> Result<Witness, Failure> {
    let key = WitnessKey::open(&arguments.key)
        .map_err(|error| Failure::Usage(format!("{}: {error}", arguments.key.display())))?;
    Ok(Witness::new(&arguments.state, key))
}

/// How a refusal ends the command.
fn failure(refusal: &Refusal) -> Failure {
    let what = refusal.to_string();
    match refusal {
        Refusal::Malformed(_) => Failure::Usage(what),
        Refusal::UnknownOrigin { .. } | Refusal::NotSigned { .. } | Refusal::Conflict { .. } => Failure::Refused(what),
        Refusal::Inconsistent { .. } | Refusal::ClockIsBehind { .. } | Refusal::State { .. } => Failure::Damaged(what),
    }
}

/// Seconds since 1970. A clock before that signs for nothing.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}
