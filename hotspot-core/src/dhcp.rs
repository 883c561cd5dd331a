//! DHCP for IPv4 (RFC 2131, RFC 2132): what a message says about the device that sent it or the lease it grants.
//!
//! An option that does not keep to its format costs itself, never the message: it is left out, or read as servers and clients in use read
//! it, and named in [`Message::odd`]. Refused is only what cannot be read at all: without fixed fields, cookie, Ethernet address or one
//! message type. Options are put together from their parts (RFC 3396), also where they lie in the fields of server name and boot file
//! (option 52). What follows the end option is not looked at. Never panics, and allocates no more than the message is long.

use std::net::Ipv4Addr;

use crate::MacAddr;
use crate::domain_name::{Name, fqdn};

const FIXED_LEN: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const SERVER_NAME: std::ops::Range<usize> = 44..108;
const BOOT_FILE: std::ops::Range<usize> = 108..236;

const PAD: u8 = 0;
const HOST_NAME: u8 = 12;
const REQUESTED_IP: u8 = 50;
const LEASE_TIME: u8 = 51;
const OVERLOAD: u8 = 52;
const MESSAGE_TYPE: u8 = 53;
const SERVER_ID: u8 = 54;
const PARAMETERS: u8 = 55;
const VENDOR_CLASS: u8 = 60;
const CLIENT_ID: u8 = 61;
const CLIENT_FQDN: u8 = 81;
const END: u8 = 255;

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    #[error("shorter than a DHCP message")]
    Short,
    #[error("not from or to a device with an Ethernet address")]
    NotEthernet,
    #[error("no DHCP message type, or several")]
    NoType,
    #[error("a request that is sent as a reply, or the other way round")]
    WrongWay,
}

/// Option 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    Discover,
    Offer,
    Request,
    Decline,
    Ack,
    Nak,
    Release,
    Inform,
    /// Of a later standard (RFC 3203, RFC 4388, RFC 6926, RFC 7724).
    Other(u8),
}

/// What is read of a message. Names are the bytes the device sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: MessageType,
    /// `chaddr`.
    pub client_mac: MacAddr,
    /// `ciaddr`: the address the client has and answers to; unspecified where it has none.
    pub client_ip: Ipv4Addr,
    /// `yiaddr`: the address the server gives.
    pub your_ip: Ipv4Addr,
    /// `giaddr`: the relay agent's address; unspecified where there was none.
    pub relay_ip: Ipv4Addr,
    pub requested_ip: Option<Ipv4Addr>,
    pub server_id: Option<Ipv4Addr>,
    pub lease_s: Option<u32>,
    pub hostname: Option<Vec<u8>>,
    /// The name in option 81, labels joined by dots.
    pub fqdn: Option<Vec<u8>>,
    pub vendor_class: Option<Vec<u8>>,
    /// Option 55, in the device's order.
    pub parameters: Option<Vec<u8>>,
    pub client_id: Option<Vec<u8>>,
    /// Names of the fields that did not keep to their format; each once.
    pub odd: Vec<&'static str>,
}

/// Takes the payload of a UDP packet apart.
pub fn parse(payload: &[u8]) -> Result<Message, Refused> {
    let (fixed, rest) = payload.split_at_checked(FIXED_LEN).ok_or(Refused::Short)?;
    let options = rest.strip_prefix(&COOKIE).ok_or(Refused::Short)?;
    let (op, hardware_type, hardware_len) = (fixed[0], fixed[1], fixed[2]);
    // 6 is what some Wi-Fi stacks send for Ethernet (RFC 1700: IEEE 802); some count all 16 octets of the field as the address.
    if !matches!(hardware_type, 1 | 6) || !(6..=16).contains(&hardware_len) {
        return Err(Refused::NotEthernet);
    }
    let mut options = Options::collect(fixed, options);
    let kind = message_type(options.message_type().ok_or(Refused::NoType)?);
    let is_reply = matches!(kind, MessageType::Offer | MessageType::Ack | MessageType::Nak);
    if op != if is_reply { 2 } else { 1 } && !matches!(kind, MessageType::Other(_)) {
        return Err(Refused::WrongWay);
    }
    let address = |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
    let mut client_mac = [0; 6];
    client_mac.copy_from_slice(&fixed[28..34]);
    Ok(Message {
        kind,
        client_mac: MacAddr(client_mac),
        client_ip: address(12),
        your_ip: address(16),
        relay_ip: address(24),
        requested_ip: options.first_word(REQUESTED_IP, "dhcp_requested_ip").map(Ipv4Addr::from),
        server_id: options.first_word(SERVER_ID, "dhcp_server_id").map(Ipv4Addr::from),
        lease_s: options.lease_s(),
        hostname: options.text(HOST_NAME),
        fqdn: options.fqdn(),
        vendor_class: options.text(VENDOR_CLASS),
        parameters: options.octets(PARAMETERS),
        client_id: options.octets(CLIENT_ID),
        odd: options.odd,
    })
}

