//! The fields of a report's JSON: each is read by itself, and one that is not as it should be costs itself.
//!
//! Portals are written in many languages. They send names in Latin-1, halves of emoji, numbers as text and addresses in the form of
//! IPv6; none of that is a reason to lose a login. A text is taken as the bytes it had and kept in the archive's spelling
//! ([`hotspot_core::text::escaped`]); what is no value of its field is left out, and the field named. Owns how a field is read, never
//! which fields a report needs. No I/O, no clock.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hotspot_core::MacAddr;
use hotspot_core::text::escaped;
use ipnet::{IpNet, Ipv4Net};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::report::BadReport;

/// Characters of any text in a report; a byte that is no UTF-8 counts as one.
pub(super) const TEXT_CHARS_MAX: usize = 1024;
/// Addresses and prefixes of one report, each.
const ADDRESSES_MAX: usize = 64;

/// The fields of one report, taken out one after the other.
pub(super) struct Fields {
    said: BTreeMap<String, Said>,
    /// Names of those that say null, which is to say nothing.
    empty: Vec<String>,
    /// Names of those that were not as they should be; each once.
    odd: Vec<&'static str>,
}

/// What a field says.
enum Said {
    /// The bytes of a text, UTF-8 or not.
    Text(Vec<u8>),
    Other(Value),
}

impl Fields {
    /// Reads an object; a field that says null is none.
    pub(super) fn read(json: &[u8]) -> Result<Self, BadReport> {
        let bad = |error: serde_json::Error| BadReport::Json(error.to_string());
        // The first reading finds what is text; where text ends does not depend on bytes beyond ASCII and on escapes.
        let shape: Map<String, Value> = serde_json::from_slice(&readable(json)).map_err(bad)?;
        let mut from = serde_json::Deserializer::from_slice(json);
        let said = Shape(&shape).deserialize(&mut from).map_err(bad)?;
        let empty = shape.into_iter().filter(|(_, value)| value.is_null()).map(|(name, _)| name).collect();
        Ok(Self { said, empty, odd: Vec::new() })
    }

    /// Ends the reading: the odd fields, or an error that names a field nobody knows.
    pub(super) fn end(self, known: &[&str]) -> Result<Vec<&'static str>, BadReport> {
        let empty = self.empty.into_iter().filter(|name| !known.contains(&name.as_str()));
        match self.said.into_keys().chain(empty).next() {
            Some(unknown) => Err(BadReport::Json(format!(
                "unknown field `{}`; there are {}",
                escaped(unknown.as_bytes()),
                known.join(", ")
            ))),
            None => Ok(self.odd),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.said.contains_key(name)
    }

    /// Names a field that is not as it should be; gives what is taken instead.
    pub(super) fn is_odd<T>(&mut self, name: &'static str, instead: T) -> T {
        if !self.odd.contains(&name) {
            self.odd.push(name);
        }
        instead
    }

    /// The value of a field, as `read` reads it; without the field nothing, and nothing odd.
    pub(super) fn value<T>(&mut self, name: &'static str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = self.bytes(name)?;
        let read = std::str::from_utf8(&value).ok().map(str::trim).and_then(read);
        if read.is_none() { self.is_odd(name, None) } else { read }
    }

