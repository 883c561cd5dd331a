//! Entries as payloads: explicit little-endian fields where there are many, JSON where there are few.

use std::net::{IpAddr, Ipv6Addr};

use bytes::{Buf, BufMut};
use hotspot_common::FlowKey;
use hotspot_core::fact::{FlowDelta, FlowOpened, NatEvent, NatFact, Overflow};
use hotspot_core::merge::OpenFlow;
use serde::{Deserialize, Serialize};

use crate::entry::{Entry, GenerationPart, RingBatch};

const HEADER: u8 = 1;
const INTERFACE: u8 = 2;
const RING: u8 = 3;
const PART: u8 = 4;
const DONE: u8 = 5;
const GAP: u8 = 6;
const SESSION: u8 = 7;
const NAT: u8 = 8;
const NAT_WATCH: u8 = 9;
const OPEN_FLOWS: u8 = 10;
const CLOSED: u8 = 11;
const DEVICES: u8 = 12;
const DEVICE_STATE: u8 = 13;
const LEASES: u8 = 14;
const SESSIONS: u8 = 15;

#[derive(Serialize, Deserialize)]
struct Closed {
    at_ns: i64,
    shutdown: bool,
}

/// The kind and the payload of an entry.
pub(super) fn encode(entry: &Entry) -> (u8, Vec<u8>) {
    match entry {
        Entry::Header(header) => (HEADER, json(header)),
        Entry::Interface(interface) => (INTERFACE, json(interface)),
        Entry::Ring(batch) => (RING, encode_ring(batch)),
        Entry::Part(part) => (PART, encode_part(part)),
        Entry::Done(done) => (DONE, json(done)),
        Entry::Gap(gap) => (GAP, json(gap)),
        Entry::Session(session) => (SESSION, json(session)),
        Entry::Sessions(sessions) => (SESSIONS, json(sessions)),
        Entry::Nat(facts) => (NAT, encode_list(facts, put_nat)),
        Entry::NatWatch(watch) => (NAT_WATCH, json(watch)),
        Entry::Devices(batch) => (DEVICES, json(batch)),
        Entry::Leases(facts) => (LEASES, json(facts)),
        Entry::DeviceState(devices) => (DEVICE_STATE, json(devices)),
        Entry::OpenFlows(flows) => (OPEN_FLOWS, encode_list(flows, put_open_flow)),
        Entry::Closed { at_ns, shutdown } => (CLOSED, json(&Closed { at_ns: *at_ns, shutdown: *shutdown })),
    }
}

/// The inverse of [`encode`]; `None` for a payload that this version does not write.
pub(super) fn decode(kind: u8, payload: &[u8]) -> Option<Entry> {
    let mut rest = payload;
    let from = &mut rest;
    let entry = match kind {
        HEADER => return serde_json::from_slice(payload).ok().map(Entry::Header),
        INTERFACE => return serde_json::from_slice(payload).ok().map(Entry::Interface),
        DONE => return serde_json::from_slice(payload).ok().map(Entry::Done),
        GAP => return serde_json::from_slice(payload).ok().map(Entry::Gap),
        SESSION => return serde_json::from_slice(payload).ok().map(Entry::Session),
        SESSIONS => return serde_json::from_slice(payload).ok().map(Entry::Sessions),
        NAT_WATCH => return serde_json::from_slice(payload).ok().map(Entry::NatWatch),
        DEVICES => return serde_json::from_slice(payload).ok().map(Entry::Devices),
        LEASES => return serde_json::from_slice(payload).ok().map(Entry::Leases),
        DEVICE_STATE => return serde_json::from_slice(payload).ok().map(Entry::DeviceState),
        CLOSED => {
            let Closed { at_ns, shutdown } = serde_json::from_slice(payload).ok()?;
            return Some(Entry::Closed { at_ns, shutdown });
        }
        RING => Entry::Ring(decode_ring(from)?),
        PART => Entry::Part(decode_part(from)?),
        NAT => Entry::Nat(get_list(from, get_nat)?),
        OPEN_FLOWS => Entry::OpenFlows(get_list(from, get_open_flow)?),
        _ => return None,
    };
    rest.is_empty().then_some(entry)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Structures of strings and numbers always serialise.
    serde_json::to_vec(value).unwrap_or_default()
}

