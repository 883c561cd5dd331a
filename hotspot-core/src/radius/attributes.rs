//! The attributes that are read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::text::escaped;

/// The vendor whose attributes say where a venue is (`WISPr`).
const WISPR: [u8; 4] = 14_122u32.to_be_bytes();

/// What is read of a request. Text is with escapes ([`escaped`]), and never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub user_name: Option<String>,
    pub nas_ip: Option<IpAddr>,
    pub nas_identifier: Option<String>,
    pub nas_port: Option<u32>,
    pub nas_port_id: Option<String>,
    pub nas_port_type: Option<u32>,
    pub framed_ips: Vec<IpAddr>,
    /// Framed and delegated.
    pub prefixes: Vec<(IpAddr, u8)>,
    pub called_station: Option<String>,
    pub calling_station: Option<String>,
    pub session_id: Option<String>,
    pub multi_session_id: Option<String>,
    pub session_time_s: Option<u32>,
    pub delay_s: Option<u32>,
    pub event_timestamp_s: Option<u32>,
    pub interim_interval_s: Option<u32>,
    pub input_octets: Option<u32>,
    pub input_gigawords: Option<u32>,
    pub output_octets: Option<u32>,
    pub output_gigawords: Option<u32>,
    pub input_packets: Option<u32>,
    pub output_packets: Option<u32>,
    pub terminate_cause: Option<u32>,
    /// Acct-Authentic: 1 RADIUS, 2 local, 3 remote, 4 Diameter.
    pub authentic: Option<u32>,
    pub chargeable_user: Option<String>,
    pub classes: Vec<String>,
    pub location_id: Option<String>,
    pub location_name: Option<String>,
    /// Names of attributes that did not keep to their format, and were left out; each once.
    pub odd: Vec<&'static str>,
}

impl Attributes {
    /// Numbers are those of the IANA registry "RADIUS Types".
    pub(super) fn learn(&mut self, kind: u8, value: &[u8]) {
        let is_read = match kind {
            1 => first(&mut self.user_name, text(value)),
            4 => first(&mut self.nas_ip, ipv4(value)),
            5 => first(&mut self.nas_port, number(value)),
            8 => several(&mut self.framed_ips, ipv4(value), |ip| is_assigned(*ip)),
            25 => several(&mut self.classes, text(value), |_| true),
            26 => self.learn_of_vendor(value),
            30 => first(&mut self.called_station, text(value)),
            31 => first(&mut self.calling_station, text(value)),
            32 => first(&mut self.nas_identifier, text(value)),
            41 => first(&mut self.delay_s, number(value)),
            42 => first(&mut self.input_octets, number(value)),
            43 => first(&mut self.output_octets, number(value)),
            44 => first(&mut self.session_id, text(value)),
            45 => first(&mut self.authentic, number(value)),
            46 => first(&mut self.session_time_s, number(value)),
            47 => first(&mut self.input_packets, number(value)),
            48 => first(&mut self.output_packets, number(value)),
            49 => first(&mut self.terminate_cause, number(value)),
            50 => first(&mut self.multi_session_id, text(value)),
            52 => first(&mut self.input_gigawords, number(value)),
            53 => first(&mut self.output_gigawords, number(value)),
            55 => first(&mut self.event_timestamp_s, number(value)),
            61 => first(&mut self.nas_port_type, number(value)),
            85 => first(&mut self.interim_interval_s, number(value)),
            87 => first(&mut self.nas_port_id, text(value)),
            89 => first(&mut self.chargeable_user, text(value)),
            95 => first(&mut self.nas_ip, ipv6(value)),
            97 | 123 => several(&mut self.prefixes, prefix(value), |_| true),
            168 => several(&mut self.framed_ips, ipv6(value), |ip| is_assigned(*ip)),
            _ => true,
        };
        // What is empty, or zeros alone in place of text, says nothing and is nothing odd.
        if !is_read && value.iter().any(|octet| *octet != 0) {
            self.is_odd(name(kind));
        }
    }

    /// Names an attribute that does not keep to its format.
    pub(super) fn is_odd(&mut self, attribute: &'static str) {
        if !self.odd.contains(&attribute) {
            self.odd.push(attribute);
        }
    }

