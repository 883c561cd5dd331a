//! Every way out of the programs: which counters, slots and records change, and that nothing else does.
//!
//! The matches over `Outcome` and `Happening` have no wildcard: a new variant does not compile before it has its case here.

use hotspot_common::{EventKind, FlowKey, Happening, Outcome, Slot};

use crate::rig::{Hook, Rig};
use crate::snapshot::{Change, Client, Counted, Maps, SlotChange, difference};
use hotspot_tests::frames::{CLIENT, CLIENT_V4, ethernet, ipv4, ipv4_between, ipv6, ipv6_between, tcp, udp};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const SYN: u8 = 0x02;
const FIN: u8 = 0x11;

/// A rig and its maps.
struct Watched {
    rig: Rig,
    maps: Maps,
}

impl Watched {
    fn new(slots_per_cpu_log2: u32, ring_bytes: u32) -> Self {
        Self::of(Rig::new(slots_per_cpu_log2, ring_bytes))
    }

    fn of(rig: Rig) -> Self {
        let maps = Maps::of(&rig);
        Self { rig, maps }
    }

    /// What one frame changes.
    fn change(&mut self, hook: Hook, frame: &[u8]) -> Change {
        let before = self.maps.take();
        self.rig.run(hook, frame);
        difference(&self.maps, &before, &self.maps.take())
    }
}

/// From a client told apart by its number, with a port of its own.
fn udp_of(client: u32, port: u16) -> Vec<u8> {
    of_client(client, ethernet(&[], IPV4, &ipv4(UDP, &[], 0, &udp(port, 53))))
}

fn tcp_of(client: u32, flags: u8) -> Vec<u8> {
    of_client(client, ethernet(&[], IPV4, &ipv4(TCP, &[], 0, &tcp(flags))))
}

fn of_client(client: u32, mut frame: Vec<u8>) -> Vec<u8> {
    frame[8..12].copy_from_slice(&client.to_be_bytes());
    frame
}

fn one(frame: &[u8]) -> Counted {
    (1, frame.len() as u64)
}

/// The key of the only slot that a change filled.
fn filled(change: &Change) -> FlowKey {
    let [SlotChange::Filled(key, _)] = change.slots[..] else { panic!("{change:?}") };
    key
}

/// Which programs a frame needs to end in an outcome.
enum Case {
    Plain,
    /// `--decapsulate`
    Decapsulating,
    /// `--client-net 192.0.2.0/24`
    Mirror,
}

