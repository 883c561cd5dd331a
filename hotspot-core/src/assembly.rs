//! Assembly: from the facts of one journal to the rows of one segment.
//!
//! A pure function of the state after the segment before, the facts of this journal, and the identity and NAT facts that are
//! already known of the time after it. Guarantees that the same facts make the same rows, that what is repeated in the journal
//! after a crash counts once, and that every packet and byte counted is in a row.

mod order;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hotspot_common::flow::ICMP_NOT_KNOWN;
use hotspot_common::{Direction, FlowKey};

use self::order::{Material, hand_out};
use crate::attribute::{Attributor, Seen};
use crate::device::{DeviceTable, DeviceTimeouts, Labels};
use crate::fact::{DeviceFact, FlowDelta, FlowOpened, NatFact, NatWatchFact, Overflow, SessionFact};
use crate::losses;
use crate::merge::{Flow, IdleTimeouts, Merger, OpenFlow, flow_key, has_ended};
use crate::nat::{self, NatTable, Tuple};
use crate::record::{Attribution, CoverageRecord, DeviceRecord, EndReason, FlowRecord, SessionRecord};
use crate::sessions::{SessionTable, SessionTimeouts};
use crate::vendor::VendorTable;
use crate::{MacAddr, WallNs};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

/// Where a generation ends and where the next begins are two readings of the clocks.
const TOUCHING_NS: WallNs = 1_000_000;

/// Policies of sealing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params {
    pub idle: IdleTimeouts,
    pub sessions: SessionTimeouts,
    pub devices: DeviceTimeouts,
}

/// Why a journal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The next one followed at once.
    Rotation,
    /// The agent was stopped in order, and counts no more.
    Shutdown,
    /// The machine went down: flows that were announced but not read are known by their announcement only.
    PowerLost,
}

/// What one segment hands to the next.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub interfaces: BTreeMap<u8, Arc<str>>,
    pub sessions: SessionTable,
    pub nat: NatTable,
    pub devices: DeviceTable,
    pub open_flows: Vec<OpenFlow>,
}

/// The rows of a segment, and the state after it.
#[derive(Debug)]
pub struct Assembled {
    pub flows: Vec<FlowRecord>,
    pub sessions: Vec<SessionRecord>,
    pub devices: Vec<DeviceRecord>,
    pub coverage: Vec<CoverageRecord>,
    /// Reports of NAS with too many sessions, which are not in these.
    pub reports_left_out: u64,
    pub state: State,
}

#[derive(Debug, Default)]
struct Pending {
    deltas: Vec<FlowDelta>,
    overflow: Vec<Overflow>,
}

/// Takes the facts of one journal, in their order.
#[derive(Debug)]
pub struct Assembly {
    params: Params,
    began_ns: WallNs,
    state: State,
    merger: Merger,
    opened: Vec<FlowOpened>,
    overflow: Vec<Overflow>,
    coverage: Vec<CoverageRecord>,
    /// Parts of generations whose end is not yet known.
    pending: HashMap<(u64, u64), Pending, RandomState>,
    done: HashSet<(u64, u64), RandomState>,
    /// Position of each ring up to which it counted.
    rings: HashMap<(u64, u32), u64, RandomState>,
    /// Position of the ring of notices up to which it counted.
    notices: HashMap<u64, u64, RandomState>,
    vendors: Arc<VendorTable>,
    /// Device facts of the time after this journal.
    later_devices: Vec<DeviceFact>,
    /// When the first report of this journal arrived. It may have been before the journal began, and be about times long before.
    received_ns: WallNs,
    /// Devices this journal is about, however long ago it was.
    devices_heard: HashSet<MacAddr, RandomState>,
}

