//! How files of an archive are opened, by whoever opens them: below its root, behind no link, and only regular ones.
//!
//! Others may write to an archive: a shipper, an operator, whoever carries disks. A link would have root read, change or remove what lies
//! elsewhere; a FIFO would have it wait for ever; a device would fill its memory. So no part of a path below the root may be a link
//! (`openat2(2)`, Linux 5.6; before that, and where a sandbox refuses the call, each part is opened by itself), what is opened must be a
//! regular file, and what is read whole has a longest length. A file that is written or overwritten where it lies must have one name only:
//! a second one (`link(2)`) may be anybody's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::durable;
use crate::layout::FileName;
use crate::pieces;

/// Longest chain, audit log or file of receipts that is read whole.
pub const LINES_BYTES_MAX: u64 = 4 << 30;
/// Longest file that somebody places by hand: a hold, a recipient, a public key.
pub const SMALL_BYTES_MAX: u64 = 16 << 20;

/// Opens a file to be read. `NotFound` where it is not there.
pub fn open(root: &Path, relative: impl AsRef<Path>) -> io::Result<File> {
    let file = open_as(root, relative.as_ref(), OFlags::RDONLY)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Opens a file by its whole path. Its root is where the path stops being one that an archive has; of another path only the file itself is
/// looked at.
pub fn open_path(path: &Path) -> io::Result<File> {
    match split(path) {
        Some((root, relative)) => open(root, relative),
        None => open_other(path),
    }
}

/// Opens a file that a person named, wherever it is: a link is followed, and it is a regular file all the same.
pub fn open_other(path: &Path) -> io::Result<File> {
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | ALWAYS, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Reads a file to its end; one that is longer than `bytes_max` is an error.
pub fn read(root: &Path, relative: impl AsRef<Path>, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_open(open(root, relative)?, bytes_max)
}

/// The same of text.
pub fn read_text(root: &Path, relative: impl AsRef<Path>, bytes_max: u64) -> io::Result<String> {
    let bytes = read(root, relative, bytes_max)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What is left of an open file.
pub fn read_open(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    let too_long = || io::Error::other(format!("it is longer than {bytes_max} bytes"));
    if len > bytes_max {
        return Err(too_long());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    let read = file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > bytes_max { Err(too_long()) } else { Ok(bytes) }
}

/// How a file is opened that is changed where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// At its end; made where it is not there.
    Begin,
    /// At its end; it is there.
    Append,
    /// Anywhere; it is there.
    Write,
}

/// Opens a file to be changed where it lies. Whoever changes it must be the only one who calls it by a name.
pub(crate) fn open_own(root: &Path, relative: impl AsRef<Path>, change: Change) -> io::Result<File> {
    let relative = relative.as_ref();
    let name = relative.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Dir::open(root, relative.parent().unwrap_or(Path::new("")))?.open_own(name, change)
}

/// A regular file with one name.
pub(crate) fn own(file: File) -> io::Result<File> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(not_regular());
    }
    if metadata.nlink() > 1 {
        return Err(io::Error::other("it has another name elsewhere (a hard link): put a copy of it into its place"));
    }
    Ok(file)
}

/// A directory of an archive, behind no link.
pub(crate) struct Dir(File);

impl Dir {
    pub(crate) fn open(root: &Path, relative: impl AsRef<Path>) -> io::Result<Self> {
        open_as(root, relative.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY).map(Self)
    }

    /// Opens one of its files to be read.
    pub(crate) fn file(&self, name: &str) -> io::Result<File> {
        let file = self.open_as(name, OFlags::RDONLY)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
    }

    /// Opens one of its files to be overwritten.
    pub(crate) fn own_file(&self, name: &str) -> io::Result<File> {
        self.open_own(name, Change::Write)
    }

    fn open_own(&self, name: &str, change: Change) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).append(change != Change::Write).create(change == Change::Begin);
        options.custom_flags((ALWAYS | OFlags::NOFOLLOW).bits().cast_signed());
        match options.open(self.inner(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.why_not_found(name, error)),
            opened => own(opened.map_err(said_by)?),
        }
    }

    /// The path of a name in it, by the directory that is open, wherever that lies by now. Through it the standard library does what it
    /// would do by a path.
    fn inner(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }

    /// What is there and is not found by [`Self::inner`] is no new file: there is no `/proc`.
    fn why_not_found(&self, name: &str, error: io::Error) -> io::Error {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Err(Errno::NOENT) if Path::new("/proc/self/fd").exists() => error,
            _ => io::Error::other("/proc is needed, and is not mounted"),
        }
    }

    fn open_as(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let opened = rustix::fs::openat(&self.0, name, flags | ALWAYS | OFlags::NOFOLLOW, Mode::empty());
        opened.map(File::from).map_err(said)
    }

    /// The names in it.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// Removes a name in it, whatever that names but a directory. One that is not there is removed already.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.inner(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// Makes a directory of an archive; one that is there, or one above it, must be no link.
