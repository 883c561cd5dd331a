//! DHCP for IPv4 (RFC 2131, RFC 2132): what a message says about the device that sent it or the lease it grants.
//!
//! Strict: whatever does not keep to the format is refused as a whole. Options are put together from their parts (RFC 3396), also
//! where they lie in the fields of server name and boot file (option 52). What follows the end option is not looked at. Never panics,
//! and allocates no more than the message is long.

use std::net::Ipv4Addr;

use crate::MacAddr;

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
    #[error("an option runs past the end of its field")]
    OptionTooLong,
    #[error("an option has another length than its meaning needs")]
    OptionLength,
    #[error("no DHCP message type")]
    NoType,
    #[error("a request that is sent as a reply, or the other way round")]
    WrongWay,
    #[error("a domain name that is not one")]
    BadName,
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
}

/// Takes the payload of a UDP packet apart.
pub fn parse(payload: &[u8]) -> Result<Message, Refused> {
    let (fixed, rest) = payload.split_at_checked(FIXED_LEN).ok_or(Refused::Short)?;
    let options = rest.strip_prefix(&COOKIE).ok_or(Refused::Short)?;
    let (op, hardware_type, hardware_len) = (fixed[0], fixed[1], fixed[2]);
    if hardware_type != 1 || hardware_len != 6 {
        return Err(Refused::NotEthernet);
    }
    let options = Options::collect(fixed, options)?;
    let kind = message_type(options.number(MESSAGE_TYPE)?.ok_or(Refused::NoType)?);
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
        requested_ip: options.word(REQUESTED_IP)?.map(Ipv4Addr::from),
        server_id: options.word(SERVER_ID)?.map(Ipv4Addr::from),
        lease_s: options.word(LEASE_TIME)?.map(u32::from_be_bytes),
        // Some devices count the C string's end as part of the name.
        hostname: options.text(HOST_NAME).map(|name| name.strip_suffix(&[0]).unwrap_or(name)).and_then(not_empty),
        fqdn: options.text(CLIENT_FQDN).map(fqdn).transpose()?.flatten(),
        vendor_class: options.text(VENDOR_CLASS).and_then(not_empty),
        parameters: options.text(PARAMETERS).and_then(not_empty),
        client_id: options.text(CLIENT_ID).and_then(not_empty),
    })
}

fn not_empty(bytes: &[u8]) -> Option<Vec<u8>> {
    (!bytes.is_empty()).then(|| bytes.to_vec())
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

/// RFC 4702 §2: flags, two result codes, and a name that is ASCII or, with the flag E, in the form of DNS.
fn fqdn(option: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
    const ENCODED: u8 = 0b0000_0100;
    let [flags, _, _, name @ ..] = option else { return Err(Refused::OptionLength) };
    if flags & ENCODED == 0 { Ok(not_empty(name)) } else { dns_name(name) }
}

/// Labels of a domain name (RFC 1035 §3.1), joined by dots; one that is not complete ends with the option. No compression.
pub(crate) fn dns_name(mut wire: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
    const LABEL_MAX: usize = 63;
    const NAME_MAX: usize = 255;
    if wire.len() > NAME_MAX {
        return Err(Refused::BadName);
    }
    let mut name = Vec::with_capacity(wire.len());
    while let [len, rest @ ..] = wire {
        let len = usize::from(*len);
        if len == 0 {
            // The root ends the name, and nothing may follow.
            return if rest.is_empty() { Ok(not_empty(&name)) } else { Err(Refused::BadName) };
        }
        let label = rest.get(..len).filter(|_| len <= LABEL_MAX).ok_or(Refused::BadName)?;
        if !name.is_empty() {
            name.push(b'.');
        }
        name.extend(label);
        wire = &rest[len..];
    }
    Ok(not_empty(&name))
}

/// Options that are read, each put together from its parts (RFC 3396 §5, §7): options field, boot file, server name.
#[derive(Default)]
struct Options {
    parts: Vec<(u8, Vec<u8>)>,
}

impl Options {
    fn collect(fixed: &[u8], field: &[u8]) -> Result<Self, Refused> {
        let mut options = Self::default();
        options.add(field, true)?;
        let overload = options.number(OVERLOAD)?.unwrap_or(0);
        if overload > 3 {
            return Err(Refused::OptionLength);
        }
        if overload & 1 != 0 {
            options.add(&fixed[BOOT_FILE], false)?;
        }
        if overload & 2 != 0 {
            options.add(&fixed[SERVER_NAME], false)?;
        }
        Ok(options)
    }

    /// Reads a field up to its end option, or to its end where that is missing, as some devices leave it out.
    fn add(&mut self, mut field: &[u8], is_first: bool) -> Result<(), Refused> {
        while let [code, rest @ ..] = field {
            if *code == END {
                return Ok(());
            }
            if *code == PAD {
                field = rest;
                continue;
            }
            let [len, rest @ ..] = rest else { return Err(Refused::OptionTooLong) };
            let value = rest.get(..usize::from(*len)).ok_or(Refused::OptionTooLong)?;
            // An overloaded field overloads no other.
            if is_read(*code) && (is_first || *code != OVERLOAD) {
                match self.parts.iter_mut().find(|(known, _)| known == code) {
                    Some((_, whole)) => whole.extend(value),
                    None => self.parts.push((*code, value.to_vec())),
                }
            }
            field = &rest[value.len()..];
        }
        Ok(())
    }

    fn text(&self, code: u8) -> Option<&[u8]> {
        self.parts.iter().find(|(known, _)| *known == code).map(|(_, value)| &**value)
    }

    fn number(&self, code: u8) -> Result<Option<u8>, Refused> {
        match self.text(code) {
            None => Ok(None),
            Some([number]) => Ok(Some(*number)),
            Some(_) => Err(Refused::OptionLength),
        }
    }

    fn word(&self, code: u8) -> Result<Option<[u8; 4]>, Refused> {
        self.text(code).map(|value| value.try_into().map_err(|_| Refused::OptionLength)).transpose()
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
    fn what_does_not_keep_to_the_format_is_refused() {
        assert_eq!(hostname(&message(1, &[12, 50, b'x'])), Err(Refused::OptionTooLong));
        assert_eq!(hostname(&message(1, &[52, 1, 9])), Err(Refused::OptionLength));
        assert_eq!(hostname(&message(1, &[50, 3, 1, 2, 3])), Err(Refused::OptionLength));
        assert_eq!(hostname(&message(1, &[53, 1, 1])), Err(Refused::OptionLength), "two types");
        assert_eq!(hostname(&message(1, &[81, 2, 0, 0])), Err(Refused::OptionLength));
        assert_eq!(hostname(&message(1, &[81, 5, 4, 0, 0, 64, b'x'])), Err(Refused::BadName));
        assert_eq!(hostname(&message(1, &[81, 5, 4, 0, 0, 0, b'x'])), Err(Refused::BadName));
        let mut bytes = message(1, &[]);
        bytes[1] = 6;
        assert_eq!(hostname(&bytes), Err(Refused::NotEthernet));
        bytes = message(5, &[]);
        bytes[0] = 1;
        assert_eq!(hostname(&bytes), Err(Refused::WrongWay));
        bytes = message(1, &[]);
        bytes[240..243].copy_from_slice(&[0; 3]);
        assert_eq!(hostname(&bytes), Err(Refused::NoType));
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
