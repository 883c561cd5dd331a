//! `hotspot find`.

use std::io::Write;
use std::path::{Path, PathBuf};

use hotspot_archive::filter::{self, Filter};
use hotspot_archive::keys::Keyring;
use hotspot_archive::search::{Archive, Hit, Interval, Seen};
use hotspot_core::record::FlowRecord;

use crate::arguments::FindArguments;
use crate::output::{Table, cell, csv_line, json_line, stdout};
use crate::time::Zone;
use crate::{Failure, Outcome, columns};

/// Rows of a table that are laid out together.
const TABLE_ROWS: usize = 1000;

pub(crate) fn run(arguments: &FindArguments) -> Result<Outcome, Failure> {
    let zone = Zone::new(arguments.tz.as_deref())?;
    let interval = interval(arguments, &zone)?;
    let filter = parse_filter(&arguments.filter)?;
    let archive = open(&arguments.archive, &arguments.identity)?;
    let mut to = stdout();
    let limit = arguments.limit.unwrap_or(usize::MAX);
    let (mut found, mut failed) = (0usize, None);
    let mut table = new_table();
    let mut header_written = false;
    let seen = archive.search(interval, &filter, |hit| {
        if found == limit {
            return false;
        }
        found += 1;
        let written = if arguments.json {
            json_line(&mut to, &columns::of_hit(&hit))
        } else if arguments.csv {
            write_csv(&mut to, &hit, &mut header_written)
        } else {
            table.push(row(&hit, &zone));
            if found % TABLE_ROWS == 0 { std::mem::replace(&mut table, new_table()).write(&mut to) } else { Ok(()) }
        };
        failed = written.err();
        failed.is_none()
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    if !arguments.json && !arguments.csv && found > 0 {
        table.write(&mut to)?;
    }
    to.flush()?;
    Ok(conclude(found, &seen))
}

/// Says on standard error what the answer does not cover.
#[expect(clippy::print_stderr, reason = "remarks on the answer must not be part of it")]
pub(crate) fn conclude(found: usize, seen: &Seen) -> Outcome {
    for damage in &seen.damage {
        eprintln!("hotspot: not searched: {damage}");
    }
    for gap in &seen.gaps {
        eprintln!("hotspot: not everything was recorded: {gap}");
    }
    if found == 0 && seen.damage.is_empty() && seen.gaps.is_empty() {
        eprintln!("hotspot: nothing found; the log is whole where it was searched ({} segments)", seen.segments);
    }
    if !seen.damage.is_empty() {
        Outcome::Damaged
    } else if found == 0 {
        Outcome::NothingFound
    } else {
        Outcome::Done
    }
}

pub(crate) fn open(path: &Path, identities: &[PathBuf]) -> Result<Archive, Failure> {
    Archive::open(path, keyring(identities)?).map_err(|error| Failure::Damaged(error.to_string()))
}

/// What opens an encrypted archive.
pub(crate) fn keyring(identities: &[PathBuf]) -> Result<Keyring, Failure> {
    Keyring::read(identities).map_err(|error| Failure::Usage(error.to_string()))
}

fn interval(arguments: &FindArguments, zone: &Zone) -> Result<Interval, Failure> {
    let time = |text: &Option<String>| text.as_deref().map(|text| zone.parse(text)).transpose();
    let from_ns = time(&arguments.from)?.unwrap_or(Interval::ALWAYS.from_ns);
    let to_ns = time(&arguments.to)?.unwrap_or(Interval::ALWAYS.to_ns);
    if from_ns >= to_ns {
        return Err(Failure::Usage("--from is not before --to; nothing can lie between them".to_owned()));
    }
    Ok(Interval { from_ns, to_ns })
}

/// Words as the shell split them: one with spaces is either a part of a filter or a value, and values are quoted in filters.
fn parse_filter(words: &[String]) -> Result<Filter, Failure> {
    filter::parse(&words.join(" ")).map_err(|error| Failure::Usage(error.to_string()))
}

fn write_csv(to: &mut impl Write, hit: &Hit, header_written: &mut bool) -> std::io::Result<()> {
    let object = columns::of_hit(hit);
    if !*header_written {
        csv_line(to, object.keys().cloned())?;
        *header_written = true;
    }
    csv_line(to, object.values().map(cell))
}

fn new_table() -> Table {
    Table::new(&[
        "start",
        ">seconds",
        "user",
        "client",
        "device",
        "name",
        "public",
        "peer",
        "proto",
        ">packets",
        ">bytes",
        "attribution",
    ])
}

fn row(hit: &Hit, zone: &Zone) -> Vec<String> {
    let flow = &hit.flow;
    let user = flow.identity.as_deref().and_then(|who| who.user.as_deref()).unwrap_or("-");
    let seconds = (flow.end_ns - flow.start_ns) as f64 / 1e9;
    vec![
        zone.show(flow.start_ns),
        format!("{seconds:.3}"),
        user.to_owned(),
        endpoint(Some(flow.client_ip), flow.client_port),
        flow.client_mac.to_string(),
        flow.hostname.as_deref().unwrap_or("-").to_owned(),
        flow.public.map_or_else(|| "-".to_owned(), |public| endpoint(Some(public.ip), public.port)),
        endpoint(flow.peer_ip, flow.peer_port),
        protocol(flow),
        (flow.packets_out + flow.packets_in).to_string(),
        (flow.bytes_out + flow.bytes_in).to_string(),
        flow.attribution.label().to_owned(),
    ]
}

pub(crate) fn endpoint(ip: Option<std::net::IpAddr>, port: Option<u16>) -> String {
    match (ip, port) {
        (None, _) => "-".to_owned(),
        (Some(ip), None) => ip.to_string(),
        (Some(ip), Some(port)) => std::net::SocketAddr::new(ip, port).to_string(),
    }
}

pub(crate) fn protocol(flow: &FlowRecord) -> String {
    match flow.protocol {
        None => "-".to_owned(),
        Some(1) => "icmp".to_owned(),
        Some(6) => "tcp".to_owned(),
        Some(17) => "udp".to_owned(),
        Some(58) => "icmp6".to_owned(),
        Some(132) => "sctp".to_owned(),
        Some(number) => number.to_string(),
    }
}
