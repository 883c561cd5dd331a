//! What of the traffic is in no flow though it was there: seen but not read, and dropped by the device before it was counted.
//!
//! Counters say it of each generation; this says it of an interval, as gap rows, where it is so much that "nothing found" would claim
//! too much. Decides the bound, and puts the counters into words. A pure function of coverage rows.

use std::collections::BTreeMap;

use crate::record::CoverageRecord;

/// What gap rows say where much was not read.
pub const NOT_READ: &str = "clients may hide in packets that were not read";
/// What gap rows say where packets were dropped.
pub const DROPPED: &str = "packets were dropped before they could be counted";

/// From this part of the packets, or of the bytes, of an interface on its packets that were not read are told of: one in so many.
const SHARE: u64 = 100;
/// And from so many packets a second on. Bridges and switches speak to each other (spanning tree) more seldom than that.
const PER_SECOND: u64 = 1;
/// And from so many packets on, however short the interval was.
const PACKETS_MIN: u64 = 10;
const SECOND_NS: u64 = 1_000_000_000;

/// Outcomes of packets in which a client can be that is in no record. ARP, 802.1X and LLDP are read as what they are; a packet with
/// `no_client` was read, and is nobody's.
const UNREAD: [&str; 12] = [
    "runt",
    "truncated_vlan",
    "too_many_vlans",
    "pppoe",
    "llc",
    "other_ethertype",
    "bad_ipv4",
    "bad_ipv6",
    "truncated_extension",
    "too_many_extensions",
    "truncated_transport",
    "overflow_full",
];
/// Happenings that count packets the programs never got begin with this.
pub const DROPPED_PREFIX: &str = "dropped_";
/// Happenings that count the packets of one ethertype among those of `other_ethertype`, by its four hexadecimal digits.
pub const ETHERTYPE_PREFIX: &str = "ethertype_";

/// Ethertypes that are told of, of an interface and generation as of an interval.
pub const ETHERTYPES_TOLD: usize = 8;

const OTHER_ETHERTYPE: &str = "other_ethertype";
const SEEN_PACKETS: &str = "seen_packets";
const SEEN_BYTES: &str = "seen_bytes";
const UNREAD_BYTES: &str = "unread_bytes";

/// Counters of an interval, as a gap row's happenings have them: labels of outcomes and happenings, and `seen_packets`, `seen_bytes` and
/// `unread_bytes`.
pub type Counts = BTreeMap<String, u64>;

/// Gap rows for each interface of which much was not read, or something was dropped. Rows that are gaps themselves count for nothing.
#[must_use]
pub fn gaps(rows: &[CoverageRecord]) -> Vec<CoverageRecord> {
    let mut interfaces: BTreeMap<&str, Vec<&CoverageRecord>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.gap.is_none()) {
        interfaces.entry(&row.interface).or_default().push(row);
    }
    interfaces.into_iter().flat_map(|(interface, rows)| gaps_of(interface, &rows)).collect()
}