pub(crate) fn make_dir(root: &Path, relative: &Path) -> io::Result<()> {
    let mut within = PathBuf::new();
    for part in relative.components() {
        within.push(part);
        match Dir::open(root, &within) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => durable::make_dir(&root.join(&within))?,
            opened => drop(opened?),
        }
    }
    Ok(())
}

/// The same of the directory that a file is to lie in, by the file's whole path.
pub(crate) fn make_parent(path: &Path) -> io::Result<()> {
    match split(path) {
        Some((root, relative)) => {
            durable::make_dir(root)?;
            make_dir(root, relative.parent().unwrap_or(Path::new("")))
        }
        None => path.parent().map_or(Ok(()), durable::make_dir),
    }
}

/// Removes a file of an archive. `Ok(false)`: it was not there.
pub fn remove(root: &Path, relative: impl AsRef<Path>) -> io::Result<bool> {
    let relative = relative.as_ref();
    let name = relative.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    let dir = match Dir::open(root, relative.parent().unwrap_or(Path::new(""))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        dir => dir?,
    };
    match fs::remove_file(dir.inner(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.and_then(|()| dir.sync()).map(|()| true),
    }
}

/// With every open: no waiting for whoever is at the other end, no terminal, no file that a child inherits.
const ALWAYS: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

fn open_as(root: &Path, relative: &Path, flags: OFlags) -> io::Result<File> {
    if relative.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no path below the archive"));
    }
    let in_root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = flags | ALWAYS | OFlags::NOFOLLOW;
    let (mode, here) = (Mode::empty(), Path::new("."));
    let relative = if relative.as_os_str().is_empty() { here } else { relative };
    let no_links = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = match rustix::fs::openat2(&in_root, relative, flags, mode, no_links) {
        Err(Errno::NOSYS | Errno::PERM) => part_by_part(&in_root, relative, flags, mode),
        opened => opened,
    };
    opened.map(File::from).map_err(said)
}

/// The same on a kernel before 5.6.
fn part_by_part(root: impl AsFd, relative: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let mut dir: Option<OwnedFd> = None;
    for part in relative.parent().into_iter().flat_map(Path::components) {
        let within = dir.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = Some(rustix::fs::openat(within, part.as_os_str(), flags, Mode::empty())?);
    }
    let within = dir.as_ref().map_or(root.as_fd(), AsFd::as_fd);
    rustix::fs::openat(within, relative.file_name().unwrap_or(".".as_ref()), flags, mode)
}

fn said_by(error: io::Error) -> io::Error {
    Errno::from_io_error(&error).map_or(error, said)
}

/// In words that say what to look for.
fn said(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => {
            io::Error::other("it is a link, or lies behind one: nothing of an archive is read or written through links")
        }
        // A FIFO that nobody reads, a socket.
        Errno::NXIO => not_regular(),
        error => error.into(),
    }
}

fn not_regular() -> io::Error {
    io::Error::other("it is no regular file")
}

