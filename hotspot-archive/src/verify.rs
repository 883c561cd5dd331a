//! Verifying: is every line of every chain there, signed, in order, and is every file as its line says?
//!
//! Needs no key that opens anything. Every finding names the file, the line, and what is wrong with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

use crate::layout::Class;
use crate::manifest::{self, Line, ManifestError, NO_LINE, key_id, parse_line, to_hex};

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Manifest or segment, relative to the archive.
    pub file: String,
    /// Line of a manifest, from 1.
    pub line: Option<usize>,
    pub what: String,
    /// Not damage: the gateway is still writing, or died before the line.
    pub is_notice: bool,
}

/// What a verification saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub gateways: usize,
    pub lines: usize,
    pub files: usize,
    pub bytes: u64,
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong. Notices are not wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings.iter().all(|finding| finding.is_notice)
    }

    fn find(&mut self, file: &str, line: Option<usize>, what: impl Into<String>) {
        self.findings.push(Finding { file: file.to_owned(), line, what: what.into(), is_notice: false });
    }
}

/// Verifies every chain of an archive. `trusted` replaces the public keys that lie beside the chains, which whoever changed
/// the archive could have replaced too. `progress` is told after each line.
pub fn verify(
    archive: &Path,
    trusted: Option<&VerifyingKey>,
    mut progress: impl FnMut(&Report),
) -> Result<Report, ManifestError> {
    let mut report = Report::default();
    let mut vouched = BTreeSet::new();
    let mut next_sequences = Vec::new();
    for chain in chains(archive)? {
        report.gateways += 1;
        let name = format!("manifest/{}.jsonl", chain.gateway);
        let beside = chain.path.with_extension("pub");
        let key = match trusted {
            Some(key) => Ok(*key),
            None => manifest::read_public_key(&beside),
        };
        let key = match key {
            Ok(key) => key,
            Err(error) => {
                report.find(&name, None, format!("no public key: {error}"));
                continue;
            }
        };
        let text = fs::read(&chain.path).map_err(|source| ManifestError::Io {
            operation: "read",
            path: chain.path.clone(),
            source,
        })?;
        let next = verify_chain(archive, &chain.gateway, &name, &text, &key, &mut report, &mut vouched, &mut progress);
        next_sequences.push((chain.gateway, next));
    }
    if report.gateways == 0 {
        report.find("manifest", None, "there is no manifest: nothing here can be proved");
    }
    find_extra_files(archive, &vouched, &next_sequences, &mut report)?;
    Ok(report)
}

/// A gateway's chain.
pub(crate) struct Chain {
    pub(crate) gateway: String,
    pub(crate) path: PathBuf,
}

pub(crate) fn chains(archive: &Path) -> Result<Vec<Chain>, ManifestError> {
    let dir = archive.join("manifest");
    let failed = |source| ManifestError::Io { operation: "read", path: dir.clone(), source };
    let mut chains = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(gateway) =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jsonl"))
        {
            chains.push(Chain { gateway: gateway.to_owned(), path: path.clone() });
        }
    }
    chains.sort_by(|left, right| left.gateway.cmp(&right.gateway));
    Ok(chains)
}

