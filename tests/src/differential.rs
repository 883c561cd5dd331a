//! What a capture holds, told by tshark, beside what the agent recorded of it.
//!
//! tshark says which headers are there; what belongs to one flow is decided here by the same rules the documentation states
//! (`docs/limitations.md`), so that every other difference is an error.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::namespace::run;
use crate::programs::ask;

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

    /// What is different, in words; empty where nothing is.
    #[must_use]
    pub fn differences(&self, recorded: &Self) -> Vec<String> {
        let flows = self.flows.keys().chain(recorded.flows.keys()).collect::<std::collections::BTreeSet<_>>();
        let mut differences: Vec<String> = flows
            .into_iter()
            .filter(|flow| self.flows.get(flow) != recorded.flows.get(flow))
            .map(|flow| format!("{flow:?}: tshark {:?}, hotspot {:?}", self.flows.get(flow), recorded.flows.get(flow)))
            .collect();
        if self.others != recorded.others {
            differences.push(format!("in no flow: tshark {:?}, hotspot {:?}", self.others, recorded.others));
        }
        differences
    }
}

/// Fields asked of tshark, with all their occurrences in a frame.
const FIELDS: [&str; 37] = [
    "frame.cap_len",
    "frame.protocols",
    "eth.src",
    "vlan.id",
    "ieee8021ad.id",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ip.len",
    "ip.hdr_len",
    "ip.id",
    "ip.frag_offset",
    "ip.flags.mf",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.nxt",
    "ipv6.plen",
    "ipv6.hopopts.nxt",
    "ipv6.dstopts.nxt",
    "ipv6.routing.nxt",
    "ipv6.fraghdr.nxt",
    "ipv6.fraghdr.offset",
    "ipv6.fraghdr.more",
    "ipv6.fraghdr.ident",
    "ah.next_header",
    "udp.srcport",
    "udp.dstport",
    "tcp.srcport",
    "tcp.dstport",
    "sctp.srcport",
    "sctp.dstport",
    "dccp.srcport",
    "dccp.dstport",
    "icmp.type",
    "icmp.code",
    "icmpv6.type",
    "icmpv6.code",
];

