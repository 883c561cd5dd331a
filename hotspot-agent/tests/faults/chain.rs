//! The life of a chain by itself: lines, and keys that take over from each other.

use std::path::Path;

use hotspot_archive::manifest::{GatewayKey, Manifest, ManifestError, Sealing};
use hotspot_archive::segment::Origin;
use hotspot_archive::verify::{Trust, verify};

use crate::tap;

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
    let report = verify(&root.join("archive"), &Trust::default(), |_| {}).map_err(|error| error.to_string())?;
    if report.is_whole() { Ok(()) } else { Err(format!("{:?}", report.findings)) }
}