impl Assembly {
    #[must_use]
    pub fn new(params: Params, began_ns: WallNs, state: State) -> Self {
        Self {
            params,
            began_ns,
            state,
            merger: Merger::default(),
            opened: Vec::new(),
            overflow: Vec::new(),
            coverage: Vec::new(),
            pending: HashMap::default(),
            done: HashSet::default(),
            rings: HashMap::default(),
            notices: HashMap::default(),
            vendors: Arc::default(),
            later_devices: Vec::new(),
            // What arrived at that moment is the journal's before.
            received_ns: began_ns.saturating_add(1),
            devices_heard: HashSet::default(),
        }
    }

    /// Makers of devices, by their addresses.
    #[must_use]
    pub fn with_vendors(self, vendors: Arc<VendorTable>) -> Self {
        Self { vendors, ..self }
    }

    pub fn interface(&mut self, number: u8, name: &str) {
        self.state.interfaces.insert(number, name.into());
    }

    /// What a ring held up to a position; a batch that was written before counts once.
    pub fn ring(
        &mut self,
        capture: u64,
        cpu: u32,
        end_position: u64,
        opened: impl IntoIterator<Item = FlowOpened>,
        evicted: impl IntoIterator<Item = FlowDelta>,
        totals: impl IntoIterator<Item = Overflow>,
    ) {
        let applied = self.rings.entry((capture, cpu)).or_default();
        if end_position <= *applied {
            return;
        }
        *applied = end_position;
        self.opened.extend(opened);
        self.overflow.extend(totals);
        evicted.into_iter().for_each(|delta| self.merger.add(delta));
    }

    /// Part of a generation; counts once the generation is done.
    pub fn part(
        &mut self,
        capture: u64,
        generation: u64,
        deltas: impl IntoIterator<Item = FlowDelta>,
        overflow: impl IntoIterator<Item = Overflow>,
    ) {
        let pending = self.pending.entry((capture, generation)).or_default();
        pending.deltas.extend(deltas);
        pending.overflow.extend(overflow);
    }

    /// A generation was read to its end.
    pub fn done(&mut self, capture: u64, generation: u64, coverage: Vec<CoverageRecord>) {
        let pending = self.pending.remove(&(capture, generation)).unwrap_or_default();
        if !self.done.insert((capture, generation)) {
            return;
        }
        pending.deltas.into_iter().for_each(|delta| self.merger.add(delta));
        self.overflow.extend(pending.overflow);
        self.coverage.extend(coverage);
    }

    /// A reader that starts to read a generation again: parts without an end do not count.
    pub fn restarted(&mut self) {
        self.pending.clear();
    }

    /// A time of which not all is known; those that follow one another and say the same are one.
    pub fn gap(&mut self, gap: CoverageRecord) {
        let before = self.coverage.iter_mut().rev().filter(|row| row.gap.is_some() && row.interface == gap.interface);
        let goes_on = before.take(1).find(|row| {
            row.gap == gap.gap && row.from_ns <= gap.from_ns && gap.from_ns <= row.to_ns.saturating_add(TOUCHING_NS)
        });
        match goes_on {
            Some(before) => before.to_ns = before.to_ns.max(gap.to_ns),
            None => self.coverage.push(gap),
        }
    }

    /// What is known of sessions, also of the time after this journal: it comes again with the next one, and counts once.
    pub fn session(&mut self, fact: SessionFact) {
        self.received_ns = self.received_ns.min(fact.received_ns);
        self.state.sessions.apply(fact);
    }

    /// What is known of translations, likewise.
    pub fn nat(&mut self, fact: &NatFact) {
        self.state.nat.apply(fact);
    }

    /// What notices up to a position of their ring said; a batch that was written before counts once.
    pub fn devices(&mut self, capture: u64, end_position: u64, facts: &[DeviceFact]) {
        let applied = self.notices.entry(capture).or_default();
        if end_position > *applied {
            *applied = end_position;
            facts.iter().for_each(|fact| self.device(fact));
        }
    }

    /// What a DHCP server said of a device; again has no effect.
    pub fn device(&mut self, fact: &DeviceFact) {
        self.devices_heard.insert(fact.client_mac);
        self.state.devices.apply(fact);
    }

