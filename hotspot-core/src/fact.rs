//! Facts: what the agent learned and wrote into the journal before anything was decided.
//!
//! A fact is never corrected, only followed by others; applying the same fact twice changes nothing.

use std::net::IpAddr;
use std::sync::Arc;

use hotspot_common::FlowKey;
use serde::{Deserialize, Serialize};

use crate::{MacAddr, WallNs};

/// What was counted for one key, in one direction, between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowDelta {
    pub key: FlowKey,
    pub first_ns: WallNs,
    pub last_ns: WallNs,
    pub packets: u64,
    pub bytes: u64,
    pub tcp_flags: u8,
}

/// A flow's first packet was seen; its counters follow with its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowOpened {
    pub key: FlowKey,
    pub at_ns: WallNs,
}

/// Packets of one client that no flow holds (the cache and the ring were full).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// Peer, ports, VLANs and protocol are zero.
    pub key: FlowKey,
    pub first_ns: WallNs,
    pub last_ns: WallNs,
    pub packets: u64,
    pub bytes: u64,
}

/// Where an identity came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentitySource {
    Radius,
    Portal,
    File,
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEvent {
    Start,
    Interim,
    Stop,
    /// The NAS came up or went down: all its sessions that began earlier are over.
    NasReset,
    /// A login that failed; it holds nothing.
    Rejected,
}

/// What the NAS counted, seen from the client: out is client to peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCounters {
    pub packets_out: u64,
    pub bytes_out: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
}

/// What a NAS tells about a session beside who, where and when. `None` is what it did not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionDetails {
    /// By name (RFC 2865 §5.41): `Wireless-802.11`, `Ethernet`; else the number.
    pub nas_port_type: Option<String>,
    /// The same for all sessions of one device that roams (RFC 2866 §5.11).
    pub multi_session_id: Option<String>,
    /// Who it is for the home provider where User-Name is anonymous (RFC 4372).
    pub chargeable_user: Option<String>,
    /// What the authentication server wants to find in accounting again (RFC 2865 §5.25); several separated by one space.
    pub class: Option<String>,
    /// WISPr-Location-ID and WISPr-Location-Name, separated by one space.
    pub location: Option<String>,
    /// Calling-Station-Id where it is no MAC address.
    pub calling_station: Option<String>,
    /// Called-Station-Id where it is neither a MAC address nor one and an SSID.
    pub called_station: Option<String>,
}

impl SessionDetails {
    /// Adds what a later report says; what it does not say stays.
    pub fn merge(known: &mut Option<Arc<Self>>, reported: Option<&Arc<Self>>) {
        let Some(reported) = reported else { return };
        let Some(known) = known else {
            *known = Some(Arc::clone(reported));
            return;
        };
        if known == reported {
            return;
        }
        let known = Arc::make_mut(known);
        let pairs = known.fields_mut().into_iter().zip(reported.fields());
        for (known, reported) in pairs.filter(|(_, reported)| reported.is_some()) {
            known.clone_from(reported);
        }
    }

    /// Shared; `None` where nothing was said.
    #[must_use]
    pub fn shared(self) -> Option<Arc<Self>> {
        (self != Self::default()).then(|| Arc::new(self))
    }

    fn fields(&self) -> [&Option<String>; 7] {
        let Self { nas_port_type, multi_session_id, chargeable_user, class, location, calling_station, called_station } =
            self;
        [nas_port_type, multi_session_id, chargeable_user, class, location, calling_station, called_station]
    }

    fn fields_mut(&mut self) -> [&mut Option<String>; 7] {
        let Self { nas_port_type, multi_session_id, chargeable_user, class, location, calling_station, called_station } =
            self;
        [nas_port_type, multi_session_id, chargeable_user, class, location, calling_station, called_station]
    }
}

