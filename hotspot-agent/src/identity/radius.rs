//! The RADIUS accounting listener: verify, record, and only then answer.
//!
//! Guarantees that no request is answered before it is on disk (RFC 2866 §2.3: what cannot be recorded must not be
//! acknowledged; the NAS sends it again). Duplicates are answered, and recorded once. Every datagram ends in exactly one counter.
//! Nothing of what a request says is logged, only where it came from.

mod counters;
mod duplicates;
mod endpoint;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotspot_archive::entry::Entry;
use hotspot_core::WallNs;
use hotspot_core::fact::SessionFact;
use hotspot_core::radius::{self, Demand, Exchange, NasClock, Packet, Request};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use self::counters::Counted;
pub use self::counters::RadiusCounters;
use self::duplicates::{Duplicates, Verdict};
use self::endpoint::{Asker, Endpoint};
use super::secrets::{Secrets, SecretsError};
use crate::capture::clock::ClockReading;
use crate::cli::RunArguments;
use crate::recorder::Recorder;
use crate::seldom::Seldom;

/// The largest RADIUS packet, and one octet to see that there was more.
const DATAGRAM_MAX: usize = 4097;
/// Requests being recorded at once; more wait in the sockets' buffers.
const IN_FLIGHT_MAX: usize = 4096;
/// How often the counters are logged, when they changed.
const TELL_EVERY: Duration = Duration::from_secs(300);
/// NAS whose clocks are known; beyond it all are learnt anew.
const CLOCKS_MAX: usize = 65_536;

/// What is listened for.
pub struct RadiusSettings {
    pub listen: Vec<SocketAddr>,
    pub demand: Demand,
    /// Of sessions whose requests do not say: it is no attribute of accounting, but of what the access point was told at login.
    pub interim_interval_s: Option<u32>,
    /// NAS that were heard of before, and since when.
    pub known: HashMap<String, WallNs>,
    secret_file: PathBuf,
    secrets: watch::Sender<Secrets>,
}

impl RadiusSettings {
    /// Those of a command line; `None` where it asks for no listener.
    pub fn of(arguments: &RunArguments) -> Result<Option<Self>, SecretsError> {
        let Some(file) = arguments.radius_secret_file.as_deref().filter(|_| !arguments.radius_listen.is_empty()) else {
            return Ok(None);
        };
        let mut settings = Self::new(file.to_path_buf())?;
        settings.listen.clone_from(&arguments.radius_listen);
        settings.interim_interval_s = arguments.radius_interim_interval;
        if arguments.radius_require_message_authenticator {
            settings.demand = Demand::MessageAuthenticator;
        }
        Ok(Some(settings))
    }

    /// Those of a file of secrets, with nothing else asked for.
    pub fn new(secret_file: PathBuf) -> Result<Self, SecretsError> {
        let secrets = watch::Sender::new(Secrets::read(&secret_file)?);
        let (listen, demand, interim_interval_s) = (Vec::new(), Demand::default(), None);
        Ok(Self { listen, demand, interim_interval_s, known: HashMap::new(), secret_file, secrets })
    }

    /// Reads the secrets again, for the requests that come from now on.
    pub fn reload(&self) -> Result<(), SecretsError> {
        self.secrets.send_replace(Secrets::read(&self.secret_file)?);
        Ok(())
    }
}

/// The listener on all its addresses.
pub struct RadiusListener {
    endpoints: Vec<Endpoint>,
    shared: Arc<Shared>,
}

/// What all addresses share: a NAS may go from one to another.
struct Shared {
    secrets: watch::Receiver<Secrets>,
    demand: Demand,
    interim_interval_s: Option<u32>,
    counters: Arc<RadiusCounters>,
    duplicates: Mutex<Duplicates>,
    clocks: Mutex<HashMap<(IpAddr, String), NasClock>>,
    /// Since when a NAS is known, by its name: what it reports may have waited while the agent was away.
    known: HashMap<String, WallNs>,
    room: Arc<Semaphore>,
    /// The counters know of all refusals.
    warned: Seldom,
}

