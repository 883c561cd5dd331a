//! A filter over columns: which rows of a batch match, many at a time. Says the same as [`Filter::matches`] row by row.

use std::net::IpAddr;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BooleanArray, ListArray, PrimitiveArray, RecordBatch, StringArray};
use arrow_buffer::{BooleanBuffer, ScalarBuffer};
use arrow_schema::ArrowError;
use hotspot_core::WallNs;

use super::Interval;
use crate::filter::{Filter, NumberField, Side, TextField, duration_ns, is_at, names};
use crate::segment::{Origin, Predicate};

/// What a row must be: in the interval, and as the filter says.
pub(super) struct Mask {
    pub(super) filter: Filter,
    /// `None` where every row of the segment lies in it.
    pub(super) interval: Option<Interval>,
    pub(super) origin: Origin,
}

impl Predicate for Mask {
    fn columns(&self) -> Vec<&'static str> {
        let mut columns = Vec::new();
        columns_of(&self.filter, &mut columns);
        if self.interval.is_some() {
            columns.extend(["start", "end"]);
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    fn keep(&self, batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let rows = Batch { batch, origin: &self.origin };
        let mut mask = rows.filter(&self.filter)?;
        if let Some(interval) = self.interval {
            mask = &mask & &rows.times(|start_ns, end_ns| interval.touches(start_ns, end_ns))?;
        }
        Ok(BooleanArray::new(mask, None))
    }
}

fn columns_of(filter: &Filter, columns: &mut Vec<&'static str>) {
    match filter {
        Filter::Everything | Filter::Text(TextField::Site | TextField::Gateway, _) => {}
        Filter::Text(field, _) => columns.push(field.column()),
        Filter::Mac(_) => columns.push("client_mac"),
        Filter::Ip(side, _) | Filter::Net(side, _) => columns.extend(address_columns(*side)),
        Filter::Port(side, _) => columns.extend(port_columns(*side)),
        Filter::Protocol(_) => columns.push("protocol"),
        Filter::IsV4(_) => columns.push("client_ip"),
        Filter::Public(_, None) => columns.extend(["public_ip", "client_ip"]),
        Filter::Public(_, Some(_)) => columns.extend(["public_ip", "public_port", "client_ip", "client_port"]),
        Filter::Vlan(_) => columns.extend(["vlan", "inner_vlan"]),
        Filter::Number(_, NumberField::Duration, ..) | Filter::At { .. } => columns.extend(["start", "end"]),
        Filter::Number(side, field, ..) => columns.extend(count_columns(*side, *field)),
        Filter::All(parts) | Filter::Any(parts) => parts.iter().for_each(|part| columns_of(part, columns)),
        Filter::Not(inner) => columns_of(inner, columns),
    }
}

fn address_columns(side: Side) -> &'static [&'static str] {
    match side {
        Side::Source => &["client_ip", "public_ip"],
        Side::Destination => &["peer_ip"],
        Side::Either => &["client_ip", "public_ip", "peer_ip"],
    }
}

fn port_columns(side: Side) -> &'static [&'static str] {
    match side {
        Side::Source => &["client_port", "public_port"],
        Side::Destination => &["peer_port"],
        Side::Either => &["client_port", "public_port", "peer_port"],
    }
}

fn count_columns(side: Side, field: NumberField) -> &'static [&'static str] {
    match (field, side) {
        (NumberField::Bytes, Side::Source) => &["bytes_out"],
        (NumberField::Bytes, Side::Destination) => &["bytes_in"],
        (NumberField::Bytes, Side::Either) => &["bytes_out", "bytes_in"],
        (NumberField::Packets, Side::Source) => &["packets_out"],
        (NumberField::Packets, Side::Destination) => &["packets_in"],
        (NumberField::Packets, Side::Either) => &["packets_out", "packets_in"],
        (NumberField::Duration, _) => &[],
    }
}

