//! `flows` on their way into a file: rows go in one by one, a batch of columns comes out when it is full.

use std::net::IpAddr;
use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type};
use arrow_array::{ArrayRef, PrimitiveArray, RecordBatch};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{ArrowError, Schema};
use hotspot_core::record::{Attribution, EndReason, FlowRecord, NatState};
use hotspot_core::{MacAddr, WallNs};

use super::shared_columns::SharedColumns;
use super::text_column::{LabelColumn, TextColumn, constant};
use super::validity::Validity;
use super::{Origin, schema, select};
use crate::layout::Class;

/// Numbers of one column.
struct Numbers<P: ArrowPrimitiveType> {
    values: Vec<P::Native>,
    validity: Validity,
}

impl<P: ArrowPrimitiveType> Numbers<P> {
    fn new(rows: usize) -> Self {
        Self { values: Vec::with_capacity(rows), validity: Validity::new(rows) }
    }

    #[inline]
    fn push(&mut self, value: Option<P::Native>) {
        self.values.push(value.unwrap_or_default());
        self.validity.push(value.is_some());
    }

    fn take(&mut self) -> PrimitiveArray<P> {
        let capacity = self.values.capacity();
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(capacity));
        PrimitiveArray::new(ScalarBuffer::from(values), self.validity.finish())
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.take())
    }
}

impl Numbers<Int64Type> {
    #[inline]
    fn count(&mut self, count: u64) {
        // Above 2^63 there is nothing to count on this planet.
        self.push(Some(i64::try_from(count).unwrap_or(i64::MAX)));
    }
}

impl Numbers<TimestampMicrosecondType> {
    fn finish_utc(&mut self) -> ArrayRef {
        Arc::new(self.take().with_timezone("UTC"))
    }
}

/// A batch in the making.
pub(super) struct FlowColumns {
    rows: usize,
    len: usize,
    flow_id: Numbers<Int64Type>,
    start: Numbers<TimestampMicrosecondType>,
    end: Numbers<TimestampMicrosecondType>,
    vlan: Numbers<UInt16Type>,
    inner_vlan: Numbers<UInt16Type>,
    client_mac: TextColumn<MacAddr>,
    client_ip: TextColumn<IpAddr>,
    client_port: Numbers<UInt16Type>,
    public_ip: TextColumn<IpAddr>,
    public_port: Numbers<UInt16Type>,
    nat: LabelColumn,
    peer_ip: TextColumn<IpAddr>,
    peer_port: Numbers<UInt16Type>,
    protocol: Numbers<UInt8Type>,
    icmp_type: Numbers<UInt8Type>,
    icmp_code: Numbers<UInt8Type>,
    packets_out: Numbers<Int64Type>,
    bytes_out: Numbers<Int64Type>,
    packets_in: Numbers<Int64Type>,
    bytes_in: Numbers<Int64Type>,
    tcp_flags_out: Numbers<UInt8Type>,
    tcp_flags_in: Numbers<UInt8Type>,
    end_reason: LabelColumn,
    attribution: LabelColumn,
    shared: SharedColumns,
}