impl RadiusListener {
    #[must_use]
    pub fn new(settings: &RadiusSettings) -> Self {
        let shared = Shared {
            secrets: settings.secrets.subscribe(),
            demand: settings.demand,
            interim_interval_s: settings.interim_interval_s,
            counters: Arc::default(),
            duplicates: Mutex::default(),
            clocks: Mutex::default(),
            known: settings.known.clone(),
            room: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            warned: Seldom::default(),
        };
        Self { endpoints: Vec::new(), shared: Arc::new(shared) }
    }

    /// Listens on one more address, which is returned with its port; must be called inside the runtime.
    pub fn bind(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let endpoint = Endpoint::bind(address)?;
        let address = endpoint.local_addr()?;
        info!(%address, "listening for RADIUS accounting");
        self.endpoints.push(endpoint);
        Ok(address)
    }

    #[must_use]
    pub fn counters(&self) -> Arc<RadiusCounters> {
        Arc::clone(&self.shared.counters)
    }

    /// Serves until `stop` changes.
    pub async fn run(self, recorder: Recorder, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let mut serving = JoinSet::new();
        for endpoint in self.endpoints {
            serving.spawn(serve(Arc::new(endpoint), Arc::clone(&self.shared), recorder.clone()));
        }
        let counters = &self.shared.counters;
        let (mut tell, mut told) = (tokio::time::interval(TELL_EVERY), counters.total());
        let outcome = loop {
            tokio::select! {
                _ = stop.changed() => break Ok(()),
                Some(ended) = serving.join_next() => break ended.map_err(io::Error::other).and_then(|outcome| outcome),
                _ = tell.tick() => {
                    if counters.total() != told {
                        told = counters.total();
                        info!(%counters, "RADIUS accounting so far");
                    }
                }
            }
        };
        info!(%counters, "RADIUS accounting ends");
        outcome
    }
}

