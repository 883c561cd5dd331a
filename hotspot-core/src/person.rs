//! Who a session is about: a person, or only a device.
//!
//! A MAC address names a device and nobody, wherever it stands. Chargeable-User-Identity (RFC 4372) tells people apart whose
//! User-Name is one outer identity for all.

use std::borrow::Cow;

use crate::MacAddr;

/// User-Name; whether there is no other identity; that.
pub(crate) type Rank<'a> = (Option<&'a str>, bool, Option<&'a str>);

/// Somebody, by the names a session gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Person<'a> {
    user: Option<&'a str>,
    chargeable: Option<&'a str>,
}

impl<'a> Person<'a> {
    /// `None` where only a device is named. `mac` is the session's device.
    pub(crate) fn new(user: Option<&'a str>, chargeable: Option<&'a str>, mac: Option<MacAddr>) -> Option<Self> {
        let name = |text: Option<&'a str>| text.filter(|text| named_device(text, mac).is_none());
        let (user, chargeable) = (name(user), name(chargeable));
        let user = user.filter(|user| chargeable != Some(*user));
        (user.is_some() || chargeable.is_some()).then_some(Self { user, chargeable })
    }

    /// Whether both may be one: names that are given to both agree. An anonymous outer identity agrees with nobody else's.
    pub(crate) fn may_be(&self, other: &Self) -> bool {
        let is_chargeable = match (self.chargeable, other.chargeable) {
            (Some(this), Some(other)) => this == other,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => !self.user.is_some_and(is_anonymous),
        };
        self.user == other.user && is_chargeable
    }

    /// An order in which those that may be one are neighbours: of one User-Name, those without another identity last.
    pub(crate) const fn rank(&self) -> Rank<'a> {
        (self.user, self.chargeable.is_none(), self.chargeable)
    }

    /// As it stands in a row: `outer@example \(chargeable)` where both are given. A backslash of a name itself is always `\\` there, so
    /// nobody who has brackets in his name is taken for two.
    pub(crate) fn name(&self) -> Cow<'a, str> {
        match (self.user, self.chargeable) {
            (Some(user), Some(chargeable)) => format!(r"{user} \({chargeable})").into(),
            (user, chargeable) => user.or(chargeable).unwrap_or_default().into(),
        }
    }
}

/// Nothing or `anonymous` before the realm (RFC 7542 §2.4).
fn is_anonymous(user: &str) -> bool {
    let name = user.split('@').next().unwrap_or_default();
    name.is_empty() || name.eq_ignore_ascii_case("anonymous")
}

/// The device a name is the address of: in any spelling, with a realm, or with `MikroTik`'s `T-` for guests on trial. Twelve decimal
/// digits alone may as well be a phone number, and are an address only where the session says so.
#[must_use]
pub fn named_device(text: &str, mac: Option<MacAddr>) -> Option<MacAddr> {
    let text = text.trim();
    let text = text.rsplit_once('\\').map_or(text, |(_, name)| name);
    let text = text.split_once('@').map_or(text, |(name, _)| name);
    let text = text.strip_prefix("T-").or_else(|| text.strip_prefix("t-")).unwrap_or(text);
    let text: Cow<'_, str> =
        if text.contains([' ', '_']) { text.replace([' ', '_'], "-").into() } else { Cow::Borrowed(text) };
    let named = text.parse::<MacAddr>().ok()?;
    let may_be_a_number = text.bytes().all(|byte| byte.is_ascii_digit());
    (!may_be_a_number || mac == Some(named)).then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x02, 0xaa, 0xbb, 0xcc, 0x13, 0x01]);

    #[test]
    fn a_mac_address_names_nobody_in_any_spelling_wherever_it_stands() {
        for text in [
            "02aabbcc1301",
            "02AABBCC1301",
            "02-AA-BB-CC-13-01",
            "02:aa:bb:cc:13:01",
            "02aa.bbcc.1301",
            "02AABB-CC1301",
            "02 aa bb cc 13 01",
            "02_aa_bb_cc_13_01",
            " 02aabbcc1301 ",
            "T-02:AA:BB:CC:13:01",
            "02-aa-bb-cc-13-01@cafe.example",
            "CAFE\\02aabbcc1301",
        ] {
            assert_eq!(named_device(text, None), Some(MAC), "{text}");
            for mac in [None, Some(MAC), Some(MacAddr([2; 6]))] {
                assert_eq!(Person::new(Some(text), None, mac), None, "{text}");
                assert_eq!(Person::new(None, Some(text), mac), None, "{text}");
                assert_eq!(Person::new(Some("ann"), Some(text), mac), Person::new(Some("ann"), None, mac), "{text}");
            }
        }
    }

    #[test]
    fn a_phone_number_of_twelve_digits_is_a_person_unless_the_device_has_it_for_an_address() {
        let number = "447911123456";
        assert!(Person::new(Some(number), None, Some(MAC)).is_some());
        assert_eq!(Person::new(Some(number), None, number.parse().ok()), None);
        for text in ["0912345678", "alice", "02aabbcc130", "02aabbcc13011", "", "deadbeef"] {
            assert_eq!(named_device(text, Some(MAC)), None, "{text}");
        }
    }

    #[test]
    fn people_behind_one_outer_identity_are_told_apart() {
        let person = |user, chargeable| Person::new(user, chargeable, None).unwrap();
        let outer = Some("anonymous@uni.example");
        let [ann, bob, nobody] = [Some("cui-ann"), Some("cui-bob"), None].map(|of| person(outer, of));
        assert!(ann.may_be(&ann) && !ann.may_be(&bob) && !ann.may_be(&nobody) && !nobody.may_be(&bob));
        let [known, said] = [None, Some("cui-ann")].map(|of| person(Some("ann@uni.example"), of));
        assert!(known.may_be(&said) && said.may_be(&known), "one access point says more than the other");
        assert!(!known.may_be(&person(Some("bob@uni.example"), None)));
        assert_eq!((ann.name(), known.name()), (r"anonymous@uni.example \(cui-ann)".into(), "ann@uni.example".into()));
        assert_eq!(person(Some("cui"), Some("cui")).name(), "cui");
    }
}
