//! Verifying: is every line of every chain there, signed, in order, and is every file as its line says?
//!
//! Needs no key that opens anything. Every finding names the file, the line, and what is wrong with it.

use std::collections::BTreeSet;
use std::path::Path;

use ed25519_dalek::VerifyingKey;

use crate::audit;
use crate::chain::{self, ChainCheck, Record};
use crate::keys::{KeyError, Keyring, added_sidecar_path, sidecar_path};
use crate::layout::{Class, INDEX};
use crate::manifest::{self, Line, ManifestError};
use crate::moved::Moved;
pub(crate) use crate::pieces::chains;
use crate::place::{Here, Place};

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
    /// Files that are gone and that a signed line calls deleted.
    pub deleted: usize,
    /// Files that are gone from here, and for which there is a receipt from elsewhere.
    pub moved: usize,
    /// Where these are, and have to be verified.
    pub moved_to: BTreeSet<String>,
    pub checkpoints: usize,
    /// Wrapped keys that were opened and are the right ones.
    pub keys: usize,
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong. Notices are not wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings.iter().all(|finding| finding.is_notice)
    }

    fn notice(&mut self, file: &str, what: String) {
        self.findings.push(Finding { file: file.to_owned(), line: None, what, is_notice: true });
    }

    fn find(&mut self, file: &str, line: Option<usize>, what: impl Into<String>) {
        self.findings.push(Finding { file: file.to_owned(), line, what: what.into(), is_notice: false });
    }
}

/// What a verification may lean on beside the archive itself.
#[derive(Default)]
pub struct Trust<'a> {
    /// Replaces the public keys that lie beside the chains, which whoever changed the archive could have replaced too.
    pub public_key: Option<&'a VerifyingKey>,
    /// Lines of text with checkpoints that were kept elsewhere.
    pub checkpoints: &'a [String],
    /// Unwraps the keys of segments and compares them with what the lines say of them.
    pub keyring: Option<&'a Keyring>,
}

/// Verifies every chain of an archive that lies here. `progress` is told after each line.
pub fn verify(archive: &Path, trust: &Trust<'_>, progress: impl FnMut(&Report)) -> Result<Report, ManifestError> {
    verify_at(archive, &Here(archive.to_path_buf()), trust, progress)
}

/// Verifies an archive that lies at a place: its chains are below `root`, its files where the place has them.
pub fn verify_at(
    root: &Path,
    place: &dyn Place,
    trust: &Trust<'_>,
    mut progress: impl FnMut(&Report),
) -> Result<Report, ManifestError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ManifestError::Io { operation: "read", path, source }
    };
    let moved = Moved::read(root).map_err(failed(&root.join(crate::moved::SHIPPED)))?;
    let mut report = Report::default();
    let mut vouched = BTreeSet::new();
    let (mut checks, mut unnamed) = (Vec::new(), Vec::new());
    for chain in chains(root)? {
        report.gateways += 1;
        let name = format!("manifest/{}.jsonl", chain.gateway);
        if chain.is_twice {
            report.find(&name, None, "is there as a file and in pieces: remove the one that does not belong here");
        }
        let key = match trust.public_key {
            Some(key) => Ok(*key),
            None => manifest::read_public_key(&chain.public_key()),
        };
        let key = match key {
            Ok(key) => key,
            Err(error) => {
                report.find(&name, None, format!("no public key: {error}"));
                continue;
            }
        };
        let text = chain.read().map_err(failed(&chain.path))?;
        let mut check = ChainCheck::new(&chain.gateway, key);
        let records = check_lines(&text, &mut check, |line, what| report.find(&name, line, what));
        let store = |path: &Path| place.hash(&path.to_string_lossy());
        for (line, segment) in &records {
            let mut files =
                Files { store: &store, moved: &moved, check: &check, report: &mut report, vouched: &mut vouched };
            files.verify(&name, *line, segment);
            verify_keys(root, place, segment, trust.keyring, &mut report);
            progress(&report);
        }
        find_idle_deletions(&name, &check, &vouched, &mut report);
        let next = check.next_sequence();
        let last = if chain.is_shipped() { u64::MAX } else { next };
        unnamed.push(Unnamed { gateway: chain.gateway.clone(), sequences: next..=last });
        checks.push(check);
    }
    if report.gateways == 0 {
        report.find("manifest", None, "there is no manifest: nothing here can be proved");
    }
    verify_checkpoints(trust.checkpoints, &checks, &mut report);
    find_extra_files(place, &vouched, &unnamed, &mut report).map_err(failed(root))?;
    verify_audit(&audit::default_path(root), "audit/queries.jsonl", &mut report);
    Ok(report)
}

