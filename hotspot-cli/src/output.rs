//! Answers: aligned tables, JSON lines, CSV. All that the tool says goes through here.
//!
//! Archives can be forged, and earlier ones hold names as they came; so no character that controls a terminal reaches one ([`shown`]),
//! whatever the record, the column or the message. JSON has such characters as `\u` escapes, so its values are true; so are those of CSV
//! unless it is written to a terminal, or for a spreadsheet.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use hotspot_archive::output_file::OutputFile;

use hotspot_core::text::{changes_display, shown};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use crate::spreadsheet::{BOM, inert, is_short};

/// Where an answer goes, buffered. Unless values are exact, of what is written only line feeds are left to control anything.
pub(crate) struct Output {
    to: io::BufWriter<Sink>,
    style: Style,
    file: Option<OutputFile>,
}

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Shown,
    Exact,
    /// As cells that no spreadsheet runs or changes.
    Inert,
}

enum Sink {
    Stdout(io::StdoutLock<'static>),
    File(File),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(to) => to.write(bytes),
            Self::File(to) => to.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(to) => to.flush(),
            Self::File(to) => to.flush(),
        }
    }
}

/// Standard output, for text and JSON.
pub(crate) fn stdout() -> Output {
    Output { to: io::BufWriter::new(Sink::Stdout(io::stdout().lock())), style: Style::Shown, file: None }
}

impl Output {
    /// A file for text and JSON, which has its name once [`Self::finish`] says so; or standard output where none is named.
    pub(crate) fn open(path: Option<&Path>, may_replace: bool) -> io::Result<Self> {
        let Some(path) = path else { return Ok(stdout()) };
        let file = OutputFile::begin(path, may_replace)?;
        let to = io::BufWriter::new(Sink::File(file.file()?));
        Ok(Self { to, style: Style::Shown, file: Some(file) })
    }

    /// For CSV: values are written as they are, unless a person looks at them.
    pub(crate) fn for_csv(self) -> Self {
        let is_looked_at = self.file.is_none() && io::stdout().is_terminal();
        Self { style: if is_looked_at { Style::Shown } else { Style::Exact }, ..self }
    }

    /// For CSV that is opened by a spreadsheet.
    pub(crate) fn for_spreadsheet(self) -> Self {
        Self { style: Style::Inert, ..self }
    }

    /// Writes out what is left, and gives a file its name.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.to.flush()?;
        self.file.take().map_or(Ok(()), OutputFile::commit)
    }
}

impl Write for Output {
    /// Takes whole texts only, as those that write here do.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n');
        if self.style == Style::Exact || bytes == LINE_END || bytes.iter().all(is_plain) {
            self.to.write_all(bytes)?;
            return Ok(bytes.len());
        }
        for (position, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if position > 0 {
                self.to.write_all(b"\n")?;
            }
            self.to.write_all(shown(&String::from_utf8_lossy(line)).as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A line of text, whatever is in it.
pub(crate) fn line(to: &mut impl Write, text: impl AsRef<str>) -> io::Result<()> {
    writeln!(to, "{}", shown(text.as_ref()))
}

/// Says something about the answer, where the person looks and not into the answer: one line, whatever is in it.
pub(crate) fn say(what: impl AsRef<str>) {
    // There is nobody left to be told that it cannot be said, and the exit code says how it ended.
    let _ = writeln!(io::stderr(), "hotspot: {}", shown(what.as_ref()));
}

/// The same of several lines, as where a filter is wrong.
pub(crate) fn say_lines(what: &str) {
    let lines: Vec<_> = what.split('\n').map(shown).collect();
    let _ = writeln!(io::stderr(), "hotspot: {}", lines.join("\n"));
}

pub(crate) fn json_line(to: &mut impl Write, object: &impl Serialize) -> io::Result<()> {
    object.serialize(&mut Serializer::with_formatter(&mut *to, Visible))?;
    writeln!(to)
}

/// JSON in one line, in which every character that changes how text is shown is an escape.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, to: &mut W, fragment: &str) -> io::Result<()> {
        // The serializer has escaped C0, quotes and backslashes.
        let mut rest = fragment;
        while let Some(at) = rest.find(changes_display) {
            let (plain, from) = rest.split_at(at);
            CompactFormatter.write_string_fragment(to, plain)?;
            let c = from.chars().next().unwrap_or_default();
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(to, "\\u{unit:04x}")?;
            }
            rest = &from[c.len_utf8()..];
        }
        CompactFormatter.write_string_fragment(to, rest)
    }
}

/// The end of a line of CSV (RFC 4180).
const LINE_END: &[u8] = b"\r\n";

/// The first line of CSV (RFC 4180): the names of its columns.
pub(crate) fn csv_header<'a>(to: &mut Output, names: impl Iterator<Item = &'a str>) -> io::Result<()> {
    if to.style == Style::Inert {
        to.to.write_all(BOM.as_bytes())?;
    }
    for (position, name) in names.enumerate() {
        if position > 0 {
            write!(to, ",")?;
        }
        to.write_all(name.as_bytes())?;
    }
    csv_end(to)
}

