//! The checkpoints that lie beside a chain: `checkpoints/<gateway>.jsonl`, from which others make requests to witnesses and authorities.
//!
//! Nobody believes an archive for what lies in it: these prove nothing until somebody outside has signed for them. The file is bounded: of the
//! last week one checkpoint per hour stays, of the time before one per day, and every one that has a time stamp.

use std::io::{self, Read, Write};
use std::path::Path;

use hotspot_core::WallNs;

use crate::checkpoint::{SignedCheckpoint, parse_checkpoint};
use crate::durable;
use crate::regular;
use crate::stamp;

/// Where checkpoints and their time stamps lie in an archive.
pub const DIRECTORY: &str = "checkpoints";
/// Longest file that is read: forty years of hourly stamps.
pub const BYTES_MAX: u64 = 256 << 20;

const HOUR_NS: i64 = 3_600_000_000_000;
const DAY_NS: i64 = 24 * HOUR_NS;
/// How long one per hour stays.
const HOURLY_NS: i64 = 7 * DAY_NS;

/// Where the checkpoints of a gateway lie, relative to the archive.
#[must_use]
pub fn path(gateway: &str) -> String {
    format!("{DIRECTORY}/{gateway}.jsonl")
}

/// The gateway whose checkpoints a file of the directory holds.
#[must_use]
pub fn gateway_of(path: &str) -> Option<&str> {
    path.strip_prefix(DIRECTORY)?.strip_prefix('/')?.strip_suffix(".jsonl").filter(|name| !name.contains('/'))
}

