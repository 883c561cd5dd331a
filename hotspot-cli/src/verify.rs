//! `hotspot verify`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use hotspot_archive::place::{self, Place};
use hotspot_archive::unrecorded::Unrecorded;
use hotspot_archive::verify::{Kind, Outside, Report, Standing, Trust, Verdict, verify, verify_at};
use serde_json::{Value, json};

use crate::arguments::VerifyArguments;
use crate::find::keyring;
use crate::kept::{Kept, witnesses};
use crate::output::{self, json_line, stdout};
use crate::remote::View;
use crate::store::{Store, is_url};
use crate::time::{now_ns, utc};
use crate::trust::pins;
use crate::tsa::Authorities;
use crate::{Failure, Outcome};

pub(crate) fn run(arguments: &VerifyArguments) -> Result<Outcome, Failure> {
    let pins = pins(&arguments.trusting)?;
    let is_pinned = pins.has_keys();
    let shows_progress = std::io::stderr().is_terminal();
    let kept = Kept::read(&arguments.checkpoint)?;
    let witnesses = witnesses(&arguments.witness)?;
    let authorities = (!arguments.tsa_ca.is_empty()).then(|| Authorities::read(&arguments.tsa_ca)).transpose()?;
    let judge = authorities.as_ref().map(|authorities| |reply: &[u8]| authorities.judge(reply));
    let keyring = keyring(&arguments.identity)?;
    let elsewhere = elsewhere(&arguments.moved_at)?;
    let trust = Trust {
        pins,
        policy: arguments.policy.clone(),
        now_ns: Some(now_ns()),
        checkpoints: &kept.checkpoints,
        outside: Outside {
            witnesses: &witnesses,
            notes: &kept.notes,
            broken_notes: &kept.broken_notes,
            stamps: judge.as_ref().map(|judge| judge as _),
            kept_stamps: &kept.stamps,
            gap_ns: arguments.checkpoint_gap,
            audit_logs: &arguments.audit,
        },
        keyring: (!keyring.is_empty()).then_some(&keyring),
        rows: arguments.rows || !keyring.is_empty(),
        elsewhere: elsewhere.iter().map(|(name, place)| (name.clone(), &**place)).collect(),
    };
    let progress = |report: &Report| {
        if shows_progress {
            show_progress(report);
        }
    };
    let verified = if is_url(&arguments.archive) {
        let view = View::open(&arguments.archive, |_| true)?;
        verify_at(view.root(), &*view, &trust, progress)
    } else {
        verify(&arguments.archive, &trust, progress)
    };
    let report = verified.map_err(|error| Failure::Damaged(error.to_string()))?;
    let mut to = stdout();
    if arguments.json {
        json_line(&mut to, &as_json(&report))?;
    } else {
        write_report(&mut to, &report, is_pinned)?;
    }
    to.flush()?;
    Ok(outcome(report.verdict()))
}

/// Each verdict has an exit code of its own.
fn outcome(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Whole => Outcome::Done,
        Verdict::Unanchored => Outcome::Unanchored,
        Verdict::Moved => Outcome::Moved,
        Verdict::Receipts => Outcome::Receipts,
        Verdict::Doubtful => Outcome::Doubtful,
        Verdict::Cut => Outcome::Cut,
        // Incomplete, as an answer is from which something is missing.
        Verdict::Unsealed | Verdict::Damaged => Outcome::Damaged,
    }
}

/// A place, and what receipts call it.
type NamedPlace = (String, Arc<dyn Place>);

/// The places that files were moved to, by the names that receipts have for them.
fn elsewhere(places: &[String]) -> Result<Vec<NamedPlace>, Failure> {
    let mut elsewhere = Vec::new();
    for place in places {
        let name = Store::open(place)?.url().to_owned();
        let path = Path::new(place);
        let opened: Arc<dyn Place> = if is_url(path) { View::open(path, |_| true)? } else { place::here(path) };
        elsewhere.push((name, opened));
    }
    Ok(elsewhere)
}

fn as_json(report: &Report) -> Value {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            json!({"kind": kind(finding.kind), "file": finding.file, "line": finding.line, "what": finding.what,
                   "notice": finding.kind == Kind::Notice})
        })
        .collect();
    let deletions: Vec<_> = report
        .deletions
        .iter()
        .map(|(gateway, deletion)| {
            json!({"gateway": gateway, "line": deletion.line, "at": utc(deletion.at_ns), "why": deletion.why,
                   "files": deletion.files, "right": deletion.right, "unstated": deletion.unstated})
        })
        .collect();
    json!({
        "verify": report.verdict().word(),
        "gateways": report.gateways, "lines": report.lines, "untrusted": report.untrusted, "files": report.files,
        "bytes": report.bytes, "deleted": report.deleted, "deletions": deletions, "moved": report.moved,
        "shown": report.shown, "moved_to": report.moved_to, "checkpoints": report.checkpoints, "keys": report.keys,
        "rows_files": report.rows_files, "without_rows_root": report.without_rows_root,
        "proved": report.standings.iter().map(standing_json).collect::<Vec<_>>(), "findings": findings,
        "unrecorded": report.unrecorded.iter().map(unrecorded_json).collect::<Vec<_>>(),
    })
}

