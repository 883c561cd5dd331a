//! The packet: lengths, authenticators, and which kind it is.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use super::attributes::Attributes;

const ACCOUNTING_REQUEST: u8 = 4;
const ACCOUNTING_RESPONSE: u8 = 5;
const STATUS_SERVER: u8 = 12;
const HEADER_LEN: usize = 20;
/// RFC 2865 §3.
const LEN_MAX: usize = 4096;
const PROXY_STATE: u8 = 33;
const ACCT_STATUS_TYPE: u8 = 40;
const ACCT_DELAY_TIME: u8 = 41;
const MESSAGE_AUTHENTICATOR: u8 = 80;

/// Why a packet is refused. None of these is answered (RFC 2866 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    #[error("shorter than a RADIUS header or than its own length")]
    Short,
    #[error("its length is not between 20 and 4096")]
    BadLength,
    #[error("neither an Accounting-Request nor a Status-Server")]
    NotAccounting,
    #[error("its authenticator does not fit the secret: forged, or the secrets differ")]
    BadAuthenticator,
    #[error("its Message-Authenticator does not fit the secret: forged, or the secrets differ")]
    BadMessageAuthenticator,
    #[error("no Message-Authenticator, which is demanded")]
    NoMessageAuthenticator,
    #[error("no usable Acct-Status-Type")]
    NoStatus,
    #[error("no Acct-Session-Id")]
    NoSessionId,
}

impl Refused {
    pub const ALL: [Self; 8] = [
        Self::Short,
        Self::BadLength,
        Self::NotAccounting,
        Self::BadAuthenticator,
        Self::BadMessageAuthenticator,
        Self::NoMessageAuthenticator,
        Self::NoStatus,
        Self::NoSessionId,
    ];

    /// The name of its counter.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::BadLength => "bad_length",
            Self::NotAccounting => "not_accounting",
            Self::BadAuthenticator => "bad_authenticator",
            Self::BadMessageAuthenticator => "bad_message_authenticator",
            Self::NoMessageAuthenticator => "no_message_authenticator",
            Self::NoStatus => "no_status",
            Self::NoSessionId => "no_session_id",
        }
    }
}

/// Acct-Status-Type (40).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcctStatus {
    Start,
    Stop,
    Interim,
    On,
    Off,
    /// 15: a login that was refused, as servers forward it.
    Failed,
}

/// Whether a request must prove its origin by Message-Authenticator too; one that is there must fit in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    #[default]
    Authenticator,
    MessageAuthenticator,
}

/// A packet whose authenticators fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Accounting(Box<Request>),
    /// Somebody asks whether we are there (RFC 5997).
    StatusServer(Exchange),
}

/// What an answer needs of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub identifier: u8,
    pub authenticator: [u8; 16],
    /// Values of Proxy-State, in order.
    proxy_states: Vec<Vec<u8>>,
}

/// An Accounting-Request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub exchange: Exchange,
    pub status: AcctStatus,
    pub attributes: Attributes,
    /// Equal for two requests that say the same, whoever forwarded them and however late they are.
    pub content: [u8; 16],
}

/// Takes a packet apart and verifies that somebody who knows the secret sent it.
pub fn parse(datagram: &[u8], secret: &[u8], demand: Demand) -> Result<Packet, Refused> {
    let header = datagram.get(..HEADER_LEN).ok_or(Refused::Short)?;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if !(HEADER_LEN..=LEN_MAX).contains(&len) {
        return Err(Refused::BadLength);
    }
    // Octets beyond the length are padding (RFC 2865 §3).
    let packet = datagram.get(..len).ok_or(Refused::Short)?;
    let is_accounting = match packet[0] {
        ACCOUNTING_REQUEST => true,
        STATUS_SERVER => false,
        _ => return Err(Refused::NotAccounting),
    };
    // Nothing but lengths is read before it is known who wrote it. The authenticator of a Status-Server is random.
    if is_accounting && !bool::from(authenticator(packet, secret).ct_eq(&packet[4..HEADER_LEN])) {
        return Err(Refused::BadAuthenticator);
    }
    let attributes = || Walk { rest: &packet[HEADER_LEN..] };
    let mut proof = None;
    for (kind, value) in attributes() {
        if kind == MESSAGE_AUTHENTICATOR && proof.is_none() {
            proof = Some(value);
        }
    }
    match proof {
        Some(proof) => verify_message(packet, proof, is_accounting, secret)?,
        None if is_accounting && demand == Demand::Authenticator => {}
        None => return Err(Refused::NoMessageAuthenticator),
    }
    let exchange = Exchange {
        identifier: packet[1],
        authenticator: packet[4..HEADER_LEN].try_into().map_err(|_| Refused::Short)?,
        proxy_states: attributes().filter(|(kind, _)| *kind == PROXY_STATE).map(|(_, v)| v.to_vec()).collect(),
    };
    if is_accounting {
        Request::read(exchange, attributes()).map(Box::new).map(Packet::Accounting)
    } else {
        Ok(Packet::StatusServer(exchange))
    }
}