/// A column that is not as it should be.
fn wrong(column: &str) -> ArrowError {
    ArrowError::SchemaError(format!("column {column} is missing or of another type"))
}

struct Batch<'a> {
    batch: &'a RecordBatch,
    origin: &'a Origin,
}

impl Batch<'_> {
    fn len(&self) -> usize {
        self.batch.num_rows()
    }

    fn filter(&self, filter: &Filter) -> Result<BooleanBuffer, ArrowError> {
        match filter {
            Filter::Everything => Ok(BooleanBuffer::new_set(self.len())),
            Filter::Text(TextField::User, pattern) => {
                self.items("user", |user| names(user).any(|name| pattern.matches(name)))
            }
            Filter::Text(TextField::Session, pattern) => self.items("session_id", |id| pattern.matches(id)),
            Filter::Text(TextField::Site, pattern) => Ok(self.constant(pattern.matches(&self.origin.site))),
            Filter::Text(TextField::Gateway, pattern) => Ok(self.constant(pattern.matches(&self.origin.gateway))),
            Filter::Text(field, pattern) => self.text(field.column(), |text| field.matches(pattern, text)),
            Filter::Mac(mac) => self.is_text("client_mac", &mac.to_string()),
            Filter::Ip(side, ip) => {
                let ip = ip.to_string();
                self.any_of(address_columns(*side), |rows, column| rows.is_text(column, &ip))
            }
            Filter::Net(side, net) => self.any_of(address_columns(*side), |rows, column| {
                rows.text(column, |text| text.parse::<IpAddr>().is_ok_and(|ip| net.contains(&ip)))
            }),
            Filter::Port(side, asked) => self.any_of(port_columns(*side), |rows, column| {
                rows.number::<UInt16Type>(column, |port| asked.contains(&port))
            }),
            Filter::Protocol(asked) => self.number::<UInt8Type>("protocol", |protocol| protocol == *asked),
            Filter::IsV4(is_v4) => self.text("client_ip", |ip| ip.contains(':') != *is_v4),
            Filter::Public(ip, port) => self.public(*ip, *port),
            Filter::Vlan(asked) => self.any_of(&["vlan", "inner_vlan"], |rows, column| {
                rows.number::<UInt16Type>(column, |vlan| vlan == *asked)
            }),
            Filter::Number(_, NumberField::Duration, compare, asked) => {
                self.times(|start_ns, end_ns| compare.holds(duration_ns(start_ns, end_ns), *asked))
            }
            Filter::Number(side, field, compare, asked) => {
                let columns = count_columns(*side, *field)
                    .iter()
                    .map(|column| count_column(self.batch, column))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(BooleanBuffer::collect_bool(self.len(), |row| {
                    let sum = columns.iter().fold(0u64, |sum, column| sum.saturating_add(column[row]));
                    compare.holds(sum, *asked)
                }))
            }
            Filter::At { when, within_ns } => self.times(|start_ns, end_ns| is_at(start_ns, end_ns, *when, *within_ns)),
            Filter::All(parts) => {
                parts.iter().try_fold(self.constant(true), |mask, part| Ok(&mask & &self.filter(part)?))
            }
            Filter::Any(parts) => {
                parts.iter().try_fold(self.constant(false), |mask, part| Ok(&mask | &self.filter(part)?))
            }
            Filter::Not(inner) => Ok(!&self.filter(inner)?),
        }
    }

    fn constant(&self, value: bool) -> BooleanBuffer {
        if value { BooleanBuffer::new_set(self.len()) } else { BooleanBuffer::new_unset(self.len()) }
    }

    fn any_of(
        &self,
        columns: &[&'static str],
        test: impl Fn(&Self, &'static str) -> Result<BooleanBuffer, ArrowError>,
    ) -> Result<BooleanBuffer, ArrowError> {
        columns.iter().try_fold(self.constant(false), |mask, column| Ok(&mask | &test(self, column)?))
    }

    /// The address a client was known by, and its port: the translated one, or else its own.
    fn public(&self, ip: IpAddr, port: Option<u16>) -> Result<BooleanBuffer, ArrowError> {
        let text = ip.to_string();
        let is_translated = self.text("public_ip", |_| true)?;
        let (mut public, mut own) = (self.is_text("public_ip", &text)?, self.is_text("client_ip", &text)?);
        if let Some(port) = port {
            public = &public & &self.number::<UInt16Type>("public_port", |found| found == port)?;
            own = &own & &self.number::<UInt16Type>("client_port", |found| found == port)?;
        }
        Ok(&public | &(&own & &!&is_translated))
    }

    /// Rows in whose list an item passes. Items are looked at once for each value that occurs, like texts.
    fn items(&self, column: &str, test: impl Fn(&str) -> bool) -> Result<BooleanBuffer, ArrowError> {
        let (list, keys, values) = list_column(self.batch, column)?;
        let is_item = if values.len() > keys.len() { by_key(keys, values, test) } else { by_value(keys, values, test) };
        if is_item.count_set_bits() == 0 {
            return Ok(self.constant(false));
        }
        let offsets = list.value_offsets();
        let ends = |row: usize| [offsets[row], offsets[row + 1]].map(|end| usize::try_from(end).unwrap_or(0));
        Ok(BooleanBuffer::collect_bool(self.len(), |row| {
            let [begin, end] = ends(row);
            list.is_valid(row) && (begin..end).any(|item| is_item.value(item))
        }))
    }

    fn is_text(&self, column: &str, asked: &str) -> Result<BooleanBuffer, ArrowError> {
        self.text(column, |text| text == asked)
    }

    /// Tests each value that occurs once, then looks rows up.
    fn text(&self, column: &str, test: impl Fn(&str) -> bool) -> Result<BooleanBuffer, ArrowError> {
        let (keys, values) = text_column(self.batch, column)?;
        Ok(if values.len() > self.len() { by_key(keys, values, test) } else { by_value(keys, values, test) })
    }

    fn column<P: ArrowPrimitiveType>(&self, column: &str) -> Result<&PrimitiveArray<P>, ArrowError> {
        number_column(self.batch, column)
    }

    fn number<P: ArrowPrimitiveType>(
        &self,
        column: &str,
        test: impl Fn(P::Native) -> bool,
    ) -> Result<BooleanBuffer, ArrowError> {
        let column = self.column::<P>(column)?;
        Ok(BooleanBuffer::collect_bool(self.len(), |row| value(column, row).is_some_and(&test)))
    }

    fn times(&self, test: impl Fn(WallNs, WallNs) -> bool) -> Result<BooleanBuffer, ArrowError> {
        let (start, end) =
            (self.column::<TimestampMicrosecondType>("start")?, self.column::<TimestampMicrosecondType>("end")?);
        let ns = |column, row| value::<TimestampMicrosecondType>(column, row).unwrap_or(0).saturating_mul(1000);
        Ok(BooleanBuffer::collect_bool(self.len(), |row| test(ns(start, row), ns(end, row))))
    }
}

/// Which keys name a value that passes; each value is looked at once.
fn by_value(keys: &Keys, values: &StringArray, test: impl Fn(&str) -> bool) -> BooleanBuffer {
    let is_match: Vec<bool> = values.iter().map(|value| value.is_some_and(&test)).collect();
    if !is_match.contains(&true) {
        return BooleanBuffer::new_unset(keys.len());
    }
    BooleanBuffer::collect_bool(keys.len(), |row| {
        keys.is_valid(row) && usize::try_from(keys.value(row)).is_ok_and(|key| is_match.get(key) == Some(&true))
    })
}

/// The same where the dictionary of a row group has more values than there are keys: only those that keys name, each run of keys once.
fn by_key(keys: &Keys, values: &StringArray, test: impl Fn(&str) -> bool) -> BooleanBuffer {
    let (mut last, mut is_match) = (-1, false);
    BooleanBuffer::collect_bool(keys.len(), |row| {
        let Some(key) = value(keys, row) else { return false };
        if key != last {
            let found = usize::try_from(key).ok().filter(|key| *key < values.len() && values.is_valid(*key));
            (last, is_match) = (key, found.is_some_and(|key| test(values.value(key))));
        }
        is_match
    })
}

fn value<P: ArrowPrimitiveType>(column: &PrimitiveArray<P>, row: usize) -> Option<P::Native> {
    column.is_valid(row).then(|| column.value(row))
}

/// Which value of a dictionary each row has.
type Keys = PrimitiveArray<Int32Type>;

/// Keys and values of a column of text.
pub(super) fn text_column<'a>(batch: &'a RecordBatch, column: &str) -> Result<(&'a Keys, &'a StringArray), ArrowError> {
    batch.column_by_name(column).and_then(dictionary).ok_or_else(|| wrong(column))
}

