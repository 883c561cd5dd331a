//! The proof of one row, which whoever has the signed root of its file checks without a key.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hotspot_core::MacAddr;

use super::encoding::Reader;
use super::fields::{self, VERSION, presence_bytes};
use super::leaves::{leaf_hash, shared_hash};
use super::salt::{SALT_BYTES, Salt};
use crate::layout::Class;
use crate::manifest::{from_hex, to_hex};
use crate::merkle::{Hash, verify_inclusion};

/// First line of a proof as text.
const TITLE: &str = "hotspot row proof 1";
/// A tree of 2⁶⁴ rows is no higher.
const PATH_MAX: usize = 64;

/// A row of a segment, and what leads from it to the root of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowProof {
    /// The part of the row that rows of one client mostly have in common.
    pub shared: Vec<u8>,
    /// The rest of the row.
    pub own: Vec<u8>,
    pub salt: [u8; SALT_BYTES],
    /// Place of the row in its file, from 0.
    pub index: u64,
    /// Rows of the file.
    pub size: u64,
    /// Siblings on the way up, lowest first.
    pub path: Vec<Hash>,
}

/// What a column of a proved row holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Texts(Vec<String>),
    Number(i64),
    /// Since 1970-01-01 UTC.
    Micros(i64),
    Flag(bool),
    Mac(MacAddr),
    Ip(IpAddr),
}

impl RowProof {
    /// Whether the row is in the file of which a signed line says that it has this root and so many rows. Both must be from the line: the number of
    /// rows tells apart places to which the same hashes lead.
    #[must_use]
    pub fn verify(&self, root: &Hash, rows: u64) -> bool {
        let leaf = leaf_hash(&self.salt, &shared_hash(&self.shared), &self.own);
        self.size == rows && verify_inclusion(&leaf, self.index, self.size, &self.path, root)
    }

    /// The class of the row and its columns, without those that are null. `None` where the bytes are no row of a version that is known.
    #[must_use]
    pub fn columns(&self) -> Option<(Class, Vec<(&'static str, Value)>)> {
        let mut shared = Reader(&self.shared);
        let class = match shared.array()? {
            [VERSION, number] => Class::ALL.into_iter().find(|class| fields::number_of(*class) == number)?,
            _ => return None,
        };
        let mut columns = Vec::new();
        read_part(&mut shared, fields::of(class).shared, &mut columns)?;
        read_part(&mut Reader(&self.own), fields::of(class).own, &mut columns)?;
        Some((class, columns))
    }
}

/// Reads one part, which nothing may follow.
fn read_part(
    from: &mut Reader<'_>,
    fields: &'static [fields::Field],
    columns: &mut Vec<(&'static str, Value)>,
) -> Option<()> {
    let presence = from.bytes(presence_bytes(fields.len()))?;
    for (number, (name, kind)) in fields.iter().enumerate() {
        if presence[number / 8] >> (number % 8) & 1 == 1 {
            columns.push((name, from.value(*kind)?));
        }
    }
    let unused = presence.len() * 8 - fields.len();
    let is_said_once = presence.last().is_none_or(|last| last.leading_zeros() as usize >= unused);
    (from.0.is_empty() && is_said_once).then_some(())
}

/// Lines, each ended by a line feed; only one text stands for a proof.
impl fmt::Display for RowProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}")?;
        writeln!(f, "index {}", self.index)?;
        writeln!(f, "size {}", self.size)?;
        writeln!(f, "salt {}", to_hex(&self.salt))?;
        writeln!(f, "shared {}", to_hex(&self.shared))?;
        writeln!(f, "own {}", to_hex(&self.own))?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", to_hex(hash)))
    }
}

/// The text is no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not as a row proof has it; take the file as it was handed over, unchanged")]
pub struct NotAProof {
    pub line: usize,
}

impl FromStr for RowProof {
    type Err = NotAProof;

    fn from_str(text: &str) -> Result<Self, NotAProof> {
        let mut lines = text.split('\n').enumerate();
        let mut next = || lines.next().map_or((0, ""), |(at, line)| (at + 1, line));
        let bad = |line| NotAProof { line };
        let (line, title) = next();
        if title != TITLE {
            return Err(bad(line));
        }
        let mut named = |name: &str| {
            let (line, text) = next();
            let value = text.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
            value.map(|value| (line, value)).ok_or_else(|| bad(line))
        };
        let (index, size) = (named("index")?, named("size")?);
        let (salt, shared, own) = (named("salt")?, named("shared")?, named("own")?);
        let number = |(line, text): (usize, &str)| {
            let value = text.parse::<u64>().ok().filter(|value| value.to_string() == text);
            value.ok_or_else(|| bad(line))
        };
        let bytes = |(line, text): (usize, &str)| from_hex(text).ok_or_else(|| bad(line));
        let hash = |(line, text): (usize, &str)| bytes((line, text))?.try_into().map_err(|_| bad(line));
        let salt_line = salt.0;
        let salt = Salt::try_from(bytes(salt)?).map_err(|_| bad(salt_line))?;
        let mut rest: Vec<_> = lines.map(|(at, line)| (at + 1, line)).collect();
        // Behind the last line feed there is nothing.
        match rest.pop() {
            Some((_, "")) if rest.len() <= PATH_MAX => {}
            Some((line, _)) => return Err(bad(line)),
            None => return Err(bad(own.0)),
        }
        let path = rest.into_iter().map(hash).collect::<Result<_, _>>()?;
        Ok(Self { shared: bytes(shared)?, own: bytes(own)?, salt, index: number(index)?, size: number(size)?, path })
    }
}