/// Every way a packet ends in an outcome. `OverflowFull` needs more than a frame: see `without_any_room`.
fn ways_to(outcome: Outcome) -> Vec<(Case, Vec<u8>)> {
    let datagram = ipv4(UDP, &[], 0, &udp(5000, 53));
    let tagged = ethernet(&[1, 2, 3], IPV4, &datagram);
    let ethertypes = |types: &[u16]| types.iter().map(|kind| ethernet(&[7], *kind, &[0x42; 46])).collect::<Vec<_>>();
    let v4 = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = datagram.clone();
        change(&mut packet);
        ethernet(&[], IPV4, &packet)
    };
    let v6 = |next: u8, payload: &[u8]| ethernet(&[], IPV6, &ipv6(next, payload));
    let mut case = Case::Plain;
    let frames = match outcome {
        Outcome::Runt => {
            case = Case::Decapsulating;
            [0, 1, 13].map(|len| ethernet(&[], IPV4, &ipv4(UDP, &[], 0, &vxlan(&tagged[..len])))).to_vec()
        }
        Outcome::TruncatedVlan => [15, 17, 18, 21, 22, 25].map(|len| tagged[..len].to_vec()).to_vec(),
        Outcome::TooManyVlans => vec![tagged],
        // Too short to be copied; see `an_arp_packet`.
        Outcome::Arp => vec![ethernet(&[7], ARP, &[0x42; 20])],
        Outcome::Eapol => ethertypes(&[0x888e]),
        Outcome::Lldp => ethertypes(&[0x88cc]),
        Outcome::Pppoe => {
            let session = [0x11, 0, 0, 1, 0, 4, 0xc0, 0x21, 1, 1, 0, 4];
            let mut other_code = ethernet(&[], 0x8864, &session);
            other_code[15] = 9;
            [
                ethertypes(&[0x8863]),
                vec![ethernet(&[], 0x8864, &session), ethernet(&[], 0x8864, &session[..7]), other_code],
            ]
            .concat()
        }
        Outcome::Llc => ethertypes(&[0, 0x0026, 0x05ff]),
        Outcome::OtherEthertype => ethertypes(&[0x0600, 0x8847, 0xffff]),
        Outcome::BadIpv4 => vec![
            ethernet(&[], IPV4, &[0x45]),
            ethernet(&[], IPV4, &datagram[..19]),
            v4(&|packet| packet[0] = 0x65),
            v4(&|packet| packet[0] = 0x44),
            v4(&|packet| packet[0] = 0x4f),
            v4(&|packet| packet[2..4].copy_from_slice(&[0, 0])),
            v4(&|packet| packet[2..4].copy_from_slice(&[0, 19])),
        ],
        Outcome::BadIpv6 => {
            let mapped = |last: u8| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 20, 0, last];
            let good = ipv6(UDP, &udp(5000, 53));
            let [from_mapped, to_mapped] =
                [ipv6_between(mapped(1), [2; 16], UDP, &udp(1, 2)), ipv6_between([2; 16], mapped(1), UDP, &udp(1, 2))];
            vec![
                ethernet(&[], IPV6, &good[..39]),
                ethernet(&[], IPV6, &[&[0x45], &good[1..]].concat()),
                ethernet(&[], IPV6, &from_mapped),
                ethernet(&[], IPV6, &to_mapped),
            ]
        }
        Outcome::TruncatedExtension => vec![
            v6(60, &[]),
            v6(60, &[UDP, 0, 1]),
            v6(60, &[UDP, 9, 0, 0, 0, 0, 0, 0]),
            v6(51, &[UDP, 4, 0, 0, 0, 0, 0, 0]),
            v6(44, &[UDP, 0, 0, 0, 0, 0]),
            // The second header begins beyond what is looked at.
            v6(60, &[&[43, 255][..], &[0; 2046], &[UDP, 0, 0, 0, 0, 0, 0, 0]].concat()),
        ],
        Outcome::TooManyExtensions => vec![v6(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(9))],
        Outcome::TruncatedTransport => vec![
            ethernet(&[], IPV4, &ipv4(UDP, &[], 0, &udp(1, 2)[..3])),
            ethernet(&[], IPV4, &ipv4(TCP, &[], 0, &tcp(2)[..3])),
            ethernet(&[], IPV4, &ipv4(ICMP, &[], 0, &[8, 0, 0])),
            v6(ICMPV6, &[128, 0, 0]),
            v6(132, &[]),
            // Ports there are, but the packet says that it has ended.
            v4(&|packet| packet[3] = 22),
            v6(60, &[&[UDP, 255][..], &[0; 2046], &udp(1, 2)].concat()),
        ],
        Outcome::NoClient => {
            case = Case::Mirror;
            vec![v4(&|_| ()), v6(UDP, &udp(1, 2))]
        }
        Outcome::OverflowFull => vec![],
    };
    frames.into_iter().map(|frame| (case.again(), frame)).collect()
}

impl Case {
    fn again(&self) -> Self {
        match self {
            Self::Plain => Self::Plain,
            Self::Decapsulating => Self::Decapsulating,
            Self::Mirror => Self::Mirror,
        }
    }
}

fn vxlan(inner: &[u8]) -> Vec<u8> {
    let mut datagram = 50_000_u16.to_be_bytes().to_vec();
    datagram.extend(4789_u16.to_be_bytes());
    datagram.extend(u16::try_from(16 + inner.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0, 0x08, 0, 0, 0, 0, 0, 42, 0]);
    datagram.extend(inner);
    datagram
}

