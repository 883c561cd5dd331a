//! The kernel programs themselves, run by `BPF_PROG_TEST_RUN` on frames of our own: what may change, and that nothing else does.
//!
//! Needs root and a BPF file system.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::maps::Map;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use hotspot_agent::capture::barrier::wait_for_programs;
use hotspot_agent::capture::memory::MappedArray;
use hotspot_agent::capture::object::Object;
use hotspot_agent::capture::{Capture, CaptureSettings, GenerationRead, HookChoice};
use hotspot_common::Outcome;
use hotspot_core::fact::FlowDelta;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Programs loaded under pins of their own, which are removed at the end.
struct Rig {
    capture: Capture,
}

impl Rig {
    fn new(slots_per_cpu_log2: u32, ring_bytes: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Each CPU has a cache of its own; a test that moved between them would see a flow in both.
        let mut here = CpuSet::new();
        here.set(0);
        sched_setaffinity(None, &here).unwrap();
        let instance = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let settings = CaptureSettings {
            interfaces: Vec::new(),
            hook: HookChoice::Auto,
            client_nets: Vec::new(),
            bpffs: PathBuf::from("/sys/fs/bpf"),
            instance,
            slots_per_cpu_log2,
            ring_bytes,
        };
        let mut capture = Capture::start(&settings).expect("needs root and a BPF file system at /sys/fs/bpf");
        capture.load_unattached(0).unwrap();
        Self { capture }
    }

    fn xdp(&mut self, frame: &[u8]) {
        self.xdp_repeat(frame, 1);
    }

    fn xdp_repeat(&mut self, frame: &[u8], repeat: u32) {
        let program: &mut Xdp = self.capture.loaded()[0].program_mut("hotspot_xdp").unwrap().try_into().unwrap();
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        let result = program.test_run(options).unwrap();
        assert_eq!(result.return_value, 2, "XDP_PASS");
    }

    fn tc(&mut self, name: &str, frame: &[u8]) {
        let program: &mut SchedClassifier = self.capture.loaded()[0].program_mut(name).unwrap().try_into().unwrap();
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let result = program.test_run(options).unwrap();
        assert_eq!(result.return_value.cast_signed(), -1, "TCX_NEXT");
    }

    fn drain(&mut self) -> Drained {
        let read = self.capture.drain().unwrap();
        self.capture.drained(&read);
        Drained { read }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.capture.remove_pins().unwrap();
    }
}

struct Drained {
    read: GenerationRead,
}

impl Drained {
    fn deltas(&self) -> Vec<FlowDelta> {
        self.read.parts.iter().flat_map(|part| part.deltas.iter().copied()).collect()
    }

    /// Outcomes that are not zero.
    fn outcomes(&self) -> Vec<(String, u64)> {
        self.read.done.coverage[0].outcomes.iter().map(|(label, count)| (label.clone(), count.packets)).collect()
    }

    fn announced(&self) -> usize {
        self.read.rings.batches.iter().map(|batch| batch.opened.len()).sum()
    }

    fn evicted(&self) -> Vec<FlowDelta> {
        self.read.rings.batches.iter().flat_map(|batch| batch.evicted.iter().map(|(_, delta)| *delta)).collect()
    }

    fn assert_balanced(&self) {
        let coverage = &self.read.done.coverage[0];
        assert!(coverage.balances(), "{coverage:?}");
    }
}

const CLIENT: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const GATEWAY: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfe];

fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [GATEWAY, CLIENT].concat();
    for tag in tags {
        frame.extend([0x81, 0x00]);
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ipv4(protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let total = u16::try_from(header_len + payload.len()).unwrap();
    let mut packet = vec![0x40 | u8::try_from(header_len / 4).unwrap(), 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend([10, 20, 0, 14]);
    packet.extend([203, 0, 113, 7]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14]);
    packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53]);
    packet.extend(payload);
    packet
}

fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut header = source.to_be_bytes().to_vec();
    header.extend(destination.to_be_bytes());
    header.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    header
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut header = 40_000u16.to_be_bytes().to_vec();
    header.extend(443u16.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 64, 0, 0, 0, 0]);
    header
}

fn flow(rig: &mut Rig, frame: &[u8]) -> FlowDelta {
    rig.xdp(frame);
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(drained.outcomes(), [], "no other exit");
    let deltas = drained.deltas();
    assert_eq!(deltas.len(), 1);
    assert_eq!((deltas[0].packets, deltas[0].bytes), (1, frame.len() as u64));
    deltas[0]
}

