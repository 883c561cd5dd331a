//! Time from outside: what checkpoints, witnesses and time-stamping authorities say of the chains and audit logs that lie here.
//!
//! Every statement is compared with the chain; one that contradicts it is a finding, one that fits is an attestation. What lies in the archive itself
//! (`checkpoints/`) contradicts where the gateway signed it, and attests nothing: whoever wrote the archive wrote it too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use hotspot_core::WallNs;

use super::attestation::{Attestation, By, Standing, time};
use super::audit_logs::{judge_anchors, judge_heads, judge_sights, read_logs};
use super::{Kind, Report, Trust};
use crate::chain::{ChainCheck, Pins};
use crate::checkpoint::{SignedCheckpoint, parse_checkpoint};
use crate::checkpoints;
use crate::cosignature::{TreeHead, seen_at};
use crate::merkle::{Hash, Tree, leaf_hash};
use crate::note::{Note, VerifierKey};
use crate::place::Place;
use crate::regular;

/// What findings about checkpoints that were kept elsewhere name.
const CHECKPOINT: &str = "checkpoint";

/// A gap between a line and the first checkpoint that covers it is worth a notice from here on, where nobody asked for less.
const GAP_NS: i64 = 86_400_000_000_000;

/// What a time stamp says, once its signature and certificates were found to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// SHA-256 of what was stamped.
    pub imprint: [u8; 32],
    pub at_ns: WallNs,
    /// Who stamped, by the name in the certificate.
    pub authority: String,
}

/// Judges the bytes of a time stamp; what is wrong with it otherwise.
pub type StampCheck<'a> = dyn Fn(&[u8]) -> Result<Stamp, String> + 'a;

/// An audit log beside the archive's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLog {
    /// As the witness knows it.
    pub name: Option<String>,
    pub path: PathBuf,
}

/// What a verification is given from elsewhere, beside checkpoints.
#[derive(Default)]
pub struct Outside<'a> {
    /// Witnesses whose cosignatures count.
    pub witnesses: &'a [VerifierKey],
    /// Notes that were kept elsewhere, each with where it was found.
    pub notes: &'a [(String, Note)],
    /// Where something was kept among them that is no note: it cannot be compared.
    pub broken_notes: &'a [String],
    /// Judges time stamps; without it they are not looked at.
    pub stamps: Option<&'a StampCheck<'a>>,
    /// Time stamps that lie beside checkpoints kept elsewhere, by name.
    pub kept_stamps: &'a [(String, Vec<u8>)],
    /// How long lines may be without a checkpoint that somebody else has.
    pub gap_ns: Option<i64>,
    pub audit_logs: &'a [AuditLog],
}

/// A chain that was checked, and when its lines about segments were sealed.
pub(super) struct Checked {
    pub(super) check: ChainCheck,
    pub(super) sealed: Vec<(u64, WallNs)>,
    /// Whether it was shipped here: then the audit log stayed where it was.
    pub(super) is_shipped: bool,
}

