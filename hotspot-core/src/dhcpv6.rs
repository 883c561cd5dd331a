//! DHCP for IPv6 (RFC 8415): addresses a server grants, and what a client says of itself.
//!
//! Like in [`crate::dhcp`], an option that does not keep to its format costs itself; messages of relay agents are not looked into.

use std::net::Ipv6Addr;

use crate::dhcp::Refused;
use crate::domain_name::{Name, fqdn};

const CLIENT_ID: u16 = 1;
const IA_NA: u16 = 3;
const IA_TA: u16 = 4;
const IA_ADDRESS: u16 = 5;
const STATUS: u16 = 13;
const VENDOR_CLASS: u16 = 16;
const CLIENT_FQDN: u16 = 39;

/// RFC 8415 §7.3, as far as they matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// From a client that has no address by this message: Solicit, Request, Renew, Rebind, Confirm, Information-request.
    Asks,
    Advertise,
    Reply,
    Release,
    Decline,
}

/// An address in an identity association, and for how long it is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub ip: Ipv6Addr,
    pub valid_s: u32,
}

/// What is read of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: MessageType,
    /// DUID.
    pub client_id: Option<Vec<u8>>,
    /// Of `IA_NA` and `IA_TA`, those without an error.
    pub leases: Vec<Lease>,
    pub fqdn: Option<Vec<u8>>,
    pub vendor_class: Option<Vec<u8>>,
    /// Names of the fields that did not keep to their format; each once.
    pub odd: Vec<&'static str>,
}

/// Takes the payload of a UDP packet apart; `None` for messages that say nothing about a device.
pub fn parse(payload: &[u8]) -> Result<Option<Message>, Refused> {
    let [kind, _, _, _, options @ ..] = payload else { return Err(Refused::Short) };
    let kind = match kind {
        1 | 3 | 4 | 5 | 6 | 11 => MessageType::Asks,
        2 => MessageType::Advertise,
        7 => MessageType::Reply,
        8 => MessageType::Release,
        9 => MessageType::Decline,
        _ => return Ok(None),
    };
    let mut message =
        Message { kind, client_id: None, leases: Vec::new(), fqdn: None, vendor_class: None, odd: Vec::new() };
    let mut options = Options::new(options);
    while let Some((code, value)) = options.next() {
        let is_read = match code {
            CLIENT_ID => Reading::of(&mut message.client_id, Some(value.to_vec()), !value.is_empty()),
            // IAID, T1, T2; RFC 8415 §21.4.
            IA_NA => association(value.get(12..), &mut message.leases),
            // IAID.
            IA_TA => association(value.get(4..), &mut message.leases),
            // RFC 4704 §4: flags, and a name in the form of DNS.
            CLIENT_FQDN => match fqdn(value, 1, |_| true) {
                Name::Regular(name) => Reading::of(&mut message.fqdn, name, true),
                Name::Odd(name) => Reading::of(&mut message.fqdn, name, false),
            },
            VENDOR_CLASS => {
                let class = vendor_class(value);
                let is_regular = class.is_some();
                Reading::of(&mut message.vendor_class, class, is_regular)
            }
            _ => Reading::Regular,
        };
        if let Reading::Odd = is_read {
            message.is_odd(field(code));
        }
    }
    if options.is_cut() {
        message.is_odd("dhcpv6_option_cut");
    }
    Ok(Some(message))
}

impl Message {
    fn is_odd(&mut self, field: &'static str) {
        if !self.odd.contains(&field) {
            self.odd.push(field);
        }
    }
}

/// The name of an option's counter.
const fn field(code: u16) -> &'static str {
    match code {
        CLIENT_ID => "dhcpv6_client_id",
        CLIENT_FQDN => "dhcpv6_fqdn",
        VENDOR_CLASS => "dhcpv6_vendor_class",
        _ => "dhcpv6_address",
    }
}

/// Whether an option, and all in it, kept to its format.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Regular,
    Odd,
}

impl Reading {
    /// Keeps the first of what may be there once.
    fn of(known: &mut Option<Vec<u8>>, read: Option<Vec<u8>>, is_regular: bool) -> Self {
        if known.is_none() {
            *known = read.filter(|read| !read.is_empty());
        }
        if is_regular { Self::Regular } else { Self::Odd }
    }
}