fn decapsulating() -> Watched {
    Watched::of(Rig::with(|settings| settings.decapsulate = true))
}

#[test]
fn every_outcome_changes_its_own_counter_and_nothing_else() {
    let mut plain = Watched::new(6, 4096);
    let mut decapsulating = decapsulating();
    let mut mirror = Watched::of(Rig::with(|settings| settings.client_nets = vec!["192.0.2.0/24".parse().unwrap()]));
    for outcome in Outcome::ALL.iter().copied().filter(|outcome| *outcome != Outcome::OverflowFull) {
        let ways = ways_to(outcome);
        assert!(!ways.is_empty(), "{outcome:?}");
        for (case, frame) in ways {
            let watched = match case {
                Case::Plain => &mut plain,
                Case::Decapsulating => &mut decapsulating,
                Case::Mirror => &mut mirror,
            };
            for hook in Hook::ALL.into_iter().filter(|hook| frame.len() >= shortest(*hook, &frame)) {
                let only = Change { seen: one(&frame), outcomes: vec![(outcome, one(&frame))], ..Change::default() };
                assert_eq!(watched.change(hook, &frame), only, "{hook:?} {frame:02x?}");
            }
        }
    }
}

/// What shows each happening; every scenario says all that changes.
#[test]
fn every_happening_is_counted_where_it_happens_and_nothing_else() {
    for happening in Happening::ALL {
        let changes = match happening {
            Happening::Announced => a_new_flow(),
            Happening::AnnouncementSkipped => vec![a_new_flow_while_the_ring_is_three_quarters_full()],
            Happening::Evicted => {
                vec![a_flow_that_makes_room(), a_connection_opened_anew(), counters_that_would_wrap()]
            }
            Happening::ToOverflow => {
                vec![a_new_flow_without_room(), a_restart_without_room(), a_client_that_had_its_share()]
            }
            Happening::Noticed => vec![an_arp_packet(&mut Watched::new(6, 4096))],
            Happening::NoticeSkipped => vec![an_arp_packet_of_a_device_that_says_too_much()],
        };
        for change in changes {
            assert!(change.happenings.iter().any(|(noted, _)| noted == happening), "{happening:?}: {change:?}");
        }
    }
}

/// A device asks for its gateway.
fn arp_request() -> Vec<u8> {
    let packet =
        [&[0, 1, 8, 0, 6, 4, 0, 1][..], &CLIENT, &[10, 20, 0, 14], &[0; 6], &[10, 20, 0, 1], &[0; 18]].concat();
    ethernet(&[], ARP, &packet)
}

fn an_arp_packet(watched: &mut Watched) -> Change {
    let frame = arp_request();
    let change = watched.change(Hook::Xdp, &frame);
    let expected = Change {
        seen: one(&frame),
        outcomes: vec![(Outcome::Arp, one(&frame))],
        happenings: vec![(Happening::Noticed, 1)],
        notices: 1,
        ..Change::default()
    };
    assert_eq!(change, expected);
    change
}

fn an_arp_packet_of_a_device_that_says_too_much() -> Change {
    let mut watched = Watched::new(6, 4096);
    for _ in 0..64 {
        an_arp_packet(&mut watched);
    }
    let frame = arp_request();
    let change = watched.change(Hook::Xdp, &frame);
    let expected = Change {
        seen: one(&frame),
        outcomes: vec![(Outcome::Arp, one(&frame))],
        happenings: vec![(Happening::NoticeSkipped, 1)],
        ..Change::default()
    };
    assert_eq!(change, expected);
    change
}