/// One report about a session, as it was received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFact {
    pub event: SessionEvent,
    pub source: IdentitySource,
    /// Unique per NAS and source; empty for [`SessionEvent::NasReset`].
    pub session_id: String,
    pub user: Option<String>,
    pub auth_method: Option<String>,
    pub client_mac: Option<MacAddr>,
    #[serde(default)]
    pub client_ips: Vec<IpAddr>,
    /// IPv6 prefixes delegated or framed to the client, as address and length.
    #[serde(default)]
    pub client_prefixes: Vec<(IpAddr, u8)>,
    pub ap_mac: Option<MacAddr>,
    pub ssid: Option<String>,
    /// NAS-Identifier, or its address where it has none.
    pub nas: Option<String>,
    pub nas_port: Option<String>,
    /// When it happened: arrival minus Acct-Delay-Time and minus how late the NAS's own clock says the report is.
    pub at_ns: WallNs,
    /// When the session began, where the report says (`at_ns` − Acct-Session-Time).
    pub started_ns: Option<WallNs>,
    /// When the report arrived here.
    pub received_ns: WallNs,
    pub counters: Option<SessionCounters>,
    pub end_cause: Option<String>,
    /// Seconds between interim updates, where announced (Acct-Interim-Interval).
    pub interim_interval_s: Option<u32>,
    #[serde(default, with = "details")]
    pub details: Option<Arc<SessionDetails>>,
}

impl SessionFact {
    /// Moves all times.
    pub fn shift(&mut self, by_ns: i64) {
        for at_ns in [&mut self.at_ns, &mut self.received_ns].into_iter().chain(&mut self.started_ns) {
            *at_ns = at_ns.saturating_add(by_ns);
        }
    }
}

/// [`SessionFact::details`] as if they were not shared.
mod details {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::SessionDetails;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(details: &Option<Arc<SessionDetails>>, to: S) -> Result<S::Ok, S::Error> {
        details.as_deref().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<SessionDetails>>, D::Error> {
        Ok(Option::<SessionDetails>::deserialize(from)?.map(Arc::new))
    }
}

/// What happened to a NAT binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatEvent {
    Created,
    /// Found in a dump: existed at `at_ns`, began some time before.
    Found,
    Destroyed,
    /// A dump at `at_ns` did not find it any more, and nobody had reported its end: it ended at some moment since it was last known.
    Missed,
}

/// A translation of one connection's client address, learnt from conntrack: the source of what the client began, or, where others
/// began the connection (a forwarded port), the destination.
///
/// For ICMP the ports are the query identifier before and after translation, and `peer_port` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NatFact {
    pub event: NatEvent,
    pub at_ns: WallNs,
    pub protocol: u8,
    pub client_ip: IpAddr,
    pub client_port: u16,
    pub peer_ip: IpAddr,
    pub peer_port: u16,
    pub public_ip: IpAddr,
    pub public_port: u16,
}

/// Whether translations were being watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatWatch {
    /// From here on every translation is reported; a dump of those that exist precedes it.
    Started,
    /// Reports were lost at some moment since the last one; what began in between is uncertain until the next `Started`.
    Lost,
    Stopped,
}

/// A change of [`NatWatch`] and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatWatchFact {
    pub watch: NatWatch,
    pub at_ns: WallNs,
}

/// How something about a device was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceSource {
    Dhcp,
    Dhcpv6,
    Arp,
    /// IPv6 neighbour discovery.
    Nd,
    /// What a DHCP server reported of its leases.
    Lease,
}

impl DeviceSource {
    pub const ALL: [Self; 5] = [Self::Dhcp, Self::Dhcpv6, Self::Arp, Self::Nd, Self::Lease];

    /// The text in the archive's column.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Dhcpv6 => "dhcpv6",
            Self::Arp => "arp",
            Self::Nd => "nd",
            Self::Lease => "lease",
        }
    }

    /// The inverse of [`Self::label`].
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.label() == label)
    }
}

/// What a device said of itself when it asked for an address; text with escapes ([`crate::text::escaped`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceNames {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_class: Option<String>,
    /// DHCP option 55 in the device's order: `1,3,6,15`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_fingerprint: Option<String>,
    /// DHCP client identifier or DUID, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// What is said about a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceEvent {
    /// It said its names.
    Named(DeviceNames),
    /// A server gave it an address for so long.
    Leased { ip: IpAddr, lease_s: u32 },
    /// It gave an address back, or found it taken.
    Released { ip: IpAddr },
    /// It said that an address is its own.
    Uses { ip: IpAddr },
}

/// One thing learnt about a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceFact {
    pub at_ns: WallNs,
    pub client_mac: MacAddr,
    /// Outer and inner VLAN identifier, 0 for none: the same address in two VLANs is two addresses.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vlan: u16,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inner_vlan: u16,
    pub source: DeviceSource,
    pub event: DeviceEvent,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(tag: &u16) -> bool {
    *tag == 0
}
