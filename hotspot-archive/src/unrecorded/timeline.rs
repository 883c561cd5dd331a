//! What of the time a gateway recorded, by the lines of its chain alone.
//!
//! Each sequence has its interval, and says how far the clock was set before it. What lies between two sequences that follow each other is a
//! hole, whatever ended the first: the agents of a gateway let their sequences adjoin exactly where counting went on. Where a clock was set
//! back the labels of two sequences overlap; whether there was a hole then is told by the boot clock.

use std::collections::BTreeSet;

use hotspot_core::WallNs;

use super::{Unrecorded, Why};
use crate::elapsed::ClockEvidence;
use crate::manifest::Line;
use crate::search::Interval;

/// How far two sequences may be apart without a hole: agents of early versions took some milliseconds from one journal to the
/// next. What is shorter and yet a hole, agents state in a coverage row.
pub const ADJOIN_NS: WallNs = 1_000_000_000;

/// The intervals of a gateway's sequences, in the order of its chain.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    gateway: String,
    sites: BTreeSet<String>,
    /// The earliest beginning of a sequence.
    first_ns: Option<WallNs>,
    last: Option<Last>,
    holes: Vec<Unrecorded>,
    stated: Vec<Stated>,
}

/// The sequence before the next.
#[derive(Clone, Debug)]
struct Last {
    sequence: u64,
    to_ns: WallNs,
    sealed_ns: WallNs,
    clock: Option<ClockEvidence>,
}

/// A sequence that says of itself that something is missing.
#[derive(Clone, Debug)]
struct Stated {
    from_ns: WallNs,
    to_ns: WallNs,
    sequence: u64,
    rows: u64,
    is_balanced: bool,
}

impl Timeline {
    #[must_use]
    pub fn new(gateway: &str) -> Self {
        Self { gateway: gateway.to_owned(), ..Self::default() }
    }

    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Where it stood; empty where nothing was sealed.
    #[must_use]
    pub fn sites(&self) -> &BTreeSet<String> {
        &self.sites
    }

    /// Until when something is sealed.
    #[must_use]
    pub fn last_ns(&self) -> Option<WallNs> {
        self.last.as_ref().map(|last| last.to_ns)
    }

    /// Takes the next sequence of the chain.
    pub fn push(&mut self, line: &Line) {
        if let Some(last) = &self.last
            && let Some((from_ns, to_ns, why)) = hole(last, line)
        {
            self.holes.push(Unrecorded { from_ns, to_ns, gateway: self.gateway.clone(), why });
        }
        if !self.sites.contains(&line.site) {
            self.sites.insert(line.site.clone());
        }
        self.first_ns = Some(self.first_ns.map_or(line.from_ns, |first_ns| first_ns.min(line.from_ns)));
        let (sequence, to_ns) = (line.sequence, line.to_ns);
        self.last = Some(Last { sequence, to_ns, sealed_ns: line.sealed_ns, clock: line.clock.clone() });
        let (rows, is_balanced) = (line.coverage.gaps, line.coverage.balanced);
        if rows > 0 || !is_balanced {
            self.stated.push(Stated { from_ns: line.from_ns, to_ns, sequence, rows, is_balanced });
        }
    }

    /// What of an interval no sequence covers. `now_ns`: nobody asks for later times, and where the end is open, up to then.
    #[must_use]
    pub fn uncovered(&self, interval: Interval, now_ns: Option<WallNs>) -> Vec<Unrecorded> {
        let Interval { from_ns, .. } = interval;
        // Without a clock an open end asks for what there is.
        let asked_to_ns = end(interval, now_ns);
        let to_ns = asked_to_ns.unwrap_or(WallNs::MAX);
        let of = |from_ns, to_ns, why| Unrecorded { from_ns, to_ns, gateway: self.gateway.clone(), why };
        let (Some(first_ns), Some(last)) = (self.first_ns, &self.last) else {
            return vec![of(from_ns, to_ns, Why::NotSealed)];
        };
        let mut uncovered = Vec::new();
        if from_ns != WallNs::MIN && from_ns < first_ns {
            uncovered.push(of(from_ns, first_ns.min(to_ns), Why::NotYet));
        }
        let asked = Interval { from_ns, to_ns };
        uncovered.extend(self.holes.iter().filter(|hole| asked.touches(hole.from_ns, hole.to_ns)).cloned());
        // The end of an interval is not in it, that of a sequence is.
        if asked_to_ns.is_some() && to_ns > last.to_ns.saturating_add(1) {
            uncovered.push(of(last.to_ns.max(from_ns), to_ns, Why::NotSealed));
        }
        uncovered
    }