/// A line of values.
pub(crate) fn csv_line<'a>(to: &mut Output, values: impl Iterator<Item = &'a Value>) -> io::Result<()> {
    for (position, value) in values.enumerate() {
        if position > 0 {
            write!(to, ",")?;
        }
        csv_cell(to, value)?;
    }
    csv_end(to)
}

fn csv_cell(to: &mut Output, value: &Value) -> io::Result<()> {
    match value {
        Value::Number(number) if is_short(&number.to_string()) => write!(to, "{number}"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            csv_value(to, &cell(value))
        }
    }
}

/// A text of such a line.
pub(crate) fn csv_value(to: &mut Output, value: &str) -> io::Result<()> {
    let value = match to.style {
        Style::Exact => value.into(),
        Style::Shown => shown(value),
        Style::Inert => inert(value).into(),
    };
    let is_quoted = to.style == Style::Inert && !value.is_empty();
    if is_quoted || value.contains(['"', ',', '\n', '\r']) {
        write!(to, "\"{}\"", value.replace('"', "\"\""))
    } else {
        to.write_all(value.as_bytes())
    }
}

/// Ends such a line.
pub(crate) fn csv_end(to: &mut Output) -> io::Result<()> {
    to.write_all(LINE_END)
}

/// A JSON value as a cell: text without quotes, null as nothing, a list as [`texts_cell`] has it.
pub(crate) fn cell(value: &Value) -> String {
    if let Some([Value::String(text)]) = value.as_array().map(Vec::as_slice) {
        return texts_cell(std::slice::from_ref(text));
    }
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A list as a cell: one text as it is, several as a JSON array. One that is empty or begins with a bracket is an array too, so that a
/// cell never stands for two lists.
pub(crate) fn texts_cell(texts: &[String]) -> String {
    match texts {
        [text] if !text.is_empty() && !text.starts_with('[') => text.clone(),
        _ => Value::from(texts).to_string(),
    }
}

/// A table whose columns are as wide as what is in them.
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Columns of numbers are aligned to the right.
    numbers: Vec<bool>,
}

impl Table {
    /// Column names; a name that begins with `>` is a column of numbers.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        let numbers = columns.iter().map(|name| name.starts_with('>')).collect();
        Self { header: columns.iter().map(|name| name.trim_start_matches('>')).collect(), rows: Vec::new(), numbers }
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row.into_iter().map(|cell| shown(&cell).into_owned()).collect());
    }

    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let header: Vec<String> = self.header.iter().map(|name| (*name).to_owned()).collect();
        let lines = || std::iter::once(&header).chain(&self.rows);
        let width = |column: usize| lines().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let mut line = String::new();
        for row in lines() {
            line.clear();
            for ((cell, width), is_number) in row.iter().zip(&widths).zip(&self.numbers) {
                let space = std::iter::repeat_n(' ', width - cell.chars().count());
                if *is_number {
                    line.extend(space);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.extend(space);
                }
                line.push_str("  ");
            }
            writeln!(to, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C0, DEL, C1, a mark of direction, a tag, a line feed: all in one value.
    const FORGED: &str = "a\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{e0041}\nb";
    const SAFE: &str = "a\\x1b[2J\\x7f\\u{9b}\\u{202e}\\u{e0041}\\x0ab";

    fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut to = Vec::new();
        write(&mut to).unwrap();
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn a_cell_cannot_control_the_terminal_or_begin_a_row() {
        let mut table = Table::new(&["user", ">bytes"]);
        table.push(vec![FORGED.to_owned(), "7".to_owned()]);
        let text = written(|to| table.write(to));
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(text.contains(SAFE), "{text:?}");
        assert_eq!(written(|to| line(to, FORGED)), format!("{SAFE}\n"));
    }

    #[test]
    fn no_cell_stands_for_two_lists() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (texts, expected) in [
            (list(&["anna"]), "anna"),
            (list(&["x, victim"]), "x, victim"),
            (list(&["x, victim", "other"]), r#"["x, victim","other"]"#),
            (list(&[r#"["x, victim","other"]"#]), r#"["[\"x, victim\",\"other\"]"]"#),
            (list(&[""]), r#"[""]"#),
            (list(&["", ""]), r#"["",""]"#),
            (list(&["[x"]), r#"["[x"]"#),
            (list(&[]), "[]"),
        ] {
            assert_eq!(cell(&Value::from(texts.as_slice())), expected);
            assert_eq!(texts_cell(&texts), expected);
        }
        assert_eq!(cell(&Value::Null), "", "which no list is");
    }

    #[test]
    fn json_has_what_would_control_the_terminal_as_escapes_and_is_true_to_the_value() {
        let text = written(|to| json_line(to, &serde_json::json!({ FORGED: [FORGED, "Nguyễn \"V\" \\"] })));
        assert!(!text.trim_end().contains(changes_display), "{text:?}");
        assert!(text.contains("\\udb40\\udc41"), "a tag is a pair: {text}");
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read[FORGED], serde_json::json!([FORGED, "Nguyễn \"V\" \\"]));
    }
}
