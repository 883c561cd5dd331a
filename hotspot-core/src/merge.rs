//! Merging: what CPUs, directions, generations and evictions counted apart becomes one flow again.
//!
//! Guarantees that packets and bytes of the rows are exactly those of the deltas, and that the result does not depend on the
//! order in which deltas arrive. Holds 88 bytes per key, direction, CPU and generation until it is finished.

use hotspot_common::{Direction, FlowKey};

use crate::WallNs;
use crate::fact::FlowDelta;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

const SECOND: WallNs = 1_000_000_000;

/// After how long without a packet a flow has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleTimeouts {
    pub tcp_ns: WallNs,
    pub udp_ns: WallNs,
    pub icmp_ns: WallNs,
    pub other_ns: WallNs,
}

impl Default for IdleTimeouts {
    fn default() -> Self {
        Self { tcp_ns: 300 * SECOND, udp_ns: 60 * SECOND, icmp_ns: 30 * SECOND, other_ns: 60 * SECOND }
    }
}

impl IdleTimeouts {
    #[must_use]
    pub const fn of(&self, protocol: u8) -> WallNs {
        match protocol {
            TCP => self.tcp_ns,
            UDP => self.udp_ns,
            ICMP | ICMPV6 => self.icmp_ns,
            _ => self.other_ns,
        }
    }
}

/// Packets, bytes and flags of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub packets: u64,
    pub bytes: u64,
    pub tcp_flags: u8,
}

/// A flow, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// See [`flow_key`].
    pub key: FlowKey,
    pub first_ns: WallNs,
    pub last_ns: WallNs,
    pub out: Counted,
    pub inward: Counted,
}

/// A flow that goes on: carried from one segment to the next so that it keeps its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFlow {
    pub flow_id: u64,
    /// See [`flow_key`].
    pub key: FlowKey,
    pub last_ns: WallNs,
    pub flags_out: u8,
    pub flags_in: u8,
}

/// The key both directions of a flow share: direction *out*, and the type of an ICMP reply replaced by that of its request.
#[must_use]
pub fn flow_key(key: &FlowKey) -> FlowKey {
    let mut key = *key;
    key.origin = FlowKey::origin(key.interface(), Direction::Out);
    let request = match (key.protocol, key.peer_port >> 8) {
        // RFC 792 and RFC 950: echo, timestamp, information, address mask; RFC 4443: echo.
        (ICMP, 0) => Some(8),
        (ICMP, reply @ (14 | 16 | 18)) => Some(reply - 1),
        (ICMPV6, 129) => Some(128),
        _ => None,
    };
    if let Some(request) = request {
        key.peer_port = request << 8 | key.peer_port & 0xff;
    }
    key
}

/// Whether both sides said FIN, or one said RST.
#[must_use]
pub const fn has_ended(flags_out: u8, flags_in: u8) -> bool {
    (flags_out | flags_in) & RST != 0 || flags_out & flags_in & FIN != 0
}

/// Whether a delta begins a new connection after one that said FIN or RST: the client's SYN is in it.
const fn reopens(before: u8, part: &Part) -> bool {
    before & (FIN | RST) != 0 && part.tcp_flags & SYN != 0 && matches!(part.direction, Direction::Out)
}

/// A delta under the key of its flow.
#[derive(Clone, Copy, Debug)]
struct Part {
    key: FlowKey,
    first_ns: WallNs,
    last_ns: WallNs,
    packets: u64,
    bytes: u64,
    tcp_flags: u8,
    direction: Direction,
}

/// Collects deltas until [`Self::finish`].
#[derive(Debug, Default)]
pub struct Merger {
    parts: Vec<Part>,
}

impl Merger {
    pub fn add(&mut self, delta: FlowDelta) {
        self.parts.push(Part {
            key: flow_key(&delta.key),
            first_ns: delta.first_ns,
            last_ns: delta.last_ns,
            packets: delta.packets,
            bytes: delta.bytes,
            tcp_flags: delta.tcp_flags,
            direction: delta.key.direction(),
        });
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The keys of everything collected.
    pub fn keys(&self) -> impl Iterator<Item = FlowKey> {
        self.parts.iter().map(|part| part.key)
    }

    /// The flows, by key and time.
    #[must_use]
    pub fn finish(mut self, timeouts: &IdleTimeouts) -> Vec<Flow> {
        // Everything a part holds takes part, so that equal input in any order gives equal output.
        self.parts.sort_unstable_by_key(|part| {
            (*part.key.words(), part.first_ns, part.last_ns, part.direction, part.tcp_flags, part.packets, part.bytes)
        });
        let mut flows: Vec<Flow> = Vec::new();
        for part in &self.parts {
            let goes_on = flows.last().is_some_and(|flow| {
                flow.key == part.key
                    && part.first_ns - flow.last_ns <= timeouts.of(part.key.protocol)
                    && !(part.key.protocol == TCP
                        && part.first_ns >= flow.last_ns
                        && reopens(flow.out.tcp_flags | flow.inward.tcp_flags, part))
            });
            match flows.last_mut() {
                Some(flow) if goes_on => flow.join(part),
                Some(_) | None => {
                    let mut flow = Flow {
                        key: part.key,
                        first_ns: part.first_ns,
                        last_ns: part.last_ns,
                        out: Counted::default(),
                        inward: Counted::default(),
                    };
                    flow.join(part);
                    flows.push(flow);
                }
            }
        }
        flows
    }
}

impl Flow {
    fn join(&mut self, part: &Part) {
        self.first_ns = self.first_ns.min(part.first_ns);
        self.last_ns = self.last_ns.max(part.last_ns);
        let counted = match part.direction {
            Direction::Out => &mut self.out,
            Direction::In => &mut self.inward,
        };
        counted.packets += part.packets;
        counted.bytes += part.bytes;
        counted.tcp_flags |= part.tcp_flags;
    }