fn outcome(rig: &mut Rig, frame: &[u8]) -> String {
    rig.xdp(frame);
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(drained.deltas(), [], "no flow");
    let outcomes = drained.outcomes();
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    assert_eq!(outcomes[0].1, 1);
    outcomes[0].0.clone()
}

#[test]
fn a_udp_packet_becomes_its_flow() {
    let mut rig = Rig::new(10, 1 << 16);
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp(5000, 53)))).key;
    assert_eq!(key.client_mac, CLIENT);
    assert_eq!(key.client_ip[10..], [0xff, 0xff, 10, 20, 0, 14]);
    assert_eq!(key.peer_ip[10..], [0xff, 0xff, 203, 0, 113, 7]);
    assert_eq!((key.client_port, key.peer_port, key.protocol, key.origin), (5000, 53, 17, 0));
    assert_eq!((key.vlan, key.inner_vlan), (0, 0));
}

#[test]
fn what_the_client_gets_is_the_other_direction_of_the_same_flow() {
    let mut rig = Rig::new(10, 1 << 16);
    rig.tc("hotspot_egress", &ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp(53, 5000))));
    let drained = rig.drain();
    drained.assert_balanced();
    let key = drained.deltas()[0].key;
    assert_eq!(key.client_mac, GATEWAY, "the destination of this frame");
    assert_eq!(key.client_ip[12..], [203, 0, 113, 7]);
    assert_eq!((key.client_port, key.peer_port, key.origin), (5000, 53, 0x80));
}

#[test]
fn xdp_and_tc_make_the_same_key() {
    let mut rig = Rig::new(10, 1 << 16);
    for frame in [
        ethernet(&[], 0x0800, &ipv4(6, &[], 0, &tcp(2))),
        ethernet(&[100], 0x86dd, &ipv6(17, &udp(1, 2))),
        ethernet(&[100, 200], 0x0800, &ipv4(17, &[1, 1, 1, 1], 0, &udp(1, 2))),
    ] {
        let by_xdp = flow(&mut rig, &frame).key;
        rig.tc("hotspot_ingress", &frame);
        assert_eq!(rig.drain().deltas()[0].key, by_xdp);
    }
}

#[test]
fn ports_lie_behind_options_and_extension_headers() {
    let mut rig = Rig::new(10, 1 << 16);
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(17, &[1; 12], 0, &udp(7, 8)))).key;
    assert_eq!((key.client_port, key.peer_port), (7, 8));
    let mut chain = vec![60, 0, 1, 4, 0, 0, 0, 0];
    chain.extend([51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    chain.extend([44, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    chain.extend([17, 0, 0, 1, 0, 0, 0, 9]);
    chain.extend(udp(9, 10));
    let key = flow(&mut rig, &ethernet(&[], 0x86dd, &ipv6(0, &chain))).key;
    assert_eq!((key.client_port, key.peer_port, key.protocol), (9, 10, 17));
}

#[test]
fn later_fragments_have_no_ports() {
    let mut rig = Rig::new(10, 1 << 16);
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(17, &[], 0x2000, &udp(7, 8)))).key;
    assert_eq!((key.client_port, key.peer_port), (7, 8), "the first fragment has them");
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(17, &[], 0x0001, &udp(7, 8)))).key;
    assert_eq!((key.client_port, key.peer_port, key.protocol), (0, 0, 17));
    let mut later = vec![17, 0, 0, 8, 0, 0, 0, 9];
    later.extend(udp(7, 8));
    let key = flow(&mut rig, &ethernet(&[], 0x86dd, &ipv6(44, &later))).key;
    assert_eq!((key.client_port, key.peer_port, key.protocol), (0, 0, 17));
}

#[test]
fn tags_are_part_of_the_key_and_priority_tags_are_none() {
    let mut rig = Rig::new(10, 1 << 16);
    let inner = ipv4(17, &[], 0, &udp(1, 2));
    let tags = |delta: FlowDelta| (delta.key.vlan, delta.key.inner_vlan);
    assert_eq!(tags(flow(&mut rig, &ethernet(&[0xe064], 0x0800, &inner))), (100, 0), "priority bits are no identifier");
    assert_eq!(tags(flow(&mut rig, &ethernet(&[100, 200], 0x0800, &inner))), (100, 200));
    assert_eq!(tags(flow(&mut rig, &ethernet(&[0xe000], 0x0800, &inner))), (0, 0));
    assert_eq!(outcome(&mut rig, &ethernet(&[1, 2, 3], 0x0800, &inner)), "too_many_vlans");
}