/// Checks the chain of an audit log; one that is not there has nothing to say.
pub fn verify_audit(path: &Path, name: &str, report: &mut Report) {
    match audit::check(path) {
        Ok((_, breaks)) => report.findings.extend(breaks.into_iter().map(|found| Finding {
            file: name.to_owned(),
            line: Some(found.line),
            what: found.what,
            is_notice: found.is_notice,
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => report.find(name, None, format!("cannot be read: {error}")),
    }
}

/// The lines of every chain, by gateway. What is not a line is an error: `verify` says more.
pub fn all_records(archive: &Path) -> Result<Vec<(String, Vec<Record>)>, ManifestError> {
    let mut all = Vec::new();
    for chain in chains(archive)? {
        let failed = |source| ManifestError::Io { operation: "read", path: chain.path.clone(), source };
        let text = chain.read().and_then(utf8).map_err(failed)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut records = Vec::new();
        for (at, line) in text[..whole].lines().enumerate() {
            let bad = || ManifestError::BadLine { path: chain.path.clone(), line: at + 1 };
            records.push(chain::parse(line).ok_or_else(bad)?.record);
        }
        all.push((chain.gateway, records));
    }
    Ok(all)
}

/// Manifests are text.
pub(crate) fn utf8(bytes: Vec<u8>) -> std::io::Result<String> {
    String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

/// The lines about segments of every chain.
pub fn segment_lines(archive: &Path) -> Result<Vec<Line>, ManifestError> {
    let records = all_records(archive)?.into_iter().flat_map(|(_, records)| records);
    Ok(records
        .filter_map(|record| match record {
            Record::Segment(line) => Some(line),
            Record::Event(_) => None,
        })
        .collect())
}

/// Checks the lines of one chain, and hands back those about segments.
pub(crate) fn check_lines(
    text: &[u8],
    check: &mut ChainCheck,
    mut find: impl FnMut(Option<usize>, String),
) -> Vec<(usize, Line)> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole != text.len() {
        find(None, format!("the last line has no end ({} bytes)", text.len() - whole));
    }
    let mut segments = Vec::new();
    let lines = text[..whole].strip_suffix(b"\n").into_iter().flat_map(|lines| lines.split(|byte| *byte == b'\n'));
    for (position, bytes) in lines.enumerate() {
        let number = position + 1;
        if let Some(Record::Segment(line)) = check.push(bytes, |what| find(Some(number), what)) {
            segments.push((number, line));
        }
    }
    segments
}

/// Compares files with what lines say of them.
pub(crate) struct Files<'a, S> {
    /// SHA-256 and length of a file.
    pub(crate) store: &'a S,
    pub(crate) moved: &'a Moved,
    pub(crate) check: &'a ChainCheck,
    pub(crate) report: &'a mut Report,
    pub(crate) vouched: &'a mut BTreeSet<String>,
}

impl<S: Fn(&Path) -> std::io::Result<(String, u64)>> Files<'_, S> {
    pub(crate) fn verify(&mut self, name: &str, number: usize, line: &Line) {
        self.report.lines += 1;
        for file in &line.files {
            let path = Path::new(&file.path);
            if path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
                self.report.find(name, Some(number), format!("names a file outside the archive: {}", file.path));
                continue;
            }
            if !self.vouched.insert(file.path.clone()) {
                self.report.find(
                    name,
                    Some(number),
                    format!("names a file that another line names too: {}", file.path),
                );
            }
            // A deletion counts for the file it names, not for another of its name.
            let deleted = self.check.deleted(&file.path).filter(|(_, sha256)| *sha256 == file.sha256);
            match (self.store)(path) {
                Ok((sha256, bytes)) => {
                    self.report.files += 1;
                    self.report.bytes += bytes;
                    if bytes != file.bytes {
                        self.report.find(&file.path, None, format!("has {bytes} bytes, its line says {}", file.bytes));
                    } else if sha256 != file.sha256 {
                        self.report.find(&file.path, None, "its content was changed (SHA-256 differs)");
                    } else if let Some((deletion, _)) = deleted {
                        self.report
                            .notice(&file.path, format!("is there, though line {deletion} says that it is deleted"));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if deleted.is_some() {
                        self.report.deleted += 1;
                    } else if let Some(to) = self.moved.to(&line.gateway, line.sequence) {
                        self.report.moved += 1;
                        self.report.moved_to.insert(to.to_owned());
                    } else {
                        self.report.find(&file.path, None, format!("is missing (sequence {})", line.sequence));
                    }
                }
                Err(error) => self.report.find(&file.path, None, format!("cannot be read: {error}")),
            }
        }
    }
}

/// Deletions of files that no line ever named.
pub(crate) fn find_idle_deletions(name: &str, check: &ChainCheck, vouched: &BTreeSet<String>, report: &mut Report) {
    for (path, (line, _)) in check.all_deleted() {
        if !vouched.contains(path) {
            let number = usize::try_from(*line).ok();
            report.find(name, number, format!("says that {path} is deleted, which no line named"));
        }
    }
}

/// Whether the keys that open a segment are those it was written with.
fn verify_keys(root: &Path, place: &dyn Place, line: &Line, keyring: Option<&Keyring>, report: &mut Report) {
    let Some(keyring) = keyring else { return };
    let parquet = |file: &&manifest::FileEntry| file.path.ends_with(".parquet");
    for file in line.files.iter().filter(parquet) {
        let Some(commitment) = &file.key else { continue };
        let path = Path::new(&file.path);
        let added = keyring.recipients().map(|recipient| added_sidecar_path(path, &recipient));
        for sidecar in std::iter::once(sidecar_path(path)).chain(added) {
            let shown = sidecar.to_string_lossy().into_owned();
            match place.bring(&shown, None) {
                Ok(()) => {}
                // The signed one is missed by its line, and others need not be there.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    report.find(&shown, None, format!("cannot be read: {error}"));
                    continue;
                }
            }
            match keyring.unwrap(&root.join(&sidecar)) {
                Ok(key) if key.commitment() == *commitment => report.keys += 1,
                Ok(_) => report.find(&shown, None, "holds another key than the segment was written with"),
                Err(KeyError::NotForUs { .. }) => {}
                Err(error) => report.find(&shown, None, error.to_string()),
            }
            place.release(&shown);
        }
    }
}

