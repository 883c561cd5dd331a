//! Where the files of an archive lie: in a directory here, or elsewhere, with a directory here into which they are brought.
//!
//! Searching and verifying read files below a root directory. A [`Place`] behind that root brings what is asked for, and is told what is
//! no longer needed; it may refuse, and then says why. No network here: whoever has one implements the trait.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::manifest;
use crate::regular;

/// What stands behind the root of an archive. Paths are relative to it, with `/`.
pub trait Place: Send + Sync {
    /// SHA-256 and length of a file.
    fn hash(&self, path: &str) -> io::Result<(String, u64)>;

    /// Every file below a directory; none where there is no such directory.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes a file readable below the root. With `sha256` it is that file or an error.
    fn bring(&self, path: &str, sha256: Option<&str>) -> io::Result<()>;

    /// Whether files lie here already, so that reading a piece of one costs no more than the piece.
    fn is_here(&self) -> bool {
        false
    }

    /// A file that was brought is no longer needed.
    fn release(&self, path: &str);

    /// These will be asked for, in about this order.
    fn expect(&self, files: Vec<Expected>);
}

/// A file that will be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub path: String,
    pub sha256: String,
}

/// An archive that lies in a directory here.
#[must_use]
pub fn here(archive: &Path) -> Arc<dyn Place> {
    Arc::new(Here(archive.to_path_buf()))
}

/// An archive that lies here: everything is where it belongs.
pub(crate) struct Here(pub(crate) PathBuf);

impl Place for Here {
    fn hash(&self, path: &str) -> io::Result<(String, u64)> {
        manifest::hash_open(regular::open(&self.0, path)?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        list_files(&self.0.join(dir), &mut files)?;
        files.sort();
        let relative = |path: PathBuf| path.strip_prefix(&self.0).unwrap_or(&path).to_string_lossy().into_owned();
        Ok(files.into_iter().map(relative).collect())
    }

    fn bring(&self, path: &str, _: Option<&str>) -> io::Result<()> {
        regular::open(&self.0, path).map(drop)
    }

    fn is_here(&self) -> bool {
        true
    }

    fn release(&self, _: &str) {}

    fn expect(&self, _: Vec<Expected>) {}
}

fn list_files(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        // Links are not followed: one to a directory above would have no end.
        let (path, is_dir) = (entry.path(), entry.file_type()?.is_dir());
        if is_dir {
            list_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
