//! Lines that were lost: a gateway must not go on from a chain that is shorter than it was.
//!
//! What it would sign next took the place of what was signed before, and its files would be written over. What a gateway wrote beside its
//! chain says how far it was: the states and journals in its data directory, and the files of the archive.

use std::path::Path;

use super::{Manifest, ManifestError};
use crate::layout::{Class, DataDir, FileName};
use crate::place::{Here, Place};
use crate::{checkpoints, pieces};

impl Manifest {
    /// Fails where the data directory knows more of this chain than there is of it.
    pub fn compare(&self, data: &DataDir) -> Result<(), ManifestError> {
        let failed = |source| ManifestError::Io { operation: "read", path: data.0.clone(), source };
        let (states, journals) = (data.list_states().map_err(failed)?, data.list_journals().map_err(failed)?);
        let found = self.last_sequence();
        let Some(known) = known_beyond(found, &states, &journals) else { return Ok(()) };
        let what = format!("{} knows sequence {known}", data.0.display());
        Err(ManifestError::Lost { path: self.path.clone(), found, what })
    }
}

/// The latest sequence that was sealed, or came after one that was, and is not in the chain.
///
/// A state is written just before its line, and a journal is removed only after it: so the next sequence may have a state while its journal is there,
/// and later ones may have journals.
fn known_beyond(last: u64, states: &[u64], journals: &[u64]) -> Option<u64> {
    let next = last + 1;
    let is_waiting = journals.contains(&next);
    let states = states.iter().filter(|state| **state > if is_waiting { next } else { last });
    let journals = journals.iter().filter(|journal| **journal > last && !is_waiting);
    states.chain(journals).copied().max()
}

/// `Err`: a gateway without a chain had one. The first sequence may have files and no line: a crash left them.
pub(super) fn none_was_there(archive: &Path, gateway: &str) -> Result<(), String> {
    let here = Here(archive.to_path_buf());
    let beside = [checkpoints::path(gateway), pieces::directory(gateway)];
    if let Some(found) = beside.iter().find(|path| std::fs::symlink_metadata(archive.join(path)).is_ok()) {
        return Err(format!("there is {found}"));
    }
    for class in Class::ALL {
        let files = here.list(class.label()).map_err(|error| format!("{} cannot be read: {error}", class.label()))?;
        let later =
            |path: &&String| FileName::parse(path).is_some_and(|name| name.gateway == gateway && name.sequence > 1);
        if let Some(found) = files.iter().find(later) {
            return Err(format!("there is {found}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_leaves_is_no_loss_and_what_a_cut_leaves_is() {
        // Nothing yet; a first journal; sealed; sealed and the next open; killed between state and line; sealing that lags.
        for (last, states, journals) in [
            (0, &[][..], &[][..]),
            (0, &[], &[1]),
            (7, &[7], &[]),
            (7, &[7], &[8]),
            (7, &[7], &[7, 8]),
            (7, &[7, 8], &[8, 9]),
            (7, &[7], &[8, 9, 10]),
            (7, &[], &[]),
        ] {
            assert_eq!(known_beyond(last, states, journals), None, "{last} {states:?} {journals:?}");
        }
        for (last, states, journals, known) in
            [(0, &[7][..], &[][..], 7), (0, &[1], &[2], 2), (6, &[7], &[], 7), (6, &[], &[8], 8), (3, &[7], &[4, 8], 7)]
        {
            assert_eq!(known_beyond(last, states, journals), Some(known), "{last} {states:?} {journals:?}");
        }
    }
}
