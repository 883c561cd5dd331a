//! An hour of a large venue's flows, the same for the same seed: what an archive is measured with.
//!
//! 2 000 clients with random and with registered MACs, most of them logged in, on IPv4 behind one public address and on IPv6, of
//! unequal diligence; peers by Zipf's law; names asked, then bursts of TCP and QUIC; sizes and lengths with heavy tails. Starts are
//! precise, ends are a multiple of the kernel's tick behind them, as the agent records them. A flow that lasts beyond the
//! rotation has one row per segment under one id. Ports survive translation unless taken, as netfilter does it.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "numbers drawn at random are cut to the range they are needed in"
)]

mod clients;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use hotspot_core::record::{EndReason, FlowRecord, NatState, PublicEndpoint};
use hotspot_tests::random::{Random, Zipf};

use clients::Client;

const SECOND_NS: i64 = 1_000_000_000;
/// 2026-11-24T10:00:00Z.
pub(crate) const BEGIN_NS: i64 = 1_795_514_400 * SECOND_NS;
const ROTATE_NS: i64 = 300 * SECOND_NS;
pub(crate) const SEGMENTS: usize = 12;
/// A tick of a kernel with `CONFIG_HZ=250`.
const TICK_NS: i64 = 4_000_000;
const PEERS: u32 = 200_000;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// What a flow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Names,
    Quic,
    Web,
    OtherTcp,
    OtherUdp,
    Ping,
}

/// Makes the rows of one segment after the other, as attribution and translation left them.
pub(crate) struct Traffic {
    random: Random,
    clients: Vec<Client>,
    diligence: Zipf,
    peers: Zipf,
    peer_ips: Vec<(IpAddr, IpAddr)>,
    interface: Arc<str>,
    /// Rows there are to make.
    left: u64,
    segment: usize,
    /// What goes on from the segment before.
    going_on: Vec<FlowRecord>,
    /// Public ports in use towards a peer, in this segment.
    taken: HashSet<(u8, u16, IpAddr, u16)>,
}

impl Traffic {
    pub(crate) fn new(seed: u64, rows: u64) -> Self {
        let mut random = Random::new(seed);
        let clients = clients::make(&mut random);
        let diligence = Zipf::new(u32::try_from(clients.len()).unwrap_or(u32::MAX), 0.7);
        let peer_ips = (0..PEERS).map(|_| (any_ipv4(&mut random), any_ipv6(&mut random))).collect();
        Self {
            random,
            clients,
            diligence,
            peers: Zipf::new(PEERS, 1.0),
            peer_ips,
            interface: "br-lan".into(),
            left: rows,
            segment: 0,
            going_on: Vec::new(),
            taken: HashSet::new(),
        }
    }

    /// The rows of the next segment, in the order of a segment but for flow ids, which continue those of the segment before where
    /// a flow does; `None` after the last.
    pub(crate) fn next_segment(&mut self) -> Option<Vec<FlowRecord>> {
        if self.segment == SEGMENTS {
            return None;
        }
        self.taken.clear();
        let began_ns = BEGIN_NS + self.segment as i64 * ROTATE_NS;
        let wanted = usize::try_from(self.left / (SEGMENTS - self.segment) as u64).unwrap_or(usize::MAX);
        let mut rows: Vec<FlowRecord> = Vec::with_capacity(wanted);
        let is_last = self.segment + 1 == SEGMENTS;
        for row in std::mem::take(&mut self.going_on) {
            self.add(&mut rows, row, began_ns, is_last);
        }
        rows.truncate(wanted);
        while rows.len() < wanted {
            self.burst(&mut rows, wanted, began_ns, is_last);
        }
        self.left -= rows.len() as u64;
        rows.sort_by_key(|row| (row.client_mac, row.client_ip, row.protocol, row.peer_port, row.start_ns));
        self.segment += 1;
        for (ordinal, row) in rows.iter_mut().enumerate().filter(|(_, row)| row.flow_id == 0) {
            row.flow_id = (self.segment as u64) << 32 | ordinal as u64;
        }
        let ids: HashMap<_, _> = rows
            .iter()
            .map(|row| ((row.client_ip, row.client_port, row.peer_ip, row.peer_port), row.flow_id))
            .collect();
        for row in &mut self.going_on {
            row.flow_id = ids.get(&(row.client_ip, row.client_port, row.peer_ip, row.peer_port)).copied().unwrap_or(0);
        }
        Some(rows)
    }

