//! The columns that rows of one client share: they are looked at once for a run of rows, and repeated when the run ends.

use std::sync::Arc;

use hotspot_core::MacAddr;
use hotspot_core::fact::IdentitySource;
use hotspot_core::record::{FlowRecord, Identity};

use super::flows::source_label;
use super::text_column::{LabelColumn, ListColumn, StrColumn, TextColumn};

const SOURCES: [IdentitySource; 3] = [IdentitySource::Radius, IdentitySource::Portal, IdentitySource::File];

/// What a run of rows shares, by reference.
struct Run {
    interface: Arc<str>,
    identity: Option<Arc<Identity>>,
    hostname: Option<Arc<str>>,
    device_vendor: Option<Arc<str>>,
    /// Rows behind the first, which the columns do not have yet.
    repeats: usize,
}

impl Run {
    fn of(row: &FlowRecord) -> Self {
        Self {
            interface: Arc::clone(&row.interface),
            identity: row.identity.clone(),
            hostname: row.hostname.clone(),
            device_vendor: row.device_vendor.clone(),
            repeats: 0,
        }
    }

    /// Rows that only have equal text are not found; they cost a look, no more.
    fn has(&self, row: &FlowRecord) -> bool {
        Arc::ptr_eq(&self.interface, &row.interface)
            && are_same(self.identity.as_ref(), row.identity.as_ref())
            && are_same(self.hostname.as_ref(), row.hostname.as_ref())
            && are_same(self.device_vendor.as_ref(), row.device_vendor.as_ref())
    }
}

pub(crate) fn are_same<T: ?Sized>(left: Option<&Arc<T>>, right: Option<&Arc<T>>) -> bool {
    match (left, right) {
        (None, None) => true,
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

pub(super) struct SharedColumns {
    run: Option<Run>,
    pub(super) interface: StrColumn,
    pub(super) user: ListColumn,
    pub(super) session_id: ListColumn,
    pub(super) auth_method: StrColumn,
    pub(super) identity_source: LabelColumn,
    pub(super) ap_mac: TextColumn<MacAddr>,
    pub(super) ssid: StrColumn,
    pub(super) nas: StrColumn,
    pub(super) hostname: StrColumn,
    pub(super) device_vendor: StrColumn,
}

impl SharedColumns {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            run: None,
            interface: StrColumn::new(rows),
            user: ListColumn::new(rows),
            session_id: ListColumn::new(rows),
            auth_method: StrColumn::new(rows),
            identity_source: LabelColumn::new(rows, SOURCES.into_iter().map(source_label)),
            ap_mac: TextColumn::new(rows),
            ssid: StrColumn::new(rows),
            nas: StrColumn::new(rows),
            hostname: StrColumn::new(rows),
            device_vendor: StrColumn::new(rows),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, row: &FlowRecord) {
        match &mut self.run {
            Some(run) if run.has(row) => run.repeats += 1,
            Some(_) | None => self.begin_run(row),
        }
    }

    fn begin_run(&mut self, row: &FlowRecord) {
        self.end_run();
        self.run = Some(Run::of(row));
        let who = row.identity.as_deref();
        self.interface.push(Some(&row.interface));
        self.user.push(who.map_or(&[], |who| &who.users));
        self.session_id.push(who.map_or(&[], |who| &who.session_ids));
        self.auth_method.push(who.and_then(|who| who.auth_method.as_deref()));
        self.identity_source.push(who.map(|who| who.source as usize));
        self.ap_mac.push(who.and_then(|who| who.ap_mac));
        self.ssid.push(who.and_then(|who| who.ssid.as_deref()));
        self.nas.push(who.and_then(|who| who.nas.as_deref()));
        self.hostname.push(row.hostname.as_deref());
        self.device_vendor.push(row.device_vendor.as_deref());
    }

    /// Gives the columns the rows they do not have yet.
    pub(super) fn end_run(&mut self) {
        let Some(Run { repeats, .. }) = self.run.take() else { return };
        let texts = [
            &mut self.interface,
            &mut self.auth_method,
            &mut self.ssid,
            &mut self.nas,
            &mut self.hostname,
            &mut self.device_vendor,
        ];
        texts.into_iter().for_each(|column| column.repeat(repeats));
        [&mut self.user, &mut self.session_id].into_iter().for_each(|column| column.repeat(repeats));
        self.identity_source.repeat(repeats);
        self.ap_mac.repeat(repeats);
    }
}
