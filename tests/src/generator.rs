//! Exactly known load: UDP frames of many flows from many clients, sent on a client's cable, with the truth about them.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::SILENT_PORT;
use crate::namespace::Namespace;
use crate::programs::ask;

/// The smallest frame, without FCS.
const FRAME_LEN: usize = 60;
/// Bytes of Ethernet, IPv4 and UDP headers.
const HEADERS_LEN: usize = 42;

/// What one client sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub flows: u64,
    pub packets: u64,
    pub bytes: u64,
}

/// Flows with numbers `from..to`, spread over `clients` devices.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub from: u32,
    pub to: u32,
    pub clients: u32,
}

impl Load {
    /// Client and source port of a flow: no two flows share both.
    fn flow(self, number: u32) -> (u32, u16) {
        let port = 1024 + number / self.clients;
        (number % self.clients, u16::try_from(port).unwrap_or(u16::MAX))
    }

    /// What there is to find, by MAC.
    #[must_use]
    pub fn truth(self) -> BTreeMap<String, Sent> {
        let mut truth: BTreeMap<String, Sent> = BTreeMap::new();
        for number in self.from..self.to {
            let (client, _) = self.flow(number);
            let sent = truth.entry(mac_text(client)).or_default();
            sent.flows += 1;
            sent.packets += u64::from(packets_of(number));
            sent.bytes += u64::from(packets_of(number)) * frame_len(number) as u64;
        }
        truth
    }

    /// Sends the frames to the gateway on `eth0` of a client's namespace.
    pub fn send(self, client: &Namespace, gateway_mac: [u8; 6]) -> Result<()> {
        on_interface(client, "eth0", |socket| self.frames(gateway_mac, |frame| socket.send(frame)))
    }

    /// The same, and never more than a veth with XDP takes at once: it has room for 256 frames, and what comes then is lost before
    /// any program sees it.
    pub fn send_as_received(self, client: &Namespace, gateway: &Namespace, gateway_mac: [u8; 6]) -> Result<()> {
        const AT_ONCE: u64 = 128;
        let received = gateway.within(|| Received::open("lan"))?;
        let before = received.frames()?;
        on_interface(client, "eth0", |socket| {
            let mut sent = 0;
            self.frames(gateway_mac, |frame| {
                socket.send(frame)?;
                sent += 1;
                if sent % AT_ONCE == 0 { received.wait_for(before + sent) } else { Ok(()) }
            })
        })
    }

    fn frames(self, gateway_mac: [u8; 6], mut send: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        for number in self.from..self.to {
            let (client, port) = self.flow(number);
            let frame = frame(client, port, frame_len(number), gateway_mac);
            for _ in 0..packets_of(number) {
                send(&frame)?;
            }
        }
        Ok(())
    }
}

/// How much an interface of the namespace it was opened in has received.
struct Received {
    statistics: File,
    interface: &'static str,
}

impl Received {
    fn open(interface: &'static str) -> Result<Self> {
        // Stays about the namespace of the thread that opens it.
        Ok(Self { statistics: File::open("/proc/thread-self/net/dev")?, interface })
    }

    fn frames(&self) -> io::Result<u64> {
        let mut text = [0; 4096];
        let len = self.statistics.read_at(&mut text, 0)?;
        let text = String::from_utf8_lossy(&text[..len]);
        let mut lines =
            text.lines().filter_map(|line| line.trim_start().strip_prefix(self.interface)?.strip_prefix(':'));
        // Bytes, packets, …
        let packets = lines.next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        packets.ok_or_else(|| io::Error::other(format!("no interface {}", self.interface)))
    }

