//! Between columns and values: one accessor for each type a column may have.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int32Type, Int64Type, TimestampMicrosecondType, UInt64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, ListArray, PrimitiveArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field};
use hotspot_core::WallNs;

use super::SegmentError;

/// Longest list, with 4 bytes more for each item; 64 claimants of 1 012 bytes have a quarter.
const LIST_BYTES_MAX: usize = 1 << 18;
/// Longest value of a column of text; a name of a device with every byte escaped has a thousand.
const TEXT_BYTES_MAX: i32 = 1 << 16;

/// A column of text; values are written straight into the column.
pub(super) fn text<T>(rows: &[T], value: impl FnMut(&T) -> Option<String>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<StringArray>())
}

/// A column of text that is there already.
pub(super) fn str_of<'a, T>(rows: &'a [T], mut value: impl FnMut(&'a T) -> Option<&'a str>) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(rows.len(), rows.len() * 8);
    for row in rows {
        builder.append_option(value(row));
    }
    Arc::new(builder.finish())
}

/// A column of lists.
pub(super) fn lists<T, I: AsRef<str>>(rows: &[T], mut items: impl FnMut(&T) -> Vec<I>) -> ArrayRef {
    let element = Field::new("element", DataType::Utf8, false);
    let mut builder = ListBuilder::new(StringBuilder::new()).with_field(element);
    for row in rows {
        items(row).iter().for_each(|item| builder.values().append_value(item));
        builder.append(true);
    }
    Arc::new(builder.finish())
}

pub(super) fn number<P: ArrowPrimitiveType, T>(rows: &[T], value: impl FnMut(&T) -> Option<P::Native>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<PrimitiveArray<P>>())
}

/// A column of counts: signed, because not every engine has a type for more.
pub(super) fn count<T>(rows: &[T], mut value: impl FnMut(&T) -> Option<u64>) -> ArrayRef {
    number::<Int64Type, _>(rows, |row| value(row).map(|count| i64::try_from(count).unwrap_or(i64::MAX)))
}

pub(super) fn time<T>(rows: &[T], mut value: impl FnMut(&T) -> Option<WallNs>) -> ArrayRef {
    let micros = rows.iter().map(|row| value(row).map(|ns| ns.div_euclid(1000)));
    Arc::new(micros.collect::<PrimitiveArray<TimestampMicrosecondType>>().with_timezone("UTC"))
}

