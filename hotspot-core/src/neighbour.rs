//! ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861, RFC 4862): which address a device says is its own.
//!
//! Only what a device says about itself counts: the link-layer address in a message must be that of the frame it came in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::MacAddr;

/// Why a message says nothing that can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    #[error("shorter than its format")]
    Short,
    #[error("not ARP between IPv4 addresses on Ethernet")]
    NotArp,
    #[error("about another device than the one that sent it")]
    AboutAnother,
    #[error("an option of length zero, or one that runs past the end")]
    BadOption,
}

/// The address an ARP packet says its sender has; `None` for a probe, which asks whether somebody else has it.
pub fn arp(packet: &[u8], sender: MacAddr) -> Result<Option<IpAddr>, Refused> {
    let packet = packet.first_chunk::<28>().ok_or(Refused::Short)?;
    if packet[..6] != [0, 1, 8, 0, 6, 4] || packet[6] != 0 || !matches!(packet[7], 1 | 2) {
        return Err(Refused::NotArp);
    }
    if packet[8..14] != sender.0 {
        return Err(Refused::AboutAnother);
    }
    let ip = Ipv4Addr::new(packet[14], packet[15], packet[16], packet[17]);
    Ok(is_host_v4(ip).then_some(ip.into()))
}

const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// The address a neighbour discovery message says its sender has.
///
/// `source` is the packet's. A solicitation from the unspecified address is the last thing a device does before it uses the address
/// it asks for (RFC 4862 §5.4), and often the only thing the gateway hears of it: it counts like any other.
pub fn discovery(message: &[u8], sender: MacAddr, source: Ipv6Addr) -> Result<Option<IpAddr>, Refused> {
    let head = message.first_chunk::<8>().ok_or(Refused::Short)?;
    if head[1] != 0 {
        return Err(Refused::NotArp);
    }
    let kind = head[0];
    if kind == ROUTER_SOLICITATION {
        own_link_layer(&message[8..], SOURCE_LINK_LAYER, sender)?;
        return Ok(is_host_v6(source).then_some(source.into()));
    }
    if !matches!(kind, NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT) {
        return Ok(None);
    }
    let (target, options) = message[8..].split_first_chunk::<16>().ok_or(Refused::Short)?;
    let target = Ipv6Addr::from(*target);
    let ip = if kind == NEIGHBOUR_ADVERTISEMENT {
        own_link_layer(options, TARGET_LINK_LAYER, sender)?;
        target
    } else {
        own_link_layer(options, SOURCE_LINK_LAYER, sender)?;
        if source.is_unspecified() { target } else { source }
    };
    Ok(is_host_v6(ip).then_some(ip.into()))
}

/// Checks the option with a link-layer address, where there is one.
fn own_link_layer(mut options: &[u8], kind: u8, sender: MacAddr) -> Result<(), Refused> {
    while let [code, len, ..] = options {
        let len = usize::from(*len) * 8;
        let option = options.get(..len).filter(|option| !option.is_empty()).ok_or(Refused::BadOption)?;
        if *code == kind && option[2..8] != sender.0 {
            return Err(Refused::AboutAnother);
        }
        options = &options[len..];
    }
    if options.is_empty() { Ok(()) } else { Err(Refused::BadOption) }
}

/// An address that one device can have.
fn is_host_v4(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast())
}

fn is_host_v6(ip: Ipv6Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    pub(crate) fn arp_packet(sender: MacAddr, ip: [u8; 4]) -> Vec<u8> {
        [&[0, 1, 8, 0, 6, 4, 0, 1][..], &sender.0, &ip, &[0; 6], &[10, 0, 0, 1]].concat()
    }

    fn nd(kind: u8, target: &str, option: Option<(u8, MacAddr)>) -> Vec<u8> {
        let target: Ipv6Addr = target.parse().unwrap();
        let mut bytes = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
        if let Some((code, mac)) = option {
            bytes.extend([code, 1]);
            bytes.extend(mac.0);
        }
        bytes
    }

    #[test]
    fn arp_says_the_senders_address() {
        assert_eq!(arp(&arp_packet(MAC, [10, 0, 0, 7]), MAC), Ok(Some([10, 0, 0, 7].into())));
        assert_eq!(arp(&arp_packet(MAC, [0; 4]), MAC), Ok(None), "a probe");
        assert_eq!(arp(&arp_packet(MacAddr([4; 6]), [10, 0, 0, 7]), MAC), Err(Refused::AboutAnother));
        assert_eq!(arp(&arp_packet(MAC, [1; 4])[..27], MAC), Err(Refused::Short));
    }

    #[test]
    fn discovery_says_the_senders_address() {
        let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let ask = |message: &[u8], source| discovery(message, MAC, source);
        assert_eq!(ask(&nd(135, "2001:db8::1", Some((1, MAC))), source), Ok(Some(source.into())));
        assert_eq!(ask(&nd(136, "2001:db8::9", Some((2, MAC))), source), Ok(Some("2001:db8::9".parse().unwrap())));
        let probe = nd(135, "2001:db8::8", None);
        assert_eq!(ask(&probe, Ipv6Addr::UNSPECIFIED), Ok(Some("2001:db8::8".parse().unwrap())));
        assert_eq!(ask(&nd(136, "2001:db8::9", Some((2, MacAddr([4; 6])))), source), Err(Refused::AboutAnother));
        assert_eq!(ask(&nd(136, "ff02::1", None), source), Ok(None));
    }

    #[test]
    fn options_without_a_length_are_refused() {
        let mut message = nd(136, "2001:db8::9", None);
        message.extend([2, 0, 1, 1, 1, 1, 1, 1]);
        assert_eq!(discovery(&message, MAC, Ipv6Addr::UNSPECIFIED), Err(Refused::BadOption));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), kind in 133u8..137) {
            let _ = arp(&bytes, MAC);
            let mut message = vec![kind, 0];
            message.extend(bytes);
            let _ = discovery(&message, MAC, Ipv6Addr::UNSPECIFIED);
        }
    }
}