/// Compares everything that is known from outside with the chains.
pub(super) fn verify(root: &Path, place: &dyn Place, trust: &Trust<'_>, chains: &[Checked], report: &mut Report) {
    let kept = read_kept(trust.checkpoints, report);
    let inside = read_inside(root, place, report);
    let checkpoints = || kept.iter().chain(inside.iter().map(|(_, _, kept)| kept));
    let heads: Vec<_> = trust.outside.notes.iter().filter_map(|(_, note)| TreeHead::parse(&note.text)).collect();
    let mut found = Found::new(chains);
    for chain in chains {
        let gateway = chain.check.gateway();
        let sizes = checkpoints().filter(|kept| kept.checkpoint.gateway == gateway).map(|kept| kept.checkpoint.line);
        let seen = heads.iter().filter(|head| head.gateway() == Some(gateway)).map(|head| head.size);
        found.learn_roots(&chain.check, sizes.chain(seen).collect());
    }
    for kept in &kept {
        found.judge_kept(kept, &trust.pins, report);
    }
    for (file, line, kept) in &inside {
        found.judge_inside(file, *line, kept, report);
    }
    let stamps = read_stamps(root, place, report);
    found.judge_stamps(&stamps, &trust.outside, &checkpoints().collect::<Vec<_>>(), report);
    for origin in trust.outside.broken_notes {
        report.add(Kind::Damage, origin, None, "is no note that can be read: what it says is not compared");
    }
    let logs = read_logs(root, trust.outside.audit_logs, report);
    let mut sights = BTreeMap::new();
    for (origin, note) in trust.outside.notes {
        match TreeHead::parse(&note.text) {
            None => report.add(Kind::Damage, origin, None, "holds a note that is no checkpoint"),
            Some(head) if head.audit_log().is_some() => {
                let at = attested(origin, note, trust.outside.witnesses, report);
                sights
                    .entry(head.origin.clone())
                    .or_insert_with(Vec::new)
                    .extend(at.map(|(at_ns, by)| (head.clone(), at_ns, by)));
            }
            Some(head) => found.judge_note(origin, note, &head, trust.outside.witnesses, report),
        }
    }
    let mut standings = found.standings(chains);
    judge_gaps(chains, &standings, trust.outside.gap_ns, report);
    judge_times(chains, &standings, report);
    judge_heads(&logs, &checkpoints().collect::<Vec<_>>(), chains, report);
    let of_logs = judge_sights(&logs, &sights, report);
    let stamped = inside.iter().map(|(_, _, kept)| kept).filter(|kept| is_stamped(&standings, kept));
    judge_anchors(&logs, &kept.iter().chain(stamped).collect::<Vec<_>>(), &of_logs, report);
    standings.extend(of_logs);
    report.standings = standings;
}

/// Whether an authority vouches for a checkpoint.
fn is_stamped(standings: &[Standing], kept: &SignedCheckpoint) -> bool {
    let standing = standings.iter().find(|standing| standing.of == kept.checkpoint.gateway);
    standing.is_some_and(|standing| {
        let mut of_line = standing.attestations.iter().filter(|one| one.line == kept.checkpoint.line);
        of_line.any(|one| matches!(one.by, By::Authority(_)))
    })
}

/// The checkpoints of texts that were kept elsewhere.
fn read_kept(lines: &[String], report: &mut Report) -> Vec<SignedCheckpoint> {
    let mut kept = Vec::new();
    for text in lines.iter().filter(|text| !text.trim().is_empty()) {
        if let Some(checkpoint) = parse_checkpoint(text) {
            kept.push(checkpoint);
        } else {
            let start: String = text.chars().take(80).collect();
            report.add(Kind::Damage, CHECKPOINT, None, format!("no checkpoint is in {start:?}"));
        }
    }
    report.checkpoints += kept.len();
    kept
}

/// The checkpoints that lie in the archive, each with its file and its line there.
fn read_inside(root: &Path, place: &dyn Place, report: &mut Report) -> Vec<(String, usize, SignedCheckpoint)> {
    let mut inside = Vec::new();
    for file in list(place, report) {
        let Some(gateway) = checkpoints::gateway_of(&file) else { continue };
        let lines = place.bring(&file, None).and_then(|()| checkpoints::read(root, gateway));
        place.release(&file);
        match lines {
            Err(error) => report.add(Kind::Damage, &file, None, format!("cannot be read: {error}")),
            Ok(lines) => {
                for (at, line) in lines.iter().enumerate() {
                    match parse_checkpoint(line) {
                        Some(kept) => inside.push((file.clone(), at + 1, kept)),
                        None => report.add(Kind::Notice, &file, None, format!("line {} is no checkpoint", at + 1)),
                    }
                }
            }
        }
    }
    inside
}

/// The time stamps that lie in the archive.
fn read_stamps(root: &Path, place: &dyn Place, report: &mut Report) -> Vec<(String, Vec<u8>)> {
    let mut stamps = Vec::new();
    let is_stamp = |file: &String| file.strip_suffix(".tsr").is_some();
    for file in list(place, report).into_iter().filter(is_stamp) {
        let bytes = place.bring(&file, None).and_then(|()| regular::read(root, &file, regular::SMALL_BYTES_MAX));
        place.release(&file);
        match bytes {
            Ok(bytes) => stamps.push((file, bytes)),
            Err(error) => report.add(Kind::Damage, &file, None, format!("cannot be read: {error}")),
        }
    }
    stamps
}