#[test]
fn icmp_has_an_identifier_and_a_type() {
    let mut rig = Rig::new(10, 1 << 16);
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(1, &[], 0, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]))).key;
    assert_eq!((key.client_port, key.peer_port), (0x1234, 0x0800));
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(1, &[], 0, &[3, 1, 0, 0, 0x12, 0x34, 0, 1]))).key;
    assert_eq!((key.client_port, key.peer_port), (0, 0x0301));
    let key = flow(&mut rig, &ethernet(&[], 0x86dd, &ipv6(58, &[128, 0, 0, 0, 0x12, 0x34, 0, 1]))).key;
    assert_eq!((key.client_port, key.peer_port), (0x1234, 0x8000));
}

#[test]
fn other_protocols_are_flows_without_ports() {
    let mut rig = Rig::new(10, 1 << 16);
    let key = flow(&mut rig, &ethernet(&[], 0x0800, &ipv4(47, &[], 0, &[0; 8]))).key;
    assert_eq!((key.client_port, key.peer_port, key.protocol), (0, 0, 47));
}

#[test]
fn frames_that_are_not_ip_are_counted_by_name() {
    let mut rig = Rig::new(10, 1 << 16);
    for (ethertype, name) in [
        (0x0806, "arp"),
        (0x888e, "eapol"),
        (0x88cc, "lldp"),
        (0x8863, "pppoe"),
        (0x8864, "pppoe"),
        (0x0026, "llc"),
        (0x1234, "other_ethertype"),
    ] {
        assert_eq!(outcome(&mut rig, &ethernet(&[], ethertype, &[0; 46])), name);
    }
}

#[test]
fn bad_headers_are_counted_by_name() {
    let mut rig = Rig::new(10, 1 << 16);
    let good = ipv4(17, &[], 0, &udp(1, 2));
    let with = |position: usize, value: u8| {
        let mut packet = good.clone();
        packet[position] = value;
        ethernet(&[], 0x0800, &packet)
    };
    assert_eq!(outcome(&mut rig, &with(0, 0x55)), "bad_ipv4", "version 5");
    assert_eq!(outcome(&mut rig, &with(0, 0x44)), "bad_ipv4", "header of 16 bytes");
    assert_eq!(outcome(&mut rig, &with(0, 0x4f)), "bad_ipv4", "header longer than the packet");
    assert_eq!(outcome(&mut rig, &with(3, 200)), "bad_ipv4", "longer than the frame");
    assert_eq!(outcome(&mut rig, &with(3, 22)), "truncated_transport", "padding is not ports");
    let mut packet = ipv6(17, &udp(1, 2));
    packet[0] = 0x50;
    assert_eq!(outcome(&mut rig, &ethernet(&[], 0x86dd, &packet)), "bad_ipv6");
    let endless: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
    assert_eq!(outcome(&mut rig, &ethernet(&[], 0x86dd, &ipv6(60, &endless))), "too_many_extensions");
    assert_eq!(outcome(&mut rig, &ethernet(&[], 0x86dd, &ipv6(60, &[17, 9, 0, 0, 0, 0, 0, 0]))), "truncated_extension");
}

#[test]
fn a_frame_cut_anywhere_ends_in_exactly_one_place() {
    let mut rig = Rig::new(10, 1 << 16);
    let mut chain = vec![6, 0, 1, 4, 0, 0, 0, 0];
    chain.extend(tcp(2));
    for whole in [ethernet(&[100, 200], 0x0800, &ipv4(6, &[1; 8], 0, &tcp(2))), ethernet(&[], 0x86dd, &ipv6(0, &chain))]
    {
        // The kernel refuses to run XDP on less than an Ethernet header.
        for len in 14..whole.len() {
            rig.xdp(&whole[..len]);
            let drained = rig.drain();
            drained.assert_balanced();
            assert_eq!(drained.deltas().len(), 0, "cut to {len} bytes of {}", whole.len());
            assert_eq!(drained.outcomes().len(), 1, "cut to {len} bytes");
        }
    }
}

#[test]
fn a_flow_is_announced_once_and_counted_in_every_generation() {
    let mut rig = Rig::new(10, 1 << 16);
    let frame = ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp(1, 2)));
    let mut announced = 0;
    for _ in 0..5 {
        rig.xdp_repeat(&frame, 1000);
        let drained = rig.drain();
        drained.assert_balanced();
        assert_eq!(drained.deltas().len(), 1);
        assert_eq!(drained.deltas()[0].packets, 1000);
        announced += drained.announced();
    }
    assert_eq!(announced, 1, "it stayed known from generation to generation");
    assert_eq!(rig.drain().deltas().len(), 0, "a generation without packets has no deltas");
}

