//! `hotspot hold` and `hotspot expire`: what must stay, and what would go.

use std::io::Write;
use std::path::Path;

use hotspot_archive::chain::{FileState, Ledger, Pins, Record};
use hotspot_archive::pieces::{ReadChains, read_chains};
use hotspot_archive::retention::{self, Hold, Moment, Policy};
use hotspot_archive::search::Interval;

use crate::arguments::{Asking, ExpireArguments, HoldArguments, HoldCommand};
use crate::ask::Query;
use crate::find::{self, open};
use crate::output::{Table, line, stdout};
use crate::progress::ProgressLine;
use crate::remote::here;
use crate::time::{Zone, duration, now_ns, utc};
use crate::{Failure, Outcome, ask};

pub(crate) fn hold(command: &HoldCommand) -> Result<Outcome, Failure> {
    let failed = |error: retention::RetentionError| Failure::Damaged(error.to_string());
    let mut to = stdout();
    match command {
        HoldCommand::Add(arguments) => {
            here(&arguments.archive)?;
            let hold = resolve(arguments)?;
            if hold.segments() == 0 {
                writeln!(to, "nothing matches; nothing is held")?;
                to.flush()?;
                return Ok(Outcome::NothingFound);
            }
            retention::place_hold(&arguments.archive, &hold).map_err(|error| {
                let is_usage = matches!(error, retention::RetentionError::BadCase { .. });
                if is_usage { Failure::Usage(error.to_string()) } else { failed(error) }
            })?;
            line(&mut to, format!("{} segments are held for {}", hold.segments(), hold.case))?;
        }
        HoldCommand::List(arguments) => {
            let holds = retention::read_holds(here(&arguments.archive)?).map_err(failed)?;
            for hold in &holds {
                line(&mut to, format!("{}  since {}  {} segments", hold.case, utc(hold.placed_ns), hold.segments()))?;
            }
        }
        HoldCommand::Lift(arguments) => {
            let asking = asking_of(&arguments.case, arguments.audit.as_deref());
            ask::record(&asking, here(&arguments.archive)?, "hold lift", Query::default())?;
            if !retention::lift_hold(here(&arguments.archive)?, &arguments.case).map_err(failed)? {
                return Err(Failure::Usage(format!("nothing is held for {}", arguments.case)));
            }
            line(&mut to, format!("no longer held for {}", arguments.case))?;
        }
    }
    to.flush()?;
    Ok(Outcome::Done)
}

/// The segments that hold what is to be kept: those named, or those with a flow that matches.
fn resolve(arguments: &HoldArguments) -> Result<Hold, Failure> {
    let zone = Zone::new(arguments.tz.as_deref())?;
    let time = |text: &Option<String>| text.as_deref().map(|text| zone.parse(text)).transpose();
    let interval = Interval {
        from_ns: time(&arguments.from)?.unwrap_or(Interval::ALWAYS.from_ns),
        to_ns: time(&arguments.to)?.unwrap_or(Interval::ALWAYS.to_ns),
    };
    let mut segments = Vec::new();
    for text in &arguments.segments {
        let named =
            text.rsplit_once(':').and_then(|(gateway, sequence)| Some((gateway.to_owned(), sequence.parse().ok()?)));
        segments.push(named.ok_or_else(|| Failure::Usage(format!("{text:?} is no segment; write GATEWAY:SEQUENCE")))?);
    }
    let asking = asking_of(&arguments.case, arguments.audit.as_deref());
    if segments.is_empty() {
        let filter = find::parse_filter(&arguments.filter, &zone)?;
        let archive = open(&arguments.archive, &arguments.identity, &arguments.trusting, &filter)?;
        ask::record(&asking, &arguments.archive, "hold", find::query_of(interval, &filter))?;
        let progress = ProgressLine::new();
        let seen = archive.search(
            interval,
            &filter,
            |hit| {
                let segment = (hit.origin.gateway, hit.origin.sequence);
                if segments.last() != Some(&segment) {
                    segments.push(segment);
                }
                true
            },
            |done| progress.show(done),
        );
        progress.end();
        // What could not be searched may match.
        if !seen.damage.is_empty() {
            return Err(Failure::Damaged(format!(
                "not held, because not everything could be searched: {}",
                seen.damage.join("; ")
            )));
        }
        if segments.is_empty() && !seen.gaps.is_empty() {
            return Err(Failure::Damaged(format!(
                "nothing matches, but not everything was recorded: {}",
                seen.gaps.join("; ")
            )));
        }
    } else {
        let named = Query::default().with("segments", arguments.segments.join(" "));
        ask::record(&asking, &arguments.archive, "hold", named)?;
    }
    Ok(Hold::new(&arguments.case, now_ns(), segments))
}