async fn serve(endpoint: Arc<Endpoint>, shared: Arc<Shared>, recorder: Recorder) -> io::Result<()> {
    let mut datagram = vec![0; DATAGRAM_MAX];
    loop {
        let (len, asker) = match endpoint.receive(&mut datagram).await {
            Ok(received) => received,
            // An answer we sent was refused; that is no trouble of the listener.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        let received_ns = ClockReading::now().wall_now();
        let client = asker.address.ip();
        let (packet, secret) = match shared.check(&datagram[..len], client) {
            Ok(checked) => checked,
            Err(why) => {
                shared.warn(client, &why);
                continue;
            }
        };
        // Never closed, so there is always a permit in the end.
        let Ok(permit) = Arc::clone(&shared.room).acquire_owned().await else { return Ok(()) };
        let exchange = Conversation {
            endpoint: Arc::clone(&endpoint),
            shared: Arc::clone(&shared),
            recorder: recorder.clone(),
            asker,
            secret,
        };
        tokio::spawn(async move {
            match packet {
                Packet::Accounting(request) => exchange.record(&request, received_ns).await,
                Packet::StatusServer(probe) => exchange.say_whether_there(&probe).await,
            }
            drop(permit);
        });
    }
}

impl Shared {
    /// The packet and its sender's secret, or why it is refused.
    fn check(&self, datagram: &[u8], client: IpAddr) -> Result<(Packet, Vec<u8>), String> {
        let secrets = self.secrets.borrow();
        let Some(secret) = secrets.of(client) else {
            self.counters.count(Counted::UnknownClient);
            return Err("unknown client: no secret for its address".to_owned());
        };
        radius::parse(datagram, secret, self.demand).map(|packet| (packet, secret.to_vec())).map_err(|refused| {
            self.counters.count(Counted::Refused(refused));
            refused.to_string()
        })
    }

    /// The fact a request reports, as of the moment its NAS means.
    fn fact(&self, request: &Request, client: IpAddr, received_ns: WallNs) -> SessionFact {
        let client = client.to_canonical();
        let at_ns = {
            let mut clocks = lock(&self.clocks);
            if clocks.len() >= CLOCKS_MAX {
                clocks.clear();
            }
            let nas = request.nas(client);
            let known_ns = self.known.get(&nas).copied();
            let clock = clocks.entry((client, nas));
            let clock = clock.or_insert_with(|| known_ns.map(NasClock::known_since).unwrap_or_default());
            clock.happened_ns(request, received_ns)
        };
        let mut fact = request.fact(client, received_ns, at_ns);
        fact.interim_interval_s = fact.interim_interval_s.or(self.interim_interval_s);
        fact
    }

    fn warn(&self, client: IpAddr, why: &str) {
        if self.warned.is_time() {
            warn!(%client, why, "a RADIUS packet was refused (logged at most every 10 s)");
        }
    }
}

/// Nothing can panic while holding one of these, and a panic ends the process anyway.
fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One packet's sender, and what is needed to answer.
struct Conversation {
    endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
    recorder: Recorder,
    asker: Asker,
    secret: Vec<u8>,
}

impl Conversation {
    async fn record(&self, request: &Request, received_ns: WallNs) {
        let (client, counters) = (self.asker.address, &self.shared.counters);
        let verdict = lock(&self.shared.duplicates).note(client, request, request.sent_ns(received_ns), Instant::now());
        match verdict {
            Verdict::New => {}
            Verdict::BeingRecorded => return counters.count(Counted::Duplicate),
            Verdict::Recorded => {
                counters.count(Counted::Duplicate);
                return self.answer(&request.exchange).await;
            }
        }
        counters.odd.count("radius", &request.attributes.odd);
        let fact = self.shared.fact(request, client.ip(), received_ns);
        debug!(event = ?fact.event, client = %client.ip(), "RADIUS accounting");
        match self.recorder.record(vec![Entry::Session(fact)]).await {
            Ok(()) => {
                lock(&self.shared.duplicates).recorded(client, request);
                counters.count(Counted::Recorded);
                self.answer(&request.exchange).await;
            }
            Err(error) => {
                lock(&self.shared.duplicates).forget(client, request);
                counters.count(Counted::NotRecorded);
                debug!(%error, "a RADIUS request is not answered");
            }
        }
    }

    /// Somebody who forwards to us wants to know whether to: only while what is sent can be recorded.
    async fn say_whether_there(&self, probe: &Exchange) {
        if self.recorder.record(Vec::new()).await.is_ok() {
            self.shared.counters.count(Counted::StatusServer);
            self.answer(probe).await;
        } else {
            self.shared.counters.count(Counted::NotRecorded);
        }
    }

    async fn answer(&self, exchange: &Exchange) {
        if let Err(error) = self.endpoint.answer(&exchange.response(&self.secret), &self.asker).await {
            debug!(%error, "an answer could not be sent; the NAS will ask again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::UdpSocket;
    use tokio::sync::mpsc;

    use super::*;
    use crate::recorder::{NotRecorded, Submission};

    /// The request of `hotspot_core::radius`'s test, made elsewhere with the secret `xyzzy5461`.
    fn request() -> Vec<u8> {
        let text = include_str!("../../tests/accounting-start.hex").trim();
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// A listener that goes on as long as the test, and where what it records arrives.
    fn listen() -> (SocketAddr, Arc<RadiusCounters>, mpsc::Receiver<Submission>) {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "xyzzy5461").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let settings = RadiusSettings::new(path).unwrap();
        let mut listener = RadiusListener::new(&settings);
        let address = listener.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let counters = listener.counters();
        let (recorder, submissions) = Recorder::new();
        tokio::spawn(async move {
            let (_stop, stopped) = watch::channel(false);
            listener.run(recorder, stopped).await
        });
        (address, counters, submissions)
    }

    #[tokio::test]
    async fn a_request_is_answered_after_it_is_recorded_and_recorded_once() {
        let (address, counters, mut submissions) = listen();
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
        assert_eq!((counters.recorded(), counters.not_recorded(), counters.duplicates()), (1, 1, 2));
    }

    #[tokio::test]
    async fn forged_and_short_packets_are_counted_and_not_answered() {
        let (address, counters, mut submissions) = listen();
        let nas = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut forged = request();
        forged[30] ^= 1;
        for packet in [forged.as_slice(), &[4, 1, 0]] {
            nas.send_to(packet, address).await.unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while counters.refused() < 2 && Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        assert_eq!(counters.to_string(), "short=1 bad_authenticator=1");
        assert!(submissions.try_recv().is_err());
    }
}
