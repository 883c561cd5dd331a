//! Columns of text in the making: each distinct value of a batch is written once, rows refer to it.
//!
//! Rows of one client lie together, so most rows repeat the value before, which costs one comparison.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, Int32Array, ListArray, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::Field;
use foldhash::fast::RandomState;
use hotspot_core::MacAddr;

use super::validity::Validity;

/// The distinct values of a batch, one behind the other.
#[derive(Debug)]
struct Values {
    text: Vec<u8>,
    ends: Vec<i32>,
}

impl Values {
    fn new() -> Self {
        Self { text: Vec::new(), ends: vec![0] }
    }

    /// Ends the value whose text was appended; its number.
    fn end(&mut self) -> i32 {
        self.ends.push(i32::try_from(self.text.len()).unwrap_or(i32::MAX));
        i32::try_from(self.ends.len()).unwrap_or(i32::MAX) - 2
    }

    /// The values; begins anew.
    fn finish(&mut self) -> ArrayRef {
        let Self { text, ends } = std::mem::replace(self, Self::new());
        // Everything appended is the text of an address or was a `str`.
        Arc::new(StringArray::new(OffsetBuffer::new(ScalarBuffer::from(ends)), Buffer::from_vec(text), None))
    }
}

/// Which value each row has.
#[derive(Debug)]
struct Keys {
    numbers: Vec<i32>,
    validity: Validity,
    /// That of the row before.
    last: Option<i32>,
}

impl Keys {
    fn new(rows: usize) -> Self {
        Self { numbers: Vec::with_capacity(rows), validity: Validity::new(rows), last: None }
    }

    #[inline]
    fn push(&mut self, key: Option<i32>) {
        self.numbers.push(key.unwrap_or(0));
        self.validity.push(key.is_some());
        self.last = key;
    }

    fn repeat(&mut self, rows: usize) {
        self.numbers.resize(self.numbers.len() + rows, self.last.unwrap_or(0));
        self.validity.repeat(self.last.is_some(), rows);
    }

    /// The column of what was pushed; begins anew.
    fn finish(&mut self, values: ArrayRef) -> ArrayRef {
        let capacity = self.numbers.capacity();
        let numbers = std::mem::replace(&mut self.numbers, Vec::with_capacity(capacity));
        let keys = Int32Array::new(ScalarBuffer::from(numbers), self.validity.finish());
        Arc::new(DictionaryArray::<Int32Type>::new(keys, values))
    }
}

/// Something that is written as text.
pub(super) trait AsText {
    /// The same value, of a type that is hashed fast.
    type Key: Eq + Hash;

    fn key(&self) -> Self::Key;
    fn append_to(&self, text: &mut Vec<u8>);
}

impl AsText for MacAddr {
    type Key = Self;

    fn key(&self) -> Self {
        *self
    }

    fn append_to(&self, text: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (position, byte) in self.0.into_iter().enumerate() {
            if position > 0 {
                text.push(b':');
            }
            text.push(DIGITS[usize::from(byte >> 4)]);
            text.push(DIGITS[usize::from(byte & 0xf)]);
        }
    }
}

impl AsText for IpAddr {
    /// `::ffff:192.0.2.1` is not `192.0.2.1`.
    type Key = (bool, u128);

    fn key(&self) -> (bool, u128) {
        match self {
            Self::V4(ip) => (false, ip.to_bits().into()),
            Self::V6(ip) => (true, ip.to_bits()),
        }
    }

    fn append_to(&self, text: &mut Vec<u8>) {
        match self {
            Self::V4(ip) => {
                for (position, byte) in ip.octets().into_iter().enumerate() {
                    if position > 0 {
                        text.push(b'.');
                    }
                    if byte >= 100 {
                        text.push(b'0' + byte / 100);
                    }
                    if byte >= 10 {
                        text.push(b'0' + byte / 10 % 10);
                    }
                    text.push(b'0' + byte % 10);
                }
            }
            // RFC 5952 has enough corners to leave it to the library.
            Self::V6(ip) => {
                use std::io::Write as _;
                // Writing to memory does not fail.
                let _ = write!(text, "{ip}");
            }
        }
    }
}

/// Text made from values of a type that is compared faster than its text.
#[derive(Debug)]
pub(super) struct TextColumn<T: AsText> {
    values: Values,
    known: HashMap<T::Key, i32, RandomState>,
    last: Option<(T, i32)>,
    keys: Keys,
}

impl<T: Copy + Eq + AsText> TextColumn<T> {
    pub(super) fn new(rows: usize) -> Self {
        Self { values: Values::new(), known: HashMap::default(), last: None, keys: Keys::new(rows) }
    }

    #[inline]
    pub(super) fn push(&mut self, value: Option<T>) {
        let Some(value) = value else { return self.keys.push(None) };
        let key = match self.last {
            Some((last, key)) if last == value => key,
            _ => {
                let values = &mut self.values;
                let key = *self.known.entry(value.key()).or_insert_with(|| {
                    value.append_to(&mut values.text);
                    values.end()
                });
                self.last = Some((value, key));
                key
            }
        };
        self.keys.push(Some(key));
    }

