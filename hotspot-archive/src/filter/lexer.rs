//! Words, quoted words and parentheses, with their places.

use super::FilterError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) word: String,
    /// Characters before it.
    pub(super) at: usize,
    /// Quoted words are values, never keywords.
    pub(super) is_quoted: bool,
}

pub(super) fn lex(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = text.chars().enumerate().peekable();
    while let Some((at, c)) = rest.next() {
        match c {
            c if c.is_whitespace() => {}
            '(' | ')' => tokens.push(Token { word: c.to_string(), at, is_quoted: false }),
            '"' => {
                let mut word = String::new();
                loop {
                    match rest.next() {
                        None => {
                            return Err(FilterError { what: "a quote is not closed".into(), text: text.into(), at });
                        }
                        Some((_, '"')) => break,
                        Some((_, '\\')) => word.extend(rest.next().map(|(_, c)| c)),
                        Some((_, c)) => word.push(c),
                    }
                }
                tokens.push(Token { word, at, is_quoted: true });
            }
            c => {
                let mut word = String::from(c);
                while let Some((_, c)) = rest.next_if(|(_, c)| !c.is_whitespace() && !matches!(c, '(' | ')' | '"')) {
                    word.push(c);
                }
                tokens.push(Token { word, at, is_quoted: false });
            }
        }
    }
    Ok(tokens)
}
