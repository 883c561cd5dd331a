//! Segments of every version of the format stay readable for ever, and mean the same.
//!
//! `tests/golden/<version>/<class>.parquet` were written by the software of that version; all of them hold what the lines of
//! `tests/golden/<class>.jsonl` say, which `hotspot decode --json` printed when version 1 was current. (That it still prints them is
//! tested with the tool.) From version 3 on there is `claimants.parquet` too, whose rows name several people, some of them to deceive: it holds what
//! [`claimants`] says. `sealed/` has the same files encrypted, with the identity that opens them, which opens nothing else. To make the files of a new
//! version, raise `segment::FORMAT`, add its directory's name to `VERSIONS`, and run `cargo test -p hotspot-archive --test golden -- --ignored`;
//! files of earlier versions are never written again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hotspot_archive::keys::{Identity, Keyring, Recipients};
use hotspot_archive::layout::Class;
use hotspot_archive::segment::{self, FORMAT, Records, SegmentReader};
use hotspot_core::record::{Attribution, FlowRecord};

const VERSIONS: [&str; 3] = ["1", "2", "3"];
/// Those that have lists, and encrypted files.
const WITH_LISTS: [&str; 1] = ["3"];
const CLASSES: [Class; 3] = [Class::Flows, Class::Sessions, Class::Coverage];

fn dir(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

fn golden(version: &str, class: Class) -> PathBuf {
    dir(version).join(format!("{}.parquet", class.label()))
}

fn read(version: &str, class: Class) -> Vec<Records> {
    records(&golden(version, class), &Keyring::none(), class)
}

fn records(path: &Path, keyring: &Keyring, class: Class) -> Vec<Records> {
    let reader = SegmentReader::open(path, keyring).unwrap();
    assert_eq!((reader.class(), reader.is_sealed()), (class, !keyring.is_empty()));
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
        assert_eq!(rows(&first), fs::read_to_string(lines).unwrap().lines().count());
        for version in &VERSIONS[1..] {
            assert_eq!(read(version, class), first, "version {version} of {}", class.label());
        }
    }
}

/// Names of several in one row, as they come: with what separates names elsewhere, quotes, escapes, nothing at all.
fn claimants() -> Vec<FlowRecord> {
    let Records::Flows(flows) = read(VERSIONS[0], Class::Flows).remove(0) else { panic!("no flows") };
    let like = flows.into_iter().find(|flow| flow.identity.is_some()).unwrap();
    let crowd: Vec<String> = (0..64).map(|number| format!("guest, {number}")).collect();
    let lists: Vec<Vec<&str>> = vec![
        vec!["x, victim", "other"],
        vec!["victim"],
        vec!["x, victim"],
        vec![""],
        vec!["", ",", ", "],
        vec!["\"victim\"", "[\"victim\"]", "victim;x", "victim|x"],
        vec![r"CORP\\anna", r"Ren\xe9", r"anonymous@uni.example \(cui-anna)", "Nguyễn (victim)"],
        vec![],
        crowd.iter().map(String::as_str).collect(),
        vec!["x, victim", "other"],
    ];
    let flow = |(number, users): (u64, &Vec<&str>)| {
        let mut who = like.identity.as_deref().unwrap().clone();
        who.users = users.iter().map(|user| (*user).to_owned()).collect();
        let count = users.len().max(1);
        who.session_ids = (0..count).map(|session| format!("nas, {number}/{session}")).collect();
        FlowRecord {
            flow_id: like.flow_id + number,
            attribution: if count > 1 { Attribution::Ambiguous } else { Attribution::MacOnly },
            // One who is known only by a session's number, and one who is not known.
            identity: (number != 9).then(|| Arc::new(who)),
            ..like.clone()
        }
    };
    (0..).zip(&lists).map(flow).collect()
}

#[test]
fn several_claimants_are_read_as_they_were_written_whatever_their_names() {
    for version in WITH_LISTS {
        let path = dir(version).join("claimants.parquet");
        assert_eq!(records(&path, &Keyring::none(), Class::Flows), [Records::Flows(claimants())], "version {version}");
    }
}

#[test]
fn every_encrypted_version_reads_the_same() {
    for version in WITH_LISTS {
        let sealed = dir(version).join("sealed");
        // Who has an identity keeps it from others, which git does not.
        let own = tempfile::tempdir().unwrap();
        let identity = own.path().join("identity");
        fs::write(&identity, fs::read(sealed.join("identity")).unwrap()).unwrap();
        fs::set_permissions(&identity, fs::Permissions::from_mode(0o600)).unwrap();
        let keyring = Keyring::read(&[identity], &mut |_| panic!("it has no passphrase")).unwrap();
        for class in CLASSES {
            let path = sealed.join(format!("{}.parquet", class.label()));
            assert_eq!(records(&path, &keyring, class), read(version, class), "{}", path.display());
        }
        let found = records(&sealed.join("claimants.parquet"), &keyring, Class::Flows);
        assert_eq!(found, [Records::Flows(claimants())], "version {version}");
    }
}

#[test]
#[ignore = "writes the golden files of the current version, once"]
fn make_golden_files_of_this_version() {
    let sealed = dir(FORMAT).join("sealed");
    assert!(!sealed.exists(), "{} is there already, and stays as it is", sealed.display());
    let identity = Identity::generate();
    let recipients = Recipients::parse(&[identity.recipient()], true).unwrap();
    for dir in [dir(FORMAT), sealed.clone()] {
        let write = |class: Class, name: &str, records: Vec<Records>| {
            let path = dir.join(format!("{name}.parquet"));
            let key = (dir == sealed).then(|| recipients.fresh_key(&path).unwrap());
            let reader = SegmentReader::open(&golden(VERSIONS[0], class), &Keyring::none()).unwrap();
            let (origin, key) = (reader.origin(), key.as_ref());
            for records in records {
                match records {
                    Records::Flows(rows) => segment::write_flows(&path, origin, key, &rows),
                    Records::Sessions(rows) => segment::write_sessions(&path, origin, key, &rows),
                    Records::Devices(rows) => segment::write_devices(&path, origin, key, &rows),
                    Records::Coverage(rows) => segment::write_coverage(&path, origin, key, &rows),
                }
                .unwrap();
            }
        };
        fs::create_dir_all(&dir).unwrap();
        CLASSES.into_iter().for_each(|class| write(class, class.label(), read(VERSIONS[0], class)));
        write(Class::Flows, "claimants", vec![Records::Flows(claimants())]);
    }
    fs::write(sealed.join("identity"), identity.expose().as_bytes()).unwrap();
}
