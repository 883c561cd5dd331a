//! `flows`: rows to columns and back.

use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::types::{UInt8Type, UInt16Type, UInt64Type};
use arrow_schema::ArrowError;
use hotspot_core::fact::IdentitySource;
use hotspot_core::record::{Attribution, EndReason, FlowRecord, Identity, NatState, PublicEndpoint};

use super::columns::{Columns, number, str_of, text, time};
use super::{Origin, SegmentError, schema};
use crate::layout::Class;

pub(super) const fn source_label(source: IdentitySource) -> &'static str {
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

pub(super) fn to_batch(origin: &Origin, rows: &[FlowRecord]) -> Result<RecordBatch, ArrowError> {
    fn who<'a, T: ?Sized>(row: &'a FlowRecord, value: impl Fn(&'a Identity) -> Option<&'a T>) -> Option<&'a T> {
        row.identity.as_deref().and_then(value)
    }
    RecordBatch::try_new(
        schema::of(Class::Flows),
        vec![
            number::<UInt64Type, _>(rows, |row| Some(row.flow_id)),
            time(rows, |row| Some(row.start_ns)),
            time(rows, |row| Some(row.end_ns)),
            str_of(rows, |_| Some(&*origin.site)),
            str_of(rows, |_| Some(&*origin.gateway)),
            str_of(rows, |row| Some(&row.interface)),
            number::<UInt16Type, _>(rows, |row| row.vlan),
            number::<UInt16Type, _>(rows, |row| row.inner_vlan),
            text(rows, |row| Some(row.client_mac.to_string())),
            text(rows, |row| Some(row.client_ip.to_string())),
            number::<UInt16Type, _>(rows, |row| row.client_port),
            text(rows, |row| row.public.map(|public| public.ip.to_string())),
            number::<UInt16Type, _>(rows, |row| row.public.and_then(|public| public.port)),
            str_of(rows, |row| row.nat.map(NatState::label)),
            text(rows, |row| row.peer_ip.map(|ip| ip.to_string())),
            number::<UInt16Type, _>(rows, |row| row.peer_port),
            number::<UInt8Type, _>(rows, |row| row.protocol),
            number::<UInt8Type, _>(rows, |row| row.icmp_type),
            number::<UInt8Type, _>(rows, |row| row.icmp_code),
            number::<UInt64Type, _>(rows, |row| Some(row.packets_out)),
            number::<UInt64Type, _>(rows, |row| Some(row.bytes_out)),
            number::<UInt64Type, _>(rows, |row| Some(row.packets_in)),
            number::<UInt64Type, _>(rows, |row| Some(row.bytes_in)),
            number::<UInt8Type, _>(rows, |row| row.tcp_flags_out),
            number::<UInt8Type, _>(rows, |row| row.tcp_flags_in),
            str_of(rows, |row| Some(row.end_reason.label())),
            str_of(rows, |row| Some(row.attribution.label())),
            str_of(rows, |row| who(row, |who| who.user.as_deref())),
            str_of(rows, |row| who(row, |who| Some(&*who.session_id))),
            str_of(rows, |row| who(row, |who| who.auth_method.as_deref())),
            str_of(rows, |row| who(row, |who| Some(source_label(who.source)))),
            text(rows, |row| row.identity.as_deref().and_then(|who| who.ap_mac).map(|mac| mac.to_string())),
            str_of(rows, |row| who(row, |who| who.ssid.as_deref())),
            str_of(rows, |row| who(row, |who| who.nas.as_deref())),
            str_of(rows, |row| row.hostname.as_deref()),
            str_of(rows, |row| row.device_vendor.as_deref()),
        ],
    )
}

pub(super) fn from_batch(path: &Path, batch: &RecordBatch) -> Result<Vec<FlowRecord>, SegmentError> {
    let columns = Columns { path, batch };
    let shared = |text: Option<&str>| text.map(Arc::<str>::from);
    let (flow_id, start, end) =
        (columns.number::<UInt64Type>("flow_id")?, columns.time("start")?, columns.time("end")?);
    let interface = columns.text("interface")?;
    let (vlan, inner_vlan) = (columns.number::<UInt16Type>("vlan")?, columns.number::<UInt16Type>("inner_vlan")?);
    let (client_mac, client_ip) = (columns.text("client_mac")?, columns.text("client_ip")?);
    let client_port = columns.number::<UInt16Type>("client_port")?;
    let (public_ip, public_port) = (columns.text("public_ip")?, columns.number::<UInt16Type>("public_port")?);
    let (nat, peer_ip) = (columns.text("nat")?, columns.text("peer_ip")?);
    let (peer_port, protocol) = (columns.number::<UInt16Type>("peer_port")?, columns.number::<UInt8Type>("protocol")?);
    let (icmp_type, icmp_code) = (columns.number::<UInt8Type>("icmp_type")?, columns.number::<UInt8Type>("icmp_code")?);
    let count = |name| columns.number::<UInt64Type>(name);
    let (packets_out, bytes_out) = (count("packets_out")?, count("bytes_out")?);
    let (packets_in, bytes_in) = (count("packets_in")?, count("bytes_in")?);
    let flags = |name| columns.number::<UInt8Type>(name);
    let (tcp_flags_out, tcp_flags_in) = (flags("tcp_flags_out")?, flags("tcp_flags_in")?);
    let (end_reason, attribution) = (columns.text("end_reason")?, columns.text("attribution")?);
    let (user, session_id, auth_method) =
        (columns.text("user")?, columns.text("session_id")?, columns.text("auth_method")?);
    let (source, ap_mac) = (columns.text("identity_source")?, columns.text("ap_mac")?);
    let (ssid, nas) = (columns.text("ssid")?, columns.text("nas")?);
    let (hostname, device_vendor) = (columns.text("hostname")?, columns.text("device_vendor")?);
    let mut last: Option<Arc<Identity>> = None;
    (0..batch.num_rows())
        .map(|row| {
            let identity = match session_id.get(row) {
                None => None,
                Some(id) => {
                    let identity = Identity {
                        user: shared(user.get(row)),
                        session_id: id.into(),
                        auth_method: shared(auth_method.get(row)),
                        source: source.required(source.label(row, source_from_label)?)?,
                        ap_mac: ap_mac.parse(row)?,
                        ssid: shared(ssid.get(row)),
                        nas: shared(nas.get(row)),
                    };
                    // Rows of one client lie together, so the last identity is mostly this one.
                    let same = last.take().filter(|last| **last == identity).unwrap_or_else(|| Arc::new(identity));
                    last = Some(Arc::clone(&same));
                    Some(same)
                }
            };
            let public = public_ip.parse(row)?.map(|ip| PublicEndpoint { ip, port: public_port.get(row) });
            Ok(FlowRecord {
                flow_id: flow_id.get(row).unwrap_or_default(),
                start_ns: start.ns(row).unwrap_or_default(),
                end_ns: end.ns(row).unwrap_or_default(),
                interface: interface.get(row).unwrap_or_default().into(),
                vlan: vlan.get(row),
                inner_vlan: inner_vlan.get(row),
                client_mac: client_mac.required(client_mac.parse(row)?)?,
                client_ip: client_ip.required(client_ip.parse(row)?)?,
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
                hostname: shared(hostname.get(row)),
                device_vendor: shared(device_vendor.get(row)),
            })
        })
        .collect()
}