    /// Whether this flow is the one that was open when the last segment was sealed.
    #[must_use]
    pub fn continues(&self, open: &OpenFlow, timeouts: &IdleTimeouts) -> bool {
        let before = open.flags_out | open.flags_in;
        let reopened = before & (FIN | RST) != 0 && self.out.tcp_flags & SYN != 0;
        self.key == open.key && self.first_ns - open.last_ns <= timeouts.of(self.key.protocol) && !reopened
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACK: u8 = 0x10;

    fn delta(port: u16, direction: Direction, first_s: i64, last_s: i64, tcp_flags: u8) -> FlowDelta {
        let key = FlowKey {
            client_port: port,
            peer_port: 443,
            protocol: TCP,
            origin: FlowKey::origin(0, direction),
            ..FlowKey::default()
        };
        FlowDelta { key, first_ns: first_s * SECOND, last_ns: last_s * SECOND, packets: 1, bytes: 60, tcp_flags }
    }

    fn merge(deltas: impl IntoIterator<Item = FlowDelta>) -> Vec<Flow> {
        let mut merger = Merger::default();
        deltas.into_iter().for_each(|delta| merger.add(delta));
        merger.finish(&IdleTimeouts::default())
    }

    #[test]
    fn both_directions_are_one_flow() {
        let flows = merge([delta(1, Direction::In, 2, 3, SYN | ACK), delta(1, Direction::Out, 1, 4, SYN)]);
        assert_eq!(flows.len(), 1);
        assert_eq!((flows[0].out.packets, flows[0].inward.packets), (1, 1));
        assert_eq!((flows[0].first_ns, flows[0].last_ns), (SECOND, 4 * SECOND));
        assert_eq!((flows[0].out.tcp_flags, flows[0].inward.tcp_flags), (SYN, SYN | ACK));
    }

    #[test]
    fn a_silence_longer_than_the_time_out_ends_a_flow() {
        assert_eq!(merge([delta(1, Direction::Out, 0, 1, ACK), delta(1, Direction::Out, 301, 302, ACK)]).len(), 1);
        assert_eq!(merge([delta(1, Direction::Out, 0, 1, ACK), delta(1, Direction::Out, 302, 303, ACK)]).len(), 2);
    }

    #[test]
    fn a_connection_opened_anew_is_another_flow() {
        let deltas = [
            delta(1, Direction::Out, 0, 1, SYN | ACK | FIN),
            delta(1, Direction::In, 0, 1, SYN | ACK | FIN),
            delta(1, Direction::Out, 2, 3, SYN | ACK),
            delta(1, Direction::In, 2, 3, SYN | ACK),
        ];
        assert_eq!(merge(deltas).len(), 2);
    }

    #[test]
    fn echo_and_its_reply_are_one_flow() {
        let echo = |icmp_type: u16, direction| {
            let key = FlowKey {
                client_port: 7,
                peer_port: icmp_type << 8,
                protocol: ICMP,
                origin: FlowKey::origin(0, direction),
                ..FlowKey::default()
            };
            FlowDelta { key, ..delta(0, direction, 0, 1, 0) }
        };
        let flows = merge([echo(8, Direction::Out), echo(0, Direction::In)]);
        assert_eq!(flows.len(), 1);
        assert_eq!(flows[0].key.peer_port, 0x0800);
    }

    fn any_delta() -> impl Strategy<Value = FlowDelta> {
        (
            0u16..3,
            any::<bool>(),
            0i64..2000,
            0i64..50,
            prop::sample::select(vec![SYN, ACK, FIN | ACK, RST, SYN | ACK]),
            1u64..5,
        )
            .prop_map(|(port, out, first, length, flags, packets)| {
                let direction = if out { Direction::Out } else { Direction::In };
                FlowDelta { packets, bytes: packets * 60, ..delta(port, direction, first, first + length, flags) }
            })
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled(deltas in prop::collection::vec(any_delta(), 0..60)) {
            let flows = merge(deltas.clone());
            let packets: u64 = flows.iter().map(|flow| flow.out.packets + flow.inward.packets).sum();
            let bytes: u64 = flows.iter().map(|flow| flow.out.bytes + flow.inward.bytes).sum();
            prop_assert_eq!(packets, deltas.iter().map(|delta| delta.packets).sum::<u64>());
            prop_assert_eq!(bytes, deltas.iter().map(|delta| delta.bytes).sum::<u64>());
        }

        #[test]
        fn the_order_of_arrival_does_not_matter(deltas in prop::collection::vec(any_delta(), 0..40), seed in any::<u64>()) {
            let mut shuffled = deltas.clone();
            let mut random = seed | 1;
            for position in (1..shuffled.len()).rev() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                shuffled.swap(position, usize::try_from(random >> 33).unwrap_or(0) % (position + 1));
            }
            prop_assert_eq!(merge(deltas), merge(shuffled));
        }

        #[test]
        fn flows_of_one_key_do_not_touch(deltas in prop::collection::vec(any_delta(), 0..60)) {
            for pair in merge(deltas).windows(2) {
                if pair[0].key == pair[1].key {
                    let gap = pair[1].first_ns - pair[0].last_ns;
                    let ended = (pair[0].out.tcp_flags | pair[0].inward.tcp_flags) & (FIN | RST) != 0;
                    prop_assert!(gap > IdleTimeouts::default().tcp_ns || gap >= 0 && ended);
                }
            }
        }
    }
}