/// Checks one chain and returns the sequence that would come next.
#[expect(clippy::too_many_arguments, reason = "the parts of one pass over one file")]
fn verify_chain(
    archive: &Path,
    gateway: &str,
    name: &str,
    text: &[u8],
    key: &VerifyingKey,
    report: &mut Report,
    vouched: &mut BTreeSet<String>,
    progress: &mut impl FnMut(&Report),
) -> u64 {
    let (mut prev, mut sequence) = (NO_LINE.to_owned(), 0);
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole != text.len() {
        report.find(name, None, format!("the last line has no end ({} bytes)", text.len() - whole));
    }
    for (position, bytes) in text[..whole].split(|byte| *byte == b'\n').enumerate() {
        if bytes.is_empty() && position > 0 {
            continue;
        }
        let number = Some(position + 1);
        let parsed = std::str::from_utf8(bytes).ok().and_then(parse_line);
        let Some(parsed) = parsed else {
            report.find(name, number, "is not a manifest line");
            prev = to_hex(&Sha256::digest(bytes));
            sequence += 1;
            continue;
        };
        report.lines += 1;
        let line = &parsed.line;
        if line.key != key_id(key) {
            report.find(name, number, format!("was signed with another key ({}, expected {})", line.key, key_id(key)));
        } else if !parsed.is_signed_by(key) {
            report.find(name, number, "the signature does not fit the line: it was changed");
        }
        if line.prev != prev {
            report.find(name, number, "does not follow the line before it: lines were removed, reordered or changed");
        }
        if line.gateway != gateway {
            report.find(name, number, format!("belongs to gateway {}", line.gateway));
        }
        if line.sequence != sequence + 1 {
            report.find(name, number, format!("has sequence {}, expected {}", line.sequence, sequence + 1));
        }
        verify_files(archive, name, number, line, report, vouched);
        sequence = line.sequence;
        prev = to_hex(&Sha256::digest(bytes));
        progress(report);
    }
    sequence + 1
}

fn verify_files(
    archive: &Path,
    name: &str,
    number: Option<usize>,
    line: &Line,
    report: &mut Report,
    vouched: &mut BTreeSet<String>,
) {
    for file in &line.files {
        let path = Path::new(&file.path);
        if path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            report.find(name, number, format!("names a file outside the archive: {}", file.path));
            continue;
        }
        vouched.insert(file.path.clone());
        report.files += 1;
        match manifest::hash_file(&archive.join(path)) {
            Ok((sha256, bytes)) => {
                report.bytes += bytes;
                if bytes != file.bytes {
                    report.find(&file.path, None, format!("has {bytes} bytes, its line says {}", file.bytes));
                } else if sha256 != file.sha256 {
                    report.find(&file.path, None, "its content was changed (SHA-256 differs)");
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                report.find(&file.path, None, format!("is missing (sequence {})", line.sequence));
            }
            Err(error) => report.find(&file.path, None, format!("cannot be read: {error}")),
        }
    }
}

