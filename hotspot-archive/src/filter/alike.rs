//! Names as people write them: in any case and Unicode form, telephone numbers with or without country, spaces, dots and dashes.
//!
//! Owns the rule (docs/search.md) by which two spellings are taken for one name, and remembers which it took, so that an answer can
//! say so. It takes more for the same than one writer would, never less: whoever wants exactly one spelling asks with `=`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hotspot_core::text::{changes_display, unescaped_display};
use icu_normalizer::ComposingNormalizer;

use super::field::glob_matches;

/// Other spellings that are remembered for the answer.
const MET_MAX: usize = 64;

/// A name that stands for its other spellings.
#[derive(Clone, Debug)]
pub struct Alike {
    asked: String,
    key: Key,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    met: Arc<Mutex<BTreeSet<String>>>,
}

/// What spellings of one name have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Name(String),
    /// With at least one `*`.
    Glob(String),
    Phone(Digits),
}

/// What was met in an archive is no part of a question.
impl PartialEq for Alike {
    fn eq(&self, other: &Self) -> bool {
        self.asked == other.asked && self.is_glob() == other.is_glob()
    }
}

impl Eq for Alike {}

impl Alike {
    #[must_use]
    pub fn new(asked: &str) -> Self {
        let folded = folded(asked);
        let key = Digits::of(&folded).map_or(Key::Name(folded), Key::Phone);
        Self::by(asked, key)
    }

    /// With `*` for anything.
    #[must_use]
    pub fn glob(asked: &str) -> Self {
        Self::by(asked, Key::Glob(folded(asked)))
    }

    fn by(asked: &str, key: Key) -> Self {
        Self { asked: asked.to_owned(), ranges: ranges_of(&key), key, met: Arc::default() }
    }

    #[must_use]
    pub fn asked(&self) -> &str {
        &self.asked
    }

    pub(super) fn is_glob(&self) -> bool {
        matches!(self.key, Key::Glob(_))
    }

    /// Whether a name is this one in some spelling. Another one than was asked for is remembered.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let is_same = self.is_same(name);
        if is_same && !self.is_glob() && name != self.asked {
            let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
            if met.len() < MET_MAX && !met.contains(name) {
                met.insert(name.to_owned());
            }
        }
        is_same
    }

    /// The other spellings that were taken for the same name so far, the first [`MET_MAX`] of them.
    #[must_use]
    pub fn met(&self) -> Vec<String> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The same as [`Alike::matches`], and nothing is remembered: for an index, which may name what no row of the answer has.
    pub(crate) fn is_same(&self, name: &str) -> bool {
        // Almost all names are plain: no memory is taken for them.
        let is_plain = name.is_ascii() && !name.contains('\\') && !name.contains(changes_display);
        match &self.key {
            Key::Phone(digits) if is_plain => Digits::of(name).is_some_and(|other| other == *digits),
            Key::Phone(digits) => Digits::of(&folded(name)).is_some_and(|other| other == *digits),
            Key::Name(key) if is_plain => name.trim().eq_ignore_ascii_case(key),
            Key::Name(key) => folded(name) == *key,
            Key::Glob(glob) => glob_matches(glob, &folded(name)),
        }
    }

    /// Between which names, in order of their bytes and both included, every spelling lies: in order, and apart from each other.
    pub(crate) fn ranges(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.ranges
    }
}

/// Where in the order of bytes spellings can lie; ends are followed by any others.
fn ranges_of(key: &Key) -> Vec<(Vec<u8>, Vec<u8>)> {
    // White space and escapes may stand anywhere, and what is not ASCII may become any letter.
    let mut ranges =
        vec![(vec![0], vec![b' ', u8::MAX]), (vec![b'\\'], vec![b'\\', u8::MAX]), (vec![0x80], vec![u8::MAX])];
    match key {
        Key::Phone(digits) => digits.written().iter().for_each(|written| {
            ranges.push((vec![b'!'], vec![b'/', u8::MAX]));
            for len in 1..=written.len() {
                let behind = |from: u8, to: u8| {
                    ([&written[..len], &[from]].concat(), [&written[..len], &[to, u8::MAX]].concat())
                };
                ranges.extend([behind(b' ', b'/'), behind(b'\\', b'\\'), behind(0x80, u8::MAX)]);
            }
            ranges.push((written.clone(), written.clone()));
        }),
        Key::Name(key) | Key::Glob(key) => match key.as_bytes().first() {
            Some(first) if first.is_ascii() && *first != b'*' => {
                ranges.extend(
                    [first.to_ascii_lowercase(), first.to_ascii_uppercase()]
                        .map(|case| (vec![case], vec![case, u8::MAX])),
                );
            }
            _ => return vec![(Vec::new(), vec![u8::MAX])],
        },
    }
    ranges.sort();
    ranges.dedup();
    let mut apart: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(ranges.len());
    for (least, greatest) in ranges {
        match apart.last_mut() {
            Some((_, last)) if least <= *last => *last = greatest.max(std::mem::take(last)),
            _ => apart.push((least, greatest)),
        }
    }
    apart
}

