//! A file that a person named for an answer: written beside its place, and there once it is whole.
//!
//! Nothing that lies there is replaced unless that was asked for, and then only a regular file: never a link, a device, a pipe or a
//! directory, whoever asks. The file that is written meanwhile has a name that nothing had before.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::durable;

/// Names that are tried for what is written meanwhile.
const TRIES: u32 = 100;

/// A file that is being written; without [`Self::commit`] nothing is left of it.
pub struct OutputFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    may_replace: bool,
    is_committed: bool,
}

impl OutputFile {
    /// Whether a file may be written there; an error says why not, of one that is there already by its kind.
    pub fn check(path: &Path, may_replace: bool) -> io::Result<()> {
        let refused = |kind, what: &str| Err(io::Error::new(kind, what));
        if path.file_name().is_none() {
            return refused(io::ErrorKind::InvalidInput, "it names no file");
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.is_file() => {
                refused(io::ErrorKind::InvalidInput, "it is no regular file, and only such are replaced")
            }
            Ok(_) if !may_replace => refused(io::ErrorKind::AlreadyExists, "it is there already"),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Begins to write.
    pub fn begin(path: &Path, may_replace: bool) -> io::Result<Self> {
        Self::begin_as(path, may_replace, 0o666)
    }

    /// The same of a new file that only its owner may read.
    pub fn begin_secret(path: &Path) -> io::Result<Self> {
        Self::begin_as(path, false, 0o600)
    }

    fn begin_as(path: &Path, may_replace: bool, mode: u32) -> io::Result<Self> {
        Self::check(path, may_replace)?;
        let mut tries = 0;
        loop {
            let temporary = temporary_name(path, tries);
            // O_EXCL follows no link, see open(2).
            match File::options().read(true).write(true).create_new(true).mode(mode).open(&temporary) {
                Ok(file) => {
                    return Ok(Self { path: path.to_path_buf(), temporary, file, may_replace, is_committed: false });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The file, to write to.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Flushes what was written and gives the file its name.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        Self::check(&self.path, self.may_replace)?;
        if self.may_replace {
            fs::rename(&self.temporary, &self.path)?;
        } else {
            match renameat_with(CWD, &self.temporary, CWD, &self.path, RenameFlags::NOREPLACE) {
                // Not every file system can promise it; what was there a moment ago was looked at.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::rename(&self.temporary, &self.path)?,
                renamed => renamed?,
            }
        }
        self.is_committed = true;
        durable::sync_dir(durable::parent(&self.path))
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if !self.is_committed {
            // What is half written is of no use; that it could not be removed either would hide the first error.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn temporary_name(path: &Path, tries: u32) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{tries}.part", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{FileTypeExt, symlink};

    use super::*;

    fn write(path: &Path, may_replace: bool) -> io::Result<()> {
        let file = OutputFile::begin(path, may_replace)?;
        file.file()?.write_all(b"new")?;
        file.commit()
    }

    #[test]
    fn only_what_may_be_replaced_is_and_never_what_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        write(&at("new"), false).unwrap();
        assert_eq!(fs::read(at("new")).unwrap(), b"new");
        fs::write(at("old"), "old").unwrap();
        assert_eq!(write(&at("old"), false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(at("old")).unwrap(), b"old");
        symlink(at("old"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        fs::create_dir(at("dir")).unwrap();
        rustix::fs::mkfifoat(CWD, at("pipe"), rustix::fs::Mode::RUSR).unwrap();
        for may_replace in [false, true] {
            for name in ["link", "dangling", "dir", "pipe", ".."] {
                assert!(write(&at(name), may_replace).is_err(), "{name}");
            }
            assert!(write(Path::new("/dev/full"), may_replace).is_err());
        }
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
        assert_eq!(fs::read(at("old")).unwrap(), b"old");
        write(&at("old"), true).unwrap();
        assert_eq!(fs::read(at("old")).unwrap(), b"new");
        let left = fs::read_dir(dir.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part"));
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn what_comes_while_it_is_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answer");
        let file = OutputFile::begin(&path, false).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        assert!(file.commit().is_err());
        assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
        let file = OutputFile::begin(&path, true).unwrap();
        fs::remove_file(&path).unwrap();
        symlink("/dev/null", &path).unwrap();
        assert!(file.commit().is_err());
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    }
}
