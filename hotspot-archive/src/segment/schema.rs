//! The one place of columns: names, types, order.
//!
//! Times are UTC with microseconds, addresses and MACs are text, a value that is not known is null.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::layout::Class;

pub(super) fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn number(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

fn required(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, false)
}

/// Several texts. In the file the column is `<name>.list.element`.
fn texts(name: &str, is_nullable: bool) -> Field {
    Field::new(name, DataType::List(Arc::new(Field::new("element", DataType::Utf8, false))), is_nullable)
}

static FLOWS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        required("flow_id", DataType::Int64),
        required("start", time()),
        required("end", time()),
        required("site", DataType::Utf8),
        required("gateway", DataType::Utf8),
        required("interface", DataType::Utf8),
        number("vlan", DataType::UInt16),
        number("inner_vlan", DataType::UInt16),
        required("client_mac", DataType::Utf8),
        required("client_ip", DataType::Utf8),
        number("client_port", DataType::UInt16),
        text("public_ip"),
        number("public_port", DataType::UInt16),
        text("nat"),
        text("peer_ip"),
        number("peer_port", DataType::UInt16),
        number("protocol", DataType::UInt8),
        number("icmp_type", DataType::UInt8),
        number("icmp_code", DataType::UInt8),
        required("packets_out", DataType::Int64),
        required("bytes_out", DataType::Int64),
        required("packets_in", DataType::Int64),
        required("bytes_in", DataType::Int64),
        number("tcp_flags_out", DataType::UInt8),
        number("tcp_flags_in", DataType::UInt8),
        required("end_reason", DataType::Utf8),
        required("attribution", DataType::Utf8),
        // One for each claimant.
        texts("user", true),
        texts("session_id", true),
        text("auth_method"),
        text("identity_source"),
        text("ap_mac"),
        text("ssid"),
        text("nas"),
        text("hostname"),
        text("device_vendor"),
    ]))
});

static SESSIONS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        required("session_id", DataType::Utf8),
        text("user"),
        text("auth_method"),
        required("identity_source", DataType::Utf8),
        text("client_mac"),
        texts("client_ips", false),
        required("site", DataType::Utf8),
        required("gateway", DataType::Utf8),
        text("ap_mac"),
        text("ssid"),
        text("nas"),
        text("nas_port"),
        required("started", time()),
        number("ended", time()),
        text("end_cause"),
        number("packets_out", DataType::Int64),
        number("bytes_out", DataType::Int64),
        number("packets_in", DataType::Int64),
        number("bytes_in", DataType::Int64),
        texts("client_prefixes", false),
        text("nas_port_type"),
        text("multi_session_id"),
        text("chargeable_user"),
        text("class"),
        text("location"),
        text("calling_station"),
        text("called_station"),
        required("status", DataType::Utf8),
    ]))
});

static DEVICES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        required("client_mac", DataType::Utf8),
        required("random_mac", DataType::Boolean),
        text("device_vendor"),
        text("hostname"),
        text("vendor_class"),
        text("dhcp_fingerprint"),
        text("client_id"),
        texts("ips", false),
        required("site", DataType::Utf8),
        required("gateway", DataType::Utf8),
        required("first_seen", time()),
        required("last_seen", time()),
        texts("source", false),
        Field::new("many_addresses", DataType::Boolean, true),
    ]))
});

static COVERAGE: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        required("site", DataType::Utf8),
        required("gateway", DataType::Utf8),
        required("interface", DataType::Utf8),
        required("generation", DataType::Int64),
        required("from", time()),
        required("to", time()),
        required("hook", DataType::Utf8),
        required("seen_packets", DataType::Int64),
        required("seen_bytes", DataType::Int64),
        required("flow_packets", DataType::Int64),
        required("flow_bytes", DataType::Int64),
        required("overflow_packets", DataType::Int64),
        required("overflow_bytes", DataType::Int64),
        // JSON: outcome → [packets, bytes].
        required("outcomes", DataType::Utf8),
        // JSON: happening → count.
        required("happenings", DataType::Utf8),
        number("clock_offset_ns", DataType::Int64),
        text("gap"),
    ]))
});

/// The columns of a class.
#[must_use]
pub fn of(class: Class) -> SchemaRef {
    match class {
        Class::Flows => FLOWS.clone(),
        Class::Sessions => SESSIONS.clone(),
        Class::Devices => DEVICES.clone(),
        Class::Coverage => COVERAGE.clone(),
    }
}
