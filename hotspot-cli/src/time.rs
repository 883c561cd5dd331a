//! Times as people write and read them. A time without a zone is refused: it would be the wrong one somewhere.

use hotspot_archive::when::When;
use hotspot_core::WallNs;
use jiff::Timestamp;
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

    /// The zone of times that name none.
    pub(crate) fn given(&self) -> Option<&TimeZone> {
        self.given.as_ref()
    }

    /// That of answers.
    pub(crate) fn of_answers(&self) -> TimeZone {
        self.given.clone().unwrap_or(TimeZone::UTC)
    }

    /// Reads a moment, which is as long as its last digit counts.
    pub(crate) fn moment(&self, text: &str) -> Result<When, Failure> {
        When::parse(text, self.given()).map_err(|why| Failure::Usage(format!("{text:?} is not a time: {why}")))
    }

    /// Reads a time: where the moment begins that is written.
    pub(crate) fn parse(&self, text: &str) -> Result<WallNs, Failure> {
        self.moment(text).map(|when| when.from_ns)
    }

    /// Writes a time, with its zone.
    pub(crate) fn show(&self, at_ns: WallNs) -> String {
        let Ok(timestamp) = Timestamp::from_nanosecond(i128::from(at_ns)) else { return at_ns.to_string() };
        timestamp.to_zoned_datetime(self.of_answers()).strftime("%Y-%m-%d %H:%M:%S%.3f%:z").to_string()
    }

    /// The same without what is zero at its end, for times that people wrote.
    pub(crate) fn show_briefly(&self, at_ns: WallNs) -> String {
        self.show(at_ns).replace(".000", "")
    }
}

/// Now, by the wall clock.
pub(crate) fn now_ns() -> WallNs {
    WallNs::try_from(Timestamp::now().as_nanosecond()).unwrap_or(WallNs::MAX)
}

/// RFC 3339 in UTC with microseconds, as the archive has it.
pub(crate) fn utc(at_ns: WallNs) -> String {
    Timestamp::from_nanosecond(i128::from(at_ns)).map_or_else(|_| at_ns.to_string(), |time| format!("{time:.6}"))
}

/// How long something is, for people: in the unit that it has a few of.
pub(crate) fn duration(ns: i64) -> String {
    let s = ns as f64 / 1e9;
    match s {
        s if s < 60.0 => format!("{s:.3} s"),
        s if s < 7200.0 => format!("{:.1} minutes", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} hours", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_the_zone_and_how_long_something_is_in_a_unit_for_people() {
        let at_ns = 1_795_402_923_000_000_000;
        let hanoi = Zone::new(Some("Asia/Ho_Chi_Minh")).unwrap();
        assert_eq!(hanoi.show(at_ns), "2026-11-23 10:02:03.000+07:00");
        assert_eq!(hanoi.show_briefly(at_ns), "2026-11-23 10:02:03+07:00");
        assert_eq!(Zone::new(None).unwrap().show(at_ns + 1_500_000_000), "2026-11-23 03:02:04.500+00:00");
        assert_eq!(utc(at_ns), "2026-11-23T03:02:03.000000Z");
        assert!(Zone::new(Some("Mars/Olympus")).is_err());
        let s = 1_000_000_000;
        let shown = [s / 5, 90 * s, 7200 * s, 4 * 86_400 * s].map(duration);
        assert_eq!(shown, ["0.200 s", "1.5 minutes", "2.0 hours", "4.0 days"]);
    }
}
