//! Nonces of signed requests that were taken, so that none is taken twice: in memory, and on disk before a request is answered.
//!
//! Two files take turns. A nonce is of no use once its time has left the window, so the file that was left at one turn is empty at the
//! next, and nothing has to be rewritten. Each nonce belongs to the key it was signed with: one portal's nonces are not another's.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::authorize::WINDOW_S;

/// Nonces remembered; beyond it signed requests wait for old ones to leave the window.
const NONCES_MAX: usize = 1 << 20;
/// What is written may be signed up to a window ahead, and counts for a window after that; and half of one to spare.
const TURN_AFTER: Duration = Duration::from_secs(WINDOW_S.unsigned_abs() * 5 / 2);

/// Names a key without telling it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyId([u8; 8]);

impl KeyId {
    pub(super) fn of(key: &[u8]) -> Self {
        let mut hash = Sha256::new_with_prefix("hotspot portal key 1");
        hash.update(key);
        let mut id = [0; 8];
        id.copy_from_slice(&hash.finalize()[..8]);
        Self(id)
    }
}

/// What became of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Now,
    Before,
    TooMany,
    /// It could not be written, and is free again.
    NotKept,
}

pub(super) struct Nonces {
    /// With the time each was signed at, seconds.
    taken: Mutex<HashMap<(KeyId, Vec<u8>), i64>>,
    files: Mutex<Files>,
}

struct Files {
    current: File,
    paths: [PathBuf; 2],
    /// Which of them is the current one.
    turn: usize,
    since: Instant,
}

impl Nonces {
    /// Reads what was taken before, from the two files whose names begin with `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let paths = ["0", "1"].map(|turn| path.with_extension(turn));
        let mut taken = HashMap::new();
        let mut latest = [i64::MIN; 2];
        for (path, latest) in paths.iter().zip(&mut latest) {
            let text = match fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // A last line that a power cut tore was not answered.
            for (key, nonce, at_s) in text.lines().filter_map(parsed) {
                *latest = at_s;
                taken.insert((key, nonce), at_s);
            }
        }
        let turn = usize::from(latest[1] > latest[0]);
        let files = Files { current: opened(&paths[turn], false)?, paths, turn, since: Instant::now() };
        // The name of a new file must last as its lines do.
        files.sync_dir()?;
        Ok(Self { taken: Mutex::new(taken), files: Mutex::new(files) })
    }

    pub(super) fn has(&self, key: KeyId, nonce: &[u8], now_s: i64) -> bool {
        locked(&self.taken).get(&(key, nonce.to_vec())).is_some_and(|at_s| counts(*at_s, now_s))
    }

    /// Takes a nonce, which is on disk when this returns.
    pub(super) fn take(&self, key: KeyId, nonce: Vec<u8>, at_s: i64, now_s: i64) -> Taken {
        let line = line_of(key, &nonce, at_s);
        {
            let mut taken = locked(&self.taken);
            if taken.len() >= NONCES_MAX {
                taken.retain(|_, at_s| counts(*at_s, now_s));
                if taken.len() >= NONCES_MAX {
                    return Taken::TooMany;
                }
            }
            if taken.insert((key, nonce.clone()), at_s).is_some_and(|before_s| counts(before_s, now_s)) {
                return Taken::Before;
            }
        }
        if locked(&self.files).append(&line).is_err() {
            locked(&self.taken).remove(&(key, nonce));
            return Taken::NotKept;
        }
        Taken::Now
    }
}