fn encode_ring(batch: &RingBatch) -> Vec<u8> {
    let mut to = Vec::with_capacity(32 + 64 * batch.opened.len() + 96 * batch.evicted.len());
    to.put_u64_le(batch.capture);
    to.put_u32_le(batch.cpu);
    to.put_u64_le(batch.end_position);
    put_list(&mut to, &batch.opened, |to, (generation, opened)| {
        to.put_u64_le(*generation);
        put_key(to, &opened.key);
        to.put_i64_le(opened.at_ns);
    });
    put_list(&mut to, &batch.evicted, |to, (generation, delta)| {
        to.put_u64_le(*generation);
        put_delta(to, delta);
    });
    if !batch.totals.is_empty() {
        put_list(&mut to, &batch.totals, |to, (generation, total)| {
            to.put_u64_le(*generation);
            put_overflow(to, total);
        });
    }
    to
}

fn decode_ring(from: &mut &[u8]) -> Option<RingBatch> {
    Some(RingBatch {
        capture: from.try_get_u64_le().ok()?,
        cpu: from.try_get_u32_le().ok()?,
        end_position: from.try_get_u64_le().ok()?,
        opened: get_list(from, |from| {
            let generation = from.try_get_u64_le().ok()?;
            Some((generation, FlowOpened { key: get_key(from)?, at_ns: from.try_get_i64_le().ok()? }))
        })?,
        evicted: get_list(from, |from| Some((from.try_get_u64_le().ok()?, get_delta(from)?)))?,
        // Only where there are some.
        totals: if from.is_empty() {
            Vec::new()
        } else {
            get_list(from, |from| Some((from.try_get_u64_le().ok()?, get_overflow(from)?)))?
        },
    })
}

fn encode_part(part: &GenerationPart) -> Vec<u8> {
    let mut to = Vec::with_capacity(32 + 89 * part.deltas.len() + 80 * part.overflow.len());
    to.put_u64_le(part.capture);
    to.put_u64_le(part.generation);
    put_list(&mut to, &part.deltas, put_delta);
    put_list(&mut to, &part.overflow, put_overflow);
    to
}

fn decode_part(from: &mut &[u8]) -> Option<GenerationPart> {
    Some(GenerationPart {
        capture: from.try_get_u64_le().ok()?,
        generation: from.try_get_u64_le().ok()?,
        deltas: get_list(from, get_delta)?,
        overflow: get_list(from, get_overflow)?,
    })
}

fn put_overflow(to: &mut Vec<u8>, overflow: &Overflow) {
    put_key(to, &overflow.key);
    to.put_i64_le(overflow.first_ns);
    to.put_i64_le(overflow.last_ns);
    to.put_u64_le(overflow.packets);
    to.put_u64_le(overflow.bytes);
}

fn get_overflow(from: &mut &[u8]) -> Option<Overflow> {
    Some(Overflow {
        key: get_key(from)?,
        first_ns: from.try_get_i64_le().ok()?,
        last_ns: from.try_get_i64_le().ok()?,
        packets: from.try_get_u64_le().ok()?,
        bytes: from.try_get_u64_le().ok()?,
    })
}

fn put_delta(to: &mut Vec<u8>, delta: &FlowDelta) {
    put_key(to, &delta.key);
    to.put_i64_le(delta.first_ns);
    to.put_i64_le(delta.last_ns);
    to.put_u64_le(delta.packets);
    to.put_u64_le(delta.bytes);
    to.put_u8(delta.tcp_flags);
}

fn get_delta(from: &mut &[u8]) -> Option<FlowDelta> {
    Some(FlowDelta {
        key: get_key(from)?,
        first_ns: from.try_get_i64_le().ok()?,
        last_ns: from.try_get_i64_le().ok()?,
        packets: from.try_get_u64_le().ok()?,
        bytes: from.try_get_u64_le().ok()?,
        tcp_flags: from.try_get_u8().ok()?,
    })
}

