//! The packet: lengths, authenticators, attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

const ACCOUNTING_REQUEST: u8 = 4;
const ACCOUNTING_RESPONSE: u8 = 5;
const HEADER_LEN: usize = 20;
/// RFC 2865 §3.
const LEN_MAX: usize = 4096;

/// Why a packet is refused. None of these is answered (RFC 2866 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    #[error("shorter than a RADIUS header or than its own length")]
    Short,
    #[error("its length is not between 20 and 4096")]
    BadLength,
    #[error("not an Accounting-Request")]
    NotAccounting,
    #[error("an attribute's length runs past the packet or is below 2")]
    BadAttribute,
    #[error("its authenticator does not fit the secret: forged, or the secrets differ")]
    BadAuthenticator,
    #[error("no usable Acct-Status-Type")]
    NoStatus,
    #[error("no Acct-Session-Id")]
    NoSessionId,
}

/// Acct-Status-Type (40).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcctStatus {
    Start,
    Stop,
    Interim,
    On,
    Off,
}

/// A request whose authenticator was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub identifier: u8,
    pub authenticator: [u8; 16],
    pub status: AcctStatus,
    pub attributes: Attributes,
}

/// What is read of a request. Text is UTF-8 with other bytes escaped as `\xNN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub user_name: Option<String>,
    pub nas_ip: Option<IpAddr>,
    pub nas_identifier: Option<String>,
    pub nas_port: Option<u32>,
    pub nas_port_id: Option<String>,
    pub framed_ips: Vec<IpAddr>,
    pub framed_prefixes: Vec<(IpAddr, u8)>,
    pub called_station: Option<String>,
    pub calling_station: Option<String>,
    pub session_id: Option<String>,
    pub session_time_s: Option<u32>,
    pub delay_s: Option<u32>,
    pub event_timestamp_s: Option<u32>,
    pub interim_interval_s: Option<u32>,
    pub input_octets: Option<u32>,
    pub input_gigawords: u32,
    pub output_octets: Option<u32>,
    pub output_gigawords: u32,
    pub input_packets: u32,
    pub output_packets: u32,
    pub terminate_cause: Option<u32>,
    /// Acct-Authentic: 1 RADIUS, 2 local, 3 remote, 4 Diameter.
    pub authentic: Option<u32>,
    pub chargeable_user: Option<String>,
}

/// Takes an Accounting-Request apart and verifies that somebody who knows the secret sent it.
pub fn parse(datagram: &[u8], secret: &[u8]) -> Result<Request, Refused> {
    let header = datagram.get(..HEADER_LEN).ok_or(Refused::Short)?;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if !(HEADER_LEN..=LEN_MAX).contains(&len) {
        return Err(Refused::BadLength);
    }
    // Octets beyond the length are padding (RFC 2865 §3).
    let packet = datagram.get(..len).ok_or(Refused::Short)?;
    if packet[0] != ACCOUNTING_REQUEST {
        return Err(Refused::NotAccounting);
    }
    verify(packet, secret)?;
    let mut attributes = Attributes::default();
    let mut status = None;
    let mut rest = &packet[HEADER_LEN..];
    while !rest.is_empty() {
        let [kind, attribute_len, ..] = *rest else { return Err(Refused::BadAttribute) };
        let value = rest.get(2..usize::from(attribute_len)).ok_or(Refused::BadAttribute)?;
        if kind == 40 {
            status = status_of(value);
        } else {
            attributes.learn(kind, value);
        }
        rest = &rest[usize::from(attribute_len)..];
    }
    let status = status.ok_or(Refused::NoStatus)?;
    if attributes.session_id.is_none() && !matches!(status, AcctStatus::On | AcctStatus::Off) {
        return Err(Refused::NoSessionId);
    }
    let authenticator = packet[4..HEADER_LEN].try_into().map_err(|_| Refused::Short)?;
    Ok(Request { identifier: packet[1], authenticator, status, attributes })
}

