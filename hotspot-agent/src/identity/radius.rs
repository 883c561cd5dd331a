//! The RADIUS accounting listener: verify, record, and only then answer.
//!
//! Guarantees that no request is answered before it is on disk (RFC 2866 §2.3: what cannot be recorded must not be
//! acknowledged; the NAS sends it again). Duplicates (RFC 5080 §2.2.2) are answered, and recorded once. Nothing personal is
//! logged.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hotspot_archive::entry::Entry;
use hotspot_core::radius::{self, Refused, Request};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::secrets::Secrets;
use crate::capture::clock::ClockReading;
use crate::recorder::Recorder;

/// The largest RADIUS packet, and one octet to see that there was more.
const DATAGRAM_MAX: usize = 4097;
/// Requests being recorded at once; more wait in the socket's buffer.
const IN_FLIGHT_MAX: usize = 4096;
/// How long an answer is kept for a NAS that asks again.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Answers remembered; beyond it the oldest are forgotten, and a very late duplicate is recorded again (which changes nothing).
const REMEMBERED_MAX: usize = 65_536;
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// A refusal is logged at most once in this time; the counters know of all.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What the listener did. Every datagram ends in exactly one of these.
#[derive(Debug, Default)]
pub struct RadiusCounters {
    pub recorded: AtomicU64,
    pub duplicates: AtomicU64,
    pub not_recorded: AtomicU64,
    pub unknown_client: AtomicU64,
    pub refused: AtomicU64,
}

/// A bound listener.
pub struct RadiusListener {
    socket: Arc<UdpSocket>,
    secrets: Secrets,
    counters: Arc<RadiusCounters>,
}

/// A request, as a NAS that got no answer sends it again.
type Duplicate = (SocketAddr, u8, [u8; 16]);

#[derive(Clone, Copy)]
enum Remembered {
    BeingRecorded,
    Answered { at: Instant, response: [u8; 20] },
}

impl RadiusListener {
    /// Binds; must be called inside the runtime.
    pub fn bind(address: SocketAddr, secrets: Secrets) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        // A smaller buffer only means that a NAS has to ask again.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        info!(address = %socket.local_addr()?, "listening for RADIUS accounting");
        Ok(Self { socket: Arc::new(socket), secrets, counters: Arc::default() })
    }

    #[must_use]
    pub fn counters(&self) -> Arc<RadiusCounters> {
        Arc::clone(&self.counters)
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until the task is dropped.
    pub async fn run(self, recorder: Recorder) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let remembered = Arc::new(Mutex::new(HashMap::new()));
        let mut warned: Option<Instant> = None;
        let mut datagram = vec![0; DATAGRAM_MAX];
        loop {
            let (len, client) = match self.socket.recv_from(&mut datagram).await {
                Ok(received) => received,
                // An answer we sent was refused; that is no trouble of the listener.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            let received_ns = ClockReading::now().wall_now();
            match self.check(&datagram[..len], client) {
                Ok((request, secret)) => {
                    // Never closed, so there is always a permit in the end.
                    let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
                    let exchange = Exchange {
                        socket: Arc::clone(&self.socket),
                        counters: Arc::clone(&self.counters),
                        remembered: Arc::clone(&remembered),
                        client,
                        secret: secret.to_vec(),
                    };
                    let recorder = recorder.clone();
                    tokio::spawn(async move {
                        exchange.serve(request, received_ns, recorder).await;
                        drop(permit);
                    });
                }
                Err(why) => {
                    if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                        warned = Some(Instant::now());
                        warn!(client = %client.ip(), why, "a RADIUS packet was refused (logged at most every 10 s)");
                    }
                }
            }
        }
    }

    fn check(&self, datagram: &[u8], client: SocketAddr) -> Result<(Request, &[u8]), String> {
        let Some(secret) = self.secrets.of(client.ip()) else {
            self.counters.unknown_client.fetch_add(1, Ordering::Relaxed);
            return Err("unknown client: no secret for its address".to_owned());
        };
        radius::parse(datagram, secret).map(|request| (request, secret)).map_err(|refused: Refused| {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            refused.to_string()
        })
    }
}

/// One request and where its answer goes.
struct Exchange {
    socket: Arc<UdpSocket>,
    counters: Arc<RadiusCounters>,
    remembered: Arc<Mutex<HashMap<Duplicate, Remembered>>>,
    client: SocketAddr,
    secret: Vec<u8>,
}

