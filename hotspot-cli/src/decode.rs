//! `hotspot decode`: every record of some files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use hotspot_archive::entry::Entry;
use hotspot_archive::journal::{JournalError, JournalKeys, Tail, replay};
use hotspot_archive::keys::{KeyError, Keyring};
use hotspot_archive::search::describe_gap;
use hotspot_archive::segment::{Origin, Records, SegmentReader};
use hotspot_core::fact::{FlowDelta, Overflow};
use hotspot_core::text::shown;
use serde_json::{Map, Value, json};

use crate::arguments::DecodeArguments;
use crate::columns::Columns;
use crate::envelope::{Envelope, Form};
use crate::find::keyring;
use crate::output::{Output, cell, json_line, stdout};
use crate::time::{Zone, utc};
use crate::{Failure, Outcome, ask, columns};

/// Files one after the other, in the order they are named. One that cannot be read holds up none: journals come and go while the
/// gateway's agent runs.
pub(crate) fn run(arguments: &DecodeArguments) -> Result<Outcome, Failure> {
    // No file is shown of which the log would not say so.
    for path in &arguments.files {
        audit(arguments, path)?;
    }
    let mut printer = Printer { to: stdout(), json: arguments.json, seen: Shown::default() };
    for path in &arguments.files {
        match one(arguments, path, &mut printer) {
            Ok(()) => printer.seen.files += 1,
            Err(Failure::Usage(what)) if arguments.files.len() == 1 => return Err(Failure::Usage(what)),
            Err(Failure::Usage(what) | Failure::Damaged(what)) => printer.seen.damage.push(what),
            Err(other @ (Failure::Refused(_) | Failure::Output(_))) => return Err(other),
        }
    }
    let Printer { to, seen, .. } = printer;
    let files: Vec<String> = arguments.files.iter().map(|path| path.display().to_string()).collect();
    let mut envelope = Envelope::new("decode", ["record", "records"], Zone::new(None)?)
        .asked("files", files)
        .asked_some("case", arguments.asking.case.as_deref());
    envelope.found = seen.records;
    envelope.segments = seen.files;
    envelope.is_of_files = true;
    envelope.not_searched = seen.damage;
    envelope.not_recorded = seen.gaps;
    envelope.end(to, if arguments.json { Form::Json } else { Form::Other }, None)
}

/// Prints a file. What was wrong with one of which something could be read is noted.
fn one(arguments: &DecodeArguments, path: &Path, printer: &mut Printer<Output>) -> Result<(), Failure> {
    let mut magic = [0; 8];
    let len = File::open(path)
        .and_then(|mut file| file.read(&mut magic))
        .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))?;
    if [b"PAR1", b"PARE"].iter().any(|kind| magic[..len].starts_with(*kind)) {
        segment(path, &keyring(&arguments.identity)?, printer)
    } else if magic[..len].starts_with(b"HSJOURNL") {
        journal(arguments, path, printer)
    } else {
        Err(Failure::Damaged(format!("{} is neither a segment nor a journal", path.display())))
    }
}

/// Records that a file is shown. What is not there is not shown; that is said when it is its turn.
fn audit(arguments: &DecodeArguments, path: &Path) -> Result<(), Failure> {
    if File::open(path).is_err() {
        return Ok(());
    }
    ask::record_file(&arguments.asking, path, "decode")
}

struct Printer<W> {
    to: W,
    json: bool,
    seen: Shown,
}

/// What was shown, and what was not.
#[derive(Default)]
struct Shown {
    files: usize,
    records: usize,
    gaps: Vec<String>,
    damage: Vec<String>,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, kind: &str, values: impl Into<Columns>) -> io::Result<()> {
        let mut values = values.into();
        self.seen.records += 1;
        if self.json {
            values.push("record", json!(kind));
            return json_line(&mut self.to, &values);
        }
        write!(self.to, "{kind}")?;
        for (name, value) in values.iter().filter(|(_, value)| !value.is_null()) {
            write!(self.to, " {name}={}", shown(&cell(value)))?;
        }
        writeln!(self.to)
    }
}

