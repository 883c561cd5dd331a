//! Devices: what each said of itself, and which addresses were its own, when.
//!
//! Folded from [`DeviceFact`]s in their order; applying one again changes nothing. An address is held from the first evidence to the
//! end of its lease or, where no server gave it, to some time after the last evidence. That tail is a guess, and another device's
//! claim ends it; so where two devices hold one address at a moment, both have given evidence of it: a conflict, and not a change of
//! hands. Bounded in devices, and per device in addresses and names. Decides nothing about who a flow belongs to.

mod held;
mod labels;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::fact::{DeviceEvent, DeviceFact, DeviceNames, DeviceSource};
use crate::record::DeviceRecord;
use crate::{MacAddr, WallNs};

pub use held::Held;
pub use labels::Labels;

const SECOND: WallNs = 1_000_000_000;

/// An address that no server gave is held for so long after it was last heard of. Neighbours are asked again within a minute of use.
pub const SILENCE_NS: WallNs = 900 * SECOND;
/// Leases are believed for no longer than this, however long they say.
const LEASE_MAX_S: u32 = 30 * 86_400;
/// What is learnt so long after a flow began still counts for it: a neighbour is often asked only once its first packet was seen.
pub const LEARNT_LATE_NS: WallNs = 10 * SECOND;

/// How many devices are known at a time; beyond it those that said least and were not heard of for longest are forgotten.
const DEVICES_MAX: usize = 131_072;
/// Addresses kept per device; the one that ended first goes. A device with privacy addresses (RFC 8981) has about ten at a time.
const ADDRESSES_MAX: usize = 64;
/// Devices kept per address: who claims it beyond that takes the place of the first that never had a lease of it.
const HOLDERS_MAX: usize = 64;
/// Changes of names kept per device; the oldest goes.
const NAMES_MAX: usize = 8;

/// How long a device of which nothing is heard stays known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceTimeouts {
    /// After it was last heard of, and its last address ended.
    pub keep_ns: WallNs,
    /// An address, after it ended.
    pub keep_address_ns: WallNs,
}

impl Default for DeviceTimeouts {
    fn default() -> Self {
        Self { keep_ns: 24 * 3600 * SECOND, keep_address_ns: 3600 * SECOND }
    }
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub client_mac: MacAddr,
    pub first_seen_ns: WallNs,
    pub last_seen_ns: WallNs,
    pub sources: BTreeSet<DeviceSource>,
    /// What it called itself, and from when on; each holds what was said before, too.
    pub names: Vec<(WallNs, DeviceNames)>,
    pub addresses: Vec<Held>,
}

impl Device {
    fn new(fact: &DeviceFact) -> Self {
        Self {
            client_mac: fact.client_mac,
            first_seen_ns: fact.at_ns,
            last_seen_ns: fact.at_ns,
            sources: BTreeSet::new(),
            names: Vec::new(),
            addresses: Vec::new(),
        }
    }

    /// Moves all times.
    pub fn shift(&mut self, by_ns: i64) {
        let names = self.names.iter_mut().map(|(from_ns, _)| from_ns);
        let held =
            self.addresses.iter_mut().flat_map(|held| [&mut held.from_ns, &mut held.last_ns, &mut held.until_ns]);
        for at_ns in names.chain(held).chain([&mut self.first_seen_ns, &mut self.last_seen_ns]) {
            *at_ns = at_ns.saturating_add(by_ns);
        }
    }

    /// What it called itself at a moment; before it first did, what it called itself then.
    #[must_use]
    pub fn names_at(&self, at_ns: WallNs) -> Option<&DeviceNames> {
        let known = self.names.iter().rev().find(|(from_ns, _)| *from_ns <= at_ns);
        known.or(self.names.first()).map(|(_, names)| names)
    }

    /// Whether it showed two IPv4 addresses in turns in one network, each after the other had begun: it is a router, a repeater, or
    /// somebody who forges. IPv6 addresses are many on any device.
    #[must_use]
    pub fn has_many_addresses(&self) -> bool {
        let v4 = |held: &&Held| held.ip.is_ipv4();
        let in_turns = |one: &Held, other: &Held| {
            one.ip != other.ip
                && (one.vlan, one.inner_vlan) == (other.vlan, other.inner_vlan)
                && one.last_ns > other.from_ns
                && other.last_ns > one.from_ns
        };
        let held = || self.addresses.iter().filter(v4);
        held().any(|one| held().any(|other| in_turns(one, other)))
    }