fn message_type(number: u8) -> MessageType {
    match number {
        1 => MessageType::Discover,
        2 => MessageType::Offer,
        3 => MessageType::Request,
        4 => MessageType::Decline,
        5 => MessageType::Ack,
        6 => MessageType::Nak,
        7 => MessageType::Release,
        8 => MessageType::Inform,
        other => MessageType::Other(other),
    }
}

/// What a client takes that cannot read how long its lease is (busybox `udhcpc`); the shortest of those in use.
const LEASE_UNREADABLE_S: u32 = 3600;

/// Options that are read, with their parts (RFC 3396 §5, §7): options field, boot file, server name.
#[derive(Default)]
struct Options {
    parts: Vec<(u8, Vec<Vec<u8>>)>,
    odd: Vec<&'static str>,
}

impl Options {
    fn collect(fixed: &[u8], field: &[u8]) -> Self {
        let mut options = Self::default();
        options.add(field, true);
        let overload = match options.parts(OVERLOAD) {
            [] => 0,
            parts => match parts.iter().find(|part| matches!(part[..], [1..=3])) {
                Some(part) => part[0],
                // Then both fields hold names, as they do without the option.
                None => options.is_odd("dhcp_overload", 0),
            },
        };
        if overload & 1 != 0 {
            options.add(&fixed[BOOT_FILE], false);
        }
        if overload & 2 != 0 {
            options.add(&fixed[SERVER_NAME], false);
        }
        options
    }

    /// Reads a field up to its end option, or to its end where that is missing, as some devices leave it out. An option that runs
    /// past the end of its field is none, and nothing follows it.
    fn add(&mut self, mut field: &[u8], is_first: bool) {
        while let [code, rest @ ..] = field {
            if *code == END {
                return;
            }
            if *code == PAD {
                field = rest;
                continue;
            }
            let value = rest.split_first().and_then(|(len, rest)| rest.get(..usize::from(*len)));
            let Some(value) = value else { return self.is_odd("dhcp_option_cut", ()) };
            // An overloaded field overloads no other.
            if is_read(*code) && (is_first || *code != OVERLOAD) {
                match self.parts.iter_mut().find(|(known, _)| known == code) {
                    Some((_, parts)) => parts.push(value.to_vec()),
                    None => self.parts.push((*code, vec![value.to_vec()])),
                }
            }
            field = &rest[1 + value.len()..];
        }
    }

    /// Names a field that does not keep to its format; gives what is read instead.
    fn is_odd<T>(&mut self, field: &'static str, instead: T) -> T {
        if !self.odd.contains(&field) {
            self.odd.push(field);
        }
        instead
    }

    fn parts(&self, code: u8) -> &[Vec<u8>] {
        self.parts.iter().find(|(known, _)| *known == code).map_or(&[], |(_, parts)| parts)
    }

    /// An option of any length. Parts are put together (RFC 3396); the same option twice is said twice, not a part of a longer one.
    fn octets(&self, code: u8) -> Option<Vec<u8>> {
        let parts = self.parts(code);
        let first = parts.first()?;
        let is_repeated = first.len() < usize::from(u8::MAX) && parts.iter().all(|part| part == first);
        Some(if is_repeated { first.clone() } else { parts.concat() }).filter(|whole| !whole.is_empty())
    }

