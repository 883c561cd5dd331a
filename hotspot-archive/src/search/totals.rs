//! Sums of what matches, by the values of a column: flows, packets, bytes.

use std::collections::HashMap;
use std::ops::Range;

use arrow_array::types::{TimestampMicrosecondType, UInt8Type, UInt16Type};
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_buffer::ScalarBuffer;
use arrow_schema::ArrowError;
use foldhash::fast::FixedState;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::mask::{count_column, list_column, number_column, text_column};
use crate::segment::Origin;

/// Groups that are held in memory, with some 100 bytes each.
const GROUPS_MAX: usize = 4 << 20;
/// Values of a dictionary that have a sum each, whether a row has the value or not.
const NUMBERED_MAX: usize = 1 << 18;
/// What a search says that met more of them.
pub(super) const TOO_MANY: &str = "there are more than 4 million groups; narrow the search or sum by another column";

macro_rules! columns {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $column:literal;)*) => {
        /// What is summed by.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum By { $($(#[$doc])* $name,)* }

        impl By {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word on the command line.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The archive's column.
            #[must_use]
            pub const fn column(self) -> &'static str {
                match self { $(Self::$name => $column,)* }
            }
        }
    };
}

columns! {
    User = "user", "user";
    Mac = "mac", "client_mac";
    Ip = "ip", "client_ip";
    Public = "public", "public_ip";
    Peer = "peer", "peer_ip";
    Port = "port", "peer_port";
    Proto = "proto", "protocol";
    Vlan = "vlan", "vlan";
    Site = "site", "site";
    Gateway = "gateway", "gateway";
    Ap = "ap", "ap_mac";
    Ssid = "ssid", "ssid";
    Session = "session", "session_id";
    Hostname = "hostname", "hostname";
    Vendor = "vendor", "device_vendor";
    Attribution = "attribution", "attribution";
    /// The hour in which the row begins.
    Hour = "hour", "start";
    /// The day in which the row begins.
    Day = "day", "start";
}

const COUNTS: [&str; 4] = ["packets_out", "bytes_out", "packets_in", "bytes_in"];

impl By {
    pub(super) fn columns(self) -> Vec<&'static str> {
        // What is the same in all rows of a segment is not read.
        let key = (!matches!(self, Self::Site | Self::Gateway)).then_some(self.column());
        key.into_iter().chain(COUNTS).collect()
    }
}

/// What the flows of a group sum up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub flows: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
}

impl Sums {
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets_out.saturating_add(self.packets_in)
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes_out.saturating_add(self.bytes_in)
    }

    fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        self.packets_out = self.packets_out.saturating_add(other.packets_out);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.packets_in = self.packets_in.saturating_add(other.packets_in);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
    }
}

/// Sums by group.
#[derive(Clone, Debug)]
pub struct Totals {
    by: By,
    /// Where hours and days begin.
    zone: TimeZone,
    groups: HashMap<Box<str>, Sums, FixedState>,
    /// Of rows without a value.
    unknown: Sums,
    open: Option<Numbered>,
}

/// Sums by the numbers that a dictionary gives to its values, as long as batches share the dictionary.
#[derive(Clone, Debug)]
struct Numbered {
    values: StringArray,
    /// One for each value, and one for rows without.
    sums: Vec<Sums>,
}

impl Numbered {
    fn new(values: &StringArray) -> Self {
        Self { values: values.clone(), sums: vec![Sums::default(); values.len() + 1] }
    }

    /// The same memory, which stays where it is while it is held here.
    fn has(&self, values: &StringArray) -> bool {
        let place =
            |values: &StringArray| (values.value_offsets().as_ptr(), values.value_data().as_ptr(), values.len());
        place(&self.values) == place(values)
    }
}

impl Totals {
    #[must_use]
    pub fn new(by: By) -> Self {
        Self { by, zone: TimeZone::UTC, groups: HashMap::default(), unknown: Sums::default(), open: None }
    }

