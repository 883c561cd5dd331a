//! The lines of a chain on disk: one file that a gateway appends to, or pieces of it where nothing can be appended to.
//!
//! An object store replaces whole objects only, so a shipped chain lies in pieces: `manifest/<gateway>.lines/<number of its first
//! line>.jsonl`. Put together in order they are the gateway's file, byte for byte; only the last piece is ever written again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use hotspot_core::WallNs;

use crate::chain::{Believed, Beside, Line, Pins, Record, Severity, believe};
use crate::layout::is_name;
use crate::manifest::{ManifestError, read_public_key};
use crate::regular;

/// Ends the name of a directory of pieces.
const LINES: &str = ".lines";
/// Ends the name of a chain, and of a piece.
const JSONL: &str = ".jsonl";
/// From this length on a piece is not written again: the next lines begin another. Some twenty lines of segments.
pub const PIECE_BYTES: u64 = 64 << 10;

/// Where the directory of a chain's pieces lies: `manifest/<gateway>.lines`.
#[must_use]
pub fn directory(gateway: &str) -> String {
    format!("manifest/{gateway}{LINES}")
}

/// Where the piece lies that begins with this line.
#[must_use]
pub fn path(gateway: &str, first_line: u64) -> String {
    format!("{}/{first_line:012}{JSONL}", directory(gateway))
}

/// The number of a piece's first line, by the last part of its name.
#[must_use]
pub fn first_line(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(JSONL)?;
    let is_ours = digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_ours)
}

/// The gateway whose pieces a directory below `manifest` holds.
#[must_use]
pub fn gateway_of(directory: &str) -> Option<&str> {
    directory.strip_suffix(LINES)
}

/// A gateway's chain.
pub(crate) struct Chain {
    pub(crate) gateway: String,
    /// The file, or the directory of pieces.
    pub(crate) path: PathBuf,
    /// Another one of the same gateway lies beside it: which of them is true?
    pub(crate) is_twice: bool,
}

impl Chain {
    /// Everything there is, in order.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        self.read_finding(|_| {})
    }

    /// The same; what is wrong with its name or its pieces goes to `find`.
    pub(crate) fn read_finding(&self, mut find: impl FnMut(String)) -> io::Result<Vec<u8>> {
        if !is_name(&self.gateway) {
            find(format!("{:?} is no name of a gateway", self.gateway));
        }
        if !self.is_shipped() {
            return regular::open_path(&self.path).and_then(|file| regular::read_open(file, regular::LINES_BYTES_MAX));
        }
        if !is_dir(&self.path) {
            return Err(io::Error::other("it is no directory"));
        }
        let mut pieces = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            pieces.extend(name.and_then(first_line).map(|first_line| (first_line, path.clone())));
        }
        pieces.sort();
        let mut text = Vec::new();
        let mut next = 1;
        for (first_line, piece) in pieces {
            let left = regular::LINES_BYTES_MAX.saturating_sub(text.len() as u64);
            let piece = regular::open_path(&piece).and_then(|file| regular::read_open(file, left))?;
            if first_line != next {
                find(format!("has a piece that says it begins with line {first_line}, which is line {next}"));
            }
            if piece.last() != Some(&b'\n') {
                find(format!("has a piece, of line {first_line}, that does not hold whole lines"));
            }
            next += piece.split(|byte| *byte == b'\n').count() as u64 - 1;
            text.extend(piece);
        }
        Ok(text)
    }

    /// Whether it was shipped here: then files lie here before the lines that name them do.
    pub(crate) fn is_shipped(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "lines")
    }

    /// What findings call it.
    pub(crate) fn name(&self) -> String {
        format!("manifest/{}{JSONL}", self.gateway)
    }

    /// Where the key of its first epoch lies.
    pub(crate) fn public_key(&self) -> PathBuf {
        self.path.with_file_name(format!("{}.pub", self.gateway))
    }

    /// The key of its first epoch: the pinned one, or, where no keys are pinned, the one that lies beside it. `Err`: nothing says who signs it.
    pub(crate) fn root(&self, pins: &Pins) -> Result<VerifyingKey, String> {
        match pins.key_of(&self.gateway)? {
            Some(key) => Ok(key),
            None => read_public_key(&self.public_key()).map_err(|error| format!("no public key: {error}")),
        }
    }
}