fn list(place: &dyn Place, report: &mut Report) -> Vec<String> {
    place.list(checkpoints::DIRECTORY).unwrap_or_else(|error| {
        report.add(Kind::Damage, checkpoints::DIRECTORY, None, format!("cannot be read: {error}"));
        Vec::new()
    })
}

/// What it is where a chain is otherwise than it was with so many lines.
fn kind(check: &ChainCheck, line: u64) -> Kind {
    if line > check.lines() { Kind::Cut } else { Kind::Damage }
}

/// The name of a chain's file, as findings have it.
fn chain_name(gateway: &str) -> String {
    format!("manifest/{gateway}.jsonl")
}

/// When trusted witnesses saw the head of a note, and who. Nothing where none did.
fn attested<'a>(
    origin: &str,
    note: &Note,
    witnesses: &'a [VerifierKey],
    report: &mut Report,
) -> impl Iterator<Item = (WallNs, By)> + use<'a> {
    let mut seen = Vec::new();
    for witness in witnesses {
        match seen_at(note, witness) {
            None => {}
            Some(Ok(seconds)) => {
                let at_ns = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
                seen.push((at_ns, By::Witness(witness.name.clone())));
            }
            Some(Err(error)) => report.add(Kind::Damage, origin, None, format!("witness {}: {error}", witness.name)),
        }
    }
    if seen.is_empty() {
        let what = "holds a note that no witness given with --witness has signed: it proves nothing here";
        if !report.findings.iter().any(|finding| finding.file == origin && finding.what == what) {
            report.add(Kind::Notice, origin, None, what.to_owned());
        }
    }
    seen.into_iter()
}

/// What was found out about the chains.
struct Found<'a> {
    checks: HashMap<&'a str, &'a ChainCheck>,
    /// Roots of the trees of so many lines.
    roots: HashMap<(String, u64), Hash>,
    attestations: HashMap<String, Vec<Attestation>>,
}

impl<'a> Found<'a> {
    fn new(chains: &'a [Checked]) -> Self {
        let checks = chains.iter().map(|chain| (chain.check.gateway(), &chain.check)).collect();
        Self { checks, roots: HashMap::new(), attestations: HashMap::new() }
    }

    /// One pass over a chain for all sizes that are asked for.
    fn learn_roots(&mut self, check: &ChainCheck, sizes: BTreeSet<u64>) {
        let mut tree = Tree::default();
        for size in sizes.into_iter().filter(|size| *size <= check.lines()) {
            while tree.len() < size {
                let Some(hash) = check.hash(tree.len() + 1) else { break };
                tree.push(leaf_hash(hash));
            }
            self.roots.insert((check.gateway().to_owned(), size), tree.root());
        }
    }

    fn root(&self, gateway: &str, size: u64) -> Option<&Hash> {
        self.roots.get(&(gateway.to_owned(), size))
    }

    fn attest(&mut self, gateway: &str, line: u64, at_ns: WallNs, by: By) {
        self.attestations.entry(gateway.to_owned()).or_default().push(Attestation { line, at_ns, by });
    }

    /// What a checkpoint contradicts.
    fn contradiction(&self, check: &ChainCheck, kept: &SignedCheckpoint) -> Option<String> {
        check.compare(kept).or_else(|| {
            let (head, _) = kept.note()?;
            let is_ours = self.root(check.gateway(), head.size) == Some(&head.root);
            (!is_ours)
                .then(|| format!("the root of line {} is not the chain's: lines up to it were changed", head.size))
        })
    }

    /// A checkpoint that was kept elsewhere.
    fn judge_kept(&mut self, kept: &SignedCheckpoint, pins: &Pins, report: &mut Report) {
        let (gateway, line) = (kept.checkpoint.gateway.as_str(), kept.checkpoint.line);
        let name = chain_name(gateway);
        let Some(check) = self.checks.get(gateway) else {
            // Of the first epoch, where its key is pinned. Else nothing tells a checkpoint from what somebody wrote into the log.
            match pins.key_of(gateway) {
                Ok(Some(key)) if kept.is_signed_by(&key) => {
                    report.add(Kind::Cut, &name, None, "a checkpoint was made of this chain, and there is none");
                }
                Ok(_) | Err(_) => {
                    let what =
                        format!("a checkpoint names gateway {gateway}, which has no chain here to say who signed it");
                    report.add(Kind::Damage, CHECKPOINT, None, what);
                }
            }
            return;
        };
        if !check.is_signed_here(kept) {
            let what = if check.has_key(&kept.checkpoint.key) {
                format!(
                    "the checkpoint of line {line} of {gateway} is not signed by its key: it is not the gateway's, or was changed"
                )
            } else {
                format!(
                    "the checkpoint of line {line} of {gateway} is not signed by its key: no line of the chain names that key. It is not the \
                         gateway's, or the end of the chain was cut off with an epoch"
                )
            };
            report.add(Kind::Damage, CHECKPOINT, None, what);
            return;
        }
        match self.contradiction(check, kept) {
            Some(what) => report.add(kind(check, line), &name, usize::try_from(line).ok(), what),
            None => self.attest(gateway, line, kept.checkpoint.at_ns, By::Gateway),
        }
    }