/// The columns of a batch that was read, by name.
pub(crate) struct Columns<'a> {
    pub(crate) path: &'a Path,
    pub(crate) batch: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    fn column(&self, column: &'static str) -> Result<&'a ArrayRef, SegmentError> {
        self.batch.column_by_name(column).ok_or_else(|| self.missing(column))
    }

    fn missing(&self, column: &'static str) -> SegmentError {
        SegmentError::Column { path: self.path.to_path_buf(), column }
    }

    pub(crate) fn text(&self, column: &'static str) -> Result<Text<'a>, SegmentError> {
        self.text_of(column, self.column(column)?)
    }

    fn text_of(&self, column: &'static str, array: &'a ArrayRef) -> Result<Text<'a>, SegmentError> {
        let (keys, values) = match array.as_dictionary_opt::<Int32Type>() {
            Some(dictionary) => (Some(dictionary.keys()), dictionary.values()),
            None => (None, array),
        };
        let values = values.as_string_opt::<i32>().ok_or_else(|| self.missing(column))?;
        let text = Text { keys, values: Some(values), column, path: self.path };
        // A short file can name a long value many times; here is where it would become many copies.
        let longest = (0..array.len()).filter_map(|row| text.place(row)).map(|at| values.value_length(at)).max();
        match longest {
            Some(longest) if longest > TEXT_BYTES_MAX => Err(text.unexpected(&format!("a value of {longest} bytes"))),
            Some(_) | None => Ok(text),
        }
    }

    /// A column of lists.
    pub(crate) fn texts(&self, column: &'static str) -> Result<Texts<'a>, SegmentError> {
        let list = self.column(column)?.as_list_opt::<i32>().ok_or_else(|| self.missing(column))?;
        let items = self.text_of(column, list.values())?;
        let texts = Texts { list, items };
        let longest = (0..list.len()).map(|row| texts.bytes(row)).max().unwrap_or(0);
        if longest > LIST_BYTES_MAX {
            return Err(texts.items.unexpected(&format!("a list of {longest} bytes")));
        }
        Ok(texts)
    }

    /// The same of a column that files of earlier formats do not have.
    pub(super) fn texts_if_any(&self, column: &'static str) -> Result<Option<Texts<'a>>, SegmentError> {
        self.batch.column_by_name(column).map(|_| self.texts(column)).transpose()
    }

    /// Whether a column is one of lists; of earlier formats none is.
    pub(crate) fn is_list(&self, column: &'static str) -> Result<bool, SegmentError> {
        Ok(matches!(self.column(column)?.data_type(), DataType::List(_)))
    }

    /// A column that files of earlier formats do not have: nothing is known there.
    pub(super) fn text_if_any(&self, column: &'static str) -> Result<Text<'a>, SegmentError> {
        if self.batch.column_by_name(column).is_none() {
            return Ok(Text { keys: None, values: None, column, path: self.path });
        }
        self.text(column)
    }

    /// The same for a column of yes and no.
    pub(crate) fn flag_if_any(&self, column: &'static str) -> Result<Option<&'a BooleanArray>, SegmentError> {
        let Some(values) = self.batch.column_by_name(column) else { return Ok(None) };
        values.as_boolean_opt().map(Some).ok_or_else(|| self.missing(column))
    }

    pub(crate) fn number<P: ArrowPrimitiveType>(&self, column: &'static str) -> Result<Numbers<'a, P>, SegmentError> {
        self.column(column)?.as_primitive_opt::<P>().map(Numbers).ok_or_else(|| self.missing(column))
    }

    /// Counts, which format 1 held without a sign.
    pub(crate) fn count(&self, column: &'static str) -> Result<Counts<'a>, SegmentError> {
        let array = self.column(column)?;
        if let Some(counts) = array.as_primitive_opt::<UInt64Type>() {
            return Ok(Counts::Unsigned(counts));
        }
        array.as_primitive_opt::<Int64Type>().map(Counts::Signed).ok_or_else(|| self.missing(column))
    }

    pub(crate) fn flag(&self, column: &'static str) -> Result<Flags<'a>, SegmentError> {
        self.column(column)?.as_boolean_opt().map(Flags).ok_or_else(|| self.missing(column))
    }

    pub(crate) fn time(&self, column: &'static str) -> Result<Numbers<'a, TimestampMicrosecondType>, SegmentError> {
        self.number(column)
    }
}

pub(crate) struct Flags<'a>(&'a BooleanArray);

impl Flags<'_> {
    pub(crate) fn get(&self, row: usize) -> Option<bool> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }
}

pub(crate) struct Numbers<'a, P: ArrowPrimitiveType>(&'a PrimitiveArray<P>);

impl<P: ArrowPrimitiveType> Numbers<'_, P> {
    pub(crate) fn get(&self, row: usize) -> Option<P::Native> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }
}

pub(crate) enum Counts<'a> {
    Unsigned(&'a PrimitiveArray<UInt64Type>),
    Signed(&'a PrimitiveArray<Int64Type>),
}

impl Counts<'_> {
    pub(crate) fn get(&self, row: usize) -> Option<u64> {
        match self {
            Self::Unsigned(counts) => counts.is_valid(row).then(|| counts.value(row)),
            Self::Signed(counts) => counts.is_valid(row).then(|| counts.value(row).unsigned_abs()),
        }
    }
}

impl Numbers<'_, TimestampMicrosecondType> {
    pub(super) fn ns(&self, row: usize) -> Option<WallNs> {
        self.get(row).map(|micros| micros.saturating_mul(1000))
    }
}

/// A column of text in which rows that follow each other mostly have the same value: what is made of it is kept for the next row.
pub(super) struct Repeating<'a, T> {
    text: Text<'a>,
    last: Option<(usize, T)>,
}

impl<'a, T: Clone> Repeating<'a, T> {
    pub(super) fn new(text: Text<'a>) -> Self {
        Self { text, last: None }
    }