/// A gateway's chain, as far as it is believed.
pub struct ReadChain {
    pub gateway: String,
    /// Relative to the archive.
    pub name: String,
    pub believed: Believed,
}

impl ReadChain {
    /// What is wrong, in words that name file and line.
    pub fn damage(&self) -> impl Iterator<Item = String> {
        let damage = self.believed.remarks.iter().filter(|remark| remark.severity == Severity::Damage);
        damage.map(|remark| {
            let line = remark.line.map(|line| format!(", line {line}")).unwrap_or_default();
            format!("{}{line}: {}", self.name, remark.what)
        })
    }

    /// The lines about sequences, as far as they are believed.
    pub fn segments(&self) -> impl Iterator<Item = &Line> {
        self.believed.records.iter().filter_map(|(_, record)| match record {
            Record::Segment(line) => Some(line),
            Record::Event(_) => None,
        })
    }
}

/// The chains of an archive, each as far as it is believed; and in words what else is wrong with them.
pub struct ReadChains {
    pub chains: Vec<ReadChain>,
    pub damage: Vec<String>,
}

impl ReadChains {
    /// The lines about sequences of all chains, as far as they are believed.
    pub fn segments(&self) -> impl Iterator<Item = &Line> {
        self.chains.iter().flat_map(ReadChain::segments)
    }
}

/// Reads every chain of an archive and checks it: what no checked signature vouches for is left out, and named.
pub fn read_chains(archive: &Path, pins: &Pins, now_ns: Option<WallNs>) -> Result<ReadChains, ManifestError> {
    let (mut read, mut damage) = (Vec::new(), Vec::new());
    let found = chains(archive)?;
    for gateway in pins.gateways().filter(|gateway| !found.iter().any(|chain| chain.gateway == **gateway)) {
        damage.push(format!("manifest/{gateway}.jsonl: is not there, though the gateway is named"));
    }
    for chain in found {
        let name = chain.name();
        if chain.is_twice {
            damage.push(format!("{name}: {TWICE}"));
        }
        let root = match chain.root(pins) {
            Ok(root) => root,
            Err(why) => {
                damage.push(format!("{name}: {why}; nothing of it is believed"));
                continue;
            }
        };
        let text = match chain.read_finding(|what| damage.push(format!("{name}: {what}"))) {
            Ok(text) => text,
            Err(error) => {
                damage.push(format!("{name}: cannot be read: {error}; nothing of it is believed"));
                continue;
            }
        };
        if text.is_empty() && pins.names(&chain.gateway) {
            damage.push(format!("{name}: {EMPTY}"));
        }
        let beside =
            Beside { now_ns, trusted_until: pins.until(&chain.gateway).map(|until| until.line), ..Beside::default() };
        let mut believed = believe(&chain.gateway, root, &text, beside);
        // In front: the last one says where a chain is broken.
        if let Some(remark) = pins.compare(&believed.check) {
            believed.remarks.insert(0, remark);
        }
        read.push(ReadChain { gateway: chain.gateway, name, believed });
    }
    Ok(ReadChains { chains: read, damage })
}

/// What is wrong with a chain without a line.
pub(crate) const EMPTY: &str = "has no line, though the gateway is named";

/// What is wrong with a chain that lies there both ways.
pub(crate) const TWICE: &str = "is there as a file and in pieces: remove the one that does not belong here";