fn gaps_of(interface: &str, rows: &[&CoverageRecord]) -> Vec<CoverageRecord> {
    let from_ns = rows.iter().map(|row| row.from_ns).min().unwrap_or_default();
    let to_ns = rows.iter().map(|row| row.to_ns).max().unwrap_or_default();
    let (mut unread, mut dropped) = (Counts::new(), Counts::new());
    let add = |counts: &mut Counts, label: &str, count: u64| *counts.entry(label.to_owned()).or_default() += count;
    let mut unread_packets = 0;
    for row in rows {
        add(&mut unread, SEEN_PACKETS, row.seen.packets);
        add(&mut unread, SEEN_BYTES, row.seen.bytes);
        for (label, count) in row.outcomes.iter().filter(|(label, _)| UNREAD.contains(&label.as_str())) {
            unread_packets += count.packets;
            add(&mut unread, label, count.packets);
            add(&mut unread, UNREAD_BYTES, count.bytes);
        }
        for (label, count) in &row.happenings {
            if label.starts_with(DROPPED_PREFIX) {
                add(&mut dropped, label, *count);
            } else if label.starts_with(ETHERTYPE_PREFIX) {
                add(&mut unread, label, *count);
            }
        }
    }
    let told = ethertypes(&unread);
    unread.retain(|label, _| !label.starts_with(ETHERTYPE_PREFIX) || told.contains(label));
    let gap = |what, counts: Counts| {
        let why = words(what, &counts);
        let happenings = counts.into_iter().collect();
        CoverageRecord { happenings, ..CoverageRecord::gap(interface, from_ns, to_ns, &why) }
    };
    let mut gaps = Vec::new();
    let count = |label: &str| unread.get(label).copied().unwrap_or_default();
    let is_share = unread_packets.saturating_mul(SHARE) > count(SEEN_PACKETS)
        || count(UNREAD_BYTES).saturating_mul(SHARE) > count(SEEN_BYTES);
    let lasted_s = to_ns.saturating_sub(from_ns).unsigned_abs() / SECOND_NS;
    if is_share && unread_packets > PACKETS_MIN.max(lasted_s * PER_SECOND) {
        gaps.push(gap(NOT_READ, unread));
    }
    if dropped.values().any(|count| *count > 0) {
        gaps.push(gap(DROPPED, dropped));
    }
    gaps
}

/// The ethertypes of which there was most.
fn ethertypes(counts: &Counts) -> Vec<String> {
    let mut of_each: Vec<(&String, &u64)> =
        counts.iter().filter(|(label, _)| label.starts_with(ETHERTYPE_PREFIX)).collect();
    of_each.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    of_each.into_iter().take(ETHERTYPES_TOLD).map(|(label, _)| label.clone()).collect()
}

/// Which of the two a gap row says, if it has counters of it: then several of them can be added up.
#[must_use]
pub fn counted(row: &CoverageRecord) -> Option<&'static str> {
    let why = row.gap.as_deref().filter(|_| !row.happenings.is_empty())?;
    [NOT_READ, DROPPED].into_iter().find(|what| why.starts_with(what))
}

