//! What of all that devices say is news: a chatty network must not fill the journal.
//!
//! Owns what was written lately, bounded. What is forgotten here is written once more, which changes nothing; nothing is held back that
//! would change what is known of a device for longer than [`CLAIM_EVERY_NS`].

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use hotspot_core::fact::{DeviceEvent, DeviceFact};
use hotspot_core::{MacAddr, WallNs};

const SECOND: WallNs = 1_000_000_000;

/// What has not changed is written again after this time, so that it is not taken for gone: below
/// [`hotspot_core::device::SILENCE_NS`].
const REPEAT_NS: WallNs = 300 * SECOND;
/// An address that changes hands to and fro is written at most this often for each of those who claim it.
const CLAIM_EVERY_NS: WallNs = 10 * SECOND;
/// Messages sent again because the answer was late.
const RESENT_NS: WallNs = 3 * SECOND;
/// Things remembered; beyond it all are forgotten at once.
const REMEMBERED_MAX: usize = 131_072;

/// An address in its VLANs.
type Address = (IpAddr, u16, u16);

/// What was written lately.
#[derive(Default)]
pub struct News {
    /// Names by device and source: what they were, and when they were written.
    names: HashMap<(MacAddr, u8), (u64, WallNs)>,
    /// Leases and what was given back.
    leases: HashMap<(MacAddr, Address), (u64, WallNs)>,
    claims: HashMap<(MacAddr, Address), WallNs>,
    /// Who claimed an address last, of what was written.
    holders: HashMap<Address, MacAddr>,
}

impl News {
    /// Whether a fact has to be written; remembers it then.
    pub fn is_news(&mut self, fact: &DeviceFact) -> bool {
        self.bound();
        let address = |ip: IpAddr| (ip, fact.vlan, fact.inner_vlan);
        let digest = digest(&fact.event);
        match &fact.event {
            DeviceEvent::Named(_) => {
                let key = (fact.client_mac, fact.source as u8);
                changed(&mut self.names, key, digest, fact.at_ns, REPEAT_NS)
            }
            DeviceEvent::Leased { ip, .. } | DeviceEvent::Released { ip } => {
                let address = address(*ip);
                let is_news = changed(&mut self.leases, (fact.client_mac, address), digest, fact.at_ns, RESENT_NS);
                if is_news {
                    self.holders.insert(address, fact.client_mac);
                }
                is_news
            }
            DeviceEvent::Uses { ip } => {
                let address = address(*ip);
                let is_new_holder = self.holders.get(&address) != Some(&fact.client_mac);
                let written = self.claims.entry((fact.client_mac, address));
                let after_ns = if is_new_holder { CLAIM_EVERY_NS } else { REPEAT_NS };
                let is_due = match &written {
                    std::collections::hash_map::Entry::Vacant(_) => true,
                    std::collections::hash_map::Entry::Occupied(at) => has_passed(*at.get(), fact.at_ns, after_ns),
                };
                if is_due {
                    written.insert_entry(fact.at_ns);
                    self.holders.insert(address, fact.client_mac);
                }
                is_due
            }
        }
    }

    fn bound(&mut self) {
        if self.names.len() + self.leases.len() + self.claims.len() + self.holders.len() >= REMEMBERED_MAX {
            *self = Self::default();
        }
    }
}

/// Whether something differs from what was written, or that was long ago.
fn changed<K: Hash + Eq>(
    written: &mut HashMap<K, (u64, WallNs)>,
    key: K,
    digest: u64,
    at_ns: WallNs,
    again_after_ns: WallNs,
) -> bool {
    let is_known = written
        .get(&key)
        .is_some_and(|(known, written_ns)| *known == digest && !has_passed(*written_ns, at_ns, again_after_ns));
    if !is_known {
        written.insert(key, (digest, at_ns));
    }
    !is_known
}

/// Whether so much time lies between; also where the wall clock was set back.
fn has_passed(written_ns: WallNs, at_ns: WallNs, after_ns: WallNs) -> bool {
    at_ns < written_ns || at_ns - written_ns >= after_ns
}

fn digest(event: &DeviceEvent) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use hotspot_core::fact::{DeviceNames, DeviceSource};

    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn fact(client_mac: MacAddr, at_s: i64, event: DeviceEvent) -> DeviceFact {
        DeviceFact { at_ns: at_s * SECOND, client_mac, vlan: 0, inner_vlan: 0, source: DeviceSource::Arp, event }
    }

    fn uses(mac: MacAddr, at_s: i64) -> DeviceFact {
        fact(mac, at_s, DeviceEvent::Uses { ip: [10, 0, 0, 7].into() })
    }

    #[test]
    fn what_is_said_again_and_again_is_written_every_five_minutes() {
        let mut news = News::default();
        let written: Vec<i64> = (0..601).filter(|at_s| news.is_news(&uses(A, *at_s))).collect();
        assert_eq!(written, [0, 300, 600]);
    }

    #[test]
    fn an_address_that_changes_hands_is_written_at_once_but_not_each_time() {
        let mut news = News::default();
        assert!(news.is_news(&uses(A, 0)));
        assert!(news.is_news(&uses(B, 1)));
        let flips = (2..60).filter(|at_s| news.is_news(&uses(if at_s % 2 == 0 { A } else { B }, *at_s))).count();
        assert_eq!(flips, 10, "each of the two every ten seconds");
    }

    #[test]
    fn another_name_and_a_renewed_lease_are_news() {
        let mut news = News::default();
        let named = |at_s, name: &str| {
            let names = DeviceNames { hostname: Some(name.into()), ..DeviceNames::default() };
            fact(A, at_s, DeviceEvent::Named(names))
        };
        assert!(news.is_news(&named(0, "a")) && !news.is_news(&named(1, "a")) && news.is_news(&named(2, "b")));
        let leased = |at_s| fact(A, at_s, DeviceEvent::Leased { ip: [10, 0, 0, 7].into(), lease_s: 60 });
        assert!(news.is_news(&leased(0)) && !news.is_news(&leased(1)) && news.is_news(&leased(30)));
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nobody() {
        let mut news = News::default();
        assert!(news.is_news(&uses(A, 10_000)) && news.is_news(&uses(A, 5)));
    }
}