    fn learn_names(&mut self, at_ns: WallNs, said: &DeviceNames) {
        let position = self.names.partition_point(|(from_ns, _)| *from_ns <= at_ns);
        let mut names = position.checked_sub(1).map(|before| self.names[before].1.clone()).unwrap_or_default();
        for (known, said) in [
            (&mut names.hostname, &said.hostname),
            (&mut names.vendor_class, &said.vendor_class),
            (&mut names.dhcp_fingerprint, &said.dhcp_fingerprint),
            (&mut names.client_id, &said.client_id),
        ] {
            if said.is_some() {
                known.clone_from(said);
            }
        }
        let is_known = position.checked_sub(1).is_some_and(|before| self.names[before].1 == names);
        if !is_known {
            self.names.insert(position, (at_ns, names));
            if self.names.len() > NAMES_MAX {
                self.names.remove(0);
            }
        }
    }

    fn record(&self, from_ns: WallNs, vendor: Option<&str>) -> DeviceRecord {
        let mut ips: Vec<IpAddr> =
            self.addresses.iter().filter(|held| held.until_ns >= from_ns).map(|held| held.ip).collect();
        ips.sort_unstable();
        ips.dedup();
        let names = self.names.last().map(|(_, names)| names.clone()).unwrap_or_default();
        DeviceRecord {
            client_mac: self.client_mac,
            random_mac: self.client_mac.is_random(),
            many_addresses: Some(self.has_many_addresses()),
            device_vendor: vendor.map(Into::into),
            hostname: names.hostname,
            vendor_class: names.vendor_class,
            dhcp_fingerprint: names.dhcp_fingerprint,
            client_id: names.client_id,
            ips,
            first_seen_ns: self.first_seen_ns,
            last_seen_ns: self.last_seen_ns,
            sources: self.sources.iter().copied().collect(),
        }
    }
}

/// All devices that can still matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceTable {
    devices: HashMap<MacAddr, Device, RandomState>,
    /// Who ever held an address that is still kept.
    by_ip: HashMap<IpAddr, Vec<MacAddr>, RandomState>,
}

impl DeviceTable {
    /// Applies a fact.
    pub fn apply(&mut self, fact: &DeviceFact) {
        if fact.client_mac.is_group() || fact.client_mac == MacAddr::default() {
            return;
        }
        let device = self.devices.entry(fact.client_mac).or_insert_with(|| Device::new(fact));
        device.first_seen_ns = device.first_seen_ns.min(fact.at_ns);
        device.last_seen_ns = device.last_seen_ns.max(fact.at_ns);
        device.sources.insert(fact.source);
        match &fact.event {
            DeviceEvent::Named(names) => device.learn_names(fact.at_ns, names),
            DeviceEvent::Released { ip } => {
                device.addresses.iter_mut().filter(|held| held.is(*ip, fact)).for_each(|held| held.end(fact.at_ns));
            }
            DeviceEvent::Leased { ip, lease_s } => {
                let until_ns = fact.at_ns.saturating_add(WallNs::from((*lease_s).min(LEASE_MAX_S)) * SECOND);
                self.hold(fact, *ip, until_ns, true);
            }
            DeviceEvent::Uses { ip } => self.hold(fact, *ip, fact.at_ns.saturating_add(SILENCE_NS), false),
        }
        if self.devices.len() > DEVICES_MAX {
            self.drop_least(DEVICES_MAX / 16);
        }
    }

    fn hold(&mut self, fact: &DeviceFact, ip: IpAddr, until_ns: WallNs, is_leased: bool) {
        let Some(device) = self.devices.get_mut(&fact.client_mac) else { return };
        let known = device.addresses.iter_mut().filter(|held| held.is(ip, fact)).find(|held| held.reaches(fact.at_ns));
        if let Some(held) = known {
            held.extend(fact, until_ns, is_leased);
        } else {
            if device.addresses.len() == ADDRESSES_MAX {
                let first = (0..ADDRESSES_MAX).min_by_key(|position| device.addresses[*position].until_ns);
                device.addresses.swap_remove(first.unwrap_or(0));
            }
            device.addresses.push(Held::new(fact, ip, until_ns, is_leased));
        }
        let holders = self.by_ip.entry(ip).or_default();
        if !holders.contains(&fact.client_mac) {
            if holders.len() == HOLDERS_MAX {
                let has_lease = |mac: &MacAddr| {
                    let device = self.devices.get(mac);
                    device.is_some_and(|device| device.addresses.iter().any(|held| held.ip == ip && held.is_leased))
                };
                let first = holders.iter().position(|mac| !has_lease(mac));
                holders.remove(first.unwrap_or(0));
            }
            holders.push(fact.client_mac);
        }
        for other in holders.iter().filter(|other| **other != fact.client_mac) {
            let Some(other) = self.devices.get_mut(other) else { continue };
            other
                .addresses
                .iter_mut()
                .filter(|held| held.is(ip, fact))
                .for_each(|held| held.yield_to_another(fact.at_ns, is_leased));
        }
    }

