//! `hotspot witness watch`: looks at archives and audit logs from time to time, and signs for what has grown.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use hotspot_archive::audit;
use hotspot_archive::cosignature::{audit_origin, gateway_origin};
use hotspot_archive::note::Note;
use hotspot_archive::pieces;
use hotspot_archive::witness::{Refusal, Source, Witness};

use super::{failure, now_s, open};
use crate::arguments::WitnessWatchArguments;
use crate::checkpoint::with_root;
use crate::output::say;
use crate::store::{Store, is_url};
use crate::{Failure, Outcome};

pub(super) fn run(arguments: &WitnessWatchArguments) -> Result<Outcome, Failure> {
    let witness = open(&arguments.sign)?;
    // A run that was cut short may have signed for a tree without having added it to the file: once it is signed for again.
    let mut is_first = true;
    loop {
        let outcome = look(arguments, &witness, is_first)?;
        let Some(every) = arguments.every else { return Ok(outcome) };
        is_first = false;
        std::thread::sleep(Duration::from_secs(every.into()));
    }
}

/// One look at everything. What is wrong with one origin is said, and keeps no other from being signed for.
fn look(arguments: &WitnessWatchArguments, witness: &Witness, is_first: bool) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::Done;
    let mut note = |result: Result<(), Failure>, of: &str| match result {
        Ok(()) => Ok(()),
        Err(Failure::Usage(what) | Failure::Damaged(what) | Failure::Refused(what)) => {
            say(format!("{of}: {what}"));
            outcome = Outcome::Damaged;
            Ok(())
        }
        Err(other) => Err(other),
    };
    for archive in &arguments.archives {
        let gateways = match gateways(archive) {
            Ok(gateways) => gateways,
            Err(error) => {
                note(Err(error), &archive.display().to_string())?;
                continue;
            }
        };
        for gateway in gateways {
            note(see_chain(witness, archive, &gateway, is_first, &arguments.to), &format!("gateway {gateway}"))?;
        }
    }
    for (name, path) in &arguments.audit {
        note(see_audit_log(witness, name, path, is_first, &arguments.to), &format!("audit log {name}"))?;
    }
    Ok(outcome)
}

/// The gateways that have a chain in an archive.
fn gateways(archive: &Path) -> Result<BTreeSet<String>, Failure> {
    let failed = |error: io::Error| Failure::Damaged(format!("{} cannot be read: {error}", archive.display()));
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    if is_url(archive) {
        let store = Store::open(&archive.to_string_lossy())?;
        (files, directories) = store.wait(store.list_one("manifest")).map_err(failed)?;
    } else {
        for entry in fs::read_dir(archive.join("manifest")).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().map_err(failed)?.is_dir() { directories.push(name) } else { files.push(name) }
        }
    }
    let shipped = directories.iter().filter_map(|name| pieces::gateway_of(name));
    let own = files.iter().filter_map(|name| name.strip_suffix(".jsonl"));
    Ok(shipped.chain(own).map(str::to_owned).collect())
}

fn see_chain(witness: &Witness, archive: &Path, gateway: &str, is_first: bool, to: &Path) -> Result<(), Failure> {
    let refused = |refusal: Refusal| failure(&refusal);
    let key = match witness.first_key(gateway) {
        // Other gateways may lie in the same archive, and be another witness's.
        Err(Refusal::UnknownOrigin { origin }) => {
            if is_first {
                say(format!("{origin} is not watched: `hotspot witness trust` makes it known"));
            }
            return Ok(());
        }
        key => key.map_err(refused)?,
    };
    let mut findings = Vec::new();
    let source = with_root(archive, gateway, |root| {
        Source::open(root, gateway, Some(key), |line, what| findings.push(format!("line {line} {what}")))
            .map_err(|error| Failure::Damaged(error.to_string()))
    })?;
    if let Some(what) = findings.first() {
        return Err(Failure::Damaged(format!(
            "its chain is damaged, and was not signed for: {what}; run `hotspot verify`"
        )));
    }
    let old = witness.size(&gateway_origin(gateway)).map_err(refused)?;
    let Some(size) = source.size() else {
        return Err(Failure::Damaged("there is no checkpoint that fits the chain".to_owned()));
    };
    if size == old && !is_first {
        return Ok(());
    }
    let Some(request) = source.request(old) else {
        return Err(Failure::Damaged(format!(
            "it has a checkpoint of {size} lines, and {old} were signed for: its end was cut off"
        )));
    };
    let line = witness.add_checkpoint(&request, now_s()).map_err(refused)?;
    let mut note = request.note;
    note.signatures.push(line);
    add(to, &note)
}

fn see_audit_log(witness: &Witness, name: &str, path: &Path, is_first: bool, to: &Path) -> Result<(), Failure> {
    let hashes =
        audit::finished_hashes(path).map_err(|error| Failure::Damaged(format!("{}: {error}", path.display())))?;
    let old = match witness.size(&audit_origin(name)) {
        Err(Refusal::UnknownOrigin { .. }) => 0,
        size => size.map_err(|refusal| failure(&refusal))?,
    };
    if hashes.len() as u64 == old && !is_first {
        return Ok(());
    }
    let note = witness.see_audit_log(name, &hashes, now_s()).map_err(|refusal| failure(&refusal))?;
    add(to, &note)
}

/// Adds a note to the file; when this returns, it is on disk.
fn add(to: &Path, note: &Note) -> Result<(), Failure> {
    let written = OpenOptions::new().append(true).create(true).open(to).and_then(|mut file| {
        file.write_all(format!("{}\n", note.bytes()).as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Failure::Damaged(format!("{} cannot be written: {error}", to.display())))
}
