//! Flows and sessions as named values, in the archive's order: for JSON and CSV.

use std::borrow::Cow;

use hotspot_archive::search::Hit;
use hotspot_archive::segment::Origin;
use hotspot_core::fact::{DeviceSource, IdentitySource};
use hotspot_core::record::{CoverageRecord, DeviceRecord, FlowRecord, NatState, SessionRecord};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use crate::time::utc;

/// Values with names, in order. A map would look up each of them, for every row of an answer.
pub(crate) struct Columns(Vec<(Cow<'static, str>, Value)>);

impl Columns {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// Adds one behind the others, of a name that none has.
    pub(crate) fn push(&mut self, name: &'static str, value: Value) {
        self.0.push((name.into(), value));
    }
}

impl From<Map<String, Value>> for Columns {
    fn from(map: Map<String, Value>) -> Self {
        Self(map.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

/// A flow with the archive's column names.
pub(crate) fn of_hit(hit: &Hit) -> Columns {
    of_flow(&hit.origin, &hit.flow)
}

pub(crate) fn of_flow(origin: &Origin, flow: &FlowRecord) -> Columns {
    let who = flow.identity.as_deref();
    let public = flow.public;
    object([
        ("flow_id", json!(flow.flow_id)),
        ("start", json!(utc(flow.start_ns))),
        ("end", json!(utc(flow.end_ns))),
        ("site", json!(origin.site)),
        ("gateway", json!(origin.gateway)),
        ("interface", json!(&*flow.interface)),
        ("vlan", json!(flow.vlan)),
        ("inner_vlan", json!(flow.inner_vlan)),
        ("client_mac", json!(flow.client_mac.to_string())),
        ("client_ip", json!(flow.client_ip)),
        ("client_port", json!(flow.client_port)),
        ("public_ip", json!(public.map(|public| public.ip))),
        ("public_port", json!(public.and_then(|public| public.port))),
        ("nat", json!(flow.nat.map(NatState::label))),
        ("peer_ip", json!(flow.peer_ip)),
        ("peer_port", json!(flow.peer_port)),
        ("protocol", json!(flow.protocol)),
        ("icmp_type", json!(flow.icmp_type)),
        ("icmp_code", json!(flow.icmp_code)),
        ("packets_out", json!(flow.packets_out)),
        ("bytes_out", json!(flow.bytes_out)),
        ("packets_in", json!(flow.packets_in)),
        ("bytes_in", json!(flow.bytes_in)),
        ("tcp_flags_out", json!(flow.tcp_flags_out)),
        ("tcp_flags_in", json!(flow.tcp_flags_in)),
        ("end_reason", json!(flow.end_reason.label())),
        ("attribution", json!(flow.attribution.label())),
        ("user", json!(who.map(|who| &who.users).filter(|users| !users.is_empty()))),
        ("session_id", json!(who.map(|who| &who.session_ids))),
        ("auth_method", json!(who.and_then(|who| who.auth_method.as_deref()))),
        ("identity_source", json!(who.map(|who| source(who.source)))),
        ("ap_mac", json!(who.and_then(|who| who.ap_mac))),
        ("ssid", json!(who.and_then(|who| who.ssid.as_deref()))),
        ("nas", json!(who.and_then(|who| who.nas.as_deref()))),
        ("hostname", json!(flow.hostname.as_deref())),
        ("device_vendor", json!(flow.device_vendor.as_deref())),
    ])
}

pub(crate) fn of_session(origin: &Origin, session: &SessionRecord) -> Columns {
    let details = session.details.as_deref().cloned().unwrap_or_default();
    let prefixes: Vec<String> =
        session.client_prefixes.iter().map(|(address, len)| format!("{address}/{len}")).collect();
    object([
        ("session_id", json!(session.session_id)),
        ("user", json!(session.user)),
        ("auth_method", json!(session.auth_method)),
        ("identity_source", json!(source(session.source))),
        ("client_mac", json!(session.client_mac)),
        ("client_ips", json!(session.client_ips)),
        ("site", json!(origin.site)),
        ("gateway", json!(origin.gateway)),
        ("ap_mac", json!(session.ap_mac)),
        ("ssid", json!(session.ssid)),
        ("nas", json!(session.nas)),
        ("nas_port", json!(session.nas_port)),
        ("started", json!(utc(session.started_ns))),
        ("ended", json!(session.ended_ns.map(utc))),
        ("end_cause", json!(session.end_cause)),
        ("packets_out", json!(session.counters.map(|counters| counters.packets_out))),
        ("bytes_out", json!(session.counters.map(|counters| counters.bytes_out))),
        ("packets_in", json!(session.counters.map(|counters| counters.packets_in))),
        ("bytes_in", json!(session.counters.map(|counters| counters.bytes_in))),
        ("client_prefixes", json!(prefixes)),
        ("nas_port_type", json!(details.nas_port_type)),
        ("multi_session_id", json!(details.multi_session_id)),
        ("chargeable_user", json!(details.chargeable_user)),
        ("class", json!(details.class)),
        ("location", json!(details.location)),
        ("calling_station", json!(details.calling_station)),
        ("called_station", json!(details.called_station)),
        ("status", json!(session.status.label())),
    ])
}

pub(crate) fn of_device(origin: &Origin, device: &DeviceRecord) -> Columns {
    let sources: Vec<&str> = device.sources.iter().map(|source: &DeviceSource| source.label()).collect();
    object([
        ("client_mac", json!(device.client_mac)),
        ("random_mac", json!(device.random_mac)),
        ("many_addresses", json!(device.many_addresses)),
        ("device_vendor", json!(device.device_vendor)),
        ("hostname", json!(device.hostname)),
        ("vendor_class", json!(device.vendor_class)),
        ("dhcp_fingerprint", json!(device.dhcp_fingerprint)),
        ("client_id", json!(device.client_id)),
        ("ips", json!(device.ips)),
        ("site", json!(origin.site)),
        ("gateway", json!(origin.gateway)),
        ("first_seen", json!(utc(device.first_seen_ns))),
        ("last_seen", json!(utc(device.last_seen_ns))),
        ("source", json!(sources)),
    ])
}

pub(crate) fn of_coverage(row: &CoverageRecord) -> Columns {
    let outcomes: Map<String, Value> =
        row.outcomes.iter().map(|(label, count)| (label.clone(), json!([count.packets, count.bytes]))).collect();
    let happenings: Map<String, Value> =
        row.happenings.iter().map(|(label, count)| (label.clone(), json!(count))).collect();
    object([
        ("interface", json!(row.interface)),
        ("generation", json!(row.generation)),
        ("from", json!(utc(row.from_ns))),
        ("to", json!(utc(row.to_ns))),
        ("hook", json!(row.hook)),
        ("seen_packets", json!(row.seen.packets)),
        ("seen_bytes", json!(row.seen.bytes)),
        ("flow_packets", json!(row.flows.packets)),
        ("flow_bytes", json!(row.flows.bytes)),
        ("overflow_packets", json!(row.overflow.packets)),
        ("overflow_bytes", json!(row.overflow.bytes)),
        ("outcomes", Value::Object(outcomes)),
        ("happenings", Value::Object(happenings)),
        ("clock_offset_ns", json!(row.clock_offset_ns)),
        ("balanced", json!(row.balances())),
        ("gap", json!(row.gap)),
    ])
}

fn object<const N: usize>(pairs: [(&'static str, Value); N]) -> Columns {
    Columns(pairs.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn source(source: IdentitySource) -> Value {
    json!(source)
}
