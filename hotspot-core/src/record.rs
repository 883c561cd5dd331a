//! Records: what the archive holds. Column names and meanings are those of `docs/formats/records.md`.
//!
//! *Out* is client to peer, *in* is peer to client. A value that is not known is `None`.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fact::{DeviceSource, IdentitySource, SessionCounters, SessionDetails};
use crate::{MacAddr, WallNs};

macro_rules! labelled_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $label)] $variant,)* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The text in the archive's column.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// The inverse of [`Self::label`].
            #[must_use]
            pub fn from_label(label: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.label() == label)
            }
        }
    };
}

labelled_enum! {
    /// Why a row of `flows` ends (after IPFIX flowEndReason, element 136).
    EndReason {
        /// No packet for the idle time-out.
        Idle = "idle",
        /// Goes on in the next segment under the same flow id.
        Active = "active",
        /// TCP FIN in both directions, or RST.
        EndOfFlow = "end_of_flow",
        /// The agent was shut down.
        Forced = "forced",
        /// Announced, but the machine went down before its counters were read: they are unknown, and zero here.
        LostPower = "lost_power",
        /// The total of a client beyond its quota: peer, ports and protocol are unknown.
        Overflow = "overflow",
    }
}

labelled_enum! {
    /// How sure the join of a flow and a session is.
    Attribution {
        /// A session held this MAC at that moment, and named this address, or the device showed that it is its own.
        Authenticated = "authenticated",
        /// A session held this MAC; nothing says that this address was the device's.
        MacOnly = "mac_only",
        /// A session held this address; it names no MAC.
        IpOnly = "ip_only",
        /// The device logged in later; the flow began before that.
        BeforeLogin = "before_login",
        /// Several sessions claim it; all of them are listed.
        Ambiguous = "ambiguous",
        /// Another device showed that the address is its own; the users of both are listed.
        Conflict = "conflict",
        /// Nobody claims it.
        Unknown = "unknown",
    }
}

impl Attribution {
    /// Whether the names of several may stand in a row.
    #[must_use]
    pub const fn lists_claimants(self) -> bool {
        matches!(self, Self::Ambiguous | Self::Conflict)
    }
}

labelled_enum! {
    /// What is known about the flow's translation.
    NatState {
        /// The binding was reported.
        Exact = "exact",
        /// Reports were lost while the flow began.
        Uncertain = "uncertain",
        /// Watched, and not translated.
        None = "none",
    }
}

labelled_enum! {
    /// Where a session stands.
    SessionStatus {
        Active = "active",
        Ended = "ended",
        TimedOut = "timed_out",
        Rejected = "rejected",
    }
}

/// Who, by which session: the identity columns of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Each claimant's name: several where ambiguous or in conflict, none where no session gives one.
    pub users: Vec<String>,
    /// The claimants' sessions, at least one.
    pub session_ids: Vec<String>,
    pub auth_method: Option<Arc<str>>,
    pub source: IdentitySource,
    pub ap_mac: Option<MacAddr>,
    pub ssid: Option<Arc<str>>,
    pub nas: Option<Arc<str>>,
}

/// The client's address after translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicEndpoint {
    pub ip: IpAddr,
    pub port: Option<u16>,
}

/// A row of `flows`. `site` and `gateway` are those of the segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// `segment sequence << 32 | ordinal` of the flow's first row: unique per gateway.
    pub flow_id: u64,
    pub start_ns: WallNs,
    pub end_ns: WallNs,
    pub interface: Arc<str>,
    pub vlan: Option<u16>,
    pub inner_vlan: Option<u16>,
    pub client_mac: MacAddr,
    pub client_ip: IpAddr,
    pub client_port: Option<u16>,
    pub public: Option<PublicEndpoint>,
    /// `None` where translations were not watched.
    pub nat: Option<NatState>,
    /// `None` for overflow totals.
    pub peer_ip: Option<IpAddr>,
    pub peer_port: Option<u16>,
    /// `None` for overflow totals.
    pub protocol: Option<u8>,
    pub icmp_type: Option<u8>,
    pub icmp_code: Option<u8>,
    pub packets_out: u64,
    pub bytes_out: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
    pub tcp_flags_out: Option<u8>,
    pub tcp_flags_in: Option<u8>,
    pub end_reason: EndReason,
    pub attribution: Attribution,
    pub identity: Option<Arc<Identity>>,
    pub hostname: Option<Arc<str>>,
    pub device_vendor: Option<Arc<str>>,
}

