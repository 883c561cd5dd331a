//! Writing a file so that it is there after a power cut: whole, or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::regular;

/// Flushes a directory, so that names made or changed in it last.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    // A path of one part lies where the process is.
    File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?.sync_all()
}

/// The directory that a file is in: the one worked in, of a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a directory and flushes those that are new into their parents.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dir(parent)?;
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // One that stayed would be taken for durable the next time.
        return sync_dir(parent).inspect_err(|_| drop(fs::remove_dir(dir)));
    }
    Ok(())
}

/// Flushes a directory and those above it up to `top`: the names on the way to a file last, whoever made them.
pub(crate) fn sync_up(dir: &Path, top: &Path) -> io::Result<()> {
    dir.ancestors().take_while(|dir| dir.starts_with(top)).try_for_each(sync_dir)
}

/// Removes a file so that it stays removed. One that is not there is removed already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    sync_dir(parent(path))
}

/// Makes a file that was not there. What a crash left under its name is removed first; a link is removed and never followed, so that
/// nobody who may write to the directory decides which file is written.
pub(crate) fn create_anew(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = File::options();
    // O_EXCL follows no link, see open(2).
    options.read(true).write(true).create_new(true).mode(mode);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        opened => opened,
    }
}

/// For files that are there: the last part of the path must not be a link.
pub(crate) const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// A file that is written under a temporary name; without [`Self::commit`] nothing is left of it.
pub(crate) struct Replacement {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    is_committed: bool,
}

impl Replacement {
    pub(crate) fn begin(path: &Path) -> io::Result<Self> {
        Self::begin_as(path, 0o666)
    }

    /// The same of a file that only its owner may read.
    pub(crate) fn begin_secret(path: &Path) -> io::Result<Self> {
        Self::begin_as(path, 0o600)
    }

    fn begin_as(path: &Path, mode: u32) -> io::Result<Self> {
        let temporary = temporary_name(path);
        let file = create_anew(&temporary, mode)?;
        Ok(Self { path: path.to_path_buf(), temporary, file, is_committed: false })
    }

    /// The file, to write to.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Flushes what was written and gives the file its name.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.is_committed = true;
        sync_dir(parent(&self.path))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_committed {
            // What is half written is of no use; that it could not be removed either would hide the first error.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes under a temporary name, flushes, and gives the file its name.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut replacement = Replacement::begin(path)?;
    write(&mut replacement.file)?;
    replacement.file.flush()?;
    replacement.commit()
}

/// The same of a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut replacement = Replacement::begin_secret(path)?;
    replacement.file.write_all(bytes)?;
    replacement.commit()
}

/// Overwrites a small file and removes it. What a file system or a disk keeps of old blocks is beyond that.
pub(crate) fn shred(path: &Path) -> io::Result<()> {
    overwrite_file(path)?;
    remove(path)
}

/// Overwrites what a small file holds with zeros, and flushes that. One that is not there holds nothing.
pub(crate) fn overwrite_file(path: &Path) -> io::Result<()> {
    // A FIFO would have it wait.
    let flags = NO_LINK | rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    match File::options().write(true).custom_flags(flags).open(path) {
        Ok(file) => overwrite(&regular::own(file)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

pub(crate) fn overwrite(mut file: &File) -> io::Result<()> {
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(OVERWRITTEN_MAX);
    file.write_all(&vec![0; len]).and_then(|()| file.sync_all())
}

/// Keys are far smaller.
const OVERWRITTEN_MAX: usize = 1 << 16;

/// Where a file is written before it has its name.
pub(crate) fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_link_in_the_way_of_a_file_is_replaced_and_what_it_names_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aim) = (dir.path().join("file"), dir.path().join("aim"));
        fs::write(&aim, "precious").unwrap();
        for target in [aim.as_path(), Path::new("/nonexistent/dangling")] {
            for link in [temporary_name(&path), path.clone()] {
                drop(fs::remove_file(&link));
                symlink(target, &link).unwrap();
                replace(&path, |file| file.write_all(b"new")).unwrap();
                write_secret(&path, b"new").unwrap();
                assert!(fs::symlink_metadata(&path).unwrap().is_file());
                assert_eq!((&*fs::read(&path).unwrap(), &*fs::read(&aim).unwrap()), (&b"new"[..], &b"precious"[..]));
            }
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_bare_name_is_a_file_of_the_directory_worked_in() {
        for (path, dir) in [("out.parquet", "."), ("./x", "."), ("a/x", "a"), ("/x", "/")] {
            assert_eq!(parent(Path::new(path)), Path::new(dir));
        }
    }

    #[test]
    fn what_is_overwritten_is_the_file_and_never_what_a_link_names() {
        let dir = tempfile::tempdir().unwrap();
        let (link, aim) = (dir.path().join("link"), dir.path().join("aim"));
        fs::write(&aim, "precious").unwrap();
        symlink(&aim, &link).unwrap();
        assert!(shred(&link).is_err());
        assert_eq!(fs::read(&aim).unwrap(), b"precious");
        overwrite_file(&aim).unwrap();
        assert_eq!(fs::read(&aim).unwrap(), [0; 8]);
        shred(&aim).unwrap();
        assert!(!aim.exists());
        assert!(shred(&aim).is_ok(), "it is gone already");
    }
}
