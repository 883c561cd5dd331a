//! The one place of what a row's bytes hold, in which order. Version 1; numbers are never given to another column.

use super::encoding::Kind;
use crate::layout::Class;

/// Version of the encoding; the first byte of each row.
pub(super) const VERSION: u8 = 1;

const NAT: &[&str] = &["exact", "uncertain", "none"];
const END_REASON: &[&str] = &["idle", "active", "end_of_flow", "forced", "lost_power", "overflow"];
const ATTRIBUTION: &[&str] =
    &["authenticated", "mac_only", "ip_only", "before_login", "ambiguous", "conflict", "unknown"];

/// A column and how its values are written.
pub(super) type Field = (&'static str, Kind);

/// The two parts of a row: what rows that lie together mostly have in common, and is hashed once for all of them, and the rest.
pub(super) struct Fields {
    pub(super) shared: &'static [Field],
    pub(super) own: &'static [Field],
}

const FLOWS: Fields = Fields {
    shared: &[
        ("site", Kind::Text),
        ("gateway", Kind::Text),
        ("interface", Kind::Text),
        ("vlan", Kind::Number16),
        ("inner_vlan", Kind::Number16),
        ("client_mac", Kind::Mac),
        ("client_ip", Kind::Ip),
        ("user", Kind::Texts),
        ("session_id", Kind::Texts),
        ("auth_method", Kind::Text),
        ("identity_source", Kind::Text),
        ("ap_mac", Kind::Mac),
        ("ssid", Kind::Text),
        ("nas", Kind::Text),
        ("hostname", Kind::Text),
        ("device_vendor", Kind::Text),
    ],
    own: &[
        ("flow_id", Kind::Count),
        ("start", Kind::Time),
        ("end", Kind::Time),
        ("client_port", Kind::Number16),
        ("public_ip", Kind::Ip),
        ("public_port", Kind::Number16),
        ("nat", Kind::Code(NAT)),
        ("peer_ip", Kind::Ip),
        ("peer_port", Kind::Number16),
        ("protocol", Kind::Number8),
        ("icmp_type", Kind::Number8),
        ("icmp_code", Kind::Number8),
        ("packets_out", Kind::Count),
        ("bytes_out", Kind::Count),
        ("packets_in", Kind::Count),
        ("bytes_in", Kind::Count),
        ("tcp_flags_out", Kind::Number8),
        ("tcp_flags_in", Kind::Number8),
        ("end_reason", Kind::Code(END_REASON)),
        ("attribution", Kind::Code(ATTRIBUTION)),
    ],
};

const SESSIONS: Fields = Fields {
    shared: &[("site", Kind::Text), ("gateway", Kind::Text)],
    own: &[
        ("session_id", Kind::Text),
        ("user", Kind::Text),
        ("auth_method", Kind::Text),
        ("identity_source", Kind::Text),
        ("client_mac", Kind::Mac),
        ("client_ips", Kind::Words),
        ("ap_mac", Kind::Mac),
        ("ssid", Kind::Text),
        ("nas", Kind::Text),
        ("nas_port", Kind::Text),
        ("started", Kind::Time),
        ("ended", Kind::Time),
        ("end_cause", Kind::Text),
        ("packets_out", Kind::Count),
        ("bytes_out", Kind::Count),
        ("packets_in", Kind::Count),
        ("bytes_in", Kind::Count),
        ("client_prefixes", Kind::Words),
        ("nas_port_type", Kind::Text),
        ("multi_session_id", Kind::Text),
        ("chargeable_user", Kind::Text),
        ("class", Kind::Text),
        ("location", Kind::Text),
        ("calling_station", Kind::Text),
        ("called_station", Kind::Text),
        ("status", Kind::Text),
    ],
};

const DEVICES: Fields = Fields {
    shared: &[("site", Kind::Text), ("gateway", Kind::Text)],
    own: &[
        ("client_mac", Kind::Mac),
        ("random_mac", Kind::Flag),
        ("device_vendor", Kind::Text),
        ("hostname", Kind::Text),
        ("vendor_class", Kind::Text),
        ("dhcp_fingerprint", Kind::Text),
        ("client_id", Kind::Text),
        ("ips", Kind::Words),
        ("first_seen", Kind::Time),
        ("last_seen", Kind::Time),
        ("source", Kind::Words),
        // Not in files of before; null there.
        ("many_addresses", Kind::FlagIfAny),
    ],
};

const COVERAGE: Fields = Fields {
    shared: &[("site", Kind::Text), ("gateway", Kind::Text)],
    own: &[
        ("interface", Kind::Text),
        ("generation", Kind::Count),
        ("from", Kind::Time),
        ("to", Kind::Time),
        ("hook", Kind::Text),
        ("seen_packets", Kind::Count),
        ("seen_bytes", Kind::Count),
        ("flow_packets", Kind::Count),
        ("flow_bytes", Kind::Count),
        ("overflow_packets", Kind::Count),
        ("overflow_bytes", Kind::Count),
        ("outcomes", Kind::Text),
        ("happenings", Kind::Text),
        ("clock_offset_ns", Kind::Integer),
        ("gap", Kind::Text),
    ],
};

/// The fields of a class.
pub(super) const fn of(class: Class) -> &'static Fields {
    match class {
        Class::Flows => &FLOWS,
        Class::Sessions => &SESSIONS,
        Class::Devices => &DEVICES,
        Class::Coverage => &COVERAGE,
    }
}

/// The second byte of a row.
pub(super) const fn number_of(class: Class) -> u8 {
    match class {
        Class::Flows => 1,
        Class::Sessions => 2,
        Class::Devices => 3,
        Class::Coverage => 4,
    }
}

/// Bytes that say which of so many fields a row has.
pub(super) const fn presence_bytes(fields: usize) -> usize {
    fields.div_ceil(8)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hotspot_core::record::{Attribution, EndReason, NatState};

    use super::*;
    use crate::segment::schema;

    #[test]
    fn every_column_of_every_class_is_in_a_row_once() {
        for class in Class::ALL {
            let fields = of(class);
            let named: Vec<&str> = fields.shared.iter().chain(fields.own).map(|(name, _)| *name).collect();
            let schema = schema::of(class);
            let columns: BTreeSet<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            assert_eq!(named.iter().copied().collect::<BTreeSet<_>>(), columns, "{class:?}");
            assert_eq!(named.len(), columns.len(), "{class:?}");
        }
    }

    #[test]
    fn codes_are_the_places_of_labels() {
        assert!(NAT.iter().eq(NatState::ALL.iter().map(|each| each.label()).collect::<Vec<_>>().iter()));
        assert!(END_REASON.iter().eq(EndReason::ALL.iter().map(|each| each.label()).collect::<Vec<_>>().iter()));
        assert!(ATTRIBUTION.iter().eq(Attribution::ALL.iter().map(|each| each.label()).collect::<Vec<_>>().iter()));
    }
}
