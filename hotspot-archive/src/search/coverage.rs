//! Whether the log was whole in an interval: what the gateways recorded of it, and where they recorded nothing.

use std::collections::BTreeMap;

use hotspot_core::WallNs;
use hotspot_core::losses::{self, Counts};
use hotspot_core::record::CoverageRecord;

use super::{Archive, Interval, Named};
use crate::filter::{self, Filter};
use crate::keys::Keyring;
use crate::layout::Class;
use crate::manifest::Line;
use crate::place::Place;
use crate::segment::Records;
use crate::unrecorded::{ADJOIN_NS, Unrecorded, Why, show};

impl Archive {
    /// Every coverage row of an interval.
    pub fn coverage(&self, interval: Interval, damage: &mut Vec<String>) -> Vec<CoverageRecord> {
        let mut rows = Vec::new();
        for named in self.files(Class::Coverage, interval) {
            match read(&named, &self.keyring, &*self.place) {
                Err(error) => damage.push(error),
                Ok(read) => rows.extend(read),
            }
        }
        rows.into_iter().filter(|row| interval.touches(row.from_ns, row.to_ns)).collect()
    }

    /// Times of an interval at which not everything was recorded that a filter may ask for, in order. What could not be read is damage.
    ///
    /// A gateway that the filter rules out is not told of. Where the end is open or lies in the future, up to the moment the archive was
    /// opened at is asked for.
    pub fn unrecorded(&self, interval: Interval, filter: &Filter, damage: &mut Vec<String>) -> Vec<Unrecorded> {
        if interval.from_ns >= interval.to_ns {
            return Vec::new();
        }
        let concerned = self.concerned(interval, filter);
        if concerned.is_empty() {
            let Interval { from_ns, to_ns } = interval;
            return vec![Unrecorded { from_ns, to_ns, gateway: String::new(), why: Why::NoGateway }];
        }
        let is_concerned = |gateway: &str| concerned.iter().any(|timeline| timeline.gateway() == gateway);
        let mut unrecorded = Vec::new();
        for timeline in &concerned {
            unrecorded.extend(timeline.uncovered(interval, self.now_ns));
            unrecorded.extend(timeline.unbalanced(interval));
        }
        let beside = self.deleted(interval).into_iter().chain(self.untold(interval));
        unrecorded.extend(beside.filter(|one| is_concerned(&one.gateway)));
        let mut stated = self.stated(interval, filter, is_concerned, damage);
        // A row that tells of a hole between two sequences adds nothing to it.
        stated.retain(|row| !unrecorded.iter().any(|hole| is_hole(hole) && is_within(row, hole)));
        unrecorded.extend(stated);
        unrecorded.sort();
        unrecorded
    }

    /// What coverage rows say is missing.
    fn stated(
        &self,
        interval: Interval,
        filter: &Filter,
        is_concerned: impl Fn(&str) -> bool,
        damage: &mut Vec<String>,
    ) -> Vec<Unrecorded> {
        let mut stated = Stated::default();
        // The line counts the gaps, so most files need not be opened to know that there are none.
        let has_gaps = |named: &Named<'_>| named.line.coverage.gaps > 0 && is_concerned(&named.line.gateway);
        for named in self.files(Class::Coverage, interval).filter(has_gaps) {
            let rows = match read(&named, &self.keyring, &*self.place) {
                Ok(rows) => rows,
                Err(error) => {
                    damage.push(error);
                    continue;
                }
            };
            let Line { gateway, site, .. } = named.line;
            for row in rows.iter().filter(|row| interval.touches(row.from_ns, row.to_ns)) {
                let interface = (!row.interface.is_empty()).then_some(&*row.interface);
                if filter.may_match_at(&filter::Seen { gateway, site: Some(site), interface }) {
                    stated.add(gateway, row);
                }
            }
        }
        stated.finish()
    }