    /// What was lost after this journal may have been lost in it.
    pub fn nat_watch(&mut self, fact: NatWatchFact) {
        self.state.nat.apply_watch(fact);
    }

    /// A device fact of the time after this journal.
    pub fn later_device(&mut self, fact: DeviceFact) {
        self.later_devices.push(fact);
    }

    /// Packets and bytes of everything that counts so far.
    #[must_use]
    pub fn merged_len(&self) -> usize {
        self.merger.len()
    }

    /// Decides, and collects the rows of flows; see [`Self::finish_into`].
    #[must_use]
    pub fn finish(self, sequence: u64, ended_ns: WallNs, ending: Ending) -> Assembled {
        let mut flows = Vec::new();
        let assembled = self.finish_into(sequence, ended_ns, ending, |row| flows.push(row));
        Assembled { flows, ..assembled }
    }

    /// Decides: hands the rows of flows to `each` in the order of a segment, and returns all others and the state for the next
    /// segment.
    #[must_use]
    pub fn finish_into(
        self,
        sequence: u64,
        ended_ns: WallNs,
        ending: Ending,
        each: impl FnMut(FlowRecord),
    ) -> Assembled {
        let Self { params, began_ns, received_ns, mut state, merger, opened, overflow, mut coverage, .. } = self;
        coverage.extend(losses::gaps(&coverage));
        let (vendors, later_devices, devices_heard) = (self.vendors, self.later_devices, self.devices_heard);
        let announced = if ending == Ending::PowerLost { unread(&opened, &merger) } else { Vec::new() };
        drop(opened);
        let mut devices_known = state.devices.clone();
        later_devices.iter().for_each(|fact| devices_known.apply(fact));
        let sessions = state.sessions.sessions(&params.sessions, ended_ns);
        let mut rows = Rows {
            interfaces: &state.interfaces,
            nat: &state.nat,
            attributor: Attributor::new(&sessions).with_devices(&devices_known),
            labels: Labels::new(&devices_known, &vendors),
            idle: params.idle,
            ended_ns,
            ending,
        };
        let material = Material {
            flows: merger.finish(&params.idle),
            announced,
            overflow: join_directions(overflow),
            open: std::mem::take(&mut state.open_flows),
        };
        let carried = hand_out(&mut rows, material, sequence, each);
        // What it looks up is of no use any more, and large where there are very many sessions.
        drop(rows);
        let vendor = |mac| vendors.of(mac).map(str::to_owned);
        let devices = state.devices.records(began_ns, |mac| devices_heard.contains(&mac), vendor);
        let reports_left_out = state.sessions.left_out();
        state.devices.forget(&params.devices, ended_ns);
        state.sessions.forget(&sessions, &params.sessions, ended_ns);
        let records = SessionTable::records(sessions, began_ns, ended_ns, received_ns);
        state.nat.forget(ended_ns - nat::KEEP_NS);
        state.open_flows = carried;
        Assembled { flows: Vec::new(), sessions: records, devices, coverage, reports_left_out, state }
    }
}

/// Announced flows of which nothing was ever read.
fn unread(opened: &[FlowOpened], merger: &Merger) -> Vec<FlowOpened> {
    let read: HashSet<FlowKey, RandomState> = merger.keys().collect();
    let mut announced = HashSet::<FlowKey, RandomState>::default();
    opened
        .iter()
        .filter(|opened| {
            let key = flow_key(&opened.key);
            !read.contains(&key) && announced.insert(key)
        })
        .copied()
        .collect()
}

/// MAC, address and interface of a client.
type ClientKey = ([u8; 6], [u8; 16], u8);

/// Overflow totals of both directions of one client, as one.
fn join_directions(totals: Vec<Overflow>) -> Vec<(Overflow, Overflow)> {
    let mut joined: BTreeMap<ClientKey, (Overflow, Overflow)> = BTreeMap::new();
    for total in totals {
        let empty = Overflow { packets: 0, bytes: 0, ..total };
        let pair =
            joined.entry((total.key.client_mac, total.key.client_ip, total.key.interface())).or_insert((empty, empty));
        let side = if total.key.direction() == Direction::Out { &mut pair.0 } else { &mut pair.1 };
        side.packets += total.packets;
        side.bytes += total.bytes;
        pair.0.first_ns = pair.0.first_ns.min(total.first_ns);
        pair.0.last_ns = pair.0.last_ns.max(total.last_ns);
    }
    joined.into_values().collect()
}

