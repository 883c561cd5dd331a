//! Leases: what a DHCP server says of a device, as JSON, and the facts that become of it.
//!
//! For gateways that do not see their clients' DHCP themselves. A lease says which device had which address, and never who it was. What
//! the device said of itself is kept as it is, with escapes, whatever its bytes. No I/O, no clock.

use std::net::IpAddr;

use hotspot_core::WallNs;
use hotspot_core::fact::{DeviceEvent, DeviceFact, DeviceNames, DeviceSource};

use super::fields::Fields;
use super::report::{BadReport, Operation, moment};

/// Fields of a lease; `op` and `ip` are for batches.
const FIELDS: [&str; 9] =
    ["op", "ip", "mac", "lease_s", "hostname", "vendor_class", "dhcp_fingerprint", "client_id", "at"];
/// Characters of a name, as many as a DHCP option has octets.
const NAME_CHARS_MAX: usize = 255;

/// What a lease that was given, or has ended, says of the device; and the names of its odd fields.
pub(super) fn facts(
    operation: Operation,
    ip: Option<IpAddr>,
    mut fields: Fields,
    received_ns: WallNs,
) -> Result<(Vec<DeviceFact>, Vec<&'static str>), BadReport> {
    let ip = ip.or_else(|| fields.value("ip", |text| text.parse().ok())).map(|ip| ip.to_canonical());
    let (ip, client_mac) = ip.zip(fields.mac("mac")).ok_or(BadReport::NoLease)?;
    if ip.is_unspecified() || ip.is_multicast() || !client_mac.is_device() {
        return Err(BadReport::NoLease);
    }
    let dated = moment(fields.time("at").as_deref(), received_ns);
    let said = DeviceNames {
        hostname: fields.text_of("hostname", NAME_CHARS_MAX),
        vendor_class: fields.text_of("vendor_class", NAME_CHARS_MAX),
        dhcp_fingerprint: fields.value("dhcp_fingerprint", fingerprint),
        client_id: fields.value("client_id", client_id),
    };
    let duration_s = fields.number("lease_s");
    let odd = fields.end(&FIELDS)?;
    let at_ns = dated?.min(received_ns);
    let fact = |event| DeviceFact { at_ns, client_mac, vlan: 0, inner_vlan: 0, source: DeviceSource::Lease, event };
    let named = (said != DeviceNames::default()).then_some(DeviceEvent::Named(said));
    let event = if operation == Operation::Release {
        DeviceEvent::Released { ip }
    } else {
        // A server that does not say for how long will say when it ends.
        DeviceEvent::Leased { ip, lease_s: duration_s.unwrap_or(u32::MAX) }
    };
    Ok((named.into_iter().chain([event]).map(fact).collect(), odd))
}

/// Codes of option 55 with commas.
fn fingerprint(text: &str) -> Option<String> {
    let is_codes = text.len() <= 4 * NAME_CHARS_MAX && text.split(',').all(|code| code.parse::<u8>().is_ok());
    is_codes.then(|| text.to_owned())
}

/// Hexadecimal digits, perhaps with colons between, as servers show them.
fn client_id(text: &str) -> Option<String> {
    let digits = text.replace(':', "").to_ascii_lowercase();
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && (1..=2 * NAME_CHARS_MAX).contains(&digits.len())).then_some(digits)
}