    /// A checkpoint that lies in the archive: evidence against the chain where a key of the gateway signed it, and never for it.
    fn judge_inside(&mut self, file: &str, at: usize, kept: &SignedCheckpoint, report: &mut Report) {
        let Some(check) = self.checks.get(kept.checkpoint.gateway.as_str()) else {
            report.add(
                Kind::Notice,
                file,
                None,
                format!("line {at} is of gateway {}, which has no chain here", kept.checkpoint.gateway),
            );
            return;
        };
        if let Some(what) = self.contradiction(check, kept) {
            if check.is_signed_here(kept) {
                let line = usize::try_from(kept.checkpoint.line).ok();
                let kind = kind(check, kept.checkpoint.line);
                report.add(kind, &chain_name(check.gateway()), line, format!("{what} ({file}, line {at})"));
            } else {
                report.add(Kind::Notice, file, None, format!("line {at} is not signed by the gateway"));
            }
        }
    }

    fn judge_note(&mut self, from: &str, note: &Note, head: &TreeHead, trusted: &[VerifierKey], report: &mut Report) {
        let seen: Vec<_> = attested(from, note, trusted, report).collect();
        let Some(gateway) = head.gateway() else {
            report.add(
                Kind::Notice,
                from,
                None,
                format!("holds a note about {}, which is no chain of a gateway", head.origin),
            );
            return;
        };
        let name = chain_name(gateway);
        for (at_ns, by) in seen {
            let who = format!("{} {} at {}", by.word(), by.name().unwrap_or_default(), time(at_ns));
            let Some(check) = self.checks.get(gateway) else {
                report.add(Kind::Cut, &name, None, format!("was seen by {who}, and is not there"));
                continue;
            };
            let (lines, size) = (check.lines(), head.size);
            if size > lines {
                let what = format!(
                    "ends at line {lines}, but had {size} lines when it was seen by {who}: its end was cut off"
                );
                report.add(Kind::Cut, &name, None, what);
            } else if self.root(gateway, size) == Some(&head.root) {
                self.attest(gateway, size, at_ns, by);
            } else {
                let what = format!("is not the chain that was seen by {who}: lines up to {size} were changed");
                report.add(Kind::Damage, &name, usize::try_from(size).ok(), what);
            }
        }
    }

    fn judge_stamps(
        &mut self,
        inside: &[(String, Vec<u8>)],
        outside: &Outside<'_>,
        checkpoints: &[&SignedCheckpoint],
        report: &mut Report,
    ) {
        let all: Vec<_> = inside.iter().chain(outside.kept_stamps).collect();
        let Some(judge) = outside.stamps else {
            if !all.is_empty() {
                let what = format!("{} time stamps were not looked at: name their authority with --tsa-ca", all.len());
                report.add(Kind::Notice, checkpoints::DIRECTORY, None, what);
            }
            return;
        };
        let by_imprint: HashMap<[u8; 32], &SignedCheckpoint> =
            checkpoints.iter().map(|kept| (kept.imprint(), *kept)).collect();
        for (file, bytes) in all {
            let stamp = match judge(bytes) {
                Ok(stamp) => stamp,
                Err(what) => {
                    report.add(Kind::Damage, file, None, what);
                    continue;
                }
            };
            let Some(kept) = by_imprint.get(&stamp.imprint) else {
                report.add(
                    Kind::Damage,
                    file,
                    None,
                    "is the time stamp of something else than the checkpoints that are here",
                );
                continue;
            };
            let (gateway, line) = (kept.checkpoint.gateway.clone(), kept.checkpoint.line);
            let Some(check) = self.checks.get(gateway.as_str()) else { continue };
            match self.contradiction(check, kept) {
                None => self.attest(&gateway, line, stamp.at_ns, By::Authority(stamp.authority)),
                Some(what) => {
                    let (who, at) = (&stamp.authority, time(stamp.at_ns));
                    let what = format!("{what} (a checkpoint that {who} stamped at {at}, {file})");
                    report.add(kind(check, line), &chain_name(&gateway), usize::try_from(line).ok(), what);
                }
            }
        }
    }

