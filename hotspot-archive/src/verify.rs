//! Verifying: is every line of every chain there, signed, in order, and right, and is every file as its line says?
//!
//! Needs no key that opens anything. Every finding names the file, the line, and what is wrong with it; the verdict is that of the worst.

mod attestation;
mod audit_logs;
mod extra;
mod index;
mod keys;
mod outside;
mod report;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hotspot_core::WallNs;

pub use self::attestation::{Attestation, By, Standing};
use self::extra::{Unnamed, find_extra_files};
use self::keys::verify_keys;
use self::outside::Checked;
pub use self::outside::{AuditLog, Outside, Stamp, StampCheck};
pub use self::report::{Finding, Kind, Report, Verdict};
use crate::chain::{Beside, ChainCheck, FileState, Pins, Record, Remark, Severity};
use crate::first;
use crate::keys::Keyring;
use crate::manifest::{FileEntry, Line, ManifestError};
use crate::moved::Moved;
use crate::pieces::{Chain, EMPTY, TWICE, chains};
use crate::place::{Here, Place};
use crate::policy::Policy;
use crate::search::Interval;
use crate::unrecorded::Timeline;

/// What a verification may lean on beside the archive itself.
#[derive(Default)]
pub struct Trust<'a> {
    /// Replaces the public keys that lie beside the chains, which whoever changed the archive could have replaced too; and says until
    /// when gateways are trusted.
    pub pins: Pins,
    /// How long records have to be kept, whatever the chains say of it.
    pub policy: Policy,
    /// Now, by the verifier's clock.
    pub now_ns: Option<WallNs>,
    /// Lines of text with checkpoints that were kept elsewhere.
    pub checkpoints: &'a [String],
    /// What witnesses and authorities said, and other audit logs.
    pub outside: Outside<'a>,
    /// Unwraps the keys of segments and compares them with what the lines say of them.
    pub keyring: Option<&'a Keyring>,
    /// Reads every row that can be opened, and compares them with the roots the lines name.
    pub rows: bool,
    /// Places that files were moved to, by the name that receipts have for them: what is not here must be there.
    pub elsewhere: Vec<(String, &'a dyn Place)>,
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
    let mut run =
        Run { root, place, trust, moved, report: Report::default(), vouched: BTreeSet::new(), away: BTreeMap::new() };
    let (mut checks, mut unnamed, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for chain in chains(root)? {
        run.report.gateways += 1;
        read.push(chain.gateway.clone());
        let Some(checked) = run.chain(&chain, &mut progress) else { continue };
        let has_lines = checked.check.lines() > 0;
        unnamed.push(Unnamed::new(&chain.gateway, checked.check.next_sequence(), chain.is_shipped() && has_lines));
        checks.push(checked);
    }
    run.receipts(&checks);
    let Run { mut report, vouched, .. } = run;
    let is_unread = |gateway: &str| !checks.iter().any(|checked| checked.check.gateway() == gateway);
    let sealed: Vec<&str> =
        checks.iter().filter(|checked| !checked.sealed.is_empty()).map(|checked| checked.check.gateway()).collect();
    let waiting = first::unsealed(root, |gateway| sealed.contains(&gateway)).map_err(failed(root))?;
    for one in waiting.iter().filter(|one| !read.contains(&one.gateway) || !is_unread(&one.gateway)) {
        let kind = if report.lines == 0 { Kind::Unsealed } else { Kind::Notice };
        report.add(
            kind,
            &format!("manifest/{}.jsonl", one.gateway),
            None,
            one.describe(trust.now_ns.unwrap_or(WallNs::MAX)),
        );
        if is_unread(&one.gateway) {
            unnamed.push(Unnamed::new(&one.gateway, 1, false));
        }
    }
    // One that is there and cannot be checked was said.
    for gateway in trust.pins.gateways().filter(|name| !read.iter().any(|gateway| gateway == *name)) {
        report.add(
            Kind::Damage,
            &format!("manifest/{gateway}.jsonl"),
            None,
            "is not there, though the gateway is named",
        );
    }
    if report.gateways == 0 && waiting.is_empty() {
        report.add(Kind::Damage, "manifest", None, "there is no manifest: nothing here can be proved");
    }
    outside::verify(root, place, trust, &checks, &mut report);
    find_extra_files(place, &vouched, &unnamed, &mut report).map_err(failed(root))?;
    Ok(report)
}

/// One verification.
struct Run<'a> {
    root: &'a Path,
    place: &'a dyn Place,
    trust: &'a Trust<'a>,
    moved: Moved,
    report: Report,
    /// Files that a line names by right.
    vouched: BTreeSet<String>,
    /// Files that receipts say are elsewhere, where nobody looked, by place.
    away: BTreeMap<String, usize>,
}

