//! The order of a segment's rows, and handing them out in it, one client after the other.
//!
//! By client, then by what the flow is for, then by time: what lies together is alike, which is what makes a segment small. The order
//! is total, so that it does not depend on how facts arrived. Holds the rows of one client at a time.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;
use hotspot_common::FlowKey;

use super::Rows;
use crate::fact::{FlowOpened, Overflow};
use crate::merge::{Flow, OpenFlow};
use crate::record::FlowRecord;
use crate::{MacAddr, WallNs};

/// What becomes rows.
pub(super) struct Material {
    pub(super) flows: Vec<Flow>,
    pub(super) announced: Vec<FlowOpened>,
    /// Out and in.
    pub(super) overflow: Vec<(Overflow, Overflow)>,
    /// Flows that went on when the segment before was sealed.
    pub(super) open: Vec<OpenFlow>,
}

/// MAC and address.
type Client = ([u8; 6], [u8; 16]);

fn client_of(key: &FlowKey) -> Client {
    (key.client_mac, key.client_ip)
}

/// Hands every row to `each`, numbered; returns the flows that go on.
pub(super) fn hand_out(
    rows: &mut Rows<'_>,
    mut material: Material,
    sequence: u64,
    mut each: impl FnMut(FlowRecord),
) -> Vec<OpenFlow> {
    let mut before: HashMap<FlowKey, (OpenFlow, bool), RandomState> =
        material.open.drain(..).map(|open| (open.key, (open, false))).collect();
    material.flows.sort_unstable_by_key(|flow| (client_of(&flow.key), *flow.key.words(), flow.first_ns));
    material.announced.sort_unstable_by_key(|opened| (client_of(&opened.key), *opened.key.words(), opened.at_ns));
    material.overflow.sort_unstable_by_key(|(out, _)| (client_of(&out.key), *out.key.words()));
    let (mut flows, mut announced, mut overflow) =
        (&material.flows[..], &material.announced[..], &material.overflow[..]);
    let idle = rows.idle;
    let mut carried: Vec<OpenFlow> = Vec::new();
    let mut ordinal = 0_u64;
    loop {
        let heads = [
            flows.first().map(|flow| client_of(&flow.key)),
            announced.first().map(|opened| client_of(&opened.key)),
            overflow.first().map(|(out, _)| client_of(&out.key)),
        ];
        let Some(client) = heads.into_iter().flatten().min() else { break };
        let mut of_client: Vec<(FlowRecord, Option<OpenFlow>)> = Vec::new();
        for flow in take(&mut flows, |flow| client_of(&flow.key) <= client) {
            let open = before.get_mut(&flow.key).map(|(open, is_touched)| {
                *is_touched = true;
                *open
            });
            of_client.push(rows.flow(flow, open.as_ref().filter(|open| flow.continues(open, &idle))));
        }
        let opened = take(&mut announced, |opened| client_of(&opened.key) <= client);
        of_client.extend(opened.iter().map(|opened| (rows.announced(opened), None)));
        let totals = take(&mut overflow, |(out, _)| client_of(&out.key) <= client);
        of_client.extend(totals.iter().map(|total| (rows.overflow(total), None)));
        of_client.sort_by(|(left, _), (right, _)| order(left).cmp(&order(right)));
        for (mut row, open) in of_client {
            if row.flow_id == 0 {
                row.flow_id = sequence << 32 | (ordinal & 0xffff_ffff);
            }
            ordinal += 1;
            carried.extend(open.map(|open| OpenFlow { flow_id: row.flow_id, ..open }));
            each(row);
        }
    }
    // A flow that was silent for the whole segment may still go on, if its time-out is longer.
    let silent = before.into_values().filter(|(open, is_touched)| !is_touched && rows.may_go_on(open));
    carried.extend(silent.map(|(open, _)| open));
    finish_carried(carried)
}

/// One flow per key, the latest.
fn finish_carried(mut carried: Vec<OpenFlow>) -> Vec<OpenFlow> {
    carried.sort_unstable_by_key(|open| (*open.key.words(), Reverse(open.last_ns), open.flow_id));
    carried.dedup_by_key(|open| open.key);
    carried
}

/// Takes the first items off, as long as they are wanted.
fn take<'a, T>(items: &mut &'a [T], is_wanted: impl Fn(&T) -> bool) -> &'a [T] {
    let (taken, rest) = items.split_at(items.partition_point(is_wanted));
    *items = rest;
    taken
}

type Order<'a> = (
    MacAddr,
    IpAddr,
    Option<u8>,
    Option<u16>,
    WallNs,
    Option<IpAddr>,
    Option<u16>,
    WallNs,
    (Option<u8>, Option<u8>),
    (Option<u16>, Option<u16>),
    &'a str,
);

fn order(row: &FlowRecord) -> Order<'_> {
    (
        row.client_mac,
        row.client_ip,
        row.protocol,
        row.peer_port,
        row.start_ns,
        row.peer_ip,
        row.client_port,
        row.end_ns,
        (row.icmp_type, row.icmp_code),
        (row.vlan, row.inner_vlan),
        &row.interface,
    )
}