impl Exchange {
    async fn serve(self, request: Request, received_ns: i64, recorder: Recorder) {
        let key = (self.client, request.identifier, request.authenticator);
        match self.remember(key) {
            Some(Remembered::Answered { response, .. }) => {
                self.counters.duplicates.fetch_add(1, Ordering::Relaxed);
                self.answer(&response).await;
                return;
            }
            Some(Remembered::BeingRecorded) => {
                self.counters.duplicates.fetch_add(1, Ordering::Relaxed);
                return;
            }
            None => {}
        }
        let fact = request.fact(self.client.ip().to_canonical(), received_ns);
        debug!(event = ?fact.event, client = %self.client.ip(), "RADIUS accounting");
        match recorder.record(vec![Entry::Session(fact)]).await {
            Ok(()) => {
                let response = radius::response(request.identifier, &request.authenticator, &self.secret);
                self.lock().insert(key, Remembered::Answered { at: Instant::now(), response });
                self.counters.recorded.fetch_add(1, Ordering::Relaxed);
                self.answer(&response).await;
            }
            Err(error) => {
                self.lock().remove(&key);
                self.counters.not_recorded.fetch_add(1, Ordering::Relaxed);
                debug!(%error, "a RADIUS request is not answered");
            }
        }
    }

    /// What is known of a request; a new one is noted as being recorded.
    fn remember(&self, key: Duplicate) -> Option<Remembered> {
        let mut remembered = self.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, known| match known {
                Remembered::BeingRecorded => true,
                Remembered::Answered { at, .. } => at.elapsed() < REMEMBERED,
            });
        }
        let known = remembered.get(&key).copied().filter(|known| match known {
            Remembered::BeingRecorded => true,
            Remembered::Answered { at, .. } => at.elapsed() < REMEMBERED,
        });
        if known.is_none() {
            remembered.insert(key, Remembered::BeingRecorded);
        }
        known
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Duplicate, Remembered>> {
        // Nothing can panic while holding it, and a panic ends the process anyway.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, response: &[u8]) {
        if let Err(error) = self.socket.send_to(response, self.client).await {
            debug!(%error, "an answer could not be sent; the NAS will ask again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::recorder::NotRecorded;

    /// The request of `hotspot_core::radius`'s test, made elsewhere with the secret `xyzzy5461`.
    fn request() -> Vec<u8> {
        let text = include_str!("../../tests/accounting-start.hex").trim();
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn secrets() -> Secrets {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "xyzzy5461").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Secrets::read(&path).unwrap()
    }

    #[tokio::test]
    async fn a_request_is_answered_after_it_is_recorded_and_recorded_once() {
        let listener = RadiusListener::bind((Ipv4Addr::LOCALHOST, 0).into(), secrets()).unwrap();
        let (address, counters) = (listener.local_addr().unwrap(), listener.counters());
        let (recorder, mut submissions) = Recorder::new();
        tokio::spawn(listener.run(recorder));
        let nas = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        nas.send_to(&request(), address).await.unwrap();
        let first = submissions.recv().await.unwrap();
        // Asked again while the first is being recorded, and again after the journal failed.
        nas.send_to(&request(), address).await.unwrap();
        first.committed.send(Err(NotRecorded::Journal("full".into()))).unwrap();
        let mut answer = [0; 64];
        let silence = tokio::time::timeout(Duration::from_millis(200), nas.recv(&mut answer)).await;
        assert!(silence.is_err(), "what was not recorded is not answered");
        nas.send_to(&request(), address).await.unwrap();
        let second = submissions.recv().await.unwrap();
        second.committed.send(Ok(())).unwrap();
        let len = nas.recv(&mut answer).await.unwrap();
        assert_eq!((len, answer[0], answer[1]), (20, 5, request()[1]));
        nas.send_to(&request(), address).await.unwrap();
        nas.recv(&mut answer).await.unwrap();
        assert!(submissions.try_recv().is_err(), "a duplicate is answered and not recorded again");
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((read(&counters.recorded), read(&counters.not_recorded)), (1, 1));
    }

    #[tokio::test]
    async fn forged_and_short_packets_are_counted_and_not_answered() {
        let listener = RadiusListener::bind((Ipv4Addr::LOCALHOST, 0).into(), secrets()).unwrap();
        let (address, counters) = (listener.local_addr().unwrap(), listener.counters());
        let (recorder, mut submissions) = Recorder::new();
        tokio::spawn(listener.run(recorder));
        let nas = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut forged = request();
        forged[30] ^= 1;
        for packet in [forged.as_slice(), &[4, 1, 0]] {
            nas.send_to(packet, address).await.unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while counters.refused.load(Ordering::Relaxed) < 2 && Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        assert_eq!(counters.refused.load(Ordering::Relaxed), 2);
        assert!(submissions.try_recv().is_err());
    }
}