fn a_new_flow() -> Vec<Change> {
    let mut watched = Watched::new(6, 4096);
    let frames = [udp_of(1, 1), tcp_of(2, SYN), ethernet(&[1, 2], IPV6, &ipv6(ICMPV6, &[128, 0, 0, 0, 0, 9, 0, 1]))];
    let hooks = Hook::ALL.iter().flat_map(|hook| frames.iter().map(move |frame| (*hook, frame)));
    let mut announced = Vec::new();
    for (hook, frame) in hooks {
        // XDP and tc ingress are one direction: what one has seen the other knows.
        if hook == Hook::Ingress {
            continue;
        }
        let change = watched.change(hook, frame);
        let key = filled(&change);
        let expected = Change {
            seen: one(frame),
            happenings: vec![(Happening::Announced, 1)],
            slots: vec![SlotChange::Filled(key, one(frame))],
            ring: vec![(EventKind::Opened, key, (0, 0))],
            ..Change::default()
        };
        assert_eq!(change, expected);
        announced.push(change);
    }
    announced
}

#[test]
fn a_packet_of_a_known_flow_changes_its_slot_alone() {
    let mut watched = Watched::new(6, 4096);
    let frame = udp_of(1, 1);
    let key = filled(&watched.change(Hook::Xdp, &frame));
    for hook in [Hook::Xdp, Hook::Ingress] {
        let grown = vec![SlotChange::Grown(key, one(&frame))];
        let expected = Change { seen: one(&frame), slots: grown, ..Change::default() };
        assert_eq!(watched.change(hook, &frame), expected);
    }
    // In the next generation it has a slot of the other half, and is not announced again.
    watched.rig.drain();
    let expected = Change { seen: one(&frame), slots: vec![SlotChange::Filled(key, one(&frame))], ..Change::default() };
    assert_eq!(watched.change(Hook::Xdp, &frame), expected);
}

fn a_new_flow_while_the_ring_is_three_quarters_full() -> Change {
    let mut watched = Watched::new(10, 4096);
    // 33 records of 96 bytes are more than three quarters.
    for port in 0..33 {
        assert_eq!(watched.change(Hook::Xdp, &udp_of(u32::from(port), port)).ring.len(), 1);
    }
    let frame = udp_of(99, 99);
    let change = watched.change(Hook::Xdp, &frame);
    let expected = Change {
        seen: one(&frame),
        happenings: vec![(Happening::AnnouncementSkipped, 1)],
        slots: vec![SlotChange::Filled(filled(&change), one(&frame))],
        ..Change::default()
    };
    assert_eq!(change, expected);
    change
}

fn a_flow_that_makes_room() -> Change {
    let mut watched = Watched::new(4, 1 << 16);
    for port in 1..200 {
        let frame = udp_of(u32::from(port), port);
        let change = watched.change(Hook::Xdp, &frame);
        let [SlotChange::Replaced { before, after, counted }] = change.slots[..] else { continue };
        assert_eq!((after.client_port, counted), (port, one(&frame)));
        let expected = Change {
            seen: one(&frame),
            happenings: vec![(Happening::Announced, 1), (Happening::Evicted, 1)],
            slots: change.slots.clone(),
            ring: vec![(EventKind::Evicted, before, one(&frame)), (EventKind::Opened, after, (0, 0))],
            ..Change::default()
        };
        assert_eq!(change, expected);
        return change;
    }
    panic!("16 slots held 199 flows");
}

fn a_connection_opened_anew() -> Change {
    let mut watched = Watched::new(6, 4096);
    let (fin, syn) = (tcp_of(1, FIN), tcp_of(1, SYN));
    let key = filled(&watched.change(Hook::Xdp, &fin));
    let change = watched.change(Hook::Xdp, &syn);
    let expected = Change {
        seen: one(&syn),
        happenings: vec![(Happening::Evicted, 1)],
        slots: vec![SlotChange::Restarted(key, one(&syn))],
        ring: vec![(EventKind::Evicted, key, one(&fin))],
        ..Change::default()
    };
    assert_eq!(change, expected);
    change
}

