//! MAC addresses, and the many ways people and servers write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An EUI-48 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Locally administered (U/L bit set): what phones use as a random address.
    #[must_use]
    pub const fn is_random(self) -> bool {
        self.0[0] & 0b10 != 0 && !self.is_group()
    }

    /// Multicast or broadcast (I/G bit set).
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it can be a device's: zeros are written by who does not know it, and a group is many.
    #[must_use]
    pub const fn is_device(self) -> bool {
        !self.is_group() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address; write twelve hexadecimal digits, with ':', '-' or '.' between groups or without")]
pub struct ParseMacError(String);

impl FromStr for MacAddr {
    type Err = ParseMacError;

    /// Accepts `02:aa:bb:cc:dd:ee`, `02-AA-BB-CC-DD-EE`, `02aa.bbcc.ddee`, `02aabbccddee` and `02AABB-CCDDEE`.
    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let error = || ParseMacError(text.to_owned());
        let separators = text.bytes().filter(|b| matches!(b, b':' | b'-' | b'.')).count();
        let digits: Vec<u8> = text
            .chars()
            .filter(|c| !matches!(c, ':' | '-' | '.'))
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or_else(error))
            .collect::<Result<_, _>>()?;
        if digits.len() != 12 || !matches!(separators, 0 | 1 | 2 | 5) {
            return Err(error());
        }
        let groups = text.split([':', '-', '.']);
        if groups.clone().any(|group| group.len() != 12 / (separators + 1)) {
            return Err(error());
        }
        let mut mac = [0; 6];
        for (byte, pair) in mac.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(mac))
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddr {
    type Error = ParseMacError;

    fn try_from(text: String) -> Result<Self, ParseMacError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_is_one_address() {
        let mac = MacAddr([0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]);
        for text in ["02:aa:bb:cc:dd:ee", "02-AA-BB-CC-DD-EE", "02aa.bbcc.ddee", "02AABBCCDDEE", "02aabb-ccddee"] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        assert_eq!(mac.to_string(), "02:aa:bb:cc:dd:ee");
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "02:aa:bb:cc:dd",
            "02:aa:bb:cc:dd:ee:ff",
            "02:aa:bb:cc:dd:eg",
            "0:2aa:bb:cc:dd:ee",
            "02aa:bbccddee",
            "é2aabbccddee",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_local_bit_marks_a_random_address() {
        assert!(MacAddr([0x02, 0, 0, 0, 0, 1]).is_random());
        assert!(!MacAddr([0x00, 0x1b, 0x21, 0, 0, 1]).is_random());
        assert!(!MacAddr([0xff; 6]).is_random());
    }
}
