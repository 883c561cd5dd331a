//! `coverage`: rows to columns and back.

use std::collections::BTreeMap;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::types::Int64Type;
use arrow_schema::ArrowError;
use hotspot_core::record::{CoverageRecord, Tallied};

use super::columns::{Columns, Counts, number, str_of, text, time};
use super::{Origin, SegmentError, schema};
use crate::layout::Class;

pub(super) fn to_batch(origin: &Origin, rows: &[CoverageRecord]) -> Result<RecordBatch, ArrowError> {
    fn count(rows: &[CoverageRecord], value: impl Fn(&CoverageRecord) -> u64) -> arrow_array::ArrayRef {
        super::columns::count(rows, |row| Some(value(row)))
    }
    RecordBatch::try_new(
        schema::of(Class::Coverage),
        vec![
            str_of(rows, |_| Some(&*origin.site)),
            str_of(rows, |_| Some(&*origin.gateway)),
            str_of(rows, |row| Some(&row.interface)),
            count(rows, |row| row.generation),
            time(rows, |row| Some(row.from_ns)),
            time(rows, |row| Some(row.to_ns)),
            str_of(rows, |row| Some(&row.hook)),
            count(rows, |row| row.seen.packets),
            count(rows, |row| row.seen.bytes),
            count(rows, |row| row.flows.packets),
            count(rows, |row| row.flows.bytes),
            count(rows, |row| row.overflow.packets),
            count(rows, |row| row.overflow.bytes),
            text(rows, |row| {
                let outcomes: BTreeMap<_, _> =
                    row.outcomes.iter().map(|(label, count)| (label, [count.packets, count.bytes])).collect();
                serde_json::to_string(&outcomes).ok()
            }),
            text(rows, |row| {
                let happenings: BTreeMap<_, _> = row.happenings.iter().map(|(label, count)| (label, count)).collect();
                serde_json::to_string(&happenings).ok()
            }),
            number::<Int64Type, _>(rows, |row| row.clock_offset_ns),
            str_of(rows, |row| row.gap.as_deref()),
        ],
    )
}

pub(super) fn from_batch(path: &Path, batch: &RecordBatch) -> Result<Vec<CoverageRecord>, SegmentError> {
    let columns = Columns { path, batch };
    let (interface, hook, gap) = (columns.text("interface")?, columns.text("hook")?, columns.text("gap")?);
    let (outcomes, happenings) = (columns.text("outcomes")?, columns.text("happenings")?);
    let (from, to) = (columns.time("from")?, columns.time("to")?);
    let count = |name| columns.count(name);
    let generation = count("generation")?;
    let clock_offset = columns.number::<Int64Type>("clock_offset_ns")?;
    let seen = (count("seen_packets")?, count("seen_bytes")?);
    let flows = (count("flow_packets")?, count("flow_bytes")?);
    let overflow = (count("overflow_packets")?, count("overflow_bytes")?);
    (0..batch.num_rows())
        .map(|row| {
            let tallied = |pair: &(Counts<'_>, Counts<'_>)| Tallied {
                packets: pair.0.get(row).unwrap_or_default(),
                bytes: pair.1.get(row).unwrap_or_default(),
            };
            let named: BTreeMap<String, [u64; 2]> = serde_json::from_str(outcomes.get(row).unwrap_or("{}"))
                .map_err(|_| outcomes.unexpected(&outcomes.get(row).unwrap_or_default()))?;
            let counted: BTreeMap<String, u64> = serde_json::from_str(happenings.get(row).unwrap_or("{}"))
                .map_err(|_| happenings.unexpected(&happenings.get(row).unwrap_or_default()))?;
            Ok(CoverageRecord {
                interface: interface.owned(row).unwrap_or_default(),
                generation: generation.get(row).unwrap_or_default(),
                from_ns: from.ns(row).unwrap_or_default(),
                to_ns: to.ns(row).unwrap_or_default(),
                hook: hook.owned(row).unwrap_or_default(),
                seen: tallied(&seen),
                flows: tallied(&flows),
                overflow: tallied(&overflow),
                outcomes: named
                    .into_iter()
                    .map(|(label, [packets, bytes])| (label, Tallied { packets, bytes }))
                    .collect(),
                happenings: counted.into_iter().collect(),
                clock_offset_ns: clock_offset.get(row),
                gap: gap.owned(row),
            })
        })
        .collect()
}
