//! What a device dropped before the programs got it: evidence that nothing else knows of, above all at a mirror port.
//!
//! Reads the counters of the interfaces by rtnetlink (`rtnl_link_stats64`, `include/uapi/linux/if_link.h`) and those of the receive queues of
//! the machine (`/proc/net/softnet_stat`), before each generation ends, and hands over by how much they grew. A loss while no agent runs is
//! not seen. A counter that the device does not keep stays 0.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use hotspot_common::{Outcome, Tally};
use hotspot_core::losses::{DROPPED_PREFIX, NOT_READ, counted, gaps};
use hotspot_core::record::CoverageRecord;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tracing::warn;

use super::Capture;
use super::device::Device;
use crate::netlink::{MESSAGE_MAX, find, messages};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const IFINFO_LEN: usize = 16;
const IFLA_LINK: u16 = 5;
const IFLA_STATS64: u16 = 23;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_TARGET_NETNSID: u16 = 46;
/// Positions in `struct rtnl_link_stats64`.
const RX_DROPPED: usize = 6;
const TX_DROPPED: usize = 7;
const RX_OVER: usize = 11;
const RX_FIFO: usize = 14;
const RX_MISSED: usize = 15;

/// Counters of one device that say that a packet did not get as far as the programs, by what coverage calls them.
const COUNTERS: [(&str, usize); 3] =
    [("rx_missed_errors", RX_MISSED), ("rx_fifo_errors", RX_FIFO), ("rx_over_errors", RX_OVER)];
/// Packets that the stack was to receive; the kernel counts here also what it had no use for after the programs had seen it.
const DROPPED: &str = "rx_dropped";
/// What the other end of a veth pair could not hand over: its ring was full (drivers/net/veth.c, `veth_xmit`).
const PEER: &str = "veth_peer_tx_dropped";

/// Outcomes of packets that were seen and for which the stack may have no use, so that it counts them as dropped.
const OF_NO_USE: [Outcome; 8] = [
    Outcome::Runt,
    Outcome::TruncatedVlan,
    Outcome::TooManyVlans,
    Outcome::Eapol,
    Outcome::Lldp,
    Outcome::Pppoe,
    Outcome::Llc,
    Outcome::OtherEthertype,
];

/// The counters as they were, and by how much they grew.
#[derive(Default)]
pub(super) struct Losses {
    /// By the number of the interface.
    devices: BTreeMap<u8, Known>,
    /// Dropped and squeezed, of all CPUs.
    softnet: Option<[u64; 2]>,
    softnet_grew: [u64; 2],
    /// Interface and cause; each is said once.
    warned: BTreeSet<(String, String)>,
}

/// Of one device.
#[derive(Default)]
struct Known {
    index: u32,
    counted: Counted,
    grew: Option<Counted>,
    /// Packets of the generation before that the stack may yet have counted as dropped after the counters were read.
    spare: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    before: [u64; COUNTERS.len()],
    dropped: u64,
    peer: u64,
}

impl Counted {
    /// By how much it grew; a counter that went back was begun anew.
    fn since(&self, earlier: &Self) -> Self {
        let mut before = self.before;
        before.iter_mut().zip(earlier.before).for_each(|(count, earlier)| *count = count.saturating_sub(earlier));
        let (dropped, peer) = (self.dropped.saturating_sub(earlier.dropped), self.peer.saturating_sub(earlier.peer));
        Self { before, dropped, peer }
    }
}

impl Known {
    /// What grew since the last time. `of_no_use`: packets that were seen and that the stack may have dropped.
    fn take(&mut self, of_no_use: u64) -> Vec<(String, u64)> {
        let Some(grew) = self.grew.take() else { return Vec::new() };
        let unseen = grew.dropped.saturating_sub(of_no_use).saturating_sub(self.spare);
        self.spare = of_no_use.saturating_sub(grew.dropped);
        let before = COUNTERS.iter().zip(grew.before).map(|((label, _), count)| (*label, count));
        let all = before.chain([(DROPPED, unseen), (PEER, grew.peer)]);
        all.filter(|(_, count)| *count > 0).map(|(label, count)| (format!("{DROPPED_PREFIX}{label}"), count)).collect()
    }
}