    /// Vendor-Specific (RFC 2865 §5.26): the vendor's number, and for this one parts with type and length. Whether all of it was read.
    fn learn_of_vendor(&mut self, value: &[u8]) -> bool {
        let Some((vendor, mut rest)) = value.split_first_chunk::<4>() else { return false };
        if *vendor != WISPR {
            return true;
        }
        while let Some(kind) = rest.first() {
            let len = rest.get(1).copied().map_or(0, usize::from);
            // Where a part ends is not known of one that has no length, so nothing behind it is read.
            let Some(part) = rest.get(2..len) else { return false };
            match kind {
                1 => first(&mut self.location_id, text(part)),
                2 => first(&mut self.location_name, text(part)),
                _ => true,
            };
            rest = &rest[len..];
        }
        true
    }
}

/// The name of an attribute's counter.
const fn name(kind: u8) -> &'static str {
    match kind {
        4 => "nas_ip_address",
        5 => "nas_port",
        8 => "framed_ip_address",
        26 => "vendor_specific",
        41 => "acct_delay_time",
        42 => "acct_input_octets",
        43 => "acct_output_octets",
        45 => "acct_authentic",
        46 => "acct_session_time",
        47 => "acct_input_packets",
        48 => "acct_output_packets",
        49 => "acct_terminate_cause",
        52 => "acct_input_gigawords",
        53 => "acct_output_gigawords",
        55 => "event_timestamp",
        61 => "nas_port_type",
        85 => "acct_interim_interval",
        95 => "nas_ipv6_address",
        97 => "framed_ipv6_prefix",
        123 => "delegated_ipv6_prefix",
        168 => "framed_ipv6_address",
        // Text has no wrong size.
        _ => "text",
    }
}

/// Keeps the first that can be read; whether this one can.
fn first<T>(known: &mut Option<T>, read: Option<T>) -> bool {
    let is_read = read.is_some();
    if known.is_none() {
        *known = read;
    }
    is_read
}

/// Keeps all that say something; whether this one can be read.
fn several<T>(known: &mut Vec<T>, read: Option<T>, says_something: impl Fn(&T) -> bool) -> bool {
    let is_read = read.is_some();
    known.extend(read.filter(says_something));
    is_read
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

fn ipv4(value: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into())
}

