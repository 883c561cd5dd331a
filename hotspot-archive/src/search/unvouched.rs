//! Flows that lie there of gateways without a chain: no search may pass them over in silence.
//!
//! One listing of names, and nothing of a file is read. Where every gateway has a line, that is all.

use std::collections::BTreeMap;
use std::path::Path;

use crate::layout::{Class, FileName};
use crate::pieces::{ReadChain, chains, gateway_of};
use crate::place::Place;

/// In words, the gateways whose flows lie there and that have no line.
pub(super) fn find(root: &Path, place: &dyn Place, read: &[ReadChain]) -> Vec<String> {
    let files = match place.list(Class::Flows.label()) {
        Ok(files) => files,
        Err(error) => return vec![format!("{}: cannot be listed: {error}", Class::Flows.label())],
    };
    let has_lines = |gateway: &str| read.iter().any(|chain| chain.gateway == gateway && chain.believed.len > 0);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut last_known = String::new();
    for path in &files {
        let name = path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name);
        let Some((gateway, _)) = name.rsplit_once('-') else { continue };
        if gateway == last_known {
            continue;
        }
        if has_lines(gateway) {
            gateway.clone_into(&mut last_known);
        } else if let Some(file) = FileName::parse(path) {
            // The first sequence has files before it has a line.
            let is_beginning = file.sequence == 1 && read.iter().any(|chain| chain.gateway == file.gateway);
            *counts.entry(file.gateway).or_default() += usize::from(!is_beginning);
        }
    }
    counts.retain(|_, count| *count > 0);
    if counts.is_empty() {
        return Vec::new();
    }
    // Chains that were not asked for were not brought; those that cannot be read were said.
    let mut others: Vec<String> = chains(root).unwrap_or_default().into_iter().map(|chain| chain.gateway).collect();
    others.retain(|gateway| !read.iter().any(|chain| chain.gateway == *gateway));
    for path in place.list("manifest").unwrap_or_default() {
        let name = path.strip_prefix("manifest/").unwrap_or(&path);
        let (name, is_piece) = name.split_once('/').map_or((name, false), |(name, _)| (name, true));
        let gateway = if is_piece { gateway_of(name) } else { name.strip_suffix(".jsonl") };
        others.extend(gateway.filter(|gateway| !read.iter().any(|chain| chain.gateway == *gateway)).map(str::to_owned));
    }
    counts.retain(|gateway, _| !others.contains(gateway));
    let say = |(gateway, count)| {
        format!("{count} files of flows of gateway {gateway}, which has no line here to vouch for them")
    };
    counts.into_iter().map(say).collect()
}