    fn standings(&mut self, chains: &[Checked]) -> Vec<Standing> {
        let standing = |chain: &Checked| {
            let gateway = chain.check.gateway();
            Standing::new(gateway, chain.check.lines(), self.attestations.remove(gateway).unwrap_or_default())
        };
        chains.iter().map(standing).collect()
    }
}

/// Lines that were long without a checkpoint that somebody else has: in that time they could be written again unnoticed.
fn judge_gaps(chains: &[Checked], standings: &[Standing], asked_ns: Option<i64>, report: &mut Report) {
    let longest_ns = asked_ns.unwrap_or(GAP_NS);
    for (chain, standing) in chains.iter().zip(standings) {
        if standing.attestations.is_empty() && asked_ns.is_none() {
            continue;
        }
        let newest_ns = chain.sealed.iter().map(|(_, at_ns)| *at_ns).max().unwrap_or(0);
        // The first that covers a line: by line, so each is looked at once.
        let mut covering = standing.attestations.iter().peekable();
        let mut gaps: Vec<Gap> = Vec::new();
        for (line, sealed_ns) in &chain.sealed {
            while covering.next_if(|one| one.line < *line).is_some() {}
            let (until_ns, covered_by) = covering.peek().map_or((newest_ns, None), |one| (one.at_ns, Some(one.line)));
            let length_ns = until_ns.saturating_sub(*sealed_ns);
            if length_ns > longest_ns && gaps.last().is_none_or(|gap| gap.covered_by != covered_by) {
                gaps.push(Gap { line: *line, sealed_ns: *sealed_ns, length_ns, covered_by });
            }
        }
        let Some(longest) = gaps.iter().max_by_key(|gap| gap.length_ns) else { continue };
        let kind = if asked_ns.is_some() { Kind::Doubt } else { Kind::Notice };
        let line = usize::try_from(longest.line).ok();
        report.add(kind, &chain_name(chain.check.gateway()), line, longest.text(gaps.len()));
    }
}

/// Lines that say they were written after somebody else had seen them: the gateway's clock was wrong, or it lied to make time pass. What such
/// a line deletes was not over.
fn judge_times(chains: &[Checked], standings: &[Standing], report: &mut Report) {
    for (chain, standing) in chains.iter().zip(standings) {
        let deletions = chain.check.ledger().deletions().iter().filter(|deletion| deletion.right > 0);
        let deleted: Vec<_> = deletions.map(|deletion| (deletion.line, deletion.at_ns)).collect();
        for (kind, written) in [(Kind::Damage, &deleted), (Kind::Doubt, &chain.sealed)] {
            let Some((line, seen)) = standing.from_the_future(written) else { continue };
            let what = format!(
                "was written later than {} by its own word, when {} had seen it",
                time(seen.at_ns),
                seen.by.phrase()
            );
            report.add(kind, &chain_name(chain.check.gateway()), usize::try_from(line).ok(), what);
        }
    }
}

/// Lines without a checkpoint that somebody else has.
struct Gap {
    /// The first of them.
    line: u64,
    sealed_ns: WallNs,
    length_ns: i64,
    /// The line of the first checkpoint that covers them.
    covered_by: Option<u64>,
}

impl Gap {
    /// `count`: gaps there are of this chain.
    fn text(&self, count: usize) -> String {
        let until = self.covered_by.map_or("the end".to_owned(), |line| format!("that of line {line}"));
        let others = if count > 1 { format!(" (the longest of {count} gaps)") } else { String::new() };
        let (hours, from) = (self.length_ns / 3_600_000_000_000, time(self.sealed_ns));
        format!(
            "no checkpoint for {hours} h, from {from} until {until}{others}: in that time the lines between could be written again"
        )
    }
}