    /// The same value as in the row before, for so many rows.
    pub(super) fn repeat(&mut self, rows: usize) {
        self.keys.repeat(rows);
    }

    /// The column of what was pushed; begins anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        self.known.clear();
        self.last = None;
        self.keys.finish(self.values.finish())
    }
}

/// Text that is there already.
#[derive(Debug)]
pub(super) struct StrColumn {
    values: Values,
    known: HashMap<Arc<str>, i32, RandomState>,
    last: Option<i32>,
    keys: Keys,
}

impl StrColumn {
    pub(super) fn new(rows: usize) -> Self {
        Self { values: Values::new(), known: HashMap::default(), last: None, keys: Keys::new(rows) }
    }

    #[inline]
    pub(super) fn push(&mut self, value: Option<&str>) {
        let Some(value) = value else { return self.keys.push(None) };
        let key = match self.last {
            Some(last) if self.value(last) == value.as_bytes() => last,
            _ => self.find(value),
        };
        self.last = Some(key);
        self.keys.push(Some(key));
    }

    /// The same value as in the row before, for so many rows.
    pub(super) fn repeat(&mut self, rows: usize) {
        self.keys.repeat(rows);
    }

    fn value(&self, key: i32) -> &[u8] {
        let key = key.unsigned_abs() as usize;
        let bound = |position: usize| self.values.ends[position].unsigned_abs() as usize;
        &self.values.text[bound(key)..bound(key + 1)]
    }

    fn find(&mut self, value: &str) -> i32 {
        if let Some(key) = self.known.get(value) {
            return *key;
        }
        self.values.text.extend_from_slice(value.as_bytes());
        let key = self.values.end();
        self.known.insert(value.into(), key);
        key
    }

    /// The column of what was pushed; begins anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        self.known.clear();
        self.last = None;
        self.keys.finish(self.values.finish())
    }
}

/// Several texts in each row, or none, which is null.
#[derive(Debug)]
pub(super) struct ListColumn {
    items: StrColumn,
    /// Where the items of each row end.
    ends: Vec<i32>,
    validity: Validity,
}

impl ListColumn {
    pub(super) fn new(rows: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Self { items: StrColumn::new(rows), ends, validity: Validity::new(rows) }
    }

    pub(super) fn push(&mut self, items: &[String]) {
        items.iter().for_each(|item| self.items.push(Some(item)));
        self.end(!items.is_empty());
    }

    fn end(&mut self, is_valid: bool) {
        // A batch has 65 536 rows of at most 64 claimants.
        self.ends.push(i32::try_from(self.items.keys.numbers.len()).unwrap_or(i32::MAX));
        self.validity.push(is_valid);
    }

    /// The same items as in the row before, for so many rows.
    pub(super) fn repeat(&mut self, rows: usize) {
        let [.., before, last] = self.ends[..] else { return };
        let count = last - before;
        let step = |row: usize| i32::try_from(row).unwrap_or(i32::MAX).saturating_mul(count);
        self.ends.extend((1..=rows).map(|row| last.saturating_add(step(row))));
        self.validity.repeat(count > 0, rows);
        if count == 1 {
            self.items.repeat(rows);
        } else {
            let [before, last] = [before, last].map(|end| end.unsigned_abs() as usize);
            for _ in 0..rows {
                for at in before..last {
                    let key = self.items.keys.numbers[at];
                    self.items.keys.push(Some(key));
                }
            }
        }
    }

    /// The column of what was pushed; begins anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let capacity = self.ends.capacity();
        let mut ends = Vec::with_capacity(capacity);
        ends.push(0);
        let ends = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(&mut self.ends, ends)));
        let items = self.items.finish();
        let item = Arc::new(Field::new("element", items.data_type().clone(), false));
        Arc::new(ListArray::new(item, ends, items, self.validity.finish()))
    }
}

/// One of a few labels.
#[derive(Debug)]
pub(super) struct LabelColumn {
    labels: ArrayRef,
    keys: Keys,
}

impl LabelColumn {
    pub(super) fn new(rows: usize, labels: impl Iterator<Item = &'static str>) -> Self {
        Self { labels: Arc::new(labels.map(Some).collect::<StringArray>()), keys: Keys::new(rows) }
    }

    /// Appends the label at this position.
    #[inline]
    pub(super) fn push(&mut self, position: Option<usize>) {
        self.keys.push(position.map(|position| i32::try_from(position).unwrap_or(i32::MAX)));
    }

    /// The same label as in the row before, for so many rows.
    pub(super) fn repeat(&mut self, rows: usize) {
        self.keys.repeat(rows);
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        self.keys.finish(Arc::clone(&self.labels))
    }
}

/// The same text in every row.
pub(super) fn constant(text: &str, rows: usize) -> ArrayRef {
    let mut keys = Keys::new(rows);
    keys.last = Some(0);
    keys.repeat(rows);
    keys.finish(Arc::new(StringArray::from(vec![text])))
}
