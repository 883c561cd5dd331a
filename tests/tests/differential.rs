//! What the agent records of a capture is what tshark reads in it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hotspot_tests::cable::Cable;
use hotspot_tests::captures::{self, reaches_tc};

#[test]
fn every_capture_is_recorded_as_tshark_reads_it() {
    let cable = Cable::new().unwrap();
    let captures = captures::all();
    assert!(captures.len() >= 30, "{}", captures.len());
    let mut wrong = Vec::new();
    for capture in captures {
        let frames: Vec<Vec<u8>> = capture.frames.into_iter().filter(|frame| reaches_tc(frame)).collect();
        let (told, recorded) = cable.compare(&frames, "tc").unwrap();
        assert_eq!(told.packets(), frames.len() as u64, "tshark read all of {}: {told:?}", capture.name);
        wrong.extend(told.differences(&recorded).iter().map(|difference| format!("{}: {difference}", capture.name)));
    }
    assert_eq!(wrong, Vec::<String>::new(), "{}", wrong.join("\n"));
}

/// With a tag in the frame, where XDP sees it, and in the packet's metadata, where tc does.
#[test]
fn every_hook_records_all_captures_alike() {
    let cable = Cable::new().unwrap();
    let all: Vec<Vec<u8>> = captures::all().into_iter().flat_map(|capture| capture.frames).collect();
    let seen_by_tc: Vec<Vec<u8>> = all.iter().filter(|frame| reaches_tc(frame)).cloned().collect();
    for (hook, frames) in [("xdp", &all), ("xdpgeneric", &all), ("tc", &seen_by_tc), ("clsact", &seen_by_tc)] {
        let (told, recorded) = cable.compare(frames, hook).unwrap();
        let differences = told.differences(&recorded);
        assert_eq!(differences, Vec::<String>::new(), "{hook}: {}", differences.join("\n"));
    }
}
