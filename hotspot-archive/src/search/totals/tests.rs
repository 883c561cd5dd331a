//! Sums by columns that hold several values in a row.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::keys::Keyring;
use crate::segment::tests::flow;
use crate::segment::{SegmentReader, Selection, write_flows};

fn summed(by: By, lists: &[&[&str]]) -> BTreeMap<Option<Box<str>>, (u64, u64)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let origin = Origin { site: "lan".into(), gateway: "g".into(), sequence: 1 };
    let rows: Vec<_> = (1u64..)
        .zip(lists)
        .map(|(number, names)| {
            let mut flow = flow(1);
            let who = Arc::make_mut(flow.identity.as_mut().unwrap());
            who.users = names.iter().map(|name| (*name).to_owned()).collect();
            who.session_ids.clone_from(&who.users);
            flow.bytes_out = 1 << (number % 32);
            flow
        })
        .collect();
    write_flows(&path, &origin, None, &rows).unwrap();
    let reader = SegmentReader::open(&path, &Keyring::none()).unwrap();
    let mut totals = Totals::new(by);
    for batch in reader.select(Selection { columns: Some(by.columns()), ..Selection::default() }) {
        totals.add_batch(&batch.unwrap(), &origin).unwrap();
    }
    let groups = totals.sorted(|sums| sums.flows).into_iter();
    groups.map(|(name, sums)| (name, (sums.flows, sums.bytes_out))).collect()
}

#[test]
fn each_claimant_of_a_row_is_a_group_of_its_own() {
    let lists: [&[&str]; 7] =
        [&["x, victim", "other"], &["x, victim", "other"], &["other"], &[], &["other", "other"], &["victim"], &[""]];
    let expected = BTreeMap::from([
        (Some("x, victim".into()), (2, 0b110)),
        (Some("other".into()), (4, 0b10_1110)),
        (Some("victim".into()), (1, 0b100_0000)),
        (Some("".into()), (1, 0b1000_0000)),
        (None, (1, 0b1_0000)),
    ]);
    assert_eq!(summed(By::User, &lists), expected);
    assert_eq!(summed(By::Session, &lists), expected);
}

#[test]
fn more_claimants_than_have_a_sum_each_are_summed_too() {
    let names: Vec<String> = (0..NUMBERED_MAX + 8).map(|number| format!("guest {number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let lists: Vec<&[&str]> = names.chunks(200).chain([&names[..1]]).collect();
    let groups = summed(By::User, &lists);
    assert_eq!(groups.len(), names.len());
    assert_eq!(groups[&Some("guest 0".into())].0, 2);
}
