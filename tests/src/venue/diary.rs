//! The diary: what the devices and their users really did, noted by those who did it. The agent has no part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::site::Device;
use crate::lab::{ECHO_PORT, SERVER_V4, SERVER_V6};

/// Both of the server's ends are near.
const PATIENCE: Duration = Duration::from_secs(5);

/// One connection, noted by the device that made it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) device: usize,
    pub(super) protocol: u8,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) from_ns: i64,
    pub(super) to_ns: i64,
    /// What was asked for, which the web server logs too.
    pub(super) path: Option<String>,
    /// Where the device was plugged in.
    pub(super) ap: usize,
    /// Why nobody outside could be sure whose it was; `None` where it is clear.
    pub(super) doubt: Option<&'static str>,
}

/// Somebody who was logged in on a device.
#[derive(Clone, Debug)]
pub(super) struct Stay {
    device: usize,
    user: String,
    from_ns: i64,
    to_ns: i64,
}

#[derive(Debug, Default)]
pub(super) struct Diary {
    pub(super) connections: Vec<Connection>,
    stays: Vec<Stay>,
    /// What went wrong on purpose, and how often.
    pub(super) happened: BTreeMap<&'static str, usize>,
}

impl Diary {
    pub(super) fn logs_in(&mut self, device: usize, user: &str) {
        self.stays.push(Stay { device, user: user.to_owned(), from_ns: now_ns(), to_ns: i64::MAX });
    }

    /// Whoever was logged in on a device is so no more.
    pub(super) fn logs_out(&mut self, device: usize) {
        for stay in self.stays.iter_mut().filter(|stay| stay.device == device && stay.to_ns == i64::MAX) {
            stay.to_ns = now_ns();
        }
    }

    /// Who was logged in on a device.
    pub(super) fn user(&self, device: usize, at_ns: i64) -> Option<&str> {
        let mut stays = self.stays.iter().filter(|stay| stay.device == device);
        stays.find(|stay| stay.from_ns <= at_ns && at_ns < stay.to_ns).map(|stay| &*stay.user)
    }

    /// Whether somebody was ever logged in on a device after a moment.
    pub(super) fn comes_later(&self, device: usize, user: &str, after_ns: i64) -> bool {
        self.stays.iter().any(|stay| stay.device == device && stay.user == user && stay.to_ns > after_ns)
    }

    /// Whether somebody was ever logged in on a device.
    pub(super) fn was_ever_on(&self, device: usize, user: &str) -> bool {
        self.stays.iter().any(|stay| stay.device == device && stay.user == user)
    }

    /// Whether somebody was ever logged in anywhere.
    pub(super) fn was_ever_in(&self, user: &str) -> bool {
        self.stays.iter().any(|stay| stay.user == user)
    }

    pub(super) fn happened(&mut self, what: &'static str, times: usize) {
        *self.happened.entry(what).or_default() += times;
    }

    /// Devices that used several addresses of one family one after the other: privacy addresses.
    pub(super) fn devices_with_privacy_addresses(&self) -> usize {
        let mut used: BTreeMap<usize, BTreeSet<IpAddr>> = BTreeMap::new();
        for connection in self.connections.iter().filter(|connection| connection.local.is_ipv6()) {
            used.entry(connection.device).or_default().insert(connection.local.ip());
        }
        used.values().filter(|addresses| addresses.len() > 1).count()
    }

    /// Devices browse by both families and ask for an echo, some at a time; each notes what it did.
    pub(super) fn browse(
        &mut self,
        devices: &[Device],
        who: &[usize],
        rounds: usize,
        doubt: Option<&'static str>,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let base = self.connections.len();
        let work = || -> Result<Vec<Connection>> {
            let mut made = Vec::new();
            while let Some(position) = who.get(next.fetch_add(1, Ordering::Relaxed)) {
                let device = &devices[*position];
                let done = device.namespace.within(|| pages(device, base, rounds));
                let done = done.with_context(|| format!("{} browses", device.name))?;
                made.extend(done.into_iter().map(|done| done.of(*position, device.ap, doubt)));
            }
            Ok(made)
        };
        let made: Vec<Connection> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            let made =
                workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?);
            anyhow::Ok(made.collect::<Result<Vec<_>>>()?.concat())
        })?;
        self.connections.extend(made);
        Ok(())
    }

    /// The same of devices that have an IPv4 address only.
    pub(super) fn browse_v4(&mut self, devices: &[Device], who: &[usize], doubt: Option<&'static str>) -> Result<()> {
        for position in who {
            let (device, number) = (&devices[*position], self.connections.len());
            let path = format!("/who/{}-{number}-0", device.name);
            let done = device.namespace.within(|| Ok([page(SERVER_V4, &path)?, echo("0.0.0.0:0")?]));
            for done in done.with_context(|| format!("{} browses", device.name))? {
                self.note(done, *position, device.ap, doubt);
            }
        }
        Ok(())
    }

    pub(super) fn note(&mut self, done: Done, device: usize, ap: usize, doubt: Option<&'static str>) {
        self.connections.push(done.of(device, ap, doubt));
    }
}

/// What a device knows of a connection it made.
#[derive(Clone, Debug)]
pub(super) struct Done {
    protocol: u8,
    local: SocketAddr,
    peer: SocketAddr,
    from_ns: i64,
    to_ns: i64,
    path: Option<String>,
}

impl Done {
    fn of(self, device: usize, ap: usize, doubt: Option<&'static str>) -> Connection {
        let Self { protocol, local, peer, from_ns, to_ns, path } = self;
        Connection { device, protocol, local, peer, from_ns, to_ns, path, ap, doubt }
    }
}

fn pages(device: &Device, base: usize, rounds: usize) -> Result<Vec<Done>> {
    let mut done = Vec::new();
    for round in 0..rounds {
        for server in [SERVER_V4, SERVER_V6] {
            done.push(page(server, &format!("/who/{}-{base}-{round}", device.name))?);
        }
    }
    done.push(echo("0.0.0.0:0")?);
    Ok(done)
}

/// One page of the web server; the device closes the connection.
fn page(server: &str, path: &str) -> Result<Done> {
    page_within(server, path, PATIENCE)
}

/// The same, of a server that answers at once or not at all.
pub(super) fn page_within(server: &str, path: &str, patience: Duration) -> Result<Done> {
    let (from_ns, peer) = (now_ns(), SocketAddr::new(server.parse()?, 80));
    let mut stream = TcpStream::connect_timeout(&peer, patience).with_context(|| format!("connect to {peer}"))?;
    let local = stream.local_addr()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: hall\r\n\r\n").as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"\r\n\r\nhello") {
        let len = stream.read(&mut part)?;
        ensure!(len > 0, "{peer} closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..len]);
    }
    drop(stream);
    Ok(Done { protocol: 6, local, peer, from_ns, to_ns: now_ns(), path: Some(path.to_owned()) })
}

/// One datagram to the echo server and back.
pub(super) fn echo(from: &str) -> Result<Done> {
    let (from_ns, peer) = (now_ns(), SocketAddr::new(SERVER_V4.parse()?, ECHO_PORT));
    let socket = UdpSocket::bind(from)?;
    socket.connect(peer)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"echo")?;
    socket.recv(&mut [0; 16]).with_context(|| format!("no echo for {from}"))?;
    Ok(Done { protocol: 17, local: socket.local_addr()?, peer, from_ns, to_ns: now_ns(), path: None })
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