/// As in a filter: a name in quotes, a pattern as it is.
impl fmt::Display for Alike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_glob() { f.write_str(&self.asked) } else { super::field::quoted(f, &self.asked) }
    }
}

/// Without case (Unicode's full case folding), in the Unicode form NFKC, and without what cannot be seen: marks of direction, which telephones put around
/// numbers they copy, in the archive's escapes or not, and white space at the ends.
fn folded(name: &str) -> String {
    let text = unescaped_display(name);
    let text = text.trim();
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let nfkc = ComposingNormalizer::new_nfkc();
    // Folding can undo the form and the form the folding (Unicode, D146), so both are done twice.
    let once = nfkc.normalize(text).chars().flat_map(case_folded).collect::<String>();
    let twice = nfkc.normalize(&once).chars().flat_map(case_folded).collect::<String>();
    nfkc.normalize(&twice).trim().to_owned()
}

/// By way of capitals: ß is ss, ς is σ.
fn case_folded(c: char) -> impl Iterator<Item = char> {
    c.to_uppercase().flat_map(char::to_lowercase)
}

/// The digits of a telephone number with its country, without what is written between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Digits {
    digits: [u8; DIGITS_MAX],
    len: usize,
}

/// E.164 has 15 digits at most; before them `00`, or the `0` that is left out abroad.
const DIGITS_MAX: usize = 18;
const E164_MAX: usize = 15;
/// Fewer are no number that a person has; fewer with the country, behind `00`, are some other number that begins with zeros.
const PHONE_MIN: usize = 8;
const ABROAD_MIN: usize = 10;
/// The country of numbers without one.
const COUNTRY: &[u8] = b"84";

impl Digits {
    /// Reads a number; `None` for what is none.
    fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let (is_international, written) = match text.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut read = Self { digits: [0; DIGITS_MAX], len: 0 };
        for c in written.chars() {
            match c {
                '0'..='9' => read.push(c as u8)?,
                ' ' | '.' | '-' | '(' | ')' | '/' | '\u{2010}'..='\u{2015}' | '\u{2212}' => {}
                _ => return None,
            }
        }
        read.with_country(is_international)
    }

    fn push(&mut self, digit: u8) -> Option<()> {
        *self.digits.get_mut(self.len)? = digit;
        self.len += 1;
        Some(())
    }

    fn as_slice(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    /// The one form: country and number. Digits alone are the number of another country if they are as many.
    fn with_country(self, has_plus: bool) -> Option<Self> {
        let digits = self.as_slice();
        let behind_zeros = digits.strip_prefix(b"00").filter(|rest| rest.len() >= ABROAD_MIN);
        let has_country = has_plus || behind_zeros.is_some();
        let number = if has_plus { digits } else { behind_zeros.unwrap_or(digits) };
        match vietnamese(number, has_country) {
            Some(national) => Self::joined(COUNTRY, national),
            None if (PHONE_MIN..=E164_MAX).contains(&number.len()) => Self::joined(b"", number),
            None => None,
        }
    }

    /// Every way to write it with digits alone, behind a `+` or not.
    fn written(&self) -> Vec<Vec<u8>> {
        let digits = self.as_slice();
        let mut written = vec![digits.to_vec(), [b"00", digits].concat()];
        if let Some(national) =
            digits.strip_prefix(COUNTRY).filter(|national| vietnamese(national, false) == Some(*national))
        {
            let before: [&[u8]; 4] = [b"", b"0", b"840", b"00840"];
            written.extend(before.map(|before| [before, national].concat()));
        }
        written
    }

    fn joined(country: &[u8], number: &[u8]) -> Option<Self> {
        let mut joined = Self { digits: [0; DIGITS_MAX], len: 0 };
        country.iter().chain(number).try_for_each(|digit| joined.push(*digit))?;
        Some(joined)
    }
}