    /// Sequences of which coverage rows tell what is missing, and that have none here any more.
    fn untold(&self, interval: Interval) -> impl Iterator<Item = Unrecorded> {
        let has_none = |line: &&Line| line.files.iter().all(|file| file.class != Class::Coverage.label());
        let telling = self.lines.iter().filter(|line| line.coverage.gaps > 0).filter(has_none);
        telling.filter(move |line| interval.touches(line.from_ns, line.to_ns)).map(|line| Unrecorded {
            from_ns: line.from_ns,
            to_ns: line.to_ns,
            gateway: line.gateway.clone(),
            why: Why::Untold { sequence: line.sequence, rows: line.coverage.gaps },
        })
    }

    /// What was recorded once, and its time was over.
    fn deleted(&self, interval: Interval) -> Vec<Unrecorded> {
        let mut by_gateway: BTreeMap<&str, (WallNs, WallNs, u64)> = BTreeMap::new();
        let touched = self.deleted.iter().filter(|(from_ns, to_ns, _)| interval.touches(*from_ns, *to_ns));
        for (from_ns, to_ns, gateway) in touched {
            let (first, last, count) = by_gateway.entry(gateway).or_insert((*from_ns, *to_ns, 0));
            (*first, *last, *count) = ((*first).min(*from_ns), (*last).max(*to_ns), *count + 1);
        }
        let as_one = |(gateway, (from_ns, to_ns, segments)): (&str, (WallNs, WallNs, u64))| {
            let gateway = gateway.to_owned();
            Unrecorded { from_ns, to_ns, gateway, why: Why::Deleted { segments } }
        };
        by_gateway.into_iter().map(as_one).collect()
    }
}

fn is_hole(unrecorded: &Unrecorded) -> bool {
    matches!(unrecorded.why, Why::Between { .. } | Why::ClockSet { .. })
}

fn is_within(row: &Unrecorded, hole: &Unrecorded) -> bool {
    row.gateway == hole.gateway
        && row.from_ns >= hole.from_ns.saturating_sub(ADJOIN_NS)
        && row.to_ns <= hole.to_ns.saturating_add(ADJOIN_NS)
}

/// What coverage rows say; the same for many sequences in a row is one.
#[derive(Default)]
struct Stated {
    rows: BTreeMap<(String, String, String), Vec<Told>>,
}

/// When, and the counters that are added up where there are any.
type Told = (WallNs, WallNs, Counts);

impl Stated {
    fn add(&mut self, gateway: &str, row: &CoverageRecord) {
        let Some(gap) = &row.gap else { return };
        let counted = losses::counted(row);
        let counts = counted.map(|_| row.happenings.iter().cloned().collect()).unwrap_or_default();
        let what = counted.unwrap_or(gap).to_owned();
        let told = self.rows.entry((gateway.to_owned(), row.interface.clone(), what)).or_default();
        told.push((row.from_ns, row.to_ns, counts));
    }

    fn finish(self) -> Vec<Unrecorded> {
        let of = |((gateway, interface, what), told): ((String, String, String), Vec<Told>)| {
            joined(told).into_iter().map(move |(from_ns, to_ns, counts)| {
                let what = if counts.is_empty() { what.clone() } else { losses::words(&what, &counts) };
                let why = Why::Stated { interface: interface.clone(), what };
                Unrecorded { from_ns, to_ns, gateway: gateway.clone(), why }
            })
        };
        self.rows.into_iter().flat_map(of).collect()
    }
}

/// Times that adjoin or overlap, as one.
fn joined(mut told: Vec<Told>) -> Vec<Told> {
    told.sort_unstable();
    let mut joined: Vec<Told> = Vec::new();
    for (from_ns, to_ns, counts) in told {
        match joined.last_mut() {
            Some(last) if from_ns <= last.1.saturating_add(ADJOIN_NS) => {
                last.1 = last.1.max(to_ns);
                counts.into_iter().for_each(|(label, count)| *last.2.entry(label).or_default() += count);
            }
            _ => joined.push((from_ns, to_ns, counts)),
        }
    }
    joined
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