    /// Whether a device held an address at some moment between `from_ns` and `to_ns`, or shortly after.
    #[must_use]
    pub fn holds(&self, mac: MacAddr, ip: IpAddr, from_ns: WallNs, to_ns: WallNs) -> bool {
        let to_ns = to_ns.max(from_ns.saturating_add(LEARNT_LATE_NS));
        self.devices.get(&mac).is_some_and(|device| {
            device.addresses.iter().any(|held| held.ip == ip && held.from_ns <= to_ns && held.until_ns > from_ns)
        })
    }

    /// Every device that held an address at a moment; more than one is a conflict.
    pub fn holders(&self, ip: IpAddr, at_ns: WallNs) -> impl Iterator<Item = MacAddr> {
        self.by_ip.get(&ip).into_iter().flatten().copied().filter(move |mac| {
            self.devices
                .get(mac)
                .is_some_and(|device| device.addresses.iter().any(|held| held.ip == ip && held.covers(at_ns)))
        })
    }

    /// Every holding of an address, with its device, in every VLAN and at any time that is kept.
    pub fn holdings(&self, ip: IpAddr) -> impl Iterator<Item = (MacAddr, &Held)> {
        let devices = self.by_ip.get(&ip).into_iter().flatten().filter_map(|mac| self.devices.get(mac));
        devices.flat_map(move |device| {
            device.addresses.iter().filter(move |held| held.ip == ip).map(move |held| (device.client_mac, held))
        })
    }

    #[must_use]
    pub fn device(&self, mac: MacAddr) -> Option<&Device> {
        self.devices.get(&mac)
    }

    /// Rows for the devices of which something was learnt from `from_ns` on, or of earlier times, but only now: `is_news`. By MAC.
    #[must_use]
    pub fn records(
        &self,
        from_ns: WallNs,
        is_news: impl Fn(MacAddr) -> bool,
        vendor: impl Fn(MacAddr) -> Option<String>,
    ) -> Vec<DeviceRecord> {
        let heard = self.devices.values().filter(|device| device.last_seen_ns >= from_ns || is_news(device.client_mac));
        let mut records: Vec<DeviceRecord> =
            heard.map(|device| device.record(from_ns, vendor(device.client_mac).as_deref())).collect();
        records.sort_unstable_by_key(|record| record.client_mac);
        records
    }

    /// Forgets addresses that ended long ago, and devices without any that were not heard of for long.
    pub fn forget(&mut self, timeouts: &DeviceTimeouts, now_ns: WallNs) {
        for device in self.devices.values_mut() {
            device.addresses.retain(|held| held.until_ns >= now_ns.saturating_sub(timeouts.keep_address_ns));
        }
        let before_ns = now_ns.saturating_sub(timeouts.keep_ns);
        self.devices.retain(|_, device| device.last_seen_ns >= before_ns || !device.addresses.is_empty());
        self.index();
    }

    /// The devices, by MAC: what makes an equal table.
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        let mut devices: Vec<Device> = self.devices.values().cloned().collect();
        devices.sort_unstable_by_key(|device| device.client_mac);
        devices
    }

    /// Puts back a device of [`Self::devices`].
    pub fn restore(&mut self, device: Device) {
        index(&mut self.by_ip, &device);
        self.devices.insert(device.client_mac, device);
    }

    /// Makes room: first go those that named themselves by nothing and never had a lease, as made-up devices do.
    fn drop_least(&mut self, count: usize) {
        let said = |device: &Device| !device.names.is_empty() || device.addresses.iter().any(|held| held.is_leased);
        let mut order: Vec<(bool, WallNs, MacAddr)> =
            self.devices.values().map(|device| (said(device), device.last_seen_ns, device.client_mac)).collect();
        order.sort_unstable();
        for (_, _, mac) in order.into_iter().take(count) {
            self.devices.remove(&mac);
        }
        self.index();
    }

    fn index(&mut self) {
        self.by_ip.clear();
        // In one order, so that equal tables hand out holders in equal order.
        let mut macs: Vec<MacAddr> = self.devices.keys().copied().collect();
        macs.sort_unstable();
        for mac in macs {
            index(&mut self.by_ip, &self.devices[&mac]);
        }
    }
}

fn index(by_ip: &mut HashMap<IpAddr, Vec<MacAddr>, RandomState>, device: &Device) {
    for held in &device.addresses {
        let holders = by_ip.entry(held.ip).or_default();
        if holders.len() < HOLDERS_MAX && !holders.contains(&device.client_mac) {
            holders.push(device.client_mac);
        }
    }
}

#[cfg(test)]
mod tests;
