//! The NAT map: who had which public address and ports, where the translator gives them by rule and reports no single translation.
//!
//! Port blocks, one-to-one networks and deterministic assignment (RFC 7422), as `docs/formats/nat-map.md` describes them. Refuses a
//! map that cannot be (more clients than blocks, a range that ends before it begins), and decodes without state.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use serde::Deserialize;

use crate::Failure;
use crate::time::Zone;

/// Who may have used a public address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) client: IpAddr,
    /// The client's own port, where the rule keeps it.
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    block: Vec<Block>,
    #[serde(default)]
    one_to_one: Vec<OneToOne>,
    #[serde(default)]
    deterministic: Vec<Deterministic>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    public: Ipv4Addr,
    ports: String,
    client: Ipv4Addr,
    from: Option<String>,
    to: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneToOne {
    public: String,
    clients: String,
    from: Option<String>,
    to: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deterministic {
    public: String,
    clients: String,
    ports: String,
    ports_per_client: Option<u32>,
    #[serde(default)]
    order: Order,
    from: Option<String>,
    to: Option<String>,
}

/// In which order clients get their blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// All blocks of one public address, then those of the next.
    #[default]
    Sequential,
    /// The first block of every public address, then the second of every one.
    RoundRobin,
}

/// Consecutive numbers: addresses or ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    count: u64,
}

impl Range {
    fn new(first: u32, last: u32, text: &str) -> Result<Self, String> {
        if last < first {
            return Err(format!("{text} ends before it begins"));
        }
        Ok(Self { first, count: u64::from(last - first) + 1 })
    }

    /// `10.0.0.0/24`, `10.0.0.1-10.0.0.20` or one address.
    fn of_addresses(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no range of IPv4 addresses; write 10.20.0.0/22, 10.20.0.1-10.20.3.254 or one address")
        };
        let address = |text: &str| text.trim().parse::<Ipv4Addr>().map(Ipv4Addr::to_bits).map_err(|_| wrong());
        if let Some((network, len)) = text.split_once('/') {
            let len: u32 = len.trim().parse().ok().filter(|len| *len <= 32).ok_or_else(wrong)?;
            let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
            let first = address(network)? & mask;
            return Self::new(first, first | !mask, text);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(address(first)?, address(last)?, text)
    }

    /// `1024-65535` or one port.
    fn of_ports(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range of ports; write 1024-65535");
        let port = |text: &str| text.trim().parse::<u16>().map(u32::from).map_err(|_| wrong());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(port(first)?, port(last)?, text)
    }

    fn position(self, number: u32) -> Option<u64> {
        let position = u64::from(number.checked_sub(self.first)?);
        (position < self.count).then_some(position)
    }

    fn at(self, position: u64) -> Option<u32> {
        (position < self.count).then_some(self.first).and_then(|first| first.checked_add(u32::try_from(position).ok()?))
    }
}

#[derive(Debug)]
enum Rule {
    Block { public: u32, ports: Range, client: u32 },
    OneToOne { public: Range, clients: Range },
    Deterministic { public: Range, clients: Range, ports: Range, ports_per_client: u64, order: Order },
}

/// From when to when a rule held, in nanoseconds; the end is not included.
type Validity = (i64, i64);

/// A map that was read and makes sense.
#[derive(Debug)]
pub(crate) struct NatMap {
    rules: Vec<(Validity, Rule)>,
}

