//! Numbers and values as bytes: variable-length integers (LEB128) and values that share a beginning with the one before.

use super::IndexError;

pub(super) fn put_varint(to: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        // The lowest seven bits, with the mark that more follow.
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push((value & 0x7f) as u8);
}

/// Writes a value that follows `previous` in order.
pub(super) fn put_value(to: &mut Vec<u8>, previous: &[u8], value: &[u8]) {
    let shared = previous.iter().zip(value).take_while(|(left, right)| left == right).count();
    put_varint(to, shared as u128);
    put_varint(to, (value.len() - shared) as u128);
    to.extend_from_slice(&value[shared..]);
}

/// Reads what the functions above wrote; every length is checked against what is left.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn varint(&mut self) -> Result<u128, IndexError> {
        // Nearly all of them.
        if let [byte @ ..0x80, rest @ ..] = self.0 {
            self.0 = rest;
            return Ok(u128::from(*byte));
        }
        let mut value = 0u128;
        for shift in (0..128).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(IndexError::Damaged)?;
            self.0 = rest;
            value |= u128::from(byte & 0x7f).checked_shl(shift).ok_or(IndexError::Damaged)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(IndexError::Damaged)
    }

    pub(super) fn number(&mut self) -> Result<u32, IndexError> {
        u32::try_from(self.varint()?).map_err(|_| IndexError::Damaged)
    }

    /// Passes over so many numbers.
    pub(super) fn skip(&mut self, numbers: u64) -> Result<(), IndexError> {
        for _ in 0..numbers {
            let end = self.0.iter().position(|byte| byte & 0x80 == 0).ok_or(IndexError::Damaged)?;
            self.0 = &self.0[end + 1..];
        }
        Ok(())
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], IndexError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(IndexError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Reads the value behind another.
    pub(super) fn value_after(&mut self, mut previous: Vec<u8>) -> Result<Vec<u8>, IndexError> {
        let shared = self.number()? as usize;
        if shared > previous.len() {
            return Err(IndexError::Damaged);
        }
        let len = self.number()? as usize;
        previous.truncate(shared);
        previous.extend_from_slice(self.take(len)?);
        Ok(previous)
    }

    /// Passes over values that are less than `least`, and the ranges behind each; the first that is not, if there is one.
    ///
    /// Values in order need not be put together for that. One that shares more with the value before than that one shares
    /// with `least` is less, because it differs from `least` in the same byte; one that shares less differs in an earlier byte, and is greater.
    pub(super) fn first_from(&mut self, least: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let mut matched = 0;
        while !self.0.is_empty() {
            let shared = self.number()? as usize;
            let len = self.number()? as usize;
            let rest = self.take(len)?;
            if shared <= matched {
                let asked = &least[shared..];
                if shared < matched || rest >= asked {
                    return Ok(Some([&least[..shared], rest].concat()));
                }
                matched += rest.iter().zip(asked).take_while(|(one, other)| one == other).count();
            }
            let ranges = self.number()?;
            self.skip(u64::from(ranges) * 2)?;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_from_a_value_on_is_that_of_a_sorted_set(
            values in prop::collection::btree_set(prop::collection::vec(0u8..3, 0..6), 0..40),
            least in prop::collection::vec(0u8..3, 0..6),
        ) {
            let mut section = Vec::new();
            let mut previous: &[u8] = &[];
            for value in &values {
                put_value(&mut section, previous, value);
                // One range, of numbers that take several bytes.
                [1, 300, 70_000].into_iter().for_each(|number| put_varint(&mut section, number));
                previous = value;
            }
            let mut bytes = Bytes(&section);
            let mut read = Vec::new();
            let mut value = bytes.first_from(&least).unwrap();
            while let Some(reached) = value {
                read.push(reached.clone());
                prop_assert_eq!((bytes.number(), bytes.number(), bytes.number()), (Ok(1), Ok(300), Ok(70_000)));
                value = (!bytes.0.is_empty()).then(|| bytes.value_after(reached).unwrap());
            }
            let naive: BTreeSet<Vec<u8>> = values.range(least..).cloned().collect();
            prop_assert_eq!(read, naive.into_iter().collect::<Vec<_>>());
        }
    }
}
