//! `hotspot find`.

use std::path::{Path, PathBuf};

use hotspot_archive::filter::{self, Filter};
use hotspot_archive::keys::{KeyError, Keyring};
use hotspot_archive::search::{Archive, By, Hit, Interval, Seen};
use hotspot_archive::segment::{FlowFile, SegmentError};
use hotspot_archive::{place, private};
use hotspot_core::record::FlowRecord;

use crate::arguments::{FindArguments, Sort, Trusting};
use crate::ask::Query;
use crate::envelope::{Envelope, Files, Form, Verdict, stranger};
use crate::output::{Output, Table, csv_header, csv_line, json_line, stdout, texts_cell};
use crate::progress::ProgressLine;
use crate::remote::View;
use crate::spreadsheet::ROWS_MAX;
use crate::store::is_url;
use crate::time::{Zone, now_ns, utc};
use crate::trust::pins;
use crate::{Failure, Outcome, address, ask, columns, passphrase, totals, who};

/// Rows of a table that are laid out together.
const TABLE_ROWS: usize = 1000;

pub(crate) fn run(arguments: &FindArguments) -> Result<Outcome, Failure> {
    let zone = Zone::new(arguments.tz.as_deref())?;
    let interval = interval(arguments, &zone)?;
    let filter = parse_filter(&arguments.filter, &zone)?;
    let by = arguments.by.as_deref().and_then(|word| By::ALL.iter().copied().find(|by| by.word() == word));
    let order = by.is_none().then(|| arguments.sort.map(order).transpose()).transpose()?.flatten();
    let form = if arguments.json { Form::Json } else { Form::Other };
    let path = arguments.parquet.as_ref().or(arguments.output.as_ref());
    let files = path.map(|path| Files::check(path, form, arguments.force)).transpose()?.flatten();
    ask::check_log(&arguments.asking, &arguments.archive)?;
    let archive = open(&arguments.archive, &arguments.identity, &arguments.trusting, &filter)?;
    let query = query(arguments, interval, &filter);
    ask::record_at(&arguments.asking, &arguments.archive, archive.root(), "find", query)?;
    let envelope = envelope(arguments, &archive, interval, &filter)?;
    if let Some(by) = by {
        return totals::run(arguments, &archive, interval, &filter, by, envelope, files.as_ref());
    }
    let found = list(arguments, &archive, interval, &filter, order, zone)?;
    let (mut envelope, shown) = (envelope, found.shown);
    envelope.see(found.matched, &found.seen);
    envelope.is_cut = found.is_cut;
    if shown < found.matched {
        envelope.remarks.push(format!("of {} flows the first {shown} by --sort are in the answer", found.matched));
    }
    if arguments.csv_for_excel && shown > ROWS_MAX {
        envelope
            .remarks
            .push(format!("a spreadsheet shows the first {ROWS_MAX} of these {shown} rows and drops the others"));
    }
    envelope.remarks.extend(found.away);
    remark(&mut envelope, &archive, &filter);
    envelope.end(found.to, form, files.as_ref())
}

/// What a listing came to.
struct Found {
    to: Output,
    seen: Seen,
    matched: usize,
    shown: usize,
    is_cut: bool,
    /// What is to be said of flows that were near a moment, and not going on then.
    away: Option<String>,
}

fn list(
    arguments: &FindArguments,
    archive: &Archive,
    interval: Interval,
    filter: &Filter,
    order: Option<fn(&FlowRecord) -> i128>,
    zone: Zone,
) -> Result<Found, Failure> {
    let mut answer = Answer::new(arguments, zone)?;
    let progress = ProgressLine::new();
    let limit = arguments.limit.unwrap_or(if order.is_some() { SORTED_DEFAULT } else { usize::MAX });
    let mut first = First { limit: limit.min(SORTED_MAX), order, hits: Vec::new() };
    let (mut matched, mut failed, mut is_cut) = (0usize, None, false);
    let (moments, mut away) = (filter.moments(), 0usize);
    let seen = archive.search(
        interval,
        filter,
        |hit| {
            if order.is_none() && matched == limit {
                is_cut = true;
                return false;
            }
            matched += 1;
            away += usize::from(moments.iter().any(|when| who::away_ns(&hit.flow, *when) > 0));
            if order.is_some() {
                first.add(hit);
                return true;
            }
            progress.end();
            failed = answer.add(&hit).err();
            failed.is_none()
        },
        |done| progress.show(done),
    );
    progress.end();
    if let Some(error) = failed {
        return Err(error);
    }
    let sorted = first.sorted();
    let shown = if order.is_some() { sorted.len() } else { matched };
    sorted.iter().try_for_each(|hit| answer.add(hit))?;
    let away = (away > 0).then(|| {
        let of = if away == matched {
            "none of these flows was".to_owned()
        } else {
            format!("{away} of these flows were not")
        };
        format!("{of} going on at that moment: they ended before it or began after it; `within 0s` leaves them out")
    });
    Ok(Found { to: answer.end()?, seen, matched, shown, is_cut, away })
}

