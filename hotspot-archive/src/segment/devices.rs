//! `devices`: rows to columns and back.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_schema::ArrowError;
use hotspot_core::MacAddr;
use hotspot_core::fact::DeviceSource;
use hotspot_core::record::DeviceRecord;

use super::columns::{Columns, lists, str_of, text, time};
use super::{Origin, SegmentError, schema};
use crate::layout::Class;

pub(super) fn to_batch(origin: &Origin, rows: &[DeviceRecord]) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new(
        schema::of(Class::Devices),
        vec![
            text(rows, |row| Some(row.client_mac.to_string())),
            Arc::new(rows.iter().map(|row| Some(row.random_mac)).collect::<BooleanArray>()),
            str_of(rows, |row| row.device_vendor.as_deref()),
            str_of(rows, |row| row.hostname.as_deref()),
            str_of(rows, |row| row.vendor_class.as_deref()),
            str_of(rows, |row| row.dhcp_fingerprint.as_deref()),
            str_of(rows, |row| row.client_id.as_deref()),
            lists(rows, |row| row.ips.iter().map(ToString::to_string).collect()),
            str_of(rows, |_| Some(&*origin.site)),
            str_of(rows, |_| Some(&*origin.gateway)),
            time(rows, |row| Some(row.first_seen_ns)),
            time(rows, |row| Some(row.last_seen_ns)),
            lists(rows, |row| row.sources.iter().map(|source| source.label()).collect()),
            Arc::new(rows.iter().map(|row| row.many_addresses).collect::<BooleanArray>()),
        ],
    )
}

pub(super) fn from_batch(path: &Path, batch: &RecordBatch) -> Result<Vec<DeviceRecord>, SegmentError> {
    let columns = Columns { path, batch };
    let (client_mac, device_vendor) = (columns.text("client_mac")?, columns.text("device_vendor")?);
    let (hostname, vendor_class) = (columns.text("hostname")?, columns.text("vendor_class")?);
    let (fingerprint, client_id) = (columns.text("dhcp_fingerprint")?, columns.text("client_id")?);
    let (ips, source) = (columns.texts("ips")?, columns.texts("source")?);
    let (first_seen, last_seen) = (columns.time("first_seen")?, columns.time("last_seen")?);
    let many_addresses = columns.flag_if_any("many_addresses")?;
    (0..batch.num_rows())
        .map(|row| {
            let client_mac: MacAddr = client_mac.required(client_mac.parse(row)?)?;
            Ok(DeviceRecord {
                client_mac,
                random_mac: client_mac.is_random(),
                many_addresses: many_addresses.filter(|flags| flags.is_valid(row)).map(|flags| flags.value(row)),
                device_vendor: device_vendor.owned(row),
                hostname: hostname.owned(row),
                vendor_class: vendor_class.owned(row),
                dhcp_fingerprint: fingerprint.owned(row),
                client_id: client_id.owned(row),
                ips: ips.parse(row, |ip| ip.parse().ok())?,
                first_seen_ns: first_seen.ns(row).unwrap_or_default(),
                last_seen_ns: last_seen.ns(row).unwrap_or_default(),
                sources: source.parse(row, DeviceSource::from_label)?,
            })
        })
        .collect()
}
