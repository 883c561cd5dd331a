//! What formats 1 and 2 held as one text, as the lists that it stands for. Nothing else knows how it was.
//!
//! Claimants were joined by `, ` where a row is ambiguous or in conflict, so a name with a comma cannot be told from two names there. Whom a
//! NAS named twice stood as `outer (chargeable)`, which cannot be told from a name with brackets.
//! Addresses, prefixes and sources were separated by a space, which is in none of them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, Int32Array, ListArray, RecordBatch, StringArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, Field, Schema};
use hotspot_core::record::Attribution;

use crate::layout::Class;

/// Of flows; a session has one user and is one.
const CLAIMANTS: [&str; 2] = ["user", "session_id"];
/// Of sessions and devices.
const WORDS: [&str; 4] = ["client_ips", "client_prefixes", "ips", "source"];
/// Says whether claimants are several.
const ATTRIBUTION: &str = "attribution";

/// The columns that must be read for these.
pub(super) fn needed(class: Class, mut columns: Vec<&'static str>) -> Vec<&'static str> {
    if class == Class::Flows
        && columns.iter().any(|column| CLAIMANTS.contains(column))
        && !columns.contains(&ATTRIBUTION)
    {
        columns.push(ATTRIBUTION);
    }
    columns
}

/// The batch with lists.
pub(super) fn as_lists(class: Class, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let attributions = batch.column_by_name(ATTRIBUTION).and_then(texts);
    let lists = |label: &str| Attribution::from_label(label).is_some_and(Attribution::lists_claimants);
    let names_several = |row| attributions.as_ref().is_some_and(|of| of.get(row).is_some_and(lists));
    let schema = batch.schema();
    let changed = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let name = field.name().as_str();
        let list = match texts(column) {
            Some(texts) if class == Class::Flows && name == "user" => Some(split(&texts, ',', names_several, user)?),
            Some(texts) if class == Class::Flows && CLAIMANTS.contains(&name) => {
                Some(split(&texts, ',', names_several, Cow::Borrowed)?)
            }
            Some(texts) if class != Class::Flows && WORDS.contains(&name) => {
                Some(split(&texts, ' ', |_| true, Cow::Borrowed)?)
            }
            Some(_) | None => None,
        };
        Ok(match list {
            None => (Arc::clone(field), Arc::clone(column)),
            Some(list) => {
                let field = field.as_ref().clone().with_data_type(list.data_type().clone());
                (Arc::new(field), Arc::new(list) as ArrayRef)
            }
        })
    });
    let (fields, columns): (Vec<_>, Vec<_>) = changed.collect::<Result<Vec<_>, ArrowError>>()?.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// A column of text as it is read.
struct Texts<'a> {
    keys: &'a Int32Array,
    values: &'a StringArray,
}

fn texts(column: &ArrayRef) -> Option<Texts<'_>> {
    let dictionary = column.as_dictionary_opt::<Int32Type>()?;
    Some(Texts { keys: dictionary.keys(), values: dictionary.values().as_string_opt()? })
}

impl<'a> Texts<'a> {
    fn get(&self, row: usize) -> Option<&'a str> {
        let key = self.keys.is_valid(row).then(|| usize::try_from(self.keys.value(row)).ok())??;
        (key < self.values.len()).then(|| self.values.value(key))
    }
}

/// A user as it is written now.
fn user(name: &str) -> Cow<'_, str> {
    match name.strip_suffix(')').and_then(|twice| twice.split_once(" (")) {
        Some((outer, chargeable)) => format!(r"{outer} \({chargeable})").into(),
        None => name.into(),
    }
}