impl NatMap {
    pub(crate) fn read(path: &Path, zone: &Zone) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::Usage(format!("the NAT map {} cannot be read: {error}", path.display())))?;
        Self::parse(&text, zone).map_err(|error| Failure::Usage(format!("the NAT map {}: {error}", path.display())))
    }

    fn parse(text: &str, zone: &Zone) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut rules = Vec::new();
        for block in file.block {
            let ports = Range::of_ports(&block.ports)?;
            let rule = Rule::Block { public: block.public.to_bits(), ports, client: block.client.to_bits() };
            rules.push((validity(block.from.as_deref(), block.to.as_deref(), zone)?, rule));
        }
        for netmap in file.one_to_one {
            let (public, clients) = (Range::of_addresses(&netmap.public)?, Range::of_addresses(&netmap.clients)?);
            if public.count != clients.count {
                return Err(format!("{} and {} are not of one size", netmap.public, netmap.clients));
            }
            let validity = validity(netmap.from.as_deref(), netmap.to.as_deref(), zone)?;
            rules.push((validity, Rule::OneToOne { public, clients }));
        }
        for assignment in file.deterministic {
            let validity = validity(assignment.from.as_deref(), assignment.to.as_deref(), zone)?;
            rules.push((validity, deterministic(&assignment)?));
        }
        Ok(Self { rules })
    }

    /// Everybody who may have used an address and port at a moment; several where rules overlap.
    pub(crate) fn decode(&self, public: SocketAddr, at_ns: i64) -> Vec<Mapped> {
        let IpAddr::V4(ip) = public.ip().to_canonical() else { return Vec::new() };
        let valid = self.rules.iter().filter(|((from_ns, to_ns), _)| (*from_ns..*to_ns).contains(&at_ns));
        let mut found: Vec<Mapped> = Vec::new();
        for mapped in valid.filter_map(|(_, rule)| rule.decode(ip.to_bits(), public.port())) {
            if !found.contains(&mapped) {
                found.push(mapped);
            }
        }
        found
    }
}

fn validity(from: Option<&str>, to: Option<&str>, zone: &Zone) -> Result<Validity, String> {
    let moment = |text: Option<&str>, open: i64| match text {
        None => Ok(open),
        Some(text) => zone.parse(text).map_err(|failure| match failure {
            Failure::Usage(why) | Failure::Damaged(why) | Failure::Refused(why) => why,
            Failure::Output(error) => error.to_string(),
        }),
    };
    let (from_ns, to_ns) = (moment(from, i64::MIN)?, moment(to, i64::MAX)?);
    if from_ns >= to_ns {
        return Err(format!("from {} to {} is no time at all", from.unwrap_or("ever"), to.unwrap_or("ever")));
    }
    Ok((from_ns, to_ns))
}

/// RFC 7422 §2: the ports of an address are shared by as many clients as come on one, unless it is said how many each gets.
fn deterministic(assignment: &Deterministic) -> Result<Rule, String> {
    let (public, clients) = (Range::of_addresses(&assignment.public)?, Range::of_addresses(&assignment.clients)?);
    let ports = Range::of_ports(&assignment.ports)?;
    let ports_per_client = match assignment.ports_per_client {
        Some(count) => u64::from(count),
        None => ports.count / clients.count.div_ceil(public.count),
    };
    let blocks = ports.count.checked_div(ports_per_client).unwrap_or(0) * public.count;
    if blocks < clients.count {
        return Err(format!(
            "{} has {} clients, but there are only {blocks} blocks of {ports_per_client} ports; give more addresses or smaller blocks",
            assignment.clients, clients.count
        ));
    }
    Ok(Rule::Deterministic { public, clients, ports, ports_per_client, order: assignment.order })
}

