//! How values are written in a row's bytes: without types and lengths where the field says both, integers in big-endian order.

use std::net::IpAddr;

use hotspot_core::MacAddr;

use super::proof::Value;

/// How the values of a field are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Length as a count, then UTF-8.
    Text,
    /// Number of items as a count, then each as text.
    Texts,
    /// The items of a list, separated by a space, as one text; earlier files have them so.
    Words,
    /// Unsigned, in groups of 7 bits, lowest first; all bytes but the last have their highest bit set (LEB128).
    Count,
    /// 8 bytes, two's complement.
    Integer,
    /// Microseconds since 1970-01-01 UTC, as an integer.
    Time,
    /// 2 bytes.
    Number16,
    Number8,
    /// 0 or 1.
    Flag,
    /// A flag in a column that came later: files of before do not have it, which is null.
    FlagIfAny,
    /// 6 bytes.
    Mac,
    /// 4 or 16 as a byte, then so many bytes.
    Ip,
    /// A byte: the place of the label in this list.
    Code(&'static [&'static str]),
}

#[inline]
pub(super) fn put_count(mut count: u64, to: &mut Vec<u8>) {
    while count >= 0x80 {
        to.push(count.to_le_bytes()[0] | 0x80);
        count >>= 7;
    }
    to.push(count.to_le_bytes()[0]);
}

pub(super) fn put_text(text: &str, to: &mut Vec<u8>) {
    put_count(text.len() as u64, to);
    to.extend_from_slice(text.as_bytes());
}

pub(super) fn put_texts<'a>(texts: impl ExactSizeIterator<Item = &'a str>, to: &mut Vec<u8>) {
    put_count(texts.len() as u64, to);
    texts.for_each(|text| put_text(text, to));
}

#[inline]
pub(super) fn put_ip(ip: IpAddr, to: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            to.push(4);
            to.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            to.push(16);
            to.extend_from_slice(&ip.octets());
        }
    }
}

/// Reads what was put; every step is `None` where the bytes end or say what is never put.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn count(&mut self) -> Option<u64> {
        let mut count = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            count |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // One spelling of each.
                return (byte != 0 || shift == 0).then_some(count);
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.count()?).ok()?;
        std::str::from_utf8(self.bytes(len)?).ok().map(str::to_owned)
    }

    pub(super) fn value(&mut self, kind: Kind) -> Option<Value> {
        Some(match kind {
            Kind::Text | Kind::Words => Value::Text(self.text()?),
            Kind::Texts => {
                let count = self.count()?;
                Value::Texts((0..count).map(|_| self.text()).collect::<Option<_>>()?)
            }
            Kind::Count => Value::Number(i64::try_from(self.count()?).ok()?),
            Kind::Integer => Value::Number(i64::from_be_bytes(self.array()?)),
            Kind::Time => Value::Micros(i64::from_be_bytes(self.array()?)),
            Kind::Number16 => Value::Number(u16::from_be_bytes(self.array()?).into()),
            Kind::Number8 => Value::Number(self.byte()?.into()),
            Kind::Flag | Kind::FlagIfAny => Value::Flag(match self.byte()? {
                0 => false,
                1 => true,
                _ => return None,
            }),
            Kind::Mac => Value::Mac(MacAddr(self.array()?)),
            Kind::Ip => Value::Ip(match self.byte()? {
                4 => self.array::<4>()?.into(),
                16 => self.array::<16>()?.into(),
                _ => return None,
            }),
            Kind::Code(labels) => Value::Text((*labels.get(usize::from(self.byte()?))?).to_owned()),
        })
    }
}
