//! Rows of flows on their way into a file: their bytes from the record, without the columns in between.
//!
//! Must give what [`super::columns`] gives from the finished file; a test compares them.

use std::net::IpAddr;
use std::sync::Arc;

use hotspot_core::record::{FlowRecord, Identity};
use hotspot_core::{MacAddr, WallNs};

use super::encoding::{put_count, put_ip, put_text, put_texts};
use super::fields::{self, VERSION, presence_bytes};
use super::leaves::{Leaves, shared_hash};
use super::{RowsRoot, SaltKey};
use crate::layout::Class;
use crate::merkle::Hash;
use crate::segment::{Origin, are_same, source_label};

const PRESENCE: usize = presence_bytes(fields::of(Class::Flows).own.len());
const SHARED_PRESENCE: usize = presence_bytes(fields::of(Class::Flows).shared.len());

/// What a run of rows shares, and its hash. Text is compared by reference: rows that only have equal text cost a hash more.
struct Run {
    interface: Arc<str>,
    vlan: Option<u16>,
    inner_vlan: Option<u16>,
    client_mac: MacAddr,
    client_ip: IpAddr,
    identity: Option<Arc<Identity>>,
    hostname: Option<Arc<str>>,
    device_vendor: Option<Arc<str>>,
    hash: Hash,
}

impl Run {
    fn of(row: &FlowRecord, origin: &Origin) -> Self {
        Self {
            interface: Arc::clone(&row.interface),
            vlan: row.vlan,
            inner_vlan: row.inner_vlan,
            client_mac: row.client_mac,
            client_ip: row.client_ip,
            identity: row.identity.clone(),
            hostname: row.hostname.clone(),
            device_vendor: row.device_vendor.clone(),
            hash: shared_hash(&shared_bytes(row, origin)),
        }
    }

    #[inline]
    fn has(&self, row: &FlowRecord) -> bool {
        self.client_mac == row.client_mac
            && self.client_ip == row.client_ip
            && self.vlan == row.vlan
            && self.inner_vlan == row.inner_vlan
            && Arc::ptr_eq(&self.interface, &row.interface)
            && are_same(self.identity.as_ref(), row.identity.as_ref())
            && are_same(self.hostname.as_ref(), row.hostname.as_ref())
            && are_same(self.device_vendor.as_ref(), row.device_vendor.as_ref())
    }
}

/// The tree over the flows of a file in the making.
pub(crate) struct FlowRows {
    leaves: Leaves,
    origin: Origin,
    run: Option<Run>,
}

impl FlowRows {
    pub(crate) fn new(origin: &Origin, key: &SaltKey) -> Self {
        Self { leaves: Leaves::new(key), origin: origin.clone(), run: None }
    }

    /// Adds a row behind the others.
    #[inline]
    pub(crate) fn push(&mut self, row: &FlowRecord) {
        let run = match self.run.take() {
            Some(run) if run.has(row) => self.run.insert(run),
            Some(_) | None => self.run.insert(Run::of(row, &self.origin)),
        };
        put_own(row, self.leaves.begin());
        self.leaves.end(&run.hash);
    }

    pub(crate) fn finish(&self) -> RowsRoot {
        self.leaves.finish()
    }
}

/// Puts values behind each other and notes which are there.
struct Values<'a, const N: usize> {
    to: &'a mut Vec<u8>,
    /// Where the bytes of presence are.
    at: usize,
    present: u32,
    next: u32,
}

impl<'a, const N: usize> Values<'a, N> {
    #[inline]
    fn begin(to: &'a mut Vec<u8>) -> Self {
        let at = to.len();
        to.extend_from_slice(&[0; N]);
        Self { to, at, present: 0, next: 0 }
    }

    #[inline]
    fn put<T>(&mut self, value: Option<T>, put: impl FnOnce(T, &mut Vec<u8>)) {
        self.present |= u32::from(value.is_some()) << self.next;
        self.next += 1;
        if let Some(value) = value {
            put(value, self.to);
        }
    }

    #[inline]
    fn byte(&mut self, value: Option<u8>) {
        self.put(value, |value, to| to.push(value));
    }

    #[inline]
    fn number16(&mut self, value: Option<u16>) {
        self.put(value, |value, to| to.extend_from_slice(&value.to_be_bytes()));
    }

    #[inline]
    fn count(&mut self, count: u64) {
        // As the column holds it.
        self.put(Some(count.min(i64::MAX.unsigned_abs())), put_count);
    }

    #[inline]
    fn time(&mut self, at_ns: WallNs) {
        self.put(Some(at_ns.div_euclid(1000)), |micros, to| to.extend_from_slice(&micros.to_be_bytes()));
    }

    fn mac(&mut self, mac: Option<MacAddr>) {
        self.put(mac, |mac, to| to.extend_from_slice(&mac.0));
    }

    fn text(&mut self, text: Option<&str>) {
        self.put(text, put_text);
    }

    /// A list without items is null in the column.
    fn texts(&mut self, texts: &[String]) {
        let texts = Some(texts).filter(|texts| !texts.is_empty());
        self.put(texts, |texts, to| put_texts(texts.iter().map(String::as_str), to));
    }

    #[inline]
    fn end(self) {
        let presence = self.present.to_le_bytes();
        self.to[self.at..self.at + N].copy_from_slice(&presence[..N]);
    }
}

fn shared_bytes(row: &FlowRecord, origin: &Origin) -> Vec<u8> {
    let who = row.identity.as_deref();
    let mut bytes = vec![VERSION, fields::number_of(Class::Flows)];
    let mut values = Values::<SHARED_PRESENCE>::begin(&mut bytes);
    values.text(Some(&origin.site));
    values.text(Some(&origin.gateway));
    values.text(Some(&row.interface));
    values.number16(row.vlan);
    values.number16(row.inner_vlan);
    values.mac(Some(row.client_mac));
    values.put(Some(row.client_ip), put_ip);
    values.texts(who.map_or(&[], |who| &who.users));
    values.texts(who.map_or(&[], |who| &who.session_ids));
    values.text(who.and_then(|who| who.auth_method.as_deref()));
    values.text(who.map(|who| source_label(who.source)));
    values.mac(who.and_then(|who| who.ap_mac));
    values.text(who.and_then(|who| who.ssid.as_deref()));
    values.text(who.and_then(|who| who.nas.as_deref()));
    values.text(row.hostname.as_deref());
    values.text(row.device_vendor.as_deref());
    values.end();
    bytes
}

fn put_own(row: &FlowRecord, to: &mut Vec<u8>) {
    #[expect(clippy::cast_possible_truncation, reason = "a place among seven labels at most")]
    let code = |place: usize| Some(place as u8);
    let mut values = Values::<PRESENCE>::begin(to);
    values.count(row.flow_id);
    values.time(row.start_ns);
    values.time(row.end_ns);
    values.number16(row.client_port);
    values.put(row.public.map(|public| public.ip), put_ip);
    values.number16(row.public.and_then(|public| public.port));
    values.byte(row.nat.and_then(|nat| code(nat as usize)));
    values.put(row.peer_ip, put_ip);
    values.number16(row.peer_port);
    values.byte(row.protocol);
    values.byte(row.icmp_type);
    values.byte(row.icmp_code);
    values.count(row.packets_out);
    values.count(row.bytes_out);
    values.count(row.packets_in);
    values.count(row.bytes_in);
    values.byte(row.tcp_flags_out);
    values.byte(row.tcp_flags_in);
    values.byte(code(row.end_reason as usize));
    values.byte(code(row.attribution as usize));
    values.end();
}
