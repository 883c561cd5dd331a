//! What is wrong with a filter, and where: the line, a caret under the place, and what to write instead.

use std::fmt;

/// What is wrong with a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FilterError {
    pub what: String,
    pub text: String,
    /// Characters before the place.
    pub at: usize,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before: Vec<char> = self.text.chars().take(self.at).collect();
        let column = before.iter().rev().take_while(|c| **c != '\n').count();
        let lines_before = before.iter().filter(|c| **c == '\n').count();
        let line = self.text.lines().nth(lines_before).unwrap_or_default();
        write!(f, "{}\n  {}\n  {:>width$}", self.what, line.replace('\t', " "), '^', width = column + 1)
    }
}

/// The known word that is most like another one, if it could be a slip of the pen.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let slips_max = if word.chars().count() <= 3 { 1 } else { 2 };
    let (slips, nearest) =
        known.into_iter().map(|candidate| (distance(&word, candidate), candidate)).min_by_key(|(slips, _)| *slips)?;
    (slips <= slips_max).then_some(nearest)
}

/// Letters to add, remove or change to make one word of another (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (position, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = position + 1;
        for (column, to) in right.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = change.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
