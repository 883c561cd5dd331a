//! Lines: what they say, and the bytes of them that are signed. The format is in `docs/formats/manifest.md`.

use std::io;

use hotspot_core::WallNs;
use serde::{Deserialize, Serialize};

use crate::elapsed::ClockEvidence;
use crate::policy::Policy;

/// `prev` of a chain's first line.
pub const NO_LINE: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Version of lines about a sequence, which is their first field.
pub const FORMAT: u32 = 3;
/// Version of lines about something else than a sequence.
pub const EVENT_FORMAT: u32 = 4;
/// What lines of early versions have in place of these. They state no policy, no hold and not every step of a clock.
const EARLY_FORMAT: u32 = 1;
const EARLY_EVENT_FORMAT: u32 = 2;
/// What follows the signed bytes of a line.
pub(crate) const SIGNATURE_FIELD: &str = ",\"signature\":\"";

/// A file a line vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub class: String,
    /// Relative to the archive's root, with `/`.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    /// [`crate::keys::DataKey::commitment`] of the key an encrypted file is under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Of an index: SHA-256 of the file as far as its header goes, which vouches for the rest of it, and for the segment block by block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Of a file of rows: the root over them, by which each can be proved alone. Not in lines of early versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_root: Option<String>,
}

/// What was seen on all interfaces in a sequence, and whether it is accounted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageSummary {
    pub seen_packets: u64,
    pub seen_bytes: u64,
    /// Whether every packet seen is in a flow, an overflow total or a named outcome, in every generation.
    pub balanced: bool,
    /// Rows that say that something was not seen.
    pub gaps: u64,
}

/// A line without its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub format: u32,
    pub gateway: String,
    pub site: String,
    pub sequence: u64,
    pub from_ns: WallNs,
    pub to_ns: WallNs,
    pub sealed_ns: WallNs,
    pub files: Vec<FileEntry>,
    pub coverage: CoverageSummary,
    /// Those the keys of the files are wrapped for; none where nothing is encrypted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// What was known of time when the line was written; not in lines of early versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockEvidence>,
    /// How far the gateway's wall clock was set between the segment before and this one: all times of this one are by the new clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_step_ns: Option<i64>,
    /// SHA-256 of the line before, without its line feed; [`NO_LINE`] for the first.
    pub prev: String,
    /// First 16 hexadecimal digits of the SHA-256 of the public key.
    pub key: String,
}

/// A line about something else than a segment, without its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// [`EVENT_FORMAT`].
    pub format: u32,
    pub gateway: String,
    pub at_ns: WallNs,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockEvidence>,
    pub event: Event,
    pub prev: String,
    pub key: String,
}

/// What happened to an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A new key signs from the next line on. `public`: 64 hexadecimal digits.
    Epoch { epoch: u64, public: String },
    /// From here on these retentions are in force, in days by class; those before stay in force for what was sealed before.
    Policy(Policy),
    /// Sequences that must not be deleted until the case is lifted. Several lines of one case add up.
    Hold { case: String, sequences: Vec<(u64, u64)> },
    /// Nothing is held for the case any more.
    Lifted { case: String },
    /// Files were deleted because their time was over.
    Deleted { why: String, files: Vec<DeletedFile> },
}

/// A file that a line before vouched for, and that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedFile {
    pub path: String,
    pub sha256: String,
}

/// A line's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Segment(Line),
    Event(EventLine),
}

impl Record {
    #[must_use]
    pub fn gateway(&self) -> &str {
        match self {
            Self::Segment(line) => &line.gateway,
            Self::Event(line) => &line.gateway,
        }
    }

    pub(crate) fn prev(&self) -> &str {
        match self {
            Self::Segment(line) => &line.prev,
            Self::Event(line) => &line.prev,
        }
    }

    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Segment(line) => &line.key,
            Self::Event(line) => &line.key,
        }
    }

    /// When it was written, by the gateway's wall clock.
    #[must_use]
    pub fn written_ns(&self) -> WallNs {
        match self {
            Self::Segment(line) => line.sealed_ns,
            Self::Event(line) => line.at_ns,
        }
    }

    pub(crate) fn clock(&self) -> Option<&ClockEvidence> {
        match self {
            Self::Segment(line) => line.clock.as_ref(),
            Self::Event(line) => line.clock.as_ref(),
        }
    }

    /// Whether it was written before lines stated policies, holds and steps of the clock.
    pub(crate) fn is_early(&self) -> bool {
        match self {
            Self::Segment(line) => line.format == EARLY_FORMAT,
            Self::Event(line) => line.format == EARLY_EVENT_FORMAT,
        }
    }
}

/// A line of any kind as text, taken apart.
pub struct Signed<'a> {
    pub record: Record,
    pub signed: String,
    pub signature: &'a str,
}

/// Takes a line apart; `None` where it is not one, or not spelled as lines are: these fields in this order, once each, without spaces.
#[must_use]
pub fn parse(text: &str) -> Option<Signed<'_>> {
    let (signed, signature) = split_signature(text)?;
    // Nearly all lines are of segments.
    let (record, is_spelled) = match serde_json::from_str::<Line>(&signed) {
        Ok(line) if matches!(line.format, FORMAT | EARLY_FORMAT) => {
            let is_spelled = is_spelled(&line, &signed);
            (Record::Segment(line), is_spelled)
        }
        _ => {
            let line: EventLine = serde_json::from_str(&signed).ok()?;
            let is_spelled = matches!(line.format, EVENT_FORMAT | EARLY_EVENT_FORMAT) && is_spelled(&line, &signed);
            (Record::Event(line), is_spelled)
        }
    };
    is_spelled.then_some(Signed { record, signed, signature })
}

/// Whether an object is written as it would be again. Nobody reads another meaning out of it then.
pub(crate) fn is_spelled(object: &impl Serialize, text: &str) -> bool {
    let mut rest = Expected(text.as_bytes());
    serde_json::to_writer(&mut rest, object).is_ok() && rest.0.is_empty()
}

/// What is still to be written. Anything else is an error.
struct Expected<'a>(&'a [u8]);

impl io::Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The signed bytes of an object that ends with its signature, and the signature.
pub(crate) fn split_signature(text: &str) -> Option<(String, &str)> {
    let (head, tail) = text.rsplit_once(SIGNATURE_FIELD)?;
    Some((format!("{head}}}"), tail.strip_suffix("\"}")?))
}