impl Files {
    fn append(&mut self, line: &str) -> io::Result<()> {
        if self.since.elapsed() >= TURN_AFTER {
            let next = 1 - self.turn;
            self.current = opened(&self.paths[next], true)?;
            self.sync_dir()?;
            (self.turn, self.since) = (next, Instant::now());
        }
        self.current.write_all(line.as_bytes())?;
        self.current.sync_data()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.paths[0].parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

fn opened(path: &Path, empties: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)?;
    if empties {
        file.set_len(0)?;
    }
    Ok(file)
}

fn counts(at_s: i64, now_s: i64) -> bool {
    at_s.abs_diff(now_s) <= WINDOW_S.unsigned_abs()
}

/// Begins with a line feed, so that a line a full disk cut short spoils no other; ends with one, so that a torn line is told from a whole one.
fn line_of(key: KeyId, nonce: &[u8], at_s: i64) -> String {
    let hex = base16ct::lower::encode_string;
    format!("\n{at_s} {} {} .\n", hex(&key.0), hex(nonce))
}

fn parsed(line: &str) -> Option<(KeyId, Vec<u8>, i64)> {
    let mut words = line.strip_suffix(" .")?.split(' ');
    let at_s = words.next()?.parse().ok()?;
    let mut key = [0; 8];
    base16ct::lower::decode(words.next()?, &mut key).ok()?;
    Some((KeyId(key), base16ct::lower::decode_vec(words.next()?).ok()?, at_s))
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing can panic while holding it, and a panic ends the process anyway.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: i64 = 1_795_392_000;

    fn of(key: &str) -> KeyId {
        KeyId::of(key.as_bytes())
    }

    #[test]
    fn a_nonce_that_was_taken_is_taken_also_after_a_restart_and_only_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nonces");
        let take = |nonces: &Nonces, key, nonce: &str, now_s| nonces.take(of(key), nonce.into(), NOW_S, now_s);
        let nonces = Nonces::open(&path).unwrap();
        assert_eq!(take(&nonces, "a", "1 with blanks", NOW_S), Taken::Now);
        assert_eq!(take(&nonces, "a", "1 with blanks", NOW_S + 1), Taken::Before);
        assert_eq!(take(&nonces, "b", "1 with blanks", NOW_S), Taken::Now, "another portal's");
        drop(nonces);
        let nonces = Nonces::open(&path).unwrap();
        assert!(nonces.has(of("a"), b"1 with blanks", NOW_S + 300) && !nonces.has(of("a"), b"2", NOW_S));
        assert_eq!(take(&nonces, "a", "1 with blanks", NOW_S + 300), Taken::Before);
        assert_eq!(take(&nonces, "a", "2", NOW_S), Taken::Now);
    }

    #[test]
    fn the_file_that_was_left_is_emptied_and_the_current_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nonces");
        let nonces = Nonces::open(&path).unwrap();
        let turn = |nonce: &str| {
            locked(&nonces.files).since = Instant::now().checked_sub(TURN_AFTER).unwrap();
            assert_eq!(nonces.take(of("a"), nonce.into(), NOW_S, NOW_S), Taken::Now);
        };
        let lines = |turn: &str| {
            let text = fs::read_to_string(path.with_extension(turn)).unwrap();
            text.lines().filter_map(parsed).map(|(_, nonce, _)| nonce).collect::<Vec<_>>()
        };
        assert_eq!(nonces.take(of("a"), b"1".to_vec(), NOW_S, NOW_S), Taken::Now);
        turn("2");
        assert_eq!((lines("0"), lines("1")), (vec![b"1".to_vec()], vec![b"2".to_vec()]));
        turn("3");
        assert_eq!((lines("0"), lines("1")), (vec![b"3".to_vec()], vec![b"2".to_vec()]));
    }

    #[test]
    fn what_cannot_be_written_is_not_taken_and_is_free_again() {
        let dir = tempfile::tempdir().unwrap();
        let nonces = Nonces::open(&dir.path().join("nonces")).unwrap();
        let whole = std::mem::replace(&mut locked(&nonces.files).current, File::create("/dev/full").unwrap());
        assert_eq!(nonces.take(of("a"), b"1".to_vec(), NOW_S, NOW_S), Taken::NotKept);
        locked(&nonces.files).current = whole;
        assert_eq!(nonces.take(of("a"), b"1".to_vec(), NOW_S, NOW_S), Taken::Now);
    }

    #[test]
    fn a_line_that_was_cut_anywhere_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nonces");
        let (whole, torn) = (line_of(of("a"), b"first", NOW_S), line_of(of("a"), b"second", NOW_S));
        for cut in 0..torn.len() {
            fs::write(path.with_extension("0"), format!("{}{}", whole, &torn[..cut])).unwrap();
            let nonces = Nonces::open(&path).unwrap();
            assert_eq!(nonces.take(of("a"), b"third".to_vec(), NOW_S, NOW_S), Taken::Now);
            let nonces = Nonces::open(&path).unwrap();
            assert!(nonces.has(of("a"), b"first", NOW_S) && nonces.has(of("a"), b"third", NOW_S), "cut at {cut}");
        }
    }
}
