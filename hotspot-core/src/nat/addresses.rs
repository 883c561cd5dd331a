//! IPv6 addresses by number: they are seldom translated, and take four bytes each where they lie.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::RandomState;

/// An address in four bytes: an IPv4 address itself, or the place of an IPv6 address among those there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Short(u32);

/// IPv6 addresses by number: they are seldom translated.
#[derive(Clone, Debug, Default)]
pub(super) struct LongAddresses {
    numbers: HashMap<Ipv6Addr, u32, RandomState>,
    addresses: Vec<Ipv6Addr>,
}

impl LongAddresses {
    pub(super) fn known(&self, ip: IpAddr) -> Option<Short> {
        match ip {
            IpAddr::V4(ip) => Some(Short(ip.to_bits())),
            IpAddr::V6(ip) => self.numbers.get(&ip).map(|number| Short(*number)),
        }
    }

    pub(super) fn learn(&mut self, ip: IpAddr) -> Short {
        match ip {
            IpAddr::V4(ip) => Short(ip.to_bits()),
            IpAddr::V6(ip) => {
                let next = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
                let number = *self.numbers.entry(ip).or_insert(next);
                if number == next {
                    self.addresses.push(ip);
                }
                Short(number)
            }
        }
    }

    pub(super) fn whole(&self, short: Short, is_v4: bool) -> IpAddr {
        if is_v4 {
            return Ipv4Addr::from_bits(short.0).into();
        }
        self.addresses.get(short.0 as usize).copied().unwrap_or(Ipv6Addr::UNSPECIFIED).into()
    }
}