impl Losses {
    /// Happenings of an interface in a generation that ended.
    pub(super) fn of(&mut self, number: u8, tally: &Tally) -> Vec<(String, u64)> {
        let of_no_use = OF_NO_USE.iter().map(|outcome| tally.outcomes[*outcome as usize].packets).sum();
        self.devices.get_mut(&number).map(|known| known.take(of_no_use)).unwrap_or_default()
    }

    /// Happenings of the whole machine. Which interface they were of, the interface's own counters say.
    pub(super) fn of_machine(&mut self) -> Vec<(String, u64)> {
        let labels = ["softnet_dropped", "softnet_time_squeeze"];
        let grew = labels.into_iter().zip(std::mem::take(&mut self.softnet_grew));
        grew.filter(|(_, count)| *count > 0).map(|(label, count)| (label.to_owned(), count)).collect()
    }

    /// Says once for each interface and cause what is lost.
    pub(super) fn say(&mut self, coverage: &[CoverageRecord]) {
        for row in coverage {
            let lost = row.happenings.iter().filter(|(label, _)| label.starts_with(DROPPED_PREFIX));
            for (label, count) in lost {
                if self.warned.insert((row.interface.clone(), label.clone())) {
                    let (interface, cause) = (&row.interface, &label[DROPPED_PREFIX.len()..]);
                    warn!(
                        interface,
                        cause,
                        count,
                        "packets are dropped before they can be counted: they are in no record (said once)"
                    );
                }
            }
        }
        for gap in gaps(coverage).iter().filter(|gap| counted(gap) == Some(NOT_READ)) {
            if self.warned.insert((gap.interface.clone(), NOT_READ.to_owned())) {
                warn!(interface = gap.interface, "{} (said once)", gap.gap.as_deref().unwrap_or_default());
            }
        }
        let dropped = coverage.iter().flat_map(|row| &row.happenings).find(|(label, _)| label == "softnet_dropped");
        if let Some((label, count)) = dropped
            && self.warned.insert((String::new(), label.clone()))
        {
            warn!(
                count,
                "the machine drops packets of some interface because its receive queue is full (net.core.netdev_max_backlog; said once)"
            );
        }
    }
}

impl Capture {
    /// Reads the counters of all devices. Before a generation ends: so the programs have counted all that the stack dropped after them.
    pub(super) fn count_losses(&mut self) {
        for attached in self.interfaces.iter().filter(|attached| !attached.is_gone() && attached.device.index != 0) {
            let Ok(counted) = read(&attached.device) else { continue };
            let known = self.losses.devices.entry(attached.number).or_default();
            if known.index == attached.device.index {
                known.grew = Some(counted.since(&known.counted));
            } else {
                *known = Known { index: attached.device.index, ..Known::default() };
            }
            known.counted = counted;
        }
        let Some(softnet) = std::fs::read_to_string("/proc/net/softnet_stat").ok().map(|text| softnet(&text)) else {
            return;
        };
        if let Some(before) = self.losses.softnet.replace(softnet) {
            for ((grew, now), before) in self.losses.softnet_grew.iter_mut().zip(softnet).zip(before) {
                *grew += now.saturating_sub(before);
            }
        }
    }
}

/// Second and third column of each CPU's line, in hexadecimal digits (net/core/net-procfs.c).
fn softnet(text: &str) -> [u64; 2] {
    let mut sums = [0; 2];
    for line in text.lines() {
        let numbers = line.split_ascii_whitespace().skip(1).map(|word| u64::from_str_radix(word, 16).unwrap_or(0));
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    }
    sums
}

fn read(device: &Device) -> io::Result<Counted> {
    let link = ask(device.index, None)?;
    let counter = |at: usize| link.stats(at);
    let before = COUNTERS.map(|(_, at)| counter(at));
    // A peer that cannot be asked is in a namespace that is not ours to look into.
    let peer = if device.driver == "veth" { peer(&link).unwrap_or(0) } else { 0 };
    Ok(Counted { before, dropped: counter(RX_DROPPED), peer })
}

