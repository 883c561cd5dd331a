//! Sums of what matches, by the values of a column: flows, packets, bytes.

use std::borrow::Cow;
use std::collections::HashMap;

use arrow_array::types::{TimestampMicrosecondType, UInt8Type, UInt16Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::ArrowError;
use foldhash::fast::FixedState;

use super::mask::{count_column, number_column, text_column};
use crate::segment::Origin;

/// Groups that are held in memory, with some 100 bytes each.
const GROUPS_MAX: usize = 4 << 20;
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
    /// The UTC hour in which the row begins.
    Hour = "hour", "start";
    /// The UTC day in which the row begins.
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

/// Sums by group; the group of unknown values is `None`.
#[derive(Clone, Debug)]
pub struct Totals {
    by: By,
    groups: HashMap<Option<Box<str>>, Sums, FixedState>,
}

impl Totals {
    #[must_use]
    pub fn new(by: By) -> Self {
        Self { by, groups: HashMap::default() }
    }

    #[must_use]
    pub fn by(&self) -> By {
        self.by
    }

    /// The groups, largest first by what `order` says.
    #[must_use]
    pub fn sorted(self, order: impl Fn(&Sums) -> u64) -> Vec<(Option<Box<str>>, Sums)> {
        let mut groups: Vec<_> = self.groups.into_iter().collect();
        groups.sort_by(|left, right| order(&right.1).cmp(&order(&left.1)).then_with(|| left.0.cmp(&right.0)));
        groups
    }

    /// Adds another's groups; false where there are too many.
    pub(super) fn add(&mut self, other: Self) -> bool {
        for (group, sums) in other.groups {
            self.groups.entry(group).or_default().add(&sums);
        }
        self.groups.len() <= GROUPS_MAX
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
                let step_us = if self.by == By::Day { 86_400_000_000 } else { 3_600_000_000 };
                let time = |key: i64| {
                    let time = jiff::Timestamp::from_microsecond(key.saturating_mul(step_us));
                    time.map_or_else(|_| key.to_string(), |time| time.to_string())
                };
                self.add_numbers(&counts, |row| keys.is_valid(row).then(|| keys.value(row).div_euclid(step_us)), time);
            }
            By::User
            | By::Mac
            | By::Ip
            | By::Public
            | By::Peer
            | By::Ap
            | By::Ssid
            | By::Session
            | By::Hostname
            | By::Vendor
            | By::Attribution => self.add_text(batch, &counts)?,
        }
        Ok(())
    }

    fn add_all(&mut self, counts: &Counts<'_>, group: &str) {
        let mut sums = Sums::default();
        (0..counts.rows).for_each(|row| counts.add_to(&mut sums, row));
        self.groups.entry(Some(group.into())).or_default().add(&sums);
    }

    fn add_numbers(&mut self, counts: &Counts<'_>, key: impl Fn(usize) -> Option<i64>, show: impl Fn(i64) -> String) {
        let mut parts: HashMap<Option<i64>, Sums, FixedState> = HashMap::default();
        (0..counts.rows).for_each(|row| counts.add_to(parts.entry(key(row)).or_default(), row));
        for (key, sums) in parts {
            self.groups.entry(key.map(|key| show(key).into_boxed_str())).or_default().add(&sums);
        }
    }

    /// Sums by the numbers of the values first, so that no text is looked at twice.
    fn add_text(&mut self, batch: &RecordBatch, counts: &Counts<'_>) -> Result<(), ArrowError> {
        let (keys, values) = text_column(batch, self.by.column())?;
        if values.len() > counts.rows {
            // The dictionary of a whole row group: only a few of its values are in this batch.
            let text =
                |key: i64| usize::try_from(key).map_or_else(|_| String::new(), |key| values.value(key).to_owned());
            self.add_numbers(counts, |row| keys.is_valid(row).then(|| i64::from(keys.value(row))), text);
            return Ok(());
        }
        let mut parts = vec![Sums::default(); values.len() + 1];
        for row in 0..counts.rows {
            let key = if keys.is_valid(row) {
                usize::try_from(keys.value(row)).unwrap_or(values.len())
            } else {
                values.len()
            };
            if let Some(sums) = parts.get_mut(key) {
                counts.add_to(sums, row);
            }
        }
        for (key, sums) in parts.iter().enumerate().filter(|(_, sums)| sums.flows > 0) {
            let value = (key < values.len() && values.is_valid(key)).then(|| values.value(key));
            self.groups.entry(value.map(Into::into)).or_default().add(sums);
        }
        Ok(())
    }
}

/// The columns that are summed.
struct Counts<'a> {
    rows: usize,
    columns: [Cow<'a, [u64]>; 4],
}

impl<'a> Counts<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, ArrowError> {
        let mut columns = COUNTS.map(|_| Cow::Borrowed([].as_slice()));
        for (column, name) in columns.iter_mut().zip(COUNTS) {
            *column = count_column(batch, name)?;
        }
        Ok(Self { rows: batch.num_rows(), columns })
    }

    fn add_to(&self, sums: &mut Sums, row: usize) {
        sums.add(&Sums {
            flows: 1,
            packets_out: self.columns[0][row],
            bytes_out: self.columns[1][row],
            packets_in: self.columns[2][row],
            bytes_in: self.columns[3][row],
        });
    }
}
