//! Which gateways a question can be about: of others it is not said that they did not record.
//!
//! Rules a gateway out only by what is certain: what the question says of places, and whose a public address was at the time.

use std::net::IpAddr;

use ipnet::IpNet;

use super::scan::Scan;
use super::{Archive, BLOCK, Interval, Named};
use crate::filter::{Filter, Seen};
use crate::index::Index;
use crate::layout::Class;
use crate::unrecorded::Timeline;

impl Archive {
    /// The gateways whose flows a filter may ask for in an interval.
    pub(super) fn concerned(&self, interval: Interval, filter: &Filter) -> Vec<&Timeline> {
        let mut concerned: Vec<&Timeline> =
            self.timelines.iter().filter(|timeline| may_concern(filter, timeline)).collect();
        if let Some(ip) = filter.public_ip()
            && concerned.len() > 1
        {
            let scan = Scan::new(interval, filter, &self.keyring, &*self.place);
            if let Some(holders) = self.holders(&scan, interval, ip) {
                concerned.retain(|timeline| {
                    holders.contains(&timeline.gateway())
                        || !self.is_known_by_others(&scan, interval, timeline.gateway(), ip)
                });
            }
        }
        concerned
    }

    /// The gateways that had a public address in an interval; `None` where nobody had, or the interval is too long to ask all indexes again.
    fn holders(&self, scan: &Scan<'_>, interval: Interval, ip: IpAddr) -> Option<Vec<&str>> {
        let files: Vec<Named<'_>> = self.files(Class::Flows, interval).take(BLOCK + 1).collect();
        if files.len() > BLOCK {
            return None;
        }
        let mut holders: Vec<&str> = Vec::new();
        for named in &files {
            let gateway = named.line.gateway.as_str();
            if !holders.contains(&gateway) && scan.ask(named, |index| index.public(ip, None)).ok()?.is_some() {
                holders.push(gateway);
            }
        }
        (!holders.is_empty()).then_some(holders)
    }

    /// Whether a gateway certainly had other public addresses: its segments in an interval, and the nearest before and after it, translated
    /// to others of the same family, and none to this one. What it does not translate, or nobody watched, is not known.
    fn is_known_by_others(&self, scan: &Scan<'_>, interval: Interval, gateway: &str, ip: IpAddr) -> bool {
        let files: Vec<Named<'_>> =
            self.files(Class::Flows, Interval::ALWAYS).filter(|named| named.line.gateway == gateway).collect();
        let before = files.iter().rev().find(|named| named.line.to_ns < interval.from_ns);
        let after = files.iter().find(|named| named.line.from_ns >= interval.to_ns);
        let within = files.iter().filter(|named| interval.touches(named.line.from_ns, named.line.to_ns));
        let all = if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        let Ok(all) = all.parse::<IpNet>() else { return false };
        let has_others = |index: &Index| Ok(index.has_translated(all)? && index.public(ip, None)?.is_none());
        let mut beside = before.into_iter().chain(after).chain(within);
        before.is_some() && beside.all(|named| scan.ask(named, has_others).unwrap_or(false))
    }
}

/// By what the filter says of places. A gateway that sealed nothing may stand anywhere.
fn may_concern(filter: &Filter, timeline: &Timeline) -> bool {
    let gateway = timeline.gateway();
    let may_match = |site| filter.may_match_at(&Seen { gateway, site, interface: None });
    timeline.sites().iter().any(|site| may_match(Some(site.as_str())))
        || (timeline.sites().is_empty() && may_match(None))
}
