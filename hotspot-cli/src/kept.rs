//! What was kept elsewhere of an archive: checkpoints as JSON, notes with cosignatures, time stamps beside them.

use std::path::{Path, PathBuf};

use hotspot_archive::chain::parse_checkpoint;
use hotspot_archive::note::{self, KeyKind, Note, VerifierKey};
use hotspot_archive::stamp::file_name;

use crate::Failure;

/// The public keys of witnesses, as they are given.
pub(crate) fn witnesses(texts: &[String]) -> Result<Vec<VerifierKey>, Failure> {
    texts.iter().map(|text| witness_key(text)).collect()
}

fn witness_key(text: &str) -> Result<VerifierKey, Failure> {
    let key = VerifierKey::parse(text).map_err(|what| Failure::Usage(format!("--witness: {what}")))?;
    if key.kind == KeyKind::Cosignature {
        return Ok(key);
    }
    Err(Failure::Usage(format!("--witness: {} is no witness's key; `hotspot witness new-key` prints one", key.name)))
}

/// What was kept elsewhere.
#[derive(Default)]
pub(crate) struct Kept {
    /// Lines that hold a checkpoint.
    pub(crate) checkpoints: Vec<String>,
    /// Notes, each with where it was found.
    pub(crate) notes: Vec<(String, Note)>,
    /// Where something lies among them that is none.
    pub(crate) broken_notes: Vec<String>,
    /// Time stamps beside the files.
    pub(crate) stamps: Vec<(String, Vec<u8>)>,
}

impl Kept {
    /// Reads files of checkpoints. One without any is a mistake: nothing would be compared.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        let mut kept = Self::default();
        for path in paths {
            let shown = path.display();
            let failed = |error: std::io::Error| Failure::Usage(format!("{shown} cannot be read: {error}"));
            let bytes = std::fs::read(path).map_err(failed)?;
            // A log may hold what is no text; that costs its line only.
            let text = String::from_utf8_lossy(&bytes);
            let before = kept.checkpoints.len() + kept.notes.len();
            let (json, rest): (Vec<&str>, Vec<&str>) =
                text.split_inclusive('\n').partition(|line| line.contains("{\"checkpoint\":"));
            kept.checkpoints.extend(json.into_iter().map(|line| line.trim_end().to_owned()));
            let is_log = kept.checkpoints.len() > before;
            for (number, (line, note)) in (1..).zip(note::split(&rest.concat())) {
                match note {
                    Ok(note) => kept.notes.push((format!("{shown}, note of line {line}"), note)),
                    // Of a log, what another program wrote there is left alone.
                    Err(text) if is_log && !is_meant_as_note(&text) => {}
                    Err(_) => kept.broken_notes.push(format!("{shown}, note {number}, from line {line}")),
                }
            }
            if kept.checkpoints.len() + kept.notes.len() == before {
                return Err(Failure::Usage(format!("{shown} holds no checkpoint")));
            }
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            for checkpoint in kept.checkpoints.iter().filter_map(|line| parse_checkpoint(line)) {
                let name = file_name(&checkpoint.checkpoint.gateway, checkpoint.checkpoint.line);
                let stamp = dir.join(name);
                if kept.stamps.iter().all(|(file, _)| *file != stamp.display().to_string()) {
                    let bytes = std::fs::read(&stamp).ok();
                    kept.stamps.extend(bytes.map(|bytes| (stamp.display().to_string(), bytes)));
                }
            }
        }
        Ok(kept)
    }
}

/// Whether a text was a note once: it has a line of a signature, or says of what it is.
fn is_meant_as_note(text: &str) -> bool {
    text.lines()
        .any(|line| line.starts_with('\u{2014}') || line.starts_with("hotspot/") || line.starts_with("hotspot-audit/"))
}