/// A link to one is none: nothing of an archive is read through links.
fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// The chains of an archive, by gateway.
pub(crate) fn chains(archive: &Path) -> Result<Vec<Chain>, ManifestError> {
    let dir = archive.join("manifest");
    let failed = |source| ManifestError::Io { operation: "read", path: dir.clone(), source };
    let mut chains: Vec<Chain> = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Whatever lies there under the name of a chain: one that cannot be read must not look like none.
        let gateway = name.strip_suffix(JSONL).or_else(|| gateway_of(name));
        if let Some(gateway) = gateway {
            chains.push(Chain { gateway: gateway.to_owned(), path: path.clone(), is_twice: false });
        }
    }
    // The file before the directory: `.jsonl` before `.lines`.
    chains.sort_by(|left, right| (&left.gateway, &left.path).cmp(&(&right.gateway, &right.path)));
    chains.dedup_by(|later, first| {
        first.is_twice |= later.gateway == first.gateway;
        later.gateway == first.gateway
    });
    Ok(chains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_in_the_order_of_their_lines() {
        let dir = tempfile::tempdir().unwrap();
        for (first_line, text) in [(1, "a\nb\n"), (3, "c\n"), (10, "j\n")] {
            let path = dir.path().join(path("g.lines", first_line));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(dir.path().join("manifest/g.lines.lines/notes"), "x").unwrap();
        fs::write(dir.path().join("manifest/h.jsonl"), "h\n").unwrap();
        let found = chains(dir.path()).unwrap();
        let names: Vec<_> = found.iter().map(|chain| (chain.gateway.as_str(), chain.is_twice)).collect();
        assert_eq!(names, [("g.lines", false), ("h", false)]);
        assert_eq!(found[0].read().unwrap(), b"a\nb\nc\nj\n");
        assert_eq!(found[1].read().unwrap(), b"h\n");
        fs::write(dir.path().join("manifest/g.lines.jsonl"), "a\n").unwrap();
        let found = chains(dir.path()).unwrap();
        assert!(found[0].is_twice && found[0].read().unwrap() == b"a\n", "the gateway's own file first");
    }

    #[test]
    fn pieces_hold_whole_lines_and_are_named_by_their_first() {
        let wrong = |pieces: &[(u64, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            for (first_line, text) in pieces {
                let path = dir.path().join(path("g", *first_line));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let mut wrong = Vec::new();
            chains(dir.path()).unwrap()[0].read_finding(|what| wrong.push(what)).unwrap();
            wrong.len()
        };
        assert_eq!(wrong(&[(1, "a\nb\n"), (3, "c\n")]), 0);
        assert_eq!(wrong(&[(1, "a\nb\n"), (2, "c\n")]), 1, "named by another number");
        assert_eq!(wrong(&[(2, "a\n")]), 1, "the first is gone");
        assert_eq!(wrong(&[(1, "a\n"), (2, ""), (3, "c\n")]), 2, "an empty piece, and a number that is not the next");
        assert_eq!(wrong(&[(1, "a\nb"), (2, "\nc\n")]), 1, "a line in two pieces");
    }

    #[test]
    fn what_lies_there_under_the_name_of_a_chain_is_one_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("manifest/g.jsonl")).unwrap();
        fs::write(dir.path().join("manifest/h.lines"), "x").unwrap();
        let found = chains(dir.path()).unwrap();
        assert_eq!(found.iter().map(|chain| chain.gateway.as_str()).collect::<Vec<_>>(), ["g", "h"]);
        assert!(found.iter().all(|chain| chain.read().is_err()));
    }

    #[test]
    fn names_of_pieces_sort_as_their_lines() {
        assert_eq!(path("gw.1", 7), "manifest/gw.1.lines/000000000007.jsonl");
        assert_eq!(first_line("000000000007.jsonl"), Some(7));
        for name in ["7.jsonl", "000000000007", "00000000000x.jsonl", "+00000000007.jsonl"] {
            assert_eq!(first_line(name), None, "{name}");
        }
    }
}
