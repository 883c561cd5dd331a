//! Translations that were there before anybody listened: their ends may not be reported, so they are looked for from time to time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use hotspot_core::WallNs;
use hotspot_core::fact::{NatEvent, NatFact};
use tracing::info;

/// How long to wait before the first look and between two.
const EVERY: Duration = Duration::from_secs(30);
/// A look may take a hundredth of the time.
const SHARE: u32 = 100;

pub(super) struct Silent {
    /// As facts of no time, so that they can be compared.
    known: HashSet<NatFact>,
    next: Instant,
    every: Duration,
}

impl Default for Silent {
    fn default() -> Self {
        Self { known: HashSet::new(), next: Instant::now() + EVERY, every: EVERY }
    }
}

impl Silent {
    pub(super) fn look_again_every(&mut self, every: Duration) {
        (self.every, self.next) = (every, Instant::now() + every);
    }

    /// What the first dump found.
    pub(super) fn begin(&mut self, found: impl IntoIterator<Item = NatFact>) {
        self.known = found.into_iter().map(without_time).collect();
        self.next = Instant::now() + self.every;
        if self.is_any() {
            info!(
                translations = self.known.len(),
                "they were there before this watch, and their ends may not be reported: looked for again until they are gone; \
                 sysctl net.netfilter.nf_conntrack_events=1, set before there is traffic, has all ends reported"
            );
        }
    }

    pub(super) fn is_any(&self) -> bool {
        !self.known.is_empty()
    }

    /// When to look again.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Waits longer the longer a look takes.
    pub(super) fn wait_for(&mut self, took: Duration) {
        self.next = Instant::now() + self.every.max(took * SHARE);
    }

    /// What a dump at `now_ns` says of those that are known: found, or missed. The missed ones are known no longer.
    pub(super) fn compare(&mut self, found: impl Iterator<Item = NatFact>, now_ns: WallNs) -> Vec<NatFact> {
        let mut missed = std::mem::take(&mut self.known);
        self.known = found.filter_map(|fact| missed.take(&without_time(fact))).collect();
        let at = |event| move |fact: &NatFact| NatFact { event, at_ns: now_ns, ..*fact };
        self.known.iter().map(at(NatEvent::Found)).chain(missed.iter().map(at(NatEvent::Missed))).collect()
    }
}

fn without_time(fact: NatFact) -> NatFact {
    NatFact { event: NatEvent::Found, at_ns: 0, ..fact }
}
