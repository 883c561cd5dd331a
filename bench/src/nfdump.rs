//! nfdump over the same flows: they reach `nfcapd` as IPFIX on the loopback of a namespace, and its file is compressed by `nfdump`.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hotspot_core::record::FlowRecord;
use hotspot_tests::namespace::{Namespace, run};
use hotspot_tests::wait_until;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PORT: u16 = 9995;
/// As much as may wait in the collector's socket: half of what the kernel lets it hold.
const WAITING_BYTES_MAX: u64 = 100 << 10;
/// Fits the loopback and every other cable.
const MESSAGE_BYTES_MAX: usize = 1400;
const HEADER_LEN: usize = 16 + 4;
/// Enterprise of the reverse direction's elements (RFC 5103).
const REVERSE: u32 = 29_305;
/// Template of the first kind of record: IPv4, IPv6, IPv4 translated.
const TEMPLATE: u16 = 256;

/// How an nfdump file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Lz4,
    Bz2,
}

impl Compression {
    fn option(self) -> &'static str {
        match self {
            Self::Lz4 => "-y",
            Self::Bz2 => "-j",
        }
    }
}

/// What nfdump is given of each flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fields {
    /// Everything it can hold of what we hold: the client's MAC and the translation too
    All,
    /// Times, addresses, ports, protocol, flags, counts
    Base,
}

/// What a set of flows sums up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) flows: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// A collector at work.
pub(crate) struct Collector {
    dir: PathBuf,
    child: Child,
    rows: SyncSender<Vec<FlowRecord>>,
    sender: JoinHandle<anyhow::Result<Sum>>,
    _namespace: Namespace,
}

impl Collector {
    /// Starts `nfcapd` in a namespace, to write into `dir`.
    pub(crate) fn start(dir: &Path, fields: Fields) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let namespace = Namespace::new(0, "nfcapd")?;
        let mut command = namespace.command("nfcapd");
        command.args(["-b", "127.0.0.1", "-p", &PORT.to_string(), "-t", "86400", "-B", "4000000", "-w"]).arg(dir);
        command.stdout(Stdio::null()).stderr(fs::File::create(dir.join("nfcapd.log"))?);
        let child = namespace.spawn(&mut command)?;
        wait_until("nfcapd listens", Duration::from_secs(10), || {
            namespace.run("cat /proc/net/udp").is_ok_and(|table| socket_line(&table).is_some())
        })?;
        let (rows, receiver) = sync_channel(1);
        let path = namespace.path();
        let sender = std::thread::spawn(move || {
            let file = fs::File::open(path)?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("setns")?;
            send_all(&receiver, fields)
        });
        Ok(Self { dir: dir.to_path_buf(), child, rows, sender, _namespace: namespace })
    }

    /// Sends rows in the order in which a probe would: as they end.
    pub(crate) fn send(&self, mut rows: Vec<FlowRecord>) -> anyhow::Result<()> {
        rows.sort_by_key(|row| row.end_ns);
        self.rows.send(rows).ok().context("sending to nfcapd failed")
    }

    /// Ends the collector once it has everything; checks that nfdump counts what was sent, and gives the file as it was written.
    pub(crate) fn finish(mut self) -> anyhow::Result<(PathBuf, Sum)> {
        drop(self.rows);
        let sent = self.sender.join().map_err(|_| anyhow::anyhow!("the exporter panicked"))??;
        run(Command::new("kill").arg("-TERM").arg(self.child.id().to_string()))?;
        let ended = wait_until("nfcapd ends", Duration::from_secs(60), || !matches!(self.child.try_wait(), Ok(None)));
        if ended.is_err() {
            self.child.kill()?;
        }
        ended?;
        let files = fs::read_dir(&self.dir)?.flatten().map(|entry| entry.path());
        let files: Vec<PathBuf> = files
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nfcapd.2")))
            .collect();
        let [file] = &files[..] else { bail!("nfcapd left {files:?}") };
        Ok((file.clone(), sent))
    }
}

