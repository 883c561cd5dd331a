//! Calling- and Called-Station-Id: a device or an access point, in the many ways NAS write them. All text is in the archive's
//! spelling ([`crate::text::escaped`]), and no escape is ever cut.

use crate::MacAddr;
use crate::text::{is_spelled, skip_spelled};

/// A MAC address, perhaps with something behind it (`02-AA-BB-CC-DD-EE:wlan0`, `02aa.bbcc.ddee vlan 7`).
#[must_use]
pub fn calling(text: &str) -> Option<MacAddr> {
    head(text).map(|(mac, _)| mac).filter(|mac| mac.is_device())
}

/// The access point's MAC and the SSID: `00-10-A4-23-19-C0:Cafe` (RFC 3580 §3.20), with other separators, either alone, or the
/// other way round.
#[must_use]
pub fn called(text: &str) -> (Option<MacAddr>, Option<String>) {
    let ssid = |ssid: &str| Some(ssid.to_owned()).filter(|ssid| !ssid.is_empty());
    if let Some((mac, rest)) = head(text) {
        return (Some(mac).filter(|mac| mac.is_device()), ssid(skip_spelled(rest)));
    }
    for len in MAC_LENS {
        let Some((front, back)) = text.len().checked_sub(len).and_then(|at| text.split_at_checked(at)) else {
            continue;
        };
        let Some((before, separator)) = front.char_indices().next_back() else { continue };
        // The last character may be that of an escape, without which what is before it is no text.
        let is_separator = !separator.is_alphanumeric() && is_spelled(&front[..before]);
        if let (Ok(mac), true) = (back.parse(), is_separator) {
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
    fn zeros_and_groups_are_no_device_and_no_access_point() {
        for text in ["00-00-00-00-00-00", "000000000000", "ff:ff:ff:ff:ff:ff", "01-00-5e-00-00-01", "03:00:00:00:00:01"]
        {
            assert_eq!(calling(text), None, "{text}");
            assert_eq!(called(&format!("{text}:Cafe")), (None, Some("Cafe".to_owned())), "{text}");
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

    #[test]
    fn a_separator_that_is_an_escape_is_never_cut() {
        let with = |ssid: &str| (Some(MAC), Some(ssid.to_owned()));
        assert_eq!(called(r"00-10-A4-23-19-C0\\Cafe"), with("Cafe"), "a backslash");
        assert_eq!(called(r"00-10-A4-23-19-C0\x0aCafe"), with("Cafe"));
        assert_eq!(called(r"00-10-A4-23-19-C0\u{202e}Cafe"), with("Cafe"));
        assert_eq!(called(r"00-10-A4-23-19-C0:\\"), with(r"\\"));
        for text in [r"Cafe\\00-10-A4-23-19-C0", r"Cafe\u{202e}00-10-A4-23-19-C0", r"Cafe\x0a00-10-A4-23-19-C0"] {
            assert_eq!(called(text), (None, None), "{text}");
        }
    }
}
