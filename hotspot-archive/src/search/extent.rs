//! What a search looks at: which gateways, how many segments, from when to when, and by which clocks.

use std::collections::{BTreeMap, HashSet};

use hotspot_core::WallNs;

use super::{Archive, EARLY_NS, Interval};
use crate::correction::Corrections;
use crate::filter::Filter;
use crate::first::Unsealed;
use crate::manifest::Line;

/// What of one gateway lies in the time of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    pub gateway: String,
    pub site: String,
    pub segments: usize,
    /// From the first record of these segments to the last, as far as their lines say.
    pub from_ns: WallNs,
    pub to_ns: WallNs,
    pub clock: Clock,
}

/// How far the times of some segments are to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It followed a reference in the boots that these segments are of. What is to be added to their times: the least and the most, in
    /// nanoseconds; 0 where the clock was right.
    Synchronised { least_ns: i64, most_ns: i64 },
    /// It never followed a reference in at least one of these boots: nobody knows how far it was off.
    Never,
    /// The lines are of an early version, and say nothing of it.
    Unknown,
}

impl Archive {
    /// Gateways that sealed nothing yet and that a question can concern.
    pub fn unsealed<'a>(&'a self, interval: Interval, filter: &'a Filter) -> impl Iterator<Item = &'a Unsealed> {
        let to_ns = interval.to_ns.min(filter.times().1);
        self.unsealed.iter().filter(move |one| {
            let is_later = one.expected.is_none_or(|expected| expected.began_ns < to_ns);
            is_later && filter.may_match_gateway(&one.gateway)
        })
    }

    /// What a question looks at, by gateway.
    #[must_use]
    pub fn extents(&self, interval: Interval, filter: &Filter) -> Vec<Extent> {
        let (from_ns, to_ns) = filter.times();
        let interval = Interval { from_ns: interval.from_ns.max(from_ns), to_ns: interval.to_ns.min(to_ns) };
        let mut by_gateway: BTreeMap<&str, Lines<'_>> = BTreeMap::new();
        for line in self.lines.iter().filter(|line| filter.may_match_gateway(&line.gateway)) {
            let of_gateway = by_gateway.entry(&line.gateway).or_default();
            of_gateway.all.push(line);
            if interval.touches(line.from_ns.saturating_sub(EARLY_NS), line.to_ns) {
                of_gateway.asked.push(line);
            }
        }
        by_gateway.into_iter().filter_map(|(gateway, lines)| lines.extent(gateway)).collect()
    }
}

/// The lines of one gateway.
#[derive(Default)]
struct Lines<'a> {
    all: Vec<&'a Line>,
    /// Those in the time of the question.
    asked: Vec<&'a Line>,
}

impl Lines<'_> {
    fn extent(self, gateway: &str) -> Option<Extent> {
        let first = self.asked.first()?;
        Some(Extent {
            gateway: gateway.to_owned(),
            site: first.site.clone(),
            segments: self.asked.len(),
            from_ns: self.asked.iter().map(|line| line.from_ns).min()?,
            to_ns: self.asked.iter().map(|line| line.to_ns).max()?,
            clock: self.clock(),
        })
    }

    /// The clock of what is asked for, by all that the chain says of the boots it is of.
    fn clock(mut self) -> Clock {
        fn boot(line: &Line) -> Option<&str> {
            line.clock.as_ref().map(|clock| clock.boot.as_str())
        }
        let Some(boots) = self.asked.iter().map(|line| boot(line)).collect::<Option<HashSet<_>>>() else {
            return Clock::Unknown;
        };
        self.all.retain(|line| boot(line).is_some_and(|boot| boots.contains(boot)));
        self.all.sort_by_key(|line| line.sequence);
        let mut clock = Clock::Unknown;
        for stretch in Corrections::of_refs(&self.all).stretches {
            if !self.asked.iter().any(|line| stretch.sequences.contains(&line.sequence)) {
                continue;
            }
            if !stretch.is_synchronised {
                return Clock::Never;
            }
            let ns = stretch.correction_ns;
            clock = match clock {
                Clock::Synchronised { least_ns, most_ns } => {
                    Clock::Synchronised { least_ns: least_ns.min(ns), most_ns: most_ns.max(ns) }
                }
                Clock::Never | Clock::Unknown => Clock::Synchronised { least_ns: ns, most_ns: ns },
            };
        }
        clock
    }
}