/// Attributes one after the other, up to what is none: a length that runs past the packet or is below 2. Whoever wrote the packet
/// knows the secret, and where the next attribute would begin is not known.
struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Walk<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let kind = *self.rest.first()?;
        let len = self.rest.get(1).copied().map_or(0, usize::from);
        let value = self.rest.get(2..len)?;
        self.rest = &self.rest[len..];
        Some((kind, value))
    }
}

/// Request Authenticator: MD5 over code, identifier, length, sixteen zeros, attributes and secret (RFC 2866 §3).
fn authenticator(packet: &[u8], secret: &[u8]) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update(&packet[..4]);
    hash.update([0; 16]);
    hash.update(&packet[HEADER_LEN..]);
    hash.update(secret);
    hash.finalize().into()
}

/// Message-Authenticator: HMAC-MD5 over the packet with zeros in its place (RFC 3579 §3.2), and in an Accounting-Request also
/// in the authenticator's, which covers it and is computed after it (as RFC 5176 §2.3 has it for requests of that kind).
fn verify_message(packet: &[u8], proof: &[u8], is_accounting: bool, secret: &[u8]) -> Result<(), Refused> {
    let at = proof.as_ptr() as usize - packet.as_ptr() as usize;
    let authenticator = if is_accounting { &[0; 16] } else { &packet[4..HEADER_LEN] };
    let mut mac = Hmac::<Md5>::new_from_slice(secret).map_err(|_| Refused::BadMessageAuthenticator)?;
    mac.update(&packet[..4]);
    mac.update(authenticator);
    mac.update(&packet[HEADER_LEN..at]);
    mac.update(&vec![0; proof.len()]);
    mac.update(&packet[at + proof.len()..]);
    mac.verify_slice(proof).map_err(|_| Refused::BadMessageAuthenticator)
}

/// Puts the authenticator into an Accounting-Request that fits the rest, as a NAS does; what is no packet stays as it is.
pub fn sign(packet: &mut [u8], secret: &[u8]) {
    if packet.len() >= HEADER_LEN {
        let authenticator = authenticator(packet, secret);
        packet[4..HEADER_LEN].copy_from_slice(&authenticator);
    }
}

impl Exchange {
    /// The Accounting-Response; its authenticator covers the request's (RFC 2866 §3), and every Proxy-State comes back in its
    /// place (RFC 2865 §5.33).
    #[must_use]
    pub fn response(&self, secret: &[u8]) -> Vec<u8> {
        let mut packet = vec![ACCOUNTING_RESPONSE, self.identifier, 0, 0];
        packet.extend(self.authenticator);
        for state in &self.proxy_states {
            packet.push(PROXY_STATE);
            // No longer than it was in the request.
            packet.push(u8::try_from(state.len() + 2).unwrap_or(u8::MAX));
            packet.extend(state);
        }
        let len = u16::try_from(packet.len()).unwrap_or(u16::MAX);
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        let mut hash = Md5::new();
        hash.update(&packet);
        hash.update(secret);
        packet[4..HEADER_LEN].copy_from_slice(&hash.finalize());
        packet
    }
}

