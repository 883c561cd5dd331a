//! Capture files: ours are written, others' are read in any format that Wireshark knows.
//!
//! Guarantees that what comes out are Ethernet frames as they were captured; packets that were captured above Ethernet get a header
//! of their own. What nothing can put on a cable is counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::frames::{CLIENT, GATEWAY, ethernet_between};

/// A header of the classic format, microseconds, Ethernet (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-03.html>).
const HEADER: [u8; 24] = [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];

/// Kinds of blocks of the newer format.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;

/// Writes frames to a file.
pub fn write(path: &Path, frames: &[Vec<u8>]) -> Result<()> {
    let mut bytes = HEADER.to_vec();
    for (number, frame) in frames.iter().enumerate() {
        let len = u32::try_from(frame.len())?;
        let number = u32::try_from(number)?;
        for word in [1_700_000_000 + number / 1_000_000, number % 1_000_000, len, len] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    Ok(fs::write(path, bytes)?)
}

/// What a capture holds.
#[derive(Debug, Default)]
pub struct Packets {
    pub frames: Vec<Vec<u8>>,
    /// Packets of other link types, by type.
    pub others: BTreeMap<u16, usize>,
}

/// Reads a capture in any format that Wireshark's editcap understands, as far as packets were captured; `dir` is for a file in
/// between.
pub fn read(path: &Path, dir: &Path) -> Result<Packets> {
    ensure!(path.is_file(), "there is no such file");
    let blocks = dir.join("read.pcapng");
    let output = Command::new("editcap").args(["-F", "pcapng"]).arg(path).arg(&blocks).output().context("editcap")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{}", text.lines().last().unwrap_or("editcap failed").trim());
    }
    let bytes = fs::read(&blocks)?;
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).context("it ends inside a block")?;
        anyhow::Ok(u32::from_le_bytes(word))
    };
    // <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html>; editcap writes in the machine's byte order.
    let mut packets = Packets::default();
    let mut link_types = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match word(at)? {
            SECTION => link_types.clear(),
            INTERFACE => link_types.push(u16::try_from(word(at + 8)? & 0xffff)?),
            PACKET => {
                let link_type =
                    link_types.get(word(at + 8)? as usize).context("it names an interface it does not have")?;
                let len = word(at + 20)? as usize;
                let packet = bytes.get(at + 28..at + 28 + len).context("it ends inside a packet")?;
                match on_ethernet(*link_type, packet) {
                    Some(frame) => packets.frames.push(frame),
                    None => *packets.others.entry(*link_type).or_default() += 1,
                }
            }
            _ => {}
        }
        at += (word(at + 4)? as usize).max(12);
    }
    Ok(packets)
}

/// The frame that carries a packet of a link type (<https://www.tcpdump.org/linktypes.html>).
fn on_ethernet(link_type: u16, packet: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| packet.get(at..at + 2).map_or(0, |word| u16::from_be_bytes([word[0], word[1]]));
    let rest = |from: usize| packet.get(from..).unwrap_or_default();
    let ip = |packet: &[u8]| {
        let ethertype = if packet.first().is_some_and(|byte| byte >> 4 == 6) { 0x86dd } else { 0x0800 };
        ethernet_between(CLIENT, GATEWAY, &[], ethertype, packet)
    };
    let from = |address: &[u8], ethertype: u16, packet: &[u8]| {
        ethernet_between(address.try_into().unwrap_or(CLIENT), GATEWAY, &[], ethertype, packet)
    };
    Some(match link_type {
        1 => packet.to_vec(),
        // BSD loopback: an address family first.
        0 | 108 => ip(rest(4)),
        // Raw IP.
        12 | 14 | 101 | 228 | 229 => ip(packet),
        // Linux "cooked", versions 1 and 2.
        113 => from(packet.get(6..12).unwrap_or_default(), word(14), rest(16)),
        276 => from(packet.get(12..18).unwrap_or_default(), word(0), rest(20)),
        _ => return None,
    })
}