impl Rule {
    fn decode(&self, ip: u32, port: u16) -> Option<Mapped> {
        let client = |bits: u32| IpAddr::from(Ipv4Addr::from_bits(bits));
        match *self {
            Self::Block { public, ports, client: bits } => (public == ip && ports.position(port.into()).is_some())
                .then_some(Mapped { client: client(bits), port: None }),
            Self::OneToOne { public, clients } => {
                let bits = clients.at(public.position(ip)?)?;
                Some(Mapped { client: client(bits), port: Some(port) })
            }
            Self::Deterministic { public, clients, ports, ports_per_client, order } => {
                let address = public.position(ip)?;
                let block = ports.position(port.into())? / ports_per_client;
                let blocks = ports.count / ports_per_client;
                let number = match order {
                    Order::Sequential => address * blocks + block,
                    Order::RoundRobin => block * public.count + address,
                };
                // Ports that make no whole block are nobody's.
                let bits = clients.at(number).filter(|_| block < blocks)?;
                Some(Mapped { client: client(bits), port: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(map: &str, public: &str, at_s: i64) -> Vec<String> {
        let map = NatMap::parse(map, &Zone::new(None).unwrap()).unwrap();
        let mapped = map.decode(public.parse().unwrap(), at_s * 1_000_000_000);
        mapped.into_iter().map(|mapped| format!("{} {:?}", mapped.client, mapped.port)).collect()
    }

    #[test]
    fn a_block_belongs_to_its_client_while_it_does() {
        let map = "
            [[block]]
            public = '203.0.113.7'
            ports = '1024-2047'
            client = '10.20.0.14'
            to = '1970-01-01T00:01:00Z'
            [[block]]
            public = '203.0.113.7'
            ports = '1024-2047'
            client = '10.20.0.15'
            from = '1970-01-01T00:01:00Z'
        ";
        assert_eq!(decode(map, "203.0.113.7:1024", 59), ["10.20.0.14 None"]);
        assert_eq!(decode(map, "203.0.113.7:2047", 60), ["10.20.0.15 None"]);
        assert_eq!(decode(map, "203.0.113.7:2048", 60), [""; 0]);
        assert_eq!(decode(map, "203.0.113.8:1024", 60), [""; 0]);
    }

    #[test]
    fn one_to_one_keeps_the_port() {
        let map = "[[one_to_one]]\npublic = '203.0.113.16/28'\nclients = '10.20.0.0/28'";
        assert_eq!(decode(map, "203.0.113.21:4711", 0), ["10.20.0.5 Some(4711)"]);
        assert_eq!(decode(map, "203.0.113.32:4711", 0), [""; 0]);
    }

    /// Eight clients on two addresses: each address serves four, with a quarter of the 64 512 ports each.
    const SHARED: &str =
        "[[deterministic]]\npublic = '192.0.2.0/31'\nclients = '10.0.0.0-10.0.0.7'\nports = '1024-65535'\n";

    #[test]
    fn deterministic_blocks_come_in_order() {
        for (port, clients) in [(1024, [0, 4]), (1024 + 16_127, [0, 4]), (1024 + 16_128, [1, 5]), (65_535, [3, 7])] {
            for (address, client) in clients.into_iter().enumerate() {
                let public = format!("192.0.2.{address}:{port}");
                assert_eq!(decode(SHARED, &public, 0), [format!("10.0.0.{client} None")], "{public}");
            }
        }
        assert_eq!(decode(SHARED, "192.0.2.0:1023", 0), [""; 0]);
        let turns = format!("{SHARED}order = 'round_robin'");
        assert_eq!(decode(&turns, "192.0.2.0:1024", 0), ["10.0.0.0 None"]);
        assert_eq!(decode(&turns, "192.0.2.1:1024", 0), ["10.0.0.1 None"]);
        assert_eq!(decode(&turns, "192.0.2.0:17152", 0), ["10.0.0.2 None"]);
    }

    #[test]
    fn every_port_of_every_client_is_decoded_to_it_alone() {
        for order in ["sequential", "round_robin"] {
            let map = format!(
                "[[deterministic]]\npublic = '192.0.2.0/30'\nclients = '10.0.0.0-10.0.0.9'\nports = '2000-2999'\n\
                 ports_per_client = 300\norder = '{order}'"
            );
            let mut ports_of = std::collections::BTreeMap::<String, u32>::new();
            for address in 0..4 {
                for port in 1990..3010 {
                    for client in decode(&map, &format!("192.0.2.{address}:{port}"), 0) {
                        *ports_of.entry(client).or_default() += 1;
                    }
                }
            }
            assert_eq!(ports_of.len(), 10);
            assert!(ports_of.values().all(|ports| *ports == 300), "{order}: {ports_of:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_says_why() {
        let zone = Zone::new(None).unwrap();
        for (map, why) in [
            ("[[deterministic]]\npublic = '192.0.2.0'\nclients = '10.0.0.0/16'\nports = '1024-1100'", "blocks"),
            ("[[one_to_one]]\npublic = '192.0.2.0/30'\nclients = '10.0.0.0/28'", "one size"),
            ("[[block]]\npublic = '192.0.2.0'\nports = '9-7'\nclient = '10.0.0.1'", "ends before"),
            ("[[block]]\npublic = '192.0.2.0'\nports = '7-70000'\nclient = '10.0.0.1'", "range of ports"),
            ("[[blocks]]\n", "blocks"),
            ("[[one_to_one]]\npublic = 'here'\nclients = 'there'", "range of IPv4 addresses"),
        ] {
            let error = NatMap::parse(map, &zone).unwrap_err();
            assert!(error.contains(why), "{map}: {error}");
        }
    }
}