impl FlowColumns {
    /// For batches of so many rows.
    pub(super) fn new(rows: usize) -> Self {
        Self {
            rows,
            len: 0,
            flow_id: Numbers::new(rows),
            start: Numbers::new(rows),
            end: Numbers::new(rows),
            vlan: Numbers::new(rows),
            inner_vlan: Numbers::new(rows),
            client_mac: TextColumn::new(rows),
            client_ip: TextColumn::new(rows),
            client_port: Numbers::new(rows),
            public_ip: TextColumn::new(rows),
            public_port: Numbers::new(rows),
            nat: LabelColumn::new(rows, NatState::ALL.iter().map(|state| state.label())),
            peer_ip: TextColumn::new(rows),
            peer_port: Numbers::new(rows),
            protocol: Numbers::new(rows),
            icmp_type: Numbers::new(rows),
            icmp_code: Numbers::new(rows),
            packets_out: Numbers::new(rows),
            bytes_out: Numbers::new(rows),
            packets_in: Numbers::new(rows),
            bytes_in: Numbers::new(rows),
            tcp_flags_out: Numbers::new(rows),
            tcp_flags_in: Numbers::new(rows),
            end_reason: LabelColumn::new(rows, EndReason::ALL.iter().map(|reason| reason.label())),
            attribution: LabelColumn::new(rows, Attribution::ALL.iter().map(|attribution| attribution.label())),
            shared: SharedColumns::new(rows),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= self.rows
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, row: &FlowRecord) {
        self.len += 1;
        self.flow_id.count(row.flow_id);
        self.start.push(Some(micros(row.start_ns)));
        self.end.push(Some(micros(row.end_ns)));
        self.vlan.push(row.vlan);
        self.inner_vlan.push(row.inner_vlan);
        self.client_mac.push(Some(row.client_mac));
        self.client_ip.push(Some(row.client_ip));
        self.client_port.push(row.client_port);
        self.public_ip.push(row.public.map(|public| public.ip));
        self.public_port.push(row.public.and_then(|public| public.port));
        self.nat.push(row.nat.map(|nat| nat as usize));
        self.peer_ip.push(row.peer_ip);
        self.peer_port.push(row.peer_port);
        self.protocol.push(row.protocol);
        self.icmp_type.push(row.icmp_type);
        self.icmp_code.push(row.icmp_code);
        self.packets_out.count(row.packets_out);
        self.bytes_out.count(row.bytes_out);
        self.packets_in.count(row.packets_in);
        self.bytes_in.count(row.bytes_in);
        self.tcp_flags_out.push(row.tcp_flags_out);
        self.tcp_flags_in.push(row.tcp_flags_in);
        self.end_reason.push(Some(row.end_reason as usize));
        self.attribution.push(Some(row.attribution as usize));
        self.shared.push(row);
    }

    /// The batch; begins anew.
    pub(super) fn finish(&mut self, origin: &Origin) -> Result<RecordBatch, ArrowError> {
        let len = std::mem::take(&mut self.len);
        self.shared.end_run();
        let columns = vec![
            self.flow_id.finish(),
            self.start.finish_utc(),
            self.end.finish_utc(),
            constant(&origin.site, len),
            constant(&origin.gateway, len),
            self.shared.interface.finish(),
            self.vlan.finish(),
            self.inner_vlan.finish(),
            self.client_mac.finish(),
            self.client_ip.finish(),
            self.client_port.finish(),
            self.public_ip.finish(),
            self.public_port.finish(),
            self.nat.finish(),
            self.peer_ip.finish(),
            self.peer_port.finish(),
            self.protocol.finish(),
            self.icmp_type.finish(),
            self.icmp_code.finish(),
            self.packets_out.finish(),
            self.bytes_out.finish(),
            self.packets_in.finish(),
            self.bytes_in.finish(),
            self.tcp_flags_out.finish(),
            self.tcp_flags_in.finish(),
            self.end_reason.finish(),
            self.attribution.finish(),
            self.shared.user.finish(),
            self.shared.session_id.finish(),
            self.shared.auth_method.finish(),
            self.shared.identity_source.finish(),
            self.shared.ap_mac.finish(),
            self.shared.ssid.finish(),
            self.shared.nas.finish(),
            self.shared.hostname.finish(),
            self.shared.device_vendor.finish(),
        ];
        RecordBatch::try_new(Arc::new(as_dictionaries(&schema::of(Class::Flows))), columns)
    }
}

/// The same columns with text by reference; in the file there is no difference.
fn as_dictionaries(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(select::as_dictionary).collect::<Vec<_>>())
}

fn micros(at_ns: WallNs) -> i64 {
    at_ns.div_euclid(1000)
}
