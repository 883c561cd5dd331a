//! Between the program and the C library: what it writes to disk is noted, and made to fail where a test says so.
//!
//! The standard library calls the functions below by name, and the linker takes those of the executable before those of the C library.
//! So the code under test is what is shipped, to the last system call, and nothing in it knows of this. Where no tap is open on a
//! thread they only pass on. With one, calls about files below its directory are counted, noted and perhaps refused, a flush is
//! noted instead of done, and nobody sleeps.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libc::{mode_t, off64_t, size_t, ssize_t};

/// A file, as long as it lives; numbers are not used again.
pub(crate) type FileId = u32;

/// What was done to the disk. Directories are named by their paths below the tap's, as they never move.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    MakeFile {
        path: PathBuf,
        file: FileId,
    },
    MakeDir {
        path: PathBuf,
    },
    Write {
        file: FileId,
        at: u64,
        bytes: Rc<[u8]>,
    },
    SetLen {
        file: FileId,
        len: u64,
    },
    /// Flushed; `failed`: it was tried.
    SyncFile {
        file: FileId,
        failed: bool,
    },
    SyncDir {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// The test's own: what it was told by then.
    Note(usize),
}

/// Calls that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Create,
    OpenToWrite,
    Write,
    Sync,
    SetLen,
    Rename,
    Remove,
}

/// How they fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    DiskFull,
    Quota,
    BadDisk,
    ReadOnly,
    NoInodes,
    /// Half is written and no error is told; then the disk is full.
    ShortWrite,
}

impl Trouble {
    pub(crate) const ALL: [Self; 6] =
        [Self::DiskFull, Self::Quota, Self::BadDisk, Self::ReadOnly, Self::NoInodes, Self::ShortWrite];

    fn errno(self, call: Call) -> Option<c_int> {
        use Call::{Create, OpenToWrite, Remove, Rename, SetLen, Sync, Write};
        let takes_room = matches!(call, Create | Write | Sync | Rename);
        match self {
            Self::DiskFull => takes_room.then_some(libc::ENOSPC),
            Self::Quota => takes_room.then_some(libc::EDQUOT),
            Self::BadDisk => Some(libc::EIO),
            Self::ReadOnly => {
                matches!(call, Create | OpenToWrite | Write | SetLen | Rename | Remove).then_some(libc::EROFS)
            }
            Self::NoInodes => (call == Create).then_some(libc::ENOSPC),
            Self::ShortWrite => (call == Write).then_some(libc::ENOSPC),
        }
    }
}

/// From the call with this number on, so many fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub trouble: Trouble,
    pub at: usize,
    pub calls: usize,
}

/// What a tap has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub ops: Vec<Op>,
    /// Calls that could have failed.
    pub calls: usize,
    /// Calls that were made to fail.
    pub failed: usize,
}

struct Tap {
    root: PathBuf,
    fault: Option<Fault>,
    seen: Seen,
    /// By inode.
    files: HashMap<u64, FileId>,
    next: FileId,
}

thread_local! {
    static TAP: RefCell<Option<Tap>> = const { RefCell::new(None) };
}

/// Opens a tap on this thread; files that are there already get the numbers they have in `files`.
pub(crate) fn open(root: &Path, fault: Option<Fault>, files: &[(PathBuf, FileId)]) {
    let known = files.iter().map(|(path, file)| (inode_of(&root.join(path)).unwrap(), *file)).collect();
    let next = files.iter().map(|(_, file)| file + 1).max().unwrap_or(0);
    let tap = Tap { root: root.to_path_buf(), fault, seen: Seen::default(), files: known, next };
    TAP.with(|slot| *slot.borrow_mut() = Some(tap));
}

pub(crate) fn close() -> Seen {
    TAP.with(|slot| slot.borrow_mut().take()).map_or_else(Seen::default, |tap| tap.seen)
}

/// Puts a note between what is done to the disk.
pub(crate) fn note(what: usize) {
    TAP.with(|slot| slot.borrow_mut().iter_mut().for_each(|tap| tap.seen.ops.push(Op::Note(what))));
}

fn inode_of(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}

/// Runs `inside` with the tap, if there is one and it is not being used.
fn with<T>(inside: impl FnOnce(&mut Tap) -> T) -> Option<T> {
    TAP.try_with(|slot| slot.try_borrow_mut().ok().and_then(|mut tap| tap.as_mut().map(inside))).ok().flatten()
}

