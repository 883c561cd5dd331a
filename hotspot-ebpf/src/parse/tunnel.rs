//! Tunnels that carry Ethernet (`--decapsulate`): controllers bring the clients' frames in them.
//!
//! VXLAN (RFC 7348) and GRE with transparent Ethernet bridging (RFC 2784, RFC 2890). One level is opened; fragments of the outer
//! packet are not.

use super::fragments::WHOLE;
use super::transport::UDP;
use super::{ethernet, network};
use crate::frame::Frame;

const GRE: u8 = 47;

/// 4789 is assigned; 8472 is what Linux uses unless it is told otherwise (drivers/net/vxlan).
const VXLAN_PORTS: [u16; 2] = [4789, 8472];
/// UDP and VXLAN headers.
const VXLAN_LEN: usize = 8 + 8;
/// Says that there is a network identifier.
const VXLAN_FLAG: u8 = 0x08;

const GRE_MIN: usize = 4;
const GRE_CHECKSUM: u16 = 0x8000;
const GRE_KEY: u16 = 0x2000;
const GRE_SEQUENCE: u16 = 0x1000;
/// Reserved bits and version, all zero in what is understood here (PPTP's are not).
const GRE_OTHER: u16 = 0x4fff;
/// Transparent Ethernet bridging.
const GRE_ETHERNET: u16 = 0x6558;

/// Where the inner frame starts; 0 where there is no tunnel.
#[inline(always)]
pub(super) fn inner_frame(frame: &Frame) -> usize {
    // A copy, so that the frame itself stays in registers.
    let copy = *frame;
    frame.anywhere(find(&copy))
}

#[inline(never)]
fn find(frame: &Frame) -> usize {
    let Ok(ethernet) = ethernet::parse(frame, 0) else { return 0 };
    let Ok(network) = network(frame, &ethernet) else { return 0 };
    if network.datagram != WHOLE {
        return 0;
    }
    match network.protocol {
        UDP => vxlan(frame, network.transport),
        GRE => gre(frame, network.transport),
        _ => 0,
    }
}

#[inline(always)]
fn vxlan(frame: &Frame, offset: usize) -> usize {
    let Some(header) = frame.bytes::<VXLAN_LEN>(offset) else { return 0 };
    let is_vxlan = VXLAN_PORTS.contains(&header.number::<2>()) && header.read::<u8, 8>() & VXLAN_FLAG != 0;
    if is_vxlan { offset + VXLAN_LEN } else { 0 }
}

#[inline(always)]
fn gre(frame: &Frame, offset: usize) -> usize {
    let Some(header) = frame.bytes::<GRE_MIN>(offset) else { return 0 };
    let flags = header.number::<0>();
    if flags & GRE_OTHER != 0 || header.number::<2>() != GRE_ETHERNET {
        return 0;
    }
    let mut len = GRE_MIN;
    for flag in [GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE] {
        if flags & flag != 0 {
            len += 4;
        }
    }
    offset + len
}