/// A copy of an nfdump file, compressed.
pub(crate) fn compress(file: &Path, compression: Compression, to: &Path) -> anyhow::Result<u64> {
    run(Command::new("nfdump").arg("-r").arg(file).arg(compression.option()).arg("-w").arg(to))?;
    Ok(fs::metadata(to)?.len())
}

/// What nfdump says a file holds.
pub(crate) fn count(file: &Path) -> anyhow::Result<Sum> {
    let text = run(Command::new("nfdump").arg("-r").arg(file).arg("-I"))?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|value| value.trim().parse().ok()).with_context(|| format!("nfdump -I says no {name}: {text}"))
    };
    Ok(Sum { flows: value("Flows")?, packets: value("Packets")?, bytes: value("Bytes")? })
}

fn send_all(receiver: &Receiver<Vec<FlowRecord>>, fields: Fields) -> anyhow::Result<Sum> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(("127.0.0.1", PORT))?;
    let mut exporter =
        Exporter { socket, fields, sequence: 0, messages: <[(Vec<u8>, u32); KINDS]>::default(), sent: 0 };
    exporter.send_templates()?;
    let mut sum = Sum::default();
    for rows in receiver {
        for row in &rows {
            exporter.add(row)?;
            sum.flows += 1;
            sum.packets += row.packets_out + row.packets_in;
            sum.bytes += row.bytes_out + row.bytes_in;
        }
    }
    (0..KINDS).try_for_each(|kind| exporter.flush(kind))?;
    wait_until("nfcapd has read everything", Duration::from_secs(60), || waiting().is_ok_and(|(bytes, _)| bytes == 0))?;
    let (_, dropped) = waiting()?;
    ensure!(dropped == 0, "the collector's socket dropped {dropped} messages");
    Ok(sum)
}

/// Kinds of records: IPv4, IPv6, IPv4 translated.
const KINDS: usize = 3;
const IPV6: usize = 1;
const TRANSLATED: usize = 2;

struct Exporter {
    socket: UdpSocket,
    fields: Fields,
    /// Records sent.
    sequence: u32,
    /// Records of the next message of each kind, and how many.
    messages: [(Vec<u8>, u32); KINDS],
    sent: u64,
}

impl Exporter {
    /// Elements (RFC 7012), their lengths and enterprises, in the order of a record.
    fn elements(&self, kind: usize) -> Vec<(u16, u16, u32)> {
        let (source, destination, len) = if kind == IPV6 { (27, 28, 16) } else { (8, 12, 4) };
        let mut elements =
            vec![(152, 8, 0), (153, 8, 0), (source, len, 0), (destination, len, 0), (7, 2, 0), (11, 2, 0)];
        elements.extend([(4, 1, 0), (6, 1, 0), (2, 8, 0), (1, 8, 0), (2, 8, REVERSE), (1, 8, REVERSE)]);
        if self.fields == Fields::All {
            elements.push((56, 6, 0));
        }
        if kind == TRANSLATED {
            elements.extend([(225, 4, 0), (227, 2, 0)]);
        }
        elements
    }

    fn send_templates(&mut self) -> anyhow::Result<()> {
        let mut set = Vec::new();
        for (kind, template) in (0..KINDS).zip(TEMPLATE..) {
            let elements = self.elements(kind);
            set.extend(template.to_be_bytes());
            set.extend(u16::try_from(elements.len())?.to_be_bytes());
            for (element, len, enterprise) in elements {
                let bit = if enterprise == 0 { 0 } else { 0x8000 };
                set.extend((element | bit).to_be_bytes());
                set.extend(len.to_be_bytes());
                if enterprise != 0 {
                    set.extend(enterprise.to_be_bytes());
                }
            }
        }
        self.send(2, &set, 0)
    }

