//! Leases: what a DHCP server says of a device, as JSON, and the facts that become of it.
//!
//! For gateways that do not see their clients' DHCP themselves. A lease says which device had which address, and never who it was. What
//! the device said of itself is kept as it is, with escapes, whatever its bytes. No I/O, no clock.

use std::fmt;
use std::net::IpAddr;

use hotspot_core::fact::{DeviceEvent, DeviceFact, DeviceNames, DeviceSource};
use hotspot_core::text::escaped;
use hotspot_core::{MacAddr, WallNs};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::report::{BadReport, Operation, moment};

/// Characters of a name, as many as a DHCP option has octets.
const NAME_CHARS_MAX: usize = 255;

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lease {
    pub(super) op: Option<Operation>,
    pub(super) ip: Option<IpAddr>,
    mac: Option<MacAddr>,
    #[serde(rename = "lease_s")]
    duration_s: Option<u32>,
    hostname: Option<Said>,
    vendor_class: Option<Said>,
    dhcp_fingerprint: Option<String>,
    client_id: Option<String>,
    at: Option<String>,
}

/// What a device called itself: any bytes, which JSON by its letter would not hold.
struct Said(String);

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Said;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a name of 1 to {NAME_CHARS_MAX} characters")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Said, E> {
                let chars =
                    bytes.utf8_chunks().map(|chunk| chunk.valid().chars().count() + chunk.invalid().len()).sum();
                match chars {
                    1..=NAME_CHARS_MAX => Ok(Said(escaped(bytes))),
                    _ => Err(E::invalid_length(chars, &self)),
                }
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Said, E> {
                self.visit_bytes(text.as_bytes())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

/// What a lease that was given, or has ended, says of the device.
pub(super) fn facts(operation: Operation, lease: Lease, received_ns: WallNs) -> Result<Vec<DeviceFact>, BadReport> {
    let (ip, client_mac) = lease.ip.zip(lease.mac).ok_or(BadReport::NoLease)?;
    if ip.is_unspecified() || ip.is_multicast() || client_mac.is_group() {
        return Err(BadReport::NoLease);
    }
    let codes = |text: &str| text.split(',').all(|code| code.parse::<u8>().is_ok());
    if lease.dhcp_fingerprint.as_deref().is_some_and(|text| text.len() > 4 * NAME_CHARS_MAX || !codes(text)) {
        return Err(BadReport::BadFingerprint);
    }
    let is_hex =
        |text: &str| (1..=2 * NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if lease.client_id.as_deref().is_some_and(|text| !is_hex(text)) {
        return Err(BadReport::BadClientId);
    }
    let at_ns = moment(lease.at.as_deref(), received_ns)?.min(received_ns);
    let fact = |event| DeviceFact { at_ns, client_mac, vlan: 0, inner_vlan: 0, source: DeviceSource::Lease, event };
    let said = DeviceNames {
        hostname: lease.hostname.map(|name| name.0),
        vendor_class: lease.vendor_class.map(|name| name.0),
        dhcp_fingerprint: lease.dhcp_fingerprint,
        client_id: lease.client_id.map(|text| text.to_ascii_lowercase()),
    };
    let named = (said != DeviceNames::default()).then_some(DeviceEvent::Named(said));
    let event = if operation == Operation::Release {
        DeviceEvent::Released { ip }
    } else {
        // A server that does not say for how long will say when it ends.
        DeviceEvent::Leased { ip, lease_s: lease.duration_s.unwrap_or(u32::MAX) }
    };
    Ok(named.into_iter().chain([event]).map(fact).collect())
}
