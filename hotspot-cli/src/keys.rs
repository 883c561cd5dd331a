//! `hotspot keys`: identities, and who can read an archive.
//!
//! Nothing a gateway signed is ever changed: a recipient is added by one more file beside each segment, and what the signed lines
//! say of the keys tells whether it holds the right one.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use hotspot_archive::chain::Pins;
use hotspot_archive::keys::{
    Identity, KeyError, Keyring, Recipients, added_sidecar_path, identity_file, recipient_id, sidecar_path,
};
use hotspot_archive::manifest::FileEntry;
use hotspot_archive::moved::Moved;
use hotspot_archive::output_file::OutputFile;
use hotspot_archive::pieces::{ReadChain, ReadChains, read_chains};
use hotspot_archive::regular;

use crate::arguments::{AddArguments, KeysCommand, NewArguments, ShowArguments, UnwrapArguments};
use crate::ask::Query;
use crate::find::{close_process, keyring};
use crate::output::{line, stdout};
use crate::passphrase;
use crate::remote::here;
use crate::time::now_ns;
use crate::{Failure, Outcome, ask};

pub(crate) fn run(command: &KeysCommand) -> Result<Outcome, Failure> {
    match command {
        KeysCommand::New(arguments) => new(arguments),
        KeysCommand::Show(arguments) => show(arguments),
        KeysCommand::Add(arguments) => add(arguments, false),
        KeysCommand::Rewrap(arguments) => add(arguments, true),
        KeysCommand::Unwrap(arguments) => unwrap(arguments),
    }
}

fn new(arguments: &NewArguments) -> Result<Outcome, Failure> {
    let path = &arguments.file;
    let failed = |error: std::io::Error| Failure::Usage(format!("{} cannot be made: {error}", path.display()));
    close_process()?;
    let passphrase = arguments.passphrase.then(|| passphrase::ask_for_new(path)).transpose().map_err(failed)?;
    let identity = Identity::generate();
    let recipient = identity.recipient();
    let content = identity_file(&identity, passphrase.as_ref().map(|passphrase| passphrase.as_str()));
    let content = content.map_err(|error| Failure::Usage(error.to_string()))?;
    let file = OutputFile::begin_secret(path).map_err(failed)?;
    file.file().and_then(|mut to| to.write_all(&content)).and_then(|()| file.commit()).map_err(failed)?;
    let mut to = stdout();
    writeln!(to, "{recipient}")?;
    to.flush()?;
    Ok(Outcome::Done)
}

/// Encrypted segments that are here.
#[derive(Default)]
struct Segments {
    /// With what their lines say of them; those that were deleted are left out.
    here: Vec<(PathBuf, FileEntry, Vec<String>)>,
    /// Where others were moved to, with their number.
    moved: BTreeMap<String, u64>,
}

fn segments(archive: &Path) -> Result<Segments, Failure> {
    let archive = here(archive)?;
    let read = read_chains(archive, &Pins::default(), Some(now_ns()));
    let ReadChains { chains, damage: mut failures } = read.map_err(|error| Failure::Damaged(error.to_string()))?;
    failures.extend(chains.iter().flat_map(ReadChain::damage));
    if !failures.is_empty() {
        return Err(Failure::Damaged(failures.join("; ")));
    }
    let moved = Moved::read(archive).map_err(|error| Failure::Damaged(error.to_string()))?;
    let mut segments = Segments::default();
    for line in chains.iter().flat_map(ReadChain::segments) {
        for file in line.files.iter().filter(|file| file.key.is_some() && file.path.ends_with(".parquet")) {
            let path = archive.join(&file.path);
            if path.exists() {
                segments.here.push((path, file.clone(), line.recipients.clone()));
            } else if let Some(to) = moved.to(&line.gateway, line.sequence) {
                *segments.moved.entry(to.to_owned()).or_default() += 1;
            }
        }
    }
    Ok(segments)
}

fn show(arguments: &ShowArguments) -> Result<Outcome, Failure> {
    let Segments { here: segments, moved } = segments(&arguments.archive)?;
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let added = added_recipients(&arguments.archive)?;
    for (path, _, recipients) in &segments {
        for recipient in recipients {
            counts.entry(recipient.clone()).or_default().0 += 1;
        }
        for recipient in added.iter().filter(|recipient| added_sidecar_path(path, recipient).exists()) {
            counts.entry(recipient.clone()).or_default().1 += 1;
        }
    }
    let mut to = stdout();
    writeln!(to, "{} encrypted segments", segments.len())?;
    for (recipient, (sealed, added)) in &counts {
        line(&mut to, format!("{recipient}  sealed for it: {sealed}, added later: {added}"))?;
    }
    moved.iter().try_for_each(|(place, count)| line(&mut to, format!("{count} more were moved to {place}")))?;
    to.flush()?;
    Ok(Outcome::Done)
}

