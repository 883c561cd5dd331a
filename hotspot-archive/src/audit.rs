//! The audit log: who asked an archive what, when, and for which case. A line is on disk before the first result is shown.
//!
//! Owns one file of JSON lines, each naming the hash of the line before it. Guarantees that lines are only ever added, by one
//! process at a time, and that a line that could not be flushed is an error. It has no key: whoever can write the file can write
//! a whole other one, so its last hash belongs somewhere else too. Format: `docs/formats/audit.md`.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::durable;
use crate::manifest::{NO_LINE, to_hex};
use crate::regular;

/// Version of the line.
pub const FORMAT: u32 = 1;
/// Longest log that is continued: a million of long questions.
const BYTES_MAX: u64 = 1 << 30;

/// Why a question was not recorded, and so must not be answered.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log {} cannot be {operation}: {source}; name another with --audit FILE", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("the audit log {} is longer than 1 GiB; move it away, and keep it", path.display())]
    TooLong { path: PathBuf },
    #[error("{} asks for a case: name it with --case REFERENCE", path.display())]
    NoCase { path: PathBuf },
    #[error("{} asks for the archive's own log: leave --audit away", path.display())]
    AnotherLog { path: PathBuf },
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    pub uid: u32,
    /// The name of that user, where it has one.
    pub name: Option<String>,
    /// Who became that user by sudo.
    pub sudo_uid: Option<u32>,
}

/// What is recorded of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// When, RFC 3339 in UTC.
    pub at: String,
    pub requester: Requester,
    /// The request's reference, as the requester gave it.
    pub case: Option<String>,
    /// `find`, `who`, `decode`, `hold`, `hold lift`, `keys add`, `keys rewrap` or `keys unwrap`.
    pub command: String,
    /// The archive or file that is asked.
    pub of: String,
    /// Everything that decides what is found.
    pub query: std::collections::BTreeMap<String, String>,
    pub software: String,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    format: u32,
    sequence: u64,
    #[serde(flatten)]
    question: Question,
    /// SHA-256 of the line before, without its line feed; zeros for the first.
    prev: String,
}

/// Where the log of an archive lies, unless another is named.
#[must_use]
pub fn default_path(archive: &Path) -> PathBuf {
    archive.join("audit").join("queries.jsonl")
}

/// A file of this name beside the log makes a case obligatory.
pub const CASE_REQUIRED: &str = "case-required";
/// A file of this name beside an archive's own log refuses questions that are to be recorded in another.
pub const OWN_LOG_REQUIRED: &str = "own-log-required";

/// Where a question to an archive is recorded: in its own log, or in the one that was named where the archive does not demand its own.
pub fn log_for(archive: &Path, named: Option<&Path>) -> Result<PathBuf, AuditError> {
    let own = default_path(archive);
    let Some(named) = named else { return Ok(own) };
    let marker = own.with_file_name(OWN_LOG_REQUIRED);
    let place = |path: &Path| {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some((dir.canonicalize().ok()?, path.file_name()?.to_owned()))
    };
    if marker.exists() && place(named) != place(&own) {
        return Err(AuditError::AnotherLog { path: marker });
    }
    Ok(named.to_path_buf())
}

/// Whether a reference names nothing.
#[must_use]
pub fn is_blank(case: &str) -> bool {
    !case.chars().any(char::is_alphanumeric)
}