/// A hold is placed and lifted for its case.
fn asking_of(case: &str, audit: Option<&Path>) -> Asking {
    Asking { case: Some(case.to_owned()), audit: audit.map(Path::to_path_buf) }
}

pub(crate) fn expire(arguments: &ExpireArguments) -> Result<Outcome, Failure> {
    if !arguments.dry_run {
        return Err(Failure::Usage(
            "only the gateway's agent deletes, because a signed line must say so: hotspot-agent run --retain …; \
             --dry-run shows what it would delete"
                .to_owned(),
        ));
    }
    let damaged = |error: String| Failure::Damaged(error);
    let holds = retention::read_holds(here(&arguments.archive)?).map_err(|error| damaged(error.to_string()))?;
    let now = Moment { wall_ns: now_ns(), clock: None };
    let read = read_chains(&arguments.archive, &Pins::default(), Some(now.wall_ns));
    let ReadChains { chains, damage: mut failures } = read.map_err(|error| damaged(error.to_string()))?;
    let mut table = Table::new(&["gateway", ">sequence", "class", "until", ">files", ">bytes", ""]);
    let (mut found, mut bytes, mut waiting) = (0usize, 0u64, Vec::new());
    for chain in &chains {
        failures.extend(chain.damage());
        let (gateway, ledger) = (&chain.gateway, chain.believed.check.ledger());
        let before = found;
        let records: Vec<Record> = chain.believed.records.iter().map(|(_, record)| record.clone()).collect();
        for expired in retention::plan(&records, ledger, &arguments.retain, &holds, &now) {
            found += 1;
            if expired.held_by.is_none() {
                bytes += expired.bytes;
            }
            table.push(vec![
                gateway.clone(),
                expired.sequence.to_string(),
                expired.class.label().to_owned(),
                utc(expired.to_ns),
                expired.files.len().to_string(),
                expired.bytes.to_string(),
                expired.held_by.map_or_else(|| "would be deleted".to_owned(), |case| format!("held for {case}")),
            ]);
        }
        waiting.push(why_nothing(gateway, &records, ledger, (&arguments.retain, &now), found > before));
    }
    let mut to = stdout();
    if found > 0 {
        table.write(&mut to)?;
    }
    writeln!(to, "{bytes} bytes would be deleted")?;
    if bytes == 0 {
        waiting.iter().try_for_each(|why| line(&mut to, format!("nothing is, because {why}")))?;
    }
    to.flush()?;
    if !failures.is_empty() {
        return Err(Failure::Damaged(format!("not all is known: {}", failures.join("; "))));
    }
    Ok(Outcome::Done)
}

/// Why nothing of a chain is deleted.
fn why_nothing(
    gateway: &str,
    records: &[Record],
    ledger: &Ledger,
    expiring: (&Policy, &Moment),
    is_held: bool,
) -> String {
    let (policy, now) = expiring;
    let first = records.iter().find_map(|record| match record {
        Record::Segment(line) => {
            let state = ledger.files_of(line);
            let is_named = |label: &str| policy.classes().any(|(class, _)| class.label() == label);
            let is_here = line.files.iter().any(|file| is_named(&file.class) && state(file) == FileState::Kept);
            is_here.then_some(line)
        }
        Record::Event(_) => None,
    });
    let Some(line) = first else { return format!("{gateway} has no segment of these classes") };
    if is_held {
        return format!("what is old enough of {gateway} is on hold (`hotspot hold list`)");
    }
    let (age_ns, by_wall_ns) =
        (ledger.age_ns(line.sequence, now), now.wall_ns.saturating_sub(line.to_ns.max(line.sealed_ns)));
    let promised = |class, kept_ns: i64| ledger.promised_ns(line.sequence, class).map_or(kept_ns, |ns| ns.max(kept_ns));
    let kept_ns = policy.classes().map(|(class, kept_ns)| promised(class, kept_ns)).min().unwrap_or(i64::MAX);
    if by_wall_ns >= kept_ns {
        return format!(
            "the oldest segment of {gateway} is {} old by this clock, and its chain proves only {}: for the rest the gateway's clock was not \
             synchronised, or it sealed nothing",
            duration(by_wall_ns),
            duration(age_ns.max(0))
        );
    }
    format!(
        "the oldest segment of {gateway} is not old enough: {} old, of {} that it is kept",
        duration(age_ns.max(0)),
        duration(kept_ns)
    )
}
