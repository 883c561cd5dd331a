//! The clients of the venue: devices, addresses, who is logged in.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hotspot_core::MacAddr;
use hotspot_core::fact::IdentitySource;
use hotspot_core::record::{Attribution, Identity};

use super::{BEGIN_NS, SECOND_NS};
use hotspot_tests::random::Random;

const CLIENTS: u32 = 2000;
const VENDORS: [([u8; 3], &str); 6] = [
    ([0x3c, 0x06, 0x30], "Apple, Inc."),
    ([0xa4, 0x83, 0xe7], "Apple, Inc."),
    ([0x8c, 0x79, 0xf5], "Samsung Electronics Co.,Ltd"),
    ([0x64, 0xa2, 0xf9], "OnePlus Technology (Shenzhen) Co., Ltd"),
    ([0xf4, 0x60, 0xe2], "Xiaomi Communications Co Ltd"),
    ([0x94, 0xe2, 0x3c], "Intel Corporate"),
];

pub(super) struct Client {
    pub(super) mac: MacAddr,
    pub(super) ipv4: IpAddr,
    pub(super) ipv6: Option<IpAddr>,
    pub(super) vlan: u16,
    pub(super) hostname: Option<Arc<str>>,
    pub(super) vendor: Option<Arc<str>>,
    /// Since when, by whom; `None` for a device nobody logged in with.
    login: Option<(i64, Arc<Identity>)>,
}

impl Client {
    pub(super) fn identity_at(&self, at_ns: i64, is_v6: bool) -> (Attribution, Option<Arc<Identity>>) {
        match &self.login {
            None => (Attribution::Unknown, None),
            Some((since_ns, identity)) => {
                let sure = match (at_ns < *since_ns, is_v6) {
                    (true, _) => Attribution::BeforeLogin,
                    (false, true) => Attribution::MacOnly,
                    (false, false) => Attribution::Authenticated,
                };
                (sure, Some(Arc::clone(identity)))
            }
        }
    }
}

pub(super) fn make(random: &mut Random) -> Vec<Client> {
    let access_points: Vec<MacAddr> = (0..24).map(|number| MacAddr([0x02, 0x1a, 0x1e, 0x40, 0x10, number])).collect();
    (0..CLIENTS)
        .map(|number| {
            let (mac, vendor) = device(random);
            let login = random.chance(0.95).then(|| {
                // Some log in while they are already watched.
                let since_ns = if random.chance(0.1) {
                    BEGIN_NS + random.below(600 * SECOND_NS as u64) as i64
                } else {
                    BEGIN_NS - random.below(7200 * SECOND_NS as u64) as i64
                };
                (since_ns, Arc::new(identity(random, &access_points, since_ns)))
            });
            let host = random.next();
            let [a, b, c, d] = [host >> 48, host >> 32, host >> 16, host].map(|part| part as u16);
            Client {
                mac,
                ipv4: Ipv4Addr::from(0x0a14_0010 + number).into(),
                ipv6: random.chance(0.7).then(|| [0x2001, 0xdb8, 20, 100, a, b, c, d].into()),
                vlan: 100,
                hostname: random.chance(0.6).then(|| format!("android-{:08x}", random.next() as u32).into()),
                vendor,
                login,
            }
        })
        .collect()
}

/// Three of four use a random address.
fn device(random: &mut Random) -> (MacAddr, Option<Arc<str>>) {
    let [_, _, mut mac @ ..] = random.next().to_be_bytes();
    if random.chance(0.75) {
        mac[0] = mac[0] & 0xfc | 0x02;
        return (MacAddr(mac), None);
    }
    let (prefix, vendor) = VENDORS[random.below(VENDORS.len() as u64) as usize];
    mac[..3].copy_from_slice(&prefix[..3]);
    (MacAddr(mac), Some(vendor.into()))
}

fn identity(random: &mut Random, access_points: &[MacAddr], since_ns: i64) -> Identity {
    Identity {
        users: vec![format!("09{:08}", random.below(100_000_000))],
        session_ids: vec![format!("{:08X}-{:08X}", since_ns / SECOND_NS, random.next() as u32)],
        auth_method: Some(if random.chance(0.8) { "radius" } else { "local" }.into()),
        source: IdentitySource::Radius,
        ap_mac: Some(access_points[random.below(access_points.len() as u64) as usize]),
        ssid: Some("Cafe Wi-Fi".into()),
        nas: Some("wlc-1".into()),
    }
}
