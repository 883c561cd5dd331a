//! Segments of every version of the format stay readable for ever, and mean the same.
//!
//! `tests/golden/<version>/<class>.parquet` were written by the software of that version; all of them hold what the lines of
//! `tests/golden/<class>.jsonl` say, which `hotspot decode --json` printed when version 1 was current. (That it still prints them is
//! tested with the tool.) To make the files of a new version, raise `segment::FORMAT`, add its directory's name to `VERSIONS`, and run
//! `cargo test -p hotspot-archive --test golden -- --ignored`; files of earlier versions are never written again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use hotspot_archive::keys::Keyring;
use hotspot_archive::layout::Class;
use hotspot_archive::segment::{self, FORMAT, Records, SegmentReader};

const VERSIONS: [&str; 2] = ["1", "2"];
const CLASSES: [Class; 3] = [Class::Flows, Class::Sessions, Class::Coverage];

fn golden(version: &str, class: Class) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version);
    dir.join(format!("{}.parquet", class.label()))
}

fn read(version: &str, class: Class) -> Vec<Records> {
    let reader = SegmentReader::open(&golden(version, class), &Keyring::none()).unwrap();
    assert_eq!(reader.class(), class);
    assert_eq!((&*reader.origin().site, &*reader.origin().gateway, reader.origin().sequence), ("lab", "gw1", 1));
    reader.read().collect::<Result<_, _>>().unwrap()
}

fn rows(records: &[Records]) -> usize {
    let of = |records: &Records| match records {
        Records::Flows(rows) => rows.len(),
        Records::Sessions(rows) => rows.len(),
        Records::Devices(rows) => rows.len(),
        Records::Coverage(rows) => rows.len(),
    };
    records.iter().map(of).sum()
}

#[test]
fn every_version_reads_the_same() {
    assert_eq!(VERSIONS.last(), Some(&FORMAT), "a version without golden files; see above how to make them");
    for class in CLASSES {
        let first = read(VERSIONS[0], class);
        let lines = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{}.jsonl", class.label()));
        assert_eq!(rows(&first), std::fs::read_to_string(lines).unwrap().lines().count());
        for version in &VERSIONS[1..] {
            assert_eq!(read(version, class), first, "version {version} of {}", class.label());
        }
    }
}

#[test]
#[ignore = "writes the golden files of the current version, once"]
fn make_golden_files_of_this_version() {
    for class in CLASSES {
        let path = golden(FORMAT, class);
        assert!(!path.exists(), "{} is there already, and stays as it is", path.display());
        let origin = SegmentReader::open(&golden(VERSIONS[0], class), &Keyring::none()).unwrap().origin().clone();
        for records in read(VERSIONS[0], class) {
            match records {
                Records::Flows(rows) => segment::write_flows(&path, &origin, None, &rows),
                Records::Sessions(rows) => segment::write_sessions(&path, &origin, None, &rows),
                Records::Devices(rows) => segment::write_devices(&path, &origin, None, &rows),
                Records::Coverage(rows) => segment::write_coverage(&path, &origin, None, &rows),
            }
            .unwrap();
        }
    }
}