fn counters_that_would_wrap() -> Change {
    let mut last = Change::default();
    let frame = udp_of(1, 1);
    // Packets do not wrap before bytes do: none is without bytes. The second case is the first sum that is too large by one.
    for (packets, bytes) in [(7, u32::MAX - 10), (7, u32::MAX - 45)] {
        let mut watched = Watched::new(6, 4096);
        let key = filled(&watched.change(Hook::Xdp, &frame));
        let (index, (slot, _)) = watched.maps.take().slots.pop_first().unwrap();
        watched.maps.write_slot(index, Slot { packets, bytes, ..slot });
        last = watched.change(Hook::Xdp, &frame);
        let expected = Change {
            seen: one(&frame),
            happenings: vec![(Happening::Evicted, 1)],
            slots: vec![SlotChange::Restarted(key, one(&frame))],
            ring: vec![(EventKind::Evicted, key, (packets.into(), bytes.into()))],
            ..Change::default()
        };
        assert_eq!(last, expected);
    }
    last
}

/// 16 slots and a ring of 42 records, both full of connections that have ended.
fn without_room() -> Watched {
    let mut watched = Watched::new(4, 4096);
    for client in 0..400 {
        watched.rig.run(Hook::Xdp, &tcp_of(client, FIN));
    }
    watched
}

fn a_new_flow_without_room() -> Change {
    let mut watched = without_room();
    let frame = udp_of(9999, 1);
    let change = watched.change(Hook::Xdp, &frame);
    let client = (mapped(CLIENT_V4), [2, 0, 0, 0, 0x27, 0x0f]);
    assert_eq!(change, to_overflow(&frame, client, one(&frame), vec![]));
    change
}

fn a_restart_without_room() -> Change {
    let mut watched = without_room();
    let resident = watched.maps.take().slots.into_values().next().unwrap().0;
    let client = u32::from_be_bytes(resident.key.client_mac[2..].try_into().unwrap());
    let syn = tcp_of(client, SYN);
    let change = watched.change(Hook::Xdp, &syn);
    let of_client = (resident.key.client_ip, resident.key.client_mac);
    let was = (u64::from(resident.packets), u64::from(resident.bytes));
    let restarted = vec![SlotChange::Restarted(resident.key, one(&syn))];
    assert_eq!(change, to_overflow(&syn, of_client, was, restarted));
    change
}

/// More than half of the ring is full: then a client that claimed an eighth of the slots makes room for others.
fn a_client_that_had_its_share() -> Change {
    let mut watched = Watched::new(6, 4096);
    // So many that no set has a free slot, whatever the hash.
    for port in 0..900 {
        watched.rig.run(Hook::Xdp, &udp_of(1, port));
    }
    let frame = udp_of(1, 999);
    let client = (mapped(CLIENT_V4), [2, 0, 0, 0, 0, 1]);
    let change = watched.change(Hook::Xdp, &frame);
    assert_eq!(change, to_overflow(&frame, client, one(&frame), vec![]));
    // Somebody else still gets a slot.
    let other = udp_of(2, 1);
    assert!(matches!(watched.change(Hook::Xdp, &other).slots[..], [SlotChange::Replaced { .. }]));
    change
}

fn to_overflow(frame: &[u8], client: Client, total: Counted, slots: Vec<SlotChange>) -> Change {
    Change {
        seen: one(frame),
        happenings: vec![(Happening::ToOverflow, 1)],
        slots,
        overflow: vec![(client, total)],
        ..Change::default()
    }
}

fn mapped(address: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::from(address).to_ipv6_mapped().octets()
}

#[test]
fn without_any_room_only_the_outcome_knows_the_packet() {
    let mut watched = without_room();
    for client in 1_000..67_600 {
        watched.rig.run(Hook::Xdp, &udp_of(client, 1));
    }
    // The clients of the slots were there before anything overflowed, and have no totals.
    let resident = watched.maps.take().slots.into_values().map(|(slot, _)| slot).min_by_key(|slot| slot.key.client_mac);
    let resident = u32::from_be_bytes(resident.unwrap().key.client_mac[2..].try_into().unwrap());
    for frame in [udp_of(99_999, 1), tcp_of(99_999, SYN), tcp_of(resident, SYN)] {
        let only =
            Change { seen: one(&frame), outcomes: vec![(Outcome::OverflowFull, one(&frame))], ..Change::default() };
        assert_eq!(watched.change(Hook::Xdp, &frame), only);
    }
}

