//! Values in a filter: counts with units, durations, times, ports, protocols.

use std::ops::RangeInclusive;

/// Protocols with names; the first name of a number is the one that is printed.
pub(super) const PROTOCOLS: [(&str, u8); 9] = [
    ("icmp", 1),
    ("igmp", 2),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("icmp6", 58),
    ("icmpv6", 58),
    ("sctp", 132),
];

pub(super) fn protocol(word: &str) -> Option<u8> {
    let word = word.to_ascii_lowercase();
    let named = PROTOCOLS.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
    named.or_else(|| word.parse().ok())
}

/// `443`, or `1000-2000`.
pub(super) fn port_range(word: &str) -> Option<RangeInclusive<u16>> {
    match word.split_once('-') {
        None => word.parse().ok().map(|port: u16| port..=port),
        Some((from, to)) => {
            let range: RangeInclusive<u16> = from.parse().ok()?..=to.parse().ok()?;
            (!range.is_empty()).then_some(range)
        }
    }
}

/// `1500`, `10k`, `1.5M`, `2Gi`.
pub(super) fn count(word: &str) -> Option<u64> {
    let (number, unit) = split(word);
    let factor = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "m" | "M" => 1_000_000,
        "g" | "G" => 1_000_000_000,
        "t" | "T" => 1_000_000_000_000,
        "Ki" | "ki" => 1 << 10,
        "Mi" | "mi" => 1 << 20,
        "Gi" | "gi" => 1 << 30,
        "Ti" | "ti" => 1 << 40,
        _ => return None,
    };
    scaled(number, factor)
}

/// `300ms`, `1.5s`, `5m`, `2h`, `1d`, in nanoseconds. A number alone is nothing: it would be milliseconds for some.
pub(super) fn duration_ns(word: &str) -> Option<u64> {
    let (number, unit) = split(word);
    let factor = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" | "sec" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    scaled(number, factor)
}

fn split(word: &str) -> (&str, &str) {
    word.split_at(word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len()))
}

/// Digit by digit: a floating-point number would round.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || fraction.len() > 18 {
        return None;
    }
    let tenth = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let value = u128::from(whole.parse::<u64>().ok()?) * u128::from(factor) + fraction * u128::from(factor) / tenth;
    u64::try_from(value).ok()
}
