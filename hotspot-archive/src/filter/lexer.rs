//! Words, quoted words, brackets and comparisons, with their places. `#` begins a comment where a word could begin.

use super::FilterError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) word: String,
    /// Characters before it.
    pub(super) at: usize,
    /// Quoted words are values, never keywords.
    pub(super) is_quoted: bool,
}

/// Longest filter, in characters: what is longer is no question of a person.
const LEN_MAX: usize = 1 << 20;

pub(super) fn lex(text: &str) -> Result<Vec<Token>, FilterError> {
    let chars: Vec<char> = text.chars().collect();
    let error = |what: &str, at| FilterError { what: what.into(), text: text.into(), at };
    if chars.len() > LEN_MAX {
        return Err(error("the filter is longer than a million characters", 0));
    }
    let mut tokens: Vec<Token> = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let begin = at;
        let next = chars.get(at + 1).copied();
        let mut is_quoted = false;
        let word = match c {
            c if c.is_whitespace() => {
                at += 1;
                continue;
            }
            '#' => {
                while chars.get(at).is_some_and(|c| *c != '\n') {
                    at += 1;
                }
                continue;
            }
            '"' => {
                let (word, end) = quoted(&chars, at).ok_or_else(|| error("this quote is not closed", begin))?;
                (is_quoted, at) = (true, end);
                word
            }
            _ => {
                at += operator_len(c, next).unwrap_or_else(|| word_len(&chars[at..]));
                chars[begin..at].iter().collect()
            }
        };
        tokens.push(Token { word, at: begin, is_quoted });
    }
    Ok(tokens)
}

/// How many characters the operator or bracket has that begins here.
fn operator_len(c: char, next: Option<char>) -> Option<usize> {
    match (c, next) {
        ('<' | '>' | '=' | '!', Some('=')) | ('&', Some('&')) | ('|', Some('|')) => Some(2),
        ('(' | ')' | '[' | ']' | ',' | '<' | '>' | '=' | '!', _) => Some(1),
        _ => None,
    }
}

fn word_len(chars: &[char]) -> usize {
    let ends = |(position, c): (usize, &char)| {
        let is_unequal = *c == '!' && chars.get(position + 1) == Some(&'=');
        c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | ',' | '<' | '>' | '=' | '"') || is_unequal
    };
    // A word has at least the character it begins with.
    chars.iter().enumerate().skip(1).position(ends).map_or(chars.len(), |position| position + 1)
}

/// The quoted word that begins here, and where it ends.
fn quoted(chars: &[char], begin: usize) -> Option<(String, usize)> {
    let mut word = String::new();
    let mut at = begin + 1;
    loop {
        match chars.get(at)? {
            '"' => return Some((word, at + 1)),
            // Before anything else a backslash is itself: names have it, as in CORP\anna.
            '\\' if matches!(chars.get(at + 1), Some('"' | '\\')) => {
                word.push(*chars.get(at + 1)?);
                at += 2;
            }
            c => {
                word.push(*c);
                at += 1;
            }
        }
    }
}