/// Reads a capture with tshark.
pub fn by_tshark(capture: &Path) -> Result<Told> {
    let mut tshark = Command::new("tshark");
    // One frame says what it says by itself: nothing is put together from several.
    for option in ["ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE"] {
        tshark.args(["-o", option]);
    }
    tshark.args(["-n", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,", "-E", "separator=/t", "-r"]);
    tshark.arg(capture);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let text = run(&mut tshark)?;
    let mut told = Told::default();
    let mut datagrams = HashMap::new();
    for line in text.lines() {
        let frame = Dissected::new(line);
        let bytes = frame.first("frame.cap_len").parse().context("frame.cap_len")?;
        told.add(frame.flow(&mut datagrams), bytes);
    }
    Ok(told)
}

/// Ports, by datagram, of first fragments seen so far.
type Datagrams = HashMap<[String; 4], [String; 2]>;

/// One line of tshark's answer.
struct Dissected<'a> {
    values: HashMap<&'static str, Vec<&'a str>>,
}

/// What one IP header and what follows it say.
struct Packet {
    source: String,
    destination: String,
    protocol: u8,
    /// Which datagram it is a fragment of.
    datagram: Option<String>,
    is_later: bool,
}

impl<'a> Dissected<'a> {
    fn new(line: &'a str) -> Self {
        let columns = line.split('\t').map(|column| column.split(',').filter(|value| !value.is_empty()).collect());
        Self { values: FIELDS.into_iter().zip(columns).collect() }
    }

    fn nth(&self, field: &str, position: usize) -> &'a str {
        self.values.get(field).and_then(|values| values.get(position)).copied().unwrap_or_default()
    }

    fn first(&self, field: &str) -> &'a str {
        self.nth(field, 0)
    }

    fn number(&self, field: &str, position: usize) -> Option<usize> {
        let text = self.nth(field, position);
        text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| usize::from_str_radix(hex, 16).ok())
    }

    fn is_set(&self, field: &str, position: usize) -> bool {
        matches!(self.nth(field, position), "1" | "True")
    }

    fn protocols(&self) -> Vec<&'a str> {
        self.first("frame.protocols").split(':').collect()
    }

    /// The flow a frame belongs to.
    fn flow(&self, datagrams: &mut Datagrams) -> Option<FlowText> {
        let protocols = self.protocols();
        let network = protocols.iter().position(|name| matches!(*name, "ip" | "ipv6"))?;
        let below = &protocols[..network];
        let tags = below.iter().filter(|name| matches!(**name, "vlan" | "ieee8021ad")).count();
        if tags > 2 || below.iter().any(|name| !BELOW_IP.contains(name)) {
            return None;
        }
        let pppoe = if below.contains(&"pppoes") { 8 } else { 0 };
        let start = 14 + 4 * tags + pppoe;
        let packet = self.packet(&protocols[network..], 0, start)?;
        let mut flow = FlowText {
            mac: self.first("eth.src").to_owned(),
            vlans: self.vlans(below),
            protocol: packet.protocol.to_string(),
            ..FlowText::default()
        };
        let [client_port, peer_port] = self.ports(&packet, &protocols[network..], 0, datagrams)?;
        flow.client = [packet.source.clone(), client_port];
        flow.peer = [packet.destination.clone(), peer_port];
        if matches!(packet.protocol, 1 | 58) && !packet.is_later {
            if let Some(quoted) = self.quoted(&protocols[network..], &packet) {
                return Some(FlowText { mac: flow.mac, vlans: flow.vlans, ..quoted });
            }
            let name = if packet.protocol == 1 { "icmp" } else { "icmpv6" };
            flow.icmp = [self.first(&format!("{name}.type")), self.first(&format!("{name}.code"))].map(str::to_owned);
            if flow.icmp.iter().any(String::is_empty) {
                return None;
            }
            // An answer is in the flow of its question.
            if let Some((_, question)) = QUESTIONS.iter().find(|(answer, _)| flow.icmp[0] == *answer) {
                (*question).clone_into(&mut flow.icmp[0]);
            }
        }
        Some(flow)
    }

    /// Identifiers of the tags; a priority tag is none.
    fn vlans(&self, below: &[&str]) -> [String; 2] {
        let (mut customer, mut service) = (0, 0);
        let mut ids = Vec::new();
        for name in below {
            match *name {
                "vlan" => {
                    ids.push(self.nth("vlan.id", customer));
                    customer += 1;
                }
                "ieee8021ad" => {
                    ids.push(self.nth("ieee8021ad.id", service));
                    service += 1;
                }
                _ => {}
            }
        }
        let mut ids = ids.into_iter().filter(|id| *id != "0").map(str::to_owned);
        [ids.next().unwrap_or_default(), ids.next().unwrap_or_default()]
    }

    /// Reads the IP header at `start`, the first of its version or, quoted, the second.
    fn packet(&self, protocols: &[&str], nth: usize, start: usize) -> Option<Packet> {
        let len = self.number("frame.cap_len", 0)?;
        if *protocols.first()? == "ip" {
            let (header, total) = (self.number("ip.hdr_len", nth)?, self.number("ip.len", nth)?);
            if header < 20 || total < header || nth == 0 && start + total > len {
                return None;
            }
            let offset = self.number("ip.frag_offset", nth)?;
            let is_fragment = offset != 0 || self.is_set("ip.flags.mf", nth);
            return Some(Packet {
                source: self.nth("ip.src", nth).to_owned(),
                destination: self.nth("ip.dst", nth).to_owned(),
                protocol: self.number("ip.proto", nth)?.try_into().ok()?,
                datagram: is_fragment.then(|| self.nth("ip.id", nth).to_owned()),
                is_later: offset != 0,
            });
        }
        if nth == 0 && start + 40 + self.number("ipv6.plen", nth)? > len {
            return None;
        }
        let mut packet = Packet {
            source: self.nth("ipv6.src", nth).to_owned(),
            destination: self.nth("ipv6.dst", nth).to_owned(),
            protocol: self.number("ipv6.nxt", nth)?.try_into().ok()?,
            datagram: None,
            is_later: false,
        };
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let extensions = protocols[1..].iter().map_while(|name| EXTENSIONS.iter().find(|(known, _)| known == name));
        for (count, (name, field)) in extensions.enumerate() {
            let position = seen.entry(name).or_default();
            if count == 8 {
                return None;
            }
            packet.protocol = self.number(field, *position)?.try_into().ok()?;
            *position += 1;
            if *name == "ipv6.fraghdr" {
                let offset = self.number("ipv6.fraghdr.offset", 0)?;
                packet.is_later = offset != 0;
                let is_fragment = offset != 0 || self.is_set("ipv6.fraghdr.more", 0);
                packet.datagram = is_fragment.then(|| self.first("ipv6.fraghdr.ident").to_owned());
                if packet.is_later {
                    break;
                }
            }
        }
        // A chain that is cut short, or goes on beyond the limit.
        let is_extension = matches!(packet.protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140);
        (packet.is_later || !is_extension).then_some(packet)
    }

    fn ports(&self, packet: &Packet, protocols: &[&str], nth: usize, datagrams: &mut Datagrams) -> Option<[String; 2]> {
        let key = packet
            .datagram
            .as_ref()
            .map(|id| [packet.source.clone(), packet.destination.clone(), packet.protocol.to_string(), id.clone()]);
        if packet.is_later {
            return Some(key.and_then(|key| datagrams.get(&key).cloned()).unwrap_or_default());
        }
        let name = match packet.protocol {
            6 => "tcp",
            17 | 136 => "udp",
            33 => "dccp",
            132 => "sctp",
            _ => return Some(Default::default()),
        };
        if !protocols.iter().any(|protocol| protocol.starts_with(name)) {
            return None;
        }
        let ports = ["srcport", "dstport"].map(|end| self.nth(&format!("{name}.{end}"), nth).to_owned());
        if ports.iter().any(String::is_empty) {
            return None;
        }
        if let Some(key) = key {
            datagrams.insert(key, ports.clone());
        }
        Some(ports)
    }

    /// The flow an ICMP error is about, seen from its receiver.
    fn quoted(&self, protocols: &[&str], error: &Packet) -> Option<FlowText> {
        let is_error = match error.protocol {
            1 => matches!(self.first("icmp.type"), "3" | "4" | "5" | "11" | "12"),
            _ => matches!(self.first("icmpv6.type"), "1" | "2" | "3" | "4"),
        };
        let inner = 1 + protocols[1..].iter().position(|name| *name == protocols[0])?;
        let quoted = self.packet(&protocols[inner..], 1, 0)?;
        if !is_error || quoted.source != error.destination || quoted.is_later {
            return None;
        }
        let mut flow = FlowText { protocol: quoted.protocol.to_string(), ..FlowText::default() };
        let mut ports = [String::new(), String::new()];
        if matches!(quoted.protocol, 1 | 58) {
            let name = if quoted.protocol == 1 { "icmp" } else { "icmpv6" };
            flow.icmp = [format!("{name}.type"), format!("{name}.code")].map(|field| self.nth(&field, 1).to_owned());
            let queries: &[&str] =
                if quoted.protocol == 1 { &["0", "8", "13", "14", "15", "16", "17", "18"] } else { &["128", "129"] };
            if !queries.contains(&flow.icmp[0].as_str()) {
                return None;
            }
        } else {
            ports = self.ports(&quoted, &protocols[inner..], 0, &mut Datagrams::new())?;
            if ports[0].is_empty() {
                return None;
            }
        }
        let [source_port, destination_port] = ports;
        flow.client = [quoted.destination, destination_port];
        flow.peer = [quoted.source, source_port];
        Some(flow)
    }
}

/// ICMP types of answers, and of what they answer.
const QUESTIONS: [(&str, &str); 3] = [("0", "8"), ("14", "13"), ("129", "128")];

/// What may lie between the frame's start and IP.
const BELOW_IP: [&str; 6] = ["eth", "ethertype", "vlan", "ieee8021ad", "pppoes", "ppp"];

/// Names of extension headers, and the fields that say what follows.
const EXTENSIONS: [(&str, &str); 5] = [
    ("ipv6.hopopts", "ipv6.hopopts.nxt"),
    ("ipv6.dstopts", "ipv6.dstopts.nxt"),
    ("ipv6.routing", "ipv6.routing.nxt"),
    ("ipv6.fraghdr", "ipv6.fraghdr.nxt"),
    ("ah", "ah.next_header"),
];

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
    for row in ask("coverage", archive, &[])?.iter().filter(|row| row["interface"] == interface) {
        told.others.0 += row["outcome_packets"].as_u64().unwrap_or(0);
        told.others.1 += row["outcome_bytes"].as_u64().unwrap_or(0);
    }
    Ok(told)
}
