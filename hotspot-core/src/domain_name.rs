//! The client's full name in DHCP (RFC 4702 §2) and `DHCPv6` (RFC 4704 §4): flags, and a name as text or in the form of DNS.
//!
//! Devices mix the two up, or leave the flags out. Whatever can be told apart is read; nothing is guessed from what is neither.

/// A name, or none, and whether it was written as its standard has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Regular(Option<Vec<u8>>),
    Odd(Option<Vec<u8>>),
}

/// Longest name on the wire (RFC 1035 §2.3.4), and longest label.
const NAME_MAX: usize = 255;
const LABEL_MAX: usize = 63;
/// The bits of flags that have a meaning; others must be ignored where they are set.
const FLAGS: u8 = 0b0000_1111;

/// Reads an option of which the name begins after `head_len` octets, the first of them flags; `is_encoded` says of them whether it is in
/// the form of DNS.
pub(crate) fn fqdn(option: &[u8], head_len: usize, is_encoded: impl Fn(u8) -> bool) -> Name {
    let Some((&flags, _)) = option.split_first() else { return Name::Odd(None) };
    // No octet of text is one of flags: the name begins where they should be.
    if flags & !FLAGS != 0 && is_text(option) {
        return Name::Odd(text(option));
    }
    let Some(name) = option.get(head_len..) else { return Name::Odd(None) };
    let dns = dns_name(name);
    match (is_encoded(flags), dns) {
        (true, Some(Ends::There(name))) => Name::Regular(name),
        (true, Some(Ends::Before(name))) => Name::Odd(name),
        (true, None) => Name::Odd(if is_text(name) { text(name) } else { None }),
        (false, Some(Ends::There(dns))) if !name.is_empty() && !is_text(name) => Name::Odd(dns),
        (false, _) if name.len() <= NAME_MAX => Name::Regular(text(name)),
        (false, _) => Name::Odd(None),
    }
}

/// Letters, digits and marks; zeros at the end are a C string's.
fn is_text(bytes: &[u8]) -> bool {
    let bytes = bytes.iter().rposition(|octet| *octet != 0).map_or(&[][..], |last| &bytes[..=last]);
    !bytes.is_empty() && bytes.len() <= NAME_MAX && bytes.iter().all(|octet| *octet >= b' ' && *octet != 0x7f)
}

fn text(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.iter().rposition(|octet| *octet != 0)? + 1;
    Some(bytes[..end].to_vec())
}

/// Whether a name ends where the option does, or before.
enum Ends {
    There(Option<Vec<u8>>),
    Before(Option<Vec<u8>>),
}

/// Labels of a domain name (RFC 1035 §3.1), joined by dots; one that is not complete ends with the option. No compression.
fn dns_name(mut wire: &[u8]) -> Option<Ends> {
    if wire.len() > NAME_MAX {
        return None;
    }
    let mut name = Vec::with_capacity(wire.len());
    let some = |name: Vec<u8>| Some(name).filter(|name| !name.is_empty());
    while let [len, rest @ ..] = wire {
        let len = usize::from(*len);
        if len == 0 {
            // The root ends the name, and nothing should follow.
            return Some(if rest.is_empty() { Ends::There(some(name)) } else { Ends::Before(some(name)) });
        }
        let label = rest.get(..len).filter(|_| len <= LABEL_MAX)?;
        if !name.is_empty() {
            name.push(b'.');
        }
        name.extend(label);
        wire = &rest[len..];
    }
    Some(Ends::There(some(name)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(option: &[u8]) -> Name {
        fqdn(option, 3, |flags| flags & 4 != 0)
    }

    #[expect(clippy::unnecessary_wraps, reason = "as `Name` holds it")]
    fn name(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn a_name_is_read_as_text_or_as_labels() {
        assert_eq!(v4(b"\0\0\0pc1.lan"), Name::Regular(name("pc1.lan")));
        assert_eq!(v4(b"\x01\0\0pc1\0"), Name::Regular(name("pc1")));
        assert_eq!(v4(b"\x04\0\0\x03pc1\x03lan\0"), Name::Regular(name("pc1.lan")));
        assert_eq!(v4(b"\x04\0\0\x03pc1"), Name::Regular(name("pc1")), "not complete");
        assert_eq!(v4(b"\x01\0\0"), Name::Regular(None), "the server is asked for a name");
        assert_eq!(fqdn(b"\0\x02pc\x03lan\0", 1, |_| true), Name::Regular(name("pc.lan")));
    }

    #[test]
    fn flags_that_mean_nothing_are_ignored() {
        assert_eq!(v4(b"\x84\0\0\x03pc1\0"), Name::Regular(name("pc1")));
    }

    #[test]
    fn a_name_without_flags_keeps_its_first_letters() {
        assert_eq!(v4(b"HTEM4-1"), Name::Odd(name("HTEM4-1")));
        assert_eq!(v4(b"device-2\0\0"), Name::Odd(name("device-2")));
        assert_eq!(v4(b"tv"), Name::Odd(name("tv")), "shorter than flags and codes");
        assert_eq!(fqdn(b"my.phone.lan", 1, |_| true), Name::Odd(name("my.phone.lan")));
    }

    #[test]
    fn text_and_labels_are_told_apart_whatever_the_flags_say() {
        assert_eq!(v4(b"\x05\0\0RP4D-printer-0123456789"), Name::Odd(name("RP4D-printer-0123456789")));
        assert_eq!(v4(b"\x07\xff\xffRP4D-printer"), Name::Odd(name("RP4D-printer")));
        assert_eq!(v4(b"\0\0\0\x03pc1\x03lan\0"), Name::Odd(name("pc1.lan")));
        assert_eq!(fqdn(b"\x01my.phone.lan", 1, |_| true), Name::Odd(name("my.phone.lan")));
    }

    #[test]
    fn what_is_neither_is_no_name() {
        for option in [&b""[..], b"\0", b"\x04\0", b"\x04\0\0\xc0\x0c", b"\x04\0\0\x7fx", b"\x04\0\0\x05a\x01"] {
            assert_eq!(v4(option), Name::Odd(None), "{option:?}");
        }
        assert_eq!(v4(&[&[0; 3][..], &[b'a'; 256]].concat()), Name::Odd(None));
        assert_eq!(
            v4(b"\x04\0\0\x02pc\0x"),
            Name::Odd(name("pc")),
            "the name is whole, what follows it is not part of it"
        );
    }

    proptest! {
        #[test]
        fn no_option_makes_it_fall_and_no_name_is_longer_than_the_option(option in prop::collection::vec(any::<u8>(), 0..300)) {
            for head_len in [1, 3] {
                let (Name::Regular(name) | Name::Odd(name)) = fqdn(&option, head_len, |flags| flags & 4 != 0);
                prop_assert!(name.is_none_or(|name| !name.is_empty() && name.len() <= option.len()));
            }
        }
    }
}
