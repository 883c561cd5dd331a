//! Wrapped keys: do those that can be opened open what they lie beside?

use std::path::Path;

use super::{Kind, Report};
use crate::keys::{KeyError, Keyring, added_sidecar_path, sidecar_path};
use crate::manifest::FileEntry;
use crate::place::Place;

/// Whether the keys that open segments are those they were written with. The files are those that a line names by right.
pub(super) fn verify_keys<'a>(
    root: &Path,
    place: &dyn Place,
    files: impl Iterator<Item = &'a FileEntry>,
    keyring: Option<&Keyring>,
    report: &mut Report,
) {
    let Some(keyring) = keyring else { return };
    for file in files.filter(|file| file.path.ends_with(".parquet")) {
        let Some(commitment) = &file.key else { continue };
        let path = Path::new(&file.path);
        let added = keyring.recipients().map(|recipient| added_sidecar_path(path, &recipient));
        for sidecar in std::iter::once(sidecar_path(path)).chain(added) {
            let shown = sidecar.to_string_lossy().into_owned();
            match place.bring(&shown, None) {
                Ok(()) => {}
                // The signed one is missed by its line, and others need not be there.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    report.add(Kind::Damage, &shown, None, format!("cannot be read: {error}"));
                    continue;
                }
            }
            match keyring.unwrap(&root.join(&sidecar)) {
                Ok(key) if key.commitment() == *commitment => report.keys += 1,
                Ok(_) => report.add(Kind::Damage, &shown, None, "holds another key than the segment was written with"),
                Err(KeyError::NotForUs { .. }) => {}
                Err(error) => report.add(Kind::Damage, &shown, None, error.to_string()),
            }
            place.release(&shown);
        }
    }
}