    /// A row's value, as `read` makes it.
    pub(super) fn get(
        &mut self,
        row: usize,
        read: impl FnOnce(&Text<'a>, usize) -> Result<Option<T>, SegmentError>,
    ) -> Result<Option<T>, SegmentError> {
        let Some(place) = self.text.place(row) else { return Ok(None) };
        if let Some((_, value)) = self.last.as_ref().filter(|(last, _)| *last == place) {
            return Ok(Some(value.clone()));
        }
        let value = read(&self.text, row)?;
        self.last = value.clone().map(|value| (place, value));
        Ok(value)
    }

    /// The same of a column in which every row has a value.
    pub(super) fn required(
        &mut self,
        row: usize,
        read: impl FnOnce(&Text<'a>, usize) -> Result<Option<T>, SegmentError>,
    ) -> Result<T, SegmentError> {
        let value = self.get(row, read)?;
        self.text.required(value)
    }
}

/// A column of text, which is read as a dictionary.
pub(crate) struct Text<'a> {
    keys: Option<&'a PrimitiveArray<Int32Type>>,
    values: Option<&'a StringArray>,
    column: &'static str,
    path: &'a Path,
}

impl<'a> Text<'a> {
    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        self.values.zip(self.place(row)).map(|(values, at)| values.value(at))
    }

    /// The same, to be held by many.
    pub(super) fn shared(&self, row: usize) -> Option<Arc<str>> {
        self.get(row).map(Arc::from)
    }

    /// Where a row's value is among the values; `None` where the row has none.
    pub(super) fn place(&self, row: usize) -> Option<usize> {
        let at = match self.keys {
            None => row,
            Some(keys) => keys.is_valid(row).then(|| usize::try_from(keys.value(row)).ok())??,
        };
        self.values.filter(|values| values.is_valid(at)).map(|_| at)
    }

    pub(super) fn owned(&self, row: usize) -> Option<String> {
        self.get(row).map(str::to_owned)
    }

    pub(super) fn parse<T: FromStr>(&self, row: usize) -> Result<Option<T>, SegmentError> {
        self.get(row).map(|text| text.parse().map_err(|_| self.unexpected(&text))).transpose()
    }

    pub(super) fn label<T>(
        &self,
        row: usize,
        from_label: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, SegmentError> {
        self.get(row).map(|text| from_label(text).ok_or_else(|| self.unexpected(&text))).transpose()
    }

    pub(super) fn required<T>(&self, value: Option<T>) -> Result<T, SegmentError> {
        value.ok_or_else(|| self.unexpected(&"null"))
    }

    pub(crate) fn unexpected(&self, value: &impl Display) -> SegmentError {
        SegmentError::Value { path: self.path.to_path_buf(), column: self.column, value: value.to_string() }
    }
}

/// A column of lists of text.
pub(crate) struct Texts<'a> {
    list: &'a ListArray,
    items: Text<'a>,
}

impl<'a> Texts<'a> {
    /// The items of a row; `None` where it has no list.
    pub(crate) fn get(&self, row: usize) -> Option<impl Iterator<Item = &'a str>> {
        let is_valid = self.list.is_valid(row);
        is_valid.then(|| self.places(row).filter_map(|at| self.items.get(at)))
    }

    fn places(&self, row: usize) -> std::ops::Range<usize> {
        let [begin, end] = [row, row + 1].map(|at| usize::try_from(self.list.value_offsets()[at]).unwrap_or(0));
        if self.list.is_valid(row) { begin..end } else { begin..begin }
    }

    fn bytes(&self, row: usize) -> usize {
        self.places(row).map(|at| self.items.get(at).map_or(0, str::len) + 4).sum()
    }

    pub(super) fn owned(&self, row: usize) -> Vec<String> {
        self.get(row).into_iter().flatten().map(str::to_owned).collect()
    }

    /// Whether two rows name the same values.
    pub(super) fn are_same(&self, left: usize, right: usize) -> bool {
        let of = |row| self.places(row).map(|at| self.items.place(at));
        self.list.is_valid(left) == self.list.is_valid(right) && of(left).eq(of(right))
    }

    pub(super) fn parse<T>(&self, row: usize, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, SegmentError> {
        let items = self.get(row).into_iter().flatten();
        items.map(|item| parse(item).ok_or_else(|| self.items.unexpected(&item))).collect()
    }
}
