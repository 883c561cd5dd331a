//! Bytes of strangers as text that can be kept, shown and searched.

/// UTF-8 as it is; every other byte, and every character that would change how the text around it is shown, as an escape:
/// `\xNN` for bytes, `\u{N}` for characters, `\\` for a backslash. Nothing is lost and nothing is ambiguous.
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_ascii_control() => escape(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c if c.is_control() || is_invisible(c) => text.extend(c.escape_unicode()),
                c => text.push(c),
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

/// Joiners, marks of direction, separators of lines: characters by which a name could look like another.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
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
}
