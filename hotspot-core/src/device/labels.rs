//! What a flow's row says about its device.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::DeviceTable;
use crate::vendor::VendorTable;
use crate::{MacAddr, WallNs};

/// Hostnames and makers by MAC, made once and shared between the flows of a device.
pub struct Labels<'a> {
    devices: &'a DeviceTable,
    vendors: &'a VendorTable,
    known: HashMap<MacAddr, Label, RandomState>,
}

struct Label {
    /// From when on which name.
    hostnames: Vec<(WallNs, Option<Arc<str>>)>,
    vendor: Option<Arc<str>>,
}

impl<'a> Labels<'a> {
    #[must_use]
    pub fn new(devices: &'a DeviceTable, vendors: &'a VendorTable) -> Self {
        Self { devices, vendors, known: HashMap::default() }
    }

    /// Hostname as of a moment, and maker; before a device said its name, the first one it said.
    pub fn of(&mut self, mac: MacAddr, at_ns: WallNs) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let (devices, vendors) = (self.devices, self.vendors);
        let label = self.known.entry(mac).or_insert_with(|| Label {
            hostnames: devices.device(mac).map_or_else(Vec::new, |device| {
                let hostname = |hostname: &Option<String>| hostname.as_deref().map(Arc::from);
                device.names.iter().map(|(from_ns, names)| (*from_ns, hostname(&names.hostname))).collect()
            }),
            vendor: vendors.of(mac).map(Arc::from),
        });
        let at = label.hostnames.iter().rev().find(|(from_ns, _)| *from_ns <= at_ns).or(label.hostnames.first());
        (at.and_then(|(_, hostname)| hostname.clone()), label.vendor.clone())
    }
}
