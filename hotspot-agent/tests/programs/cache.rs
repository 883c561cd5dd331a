//! What becomes of counts: generations, evictions, full rings.

use std::collections::BTreeMap;

use aya::maps::Map;
use aya::programs::{TestRun, TestRunOptions, Xdp};
use hotspot_agent::capture::barrier::wait_for_programs;
use hotspot_agent::capture::memory::MappedArray;
use hotspot_agent::capture::object::Object;
use hotspot_common::{FlowEvent, Outcome};
use hotspot_core::fact::FlowDelta;

use crate::rig::{Drained, Rig};
use crate::snapshot::Maps;
use hotspot_tests::frames::{CLIENT, ethernet, ipv4, tcp, udp};

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

/// Packets by the client's port.
fn packets_by_port(drained: &Drained) -> BTreeMap<u16, u64> {
    let mut sums = BTreeMap::new();
    for delta in drained.evicted().iter().chain(&drained.deltas()) {
        *sums.entry(delta.key.client_port).or_default() += delta.packets;
    }
    sums
}

/// Flows are kept together as long as they are few. When they get crowded they go on in other slots, and nothing is lost or announced
/// as new in the generations after.
#[test]
fn flows_get_room_when_they_are_many_and_are_kept_together_when_they_are_few() {
    const MANY: u16 = 20_000;
    let whole = (1 << 19) - 1;
    let mut rig = Rig::new(19, 8 << 20);
    let maps = Maps::of(&rig);
    maps.settle_hash();
    let first = maps.reach();
    assert!(first < whole / 16, "a cache begins small: {first}");
    many_flows(&mut rig, 100);
    assert_eq!(maps.reach(), first, "it has room for few");
    many_flows(&mut rig, MANY);
    assert_eq!(maps.reach(), whole, "many do not fit");
    many_flows(&mut rig, MANY);
    let drained = rig.drain();
    drained.assert_balanced();
    let evicted = drained.evicted().len();
    assert!(evicted < usize::from(MANY) / 16, "{evicted} had to make room");
    let counted = |port| if port < 100 { 3 } else { 2 };
    assert_eq!(packets_by_port(&drained), (0..MANY).map(|port| (port, counted(port))).collect());

    // Those that made room last are not known; once there is room none has to. With another hash two or three may have to, because
    // their sets and those beside them are full: how many is up to the hash, which is this one in every run.
    let mut unknown = evicted;
    for round in 0..4 {
        many_flows(&mut rig, MANY);
        let drained = rig.drain();
        drained.assert_balanced();
        assert!(drained.announced() <= unknown, "{} of {unknown}, however wide the reach was", drained.announced());
        assert_eq!(packets_by_port(&drained), (0..MANY).map(|port| (port, 1)).collect());
        unknown = drained.evicted().len();
        assert_eq!(unknown, 0, "had to make room in round {round}");
    }
    let settled = maps.reach();
    assert!(settled > u32::from(MANY) && settled < whole, "{settled} of {whole}");
    assert_eq!(rig.drain().evicted().len(), 0);

    let mut reaches = vec![settled];
    for _ in 0..8 {
        many_flows(&mut rig, 10);
        assert_eq!(packets_by_port(&rig.drain()).len(), 10);
        reaches.push(maps.reach());
    }
    assert!(reaches.windows(2).all(|pair| pair[1] >= pair[0] / 2), "by half at most: {reaches:?}");
    assert_eq!(reaches.last(), Some(&first), "{reaches:?}");
}

#[test]
fn a_full_ring_makes_detail_coarser_and_loses_no_packet() {
    let mut rig = Rig::new(4, 4096);
    many_flows(&mut rig, 2000);
    let drained = rig.drain();
    drained.assert_balanced();
    let overflow: Vec<_> = drained.parts.iter().flat_map(|part| &part.overflow).collect();
    assert_eq!(overflow.len(), 1, "one client, one direction");
    assert_eq!(overflow[0].key.client_mac, CLIENT);
    let kept = drained.evicted().len() + drained.deltas().len();
    assert_eq!(usize::try_from(overflow[0].packets).unwrap() + kept, 2000);
    assert_eq!(rig.drain().parts[0].overflow.len(), 0, "a total belongs to one generation");
}

/// One client opens many flows, then others a few: nothing reads the ring.
#[test]
fn a_client_that_floods_leaves_the_others_their_detail() {
    // 64 slots, of which a client may claim 8 before others come first, and a ring of 36 records.
    let mut rig = Rig::new(6, 4096);
    let mut established = ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp(7, 53)));
    established[11] = 9;
    rig.xdp(&established);
    many_flows(&mut rig, 2000);
    let mut late = established.clone();
    for port in 100..105u16 {
        late[34..36].copy_from_slice(&port.to_be_bytes());
        rig.xdp(&late);
    }
    rig.xdp(&established);
    let drained = rig.drain();
    drained.assert_balanced();
    let overflow: Vec<_> = drained.parts.iter().flat_map(|part| &part.overflow).collect();
    assert_eq!(overflow.len(), 1, "only of the one who floods: {overflow:?}");
    assert_eq!(overflow[0].key.client_mac, CLIENT);
    let all = [drained.evicted(), drained.deltas()].concat();
    let mut others: Vec<(u16, u64)> = all
        .iter()
        .filter(|delta| delta.key.client_mac != CLIENT)
        .map(|delta| (delta.key.client_port, delta.packets))
        .collect();
    others.sort_unstable();
    others.dedup_by_key(|(port, _)| *port);
    let ports: Vec<u16> = others.iter().map(|(port, _)| *port).collect();
    assert_eq!(ports, [vec![7], (100..105).collect()].concat());
    let of_flooder: u64 = all.iter().filter(|delta| delta.key.client_mac == CLIENT).map(|delta| delta.packets).sum();
    assert_eq!(of_flooder + overflow[0].packets, 2000);
}

/// Nothing reads the ring: beyond its half only clients that had their share are turned away, and these had not.
#[test]
fn clients_of_one_network_have_shares_of_their_own() {
    let mut rig = Rig::new(6, 4096);
    let mut frame = ethernet(&[], 0x0800, &ipv4(17, &[], 0, &udp(1, 2)));
    for client in 0..200 {
        frame[29] = client;
        rig.xdp(&frame);
    }
    let drained = rig.drain();
    drained.assert_balanced();
    let records = drained.announced() + drained.evicted().len();
    assert!(records * (size_of::<FlowEvent>() + 8) > 4096 / 2, "the ring was more than half full: {records} records");
    assert!(drained.evicted().len() > 5, "{}", drained.evicted().len());
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
    let mut rounds = 0;
    for _ in 0..100 {
        state.write(0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                program.test_run(TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::default() }).unwrap()
            });
            while state.read(0) == 0 {
                std::thread::yield_now();
            }
            if state.read(0) == 2 {
                // This thread was late: nothing is shown by such a round.
                return;
            }
            wait_for_programs().unwrap();
            assert_eq!(state.read(0), 2, "it has ended");
            rounds += 1;
        });
        if rounds == 5 {
            return;
        }
    }
    panic!("only {rounds} of 100 rounds met a running program");
}
