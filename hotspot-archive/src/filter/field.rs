//! What conditions are about: columns of text, columns of numbers, and how they are compared.

use std::fmt;

use hotspot_core::record::{FlowRecord, NatState};
use hotspot_core::text::{escaped, is_spelled};

use super::Side;
use super::alike::Alike;
use crate::segment::Origin;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant,)* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word in a filter.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// A column of text.
    TextField {
        User = "user",
        Session = "session",
        Site = "site",
        Gateway = "gateway",
        Interface = "interface",
        Ssid = "ssid",
        Nas = "nas",
        Ap = "ap",
        Hostname = "hostname",
        Vendor = "vendor",
        Attribution = "attribution",
        Nat = "nat",
        End = "end",
    }
}

words! {
    /// A number to compare.
    NumberField {
        Bytes = "bytes",
        Packets = "packets",
        Duration = "duration",
    }
}

words! {
    /// How numbers are compared.
    Compare {
        Equal = "=",
        NotEqual = "!=",
        Less = "<",
        LessOrEqual = "<=",
        Greater = ">",
        GreaterOrEqual = ">=",
    }
}

impl TextField {
    /// The archive's column.
    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Session => "session_id",
            Self::Site => "site",
            Self::Gateway => "gateway",
            Self::Interface => "interface",
            Self::Ssid => "ssid",
            Self::Nas => "nas",
            Self::Ap => "ap_mac",
            Self::Hostname => "hostname",
            Self::Vendor => "device_vendor",
            Self::Attribution => "attribution",
            Self::Nat => "nat",
            Self::End => "end_reason",
        }
    }

    /// What people write about devices is compared without regard to case.
    pub(crate) fn matches(self, pattern: &Pattern, text: &str) -> bool {
        if matches!(self, Self::Hostname | Self::Vendor) {
            pattern.to_lowercase().matches(text.to_lowercase())
        } else {
            pattern.matches(text)
        }
    }

    /// What a flow has in the column; `None` of the columns that are lists.
    pub(super) fn of<'a>(self, origin: &'a Origin, flow: &'a FlowRecord) -> Option<std::borrow::Cow<'a, str>> {
        let who = flow.identity.as_deref();
        let text = match self {
            Self::User | Self::Session => None,
            Self::Site => Some(&*origin.site),
            Self::Gateway => Some(&*origin.gateway),
            Self::Interface => Some(&*flow.interface),
            Self::Ssid => who.and_then(|who| who.ssid.as_deref()),
            Self::Nas => who.and_then(|who| who.nas.as_deref()),
            Self::Ap => return who.and_then(|who| who.ap_mac).map(|mac| mac.to_string().into()),
            Self::Hostname => flow.hostname.as_deref(),
            Self::Vendor => flow.device_vendor.as_deref(),
            Self::Attribution => Some(flow.attribution.label()),
            Self::Nat => flow.nat.map(NatState::label),
            Self::End => Some(flow.end_reason.label()),
        };
        text.map(Into::into)
    }
}

impl NumberField {
    pub(super) fn of(self, side: Side, flow: &FlowRecord) -> u64 {
        let pair = match self {
            Self::Bytes => (flow.bytes_out, flow.bytes_in),
            Self::Packets => (flow.packets_out, flow.packets_in),
            Self::Duration => return duration_ns(flow.start_ns, flow.end_ns),
        };
        match side {
            Side::Source => pair.0,
            Side::Destination => pair.1,
            Side::Either => pair.0.saturating_add(pair.1),
        }
    }
}

pub(crate) fn duration_ns(start_ns: i64, end_ns: i64) -> u64 {
    u64::try_from(end_ns.saturating_sub(start_ns)).unwrap_or(0)
}

impl Compare {
    #[must_use]
    pub fn holds(self, found: u64, asked: u64) -> bool {
        match self {
            Self::Equal => found == asked,
            Self::NotEqual => found != asked,
            Self::Less => found < asked,
            Self::LessOrEqual => found <= asked,
            Self::Greater => found > asked,
            Self::GreaterOrEqual => found >= asked,
        }
    }
}

/// A value to look for: as it is, or with `*` for anything. A value that is not in the archive's spelling (`CORP\anna`) stands for the
/// one that is (`CORP\\anna`) too; earlier archives have both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    Exact(String),
    /// With at least one `*`.
    Glob(String),
    /// In any spelling that people use; of users only.
    Alike(Alike),
}

impl Pattern {
    #[must_use]
    pub fn matches(&self, text: impl AsRef<str>) -> bool {
        let text = text.as_ref();
        match self {
            Self::Exact(exact) => {
                // Nearly no text has an escape, so nearly no question is spelled anew.
                exact == text || text.contains('\\') && spelled(exact).is_some_and(|spelled| spelled == text)
            }
            Self::Glob(glob) => {
                glob_matches(glob, text)
                    || text.contains('\\') && spelled(glob).is_some_and(|spelled| glob_matches(&spelled, text))
            }
            Self::Alike(alike) => alike.matches(text),
        }
    }

    pub(crate) fn to_lowercase(&self) -> Self {
        match self {
            Self::Exact(text) => Self::Exact(text.to_lowercase()),
            Self::Glob(text) => Self::Glob(text.to_lowercase()),
            Self::Alike(alike) => Self::Alike(alike.clone()),
        }
    }
}

/// A value in the archive's spelling, where it is not in it already.
pub(crate) fn spelled(value: &str) -> Option<String> {
    (!is_spelled(value)).then(|| escaped(value.as_bytes()))
}

/// Without backtracking over more than the last `*`: time is at most the product of the lengths.
pub(super) fn glob_matches(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => quoted(f, text),
            Self::Glob(text) => f.write_str(text),
            Self::Alike(alike) => alike.fmt(f),
        }
    }
}

pub(super) fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
