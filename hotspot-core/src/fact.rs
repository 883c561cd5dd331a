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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// A translation of one connection's client address, learnt from conntrack.
///
/// For ICMP the ports are the query identifier before and after translation, and `peer_port` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