impl Tap {
    /// The path below the tap's directory.
    fn inner(&self, path: *const c_char) -> Option<PathBuf> {
        // SAFETY: the caller of the C function hands over a string that ends.
        let path = unsafe { CStr::from_ptr(path) };
        let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
        // By a directory that is open.
        let by_directory = path.strip_prefix("/proc/self/fd").ok().and_then(|path| {
            let mut parts = path.components();
            let dir = std::fs::read_link(Path::new("/proc/self/fd").join(parts.next()?)).ok()?;
            Some(dir.join(parts.as_path()))
        });
        by_directory.as_deref().unwrap_or(path).strip_prefix(&self.root).ok().map(Path::to_path_buf)
    }

    /// Counts a call; the error it ends with, if it is to fail.
    fn refuses(&mut self, call: Call) -> Option<c_int> {
        let number = self.seen.calls;
        self.seen.calls += 1;
        let fault = self.fault.filter(|fault| (fault.at..fault.at + fault.calls).contains(&number))?;
        let errno = fault.trouble.errno(call)?;
        self.seen.failed += 1;
        Some(errno)
    }

    /// Whether a write is to be cut short, which is the first that a fault hits.
    fn shortens(&self, len: usize) -> bool {
        let is_first = |fault: Fault| fault.at + 1 == self.seen.calls;
        len > 1 && self.fault.is_some_and(|fault| fault.trouble == Trouble::ShortWrite && is_first(fault))
    }

    fn file_of(&self, fd: c_int) -> Option<FileId> {
        // A directory may have the inode of a file that was removed.
        let found = stat(fd).filter(|found| found.st_mode & libc::S_IFMT == libc::S_IFREG)?;
        self.files.get(&found.st_ino).copied()
    }
}

fn stat(fd: c_int) -> Option<libc::stat> {
    // SAFETY: all zeros is a value of a structure of integers.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call.
    (unsafe { libc::fstat(fd, &raw mut found) } == 0).then_some(found)
}

fn fail(errno: c_int) -> c_int {
    // SAFETY: every thread has its own.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the C library gives a valid place.
    unsafe { *place = errno };
    -1
}

#[expect(clippy::cast_possible_truncation, reason = "the C library's own types")]
fn code(result: libc::c_long) -> c_int {
    result as c_int
}

#[expect(clippy::cast_possible_truncation, reason = "the C library's own types")]
fn count(result: libc::c_long) -> ssize_t {
    result as ssize_t
}

#[unsafe(no_mangle)]
extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let inner = with(|tap| tap.inner(path)).flatten();
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
    let mut is_new = false;
    if let Some(inner) = inner.as_ref().filter(|_| writes) {
        // SAFETY: looks whether a file is there; the string is the caller's.
        is_new = flags & libc::O_CREAT != 0 && unsafe { libc::access(path, libc::F_OK) } != 0;
        let call = if is_new { Call::Create } else { Call::OpenToWrite };
        if let Some(errno) = with(|tap| tap.refuses(call)).flatten() {
            return fail(errno);
        }
        debug_assert!(inner.is_relative());
    }
    // SAFETY: the caller's own arguments.
    let fd = code(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) });
    if let Some(inner) = inner.filter(|_| writes && fd >= 0)
        && let Some(found) = stat(fd)
    {
        with(|tap| {
            if is_new {
                let file = tap.next;
                tap.next += 1;
                tap.files.insert(found.st_ino, file);
                tap.seen.ops.push(Op::MakeFile { path: inner, file });
            } else if flags & libc::O_TRUNC != 0
                && let Some(file) = tap.files.get(&found.st_ino)
            {
                tap.seen.ops.push(Op::SetLen { file: *file, len: 0 });
            }
        });
    }
    fd
}

/// What a write to `fd` is to do: pass, be shorter, or fail.
fn before_write(fd: c_int, len: size_t) -> Result<(Option<FileId>, size_t), c_int> {
    with(|tap| {
        let Some(file) = tap.file_of(fd) else { return Ok((None, len)) };
        match tap.refuses(Call::Write) {
            Some(_) if tap.shortens(len) => Ok((Some(file), len / 2)),
            Some(errno) => Err(errno),
            None => Ok((Some(file), len)),
        }
    })
    .unwrap_or(Ok((None, len)))
}

