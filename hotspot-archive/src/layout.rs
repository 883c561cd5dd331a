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
/// The class of a wrapped key in manifest lines.
pub const SIDECAR: &str = "key";

/// The path of the index of a segment of flows: `index/site=S/date=2026-11-23/G-0000000001.index`.
#[must_use]
pub fn index_path(site: &str, gateway: &str, sequence: u64, opened_ns: WallNs) -> PathBuf {
    Path::new(INDEX).join(partition(site, gateway, sequence, opened_ns)).with_extension("index")
}

/// What the paths of one sequence have in common, for telling many of them apart from others.
pub(crate) struct Partition(String);

pub(crate) fn partition_of(site: &str, gateway: &str, sequence: u64, opened_ns: WallNs) -> Partition {
    let is_named = is_name(site) && is_name(gateway);
    let common = if is_named {
        partition(site, gateway, sequence, opened_ns).to_string_lossy().into_owned()
    } else {
        String::new()
    };
    Partition(common)
}

impl Partition {
    /// What a path of this sequence names; `None` where it is of another, or none that an archive has.
    pub(crate) fn kind_of(&self, path: &str) -> Option<FileKind> {
        let (directory, rest) = path.split_once('/')?;
        let extension = rest.strip_prefix(&*self.0).filter(|_| !self.0.is_empty())?;
        if directory == INDEX {
            return (extension == "index").then_some(FileKind::Index);
        }
        let class = Class::from_label(directory)?;
        match extension {
            "parquet" => Some(FileKind::Rows(class)),
            "parquet.age" => Some(FileKind::Key(class)),
            _ => None,
        }
    }
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
    // Not by a pattern: this is done for every line of a chain that is read.
    show_date(jiff::tz::Offset::UTC.to_datetime(timestamp).date())
}

fn show_date(date: jiff::civil::Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
}

/// What a path below an archive's root names. Every path that a line, a receipt or a store says is taken apart here, or refused: nothing
/// is read, removed or sent by a path that is not one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName {
    pub kind: FileKind,
    pub site: String,
    /// `2026-11-23`: the UTC day the sequence began.
    pub date: String,
    pub gateway: String,
    pub sequence: u64,
}

/// The kinds of files that lines name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// `<class>/…/<gateway>-<sequence>.parquet`.
    Rows(Class),
    /// The wrapped key of such a file: `….parquet.age`.
    Key(Class),
    /// `index/…/<gateway>-<sequence>.index`.
    Index,
}

impl FileKind {
    /// The class whose retention decides how long it stays.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Rows(class) | Self::Key(class) => class,
            Self::Index => Class::Flows,
        }
    }

    /// What a line calls it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Rows(class) => class.label(),
            Self::Key(_) => SIDECAR,
            Self::Index => INDEX,
        }
    }

    fn directory(self) -> &'static str {
        match self {
            Self::Rows(class) | Self::Key(class) => class.label(),
            Self::Index => INDEX,
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Rows(_) => "parquet",
            Self::Key(_) => "parquet.age",
            Self::Index => "index",
        }
    }
}

