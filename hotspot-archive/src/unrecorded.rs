//! Times of which not everything was recorded, and why: the one place that decides it, for every command that says so.
//!
//! A question may be answered with "nothing, and all was recorded" only where nothing is found here. [`Timeline`] decides by the lines of a
//! chain alone, so that also whoever can open nothing is told; what coverage rows say comes on top ([`crate::search::Archive::unrecorded`]).

mod timeline;

use std::fmt;

use hotspot_core::WallNs;

pub use self::timeline::{ADJOIN_NS, Timeline};

/// A time of which a gateway recorded nothing, or not all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unrecorded {
    /// [`WallNs::MIN`] where nothing says since when.
    pub from_ns: WallNs,
    /// [`WallNs::MAX`] where nothing says until when.
    pub to_ns: WallNs,
    pub gateway: String,
    pub why: Why,
}

/// Why not all of a time is on record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The gateway's first segment begins later.
    NotYet,
    /// Nothing was recorded between two sequences: no agent ran.
    Between { before: u64, after: u64 },
    /// The clock was set between two sequences; negative: back. Where an agent ran meanwhile all was recorded, under other times.
    ClockSet { before: u64, after: u64, step_ns: i64 },
    /// No gateway of the archive can have seen what is asked for; then none is named.
    NoGateway,
    /// The gateway has sealed nothing of it, or not yet.
    NotSealed,
    /// A sequence in which packets seen are not packets accounted for.
    Unbalanced { sequence: u64 },
    /// The flows were recorded once, and deleted when their time was over.
    Deleted { segments: u64 },
    /// What coverage rows say; `interface` is empty where all are concerned.
    Stated { interface: String, what: String },
    /// So many coverage rows of a sequence say that something is missing, and they were not read.
    Untold { sequence: u64, rows: u64 },
}

impl Why {
    /// As JSON has it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NoGateway => "no_gateway",
            Self::NotYet => "before_first_segment",
            Self::Between { .. } => "between_segments",
            Self::ClockSet { .. } => "clock_set",
            Self::NotSealed => "not_sealed",
            Self::Unbalanced { .. } => "unbalanced",
            Self::Deleted { .. } => "deleted",
            Self::Stated { .. } => "stated",
            Self::Untold { .. } => "untold",
        }
    }
}

impl fmt::Display for Unrecorded {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateway = &self.gateway;
        match (self.from_ns, self.to_ns) {
            (WallNs::MIN, WallNs::MAX) => write!(to, "at any time: ")?,
            (WallNs::MIN, to_ns) => write!(to, "up to {}: ", show(to_ns))?,
            (from_ns, WallNs::MAX) => write!(to, "{} and later: ", show(from_ns))?,
            (from_ns, to_ns) => write!(to, "{} to {}: ", show(from_ns), show(to_ns))?,
        }
        match &self.why {
            Why::NoGateway => write!(to, "no gateway of this archive can have seen what is asked for"),
            Why::NotYet => write!(to, "gateway {gateway} has no segment that old"),
            Why::Between { before, after } => {
                write!(to, "gateway {gateway} recorded nothing between segments {before} and {after}")
            }
            Why::ClockSet { before, after, step_ns } => {
                let way = if *step_ns < 0 { "back" } else { "forward" };
                let seconds = step_ns.unsigned_abs() as f64 / 1e9;
                write!(
                    to,
                    "the clock of gateway {gateway} was set {way} by {seconds:.3} s between segments {before} and {after}: \
                     what was recorded of this time, if anything, has other times (hotspot clock)"
                )
            }
            Why::NotSealed => write!(to, "gateway {gateway} has not sealed a segment of that time"),
            Why::Unbalanced { sequence } => write!(to, "gateway {gateway}, segment {sequence} does not balance"),
            Why::Deleted { segments } => {
                write!(to, "gateway {gateway} deleted the flows of {segments} segments when their time was over")
            }
            Why::Stated { interface, what } if interface.is_empty() => write!(to, "gateway {gateway}: {what}"),
            Why::Stated { interface, what } => write!(to, "gateway {gateway}, {interface}: {what}"),
            Why::Untold { sequence, rows } => {
                write!(
                    to,
                    "gateway {gateway}, segment {sequence}: {rows} coverage rows say what is missing, and were not read"
                )
            }
        }
    }
}

/// A moment as messages have it.
pub(crate) fn show(at_ns: WallNs) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at_ns)).map_or_else(|_| at_ns.to_string(), |time| format!("{time:.3}"))
}