/// An archive's root and what lies below it, by a path that ends as one of an archive does.
fn split(path: &Path) -> Option<(&Path, PathBuf)> {
    let name = path.file_name()?.to_str()?;
    let dir = path.parent()?;
    let up = |levels: usize| path.ancestors().nth(levels);
    let below = |levels: usize| Some((up(levels)?, path.strip_prefix(up(levels)?).ok()?.to_path_buf()));
    let parent = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if matches!(parent, "manifest" | "holds" | "checkpoints" | "recipients" | "shipped") {
        return below(2);
    }
    if pieces::gateway_of(parent).is_some() && up(2)?.ends_with("manifest") {
        return below(3);
    }
    let (_, relative) = below(4)?;
    // A key that was added has an id between the name and its end.
    let own =
        name.strip_suffix(".age").and_then(|name| name.rsplit_once('.')).filter(|(name, _)| name.ends_with(".parquet"));
    let own = own.map_or_else(|| relative.clone(), |(name, _)| relative.with_file_name(name));
    FileName::parse(own.to_str()?)?;
    below(4)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn archive() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("archive");
        fs::create_dir_all(root.join("flows/site=s")).unwrap();
        fs::write(root.join("flows/site=s/own"), "own").unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::create_dir(dir.path().join("elsewhere")).unwrap();
        fs::write(dir.path().join("elsewhere/own"), "other").unwrap();
        (dir, root)
    }

    #[test]
    fn nothing_is_opened_or_removed_but_regular_files_behind_no_link() {
        let (dir, root) = archive();
        symlink(dir.path().join("secret"), root.join("link")).unwrap();
        symlink(dir.path().join("nothing"), root.join("dangling")).unwrap();
        symlink(dir.path().join("elsewhere"), root.join("flows/site=t")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let refused = ["link", "dangling", "flows/site=t/own", "fifo", "flows", "../secret", "/etc/passwd", ""];
        for path in refused {
            let error = open(&root, path).unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::NotFound, "{path}: {error}");
            assert!(
                [Change::Begin, Change::Append, Change::Write].iter().all(|how| open_own(&root, path, *how).is_err())
            );
        }
        assert!(!dir.path().join("nothing").exists());
        assert!(remove(&root, "flows/site=t/own").is_err() && dir.path().join("elsewhere/own").exists());
        assert!(remove(&root, "flows/site=s/own").unwrap() && !remove(&root, "flows/site=s/own").unwrap());
        assert!(remove(&root, "link").unwrap() && dir.path().join("secret").exists(), "the link itself goes");
    }

    #[test]
    fn a_kernel_without_the_call_opens_the_same() {
        let (dir, root) = archive();
        symlink(dir.path().join("elsewhere"), root.join("flows/site=t")).unwrap();
        symlink(dir.path().join("secret"), root.join("flows/site=s/link")).unwrap();
        let in_root = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let flags = OFlags::RDONLY | ALWAYS | OFlags::NOFOLLOW;
        let opened = |path: &str| part_by_part(&in_root, Path::new(path), flags, Mode::empty());
        assert_eq!(read_open(opened("flows/site=s/own").unwrap().into(), 9).unwrap(), b"own");
        assert!(opened("flows/site=t/own").is_err() && opened("flows/site=s/link").is_err());
        assert_eq!(opened("flows/site=s/none").unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn what_is_changed_has_one_name_and_what_is_read_a_longest_length() {
        let (dir, root) = archive();
        assert!(open_own(&root, "flows/site=s/own", Change::Write).is_ok());
        fs::hard_link(dir.path().join("secret"), root.join("hard")).unwrap();
        assert!(open_own(&root, "hard", Change::Write).is_err() && open_own(&root, "hard", Change::Append).is_err());
        assert_eq!(read(&root, "hard", 6).unwrap(), b"secret", "reading it does no harm");
        assert!(read(&root, "hard", 5).is_err());
        assert!(open_own(&root, "new", Change::Append).is_err() && open_own(&root, "new", Change::Begin).is_ok());
    }

    #[test]
    fn the_root_of_a_path_is_where_the_archive_begins() {
        let file = "flows/site=s/date=2026-11-23/g-0000000007.parquet";
        for relative in [
            file,
            &format!("{file}.age"),
            &format!("{file}.0011223344556677.age"),
            "manifest/g.pub",
            "manifest/g.lines/000000000001.jsonl",
            "holds/C-1.json",
            "checkpoints/g.jsonl",
        ] {
            let path = Path::new("/srv/archive").join(relative);
            assert_eq!(split(&path), Some((Path::new("/srv/archive"), relative.into())), "{relative}");
        }
        for path in ["x.parquet", "/srv/site=s/date=2026-11-23/g-0000000007.parquet", "/srv/x.age"] {
            assert_eq!(split(Path::new(path)), None, "{path}");
        }
        assert_eq!(split(Path::new(file)).map(|(root, _)| root), Some(Path::new("")));
    }
}