    /// Sequences in an interval in which packets seen are not packets accounted for.
    pub fn unbalanced(&self, interval: Interval) -> impl Iterator<Item = Unrecorded> {
        let unbalanced = self.stated.iter().filter(move |line| !line.is_balanced && line.is_in(interval));
        unbalanced.map(|line| self.of(line, Why::Unbalanced { sequence: line.sequence }))
    }

    /// Sequences in an interval that have coverage rows of what is missing.
    pub fn untold(&self, interval: Interval) -> impl Iterator<Item = Unrecorded> {
        let untold = self.stated.iter().filter(move |line| line.rows > 0 && line.is_in(interval));
        untold.map(|line| self.of(line, Why::Untold { sequence: line.sequence, rows: line.rows }))
    }

    fn of(&self, line: &Stated, why: Why) -> Unrecorded {
        Unrecorded { from_ns: line.from_ns, to_ns: line.to_ns, gateway: self.gateway.clone(), why }
    }
}

impl Stated {
    fn is_in(&self, interval: Interval) -> bool {
        interval.touches(self.from_ns, self.to_ns)
    }
}

/// Until when is asked; `None` where nothing says it.
fn end(interval: Interval, now_ns: Option<WallNs>) -> Option<WallNs> {
    match now_ns {
        // All of it lies in the future.
        Some(now_ns) if interval.from_ns >= now_ns => Some(interval.to_ns),
        Some(now_ns) => Some(interval.to_ns.min(now_ns)),
        None => (interval.to_ns != WallNs::MAX).then_some(interval.to_ns),
    }
}

/// What was not recorded, or has other times, between a sequence and the one that follows it.
fn hole(last: &Last, line: &Line) -> Option<(WallNs, WallNs, Why)> {
    let (before, after) = (last.sequence, line.sequence);
    let away_ns = line.from_ns.saturating_sub(last.to_ns);
    let step_ns = line.clock_step_ns.unwrap_or(0);
    let idle = idle_ns(last, line);
    if away_ns > ADJOIN_NS {
        if step_ns >= away_ns.saturating_sub(ADJOIN_NS) {
            return Some((last.to_ns, line.from_ns, Why::ClockSet { before, after, step_ns }));
        }
        // Longer than it looks where the clock was set back meanwhile.
        let since_ns = line.from_ns.saturating_sub(idle.unwrap_or(0));
        let from_ns = if since_ns < last.to_ns.saturating_sub(ADJOIN_NS) { since_ns } else { last.to_ns };
        return Some((from_ns, line.from_ns, Why::Between { before, after }));
    }
    // A running agent left no hole, however the clock was set; another did, also where the times look as if it had not.
    if let Some(idle_ns) = idle {
        let from_ns = line.from_ns.saturating_sub(idle_ns);
        return (idle_ns > ADJOIN_NS).then_some((from_ns, line.from_ns, Why::Between { before, after }));
    }
    if step_ns >= -ADJOIN_NS && away_ns >= -ADJOIN_NS {
        return None;
    }
    let why = Why::ClockSet { before, after, step_ns: step_ns.min(away_ns) };
    let to_ns = line.from_ns.max(last.to_ns);
    let from_ns = match (&last.clock, &line.clock) {
        // How long the machine was down is not known; it did not record while it was up before this.
        (Some(then), Some(now)) if then.boot != now.boot => line.from_ns.saturating_sub(began_ns(line, now).max(0)),
        // Lines of early versions, and of a clock that was set back once more.
        (Some(_) | None, Some(_) | None) => line.from_ns.min(last.to_ns),
    };
    Some((from_ns, to_ns, why))
}

/// When a sequence began, by the boot clock.
fn began_ns(line: &Line, clock: &ClockEvidence) -> i64 {
    clock.boottime_ns.saturating_sub(line.sealed_ns.saturating_sub(line.from_ns))
}

/// How long nothing was recorded before a sequence, by the clock of their boot; 0 where one was begun before the other was sealed, as a
/// running agent does it.
fn idle_ns(last: &Last, line: &Line) -> Option<i64> {
    let (then, now) = (last.clock.as_ref()?, line.clock.as_ref()?);
    // Sealed before it ended: the clock was set back in between, so nothing says when it began.
    if then.boot != now.boot || line.sealed_ns < line.to_ns {
        return None;
    }
    let since_sealed_ns = began_ns(line, now).saturating_sub(then.boottime_ns);
    if since_sealed_ns <= 0 {
        return Some(0);
    }
    Some(since_sealed_ns.saturating_add(last.sealed_ns.saturating_sub(last.to_ns).max(0)))
}

#[cfg(test)]
mod tests;