    /// Sums by the hours and days of a zone, where it is summed by those.
    #[must_use]
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        self.zone = zone;
        self
    }

    /// The same question, without an answer yet.
    pub(super) fn part(&self) -> Self {
        Self::new(self.by).in_zone(self.zone.clone())
    }

    #[must_use]
    pub fn by(&self) -> By {
        self.by
    }

    /// The groups, largest first by what `order` says; that of unknown values is `None`.
    #[must_use]
    pub fn sorted(mut self, order: impl Fn(&Sums) -> u64) -> Vec<(Option<Box<str>>, Sums)> {
        self.close();
        let unknown = (self.unknown.flows > 0).then_some((None, self.unknown));
        let known = self.groups.into_iter().map(|(group, sums)| (Some(group), sums));
        let mut groups: Vec<_> = known.chain(unknown).collect();
        groups.sort_unstable_by(|left, right| order(&right.1).cmp(&order(&left.1)).then_with(|| left.0.cmp(&right.0)));
        groups
    }

    /// Adds another's groups; false where there are too many.
    pub(super) fn add(&mut self, other: Self) -> bool {
        self.unknown.add(&other.unknown);
        // Most segments have one dictionary, and are done with this.
        other.open.iter().for_each(|numbered| self.add_numbered(numbered));
        for (group, sums) in other.groups {
            self.groups.entry(group).or_default().add(&sums);
        }
        self.groups.len() <= GROUPS_MAX
    }

    fn add_to(&mut self, group: Option<&str>, sums: &Sums) {
        match group.map(|group| (group, self.groups.get_mut(group))) {
            None => self.unknown.add(sums),
            Some((_, Some(known))) => known.add(sums),
            Some((group, None)) => drop(self.groups.insert(group.into(), *sums)),
        }
    }

    /// Gives what was summed by number to the groups.
    fn close(&mut self) {
        if let Some(numbered) = self.open.take() {
            self.add_numbered(&numbered);
        }
    }

    fn add_numbered(&mut self, Numbered { values, sums }: &Numbered) {
        for (number, sums) in sums.iter().enumerate().filter(|(_, sums)| sums.flows > 0) {
            let is_known = number < values.len() && values.is_valid(number);
            self.add_to(is_known.then(|| values.value(number)), sums);
        }
    }

    /// Adds the rows of a batch.
    pub(super) fn add_batch(&mut self, batch: &RecordBatch, origin: &Origin) -> Result<(), ArrowError> {
        let counts = Counts::of(batch)?;
        match self.by {
            By::Site => self.add_all(&counts, &origin.site),
            By::Gateway => self.add_all(&counts, &origin.gateway),
            By::Port | By::Vlan => {
                let keys = number_column::<UInt16Type>(batch, self.by.column())?;
                self.add_numbers(
                    &counts,
                    |row| keys.is_valid(row).then(|| i64::from(keys.value(row))),
                    |key| key.to_string(),
                );
            }
            By::Proto => {
                let keys = number_column::<UInt8Type>(batch, self.by.column())?;
                self.add_numbers(
                    &counts,
                    |row| keys.is_valid(row).then(|| i64::from(keys.value(row))),
                    |key| key.to_string(),
                );
            }
            By::Hour | By::Day => {
                let keys = number_column::<TimestampMicrosecondType>(batch, self.by.column())?;
                let (by, zone) = (self.by, self.zone.clone());
                self.add_numbers(
                    &counts,
                    |row| keys.is_valid(row).then(|| keys.value(row).div_euclid(QUARTER_US)),
                    |quarter| beginning(by, &zone, quarter),
                );
            }
            By::User | By::Session => self.add_lists(batch, &counts)?,
            By::Mac
            | By::Ip
            | By::Public
            | By::Peer
            | By::Ap
            | By::Ssid
            | By::Hostname
            | By::Vendor
            | By::Attribution => self.add_text(batch, &counts)?,
        }
        Ok(())
    }

    fn add_all(&mut self, counts: &Counts, group: &str) {
        self.add_to(Some(group), &counts.sum(0..counts.rows));
    }

    fn add_numbers(&mut self, counts: &Counts, key: impl Fn(usize) -> Option<i64>, show: impl Fn(i64) -> String) {
        let mut parts: HashMap<Option<i64>, Sums, FixedState> = HashMap::default();
        (0..counts.rows).for_each(|row| parts.entry(key(row)).or_default().add(&counts.sum(row..row + 1)));
        for (key, sums) in parts {
            self.add_to(key.map(&show).as_deref(), &sums);
        }
    }

    /// Sums by the numbers of the values first, so that no text is looked at twice.
    fn add_text(&mut self, batch: &RecordBatch, counts: &Counts) -> Result<(), ArrowError> {
        let (keys, values) = text_column(batch, self.by.column())?;
        if values.len() > NUMBERED_MAX {
            let text =
                |key: i64| usize::try_from(key).map_or_else(|_| String::new(), |key| values.value(key).to_owned());
            self.add_numbers(counts, |row| keys.is_valid(row).then(|| i64::from(keys.value(row))), text);
            return Ok(());
        }
        let open = self.numbered(values);
        let number = |row: usize| {
            let number = keys.is_valid(row).then(|| usize::try_from(keys.value(row)).ok()).flatten();
            number.unwrap_or(values.len())
        };
        // Rows are in the order of clients, so that many in a row often have the same value.
        let mut first = 0;
        while first < counts.rows {
            let group = number(first);
            let after = (first + 1..counts.rows).find(|row| number(*row) != group).unwrap_or(counts.rows);
            if let Some(sums) = open.sums.get_mut(group) {
                sums.add(&counts.sum(first..after));
            }
            first = after;
        }
        Ok(())
    }

    /// The sums of a dictionary, which are open from now on.
    fn numbered(&mut self, values: &StringArray) -> &mut Numbered {
        if !self.open.as_ref().is_some_and(|open| open.has(values)) {
            self.close();
        }
        self.open.get_or_insert_with(|| Numbered::new(values))
    }

    /// Sums by the items of lists: a row counts for each of them, and once for one that is named twice.
    fn add_lists(&mut self, batch: &RecordBatch, counts: &Counts) -> Result<(), ArrowError> {
        let (list, keys, values) = list_column(batch, self.by.column())?;
        let offsets = list.value_offsets();
        let items = |row: usize| {
            let [begin, end] = [offsets[row], offsets[row + 1]].map(|end| usize::try_from(end).unwrap_or(0));
            let items = if list.is_valid(row) { begin..end } else { begin..begin };
            &keys.values()[items]
        };
        let mut parts = HashMap::default();
        let open = if values.len() > NUMBERED_MAX { None } else { Some(self.numbered(values)) };
        let mut add = {
            let mut open = open;
            let parts: &mut HashMap<Option<i32>, Sums, FixedState> = &mut parts;
            move |key: Option<i32>, sums: &Sums| match &mut open {
                None => parts.entry(key).or_default().add(sums),
                Some(open) => {
                    let number = key.map_or(values.len(), |key| usize::try_from(key).unwrap_or(values.len()));
                    if let Some(of) = open.sums.get_mut(number) {
                        of.add(sums);
                    }
                }
            }
        };
        let mut first = 0;
        while first < counts.rows {
            let group = items(first);
            let after = (first + 1..counts.rows).find(|row| items(*row) != group).unwrap_or(counts.rows);
            let sums = counts.sum(first..after);
            if group.is_empty() {
                add(None, &sums);
            }
            for (position, key) in group.iter().enumerate() {
                if !group[..position].contains(key) {
                    add(Some(*key), &sums);
                }
            }
            first = after;
        }
        for (key, sums) in parts {
            let key = key.and_then(|key| usize::try_from(key).ok()).filter(|key| values.is_valid(*key));
            self.add_to(key.map(|key| values.value(key)), &sums);
        }
        Ok(())
    }
}

