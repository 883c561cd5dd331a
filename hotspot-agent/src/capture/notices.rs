//! Reading the ring of notices: frames by which devices say who they are become facts, and what is no news is left out.
//!
//! The frames themselves go no further than this file. Nothing is released to the kernel before the caller says that the facts are on
//! disk.

use std::collections::BTreeMap;

use hotspot_archive::entry::DeviceBatch;
use hotspot_common::NoticeHeader;
use hotspot_core::fact::DeviceFact;
use hotspot_core::notice;
use hotspot_core::record::CoverageRecord;
use tracing::{info, warn};

use super::Capture;
use super::clock::ClockReading;
use crate::devices::News;
use crate::seldom::Seldom;

/// Facts written per second over time, and at once: what a full venue needs when it opens, and far less than a flood offers.
const FACTS_PER_S: u64 = 5_000;
const FACTS_AT_ONCE: u64 = 50_000;

/// What is known of the notices read so far.
#[derive(Default)]
pub(super) struct Notices {
    news: News,
    budget: Budget,
    /// Notices that say nothing that can be believed.
    refused: u64,
    /// Facts beyond the budget.
    left_out: u64,
    /// Fields that did not keep to their format, of messages which count without them.
    odd: BTreeMap<&'static str, u64>,
    warned: Seldom,
}

/// What the ring held, and up to where.
#[derive(Debug)]
pub struct NoticesRead {
    /// `None` where nothing was new.
    pub batch: Option<DeviceBatch>,
    /// Position to release after the commit.
    pub end_position: u64,
}

impl Notices {
    /// Counts since the last call that are not zero, for the coverage of a generation.
    pub(super) fn take_counts(&mut self) -> Vec<(String, u64)> {
        let counts = [("notice_refused", &mut self.refused), ("device_facts_left_out", &mut self.left_out)];
        let counts = counts.into_iter().map(|(label, count)| (label.to_owned(), std::mem::take(count)));
        let odd = std::mem::take(&mut self.odd).into_iter().map(|(field, count)| (format!("odd_{field}"), count));
        counts.chain(odd).filter(|(_, count)| *count != 0).collect()
    }

    /// A flood keeps out what a newcomer says of itself. `coverage`: of the generation that is read.
    pub(super) fn say_what_is_missing(&self, coverage: &[CoverageRecord]) {
        let happenings = coverage.iter().flat_map(|row| &row.happenings);
        let skipped: u64 = happenings.filter(|(label, _)| label == "notice_skipped").map(|(_, count)| count).sum();
        if (skipped > 0 || self.left_out > 0) && self.warned.is_time() {
            warn!(
                skipped,
                left_out = self.left_out,
                "more DHCP, ARP and neighbour discovery than is read: devices that came meanwhile may lack names and addresses until they \
                 speak again (logged at most every 10 s)"
            );
        }
    }

    fn learn(&mut self, record: &[u8], clock: &ClockReading, by_address: bool, facts: &mut Vec<DeviceFact>) {
        let Some((header, payload)) = split(record) else {
            self.refused += 1;
            return;
        };
        match notice::facts(&header, payload, clock.wall(header.seen_ns), by_address) {
            Err(_) => self.refused += 1,
            Ok(said) => {
                self.count_odd(&said.odd);
                for fact in said.facts {
                    if !self.budget.has_some(clock.monotonic_ns) {
                        self.left_out += 1;
                    } else if self.news.is_news(&fact) {
                        self.budget.spend();
                        facts.push(fact);
                    }
                }
            }
        }
    }
}

impl Notices {
    fn count_odd(&mut self, fields: &[&'static str]) {
        for field in fields {
            *self.odd.entry(field).or_default() += 1;
        }
        if !fields.is_empty() && self.warned.is_time() {
            info!(
                ?fields,
                "fields of a device's message were not as they should be; it counts without them (logged at most every 10 s)"
            );
        }
    }
}

impl Capture {
    /// Reads what the ring of notices holds now.
    pub(super) fn read_notices(&mut self, clock: &ClockReading) -> NoticesRead {
        let capture = self.control().capture;
        let by_address = self.reading.sides_by_address;
        let notices = &mut self.notices;
        let mut facts = Vec::new();
        let end_position = self.maps.notices.read_bytes(|record| notices.learn(record, clock, by_address, &mut facts));
        let batch = (!facts.is_empty()).then_some(DeviceBatch { capture, end_position, facts });
        NoticesRead { batch, end_position }
    }
}

/// A record's header and message.
fn split(record: &[u8]) -> Option<(NoticeHeader, &[u8])> {
    let (head, payload) = record.split_first_chunk::<{ size_of::<NoticeHeader>() }>()?;
    // SAFETY: as many bytes as the structure has; every bit pattern is valid.
    let header = unsafe { head.as_ptr().cast::<NoticeHeader>().read_unaligned() };
    Some((header, payload.get(..usize::from(header.payload_len))?))
}

/// A bucket of facts that may be written, filled by time.
#[derive(Default)]
struct Budget {
    used: u64,
    at_ns: u64,
}

impl Budget {
    fn has_some(&mut self, now_ns: u64) -> bool {
        let refilled = now_ns.saturating_sub(self.at_ns) / (1_000_000_000 / FACTS_PER_S);
        if refilled > 0 {
            self.used = self.used.saturating_sub(refilled);
            self.at_ns = now_ns;
        }
        self.used < FACTS_AT_ONCE
    }

    fn spend(&mut self) {
        self.used += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_budget_and_ordinary_use_is_not() {
        let mut budget = Budget::default();
        let spent = |budget: &mut Budget, now_ns, wanted| {
            (0..wanted)
                .filter(|_| {
                    budget.has_some(now_ns) && {
                        budget.spend();
                        true
                    }
                })
                .count() as u64
        };
        assert_eq!(spent(&mut budget, 1, 200_000), FACTS_AT_ONCE);
        assert_eq!(spent(&mut budget, 1_000_000_001, 200_000), FACTS_PER_S);
        assert_eq!(spent(&mut budget, 100_000_000_001, 1_000), 1_000);
    }
}
