//! Audit logs against what is known of them from elsewhere: the heads in checkpoints, and what witnesses saw.
//!
//! A log has no key, so its own chain shows every change but of its end. A head that somebody else has shows the end too.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use hotspot_core::WallNs;

use super::attestation::{Attestation, By, Standing, time};
use super::outside::{AuditLog, Checked};
use super::{Kind, Report};
use crate::audit;
use crate::checkpoint::SignedCheckpoint;
use crate::cosignature::TreeHead;
use crate::manifest::to_hex;
use crate::merkle::{Tree, leaf_hash};

/// An audit log that was read.
pub(super) struct Log {
    name: Option<String>,
    shown: String,
    hashes: Vec<[u8; 32]>,
    /// Whether it is the archive's own.
    is_own: bool,
}

impl Log {
    /// Whether a log of so many lines, the last with this hash, is a beginning of it.
    fn begins_with(&self, head: &audit::Head) -> bool {
        let last = usize::try_from(head.lines).ok().and_then(|lines| self.hashes.get(lines.checked_sub(1)?));
        last.is_some_and(|hash| to_hex(hash) == head.hash)
    }
}

/// Checks the chains of the audit logs; the archive's own need not be there.
pub(super) fn read_logs(root: &Path, named: &[AuditLog], report: &mut Report) -> Vec<Log> {
    let own = audit::default_path(root);
    let is_own = |path: &Path| path.canonicalize().is_ok_and(|path| own.canonicalize().is_ok_and(|own| own == path));
    let is_named = named.iter().any(|log| is_own(&log.path));
    let unnamed = (!is_named).then(|| (None, own.clone(), "audit/queries.jsonl".to_owned(), true));
    let named =
        named.iter().map(|log| (log.name.clone(), log.path.clone(), log.path.display().to_string(), is_own(&log.path)));
    let mut logs = Vec::new();
    for (name, path, shown, is_own) in unnamed.into_iter().chain(named) {
        match audit::check_lines(&path) {
            Ok((hashes, breaks)) => {
                for found in breaks {
                    let kind = if found.is_notice { Kind::Notice } else { Kind::Damage };
                    report.add(kind, &shown, Some(found.line), found.what);
                }
                logs.push(Log { name, shown, hashes, is_own });
            }
            Err(error) if is_own && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => report.add(Kind::Damage, &shown, None, format!("cannot be read: {error}")),
        }
    }
    logs
}

/// Compares audit logs with how far checkpoints say the archive's own was.
pub(super) fn judge_heads(logs: &[Log], checkpoints: &[&SignedCheckpoint], chains: &[Checked], report: &mut Report) {
    let is_ours = |kept: &&&SignedCheckpoint| {
        let check = chains.iter().find(|chain| chain.check.gateway() == kept.checkpoint.gateway);
        check.is_some_and(|chain| chain.check.is_signed_here(kept))
    };
    let signed: Vec<_> = checkpoints.iter().filter(is_ours).collect();
    let own = logs.iter().find(|log| log.is_own);
    let name = "audit/queries.jsonl";
    let mut said = BTreeSet::new();
    for kept in &signed {
        let Some(noted) = &kept.checkpoint.audit else { continue };
        if logs.iter().any(|log| log.begins_with(noted)) || !said.insert(noted.lines) {
            continue;
        }
        let (had, line) = (noted.lines, kept.checkpoint.line);
        match own {
            None if logs.is_empty() => {
                let is_here =
                    chains.iter().any(|chain| chain.check.gateway() == kept.checkpoint.gateway && !chain.is_shipped);
                let what = format!("is not here, but had {had} lines when the checkpoint of line {line} was made");
                report.add(if is_here { Kind::Cut } else { Kind::Notice }, name, None, what);
            }
            _ => {
                let log = own.or(logs.first());
                let has = log.map_or(0, |log| log.hashes.len() as u64);
                let what = if has < had {
                    format!(
                        "has {has} lines, but had {had} when the checkpoint of line {line} was made: its end was cut off"
                    )
                } else {
                    format!("line {had} is not the one that was there when the checkpoint of line {line} was made")
                };
                let kind = if has < had { Kind::Cut } else { Kind::Damage };
                report.add(kind, log.map_or(name, |log| log.shown.as_str()), None, what);
            }
        }
    }
}

/// Logs of which nobody outside knows how far they were. `anchors`: checkpoints that somebody else has, or has stamped.
pub(super) fn judge_anchors(logs: &[Log], anchors: &[&SignedCheckpoint], standings: &[Standing], report: &mut Report) {
    for log in logs.iter().filter(|log| !log.hashes.is_empty()) {
        let heads = anchors.iter().filter_map(|kept| kept.checkpoint.audit.as_ref());
        let is_seen = standings.iter().any(|standing| standing.of == log.shown && !standing.attestations.is_empty());
        if !is_seen && !heads.into_iter().any(|head| log.begins_with(head)) {
            let what = format!(
                "has {} lines, and nobody else has its head: what is cut off its end is not noticed",
                log.hashes.len()
            );
            report.add(Kind::Unanchored, &log.shown, None, what);
        }
    }
}

/// What witnesses saw of audit logs, by origin.
pub(super) type Sights = BTreeMap<String, Vec<(TreeHead, WallNs, By)>>;

/// Compares audit logs with what witnesses saw of them. A log without a name is the one that an earlier sight fits.
pub(super) fn judge_sights(logs: &[Log], seen: &Sights, report: &mut Report) -> Vec<Standing> {
    let mut standings = Vec::new();
    for (origin, sights) in seen {
        let name = sights.first().and_then(|(head, ..)| head.audit_log()).unwrap_or_default();
        let fits = |log: &Log, head: &TreeHead| {
            let hashes = usize::try_from(head.size).ok().and_then(|size| log.hashes.get(..size));
            hashes.is_some_and(|hashes| {
                let mut tree = Tree::default();
                hashes.iter().for_each(|hash| tree.push(leaf_hash(hash)));
                tree.root() == head.root
            })
        };
        let named = logs.iter().find(|log| log.name.as_deref() == Some(name));
        let log = named.or_else(|| logs.iter().find(|log| sights.iter().any(|(head, ..)| fits(log, head))));
        let Some(log) = log else {
            let what = format!(
                "was seen by a witness, and none of the audit logs here is it; name it with --audit {name}=FILE"
            );
            report.add(Kind::Notice, origin, None, what);
            continue;
        };
        let mut attestations = Vec::new();
        for (head, at_ns, by) in sights {
            if fits(log, head) {
                attestations.push(Attestation { line: head.size, at_ns: *at_ns, by: by.clone() });
                continue;
            }
            let (has, had) = (log.hashes.len() as u64, head.size);
            let who = format!("{} {} at {}", by.word(), by.name().unwrap_or_default(), time(*at_ns));
            let what = if has < had {
                format!("has {has} lines, but had {had} when it was seen by {who}: its end was cut off")
            } else {
                format!("is not the log that was seen by {who}: lines up to {had} were changed")
            };
            report.add(if has < had { Kind::Cut } else { Kind::Damage }, &log.shown, None, what);
        }
        standings.push(Standing::new(&log.shown, log.hashes.len() as u64, attestations));
    }
    standings
}
