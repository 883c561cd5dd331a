use super::*;
use crate::manifest::CoverageSummary;

const S: i64 = 1_000_000_000;
const ROTATE: i64 = 300 * S;

/// A gateway as it really was: true time, what its clock added to that, and the boot it was in.
#[derive(Clone)]
struct Gateway {
    now_ns: i64,
    clock_ns: i64,
    boot: u64,
    booted_ns: i64,
    lines: Vec<Line>,
    /// When it recorded nothing, by the clock it had afterwards.
    off: Vec<(WallNs, WallNs)>,
    /// A step that the next line has to state.
    step_ns: i64,
}

impl Gateway {
    fn new() -> Self {
        Self {
            now_ns: 0,
            clock_ns: 1_000_000 * S,
            boot: 1,
            booted_ns: -50 * S,
            lines: Vec::new(),
            off: Vec::new(),
            step_ns: 0,
        }
    }

    fn wall(&self) -> WallNs {
        self.now_ns + self.clock_ns
    }

    /// Records for a while. A running agent seals a while after the next sequence began; one that is stopped at once.
    fn record(&mut self, for_ns: i64, is_stopped: bool) {
        let from_ns = self.wall();
        self.now_ns += for_ns;
        let to_ns = self.wall();
        let sealed_after_ns = if is_stopped { S / 10 } else { 10 * S };
        let last_ns = self.lines.last().map(|line| line.to_ns);
        let needed_ns = last_ns.map_or(0, |last_ns| (from_ns - last_ns).min(0));
        let step_ns = if needed_ns < self.step_ns.min(0) { needed_ns } else { self.step_ns };
        self.step_ns = 0;
        let sequence = self.lines.len() as u64 + 1;
        self.lines.push(Line {
            format: 3,
            gateway: "g".into(),
            site: "s".into(),
            sequence,
            from_ns,
            to_ns,
            sealed_ns: to_ns + sealed_after_ns,
            files: Vec::new(),
            coverage: CoverageSummary { balanced: true, ..CoverageSummary::default() },
            recipients: Vec::new(),
            clock: Some(ClockEvidence {
                boot: self.boot.to_string(),
                boottime_ns: self.now_ns + sealed_after_ns - self.booted_ns,
                synchronised: true,
            }),
            clock_step_ns: Some(step_ns).filter(|step_ns| *step_ns != 0),
            prev: String::new(),
            key: String::new(),
        });
    }

    /// Is off, and may be set meanwhile.
    fn rest(&mut self, for_ns: i64, set_ns: i64, is_rebooted: bool) {
        self.clock_ns += set_ns;
        let from_ns = self.wall();
        self.now_ns += for_ns;
        if is_rebooted {
            self.boot += 1;
            self.booted_ns = self.now_ns - for_ns / 2;
        }
        self.off.push((from_ns, self.wall()));
    }

    /// The clock of a running agent is set, between two sequences.
    fn set(&mut self, by_ns: i64) {
        self.clock_ns += by_ns;
        self.step_ns += by_ns;
    }

    fn timeline(&self) -> Timeline {
        let mut timeline = Timeline::new("g");
        self.lines.iter().for_each(|line| timeline.push(line));
        timeline
    }

    fn holes(&self) -> Vec<(WallNs, WallNs)> {
        let uncovered = self.timeline().uncovered(Interval::ALWAYS, None);
        uncovered.into_iter().map(|one| (one.from_ns, one.to_ns)).collect()
    }
}

fn asked(from_ns: WallNs, to_ns: WallNs) -> Interval {
    Interval { from_ns, to_ns }
}

#[test]
fn sequences_of_a_running_agent_leave_no_hole() {
    let mut gateway = Gateway::new();
    (0..100).for_each(|_| gateway.record(ROTATE, false));
    assert_eq!(gateway.holes(), []);
    let last = gateway.wall();
    assert_eq!(gateway.timeline().uncovered(asked(1_000_010 * S, last), Some(last + S)), []);
}

#[test]
fn milliseconds_between_sequences_of_early_agents_are_no_hole_and_seconds_are() {
    for (away_ns, is_hole) in [(S / 4, false), (S, false), (S + 1, true)] {
        let mut gateway = Gateway::new();
        gateway.record(ROTATE, true);
        gateway.rest(away_ns, 0, false);
        gateway.record(ROTATE, true);
        assert_eq!(!gateway.holes().is_empty(), is_hole, "{away_ns}");
    }
}

#[test]
fn a_stop_is_a_hole_whatever_ended_the_sequence() {
    for (is_stopped, is_rebooted) in [(true, false), (true, true), (false, true)] {
        let mut gateway = Gateway::new();
        gateway.record(ROTATE, is_stopped);
        gateway.rest(3600 * S, 0, is_rebooted);
        gateway.record(ROTATE, true);
        assert_eq!(gateway.holes(), gateway.off, "{is_stopped} {is_rebooted}");
        let [(from_ns, to_ns)] = gateway.off[..] else { panic!() };
        let timeline = gateway.timeline();
        let of = |from_ns, to_ns| timeline.uncovered(asked(from_ns, to_ns), Some(gateway.wall()));
        // A second within it, and one on each side.
        assert_eq!(of(from_ns + 60 * S, from_ns + 61 * S).len(), 1);
        assert_eq!(of(from_ns - 2 * S, from_ns - S), []);
        assert_eq!(of(to_ns + S, to_ns + 2 * S), []);
        assert!(of(from_ns + S, from_ns + 2 * S)[0].to_string().contains("recorded nothing between segments 1 and 2"));
    }
}

