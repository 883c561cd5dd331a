//! Gateways that sealed nothing yet: which they are, and when the first segment comes.
//!
//! An agent says when that will be, in `manifest/<gateway>.first`, until the first line is there. Nothing signs that file and nothing is
//! proved by it: it is for the words with which somebody is told to wait.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hotspot_core::WallNs;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::layout::is_name;
use crate::pieces;

/// Ends the name of the file.
const FIRST: &str = ".first";

/// When a gateway began, and when its first segment is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    pub began_ns: WallNs,
    pub expected_ns: WallNs,
}

/// A gateway without a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsealed {
    pub gateway: String,
    /// `None` where its agent did not say.
    pub expected: Option<Expected>,
}

impl Unsealed {
    /// What somebody is told who asks now.
    #[must_use]
    pub fn describe(&self, now_ns: WallNs) -> String {
        let gateway = &self.gateway;
        match self.expected {
            Some(Expected { expected_ns, .. }) if expected_ns >= now_ns => {
                format!("nothing is sealed yet by gateway {gateway}; the first segment comes at {}", show(expected_ns))
            }
            Some(Expected { expected_ns, .. }) => {
                let at = show(expected_ns);
                format!(
                    "nothing is sealed yet by gateway {gateway}, though its first segment was to come at {at}: see the agent's log"
                )
            }
            None => format!(
                "nothing is sealed yet by gateway {gateway}; the first segment comes when the agent has run for as long as --rotate says, \
                 5 minutes unless it was told otherwise"
            ),
        }
    }
}

fn show(at_ns: WallNs) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at_ns)).map_or_else(|_| at_ns.to_string(), |time| format!("{time:.0}"))
}

fn path(archive: &Path, gateway: &str) -> PathBuf {
    archive.join("manifest").join(format!("{gateway}{FIRST}"))
}

/// Says when the first segment of a gateway will be there.
pub fn announce(archive: &Path, gateway: &str, expected: Expected) -> io::Result<()> {
    let text = serde_json::to_string(&expected)?;
    durable::replace(&path(archive, gateway), |file| writeln!(file, "{text}"))
}

/// Takes that away.
pub fn forget(archive: &Path, gateway: &str) -> io::Result<()> {
    durable::remove(&path(archive, gateway))
}

/// The gateways of an archive that have a key or a chain there and, by `has_segments`, no segment.
pub fn unsealed(archive: &Path, has_segments: impl Fn(&str) -> bool) -> io::Result<Vec<Unsealed>> {
    let mut gateways: Vec<String> = Vec::new();
    for entry in fs::read_dir(archive.join("manifest"))? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let gateway = name.strip_suffix(".pub").or(name.strip_suffix(".jsonl")).or(pieces::gateway_of(name));
        gateways.extend(gateway.filter(|gateway| is_name(gateway) && !has_segments(gateway)).map(str::to_owned));
    }
    gateways.sort();
    gateways.dedup();
    let read = |gateway: &str| serde_json::from_slice(&fs::read(path(archive, gateway)).ok()?).ok();
    Ok(gateways.into_iter().map(|gateway| Unsealed { expected: read(&gateway), gateway }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_until_when() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("manifest");
        fs::create_dir(&manifest).unwrap();
        for name in ["a.pub", "a.jsonl", "b.pub", "c.pub", "c.first", "notes"] {
            fs::write(manifest.join(name), "").unwrap();
        }
        announce(dir.path(), "b", Expected { began_ns: 0, expected_ns: 310_000_000_000 }).unwrap();
        let found = unsealed(dir.path(), |gateway| gateway == "a").unwrap();
        assert_eq!(found.iter().map(|one| one.gateway.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert!(
            found[0].describe(1).ends_with("the first segment comes at 1970-01-01T00:05:10Z"),
            "{}",
            found[0].describe(1)
        );
        assert!(found[0].describe(311_000_000_000).contains("was to come at 1970-01-01T00:05:10Z"));
        assert!(found[1].describe(1).contains("--rotate"));
        forget(dir.path(), "b").unwrap();
        forget(dir.path(), "b").unwrap();
        assert_eq!(unsealed(dir.path(), |_| false).unwrap()[1].expected, None);
    }
}
