//! The lines of a gateway's manifest here, by number: where each begins, and what it says.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use hotspot_archive::chain::{self, Record};
use hotspot_archive::regular;

use super::about;

/// Where each line of a manifest begins. Lines count from 1.
#[derive(Default)]
pub(crate) struct Lines {
    path: PathBuf,
    /// The offset behind each whole line; what comes after the last of them is still being written.
    ends: Vec<u64>,
}

impl Lines {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut file = regular::open_path(path).map_err(about(path))?;
        let mut buffer = vec![0; 1 << 18];
        let (mut offset, mut ends) = (0u64, Vec::new());
        loop {
            let read = file.read(&mut buffer).map_err(about(path))?;
            if read == 0 {
                return Ok(Self { path: path.to_path_buf(), ends });
            }
            let line_feeds = buffer[..read].iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            ends.extend(line_feeds.map(|(at, _)| offset + at as u64 + 1));
            offset += read as u64;
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Where the bytes of these lines lie, both included.
    pub(crate) fn range(&self, first: u64, last: u64) -> (u64, u64) {
        let end = |line: u64| usize::try_from(line).ok().and_then(|line| self.ends.get(line.checked_sub(1)?)).copied();
        (end(first.saturating_sub(1)).unwrap_or(0), end(last).unwrap_or(0))
    }

    /// The bytes of these lines.
    pub(crate) fn bytes(&self, first: u64, last: u64) -> io::Result<Vec<u8>> {
        let (from, to) = self.range(first, last);
        let mut file = regular::open_path(&self.path).map_err(about(&self.path))?;
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(from));
        read.and_then(|_| file.take(to.saturating_sub(from)).read_to_end(&mut bytes)).map_err(about(&self.path))?;
        Ok(bytes)
    }

    /// What these lines say, each with its number.
    pub(crate) fn records(&self, first: u64, last: u64) -> io::Result<Vec<(u64, Record)>> {
        let bytes = self.bytes(first, last)?;
        let bad = |line: u64| {
            let path = self.path.display();
            io::Error::new(io::ErrorKind::InvalidData, format!("{path}, line {line} is none; run `hotspot verify`"))
        };
        let text = String::from_utf8(bytes).map_err(|_| bad(first))?;
        let lines = (first..).zip(text.lines());
        lines.map(|(number, line)| Ok((number, chain::parse(line).ok_or_else(|| bad(number))?.record))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_its_end_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g.jsonl");
        std::fs::write(&path, "one\ntwo\nthr").unwrap();
        let lines = Lines::read(&path).unwrap();
        assert_eq!(lines.count(), 2);
        assert_eq!(lines.range(1, 1), (0, 4));
        assert_eq!(lines.bytes(1, 2).unwrap(), b"one\ntwo\n");
        assert_eq!(lines.bytes(2, 2).unwrap(), b"two\n");
        assert!(lines.records(1, 1).unwrap_err().to_string().contains("line 1"));
    }
}