/// What a gap row says, with its counters.
#[must_use]
pub fn words(what: &str, counts: &Counts) -> String {
    let count = |label: &str| counts.get(label).copied().unwrap_or_default();
    let share = |part: u64, of: u64| if of == 0 { 100.0 } else { part as f64 * 100.0 / of as f64 };
    let is_total = |label: &str| [SEEN_PACKETS, SEEN_BYTES, UNREAD_BYTES].contains(&label);
    let (mut parts, mut ethertypes, mut packets) = (Vec::new(), Vec::new(), 0);
    for (label, count) in counts.iter().filter(|(label, count)| !is_total(label) && **count > 0) {
        if let Some(ethertype) = label.strip_prefix(ETHERTYPE_PREFIX) {
            ethertypes.push(format!("0x{ethertype} {count}"));
            continue;
        }
        packets += count;
        // Their labels sort before this one.
        let of_it = if label == OTHER_ETHERTYPE && !ethertypes.is_empty() {
            format!(" (of it {})", ethertypes.join(", "))
        } else {
            String::new()
        };
        parts.push(format!("{} {count}{of_it}", label.strip_prefix(DROPPED_PREFIX).unwrap_or(label)));
    }
    let parts = parts.join(", ");
    if what != NOT_READ {
        return format!("{what} ({parts})");
    }
    let (of_packets, of_bytes) = (share(packets, count(SEEN_PACKETS)), share(count(UNREAD_BYTES), count(SEEN_BYTES)));
    format!("{what} ({of_packets:.1} % of the packets, {of_bytes:.1} % of the bytes: {parts})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Tallied;

    const S: i64 = 1_000_000_000;

    /// A generation of ten seconds with so many packets of 100 bytes in flows, and these besides.
    fn row(flows: u64, outcomes: &[(&str, u64)], happenings: &[(&str, u64)]) -> CoverageRecord {
        let tallied = |packets: u64| Tallied { packets, bytes: packets * 100 };
        CoverageRecord {
            interface: "lan".into(),
            from_ns: 0,
            to_ns: 10 * S,
            seen: tallied(flows + outcomes.iter().map(|(_, count)| count).sum::<u64>()),
            flows: tallied(flows),
            outcomes: outcomes.iter().map(|(label, count)| ((*label).to_owned(), tallied(*count))).collect(),
            happenings: happenings.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect(),
            ..CoverageRecord::default()
        }
    }

    fn said(rows: &[CoverageRecord]) -> Vec<String> {
        gaps(rows).into_iter().filter_map(|row| row.gap).collect()
    }

    #[test]
    fn what_was_not_read_is_told_of_from_a_share_on() {
        for label in UNREAD {
            assert_eq!(said(&[row(10_000, &[(label, 100)], &[])]), [""; 0], "{label}: one in a hundred");
            let told = said(&[row(9_000, &[(label, 1_000)], &[])]);
            let expected = format!("{NOT_READ} (10.0 % of the packets, 10.0 % of the bytes: {label} 1000)");
            assert_eq!(told, [expected]);
        }
        for label in ["arp", "eapol", "lldp", "no_client"] {
            assert_eq!(said(&[row(10, &[(label, 1_000)], &[])]), [""; 0], "{label}");
        }
    }

    #[test]
    fn what_switches_say_on_an_idle_network_hides_nobody() {
        // Spanning tree, every two seconds.
        assert_eq!(said(&[row(0, &[("llc", 5)], &[])]), [""; 0]);
        assert_eq!(said(&[row(0, &[("llc", 11)], &[])]).len(), 1, "more than one a second");
    }

    #[test]
    fn few_packets_with_many_bytes_are_a_share_too() {
        let mut few = row(100_000, &[("other_ethertype", 900)], &[]);
        few.outcomes[0].1.bytes = 900 * 1_500;
        few.seen.bytes = 100_000 * 100 + 900 * 1_500;
        assert_eq!(said(&[few]).len(), 1);
    }

    #[test]
    fn ethertypes_are_named_and_not_counted_twice() {
        let told = said(&[row(900, &[("other_ethertype", 100)], &[("ethertype_8847", 98), ("ethertype_88e5", 2)])]);
        let parts = "other_ethertype 100 (of it 0x8847 98, 0x88e5 2)";
        assert_eq!(told, [format!("{NOT_READ} (10.0 % of the packets, 10.0 % of the bytes: {parts})")]);
    }

    #[test]
    fn a_single_packet_that_a_device_dropped_is_told_of() {
        let told = said(&[row(1_000_000, &[], &[("dropped_rx_missed", 1), ("announced", 5)]), row(1_000, &[], &[])]);
        assert_eq!(told, [format!("{DROPPED} (rx_missed 1)")]);
        assert_eq!(said(&[row(10, &[], &[("softnet_time_squeeze", 7)])]), [""; 0], "being late is no loss");
    }

    #[test]
    fn interfaces_are_told_of_one_by_one_and_over_all_generations() {
        let busy = row(1_000_000, &[], &[]);
        let mut hidden = row(0, &[("too_many_vlans", 40)], &[]);
        hidden.interface = "guests".into();
        let (mut later, mut gap) = (hidden.clone(), CoverageRecord::gap("guests", 0, 1, "was not there"));
        (later.from_ns, later.to_ns) = (10 * S, 20 * S);
        gap.happenings = vec![("dropped_rx_missed".into(), 3)];
        let told = gaps(&[busy, hidden, later, gap]);
        assert_eq!(told.len(), 1);
        assert_eq!((&*told[0].interface, told[0].from_ns, told[0].to_ns), ("guests", 0, 20 * S));
        assert!(told[0].happenings.contains(&("too_many_vlans".into(), 80)), "{told:?}");
        assert_eq!(counted(&told[0]), Some(NOT_READ));
        assert!(told[0].balances());
    }
}
