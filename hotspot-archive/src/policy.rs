//! Retention policies: how long the records of each class are kept.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::filter::nearest;
use crate::layout::Class;

pub(crate) const DAY_NS: i64 = 86_400 * 1_000_000_000;

/// A text that is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no retention; write `flows=365d,sessions=730d`{}", hint.as_deref().unwrap_or_default())]
pub struct BadPolicy {
    text: String,
    /// What was probably meant.
    hint: Option<String>,
}

/// How long the records of each class are kept. Classes that are not named are kept for ever.
///
/// In lines it is an object of days by class: `{"flows":365}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy(BTreeMap<Class, i64>);

impl Policy {
    /// How long a class is kept, in nanoseconds; `None` where nothing is said of it.
    #[must_use]
    pub fn kept_ns(&self, class: Class) -> Option<i64> {
        self.0.get(&class).copied()
    }

    /// The classes that are named.
    pub fn classes(&self) -> impl Iterator<Item = (Class, i64)> {
        self.0.iter().map(|(class, kept_ns)| (*class, *kept_ns))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of_days(days: impl IntoIterator<Item = (String, i64)>) -> Option<Self> {
        let mut policy = BTreeMap::new();
        for (class, days) in days {
            let class = Class::from_label(&class)?;
            let kept_ns = days.checked_mul(DAY_NS).filter(|_| days > 0)?;
            if policy.insert(class, kept_ns).is_some() {
                return None;
            }
        }
        Some(Self(policy))
    }
}

impl FromStr for Policy {
    type Err = BadPolicy;

    fn from_str(text: &str) -> Result<Self, BadPolicy> {
        let mut parts = Vec::new();
        for part in text.split(',') {
            let (class, days) = part.trim().split_once('=').unwrap_or((part.trim(), ""));
            let bad = |hint| BadPolicy { text: text.to_owned(), hint };
            if Class::from_label(class).is_none() {
                let meant = nearest(class, Class::ALL.map(Class::label));
                return Err(bad(meant.map(|meant| format!("; did you mean {meant}?"))));
            }
            let number = days.strip_suffix('d').and_then(|days| days.parse().ok());
            parts.push((
                class.to_owned(),
                number.ok_or_else(|| bad(days_meant(days).map(|meant| format!("; did you mean {class}={meant}?"))))?,
            ));
        }
        Self::of_days(parts).ok_or_else(|| BadPolicy { text: text.to_owned(), hint: None })
    }
}

/// Days, as they were perhaps meant: `365`, `52w`, `12m`, `1y`.
fn days_meant(text: &str) -> Option<String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let days = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "d" | "day" | "days" => 1,
        "w" | "week" | "weeks" => 7,
        "m" | "month" | "months" => 31,
        "y" | "year" | "years" => 366,
        _ => return None,
    };
    let number: i64 = number.parse().ok().filter(|number| *number > 0)?;
    Some(format!("{}d", number.checked_mul(days)?))
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, (class, kept_ns)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{}={}d", class.label(), kept_ns / DAY_NS)?;
        }
        Ok(())
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(class, kept_ns)| (class.label(), kept_ns / DAY_NS)))
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let days = BTreeMap::<String, i64>::deserialize(deserializer)?;
        Self::of_days(days).ok_or_else(|| D::Error::custom("days by class"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        let policy: Policy = "sessions=730d, flows=365d".parse().unwrap();
        assert_eq!(policy.to_string(), "flows=365d,sessions=730d");
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(text, r#"{"flows":365,"sessions":730}"#);
        assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
        assert_eq!(serde_json::from_str::<Policy>("{}").unwrap(), Policy::default());
    }

    #[test]
    fn what_is_no_policy_is_refused_and_what_was_meant_is_said() {
        for text in ["", "flows", "flows=", "flows=3", "flows=0d", "flows=-1d", "flows=1d,flows=2d", "flows=200000d"] {
            assert!(text.parse::<Policy>().is_err(), "{text:?}");
        }
        let error = "flow=1d".parse::<Policy>().unwrap_err().to_string();
        assert!(error.ends_with("did you mean flows?"), "{error}");
        for (text, meant) in [
            ("Sesions=1d", "sessions?"),
            ("flwos=1d", "flows?"),
            ("flows=365", "flows=365d?"),
            ("flows=1y", "flows=366d?"),
            ("flows=1d,coverage=2 weeks", "coverage=14d?"),
        ] {
            let error = text.parse::<Policy>().unwrap_err().to_string();
            assert!(error.ends_with(&format!("did you mean {meant}")), "{error}");
        }
        for text in [r#"{"flow":1}"#, r#"{"flows":0}"#, r#"{"flows":9999999}"#] {
            assert!(serde_json::from_str::<Policy>(text).is_err(), "{text}");
        }
    }
}
