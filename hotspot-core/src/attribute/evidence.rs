//! Evidence: which devices showed that a flow's address is their own.
//!
//! What a device says of itself can be forged, what a server gave cannot: a lease outweighs any claim.

use super::Seen;
use crate::device::{Device, DeviceTable, Held, LEARNT_LATE_NS};
use crate::{MacAddr, WallNs};

/// What a device's evidence of an address is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// The device said so: ARP, neighbour discovery.
    Said,
    /// A server gave it.
    Leased,
}

impl Worth {
    const fn of(held: &Held) -> Self {
        if held.is_leased { Self::Leased } else { Self::Said }
    }
}

pub(super) struct Evidence<'a> {
    devices: Option<&'a DeviceTable>,
    /// Who held the address of the flows that are asked about.
    held: Vec<(MacAddr, Held)>,
}

impl<'a> Evidence<'a> {
    pub(super) const fn new(devices: Option<&'a DeviceTable>) -> Self {
        Self { devices, held: Vec::new() }
    }

    /// Takes the address of a flow; the questions below are about flows that have it.
    pub(super) fn look_up(&mut self, seen: &Seen) {
        let Some(devices) = self.devices else { return };
        self.held.clear();
        let in_vlan = |held: &Held| (held.vlan, held.inner_vlan) == (seen.vlan, seen.inner_vlan);
        self.held.extend(devices.holdings(seen.ip).filter(|(_, held)| in_vlan(held)).map(|(mac, held)| (mac, *held)));
    }

    /// Every device that ever held the address.
    pub(super) fn macs(&self) -> impl Iterator<Item = MacAddr> {
        self.held.iter().map(|(mac, _)| *mac)
    }

    /// When a holding of the address began or ended.
    pub(super) fn changes(&self) -> impl Iterator<Item = WallNs> {
        self.held.iter().flat_map(|(_, held)| [held.from_ns, held.until_ns])
    }

    /// Whether a device showed several IPv4 addresses at a time, as routers and repeaters do.
    pub(super) fn is_shared(&self, mac: MacAddr) -> bool {
        self.devices.and_then(|devices| devices.device(mac)).is_some_and(Device::has_many_addresses)
    }

    /// The flow's own device, at some moment of the flow, or shortly after it began: neighbours are often asked only then.
    pub(super) fn own(&self, seen: &Seen) -> Option<Worth> {
        let to_ns = seen.end_ns.max(seen.start_ns.saturating_add(LEARNT_LATE_NS));
        let during = |held: &Held| held.from_ns <= to_ns && held.until_ns > seen.start_ns;
        let own = self.held.iter().filter(|(mac, held)| *mac == seen.mac && during(held));
        own.map(|(_, held)| Worth::of(held)).max()
    }

    /// Other devices that held the address when the flow began.
    pub(super) fn others(&self, seen: &Seen) -> impl Iterator<Item = (MacAddr, Worth)> {
        let others = self.held.iter().filter(|(mac, held)| *mac != seen.mac && held.covers(seen.start_ns));
        others.map(|(mac, held)| (*mac, Worth::of(held)))
    }
}