/// How short a frame may be for `BPF_PROG_TEST_RUN`, which tc's programs get only with a whole IP header where the ethertype says so
/// (`net/bpf/test_run.c`).
fn shortest(hook: Hook, frame: &[u8]) -> usize {
    let ethertype = frame.get(12..14).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    match (hook, ethertype) {
        (Hook::Xdp, _) => 14,
        (Hook::Ingress | Hook::Egress, IPV4) => 14 + 20,
        (Hook::Ingress | Hook::Egress, IPV6) => 14 + 40,
        (Hook::Ingress | Hook::Egress, _) => 15,
    }
}

/// Frames of every kind the parsers know, each cut after every byte.
#[test]
fn a_frame_cut_after_any_byte_is_in_exactly_one_place() {
    let options = |next: u8| vec![next, 0, 1, 4, 0, 0, 0, 0];
    let chain =
        [&options(43)[..], &options(51), &[60, 4, 0, 0], &[7; 20], &options(44), &[TCP, 0, 0, 1, 0, 0, 0, 9], &tcp(2)];
    let quoted = ipv4_between([203, 0, 113, 7], CLIENT_V4, UDP, &udp(53, 5000));
    let quoted_v6 = ipv6_between([2; 16], hotspot_tests::frames::CLIENT_V6, UDP, &udp(53, 5000));
    let error = |kind: u8, quoted: &[u8]| [&[kind, 1, 0, 0, 0, 0, 0, 0], quoted].concat();
    let inner = ethernet(&[300], IPV4, &ipv4(TCP, &[], 0, &tcp(2)));
    let frames = [
        ethernet(&[], IPV4, &ipv4(TCP, &[1; 12], 0, &tcp(2))),
        ethernet(&[], IPV6, &ipv6(0, &chain.concat())),
        ethernet(&[100], IPV4, &ipv4(UDP, &[], 0, &udp(5000, 53))),
        ethernet(&[100, 200], IPV6, &ipv6(UDP, &udp(5000, 53))),
        ethernet(&[], IPV4, &ipv4(UDP, &[], 0x2000, &udp(5000, 53))),
        ethernet(&[], IPV4, &ipv4(UDP, &[], 2, &udp(5000, 53))),
        ethernet(&[], IPV6, &ipv6(44, &[&[UDP, 0, 0, 8, 0, 0, 0, 9][..], &udp(1, 2)].concat())),
        ethernet(&[], IPV4, &ipv4(ICMP, &[], 0, &error(3, &quoted))),
        ethernet(&[], IPV6, &ipv6(ICMPV6, &error(1, &quoted_v6))),
        ethernet(&[7], 0x8864, &[&[0x11, 0, 0, 1, 0, 42, 0, 0x21][..], &ipv4(UDP, &[], 0, &udp(5000, 53))].concat()),
        ethernet(&[], IPV4, &ipv4(UDP, &[], 0, &vxlan(&inner))),
        ethernet(&[], IPV4, &ipv4(47, &[], 0, &[&[0x20, 0, 0x65, 0x58, 0, 0, 0, 1][..], &inner].concat())),
    ];
    for mut watched in [Watched::new(10, 1 << 16), decapsulating()] {
        for (frame, hook) in frames.iter().flat_map(|frame| Hook::ALL.map(|hook| (frame, hook))) {
            for len in shortest(hook, frame)..=frame.len() {
                let cut = &frame[..len];
                let change = watched.change(hook, cut);
                let places = change.slots.len() + change.outcomes.len() + change.overflow.len();
                assert_eq!((change.seen, places), (one(cut), 1), "{hook:?} {cut:02x?}: {change:?}");
                assert_eq!(change.placed((0, 0)), one(cut), "{hook:?} {cut:02x?}: {change:?}");
            }
        }
        watched.rig.drain().assert_balanced();
    }
}