/// Request Authenticator: MD5 over code, identifier, length, sixteen zeros, attributes and secret (RFC 2866 §3).
fn verify(packet: &[u8], secret: &[u8]) -> Result<(), Refused> {
    let mut hash = Md5::new();
    hash.update(&packet[..4]);
    hash.update([0; 16]);
    hash.update(&packet[HEADER_LEN..]);
    hash.update(secret);
    let expected = hash.finalize();
    if bool::from(expected.as_slice().ct_eq(&packet[4..HEADER_LEN])) { Ok(()) } else { Err(Refused::BadAuthenticator) }
}

/// The Accounting-Response to a request; its authenticator covers the request's (RFC 2866 §3).
#[must_use]
pub fn response(identifier: u8, request_authenticator: &[u8; 16], secret: &[u8]) -> [u8; 20] {
    let mut packet = [0; HEADER_LEN];
    packet[..4].copy_from_slice(&[ACCOUNTING_RESPONSE, identifier, 0, 20]);
    let mut hash = Md5::new();
    hash.update(&packet[..4]);
    hash.update(request_authenticator);
    hash.update(secret);
    packet[4..].copy_from_slice(&hash.finalize());
    packet
}

fn status_of(value: &[u8]) -> Option<AcctStatus> {
    match number(value)? {
        1 => Some(AcctStatus::Start),
        2 => Some(AcctStatus::Stop),
        3 => Some(AcctStatus::Interim),
        7 => Some(AcctStatus::On),
        8 => Some(AcctStatus::Off),
        _ => None,
    }
}

