//! Ethernet II, with up to two VLAN tags in the frame or one of them in its metadata, and PPPoE.

use hotspot_common::Outcome;

use crate::frame::Frame;

const ADDRESSES_LEN: usize = 12;
const HEADER_LEN: usize = 14;
const TAG_LEN: usize = 4;
/// With one byte of the protocol field of PPP, which may be all of it.
const PPPOE_MIN: usize = 7;
const PPPOE_LEN: usize = 8;
/// Version 1, type 1, code 0.
const PPPOE_DATA: u16 = 0x1100;

/// Values below are 802.3 lengths (IEEE 802.3 §3.2.6).
const ETHERTYPE_MIN: u16 = 0x0600;

pub(super) enum Version {
    V4,
    V6,
}

pub(super) struct Ethernet {
    /// The six bytes as they lie in memory, in the low bits.
    pub(super) source: u64,
    pub(super) destination: u64,
    /// 0 where there is none; a priority tag (identifier 0) is none.
    pub(super) vlan: u64,
    pub(super) inner_vlan: u64,
    pub(super) version: Version,
    /// Where the network header starts.
    pub(super) payload: usize,
}

#[inline(always)]
pub(super) fn parse(frame: &Frame, start: usize) -> Result<Ethernet, Outcome> {
    let Some(header) = frame.bytes::<HEADER_LEN>(start) else { return Err(Outcome::Runt) };
    let destination = mac(header.read::<u32, 0>(), header.read::<u16, 4>());
    let source = mac(header.read::<u32, 6>(), header.read::<u16, 10>());
    let mut ethertype = header.number::<ADDRESSES_LEN>();
    let mut tags = Tags::default();
    // The tag in the metadata is the outermost frame's.
    if start == 0
        && let Some(tag) = frame.metadata_tag()
    {
        tags.push(tag)?;
    }
    let mut offset = start + ADDRESSES_LEN;
    // At most two tags are kept; the third is an outcome, so three rounds see every case.
    for _ in 0..3 {
        if !is_tag(ethertype) {
            break;
        }
        let Some(tag) = frame.bytes::<TAG_LEN>(offset + 2) else { return Err(Outcome::TruncatedVlan) };
        tags.push(tag.number::<0>())?;
        ethertype = tag.number::<2>();
        offset += TAG_LEN;
    }
    let mut payload = offset + 2;
    let version = match ethertype {
        0x0800 => Version::V4,
        0x86dd => Version::V6,
        0x0806 => return Err(Outcome::Arp),
        0x888e => return Err(Outcome::Eapol),
        0x88cc => return Err(Outcome::Lldp),
        0x8864 => {
            let (version, header_len) = pppoe_session(frame, payload)?;
            payload += header_len;
            version
        }
        0x8863 => return Err(Outcome::Pppoe),
        length if length < ETHERTYPE_MIN => return Err(Outcome::Llc),
        _ => return Err(Outcome::OtherEthertype),
    };
    Ok(Ethernet {
        source,
        destination,
        vlan: tags.outer,
        inner_vlan: tags.inner,
        version,
        payload: frame.anywhere(payload),
    })
}

/// What [`parse`] leaves out of an ARP packet: who sent it, and where it starts.
pub(super) struct Arp {
    pub(super) source: u64,
    pub(super) vlan: u64,
    pub(super) inner_vlan: u64,
    pub(super) payload: usize,
}

#[inline(always)]
pub(super) fn arp(frame: &Frame, start: usize) -> Option<Arp> {
    let header = frame.bytes::<HEADER_LEN>(start)?;
    let mut ethertype = header.number::<ADDRESSES_LEN>();
    let mut tags = Tags::default();
    if start == 0
        && let Some(tag) = frame.metadata_tag()
    {
        tags.push(tag).ok()?;
    }
    let mut offset = start + ADDRESSES_LEN;
    for _ in 0..2 {
        if !is_tag(ethertype) {
            break;
        }
        let tag = frame.bytes::<TAG_LEN>(offset + 2)?;
        tags.push(tag.number::<0>()).ok()?;
        ethertype = tag.number::<2>();
        offset += TAG_LEN;
    }
    Some(Arp {
        source: mac(header.read::<u32, 6>(), header.read::<u16, 10>()),
        vlan: tags.outer,
        inner_vlan: tags.inner,
        payload: frame.anywhere(offset + 2),
    })
}

/// The ethertype behind the tags that [`parse`] passed over.
#[inline(always)]
pub(super) fn ethertype(frame: &Frame, start: usize) -> Option<u16> {
    let mut ethertype = frame.bytes::<HEADER_LEN>(start)?.number::<ADDRESSES_LEN>();
    let mut offset = start + ADDRESSES_LEN;
    for _ in 0..2 {
        if !is_tag(ethertype) {
            break;
        }
        ethertype = frame.bytes::<TAG_LEN>(offset + 2)?.number::<2>();
        offset += TAG_LEN;
    }
    Some(ethertype)
}

/// IP in a PPPoE session (RFC 2516 §4), in PPP, whose protocol field may be compressed to its last byte (RFC 1661 §2, §6.5); and
/// how long both headers are. Everything else of PPP is an outcome.
#[inline(always)]
fn pppoe_session(frame: &Frame, offset: usize) -> Result<(Version, usize), Outcome> {
    let Some(header) = frame.bytes::<PPPOE_MIN>(offset) else { return Err(Outcome::Pppoe) };
    if header.number::<0>() != PPPOE_DATA {
        return Err(Outcome::Pppoe);
    }
    match header.read::<u8, 6>() {
        0x21 => return Ok((Version::V4, PPPOE_MIN)),
        0x57 => return Ok((Version::V6, PPPOE_MIN)),
        _ => {}
    }
    let Some(header) = frame.bytes::<PPPOE_LEN>(offset) else { return Err(Outcome::Pppoe) };
    match header.number::<6>() {
        0x0021 => Ok((Version::V4, PPPOE_LEN)),
        0x0057 => Ok((Version::V6, PPPOE_LEN)),
        _ => Err(Outcome::Pppoe),
    }
}

/// 802.1Q, 802.1ad, and the ethertypes QinQ used before it.
#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100 | 0x9200)
}

#[derive(Default)]
struct Tags {
    count: u32,
    outer: u64,
    inner: u64,
}

impl Tags {
    #[inline(always)]
    fn push(&mut self, control: u16) -> Result<(), Outcome> {
        let identifier = (control & 0x0fff) as u64;
        self.count += 1;
        if self.count > 2 {
            return Err(Outcome::TooManyVlans);
        }
        if self.outer == 0 {
            self.outer = identifier;
        } else {
            self.inner = identifier;
        }
        Ok(())
    }
}

#[inline(always)]
fn mac(head: u32, tail: u16) -> u64 {
    head as u64 | (tail as u64) << 32
}
