//! Many gateways, one target: chains that do not mix, and Spark over the partitions as docs/scale.md shows it.

use std::path::Path;
use std::process::Command;

use crate::venue::{CLIENTS, FLOWS, SEGMENTS, Venue, text};

fn hotspot(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hotspot")).args(words).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
    text(&output.stdout)
}

#[test]
fn spark_reads_three_gateways_by_their_partitions() {
    let target = tempfile::tempdir().unwrap();
    let to = target.path().display().to_string();
    let venues = [("cafe-1", "gw1"), ("cafe-1", "gw2"), ("hall-2", "gw3")]
        .map(|(site, gateway)| Venue::of(site, gateway, false));
    for venue in &venues {
        hotspot(&["ship", "--archive", &venue.archive().display().to_string(), "--to", &to]);
    }
    let verified = hotspot(&["verify", "--archive", &to, "--json"]);
    assert!(verified.contains("\"verify\":\"ok\",\"gateways\":3,\"lines\":72"), "{verified}");
    let of_gateway: u64 = (1..=CLIENTS).map(|client| SEGMENTS / client * FLOWS).sum();
    let found = hotspot(&["find", "--archive", &to, "--json", "gateway gw2"]);
    // And a line that says what the answer is.
    assert_eq!(found.lines().count() as u64, of_gateway + 1);

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join("target/venv/bin/python");
    let output = Command::new(&python).arg(root.join("tests/python/fleet.py")).arg(&to).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup`", python.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let client_7 = SEGMENTS / 7 * FLOWS;
    let expected = serde_json::json!({
        "by_gateway": [["cafe-1", "gw1", of_gateway], ["cafe-1", "gw2", of_gateway], ["hall-2", "gw3", of_gateway]],
        "user_by_site": [["cafe-1", 2 * client_7, 2 * client_7 * 1800], ["hall-2", client_7, client_7 * 1800]],
        "who": [["cafe-1", "gw1", ["0900000007"]], ["cafe-1", "gw2", ["0900000007"]], ["hall-2", "gw3", ["0900000007"]]],
        "pruned": true,
    });
    assert_eq!(read, expected);
}