fn verify_checkpoints(lines: &[String], checks: &[ChainCheck], report: &mut Report) {
    for text in lines.iter().filter(|text| !text.trim().is_empty()) {
        let Some(kept) = chain::parse_checkpoint(text) else {
            report.find("checkpoint", None, format!("is none: {}", text.chars().take(80).collect::<String>()));
            continue;
        };
        report.checkpoints += 1;
        let name = format!("manifest/{}.jsonl", kept.checkpoint.gateway);
        match checks.iter().find(|check| check.gateway() == kept.checkpoint.gateway) {
            None => report.find(&name, None, "a checkpoint was made of this chain, and there is none"),
            Some(check) => {
                if let Some(what) = check.compare(&kept) {
                    report.find(&name, usize::try_from(kept.checkpoint.line).ok(), what);
                }
            }
        }
    }
}

/// Wrapped keys that were added after sealing lie beside what they open: `x.parquet.<16 digits>.age`.
fn is_added_sidecar(relative: &str, vouched: &BTreeSet<String>) -> bool {
    let Some((segment, id)) = relative.strip_suffix(".age").and_then(|rest| rest.rsplit_once('.')) else {
        return false;
    };
    id.len() == 16 && manifest::from_hex(id).is_some() && vouched.contains(segment)
}

/// Sequences whose files may be there before the line that names them.
struct Unnamed {
    gateway: String,
    sequences: std::ops::RangeInclusive<u64>,
}

