//! `hotspot verify`.

use std::io::{IsTerminal, Write};

use hotspot_archive::manifest::read_public_key;
use hotspot_archive::verify::{Report, verify};
use serde_json::json;

use crate::arguments::VerifyArguments;
use crate::output::stdout;
use crate::{Failure, Outcome};

pub(crate) fn run(arguments: &VerifyArguments) -> Result<Outcome, Failure> {
    let trusted = arguments
        .public_key
        .as_deref()
        .map(|path| read_public_key(path).map_err(|error| Failure::Usage(error.to_string())))
        .transpose()?;
    let shows_progress = std::io::stderr().is_terminal();
    let report = verify(&arguments.archive, trusted.as_ref(), |report| {
        if shows_progress {
            show_progress(report);
        }
    })
    .map_err(|error| Failure::Damaged(error.to_string()))?;
    let mut to = stdout();
    if arguments.json {
        let findings: Vec<_> = report
            .findings
            .iter()
            .map(|finding| json!({"file": finding.file, "line": finding.line, "what": finding.what, "notice": finding.is_notice}))
            .collect();
        let answer = json!({
            "verify": if report.is_whole() { "ok" } else { "damaged" },
            "gateways": report.gateways, "lines": report.lines, "files": report.files, "bytes": report.bytes,
            "findings": findings,
        });
        writeln!(to, "{answer}")?;
    } else {
        write_report(&mut to, &report, trusted.is_some())?;
    }
    to.flush()?;
    Ok(if report.is_whole() { Outcome::Done } else { Outcome::Damaged })
}

fn write_report(to: &mut impl Write, report: &Report, is_trusted: bool) -> std::io::Result<()> {
    for finding in &report.findings {
        let line = finding.line.map(|line| format!(", line {line}")).unwrap_or_default();
        let kind = if finding.is_notice { "notice" } else { "DAMAGE" };
        writeln!(to, "{kind}: {}{line}: {}", finding.file, finding.what)?;
    }
    let verdict = if report.is_whole() { "whole" } else { "NOT WHOLE" };
    writeln!(
        to,
        "{verdict}: {} gateways, {} segments, {} files, {} bytes verified",
        report.gateways, report.lines, report.files, report.bytes
    )?;
    if !is_trusted {
        writeln!(to, "The public keys came with the archive; give one you got another way with --public-key.")?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress is for the person who waits")]
fn show_progress(report: &Report) {
    eprint!("\r{} segments, {} MiB verified ", report.lines, report.bytes >> 20);
}