    /// The same; zeros at the end are a C string's or padding.
    fn text(&self, code: u8) -> Option<Vec<u8>> {
        let mut text = self.octets(code)?;
        text.truncate(text.iter().rposition(|octet| *octet != 0)? + 1);
        Some(text)
    }

    /// The type, where all that is said of it is the same.
    fn message_type(&mut self) -> Option<u8> {
        let parts = self.parts(MESSAGE_TYPE);
        let mut said = parts.iter().filter(|part| part.len() == 1).map(|part| part[0]);
        let first = said.next()?;
        let kind = said.all(|other| other == first).then_some(first);
        if parts.len() == 1 { kind } else { self.is_odd("dhcp_message_type", kind) }
    }

    /// The values of an option of four octets: one, from its parts, or those that a server sends beside its own.
    fn words(&mut self, code: u8, field: &'static str) -> Vec<[u8; 4]> {
        let parts = self.parts(code);
        if parts.is_empty() {
            return Vec::new();
        }
        if let Ok(word) = parts.concat().try_into() {
            return vec![word];
        }
        let words = parts.iter().filter_map(|part| part[..].try_into().ok()).collect();
        self.is_odd(field, words)
    }

    fn first_word(&mut self, code: u8, field: &'static str) -> Option<[u8; 4]> {
        self.words(code, field).first().copied()
    }

    /// How long the lease lasts: the shortest that is said, because an address that is not the device's any more names somebody else.
    fn lease_s(&mut self) -> Option<u32> {
        if self.parts(LEASE_TIME).is_empty() {
            return None;
        }
        let said = self.words(LEASE_TIME, "dhcp_lease_time");
        Some(said.into_iter().map(u32::from_be_bytes).min().unwrap_or(LEASE_UNREADABLE_S))
    }

    fn fqdn(&mut self) -> Option<Vec<u8>> {
        // RFC 4702 §2: flags, two result codes, a name; which is ASCII or, with the flag E, in the form of DNS.
        const ENCODED: u8 = 0b0000_0100;
        let option = self.octets(CLIENT_FQDN)?;
        match fqdn(&option, 3, |flags| flags & ENCODED != 0) {
            Name::Regular(name) => name,
            Name::Odd(name) => self.is_odd("dhcp_fqdn", name),
        }
    }
}

