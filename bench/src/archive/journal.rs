//! A journal of the same flows, sealed by the agent's own sealer in a process of its own: what sealing costs from end to end.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, ensure};
use hotspot_agent::cli::UpkeepArguments;
use hotspot_agent::sealer::{SealJob, Sealer};
use hotspot_agent::upkeep::Upkeep;
use hotspot_archive::entry::{Entry, GenerationDone, GenerationPart, InterfaceName, JournalHeader};
use hotspot_archive::journal::{JournalKeys, JournalWriter};
use hotspot_archive::layout::DataDir;
use hotspot_archive::manifest::{GatewayKey, Manifest};
use hotspot_common::{Direction, FlowKey};
use hotspot_core::fact::{
    FlowDelta, IdentitySource, NatEvent, NatFact, NatWatch, NatWatchFact, SessionEvent, SessionFact,
};
use hotspot_core::record::FlowRecord;

use crate::traffic::BEGIN_NS;

const BOOT_ID: &str = "bench";
/// Deltas per part, as the agent makes them.
const DELTAS_PER_PART: usize = 32_768;

/// Writes the journal from which these rows would be sealed; the bytes that went into it, before they were compressed.
pub(super) fn write(data: &DataDir, segments: &[Vec<FlowRecord>]) -> anyhow::Result<u64> {
    std::fs::create_dir_all(data.journals())?;
    std::fs::create_dir_all(data.states())?;
    let header = JournalHeader {
        sequence: 1,
        site: "cafe-1".into(),
        gateway: "gw1".into(),
        boot_id: BOOT_ID.into(),
        opened_ns: BEGIN_NS,
        software: "bench".into(),
        clock: None,
    };
    let mut writer = JournalWriter::create(&data.journal(1), &header, &JournalKeys::none())?;
    writer.append(&Entry::Interface(InterfaceName { number: 0, name: "br-lan".into() }))?;
    writer.append(&Entry::NatWatch(NatWatchFact { watch: NatWatch::Started, at_ns: BEGIN_NS - 1 }))?;
    let mut known = HashSet::new();
    for (rows, generation) in segments.iter().zip(1..) {
        for rows in rows.chunks(DELTAS_PER_PART / 2) {
            for row in rows.iter().filter(|row| row.identity.is_some()) {
                if known.insert(row.client_mac) {
                    writer.append(&Entry::Session(login(row)))?;
                }
            }
            writer.append(&Entry::Nat(rows.iter().filter_map(translation).collect()))?;
            let deltas = rows.iter().flat_map(deltas).filter(|delta| delta.packets > 0).collect();
            writer.append(&Entry::Part(GenerationPart { capture: 1, generation, deltas, overflow: Vec::new() }))?;
            writer.commit()?;
        }
        writer.append(&Entry::Done(GenerationDone {
            capture: 1,
            generation,
            coverage: Vec::new(),
            wall_offset_ns: 0,
            boot_offset_ns: 0,
        }))?;
    }
    let ends = segments.iter().flatten().map(|row| row.end_ns).max().unwrap_or(BEGIN_NS);
    writer.append(&Entry::Closed { at_ns: ends, shutdown: true })?;
    writer.commit()?;
    Ok(writer.content())
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn deltas(row: &FlowRecord) -> [FlowDelta; 2] {
    [Direction::Out, Direction::In].map(|direction| {
        let icmp = u16::from(row.icmp_type.unwrap_or(0)) << 8 | u16::from(row.icmp_code.unwrap_or(0));
        let key = FlowKey {
            client_ip: octets(row.client_ip),
            peer_ip: octets(row.peer_ip.unwrap_or(Ipv6Addr::UNSPECIFIED.into())),
            client_mac: row.client_mac.0,
            vlan: row.vlan.unwrap_or(0),
            inner_vlan: 0,
            client_port: row.client_port.unwrap_or(0),
            peer_port: row.peer_port.unwrap_or(icmp),
            protocol: row.protocol.unwrap_or(0),
            origin: FlowKey::origin(0, direction),
        };
        let (packets, bytes, flags) = match direction {
            Direction::Out => (row.packets_out, row.bytes_out, row.tcp_flags_out),
            Direction::In => (row.packets_in, row.bytes_in, row.tcp_flags_in),
        };
        let (first_ns, last_ns) = (row.start_ns, row.end_ns);
        FlowDelta { key, first_ns, last_ns, packets, bytes, tcp_flags: flags.unwrap_or(0) }
    })
}

fn translation(row: &FlowRecord) -> Option<NatFact> {
    let (public, client_port, peer_ip, peer_port) = (row.public?, row.client_port?, row.peer_ip?, row.peer_port?);
    Some(NatFact {
        event: NatEvent::Created,
        at_ns: row.start_ns,
        protocol: row.protocol?,
        client_ip: row.client_ip,
        client_port,
        peer_ip,
        peer_port,
        public_ip: public.ip,
        public_port: public.port?,
    })
}

fn login(row: &FlowRecord) -> SessionFact {
    let who = row.identity.as_deref();
    serde_json::from_value(serde_json::json!({
        "event": SessionEvent::Start,
        "source": IdentitySource::Radius,
        "session_id": who.and_then(|who| who.session_ids.first()),
        "user": who.and_then(|who| who.users.first()),
        "client_mac": row.client_mac,
        "client_ips": [row.client_ip],
        "ap_mac": who.and_then(|who| who.ap_mac),
        "ssid": who.and_then(|who| who.ssid.as_deref()),
        "nas": who.and_then(|who| who.nas.as_deref()),
        "at_ns": BEGIN_NS,
        "received_ns": BEGIN_NS,
    }))
    .unwrap_or_else(|error| unreachable!("a session fact needs more fields: {error}"))
}

/// What the sealing process took.
pub(super) struct Cost {
    pub(super) cpu_s: f64,
    pub(super) rss_max_mib: f64,
}

/// Seals the journal in a process of its own.
pub(super) fn seal_apart(data: &DataDir) -> anyhow::Result<Cost> {
    let output = Command::new(std::env::current_exe()?).arg("seal-journal").arg(&data.0).output()?;
    ensure!(output.status.success(), "sealing failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || words.next().context("the sealing process said nothing")?.context("no figure");
    Ok(Cost { cpu_s: next()?, rss_max_mib: next()? })
}

/// The process [`seal_apart`] starts.
#[expect(clippy::print_stdout, reason = "read by the process that started this one")]
pub(crate) fn seal_here(dir: PathBuf) -> anyhow::Result<()> {
    let data = DataDir(dir);
    let key = GatewayKey::open(&data.signing_key())?;
    let manifest = Manifest::open(&data.archive(), "gw1", key)?;
    let before = super::cpu_time();
    let (jobs, receiver) = channel();
    jobs.send(SealJob::Closed { sequence: 1 })?;
    jobs.send(SealJob::Finish)?;
    let upkeep = Upkeep::new(&UpkeepArguments::default(), BOOT_ID.into());
    let (keys, boot_id, vendors) = (JournalKeys::none(), BOOT_ID.into(), Arc::default());
    Sealer::new(data.clone(), keys, manifest, boot_id, Duration::ZERO, upkeep, vendors).run(&receiver);
    let cpu = super::cpu_time().saturating_sub(before);
    ensure!(is_sealed(&data.0), "the journal is still there");
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse()?;
    println!("{} {}", cpu.as_secs_f64(), kib / 1024.0);
    Ok(())
}

fn is_sealed(data: &Path) -> bool {
    !DataDir(data.to_path_buf()).journal(1).exists()
}
