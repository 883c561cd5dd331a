//! Which end of a packet is the client.

use aya_ebpf::btf_maps::LpmTrie;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::macros::btf_map;
use hotspot_common::{Direction, Outcome};

use crate::parse::Address;
use crate::settings;

/// Where a program is attached: on the client-facing interface, what comes in is from clients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Ingress,
    Egress,
}

/// Prefixes of the clients' networks (`--client-net`), IPv4 mapped. Only asked on mirror ports.
#[btf_map]
static CLIENT_NETS: LpmTrie<Address, u32, 1024> = LpmTrie::new();

/// Decides by hook, or by address where the agent said so.
#[inline(always)]
pub fn direction(hook: Hook, source: Address, destination: Address) -> Result<Direction, Outcome> {
    if settings::sides_by_address() != 0 {
        return if is_client(source) {
            Ok(Direction::Out)
        } else if is_client(destination) {
            Ok(Direction::In)
        } else {
            Err(Outcome::NoClient)
        };
    }
    match hook {
        Hook::Ingress => Ok(Direction::Out),
        Hook::Egress => Ok(Direction::In),
    }
}

#[inline(always)]
fn is_client(address: Address) -> bool {
    CLIENT_NETS.get(&Key::new(128, address)).is_some()
}
