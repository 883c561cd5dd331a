//! What became of every datagram.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use hotspot_core::radius::Refused;

use crate::identity::odd_fields::OddFields;

/// Where a datagram can end.
#[derive(Clone, Copy)]
pub(super) enum Counted {
    /// New, on disk, answered.
    Recorded,
    /// Known, answered, or about to be.
    Duplicate,
    /// Not answered: the journal cannot be written.
    NotRecorded,
    /// A Status-Server, answered.
    StatusServer,
    UnknownClient,
    Refused(Refused),
}

const OTHERS: [&str; 5] = ["recorded", "duplicates", "not_recorded", "status_server", "unknown_client"];

/// Counters by name; `Display` gives those that are not zero.
#[derive(Debug, Default)]
pub struct RadiusCounters {
    others: [AtomicU64; OTHERS.len()],
    refused: [AtomicU64; Refused::ALL.len()],
    /// Attributes that were left out of requests which count without them.
    pub(super) odd: OddFields,
}

impl RadiusCounters {
    pub(super) fn count(&self, what: Counted) {
        let counter = match what {
            Counted::Recorded => &self.others[0],
            Counted::Duplicate => &self.others[1],
            Counted::NotRecorded => &self.others[2],
            Counted::StatusServer => &self.others[3],
            Counted::UnknownClient => &self.others[4],
            Counted::Refused(why) => &self.refused[why as usize],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Every counter with its name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = OTHERS.into_iter().chain(Refused::ALL.map(Refused::label));
        let counters = self.others.iter().chain(&self.refused);
        names.zip(counters.map(|counter| counter.load(Ordering::Relaxed)))
    }

    /// Datagrams that came.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.all().map(|(_, count)| count).sum()
    }

    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.others[0].load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.others[1].load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn not_recorded(&self) -> u64 {
        self.others[2].load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn unknown_client(&self) -> u64 {
        self.others[4].load(Ordering::Relaxed)
    }

    /// For whatever reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

impl fmt::Display for RadiusCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = self.all().filter(|(_, count)| *count > 0).enumerate();
        for (position, (name, count)) in counted {
            let space = if position == 0 { "" } else { " " };
            write!(f, "{space}{name}={count}")?;
        }
        write!(f, "{}", self.odd)
    }
}
