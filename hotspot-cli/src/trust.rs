//! Whom the reader believes beside the archive: pinned keys, and until when a gateway is trusted.

use std::fs;

use hotspot_archive::chain::{Pins, Until, parse_checkpoint};
use hotspot_archive::layout::is_name;

use crate::Failure;
use crate::arguments::Trusting;

/// Reads what was given.
pub(crate) fn pins(trusting: &Trusting) -> Result<Pins, Failure> {
    let mut pins = Pins::default();
    for path in &trusting.public_key {
        let failed = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
        pins.extend(Pins::parse(&text).map_err(|error| failed(error.to_string()))?);
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

/// The last checkpoint of each gateway in a file.
fn by_checkpoints(path: &str, pins: &mut Pins) -> Result<(), Failure> {
    let usage = |why: String| Failure::Usage(format!("--trusted-until {path}: {why}"));
    let text = fs::read_to_string(path)
        .map_err(|error| usage(format!("neither GATEWAY:LINE nor a file that can be read: {error}")))?;
    let mut found: Vec<_> = text.lines().filter_map(parse_checkpoint).map(|kept| kept.checkpoint).collect();
    if found.is_empty() {
        return Err(usage("holds no checkpoint".to_owned()));
    }
    found.sort_by_key(|checkpoint| checkpoint.line);
    for checkpoint in found {
        let until = Until { line: checkpoint.line, hash: Some(checkpoint.hash) };
        pins.trust_until(&checkpoint.gateway, until);
    }
    Ok(())
}
