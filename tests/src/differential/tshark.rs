//! What tshark reads in a capture.
//!
//! tshark says which headers are there; what belongs to one flow is decided here, by the rules the documentation states
//! (`docs/limitations.md`).

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{FlowText, Told};
use crate::namespace::run;

/// Fields asked of tshark, with all their occurrences in a frame.
const FIELDS: [&str; 50] = [
    "frame.cap_len",
    "frame.protocols",
    "_ws.malformed",
    "eth.src",
    "vlan.id",
    "ieee8021ad.id",
    "pppoe.version",
    "pppoe.type",
    "pppoe.code",
    "ip.src",
    "ip.dst",
    "ip.cur_rt",
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
    "ipv6.hopopts.len_oct",
    "ipv6.dstopts.nxt",
    "ipv6.dstopts.len_oct",
    "ipv6.routing.nxt",
    "ipv6.routing.len_oct",
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
    "icmp.checksum",
    "icmpv6.checksum",
    "mip6.proto",
    "hip.proto",
    "shim6.nxt",
];

/// Reads a capture with tshark.
pub fn by_tshark(capture: &Path) -> Result<Told> {
    let mut tshark = Command::new("tshark");
    // One frame says what it says by itself: nothing is put together from several.
    // A length of 0 is only believed where the kernel says that it is a packet of segmentation offload.
    for option in
        ["ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE", "ip.tso_support:FALSE"]
    {
        tshark.args(["-o", option]);
    }
    // The tag before 802.1ad had a number.
    tshark.args(["-d", "ethertype==0x9200,vlan"]);
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
        let flow = frame.flow(&mut datagrams);
        if flow.is_none() && frame.is_given_up() {
            told.unread.0 += 1;
            told.unread.1 += bytes;
        }
        told.add(flow, bytes);
    }
    Ok(told)
}

/// What first fragments seen so far said, by datagram.
type Datagrams = HashMap<[String; 4], Transport>;

