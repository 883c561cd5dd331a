//! Conditions about where and when: addresses, networks, ports, and moments.

use super::super::value::{duration_ns, port_range};
use super::super::{Compare, Filter, FilterError, NumberField, Side, WITHIN_NS};
use super::Parser;
use crate::when::{NoTime, When};

impl Parser<'_> {
    /// What `src` and `dst` can stand before.
    pub(super) fn sided(&mut self, side: Side) -> Result<Filter, FilterError> {
        if self.take(&["ip", "host"]) {
            if self.peek().is_some_and(|token| token.word.contains('/') && token.word.parse::<ipnet::IpNet>().is_ok()) {
                return Err(self.error("this is a network; write 'net' before it"));
            }
            return self.values("an address like 10.20.0.14 or 2001:db8::1", |token| {
                token.word.parse().ok().map(|ip: std::net::IpAddr| Filter::Ip(side, ip.to_canonical()))
            });
        }
        if self.take(&["net"]) {
            return self.values("a network like 10.20.0.0/16", |token| {
                token.word.parse().ok().map(|net: ipnet::IpNet| Filter::Net(side, net.trunc()))
            });
        }
        if self.take(&["port", "portrange"]) {
            if let Some(compare) = self.compare() {
                return self.port_compared(side, compare);
            }
            return self.values("a port, 0 to 65535, or a range like 1000-2000", |token| {
                port_range(&token.word).map(|ports| Filter::Port(side, ports))
            });
        }
        for field in [NumberField::Bytes, NumberField::Packets] {
            if self.take(&[field.word()]) {
                return self.number(side, field);
            }
        }
        self.address(side).ok_or_else(|| {
            self.error("expected an address, ip, net, port, bytes or packets after 'src' or 'dst' (the client is src, the peer dst)")
        })
    }

    /// An address or a network by itself, with or without a port, where it is clear whose it is.
    fn address(&mut self, side: Side) -> Option<Filter> {
        let word = self.peek().filter(|token| !token.is_quoted)?.word.clone();
        let ip = |ip: std::net::IpAddr| Filter::Ip(side, ip.to_canonical());
        let filter = if let Ok(address) = word.parse() {
            ip(address)
        } else if let Ok(net) = word.parse::<ipnet::IpNet>() {
            Filter::Net(side, net.trunc())
        } else {
            let both: std::net::SocketAddr = word.parse().ok()?;
            ip(both.ip()).and(Filter::Port(side, both.port()..=both.port()))
        };
        self.next += 1;
        Some(filter)
    }

    fn port_compared(&mut self, side: Side, compare: Compare) -> Result<Filter, FilterError> {
        let port: u16 = self.value("a port, 0 to 65535")?;
        let ports = match compare {
            Compare::Equal => Some(port..=port),
            Compare::NotEqual => return Ok(Filter::Not(Box::new(Filter::Port(side, port..=port)))),
            Compare::Less => port.checked_sub(1).map(|last| 0..=last),
            Compare::LessOrEqual => Some(0..=port),
            Compare::Greater => port.checked_add(1).map(|first| first..=u16::MAX),
            Compare::GreaterOrEqual => Some(port..=u16::MAX),
        };
        ports.map(|ports| Filter::Port(side, ports)).ok_or_else(|| {
            self.next -= 1;
            self.error("no port is beyond this one")
        })
    }

    pub(super) fn public(&mut self) -> Result<Filter, FilterError> {
        self.take(&["ip", "host"]);
        let both: Option<std::net::SocketAddr> = self.peek().and_then(|token| token.word.parse().ok());
        let (ip, port) = if let Some(both) = both {
            self.next += 1;
            (both.ip(), Some(both.port()))
        } else {
            let ip: std::net::IpAddr = self.value("an address: public ip 203.0.113.7 port 45678")?;
            (ip, if self.take(&["port"]) { Some(self.value("a port, 0 to 65535")?) } else { None })
        };
        let public = Filter::Public(ip.to_canonical(), port);
        if self.take(&["at"]) { Ok(public.and(self.at()?)) } else { Ok(public) }
    }

    pub(super) fn at(&mut self) -> Result<Filter, FilterError> {
        let mut when = self.moment()?;
        if self.take(&["to"]) {
            when.last_ns = self.moment()?.last_ns;
            if when.last_ns < when.from_ns {
                self.next -= 1;
                return Err(self.error("this is before the time it follows"));
            }
        }
        let mut within_ns = WITHIN_NS;
        if self.take(&["within"]) {
            within_ns = self.parsed("a duration with its unit like 2s or 500ms", |token| {
                duration_ns(&token.word).and_then(|ns| i64::try_from(ns).ok())
            })?;
        }
        Ok(Filter::At { when, within_ns })
    }

    fn moment(&mut self) -> Result<When, FilterError> {
        let Some(token) = self.peek() else { return Err(self.error(format!("expected a time: {}", NoTime::Text))) };
        // A blank between day and time is a blank between two words here.
        let (word, zone) = (token.word.clone(), self.zone);
        let with_time = self.tokens.get(self.next + 1).filter(|next| next.word.contains(':') && !token.is_quoted);
        let both = with_time.and_then(|next| When::parse(&format!("{word}T{}", next.word), zone).ok());
        if let Some(when) = both {
            self.next += 2;
            return Ok(when);
        }
        let when = When::parse(&word, zone).map_err(|why| self.error(format!("'{word}' is not a time: {why}")))?;
        self.next += 1;
        Ok(when)
    }
}
