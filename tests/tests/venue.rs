//! The main job, on a venue: the demo's own checks, and what must not be in the archive.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use hotspot_tests::demo::run_demo;
use hotspot_tests::programs::{ask, hotspot};

/// `DuckDB` in the environment `cargo xtask setup` makes.
fn duckdb(sql: &str) -> String {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    let script = "import duckdb, sys; print(duckdb.sql(sys.argv[1]).fetchall())";
    let output = Command::new(python).args(["-c", script, sql]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_venue_is_recorded_and_every_question_about_it_answered() {
    let mut shown = Vec::new();
    let demo = run_demo(&mut shown).unwrap();
    demo.findings.check().unwrap();
    let archive = demo.data_dir.join("archive");

    // Devices have names; these make up their addresses, so nobody made them.
    for (position, client) in demo.lab.clients.iter().enumerate() {
        let flows = ask("find", &archive, &["mac", &client.mac, "and", "proto", "tcp"]).unwrap();
        let name = format!("c{}-phone", position + 1);
        assert!(!flows.is_empty() && flows.iter().all(|flow| flow["hostname"] == *name), "{name}: {flows:?}");
    }

    // Every engine reads the segments as they lie.
    let flows = ask("find", &archive, &[]).unwrap();
    let sum = |name: &str| flows.iter().map(|flow| flow[name].as_u64().unwrap()).sum::<u64>();
    let sql = format!(
        "select count(*), sum(packets_out)::bigint, sum(bytes_out)::bigint, sum(bytes_in)::bigint, min(site) \
         from read_parquet('{}/flows/**/*.parquet', hive_partitioning = false)",
        archive.display()
    );
    let expected =
        format!("[({}, {}, {}, {}, 'lab')]", flows.len(), sum("packets_out"), sum("bytes_out"), sum("bytes_in"));
    assert_eq!(duckdb(&sql), expected);

    // Every record of every file can be decoded.
    for file in files(&archive.join("flows")) {
        let output = hotspot(&["decode", "--json", &file.display().to_string()]).unwrap();
        assert!(output.status.success());
    }

    // Never payload: the web page's bytes and the echo's are nowhere, neither in a file as it lies nor in what is packed in it.
    let is_packed = |file: &PathBuf| file.extension().is_some_and(|kind| kind == "parquet");
    let unpacked = |file: &Path| {
        let output = hotspot(&["decode", "--json", &file.display().to_string()]).unwrap();
        assert!(output.status.success(), "{}", file.display());
        output.stdout
    };
    let holds = |bytes: &[u8], marker: &[u8]| bytes.windows(marker.len()).any(|window| window == marker);
    let all: Vec<PathBuf> = files(&demo.data_dir).into_iter().chain([demo.data_dir.with_extension("log")]).collect();
    let named = all.iter().filter(|file| is_packed(file)).filter(|file| holds(&unpacked(file), b"c1-phone")).count();
    assert!(named > 0, "what a file holds is seen");
    for file in all {
        let bytes = [std::fs::read(&file).unwrap(), if is_packed(&file) { unpacked(&file) } else { Vec::new() }];
        for marker in [&b"xxxxxxxxxxxxxxxx"[..], b"HTTP/1.", b"example.test", b"/who/c1"] {
            assert!(!bytes.iter().any(|bytes| holds(bytes, marker)), "{} holds payload", file.display());
        }
    }

    // A single changed byte is found.
    let segment = files(&archive.join("flows")).remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let output = hotspot(&["verify", "--archive", &archive.display().to_string()]).unwrap();
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains(segment.file_name().unwrap().to_str().unwrap()), "{told}");
    std::fs::write(&segment, &bytes[..middle]).unwrap();
    let output = hotspot(&["find", "--archive", &archive.display().to_string()]).unwrap();
    assert_eq!(output.status.code(), Some(3), "the other segments are searched, and the damage is said");
    let output = hotspot(&["decode", &segment.display().to_string()]).unwrap();
    assert_eq!(output.status.code(), Some(3));
}