/// Adds an association's addresses, unless it or the address carries an error.
fn association(options: Option<&[u8]>, leases: &mut Vec<Lease>) -> Reading {
    let Some(options) = options else { return Reading::Odd };
    let (mut found, mut reading) = (Vec::new(), Reading::Regular);
    let mut options = Options::new(options);
    while let Some((code, value)) = options.next() {
        match code {
            STATUS => match is_success(value) {
                Some(true) => {}
                Some(false) => return reading,
                None => reading = Reading::Odd,
            },
            IA_ADDRESS => found.extend(granted(value, &mut reading)),
            _ => {}
        }
    }
    leases.extend(found);
    if options.is_cut() { Reading::Odd } else { reading }
}

/// Address, preferred and valid lifetime (RFC 8415 §21.6); `None` for one that carries an error, and for what is none.
fn granted(value: &[u8], reading: &mut Reading) -> Option<Lease> {
    const HEAD_LEN: usize = 24;
    let Some((head, inner)) = value.split_first_chunk::<HEAD_LEN>() else {
        *reading = Reading::Odd;
        return None;
    };
    let (ip, valid) = (head.first_chunk::<16>()?, head.last_chunk::<4>()?);
    let mut is_granted = true;
    let mut inner = Options::new(inner);
    while let Some((code, value)) = inner.next() {
        if code == STATUS {
            match is_success(value) {
                Some(is_success) => is_granted &= is_success,
                None => *reading = Reading::Odd,
            }
        }
    }
    if inner.is_cut() {
        *reading = Reading::Odd;
    }
    is_granted.then(|| Lease { ip: Ipv6Addr::from(*ip), valid_s: u32::from_be_bytes(*valid) })
}

fn is_success(status: &[u8]) -> Option<bool> {
    status.first_chunk::<2>().map(|code| *code == [0, 0])
}

/// RFC 8415 §21.16: an enterprise number, then items with a length each; the first says what it is, and is empty where there is none. `None`
/// for what is no vendor class.
fn vendor_class(value: &[u8]) -> Option<Vec<u8>> {
    let items = value.get(4..)?;
    if items.is_empty() {
        return Some(Vec::new());
    }
    let (len, rest) = items.split_first_chunk::<2>()?;
    let item = rest.get(..usize::from(u16::from_be_bytes(*len)))?;
    let len = item.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    Some(item[..len].to_vec())
}

