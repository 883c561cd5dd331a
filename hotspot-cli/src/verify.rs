//! `hotspot verify`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use hotspot_archive::manifest::read_public_key;
use hotspot_archive::verify::{Report, Trust, verify, verify_at, verify_audit};
use serde_json::json;

use crate::arguments::VerifyArguments;
use crate::find::keyring;
use crate::output::stdout;
use crate::remote::View;
use crate::store::is_url;
use crate::{Failure, Outcome};

pub(crate) fn run(arguments: &VerifyArguments) -> Result<Outcome, Failure> {
    let trusted = arguments
        .public_key
        .as_deref()
        .map(|path| read_public_key(path).map_err(|error| Failure::Usage(error.to_string())))
        .transpose()?;
    let shows_progress = std::io::stderr().is_terminal();
    let checkpoints = read_checkpoints(&arguments.checkpoint)?;
    let keyring = keyring(&arguments.identity)?;
    let trust = Trust {
        public_key: trusted.as_ref(),
        checkpoints: &checkpoints,
        keyring: (!keyring.is_empty()).then_some(&keyring),
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
    let mut report = verified.map_err(|error| Failure::Damaged(error.to_string()))?;
    if let Some(path) = &arguments.audit {
        verify_audit(path, &path.display().to_string(), &mut report);
    }
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
            "deleted": report.deleted, "moved": report.moved, "moved_to": report.moved_to, "checkpoints": report.checkpoints, "keys": report.keys,
            "findings": findings,
        });
        writeln!(to, "{answer}")?;
    } else {
        write_report(&mut to, &report, trusted.is_some())?;
    }
    to.flush()?;
    Ok(if report.is_whole() { Outcome::Done } else { Outcome::Damaged })
}

/// Lines that hold a checkpoint. A file without any is a mistake: nothing would be compared.
fn read_checkpoints(paths: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut checkpoints = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))?;
        let before = checkpoints.len();
        checkpoints.extend(text.lines().filter(|line| line.contains("{\"checkpoint\":")).map(str::to_owned));
        if checkpoints.len() == before {
            return Err(Failure::Usage(format!("{} holds no checkpoint", path.display())));
        }
    }
    Ok(checkpoints)
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
        "{verdict}: {} gateways, {} segments, {} files, {} bytes verified; {} files deleted in order, {} moved, {} checkpoints, {} keys",
        report.gateways,
        report.lines,
        report.files,
        report.bytes,
        report.deleted,
        report.moved,
        report.checkpoints,
        report.keys
    )?;
    for place in &report.moved_to {
        writeln!(to, "Files were moved to {place}: verify them there too, --archive {place}")?;
    }
    if !is_trusted {
        writeln!(to, "The public keys came with the archive; give one you got another way with --public-key.")?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress is for the person who waits")]
fn show_progress(report: &Report) {
    eprint!("\r{} segments, {} MiB verified ", report.lines, report.bytes >> 20);
}
