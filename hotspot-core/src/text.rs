//! Bytes of strangers as text that can be kept, shown and searched: the one spelling of the archive (docs/formats/records.md).
//!
//! Whatever reports a name (RADIUS, portal, DHCP, file, an interface's name), its bytes come through [`escaped`] once, before a fact
//! is made of them. [`shown`] is for output: earlier archives, and forged ones, hold text that never came through here.

use std::borrow::Cow;

/// UTF-8 as it is; every other byte, and every character that would change how the text around it is shown, as an escape:
/// `\xNN` for bytes, `\u{N}` for characters, `\\` for a backslash. Nothing is lost and nothing is ambiguous.
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c => push_shown(&mut text, c),
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    bytes.iter().for_each(|byte| push_hex(&mut text, *byte));
    text
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str("\\x");
        push_hex(text, *byte);
    }
}

fn push_hex(text: &mut String, byte: u8) {
    text.extend([byte >> 4, byte & 15].into_iter().filter_map(|digit| char::from_digit(u32::from(digit), 16)));
}

/// Whether text is as [`escaped`] writes it: no backslash but those of escapes, and nothing that would be an escape.
#[must_use]
pub fn is_spelled(text: &str) -> bool {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if changes_display(c) || c == '\\' && escape_len(rest).is_none() {
            return false;
        }
        rest = skip_spelled(rest);
    }
    true
}

/// Text of the archive as it is compared: without characters that change how text is shown, which stand for nothing that can be read,
/// raw or as escapes, and with single backslashes. Two names can come out the same; it is no way back to the bytes.
#[must_use]
pub fn unescaped_display(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') && !text.contains(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let next = skip_spelled(rest);
        let escape = &rest[..rest.len() - next.len()];
        let code =
            escape.strip_prefix("\\u{").and_then(|code| u32::from_str_radix(code.trim_end_matches('}'), 16).ok());
        if escape == "\\\\" {
            plain.push('\\');
        } else if !is_invisible(c) && !code.and_then(char::from_u32).is_some_and(is_invisible) {
            plain.push_str(escape);
        }
        rest = next;
    }
    Cow::Owned(plain)
}

/// Of the characters that change how text is shown those that are not control characters.
fn is_invisible(c: char) -> bool {
    changes_display(c) && !c.is_control()
}

/// Text in the archive's spelling without its first character, which may be an escape.
#[must_use]
pub(crate) fn skip_spelled(text: &str) -> &str {
    let len = escape_len(text).or_else(|| text.chars().next().map(char::len_utf8));
    &text[len.unwrap_or(0)..]
}

/// Bytes of the escape that `text` begins with, backslash included.
fn escape_len(text: &str) -> Option<usize> {
    let is_hex = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let rest = text.strip_prefix('\\')?;
    if rest.starts_with('\\') {
        return Some(2);
    }
    if let Some(digits) = rest.strip_prefix('x') {
        return digits.get(..2).filter(|digits| is_hex(digits)).map(|_| 4);
    }
    let digits = rest.strip_prefix("u{")?;
    let len = digits.find('}').filter(|len| *len <= 6 && is_hex(&digits[..*len]))?;
    Some(4 + len)
}

/// Text as a terminal can take it: characters that would move its cursor, colour it or turn its direction are escaped as
/// [`escaped`] does it. A backslash stays, because text of the archive has its escapes already.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(changes_display) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    text.chars().for_each(|c| push_shown(&mut shown, c));
    Cow::Owned(shown)
}

fn push_shown(text: &mut String, c: char) {
    match c {
        c if c.is_ascii_control() => escape(text, c.encode_utf8(&mut [0; 4]).as_bytes()),
        c if changes_display(c) => text.extend(c.escape_unicode()),
        c => text.push(c),
    }
}

/// Whether a character is no letter of a name but changes how what is around it is shown: control characters (Unicode's Cc: C0,
/// DEL, C1), format characters (Cf: marks of direction, joiners, tags), separators of lines and paragraphs (Zl, Zp), and letters
/// and selectors that are drawn as nothing, by which a name could look like another. By Unicode 16; the selectors
/// of emoji and text (U+FE00..U+FE0F) stay, as names of devices have them and they hide nothing.
#[must_use]
pub const fn changes_display(c: char) -> bool {
    // Most text is ASCII.
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    matches!(
        c,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_people_give_their_devices_stay_as_they_are() {
        for name in ["iPhone của Lan", "DESKTOP-4F2", "Café's \"TV\"", "手机"] {
            assert_eq!(escaped(name.as_bytes()), name);
        }
    }

    #[test]
    fn odd_bytes_are_kept_as_escapes() {
        assert_eq!(escaped(b"a\xff\x00b\n\\"), "a\\xff\\x00b\\x0a\\\\");
        assert_eq!(escaped("a\u{202e}b\u{85}".as_bytes()), "a\\u{202e}b\\u{85}");
    }

    #[test]
    fn no_character_that_controls_a_terminal_or_hides_in_a_name_is_left() {
        // Of each kind the first, the last and some between: C0, DEL, C1, marks of direction, joiners, fillers, tags, selectors.
        for c in [
            '\0',
            '\u{7}',
            '\t',
            '\n',
            '\r',
            '\u{1b}',
            '\u{1f}',
            '\u{7f}',
            '\u{80}',
            '\u{9b}',
            '\u{9d}',
            '\u{9f}',
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{206f}',
            '\u{3164}',
            '\u{feff}',
            '\u{fff9}',
            '\u{1d173}',
            '\u{e0001}',
            '\u{e0020}',
            '\u{e007f}',
            '\u{e0100}',
        ] {
            let name = format!("a{c}b");
            let safe = if c.is_ascii() {
                format!("a\\x{:02x}b", u32::from(c))
            } else {
                format!("a\\u{{{:x}}}b", u32::from(c))
            };
            assert_eq!(escaped(name.as_bytes()), safe);
            assert_eq!(shown(&name), safe);
            assert!(is_spelled(&safe) && !is_spelled(&name), "{safe}");
        }
        assert_eq!(shown("CORP\\\\anna \\xff"), "CORP\\\\anna \\xff", "what has its escapes is shown as it is");
    }

    #[test]
    fn a_lone_backslash_is_no_spelling_of_the_archive() {
        for text in ["CORP\\anna", "\\", "a\\x4", "a\\xg0", "a\\u{}", "a\\u{1234567}", "a\\u{12", "\\\\\\", "\\xé"] {
            assert!(!is_spelled(text), "{text}");
        }
        for text in ["", "anna", "CORP\\\\anna", "Ren\\xe9", "a\\u{202e}b"] {
            assert!(is_spelled(text), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_escaped_is_spelled_and_shown_as_it_is(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let text = escaped(&bytes);
            proptest::prop_assert!(is_spelled(&text));
            proptest::prop_assert_eq!(shown(&text), &text[..]);
        }
    }
}