/// A column of lists, and the keys and values of its items.
pub(super) fn list_column<'a>(
    batch: &'a RecordBatch,
    column: &str,
) -> Result<(&'a ListArray, &'a Keys, &'a StringArray), ArrowError> {
    let list =
        batch.column_by_name(column).and_then(|array| array.as_list_opt::<i32>()).ok_or_else(|| wrong(column))?;
    let (keys, values) = dictionary(list.values()).ok_or_else(|| wrong(column))?;
    Ok((list, keys, values))
}

fn dictionary(array: &ArrayRef) -> Option<(&Keys, &StringArray)> {
    let array = array.as_dictionary_opt::<Int32Type>()?;
    Some((array.keys(), array.values().as_string_opt::<i32>()?))
}

pub(super) fn number_column<'a, P: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    column: &str,
) -> Result<&'a PrimitiveArray<P>, ArrowError> {
    batch.column_by_name(column).and_then(|array| array.as_primitive_opt::<P>()).ok_or_else(|| wrong(column))
}

/// A column of counts, which never holds null. Files have them with a sign or without, for engines that know none.
pub(super) fn count_column(batch: &RecordBatch, column: &str) -> Result<ScalarBuffer<u64>, ArrowError> {
    let array = batch.column_by_name(column).filter(|array| array.null_count() == 0).ok_or_else(|| wrong(column))?;
    if let Some(counts) = array.as_primitive_opt::<UInt64Type>() {
        return Ok(counts.values().clone());
    }
    let counts = array.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong(column))?.values();
    // The sign of all at once, which the processor does many at a time.
    if counts.iter().fold(0, |bits, count| bits | count) >= 0 {
        // The same bits.
        return Ok(ScalarBuffer::new(counts.inner().clone(), 0, counts.len()));
    }
    Ok(counts.iter().map(|count| u64::try_from(*count).unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::tests::filter;
    use crate::keys::Keyring;
    use crate::segment::{SegmentReader, Selection, write_flows};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Columns and rows say the same, through a file.
        #[test]
        fn a_mask_keeps_what_matches(filters in prop::collection::vec(filter(), 12), count in 1u64..60) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.parquet");
            let origin = Origin { site: "lan".into(), gateway: "exact".into(), sequence: 1 };
            let flows: Vec<_> = (0..count).map(crate::segment::tests::varied).collect();
            write_flows(&path, &origin, None, &flows).unwrap();
            let reader = SegmentReader::open(&path, &Keyring::none()).unwrap();
            for filter in filters {
                let expected: Vec<_> = flows.iter().filter(|flow| filter.matches(&origin, flow)).cloned().collect();
                let mask = Mask { filter: filter.clone(), interval: None, origin: origin.clone() };
                let selection = Selection { predicate: Some(std::sync::Arc::new(mask)), ..Selection::default() };
                let mut found = Vec::new();
                for batch in reader.select(selection) {
                    found.extend(reader.flows(&batch.unwrap()).unwrap());
                }
                prop_assert_eq!(&found, &expected, "{}", filter);
            }
        }
    }
}
