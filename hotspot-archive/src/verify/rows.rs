//! Whether the rows of files are those their signed roots stand for, as far as they can be opened.

use std::io::ErrorKind;
use std::path::Path;

use super::{Kind, Report, Trust};
use crate::keys::{KeyError, Keyring, added_sidecar_path, sidecar_path};
use crate::layout::Class;
use crate::manifest::{FileEntry, to_hex};
use crate::place::Place;
use crate::rows::{self, RowsError};
use crate::segment::{SegmentError, SegmentReader};

/// Compares files that their line names by right. One that is not there, and one that is for others, is not opened; the lines and keys are
/// judged elsewhere.
pub(super) fn verify<'a>(
    root: &Path,
    place: &dyn Place,
    files: impl Iterator<Item = &'a FileEntry>,
    trust: &Trust<'_>,
    report: &mut Report,
) {
    let none = Keyring::none();
    let keyring = trust.keyring.unwrap_or(&none);
    for file in files.filter(|file| Class::from_label(&file.class).is_some()) {
        let Some(expected) = &file.rows_root else {
            report.without_rows_root += 1;
            continue;
        };
        if !trust.rows {
            continue;
        }
        let found = match place.bring(&file.path, Some(&file.sha256)) {
            Ok(()) => root_of(root, place, file, keyring),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        place.release(&file.path);
        match found {
            Ok(None) => {}
            Ok(Some((rows, found))) if rows == file.rows && found == *expected => report.rows_files += 1,
            Ok(Some((rows, _))) if rows != file.rows => {
                report.add(Kind::Damage, &file.path, None, format!("has {rows} rows, its line says {}", file.rows));
            }
            Ok(Some(_)) => report.add(
                Kind::Damage,
                &file.path,
                None,
                "its rows are not those that the root in its line stands for",
            ),
            Err(what) => report.add(Kind::Damage, &file.path, None, what),
        }
    }
}

/// Rows of a file and the root over them; `None` where it is for others.
fn root_of(
    root: &Path,
    place: &dyn Place,
    file: &FileEntry,
    keyring: &Keyring,
) -> Result<Option<(u64, String)>, String> {
    let path = Path::new(&file.path);
    let mut sidecars = Vec::new();
    if file.key.is_some() {
        sidecars.push(sidecar_path(path));
        sidecars.extend(keyring.recipients().map(|recipient| added_sidecar_path(path, &recipient)));
    }
    for sidecar in &sidecars {
        // One that is missing is missed where it is needed.
        let _ = place.bring(&sidecar.to_string_lossy(), None);
    }
    let found = SegmentReader::open(&root.join(path), keyring)
        .map_err(RowsError::from)
        .and_then(|segment| rows::root(&segment));
    for sidecar in &sidecars {
        place.release(&sidecar.to_string_lossy());
    }
    match found {
        Ok(found) => Ok(Some((found.rows, to_hex(&found.root)))),
        Err(RowsError::Segment(SegmentError::Key(
            KeyError::NoIdentity { .. } | KeyError::NotForUs { .. } | KeyError::NoSidecar { .. },
        ))) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use hotspot_core::record::CoverageRecord;

    use super::*;
    use crate::keys::{Identity, Recipients};
    use crate::manifest::{GatewayKey, Line, Manifest, Sealing};
    use crate::place::Here;
    use crate::segment::Origin;
    use crate::segment::tests::flow;

    /// An archive of a segment with flows and coverage, and its line.
    fn archive(dir: &Path, recipients: Option<Recipients>) -> Line {
        let key = GatewayKey::open(&dir.join("keys/k")).unwrap();
        let mut manifest = Manifest::open(&dir.join("archive"), "g", key).unwrap().encrypted_for(recipients);
        let origin = Origin { site: "s".into(), gateway: "g".into(), sequence: 1 };
        let mut draft = manifest.draft(&origin, 1).unwrap();
        (0..50).for_each(|row| draft.flow(&flow(row)).unwrap());
        let coverage = [CoverageRecord { interface: "lan".into(), ..CoverageRecord::default() }];
        let (sessions, devices) = (&[], &[]);
        let sealing =
            Sealing { closed_ns: 2, sealed_ns: 3, clock: None, step_ns: 0, sessions, devices, coverage: &coverage };
        manifest.seal(draft, &sealing).unwrap()
    }

    fn report(dir: &Path, line: &Line, trust: &Trust<'_>) -> Report {
        let (root, mut report) = (dir.join("archive"), Report::default());
        verify(&root, &Here(root.clone()), line.files.iter(), trust, &mut report);
        report
    }

    fn rows_files(line: &mut Line) -> [&mut FileEntry; 2] {
        let files: Vec<_> = line.files.iter_mut().filter(|file| file.rows_root.is_some()).collect();
        files.try_into().unwrap_or_else(|files| panic!("{files:?}"))
    }

    #[test]
    fn rows_are_compared_with_the_root_in_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let line = archive(dir.path(), None);
        let trust = Trust { rows: true, ..Trust::default() };
        let whole = report(dir.path(), &line, &trust);
        assert_eq!((whole.rows_files, whole.without_rows_root, whole.findings.as_slice()), (2, 0, [].as_slice()));
        assert_eq!(report(dir.path(), &line, &Trust::default()), Report::default(), "nobody asked");

        let mut swapped = line.clone();
        let [flows, coverage] = rows_files(&mut swapped);
        std::mem::swap(&mut flows.rows_root, &mut coverage.rows_root);
        let found = report(dir.path(), &swapped, &trust).findings;
        assert_eq!(found.len(), 2, "each has the root of another class: {found:?}");

        let mut more = line.clone();
        rows_files(&mut more)[0].rows += 1;
        assert!(report(dir.path(), &more, &trust).findings[0].what.contains("has 50 rows, its line says 51"));

        let mut earlier = line.clone();
        rows_files(&mut earlier)[0].rows_root = None;
        let said = report(dir.path(), &earlier, &trust);
        assert_eq!((said.rows_files, said.without_rows_root, said.is_whole()), (1, 1, true));
    }

    #[test]
    fn rows_of_encrypted_files_are_compared_by_whoever_can_open_them() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Identity::generate(), Identity::generate());
        let recipients = Recipients::parse(&[first.recipient(), second.recipient()], false).unwrap();
        let line = archive(dir.path(), Some(recipients));
        let with = |keyring| report(dir.path(), &line, &Trust { rows: true, keyring, ..Trust::default() });
        let (ours, theirs) = (Keyring::of(vec![second]), Keyring::of(vec![Identity::generate()]));
        let opened = with(Some(&ours));
        assert_eq!((opened.rows_files, opened.findings.as_slice()), (2, [].as_slice()));
        for keyring in [Some(&theirs), None] {
            let closed = with(keyring);
            assert_eq!((closed.rows_files, closed.findings.as_slice()), (0, [].as_slice()));
        }
    }
}
