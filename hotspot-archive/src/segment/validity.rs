//! Which rows of a column in the making have a value.

use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};

const BITS: usize = u64::BITS as usize;

/// A bit for each row, as Arrow keeps them. Arrow's own builder looks at every row whether it has bits yet: sealing takes a twentieth longer with it.
#[derive(Debug)]
pub(super) struct Validity {
    words: Vec<u64>,
    rows: usize,
    missing: usize,
}

impl Validity {
    pub(super) fn new(rows: usize) -> Self {
        Self { words: Vec::with_capacity(rows.div_ceil(BITS)), rows: 0, missing: 0 }
    }

    #[inline]
    pub(super) fn push(&mut self, is_valid: bool) {
        let bit = self.rows % BITS;
        if bit == 0 {
            self.words.push(0);
        }
        if let Some(word) = self.words.last_mut() {
            *word |= u64::from(is_valid) << bit;
        }
        self.rows += 1;
        self.missing += usize::from(!is_valid);
    }

    /// The same for so many rows.
    pub(super) fn repeat(&mut self, is_valid: bool, rows: usize) {
        // To the end of a word, whole words, and what is left.
        let first = rows.min(self.rows.next_multiple_of(BITS) - self.rows);
        (0..first).for_each(|_| self.push(is_valid));
        let words = (rows - first) / BITS;
        self.words.resize(self.words.len() + words, if is_valid { u64::MAX } else { 0 });
        self.rows += words * BITS;
        self.missing += if is_valid { 0 } else { words * BITS };
        (0..(rows - first) % BITS).for_each(|_| self.push(is_valid));
    }

    /// The bits, where a row is without a value; begins anew.
    pub(super) fn finish(&mut self) -> Option<NullBuffer> {
        let Self { words, rows, missing } = std::mem::replace(self, Self::new(self.words.capacity() * BITS));
        let bits = || Buffer::from_vec(words.into_iter().map(u64::to_le).collect::<Vec<_>>());
        (missing > 0).then(|| NullBuffer::new(BooleanBuffer::new(bits(), 0, rows)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_that_were_pushed() {
        let mut validity = Validity::new(10);
        for (every, rows) in [(3, 1), (2, 63), (7, 64), (1, 65), (5, 1000)] {
            (0..rows).for_each(|row| validity.push(row % every == 0));
            validity.repeat(false, 3);
            validity.repeat(true, 130);
            let expected: Vec<bool> =
                (0..rows).map(|row| row % every == 0).chain([false; 3]).chain([true; 130]).collect();
            let bits = validity.finish().unwrap();
            assert_eq!(bits.iter().collect::<Vec<_>>(), expected, "{rows} rows");
        }
        validity.repeat(true, 100);
        assert_eq!(validity.finish(), None, "nothing is missing");
    }
}
