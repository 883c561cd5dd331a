//! Times as people write and read them. A time without a zone is refused: it would be the wrong one somewhere.

use hotspot_core::WallNs;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::Failure;

/// The zone of times without one, and of answers.
pub(crate) struct Zone {
    given: Option<TimeZone>,
}

impl Zone {
    pub(crate) fn new(name: Option<&str>) -> Result<Self, Failure> {
        let given = name
            .map(|name| {
                TimeZone::get(name).map_err(|_| {
                    Failure::Usage(format!("--tz {name:?} is not a time zone; write one like Asia/Ho_Chi_Minh or UTC"))
                })
            })
            .transpose()?;
        Ok(Self { given })
    }

    /// Reads a time.
    pub(crate) fn parse(&self, text: &str) -> Result<WallNs, Failure> {
        let bad = |why: &str| Failure::Usage(format!("{text:?} is not a time: {why}"));
        let timestamp = if let Some(seconds) = text.strip_prefix('@') {
            // Digit by digit: a floating-point number has too few of them for nanoseconds.
            let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if !digits(whole) || !(fraction.is_empty() || digits(fraction)) || fraction.len() > 9 {
                return Err(bad("write seconds since 1970 after '@', like @1795402923.25"));
            }
            let nanoseconds: i128 = format!("{whole}{fraction:0<9}").parse().map_err(|_| bad("it is out of range"))?;
            Timestamp::from_nanosecond(nanoseconds).map_err(|_| bad("it is out of range"))?
        } else if let Ok(timestamp) = text.parse::<Timestamp>() {
            timestamp
        } else if let Ok(civil) = text.parse::<DateTime>() {
            let zone = self.given.clone().ok_or_else(|| {
                bad("it has no zone; write one (2026-11-23T10:02:03+07:00, …Z) or name it with --tz Asia/Ho_Chi_Minh")
            })?;
            zone.to_ambiguous_zoned_datetime(civil)
                .unambiguous()
                .map_err(|_| bad("the clocks were changed then; write it with an offset"))?
                .timestamp()
        } else {
            return Err(bad("write it like 2026-11-23T10:02:03+07:00"));
        };
        i64::try_from(timestamp.as_nanosecond()).map_err(|_| bad("it is out of range"))
    }

    /// Writes a time, with its zone.
    pub(crate) fn show(&self, at_ns: WallNs) -> String {
        let Ok(timestamp) = Timestamp::from_nanosecond(i128::from(at_ns)) else { return at_ns.to_string() };
        let zone = self.given.clone().unwrap_or(TimeZone::UTC);
        timestamp.to_zoned_datetime(zone).strftime("%Y-%m-%d %H:%M:%S%.3f%:z").to_string()
    }
}

/// How long the moment is that was written: a second, or as much of it as its last digit counts.
pub(crate) fn precision_ns(text: &str) -> i64 {
    let digits = text.split_once(['.', ',']).map_or(0, |(_, fraction)| {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        u32::try_from(digits).unwrap_or(u32::MAX)
    });
    10_i64.pow(9_u32.saturating_sub(digits))
}

/// Now, by the wall clock.
pub(crate) fn now_ns() -> WallNs {
    WallNs::try_from(Timestamp::now().as_nanosecond()).unwrap_or(WallNs::MAX)
}

/// RFC 3339 in UTC with microseconds, as the archive has it.
pub(crate) fn utc(at_ns: WallNs) -> String {
    Timestamp::from_nanosecond(i128::from(at_ns)).map_or_else(|_| at_ns.to_string(), |time| format!("{time:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, zone: Option<&str>) -> Option<WallNs> {
        Zone::new(zone).ok()?.parse(text).ok()
    }

    #[test]
    fn a_moment_is_as_long_as_its_last_digit_counts() {
        for (text, ns) in [
            ("2026-11-23T10:02:03+07:00", 1_000_000_000),
            ("@1795402923", 1_000_000_000),
            ("@1795402923.25", 10_000_000),
            ("2026-11-23T10:02:03.123Z", 1_000_000),
            ("2026-11-23 10:02:03,5+07:00", 100_000_000),
            ("@1795402923.123456789", 1),
        ] {
            assert_eq!(precision_ns(text), ns, "{text}");
        }
    }

    #[test]
    fn one_moment_has_many_spellings() {
        let moment = Some(1_795_402_923_000_000_000);
        assert_eq!(parse("2026-11-23T10:02:03+07:00", None), moment);
        assert_eq!(parse("2026-11-23T03:02:03Z", None), moment);
        assert_eq!(parse("@1795402923", None), moment);
        assert_eq!(parse("@1795402923.25", None), Some(1_795_402_923_250_000_000));
        assert_eq!(parse("@1795402923.x", None), None);
        assert_eq!(parse("2026-11-23T10:02:03", Some("Asia/Ho_Chi_Minh")), moment);
        assert_eq!(parse("2026-11-23 10:02:03", Some("Asia/Ho_Chi_Minh")), moment);
    }

    #[test]
    fn a_time_without_a_zone_is_refused() {
        assert_eq!(parse("2026-11-23T10:02:03", None), None);
        assert_eq!(parse("yesterday", Some("UTC")), None);
        assert!(Zone::new(Some("Mars/Olympus")).is_err());
    }

    #[test]
    fn an_hour_that_happened_twice_is_refused() {
        assert_eq!(parse("2026-10-25T02:30:00", Some("Europe/Berlin")), None);
        assert!(parse("2026-10-25T02:30:00+01:00", None).is_some());
    }
}
