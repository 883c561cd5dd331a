//! Corrections: how far the times of a segment are from the clock that its gateway came to have.
//!
//! A gateway without a battery wakes up in 1970 and is set right when it finds a time server; an operator sets a clock wrong and right
//! again. All times of a segment are by one clock, and the manifest says, signed, how far it was set before each. From that follows
//! what has to be added. Nothing in the archive is changed.

use std::collections::BTreeMap;
use std::path::Path;

use hotspot_core::WallNs;

use crate::chain::Pins;
use crate::manifest::{Line, ManifestError};
use crate::pieces::read_chains;

/// What the segments of one boot of a gateway that follow each other have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub gateway: String,
    /// `/proc/sys/kernel/random/boot_id`; empty where lines of early versions do not say it.
    pub boot: String,
    pub sequences: std::ops::RangeInclusive<u64>,
    /// As recorded.
    pub from_ns: WallNs,
    pub to_ns: WallNs,
    /// To be added to every time of these segments.
    pub correction_ns: i64,
    /// Whether the clock that the times are corrected to followed a reference.
    pub is_synchronised: bool,
}

/// The stretches of an archive, by gateway and sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corrections {
    pub stretches: Vec<Stretch>,
    /// Lines that are not believed, and why.
    pub damage: Vec<String>,
}

impl Corrections {
    /// Of the lines that are believed.
    pub fn of_archive(archive: &Path, pins: &Pins) -> Result<Self, ManifestError> {
        let read = read_chains(archive, pins, None)?;
        let mut all = Self { damage: read.damage, ..Self::default() };
        for chain in &read.chains {
            all.damage.extend(chain.damage());
            let lines: Vec<Line> = chain.segments().cloned().collect();
            all.stretches.extend(Self::of_lines(&lines).stretches);
        }
        Ok(all)
    }

    /// Of lines in the order of their chains.
    #[must_use]
    pub fn of_lines(lines: &[Line]) -> Self {
        Self::of_refs(&lines.iter().collect::<Vec<_>>())
    }

    /// The same.
    pub(crate) fn of_refs(lines: &[&Line]) -> Self {
        let boot = |line: &Line| line.clock.as_ref().map_or("", |clock| &clock.boot).to_owned();
        let mut boots: BTreeMap<(String, usize), Vec<&Line>> = BTreeMap::new();
        let mut number = 0;
        for (position, line) in lines.iter().enumerate() {
            let before = position.checked_sub(1).map(|position| lines[position]);
            if before.is_some_and(|before| boot(before) != boot(line)) {
                number += 1;
            }
            boots.entry((line.gateway.clone(), number)).or_default().push(line);
        }
        let stretches = boots.into_values().flat_map(|lines| of_boot(&boot(lines[0]), &lines)).collect();
        Self { stretches, damage: Vec::new() }
    }
}

/// The clock a boot ended with is right, or that of its last line at which it followed a reference.
fn of_boot(boot: &str, lines: &[&Line]) -> Vec<Stretch> {
    let synchronised = |line: &&Line| line.clock.as_ref().is_some_and(|clock| clock.synchronised);
    let reference = lines.iter().rposition(synchronised);
    // How far each line's clock is from that of the first.
    let ahead: Vec<i64> = lines
        .iter()
        .enumerate()
        .scan(0i64, |ahead_ns, (position, line)| {
            // What it was set by before the first belongs to another boot.
            let step_ns = if position == 0 { 0 } else { line.clock_step_ns.unwrap_or(0) };
            *ahead_ns = ahead_ns.saturating_add(step_ns);
            Some(*ahead_ns)
        })
        .collect();
    let right_ns = ahead[reference.unwrap_or(ahead.len() - 1)];
    let mut stretches: Vec<Stretch> = Vec::new();
    for (line, ahead_ns) in lines.iter().zip(ahead) {
        let correction_ns = right_ns - ahead_ns;
        match stretches.last_mut() {
            Some(last) if last.correction_ns == correction_ns => {
                last.sequences = *last.sequences.start()..=line.sequence;
                last.to_ns = line.to_ns;
            }
            _ => stretches.push(Stretch {
                gateway: line.gateway.clone(),
                boot: boot.to_owned(),
                sequences: line.sequence..=line.sequence,
                from_ns: line.from_ns,
                to_ns: line.to_ns,
                correction_ns,
                is_synchronised: reference.is_some(),
            }),
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::CoverageSummary;
    use crate::retention::ClockEvidence;

    const HOUR_NS: i64 = 3_600_000_000_000;

    fn line(sequence: u64, boot: &str, step_ns: i64, synchronised: bool) -> Line {
        Line {
            format: 1,
            gateway: "g".into(),
            site: "s".into(),
            sequence,
            from_ns: i64::try_from(sequence).unwrap(),
            to_ns: i64::try_from(sequence).unwrap() + 1,
            sealed_ns: 0,
            files: Vec::new(),
            coverage: CoverageSummary::default(),
            recipients: Vec::new(),
            clock: Some(ClockEvidence { boot: boot.into(), boottime_ns: 0, synchronised }),
            clock_step_ns: Some(step_ns).filter(|step_ns| *step_ns != 0),
            prev: String::new(),
            key: String::new(),
        }
    }

    fn corrections(lines: &[Line]) -> Vec<i64> {
        let Corrections { stretches, .. } = Corrections::of_lines(lines);
        let of = |line: &Line| stretches.iter().find(|stretch| stretch.sequences.contains(&line.sequence)).unwrap();
        lines.iter().map(|line| of(line).correction_ns).collect()
    }

    #[test]
    fn what_was_recorded_before_the_clock_was_right_is_moved() {
        let years = 56 * 8766 * HOUR_NS;
        let lines = [line(1, "a", 0, false), line(2, "a", 0, false), line(3, "a", years, true), line(4, "a", 0, true)];
        assert_eq!(corrections(&lines), [years, years, 0, 0]);
        let stretches = Corrections::of_lines(&lines).stretches;
        assert_eq!(stretches.len(), 2);
        assert_eq!((stretches[0].sequences.clone(), stretches[0].from_ns, stretches[0].to_ns), (1..=2, 1, 3));
        assert!(stretches[0].is_synchronised);
    }

    #[test]
    fn wrong_and_right_again() {
        let lines = [line(1, "a", 0, true), line(2, "a", HOUR_NS, false), line(3, "a", -HOUR_NS, true)];
        assert_eq!(corrections(&lines), [0, -HOUR_NS, 0]);
        // Wrong at the end: the last that followed a reference counts.
        assert_eq!(corrections(&lines[..2]), [0, -HOUR_NS]);
        // Nobody ever followed one: the last.
        let lines = [line(1, "a", 0, false), line(2, "a", HOUR_NS, false)];
        assert_eq!(corrections(&lines), [HOUR_NS, 0]);
        assert!(!Corrections::of_lines(&lines).stretches[0].is_synchronised);
    }

    #[test]
    fn no_boot_says_anything_about_another() {
        let lines = [line(1, "a", 0, false), line(2, "b", 0, false), line(3, "b", HOUR_NS, true)];
        assert_eq!(corrections(&lines), [0, HOUR_NS, 0]);
        assert_eq!(Corrections::of_lines(&[]), Corrections::default());
    }
}
