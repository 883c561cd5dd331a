//! Who took a gateway, or its disk: signs with the key of the epoch that goes on, and with none before.

use std::fs;

use hotspot_archive::chain::{CoverageSummary, Event, FORMAT, Line, Record, parse};
use hotspot_archive::policy::Policy;
use hotspot_archive::retention::{ClockEvidence, Moment};

use super::world::{Attacked, BEGIN_NS, DAY_NS, LEFT, ROWS, deleted, moment, sign, sign_text};
use super::{Attack, Found};
use crate::venue::SECOND_NS;

const ALL: Found = Found { exit: 0, rows: [LEFT, LEFT] };
const ONE_GONE: Found = Found { exit: 3, rows: [LEFT - ROWS, LEFT] };

/// The next line about a sequence without a file, which only its times tell apart from an honest one.
fn empty_segment(attacked: &Attacked, day: i64) -> Line {
    let last = attacked.segment("gw1", 11);
    let (from_ns, clock) = (moment(day).wall_ns, moment(day).clock);
    let (to_ns, sealed_ns) = (from_ns + 300 * SECOND_NS, from_ns + 310 * SECOND_NS);
    Line { sequence: 7, from_ns, to_ns, sealed_ns, files: Vec::new(), clock, ..last }
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "a thief deletes what the policy she inherited keeps, with a line she signs",
        act: |it| it.delete_signed("gw1", &it.key("gw1", 3), &moment(37), 9),
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "a thief states a shorter retention and deletes by it",
        act: |it| {
            let key = it.key("gw1", 3);
            it.append_event("gw1", &key, &moment(37), Event::Policy("flows=1d".parse().unwrap()));
            it.delete_signed("gw1", &key, &moment(37), 9);
        },
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "a thief states a shorter retention, begins an epoch of her own, and deletes in that",
        act: |it| {
            let key = it.key("gw1", 3);
            it.append_event("gw1", &key, &moment(37), Event::Policy("flows=1d".parse().unwrap()));
            let next = it.key("gw2", 1);
            let public = hotspot_archive::manifest::to_hex(next.verifying_key().as_bytes());
            it.append_event("gw1", &key, &moment(37), Event::Epoch { epoch: 4, public });
            it.delete_signed("gw1", &next, &moment(38), 9);
        },
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "a thief states that nothing is kept and deletes by that",
        act: |it| {
            let key = it.key("gw1", 3);
            it.append_event("gw1", &key, &moment(37), Event::Policy(Policy::default()));
            it.delete_signed("gw1", &key, &moment(37), 9);
        },
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "a thief deletes what is held",
        act: |it| it.delete_signed("gw1", &it.key("gw1", 3), &moment(40), 3),
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "a thief lifts a hold in the chain and deletes what it held, and the gateway is trusted until the line before",
        act: |it| {
            let key = it.key("gw1", 3);
            it.append_event("gw1", &key, &moment(40), Event::Lifted { case: "C-1".into() });
            it.delete_signed("gw1", &key, &moment(40), 3);
            it.verify_with("--trusted-until", "gw1:11");
        },
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "a thief makes time pass by a boot that was long up",
        act: |it| {
            let clock = ClockEvidence { boot: "boot-2".into(), boottime_ns: 400 * DAY_NS, synchronised: true };
            let now = Moment { wall_ns: BEGIN_NS + 66 * DAY_NS, clock: Some(clock) };
            it.delete_signed("gw1", &it.key("gw1", 3), &now, 9);
        },
        verify: 9,
        find: Found { exit: 0, rows: [LEFT - ROWS, LEFT] },
    },
    Attack {
        name: "a thief makes time pass by the wall clock alone",
        act: |it| {
            let now = Moment { wall_ns: BEGIN_NS + 66 * DAY_NS, ..moment(37) };
            it.delete_signed("gw1", &it.key("gw1", 3), &now, 9);
        },
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "a thief makes time pass by a deletion from the future",
        act: |it| it.delete_signed("gw1", &it.key("gw1", 3), &moment(4000), 9),
        verify: 3,
        find: ONE_GONE,
    },
    Attack {
        name: "a thief back-dates a segment",
        act: |it| {
            it.append_segment(
                "gw1",
                &it.key("gw1", 3),
                Line { sealed_ns: moment(37).wall_ns, clock: moment(37).clock, ..empty_segment(it, 20) },
            );
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief back-dates a segment and the clock of its boot",
        act: |it| it.append_segment("gw1", &it.key("gw1", 3), empty_segment(it, 20)),
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief seals a segment long after its interval",
        act: |it| {
            let late = Line { sealed_ns: moment(50).wall_ns, clock: moment(50).clock, ..empty_segment(it, 37) };
            it.append_segment("gw1", &it.key("gw1", 3), late);
            let next = Line { sequence: 8, ..empty_segment(it, 51) };
            it.append_segment("gw1", &it.key("gw1", 3), next);
        },
        verify: 9,
        find: ALL,
    },
    Attack {
        name: "a thief seals a segment before its interval ended",
        act: |it| {
            let early = Line { sealed_ns: moment(37).wall_ns, ..empty_segment(it, 37) };
            it.append_segment("gw1", &it.key("gw1", 3), early);
            let next = Line { sequence: 8, ..empty_segment(it, 51) };
            it.append_segment("gw1", &it.key("gw1", 3), next);
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief signs with the key of an epoch that ended",
        act: |it| it.append_segment("gw1", &it.key("gw1", 2), empty_segment(it, 37)),
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief writes a line of an early format, which states less",
        act: |it| it.append_segment("gw1", &it.key("gw1", 3), Line { format: 1, ..empty_segment(it, 20) }),
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief leaves a sequence out",
        act: |it| it.append_segment("gw1", &it.key("gw1", 3), Line { sequence: 8, ..empty_segment(it, 37) }),
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief writes the lines of her epoch again, and a checkpoint was kept",
        act: |it| {
            let lines = it.lines("gw1");
            it.write("gw1", &lines[..10]);
            let forged = Line { coverage: CoverageSummary::default(), ..segment_of(&lines[10]) };
            it.append_segment("gw1", &it.key("gw1", 3), forged);
            it.verify_with_checkpoint("gw1");
        },
        verify: 3,
        find: ALL,
    },
    Attack {
        name: "a thief cuts lines of her epoch with their files, and a checkpoint was kept",
        act: |it| {
            let flows = it.segment("gw1", 11).files;
            flows.iter().for_each(|file| fs::remove_file(it.path(&file.path)).unwrap());
            let lines = it.lines("gw1");
            it.write("gw1", &lines[..10]);
            it.verify_with_checkpoint("gw1");
        },
        verify: 7,
        find: Found { exit: 0, rows: [LEFT - ROWS, LEFT] },
    },
    Attack {
        name: "a thief changes a line of an epoch before hers and signs it with her key",
        act: |it| {
            let mut lines = it.lines("gw1");
            let (key, line) = (it.key("gw1", 3), it.segment("gw1", 5));
            lines[4] = sign(&key, &Line { site: "elsewhere".into(), key: it.segment("gw1", 9).key, ..line });
            it.write("gw1", &lines);
        },
        verify: 3,
        find: Found { exit: 3, rows: [ROWS, LEFT] },
    },
    Attack {
        name: "a thief goes on after the line that the gateway is trusted until",
        act: |it| {
            it.seal_next("gw1", 37);
            it.verify_with("--trusted-until", "gw1:11");
        },
        verify: 0,
        find: Found { exit: 0, rows: [LEFT + ROWS, LEFT] },
    },
    Attack {
        name: "a thief writes the lines of her epoch again without a deletion, and a checkpoint was kept",
        act: |it| {
            let lines = it.lines("gw1");
            it.write("gw1", &lines[..9]);
            it.append_event("gw1", &it.key("gw1", 3), &moment(36), Event::Policy("flows=31d".parse().unwrap()));
            segment_of(&lines[10]).files.iter().for_each(|file| fs::remove_file(it.path(&file.path)).unwrap());
            let early = it.root().join("gw1/early-checkpoint").display().to_string();
            it.verify_with("--checkpoint", early);
        },
        verify: 3,
        find: Found { exit: 3, rows: [LEFT - ROWS, LEFT] },
    },
    Attack {
        name: "a thief names the hash of a key that is not the segment's",
        act: |it| {
            let lines = it.lines("gw1");
            let mut line = it.segment("gw1", 11);
            line.files.iter_mut().for_each(|file| file.key = Some("0".repeat(64)));
            it.write("gw1", &lines[..10]);
            it.append_segment("gw1", &it.key("gw1", 3), line);
        },
        verify: 0,
        find: ONE_GONE,
    },
    Attack {
        name: "a thief names a deletion twice",
        act: |it| it.append_event("gw1", &it.key("gw1", 3), &moment(40), deleted(&it.flows("gw1", 1))),
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief states a new format version after which old rules would apply",
        act: |it| it.append_segment("gw1", &it.key("gw1", 3), Line { format: FORMAT + 2, ..empty_segment(it, 37) }),
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief ends a segment before it began, and back-dates the next",
        act: |it| {
            let (key, long_ago_ns) = (it.key("gw1", 3), moment(-200).wall_ns);
            it.append_segment("gw1", &key, Line { to_ns: long_ago_ns, ..empty_segment(it, 37) });
            let (from_ns, to_ns) = (long_ago_ns, long_ago_ns + 300 * SECOND_NS);
            it.append_segment("gw1", &key, Line { sequence: 8, from_ns, to_ns, ..empty_segment(it, 37) });
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief back-dates by a second a line",
        act: |it| {
            let (key, line) = (it.key("gw1", 3), empty_segment(it, 37));
            for number in 0..20 {
                let from_ns = line.from_ns - number * SECOND_NS;
                let sequence = line.sequence + u64::try_from(number).unwrap();
                it.append_segment("gw1", &key, Line { sequence, from_ns, to_ns: from_ns, ..line.clone() });
            }
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief goes back to a boot that had ended",
        act: |it| {
            let (key, policy) = (it.key("gw1", 3), || Event::Policy("flows=30d".parse().unwrap()));
            let clock = ClockEvidence { boot: "boot-2".into(), boottime_ns: SECOND_NS, synchronised: false };
            it.append_event("gw1", &key, &Moment { clock: Some(clock), ..moment(37) }, policy());
            let back = Moment { wall_ns: moment(38).wall_ns, ..moment(20) };
            it.append_event("gw1", &key, &back, policy());
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief writes before her boot began",
        act: |it| {
            let clock = ClockEvidence { boot: "boot-2".into(), boottime_ns: -5, synchronised: false };
            let now = Moment { clock: Some(clock), ..moment(37) };
            it.append_event("gw1", &it.key("gw1", 3), &now, Event::Policy("flows=30d".parse().unwrap()));
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief writes at a time before 1970",
        act: |it| {
            let now = Moment { wall_ns: i64::MIN, ..moment(37) };
            it.append_event("gw1", &it.key("gw1", 3), &now, Event::Policy("flows=30d".parse().unwrap()));
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief begins an epoch of the key in use",
        act: |it| {
            let key = it.key("gw1", 3);
            let public = hotspot_archive::manifest::to_hex(key.verifying_key().as_bytes());
            it.append_event("gw1", &key, &moment(37), Event::Epoch { epoch: 4, public });
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief begins an epoch of a key by which anybody signs",
        act: |it| {
            let public = format!("01{}", "0".repeat(62));
            it.append_event("gw1", &it.key("gw1", 3), &moment(37), Event::Epoch { epoch: 4, public });
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief writes a line with spaces",
        act: |it| it.append_spelled(empty_segment(it, 37), |line| line.replacen(",\"site\"", ", \"site\"", 1)),
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief writes the fields of a line in another order",
        act: |it| {
            it.append_spelled(empty_segment(it, 37), |line| {
                let first = "\"gateway\":\"gw1\",";
                format!("{},{}}}", line.replacen(first, "", 1).trim_end_matches('}'), first.trim_end_matches(','))
            });
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief names a field twice",
        act: |it| {
            it.append_spelled(empty_segment(it, 37), |line| {
                line.replacen("\"sequence\":", "\"sequence\":9,\"sequence\":", 1)
            });
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief adds a field that nobody knows",
        act: |it| {
            it.append_spelled(empty_segment(it, 37), |line| format!("{},\"more\":[]}}", line.trim_end_matches('}')));
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief signs a line that has a signature already",
        act: |it| {
            it.append_spelled(empty_segment(it, 37), |line| {
                format!("{},\"signature\":\"{}\"}}", line.trim_end_matches('}'), "0".repeat(128))
            });
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief writes a number with a fraction",
        act: |it| it.append_spelled(empty_segment(it, 37), |line| line.replacen("\"format\":3", "\"format\":3.0", 1)),
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief holds what is no range",
        act: |it| {
            let hold = Event::Hold { case: "C-2".into(), sequences: vec![(5, 1)] };
            it.append_event("gw1", &it.key("gw1", 3), &moment(37), hold);
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief names a root over rows that is none",
        act: |it| it.change_last(|line| line.files.iter_mut().for_each(|file| file.rows_root = Some("zz".into()))),
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief names an index without its head",
        act: |it| it.change_last(|line| line.files.iter_mut().for_each(|file| file.head = None)),
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief seals at a site that has no name",
        act: |it| {
            let line = Line { site: "../x".into(), ..empty_segment(it, 37) };
            it.append_segment("gw1", &it.key("gw1", 3), line);
        },
        verify: 3,
        find: Found { exit: 3, ..ALL },
    },
    Attack {
        name: "a thief signs a checkpoint that says another sequence",
        act: |it| {
            let key = it.key("gw1", 3);
            it.verify_with_log(|kept| {
                let (head, _) = kept.rsplit_once(",\"signature\"").unwrap();
                let forged = head.replacen("\"sequence\":6", "\"sequence\":5", 1) + "}";
                sign_text(&key, &forged).into_bytes()
            });
        },
        verify: 3,
        find: ALL,
    },
];

pub(super) fn segment_of(text: &str) -> Line {
    match parse(text).unwrap().record {
        Record::Segment(line) => line,
        Record::Event(_) => panic!("that is no line about a sequence: {text}"),
    }
}
