//! `hotspot find --by`: sums instead of flows.

use std::io::{self, Write};

use hotspot_archive::filter::Filter;
use hotspot_archive::search::{Archive, By, Interval, Sums, Totals};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::arguments::{FindArguments, Sort};
use crate::envelope::{Envelope, Files, Form};
use crate::find::remark;
use crate::output::{Output, Table, csv_end, csv_header, csv_value, json_line};
use crate::progress::ProgressLine;
use crate::time::Zone;
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
    mut envelope: Envelope,
    files: Option<&Files>,
) -> Result<Outcome, Failure> {
    let order = order(arguments.sort)?;
    let mut totals = Totals::new(by).in_zone(Zone::new(arguments.tz.as_deref())?.of_answers());
    let progress = ProgressLine::new();
    let seen = archive.sum(interval, filter, &mut totals, |done| progress.show(done));
    progress.end();
    let mut groups = totals.sorted(order);
    let found = groups.len();
    groups.truncate(arguments.top.or(arguments.limit).unwrap_or(usize::MAX));
    let to = Output::open(arguments.output.as_deref(), arguments.force)?;
    let mut to = if arguments.csv_for_excel {
        to.for_spreadsheet()
    } else if arguments.csv {
        to.for_csv()
    } else {
        to
    };
    if groups.len() < found {
        envelope.remarks.push(format!("of {found} groups the first {} are in the answer", groups.len()));
    }
    let mut rows = groups.iter().map(|(group, sums)| Row { by, group: group.as_deref(), sums });
    if arguments.json {
        rows.try_for_each(|row| json_line(&mut to, &row))?;
    } else if arguments.csv || arguments.csv_for_excel {
        if found > 0 {
            csv_header(&mut to, std::iter::once(name(by)).chain(COUNTS))?;
        }
        rows.try_for_each(|row| row.write_csv(&mut to))?;
    } else if found > 0 {
        let mut table = Table::new(&[by.word(), ">flows", ">packets out", ">bytes out", ">packets in", ">bytes in"]);
        for row in rows {
            let group = std::iter::once(row.group.unwrap_or("-").to_owned());
            table.push(group.chain(row.counts().iter().map(u64::to_string)).collect());
        }
        table.write(&mut to)?;
    }
    envelope.see(found, &seen);
    remark(&mut envelope, archive, filter);
    envelope.end(to, if arguments.json { Form::Json } else { Form::Other }, files)
}

/// What is counted of a group.
const COUNTS: [&str; 5] = ["flows", "packets_out", "bytes_out", "packets_in", "bytes_in"];

/// What the groups are called in JSON and CSV.
fn name(by: By) -> &'static str {
    let is_time = matches!(by, By::Hour | By::Day);
    if is_time { by.word() } else { by.column() }
}

/// A group of an answer.
struct Row<'a> {
    by: By,
    group: Option<&'a str>,
    sums: &'a Sums,
}

impl Row<'_> {
    /// In the order of [`COUNTS`].
    fn counts(&self) -> [u64; COUNTS.len()] {
        let Sums { flows, packets_out, bytes_out, packets_in, bytes_in } = *self.sums;
        [flows, packets_out, bytes_out, packets_in, bytes_in]
    }

    fn write_csv(&self, to: &mut Output) -> io::Result<()> {
        csv_value(to, self.group.unwrap_or_default())?;
        self.counts().iter().try_for_each(|count| write!(to, ",{count}"))?;
        csv_end(to)
    }
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + COUNTS.len()))?;
        map.serialize_entry(name(self.by), &self.group)?;
        COUNTS.iter().zip(self.counts()).try_for_each(|(name, count)| map.serialize_entry(name, &count))?;
        map.end()
    }
}