    fn add(&mut self, row: &FlowRecord) -> anyhow::Result<()> {
        let public = row.public.filter(|_| self.fields == Fields::All);
        let kind = match (row.client_ip.is_ipv6(), public) {
            (true, _) => IPV6,
            (false, Some(_)) => TRANSLATED,
            (false, None) => 0,
        };
        let (to, records) = &mut self.messages[kind];
        let before = to.len();
        *records += 1;
        for ns in [row.start_ns, row.end_ns] {
            to.extend((ns / 1_000_000).to_be_bytes());
        }
        for ip in [Some(row.client_ip), row.peer_ip].into_iter().flatten() {
            put_ip(to, ip);
        }
        let icmp = u16::from(row.icmp_type.unwrap_or(0)) << 8 | u16::from(row.icmp_code.unwrap_or(0));
        to.extend(row.client_port.unwrap_or(0).to_be_bytes());
        to.extend(row.peer_port.unwrap_or(icmp).to_be_bytes());
        let flags = row.tcp_flags_out.unwrap_or(0) | row.tcp_flags_in.unwrap_or(0);
        to.extend([row.protocol.unwrap_or(0), flags]);
        for count in [row.packets_out, row.bytes_out, row.packets_in, row.bytes_in] {
            to.extend(count.to_be_bytes());
        }
        if self.fields == Fields::All {
            to.extend(row.client_mac.0);
        }
        if let (TRANSLATED, Some(public)) = (kind, public) {
            put_ip(to, public.ip);
            to.extend(public.port.unwrap_or(0).to_be_bytes());
        }
        let record_len = to.len() - before;
        if to.len() + HEADER_LEN + record_len > MESSAGE_BYTES_MAX {
            self.flush(kind)?;
        }
        Ok(())
    }

    fn flush(&mut self, kind: usize) -> anyhow::Result<()> {
        let (records, count) = std::mem::take(&mut self.messages[kind]);
        self.send(TEMPLATE + u16::try_from(kind)?, &records, count)
    }

    fn send(&mut self, set: u16, content: &[u8], records: u32) -> anyhow::Result<()> {
        if content.is_empty() {
            return Ok(());
        }
        let mut message = Vec::with_capacity(HEADER_LEN + content.len());
        message.extend(10_u16.to_be_bytes());
        message.extend(u16::try_from(HEADER_LEN + content.len())?.to_be_bytes());
        message.extend(1_795_514_400_u32.to_be_bytes());
        message.extend(self.sequence.to_be_bytes());
        message.extend(1_u32.to_be_bytes());
        message.extend(set.to_be_bytes());
        message.extend(u16::try_from(4 + content.len())?.to_be_bytes());
        message.extend(content);
        self.socket.send(&message)?;
        self.sequence = self.sequence.wrapping_add(records);
        self.sent += 1;
        // The kernel drops what does not fit into the collector's buffer, so it is never filled.
        while self.sent.is_multiple_of(16) && waiting()?.0 > WAITING_BYTES_MAX {
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

/// Bytes that wait in the collector's socket, and messages it dropped.
fn waiting() -> anyhow::Result<(u64, u64)> {
    let table = fs::read_to_string("/proc/thread-self/net/udp")?;
    let line = socket_line(&table).context("nfcapd listens no more")?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let queued = fields.get(4).and_then(|field| field.split_once(':')).context("/proc/net/udp")?.1;
    let dropped = fields.last().context("/proc/net/udp")?.parse()?;
    Ok((u64::from_str_radix(queued, 16)?, dropped))
}

fn socket_line(table: &str) -> Option<&str> {
    let local = format!(":{PORT:04X} ");
    table
        .lines()
        .find(|line| line.split_whitespace().nth(1).is_some_and(|address| format!("{address} ").ends_with(&local)))
}

fn put_ip(to: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => to.extend(ip.octets()),
        IpAddr::V6(ip) => to.extend(ip.octets()),
    }
}