/// Records a question; when this returns, it is on disk.
pub fn record(path: &Path, question: &Question) -> Result<(), AuditError> {
    let failed = |operation| move |source| AuditError::Io { operation, path: path.to_path_buf(), source };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    if let Some(dir) = dir {
        durable::make_dir(dir).map_err(failed("created"))?;
        let marker = dir.join(CASE_REQUIRED);
        if question.case.as_deref().is_none_or(is_blank) && marker.exists() {
            return Err(AuditError::NoCase { path: marker });
        }
    }
    // A FIFO that nobody reads would have it wait.
    let flags = durable::NO_LINK | rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create(true).mode(0o640).custom_flags(flags).open(path);
    let mut file = file.map_err(failed("opened for writing"))?;
    // Others wait: each line names the hash of the one before.
    flock(&file, FlockOperation::LockExclusive).map_err(|error| failed("locked")(error.into()))?;
    let metadata = file.metadata().map_err(failed("read"))?;
    if !metadata.is_file() {
        return Err(failed("used")(io::Error::other("it is no regular file")));
    }
    if metadata.len() > BYTES_MAX {
        return Err(AuditError::TooLong { path: path.to_path_buf() });
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed("read"))?;
    // A line without its end was not flushed, so its question was not answered; it stays, and the chain covers it.
    let torn = if bytes.is_empty() || bytes.ends_with(b"\n") { "" } else { "\n" };
    let lines = lines(&bytes);
    let line = Line {
        format: FORMAT,
        sequence: lines.len() as u64 + 1,
        question: question.clone(),
        prev: lines.last().map_or_else(|| NO_LINE.to_owned(), |line| to_hex(&Sha256::digest(line))),
    };
    let text = serde_json::to_string(&line).map_err(|error| failed("written")(error.into()))?;
    file.write_all(format!("{torn}{text}\n").as_bytes()).map_err(failed("written"))?;
    file.sync_all().map_err(failed("flushed"))?;
    dir.map_or(Ok(()), durable::sync_dir).map_err(failed("flushed"))
}

/// How far a log was: its lines, and the hash of the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub lines: u64,
    /// SHA-256 of the last line, without its line feed.
    pub hash: String,
}

/// As much of a log as holds its last line, nearly always.
const TAIL_BYTES: u64 = 1 << 16;

/// The head of a log; `None` where there is no log, or no whole line in it. Reads its end alone, so that it can be asked after each segment.
pub fn head(path: &Path) -> io::Result<Option<Head>> {
    // Whoever may write the directory must not make the one who asks wait, or read something else.
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW).bits().cast_signed();
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > BYTES_MAX {
        return Err(io::Error::other("it is no regular file of 1 GiB at most"));
    }
    for bytes in [TAIL_BYTES, BYTES_MAX] {
        let from = metadata.len().saturating_sub(bytes);
        file.seek(io::SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        Read::by_ref(&mut file).take(bytes).read_to_end(&mut tail)?;
        let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else { continue };
        let begin = tail[..end].iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        let Some(begin) = begin.or((from == 0).then_some(0)) else { continue };
        let (last, hash) = (&tail[begin..end], to_hex(&Sha256::digest(&tail[begin..end])));
        if let Ok(line) = serde_json::from_slice::<Line>(last) {
            return Ok(Some(Head { lines: line.sequence, hash }));
        }
        // One that was never finished has no number: all are counted.
        if from == 0 {
            return Ok(Some(Head { lines: lines(&tail[..=end]).len() as u64, hash }));
        }
    }
    Ok(None)
}

/// One thing that is not as it should be; `line` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    pub line: usize,
    pub what: String,
    /// Not damage: a question that was refused because its line could not be finished.
    pub is_notice: bool,
}

/// Checks a log: every line is one, in order, and names the hash of the one before. Returns how many there are.
pub fn check(path: &Path) -> io::Result<(usize, Vec<Break>)> {
    check_lines(path).map(|(hashes, breaks)| (hashes.len(), breaks))
}

/// The SHA-256 of each line that was finished, of a log in which nothing is wrong.
pub fn finished_hashes(path: &Path) -> io::Result<Vec<[u8; 32]>> {
    let (mut hashes, breaks) = check_lines(path)?;
    if let Some(found) = breaks.iter().find(|found| !found.is_notice) {
        return Err(io::Error::other(format!("line {} {}; run `hotspot verify`", found.line, found.what)));
    }
    // A last one that is being written, or was never finished: it may still get another end.
    let mut last = [0];
    let mut file = regular::open_other(path)?;
    if file.metadata()?.len() > 0 {
        file.seek(io::SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            hashes.pop();
        }
    }
    Ok(hashes)
}