fn after_write(file: FileId, from: *const c_void, written: ssize_t, end: i64) {
    let Ok(len) = usize::try_from(written) else { return };
    // SAFETY: the kernel has just read so many bytes from there.
    let bytes: Rc<[u8]> = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), len) }.into();
    let at = u64::try_from(end).unwrap() - len as u64;
    with(|tap| tap.seen.ops.push(Op::Write { file, at, bytes }));
}

#[unsafe(no_mangle)]
extern "C" fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t {
    let (file, len) = match before_write(fd, len) {
        Ok(goes_on) => goes_on,
        Err(errno) => return fail(errno) as ssize_t,
    };
    // SAFETY: the caller's own arguments, or fewer bytes.
    let written = count(unsafe { libc::syscall(libc::SYS_write, fd, from, len) });
    if let Some(file) = file {
        // SAFETY: asks for the position.
        let end = unsafe { libc::lseek64(fd, 0, libc::SEEK_CUR) };
        after_write(file, from, written, end);
    }
    written
}

#[unsafe(no_mangle)]
extern "C" fn pwrite64(fd: c_int, from: *const c_void, len: size_t, at: off64_t) -> ssize_t {
    let (file, len) = match before_write(fd, len) {
        Ok(goes_on) => goes_on,
        Err(errno) => return fail(errno) as ssize_t,
    };
    // SAFETY: the caller's own arguments, or fewer bytes.
    let written = count(unsafe { libc::syscall(libc::SYS_pwrite64, fd, from, len, at) });
    if let Some(file) = file {
        after_write(file, from, written, at + written as i64);
    }
    written
}

/// Not a call more than it must be: to a file below the tap nothing is flushed, as the model says what would be there.
fn sync(fd: c_int, call: libc::c_long) -> c_int {
    let tapped = with(|tap| {
        if let Some(file) = tap.file_of(fd) {
            let refused = tap.refuses(Call::Sync);
            tap.seen.ops.push(Op::SyncFile { file, failed: refused.is_some() });
            return Some(refused.map_or(0, fail));
        }
        let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        let path = path.strip_prefix(&tap.root).ok()?.to_path_buf();
        let refused = tap.refuses(Call::Sync);
        if refused.is_none() {
            tap.seen.ops.push(Op::SyncDir { path });
        }
        Some(refused.map_or(0, fail))
    });
    // SAFETY: the caller's own argument.
    tapped.flatten().unwrap_or_else(|| code(unsafe { libc::syscall(call, fd) }))
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(fd, libc::SYS_fdatasync)
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, len: off64_t) -> c_int {
    let file = with(|tap| tap.file_of(fd)).flatten();
    if file.is_some()
        && let Some(errno) = with(|tap| tap.refuses(Call::SetLen)).flatten()
    {
        return fail(errno);
    }
    // SAFETY: the caller's own arguments.
    let result = code(unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) });
    if let Some(file) = file.filter(|_| result == 0) {
        let len = u64::try_from(len).unwrap();
        with(|tap| tap.seen.ops.push(Op::SetLen { file, len }));
    }
    result
}

/// A call about paths below the directory: refused where a test says so, noted where it was done.
fn about<T>(paths: Option<T>, call: Call, ask: impl FnOnce() -> c_int, note: impl FnOnce(T) -> Op) -> c_int {
    if paths.is_some()
        && let Some(errno) = with(|tap| tap.refuses(call)).flatten()
    {
        return fail(errno);
    }
    let result = ask();
    if let Some(paths) = paths.filter(|_| result == 0) {
        with(|tap| tap.seen.ops.push(note(paths)));
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let paths = with(|tap| tap.inner(from).zip(tap.inner(to))).flatten();
    // SAFETY: the caller's own arguments.
    let ask = || code(unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) });
    about(paths, Call::Rename, ask, |(from, to)| Op::Rename { from, to })
}

fn remove(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's own argument.
    let ask = || code(unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, flags) });
    about(with(|tap| tap.inner(path)).flatten(), Call::Remove, ask, |path| Op::Remove { path })
}

#[unsafe(no_mangle)]
extern "C" fn unlink(path: *const c_char) -> c_int {
    remove(path, 0)
}

#[unsafe(no_mangle)]
extern "C" fn rmdir(path: *const c_char) -> c_int {
    remove(path, libc::AT_REMOVEDIR)
}

#[unsafe(no_mangle)]
extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the caller's own arguments.
    let ask = || code(unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode) });
    about(with(|tap| tap.inner(path)).flatten(), Call::Create, ask, |path| Op::MakeDir { path })
}