impl FileName {
    /// Takes a path apart; `None` where it is not one that an archive has.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let (directory, site, date, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (stem, kind) = if directory == INDEX {
            (name.strip_suffix(".index")?, FileKind::Index)
        } else {
            let class = Class::from_label(directory)?;
            match name.strip_suffix(".parquet") {
                Some(stem) => (stem, FileKind::Rows(class)),
                None => (name.strip_suffix(".parquet.age")?, FileKind::Key(class)),
            }
        };
        let (gateway, digits) = stem.rsplit_once('-')?;
        let file = Self {
            kind,
            site: site.strip_prefix("site=")?.to_owned(),
            date: date.strip_prefix("date=")?.to_owned(),
            gateway: gateway.to_owned(),
            sequence: digits.parse().ok()?,
        };
        let is_date =
            jiff::civil::Date::strptime("%Y-%m-%d", &file.date).is_ok_and(|date| show_date(date) == file.date);
        // One spelling of each name: `+7`, more zeros or another date than is written are refused.
        (is_date && is_name(&file.site) && is_name(gateway) && file.path() == path).then_some(file)
    }

    /// The path, relative to the archive's root.
    #[must_use]
    pub fn path(&self) -> String {
        let Self { kind, site, date, gateway, sequence } = self;
        let (directory, extension) = (kind.directory(), kind.extension());
        format!("{directory}/site={site}/date={date}/{gateway}-{sequence:010}.{extension}")
    }

    /// Whether it is a wrapped key.
    #[must_use]
    pub fn is_key(&self) -> bool {
        matches!(self.kind, FileKind::Key(_))
    }

    /// Whether it lies where a gateway puts the files of a sequence that began then.
    #[must_use]
    pub fn is_of(&self, site: &str, gateway: &str, sequence: u64, opened_ns: WallNs) -> bool {
        self.site == site && self.gateway == gateway && self.sequence == sequence && self.date == utc_date(opened_ns)
    }
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

    /// How the names of the two files begin that say which signed requests of portals were taken.
    #[must_use]
    pub fn portal_nonces(&self) -> PathBuf {
        self.0.join("portal-nonces")
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
    fn a_path_is_one_that_an_archive_has_or_it_is_none() {
        for path in [
            "flows/site=cafe-1/date=2026-11-23/gw-1.x-0000000007.parquet",
            "flows/site=cafe-1/date=2026-11-23/gw1-0000000007.parquet.age",
            "coverage/site=s/date=1970-01-01/g-12345678901.parquet",
            "index/site=cafe-1/date=2026-11-23/gw1-0000000007.index",
        ] {
            let file = FileName::parse(path).unwrap();
            assert_eq!(file.path(), path);
        }
        let file = FileName::parse("sessions/site=s/date=2026-11-23/a-b-0000000007.parquet.age").unwrap();
        assert_eq!((file.gateway.as_str(), file.sequence, file.kind), ("a-b", 7, FileKind::Key(Class::Sessions)));
        assert!(file.is_of("s", "a-b", 7, 1_795_392_000_000_000_000));
        assert!(!file.is_of("s", "a-b", 7, 1_795_392_000_000_000_000 + 86_400_000_000_000));
        for path in [
            "",
            "/etc/passwd",
            "../keys/signing.key",
            "keys/signing.key",
            "manifest/g.jsonl",
            "holds/C-1.json",
            "flows/../keys/site=s/g-0000000007.parquet",
            "flows/site=s/date=2026-11-23/../g-0000000007.parquet",
            "flows/site=../date=2026-11-23/g-0000000007.parquet",
            "flows/site=s/date=2026-11-23/g-0000000007.parquet/",
            "flows//site=s/date=2026-11-23/g-0000000007.parquet",
            "/flows/site=s/date=2026-11-23/g-0000000007.parquet",
            "./flows/site=s/date=2026-11-23/g-0000000007.parquet",
            "flows/site=s/date=2026-11-23/g-7.parquet",
            "flows/site=s/date=2026-11-23/g-+000000007.parquet",
            "flows/site=s/date=2026-11-23/g-00000000007.parquet",
            "flows/site=s/date=2026-13-23/g-0000000007.parquet",
            "flows/site=s/date=2026-1-23/g-0000000007.parquet",
            "flows/site=s/date=2026-11-23/g-0000000007.index",
            "index/site=s/date=2026-11-23/g-0000000007.parquet",
            "index/site=s/date=2026-11-23/g-0000000007.index.age",
            "flows/site=s/date=2026-11-23/g-0000000007.parquet.age.age",
            "flows/site=s/date=2026-11-23/.g-0000000007.parquet",
            "flows/site=s/date=2026-11-23/-0000000007.parquet",
            "flows\\site=s/date=2026-11-23/g-0000000007.parquet",
            "flows/site=s/date=2026-11-23/g\0-0000000007.parquet",
        ] {
            assert_eq!(FileName::parse(path), None, "{path:?}");
        }
    }

    #[test]
    fn names_cannot_leave_their_directory() {
        assert!(is_name("cafe-1.hanoi_x"));
        for name in ["", "..", ".hidden", "a/b", "a b", "a=b", "é"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
