//! A RADIUS packet of any content: what somebody without the secret can send, and what a broken NAS with it can.
//!
//! The same bytes are parsed as they are and, with the authenticator that fits them, as a request of a NAS that knows the secret:
//! the parser behind the authenticator is reached by every input.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use hotspot_core::radius::{self, Demand, Exchange, NasClock, Packet};
use hotspot_core::text::is_spelled;
use libfuzzer_sys::fuzz_target;

const SECRET: &[u8] = b"xyzzy5461";
const SENDER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const NOW_NS: i64 = 1_795_392_000_000_000_000;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut signed = bytes.to_vec();
    radius::sign(&mut signed, SECRET);
    read(&signed);
});

fn read(datagram: &[u8]) {
    match radius::parse(datagram, SECRET, Demand::Authenticator) {
        Ok(Packet::Accounting(request)) => {
            let happened_ns = NasClock::default().happened_ns(&request, NOW_NS);
            let fact = request.fact(SENDER, NOW_NS, happened_ns);
            let texts = [&fact.user, &fact.ssid, &fact.nas, &fact.nas_port];
            assert!(texts.into_iter().flatten().all(|text| is_spelled(text)));
            answer(&request.exchange);
        }
        Ok(Packet::StatusServer(exchange)) => answer(&exchange),
        Err(_) => {}
    }
}

/// No answer is longer than RFC 2865 allows, whatever was asked.
fn answer(exchange: &Exchange) {
    assert!(exchange.response(SECRET).len() <= 4096);
}
