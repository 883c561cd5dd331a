//! From words to a filter: `or` binds weaker than `and`, `and` weaker than `not`.

use std::str::FromStr;

use super::lexer::{Token, lex};
use super::{Filter, FilterError, Side};

/// Deepest nesting of parentheses and `not`.
const DEPTH_MAX: usize = 64;

/// Parses a filter; an empty one matches everything.
pub fn parse(text: &str) -> Result<Filter, FilterError> {
    let mut parser = Parser { text, tokens: lex(text)?, next: 0 };
    if parser.tokens.is_empty() {
        return Ok(Filter::Everything);
    }
    let filter = parser.any(0)?;
    match parser.peek() {
        None => Ok(filter),
        Some(token) if token.word == ")" => Err(parser.error("there is no '(' for this")),
        Some(_) => Err(parser.error("expected 'and' or 'or' between two conditions")),
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

    /// Takes the next word if it is this one.
    fn take(&mut self, keyword: &str) -> bool {
        let is_next = self.peek().is_some_and(|token| !token.is_quoted && token.word.eq_ignore_ascii_case(keyword));
        self.next += usize::from(is_next);
        is_next
    }

    fn error(&self, what: impl Into<String>) -> FilterError {
        let at = self.peek().map_or_else(|| self.text.chars().count(), |token| token.at);
        FilterError { what: what.into(), text: self.text.to_owned(), at }
    }

    fn any(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let mut left = self.all(depth)?;
        while self.take("or") {
            left = Filter::Or(Box::new(left), Box::new(self.all(depth)?));
        }
        Ok(left)
    }

    fn all(&mut self, depth: usize) -> Result<Filter, FilterError> {
        let mut left = self.one(depth)?;
        while self.take("and") {
            left = Filter::And(Box::new(left), Box::new(self.one(depth)?));
        }
        Ok(left)
    }

    fn one(&mut self, depth: usize) -> Result<Filter, FilterError> {
        if depth > DEPTH_MAX {
            return Err(self.error("too deeply nested"));
        }
        if self.take("not") {
            return Ok(Filter::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take("(") {
            let inner = self.any(depth + 1)?;
            return if self.take(")") { Ok(inner) } else { Err(self.error("expected ')'")) };
        }
        self.condition()
    }

    fn condition(&mut self) -> Result<Filter, FilterError> {
        let side = if self.take("src") {
            Side::Source
        } else if self.take("dst") {
            Side::Destination
        } else {
            Side::Either
        };
        if self.take("ip") || self.take("host") {
            return Ok(Filter::Ip(side, self.value("an address")?));
        }
        if self.take("net") {
            return Ok(Filter::Net(side, self.value("a network like 10.20.0.0/16")?));
        }
        if self.take("port") {
            return Ok(Filter::Port(side, self.value("a port")?));
        }
        if side != Side::Either {
            return Err(self.error("expected 'ip', 'net' or 'port' after 'src' or 'dst'"));
        }
        if self.take("user") {
            return Ok(Filter::User(self.value("a user")?));
        }
        if self.take("mac") {
            return Ok(Filter::Mac(self.value("a MAC address")?));
        }
        if self.take("vlan") {
            return Ok(Filter::Vlan(self.value("a VLAN")?));
        }
        if self.take("proto") {
            return self.protocol();
        }
        if self.take("public") {
            if !self.take("ip") {
                return Err(self.error("expected 'ip' after 'public'"));
            }
            let ip = self.value("an address")?;
            let port = if self.take("port") { Some(self.value("a port")?) } else { None };
            return Ok(Filter::Public(ip, port));
        }
        Err(self.error("expected user, mac, ip, net, port, src, dst, proto, public, vlan, not or '('"))
    }

    fn protocol(&mut self) -> Result<Filter, FilterError> {
        let number = self.peek().and_then(|token| match token.word.to_ascii_lowercase().as_str() {
            "icmp" => Some(1),
            "tcp" => Some(6),
            "udp" => Some(17),
            "gre" => Some(47),
            "esp" => Some(50),
            "icmp6" | "icmpv6" => Some(58),
            "sctp" => Some(132),
            other => other.parse().ok(),
        });
        let number = number
            .ok_or_else(|| self.error("expected a protocol: tcp, udp, icmp, icmp6, sctp, gre, esp or a number"))?;
        self.next += 1;
        Ok(Filter::Protocol(number))
    }

    fn value<T: FromStr>(&mut self, what: &str) -> Result<T, FilterError> {
        let value = self.peek().and_then(|token| token.word.parse().ok());
        let value = value.ok_or_else(|| self.error(format!("expected {what}")))?;
        self.next += 1;
        Ok(value)
    }
}