/// An IPv4 address in the form of IPv6 is that IPv4 address: flows have it so.
fn ipv6(value: &[u8]) -> Option<IpAddr> {
    <[u8; 16]>::try_from(value).ok().map(|octets| IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
}

/// RFC 2865 §5.8: all ones and all ones but one mean that the address is still to be chosen.
fn is_assigned(ip: IpAddr) -> bool {
    ip != IpAddr::from([255, 255, 255, 255]) && ip != IpAddr::from([255, 255, 255, 254]) && !ip.is_unspecified()
}

/// Framed- and Delegated-IPv6-Prefix: a reserved octet, the length in bits, and up to 16 octets (RFC 3162 §2.3).
fn prefix(value: &[u8]) -> Option<(IpAddr, u8)> {
    let (&[_, len], octets) = value.split_first_chunk::<2>()?;
    // A prefix of no bits would be everybody.
    if len == 0 || len > 128 || octets.len() > 16 || octets.len() * 8 < usize::from(len) {
        return None;
    }
    let mut address = [0; 16];
    address[..octets.len()].copy_from_slice(octets);
    // Bits beyond the length should be zero; who compares prefixes relies on it.
    let bits = u128::from_be_bytes(address) & (u128::MAX << (128 - u32::from(len)));
    Some((Ipv6Addr::from(bits).into(), len))
}

/// Octets as text with escapes. Zeros at the end are a C string's, and no text is none.
fn text(value: &[u8]) -> Option<String> {
    let end = value.iter().rposition(|octet| *octet != 0)? + 1;
    Some(escaped(&value[..end]))
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::parsed;
    use super::*;

    const START: (u8, &[u8]) = (40, &[0, 0, 0, 1]);
    const ID: (u8, &[u8]) = (44, b"1");

    #[test]
    fn addresses_and_prefixes_are_read() {
        let framed = [0, 64, 0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2];
        let delegated = [0, 60, 0x20, 0x01, 0x0d, 0xb8, 0, 3, 0, 0xff];
        let given: [(u8, &[u8]); 7] =
            [START, ID, (8, &[10, 0, 0, 1]), (8, &[255; 4]), (97, &framed), (123, &delegated), (97, &[0, 0])];
        let attributes = parsed(&given).attributes;
        assert_eq!(attributes.framed_ips, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(
            attributes.prefixes,
            [("2001:db8:1:2::".parse().unwrap(), 64), ("2001:db8:3:f0::".parse().unwrap(), 60)]
        );
    }

    #[test]
    fn what_is_empty_or_of_the_wrong_size_is_as_if_it_were_not_there() {
        let attributes = parsed(&[START, ID, (1, b""), (89, b"\0"), (46, &[1]), (46, &[0, 0, 0, 9]), (95, &[1; 4])]);
        let attributes = attributes.attributes;
        assert_eq!((attributes.user_name, attributes.chargeable_user), (None, None));
        assert_eq!((attributes.session_time_s, attributes.nas_ip), (Some(9), None));
    }

    #[test]
    fn the_first_of_several_counts_and_a_c_string_ends_before_its_zero() {
        let attributes = parsed(&[START, ID, (1, b"alice\0"), (1, b"bob"), (25, b"a b"), (25, b"c")]).attributes;
        assert_eq!(attributes.user_name.as_deref(), Some("alice"));
        assert_eq!(attributes.classes, ["a b", "c"]);
    }

    #[test]
    fn where_the_venue_is_comes_in_a_vendors_attribute() {
        let place = [&WISPR[..], &[1, 9], b"isocc=v", &[2, 6], b"Cafe"].concat();
        let other = [&[0, 0, 0, 9][..], &[1, 200]].concat();
        let attributes = parsed(&[START, ID, (26, &place), (26, &other)]).attributes;
        assert_eq!(attributes.location_id.as_deref(), Some("isocc=v"));
        assert_eq!(attributes.location_name.as_deref(), Some("Cafe"));
    }

    #[test]
    fn an_odd_attribute_costs_itself_and_is_named() {
        let place = [&WISPR[..], &[2, 6], b"Cafe"].concat();
        let cut = |bad: &[u8]| [&place[..], bad].concat();
        for (kind, odd, name) in [
            (26, cut(&[1, 255, 65]), "vendor_specific"),
            (26, cut(&[1, 0]), "vendor_specific"),
            (26, cut(&[1, 1]), "vendor_specific"),
            (26, cut(&[1]), "vendor_specific"),
            (26, WISPR[2..].to_vec(), "vendor_specific"),
            (46, vec![1], "acct_session_time"),
            (41, vec![0, 0, 0, 0, 9], "acct_delay_time"),
            (85, b"300".to_vec(), "acct_interim_interval"),
            (8, b"10.0.0.9".to_vec(), "framed_ip_address"),
            (168, vec![1; 4], "framed_ipv6_address"),
            (97, vec![0, 129, 1], "framed_ipv6_prefix"),
            (95, vec![1; 4], "nas_ipv6_address"),
        ] {
            let given: [(u8, &[u8]); 5] = [START, ID, (kind, &odd), (1, b"wim"), (8, &[10, 0, 0, 1])];
            let attributes = parsed(&given).attributes;
            assert_eq!(attributes.user_name.as_deref(), Some("wim"), "{name}");
            assert_eq!(attributes.framed_ips, [IpAddr::from([10, 0, 0, 1])], "{name}");
            assert_eq!(attributes.odd, [name]);
            // What was read before the part that is none stands.
            let is_place = odd.starts_with(&place);
            assert_eq!(attributes.location_name.as_deref(), is_place.then_some("Cafe"), "{odd:?}");
        }
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_that_address() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 7];
        assert_eq!(parsed(&[START, ID, (168, &mapped)]).attributes.framed_ips, [IpAddr::from([10, 0, 0, 7])]);
    }
}
