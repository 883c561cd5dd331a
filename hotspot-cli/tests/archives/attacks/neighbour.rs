//! Another gateway of the same archive, which has a key and a chain of its own.

use std::fs;

use hotspot_archive::chain::{Event, Line};

use super::world::{LEFT, ROWS, deleted, entry_of, moment};
use super::{Attack, Found};

const ALL: Found = Found { exit: 0, rows: [LEFT, LEFT] };
const ALL_BUT_DAMAGED: Found = Found { exit: 3, ..ALL };

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "a gateway deletes a file of its neighbour",
        act: |it| it.append_event("gw2", &it.key("gw2", 3), &moment(90), deleted(&it.flows("gw1", 9))),
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a gateway names a file of its neighbour as its own",
        act: |it| {
            let files = vec![it.flows("gw1", 11)];
            let (last, now) = (it.segment("gw2", 11), moment(37));
            let (from_ns, to_ns, sealed_ns) = (now.wall_ns, now.wall_ns + 1, now.wall_ns + 2);
            let line = Line { sequence: 7, from_ns, to_ns, sealed_ns, files, clock: now.clock, ..last };
            it.append_segment("gw2", &it.key("gw2", 3), line);
        },
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a gateway names a file of its neighbour and deletes it later",
        act: |it| {
            let file = it.flows("gw1", 11);
            let (last, now) = (it.segment("gw2", 11), moment(37));
            let (from_ns, to_ns, sealed_ns) = (now.wall_ns, now.wall_ns + 1, now.wall_ns + 2);
            let files = vec![file.clone()];
            let line = Line { sequence: 7, from_ns, to_ns, sealed_ns, files, clock: now.clock, ..last };
            it.append_segment("gw2", &it.key("gw2", 3), line);
            it.append_event("gw2", &it.key("gw2", 3), &moment(90), deleted(&file));
        },
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a gateway writes into the chain of its neighbour",
        act: |it| it.append_event("gw1", &it.key("gw2", 3), &moment(90), deleted(&it.flows("gw1", 9))),
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a gateway says in its own chain that a line is of its neighbour",
        act: |it| {
            let line = it.event("gw2", "gw1", &it.key("gw2", 3), &moment(90), deleted(&it.flows("gw1", 9)));
            it.append_text("gw2", line);
        },
        verify: 3,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a gateway puts its own chain into the place of its neighbour's",
        act: |it| it.write("gw1", &it.lines("gw2")),
        verify: 3,
        find: Found { exit: 3, rows: [0, LEFT] },
    },
    Attack {
        name: "a gateway puts its own segment into the place of its neighbour's",
        act: |it| {
            fs::copy(it.path(&it.flows("gw2", 9).path), it.path(&it.flows("gw1", 9).path)).unwrap();
        },
        verify: 3,
        find: Found { exit: 3, rows: [LEFT - ROWS, LEFT] },
    },
    Attack {
        name: "a gateway signs for a segment that says that it is of its neighbour",
        act: |it| {
            let (last, now) = (it.segment("gw2", 11), moment(37));
            let (path, entry) = (it.flows("gw2", 11).path, it.flows("gw2", 11));
            let path = path.replace("0000000006", "0000000007").replace("2025-02-06", "2025-02-07");
            fs::create_dir_all(it.path(&path).parent().unwrap()).unwrap();
            fs::copy(it.path(&it.flows("gw1", 11).path), it.path(&path)).unwrap();
            let files = vec![entry_of(&it.archive(), &entry, &path)];
            let (from_ns, to_ns, sealed_ns) = (now.wall_ns, now.wall_ns + 1, now.wall_ns + 2);
            let line = Line { sequence: 7, from_ns, to_ns, sealed_ns, files, clock: now.clock, ..last };
            it.append_segment("gw2", &it.key("gw2", 3), line);
        },
        verify: 0,
        find: ALL_BUT_DAMAGED,
    },
    Attack {
        name: "a gateway lifts its own hold, and its neighbour's stays",
        act: |it| it.append_event("gw2", &it.key("gw2", 3), &moment(40), Event::Lifted { case: "C-1".into() }),
        verify: 0,
        find: ALL,
    },
    Attack {
        name: "a gateway's checkpoint is given for its neighbour",
        act: |it| {
            let text = fs::read_to_string(it.root().join("gw2/checkpoint")).unwrap();
            let path = it.root().join("forged");
            fs::write(&path, text.replace("\"gateway\":\"gw2\"", "\"gateway\":\"gw1\"")).unwrap();
            it.verify_with("--checkpoint", path.display().to_string());
        },
        verify: 3,
        find: ALL,
    },
];
