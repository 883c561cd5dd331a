//! A datagram of the kernel's connection tracking, of any content.
//!
//! The decoder is private to the agent, and the agent is a large thing to build with a sanitizer: its two files are taken in here.
#![no_main]
#![allow(dead_code, reason = "what only the agent uses of the two")]

use libfuzzer_sys::fuzz_target;

#[path = "../../hotspot-agent/src/netlink.rs"]
mod netlink;

#[path = "../../hotspot-agent/src/nat"]
mod nat {
    mod message;

    pub(crate) fn decode(datagram: &[u8]) -> usize {
        message::parse(datagram).flatten().count()
    }
}

fuzz_target!(|datagram: &[u8]| {
    std::hint::black_box(nat::decode(datagram));
});