/// The number within Viet Nam: nine digits of a mobile one (3, 5, 7, 8, 9), ten of a landline (2). Before them the country, the 0 of a call
/// within it, both, or neither.
fn vietnamese(digits: &[u8], has_country: bool) -> Option<&[u8]> {
    let is_national = |digits: &[u8]| {
        matches!((digits.first(), digits.len()), (Some(b'3' | b'5' | b'7'..=b'9'), 9) | (Some(b'2'), 10))
    };
    let mut rest = digits;
    if has_country {
        rest = rest.strip_prefix(COUNTRY)?;
    } else if !is_national(rest) {
        rest = rest.strip_prefix(COUNTRY).unwrap_or(rest);
    }
    rest = rest.strip_prefix(b"0").unwrap_or(rest);
    is_national(rest).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_telephone_number_is_one_however_it_is_written() {
        let spellings = [
            "0912345678",
            "+84912345678",
            "0084912345678",
            "84912345678",
            "912345678",
            "+84 912 345 678",
            "+84 (0) 912 345 678",
            "0912.345.678",
            "0912-345-678",
            "(0912) 345 678",
            "0912\u{a0}345\u{2011}678",
            "\u{ff10}\u{ff19}12345678",
            "\\u{202a}0912345678\\u{202c}",
            "\u{202a}+84912345678\u{202c}",
        ];
        for asked in spellings {
            for met in spellings {
                assert!(Alike::new(asked).matches(met), "{asked} is {met}");
            }
            for other in [
                "0912345679",
                "091234567",
                "09123456780",
                "+85912345678",
                "+1912345678",
                "a0912345678",
                "0812345678",
                "",
            ] {
                assert!(!Alike::new(asked).matches(other), "{asked} is not {other}");
            }
        }
        for (asked, met) in [
            ("024 3825 1234", "+842438251234"),
            ("+1 202 555 0123", "0012025550123"),
            ("+6591234567", "0065 9123 4567"),
            ("0847654321", "847654321"),
            ("0847654321", "+84847654321"),
        ] {
            assert!(Alike::new(asked).matches(met) && Alike::new(met).matches(asked), "{asked} is {met}");
        }
    }

    #[test]
    fn numbers_that_are_no_telephone_numbers_are_only_themselves() {
        for (asked, other) in
            [("1234567", "0123 4567"), ("12-34", "1234"), ("001099012345678901", "1099012345678901"), ("007", "7")]
        {
            assert!(!Alike::new(asked).matches(other) && Alike::new(asked).matches(asked), "{asked}, {other}");
        }
    }

    #[test]
    fn a_name_is_one_in_any_case_and_unicode_form() {
        for (asked, met) in [
            ("anna", "ANNA"),
            ("Nguyễn", "NGUYE\u{302}\u{303}N"),
            ("nguye\u{302}\u{303}n", "Nguyễn"),
            ("Straße", "STRASSE"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("ﬁona", "FIONA"),
            ("anna", "ａｎｎａ"),
            (" anna ", "anna"),
            ("CORP\\anna", "CORP\\\\Anna"),
            ("CORP\\\\anna", "corp\\anna"),
            ("an\u{200b}na", "an\\u{200b}na"),
        ] {
            assert!(Alike::new(asked).matches(met) && Alike::new(met).matches(asked), "{asked} is {met}");
        }
        for (asked, other) in [("Lan", "Làn"), ("anna", "anna1"), ("a b", "ab"), ("Ren\\xe9", "Ren\\xe8"), ("anna", "")]
        {
            assert!(!Alike::new(asked).matches(other), "{asked} is not {other}");
        }
        assert!(Alike::glob("NGUY*").matches("nguyễn") && !Alike::glob("NGUY*").matches("trần"));
    }

    #[test]
    fn other_spellings_that_were_met_are_told() {
        let asked = Alike::new("0912345678");
        for name in ["+84912345678", "0912345678", "anna", "0912 345 678"] {
            let _ = asked.clone().matches(name);
        }
        assert_eq!(asked.met(), ["+84912345678", "0912 345 678"]);
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-9+ .()-]{0,16}",
            "\\PC{0,8}",
            prop::sample::select(vec![
                "0912345678",
                "+84 912 345 678",
                "Anna",
                "ANNA",
                "ﬁona",
                "ß",
                "SS",
                "\\\\x",
                " a"
            ])
            .prop_map(str::to_owned),
        ]
    }

    proptest! {
        #[test]
        fn being_the_same_goes_both_ways_and_lies_in_the_ranges(one in name(), other in name()) {
            let (asked, back) = (Alike::new(&one), Alike::new(&other));
            prop_assert!(asked.matches(&one));
            prop_assert_eq!(asked.matches(&other), back.matches(&one), "{} {}", one, other);
            if asked.matches(&other) {
                let bytes = other.as_bytes();
                let is_within = |(least, greatest): &(Vec<u8>, Vec<u8>)| bytes >= &least[..] && bytes <= &greatest[..];
                prop_assert!(other.is_empty() || asked.ranges().iter().any(is_within), "{} {:?}", other, asked.ranges());
            }
        }
    }
}
