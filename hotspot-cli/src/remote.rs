//! An archive at an object store, seen through a directory here: manifests first, then only what is asked for.
//!
//! Owns that directory: readable by its owner alone, and gone when the command ends (one that was killed leaves it to the next). A
//! segment is in it only while it is searched, so it holds as many as there are threads. What is encrypted stays so.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, stream};
use hotspot_archive::audit::CASE_REQUIRED;
use hotspot_archive::pieces;
use hotspot_archive::place::{Expected, Place};
use tempfile::TempDir;

use crate::Failure;
use crate::store::{Store, is_url};

/// Objects that are fetched side by side: of manifests, and of indexes ahead of the search.
const AT_ONCE: usize = 32;
/// Begins the name of a view's directory; the number of its process follows.
const PREFIX: &str = "hotspot-view-";

/// The archive's directory, for what works only on one that lies here.
pub(crate) fn here(archive: &Path) -> Result<&Path, Failure> {
    if is_url(archive) {
        return Err(Failure::Usage(format!(
            "{}: this works on an archive in a directory; find, who, verify, coverage and clock read object stores too",
            archive.display()
        )));
    }
    Ok(archive)
}

/// A remote archive, opened.
pub(crate) struct View {
    store: Store,
    dir: TempDir,
    ahead: Mutex<Ahead>,
}

/// What will be asked for, and what of it was fetched.
#[derive(Default)]
struct Ahead {
    expected: Vec<Expected>,
    position: HashMap<String, usize>,
    /// Blocks of [`AT_ONCE`] that were fetched.
    fetched: Vec<bool>,
    /// What could not be fetched, until somebody asks.
    failed: HashMap<String, io::Error>,
}

impl View {
    /// Brings the chains of the gateways that are asked for.
    pub(crate) fn open(url: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Arc<Self>, Failure> {
        let store = Store::open(&url.to_string_lossy())?;
        let temporary = std::env::temp_dir();
        remove_left(&temporary);
        let name = format!("{PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&name).tempdir_in(&temporary);
        let dir = dir.map_err(|error| Failure::Damaged(format!("no directory in {}: {error}", temporary.display())))?;
        let view = Self { store, dir, ahead: Mutex::default() };
        view.bring_manifests(is_wanted).map_err(|error| {
            let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
            if is_denied { Failure::Refused(error.to_string()) } else { Failure::Damaged(error.to_string()) }
        })?;
        Ok(Arc::new(view))
    }

    /// Where the archive seems to lie.
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    fn bring_manifests(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        fs::create_dir(self.root().join("manifest"))?;
        let (files, directories) = self.store.wait(self.store.list_one("manifest"))?;
        let mut paths = Vec::new();
        let mut gateways = 0;
        for directory in &directories {
            let Some(gateway) = pieces::gateway_of(directory) else { continue };
            gateways += 1;
            if is_wanted(gateway) {
                fs::create_dir(self.root().join("manifest").join(directory))?;
                let pieces = self.store.wait(self.store.list(&format!("manifest/{directory}")))?;
                paths.extend(pieces.into_iter().map(|(path, _)| path));
            }
        }
        for file in &files {
            let chain = file.strip_suffix(".jsonl");
            gateways += usize::from(chain.is_some());
            if chain.or(file.strip_suffix(".pub")).is_some_and(&is_wanted) {
                paths.push(format!("manifest/{file}"));
            }
        }
        if gateways == 0 {
            let url = self.store.url();
            return Err(io::Error::other(format!("{url} is not an archive: there is no chain below {url}/manifest")));
        }
        let case_required = format!("audit/{CASE_REQUIRED}");
        self.store.wait(async {
            let fetched = stream::iter(&paths).map(|path| self.fetch(path, None)).buffer_unordered(AT_ONCE);
            fetched.collect::<Vec<_>>().await.into_iter().collect::<io::Result<()>>()?;
            match self.fetch(&case_required, None).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            }
        })
    }

    /// Where a file belongs; a manifest line of somebody else must not lead out of the view.
    fn local(&self, path: &str) -> io::Result<PathBuf> {
        if Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
            return Ok(self.root().join(path));
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path} lies outside of the archive")))
    }

    async fn fetch(&self, path: &str, sha256: Option<&str>) -> io::Result<()> {
        let to = self.local(path)?;
        let mut part = to.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let fetched = self.store.fetch(path, &part).await;
        match fetched {
            Ok((found, _)) if sha256.is_none_or(|sha256| sha256 == found) => fs::rename(&part, &to),
            Ok(_) => {
                fs::remove_file(&part)?;
                Err(io::Error::new(io::ErrorKind::InvalidData, "it was changed there (SHA-256 differs from its line)"))
            }
            Err(error) => {
                // What is half there is of no use; the first error counts.
                let _ = fs::remove_file(&part);
                Err(error)
            }
        }
    }

    /// Brings the block that a file is expected in. `None`: it is not expected.
    fn bring_block(&self, path: &str) -> Option<io::Result<()>> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let block = *ahead.position.get(path)? / AT_ONCE;
        if !ahead.fetched[block] {
            ahead.fetched[block] = true;
            let end = ahead.expected.len().min((block + 1) * AT_ONCE);
            let files = ahead.expected[block * AT_ONCE..end].to_vec();
            let fetched = self.store.wait(async {
                let fetch =
                    |file: Expected| async move { (self.fetch(&file.path, Some(&file.sha256)).await, file.path) };
                stream::iter(files).map(fetch).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await
            });
            ahead.failed.extend(fetched.into_iter().filter_map(|(fetched, path)| Some((path, fetched.err()?))));
        }
        match ahead.failed.remove(path) {
            Some(error) => Some(Err(error)),
            // Once it was used it is gone; then it is fetched for itself.
            None => self.root().join(path).exists().then_some(Ok(())),
        }
    }
}

impl Place for View {
    fn hash(&self, path: &str) -> io::Result<(String, u64)> {
        self.local(path)?;
        self.store.wait(self.store.hash(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        Ok(self.store.wait(self.store.list(dir))?.into_iter().map(|(path, _)| path).collect())
    }

    fn bring(&self, path: &str, sha256: Option<&str>) -> io::Result<()> {
        if self.local(path)?.exists() {
            return Ok(());
        }
        match self.bring_block(path) {
            Some(brought) => brought,
            None => self.store.wait(self.fetch(path, sha256)),
        }
    }

    fn release(&self, path: &str) {
        if let Ok(local) = self.local(path) {
            // The whole directory goes in the end.
            let _ = fs::remove_file(local);
        }
    }

    fn expect(&self, files: Vec<Expected>) {
        let position = files.iter().enumerate().map(|(at, file)| (file.path.clone(), at)).collect();
        let fetched = vec![false; files.len().div_ceil(AT_ONCE)];
        let ahead = Ahead { expected: files, position, fetched, failed: HashMap::new() };
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
    }
}

/// Removes views of this user whose process is gone.
fn remove_left(temporary: &Path) {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::getuid().as_raw();
    for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split_once('-'));
        let Some(pid) = pid.and_then(|(pid, _)| pid.parse::<u32>().ok()) else { continue };
        let is_own = entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own);
        if is_own && !Path::new("/proc").join(pid.to_string()).exists() {
            // It is tried again by the next.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
