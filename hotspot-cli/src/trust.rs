//! Whom the reader believes beside the archive: pinned keys, and until when a gateway is trusted.

use std::fs;

use hotspot_archive::chain::{Checkpoint, Pins, Until, parse_checkpoint};
use hotspot_archive::layout::is_name;

use crate::Failure;
use crate::arguments::Trusting;

/// Reads what was given.
pub(crate) fn pins(trusting: &Trusting) -> Result<Pins, Failure> {
    let mut pins = Pins::default();
    for path in &trusting.public_key {
        let failed = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
        let added = Pins::parse(&text).and_then(|added| pins.extend(added));
        added.map_err(|error| failed(error.to_string()))?;
    }
    for text in &trusting.trusted_until {
        match line_of(text) {
            Some((gateway, line)) => pins.trust_until(gateway, Until { line, hash: None }),
            None => by_checkpoints(text, &mut pins)?,
        }
    }
    Ok(pins)
}

/// `GATEWAY:LINE`. Line 0 trusts nothing of it.
fn line_of(text: &str) -> Option<(&str, u64)> {
    let (gateway, line) = text.rsplit_once(':')?;
    Some((gateway, line.parse().ok()?)).filter(|_| is_name(gateway))
}

/// The checkpoint of each gateway in a file. Of several the last might be the thief's, so there must be one.
fn by_checkpoints(path: &str, pins: &mut Pins) -> Result<(), Failure> {
    let usage = |why: String| Failure::Usage(format!("--trusted-until {path}: {why}"));
    let bytes =
        fs::read(path).map_err(|error| usage(format!("neither GATEWAY:LINE nor a file that can be read: {error}")))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut found: Vec<_> = text.lines().filter_map(parse_checkpoint).map(|kept| kept.checkpoint).collect();
    if found.is_empty() {
        return Err(usage("holds no checkpoint".to_owned()));
    }
    found.sort_by(|left, right| (&left.gateway, left.line).cmp(&(&right.gateway, right.line)));
    let differ = |pair: &[Checkpoint]| {
        pair[0].gateway == pair[1].gateway && (pair[0].line, &pair[0].hash) != (pair[1].line, &pair[1].hash)
    };
    if let Some(pair) = found.windows(2).find(|pair| differ(pair)) {
        let gateway = &pair[0].gateway;
        let what = "say which counts, or give a file with that one";
        return Err(usage(format!("holds several checkpoints of {gateway}; {what}: {gateway}:LINE")));
    }
    for checkpoint in found {
        let until = Until { line: checkpoint.line, hash: Some(checkpoint.hash) };
        pins.trust_until(&checkpoint.gateway, until);
    }
    Ok(())
}
