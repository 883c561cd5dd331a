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

    /// Reads a value into the place of the one before it.
    pub(super) fn value(&mut self, value: &mut Vec<u8>) -> Result<(), IndexError> {
        let shared = self.number()? as usize;
        if shared > value.len() {
            return Err(IndexError::Damaged);
        }
        let len = self.number()? as usize;
        value.truncate(shared);
        value.extend_from_slice(self.take(len)?);
        Ok(())
    }
}