/// A time of which not everything was recorded; what has no beginning or end has null.
fn unrecorded_json(unrecorded: &Unrecorded) -> Value {
    let time = |ns: i64| (ns != i64::MIN && ns != i64::MAX).then(|| utc(ns));
    json!({"gateway": unrecorded.gateway, "from": time(unrecorded.from_ns), "to": time(unrecorded.to_ns),
           "why": unrecorded.why.word(), "what": unrecorded.to_string()})
}

/// What is proved of a chain or an audit log.
fn standing_json(standing: &Standing) -> Value {
    let attested: Vec<_> = standing
        .attestations
        .iter()
        .map(|one| json!({"line": one.line, "at_ns": one.at_ns, "by": one.by.word(), "name": one.by.name()}))
        .collect();
    json!({"of": standing.of, "lines": standing.lines, "sentence": standing.sentence(), "attested": attested})
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Notice => "notice",
        Kind::Unanchored => "unanchored",
        Kind::Unsealed => "unsealed",
        Kind::Moved => "moved",
        Kind::Receipt => "receipt",
        Kind::Doubt => "doubt",
        Kind::Cut => "cut",
        Kind::Damage => "damage",
    }
}

fn write_report(to: &mut impl Write, report: &Report, is_pinned: bool) -> std::io::Result<()> {
    for finding in &report.findings {
        let line = finding.line.map(|line| format!(", line {line}")).unwrap_or_default();
        let kind = kind(finding.kind).to_uppercase();
        output::line(to, format!("{kind}: {}{line}: {}", finding.file, finding.what))?;
    }
    write_deletions(to, report)?;
    for unrecorded in &report.unrecorded {
        output::line(to, format!("not everything was recorded: {unrecorded}"))?;
    }
    writeln!(
        to,
        "{}: {} gateways, {} segments, {} files, {} bytes verified; {} files deleted in order, {} moved ({} looked at there), {} checkpoints, {} keys, {} files row by row",
        report.verdict().describe(),
        report.gateways,
        report.lines,
        report.files,
        report.bytes,
        report.deleted,
        report.moved,
        report.shown,
        report.checkpoints,
        report.keys,
        report.rows_files
    )?;
    if report.without_rows_root > 0 {
        let count = report.without_rows_root;
        writeln!(
            to,
            "{count} files were sealed before rows had a root: their rows are proved by the whole file only."
        )?;
    }
    for standing in &report.standings {
        output::line(to, standing.sentence())?;
    }
    if report.untrusted > 0 {
        writeln!(to, "{} segments were written after the last line their gateway is trusted until.", report.untrusted)?;
    }
    if !is_pinned {
        writeln!(to, "The public keys came with the archive; give those you got another way with --public-key.")?;
    }
    Ok(())
}

/// Deletions of one gateway for one reason are one line: there may be one a day, for years.
fn write_deletions(to: &mut impl Write, report: &Report) -> std::io::Result<()> {
    #[derive(Default)]
    struct Sum {
        lines: usize,
        first: u64,
        last: u64,
        right: usize,
        unstated: usize,
    }
    let mut sums: BTreeMap<(&str, &str), Sum> = BTreeMap::new();
    for (gateway, deletion) in &report.deletions {
        let sum = sums.entry((gateway, &deletion.why)).or_default();
        sum.first = if sum.lines == 0 { deletion.line } else { sum.first };
        (sum.lines, sum.last) = (sum.lines + 1, deletion.line);
        (sum.right, sum.unstated) = (sum.right + deletion.right, sum.unstated + deletion.unstated);
    }
    for ((gateway, why), Sum { lines, first, last, right, unstated }) in sums {
        let stated = right - unstated;
        let by = match (stated, unstated) {
            (_, 0) => "each older than every retention in force since it was sealed".to_owned(),
            (0, _) => "by the gateway's word: no line says how long they are kept (--policy does)".to_owned(),
            _ => format!("{unstated} of them by the gateway's word: no line says how long they are kept"),
        };
        let what = format!("{right} files by {lines} lines ({first} to {last}), {by}");
        output::line(to, format!("deleted: {gateway}, {why}: {what}"))?;
    }
    Ok(())
}

fn show_progress(report: &Report) {
    // Progress is for the person who waits.
    let _ = write!(std::io::stderr(), "\r{} segments, {} MiB verified ", report.lines, report.bytes >> 20);
}
