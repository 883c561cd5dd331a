//! An object store, or a directory elsewhere, as a place for files by name.
//!
//! Owns the client, its credentials (from the usual `AWS_…` variables) and what its errors mean. Large files go in parts and come in
//! ranges, so that memory is bounded by [`PART_BYTES`] per file. Nothing is believed to be there because a store said so: whoever needs
//! to know reads it back ([`Store::hash`]).

mod connector;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use hotspot_archive::manifest::to_hex;
use hotspot_archive::regular;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use self::connector::Connector;
use crate::Failure;

/// How much of a file is in memory at once: a part that is sent, a range that is read.
pub(crate) const PART_BYTES: u64 = 8 << 20;
/// What is read as a whole: pieces of manifests, keys, holds.
const WHOLE_BYTES_MAX: u64 = 1 << 30;
/// What runs that were killed can have left of one file; the next files are as many again.
const STAGED_MAX: u32 = 1_000;
/// How long a request is tried again while a server does not answer or says that it cannot.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
const RETRIES_MAX: usize = 8;

pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Before the name of everything; empty, or ends with `/`.
    prefix: String,
    url: String,
    /// The directory, where it is one.
    directory: Option<PathBuf>,
    runtime: Runtime,
}

/// Whether an archive's name is a URL of an object store.
pub(crate) fn is_url(archive: &Path) -> bool {
    archive.to_str().is_some_and(|text| text.contains("://"))
}

impl Store {
    /// Opens `s3://BUCKET[/PREFIX]`, or a directory that is there. Nothing is asked of it yet.
    pub(crate) fn open(url: &str) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::Damaged(format!("no threads for the network: {error}")))?;
        let usage = |why: String| Failure::Usage(format!("{url}: {why}"));
        let Some((scheme, rest)) = url.split_once("://") else {
            let store = LocalFileSystem::new_with_prefix(url).map_err(|error| usage(innermost(&error)))?;
            let store = Arc::new(store.with_fsync(true));
            let path = std::path::absolute(url).map_err(|error| usage(error.to_string()))?;
            let url = path.display().to_string();
            return Ok(Self { objects: store, prefix: String::new(), url, directory: Some(path), runtime });
        };
        if scheme != "s3" {
            return Err(usage("only s3://BUCKET/PREFIX and directories are known".to_owned()));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        if bucket.is_empty() || prefix.split('/').any(|part| part == ".." || part == ".") {
            return Err(usage("write s3://BUCKET or s3://BUCKET/PREFIX".to_owned()));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        // TLS needs to be told whose cryptography to use; that it is told twice does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry = RetryConfig { retry_timeout: RETRY_TIMEOUT, max_retries: RETRIES_MAX, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .with_http_connector(Connector::default());
        if is_loopback(std::env::vars()) {
            builder = builder.with_allow_http(true);
        }
        let store = builder.build().map_err(|error| usage(innermost(&error)))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { objects: Arc::new(store), prefix, url, directory: None, runtime })
    }

    /// How it was named.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits for what a method that is `async` does.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn name(&self, path: &str) -> io::Result<Name> {
        Name::parse(format!("{}{path}", self.prefix))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    /// In a directory, a file is written as `<name>#<number>` first: what a run that was killed left of it is removed.
    fn remove_half_written(&self, path: &str) {
        let Some(directory) = &self.directory else { return };
        let is_left = |number: &u32| std::fs::remove_file(directory.join(format!("{path}#{number}"))).is_ok();
        (1..=STAGED_MAX).take_while(is_left).for_each(drop);
    }

    /// Puts a range of a file, in parts where it is large.
    pub(crate) async fn put_range(&self, path: &str, file: &Path, from: u64, to: u64) -> io::Result<()> {
        let name = self.name(path)?;
        self.remove_half_written(path);
        let here = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        let mut file = regular::open_path(file).map_err(here)?;
        file.seek(SeekFrom::Start(from))?;
        let len = to.saturating_sub(from);
        if len <= PART_BYTES {
            let payload = PutPayload::from(read_exactly(&mut file, len)?);
            return self.objects.put(&name, payload).await.map(drop).map_err(|error| self.failed(path, &error));
        }
        let mut upload = self.objects.put_multipart(&name).await.map_err(|error| self.failed(path, &error))?;
        let mut left = len;
        while left > 0 {
            let part = left.min(PART_BYTES);
            let sent = match read_exactly(&mut file, part) {
                Ok(bytes) => upload.put_part(PutPayload::from(bytes)).await.map_err(|error| self.failed(path, &error)),
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                // What is left of it there costs space until the store's own rule removes it.
                let _ = upload.abort().await;
                return Err(error);
            }
            left -= part;
        }
        upload.complete().await.map(drop).map_err(|error| self.failed(path, &error))
    }

    /// Puts a small object.
    pub(crate) async fn put(&self, path: &str, bytes: Vec<u8>) -> io::Result<()> {
        let put = self.objects.put(&self.name(path)?, PutPayload::from(bytes)).await;
        put.map(drop).map_err(|error| self.failed(path, &error))
    }

    /// Puts a small object where there is none; `false`: there is one.
    pub(crate) async fn create(&self, path: &str, bytes: Vec<u8>) -> io::Result<bool> {
        let put = self.objects.put_opts(&self.name(path)?, PutPayload::from(bytes), PutMode::Create.into()).await;
        match put {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed(path, &error)),
        }
    }

    /// Gets an object as a whole.
    pub(crate) async fn get(&self, path: &str) -> io::Result<Vec<u8>> {
        let result = self.objects.get(&self.name(path)?).await.map_err(|error| self.failed(path, &error))?;
        if result.meta.size > WHOLE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "{}/{path} has {} bytes: too large for what it is",
                self.url, result.meta.size
            )));
        }
        result.bytes().await.map(|bytes| bytes.to_vec()).map_err(|error| self.failed(path, &error))
    }

    /// Reads an object, hands it on bit by bit, and says what it is: SHA-256 and length.
    async fn read(&self, path: &str, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<(String, u64)> {
        let mut hash = Sha256::new();
        let mut bytes = 0;
        let result = self.objects.get(&self.name(path)?).await.map_err(|error| self.failed(path, &error))?;
        let mut stream = result.into_stream();
        while let Some(part) = stream.try_next().await.map_err(|error| self.failed(path, &error))? {
            hash.update(&part);
            bytes += part.len() as u64;
            each(&part)?;
        }
        Ok((to_hex(&hash.finalize()), bytes))
    }

    /// Reads an object back: its SHA-256 and length.
    pub(crate) async fn hash(&self, path: &str) -> io::Result<(String, u64)> {
        self.read(path, |_| Ok(())).await
    }

    /// Writes an object into a file here: its SHA-256 and length.
    pub(crate) async fn fetch(&self, path: &str, to: &Path) -> io::Result<(String, u64)> {
        if let Some(dir) = to.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut file = File::create(to)?;
        self.read(path, |part| file.write_all(part)).await
    }

    /// Names below a directory, with their lengths.
    pub(crate) async fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        let name = self.name(dir)?;
        let found: Vec<_> =
            self.objects.list(Some(&name)).try_collect().await.map_err(|error| self.failed(dir, &error))?;
        let relative = |full: &Name| full.as_ref().strip_prefix(self.prefix.as_str()).map(str::to_owned);
        let mut names: Vec<(String, u64)> =
            found.iter().filter_map(|object| Some((relative(&object.location)?, object.size))).collect();
        names.sort();
        Ok(names)
    }

    /// Names directly in a directory: of files, and of directories.
    pub(crate) async fn list_one(&self, dir: &str) -> io::Result<(Vec<String>, Vec<String>)> {
        let name = self.name(dir)?;
        let found = self.objects.list_with_delimiter(Some(&name)).await.map_err(|error| self.failed(dir, &error))?;
        let last = |name: &Name| name.filename().map(str::to_owned);
        Ok((
            found.objects.iter().filter_map(|object| last(&object.location)).collect(),
            found.common_prefixes.iter().filter_map(last).collect(),
        ))
    }

    /// Deletes an object; one that is not there is deleted.
    pub(crate) async fn delete(&self, path: &str) -> io::Result<()> {
        match self.objects.delete(&self.name(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(path, &error)),
        }
    }

    /// What an error of the store means, and what to do.
    fn failed(&self, path: &str, error: &object_store::Error) -> io::Error {
        use object_store::Error;
        let url = &self.url;
        let why = innermost(error);
        // Listing says neither by its kind.
        let is_denied = matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
            || why.contains("403 Forbidden")
            || why.contains("401 Unauthorized");
        if why.contains("NoSuchBucket") {
            return io::Error::other(format!("{url}: there is no such bucket; make it, or correct the name"));
        }
        if is_denied {
            let hint = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they are allowed";
            let text = format!("{url}/{path}: access denied; {hint} ({why})");
            return io::Error::new(io::ErrorKind::PermissionDenied, text);
        }
        if matches!(error, Error::NotFound { .. }) {
            return io::Error::new(io::ErrorKind::NotFound, format!("{url}/{path} is not there"));
        }
        let is_answer = self.directory.is_some() || why.contains("Server returned");
        let hint = if is_answer { "" } else { "; is AWS_ENDPOINT right, and is the server there?" };
        io::Error::other(format!("{url}/{path}: {why}{hint}"))
    }
}