    fn wait_for(&self, frames: u64) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.frames()? < frames {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{} received less than was sent", self.interface)));
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// What an archive holds of the generator's flows, by client; a flow in several rows counts once. An error where one flow has two ids.
pub fn recorded(archive: &Path) -> Result<BTreeMap<String, Sent>> {
    let mut found: BTreeMap<String, Sent> = BTreeMap::new();
    let mut ids = HashSet::new();
    let mut tuples = HashSet::new();
    for flow in ask("find", archive, &["proto", "udp", "and", "dst", "port", &SILENT_PORT.to_string()])? {
        let number = |column: &str| flow[column].as_u64().with_context(|| format!("no {column} in {flow}"));
        let mac = flow["client_mac"].as_str().context("no client_mac")?.to_owned();
        let sent = found.entry(mac.clone()).or_default();
        if ids.insert(number("flow_id")?) {
            ensure!(tuples.insert((mac, number("client_port")?)), "one flow under two ids: {flow}");
            sent.flows += 1;
        }
        sent.packets += number("packets_out")?;
        sent.bytes += number("bytes_out")?;
        ensure!(number("packets_in")? == 0, "nobody answered: {flow}");
    }
    Ok(found)
}

/// Sends frames as they are.
pub fn send_frames(namespace: &Namespace, interface: &str, frames: &[Vec<u8>]) -> Result<()> {
    on_interface(namespace, interface, |socket| frames.iter().try_for_each(|frame| socket.send(frame)))
}

fn on_interface(
    namespace: &Namespace,
    interface: &str,
    send: impl FnOnce(&PacketSocket) -> io::Result<()> + Send,
) -> Result<()> {
    namespace.within(|| Ok(send(&PacketSocket::open(interface)?)?))
}

/// Sends one packet of each flow of a load, so many in a second; says how long that took.
pub fn send_at_rate(namespace: &Namespace, interface: &str, load: Load, per_second: u32) -> Result<Duration> {
    let gateway_mac = [0x02, 0, 0, 0, 0, 0xfe];
    let began = Instant::now();
    on_interface(namespace, interface, |socket| {
        for number in load.from..load.to {
            let (client, port) = load.flow(number);
            socket.send(&frame(client, port, FRAME_LEN, gateway_mac))?;
            // A thousand times a second it is looked at whether it is too early.
            if number % (per_second / 1000) == 0 {
                let due = Duration::from_secs_f64(f64::from(number - load.from) / f64::from(per_second));
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
        }
        Ok(())
    })?;
    Ok(began.elapsed())
}

/// Sends one packet of each flow of a load, again and again for some seconds, as fast as it can; says how long that took.
pub fn send_for(
    namespace: &Namespace,
    interface: &str,
    load: Load,
    gateway_mac: [u8; 6],
    seconds: u32,
) -> Result<Duration> {
    let frames: Vec<Vec<u8>> = (load.from..load.to)
        .map(|number| {
            let (client, port) = load.flow(number);
            frame(client, port, FRAME_LEN, gateway_mac)
        })
        .collect();
    let began = Instant::now();
    on_interface(namespace, interface, |socket| {
        while began.elapsed() < Duration::from_secs(seconds.into()) {
            frames.iter().try_for_each(|frame| socket.send(frame))?;
        }
        Ok(())
    })?;
    Ok(began.elapsed())
}

fn packets_of(number: u32) -> u32 {
    1 + number % 3
}

fn frame_len(number: u32) -> usize {
    HEADERS_LEN + 18 + (number % 400) as usize
}

fn mac(client: u32) -> [u8; 6] {
    let [_, _, high, low] = client.to_be_bytes();
    [0x02, 0, 0, 2, high, low]
}

fn mac_text(client: u32) -> String {
    mac(client).map(|byte| format!("{byte:02x}")).join(":")
}

fn frame(client: u32, port: u16, len: usize, gateway_mac: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(len);
    frame.extend(gateway_mac);
    frame.extend(mac(client));
    frame.extend([0x08, 0x00]);
    let total = u16::try_from(len - 14).unwrap_or(u16::MAX);
    let [_, _, high, low] = client.to_be_bytes();
    let mut header = vec![0x45, 0];
    header.extend(total.to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 20, 128 + high, low, 198, 51, 100, 10]);
    let checksum = checksum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(header);
    frame.extend(port.to_be_bytes());
    frame.extend(SILENT_PORT.to_be_bytes());
    frame.extend((total - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(len, 0xa5);
    frame
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}

/// A socket that sends whole frames.
struct PacketSocket(OwnedFd);

impl PacketSocket {
    fn open(interface: &str) -> io::Result<Self> {
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: a NUL-terminated name.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and owned by nobody else.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: all zeros is a valid address structure.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
        address.sll_ifindex = i32::try_from(index).unwrap_or(0);
        let len = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
        // SAFETY: the address outlives the call and has the length given.
        let bound = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
        if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the frame outlives the call and has the length given.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if usize::try_from(sent) == Ok(frame.len()) { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
