//! `hotspot find --by`: sums instead of flows.

use std::io::Write;

use hotspot_archive::filter::Filter;
use hotspot_archive::search::{Archive, By, Interval, Sums, Totals};
use serde_json::{Map, Value, json};

use crate::arguments::{FindArguments, Sort};
use crate::find::conclude;
use crate::output::{Table, cell, csv_line, json_line, stdout};
use crate::progress::ProgressLine;
use crate::{Failure, Outcome};

/// What the largest group is; refuses what a group does not have.
pub(crate) fn order(sort: Option<Sort>) -> Result<fn(&Sums) -> u64, Failure> {
    match sort {
        None | Some(Sort::Flows) => Ok(|sums| sums.flows),
        Some(Sort::Bytes) => Ok(Sums::bytes),
        Some(Sort::Packets) => Ok(Sums::packets),
        Some(Sort::Duration | Sort::Start | Sort::End) => {
            Err(Failure::Usage("groups are sorted by flows, packets or bytes".to_owned()))
        }
    }
}

pub(crate) fn run(
    arguments: &FindArguments,
    archive: &Archive,
    interval: Interval,
    filter: &Filter,
    by: By,
) -> Result<Outcome, Failure> {
    let order = order(arguments.sort)?;
    let mut totals = Totals::new(by);
    let progress = ProgressLine::new();
    let seen = archive.sum(interval, filter, &mut totals, |done| progress.show(done));
    progress.end();
    let mut groups = totals.sorted(order);
    let found = groups.len();
    groups.truncate(arguments.top.or(arguments.limit).unwrap_or(usize::MAX));
    let mut to = stdout();
    let rows = groups.iter().map(|(group, sums)| row(by, group.as_deref(), sums));
    if arguments.json {
        rows.into_iter().try_for_each(|row| json_line(&mut to, &row))?;
    } else if arguments.csv {
        for (position, row) in rows.enumerate() {
            if position == 0 {
                csv_line(&mut to, row.keys().cloned())?;
            }
            csv_line(&mut to, row.values().map(cell))?;
        }
    } else if found > 0 {
        let mut table = Table::new(&[by.word(), ">flows", ">packets out", ">bytes out", ">packets in", ">bytes in"]);
        for row in rows {
            table.push(row.values().map(|value| if value.is_null() { "-".to_owned() } else { cell(value) }).collect());
        }
        table.write(&mut to)?;
    }
    to.flush()?;
    Ok(conclude(found, &seen))
}

fn row(by: By, group: Option<&str>, sums: &Sums) -> Map<String, Value> {
    let is_time = matches!(by, By::Hour | By::Day);
    let name = if is_time { by.word() } else { by.column() };
    [
        (name, json!(group)),
        ("flows", json!(sums.flows)),
        ("packets_out", json!(sums.packets_out)),
        ("bytes_out", json!(sums.bytes_out)),
        ("packets_in", json!(sums.packets_in)),
        ("bytes_in", json!(sums.bytes_in)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
