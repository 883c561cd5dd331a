//! Files on their way: what a line names is there, as the line says, before the line is.

use std::path::Path;

use futures_util::{StreamExt, stream};
use hotspot_archive::manifest::{FileEntry, hash_file};

use super::{ShipError, about};
use crate::store::Store;

/// Files under way at once: a request waits longer for its answer than for its bytes.
const AT_ONCE: usize = 8;

/// What became of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Files that were there otherwise than their line says, and were sent again.
    pub(crate) mended: u64,
    /// Files that were there already, as they should be.
    pub(crate) there: u64,
}

impl Sent {
    pub(crate) fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.mended += other.mended;
        self.there += other.there;
    }
}

/// Makes sure that files are at the target, as their line says, by reading them back. Ends with the first that cannot be; what was sent stays, and is found the next time.
pub(crate) async fn ensure(archive: &Path, to: &Store, files: Vec<FileEntry>) -> Result<Sent, ShipError> {
    let mut under_way = stream::iter(files).map(|file| ensure_one(archive, to, file)).buffer_unordered(AT_ONCE);
    let mut sent = Sent::default();
    while let Some(one) = under_way.next().await {
        sent.add(one?);
    }
    Ok(sent)
}

async fn ensure_one(archive: &Path, to: &Store, file: FileEntry) -> Result<Sent, ShipError> {
    // Asked first: an earlier run may have been cut short, and where versions are kept each would be kept.
    let mended = match is_there(to, &file).await? {
        Found::AsItShouldBe => return Ok(Sent { there: 1, ..Sent::default() }),
        Found::Otherwise => 1,
        Found::Nothing => 0,
    };
    let path = archive.join(&file.path);
    // What is not as it should be here must not be there.
    if hash_file(&path).map_err(about(&path))? != (file.sha256.clone(), file.bytes) {
        return Err(ShipError::ChangedHere { path });
    }
    to.put_range(&file.path, &path, 0, file.bytes).await?;
    match is_there(to, &file).await? {
        Found::AsItShouldBe => Ok(Sent { files: 1, bytes: file.bytes, mended, there: 0 }),
        Found::Otherwise | Found::Nothing => Err(ShipError::ReadBack { path: file.path, to: to.url().to_owned() }),
    }
}

/// What lies at the target under a file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    AsItShouldBe,
    Otherwise,
    Nothing,
}

/// Reads a file back and compares it with its line.
pub(crate) async fn is_there(to: &Store, file: &FileEntry) -> Result<Found, ShipError> {
    match to.hash(&file.path).await {
        Ok((sha256, bytes)) if sha256 == file.sha256 && bytes == file.bytes => Ok(Found::AsItShouldBe),
        Ok(_) => Ok(Found::Otherwise),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(error.into()),
    }
}
