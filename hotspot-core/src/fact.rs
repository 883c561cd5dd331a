//! Facts: what the agent learned and wrote into the journal before anything was decided.
//!
//! A fact is never corrected, only followed by others; applying the same fact twice changes nothing.

use std::net::IpAddr;

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
    /// When it happened: Event-Timestamp where given, else arrival minus Acct-Delay-Time.
    pub at_ns: WallNs,
    /// When the session began, where the report says (`at_ns` − Acct-Session-Time).
    pub started_ns: Option<WallNs>,
    /// When the report arrived here.
    pub received_ns: WallNs,
    pub counters: Option<SessionCounters>,
    pub end_cause: Option<String>,
    /// Seconds between interim updates, where announced (Acct-Interim-Interval).
    pub interim_interval_s: Option<u32>,
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