/// What the other end of a veth pair dropped.
fn peer(link: &Link) -> Option<u64> {
    let index = link.number(IFLA_LINK).filter(|index| *index != 0)?;
    let peer = ask(index, link.number(IFLA_LINK_NETNSID)).ok()?;
    Some(peer.stats(TX_DROPPED))
}

/// The attributes of a link.
struct Link(Vec<u8>);

impl Link {
    fn number(&self, attribute: u16) -> Option<u32> {
        find(&self.0, attribute)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    fn stats(&self, at: usize) -> u64 {
        let stats = find(&self.0, IFLA_STATS64).and_then(|stats| stats.get(at * 8..)?.first_chunk());
        stats.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }
}

/// Asks for one link of this network namespace, or of one that this knows by a number.
fn ask(index: u32, netns: Option<u32>) -> io::Result<Link> {
    let mut request = vec![0; 4];
    request.extend(RTM_GETLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port; family, padding and type.
    request.extend([0; 8]);
    request.extend([0; 4]);
    request.extend(index.to_ne_bytes());
    // Flags and which of them change.
    request.extend([0; 8]);
    if let Some(netns) = netns {
        request.extend(8u16.to_ne_bytes());
        request.extend(IFLA_TARGET_NETNSID.to_ne_bytes());
        request.extend(netns.to_ne_bytes());
    }
    let len = u32::try_from(request.len()).unwrap_or(u32::MAX);
    request[..4].copy_from_slice(&len.to_ne_bytes());
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut buffer = vec![0; MESSAGE_MAX];
    let (received, _) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty())?;
    for message in messages(&buffer[..received]) {
        if let Some(code) = message.error_code() {
            return Err(io::Error::from_raw_os_error(code));
        }
        if message.kind == RTM_NEWLINK {
            return Ok(Link(message.body.get(IFINFO_LEN..).unwrap_or_default().to_vec()));
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grew(dropped: u64, missed: u64) -> Counted {
        Counted { before: [missed, 0, 0], dropped, peer: 0 }
    }

    #[test]
    fn what_the_programs_saw_before_the_stack_dropped_it_is_no_loss() {
        let mut known = Known { grew: Some(grew(120, 0)), ..Known::default() };
        assert_eq!(known.take(120), []);
        known.grew = Some(grew(150, 3));
        assert_eq!(
            known.take(120),
            [("dropped_rx_missed_errors".to_owned(), 3), ("dropped_rx_dropped".to_owned(), 30)]
        );
        assert_eq!(known.take(120), [], "once");
    }

    #[test]
    fn what_is_dropped_after_the_counters_were_read_is_not_a_loss_of_the_next_generation() {
        let mut known = Known { grew: Some(grew(90, 0)), ..Known::default() };
        assert_eq!(known.take(100), []);
        known.grew = Some(grew(10, 0));
        assert_eq!(known.take(0), []);
        known.grew = Some(grew(10, 0));
        assert_eq!(
            known.take(0),
            [("dropped_rx_dropped".to_owned(), 10)],
            "what was of no use long ago excuses nothing"
        );
    }

    #[test]
    fn a_counter_that_begins_anew_is_no_loss() {
        let (before, now) =
            (Counted { dropped: 9, ..Counted::default() }, Counted { dropped: 2, ..Counted::default() });
        assert_eq!(now.since(&before), Counted::default());
    }

    #[test]
    fn the_queues_of_all_cpus_are_added_up() {
        let text = "0000a1b2 00000003 00000001 00000000\n00000001 0000000a 00000000 00000000\n";
        assert_eq!(softnet(text), [13, 1]);
        assert_eq!(softnet(""), [0, 0]);
    }

    #[test]
    fn a_device_says_what_it_dropped() {
        let loopback = Device { name: "lo".into(), index: 1, driver: String::new(), strips_vlan_tags: false };
        assert_eq!(read(&loopback).unwrap().before, [0; 3]);
        assert!(read(&Device { index: u32::MAX >> 1, ..loopback }).is_err());
    }
}