/// Makes rows.
struct Rows<'a> {
    interfaces: &'a BTreeMap<u8, Arc<str>>,
    nat: &'a NatTable,
    attributor: Attributor<'a>,
    labels: Labels<'a>,
    idle: IdleTimeouts,
    ended_ns: WallNs,
    ending: Ending,
}

impl Rows<'_> {
    fn flow(&mut self, flow: &Flow, before: Option<&OpenFlow>) -> (FlowRecord, Option<OpenFlow>) {
        let key = &flow.key;
        let mut row = self.blank(key, flow.first_ns, flow.last_ns);
        let flags_before = before.map_or((0, 0), |open| (open.flags_out, open.flags_in));
        let flags = (flow.out.tcp_flags | flags_before.0, flow.inward.tcp_flags | flags_before.1);
        row.flow_id = before.map_or(0, |open| open.flow_id);
        (row.packets_out, row.bytes_out) = (flow.out.packets, flow.out.bytes);
        (row.packets_in, row.bytes_in) = (flow.inward.packets, flow.inward.bytes);
        if key.protocol == TCP {
            (row.tcp_flags_out, row.tcp_flags_in) = (Some(flow.out.tcp_flags), Some(flow.inward.tcp_flags));
        }
        row.end_reason = if key.protocol == TCP && has_ended(flags.0, flags.1) {
            EndReason::EndOfFlow
        } else if self.ended_ns - flow.last_ns >= self.idle.of(key.protocol) {
            EndReason::Idle
        } else if self.ending == Ending::Rotation {
            EndReason::Active
        } else {
            EndReason::Forced
        };
        // A connection that ended stays known: its last packets may come in the next generation.
        let goes_on = self.ending == Ending::Rotation
            && matches!(row.end_reason, EndReason::Active | EndReason::EndOfFlow)
            && self.ended_ns - flow.last_ns < self.idle.of(key.protocol);
        let open = OpenFlow { flow_id: 0, key: *key, last_ns: flow.last_ns, flags_out: flags.0, flags_in: flags.1 };
        (row, goes_on.then_some(open))
    }

    /// Whether a flow of which this segment saw nothing is still within its time-out.
    fn may_go_on(&self, open: &OpenFlow) -> bool {
        self.ending == Ending::Rotation && self.ended_ns - open.last_ns < self.idle.of(open.key.protocol)
    }

    fn announced(&mut self, opened: &FlowOpened) -> FlowRecord {
        let key = flow_key(&opened.key);
        FlowRecord { end_reason: EndReason::LostPower, ..self.blank(&key, opened.at_ns, opened.at_ns) }
    }

    fn overflow(&mut self, (out, inward): &(Overflow, Overflow)) -> FlowRecord {
        let mut row = self.blank(&flow_key(&out.key), out.first_ns, out.last_ns);
        (row.peer_ip, row.peer_port, row.protocol, row.client_port) = (None, None, None, None);
        (row.public, row.nat) = (None, None);
        (row.packets_out, row.bytes_out) = (out.packets, out.bytes);
        (row.packets_in, row.bytes_in) = (inward.packets, inward.bytes);
        row.end_reason = EndReason::Overflow;
        row
    }

    /// A row with everything but counters.
    fn blank(&mut self, key: &FlowKey, start_ns: WallNs, end_ns: WallNs) -> FlowRecord {
        let client_mac = MacAddr(key.client_mac);
        let client_ip = Ipv6Addr::from(key.client_ip).to_canonical();
        let peer_ip = Ipv6Addr::from(key.peer_ip).to_canonical();
        let is_icmp = matches!(key.protocol, ICMP | ICMPV6);
        let tuple = Tuple {
            protocol: key.protocol,
            client_ip,
            client_port: key.client_port,
            peer_ip,
            peer_port: if is_icmp { 0 } else { key.peer_port },
        };
        let (nat, public) = self.nat.lookup(&tuple, start_ns, end_ns);
        let (vlan, inner_vlan) = (key.vlan, key.inner_vlan);
        let seen = Seen { mac: client_mac, ip: client_ip, vlan, inner_vlan, start_ns, end_ns };
        let (attribution, identity) = self.attributor.attribute(&seen);
        let (hostname, device_vendor) = self.labels.of(client_mac, start_ns);
        debug_assert!(attribution != Attribution::Unknown || identity.is_none());
        let port = |port: u16| (!is_icmp && port != 0).then_some(port);
        let tag = |tag: u16| (tag != 0).then_some(tag);
        let [icmp_type, icmp_code] = key.peer_port.to_be_bytes();
        let says_icmp = is_icmp && key.peer_port != ICMP_NOT_KNOWN;
        FlowRecord {
            flow_id: 0,
            start_ns,
            end_ns,
            interface: self
                .interfaces
                .get(&key.interface())
                .cloned()
                .unwrap_or_else(|| key.interface().to_string().into()),
            vlan: tag(vlan),
            inner_vlan: tag(inner_vlan),
            client_mac,
            client_ip,
            client_port: port(key.client_port),
            public,
            nat,
            peer_ip: Some(peer_ip),
            peer_port: port(key.peer_port),
            protocol: Some(key.protocol),
            icmp_type: says_icmp.then_some(icmp_type),
            icmp_code: says_icmp.then_some(icmp_code),
            packets_out: 0,
            bytes_out: 0,
            packets_in: 0,
            bytes_in: 0,
            tcp_flags_out: None,
            tcp_flags_in: None,
            end_reason: EndReason::Idle,
            attribution,
            identity,
            hostname,
            device_vendor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{DeviceEvent, DeviceSource, SessionEvent};
    use crate::sessions::tests::report;

    const S: WallNs = 1_000_000_000;

    fn delta(port: u16, first_s: i64, tcp_flags: u8) -> FlowDelta {
        let mut client_ip = [0; 16];
        client_ip[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        let key = FlowKey {
            client_ip,
            client_mac: [2, 0, 0, 0, 0, 1],
            client_port: port,
            peer_port: 443,
            protocol: TCP,
            ..FlowKey::default()
        };
        FlowDelta { key, first_ns: first_s * S, last_ns: (first_s + 1) * S, packets: 2, bytes: 120, tcp_flags }
    }

    fn assembly(state: State) -> Assembly {
        let mut assembly = Assembly::new(Params::default(), 0, state);
        assembly.interface(0, "lan");
        assembly
    }

    #[test]
    fn parts_without_their_end_do_not_count() {
        let mut assembly = assembly(State::default());
        assembly.part(1, 5, [delta(1, 1, 0x10)], []);
        assembly.restarted();
        assembly.part(1, 5, [delta(1, 1, 0x10)], []);
        assembly.done(1, 5, Vec::new());
        assembly.part(1, 6, [delta(2, 1, 0x10)], []);
        let rows = assembly.finish(1, 10 * S, Ending::Rotation).flows;
        assert_eq!(rows.iter().map(|row| (row.client_port, row.packets_out)).collect::<Vec<_>>(), [(Some(1), 2)]);
    }

    #[test]
    fn what_was_journaled_twice_counts_once() {
        let mut assembly = assembly(State::default());
        for _ in 0..2 {
            assembly.ring(1, 0, 96, [], [delta(1, 1, 0x10)], []);
            assembly.part(1, 5, [delta(1, 3, 0x10)], []);
            assembly.done(1, 5, Vec::new());
        }
        let rows = assembly.finish(1, 10 * S, Ending::Rotation).flows;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].packets_out, 4);
    }

    #[test]
    fn a_flow_keeps_its_id_from_segment_to_segment() {
        let mut first = assembly(State::default());
        first.part(1, 1, [delta(1, 1, 0x10), delta(2, 1, 0x10)], []);
        first.done(1, 1, Vec::new());
        let first = first.finish(1, 10 * S, Ending::Rotation);
        assert_eq!(first.flows.iter().map(|row| row.flow_id).collect::<Vec<_>>(), [1 << 32, 1 << 32 | 1]);
        assert!(first.flows.iter().all(|row| row.end_reason == EndReason::Active));
        let mut second = Assembly::new(Params::default(), 10 * S, first.state);
        second.part(1, 2, [delta(2, 11, 0x11), delta(3, 11, 0x10)], []);
        second.done(1, 2, Vec::new());
        let second = second.finish(2, 20 * S, Ending::Shutdown);
        assert_eq!(second.flows.iter().map(|row| row.flow_id).collect::<Vec<_>>(), [1 << 32 | 1, 2 << 32 | 1]);
        assert_eq!(second.flows[0].interface.as_ref(), "lan", "names are carried too");
    }

    #[test]
    fn a_login_reported_in_the_next_journal_still_counts() {
        let mut assembly = assembly(State::default());
        assembly.part(1, 1, [delta(1, 5, 0x10)], []);
        assembly.done(1, 1, Vec::new());
        assembly.session(report(SessionEvent::Start, "a", 4));
        let rows = assembly.finish(1, 10 * S, Ending::Rotation);
        assert_eq!(rows.flows[0].attribution, Attribution::Authenticated);
        let mut second = Assembly::new(Params::default(), 10 * S, rows.state);
        second.session(report(SessionEvent::Start, "a", 4));
        assert_eq!(second.finish(2, 20 * S, Ending::Rotation).sessions.len(), 1, "it comes again, and counts once");
    }

    /// The sessions of a segment from 100 s to 400 s, of reports in its journal.
    fn sessions_of(reports: impl IntoIterator<Item = SessionFact>) -> Assembled {
        let mut assembly = Assembly::new(Params::default(), 100 * S, State::default());
        reports.into_iter().for_each(|report| assembly.session(report));
        assembly.finish(2, 400 * S, Ending::Rotation)
    }

    #[test]
    fn a_report_that_comes_late_is_in_the_segment_it_came_in() {
        // A refused login, and a session that was over, waited elsewhere until this journal had begun.
        let late = |event, at_s| SessionFact { received_ns: 101 * S, ..report(event, "a", at_s) };
        let refused = sessions_of([late(SessionEvent::Rejected, 98)]);
        assert_eq!(refused.sessions.len(), 1);
        let over = sessions_of([late(SessionEvent::Start, 20), late(SessionEvent::Stop, 90)]);
        assert_eq!(over.sessions.len(), 1);
        let next = Assembly::new(Params::default(), 400 * S, over.state).finish(3, 700 * S, Ending::Rotation);
        assert_eq!(next.sessions, [], "what is no news is not told again");
        // One that came while the journal before was being closed lies in this one.
        let between = SessionFact { received_ns: 99 * S, ..report(SessionEvent::Rejected, "b", 99) };
        assert_eq!(sessions_of([between]).sessions.len(), 1);
        // Segments adjoin: what came at the moment that ended the one before is not told again.
        let at_the_end = SessionFact { received_ns: 400 * S, ..report(SessionEvent::Rejected, "c", 400) };
        let before = sessions_of([at_the_end]);
        assert_eq!(before.sessions.len(), 1);
        let next = Assembly::new(Params::default(), 400 * S, before.state).finish(3, 700 * S, Ending::Rotation);
        assert_eq!(next.sessions, []);
    }

    #[test]
    fn what_is_learnt_late_of_a_device_is_in_the_segment_it_came_in() {
        let ip = [10, 0, 0, 1].into();
        let fact = DeviceFact {
            at_ns: 99 * S,
            client_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            vlan: 0,
            inner_vlan: 0,
            source: DeviceSource::Arp,
            event: DeviceEvent::Uses { ip },
        };
        let mut assembly = Assembly::new(Params::default(), 100 * S, State::default());
        assembly.devices(1, 64, &[fact]);
        let first = assembly.finish(2, 400 * S, Ending::Rotation);
        assert_eq!(first.devices.len(), 1);
        let next = Assembly::new(Params::default(), 400 * S, first.state).finish(3, 700 * S, Ending::Rotation);
        assert_eq!(next.devices, []);
    }

    #[test]
    fn an_announced_flow_survives_a_power_cut_without_its_counters() {
        let mut assembly = assembly(State::default());
        let opened = |port| FlowOpened { key: delta(port, 1, 0).key, at_ns: S };
        assembly.ring(1, 0, 96, [opened(1), opened(2)], [], []);
        assembly.part(1, 1, [delta(1, 1, 0x10)], []);
        assembly.done(1, 1, Vec::new());
        let rows = assembly.finish(1, 10 * S, Ending::PowerLost).flows;
        assert_eq!(
            rows.iter().map(|row| (row.client_port, row.end_reason, row.packets_out)).collect::<Vec<_>>(),
            [(Some(1), EndReason::Forced, 2), (Some(2), EndReason::LostPower, 0)]
        );
    }

    #[test]
    fn overflow_totals_are_rows_without_a_peer() {
        let mut assembly = assembly(State::default());
        let key = FlowKey { peer_port: 0, client_port: 0, protocol: 0, ..delta(0, 0, 0).key };
        let inward = FlowKey { origin: 0x80, ..key };
        let total = |key, packets| Overflow { key, first_ns: S, last_ns: 2 * S, packets, bytes: packets * 60 };
        assembly.part(1, 1, [], [total(key, 3), total(inward, 4)]);
        assembly.done(1, 1, Vec::new());
        let rows = assembly.finish(1, 10 * S, Ending::Rotation).flows;
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].packets_out, rows[0].packets_in, rows[0].peer_ip, rows[0].protocol), (3, 4, None, None));
    }

    #[test]
    fn what_a_ring_held_beyond_a_clients_detail_is_in_its_total_once() {
        let mut assembly = assembly(State::default());
        let key = FlowKey { peer_port: 0, client_port: 0, protocol: 0, ..delta(0, 0, 0).key };
        let total = Overflow { key, first_ns: S, last_ns: 2 * S, packets: 5, bytes: 300 };
        for _ in 0..2 {
            assembly.ring(1, 0, 96, [], [], [total]);
        }
        let rows = assembly.finish(1, 10 * S, Ending::Rotation).flows;
        assert_eq!(
            rows.iter().map(|row| (row.end_reason, row.packets_out)).collect::<Vec<_>>(),
            [(EndReason::Overflow, 5)]
        );
    }

    #[test]
    fn gaps_that_follow_one_another_and_say_the_same_are_one() {
        let mut assembly = assembly(State::default());
        let gap = |interface: &str, from_s, to_s, why: &str| CoverageRecord::gap(interface, from_s * S, to_s * S, why);
        for (interface, from_s, to_s, why) in
            [("lan", 1, 2, "a"), ("wlan", 1, 2, "a"), ("lan", 2, 3, "a"), ("lan", 4, 5, "a"), ("lan", 5, 6, "b")]
        {
            // Readings of two clocks differ by some microseconds.
            let mut told = gap(interface, from_s, to_s, why);
            told.to_ns -= 20_000;
            assembly.gap(told);
        }
        let told = assembly.finish(1, 10 * S, Ending::Rotation).coverage;
        let told: Vec<_> = told.iter().map(|row| (&*row.interface, row.from_ns / S, row.to_ns / S + 1)).collect();
        assert_eq!(told, [("lan", 1, 3), ("wlan", 1, 2), ("lan", 4, 5), ("lan", 5, 6)]);
    }
}