fn segment(path: &Path, keyring: &Keyring, printer: &mut Printer<impl Write>) -> Result<(), Failure> {
    let damaged = |error: hotspot_archive::segment::SegmentError| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::Damaged(format!("{error}{cause}"))
    };
    let reader = SegmentReader::open(path, keyring).map_err(damaged)?;
    let origin = reader.origin().clone();
    for batch in reader.read() {
        print_records(&origin, batch.map_err(damaged)?, printer)?;
    }
    Ok(())
}

fn print_records(origin: &Origin, records: Records, printer: &mut Printer<impl Write>) -> io::Result<()> {
    match records {
        Records::Flows(rows) => rows.iter().try_for_each(|row| printer.print("flow", columns::of_flow(origin, row))),
        Records::Sessions(rows) => {
            rows.iter().try_for_each(|row| printer.print("session", columns::of_session(origin, row)))
        }
        Records::Devices(rows) => {
            rows.iter().try_for_each(|row| printer.print("device", columns::of_device(origin, row)))
        }
        Records::Coverage(rows) => {
            printer.seen.gaps.extend(rows.iter().filter_map(describe_gap));
            rows.iter().try_for_each(|row| printer.print("coverage", columns::of_coverage(row)))
        }
    }
}

fn journal(arguments: &DecodeArguments, path: &Path, printer: &mut Printer<impl Write>) -> Result<(), Failure> {
    let mut failed = None;
    let key_dir = arguments.key_dir.clone().unwrap_or_else(|| journal_keys(path));
    let keys = JournalKeys::new(key_dir, None).with_keyring(keyring(&arguments.identity)?);
    let replayed = replay(path, &keys, |entry| {
        if failed.is_none() {
            failed = print_entry(entry, printer).err();
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    let replayed = replayed.map_err(|error| match &error {
        JournalError::Io { source, .. } => Failure::Damaged(format!("{error}: {source}")),
        JournalError::Key(KeyError::NoIdentity { .. } | KeyError::NotForUs { .. }) => Failure::Usage(error.to_string()),
        JournalError::NotAJournal { .. }
        | JournalError::NoKey { .. }
        | JournalError::Condemned { .. }
        | JournalError::TooLarge { .. }
        | JournalError::Key(_) => Failure::Damaged(error.to_string()),
    })?;
    for damage in &replayed.damage {
        printer.seen.damage.push(format!("{}: damaged from byte {} to {}", path.display(), damage.from, damage.to));
    }
    if let Tail::Torn { end, file_len } = replayed.tail {
        let torn = format!("{}: ends torn: whole up to byte {end} of {file_len}", path.display());
        printer.seen.damage.push(torn);
    }
    Ok(())
}

/// Where the keys of a gateway's journals and states lie: beside their directories.
fn journal_keys(path: &Path) -> std::path::PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.parent().and_then(Path::parent).unwrap_or(Path::new("/")).join("keys").join("journal")
}

fn print_entry(entry: Entry, printer: &mut Printer<impl Write>) -> io::Result<()> {
    match entry {
        Entry::Header(header) => printer.print("header", object(json!(header))),
        Entry::Interface(interface) => printer.print("interface", object(json!(interface))),
        Entry::Ring(batch) => {
            let position = json!({"capture": batch.capture, "cpu": batch.cpu, "end_position": batch.end_position});
            printer.print("ring", object(position))?;
            for (generation, opened) in &batch.opened {
                let mut values = key(&opened.key);
                values.insert("at".into(), json!(utc(opened.at_ns)));
                values.insert("generation".into(), json!(generation));
                printer.print("opened", values)?;
            }
            let evicted = &mut batch.evicted.iter();
            evicted.try_for_each(|(generation, delta)| print_delta("evicted", *generation, delta, printer))?;
            batch.totals.iter().try_for_each(|(_, total)| print_total(total, printer))
        }
        Entry::Part(part) => {
            part.deltas.iter().try_for_each(|delta| print_delta("delta", part.generation, delta, printer))?;
            part.overflow.iter().try_for_each(|total| print_total(total, printer))
        }
        Entry::Done(done) => {
            done.coverage.iter().try_for_each(|row| printer.print("coverage", columns::of_coverage(row)))?;
            let values = json!({
                "capture": done.capture,
                "generation": done.generation,
                "wall_offset_ns": done.wall_offset_ns,
                "boot_offset_ns": done.boot_offset_ns,
            });
            printer.print("generation_done", object(values))
        }
        Entry::Gap(gap) => {
            printer.seen.gaps.extend(describe_gap(&gap));
            printer.print("gap", columns::of_coverage(&gap))
        }
        Entry::Session(fact) => printer.print("session", object(json!(fact))),
        Entry::Sessions(facts) => facts.iter().try_for_each(|fact| printer.print("session", object(json!(fact)))),
        Entry::Nat(facts) => facts.iter().try_for_each(|fact| {
            let values = json!({
                "event": fact.event, "at": utc(fact.at_ns), "protocol": fact.protocol,
                "client_ip": fact.client_ip, "client_port": fact.client_port,
                "peer_ip": fact.peer_ip, "peer_port": fact.peer_port,
                "public_ip": fact.public_ip, "public_port": fact.public_port,
            });
            printer.print("nat", object(values))
        }),
        Entry::NatWatch(fact) => {
            printer.print("nat_watch", object(json!({"watch": fact.watch, "at": utc(fact.at_ns)})))
        }
        Entry::Devices(batch) => {
            let position = json!({"capture": batch.capture, "end_position": batch.end_position});
            printer.print("notices", object(position))?;
            batch.facts.iter().try_for_each(|fact| printer.print("device_fact", object(json!(fact))))
        }
        Entry::Leases(facts) => facts.iter().try_for_each(|fact| printer.print("device_fact", object(json!(fact)))),
        Entry::DeviceState(devices) => {
            devices.iter().try_for_each(|device| printer.print("device_state", object(json!(device))))
        }
        Entry::OpenFlows(flows) => flows.iter().try_for_each(|flow| {
            let mut values = key(&flow.key);
            values.insert("flow_id".into(), json!(flow.flow_id));
            values.insert("last".into(), json!(utc(flow.last_ns)));
            printer.print("open_flow", values)
        }),
        Entry::Closed { at_ns, shutdown } => {
            printer.print("closed", object(json!({"at": utc(at_ns), "shutdown": shutdown})))
        }
    }
}

fn print_total(total: &Overflow, printer: &mut Printer<impl Write>) -> io::Result<()> {
    let mut values = key(&total.key);
    values.insert("packets".into(), json!(total.packets));
    values.insert("bytes".into(), json!(total.bytes));
    printer.print("overflow", values)
}

fn print_delta(kind: &str, generation: u64, delta: &FlowDelta, printer: &mut Printer<impl Write>) -> io::Result<()> {
    let mut values = key(&delta.key);
    values.insert("generation".into(), json!(generation));
    values.insert("first".into(), json!(utc(delta.first_ns)));
    values.insert("last".into(), json!(utc(delta.last_ns)));
    values.insert("packets".into(), json!(delta.packets));
    values.insert("bytes".into(), json!(delta.bytes));
    values.insert("tcp_flags".into(), json!(delta.tcp_flags));
    printer.print(kind, values)
}

fn key(key: &hotspot_common::FlowKey) -> Map<String, Value> {
    let ip = |octets: [u8; 16]| std::net::Ipv6Addr::from(octets).to_canonical();
    object(json!({
        "interface": key.interface(),
        "direction": if key.direction() == hotspot_common::Direction::Out { "out" } else { "in" },
        "client_mac": hotspot_core::MacAddr(key.client_mac),
        "client_ip": ip(key.client_ip), "client_port": key.client_port,
        "peer_ip": ip(key.peer_ip), "peer_port": key.peer_port,
        "protocol": key.protocol, "vlan": key.vlan, "inner_vlan": key.inner_vlan,
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            std::iter::once(("value".to_owned(), other)).collect()
        }
    }
}
