//! One address, and how long a device held it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::SILENCE_NS;
use crate::WallNs;
use crate::fact::DeviceFact;

/// An address of a device, from the first evidence of it to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub ip: IpAddr,
    pub vlan: u16,
    pub inner_vlan: u16,
    pub from_ns: WallNs,
    /// Last evidence.
    pub last_ns: WallNs,
    /// Exclusive: the end of the lease, of the silence, or when the address was given back or became another's.
    pub until_ns: WallNs,
    /// A server gave it. Evidence of after the end of the lease makes it a mere claim.
    pub is_leased: bool,
    /// It was given back: what comes later is held anew.
    pub is_over: bool,
}

impl Held {
    pub(super) fn new(fact: &DeviceFact, ip: IpAddr, until_ns: WallNs, is_leased: bool) -> Self {
        Self {
            ip,
            vlan: fact.vlan,
            inner_vlan: fact.inner_vlan,
            from_ns: fact.at_ns,
            last_ns: fact.at_ns,
            until_ns,
            is_leased,
            is_over: false,
        }
    }

    /// Whether it is this address, in the network the fact is about.
    pub(super) fn is(&self, ip: IpAddr, fact: &DeviceFact) -> bool {
        self.ip == ip && (self.vlan, self.inner_vlan) == (fact.vlan, fact.inner_vlan)
    }

    pub(crate) fn covers(&self, at_ns: WallNs) -> bool {
        self.from_ns <= at_ns && at_ns < self.until_ns
    }

    /// Whether evidence at a moment is of the same holding: within it, or so soon before or after that it was never another's.
    pub(super) fn reaches(&self, at_ns: WallNs) -> bool {
        let end_ns =
            if self.is_over { self.until_ns } else { self.until_ns.max(self.last_ns.saturating_add(SILENCE_NS)) };
        self.from_ns.saturating_sub(SILENCE_NS) <= at_ns && at_ns < end_ns
    }

    pub(super) fn extend(&mut self, fact: &DeviceFact, until_ns: WallNs, is_leased: bool) {
        self.from_ns = self.from_ns.min(fact.at_ns);
        if self.is_over || fact.at_ns < self.last_ns {
            return;
        }
        self.last_ns = fact.at_ns;
        self.is_leased = is_leased || (self.is_leased && fact.at_ns < self.until_ns);
        // A new lease counts from now, also where it is shorter; evidence without one never shortens it.
        self.until_ns = if is_leased { until_ns } else { self.until_ns.max(until_ns) };
    }

    pub(super) fn end(&mut self, at_ns: WallNs) {
        if self.covers(at_ns) {
            (self.until_ns, self.is_over) = (at_ns, true);
        }
    }

    /// Another device gave evidence that the address is its own, or was given it by a server.
    ///
    /// A server knows that an address it gives is free. Who merely says so ends only what was a guess, not a lease.
    pub(super) fn yield_to_another(&mut self, at_ns: WallNs, by_lease: bool) {
        let is_cut = self.last_ns < at_ns && self.covers(at_ns) && (by_lease || !self.is_leased);
        if is_cut {
            self.until_ns = at_ns;
        }
    }
}