/// Every zone is some quarters of an hour from UTC, and its clocks are changed at the end of one.
const QUARTER_US: i64 = 900_000_000;

/// When the hour or day of a zone begins that a quarter of an hour is in, as RFC 3339.
fn beginning(by: By, zone: &TimeZone, quarter: i64) -> String {
    let Ok(at) = Timestamp::from_microsecond(quarter.saturating_mul(QUARTER_US)) else { return quarter.to_string() };
    let local = at.to_zoned_datetime(zone.clone());
    let begins = if by == By::Day {
        local.start_of_day().ok()
    } else {
        local.checked_sub(Span::new().minutes(i64::from(local.minute()))).ok()
    };
    let Some(begins) = begins else { return at.to_string() };
    if *zone == TimeZone::UTC {
        begins.timestamp().to_string()
    } else {
        begins.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

/// The columns that are summed.
struct Counts {
    rows: usize,
    columns: [ScalarBuffer<u64>; 4],
}

impl Counts {
    fn of(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let mut columns = COUNTS.map(|_| ScalarBuffer::default());
        for (column, name) in columns.iter_mut().zip(COUNTS) {
            *column = count_column(batch, name)?;
        }
        Ok(Self { rows: batch.num_rows(), columns })
    }

    fn sum(&self, rows: Range<usize>) -> Sums {
        let flows = rows.len() as u64;
        let [packets_out, bytes_out, packets_in, bytes_in] = self
            .columns
            .each_ref()
            .map(|column| column[rows.clone()].iter().fold(0, |sum: u64, count| sum.saturating_add(*count)));
        Sums { flows, packets_out, bytes_out, packets_in, bytes_in }
    }
}

#[cfg(test)]
mod tests;
