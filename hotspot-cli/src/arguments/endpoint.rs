//! An address with a port, and what is said where one is missing.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An address with its port. What is missing is said with how to ask without it.
pub(super) fn public_endpoint(text: &str) -> Result<SocketAddr, String> {
    if let Ok(endpoint) = text.parse() {
        return Ok(endpoint);
    }
    if let Ok(ip @ IpAddr::V4(_)) = text.parse() {
        return Err(format!(
            "it has no port, and behind one address are many people at a time; give the port ({ip}:45678), or ask for all of them: \
             hotspot find … 'public ip {ip} at TIME'"
        ));
    }
    let (bare, port) = (text.trim_matches(['[', ']']), text.rsplit_once(':'));
    if let Ok(ip) = bare.parse::<Ipv6Addr>() {
        // Its last group may be meant as a port.
        let meant =
            port.and_then(|(ip, port)| Some(SocketAddr::new(ip.parse::<Ipv6Addr>().ok()?.into(), port.parse().ok()?)));
        let meant =
            meant.filter(|_| !text.starts_with('[')).map(|meant| format!(", perhaps {meant}")).unwrap_or_default();
        return Err(format!(
            "it has no port, or no brackets; write IPv6 with its port like [{ip}]:443{meant}, or ask without a port: \
             hotspot find … 'public ip {ip} at TIME'"
        ));
    }
    if let Some((ip, number)) = port
        && let Ok(ip) = ip.trim_matches(['[', ']']).parse::<IpAddr>()
    {
        return Err(format!("{number:?} is no port, which is a number from 0 to 65535: {}", SocketAddr::new(ip, 443)));
    }
    Err("it is no address with a port; write 203.0.113.7:45678 or [2001:db8::1]:443".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_to_write() {
        for text in ["203.0.113.7:45678", "[2001:db8::1]:443"] {
            assert_eq!(public_endpoint(text).unwrap().to_string(), text);
        }
        for (text, said) in [
            ("203.0.113.7", "'public ip 203.0.113.7 at TIME'"),
            ("2001:db8::1", "[2001:db8::1]:443"),
            ("[2001:db8::1]", "'public ip 2001:db8::1 at TIME'"),
            ("2001:db8::1:443", "perhaps [2001:db8::1]:443"),
            ("203.0.113.7:99999", "\"99999\" is no port"),
            ("[2001:db8::1]:x", "\"x\" is no port"),
            ("example.com:443", "no address with a port"),
        ] {
            let why = public_endpoint(text).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
        }
    }
}
