//! Whether the log was whole in an interval: what the gateways recorded of it, and where they recorded nothing.

use std::collections::BTreeMap;

use hotspot_core::WallNs;
use hotspot_core::record::CoverageRecord;

use super::{Archive, Interval, Named, show};
use crate::keys::Keyring;
use crate::layout::Class;
use crate::place::Place;
use crate::segment::Records;

impl Archive {
    /// Every coverage row of an interval.
    pub fn coverage(&self, interval: Interval, damage: &mut Vec<String>) -> Vec<CoverageRecord> {
        self.coverage_of(interval, damage, |_| true)
    }

    fn coverage_of(
        &self,
        interval: Interval,
        damage: &mut Vec<String>,
        is_wanted: impl Fn(&Named<'_>) -> bool,
    ) -> Vec<CoverageRecord> {
        let mut rows = Vec::new();
        for named in self.files(Class::Coverage, interval).filter(is_wanted) {
            match read(&named, &self.keyring, &*self.place) {
                Err(error) => damage.push(error),
                Ok(read) => rows.extend(read),
            }
        }
        rows.into_iter().filter(|row| interval.touches(row.from_ns, row.to_ns)).collect()
    }

    /// Times at which not everything was recorded, in words.
    pub(super) fn gaps(&self, interval: Interval, damage: &mut Vec<String>) -> Vec<String> {
        // The line counts the gaps, so most files need not be opened to know that there are none.
        let rows = self.coverage_of(interval, damage, |named| named.line.coverage.gaps > 0);
        let mut gaps: Vec<String> = rows.iter().filter_map(describe_gap).collect();
        let touched = || self.lines.iter().filter(|line| interval.touches(line.from_ns, line.to_ns));
        gaps.extend(touched().filter(|line| !line.coverage.balanced).map(|line| {
            let (from, to) = (show(line.from_ns), show(line.to_ns));
            format!("{from} to {to}: gateway {}, segment {} does not balance", line.gateway, line.sequence)
        }));
        gaps.extend(self.deleted(interval));
        if interval != Interval::ALWAYS && touched().next().is_none() {
            gaps.push("no segment of this archive covers the time asked for".to_owned());
        } else {
            gaps.extend(self.uncovered(interval));
        }
        gaps
    }

    /// What was recorded once, and its time was over.
    fn deleted(&self, interval: Interval) -> Vec<String> {
        let mut by_gateway: BTreeMap<&str, (WallNs, WallNs, usize)> = BTreeMap::new();
        let touched = self.deleted.iter().filter(|(from_ns, to_ns, _)| interval.touches(*from_ns, *to_ns));
        for (from_ns, to_ns, gateway) in touched {
            let (first, last, count) = by_gateway.entry(gateway).or_insert((*from_ns, *to_ns, 0));
            (*first, *last, *count) = ((*first).min(*from_ns), (*last).max(*to_ns), *count + 1);
        }
        let say = |(gateway, (first, last, count)): (&str, (WallNs, WallNs, usize))| {
            let (from, to) = (show(first), show(last));
            format!("{from} to {to}: gateway {gateway} deleted the flows of {count} segments when their time was over")
        };
        by_gateway.into_iter().map(say).collect()
    }

    /// What of the interval lies before a gateway's first segment or after its last.
    fn uncovered(&self, interval: Interval) -> Vec<String> {
        let mut covered: BTreeMap<&str, (WallNs, WallNs)> = BTreeMap::new();
        for line in &self.lines {
            let times = covered.entry(&line.gateway).or_insert((line.from_ns, line.to_ns));
            *times = (times.0.min(line.from_ns), times.1.max(line.to_ns));
        }
        let mut uncovered = Vec::new();
        for (gateway, (first, last)) in covered {
            if interval.from_ns != WallNs::MIN && interval.from_ns < first {
                let (from, to) = (show(interval.from_ns), show(first.min(interval.to_ns)));
                uncovered.push(format!("{from} to {to}: gateway {gateway} has no segment that old"));
            }
            if interval.to_ns != WallNs::MAX && interval.to_ns > last.saturating_add(1) {
                let (from, to) = (show(last.max(interval.from_ns)), show(interval.to_ns));
                uncovered.push(format!("{from} to {to}: gateway {gateway} has not sealed a segment of that time"));
            }
        }
        uncovered
    }
}

/// When and where something was not recorded, and why; `None` for a row about packets.
#[must_use]
pub fn describe_gap(row: &CoverageRecord) -> Option<String> {
    let gap = row.gap.as_ref()?;
    let (from, to) = (show(row.from_ns), show(row.to_ns));
    // What concerns all interfaces names none.
    let interface = if row.interface.is_empty() { String::new() } else { format!("{}: ", row.interface) };
    Some(format!("{from} to {to}: {interface}{gap}"))
}

fn read(named: &Named<'_>, keyring: &Keyring, place: &dyn Place) -> Result<Vec<CoverageRecord>, String> {
    named.bring_keys(place, keyring);
    let read = named.check(place).and_then(|()| read_here(named, keyring));
    place.release(&named.file.path);
    read
}

fn read_here(named: &Named<'_>, keyring: &Keyring) -> Result<Vec<CoverageRecord>, String> {
    let failed = |error: crate::segment::SegmentError| error.in_sequence(named.line.sequence);
    let reader = named.open(keyring, None)?;
    let mut rows = Vec::new();
    for records in reader.read() {
        match records.map_err(failed)? {
            Records::Coverage(read) => rows.extend(read),
            Records::Flows(_) | Records::Sessions(_) | Records::Devices(_) => {
                return Err(format!("{} is not a segment of coverage", named.path.display()));
            }
        }
    }
    Ok(rows)
}
