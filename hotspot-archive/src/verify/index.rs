//! Whether the index of a segment is that of its rows. A search believes it, and one that left values out would hide rows.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use super::{Kind, Report, Trust};
use crate::blocks::hash_blocks;
use crate::chain::Line;
use crate::index::{Builder, Index, Said, Sealed};
use crate::keys::{Keyring, added_sidecar_path, sidecar_path};
use crate::layout::{Class, INDEX};
use crate::manifest::FileEntry;
use crate::place::Place;
use crate::segment::{Origin, Records, SegmentReader};

/// Makes the index of a line's flows again from their rows, and compares it. Where the flows have no root over their rows they were sealed
/// by an early version, whose index may have been another. What is missing or changed is found elsewhere. `kept`: the files that the line
/// names by right and that were not deleted.
pub(super) fn verify(
    root: &Path,
    place: &dyn Place,
    line: &Line,
    kept: &[&FileEntry],
    trust: &Trust<'_>,
    report: &mut Report,
) {
    if !trust.rows {
        return;
    }
    let of_class = |class: &str| kept.iter().copied().find(|file| file.class == class);
    let flows = of_class(Class::Flows.label()).filter(|flows| flows.rows_root.is_some());
    let (Some(flows), Some(index)) = (flows, of_class(INDEX)) else { return };
    let none = Keyring::none();
    let keyring = trust.keyring.unwrap_or(&none);
    let path = Path::new(&flows.path);
    let sidecars = std::iter::once(sidecar_path(path))
        .chain(keyring.recipients().map(|recipient| added_sidecar_path(path, &recipient)))
        .filter(|_| flows.key.is_some())
        .map(|sidecar| sidecar.to_string_lossy().into_owned());
    let brought: Vec<String> = [flows.path.clone(), index.path.clone()].into_iter().chain(sidecars).collect();
    for (number, path) in brought.iter().enumerate() {
        let sha256 = [&flows.sha256, &index.sha256].get(number).map(|sha256| sha256.as_str());
        // One that is missing is missed where it is needed.
        let _ = place.bring(path, sha256);
    }
    let origin = Origin { site: line.site.clone(), gateway: line.gateway.clone(), sequence: line.sequence };
    match is_of_rows(root, &origin, flows, index, keyring) {
        Ok(Some(true) | None) => {}
        Ok(Some(false)) => {
            report.add(Kind::Damage, &index.path, None, "is not the index of its rows: a search by it misses some");
        }
        Err(what) => report.add(Kind::Damage, &index.path, None, what),
    }
    brought.iter().for_each(|path| place.release(path));
}

/// `None`: for others, or not there.
fn is_of_rows(
    root: &Path,
    origin: &Origin,
    flows: &FileEntry,
    index: &FileEntry,
    keyring: &Keyring,
) -> Result<Option<bool>, String> {
    let path = root.join(&flows.path);
    // One that is for others is not opened; one that is damaged is said where its rows are compared.
    let Ok(segment) = SegmentReader::open(&path, keyring) else { return Ok(None) };
    let opened = File::open(root.join(&index.path));
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    let said = Said { head: index.head.as_deref().unwrap_or_default(), segment: &flows.sha256 };
    let found = if index.key.is_none() {
        Index::in_file(file, said)
    } else {
        let key = keyring.data_key(&path).map_err(|error| format!("cannot be opened: {error}"))?;
        let frames = Sealed::read(file).map(|sealed| {
            let key = sealed.key_by(&key, origin)?;
            sealed.open(&key, origin)
        });
        let frames = frames.map_err(|error| error.to_string())?.ok_or("its key is not that of its segment")?;
        Index::sealed(frames, said)
    };
    let found = found.map_err(|error| error.to_string())?;
    let mut builder = Builder::default();
    for records in segment.read() {
        // Rows that cannot be read are said where they are compared.
        let Ok(Records::Flows(rows)) = records else { return Ok(None) };
        rows.iter().for_each(|row| builder.add(row));
    }
    let blocks = File::open(&path).and_then(hash_blocks).map_err(|error| format!("cannot be compared: {error}"))?;
    Ok(Some(found.is(&builder.finish(&flows.sha256, &blocks))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::keys::{Identity, Recipients};
    use crate::manifest::{GatewayKey, Manifest, Sealing, hash_file};
    use crate::place::Here;
    use crate::segment::tests::flow;

    const ROWS: u64 = 50;

    fn archive(dir: &Path, recipients: Option<Recipients>) -> Line {
        let key = GatewayKey::open(&dir.join("keys/k")).unwrap();
        let mut manifest = Manifest::open(&dir.join("archive"), "g", key).unwrap().encrypted_for(recipients);
        let origin = Origin { site: "s".into(), gateway: "g".into(), sequence: 1 };
        let mut draft = manifest.draft(&origin, 1).unwrap();
        (0..ROWS).for_each(|row| draft.flow(&flow(row)).unwrap());
        let (sessions, devices, coverage) = (&[], &[], &[]);
        let sealing = Sealing { closed_ns: 2, sealed_ns: 3, clock: None, step_ns: 0, sessions, devices, coverage };
        manifest.seal(draft, &sealing).unwrap()
    }

    fn findings(dir: &Path, line: &Line, trust: &Trust<'_>) -> Vec<String> {
        let (root, mut report) = (dir.join("archive"), Report::default());
        let kept: Vec<&FileEntry> = line.files.iter().collect();
        verify(&root, &Here(root.clone()), line, &kept, trust, &mut report);
        report.findings.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn an_index_that_leaves_rows_out_is_found_whoever_signed_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut line = archive(dir.path(), None);
        let trust = Trust { rows: true, ..Trust::default() };
        assert_eq!(findings(dir.path(), &line, &trust), [""; 0]);
        let root = dir.path().join("archive");
        let flows = line.files.iter().find(|file| file.class == "flows").unwrap().clone();
        let blocks = File::open(root.join(&flows.path)).and_then(hash_blocks).unwrap();
        for left in [0, ROWS - 1, ROWS] {
            let mut builder = Builder::default();
            (0..left).for_each(|row| builder.add(&flow(row)));
            let forged = builder.finish(&flows.sha256, &blocks).in_the_clear();
            let entry = line.files.iter_mut().find(|file| file.class == INDEX).unwrap();
            fs::write(root.join(&entry.path), &forged.bytes).unwrap();
            (entry.sha256, entry.bytes) = hash_file(&root.join(&entry.path)).unwrap();
            entry.head = Some(forged.head());
            let found = findings(dir.path(), &line, &trust);
            assert_eq!(found.len(), usize::from(left != ROWS), "with {left} rows: {found:?}");
            assert_eq!(findings(dir.path(), &line, &Trust::default()), [""; 0], "nobody asked");
        }
    }

    #[test]
    fn an_encrypted_index_is_compared_by_whoever_can_open_its_segment() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Identity::generate(), Identity::generate());
        let recipients = Recipients::parse(&[first.recipient(), second.recipient()], false).unwrap();
        let mut line = archive(dir.path(), Some(recipients));
        let (ours, theirs) = (Keyring::of(vec![second]), Keyring::of(vec![Identity::generate()]));
        let with = |line: &Line, keyring| {
            findings(dir.path(), line, &Trust { rows: true, keyring: Some(keyring), ..Trust::default() })
        };
        assert_eq!(with(&line, &ours), [""; 0]);
        line.files.iter_mut().filter(|file| file.class == INDEX).for_each(|file| file.head = Some("0".repeat(64)));
        assert_eq!((with(&line, &ours).len(), with(&line, &theirs).len()), (1, 0));
    }
}
