//! A filter in its own language: what is parsed back is the same tree.

use std::fmt;

use hotspot_core::WallNs;

use super::value::PROTOCOLS;
use super::{Filter, NumberField, Pattern, Side, TextField};

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "src ",
            Self::Destination => "dst ",
            Self::Either => "",
        })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("any"),
            // Of users, the sign says that one spelling is meant and no other.
            Self::Text(TextField::User, pattern @ (Pattern::Exact(_) | Pattern::Glob(_))) => {
                write!(f, "user = {pattern}")
            }
            Self::Text(field, pattern) => write!(f, "{} {pattern}", field.word()),
            Self::Mac(mac) => write!(f, "mac {mac}"),
            Self::Ip(side, ip) => write!(f, "{side}ip {ip}"),
            Self::Net(side, net) => write!(f, "{side}net {net}"),
            Self::Port(side, ports) if ports.start() == ports.end() => write!(f, "{side}port {}", ports.start()),
            Self::Port(side, ports) => write!(f, "{side}port {}-{}", ports.start(), ports.end()),
            Self::Protocol(number) => match PROTOCOLS.iter().find(|(_, known)| known == number) {
                Some((name, _)) => write!(f, "proto {name}"),
                None => write!(f, "proto {number}"),
            },
            Self::IsV4(true) => f.write_str("ipv4"),
            Self::IsV4(false) => f.write_str("ipv6"),
            Self::Public(ip, None) => write!(f, "public ip {ip}"),
            Self::Public(ip, Some(port)) => write!(f, "public ip {ip} port {port}"),
            Self::Vlan(vlan) => write!(f, "vlan {vlan}"),
            Self::Number(side, field, compare, value) => {
                let unit = if *field == NumberField::Duration { "ns" } else { "" };
                write!(f, "{side}{} {} {value}{unit}", field.word(), compare.word())
            }
            Self::At { when, within_ns } => {
                let at = |at_ns: WallNs| {
                    let (seconds, rest) = (at_ns.div_euclid(1_000_000_000), at_ns.rem_euclid(1_000_000_000));
                    format!("@{seconds}.{rest:09}")
                };
                write!(f, "at {}", at(when.from_ns))?;
                if when.last_ns > when.from_ns {
                    write!(f, " to {}", at(when.last_ns))?;
                }
                write!(f, " within {within_ns}ns")
            }
            Self::All(parts) => list(f, parts, " and "),
            Self::Any(parts) => list(f, parts, " or "),
            Self::Not(inner) => {
                f.write_str("not ")?;
                nested(f, inner)
            }
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, parts: &[Filter], between: &str) -> fmt::Result {
    for (position, part) in parts.iter().enumerate() {
        if position > 0 {
            f.write_str(between)?;
        }
        nested(f, part)?;
    }
    Ok(())
}

fn nested(f: &mut fmt::Formatter<'_>, part: &Filter) -> fmt::Result {
    if matches!(part, Filter::All(_) | Filter::Any(_)) { write!(f, "({part})") } else { write!(f, "{part}") }
}