impl Attributes {
    /// Numbers are those of the IANA registry "RADIUS Types".
    fn learn(&mut self, kind: u8, value: &[u8]) {
        match kind {
            1 => self.user_name = Some(text(value)),
            4 => self.nas_ip = self.nas_ip.or(ipv4(value)),
            5 => self.nas_port = number(value),
            8 => self.framed_ips.extend(ipv4(value).filter(|ip| is_assigned(*ip))),
            30 => self.called_station = Some(text(value)),
            31 => self.calling_station = Some(text(value)),
            32 => self.nas_identifier = Some(text(value)),
            41 => self.delay_s = number(value),
            42 => self.input_octets = number(value),
            43 => self.output_octets = number(value),
            44 => self.session_id = Some(text(value)),
            45 => self.authentic = number(value),
            46 => self.session_time_s = number(value),
            47 => self.input_packets = number(value).unwrap_or(0),
            48 => self.output_packets = number(value).unwrap_or(0),
            49 => self.terminate_cause = number(value),
            52 => self.input_gigawords = number(value).unwrap_or(0),
            53 => self.output_gigawords = number(value).unwrap_or(0),
            55 => self.event_timestamp_s = number(value),
            85 => self.interim_interval_s = number(value),
            87 => self.nas_port_id = Some(text(value)),
            89 => self.chargeable_user = Some(text(value)),
            95 => self.nas_ip = self.nas_ip.or(ipv6(value)),
            97 => self.framed_prefixes.extend(prefix(value)),
            168 => self.framed_ips.extend(ipv6(value)),
            _ => {}
        }
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

fn ipv4(value: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into())
}

fn ipv6(value: &[u8]) -> Option<IpAddr> {
    <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// RFC 2865 §5.8: all ones and all ones but one mean that the address is still to be chosen.
fn is_assigned(ip: IpAddr) -> bool {
    ip != IpAddr::from([255, 255, 255, 255]) && ip != IpAddr::from([255, 255, 255, 254]) && !ip.is_unspecified()
}

/// Framed-IPv6-Prefix: a reserved octet, the length in bits, and up to 16 octets (RFC 3162 §2.3).
fn prefix(value: &[u8]) -> Option<(IpAddr, u8)> {
    let (&[_, len], octets) = value.split_first_chunk::<2>()?;
    if len > 128 || octets.len() > 16 || octets.len() * 8 < usize::from(len) {
        return None;
    }
    let mut address = [0; 16];
    address[..octets.len()].copy_from_slice(octets);
    Some((Ipv6Addr::from(address).into(), len))
}

/// Octets as text; a backslash is doubled and what is not UTF-8 or a control character is written `\xNN`, so nothing is lost.
fn text(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => text.push(c),
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

const HEX: [&str; 16] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];

fn escape(text: &mut String, octets: &[u8]) {
    for octet in octets {
        for part in ["\\x", HEX[usize::from(octet >> 4)], HEX[usize::from(octet & 15)]] {
            text.push_str(part);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &[u8] = b"xyzzy5461";

    /// Made with Python: `head = bytes([4, 42]) + length`, the attributes as asserted below, and
    /// `hashlib.md5(head + bytes(16) + attributes + secret)` between them.
    const FROM_PYTHON: &str = "042a0027ea317a591140bd6d5cfe783bf855023b2806000000012c0630303161010762e9617d5c";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// Puts the authenticator in that fits the rest.
    fn sign(packet: &mut [u8]) {
        packet[4..20].fill(0);
        let mut hash = Md5::new();
        hash.update(&*packet);
        hash.update(SECRET);
        packet[4..20].copy_from_slice(&hash.finalize());
    }

    pub(crate) fn request(attributes: &[(u8, &[u8])]) -> Vec<u8> {
        let mut packet = vec![ACCOUNTING_REQUEST, 7, 0, 0];
        packet.extend([0; 16]);
        for (kind, value) in attributes {
            packet.extend([*kind, u8::try_from(value.len() + 2).unwrap()]);
            packet.extend(*value);
        }
        let len = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        sign(&mut packet);
        packet
    }

    pub(crate) fn parsed(attributes: &[(u8, &[u8])]) -> Request {
        parse(&request(attributes), SECRET).unwrap()
    }

    #[test]
    fn a_request_made_elsewhere_is_understood() {
        let request = parse(&hex(FROM_PYTHON), SECRET).unwrap();
        assert_eq!((request.identifier, request.status), (42, AcctStatus::Start));
        assert_eq!(request.attributes.session_id.as_deref(), Some("001a"));
        assert_eq!(request.attributes.user_name.as_deref(), Some("b\\xe9a}\\\\"), "what is not UTF-8 is escaped");
    }

    #[test]
    fn a_request_cut_or_flipped_anywhere_is_refused() {
        let whole = hex(FROM_PYTHON);
        for len in 0..whole.len() {
            assert!(parse(&whole[..len], SECRET).is_err(), "cut to {len}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&flipped, SECRET).is_err(), "bit {bit}");
        }
        assert_eq!(parse(&whole, b"other"), Err(Refused::BadAuthenticator));
        let padded = [whole, vec![0; 9]].concat();
        assert!(parse(&padded, SECRET).is_ok(), "octets beyond the length are padding");
    }

    #[test]
    fn attributes_of_length_zero_and_one_are_refused() {
        for len in [0, 1] {
            let mut packet = request(&[(40, &[0, 0, 0, 1]), (44, b"1")]);
            packet[21] = len;
            sign(&mut packet);
            assert_eq!(parse(&packet, SECRET), Err(Refused::BadAttribute));
        }
    }

    #[test]
    fn what_a_session_needs_must_be_there() {
        let status: (u8, &[u8]) = (40, &[0, 0, 0, 1]);
        assert_eq!(parse(&request(&[(44, b"1")]), SECRET), Err(Refused::NoStatus));
        assert_eq!(parse(&request(&[status]), SECRET), Err(Refused::NoSessionId));
        assert_eq!(parsed(&[(40, &[0, 0, 0, 7])]).status, AcctStatus::On);
    }

    #[test]
    fn addresses_and_prefixes_are_read() {
        let prefix = [0, 64, 0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2];
        let given: [(u8, &[u8]); 5] =
            [(40, &[0, 0, 0, 1]), (44, b"1"), (8, &[10, 0, 0, 1]), (8, &[255; 4]), (97, &prefix)];
        let attributes = parsed(&given).attributes;
        assert_eq!(attributes.framed_ips, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(attributes.framed_prefixes, [("2001:db8:1:2::".parse().unwrap(), 64)]);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(datagram in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&datagram, SECRET);
        }

        #[test]
        fn no_attributes_make_it_panic(
            values in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..30)), 0..20)
        ) {
            let attributes: Vec<(u8, &[u8])> = values.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
            let _ = parse(&request(&attributes), SECRET);
        }
    }
}