#[test]
fn a_connection_that_is_opened_anew_is_handed_over_first() {
    let mut rig = Rig::new(10, 1 << 16);
    for flags in [0x02, 0x10, 0x11, 0x02, 0x10] {
        rig.xdp(&ethernet(&[], 0x0800, &ipv4(6, &[], 0, &tcp(flags))));
    }
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(drained.evicted().iter().map(|delta| (delta.packets, delta.tcp_flags)).collect::<Vec<_>>(), [(3, 0x13)]);
    assert_eq!(drained.deltas().iter().map(|delta| (delta.packets, delta.tcp_flags)).collect::<Vec<_>>(), [(2, 0x12)]);
}

/// 2^32 bytes of one flow do not fit a slot.
#[test]
fn a_counter_that_would_wrap_is_handed_over_first() {
    let mut rig = Rig::new(10, 1 << 16);
    let frame = ethernet(&[], 0x0800, &ipv4(17, &[], 0, &[udp(1, 2), vec![0; 3000]].concat()));
    let repeat = 1_500_000;
    rig.xdp_repeat(&frame, repeat);
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(drained.evicted().len(), 1);
    let bytes = |deltas: &[FlowDelta]| deltas.iter().map(|delta| delta.bytes).sum::<u64>();
    assert_eq!(bytes(&drained.evicted()) + bytes(&drained.deltas()), u64::from(repeat) * frame.len() as u64);
    assert!(u32::try_from(bytes(&drained.evicted())).is_ok());
}

fn many_flows(rig: &mut Rig, flows: u16) {
    for port in 0..flows {
        rig.xdp(&ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp(port, 53))));
    }
}

#[test]
fn a_full_cache_hands_flows_over_and_loses_none() {
    let mut rig = Rig::new(4, 1 << 20);
    many_flows(&mut rig, 2000);
    let drained = rig.drain();
    drained.assert_balanced();
    assert!(drained.evicted().len() > 1900, "16 slots cannot hold 2000 flows");
    let mut ports: Vec<u16> =
        drained.evicted().iter().chain(&drained.deltas()).map(|delta| delta.key.client_port).collect();
    ports.sort_unstable();
    assert_eq!(ports, (0..2000).collect::<Vec<u16>>());
}

#[test]
fn a_full_ring_makes_detail_coarser_and_loses_no_packet() {
    let mut rig = Rig::new(4, 4096);
    many_flows(&mut rig, 2000);
    let drained = rig.drain();
    drained.assert_balanced();
    let overflow: Vec<_> = drained.read.parts.iter().flat_map(|part| &part.overflow).collect();
    assert_eq!(overflow.len(), 1, "one client, one direction");
    assert_eq!(overflow[0].key.client_mac, CLIENT);
    let kept = drained.evicted().len() + drained.deltas().len();
    assert_eq!(usize::try_from(overflow[0].packets).unwrap() + kept, 2000);
    assert_eq!(rig.drain().read.parts[0].overflow.len(), 0, "a total belongs to one generation");
}

#[test]
fn clients_beyond_the_overflow_map_are_an_outcome() {
    let mut rig = Rig::new(4, 4096);
    let mut frame = ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp(1, 2)));
    let clients = 66_500u32;
    for client in 0..clients {
        frame[8..12].copy_from_slice(&client.to_be_bytes());
        rig.xdp(&frame);
    }
    let drained = rig.drain();
    drained.assert_balanced();
    assert_eq!(drained.read.done.coverage[0].seen.packets, u64::from(clients));
    let outcomes = drained.outcomes();
    assert!(
        outcomes.iter().any(|(label, packets)| label == Outcome::OverflowFull.label() && *packets > 0),
        "{outcomes:?}"
    );
}

/// A program that runs for long is still running when the wait begins, and has ended when it returns: a wait that did not
/// wait would find it running.
#[test]
fn the_wait_after_a_flip_waits_for_programs_that_are_running() {
    let mut bench = aya::Ebpf::load(Object::Bench.bytes().unwrap()).unwrap();
    let Some(Map::Array(state)) = bench.map("LINGERING") else { panic!("no array LINGERING") };
    let state = MappedArray::<u64>::new(state.fd(), 1).unwrap();
    let program: &mut Xdp = bench.program_mut("linger").unwrap().try_into().unwrap();
    program.load().unwrap();
    for _ in 0..5 {
        state.write(0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                program.test_run(TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::default() }).unwrap()
            });
            while state.read(0) == 0 {
                std::thread::yield_now();
            }
            assert_eq!(state.read(0), 1, "it is running");
            wait_for_programs().unwrap();
            assert_eq!(state.read(0), 2, "it has ended");
        });
    }
}