/// Files that no line vouches for.
fn find_extra_files(
    archive: &Path,
    vouched: &BTreeSet<String>,
    next_sequences: &[(String, u64)],
    report: &mut Report,
) -> Result<(), ManifestError> {
    for class in Class::ALL {
        let mut files = Vec::new();
        let root = archive.join(class.label());
        list_files(&root, &mut files).map_err(|source| ManifestError::Io { operation: "read", path: root, source })?;
        for path in files {
            let relative = path.strip_prefix(archive).unwrap_or(&path).to_string_lossy().into_owned();
            if vouched.contains(&relative) {
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_next = next_sequences.iter().any(|(gateway, next)| {
                let stem = format!("{gateway}-{next:010}.parquet");
                let name = name.strip_suffix(".tmp").unwrap_or(name);
                name == stem || name.strip_suffix(".age") == Some(&stem)
            });
            if is_next {
                report.findings.push(Finding {
                    file: relative,
                    line: None,
                    what: "is not yet in the manifest: its gateway is sealing it, or died before".to_owned(),
                    is_notice: true,
                });
            } else {
                report.find(&relative, None, "is in no manifest line");
            }
        }
    }
    Ok(())
}

fn list_files(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            list_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use hotspot_core::record::{CoverageRecord, Tallied};

    use super::*;
    use crate::manifest::{GatewayKey, Manifest, Sealing};
    use crate::segment::Origin;

    fn archive(sequences: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let key = GatewayKey::open(&dir.path().join("keys/k")).unwrap();
        let mut manifest = Manifest::open(&dir.path().join("archive"), "g", key).unwrap();
        for sequence in 1..=sequences {
            seal(&mut manifest, sequence);
        }
        dir
    }

    fn seal(manifest: &mut Manifest, sequence: u64) {
        let coverage = [CoverageRecord {
            interface: "lan".into(),
            generation: sequence,
            seen: Tallied { packets: 1, bytes: 60 },
            flows: Tallied { packets: 1, bytes: 60 },
            ..CoverageRecord::default()
        }];
        let origin = Origin { site: "s".into(), gateway: "g".into(), sequence };
        let draft = manifest.draft(&origin, 1_795_392_000_000_000_000).unwrap();
        let sealing = Sealing {
            closed_ns: 1_795_392_300_000_000_000,
            sealed_ns: 1_795_392_310_000_000_000,
            sessions: &[],
            devices: &[],
            coverage: &coverage,
        };
        manifest.seal(draft, &sealing).unwrap();
    }

    fn check(dir: &tempfile::TempDir) -> Report {
        verify(&dir.path().join("archive"), None, |_| {}).unwrap()
    }

    #[test]
    fn an_untouched_archive_is_whole() {
        let dir = archive(3);
        let report = check(&dir);
        assert_eq!((report.lines, report.files, report.findings.as_slice()), (3, 3, [].as_slice()));
    }

    #[test]
    fn every_flipped_bit_of_a_manifest_is_found() {
        let dir = archive(2);
        let path = dir.path().join("archive/manifest/g.jsonl");
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(&path, &changed).unwrap();
            assert!(!check(&dir).is_whole(), "byte {at}");
        }
    }

    #[test]
    fn removed_swapped_and_repeated_lines_are_found() {
        let dir = archive(3);
        let path = dir.path().join("archive/manifest/g.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for order in [vec![0, 2], vec![1, 2], vec![0, 2, 1], vec![0, 1, 1, 2], vec![0, 1, 2, 2]] {
            let changed = order.iter().map(|line| lines[*line]).chain([""]).collect::<Vec<_>>().join("\n");
            fs::write(&path, changed).unwrap();
            assert!(!check(&dir).is_whole(), "{order:?}");
        }
    }

    #[test]
    fn changed_missing_and_extra_files_are_found() {
        let dir = archive(2);
        let file = dir.path().join("archive/coverage/site=s/date=2026-11-23/g-0000000001.parquet");
        let bytes = fs::read(&file).unwrap();
        let mut changed = bytes.clone();
        changed[20] ^= 1;
        fs::write(&file, &changed).unwrap();
        assert!(check(&dir).findings[0].what.contains("changed"));
        fs::remove_file(&file).unwrap();
        assert!(check(&dir).findings[0].what.contains("missing"));
        fs::write(&file, &bytes).unwrap();
        fs::write(file.with_file_name("g-0000000009.parquet"), &bytes).unwrap();
        assert!(check(&dir).findings[0].what.contains("no manifest line"));
    }

    #[test]
    fn a_segment_whose_line_is_still_to_come_is_only_a_notice() {
        let dir = archive(1);
        let file = dir.path().join("archive/coverage/site=s/date=2026-11-23/g-0000000002.parquet");
        fs::write(file, "x").unwrap();
        let report = check(&dir);
        assert!(report.is_whole());
        assert_eq!(report.findings.len(), 1);
    }

    #[test]
    fn a_line_without_its_end_is_cut_when_the_chain_goes_on() {
        let dir = archive(2);
        let path = dir.path().join("archive/manifest/g.jsonl");
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"format\":1,\"gate");
        fs::write(&path, text).unwrap();
        assert!(!check(&dir).is_whole());
        let key = GatewayKey::open(&dir.path().join("keys/k")).unwrap();
        let mut manifest = Manifest::open(&dir.path().join("archive"), "g", key).unwrap();
        seal(&mut manifest, 3);
        assert!(check(&dir).is_whole());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = archive(0);
        let path = dir.path().join("keys/k");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(GatewayKey::open(&path), Err(ManifestError::KeyIsOpen { .. })));
    }

    #[test]
    fn a_key_of_somebody_else_does_not_verify() {
        let (ours, theirs) = (archive(1), archive(1));
        let key = manifest::read_public_key(&theirs.path().join("archive/manifest/g.pub")).unwrap();
        assert!(!verify(&ours.path().join("archive"), Some(&key), |_| {}).unwrap().is_whole());
    }
}