/// What makes flows of one address pair different: ports, or ICMP type and code.
#[derive(Clone, Debug, Default)]
struct Transport {
    ports: [String; 2],
    icmp: [String; 2],
}

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

    /// Whether tshark stumbled over an option and left the rest of the packet alone.
    fn is_given_up(&self) -> bool {
        let ends_in_options = matches!(self.protocols().last(), Some(&("ip" | "ipv6.hopopts" | "ipv6.dstopts")));
        ends_in_options && !self.first("_ws.malformed").is_empty()
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
        // A frame in a frame, as Cisco's ISL has it, is not read.
        if below.iter().filter(|name| **name == "eth").count() != 1 {
            return None;
        }
        // RFC 2516 §4: version and type are 1, and the code of a session is 0.
        let session = ["version", "type", "code"].map(|field| self.number(&format!("pppoe.{field}"), 0));
        if below.contains(&"pppoes") && session != [Some(1), Some(1), Some(0)] {
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
        let said = self.transport(&packet, &protocols[network..], datagrams)?;
        if let Some(quoted) = self.quoted(&protocols[network..], &packet) {
            return Some(FlowText { mac: flow.mac, vlans: flow.vlans, ..quoted });
        }
        let [client_port, peer_port] = said.ports;
        flow.client = [packet.source.clone(), client_port];
        flow.peer = [packet.destination.clone(), peer_port];
        flow.icmp = said.icmp;
        Some(flow)
    }

    /// What follows the IP header or, in a later fragment, what followed it in the first.
    fn transport(&self, packet: &Packet, protocols: &[&str], datagrams: &mut Datagrams) -> Option<Transport> {
        let key = packet
            .datagram
            .as_ref()
            .map(|id| [packet.source.clone(), packet.destination.clone(), packet.protocol.to_string(), id.clone()]);
        if packet.is_later {
            return Some(key.and_then(|key| datagrams.get(&key).cloned()).unwrap_or_default());
        }
        let mut said = Transport { ports: self.ports(packet, protocols, 0)?, icmp: Default::default() };
        if matches!(packet.protocol, 1 | 58) {
            said.icmp = self.icmp(packet.protocol, 0)?;
        }
        if let Some(key) = key {
            datagrams.insert(key, said.clone());
        }
        Some(said)
    }

    /// Type and code of ICMP, those of the question where it is an answer: the two are one flow.
    fn icmp(&self, protocol: u8, nth: usize) -> Option<[String; 2]> {
        let name = if protocol == 1 { "icmp" } else { "icmpv6" };
        let [mut kind, code, checksum] =
            ["type", "code", "checksum"].map(|field| self.nth(&format!("{name}.{field}"), nth).to_owned());
        let is_v6 = |answer: &str| answer == "129";
        if let Some((_, question)) =
            QUESTIONS.iter().find(|(answer, _)| kind == *answer && is_v6(answer) == (protocol == 58))
        {
            (*question).clone_into(&mut kind);
        }
        (!checksum.is_empty()).then_some([kind, code])
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
            if header < 20 || total < header || nth == 0 && start + header > len {
                return None;
            }
            let offset = self.number("ip.frag_offset", nth)?;
            let is_fragment = offset != 0 || self.is_set("ip.flags.mf", nth);
            // tshark names the end of a source route; the packet goes to the next stop on it.
            let has_options = self.number("ip.hdr_len", 0).is_some_and(|header| header > 20);
            let next_stop = if nth == 0 && has_options { self.first("ip.cur_rt") } else { "" };
            let destination = if next_stop.is_empty() { self.nth("ip.dst", nth) } else { next_stop };
            return Some(Packet {
                source: self.nth("ip.src", nth).to_owned(),
                destination: destination.to_owned(),
                protocol: self.number("ip.proto", nth)?.try_into().ok()?,
                datagram: is_fragment.then(|| self.nth("ip.id", nth).to_owned()),
                is_later: offset != 0,
            });
        }
        if nth == 0 && start + 40 > len {
            return None;
        }
        // tshark writes some as nobody else does.
        let [source, destination] = ["ipv6.src", "ipv6.dst"].map(|field| self.nth(field, nth).parse::<Ipv6Addr>().ok());
        let (source, destination) = (source?, destination?);
        // Such addresses stand for IPv4, and no packet may carry one.
        if nth == 0 && [source, destination].iter().any(|address| address.to_ipv4_mapped().is_some()) {
            return None;
        }
        let mut packet = Packet {
            source: source.to_string(),
            destination: destination.to_string(),
            protocol: self.number("ipv6.nxt", nth)?.try_into().ok()?,
            datagram: None,
            is_later: false,
        };
        let mut seen: HashMap<&str, usize> = HashMap::new();
        // Up to there, if all that is in the headers is there.
        let mut end = start + 40;
        let mut after = protocols[1..].iter();
        for count in 0.. {
            let mut follows = after.clone();
            let Some(name) = follows.next() else { break };
            let is_next = |(known, number, _): &&(&str, u8, &str)| known == name && *number == packet.protocol;
            let Some((name, _, field)) = EXTENSIONS.iter().find(is_next) else { break };
            let position = seen.entry(name).or_default();
            if count == 8 {
                return None;
            }
            packet.protocol = self.number(field, *position)?.try_into().ok()?;
            after = follows;
            // None has fewer; of one that is cut the length may be missing.
            end += self.number(&format!("{name}.len_oct"), *position).unwrap_or(8);
            if *name == "ipv6.fraghdr" {
                let offset = self.number("ipv6.fraghdr.offset", *position)?;
                packet.is_later = offset != 0;
                if offset != 0 || self.is_set("ipv6.fraghdr.more", *position) {
                    packet.datagram = Some(self.nth("ipv6.fraghdr.ident", *position).to_owned());
                }
            }
            *position += 1;
            if packet.is_later {
                break;
            }
            // What follows a header that is cut cannot be known, nor that nothing does.
            if after.len() == 0 && (packet.protocol != NO_NEXT_HEADER || nth == 0 && end > len) {
                return None;
            }
        }
        // A chain that is cut short, or goes on beyond the limit.
        let is_extension = matches!(packet.protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140);
        (packet.is_later || !is_extension).then_some(packet)
    }

    /// Both empty where the protocol has none; `None` where they are cut off.
    fn ports(&self, packet: &Packet, protocols: &[&str], nth: usize) -> Option<[String; 2]> {
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
        let ports = ["srcport", "dstport"].map(|end| self.nth(&format!("{name}.{end}"), nth));
        if ports.iter().any(|port| port.is_empty()) {
            return None;
        }
        // Port 0 is in no use, and stands for one that is not known.
        Some(ports.map(|port| if port == "0" { String::new() } else { port.to_owned() }))
    }

    /// The flow an ICMP error is about, seen from its receiver.
    fn quoted(&self, protocols: &[&str], error: &Packet) -> Option<FlowText> {
        let is_error = match error.protocol {
            1 => matches!(self.first("icmp.type"), "3" | "4" | "5" | "11" | "12"),
            58 => matches!(self.first("icmpv6.type"), "1" | "2" | "3" | "4"),
            _ => false,
        };
        if !is_error || error.is_later {
            return None;
        }
        let inner = 1 + protocols[1..].iter().position(|name| *name == protocols[0])?;
        let quoted = self.packet(&protocols[inner..], 1, 0)?;
        // Extension headers of a quoted packet are not followed.
        let is_chain =
            EXTENSIONS.iter().any(|(name, ..)| protocols.get(inner + 1) == Some(name)) && error.protocol == 58;
        if quoted.source != error.destination || quoted.is_later || is_chain {
            return None;
        }
        let mut flow = FlowText { protocol: quoted.protocol.to_string(), ..FlowText::default() };
        let mut ports = [String::new(), String::new()];
        if matches!(quoted.protocol, 1 | 58) {
            flow.icmp = self.icmp(quoted.protocol, 1)?;
            let queries: &[&str] = if quoted.protocol == 1 { &["8", "13", "15", "17"] } else { &["128"] };
            if !queries.contains(&flow.icmp[0].as_str()) {
                return None;
            }
        } else {
            ports = self.ports(&quoted, &protocols[inner..], 0)?;
            if ![6, 17, 33, 132, 136].contains(&quoted.protocol) {
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
const QUESTIONS: [(&str, &str); 5] = [("0", "8"), ("14", "13"), ("16", "15"), ("18", "17"), ("129", "128")];

/// What may lie between the frame's start and IP.
const BELOW_IP: [&str; 6] = ["eth", "ethertype", "vlan", "ieee8021ad", "pppoes", "ppp"];

/// Extension headers by name and number, and the fields that say what follows.
const EXTENSIONS: [(&str, u8, &str); 8] = [
    ("ipv6.hopopts", 0, "ipv6.hopopts.nxt"),
    ("ipv6.dstopts", 60, "ipv6.dstopts.nxt"),
    ("ipv6.routing", 43, "ipv6.routing.nxt"),
    ("ipv6.fraghdr", 44, "ipv6.fraghdr.nxt"),
    ("ah", 51, "ah.next_header"),
    ("mipv6", 135, "mip6.proto"),
    ("hip", 139, "hip.proto"),
    ("shim6", 140, "shim6.nxt"),
];

/// RFC 8200 §4.7.
const NO_NEXT_HEADER: u8 = 59;
