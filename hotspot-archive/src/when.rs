//! Times as people write them, and how long they are: a moment is as long as its last digit counts.
//!
//! `10:02:03.5` is a tenth of a second, `10:02:03` a second, `10:02` a minute, `T10` an hour, a date alone a day. A time without a zone is
//! read in the zone that is given beside it, and is none where there is no such zone: it would be the wrong one somewhere.

use hotspot_core::WallNs;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};

/// A moment: its first and its last nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    pub from_ns: WallNs,
    pub last_ns: WallNs,
}

/// Why a text is no time, as a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTime {
    #[error("write it like 2026-11-23T10:02:03+07:00")]
    Text,
    #[error("write seconds since 1970 after '@', like @1795402923.25")]
    Seconds,
    #[error(
        "it has no zone; write one (2026-11-23T10:02:03+07:00, 2026-11-23T03:02:03Z, 2026-11-23+07:00) or name it with --tz Asia/Ho_Chi_Minh"
    )]
    NoZone,
    #[error("the clocks were changed then; write it with an offset")]
    Ambiguous,
    #[error("it is out of range")]
    Range,
}

/// How long the last digit of a time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Day,
    Hour,
    Minute,
    /// Seconds with so many digits behind the point.
    Fraction(u32),
}

impl Unit {
    fn len_ns(self) -> i64 {
        match self {
            Self::Day => 86_400_000_000_000,
            Self::Hour => 3_600_000_000_000,
            Self::Minute => 60_000_000_000,
            Self::Fraction(digits) => 10_i64.pow(9_u32.saturating_sub(digits)),
        }
    }
}

impl When {
    /// Reads a moment; `zone` is that of times that name none.
    pub fn parse(text: &str, zone: Option<&TimeZone>) -> Result<Self, NoTime> {
        if let Some(seconds) = text.strip_prefix('@') {
            return since_1970(seconds);
        }
        let Some((date, time, zone_text)) = split(text) else { return other(text) };
        let (time, unit) = match time {
            None => (Time::midnight(), Unit::Day),
            Some(time) => match clock_time(time) {
                Some(read) => read,
                None => return other(text),
            },
        };
        let Ok(date) = date.parse::<Date>() else { return other(text) };
        let named = match zone_text {
            "" => None,
            text => Some(TimeZone::fixed(offset(text).ok_or(NoTime::Text)?)),
        };
        let zone = named.as_ref().or(zone).ok_or(NoTime::NoZone)?;
        if unit == Unit::Day {
            // Days that clocks are changed on are longer or shorter.
            let midnight = |date: Date| date.to_zoned_datetime(zone.clone()).map(|day| day.timestamp());
            let next = date.checked_add(Span::new().days(1));
            let (first, next) = (midnight(date), next.and_then(midnight));
            let (Ok(first), Ok(next)) = (first, next) else { return Err(NoTime::Range) };
            return Ok(Self { from_ns: ns(first)?, last_ns: ns(next)? - 1 });
        }
        let civil = DateTime::from_parts(date, time);
        let first = zone.to_ambiguous_zoned_datetime(civil).unambiguous().map_err(|_| NoTime::Ambiguous)?;
        Self::of(ns(first.timestamp())?, unit)
    }

    fn of(from_ns: WallNs, unit: Unit) -> Result<Self, NoTime> {
        let last_ns = from_ns.checked_add(unit.len_ns() - 1).ok_or(NoTime::Range)?;
        Ok(Self { from_ns, last_ns })
    }
}

fn ns(at: Timestamp) -> Result<WallNs, NoTime> {
    WallNs::try_from(at.as_nanosecond()).map_err(|_| NoTime::Range)
}