impl Run<'_> {
    /// Verifies one chain and its files. `None`: nothing says who signs it.
    fn chain(&mut self, chain: &Chain, progress: &mut impl FnMut(&Report)) -> Option<Checked> {
        let name = chain.name();
        if chain.is_twice {
            self.report.add(Kind::Damage, &name, None, TWICE);
        }
        let key = match chain.root(&self.trust.pins) {
            Ok(key) => key,
            Err(why) => {
                self.report.add(Kind::Damage, &name, None, why);
                return None;
            }
        };
        let text = match chain.read_finding(|what| self.report.add(Kind::Damage, &name, None, what)) {
            Ok(text) => text,
            Err(error) => {
                self.report.add(Kind::Damage, &name, None, format!("cannot be read: {error}"));
                return None;
            }
        };
        if text.is_empty() && self.trust.pins.names(&chain.gateway) {
            self.report.add(Kind::Damage, &name, None, EMPTY);
        }
        let trusted_until = self.trust.pins.until(&chain.gateway).map(|until| until.line);
        let beside = Beside { now_ns: self.trust.now_ns, trusted_until, policy: self.trust.policy.clone() };
        let mut check = ChainCheck::new(&chain.gateway, key, beside);
        let records = check_lines(&text, &mut check, |remark| self.report.remark(&name, remark));
        self.trust.pins.compare(&check).into_iter().for_each(|remark| self.report.remark(&name, remark));
        let mut timeline = Timeline::new(&chain.gateway);
        for (number, line) in &records {
            timeline.push(line);
            self.report.lines += 1;
            self.report.untrusted += usize::from(!check.is_trusted(*number as u64));
            self.files(line, &check);
            let state = check.ledger().files_of(line);
            let kept: Vec<&FileEntry> = line.files.iter().filter(|file| state(file) == FileState::Kept).collect();
            let files = || kept.iter().copied();
            verify_keys(self.root, self.place, files(), self.trust.keyring, &mut self.report);
            rows::verify(self.root, self.place, files(), self.trust, &mut self.report);
            index::verify(self.root, self.place, line, &kept, self.trust, &mut self.report);
            progress(&self.report);
        }
        self.report.unrecorded.extend(timeline.uncovered(Interval::ALWAYS, self.trust.now_ns));
        self.report.unrecorded.extend(timeline.unbalanced(Interval::ALWAYS));
        self.report.unrecorded.extend(timeline.untold(Interval::ALWAYS));
        let deletions = check.ledger().deletions().iter();
        self.report.deletions.extend(deletions.map(|deletion| (chain.gateway.clone(), deletion.clone())));
        let sealed = records.iter().map(|(line, segment)| (*line as u64, segment.sealed_ns)).collect();
        Some(Checked { check, sealed, is_shipped: chain.is_shipped() })
    }

    /// Compares the files of a line with what it says of them.
    fn files(&mut self, line: &Line, check: &ChainCheck) {
        let state = check.ledger().files_of(line);
        for file in &line.files {
            let state = state(file);
            // What is not the line's to name was said, and is not looked at.
            if state == FileState::Foreign || !self.vouched.insert(file.path.clone()) {
                continue;
            }
            let is_deleted = state == FileState::Deleted;
            match self.place.hash(&file.path) {
                Ok((sha256, bytes)) => {
                    self.report.files += 1;
                    self.report.bytes += bytes;
                    if bytes != file.bytes {
                        let what = format!("has {bytes} bytes, its line says {}", file.bytes);
                        self.report.add(Kind::Damage, &file.path, None, what);
                    } else if sha256 != file.sha256 {
                        self.report.add(Kind::Damage, &file.path, None, "its content was changed (SHA-256 differs)");
                    } else if is_deleted {
                        self.report.add(
                            Kind::Notice,
                            &file.path,
                            None,
                            "is there, though a line says that it is deleted",
                        );
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if is_deleted {
                        self.report.deleted += 1;
                    } else {
                        self.missing(line, file);
                    }
                }
                Err(error) => self.report.add(Kind::Damage, &file.path, None, format!("cannot be read: {error}")),
            }
        }
    }

    /// A file that is not here, and that no line deletes.
    fn missing(&mut self, line: &Line, file: &FileEntry) {
        let Some(to) = self.moved.to(&line.gateway, line.sequence) else {
            let what = format!("is missing (sequence {})", line.sequence);
            self.report.add(Kind::Damage, &file.path, None, what);
            return;
        };
        self.report.moved += 1;
        let Some((_, place)) =
            self.trust.elsewhere.iter().find(|(name, _)| name.trim_end_matches('/') == to.trim_end_matches('/'))
        else {
            *self.away.entry(to.to_owned()).or_default() += 1;
            return;
        };
        let what = match place.hash(&file.path) {
            Ok((sha256, bytes)) if sha256 == file.sha256 && bytes == file.bytes => {
                self.report.shown += 1;
                return;
            }
            Ok(_) => format!("was moved to {to}, and is another one there"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                format!("was moved to {to}, and is not there")
            }
            Err(error) => format!("was moved to {to}, and cannot be read there: {error}"),
        };
        self.report.add(Kind::Receipt, &file.path, None, what);
    }

    /// What receipts say beside what was looked for.
    fn receipts(&mut self, checks: &[Checked]) {
        for (to, count) in std::mem::take(&mut self.away) {
            let what = format!("says that {count} files are at {to}: verify them there, --moved-at {to}");
            self.report.add(Kind::Moved, RECEIPTS, None, what);
            self.report.moved_to.insert(to);
        }
        for (gateway, sequence, to) in self.moved.all() {
            let check = checks.iter().map(|checked| &checked.check).find(|check| check.gateway() == gateway);
            if check.is_none_or(|check| sequence == 0 || sequence >= check.next_sequence()) {
                let what = format!("says that sequence {sequence} of {gateway} is at {to}, and no chain here has it");
                self.report.add(Kind::Receipt, RECEIPTS, None, what);
            }
        }
    }
}