/// Each value that occurs is split once; what is one part, and written as it is now, stays where it is.
fn split<'a>(
    column: &Texts<'a>,
    at: char,
    is_several: impl Fn(usize) -> bool,
    written: impl Fn(&'a str) -> Cow<'a, str>,
) -> Result<ListArray, ArrowError> {
    let mut parts: Vec<Cow<'_, str>> = Vec::new();
    let mut known: HashMap<(i32, bool), Vec<i32>> = HashMap::new();
    let mut keys = Vec::with_capacity(column.keys.len());
    let mut lengths = Vec::with_capacity(column.keys.len());
    for row in 0..column.keys.len() {
        let before = keys.len();
        match column.get(row) {
            None => {}
            Some(text) => {
                let (key, is_several) = (column.keys.value(row), is_several(row));
                let of_text = known.entry((key, is_several)).or_insert_with(|| {
                    let first = column.values.len() + parts.len();
                    if is_several {
                        parts.extend(text.split(at).map(str::trim).filter(|part| !part.is_empty()).map(&written));
                    } else {
                        match written(text) {
                            Cow::Borrowed(_) => return vec![key],
                            changed @ Cow::Owned(_) => parts.push(changed),
                        }
                    }
                    let numbers = first..column.values.len() + parts.len();
                    numbers.map(|number| i32::try_from(number).unwrap_or(i32::MAX)).collect()
                });
                keys.extend_from_slice(of_text);
            }
        }
        lengths.push(keys.len() - before);
    }
    let values = if parts.is_empty() {
        column.values.clone()
    } else {
        column.values.iter().map(|value| value.map(Cow::Borrowed)).chain(parts.into_iter().map(Some)).collect()
    };
    let items = DictionaryArray::<Int32Type>::try_new(Int32Array::from(keys), Arc::new(values))?;
    let item = Arc::new(Field::new("element", items.data_type().clone(), false));
    let validity = column.keys.nulls().cloned().filter(|nulls: &NullBuffer| nulls.null_count() > 0);
    ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(items), validity)
}

#[cfg(test)]
mod tests {
    use arrow_schema::DataType;

    use super::*;

    fn column(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(values.iter().copied().collect::<DictionaryArray<Int32Type>>())
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with lists that may be missing")]
    fn several(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn items(batch: &RecordBatch, name: &str) -> Vec<Option<Vec<String>>> {
        let texts = |row: ArrayRef| {
            let row = row.as_dictionary::<Int32Type>().clone();
            let values = row.values().as_string::<i32>();
            row.keys().values().iter().map(|key| values.value(usize::try_from(*key).unwrap()).to_owned()).collect()
        };
        batch.column_by_name(name).unwrap().as_list::<i32>().iter().map(|row| row.map(texts)).collect()
    }

    #[test]
    fn what_was_joined_is_split_where_several_may_stand_and_nowhere_else() {
        let users = [Some("anna, binh"), Some("anna, binh"), None, Some("a@x (b)"), Some("x,y (b),, z"), Some("")];
        let attributions = ["ambiguous", "authenticated", "ambiguous", "conflict", "conflict", "ambiguous"];
        let batch = RecordBatch::try_from_iter([
            ("attribution", column(&attributions.map(Some))),
            ("user", column(&users)),
            ("ssid", column(&users)),
        ]);
        let lists = as_lists(Class::Flows, &batch.unwrap()).unwrap();
        let expected = [
            several(&["anna", "binh"]),
            several(&["anna, binh"]),
            None,
            several(&[r"a@x \(b)"]),
            several(&["x", r"y \(b)", "z"]),
            several(&[]),
        ];
        assert_eq!(items(&lists, "user"), expected);
        assert!(matches!(lists.column_by_name("ssid").unwrap().data_type(), DataType::Dictionary(..)));
    }

    #[test]
    fn addresses_are_split_and_the_user_of_a_session_is_not() {
        let ips = ["10.0.0.1 2001:db8::1", "", "10.0.0.1", "10.0.0.1 2001:db8::1", " 10.0.0.2 "].map(Some);
        let users = [Some("anna, binh"); 5];
        let batch = RecordBatch::try_from_iter([("client_ips", column(&ips)), ("user", column(&users))]);
        let lists = as_lists(Class::Sessions, &batch.unwrap()).unwrap();
        let both = several(&["10.0.0.1", "2001:db8::1"]);
        let expected = [both.clone(), several(&[]), several(&["10.0.0.1"]), both, several(&["10.0.0.2"])];
        assert_eq!(items(&lists, "client_ips"), expected);
        assert!(matches!(lists.column_by_name("user").unwrap().data_type(), DataType::Dictionary(..)));
    }

    #[test]
    fn whoever_reads_claimants_reads_whether_they_are_several() {
        assert_eq!(needed(Class::Flows, vec!["user", "bytes_in"]), ["user", "bytes_in", "attribution"]);
        assert_eq!(needed(Class::Flows, vec!["attribution", "session_id"]), ["attribution", "session_id"]);
        assert_eq!(needed(Class::Flows, vec!["ssid"]), ["ssid"]);
    }
}