/// Adds recipients; `exactly` also takes those away that were added before and are not among them.
fn add(arguments: &AddArguments, exactly: bool) -> Result<Outcome, Failure> {
    let usage = |error: KeyError| Failure::Usage(error.to_string());
    let keyring = keyring(&arguments.identity)?;
    let recipients = Recipients::parse(&arguments.recipients, true).map_err(usage)?;
    let mut done = 0u64;
    let mut failures = Vec::new();
    let segments = segments(&arguments.archive)?;
    let command = if exactly { "keys rewrap" } else { "keys add" };
    let named = recipients.names().collect::<Vec<_>>().join(" ");
    ask::record(&arguments.asking, &arguments.archive, command, Query::default().with("recipients", named))?;
    for (place, count) in &segments.moved {
        failures.push(format!("{count} segments that were moved to {place}: bring them back first"));
    }
    for (path, file, _) in segments.here {
        match right_key(&keyring, &path, &file) {
            Ok(key) => {
                for recipient in &arguments.recipients {
                    let only = Recipients::parse(std::slice::from_ref(recipient), true).map_err(usage)?;
                    let sidecar = added_sidecar_path(&path, recipient.trim());
                    only.wrap_to(&key, &sidecar).map_err(|error| Failure::Damaged(error.to_string()))?;
                }
                done += 1;
            }
            Err(why) => failures.push(why),
        }
    }
    let before = added_recipients(&arguments.archive)?;
    note_recipients(&arguments.archive, &recipients)?;
    let mut to = stdout();
    for why in &failures {
        line(&mut to, format!("not added: {why}"))?;
    }
    for recipient in recipients.names() {
        let how = if before.contains(&recipient) { "was added before" } else { "added" };
        line(&mut to, format!("{how}: {recipient}, for {done} segments"))?;
    }
    if exactly && failures.is_empty() {
        for (recipient, count) in take_away_others(&arguments.archive, &recipients)? {
            line(
                &mut to,
                format!(
                    "taken away: {recipient}, from {count} segments. Whoever has copies of them, or of their keys, can still read those"
                ),
            )?;
        }
    } else if exactly {
        line(&mut to, "nobody was taken away, because not all could be added")?;
    }
    to.flush()?;
    Ok(if failures.is_empty() { Outcome::Done } else { Outcome::Damaged })
}

/// The key of a segment, once it is what the signed line says.
fn right_key(keyring: &Keyring, path: &Path, file: &FileEntry) -> Result<hotspot_archive::keys::DataKey, String> {
    let key = keyring.data_key(path).map_err(|error| error.to_string())?;
    if file.key.as_deref() == Some(key.commitment().as_str()) {
        return Ok(key);
    }
    Err(format!("{}: the unwrapped key is not the one its signed line names", path.display()))
}

fn recipients_dir(archive: &Path) -> PathBuf {
    archive.join("recipients")
}

/// Names of files hold only a hash of the recipient, so who it was is noted once.
fn note_recipients(archive: &Path, recipients: &Recipients) -> Result<(), Failure> {
    let dir = recipients_dir(archive);
    let failed = |error: std::io::Error| Failure::Damaged(format!("{} cannot be written: {error}", dir.display()));
    fs::create_dir_all(&dir).map_err(failed)?;
    for name in recipients.names() {
        let (path, text) = (dir.join(recipient_id(&name)), format!("{name}\n"));
        let is_file = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
        if is_file && regular::open_path(&path).and_then(std::io::read_to_string).is_ok_and(|found| found == text) {
            continue;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        // O_EXCL follows no link.
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
    }
    Ok(())
}

fn added_recipients(archive: &Path) -> Result<Vec<String>, Failure> {
    let dir = recipients_dir(archive);
    let failed = |error: std::io::Error| Failure::Damaged(format!("{} cannot be read: {error}", dir.display()));
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut recipients = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let text = regular::open_path(&path).and_then(std::io::read_to_string).map_err(failed)?;
        recipients.push(text.trim().to_owned());
    }
    recipients.sort();
    Ok(recipients)
}

/// Who it was, each with the number of segments.
fn take_away_others(archive: &Path, recipients: &Recipients) -> Result<Vec<(String, u64)>, Failure> {
    let kept: Vec<String> = recipients.names().collect();
    let mut taken = Vec::new();
    for other in added_recipients(archive)?.into_iter().filter(|other| !kept.contains(other)) {
        let mut count = 0;
        for (path, _, _) in segments(archive)?.here {
            let sidecar = added_sidecar_path(&path, &other);
            if sidecar.exists() {
                let failed = |error| Failure::Damaged(format!("{} cannot be removed: {error}", sidecar.display()));
                fs::remove_file(&sidecar).map_err(failed)?;
                count += 1;
            }
        }
        let note = recipients_dir(archive).join(recipient_id(&other));
        fs::remove_file(&note)
            .map_err(|error| Failure::Damaged(format!("{} cannot be removed: {error}", note.display())))?;
        taken.push((other, count));
    }
    Ok(taken)
}

fn unwrap(arguments: &UnwrapArguments) -> Result<Outcome, Failure> {
    let keyring = keyring(&arguments.identity)?;
    let failed = |error: KeyError| {
        let is_ours = matches!(error, KeyError::NotForUs { .. } | KeyError::NoIdentity { .. });
        if is_ours { Failure::Usage(error.to_string()) } else { Failure::Damaged(error.to_string()) }
    };
    if !sidecar_path(&arguments.segment).exists() && !arguments.segment.exists() {
        return Err(Failure::Usage(format!("{} is not there", arguments.segment.display())));
    }
    let key = keyring.data_key(&arguments.segment).map_err(failed)?;
    ask::record_file(&arguments.asking, &arguments.segment, "keys unwrap")?;
    let mut to = stdout();
    for byte in key.expose() {
        write!(to, "{byte:02x}")?;
    }
    writeln!(to)?;
    to.flush()?;
    Ok(Outcome::Done)
}
