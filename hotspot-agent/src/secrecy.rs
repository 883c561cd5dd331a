//! What the agent does for its own keys: its memory and its files are closed to others, and keys may lie under a secret that systemd brings.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hotspot_archive::at_rest::{AtRest, SECRET_BYTES_MIN};
use hotspot_archive::layout::DataDir;
use hotspot_archive::private;
use tracing::{info, warn};

/// Name of the credential (`LoadCredentialEncrypted=` of systemd.exec(5)) under which keys lie on disk.
pub const CREDENTIAL: &str = "hotspot.keys";
/// systemd gives a unit no more than that (systemd.exec(5)).
const CREDENTIAL_BYTES_MAX: u64 = 1 << 20;

/// Why the credential is not used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("the credential {} cannot be read", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the credential {} has fewer than {SECRET_BYTES_MIN} bytes; make one with `openssl rand -out FILE 32`", path.display())]
    Short { path: PathBuf },
}

/// Closes the process; called before the first key is read.
pub fn close_process() {
    private::mask_files();
    if let Err(error) = private::forbid_dumps() {
        warn!(%error, "a core dump of the agent would hold its keys");
    }
    if let Err(error) = private::lock_memory() {
        warn!(%error, "memory with keys in it may be written to swap; start the agent with LimitMEMLOCK=infinity, or without swap");
    }
}

/// The secret under which keys lie on disk, where systemd hands one over.
pub fn at_rest() -> Result<AtRest, CredentialError> {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(dir) => at_rest_by(Path::new(&dir)),
        None => Ok(AtRest::plain()),
    }
}

fn at_rest_by(dir: &Path) -> Result<AtRest, CredentialError> {
    let path = dir.join(CREDENTIAL);
    let failed = |source| CredentialError::Io { path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(AtRest::plain()),
        Err(source) => return Err(failed(source)),
    };
    let mut secret = zeroize::Zeroizing::new(Vec::new());
    file.take(CREDENTIAL_BYTES_MAX).read_to_end(&mut secret).map_err(failed)?;
    let at_rest = AtRest::under(&secret).ok_or_else(|| CredentialError::Short { path: path.clone() })?;
    info!(credential = CREDENTIAL, "keys that are made from now on lie on disk under the credential");
    Ok(at_rest)
}

/// Closes the data directory to all but its owner and group, and what is not the archive to the group too. An earlier version made
/// directories that everybody could enter.
pub fn close_files(data: &DataDir, key_dir: &Path) -> io::Result<()> {
    if forbid(&data.0, 0o007)? {
        info!(dir = %data.0.display(), "the data directory could be entered by everybody, and is closed to all but its owner and group now");
    }
    for dir in [&data.0.join("keys"), &data.journals(), &data.states()] {
        forbid(dir, 0o077)?;
    }
    if key_dir.is_dir() { forbid(key_dir, 0o077).map(drop) } else { Ok(()) }
}

/// Takes rights from a file or directory; says whether it had any of them.
fn forbid(path: &Path, rights: u32) -> io::Result<bool> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    let has_some = mode & rights != 0;
    if has_some {
        fs::set_permissions(path, Permissions::from_mode(mode & !rights))?;
    }
    Ok(has_some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_taken_where_there_is_one_and_a_short_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(at_rest_by(dir.path()).unwrap().is_plain());
        fs::write(dir.path().join(CREDENTIAL), [1; 32]).unwrap();
        assert!(!at_rest_by(dir.path()).unwrap().is_plain());
        fs::write(dir.path().join(CREDENTIAL), [1; 31]).unwrap();
        assert!(matches!(at_rest_by(dir.path()), Err(CredentialError::Short { .. })));
    }

    #[test]
    fn a_directory_that_everybody_could_enter_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir(dir.path().join("data"));
        data.create().unwrap();
        for dir in [&data.0, &data.journals(), &data.archive()] {
            fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
        }
        close_files(&data, &data.journal_keys()).unwrap();
        let mode = |dir: &Path| fs::metadata(dir).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(&data.0), mode(&data.journals()), mode(&data.archive())], [0o750, 0o700, 0o755]);
    }
}