/// What is asked, and of what.
fn envelope(
    arguments: &FindArguments,
    archive: &Archive,
    interval: Interval,
    filter: &Filter,
) -> Result<Envelope, Failure> {
    let unit = if arguments.by.is_some() { ["group", "groups"] } else { ["flow", "flows"] };
    let envelope = Envelope::new("find", unit, Zone::new(arguments.tz.as_deref())?)
        .asked("filter", filter.to_string())
        .asked("words", arguments.filter.join(" "))
        .asked_some("from", arguments.from.as_deref())
        .asked_some("to", arguments.to.as_deref())
        .asked_some("tz", arguments.tz.as_deref())
        .asked_some("by", arguments.by.as_deref())
        .asked_some("limit", arguments.top.or(arguments.limit))
        .asked_some("case", arguments.asking.case.as_deref());
    Ok(envelope.over(archive, interval, filter))
}

/// Adds what is known beside what was found: other spellings, and addresses that are none of these gateways'.
pub(crate) fn remark(envelope: &mut Envelope, archive: &Archive, filter: &Filter) {
    envelope.remarks.extend(alike(filter));
    if envelope.found == 0 {
        let strangers = address::strangers(archive, &filter.public_addresses());
        envelope.strangers = strangers.iter().map(ToString::to_string).collect();
        if !envelope.strangers.is_empty() && envelope.verdict() != Verdict::NotAnAddress {
            envelope.remarks.push(stranger(&envelope.strangers));
        }
    }
}

/// Flows that are sorted in memory, if no number is given, and at most.
const SORTED_DEFAULT: usize = 1_000;
const SORTED_MAX: usize = 1_000_000;

/// What decides the order of flows, largest first.
fn order(sort: Sort) -> Result<fn(&FlowRecord) -> i128, Failure> {
    match sort {
        Sort::Bytes => Ok(|flow| i128::from(flow.bytes_out) + i128::from(flow.bytes_in)),
        Sort::Packets => Ok(|flow| i128::from(flow.packets_out) + i128::from(flow.packets_in)),
        Sort::Duration => Ok(|flow| i128::from(flow.end_ns) - i128::from(flow.start_ns)),
        Sort::Start => Ok(|flow| i128::from(flow.start_ns)),
        Sort::End => Ok(|flow| i128::from(flow.end_ns)),
        Sort::Flows => Err(Failure::Usage("--sort flows sorts the groups of --by".to_owned())),
    }
}

/// The first flows in an order; never more than twice as many in memory.
struct First {
    limit: usize,
    order: Option<fn(&FlowRecord) -> i128>,
    hits: Vec<Hit>,
}

impl First {
    fn add(&mut self, hit: Hit) {
        self.hits.push(hit);
        if self.hits.len() >= self.limit.saturating_mul(2).max(64) {
            self.sort();
        }
    }

    fn sort(&mut self) {
        if let Some(order) = self.order {
            self.hits.sort_by_key(|hit| std::cmp::Reverse(order(&hit.flow)));
        }
        self.hits.truncate(self.limit);
    }

    fn sorted(mut self) -> Vec<Hit> {
        self.sort();
        self.hits
    }
}

/// What the audit log says of a search.
fn query(arguments: &FindArguments, interval: Interval, filter: &Filter) -> Query {
    query_of(interval, filter)
        .with("words", arguments.filter.join(" "))
        .with_some("by", arguments.by.as_deref())
        .with_some("limit", arguments.top.or(arguments.limit))
        .with_some("sort", arguments.sort.map(|sort| format!("{sort:?}").to_lowercase()))
        .with_some("parquet", arguments.parquet.as_ref().map(|path| path.display()))
        .with_some("output", arguments.output.as_ref().map(|path| path.display()))
}

/// What every search says: its filter, and its times where there are any.
pub(crate) fn query_of(interval: Interval, filter: &Filter) -> Query {
    let time = |ns: i64| (ns != i64::MIN && ns != i64::MAX).then(|| utc(ns));
    let query = Query::default().with("filter", filter);
    query.with_some("from", time(interval.from_ns)).with_some("to", time(interval.to_ns))
}

/// The flows of an answer, in the form that was asked for.
enum Answer {
    Json(Output),
    /// Whether the header is written, and whether rows say if they are trusted.
    Csv(Output, bool, bool),
    Table(Output, Table, usize, Zone),
    Parquet(Box<FlowFile>),
}

impl Answer {
    fn new(arguments: &FindArguments, zone: Zone) -> Result<Self, Failure> {
        Ok(if let Some(path) = &arguments.parquet {
            Self::Parquet(Box::new(FlowFile::create(path, arguments.force).map_err(not_written)?))
        } else {
            let to = Output::open(arguments.output.as_deref(), arguments.force)?;
            let has_trust = !arguments.trusting.trusted_until.is_empty();
            if arguments.json {
                Self::Json(to)
            } else if arguments.csv {
                Self::Csv(to.for_csv(), false, has_trust)
            } else if arguments.csv_for_excel {
                Self::Csv(to.for_spreadsheet(), false, has_trust)
            } else {
                Self::Table(to, new_table(), 0, zone)
            }
        })
    }

