//! What a capture holds, told by tshark, beside what the agent recorded of it.
//!
//! Every difference is an error but those the documentation explains (`docs/limitations.md`), which both sides know.

mod tshark;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::programs::{ask, coverage};

pub use tshark::by_tshark;

/// What makes a flow, as far as records show it; what is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowText {
    pub mac: String,
    pub vlans: [String; 2],
    pub client: [String; 2],
    pub peer: [String; 2],
    pub protocol: String,
    pub icmp: [String; 2],
}

/// Packets and bytes.
pub type Counted = (u64, u64);

/// Where the frames of a capture ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub flows: BTreeMap<FlowText, Counted>,
    /// Frames that are in no flow.
    pub others: Counted,
    /// Those of them that tshark did not read to the end.
    pub unread: Counted,
}

impl Told {
    fn add(&mut self, flow: Option<FlowText>, bytes: u64) {
        let counted = match flow {
            Some(flow) => self.flows.entry(flow).or_default(),
            None => &mut self.others,
        };
        counted.0 += 1;
        counted.1 += bytes;
    }

    /// All frames.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.others.0 + self.flows.values().map(|(packets, _)| packets).sum::<u64>()
    }

    /// What is different, in words; empty where nothing is. Frames that tshark gave up on may be in any flow.
    #[must_use]
    pub fn differences(&self, recorded: &Self) -> Vec<String> {
        let flows = self.flows.keys().chain(recorded.flows.keys()).collect::<std::collections::BTreeSet<_>>();
        let of = |told: &Self, flow| told.flows.get(flow).copied().unwrap_or_default();
        let mut differences = Vec::new();
        let mut more = (0, 0);
        for flow in flows {
            let (told, found) = (of(self, flow), of(recorded, flow));
            if found != told && found.0 >= told.0 && found.1 >= told.1 {
                more = (more.0 + found.0 - told.0, more.1 + found.1 - told.1);
            }
            if found != told {
                differences.push(format!("{flow:?}: tshark {told:?}, hotspot {found:?}"));
            }
        }
        let (told, found) = (self.others, recorded.others);
        if found != told {
            differences.push(format!("in no flow: tshark {told:?}, hotspot {found:?}"));
        }
        let is_what_was_given_up =
            more.0 <= self.unread.0 && more.1 <= self.unread.1 && (found.0 + more.0, found.1 + more.1) == told;
        if is_what_was_given_up { Vec::new() } else { differences }
    }
}

/// What the archive holds of one interface.
pub fn by_hotspot(archive: &Path, interface: &str) -> Result<Told> {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    let mut told = Told::default();
    for row in ask("find", archive, &[])? {
        let column = |name: &str| text(&row[name]);
        let flow = FlowText {
            mac: column("client_mac"),
            vlans: [column("vlan"), column("inner_vlan")],
            client: [column("client_ip"), column("client_port")],
            peer: [column("peer_ip"), column("peer_port")],
            protocol: column("protocol"),
            icmp: [column("icmp_type"), column("icmp_code")],
        };
        let count = |name: &str| row[name].as_u64().unwrap_or(0);
        if count("packets_in") != 0 {
            bail!("something was sent to the client: {row}");
        }
        let counted = told.flows.entry(flow).or_default();
        counted.0 += count("packets_out");
        counted.1 += count("bytes_out");
    }
    // Frames that nobody reads are a gap, and here they are most of them.
    for row in coverage(archive)?.iter().filter(|row| row["interface"] == interface) {
        told.others.0 += row["outcome_packets"].as_u64().unwrap_or(0);
        told.others.1 += row["outcome_bytes"].as_u64().unwrap_or(0);
    }
    Ok(told)
}
