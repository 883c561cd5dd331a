//! The straight path reads what the parser for all frames reads, or leaves the frame to it.

use aya::Ebpf;
use aya::programs::{TestRun, TestRunOptions, Xdp};
use hotspot_agent::capture::object::Object;
use hotspot_tests::frames::{ethernet, ipv4, ipv6, tcp, udp};

/// What the program `agree` answers.
const DIFFERS: u32 = 0;
const LEFT: u32 = 1;
const SAME: u32 = 2;

fn frames() -> Vec<(u32, Vec<u8>)> {
    vec![
        (SAME, ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp(5000, 53)))),
        (SAME, ethernet(&[], 0x0800, &ipv4(6, &[], 0, &tcp(0x10)))),
        (SAME, ethernet(&[], 0x0800, &ipv4(6, &[], 0, &tcp(0x12)))),
        (SAME, ethernet(&[], 0x86dd, &ipv6(17, &udp(5000, 53)))),
        (SAME, ethernet(&[], 0x86dd, &ipv6(6, &tcp(0x11)))),
        (LEFT, ethernet(&[], 0x0800, &ipv4(6, &[], 0, &tcp(0x02)))),
        (LEFT, ethernet(&[], 0x0800, &ipv4(17, &[1; 4], 0, &udp(5000, 53)))),
        (LEFT, ethernet(&[], 0x0800, &ipv4(17, &[], 0x2000, &udp(5000, 53)))),
        (LEFT, ethernet(&[], 0x0800, &ipv4(1, &[], 0, &[8, 0, 0, 0, 0, 7, 0, 1]))),
        (SAME, ethernet(&[7], 0x0800, &ipv4(17, &[], 0, &udp(5000, 53)))),
        (SAME, ethernet(&[0], 0x0800, &ipv4(6, &[], 0, &tcp(0x10)))),
        (SAME, ethernet(&[4094], 0x86dd, &ipv6(6, &tcp(0x11)))),
        (LEFT, ethernet(&[7, 8], 0x0800, &ipv4(17, &[], 0, &udp(5000, 53)))),
    ]
}

#[test]
fn the_straight_path_agrees_with_the_parser_for_all_frames() {
    let mut bench = Ebpf::load(Object::Bench.bytes().unwrap()).unwrap();
    let program: &mut Xdp = bench.program_mut("agree").unwrap().try_into().unwrap();
    program.load().unwrap();
    let ask = |frame: &[u8]| {
        program.test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() }).unwrap().return_value
    };
    for (expected, frame) in frames() {
        assert_eq!(ask(&frame), expected, "{frame:02x?}");
        for len in 14..frame.len() {
            assert_ne!(ask(&frame[..len]), DIFFERS, "cut to {len}: {frame:02x?}");
        }
        for bit in 0..frame.len() * 8 {
            let mut other = frame.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(ask(&other), DIFFERS, "bit {bit}: {frame:02x?}");
        }
    }
}
