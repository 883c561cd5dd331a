//! Sets of rows, as sorted ranges that do not touch.

use std::ops::Range;

/// Rows of a segment that can match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Every row may match.
    All,
    /// Only these; none where it is empty.
    Some(Vec<Range<u32>>),
}

impl Rows {
    pub(crate) const NONE: Self = Self::Some(Vec::new());

    #[must_use]
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::Some(ranges) if ranges.is_empty())
    }

    /// Rows in both.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        let (left, right) = match (self, other) {
            (Self::All, rows) | (rows, Self::All) => return rows,
            (Self::Some(left), Self::Some(right)) => (left, right),
        };
        let (mut both, mut left, mut right) = (Vec::new(), left.into_iter().peekable(), right.into_iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let common = a.start.max(b.start)..a.end.min(b.end);
            let left_ends_first = a.end <= b.end;
            if !common.is_empty() {
                both.push(common);
            }
            if left_ends_first {
                left.next();
            } else {
                right.next();
            }
        }
        Self::Some(both)
    }

    /// Rows in either.
    #[must_use]
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Some(mut left), Self::Some(right)) => {
                left.extend(right);
                Self::Some(united(left))
            }
        }
    }
}

/// Sorts ranges and joins those that touch.
pub(super) fn united(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u32>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(set: &[bool]) -> Rows {
        let ranges = set.iter().zip(0u32..).filter(|(is_in, _)| **is_in).map(|(_, row)| row..row + 1).collect();
        Rows::Some(united(ranges))
    }

    proptest! {
        #[test]
        fn ranges_are_sets(left in prop::collection::vec(any::<bool>(), 24), right in prop::collection::vec(any::<bool>(), 24)) {
            let pairs = || left.iter().zip(&right);
            let both: Vec<bool> = pairs().map(|(a, b)| *a && *b).collect();
            let either: Vec<bool> = pairs().map(|(a, b)| *a || *b).collect();
            // Ranges that touch may stay apart in an intersection, so compare what they cover.
            let Rows::Some(common) = rows(&left).and(rows(&right)) else { panic!("not all") };
            prop_assert_eq!(Rows::Some(united(common)), rows(&both));
            prop_assert_eq!(rows(&left).or(rows(&right)), rows(&either));
            prop_assert_eq!(rows(&left).and(Rows::All), rows(&left));
            prop_assert_eq!(rows(&left).or(Rows::All), Rows::All);
        }
    }
}