    fn add(&mut self, hit: &Hit) -> Result<(), Failure> {
        match self {
            Self::Json(to) => {
                let mut object = columns::of_hit(hit);
                if !hit.is_trusted {
                    object.push("trusted", false.into());
                }
                json_line(to, &object)?;
            }
            Self::Csv(to, header_written, has_trust) => write_csv(to, hit, header_written, *has_trust)?,
            Self::Table(to, table, rows, zone) => {
                table.push(row(hit, zone));
                *rows += 1;
                if *rows == TABLE_ROWS {
                    std::mem::replace(table, new_table()).write(to)?;
                    *rows = 0;
                }
            }
            Self::Parquet(file) => file.push(&hit.origin, &hit.flow).map_err(not_written)?,
        }
        Ok(())
    }

    /// Where the rest of the answer goes.
    fn end(self) -> Result<Output, Failure> {
        match self {
            Self::Json(to) | Self::Csv(to, ..) => Ok(to),
            Self::Table(mut to, table, rows, _) => {
                if rows > 0 {
                    table.write(&mut to)?;
                }
                Ok(to)
            }
            Self::Parquet(file) => {
                file.finish().map_err(not_written)?;
                Ok(stdout())
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn not_written(error: SegmentError) -> Failure {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure::Output(std::io::Error::other(format!("{error}{cause}")))
}

/// Which other spellings were taken for a name that was asked for.
fn alike(filter: &Filter) -> impl Iterator<Item = String> {
    filter.alike().into_iter().filter_map(|alike| {
        let met = alike.met();
        (!met.is_empty()).then(|| {
            format!(
                "taken for the same as {:?}: {}; user = {alike} asks for this spelling alone",
                alike.asked(),
                met.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "),
            )
        })
    })
}

/// Opens an archive here or at an object store. From there, only chains of gateways that the filter does not rule out are brought.
pub(crate) fn open(
    path: &Path,
    identities: &[PathBuf],
    trusting: &Trusting,
    filter: &Filter,
) -> Result<Archive, Failure> {
    let (keyring, pins, now_ns) = (keyring(identities)?, pins(trusting)?, Some(now_ns()));
    let opened = if is_url(path) {
        let view = View::open(path, |gateway| filter.may_match_gateway(gateway))?;
        let root = view.root().to_path_buf();
        Archive::open_at(&root, view, keyring, &pins, now_ns)
    } else {
        Archive::open_at(path, place::here(path), keyring, &pins, now_ns)
    };
    opened.map_err(|error| Failure::Damaged(error.to_string()))
}

/// Before keys are in memory. An ordinary user may lock too little of it, which docs/formats/encryption.md says.
pub(crate) fn close_process() -> Result<(), Failure> {
    let _ = private::lock_memory();
    private::forbid_dumps()
        .map_err(|error| Failure::Refused(format!("keys in memory cannot be kept out of core dumps: {error}")))
}

/// What opens an encrypted archive.
pub(crate) fn keyring(identities: &[PathBuf]) -> Result<Keyring, Failure> {
    if !identities.is_empty() {
        close_process()?;
    }
    Keyring::read(identities, &mut passphrase::ask).map_err(|error| {
        let is_refused = matches!(error, KeyError::WrongPassphrase { .. } | KeyError::NoPassphrase { .. });
        if is_refused { Failure::Refused(error.to_string()) } else { Failure::Usage(error.to_string()) }
    })
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
pub(crate) fn parse_filter(words: &[String], zone: &Zone) -> Result<Filter, Failure> {
    filter::parse_in(&words.join(" "), zone.given()).map_err(|error| Failure::Usage(error.to_string()))
}

fn write_csv(to: &mut Output, hit: &Hit, header_written: &mut bool, has_trust: bool) -> std::io::Result<()> {
    let mut object = columns::of_hit(hit);
    if has_trust {
        object.push("trusted", hit.is_trusted.into());
    }
    if !*header_written {
        csv_header(to, object.iter().map(|(name, _)| name))?;
        *header_written = true;
    }
    csv_line(to, object.iter().map(|(_, value)| value))
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
    let users = flow.identity.as_deref().map_or(&[][..], |who| &who.users);
    let seconds = (flow.end_ns - flow.start_ns) as f64 / 1e9;
    vec![
        zone.show(flow.start_ns),
        format!("{seconds:.3}"),
        if users.is_empty() { "-".to_owned() } else { texts_cell(users) },
        endpoint(Some(flow.client_ip), flow.client_port),
        flow.client_mac.to_string(),
        flow.hostname.as_deref().unwrap_or("-").to_owned(),
        flow.public.map_or_else(|| "-".to_owned(), |public| endpoint(Some(public.ip), public.port)),
        endpoint(flow.peer_ip, flow.peer_port),
        protocol(flow),
        (flow.packets_out + flow.packets_in).to_string(),
        (flow.bytes_out + flow.bytes_in).to_string(),
        format!("{}{}", flow.attribution.label(), if hit.is_trusted { "" } else { ", not trusted" }),
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
