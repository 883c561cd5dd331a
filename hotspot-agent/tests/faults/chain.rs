//! The life of a chain by itself: lines, and keys that take over from each other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hotspot_archive::manifest::{GatewayKey, Manifest, ManifestError, Sealing};
use hotspot_archive::segment::Origin;
use hotspot_archive::verify::{Trust, verify};

use crate::model::{Disk, Tree};
use crate::tap::{self, FileId, Op};
use hotspot_tests::random::Random;

/// More than any fault has calls.
const ATTEMPTS_MAX: usize = 100;

fn open(root: &Path) -> Result<Manifest, ManifestError> {
    Manifest::open(&root.join("archive"), "g", GatewayKey::open(&root.join("keys/signing.key"))?)
}

fn seal(manifest: &mut Manifest, sequence: u64) -> Result<(), ManifestError> {
    let draft = manifest.draft(&Origin { site: "s".into(), gateway: "g".into(), sequence }, 1)?;
    let (sessions, devices, coverage) = (&[], &[], &[]);
    let sealing = Sealing { closed_ns: 2, sealed_ns: 3, clock: None, step_ns: 0, sessions, devices, coverage };
    manifest.seal(draft, &sealing).map(drop)
}

fn again<T>(mut attempt: impl FnMut() -> Result<T, ManifestError>) -> T {
    let mut failures = Vec::new();
    while failures.len() < ATTEMPTS_MAX {
        match attempt() {
            Ok(done) => return done,
            Err(failure) => failures.push(hotspot_agent::sealer::chain(&failure)),
        }
    }
    panic!("work does not resume although the fault has ended: {failures:?}");
}

/// Seals, exchanges the key, and is killed, some times. Notes each sequence that is sealed.
pub(crate) fn live(root: &Path) {
    for _ in 0..3 {
        let mut manifest = again(|| open(root));
        for _ in 0..2 {
            let next = manifest.last_sequence() + 1;
            again(|| seal(&mut manifest, next));
            tap::note(usize::try_from(next).unwrap());
        }
        again(|| manifest.begin_epoch(4, None));
        let next = manifest.last_sequence() + 1;
        again(|| seal(&mut manifest, next));
        tap::note(usize::try_from(next).unwrap());
    }
}

/// Goes on, and says what is wrong with the chain then. `sealed` sequences must be there at the beginning.
pub(crate) fn check(root: &Path, sealed: u64) -> Result<(), String> {
    let mut manifest = again(|| open(root));
    if manifest.last_sequence() < sealed {
        return Err(format!("sequence {sealed} is not there, only {}", manifest.last_sequence()));
    }
    again(|| manifest.begin_epoch(4, None));
    let next = manifest.last_sequence() + 1;
    again(|| seal(&mut manifest, next));
    let left: Vec<_> = std::fs::read_dir(root.join("keys")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    if left != ["signing.key"] {
        return Err(format!("keys lie about: {left:?}"));
    }
    let report = verify(&root.join("archive"), &Trust::default(), |_| {}).map_err(|error| error.to_string())?;
    if report.is_whole() { Ok(()) } else { Err(format!("{:?}", report.findings)) }
}

/// How often a next key took the name of the one before, and how often that was still on the disk then: a file without a name is beyond
/// reach, and whoever has the disk reads it.
pub(crate) fn keys_replaced_while_they_were_there(ops: &[Op]) -> (usize, usize) {
    let (mut disk, _) = Disk::of(&Tree::default());
    let mut random = Random::new(1);
    let mut names: HashMap<PathBuf, FileId> = HashMap::new();
    let (mut replaced, mut were_there) = (0, 0);
    for op in ops {
        if let Op::MakeFile { path, file } = op {
            names.insert(path.clone(), *file);
        }
        if let Op::Rename { from, to } = op {
            if from.ends_with("signing.next") {
                replaced += 1;
                were_there += usize::from(disk.flushed(names[to]).iter().any(|byte| *byte != 0));
            }
            let file = names.remove(from);
            names.extend(file.map(|file| (to.clone(), file)));
        }
        disk.apply(op, &mut random);
    }
    (replaced, were_there)
}