    /// A text in the archive's spelling. Zeros at its end are a C string's, and an empty one says nothing.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.text_of(name, TEXT_CHARS_MAX)
    }

    pub(super) fn text_of(&mut self, name: &'static str, chars_max: usize) -> Option<String> {
        let bytes = self.bytes(name)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return None;
        }
        let text = spelled(&bytes, chars_max);
        if text.is_none() { self.is_odd(name, None) } else { text }
    }

    pub(super) fn mac(&mut self, name: &'static str) -> Option<MacAddr> {
        self.value(name, |text| text.parse().ok())
    }

    /// A number, or its digits as text.
    pub(super) fn number<T: std::str::FromStr>(&mut self, name: &'static str) -> Option<T> {
        self.value(name, |text| text.parse().ok())
    }

    /// A time as it was written, read by whoever knows the clock. It is never left out: the report would be of another moment.
    pub(super) fn time(&mut self, name: &'static str) -> Option<String> {
        match self.said.remove(name)? {
            Said::Text(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Said::Other(other) => Some(other.to_string()),
        }
    }

    /// Addresses that a client can have; the others of the list are left out.
    pub(super) fn ips(&mut self, name: &'static str) -> Vec<IpAddr> {
        self.list(name, |text| {
            let ip = text.parse::<IpAddr>().ok()?.to_canonical();
            let is_broadcast = ip == IpAddr::from([255; 4]);
            (!ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback() && !is_broadcast).then_some(ip)
        })
    }

    /// Prefixes of clients; one of no bits would be everybody.
    pub(super) fn prefixes(&mut self, name: &'static str) -> Vec<(IpAddr, u8)> {
        self.list(name, |text| {
            let net = canonical(text.parse().ok()?)?;
            (net.prefix_len() > 0).then(|| (net.network(), net.prefix_len()))
        })
    }

    fn list<T>(&mut self, name: &'static str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let items = match self.said.remove(name) {
            None => return Vec::new(),
            Some(Said::Other(Value::Array(items))) => items,
            // One that is no list is a list of one.
            Some(Said::Text(text)) => self.is_odd(name, vec![String::from_utf8_lossy(&text).into()]),
            Some(Said::Other(_)) => return self.is_odd(name, Vec::new()),
        };
        let (total, mut found) = (items.len(), Vec::new());
        found.extend(items.iter().filter_map(|item| item.as_str().map(str::trim).and_then(&read)).take(ADDRESSES_MAX));
        if found.len() < total { self.is_odd(name, found) } else { found }
    }

    /// Counts by name. A sum of which a part cannot be read is none: it would say too little.
    pub(super) fn counts<const N: usize>(&mut self, name: &'static str, names: [&str; N]) -> Option<[u64; N]> {
        let counts = match self.said.remove(name)? {
            Said::Other(Value::Object(counts)) => counts,
            Said::Text(_) | Said::Other(_) => return self.is_odd(name, None),
        };
        let mut read = [0; N];
        for (count, name) in read.iter_mut().zip(names) {
            match counts.get(name) {
                None | Some(Value::Null) => {}
                Some(said) => match said.as_u64().or_else(|| said.as_str()?.trim().parse().ok()) {
                    Some(said) => *count = said,
                    None => return self.is_odd("counters", None),
                },
            }
        }
        if counts.keys().any(|key| !names.contains(&&**key)) {
            return self.is_odd(name, None);
        }
        Some(read)
    }

    /// The bytes of a text, or the digits of a number; anything else is odd.
    fn bytes(&mut self, name: &'static str) -> Option<Vec<u8>> {
        match self.said.remove(name)? {
            Said::Text(bytes) => Some(bytes),
            Said::Other(Value::Number(number)) => Some(number.to_string().into_bytes()),
            Said::Other(_) => self.is_odd(name, None),
        }
    }
}

/// Bytes in the archive's spelling; `None` where they are none but zeros, or more characters than that.
pub(super) fn spelled(bytes: &[u8], chars_max: usize) -> Option<String> {
    let bytes = &bytes[..=bytes.iter().rposition(|byte| *byte != 0)?];
    let chars: usize = bytes.utf8_chunks().map(|chunk| chunk.valid().chars().count() + chunk.invalid().len()).sum();
    (chars <= chars_max).then(|| escaped(bytes))
}

/// A network of IPv4 addresses in the form of IPv6 is that of IPv4.
fn canonical(net: IpNet) -> Option<IpNet> {
    const MAPPED_BITS: u8 = 96;
    match (net, net.network().to_canonical()) {
        (IpNet::V6(net), IpAddr::V4(ip)) if net.prefix_len() >= MAPPED_BITS => {
            Some(Ipv4Net::new(ip, net.prefix_len() - MAPPED_BITS).ok()?.trunc().into())
        }
        _ => Some(net.trunc()),
    }
}

