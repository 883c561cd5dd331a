//! Where things lie in an archive and in a gateway's data directory.

use std::path::{Path, PathBuf};

use hotspot_core::WallNs;

use crate::durable;

/// The classes of records; each has its own directory and its own retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    Flows,
    Sessions,
    Devices,
    Coverage,
}

impl Class {
    pub const ALL: [Self; 4] = [Self::Flows, Self::Sessions, Self::Devices, Self::Coverage];

    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Sessions => "sessions",
            Self::Devices => "devices",
            Self::Coverage => "coverage",
        }
    }

    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.label() == label)
    }
}

/// A segment's path relative to the archive: `flows/site=S/date=2026-11-23/G-0000000001.parquet`.
#[must_use]
pub fn segment_path(class: Class, site: &str, gateway: &str, sequence: u64, opened_ns: WallNs) -> PathBuf {
    Path::new(class.label()).join(partition(site, gateway, sequence, opened_ns)).with_extension("parquet")
}

/// The directory of indexes, and their class in manifest lines: what occurs in a segment of flows. They hold no records of their own.
pub const INDEX: &str = "index";

/// The path of the index of a segment of flows: `index/site=S/date=2026-11-23/G-0000000001.index`.
#[must_use]
pub fn index_path(site: &str, gateway: &str, sequence: u64, opened_ns: WallNs) -> PathBuf {
    Path::new(INDEX).join(partition(site, gateway, sequence, opened_ns)).with_extension("index")
}

fn partition(site: &str, gateway: &str, sequence: u64, opened_ns: WallNs) -> PathBuf {
    // The dot at the end is where the extension goes: a gateway's name may have dots of its own.
    Path::new(&format!("site={site}"))
        .join(format!("date={}", utc_date(opened_ns)))
        .join(format!("{gateway}-{sequence:010}."))
}

/// The UTC day a moment lies in, as `2026-11-23`.
fn utc_date(at_ns: WallNs) -> String {
    let timestamp = jiff::Timestamp::from_nanosecond(i128::from(at_ns)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    timestamp.strftime("%Y-%m-%d").to_string()
}

/// Whether a site's or gateway's name can be part of a path and of a partition.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A gateway's data directory.
#[derive(Clone, Debug)]
pub struct DataDir(pub PathBuf);

impl DataDir {
    /// Makes the directories that are missing. All of them last from then on, also those that an earlier attempt made.
    pub fn create(&self) -> std::io::Result<()> {
        let dirs = [self.journals(), self.states(), self.archive(), self.0.join("keys")];
        for dir in &dirs {
            durable::make_dir(dir)?;
            durable::sync_dir(dir)?;
        }
        durable::sync_dir(&self.0)
    }

    #[must_use]
    pub fn archive(&self) -> PathBuf {
        self.0.join("archive")
    }

    #[must_use]
    pub fn journals(&self) -> PathBuf {
        self.0.join("journal")
    }

    #[must_use]
    pub fn journal(&self, sequence: u64) -> PathBuf {
        self.journals().join(format!("{sequence:010}.journal"))
    }

    #[must_use]
    pub fn states(&self) -> PathBuf {
        self.0.join("state")
    }

    #[must_use]
    pub fn state(&self, sequence: u64) -> PathBuf {
        self.states().join(format!("{sequence:010}.state"))
    }

    #[must_use]
    pub fn signing_key(&self) -> PathBuf {
        self.0.join("keys").join("signing.key")
    }

    /// Where the keys of journals and states lie.
    #[must_use]
    pub fn journal_keys(&self) -> PathBuf {
        self.0.join("keys").join("journal")
    }

    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The journals there are, by sequence.
    pub fn list_journals(&self) -> std::io::Result<Vec<u64>> {
        list_sequences(&self.journals(), ".journal")
    }

    /// The states there are, by sequence.
    pub fn list_states(&self) -> std::io::Result<Vec<u64>> {
        list_sequences(&self.states(), ".state")
    }
}

fn list_sequences(dir: &Path, suffix: &str) -> std::io::Result<Vec<u64>> {
    let mut sequences = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        sequences
            .extend(name.to_str().and_then(|name| name.strip_suffix(suffix)).and_then(|name| name.parse::<u64>().ok()));
    }
    sequences.sort_unstable();
    Ok(sequences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_lies_in_the_partition_of_its_day() {
        let path = segment_path(Class::Flows, "cafe-1", "gw1", 7, 1_795_392_000_000_000_000);
        assert_eq!(path, Path::new("flows/site=cafe-1/date=2026-11-23/gw1-0000000007.parquet"));
        let path = index_path("cafe-1", "gw.1", 7, 1_795_392_000_000_000_000);
        assert_eq!(path, Path::new("index/site=cafe-1/date=2026-11-23/gw.1-0000000007.index"));
    }

    #[test]
    fn names_cannot_leave_their_directory() {
        assert!(is_name("cafe-1.hanoi_x"));
        for name in ["", "..", ".hidden", "a/b", "a b", "a=b", "é"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