/// Servers on this machine are spoken to without TLS; all others only where `AWS_ALLOW_HTTP` says so.
fn is_loopback(variables: impl Iterator<Item = (String, String)>) -> bool {
    let mut endpoints = variables.filter(|(name, _)| name.starts_with("AWS_ENDPOINT"));
    endpoints.any(|(_, url)| {
        let host = url.strip_prefix("http://").unwrap_or_default();
        ["127.0.0.1", "localhost", "[::1]"].iter().any(|loopback| {
            host.strip_prefix(loopback).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
        })
    })
}

/// The last of an error's causes says what happened; the others say that something did.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    let text = last.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect()
}

fn read_exactly(file: &mut File, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        let is_allowed = |url: &str| is_loopback([("AWS_ENDPOINT".to_owned(), url.to_owned())].into_iter());
        for url in ["http://127.0.0.1:9000", "http://localhost", "http://[::1]:9000/x"] {
            assert!(is_allowed(url), "{url}");
        }
        for url in ["http://localhost.example", "http://127.0.0.10:9000", "https://localhost", "http://10.0.0.1"] {
            assert!(!is_allowed(url), "{url}");
        }
    }

    #[test]
    fn places_that_are_none_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing").display().to_string();
        for url in ["s3://", "s3:///x", "ftp://x/y", "s3://bucket/../other", missing.as_str()] {
            assert!(matches!(Store::open(url), Err(Failure::Usage(_))), "{url}");
        }
    }
}