    /// What one client opens at once: a page and what is on it.
    fn burst(&mut self, rows: &mut Vec<FlowRecord>, wanted: usize, began_ns: i64, is_last: bool) {
        let client = self.diligence.pick(&mut self.random);
        let mut at_ns = began_ns + self.random.below(ROTATE_NS as u64) as i64;
        let flows = 1 + self.random.exponential(7.0) as usize;
        for _ in 0..flows {
            if rows.len() >= wanted || at_ns >= began_ns + ROTATE_NS {
                return;
            }
            let row = self.flow(client, at_ns);
            self.add(rows, row, began_ns, is_last);
            at_ns += self.random.exponential(0.3e9) as i64;
        }
    }

    /// Adds a row; where it lasts beyond the rotation, what is left of it waits for the next segment.
    fn add(&mut self, rows: &mut Vec<FlowRecord>, mut row: FlowRecord, began_ns: i64, is_last: bool) {
        let until_ns = began_ns + ROTATE_NS;
        if row.end_ns < until_ns || row.packets_out < 2 || is_last {
            rows.push(row);
            return;
        }
        let share = (until_ns - row.start_ns) as f64 / (row.end_ns - row.start_ns) as f64;
        let part = |count: u64| ((count as f64 * share) as u64).clamp(1, count.max(2) - 1);
        let mut rest = row.clone();
        (row.packets_out, row.bytes_out) = (part(row.packets_out), part(row.bytes_out));
        (row.packets_in, row.bytes_in) =
            (row.packets_in.min(part(row.packets_in)), row.bytes_in.min(part(row.bytes_in)));
        rest.packets_out -= row.packets_out;
        rest.bytes_out -= row.bytes_out;
        rest.packets_in -= row.packets_in;
        rest.bytes_in -= row.bytes_in;
        row.end_ns = row.start_ns + (until_ns - row.start_ns - 1) / TICK_NS * TICK_NS;
        rest.start_ns = (until_ns + self.random.below(SECOND_NS as u64) as i64).min(rest.end_ns);
        row.end_reason = EndReason::Active;
        row.tcp_flags_out = row.tcp_flags_out.map(|_| 0x1a);
        row.tcp_flags_in = row.tcp_flags_in.map(|_| 0x1a);
        self.going_on.push(rest);
        rows.push(row);
    }

    fn flow(&mut self, client: usize, start_ns: i64) -> FlowRecord {
        let random = &mut self.random;
        let purpose = match random.below(1000) {
            0..220 => Use::Names,
            220..480 => Use::Quic,
            480..900 => Use::Web,
            900..945 => Use::OtherTcp,
            945..980 => Use::OtherUdp,
            _ => Use::Ping,
        };
        let client = &self.clients[client];
        let is_v6 = client.ipv6.is_some() && random.chance(0.45);
        let client_ip = client.ipv6.filter(|_| is_v6).unwrap_or(client.ipv4);
        let peer = self.peer_ips[self.peers.pick(random)];
        let peer = if is_v6 { peer.1 } else { peer.0 };
        let resolver: IpAddr = if is_v6 { [0x2001, 0xdb8, 20, 0, 0, 0, 0, 1].into() } else { [10, 20, 0, 1].into() };
        let peer_ip = if purpose == Use::Names && random.chance(0.8) { resolver } else { peer };
        let (protocol, peer_port) = match purpose {
            Use::Names => (UDP, 53),
            Use::Quic => (UDP, 443),
            Use::Web => (TCP, if random.chance(0.93) { 443 } else { 80 }),
            Use::OtherTcp => (TCP, *pick(random, &[5223, 5228, 993, 8080, 8443, 22, 1883, 5222])),
            Use::OtherUdp if random.chance(0.6) => (UDP, *pick(random, &[3478, 123, 19_302, 500, 4500])),
            Use::OtherUdp => (UDP, 1024 + random.below(64_000) as u16),
            Use::Ping => (if is_v6 { ICMPV6 } else { ICMP }, 0),
        };
        let client_port = 32_768 + random.below(28_232) as u16;
        let is_ping = purpose == Use::Ping;
        let (packets_out, bytes_out, packets_in, bytes_in) = sizes(random, purpose, is_v6);
        let length_ns = length_ns(random, purpose, packets_out + packets_in);
        let (flags_out, flags_in, end_reason) = match (protocol, random.below(20)) {
            (TCP, 0) => (0x02, 0x14, EndReason::EndOfFlow),
            (TCP, 1..4) => (0x1e, 0x1b, EndReason::EndOfFlow),
            (TCP, 4..7) => (0x1a, 0x1a, EndReason::Idle),
            (TCP, _) => (0x1b, 0x1b, EndReason::EndOfFlow),
            _ => (0, 0, EndReason::Idle),
        };
        let is_local = peer_ip == resolver;
        let public = (!is_v6 && !is_local).then(|| {
            let mut port = client_port;
            while !self.taken.insert((protocol, port, peer_ip, peer_port)) {
                port = 1024 + random.below(64_512) as u16;
            }
            PublicEndpoint { ip: [203, 0, 113, 7].into(), port: Some(port) }
        });
        let tcp = |flags: u8| (protocol == TCP).then_some(flags);
        let (attribution, identity) = client.identity_at(start_ns, is_v6);
        FlowRecord {
            flow_id: 0,
            start_ns,
            end_ns: start_ns + length_ns / TICK_NS * TICK_NS,
            interface: Arc::clone(&self.interface),
            vlan: Some(client.vlan),
            inner_vlan: None,
            client_mac: client.mac,
            client_ip,
            client_port: (!is_ping).then_some(client_port),
            public,
            nat: Some(if public.is_some() { NatState::Exact } else { NatState::None }),
            peer_ip: Some(peer_ip),
            peer_port: (!is_ping).then_some(peer_port),
            protocol: Some(protocol),
            icmp_type: is_ping.then_some(if is_v6 { 128 } else { 8 }),
            icmp_code: is_ping.then_some(0),
            packets_out,
            bytes_out,
            packets_in,
            bytes_in,
            tcp_flags_out: tcp(flags_out),
            tcp_flags_in: tcp(flags_in),
            end_reason,
            attribution,
            identity,
            hostname: client.hostname.clone(),
            device_vendor: client.vendor.clone(),
        }
    }
}

fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[random.below(from.len() as u64) as usize]
}

/// Packets and bytes out, packets and bytes in; with Ethernet headers.
fn sizes(random: &mut Random, purpose: Use, is_v6: bool) -> (u64, u64, u64, u64) {
    let header = if is_v6 { 62 } else { 42 };
    match purpose {
        Use::Names => {
            let packets = if random.chance(0.02) { 2 } else { 1 };
            let (question, answer) = (header + 30 + random.below(26), header + 46 + random.below(170));
            (packets, packets * question, 1, answer)
        }
        Use::Ping => {
            let packets = 1 + random.exponential(4.0) as u64;
            (packets, packets * (header + 56), packets, packets * (header + 56))
        }
        Use::OtherUdp => {
            let packets = 1 + random.pareto(1.0, 0.9).min(50_000.0) as u64;
            let bytes = packets * (header + 60) + random.below(packets * 80);
            (packets, bytes, packets, bytes + random.below(packets * 40))
        }
        Use::Quic | Use::Web | Use::OtherTcp => {
            let overhead = if purpose == Use::Quic { header + 30 } else { header + 24 };
            let asked = random.log_normal(1400.0, 0.9) as u64;
            let answered = (random.log_normal(5000.0, 1.3) + random.pareto(400.0, 1.15)).min(4e9) as u64;
            let packets_in = 4 + answered / 1380 + random.below(3);
            let packets_out = 5 + packets_in / 2 + random.below(1 + packets_in / 8);
            (packets_out, packets_out * overhead + asked, packets_in, packets_in * overhead + answered)
        }
    }
}

fn length_ns(random: &mut Random, purpose: Use, packets: u64) -> i64 {
    let length_s = match purpose {
        Use::Names => random.log_normal(0.018, 1.0),
        Use::Ping => packets as f64 / 2.0 - 1.0 + random.log_normal(0.02, 0.6),
        Use::OtherUdp => random.log_normal(1.0, 2.0),
        Use::Quic | Use::Web | Use::OtherTcp => random.log_normal(4.0, 1.8),
    };
    (length_s.clamp(0.0, 3000.0) * SECOND_NS as f64) as i64
}

fn any_ipv4(random: &mut Random) -> IpAddr {
    // Hosts lie together in the networks of a few large providers, and everywhere.
    let network = if random.chance(0.7) { random.below(400).wrapping_mul(0x0004_5d9f) } else { random.next() };
    let [_, _, _, _, a, b, c, _] = network.to_be_bytes();
    [1 + a % 222, b, c, random.next() as u8].into()
}

fn any_ipv6(random: &mut Random) -> IpAddr {
    let network = random.below(3000);
    let host = if random.chance(0.6) { random.below(0xffff) } else { random.next() };
    let [a, b, c, d] = [host >> 48, host >> 32, host >> 16, host].map(|part| part as u16);
    [0x2a00 + (network % 16) as u16, network as u16, (network * 7) as u16, 0, a, b, c, d].into()
}
