//! Whom a reader believes: the keys that chains begin with, known some other way than from the archive, and until when each gateway
//! is trusted.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;

use super::{ChainCheck, Remark, Severity};
use crate::layout::is_name;
use crate::manifest::to_hex;
use crate::signing::parse_public_key;

/// The last line until which a gateway is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Until {
    pub line: u64,
    /// SHA-256 of that line, where it is known: then it must be that one.
    pub hash: Option<String>,
}

/// Whom a reader believes beside the archive.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    /// The first key of each gateway. Empty: the keys that lie beside the chains are taken.
    keys: BTreeMap<String, VerifyingKey>,
    /// The one key of an archive of one gateway.
    only: Option<VerifyingKey>,
    until: BTreeMap<String, Until>,
}

/// A file of pins that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPins {
    #[error(
        "line {line} is no pin; write GATEWAY and its public key, 64 hexadecimal digits, with a blank between them"
    )]
    Line { line: usize },
    #[error("line {line} names {gateway} again")]
    Twice { line: usize, gateway: String },
    #[error("another file of pins has another key of {gateway}")]
    Contradiction { gateway: String },
    #[error("no public key is in it")]
    Empty,
}

impl Pins {
    /// Reads pins: lines of a gateway's name and its public key, or one public key alone. `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self, BadPins> {
        let mut pins = Self::default();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let lines: Vec<(usize, &str)> = (1..).zip(lines).filter(|(_, line)| !line.is_empty()).collect();
        if let [(_, line)] = lines[..]
            && let Some(key) = parse_public_key(line)
        {
            return Ok(Self { only: Some(key), ..pins });
        }
        for (line, text) in lines {
            let named = text.split_once(char::is_whitespace);
            let pin = named.and_then(|(gateway, key)| Some((gateway, parse_public_key(key.trim())?)));
            let (gateway, key) = pin.filter(|(gateway, _)| is_name(gateway)).ok_or(BadPins::Line { line })?;
            if pins.keys.insert(gateway.to_owned(), key).is_some() {
                return Err(BadPins::Twice { line, gateway: gateway.to_owned() });
            }
        }
        if pins.keys.is_empty() { Err(BadPins::Empty) } else { Ok(pins) }
    }

    /// Adds the pins of another file. `Err`: they say otherwise of a gateway.
    pub fn extend(&mut self, other: Self) -> Result<(), BadPins> {
        for (gateway, key) in other.keys {
            if self.keys.insert(gateway.clone(), key).is_some_and(|before| before != key) {
                return Err(BadPins::Contradiction { gateway });
            }
        }
        if self.only.is_some() && other.only.is_some() && self.only != other.only {
            return Err(BadPins::Contradiction { gateway: "the archive".to_owned() });
        }
        self.only = self.only.or(other.only);
        if let Some(only) = self.only
            && let Some((gateway, _)) = self.keys.iter().find(|(_, key)| **key != only)
        {
            return Err(BadPins::Contradiction { gateway: gateway.clone() });
        }
        self.until.extend(other.until);
        Ok(())
    }

    /// A gateway is trusted until a line only.
    pub fn trust_until(&mut self, gateway: &str, until: Until) {
        self.until.insert(gateway.to_owned(), until);
    }

    /// Whether keys are known some other way than from the archive.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.only.is_some() || !self.keys.is_empty()
    }

    /// The pinned key of a gateway. `Err`: keys are pinned, and none for this one.
    pub(crate) fn key_of(&self, gateway: &str) -> Result<Option<VerifyingKey>, String> {
        match self.keys.get(gateway).copied().or(self.only) {
            Some(key) => Ok(Some(key)),
            None if self.keys.is_empty() => Ok(None),
            None => Err(format!("no public key of gateway {gateway} is pinned")),
        }
    }

    /// Whether an archive has to have something of a gateway.
    pub(crate) fn names(&self, gateway: &str) -> bool {
        self.only.is_some() || self.gateways().any(|name| name == gateway)
    }

    pub(crate) fn until(&self, gateway: &str) -> Option<&Until> {
        self.until.get(gateway)
    }

    /// Gateways that are named, and that an archive has to have.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().chain(self.until.keys()).map(String::as_str)
    }

    /// Whether the line until which a gateway is trusted is in its chain.
    pub(crate) fn compare(&self, check: &ChainCheck) -> Option<Remark> {
        let until = self.until(check.gateway())?;
        let damage = |what: String| Some(Remark { line: Some(until.line), severity: Severity::Damage, what });
        match (check.hash(until.line), &until.hash) {
            // Nothing of it is trusted.
            (None, None) if until.line == 0 => None,
            (None, _) => damage(format!("is the last that is trusted, and the chain ends at line {}", check.lines())),
            (Some(found), Some(hash)) if to_hex(found) != *hash => {
                damage("is the last that is trusted, and is another one than was said".to_owned())
            }
            (Some(_), _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn pins_are_one_key_or_a_key_for_each_gateway() {
        let one = Pins::parse(&format!("{KEY}\n")).unwrap();
        assert!(one.has_keys() && one.key_of("any").unwrap().is_some());
        let many = Pins::parse(&format!("# of the fleet\ngw1 {KEY} # café\n\ngw-2\t{KEY}\n")).unwrap();
        assert!(many.key_of("gw1").unwrap().is_some() && many.key_of("gw-2").unwrap().is_some());
        assert!(many.key_of("gw3").unwrap_err().contains("gw3"));
        assert!(Pins::default().key_of("gw3").unwrap().is_none());
        let one_of_many = Pins::parse(&format!("gw1 {KEY}")).unwrap();
        assert!(one_of_many.key_of("gw2").is_err(), "a pin for one gateway says nothing of another");
    }

    #[test]
    fn what_is_no_file_of_pins_is_refused() {
        assert_eq!(Pins::parse("").unwrap_err(), BadPins::Empty);
        assert_eq!(Pins::parse("# nothing\n").unwrap_err(), BadPins::Empty);
        assert_eq!(Pins::parse(&format!("gw1 {KEY}\ngw2 {}\n", &KEY[1..])).unwrap_err(), BadPins::Line { line: 2 });
        assert_eq!(Pins::parse(&format!("../x {KEY}\n")).unwrap_err(), BadPins::Line { line: 1 });
        assert_eq!(Pins::parse(&format!("{KEY}\n{KEY}\n")).unwrap_err(), BadPins::Line { line: 1 });
        assert!(matches!(Pins::parse(&format!("g {KEY}\ng {KEY}\n")).unwrap_err(), BadPins::Twice { line: 2, .. }));
    }
}
