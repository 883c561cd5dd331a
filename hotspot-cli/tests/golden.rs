//! What `hotspot decode --json` says of the golden segments of every version (hotspot-archive/tests/golden.rs says what they are).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn golden_segments_of_every_version_decode_to_the_same_text() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hotspot-archive/tests/golden");
    for version in ["1", "2", "3"] {
        for class in ["flows", "sessions", "coverage"] {
            let file = golden.join(version).join(format!("{class}.parquet"));
            let output =
                Command::new(env!("CARGO_BIN_EXE_hotspot")).args(["decode", "--json"]).arg(&file).output().unwrap();
            assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            let expected = fs::read_to_string(golden.join(format!("{class}.jsonl"))).unwrap();
            assert_eq!(text.lines().count(), expected.lines().count() + 1, "{}", file.display());
            for (line, expected) in text.lines().zip(expected.lines()) {
                check(line, expected, &file);
            }
        }
    }
}

#[test]
fn several_claimants_decode_to_lists_of_their_names() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hotspot-archive/tests/golden");
    let expected = fs::read_to_string(golden.join("claimants.jsonl")).unwrap();
    for version in ["3"] {
        let file = golden.join(version).join("claimants.parquet");
        let mut decode = Command::new(env!("CARGO_BIN_EXE_hotspot"));
        let output = decode.args(["decode", "--json"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), expected.lines().count() + 1, "{}", file.display());
        for (line, expected) in text.lines().zip(expected.lines()) {
            let (found, expected): (Value, Value) =
                (serde_json::from_str(line).unwrap(), serde_json::from_str(expected).unwrap());
            for name in ["flow_id", "attribution", "user", "session_id"] {
                assert_eq!(found[name], expected[name], "{name} in {}", file.display());
            }
        }
    }
}

/// Every column there was has its value; columns that came later are not known. Of flows, what was one name is a list of one.
fn check(line: &str, expected: &str, file: &Path) {
    let (found, expected): (Value, Value) =
        (serde_json::from_str(line).unwrap(), serde_json::from_str(expected).unwrap());
    for (name, value) in found.as_object().unwrap() {
        let is_list = found["record"] == "flow" && matches!(&**name, "user" | "session_id");
        match expected.get(name) {
            Some(Value::String(before)) if is_list => {
                assert_eq!(value, &Value::Array(vec![before.clone().into()]), "{name} in {}", file.display());
            }
            Some(before) => assert_eq!(value, before, "{name} in {}", file.display()),
            None => {
                assert!(value.is_null() || *value == Value::Array(Vec::new()), "{name} in {}: {value}", file.display());
            }
        }
    }
    for name in expected.as_object().unwrap().keys() {
        assert!(found.get(name).is_some(), "{name} is gone from {}", file.display());
    }
}
