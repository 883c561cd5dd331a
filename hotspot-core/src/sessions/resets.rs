//! Resets: when a NAS came up or went down, so that none of its sessions from before goes on.

use std::collections::BTreeMap;

use super::{Session, insert};
use crate::WallNs;
use crate::fact::{IdentitySource, SessionFact};

/// By NAS, and of each by time.
#[derive(Clone, Debug, Default)]
pub(super) struct Resets {
    /// Those that name no NAS have the empty name.
    of: BTreeMap<IdentitySource, BTreeMap<String, Vec<SessionFact>>>,
}

impl Resets {
    pub(super) fn apply(&mut self, fact: SessionFact) {
        insert(self.of.entry(fact.source).or_default().entry(fact.nas.clone().unwrap_or_default()).or_default(), fact);
    }

    /// The first reset of a session's NAS after one moment and not after another: of the access point it is at, where both name one.
    pub(super) fn first_of(&self, life: &Session, after_ns: WallNs, until_ns: WallNs) -> Option<WallNs> {
        let attached = life.attachments.last().and_then(|attachment| attachment.ap_mac);
        let is_its =
            |reset: &&SessionFact| reset.ap_mac.is_none_or(|ap| attached.is_none_or(|attached| attached == ap));
        let resets = self.between(life.source, life.nas.as_ref(), after_ns, until_ns);
        resets.iter().find(is_its).map(|reset| reset.at_ns)
    }

    /// Whether the NAS of a report began anew between two moments.
    pub(super) fn any_of(&self, report: &SessionFact, after_ns: WallNs, until_ns: WallNs) -> bool {
        let resets = self.between(report.source, report.nas.as_ref(), after_ns, until_ns);
        resets.iter().any(|reset| reset.ap_mac.is_none() || report.ap_mac.is_none() || reset.ap_mac == report.ap_mac)
    }

    fn between(
        &self,
        source: IdentitySource,
        nas: Option<&String>,
        after_ns: WallNs,
        until_ns: WallNs,
    ) -> &[SessionFact] {
        let resets = self
            .of
            .get(&source)
            .and_then(|of| of.get(nas.map_or("", String::as_str)))
            .map_or([].as_slice(), Vec::as_slice);
        let from = resets.partition_point(|reset| reset.at_ns <= after_ns);
        let to = resets.partition_point(|reset| reset.at_ns <= until_ns);
        resets.get(from..to).unwrap_or_default()
    }

    pub(super) fn forget_before(&mut self, before_ns: WallNs) {
        for of in self.of.values_mut() {
            of.values_mut().for_each(|resets| resets.retain(|reset| reset.at_ns >= before_ns));
            of.retain(|_, resets| !resets.is_empty());
        }
    }

    pub(super) fn facts(&self) -> impl Iterator<Item = &SessionFact> {
        self.of.values().flat_map(BTreeMap::values).flatten()
    }
}