/// JSON of the same shape that any reader takes: control characters become blanks, and what is no UTF-8, or half of a pair in escapes
/// (`\ud83d`), becomes U+FFFD.
fn readable(json: &[u8]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(json).into_owned().into_bytes();
    for at in 0..text.len() {
        if text[at] < b' ' {
            text[at] = b' ';
        }
        let Some([b'\\', b'u', b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]) = text.get(at..at + 6) else {
            continue;
        };
        text[at + 2..at + 6].copy_from_slice(b"fffd");
    }
    text
}

/// Reads an object again, whose fields are of these kinds.
struct Shape<'a>(&'a Map<String, Value>);

impl<'de> DeserializeSeed<'de> for Shape<'_> {
    type Value = BTreeMap<String, Said>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Shape<'_> {
    type Value = BTreeMap<String, Said>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut said = BTreeMap::new();
        while let Some(name) = fields.next_key::<String>()? {
            let value = match self.0.get(&name) {
                Some(Value::String(_)) => Some(Said::Text(fields.next_value::<Bytes>()?.0)),
                Some(Value::Null) => fields.next_value::<()>().map(|()| None)?,
                // Of what is no text, the first reading has all.
                Some(other) => {
                    fields.next_value::<serde::de::IgnoredAny>()?;
                    Some(Said::Other(other.clone()))
                }
                None => return Err(A::Error::custom("a field's name is no text")),
            };
            if let Some(value) = value {
                said.insert(name, value);
            }
        }
        Ok(said)
    }
}

