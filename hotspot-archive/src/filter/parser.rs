//! From words to a filter: `or` binds weaker than `and`, `and` weaker than `not`.

use std::str::FromStr;

use super::error::nearest;
use super::lexer::{Token, lex};
use super::value::{PROTOCOLS, count, duration_ns, parse_time, port_range, protocol};
use super::{Alike, Compare, Filter, FilterError, NumberField, Pattern, Side, TextField, WITHIN_NS};

/// Deepest nesting of parentheses and `not`.
const DEPTH_MAX: usize = 64;
/// Words a condition can begin with, beside fields and protocols.
const CONDITIONS: [&str; 18] = [
    "mac",
    "ip",
    "host",
    "net",
    "port",
    "portrange",
    "src",
    "dst",
    "proto",
    "public",
    "vlan",
    "at",
    "any",
    "not",
    "ipv4",
    "ipv6",
    "inet",
    "inet6",
];
/// Words that continue a condition or a filter.
const OTHERS: [&str; 4] = ["and", "or", "in", "within"];

/// Parses a filter; an empty one matches everything.
pub fn parse(text: &str) -> Result<Filter, FilterError> {
    let mut parser = Parser { text, tokens: lex(text)?, next: 0 };
    if parser.tokens.is_empty() {
        return Ok(Filter::Everything);
    }
    let filter = parser.any(0)?;
    match parser.peek().map(|token| token.word.clone()) {
        None => Ok(filter),
        Some(word) if word == ")" => Err(parser.error("there is no '(' for this")),
        Some(word) => Err(match nearest(&word, ["and", "or"]) {
            Some(meant) => parser.error(format!("'{word}' does not belong here; did you mean '{meant}'?")),
            None => parser.error("expected 'and' or 'or' between two conditions; a value with spaces needs quotes"),
        }),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn is_next(&self, keyword: &str) -> bool {
        self.peek().is_some_and(|token| !token.is_quoted && token.word.eq_ignore_ascii_case(keyword))
    }

    /// Takes the next word if it is one of these.
    fn take(&mut self, keywords: &[&str]) -> bool {
        let is_next = keywords.iter().any(|keyword| self.is_next(keyword));
        self.next += usize::from(is_next);
        is_next
    }

    fn error(&self, what: impl Into<String>) -> FilterError {
        let at = self.peek().map_or_else(|| self.text.chars().count(), |token| token.at);
        FilterError { what: what.into(), text: self.text.to_owned(), at }
    }

    fn any(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let mut parts = vec![self.all(depth)?];
        while self.take(&["or", "||"]) {
            parts.push(self.all(depth)?);
        }
        Ok(one_or(parts, Filter::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let mut parts = vec![self.one(depth)?];
        while self.take(&["and", "&&"]) {
            parts.push(self.one(depth)?);
        }
        Ok(one_or(parts, Filter::All))
    }

    fn one(&mut self, depth: usize) -> Result<Filter, FilterError> {
        if depth > DEPTH_MAX {
            return Err(self.error("this is nested more than 64 deep"));
        }
        if self.take(&["not", "!"]) {
            return Ok(Filter::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take(&["("]) {
            let inner = self.any(depth + 1)?;
            return if self.take(&[")"]) { Ok(inner) } else { Err(self.error("expected ')' (or 'and', 'or')")) };
        }
        self.condition()
    }

    fn condition(&mut self) -> Result<Filter, FilterError> {
        if self.take(&["any"]) {
            return Ok(Filter::Everything);
        }
        if self.take(&["ipv4", "inet"]) {
            return Ok(Filter::IsV4(true));
        }
        if self.take(&["ipv6", "inet6"]) {
            return Ok(Filter::IsV4(false));
        }
        let side = self.side();
        if side != Side::Either
            || ["ip", "host", "net", "port", "portrange", "bytes", "packets"].iter().any(|word| self.is_next(word))
        {
            return self.sided(side);
        }
        if self.take(&["mac"]) {
            return self
                .values("a MAC address like 02:aa:bb:cc:dd:ee", |token| token.word.parse().ok().map(Filter::Mac));
        }
        if self.take(&["vlan"]) {
            return self.values("a VLAN, 0 to 4095", |token| {
                token.word.parse().ok().filter(|vlan| *vlan < 4096).map(Filter::Vlan)
            });
        }
        if self.take(&["proto"]) {
            return self.protocol();
        }
        if self.take(&["public"]) {
            return self.public();
        }
        if self.take(&["at"]) {
            return self.at();
        }
        if self.take(&["duration"]) {
            return self.number(Side::Either, NumberField::Duration);
        }
        if let Some(field) = TextField::ALL.iter().copied().find(|field| self.is_next(field.word())) {
            self.next += 1;
            // A user is meant in any spelling, unless `=` says that it is not.
            let is_alike = field == TextField::User && !self.is_next("=") && !self.is_next("==");
            return self.values("a value", |token| {
                Some(Filter::Text(field, if is_alike { alike(token) } else { pattern(token) }))
            });
        }
        self.bare()
    }

    fn side(&mut self) -> Side {
        if self.take(&["src"]) {
            Side::Source
        } else if self.take(&["dst"]) {
            Side::Destination
        } else {
            Side::Either
        }
    }

    /// What `src` and `dst` can stand before.
    fn sided(&mut self, side: Side) -> Result<Filter, FilterError> {
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
        Err(self.error("expected ip, net, port, bytes or packets after 'src' or 'dst' (the client is src)"))
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

    fn protocol(&mut self) -> Result<Filter, FilterError> {
        self.values("a protocol: tcp, udp, icmp, icmp6, sctp, gre, esp, igmp or a number", |token| {
            protocol(&token.word).map(Filter::Protocol)
        })
    }

    fn public(&mut self) -> Result<Filter, FilterError> {
        if !self.take(&["ip", "host"]) {
            return Err(self.error("expected 'ip' after 'public': public ip 203.0.113.7 port 45678"));
        }
        let ip: std::net::IpAddr = self.value("an address like 203.0.113.7")?;
        let port = if self.take(&["port"]) { Some(self.value("a port, 0 to 65535")?) } else { None };
        let public = Filter::Public(ip.to_canonical(), port);
        if self.take(&["at"]) { Ok(public.and(self.at()?)) } else { Ok(public) }
    }

    fn at(&mut self) -> Result<Filter, FilterError> {
        let at_ns = self.parsed(
            "a time with its zone like 2026-11-23T10:02:03+07:00, or seconds since 1970 like @1795402923",
            |token| parse_time(&token.word),
        )?;
        let mut within_ns = WITHIN_NS;
        if self.take(&["within"]) {
            within_ns = self.parsed("a duration with its unit like 2s or 500ms", |token| {
                duration_ns(&token.word).and_then(|ns| i64::try_from(ns).ok())
            })?;
        }
        Ok(Filter::At { at_ns, within_ns })
    }

    fn number(&mut self, side: Side, field: NumberField) -> Result<Filter, FilterError> {
        let compare = self.compare().unwrap_or(Compare::Equal);
        let value = match field {
            NumberField::Duration => {
                self.parsed("a duration with its unit: 300ms, 1.5s, 5m, 2h or 1d", |token| duration_ns(&token.word))
            }
            NumberField::Bytes | NumberField::Packets => {
                self.parsed("a number like 1500, 10k, 1.5M or 2Gi", |token| count(&token.word))
            }
        }?;
        Ok(Filter::Number(side, field, compare, value))
    }

    fn compare(&mut self) -> Option<Compare> {
        let spellings: [(&[&str], Compare); 6] = [
            (&["=", "==", "eq"], Compare::Equal),
            (&["!=", "ne"], Compare::NotEqual),
            (&["<=", "le"], Compare::LessOrEqual),
            (&["<", "lt"], Compare::Less),
            (&[">=", "ge"], Compare::GreaterOrEqual),
            (&[">", "gt"], Compare::Greater),
        ];
        spellings.into_iter().find(|(words, _)| self.take(words)).map(|(_, compare)| compare)
    }

    /// A protocol's name by itself, or nothing we know.
    fn bare(&mut self) -> Result<Filter, FilterError> {
        let Some(token) = self.peek() else { return Err(self.error("a condition is missing here")) };
        let word = token.word.to_ascii_lowercase();
        if !token.is_quoted
            && let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == word)
        {
            self.next += 1;
            return Ok(Filter::Protocol(*number));
        }
        let fields =
            TextField::ALL.iter().map(|field| field.word()).chain(NumberField::ALL.iter().map(|field| field.word()));
        let known = fields.chain(CONDITIONS).chain(PROTOCOLS.iter().map(|(name, _)| *name));
        let shown = &token.word;
        Err(if OTHERS.contains(&word.as_str()) {
            self.error(format!("a condition is missing before '{word}'"))
        } else if shown.parse::<std::net::IpAddr>().is_ok() {
            self.error("write 'ip' before an address")
        } else if shown.parse::<hotspot_core::MacAddr>().is_ok() {
            self.error("write 'mac' before a MAC address")
        } else if let Some(meant) = nearest(shown, known) {
            self.error(format!("'{shown}' is no condition; did you mean '{meant}'?"))
        } else {
            self.error(
                "expected user, mac, ip, net, port, proto, src, dst, public ip, vlan, site, gateway, ssid, hostname, vendor, \
                 bytes, packets, duration, at, not or '('",
            )
        })
    }

    /// One value, or `in [a, b …]`.
    fn values(&mut self, what: &str, condition: impl Fn(&Token) -> Option<Filter>) -> Result<Filter, FilterError> {
        if !self.take(&["in"]) {
            self.take(&["=", "=="]);
            return self.parsed(what, condition);
        }
        if !self.take(&["["]) {
            return Err(self.error("expected '[' after 'in': in [80, 443]"));
        }
        let mut parts = vec![self.parsed(what, &condition)?];
        loop {
            let is_more = self.take(&[","]);
            if !is_more && self.take(&["]"]) {
                return Ok(one_or(parts, Filter::Any));
            }
            if self.peek().is_none() {
                return Err(self.error("expected ']' at the end of the list"));
            }
            parts.push(self.parsed(what, &condition)?);
        }
    }

    fn value<T: FromStr>(&mut self, what: &str) -> Result<T, FilterError> {
        self.parsed(what, |token| token.word.parse().ok())
    }

    fn parsed<T>(&mut self, what: &str, parse: impl FnOnce(&Token) -> Option<T>) -> Result<T, FilterError> {
        let is_word = |token: &&Token| token.is_quoted || !matches!(token.word.as_str(), "(" | ")" | "[" | "]" | ",");
        let value = self.peek().filter(is_word).and_then(parse);
        let value = value.ok_or_else(|| self.error(format!("expected {what}")))?;
        self.next += 1;
        Ok(value)
    }
}

fn one_or(mut parts: Vec<Filter>, all: impl FnOnce(Vec<Filter>) -> Filter) -> Filter {
    if parts.len() == 1 { parts.remove(0) } else { all(parts) }
}

fn alike(token: &Token) -> Pattern {
    Pattern::Alike(if is_glob(token) { Alike::glob(&token.word) } else { Alike::new(&token.word) })
}

fn is_glob(token: &Token) -> bool {
    token.word.contains('*') && !token.is_quoted
}

fn pattern(token: &Token) -> Pattern {
    if is_glob(token) { Pattern::Glob(token.word.clone()) } else { Pattern::Exact(token.word.clone()) }
}
