//! Connections that the hardware carries: an nftables flowtable with `flags offload` hands them to the network card, and their packets
//! never come to where any program sees them (`Documentation/networking/nf_flowtable.rst`).
//!
//! The log says on which interfaces that may happen, and a gap is recorded for as long as it may; the flowtable is somebody's, and stays.

use std::collections::BTreeSet;
use std::io;

use hotspot_archive::entry::Entry;
use hotspot_core::WallNs;
use hotspot_core::record::CoverageRecord;
use tracing::{error, info, warn};

use super::Capture;
use super::interfaces::Attached;
use crate::netlink::{attributes, dump, find, messages};

/// `NFNL_SUBSYS_NFTABLES` << 8 | `NFT_MSG_GETFLOWTABLE` (`include/uapi/linux/netfilter/nf_tables.h`).
const GET: u16 = 0x0a17;
/// The same subsystem's `NFT_MSG_NEWFLOWTABLE`: what is answered.
const NEW: u16 = 0x0a16;
/// `nfgenmsg`: family, version, resource.
const NFGEN_LEN: usize = 4;

const NFTA_FLOWTABLE_HOOK: u16 = 3;
const NFTA_FLOWTABLE_FLAGS: u16 = 7;
const NFTA_FLOWTABLE_HOOK_DEVS: u16 = 3;
const NFTA_DEVICE_NAME: u16 = 1;
const NFT_FLOWTABLE_HW_OFFLOAD: u32 = 1;

const WHY: &str = "the hardware may carry connections past the programs (a flowtable with `flags offload`)";

impl Capture {
    pub(super) fn look_for_offload(&mut self, now_ns: WallNs, entries: &mut Vec<Entry>) {
        let devices = match devices() {
            Ok(devices) => devices,
            Err(error) => {
                if !self.offload_is_unknown {
                    warn!(%error, "whether the hardware carries connections cannot be asked");
                }
                self.offload_is_unknown = true;
                return;
            }
        };
        self.offload_is_unknown = false;
        for attached in &mut self.interfaces {
            follow(attached, devices.contains(&attached.device.name), now_ns, entries);
        }
    }

    /// What may have been carried by hardware so far, for the end of a journal.
    pub(super) fn offload_so_far(&mut self, now_ns: WallNs) -> Vec<Entry> {
        let carried = self.interfaces.iter_mut().filter(|attached| attached.carried_since_ns.is_some());
        carried
            .map(|attached| {
                let since_ns = attached.carried_since_ns.replace(now_ns).unwrap_or(now_ns);
                Entry::Gap(CoverageRecord::gap(&attached.spelled_name(), since_ns, now_ns, WHY))
            })
            .collect()
    }
}

fn follow(attached: &mut Attached, is_carried: bool, now_ns: WallNs, entries: &mut Vec<Entry>) {
    let interface = &attached.device.name;
    match (attached.carried_since_ns, is_carried) {
        (None, true) => {
            error!(interface, "{WHY}; these are not recorded: take the interface or the flag out of the flowtable");
            attached.carried_since_ns = Some(now_ns);
        }
        (Some(since_ns), false) => {
            info!(interface, "no flowtable carries connections past the programs any more");
            entries.push(Entry::Gap(CoverageRecord::gap(interface, since_ns, now_ns, WHY)));
            attached.carried_since_ns = None;
        }
        (Some(_), true) | (None, false) => {}
    }
}

/// The devices of flowtables that are offloaded to hardware, in this network namespace.
pub(super) fn devices() -> io::Result<BTreeSet<String>> {
    let answers = match dump(GET) {
        // It changed meanwhile: the next look sees it.
        Ok(answers) => answers.unwrap_or_default(),
        // No nftables in this kernel.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT)) => {
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    Ok(answers.iter().flat_map(|answer| of_datagram(answer)).collect())
}

fn of_datagram(datagram: &[u8]) -> Vec<String> {
    let tables = messages(datagram).filter(|message| message.kind == NEW);
    tables.filter_map(|message| message.body.get(NFGEN_LEN..)).flat_map(of_flowtable).collect()
}

fn of_flowtable(body: &[u8]) -> Vec<String> {
    let flags = find(body, NFTA_FLOWTABLE_FLAGS).and_then(|value| value.try_into().ok()).map_or(0, u32::from_be_bytes);
    if flags & NFT_FLOWTABLE_HW_OFFLOAD == 0 {
        return Vec::new();
    }
    let devices =
        find(body, NFTA_FLOWTABLE_HOOK).and_then(|hook| find(hook, NFTA_FLOWTABLE_HOOK_DEVS)).unwrap_or_default();
    let names = attributes(devices).filter(|(kind, _)| *kind == NFTA_DEVICE_NAME);
    names.map(|(_, name)| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// As `nf_tables_fill_flowtable_info` (`net/netfilter/nf_tables_api.c`) writes it.
    fn flowtable(flags: u32, names: &[&str]) -> Vec<u8> {
        const NESTED: u16 = 0x8000;
        let devices = names.iter().flat_map(|name| attribute(NFTA_DEVICE_NAME, &[name.as_bytes(), b"\0"].concat()));
        let hook = [
            attribute(1, &0u32.to_be_bytes()),
            attribute(2, &0u32.to_be_bytes()),
            attribute(NFTA_FLOWTABLE_HOOK_DEVS | NESTED, &devices.collect::<Vec<u8>>()),
        ];
        let body = [
            vec![2, 0, 0, 0],
            attribute(1, b"filter\0"),
            attribute(2, b"fast\0"),
            attribute(4, &1u32.to_be_bytes()),
            attribute(5, &7u64.to_be_bytes()),
            attribute(NFTA_FLOWTABLE_FLAGS, &flags.to_be_bytes()),
            attribute(NFTA_FLOWTABLE_HOOK | NESTED, &hook.concat()),
        ]
        .concat();
        let len = u32::try_from(16 + body.len()).unwrap();
        let mut message = len.to_ne_bytes().to_vec();
        message.extend(NEW.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    #[test]
    fn only_what_the_hardware_carries_is_named() {
        // 2 is `NFT_FLOWTABLE_COUNTER`.
        let datagram = [
            flowtable(0, &["eth0"]),
            flowtable(1, &["eth1", "eth2"]),
            flowtable(2, &["eth3"]),
            flowtable(3, &["eth4"]),
        ];
        assert_eq!(of_datagram(&datagram.concat()), ["eth1", "eth2", "eth4"]);
        assert_eq!(of_datagram(&flowtable(1, &["eth1"])[..30]), Vec::<String>::new());
    }

    #[test]
    fn a_gap_lasts_as_long_as_the_flowtable() {
        let mut attached = Attached::left(0, "lan", "in:tcx out:tcx");
        let mut entries = Vec::new();
        for (is_carried, now_ns) in [(false, 1), (true, 2), (true, 3), (false, 4), (false, 5)] {
            follow(&mut attached, is_carried, now_ns, &mut entries);
        }
        assert_eq!(entries, [Entry::Gap(CoverageRecord::gap("lan", 2, 4, WHY))]);
    }

    #[test]
    fn this_kernel_answers() {
        devices().unwrap();
    }
}
