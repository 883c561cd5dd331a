//! Answers: aligned tables, JSON lines, CSV.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

/// Standard output, buffered.
pub(crate) fn stdout() -> io::BufWriter<io::StdoutLock<'static>> {
    io::BufWriter::new(io::stdout().lock())
}

pub(crate) fn json_line(to: &mut impl Write, object: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, object)?;
    writeln!(to)
}

/// A line of CSV (RFC 4180).
pub(crate) fn csv_line(to: &mut impl Write, values: impl Iterator<Item = impl AsRef<str>>) -> io::Result<()> {
    for (position, value) in values.enumerate() {
        if position > 0 {
            write!(to, ",")?;
        }
        csv_value(to, value.as_ref())?;
    }
    write!(to, "\r\n")
}

/// A value of such a line.
pub(crate) fn csv_value(to: &mut impl Write, value: &str) -> io::Result<()> {
    if value.contains(['"', ',', '\n', '\r']) {
        write!(to, "\"{}\"", value.replace('"', "\"\""))
    } else {
        to.write_all(value.as_bytes())
    }
}

/// A JSON value as a cell: text without quotes, null as nothing.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
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
        self.rows.push(row);
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
