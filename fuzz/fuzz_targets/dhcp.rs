//! A notice of any content: DHCP, DHCPv6, ARP and neighbour discovery as anybody on the network can send them.
//!
//! The first byte says which of them, the second which way it travels; what can be believed of it is applied to a table of devices.
#![no_main]

use hotspot_common::NoticeHeader;
use hotspot_core::device::{DeviceTable, DeviceTimeouts};
use hotspot_core::fact::DeviceEvent;
use hotspot_core::notice;
use hotspot_core::text::is_spelled;
use libfuzzer_sys::fuzz_target;

const NOW_NS: i64 = 1_795_392_000_000_000_000;

fuzz_target!(|bytes: &[u8]| {
    let [kind, origin, payload @ ..] = bytes else { return };
    // The sender's address is the one in a DHCP message or an ARP packet, so that they are not all refused for that.
    let at = if kind % 4 == 0 { 8 } else { 28 };
    let client_mac = payload.get(at..at + 6).and_then(|mac| mac.try_into().ok()).unwrap_or_default();
    let header = NoticeHeader { kind: kind % 4 + 1, origin: origin & 0x80, client_mac, ..NoticeHeader::default() };
    let mut table = DeviceTable::default();
    for is_mirror in [false, true] {
        for fact in notice::facts(&header, payload, NOW_NS, is_mirror).map(|said| said.facts).unwrap_or_default() {
            if let DeviceEvent::Named(names) = &fact.event {
                let texts = [&names.hostname, &names.vendor_class, &names.dhcp_fingerprint, &names.client_id];
                assert!(texts.into_iter().flatten().all(|text| !text.is_empty() && is_spelled(text)));
            }
            table.apply(&fact);
            let once = table.devices();
            table.apply(&fact);
            assert_eq!(once, table.devices(), "the same fact again changes nothing");
        }
    }
    table.forget(&DeviceTimeouts::default(), NOW_NS);
});
