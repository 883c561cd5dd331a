//! DHCP for IPv6 (RFC 8415): addresses a server grants, and what a client says of itself.
//!
//! Strict like [`crate::dhcp`]; messages of relay agents are not looked into.

use std::net::Ipv6Addr;

use crate::dhcp::{Refused, dns_name};

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
    let mut message = Message { kind, client_id: None, leases: Vec::new(), fqdn: None, vendor_class: None };
    for option in Options(options) {
        let (code, value) = option?;
        match code {
            CLIENT_ID if !value.is_empty() => message.client_id = Some(value.to_vec()),
            // IAID, T1, T2; RFC 8415 §21.4.
            IA_NA => association(value.get(12..).ok_or(Refused::OptionLength)?, &mut message.leases)?,
            // IAID.
            IA_TA => association(value.get(4..).ok_or(Refused::OptionLength)?, &mut message.leases)?,
            // RFC 4704 §4: flags, and a name in the form of DNS.
            CLIENT_FQDN => {
                let (_, name) = value.split_first().ok_or(Refused::OptionLength)?;
                message.fqdn = dns_name(name)?;
            }
            VENDOR_CLASS => message.vendor_class = vendor_class(value)?,
            _ => {}
        }
    }
    Ok(Some(message))
}

/// Adds an association's addresses, unless it or the address carries an error.
fn association(options: &[u8], leases: &mut Vec<Lease>) -> Result<(), Refused> {
    let mut found = Vec::new();
    for option in Options(options) {
        let (code, value) = option?;
        if code == STATUS && !is_success(value)? {
            return Ok(());
        }
        if code != IA_ADDRESS {
            continue;
        }
        // Address, preferred and valid lifetime; RFC 8415 §21.6.
        let (ip, rest) = value.split_first_chunk::<16>().ok_or(Refused::OptionLength)?;
        let (_, rest) = rest.split_first_chunk::<4>().ok_or(Refused::OptionLength)?;
        let (valid, inner) = rest.split_first_chunk::<4>().ok_or(Refused::OptionLength)?;
        let mut is_granted = true;
        for option in Options(inner) {
            let (code, value) = option?;
            is_granted &= code != STATUS || is_success(value)?;
        }
        if is_granted {
            found.push(Lease { ip: Ipv6Addr::from(*ip), valid_s: u32::from_be_bytes(*valid) });
        }
    }
    leases.extend(found);
    Ok(())
}

fn is_success(status: &[u8]) -> Result<bool, Refused> {
    status.first_chunk::<2>().map(|code| *code == [0, 0]).ok_or(Refused::OptionLength)
}

/// RFC 8415 §21.16: an enterprise number, then items with a length each; the first says what it is.
fn vendor_class(value: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
    let items = value.get(4..).ok_or(Refused::OptionLength)?;
    let Some((len, rest)) = items.split_first_chunk::<2>() else { return Ok(None) };
    let item = rest.get(..usize::from(u16::from_be_bytes(*len))).ok_or(Refused::OptionTooLong)?;
    Ok((!item.is_empty()).then(|| item.to_vec()))
}

/// Code and value of one option after the other; ends with the first that is too long.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u16, &'a [u8]), Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let split = || {
            let (code, rest) = self.0.split_first_chunk::<2>()?;
            let (len, rest) = rest.split_first_chunk::<2>()?;
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            Some((u16::from_be_bytes(*code), value, rest))
        };
        let Some((code, value, rest)) = split() else {
            self.0 = &[];
            return Some(Err(Refused::OptionTooLong));
        };
        self.0 = rest;
        Some(Ok((code, value)))
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
    fn what_does_not_keep_to_the_format_is_refused() {
        assert_eq!(parse(&[7, 0, 0]), Err(Refused::Short));
        assert_eq!(parse(&[7, 0, 0, 0, 0, 3, 0, 9, 1]), Err(Refused::OptionTooLong));
        assert_eq!(parse(&message(7, &[option(IA_NA, &[0; 11])])), Err(Refused::OptionLength));
        assert_eq!(
            parse(&message(7, &[option(IA_NA, &[&[0; 12][..], &option(IA_ADDRESS, &[1; 23])].concat())])),
            Err(Refused::OptionLength)
        );
        assert_eq!(parse(&message(1, &[option(CLIENT_FQDN, &[])])), Err(Refused::OptionLength));
        assert_eq!(parse(&message(1, &[option(VENDOR_CLASS, &[0, 0, 0, 1, 0, 9, 1])])), Err(Refused::OptionTooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(kind in 0u8..12, tail in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&message(kind, std::slice::from_ref(&tail)));
            let _ = parse(&message(7, &[option(IA_NA, &tail)]));
        }
    }
}
