//! From words to a filter: `or` binds weaker than `and`, `and` weaker than `not`.

mod places;

use std::str::FromStr;

use jiff::tz::TimeZone;

use super::error::nearest;
use super::lexer::{Token, lex};
use super::value::{PROTOCOLS, count, duration_ns, protocol};
use super::{Alike, Compare, Filter, FilterError, NumberField, Pattern, Side, TextField};

/// Deepest nesting of parentheses and `not`.
const DEPTH_MAX: usize = 64;
/// Words a condition can begin with, beside fields and protocols.
const CONDITIONS: [&str; 20] = [
    "mac",
    "ip",
    "host",
    "net",
    "port",
    "portrange",
    "src",
    "dst",
    "client",
    "peer",
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
    parse_in(text, None)
}

/// The same; times that name no zone are in this one.
pub fn parse_in(text: &str, zone: Option<&TimeZone>) -> Result<Filter, FilterError> {
    let mut parser = Parser { text, zone, tokens: lex(text)?, next: 0, named: None };
    if parser.tokens.is_empty() {
        return Ok(Filter::Everything);
    }
    let filter = parser.any(0)?;
    match parser.peek().map(|token| token.word.clone()) {
        None => Ok(filter),
        Some(word) if word == ")" => Err(parser.error("there is no '(' for this")),
        Some(word) if is_option(&word) => Err(parser.error(OPTION)),
        Some(word) => Err(match nearest(&word, ["and", "or"]) {
            Some(meant) => parser.error(format!("'{word}' does not belong here; did you mean '{meant}'?")),
            None => parser.error(match parser.in_quotes() {
                Some(meant) => format!("a value with spaces needs quotes, and the shell others around them: '{meant}'"),
                None => "expected 'and' or 'or' between two conditions; a value with spaces needs quotes".to_owned(),
            }),
        }),
    }
}

/// What is said of an option where a condition could be.
const OPTION: &str = "options go before the filter; a value that begins with '-' needs quotes";

fn is_option(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c == '-' || c.is_ascii_alphabetic()))
}

/// Every word that a condition can begin with.
fn words() -> impl Iterator<Item = &'static str> {
    let fields =
        TextField::ALL.iter().map(|field| field.word()).chain(NumberField::ALL.iter().map(|field| field.word()));
    fields.chain(CONDITIONS).chain(PROTOCOLS.iter().map(|(name, _)| *name))
}

struct Parser<'a> {
    text: &'a str,
    /// Of times that name none.
    zone: Option<&'a TimeZone>,
    tokens: Vec<Token>,
    next: usize,
    /// The last name that was read: its field, and which token it is.
    named: Option<(&'static str, usize)>,
}

impl Parser<'_> {
    /// The name that was just read together with the words behind it, as it was perhaps meant.
    fn in_quotes(&self) -> Option<String> {
        let (field, value) = self.named.filter(|(_, value)| value + 1 == self.next)?;
        // Another condition begins here, and only the word between the two is missing.
        let begins = self.peek()?.word.to_ascii_lowercase();
        if words().any(|word| word == begins) {
            return None;
        }
        let is_value = |token: &&Token| {
            let word = token.word.to_ascii_lowercase();
            token.is_quoted
                || !(["and", "or", "&&", "||", "(", ")", "[", "]", ","].contains(&word.as_str()) || is_option(&word))
        };
        let words: Vec<&str> =
            self.tokens[value..].iter().take_while(is_value).map(|token| token.word.as_str()).collect();
        Some(format!("{field} \"{}\"", words.join(" ")))
    }

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
            let read = self.values("a value", |token| {
                Some(Filter::Text(field, if is_alike { alike(token) } else { pattern(token) }))
            })?;
            self.named = Some((field.word(), self.next - 1));
            return Ok(read);
        }
        self.bare()
    }

    fn side(&mut self) -> Side {
        if self.take(&["src", "client"]) {
            Side::Source
        } else if self.take(&["dst", "peer"]) {
            Side::Destination
        } else {
            Side::Either
        }
    }

    fn protocol(&mut self) -> Result<Filter, FilterError> {
        self.values("a protocol: tcp, udp, icmp, icmp6, sctp, gre, esp, igmp or a number", |token| {
            protocol(&token.word).map(Filter::Protocol)
        })
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
        let shown = &token.word;
        Err(if is_option(shown) && !token.is_quoted {
            self.error(OPTION)
        } else if OTHERS.contains(&word.as_str()) {
            self.error(format!("a condition is missing before '{word}'"))
        } else if shown.parse::<std::net::IpAddr>().is_ok() {
            self.error("write 'ip' before an address")
        } else if shown.parse::<hotspot_core::MacAddr>().is_ok() {
            self.error("write 'mac' before a MAC address")
        } else if let Some(meant) = nearest(shown, words()) {
            self.error(format!("'{shown}' is no condition; did you mean '{meant}'?"))
        } else {
            self.error(
                "expected user, mac, ip, net, port, proto, src, dst, peer, public ip, vlan, site, gateway, ssid, hostname, vendor, \
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
