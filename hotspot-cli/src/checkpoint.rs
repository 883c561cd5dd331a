//! `hotspot checkpoint`: a request to a witness, made from a chain and the checkpoints that lie beside it.

use std::io::Write;
use std::path::Path;

use hotspot_archive::checkpoints;
use hotspot_archive::place::Place;
use hotspot_archive::signing::read_public_key;
use hotspot_archive::witness::Source;

use crate::arguments::CheckpointArguments;
use crate::output::stdout;
use crate::remote::View;
use crate::store::is_url;
use crate::{Failure, Outcome};

pub(crate) fn run(arguments: &CheckpointArguments) -> Result<Outcome, Failure> {
    let gateway = &arguments.gateway;
    let key = arguments.public_key.as_deref().map(read_public_key).transpose();
    let key = key.map_err(|error| Failure::Usage(error.to_string()))?;
    let mut findings = Vec::new();
    let source = with_root(&arguments.archive, gateway, |root| {
        Source::open(root, gateway, key, |line, what| findings.push(format!("line {line} {what}")))
            .map_err(|error| Failure::Damaged(error.to_string()))
    })?;
    if let Some(what) = findings.first() {
        return Err(Failure::Damaged(format!("gateway {gateway}: {what}; run `hotspot verify`")));
    }
    let Some(size) = source.size() else {
        let path = checkpoints::path(gateway);
        let why = "an agent of this version writes one after each segment";
        return Err(Failure::Damaged(format!(
            "{path} holds no checkpoint that fits the chain and can be shown to a witness: {why}"
        )));
    };
    let Some(request) = source.request(arguments.old) else {
        let old = arguments.old;
        return Err(Failure::Damaged(format!(
            "the newest checkpoint of {gateway} has {size} lines, which are fewer than --old {old}"
        )));
    };
    let mut to = stdout();
    to.write_all(request.text().as_bytes())?;
    to.flush()?;
    Ok(Outcome::Done)
}

/// Works on an archive where it lies, or on a view of one whose chain and checkpoints were brought.
pub(crate) fn with_root<T>(
    archive: &Path,
    gateway: &str,
    work: impl FnOnce(&Path) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if !is_url(archive) {
        return work(archive);
    }
    let view = View::open(archive, |name| name == gateway)?;
    match view.bring(&checkpoints::path(gateway), None) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Failure::Damaged(error.to_string())),
        Ok(()) | Err(_) => {}
    }
    work(view.root())
}