/// The bytes of a text: JSON by its letter would not hold them.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Bytes;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("one value of the field")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                self.visit_bytes(text.as_bytes())
            }
        }
        from.deserialize_bytes(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &[u8]) -> Fields {
        Fields::read(json).unwrap()
    }

    #[test]
    fn a_text_is_kept_whatever_its_bytes() {
        for (json, kept) in [
            (&b"{\"user\":\"Ren\xe9\"}"[..], "Ren\\xe9"),
            (b"{\"user\":\"a\xc2\x85b\"}", "a\\u{85}b"),
            (b"{\"user\":\"a\\u0085b\\u001b[2J\"}", "a\\u{85}b\\x1b[2J"),
            (b"{\"user\":\"CORP\\\\anna\"}", "CORP\\\\anna"),
            // A control character as it is, which JSON by its letter has as an escape.
            (b"{\"user\":\"a\x1b\tb\"}", "a\\x1b\\x09b"),
            // Half an emoji, as text cut in JavaScript ends; its bytes by WTF-8.
            (b"{\"user\":\"Lan\\ud83d\"}", "Lan\\xed\\xa0\\xbd"),
            (b"{\"user\":\"\\ud83d\\ude00\"}", "\u{1f600}"),
            // An escaped backslash before what only looks like an escape.
            (b"{\"user\":\"\\\\ud83d\"}", "\\\\ud83d"),
            (b"{\"user\":\"anna\\u0000\\u0000\"}", "anna"),
            (b"{\"user\":84912345678}", "84912345678"),
        ] {
            let mut fields = fields(json);
            assert_eq!(fields.text("user").as_deref(), Some(kept), "{}", String::from_utf8_lossy(json));
            assert_eq!(fields.end(&[]), Ok(vec![]));
        }
    }

    #[test]
    fn a_field_that_says_nothing_is_none_and_nothing_odd() {
        for json in [&b"{}"[..], b"{\"user\":null}", b"{\"user\":\"\"}", b"{\"user\":\"\\u0000\"}"] {
            let mut fields = fields(json);
            assert_eq!(fields.text("user"), None);
            assert_eq!(fields.end(&["user"]), Ok(vec![]));
        }
        assert!(
            fields(b"{\"usr\":null}").end(&["user"]).is_err(),
            "a field that nobody knows says so, whatever it says"
        );
    }

    #[test]
    fn what_is_no_value_of_its_field_is_left_out_and_named() {
        let long = format!("\"{}\"", "x".repeat(TEXT_CHARS_MAX + 1));
        for (value, field) in [
            ("true", "user"),
            ("{}", "user"),
            ("[]", "user"),
            (&*long, "user"),
            ("\"hotspot1\"", "mac"),
            ("\"Ren\u{e9}\"", "mac"),
            ("7", "mac"),
            ("-1", "interim_interval_s"),
            ("1.5", "interim_interval_s"),
            ("4294967296", "interim_interval_s"),
            ("\"5m\"", "interim_interval_s"),
            ("[]", "counters"),
            ("{\"bytes_in\":-1}", "counters"),
            ("{\"bytes_on\":1}", "counters"),
        ] {
            let mut fields = fields(format!("{{\"{field}\":{value},\"nas\":\"p\"}}").as_bytes());
            assert_eq!((fields.text("user"), fields.mac("mac")), (None, None), "{value}");
            assert_eq!(fields.number::<u32>("interim_interval_s"), None, "{value}");
            assert_eq!(fields.counts("counters", ["bytes_in"]), None, "{value}");
            assert_eq!(fields.text("nas").as_deref(), Some("p"), "the other field stands");
            assert_eq!(fields.end(&[]), Ok(vec![field]), "{value}");
        }
    }

    #[test]
    fn an_address_is_read_in_the_form_flows_have_it_and_one_that_is_none_costs_itself() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (json, ips, is_odd) in [
            ("[\"::ffff:10.20.0.9\"]", vec![ip("10.20.0.9")], false),
            ("[\" 10.20.0.9\",\"2001:db8::9\"]", vec![ip("10.20.0.9"), ip("2001:db8::9")], false),
            ("[\"10.20.0.9\",\"10.20.0\",\"\",7,null]", vec![ip("10.20.0.9")], true),
            ("[\"0.0.0.0\",\"::\",\"ff02::1\",\"255.255.255.255\",\"127.0.0.1\"]", vec![], true),
            ("\"10.20.0.9\"", vec![ip("10.20.0.9")], true),
            ("7", vec![], true),
        ] {
            let mut fields = fields(format!("{{\"ips\":{json}}}").as_bytes());
            assert_eq!(fields.ips("ips"), ips, "{json}");
            assert_eq!(fields.end(&[]).unwrap().len(), usize::from(is_odd), "{json}");
        }
        let mut many = fields(format!("{{\"ips\":[{}]}}", vec!["\"10.0.0.1\""; 65].join(",")).as_bytes());
        assert_eq!((many.ips("ips").len(), many.end(&[])), (64, Ok(vec!["ips"])));
    }

    #[test]
    fn a_prefix_of_ipv4_in_the_form_of_ipv6_is_that_of_ipv4() {
        let mut fields = fields(b"{\"p\":[\"::ffff:10.0.0.9/120\",\"2001:db8:1::7/64\",\"::/0\",\"10.0.0.0/33\"]}");
        let expected = [("10.0.0.0".parse().unwrap(), 24), ("2001:db8:1::".parse().unwrap(), 64)];
        assert_eq!(fields.prefixes("p"), expected);
        assert_eq!(fields.end(&[]), Ok(vec!["p"]));
    }

    #[test]
    fn digits_are_a_number_however_they_are_written() {
        let mut fields = fields(b"{\"a\":300,\"b\":\"300\",\"c\":{\"in\":7,\"out\":\"9\",\"x\":null}}");
        assert_eq!((fields.number::<u32>("a"), fields.number::<u32>("b")), (Some(300), Some(300)));
        assert_eq!(fields.counts("c", ["in", "out", "x"]), Some([7, 9, 0]));
        assert_eq!(fields.end(&[]), Ok(vec![]));
    }

    #[test]
    fn only_what_is_no_object_or_names_an_unknown_field_is_refused() {
        for bad in [&b"{"[..], b"[]", b"\"a\"", b"{\"user\":\"a}", b"{\"a\":1} x", b"\xff"] {
            assert!(matches!(Fields::read(bad), Err(BadReport::Json(_))), "{}", String::from_utf8_lossy(bad));
        }
        let refused = fields(b"{\"usr\":\"a\"}").end(&["user", "mac"]);
        assert_eq!(refused, Err(BadReport::Json("unknown field `usr`; there are user, mac".into())));
    }
}
