//! Evidence: which devices showed that a flow's address is their own.
//!
//! What a device says of itself can be forged, what a server gave cannot: a lease outweighs any claim. Looks an address up once for
//! all flows in a row that have it, which segments keep together.

use std::net::IpAddr;

use super::Seen;
use crate::MacAddr;
use crate::device::{DeviceTable, Held, LEARNT_LATE_NS};

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
    /// The address that `held` is about, in its VLANs.
    about: Option<(IpAddr, u16, u16)>,
    held: Vec<(MacAddr, Held)>,
}

impl<'a> Evidence<'a> {
    pub(super) const fn new(devices: Option<&'a DeviceTable>) -> Self {
        Self { devices, about: None, held: Vec::new() }
    }

    /// Takes the address of a flow; the questions below are about it.
    pub(super) fn look_up(&mut self, seen: &Seen) {
        let Some(devices) = self.devices else { return };
        let about = Some((seen.ip, seen.vlan, seen.inner_vlan));
        if self.about == about {
            return;
        }
        self.about = about;
        self.held.clear();
        let in_vlan = |held: &Held| (held.vlan, held.inner_vlan) == (seen.vlan, seen.inner_vlan);
        self.held.extend(devices.holdings(seen.ip).filter(|(_, held)| in_vlan(held)).map(|(mac, held)| (mac, *held)));
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