/// The same, with the SHA-256 of each line.
pub(crate) fn check_lines(path: &Path) -> io::Result<(Vec<[u8; 32]>, Vec<Break>)> {
    let mut bytes = Vec::new();
    regular::open_other(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let mut breaks = Vec::new();
    let mut prev = NO_LINE.to_owned();
    let lines = lines(&bytes);
    let mut hashes = Vec::with_capacity(lines.len());
    for (position, text) in lines.iter().enumerate() {
        // Only a following question ends a line that a crash left.
        let is_last = position + 1 == lines.len() && bytes.ends_with(b"\n");
        let mut find =
            |what: &str, is_notice| breaks.push(Break { line: position + 1, what: what.to_owned(), is_notice });
        match serde_json::from_slice::<Line>(text) {
            // A line that was changed later looks the same, but then the next one does not follow.
            Err(_) if is_last => find("is no line of an audit log", false),
            Err(_) => find("was never finished, if the next line follows it; its question was not answered", true),
            Ok(line) => {
                if line.format != FORMAT {
                    find("is of another format", false);
                }
                if line.prev != prev {
                    find("does not follow the line before it: lines were removed, reordered or changed", false);
                }
                if line.sequence != position as u64 + 1 {
                    find("has another number than its place", false);
                }
                if serde_json::to_string(&line).ok().as_deref().map(str::as_bytes) != Some(text) {
                    find("is not written as the tool writes it", false);
                }
            }
        }
        let hash: [u8; 32] = Sha256::digest(text).into();
        prev = to_hex(&hash);
        hashes.push(hash);
    }
    Ok((hashes, breaks))
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let whole = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() { Vec::new() } else { whole.split(|byte| *byte == b'\n').collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(number: usize) -> Question {
        Question {
            at: "2026-11-23T03:02:03.000000Z".into(),
            requester: Requester { uid: 1000, name: Some("anna".into()), sudo_uid: None },
            case: number.is_multiple_of(2).then(|| format!("case {number}")),
            command: "find".into(),
            of: "/srv/archive".into(),
            query: [("filter".to_owned(), format!("user \"{number}\""))].into(),
            software: "hotspot 0.1.0".into(),
        }
    }

    fn written(count: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = default_path(dir.path());
        (1..=count).for_each(|number| record(&path, &question(number)).unwrap());
        (dir, path)
    }

    fn is_whole(path: &Path) -> bool {
        check(path).unwrap().1.iter().all(|found| found.is_notice)
    }

    #[test]
    fn questions_are_chained() {
        let (_dir, path) = written(5);
        assert_eq!(check(&path).unwrap(), (5, Vec::new()));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(
            "{\"format\":1,\"sequence\":1,\"at\":\"2026-11-23T03:02:03.000000Z\",\"requester\":{\"uid\":1000,\"name\":\"anna\""
        ));
    }

    #[test]
    fn the_head_is_the_last_whole_line() {
        let (_dir, path) = written(0);
        assert_eq!(head(&path).unwrap(), None);
        (1..=3).for_each(|number| record(&path, &question(number)).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        let of = |text: &[u8]| to_hex(&Sha256::digest(text.split(|byte| *byte == b'\n').next_back().unwrap()));
        let whole = Some(Head { lines: 3, hash: of(&bytes[..bytes.len() - 1]) });
        assert_eq!(head(&path).unwrap(), whole);
        // A question that is being written, or was never finished.
        std::fs::write(&path, [&bytes, &b"{\"format\":1"[..]].concat()).unwrap();
        assert_eq!(head(&path).unwrap(), whole);
        std::fs::write(&path, [&bytes, &b"{\"format\":1\n{\"fo"[..]].concat()).unwrap();
        assert_eq!(
            head(&path).unwrap().map(|head| head.lines),
            Some(4),
            "it was ended by one that was not finished either"
        );
        let mut long = question(4);
        long.query.insert("filter".into(), "x".repeat(200_000));
        std::fs::write(&path, &bytes).unwrap();
        record(&path, &long).unwrap();
        assert_eq!(head(&path).unwrap().map(|head| head.lines), Some(4), "longer than the end that is read first");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(head(&path).is_err());
    }

    #[test]
    fn every_change_but_of_the_end_is_found() {
        let (_dir, path) = written(4);
        let bytes = std::fs::read(&path).unwrap();
        let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        for at in 0..last {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert!(!is_whole(&path), "byte {at} of {:?}", String::from_utf8_lossy(&changed));
        }
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        for changed in
            [lines[1..].concat(), [lines[0], lines[2], lines[3]].concat(), [lines[0], lines[2], lines[1]].concat()]
        {
            std::fs::write(&path, changed).unwrap();
            assert!(!is_whole(&path));
        }
    }

    #[test]
    fn a_line_that_was_never_finished_stays_and_is_covered() {
        let (_dir, path) = written(3);
        let bytes = std::fs::read(&path).unwrap();
        for cut in bytes.len() - 40..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            record(&path, &question(9)).unwrap();
            assert!(is_whole(&path), "cut at {cut}: {:?}", check(&path).unwrap());
            assert_eq!(check(&path).unwrap().0, 4);
        }
    }

    #[test]
    fn many_at_once_make_one_chain() {
        let (_dir, path) = written(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20).for_each(|number| record(&path, &question(number)).unwrap()));
            }
        });
        assert_eq!(check(&path).unwrap(), (160, Vec::new()));
    }

    #[test]
    fn what_cannot_be_recorded_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            record(dir.path(), &question(1)),
            Err(AuditError::Io { operation: "opened for writing", .. })
        ));
        assert!(matches!(record(Path::new("/dev/full"), &question(1)), Err(AuditError::Io { operation: "used", .. })));
        let path = default_path(dir.path());
        record(&path, &question(1)).unwrap();
        std::fs::write(path.with_file_name(CASE_REQUIRED), "").unwrap();
        assert!(matches!(record(&path, &question(1)), Err(AuditError::NoCase { .. })));
        record(&path, &question(2)).unwrap();
        for blank in ["", " ", "\t", "-", "…"] {
            let question = Question { case: Some(blank.into()), ..question(2) };
            assert!(matches!(record(&path, &question), Err(AuditError::NoCase { .. })), "{blank:?}");
        }
    }

    #[test]
    fn an_archive_that_demands_its_own_log_is_not_asked_by_way_of_another() {
        let (dir, own) = written(1);
        let elsewhere = dir.path().join("elsewhere.jsonl");
        assert_eq!(log_for(dir.path(), Some(&elsewhere)).unwrap(), elsewhere);
        assert_eq!(log_for(dir.path(), None).unwrap(), own);
        std::fs::write(own.with_file_name(OWN_LOG_REQUIRED), "").unwrap();
        assert!(matches!(log_for(dir.path(), Some(&elsewhere)), Err(AuditError::AnotherLog { .. })));
        assert!(matches!(log_for(dir.path(), Some(Path::new("log"))), Err(AuditError::AnotherLog { .. })));
        assert_eq!(log_for(dir.path(), None).unwrap(), own);
        let same = dir.path().join("audit/../audit/queries.jsonl");
        assert_eq!(log_for(dir.path(), Some(&same)).unwrap(), same, "the same file by another path");
    }

    #[test]
    fn a_link_in_the_place_of_the_log_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (link, aim) = (dir.path().join("log"), dir.path().join("aim"));
        std::fs::write(&aim, "").unwrap();
        std::os::unix::fs::symlink(&aim, &link).unwrap();
        assert!(record(&link, &question(1)).is_err());
        assert_eq!(std::fs::read(&aim).unwrap(), b"");
    }
}
