//! Layouts of the kernel's maps: the one this agent writes, and earlier ones whose remains it can still read.
//!
//! An upgrade finds the maps of the version before, full of what is not on disk. What differs between layouts is said here, so that
//! everything else reads both alike. A layout that was released stays here for as long as somebody may upgrade from it.

use hotspot_common::LAYOUT_VERSION;

/// What differs between layouts. The counters of a tally do not: a test holds their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub version: u32,
    /// Whether each CPU's head says which of its slots are used. Before, all of them were, and the first sets of its ranges were where
    /// the reaches are.
    pub has_reaches: bool,
}

/// What the programs of this agent write.
pub const CURRENT: Layout = Layout { version: LAYOUT_VERSION, has_reaches: true };

/// What this agent can read: keys, slots, tallies, records and totals are the same in all of them.
const READABLE: [Layout; 2] = [Layout { version: 3, has_reaches: false }, CURRENT];

impl Layout {
    /// The layout of a directory of pins, `v<version>`; `None` where it is not one that this agent can read.
    #[must_use]
    pub fn of_dir(name: &str) -> Option<Self> {
        let version: u32 = name.strip_prefix('v')?.parse().ok()?;
        READABLE.into_iter().find(|layout| layout.version == version)
    }

    #[must_use]
    pub fn dir_name(self) -> String {
        format!("v{}", self.version)
    }
}

#[cfg(test)]
mod tests {
    use hotspot_common::{Happening, Outcome};

    use super::*;

    /// What the counters of a layout mean never changes.
    #[test]
    fn the_counters_of_all_layouts_are_the_same() {
        let outcomes: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.label()).collect();
        assert_eq!(
            outcomes.join(" "),
            "runt truncated_vlan too_many_vlans arp eapol lldp pppoe llc other_ethertype bad_ipv4 bad_ipv6 truncated_extension \
             too_many_extensions truncated_transport no_client overflow_full"
        );
        let happenings: Vec<&str> = Happening::ALL.iter().map(|happening| happening.label()).collect();
        assert_eq!(happenings.join(" "), "announced announcement_skipped evicted to_overflow noticed notice_skipped");
    }

    #[test]
    fn a_directory_names_its_layout() {
        assert_eq!(Layout::of_dir(&CURRENT.dir_name()), Some(CURRENT));
        assert_eq!(Layout::of_dir("v3").map(|layout| layout.has_reaches), Some(false));
        assert_eq!(Layout::of_dir("v99"), None);
    }
}
