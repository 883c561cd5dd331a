//! Cells that no spreadsheet runs or changes.
//!
//! Names are chosen by guests, and a spreadsheet takes a cell of a CSV file for a formula (`=HYPERLINK(…)`), a date (`1-2`, `DEC1`), a
//! number (`0912345678` loses its zero, of a long one all digits but 15) or a truth value, by rules that differ between programs and
//! languages. So what is left as it is is what no program takes for anything but text: letters, and between them blanks, dots, dashes
//! and underscores. Everything else gets an apostrophe in front, and nothing is ever taken away: a reader who takes one apostrophe off
//! where there is one has the value.

use std::borrow::Cow;

use hotspot_core::text::shown;

/// Marks a cell as text.
pub(crate) const MARK: char = '\'';
/// Tells a spreadsheet that the file is UTF-8.
pub(crate) const BOM: &str = "\u{feff}";
/// Rows that a spreadsheet shows, below the header.
pub(crate) const ROWS_MAX: usize = 1_048_575;
/// Digits of a number that a spreadsheet shows; from the sixteenth on it does not even keep them.
const DIGITS_MAX: usize = 11;
/// Words that are truth values where people speak the languages they are of.
const TRUTHS: [&str; 16] = [
    "true",
    "false",
    "wahr",
    "falsch",
    "vrai",
    "faux",
    "verdadero",
    "falso",
    "verdadeiro",
    "vero",
    "waar",
    "onwaar",
    "sant",
    "falskt",
    "prawda",
    "fałsz",
];

/// A text as such a cell.
pub(crate) fn inert(text: &str) -> String {
    // One row stays one line, and a semicolon or tab begins no cell in languages that separate by them.
    let visible: Cow<'_, str> = shown(text);
    let visible = visible.replace(';', "\\x3b");
    if visible.is_empty() || is_plain(&visible) { visible } else { format!("{MARK}{visible}") }
}

/// Whether a number may stay one.
pub(crate) fn is_short(number: &str) -> bool {
    number.len() <= DIGITS_MAX && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_plain(text: &str) -> bool {
    let is_letter = |c: char| c.is_alphabetic() && !is_wide_form(c);
    text.starts_with(is_letter)
        && text.chars().all(|c| is_letter(c) || matches!(c, ' ' | '.' | '_' | '-' | '\u{300}'..='\u{36f}'))
        && !TRUTHS.contains(&text.to_lowercase().as_str())
}

/// Half-width and full-width forms, which some programs take for what they stand for.
fn is_wide_form(c: char) -> bool {
    matches!(c, '\u{ff00}'..='\u{ffef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_letters_is_marked_and_nothing_is_lost() {
        for text in ["", "anna", "Nguyễn Văn A", "end_of_flow", "mac_only", "Nguye\u{302}\u{303}n", "тест", "李"]
        {
            assert_eq!(inert(text), text);
        }
        for text in [
            "=1+1",
            "+84912345678",
            "-1",
            "@SUM(A1)",
            " =1+1",
            "'=1+1",
            "\"=1+1",
            "0912345678",
            "02:00:00:00:00:01",
            "1-2",
            "DEC1",
            "1E5",
            "TRUE",
            "wahr",
            "10.20.0.14",
            "=cmd|'/C calc'!A0",
            "\u{ff1d}1+1",
            "\u{ff0b}1",
            "\u{ff21}1",
            "\u{ff21}",
            "12345678901234567890",
            "a,b",
            "a=b",
            "[\"x\"]",
            "50%",
            "$5",
            "(5)",
            "#N/A",
            "2026-11-23T00:00:00Z",
            "١٢٣",
            "\u{b2}",
        ] {
            assert_eq!(inert(text), format!("'{text}"));
        }
        assert_eq!(inert("\t=1+1"), "'\\x09=1+1");
        assert_eq!(inert("a\r\n=1+1"), "'a\\x0d\\x0a=1+1");
        assert_eq!(inert("a;=1+1"), "'a\\x3b=1+1");
        assert!(is_short("12345678901") && !is_short("123456789012") && !is_short("-1"));
    }
}