impl Request {
    fn read(exchange: Exchange, mut read: Walk<'_>) -> Result<Self, Refused> {
        let (mut attributes, mut status, mut content) = (Attributes::default(), None, Md5::new());
        for (kind, value) in &mut read {
            if !matches!(kind, PROXY_STATE | ACCT_DELAY_TIME | MESSAGE_AUTHENTICATOR) {
                content.update([kind, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
                content.update(value);
            }
            if kind == ACCT_STATUS_TYPE {
                status = status.or(status_of(value));
            } else {
                attributes.learn(kind, value);
            }
        }
        if !read.rest.is_empty() {
            attributes.is_odd("attribute_cut");
        }
        let status = status.ok_or(Refused::NoStatus)?;
        let needs_id = matches!(status, AcctStatus::Start | AcctStatus::Stop | AcctStatus::Interim);
        if needs_id && attributes.session_id.is_none() {
            return Err(Refused::NoSessionId);
        }
        Ok(Self { exchange, status, attributes, content: content.finalize().into() })
    }
}

fn status_of(value: &[u8]) -> Option<AcctStatus> {
    match value {
        [0, 0, 0, 1] => Some(AcctStatus::Start),
        [0, 0, 0, 2] => Some(AcctStatus::Stop),
        [0, 0, 0, 3] => Some(AcctStatus::Interim),
        [0, 0, 0, 7] => Some(AcctStatus::On),
        [0, 0, 0, 8] => Some(AcctStatus::Off),
        [0, 0, 0, 15] => Some(AcctStatus::Failed),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &[u8] = b"xyzzy5461";
    const START: (u8, &[u8]) = (40, &[0, 0, 0, 1]);

    /// Made with Python: `head = bytes([4, 42]) + length`, the attributes as asserted below, and
    /// `hashlib.md5(head + bytes(16) + attributes + secret)` between them.
    const FROM_PYTHON: &str = "042a0027ea317a591140bd6d5cfe783bf855023b2806000000012c0630303161010762e9617d5c";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    pub(crate) fn packet(code: u8, attributes: &[(u8, &[u8])]) -> Vec<u8> {
        let mut packet = vec![code, 7, 0, 0];
        packet.extend([0; 16]);
        for (kind, value) in attributes {
            packet.extend([*kind, u8::try_from(value.len() + 2).unwrap()]);
            packet.extend(*value);
        }
        let len = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet
    }

    pub(crate) fn request(attributes: &[(u8, &[u8])]) -> Vec<u8> {
        let mut packet = packet(ACCOUNTING_REQUEST, attributes);
        sign(&mut packet, SECRET);
        packet
    }

    fn read(datagram: &[u8]) -> Result<Packet, Refused> {
        parse(datagram, SECRET, Demand::Authenticator)
    }

    fn accounting(datagram: &[u8]) -> Request {
        let Packet::Accounting(request) = read(datagram).unwrap() else { panic!("another kind") };
        *request
    }

    pub(crate) fn parsed(attributes: &[(u8, &[u8])]) -> Request {
        accounting(&request(attributes))
    }

    /// Puts a Message-Authenticator in where sixteen zeros wait for it at the end.
    fn prove(packet: &mut [u8]) {
        let at = packet.len() - 16;
        let mut mac = Hmac::<Md5>::new_from_slice(SECRET).unwrap();
        mac.update(packet);
        packet[at..].copy_from_slice(&mac.finalize().into_bytes());
    }

    #[test]
    fn every_reason_has_its_place() {
        for (position, reason) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position, "{}", reason.label());
        }
    }

    #[test]
    fn a_request_made_elsewhere_is_understood() {
        let request = accounting(&hex(FROM_PYTHON));
        assert_eq!((request.exchange.identifier, request.status), (42, AcctStatus::Start));
        assert_eq!(request.attributes.session_id.as_deref(), Some("001a"));
        assert_eq!(request.attributes.user_name.as_deref(), Some("b\\xe9a}\\\\"), "what is not UTF-8 is escaped");
    }

    #[test]
    fn a_request_cut_or_flipped_anywhere_is_refused() {
        let whole = hex(FROM_PYTHON);
        for len in 0..whole.len() {
            assert!(read(&whole[..len]).is_err(), "cut to {len}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit}");
        }
        assert_eq!(parse(&whole, b"other", Demand::Authenticator), Err(Refused::BadAuthenticator));
        let padded = [whole, vec![0; 9]].concat();
        assert!(read(&padded).is_ok(), "octets beyond the length are padding");
    }

    #[test]
    fn what_is_no_attribute_at_the_end_costs_itself() {
        let tail = |tail: &[u8]| {
            let mut packet = [request(&[START, (44, b"1"), (1, b"anna")]), tail.to_vec()].concat();
            packet[3] += u8::try_from(tail.len()).unwrap();
            sign(&mut packet, SECRET);
            packet
        };
        for stray in [&[44][..], &[44, 0], &[44, 1], &[31, 255, 48], &[0, 0, 0]] {
            let request = accounting(&tail(stray));
            assert_eq!(request.attributes.user_name.as_deref(), Some("anna"), "{stray:?}");
            assert_eq!(request.attributes.odd, ["attribute_cut"], "{stray:?}");
        }
        let unproved = parse(&tail(&[80, 99]), SECRET, Demand::MessageAuthenticator);
        assert_eq!(unproved, Err(Refused::NoMessageAuthenticator), "a proof that cannot be read is none");
    }

    #[test]
    fn lengths_that_lie_hide_what_is_behind_them_and_are_never_believed() {
        for len in [0, 1, 255] {
            let mut packet = request(&[START, (44, b"1")]);
            packet[21] = len;
            sign(&mut packet, SECRET);
            assert_eq!(read(&packet), Err(Refused::NoStatus), "{len}");
        }
        let mut too_long = vec![0; 5000];
        too_long[..4].copy_from_slice(&[ACCOUNTING_REQUEST, 1, 0x10, 0x01]);
        sign(&mut too_long, SECRET);
        assert_eq!(read(&too_long), Err(Refused::BadLength));
    }

    #[test]
    fn what_a_session_needs_must_be_there() {
        assert_eq!(read(&request(&[(44, b"1")])), Err(Refused::NoStatus));
        assert_eq!(read(&request(&[START])), Err(Refused::NoSessionId));
        assert_eq!(read(&request(&[START, (44, b"")])), Err(Refused::NoSessionId));
        assert_eq!(read(&request(&[(40, &[0, 0, 0, 9]), (44, b"1")])), Err(Refused::NoStatus));
        assert_eq!(parsed(&[(40, &[0, 0, 0, 7])]).status, AcctStatus::On);
        assert_eq!(parsed(&[(40, &[0, 0, 0, 15])]).status, AcctStatus::Failed);
    }

    #[test]
    fn a_message_authenticator_must_fit_where_it_is() {
        let mut proven = packet(ACCOUNTING_REQUEST, &[START, (44, b"1"), (80, &[0; 16])]);
        prove(&mut proven);
        sign(&mut proven, SECRET);
        assert!(parse(&proven, SECRET, Demand::MessageAuthenticator).is_ok());
        *proven.last_mut().unwrap() ^= 1;
        sign(&mut proven, SECRET);
        assert_eq!(read(&proven), Err(Refused::BadMessageAuthenticator));
        assert_eq!(read(&request(&[START, (44, b"1"), (80, &[0; 15])])), Err(Refused::BadMessageAuthenticator));
        let without = request(&[START, (44, b"1")]);
        assert_eq!(parse(&without, SECRET, Demand::MessageAuthenticator), Err(Refused::NoMessageAuthenticator));
    }

    #[test]
    fn a_status_server_proves_itself_by_message_authenticator_alone() {
        let mut probe = packet(STATUS_SERVER, &[(80, &[0; 16])]);
        probe[4..20].fill(0xa5);
        prove(&mut probe);
        assert!(matches!(read(&probe), Ok(Packet::StatusServer(_))));
        probe[4] ^= 1;
        assert_eq!(read(&probe), Err(Refused::BadMessageAuthenticator));
        assert_eq!(read(&packet(STATUS_SERVER, &[])), Err(Refused::NoMessageAuthenticator));
    }

    #[test]
    fn an_answer_gives_back_every_proxy_state_in_order() {
        let asked = parsed(&[(33, b"inner"), START, (44, b"1"), (33, b""), (33, b"outer")]);
        let answer = asked.exchange.response(SECRET);
        assert_eq!(answer[20..], [&[33, 7][..], b"inner", &[33, 2, 33, 7], b"outer"].concat());
        assert_eq!(usize::from(answer[3]), answer.len());
        let mut covered = answer.clone();
        covered[4..20].copy_from_slice(&asked.exchange.authenticator);
        covered.extend(SECRET);
        assert_eq!(answer[4..20], *Md5::digest(covered));
    }

    #[test]
    fn the_content_is_the_same_however_late_and_by_whomever_it_comes() {
        let first = parsed(&[START, (44, b"1"), (8, &[10, 0, 0, 1])]);
        let later = parsed(&[START, (44, b"1"), (8, &[10, 0, 0, 1]), (41, &[0, 0, 0, 9]), (33, b"proxy")]);
        assert_eq!(first.content, later.content);
        assert_ne!(first.content, parsed(&[START, (44, b"1"), (8, &[10, 0, 0, 2])]).content);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(datagram in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&datagram);
        }

        #[test]
        fn no_attributes_make_it_panic(
            values in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..30)), 0..20)
        ) {
            let attributes: Vec<(u8, &[u8])> = values.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
            let _ = read(&request(&attributes));
        }
    }
}