#[test]
fn a_clock_that_is_set_while_an_agent_runs_is_no_stop() {
    for by_ns in [3600 * S, -3600 * S, 2 * S, -2 * S] {
        let mut gateway = Gateway::new();
        gateway.record(ROTATE, false);
        let before_ns = gateway.wall();
        gateway.set(by_ns);
        let after_ns = gateway.wall();
        gateway.record(ROTATE, false);
        let uncovered = gateway.timeline().uncovered(Interval::ALWAYS, None);
        if by_ns > 0 {
            // No record has times between: whoever asks for them is told.
            let why = Why::ClockSet { before: 1, after: 2, step_ns: by_ns };
            assert_eq!(uncovered, [Unrecorded { from_ns: before_ns, to_ns: after_ns, gateway: "g".into(), why }]);
        } else {
            assert_eq!(uncovered, []);
        }
    }
}

#[test]
fn a_stop_shows_also_where_the_clock_was_set_back_meanwhile() {
    // By as much as it was off, by less, and by more: its labels overlap those of the sequence before.
    for set_ns in [-3600 * S, -1800 * S, -7200 * S, -3601 * S] {
        let mut gateway = Gateway::new();
        gateway.record(10 * 3600 * S, true);
        gateway.rest(3600 * S, set_ns, false);
        gateway.record(ROTATE, true);
        let (holes, off) = (gateway.holes(), gateway.off.clone());
        assert!(holes.len() == 1 && holes[0].0 <= off[0].0 && holes[0].1 >= off[0].1, "{set_ns}: {holes:?} {off:?}");
    }
}

#[test]
fn nothing_before_the_first_and_after_the_last_sequence_is_whole() {
    let mut gateway = Gateway::new();
    let began_ns = gateway.wall();
    gateway.record(ROTATE, true);
    let (ended_ns, timeline) = (gateway.wall(), gateway.timeline());
    let why = |from_ns, to_ns, now_ns: Option<WallNs>| -> Vec<(WallNs, WallNs, Why)> {
        let uncovered = timeline.uncovered(asked(from_ns, to_ns), now_ns);
        uncovered.into_iter().map(|one| (one.from_ns, one.to_ns, one.why)).collect()
    };
    let now = Some(ended_ns + 86_400 * S);
    assert_eq!(why(began_ns - S, ended_ns, now), [(began_ns - S, began_ns, Why::NotYet)]);
    assert_eq!(why(began_ns, ended_ns + S, now), [(ended_ns, ended_ns + S, Why::NotSealed)]);
    // An end that is open, or has not come, is now.
    for to_ns in [WallNs::MAX, ended_ns + 90_000 * S] {
        assert_eq!(why(began_ns, to_ns, now), [(ended_ns, ended_ns + 86_400 * S, Why::NotSealed)]);
    }
    let later = ended_ns + 90_000 * S;
    assert_eq!(why(later, later + S, now), [(later, later + S, Why::NotSealed)], "what has not come is not recorded");
    assert_eq!(why(began_ns, WallNs::MAX, None), []);
    assert_eq!(why(WallNs::MIN, ended_ns, now), [], "nothing older was asked for by its time");
    let never = Timeline::new("h").uncovered(asked(began_ns, ended_ns), now);
    assert_eq!(never.iter().map(|one| &one.why).collect::<Vec<_>>(), [&Why::NotSealed]);
}

/// Histories at random: whenever a gateway recorded nothing for longer than sequences may be apart, that time is told of; and one that never
/// rested and whose clock was never set is whole.
#[test]
fn no_stop_of_a_random_history_is_whole() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut stops = 0;
    for history in 0..20_000 {
        let mut gateway = Gateway::new();
        gateway.record(86_400 * S, false);
        let mut is_quiet = true;
        for _ in 0..next(6) {
            let length_ns = i64::try_from(2 + next(7_200)).unwrap() * S;
            let set_ns = (i64::try_from(next(4)).unwrap() - 2) * i64::try_from(next(3_600)).unwrap() * S;
            match next(4) {
                0 => {
                    // An agent that stops seals at once.
                    let last = gateway.lines.last_mut().unwrap();
                    let early_ns = last.sealed_ns - last.to_ns - S / 10;
                    last.sealed_ns -= early_ns;
                    last.clock.as_mut().unwrap().boottime_ns -= early_ns;
                    let set_ns = if next(2) == 0 { set_ns } else { 0 };
                    let is_rebooted = set_ns >= 0 && next(2) == 0;
                    gateway.rest(length_ns, set_ns, is_rebooted);
                    gateway.record(ROTATE, false);
                    is_quiet = false;
                }
                1 if set_ns != 0 => {
                    gateway.set(set_ns);
                    gateway.record(ROTATE, false);
                    is_quiet = false;
                }
                _ => gateway.record(length_ns, false),
            }
        }
        stops += gateway.off.len();
        let holes = gateway.holes();
        for (from_ns, to_ns) in &gateway.off {
            // The moment before the gateway went on, by the clock it then had: the surest part of what was not recorded.
            let is_told = holes.iter().any(|(first, last)| first <= from_ns && last >= to_ns);
            assert!(is_told, "history {history}: {from_ns} to {to_ns} of {holes:?}");
        }
        assert!(!is_quiet || holes.is_empty(), "history {history}: {holes:?}");
    }
    assert!(stops > 5_000, "{stops}");
}