fn put_key(to: &mut Vec<u8>, key: &FlowKey) {
    to.put_slice(&key.client_ip);
    to.put_slice(&key.peer_ip);
    to.put_slice(&key.client_mac);
    to.put_u16_le(key.vlan);
    to.put_u16_le(key.inner_vlan);
    to.put_u16_le(key.client_port);
    to.put_u16_le(key.peer_port);
    to.put_u8(key.protocol);
    to.put_u8(key.origin);
}

fn get_key(from: &mut &[u8]) -> Option<FlowKey> {
    Some(FlowKey {
        client_ip: get_array(from)?,
        peer_ip: get_array(from)?,
        client_mac: get_array(from)?,
        vlan: from.try_get_u16_le().ok()?,
        inner_vlan: from.try_get_u16_le().ok()?,
        client_port: from.try_get_u16_le().ok()?,
        peer_port: from.try_get_u16_le().ok()?,
        protocol: from.try_get_u8().ok()?,
        origin: from.try_get_u8().ok()?,
    })
}

fn put_nat(to: &mut Vec<u8>, fact: &NatFact) {
    to.put_u8(match fact.event {
        NatEvent::Created => 1,
        NatEvent::Found => 2,
        NatEvent::Destroyed => 3,
        NatEvent::Missed => 4,
    });
    to.put_u8(fact.protocol);
    to.put_i64_le(fact.at_ns);
    for (ip, port) in
        [(fact.client_ip, fact.client_port), (fact.peer_ip, fact.peer_port), (fact.public_ip, fact.public_port)]
    {
        to.put_slice(&octets(ip));
        to.put_u16_le(port);
    }
}

fn get_nat(from: &mut &[u8]) -> Option<NatFact> {
    let event = match from.try_get_u8().ok()? {
        1 => NatEvent::Created,
        2 => NatEvent::Found,
        3 => NatEvent::Destroyed,
        4 => NatEvent::Missed,
        _ => return None,
    };
    let protocol = from.try_get_u8().ok()?;
    let at_ns = from.try_get_i64_le().ok()?;
    let mut endpoint = || Some((Ipv6Addr::from(get_array::<16>(from)?).to_canonical(), from.try_get_u16_le().ok()?));
    let ((client_ip, client_port), (peer_ip, peer_port), (public_ip, public_port)) =
        (endpoint()?, endpoint()?, endpoint()?);
    Some(NatFact { event, at_ns, protocol, client_ip, client_port, peer_ip, peer_port, public_ip, public_port })
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn put_open_flow(to: &mut Vec<u8>, flow: &OpenFlow) {
    to.put_u64_le(flow.flow_id);
    put_key(to, &flow.key);
    to.put_i64_le(flow.last_ns);
    to.put_u8(flow.flags_out);
    to.put_u8(flow.flags_in);
}

fn get_open_flow(from: &mut &[u8]) -> Option<OpenFlow> {
    Some(OpenFlow {
        flow_id: from.try_get_u64_le().ok()?,
        key: get_key(from)?,
        last_ns: from.try_get_i64_le().ok()?,
        flags_out: from.try_get_u8().ok()?,
        flags_in: from.try_get_u8().ok()?,
    })
}

fn encode_list<T>(items: &[T], put: impl Fn(&mut Vec<u8>, &T)) -> Vec<u8> {
    let mut to = Vec::new();
    put_list(&mut to, items, put);
    to
}

fn put_list<T>(to: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    to.put_u32_le(u32::try_from(items.len()).unwrap_or(u32::MAX));
    for item in items {
        put(to, item);
    }
}

fn get_list<T>(from: &mut &[u8], get: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = from.try_get_u32_le().ok()? as usize;
    // No item is smaller than a byte, so a lying count cannot make this allocate more than the payload.
    let mut items = Vec::with_capacity(count.min(from.len()));
    for _ in 0..count {
        items.push(get(from)?);
    }
    Some(items)
}

fn get_array<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = from.split_first_chunk::<N>()?;
    *from = tail;
    Some(*head)
}