/// The lines there are; none where there is no file.
pub fn read(archive: &Path, gateway: &str) -> io::Result<Vec<String>> {
    let file = match regular::open(archive, path(gateway)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    if file.take(BYTES_MAX + 1).read_to_end(&mut text)? as u64 > BYTES_MAX {
        return Err(io::Error::other("it is longer than 256 MiB; move it away, and keep it"));
    }
    // Bytes that are no text cost their line only, which then says nothing.
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
}

/// Adds a checkpoint, and lets those go that are no longer needed.
pub fn keep(archive: &Path, gateway: &str, checkpoint: &str) -> io::Result<()> {
    let mut lines = read(archive, gateway)?;
    lines.push(checkpoint.to_owned());
    let kept = thinned(lines, gateway, |line| archive.join(stamp::path(gateway, line)).exists());
    let path = archive.join(path(gateway));
    regular::make_dir(archive, Path::new(DIRECTORY))?;
    durable::replace(&path, |file| kept.iter().try_for_each(|line| writeln!(file, "{line}")))
}

/// When the last checkpoint that has a time stamp was made.
pub fn stamped_ns(archive: &Path, gateway: &str) -> io::Result<Option<WallNs>> {
    let lines = read(archive, gateway)?;
    let checkpoints = lines.iter().rev().filter_map(|line| parse_checkpoint(line));
    let is_stamped = |kept: &SignedCheckpoint| archive.join(stamp::path(gateway, kept.checkpoint.line)).exists();
    Ok(checkpoints.filter(is_stamped).map(|kept| kept.checkpoint.at_ns).next())
}

/// Keeps the reply of an authority beside the chain, whole or not at all.
pub fn keep_stamp(archive: &Path, gateway: &str, line: u64, reply: &[u8]) -> io::Result<()> {
    regular::make_dir(archive, Path::new(DIRECTORY))?;
    durable::replace(&archive.join(stamp::path(gateway, line)), |file| file.write_all(reply))
}

/// What stays of lines in the order in which they were made.
fn thinned(lines: Vec<String>, gateway: &str, is_stamped: impl Fn(u64) -> bool) -> Vec<String> {
    let all: Vec<(String, SignedCheckpoint)> = lines
        .into_iter()
        .filter_map(|line| parse_checkpoint(&line).map(|kept| (line, kept)))
        .filter(|(_, kept)| kept.checkpoint.gateway == gateway)
        .collect();
    let newest_ns = all.last().map_or(0, |(_, kept)| kept.checkpoint.at_ns);
    let period = |at_ns: WallNs| {
        let length_ns = if newest_ns.saturating_sub(at_ns) < HOURLY_NS { HOUR_NS } else { DAY_NS };
        (length_ns, at_ns.div_euclid(length_ns))
    };
    let is_last = |at: usize| {
        let next = all.get(at + 1);
        next.is_none_or(|(_, next)| period(next.checkpoint.at_ns) != period(all[at].1.checkpoint.at_ns))
    };
    let stays: Vec<bool> = (0..all.len()).map(|at| is_last(at) || is_stamped(all[at].1.checkpoint.line)).collect();
    all.into_iter().zip(stays).filter(|(_, stays)| *stays).map(|((line, _), _)| line).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// One as a gateway makes them; nothing here looks at its signature.
    fn checkpoint(line: u64, at_ns: i64) -> String {
        let (hash, signature) = ("00".repeat(32), "00".repeat(64));
        format!(
            "{{\"checkpoint\":1,\"gateway\":\"g\",\"line\":{line},\"sequence\":{line},\"at_ns\":{at_ns},\"hash\":\"{hash}\",\"key\":\"k\",\
             \"signature\":\"{signature}\"}}"
        )
    }

    fn lines_of(archive: &Path) -> Vec<u64> {
        read(archive, "g").unwrap().iter().map(|line| parse_checkpoint(line).unwrap().checkpoint.line).collect()
    }

    #[test]
    fn a_year_of_checkpoints_leaves_hours_days_stamps_and_the_newest() {
        let mut lines = Vec::new();
        let minutes = 365 * 1440;
        for line in (5..=minutes).step_by(5) {
            lines.push(checkpoint(line, line.cast_signed() * HOUR_NS / 60));
            if line % 14_400 == 0 {
                // As an agent would, but not each time: the result is the same.
                lines = thinned(lines, "g", |line| line == 7205);
            }
        }
        lines = thinned(lines, "g", |line| line == 7205);
        let left: Vec<u64> = lines.iter().map(|line| parse_checkpoint(line).unwrap().checkpoint.line).collect();
        assert!(left.contains(&7205), "stamped");
        assert_eq!(left.last(), Some(&minutes));
        let week: Vec<_> = left.iter().filter(|line| **line > minutes - 7 * 1440).collect();
        assert!((7 * 24..=7 * 24 + 2).contains(&week.len()), "{}", week.len());
        let before = left.len() - week.len();
        assert!((358..=361).contains(&before), "one a day, and the stamped one: {before}");
    }

    #[test]
    fn the_newest_takes_the_place_of_the_one_of_its_hour() {
        let dir = tempfile::tempdir().unwrap();
        for (line, minute) in [(1, 0), (2, 5), (3, 55), (4, 60), (5, 65)] {
            keep(dir.path(), "g", &checkpoint(line, minute * HOUR_NS / 60)).unwrap();
            if line == 2 {
                keep_stamp(dir.path(), "g", 2, b"reply").unwrap();
            }
        }
        assert_eq!(lines_of(dir.path()), [2, 3, 5]);
        assert_eq!(stamped_ns(dir.path(), "g").unwrap(), Some(5 * HOUR_NS / 60));
        // What is none, or of another gateway, does not stay.
        let path = dir.path().join(path("g"));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}nonsense\n{}\n", checkpoint(9, 0).replace("\"g\"", "\"h\""))).unwrap();
        keep(dir.path(), "g", &checkpoint(6, 2 * HOUR_NS)).unwrap();
        assert_eq!(lines_of(dir.path()), [2, 3, 5, 6]);
    }

    #[test]
    fn a_clock_that_was_set_back_loses_no_checkpoint_but_of_its_hour() {
        let made = [(1, 10), (2, 11), (3, 4), (4, 5)].map(|(line, hour)| checkpoint(line, hour * HOUR_NS));
        assert_eq!(thinned(made.to_vec(), "g", |_| false).len(), 4);
    }
}