/// A row of `sessions`: who held what, when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    pub session_id: String,
    pub user: Option<String>,
    pub auth_method: Option<String>,
    pub source: IdentitySource,
    pub client_mac: Option<MacAddr>,
    pub client_ips: Vec<IpAddr>,
    /// IPv6 prefixes framed or delegated to the client, as address and length.
    pub client_prefixes: Vec<(IpAddr, u8)>,
    pub ap_mac: Option<MacAddr>,
    pub ssid: Option<String>,
    pub nas: Option<String>,
    pub nas_port: Option<String>,
    pub started_ns: WallNs,
    pub ended_ns: Option<WallNs>,
    pub end_cause: Option<String>,
    pub counters: Option<SessionCounters>,
    pub details: Option<Arc<SessionDetails>>,
    pub status: SessionStatus,
}

/// A row of `devices`: what was learnt about one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    pub client_mac: MacAddr,
    /// The U/L bit: not the address the device was made with.
    pub random_mac: bool,
    /// It showed several IPv4 addresses at a time: a router's or a repeater's, with several people behind it. `None` in rows of
    /// programs that did not look.
    pub many_addresses: Option<bool>,
    /// Who made it, by the registry of MAC addresses; `None` for random addresses and unregistered prefixes.
    pub device_vendor: Option<String>,
    pub hostname: Option<String>,
    pub vendor_class: Option<String>,
    pub dhcp_fingerprint: Option<String>,
    pub client_id: Option<String>,
    /// Addresses it held while the segment was written.
    pub ips: Vec<IpAddr>,
    pub first_seen_ns: WallNs,
    pub last_seen_ns: WallNs,
    pub sources: Vec<DeviceSource>,
}

/// Packets and wire bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tallied {
    pub packets: u64,
    pub bytes: u64,
}

/// A row of `coverage`: one interface in one generation, and where its packets ended.
///
/// `seen = flows + overflow + the sum of outcomes` in a row that balances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageRecord {
    pub interface: String,
    pub generation: u64,
    pub from_ns: WallNs,
    pub to_ns: WallNs,
    /// `xdp`, `tcx` or `clsact`, per direction: `in:tcx out:tcx`.
    pub hook: String,
    pub seen: Tallied,
    /// In deltas read from the cache or handed over on a ring.
    pub flows: Tallied,
    pub overflow: Tallied,
    /// Named outcomes that are not zero, by label of `hotspot_common::Outcome`.
    pub outcomes: Vec<(String, Tallied)>,
    /// Happenings that are not zero, by label of `hotspot_common::Happening`.
    pub happenings: Vec<(String, u64)>,
    /// `CLOCK_REALTIME` − `CLOCK_MONOTONIC`, nanoseconds, by which the times of this generation were computed; `None` for a gap.
    #[serde(default)]
    pub clock_offset_ns: Option<i64>,
    /// `None` for a row about packets; else why nothing was seen from `from_ns` to `to_ns`.
    pub gap: Option<String>,
}

impl CoverageRecord {
    /// A time of which nothing, or not all, is known; `interface` is empty where it concerns all.
    #[must_use]
    pub fn gap(interface: &str, from_ns: WallNs, to_ns: WallNs, why: &str) -> Self {
        Self { interface: interface.to_owned(), from_ns, to_ns, gap: Some(why.to_owned()), ..Self::default() }
    }

    /// Whether every packet seen is in a flow, an overflow total or a named outcome.
    #[must_use]
    pub fn balances(&self) -> bool {
        let outcomes = self.outcomes.iter().fold(Tallied::default(), |sum, (_, count)| Tallied {
            packets: sum.packets + count.packets,
            bytes: sum.bytes + count.bytes,
        });
        self.seen.packets == self.flows.packets + self.overflow.packets + outcomes.packets
            && self.seen.bytes == self.flows.bytes + self.overflow.bytes + outcomes.bytes
    }
}
