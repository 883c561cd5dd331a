//! `flows`: rows to columns and back.

use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::types::{UInt8Type, UInt16Type};
use hotspot_core::fact::IdentitySource;
use hotspot_core::record::{Attribution, EndReason, FlowRecord, Identity, NatState, PublicEndpoint};

use super::SegmentError;
use super::columns::{Columns, Repeating, Text};

pub(crate) const fn source_label(source: IdentitySource) -> &'static str {
    match source {
        IdentitySource::Radius => "radius",
        IdentitySource::Portal => "portal",
        IdentitySource::File => "file",
    }
}

pub(super) fn source_from_label(label: &str) -> Option<IdentitySource> {
    [IdentitySource::Radius, IdentitySource::Portal, IdentitySource::File]
        .into_iter()
        .find(|source| source_label(*source) == label)
}

pub(super) fn from_batch(path: &Path, batch: &RecordBatch) -> Result<Vec<FlowRecord>, SegmentError> {
    let columns = Columns { path, batch };
    let (flow_id, start, end) = (columns.count("flow_id")?, columns.time("start")?, columns.time("end")?);
    let mut interface = Repeating::new(columns.text("interface")?);
    let (vlan, inner_vlan) = (columns.number::<UInt16Type>("vlan")?, columns.number::<UInt16Type>("inner_vlan")?);
    let mut client_mac = Repeating::new(columns.text("client_mac")?);
    let mut client_ip = Repeating::new(columns.text("client_ip")?);
    let client_port = columns.number::<UInt16Type>("client_port")?;
    let (public_ip, public_port) = (columns.text("public_ip")?, columns.number::<UInt16Type>("public_port")?);
    let (nat, peer_ip) = (columns.text("nat")?, columns.text("peer_ip")?);
    let (peer_port, protocol) = (columns.number::<UInt16Type>("peer_port")?, columns.number::<UInt8Type>("protocol")?);
    let (icmp_type, icmp_code) = (columns.number::<UInt8Type>("icmp_type")?, columns.number::<UInt8Type>("icmp_code")?);
    let count = |name| columns.count(name);
    let (packets_out, bytes_out) = (count("packets_out")?, count("bytes_out")?);
    let (packets_in, bytes_in) = (count("packets_in")?, count("bytes_in")?);
    let flags = |name| columns.number::<UInt8Type>(name);
    let (tcp_flags_out, tcp_flags_in) = (flags("tcp_flags_out")?, flags("tcp_flags_in")?);
    let (end_reason, attribution) = (columns.text("end_reason")?, columns.text("attribution")?);
    let (user, session_id, auth_method) =
        (columns.texts("user")?, columns.texts("session_id")?, columns.text("auth_method")?);
    let (source, ap_mac) = (columns.text("identity_source")?, columns.text("ap_mac")?);
    let (ssid, nas) = (columns.text("ssid")?, columns.text("nas")?);
    let mut hostname = Repeating::new(columns.text("hostname")?);
    let mut device_vendor = Repeating::new(columns.text("device_vendor")?);
    let shared = |text: &Text<'_>, row| Ok(text.shared(row));
    let identity_places = |row| [&auth_method, &source, &ap_mac, &ssid, &nas].map(|text: &Text<'_>| text.place(row));
    let mut last = None;
    (0..batch.num_rows())
        .map(|row| {
            let identity = match session_id.get(row) {
                None => None,
                Some(ids) => {
                    // Rows of one client lie together, so the identity is mostly that of the row before.
                    let places = identity_places(row);
                    let before = last.take().filter(|(at, of, _)| {
                        *of == places && session_id.are_same(*at, row) && user.are_same(*at, row)
                    });
                    let before = before.map(|(_, _, identity)| identity);
                    let identity = match before {
                        Some(identity) => identity,
                        None => Arc::new(Identity {
                            users: user.owned(row),
                            session_ids: ids.map(str::to_owned).collect(),
                            auth_method: auth_method.shared(row),
                            source: source.required(source.label(row, source_from_label)?)?,
                            ap_mac: ap_mac.parse(row)?,
                            ssid: ssid.shared(row),
                            nas: nas.shared(row),
                        }),
                    };
                    last = Some((row, places, Arc::clone(&identity)));
                    Some(identity)
                }
            };
            let public = public_ip.parse(row)?.map(|ip| PublicEndpoint { ip, port: public_port.get(row) });
            Ok(FlowRecord {
                flow_id: flow_id.get(row).unwrap_or_default(),
                start_ns: start.ns(row).unwrap_or_default(),
                end_ns: end.ns(row).unwrap_or_default(),
                interface: interface.get(row, shared)?.unwrap_or_default(),
                vlan: vlan.get(row),
                inner_vlan: inner_vlan.get(row),
                client_mac: client_mac.required(row, Text::parse)?,
                client_ip: client_ip.required(row, Text::parse)?,
                client_port: client_port.get(row),
                public,
                nat: nat.label(row, NatState::from_label)?,
                peer_ip: peer_ip.parse(row)?,
                peer_port: peer_port.get(row),
                protocol: protocol.get(row),
                icmp_type: icmp_type.get(row),
                icmp_code: icmp_code.get(row),
                packets_out: packets_out.get(row).unwrap_or_default(),
                bytes_out: bytes_out.get(row).unwrap_or_default(),
                packets_in: packets_in.get(row).unwrap_or_default(),
                bytes_in: bytes_in.get(row).unwrap_or_default(),
                tcp_flags_out: tcp_flags_out.get(row),
                tcp_flags_in: tcp_flags_in.get(row),
                end_reason: end_reason.required(end_reason.label(row, EndReason::from_label)?)?,
                attribution: attribution.required(attribution.label(row, Attribution::from_label)?)?,
                identity,
                hostname: hostname.get(row, shared)?,
                device_vendor: device_vendor.get(row, shared)?,
            })
        })
        .collect()
}