/// `1795402923.25`. Digit by digit: a floating-point number has too few of them for nanoseconds.
fn since_1970(seconds: &str) -> Result<When, NoTime> {
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    if !is_digits(whole) || !(fraction.is_empty() || is_digits(fraction)) || fraction.len() > 9 {
        return Err(NoTime::Seconds);
    }
    let from_ns = format!("{whole}{fraction:0<9}").parse().map_err(|_| NoTime::Range)?;
    let digits = u32::try_from(fraction.len()).map_err(|_| NoTime::Seconds)?;
    When::of(from_ns, Unit::Fraction(digits))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Date, time and zone of a text, as far as they are there.
fn split(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (date, rest) = text.split_at_checked(10)?;
    let Some(time) = rest.strip_prefix(['T', 't', ' ']) else { return Some((date, None, rest)) };
    let end = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(end);
    Some((date, Some(time.trim_end()), zone))
}

/// `10`, `10:02`, `10:02:03`, `10:02:03.25`.
fn clock_time(text: &str) -> Option<(Time, Unit)> {
    let (clock, fraction) = text.split_once(['.', ',']).unwrap_or((text, ""));
    let parts: Vec<i8> = clock
        .split(':')
        .map(|part| Some(part).filter(|part| part.len() == 2 && is_digits(part)).and_then(|part| part.parse().ok()))
        .collect::<Option<_>>()?;
    let has_fraction = clock.len() < text.len();
    let (hour, minute, second, unit) = match parts[..] {
        [hour] if !has_fraction => (hour, 0, 0, Unit::Hour),
        [hour, minute] if !has_fraction => (hour, minute, 0, Unit::Minute),
        [hour, minute, second] if !has_fraction => (hour, minute, second, Unit::Fraction(0)),
        [hour, minute, second] if is_digits(fraction) && fraction.len() <= 9 => {
            (hour, minute, second, Unit::Fraction(u32::try_from(fraction.len()).ok()?))
        }
        _ => return None,
    };
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Some((Time::new(hour, minute, second, nanoseconds).ok()?, unit))
}

/// `Z`, `+07:00`, `+0700` or `+07`.
fn offset(text: &str) -> Option<Offset> {
    if matches!(text, "Z" | "z") {
        return Some(Offset::UTC);
    }
    let (sign, rest) = (if text.starts_with('-') { -1 } else { 1 }, text.strip_prefix(['+', '-'])?);
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    if !is_digits(&digits) || !matches!((digits.len(), rest.len()), (2, 2) | (4, 4 | 5)) {
        return None;
    }
    let (hours, minutes): (i32, i32) = (digits[..2].parse().ok()?, digits.get(2..)?.parse().unwrap_or(0));
    (minutes < 60).then(|| Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()).flatten()
}

/// What else RFC 3339 and RFC 9557 allow, with a zone: a second, or as much of it as its digits say.
fn other(text: &str) -> Result<When, NoTime> {
    let at: Timestamp = text.parse().map_err(|_| NoTime::Text)?;
    let digits = text.split_once(['.', ',']).map_or(0, |(_, fraction)| {
        u32::try_from(fraction.bytes().take_while(u8::is_ascii_digit).count()).unwrap_or(u32::MAX)
    });
    When::of(ns(at)?, Unit::Fraction(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;
    const AT: i64 = 1_795_402_923 * S;

    fn parse(text: &str, zone: Option<&str>) -> Result<(i64, i64), NoTime> {
        let zone = zone.map(|name| TimeZone::get(name).unwrap());
        When::parse(text, zone.as_ref()).map(|when| (when.from_ns, when.last_ns + 1 - when.from_ns))
    }

    #[test]
    fn a_moment_is_as_long_as_its_last_digit_counts() {
        let (minute, hour) = (AT - 3 * S, AT - 123 * S);
        let midnight = AT - (10 * 3600 + 123) * S;
        for (text, expected) in [
            ("2026-11-23T10:02:03.123456789+07:00", (AT + 123_456_789, 1)),
            ("2026-11-23T10:02:03.5+07:00", (AT + S / 2, S / 10)),
            ("2026-11-23 10:02:03,25+07:00", (AT + S / 4, S / 100)),
            ("2026-11-23T10:02:03+07:00", (AT, S)),
            ("2026-11-23T03:02:03Z", (AT, S)),
            ("20261123T030203Z", (AT, S)),
            ("2026-11-23T10:02+07:00", (minute, 60 * S)),
            ("2026-11-23T10:02+0700", (minute, 60 * S)),
            ("2026-11-23t03:02z", (minute, 60 * S)),
            ("2026-11-23T10+07", (hour, 3600 * S)),
            ("2026-11-23T03Z", (hour, 3600 * S)),
            ("2026-11-23+07:00", (midnight, 86_400 * S)),
            ("2026-11-22T17Z", (midnight, 3600 * S)),
            ("@1795402923", (AT, S)),
            ("@1795402923.25", (AT + S / 4, S / 100)),
        ] {
            assert_eq!(parse(text, None), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("2026-11-23T10:02:03", (AT, S)),
            ("2026-11-23 10:02", (minute, 60 * S)),
            ("2026-11-23T10", (hour, 3600 * S)),
            ("2026-11-23", (midnight, 86_400 * S)),
        ] {
            assert_eq!(parse(text, Some("Asia/Ho_Chi_Minh")), Ok(expected), "{text}");
            assert_eq!(parse(text, None), Err(NoTime::NoZone), "{text}");
        }
    }

    #[test]
    fn a_day_on_which_clocks_are_changed_is_as_long_as_it_was() {
        let hours = |text: &str, zone: &str| parse(text, Some(zone)).map(|(_, len)| len / S / 3600);
        assert_eq!(hours("2026-03-29", "Europe/Berlin"), Ok(23));
        assert_eq!(hours("2026-10-25", "Europe/Berlin"), Ok(25));
        assert_eq!(hours("2026-10-26", "Europe/Berlin"), Ok(24));
        assert_eq!(hours("2026-10-25T02", "Europe/Berlin"), Err(NoTime::Ambiguous));
        assert_eq!(hours("2026-10-25T02:30:00", "Europe/Berlin"), Err(NoTime::Ambiguous));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026",
            "2026-11",
            "2026-13-01Z",
            "2026-11-23T25Z",
            "2026-11-23T10:2Z",
            "2026-11-23T10:02:03.Z",
            "2026-11-23T10.5Z",
            "2026-11-23T10:02.5Z",
            "2026-11-23T10:02:03.1234567890Z",
            "2026-11-23T10:02:03+7",
            "2026-11-23x",
            "2026-11-23T10:02:03+07:99",
            "23/11/2026 10:02",
            "2026-11-23T",
            "@",
            "@x",
            "@1.x",
            "@-1",
            "@1.1234567890",
        ] {
            assert!(parse(text, Some("UTC")).is_err(), "{text}");
        }
        assert_eq!(parse("@99999999999999", None), Err(NoTime::Range));
    }
}
