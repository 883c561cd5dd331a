//! `sessions`: rows to columns and back.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use hotspot_core::fact::{SessionCounters, SessionDetails};
use hotspot_core::record::{SessionRecord, SessionStatus};

use super::columns::{Columns, Text, count, lists, str_of, text, time};
use super::flows::{source_from_label, source_label};
use super::{Origin, SegmentError, schema};
use crate::layout::Class;

pub(super) fn to_batch(origin: &Origin, rows: &[SessionRecord]) -> Result<RecordBatch, ArrowError> {
    fn counted(rows: &[SessionRecord], value: impl Fn(&SessionCounters) -> u64) -> arrow_array::ArrayRef {
        count(rows, |row| row.counters.as_ref().map(&value))
    }
    fn told(rows: &[SessionRecord], value: impl Fn(&SessionDetails) -> &Option<String>) -> arrow_array::ArrayRef {
        str_of(rows, |row| row.details.as_deref().and_then(|details| value(details).as_deref()))
    }
    RecordBatch::try_new(
        schema::of(Class::Sessions),
        vec![
            str_of(rows, |row| Some(&row.session_id)),
            str_of(rows, |row| row.user.as_deref()),
            str_of(rows, |row| row.auth_method.as_deref()),
            str_of(rows, |row| Some(source_label(row.source))),
            text(rows, |row| row.client_mac.map(|mac| mac.to_string())),
            lists(rows, |row| row.client_ips.iter().map(ToString::to_string).collect()),
            str_of(rows, |_| Some(&*origin.site)),
            str_of(rows, |_| Some(&*origin.gateway)),
            text(rows, |row| row.ap_mac.map(|mac| mac.to_string())),
            str_of(rows, |row| row.ssid.as_deref()),
            str_of(rows, |row| row.nas.as_deref()),
            str_of(rows, |row| row.nas_port.as_deref()),
            time(rows, |row| Some(row.started_ns)),
            time(rows, |row| row.ended_ns),
            str_of(rows, |row| row.end_cause.as_deref()),
            counted(rows, |counters| counters.packets_out),
            counted(rows, |counters| counters.bytes_out),
            counted(rows, |counters| counters.packets_in),
            counted(rows, |counters| counters.bytes_in),
            lists(rows, |row| row.client_prefixes.iter().map(|(address, len)| format!("{address}/{len}")).collect()),
            told(rows, |details| &details.nas_port_type),
            told(rows, |details| &details.multi_session_id),
            told(rows, |details| &details.chargeable_user),
            told(rows, |details| &details.class),
            told(rows, |details| &details.location),
            told(rows, |details| &details.calling_station),
            told(rows, |details| &details.called_station),
            str_of(rows, |row| Some(row.status.label())),
        ],
    )
}

pub(super) fn from_batch(path: &Path, batch: &RecordBatch) -> Result<Vec<SessionRecord>, SegmentError> {
    let columns = Columns { path, batch };
    let (session_id, user, auth_method) =
        (columns.text("session_id")?, columns.text("user")?, columns.text("auth_method")?);
    let (source, client_mac) = (columns.text("identity_source")?, columns.text("client_mac")?);
    let (client_ips, ap_mac, ssid) = (columns.texts("client_ips")?, columns.text("ap_mac")?, columns.text("ssid")?);
    let (nas, nas_port, end_cause) = (columns.text("nas")?, columns.text("nas_port")?, columns.text("end_cause")?);
    let (started, ended, status) = (columns.time("started")?, columns.time("ended")?, columns.text("status")?);
    let count = |name| columns.count(name);
    let (packets_out, bytes_out) = (count("packets_out")?, count("bytes_out")?);
    let (packets_in, bytes_in) = (count("packets_in")?, count("bytes_in")?);
    let client_prefixes = columns.texts_if_any("client_prefixes")?;
    let details = DetailColumns::of(&columns)?;
    (0..batch.num_rows())
        .map(|row| {
            let counters = packets_out.get(row).map(|packets_out| SessionCounters {
                packets_out,
                bytes_out: bytes_out.get(row).unwrap_or_default(),
                packets_in: packets_in.get(row).unwrap_or_default(),
                bytes_in: bytes_in.get(row).unwrap_or_default(),
            });
            Ok(SessionRecord {
                session_id: session_id.owned(row).unwrap_or_default(),
                user: user.owned(row),
                auth_method: auth_method.owned(row),
                source: source.required(source.label(row, source_from_label)?)?,
                client_mac: client_mac.parse(row)?,
                client_ips: client_ips.parse(row, |ip| ip.parse().ok())?,
                client_prefixes: match &client_prefixes {
                    Some(prefixes) => prefixes.parse(row, parse_prefix)?,
                    None => Vec::new(),
                },
                ap_mac: ap_mac.parse(row)?,
                ssid: ssid.owned(row),
                nas: nas.owned(row),
                nas_port: nas_port.owned(row),
                started_ns: started.ns(row).unwrap_or_default(),
                ended_ns: ended.ns(row),
                end_cause: end_cause.owned(row),
                counters,
                details: details.row(row),
                status: status.required(status.label(row, SessionStatus::from_label)?)?,
            })
        })
        .collect()
}

fn parse_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, len) = text.split_once('/')?;
    Some((address.parse().ok()?, len.parse().ok()?))
}

/// The columns of [`SessionDetails`].
struct DetailColumns<'a> {
    nas_port_type: Text<'a>,
    multi_session_id: Text<'a>,
    chargeable_user: Text<'a>,
    class: Text<'a>,
    location: Text<'a>,
    calling_station: Text<'a>,
    called_station: Text<'a>,
}

impl<'a> DetailColumns<'a> {
    fn of(columns: &Columns<'a>) -> Result<Self, SegmentError> {
        Ok(Self {
            nas_port_type: columns.text_if_any("nas_port_type")?,
            multi_session_id: columns.text_if_any("multi_session_id")?,
            chargeable_user: columns.text_if_any("chargeable_user")?,
            class: columns.text_if_any("class")?,
            location: columns.text_if_any("location")?,
            calling_station: columns.text_if_any("calling_station")?,
            called_station: columns.text_if_any("called_station")?,
        })
    }

    fn row(&self, row: usize) -> Option<Arc<SessionDetails>> {
        let details = SessionDetails {
            nas_port_type: self.nas_port_type.owned(row),
            multi_session_id: self.multi_session_id.owned(row),
            chargeable_user: self.chargeable_user.owned(row),
            class: self.class.owned(row),
            location: self.location.owned(row),
            calling_station: self.calling_station.owned(row),
            called_station: self.called_station.owned(row),
        };
        details.shared()
    }
}