/// What findings about receipts name.
const RECEIPTS: &str = "shipped/moved.jsonl";

/// Checks the lines of one chain, and hands back those about segments.
fn check_lines(text: &[u8], check: &mut ChainCheck, mut find: impl FnMut(Remark)) -> Vec<(usize, Line)> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole != text.len() {
        let what = format!("the last line has no end ({} bytes)", text.len() - whole);
        find(Remark { line: None, severity: Severity::Damage, what });
    }
    let mut segments = Vec::new();
    let lines = text[..whole].strip_suffix(b"\n").into_iter().flat_map(|lines| lines.split(|byte| *byte == b'\n'));
    for (number, bytes) in (1..).zip(lines) {
        if let Some(Record::Segment(line)) = check.push(bytes, &mut find) {
            segments.push((number, line));
        }
    }
    check.finish(&mut find);
    segments
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod mutations;

#[cfg(test)]
mod tests {
    use std::fs;

    use hotspot_core::record::{CoverageRecord, Tallied};

    use super::*;
    use crate::manifest::{GatewayKey, Manifest, Sealing};
    use crate::segment::Origin;

    const BEGIN_NS: i64 = 1_795_392_000_000_000_000;
    const ROTATE_NS: i64 = 300_000_000_000;

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
        let opened_ns = BEGIN_NS + i64::try_from(sequence).unwrap() * ROTATE_NS;
        seal_from_to(manifest, sequence, opened_ns, opened_ns + ROTATE_NS);
    }

    fn seal_from_to(manifest: &mut Manifest, sequence: u64, opened_ns: i64, closed_ns: i64) {
        let coverage = [CoverageRecord {
            interface: "lan".into(),
            generation: sequence,
            seen: Tallied { packets: 1, bytes: 60 },
            flows: Tallied { packets: 1, bytes: 60 },
            ..CoverageRecord::default()
        }];
        let origin = Origin { site: "s".into(), gateway: "g".into(), sequence };
        let draft = manifest.draft(&origin, opened_ns).unwrap();
        let sealing = Sealing {
            closed_ns,
            sealed_ns: closed_ns + 10_000_000_000,
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

    /// A clock that creeps back by less than a second for each sequence: who writes states the step that who checks asks for.
    #[test]
    fn small_steps_back_that_add_up_are_stated_by_the_gateway_itself() {
        let dir = tempfile::tempdir().unwrap();
        let key = GatewayKey::open(&dir.path().join("keys/k")).unwrap();
        let mut manifest = Manifest::open(&dir.path().join("archive"), "g", key).unwrap();
        let mut ended_ns = BEGIN_NS + ROTATE_NS;
        seal_from_to(&mut manifest, 1, BEGIN_NS, ended_ns);
        for sequence in 2..=5 {
            let began_ns = ended_ns - 800_000_000;
            ended_ns = began_ns + 100_000_000;
            seal_from_to(&mut manifest, sequence, began_ns, ended_ns);
        }
        assert_eq!(check(&dir).verdict(), Verdict::Whole, "{:?}", check(&dir).findings);
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
        assert_eq!((report.moved, report.shown, report.files, report.verdict()), (1, 0, 2, Verdict::Moved));
        assert!(report.moved_to.contains("s3://b/p"));
        fs::remove_file(file(3)).unwrap();
        assert_eq!(check(&dir).verdict(), Verdict::Damaged, "another one is missing, and no receipt says where it is");
    }

    #[test]
    fn a_moved_file_is_there_as_its_line_says_or_the_receipt_is_worth_nothing() {
        let dir = archive(2);
        let root = dir.path().join("archive");
        let there = dir.path().join("there");
        let to = there.to_string_lossy().into_owned();
        let receipt =
            |sequence| crate::moved::Receipt { moved: 1, gateway: "g".into(), sequence, to: to.clone(), at_ns: 1 };
        crate::moved::record(&root, &receipt(2)).unwrap();
        let relative = "coverage/site=s/date=2026-11-23/g-0000000002.parquet";
        fs::create_dir_all(there.join(relative).parent().unwrap()).unwrap();
        fs::rename(root.join(relative), there.join(relative)).unwrap();
        let place = Here(there.clone());
        let look = || {
            let elsewhere: Vec<(String, &dyn Place)> = vec![(to.clone(), &place)];
            verify(&root, &Trust { elsewhere, ..Trust::default() }, |_| {}).unwrap()
        };
        assert_eq!((look().verdict(), look().shown), (Verdict::Whole, 1));
        let bytes = fs::read(there.join(relative)).unwrap();
        fs::write(there.join(relative), &bytes[1..]).unwrap();
        assert_eq!(look().verdict(), Verdict::Receipts, "another file is there");
        fs::remove_file(there.join(relative)).unwrap();
        assert_eq!(look().verdict(), Verdict::Receipts, "no file is there");
        fs::write(there.join(relative), &bytes).unwrap();
        crate::moved::record(&root, &receipt(9)).unwrap();
        assert_eq!(look().verdict(), Verdict::Receipts, "a receipt of what no chain has");
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
        let key = fs::read_to_string(theirs.path().join("archive/manifest/g.pub")).unwrap();
        assert!(
            !verify(
                &ours.path().join("archive"),
                &Trust { pins: Pins::parse(&key).unwrap(), ..Trust::default() },
                |_| {}
            )
            .unwrap()
            .is_whole()
        );
    }
}