impl Unnamed {
    /// `<gateway>-<10 digits>.<extension>`, its key, or what is half written of them (`….tmp`, `…#1`).
    fn is_of(&self, name: &str, extension: &str) -> bool {
        let rest = name.strip_prefix(&self.gateway).and_then(|rest| rest.strip_prefix('-'));
        let Some((digits, kind)) = rest.and_then(|rest| rest.split_once('.')) else { return false };
        let kind = kind.strip_suffix(".tmp").or(kind.split_once('#').map(|(kind, _)| kind)).unwrap_or(kind);
        let is_kind = kind.strip_suffix(".age").unwrap_or(kind) == extension;
        let is_number = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_kind && is_number && digits.parse().is_ok_and(|sequence| self.sequences.contains(&sequence))
    }
}

/// Files that no line vouches for.
fn find_extra_files(
    place: &dyn Place,
    vouched: &BTreeSet<String>,
    unnamed: &[Unnamed],
    report: &mut Report,
) -> std::io::Result<()> {
    for (class, extension) in Class::ALL.map(|class| (class.label(), "parquet")).into_iter().chain([(INDEX, "index")]) {
        for relative in place.list(class)? {
            if vouched.contains(&relative) || is_added_sidecar(&relative, vouched) {
                continue;
            }
            let name = relative.rsplit_once('/').map_or(relative.as_str(), |(_, name)| name);
            if unnamed.iter().any(|unnamed| unnamed.is_of(name, extension)) {
                let what = "is not yet in the manifest: it is being sealed or shipped, or that was cut short";
                report.notice(&relative, what.to_owned());
            } else {
                report.find(&relative, None, "is in no manifest line");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod mutations;

#[cfg(test)]
mod tests {
    use std::fs;

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
            clock: None,
            step_ns: 0,
            sessions: &[],
            devices: &[],
            coverage: &coverage,
        };
        manifest.seal(draft, &sealing).unwrap();
    }

    fn check(dir: &tempfile::TempDir) -> Report {
        verify(&dir.path().join("archive"), &Trust::default(), |_| {}).unwrap()
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
    fn what_a_receipt_names_is_moved_and_nothing_else() {
        let dir = archive(3);
        let root = dir.path().join("archive");
        let receipt = |sequence| crate::moved::Receipt {
            moved: 1,
            gateway: "g".into(),
            sequence,
            to: "s3://b/p".into(),
            at_ns: 1,
        };
        crate::moved::record(&root, &receipt(2)).unwrap();
        assert_eq!((check(&dir).moved, check(&dir).is_whole()), (0, true), "it is still here");
        let file = |sequence| root.join(format!("coverage/site=s/date=2026-11-23/g-000000000{sequence}.parquet"));
        fs::remove_file(file(2)).unwrap();
        let report = check(&dir);
        assert_eq!((report.moved, report.files, report.findings.as_slice()), (1, 2, [].as_slice()));
        assert!(report.moved_to.contains("s3://b/p"));
        fs::remove_file(file(3)).unwrap();
        assert!(check(&dir).findings[0].what.contains("missing"));
    }

    #[test]
    fn a_chain_in_pieces_verifies_as_its_file_does() {
        let dir = archive(3);
        let root = dir.path().join("archive");
        let text = fs::read_to_string(root.join("manifest/g.jsonl")).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let piece = |first: u64| root.join(crate::pieces::path("g", first));
        fs::create_dir(piece(1).parent().unwrap()).unwrap();
        fs::write(piece(1), lines[..2].concat()).unwrap();
        fs::write(piece(3), lines[2]).unwrap();
        assert!(check(&dir).findings[0].what.contains("in pieces"), "which of them is true?");
        fs::remove_file(root.join("manifest/g.jsonl")).unwrap();
        let report = check(&dir);
        assert_eq!((report.lines, report.files, report.findings.as_slice()), (3, 3, [].as_slice()));
        fs::remove_file(piece(1)).unwrap();
        assert!(!check(&dir).is_whole(), "a piece is missing");
    }

    #[test]
    fn a_key_of_somebody_else_does_not_verify() {
        let (ours, theirs) = (archive(1), archive(1));
        let key = manifest::read_public_key(&theirs.path().join("archive/manifest/g.pub")).unwrap();
        assert!(
            !verify(&ours.path().join("archive"), &Trust { public_key: Some(&key), ..Trust::default() }, |_| {})
                .unwrap()
                .is_whole()
        );
    }
}