/// Code and value of one option after the other, up to what is none: stray octets, or an option that runs past the end.
struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let (code, rest) = self.rest.split_first_chunk::<2>()?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        self.rest = rest;
        Some((u16::from_be_bytes(*code), value))
    }

    /// Whether something was left that is no option.
    const fn is_cut(&self) -> bool {
        !self.rest.is_empty()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn option(code: u16, value: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
    }

    pub(crate) fn address(ip: &str, valid_s: u32) -> Vec<u8> {
        let ip: Ipv6Addr = ip.parse().unwrap();
        option(IA_ADDRESS, &[&ip.octets()[..], &[0; 4], &valid_s.to_be_bytes()].concat())
    }

    pub(crate) fn message(kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
        [&[kind, 1, 2, 3][..], &options.concat()].concat()
    }

    #[test]
    fn a_reply_grants_addresses() {
        let granted = option(IA_NA, &[&[0; 12][..], &address("2001:db8::5", 3600)].concat());
        let error = option(STATUS, &[0, 2]);
        let refused = option(IA_NA, &[&[0; 12][..], &error, &address("2001:db8::6", 3600)].concat());
        let parsed = parse(&message(7, &[option(CLIENT_ID, &[0, 3, 0, 1]), granted, refused])).unwrap().unwrap();
        assert_eq!(parsed.leases, [Lease { ip: "2001:db8::5".parse().unwrap(), valid_s: 3600 }]);
        assert_eq!((parsed.kind, parsed.client_id), (MessageType::Reply, Some(vec![0, 3, 0, 1])));
    }

    #[test]
    fn a_client_says_its_name_and_class() {
        let name = option(CLIENT_FQDN, &[0, 2, b'p', b'c', 3, b'l', b'a', b'n', 0]);
        let class = option(VENDOR_CLASS, &[0, 0, 1, 55, 0, 4, b'M', b'S', b'F', b'T']);
        let parsed = parse(&message(1, &[name, class])).unwrap().unwrap();
        assert_eq!(parsed.fqdn.as_deref(), Some(&b"pc.lan"[..]));
        assert_eq!(parsed.vendor_class.as_deref(), Some(&b"MSFT"[..]));
    }

    #[test]
    fn relayed_messages_and_those_to_come_say_nothing() {
        assert_eq!(parse(&message(12, &[])), Ok(None));
        assert_eq!(parse(&message(99, &[])), Ok(None));
    }

    #[test]
    fn only_a_message_without_its_head_is_refused() {
        assert_eq!(parse(&[7, 0, 0]), Err(Refused::Short));
        assert_eq!(parse(&[]), Err(Refused::Short));
    }

    /// Read with a lease, a name and a class beside the odd option: all three stand.
    fn beside(odd: &[u8], is_last: bool) -> Vec<&'static str> {
        let lease = option(IA_NA, &[&[0; 12][..], &address("2001:db8::5", 600)].concat());
        let name = option(CLIENT_FQDN, &[0, 2, b'p', b'c', 0]);
        let class = option(VENDOR_CLASS, &[0, 0, 1, 55, 0, 4, b'M', b'S', b'F', b'T']);
        let mut options = vec![name, class, lease];
        options.insert(if is_last { 3 } else { 2 }, odd.to_vec());
        let parsed = parse(&message(7, &options)).unwrap().unwrap();
        assert_eq!(parsed.leases, [Lease { ip: "2001:db8::5".parse().unwrap(), valid_s: 600 }], "{odd:?}");
        assert_eq!(parsed.fqdn.as_deref(), Some(&b"pc"[..]), "{odd:?}");
        assert_eq!(parsed.vendor_class.as_deref(), Some(&b"MSFT"[..]), "{odd:?}");
        parsed.odd
    }

    #[test]
    fn an_odd_option_costs_itself_and_is_named() {
        for (odd, field) in [
            (option(IA_NA, &[0; 11]), "dhcpv6_address"),
            (option(IA_TA, &[0; 3]), "dhcpv6_address"),
            (option(IA_NA, &[&[0; 12][..], &option(IA_ADDRESS, &[1; 23])].concat()), "dhcpv6_address"),
            (option(IA_NA, &[&[0; 12][..], &[0, 5, 0]].concat()), "dhcpv6_address"),
            (option(CLIENT_FQDN, &[]), "dhcpv6_fqdn"),
            (option(CLIENT_FQDN, b"\x01my.phone.lan"), "dhcpv6_fqdn"),
            (option(VENDOR_CLASS, &[0, 0, 0, 1, 0, 9, 1]), "dhcpv6_vendor_class"),
            (option(VENDOR_CLASS, &[0, 0, 1]), "dhcpv6_vendor_class"),
            (option(CLIENT_ID, &[]), "dhcpv6_client_id"),
        ] {
            assert_eq!(beside(&odd, false), [field], "{odd:?}");
        }
        for stray in [&[0][..], &[0, 0, 0], &[0, 3, 0, 9, 1]] {
            assert_eq!(beside(stray, true), ["dhcpv6_option_cut"], "{stray:?}");
        }
    }

    #[test]
    fn what_is_odd_within_an_address_leaves_it_and_an_error_takes_it() {
        let leased = |inside: &[u8]| {
            let mut value = address("2001:db8::5", 600)[4..].to_vec();
            value.extend(inside);
            let parsed = parse(&message(7, &[option(IA_NA, &[&[0; 12][..], &option(IA_ADDRESS, &value)].concat())]));
            let parsed = parsed.unwrap().unwrap();
            (parsed.leases.len(), parsed.odd)
        };
        assert_eq!(leased(&option(STATUS, &[0, 0])), (1, vec![]));
        assert_eq!(leased(&option(STATUS, &[0])), (1, vec!["dhcpv6_address"]));
        assert_eq!(leased(&[0]), (1, vec!["dhcpv6_address"]));
        assert_eq!(leased(&option(STATUS, &[0, 2])), (0, vec![]));
    }

    #[test]
    fn a_name_in_no_form_of_dns_is_read_as_the_text_it_is() {
        let parsed = parse(&message(1, &[option(CLIENT_FQDN, b"\x01my.phone.lan")])).unwrap().unwrap();
        assert_eq!(parsed.fqdn.as_deref(), Some(&b"my.phone.lan"[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(kind in 0u8..12, tail in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&message(kind, std::slice::from_ref(&tail)));
            let _ = parse(&message(7, &[option(IA_NA, &tail)]));
        }
    }
}