const fn is_read(code: u8) -> bool {
    matches!(
        code,
        HOST_NAME
            | REQUESTED_IP
            | LEASE_TIME
            | OVERLOAD
            | MESSAGE_TYPE
            | SERVER_ID
            | PARAMETERS
            | VENDOR_CLASS
            | CLIENT_ID
            | CLIENT_FQDN
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message of type `kind` from or to 02:00:00:00:00:01, with these options behind the type.
    pub(crate) fn message(kind: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_LEN];
        bytes[0] = if matches!(kind, 2 | 5 | 6) { 2 } else { 1 };
        (bytes[1], bytes[2], bytes[28], bytes[33]) = (1, 6, 2, 1);
        bytes.extend(COOKIE);
        bytes.extend([MESSAGE_TYPE, 1, kind]);
        bytes.extend(options);
        bytes.push(END);
        bytes
    }

    fn hostname(bytes: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        parse(bytes).map(|message| message.hostname)
    }

    #[test]
    fn a_request_says_who_asks() {
        let options = [
            &[12, 5][..],
            b"phone",
            &[60, 3],
            b"MSF",
            &[55, 3, 1, 3, 6, 61, 7, 1, 2, 0, 0, 0, 0, 1, 50, 4, 10, 0, 0, 9],
            &[81, 8, 4, 0, 0, 3, b'p', b'c', b'1', 0],
        ]
        .concat();
        let message = parse(&message(3, &options)).unwrap();
        assert_eq!((message.kind, message.client_mac), (MessageType::Request, MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!(message.hostname.as_deref(), Some(&b"phone"[..]));
        assert_eq!(message.vendor_class.as_deref(), Some(&b"MSF"[..]));
        assert_eq!(message.parameters.as_deref(), Some(&[1, 3, 6][..]));
        assert_eq!(message.client_id.as_deref(), Some(&[1, 2, 0, 0, 0, 0, 1][..]));
        assert_eq!(message.requested_ip, Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(message.fqdn.as_deref(), Some(&b"pc1"[..]));
    }

    #[test]
    fn what_follows_the_end_is_not_looked_at() {
        let mut bytes = message(1, &[]);
        bytes.extend([12, 200, b'x']);
        assert_eq!(hostname(&bytes), Ok(None));
    }

    #[test]
    fn parts_of_an_option_are_put_together() {
        assert_eq!(hostname(&message(1, &[12, 2, b'a', b'b', 0, 55, 1, 3, 12, 1, b'c'])), Ok(Some(b"abc".to_vec())));
        let mut bytes = message(1, &[12, 1, b'a', 52, 1, 3]);
        bytes[BOOT_FILE][..4].copy_from_slice(&[12, 1, b'b', END]);
        bytes[SERVER_NAME][..4].copy_from_slice(&[12, 1, b'c', END]);
        assert_eq!(hostname(&bytes), Ok(Some(b"abc".to_vec())), "boot file before server name");
        bytes[BOOT_FILE][..4].copy_from_slice(&[52, 1, 0, END]);
        assert_eq!(hostname(&bytes), Ok(Some(b"ac".to_vec())), "an overloaded field overloads no other");
    }

    #[test]
    fn fields_that_are_not_overloaded_hold_no_options() {
        let mut bytes = message(1, &[]);
        bytes[BOOT_FILE][..4].copy_from_slice(&[12, 1, b'b', END]);
        assert_eq!(hostname(&bytes), Ok(None));
    }

    #[test]
    fn only_what_cannot_be_read_is_refused() {
        let mut bytes = message(1, &[]);
        bytes[1] = 32;
        assert_eq!(hostname(&bytes), Err(Refused::NotEthernet));
        bytes = message(5, &[]);
        bytes[0] = 1;
        assert_eq!(hostname(&bytes), Err(Refused::WrongWay));
        bytes = message(1, &[]);
        bytes[240..243].copy_from_slice(&[0; 3]);
        assert_eq!(hostname(&bytes), Err(Refused::NoType));
        assert_eq!(hostname(&message(1, &[53, 1, 3])), Err(Refused::NoType), "two types");
        assert_eq!(hostname(&message(1, &[])[..239]), Err(Refused::Short));
    }

    /// Read with a name behind the odd option, and a lease before it: both stand.
    fn beside(odd: &[u8]) -> Message {
        let options = [&[51, 4, 0, 0, 2, 88, 12, 2, b't', b'v'][..], odd, &[60, 3, b'M', b'S', b'F']].concat();
        let mut bytes = message(5, &options);
        bytes[16..20].copy_from_slice(&[10, 20, 0, 41]);
        let message = parse(&bytes).unwrap();
        assert_eq!(message.hostname.as_deref(), Some(&b"tv"[..]), "{odd:?}");
        assert_eq!((message.your_ip, message.lease_s), ([10, 20, 0, 41].into(), Some(600)), "{odd:?}");
        message
    }

    #[test]
    fn an_odd_option_costs_itself_and_is_named() {
        for (odd, field) in [
            (&[54, 4, 10, 20, 0, 1, 54, 4, 10, 20, 0, 1][..], "dhcp_server_id"),
            (&[54, 3, 1, 2, 3], "dhcp_server_id"),
            (&[54, 0], "dhcp_server_id"),
            (&[51, 4, 0, 0, 2, 88], "dhcp_lease_time"),
            (&[51, 4, 0, 0, 0x1c, 0x20], "dhcp_lease_time"),
            (&[51, 1, 0], "dhcp_lease_time"),
            (&[50, 5, 1, 2, 3, 4, 5], "dhcp_requested_ip"),
            (&[52, 1, 9], "dhcp_overload"),
            (&[52, 2, 1, 1], "dhcp_overload"),
            (&[53, 1, 5], "dhcp_message_type"),
            (&[81, 2, 0, 0], "dhcp_fqdn"),
            (&[81, 5, 4, 0, 0, 64, b'x'], "dhcp_fqdn"),
            (&[81, 5, 4, 0, 0, 0xc0, 12], "dhcp_fqdn"),
        ] {
            let message = beside(odd);
            assert_eq!(message.odd, [field], "{odd:?}");
            assert_eq!(message.vendor_class.as_deref(), Some(&b"MSF"[..]), "{odd:?}");
        }
        // Nothing can be read behind an option that is cut.
        assert_eq!(beside(&[12, 50]).odd, ["dhcp_option_cut"]);
        assert_eq!(beside(&[0, 0, 0]).odd, [""; 0], "padding is not odd");
    }

    #[test]
    fn of_a_lease_that_is_said_twice_the_shorter_counts() {
        let lease_s = |options: &[u8]| parse(&message(5, options)).unwrap().lease_s;
        assert_eq!(lease_s(&[51, 4, 0, 0, 2, 88, 51, 4, 0, 0, 0, 60]), Some(60));
        assert_eq!(lease_s(&[51, 2, 0, 0, 51, 2, 2, 88]), Some(600), "two parts of one");
        assert_eq!(lease_s(&[51, 1, 7]), Some(LEASE_UNREADABLE_S));
        assert_eq!(lease_s(&[]), None);
    }

    #[test]
    fn an_option_that_is_said_twice_is_no_longer_one() {
        assert_eq!(hostname(&message(1, &[12, 2, b't', b'v', 12, 2, b't', b'v'])), Ok(Some(b"tv".to_vec())));
        let half = [&[12, 255][..], &[b'a'; 255]].concat();
        let long = hostname(&message(1, &[&half[..], &half].concat())).unwrap().unwrap();
        assert_eq!(long.len(), 510, "parts of a long one may be alike");
    }

    #[test]
    fn a_name_ends_before_all_its_zeros() {
        assert_eq!(hostname(&message(1, &[12, 5, b't', b'v', 0, 0, 0])), Ok(Some(b"tv".to_vec())));
        assert_eq!(hostname(&message(1, &[12, 4, b't', 0, b'v', 0])), Ok(Some(b"t\0v".to_vec())));
        assert_eq!(hostname(&message(1, &[12, 2, 0, 0])), Ok(None));
        let class = parse(&message(1, &[60, 4, b'M', b'S', 0, 0])).unwrap().vendor_class;
        assert_eq!(class.as_deref(), Some(&b"MS"[..]));
    }

    #[test]
    fn hardware_of_ethernet_is_read_however_it_is_called() {
        for (hardware_type, hardware_len) in [(1, 6), (6, 6), (1, 16)] {
            let mut bytes = message(1, &[12, 1, b'a']);
            (bytes[1], bytes[2]) = (hardware_type, hardware_len);
            assert_eq!(hostname(&bytes), Ok(Some(b"a".to_vec())));
        }
    }

    #[test]
    fn empty_options_say_nothing() {
        let message = parse(&message(1, &[12, 0, 55, 0, 60, 0, 61, 0])).unwrap();
        assert_eq!((message.hostname, message.parameters), (None, None));
        assert_eq!((message.vendor_class, message.client_id), (None, None));
    }

    #[test]
    fn a_message_cut_anywhere_never_says_more_than_the_whole() {
        let whole = message(3, &[12, 3, b'a', b'b', b'c']);
        for len in 0..whole.len() {
            if let Ok(cut) = parse(&whole[..len]) {
                assert!(cut.hostname.is_none() || cut.hostname.as_deref() == Some(b"abc"), "cut to {len} bytes");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(tail in prop::collection::vec(any::<u8>(), 0..600), overload in 0u8..4) {
            let mut bytes = message(1, &[52, 1, overload]);
            bytes.pop();
            bytes.extend(&tail);
            bytes[BOOT_FILE.start..BOOT_FILE.end].iter_mut().zip(&tail).for_each(|(to, from)| *to = *from);
            let _ = parse(&bytes);
            let _ = parse(&tail);
        }
    }
}
