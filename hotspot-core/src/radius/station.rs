//! Calling- and Called-Station-Id: a device or an access point, in the many ways NAS write them.

use crate::MacAddr;

/// A MAC address, perhaps with something behind it (`02-AA-BB-CC-DD-EE:wlan0`, `02aa.bbcc.ddee vlan 7`).
pub(super) fn calling(text: &str) -> Option<MacAddr> {
    head(text).map(|(mac, _)| mac)
}

/// The access point's MAC and the SSID: `00-10-A4-23-19-C0:Cafe` (RFC 3580 §3.20), with other separators, either alone, or the
/// other way round.
pub(super) fn called(text: &str) -> (Option<MacAddr>, Option<String>) {
    let ssid = |ssid: &str| Some(ssid.to_owned()).filter(|ssid| !ssid.is_empty());
    if let Some((mac, rest)) = head(text) {
        let mut chars = rest.chars();
        chars.next();
        return (Some(mac), ssid(chars.as_str()));
    }
    for len in MAC_LENS {
        let Some((front, back)) = text.len().checked_sub(len).and_then(|at| text.split_at_checked(at)) else {
            continue;
        };
        let Some((before, separator)) = front.char_indices().next_back() else { continue };
        if let (Ok(mac), false) = (back.parse(), separator.is_alphanumeric()) {
            return (Some(mac), ssid(&front[..before]));
        }
    }
    (None, None)
}

/// Lengths of the spellings [`MacAddr`] reads, the longest first.
const MAC_LENS: [usize; 4] = [17, 14, 13, 12];

/// A MAC address at the beginning, and the rest with its separator.
fn head(text: &str) -> Option<(MacAddr, &str)> {
    MAC_LENS.into_iter().find_map(|len| {
        let (mac, rest) = text.split_at_checked(len)?;
        let ends_there = rest.chars().next().is_none_or(|separator| !separator.is_alphanumeric());
        Some((mac.parse().ok().filter(|_| ends_there)?, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x00, 0x10, 0xa4, 0x23, 0x19, 0xc0]);

    #[test]
    fn a_device_is_read_in_every_usual_spelling() {
        for text in [
            "00-10-A4-23-19-C0",
            "00:10:a4:23:19:c0",
            "0010.a423.19c0",
            "0010A42319C0",
            "0010a4-2319c0",
            "00.10.a4.23.19.c0",
            "00-10-A4-23-19-C0:3",
            "00:10:a4:23:19:c0/wlan0",
            "00:10:a4:23:19:c0:wlan0",
            "0010.a423.19c0 vlan 7",
            "0010A42319C0@hotspot1",
        ] {
            assert_eq!(calling(text), Some(MAC), "{text}");
        }
        for text in ["", "0912345678", "10.20.0.14", "0010A42319C0FF", "00:10:a4:23:19", "alice", "0010A42319Cé"] {
            assert_eq!(calling(text), None, "{text}");
        }
    }

    #[test]
    fn access_point_and_network_are_read_in_every_usual_spelling() {
        let cafe = (Some(MAC), Some("Cafe".to_owned()));
        for text in [
            "00-10-A4-23-19-C0:Cafe",
            "00:10:a4:23:19:c0:Cafe",
            "0010A42319C0:Cafe",
            "0010.a423.19c0:Cafe",
            "00-10-A4-23-19-C0/Cafe",
            "00-10-A4-23-19-C0;Cafe",
            "00-10-A4-23-19-C0-Cafe",
            "00-10-A4-23-19-C0 Cafe",
            "Cafe:00-10-A4-23-19-C0",
            "Cafe:0010a42319c0",
        ] {
            assert_eq!(called(text), cafe, "{text}");
        }
    }

    #[test]
    fn a_network_may_be_missing_and_may_hold_anything() {
        for text in ["00-10-A4-23-19-C0", "00-10-A4-23-19-C0:", "0010a42319c0"] {
            assert_eq!(called(text), (Some(MAC), None), "{text}");
        }
        for ssid in ["a:b:c", ":", "00:11:22:33:44:55", "Caffè ☕", " leading"] {
            assert_eq!(called(&format!("00-10-A4-23-19-C0:{ssid}")), (Some(MAC), Some(ssid.to_owned())));
        }
        for text in ["hotspot1", "ap-lobby:Cafe", "", "0912345678"] {
            assert_eq!(called(text), (None, None), "{text}");
        }
    }
}
