//! Rows from the columns of a batch, of any class: what a finished file holds, and of the small classes what goes into one.

use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use arrow_array::types::{Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type};
use arrow_array::{Array, BooleanArray, RecordBatch};
use hotspot_core::MacAddr;

use super::encoding::{Kind, put_count, put_ip, put_text, put_texts};
use super::fields::{self, Field, Fields, VERSION, presence_bytes};
use super::leaves::{Leaves, shared_hash};
use super::salt::Salt;
use super::{RowsRoot, SaltKey};
use crate::layout::Class;
use crate::merkle::Hash;
use crate::segment::SegmentError;
use crate::segment::columns::{Columns, Counts, Flags, Numbers, Text, Texts};

/// A row as it is hashed.
pub(super) struct Row<'a> {
    pub(super) salt: Salt,
    pub(super) shared: &'a [u8],
    pub(super) own: &'a [u8],
    pub(super) hash: Hash,
}

/// The tree over the rows of batches.
pub(crate) struct BatchRows {
    class: Class,
    leaves: Leaves,
    shared: Vec<u8>,
    /// What `shared` was in the row before, and its hash.
    last: Option<(Vec<u8>, Hash)>,
    own: Vec<u8>,
}

impl BatchRows {
    pub(crate) fn new(class: Class, key: &SaltKey) -> Self {
        Self { class, leaves: Leaves::new(key), shared: Vec::new(), last: None, own: Vec::new() }
    }

    /// Adds the rows of a batch behind the others. `path` is where they are, for errors.
    pub(crate) fn push(&mut self, path: &Path, batch: &RecordBatch) -> Result<(), SegmentError> {
        self.each(path, batch, |_| {})
    }

    /// The same; `each` is told every row.
    pub(super) fn each(
        &mut self,
        path: &Path,
        batch: &RecordBatch,
        mut each: impl FnMut(Row<'_>),
    ) -> Result<(), SegmentError> {
        let columns = Columns { path, batch };
        let Fields { shared, own } = fields::of(self.class);
        let (shared, own) = (part(&columns, shared)?, part(&columns, own)?);
        for row in 0..batch.num_rows() {
            self.shared.clear();
            self.shared.extend([VERSION, fields::number_of(self.class)]);
            put(&shared, row, &mut self.shared)?;
            self.own.clear();
            put(&own, row, &mut self.own)?;
            let hash = match &self.last {
                Some((last, hash)) if *last == self.shared => *hash,
                Some(_) | None => {
                    let hash = shared_hash(&self.shared);
                    self.last = Some((self.shared.clone(), hash));
                    hash
                }
            };
            self.leaves.begin().extend_from_slice(&self.own);
            let (salt, hash) = self.leaves.end(&hash);
            each(Row { salt, shared: &self.shared, own: &self.own, hash });
        }
        Ok(())
    }

    pub(crate) fn finish(&self) -> RowsRoot {
        self.leaves.finish()
    }
}

/// A column of one of the types a field may have.
enum Column<'a> {
    Text(Text<'a>),
    Texts(Texts<'a>),
    Count(Counts<'a>),
    Integer(Numbers<'a, Int64Type>),
    Time(Numbers<'a, TimestampMicrosecondType>),
    Number16(Numbers<'a, UInt16Type>),
    Number8(Numbers<'a, UInt8Type>),
    Flag(Flags<'a>),
    /// A column that came later: `None` in files of before.
    FlagIfAny(Option<&'a BooleanArray>),
}

fn part<'a>(columns: &Columns<'a>, fields: &[Field]) -> Result<Vec<(Kind, Column<'a>)>, SegmentError> {
    let column = |(name, kind): &Field| {
        let column = match kind {
            // Of formats 1 and 2 they are one text.
            Kind::Texts | Kind::Words if columns.is_list(name)? => Column::Texts(columns.texts(name)?),
            Kind::Text | Kind::Texts | Kind::Words | Kind::Mac | Kind::Ip | Kind::Code(_) => {
                Column::Text(columns.text(name)?)
            }
            Kind::Count => Column::Count(columns.count(name)?),
            Kind::Integer => Column::Integer(columns.number(name)?),
            Kind::Time => Column::Time(columns.time(name)?),
            Kind::Number16 => Column::Number16(columns.number(name)?),
            Kind::Number8 => Column::Number8(columns.number(name)?),
            Kind::Flag => Column::Flag(columns.flag(name)?),
            Kind::FlagIfAny => Column::FlagIfAny(columns.flag_if_any(name)?),
        };
        Ok((*kind, column))
    };
    fields.iter().map(column).collect()
}

/// Puts one part of a row: which fields it has, then their values.
fn put(part: &[(Kind, Column<'_>)], row: usize, to: &mut Vec<u8>) -> Result<(), SegmentError> {
    let at = to.len();
    to.resize(at + presence_bytes(part.len()), 0);
    for (number, (kind, column)) in part.iter().enumerate() {
        if put_value(*kind, column, row, to)? {
            to[at + number / 8] |= 1 << (number % 8);
        }
    }
    Ok(())
}

/// Puts a value; `false` where there is none.
fn put_value(kind: Kind, column: &Column<'_>, row: usize, to: &mut Vec<u8>) -> Result<bool, SegmentError> {
    fn number<T>(value: Option<T>, put: impl FnOnce(T)) -> bool {
        value.map(put).is_some()
    }
    Ok(match column {
        Column::Text(column) => match column.get(row) {
            None => false,
            Some(text) => {
                put_as(kind, text, to).ok_or_else(|| column.unexpected(&text))?;
                true
            }
        },
        Column::Texts(column) => match column.get(row) {
            None => false,
            Some(texts) => {
                let texts: Vec<&str> = texts.collect();
                if kind == Kind::Words {
                    put_text(&texts.join(" "), to);
                } else {
                    put_texts(texts.into_iter(), to);
                }
                true
            }
        },
        Column::Count(column) => number(column.get(row), |count| put_count(count, to)),
        Column::Integer(column) => number(column.get(row), |value| to.extend(value.to_be_bytes())),
        Column::Time(column) => number(column.get(row), |micros| to.extend(micros.to_be_bytes())),
        Column::Number16(column) => number(column.get(row), |value| to.extend(value.to_be_bytes())),
        Column::Number8(column) => number(column.get(row), |value| to.push(value)),
        Column::Flag(column) => number(column.get(row), |value| to.push(u8::from(value))),
        Column::FlagIfAny(column) => {
            let value = column.filter(|column| column.is_valid(row)).map(|column| column.value(row));
            number(value, |value| to.push(u8::from(value)))
        }
    })
}

/// Puts what a column of text holds; `None` where that is no value of the kind.
fn put_as(kind: Kind, text: &str, to: &mut Vec<u8>) -> Option<()> {
    match kind {
        // What is one text in the file is a list of one.
        Kind::Texts => put_texts(std::iter::once(text), to),
        Kind::Mac => to.extend(MacAddr::from_str(text).ok()?.0),
        Kind::Ip => put_ip(IpAddr::from_str(text).ok()?, to),
        Kind::Code(labels) => to.push(u8::try_from(labels.iter().position(|label| *label == text)?).ok()?),
        Kind::Text
        | Kind::Words
        | Kind::Count
        | Kind::Integer
        | Kind::Time
        | Kind::Number16
        | Kind::Number8
        | Kind::Flag
        | Kind::FlagIfAny => {
            put_text(text, to);
        }
    }
    Some(())
}
