//! What an agent of an earlier layout left is read to the end by this one.

use aya::programs::{TestRun, TestRunOptions, Xdp};
use hotspot_agent::capture::layout::Layout;
use hotspot_agent::capture::object::Object;
use hotspot_agent::capture::{Capture, CaptureError};
use hotspot_archive::entry::Entry;
use hotspot_tests::frames::{ethernet, ipv4, udp};

use crate::layouts::{self, Earlier};
use crate::rig::settings;

const FLOWS: u16 = 50;

fn send(capture: &mut Capture) {
    let program: &mut Xdp = capture.programs(0).program_mut("hotspot_xdp").unwrap().try_into().unwrap();
    for port in 0..FLOWS {
        let frame = ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp(port, 53)));
        let options = TestRunOptions { data_in: Some(&frame[..]), ..TestRunOptions::default() };
        program.test_run(options).unwrap();
    }
    // An outcome, too.
    let frame = ethernet(&[], 0x88cc, &[0; 46]);
    let options = TestRunOptions { data_in: Some(&frame[..]), ..TestRunOptions::default() };
    program.test_run(options).unwrap();
}

#[test]
fn both_generations_of_a_killed_agent_of_another_layout_are_read() {
    layouts::ALL.into_iter().for_each(check);
}

/// Killed between the flip and the flush: two generations are not on disk.
fn check((layout, programs): Earlier) {
    let settings = settings();
    let layout = Layout::of_dir(layout).unwrap();
    let mut earlier = Capture::start_as(&settings, layout, Object::Earlier(programs)).unwrap();
    earlier.load_unattached(0).unwrap();
    let dir = earlier.pins_dir().to_path_buf();
    send(&mut earlier);
    drop(earlier.drain(|_| Ok::<_, CaptureError>(())).unwrap());
    send(&mut earlier);
    drop(earlier);

    let mut capture = Capture::start(&settings).unwrap();
    capture.load_unattached(0).unwrap();
    assert!(!capture.resumed(), "its own maps are new");
    send(&mut capture);
    let (mut packets, mut seen, mut generations) = (0, 0, Vec::new());
    for remains in capture.take_earlier() {
        let drained = remains.control().drained;
        let read = remains.read_remains::<CaptureError>(drained, &[], 0, Vec::new(), 0, |entry| {
            packets += packets_in(&entry);
            if let Entry::Done(done) = entry {
                for row in &done.coverage {
                    assert!(row.balances(), "{row:?}");
                    assert!(row.outcomes.iter().any(|(label, count)| label == "lldp" && count.packets == 1), "{row:?}");
                    seen += row.seen.packets;
                }
                generations.push(done.generation);
            }
            Ok(())
        });
        read.unwrap();
    }
    assert_eq!((packets, seen, generations), (2 * u64::from(FLOWS), 2 * u64::from(FLOWS) + 2, vec![1, 2]));
    assert!(!dir.exists(), "nothing is left of the earlier agent");
    let mut own = 0;
    let read = capture.drain(|entry| {
        own += packets_in(&entry);
        Ok::<_, CaptureError>(())
    });
    read.unwrap();
    assert_eq!(own, u64::from(FLOWS), "only what was counted by the new programs");
    capture.remove_pins().unwrap();
}

fn packets_in(entry: &Entry) -> u64 {
    if let Entry::Part(part) = entry { part.deltas.iter().map(|delta| delta.packets).sum() } else { 0 }
}
