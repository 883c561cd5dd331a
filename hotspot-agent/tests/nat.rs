//! The NAT watcher on a real gateway: three network namespaces, nftables' masquerade, real connections.
//!
//! What is expected comes from elsewhere: the address and port the server saw, and what `conntrack -L` lists. Needs root and
//! the packages iproute2, nftables and conntrack; fails where it cannot run. The namespaces go away with the test.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use hotspot_agent::nat::{NatError, NatWatcher};
use hotspot_agent::recorder::{NotRecorded, Recorder, Submission};
use hotspot_archive::entry::Entry;
use hotspot_core::fact::{NatEvent, NatFact, NatWatch};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const OTHER_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const TRANSLATED_PORT: u16 = 8080;
/// Connections to this port pass the gateway as they are.
const UNTRANSLATED_PORT: u16 = 8081;
const PATIENCE: Duration = Duration::from_secs(10);

/// Ports are mapped into a range of their own, so that no translation is the identity by chance.
const RULES: &str = "
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname wan tcp dport 8081 accept
    oifname wan meta l4proto { tcp, udp } masquerade to :40000-40999
    oifname wan masquerade
  }
}";

/// Client, gateway and server, each a network namespace; all removed on drop.
struct Venue {
    client: String,
    gateway: String,
    server: String,
}

impl Venue {
    fn raise() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("nat{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let [client, gateway, server] = ["client", "gateway", "server"].map(|role| format!("{prefix}-{role}"));
        let venue = Self { client, gateway, server };
        for name in venue.names() {
            ip(&format!("netns add {name}"));
            // No duplicate address detection, no router solicitation: only what the test sends.
            in_namespace(name, || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap());
        }
        let Self { client, gateway, server } = &venue;
        ip(&format!("link add lan netns {gateway} type veth peer name eth0 netns {client}"));
        ip(&format!("link add wan netns {gateway} type veth peer name eth0 netns {server}"));
        for (namespace, device, addresses) in [
            (client, "eth0", [Some("10.77.0.2/24"), Some("10.77.0.3/24")]),
            (gateway, "lan", [Some("10.77.0.1/24"), None]),
            (gateway, "wan", [Some("203.0.113.1/24"), None]),
            (server, "eth0", [Some("203.0.113.2/24"), None]),
        ] {
            for address in addresses.into_iter().flatten() {
                ip(&format!("-n {namespace} address add {address} dev {device}"));
            }
            ip(&format!("-n {namespace} link set {device} up"));
        }
        ip(&format!("-n {client} route add default via 10.77.0.1"));
        ip(&format!("-n {server} route add 10.77.0.0/24 via 203.0.113.1"));
        in_namespace(gateway, || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("needs nftables");
            nft.stdin.take().unwrap().write_all(RULES.as_bytes()).unwrap();
            assert!(nft.wait().unwrap().success(), "nft refused the rules");
        });
        venue
    }

    fn names(&self) -> [&str; 3] {
        [&self.client, &self.gateway, &self.server]
    }

    fn set_conntrack_events(&self, value: &str) {
        in_namespace(&self.gateway, || std::fs::write("/proc/sys/net/netfilter/nf_conntrack_events", value).unwrap());
    }

    /// What the gateway's table holds of translated connections, as the tool `conntrack` lists it.
    fn listed(&self) -> BTreeSet<Translation> {
        let listing =
            in_namespace(&self.gateway, || Command::new("conntrack").arg("-L").output().expect("needs conntrack"));
        assert!(listing.status.success(), "{}", String::from_utf8_lossy(&listing.stderr));
        String::from_utf8(listing.stdout).unwrap().lines().filter_map(Translation::from_listing).collect()
    }

    fn forget_all(&self) {
        let flushed = in_namespace(&self.gateway, || Command::new("conntrack").arg("-F").output().unwrap());
        assert!(flushed.status.success());
    }
}

impl Drop for Venue {
    fn drop(&mut self) {
        for name in self.names() {
            // Some may not have been made.
            let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
        }
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("needs iproute2");
    assert!(output.status.success(), "needs root: ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs on a thread of its own, which ends with the namespace still entered; sockets and children stay in it.
fn in_namespace<R: Send>(name: &str, act: impl FnOnce() -> R + Send) -> R {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("needs root");
            act()
        });
        thread.join().unwrap()
    })
}

/// One translated connection; for ICMP the ports are identifiers and the peer's is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Translation {
    protocol: u8,
    client: (IpAddr, u16),
    peer: (IpAddr, u16),
    public: (IpAddr, u16),
}

impl Translation {
    fn of(fact: &NatFact) -> Self {
        Self {
            protocol: fact.protocol,
            client: (fact.client_ip, fact.client_port),
            peer: (fact.peer_ip, fact.peer_port),
            public: (fact.public_ip, fact.public_port),
        }
    }

    /// A line like `udp 17 29 src=… dst=… sport=… dport=… src=… dst=… sport=… dport=… mark=0 use=1`.
    fn from_listing(line: &str) -> Option<Self> {
        let protocol = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            fields.entry(key).or_default().push(value);
        }
        let address = |key: &str, side: usize| fields[key][side].parse::<IpAddr>().unwrap();
        let port = |key: &str, side: usize| fields[key][side].parse::<u16>().unwrap();
        let (client_port, peer_port, public_port) = if fields.contains_key("id") {
            (port("id", 0), 0, port("id", 1))
        } else {
            (port("sport", 0), port("dport", 0), port("dport", 1))
        };
        let translation = Self {
            protocol,
            client: (address("src", 0), client_port),
            peer: (address("dst", 0), peer_port),
            public: (address("dst", 1), public_port),
        };
        (translation.client != translation.public).then_some(translation)
    }
}

/// How the journal's end answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Journal {
    Takes,
    /// As with a full disk.
    Refuses,
    /// Holds up the watcher's only thread, as a machine under load would.
    Stalls,
}

/// The watcher at work in the gateway, and everything it recorded so far.
struct Watch {
    entries: Arc<Mutex<Vec<Entry>>>,
    journal: watch::Sender<Journal>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Returns when the dump is recorded.
    fn start(venue: &Venue) -> Self {
        Self::start_and_look_again_every(venue, Duration::from_secs(30))
    }

    fn start_and_look_again_every(venue: &Venue, every: Duration) -> Self {
        let entries = Arc::new(Mutex::new(Vec::new()));
        let (journal, answers) = watch::channel(Journal::Takes);
        let (stop, stopped) = watch::channel(false);
        let (started, ready) = mpsc::channel();
        let file = File::open(format!("/run/netns/{}", venue.gateway)).unwrap();
        let kept = Arc::clone(&entries);
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (recorder, submissions) = Recorder::new();
                tokio::spawn(keep(submissions, kept, answers));
                let mut watcher = NatWatcher::subscribe().unwrap();
                watcher.look_again_every(every);
                watcher.dump_first(&recorder).await.unwrap();
                started.send(()).unwrap();
                watcher.run(recorder, stopped).await.unwrap();
            });
        });
        ready.recv_timeout(PATIENCE).expect("the watcher starts");
        Self { entries, journal, stop, thread: Some(thread) }
    }

    fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }

    fn facts(&self) -> Vec<NatFact> {
        self.entries()
            .into_iter()
            .flat_map(|entry| if let Entry::Nat(facts) = entry { facts } else { Vec::new() })
            .collect()
    }

    fn translations(&self, event: NatEvent) -> BTreeSet<Translation> {
        self.facts().iter().filter(|fact| fact.event == event).map(Translation::of).collect()
    }

    fn changes(&self) -> Vec<(NatWatch, i64)> {
        let change = |entry| if let Entry::NatWatch(fact) = entry { Some((fact.watch, fact.at_ns)) } else { None };
        self.entries().into_iter().filter_map(change).collect()
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "waited in vain until {what}; recorded: {:?}", self.changes());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Watch {
    /// Stops the watcher, which records what came last.
    fn end(&mut self) {
        self.journal.send_replace(Journal::Takes);
        self.stop.send_replace(true);
        let Some(thread) = self.thread.take() else { return };
        let ended = thread.join();
        assert!(ended.is_ok() || std::thread::panicking(), "the watcher ended in disorder");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

/// The journal's end: keeps what is submitted, or does as it is told.
async fn keep(
    mut submissions: tokio::sync::mpsc::Receiver<Submission>,
    entries: Arc<Mutex<Vec<Entry>>>,
    journal: watch::Receiver<Journal>,
) {
    while let Some(submission) = submissions.recv().await {
        while *journal.borrow() == Journal::Stalls {
            std::thread::sleep(Duration::from_millis(5));
        }
        let refuses = *journal.borrow() == Journal::Refuses;
        let outcome = if refuses { Err(NotRecorded::Journal("full".into())) } else { Ok(()) };
        if !refuses {
            entries.lock().unwrap().extend(submission.entries);
        }
        // The watcher may be gone at the end of a test.
        let _ = submission.committed.send(outcome);
    }
}

/// Connects to a port of the server; the connection, the client's own port and where the server saw it come from.
fn connect_tcp(venue: &Venue, port: u16) -> (TcpStream, TcpStream, u16, SocketAddr) {
    let listener = in_namespace(&venue.server, || TcpListener::bind((SERVER, port)).unwrap());
    let mut stream = in_namespace(&venue.client, || TcpStream::connect((SERVER, port)).unwrap());
    let (mut accepted, seen) = listener.accept().unwrap();
    stream.write_all(b"?").unwrap();
    accepted.read_exact(&mut [0]).unwrap();
    let own = stream.local_addr().unwrap().port();
    (stream, accepted, own, seen)
}

/// Sends one datagram; the client's own port and where the server saw it come from.
fn send_udp(venue: &Venue) -> (u16, SocketAddr) {
    let server = in_namespace(&venue.server, || UdpSocket::bind((SERVER, TRANSLATED_PORT)).unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = in_namespace(&venue.client, || UdpSocket::bind((CLIENT, 0)).unwrap());
    client.send_to(b"?", (SERVER, TRANSLATED_PORT)).unwrap();
    let (_, seen) = server.recv_from(&mut [0; 8]).unwrap();
    (client.local_addr().unwrap().port(), seen)
}

/// Sends an echo request; the identifier the server saw.
fn ping(venue: &Venue, source: Ipv4Addr, identifier: u16) -> u16 {
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
    let server = in_namespace(&venue.server, raw);
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = in_namespace(&venue.client, raw);
    client.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    client.send_to(&echo_request(identifier), &SocketAddr::from((SERVER, 0)).into()).unwrap();
    loop {
        // A raw socket gives the IP header too (RFC 791 §3.1), then the ICMP message (RFC 792).
        let mut packet = [0; 128];
        let len = (&server).read(&mut packet).unwrap();
        let icmp = &packet[usize::from(packet[0] & 0xf) * 4..len];
        if packet[12..16] == PUBLIC.octets() && icmp[0] == 8 {
            return u16::from_be_bytes([icmp[4], icmp[5]]);
        }
    }
}

fn echo_request(identifier: u16) -> [u8; 8] {
    let [high, low] = identifier.to_be_bytes();
    // The Internet checksum (RFC 1071) of two words that are not zero: type and code, and the identifier.
    let sum = 0x0800_u32 + u32::from(identifier);
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    let [check_high, check_low] = checksum.to_be_bytes();
    [8, 0, check_high, check_low, high, low, 0, 0]
}

fn now_ns() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos().try_into().unwrap()
}

fn translation(protocol: u8, client: (Ipv4Addr, u16), peer_port: u16, public: SocketAddr) -> Translation {
    Translation {
        protocol,
        client: (client.0.into(), client.1),
        peer: (SERVER.into(), peer_port),
        public: (public.ip(), public.port()),
    }
}

#[test]
fn every_translation_is_recorded_as_the_server_saw_it() {
    let venue = Venue::raise();
    let before_ns = now_ns();
    let watch = Watch::start(&venue);

    let (_stream, _accepted, tcp_port, tcp_seen) = connect_tcp(&venue, TRANSLATED_PORT);
    let (udp_port, udp_seen) = send_udp(&venue);
    // Two clients with the same identifier: one of them must get another.
    let identifiers = [(CLIENT, ping(&venue, CLIENT, 4242)), (OTHER_CLIENT, ping(&venue, OTHER_CLIENT, 4242))];
    let (_plain, _plain_accepted, _, plain_seen) = connect_tcp(&venue, UNTRANSLATED_PORT);

    assert_eq!((tcp_seen.ip(), udp_seen.ip(), plain_seen.ip()), (PUBLIC.into(), PUBLIC.into(), CLIENT.into()));
    assert_ne!(identifiers[0].1, identifiers[1].1);
    let mut expected = BTreeSet::from([
        translation(6, (CLIENT, tcp_port), TRANSLATED_PORT, tcp_seen),
        translation(17, (CLIENT, udp_port), TRANSLATED_PORT, udp_seen),
    ]);
    expected.extend(identifiers.map(|(client, seen)| translation(1, (client, 4242), 0, (PUBLIC, seen).into())));
    assert_eq!(venue.listed(), expected, "conntrack's own tool agrees with what the server saw");
    watch.wait_until("all translations are recorded", |watch| {
        watch.translations(NatEvent::Created).len() >= expected.len()
    });
    assert_eq!(watch.translations(NatEvent::Created), expected);
    let [(NatWatch::Started, started_ns)] = watch.changes()[..] else { panic!("{:?}", watch.changes()) };
    assert!(before_ns <= started_ns, "nothing is known of the time before");
    assert!(watch.facts().iter().all(|fact| (started_ns..=now_ns()).contains(&fact.at_ns)));

    venue.forget_all();
    watch.wait_until("all ends are recorded", |watch| watch.translations(NatEvent::Destroyed).len() >= expected.len());
    assert_eq!(watch.translations(NatEvent::Destroyed), expected);
}

#[test]
fn a_connection_that_was_there_before_is_found() {
    let venue = Venue::raise();
    let (_stream, _accepted, port, seen) = connect_tcp(&venue, TRANSLATED_PORT);
    let (_plain, _plain_accepted, ..) = connect_tcp(&venue, UNTRANSLATED_PORT);
    let watch = Watch::start(&venue);
    let expected = BTreeSet::from([translation(6, (CLIENT, port), TRANSLATED_PORT, seen)]);
    assert_eq!(watch.translations(NatEvent::Found), expected);
    assert_eq!(watch.translations(NatEvent::Created), BTreeSet::new());
    let entries = watch.entries();
    let is_last_started = matches!(entries.last(), Some(Entry::NatWatch(fact)) if fact.watch == NatWatch::Started);
    assert!(is_last_started, "the watch is declared after what was found: {entries:?}");
}

/// The kernel reports nothing of a connection that was made before anybody listened, not even its end.
#[test]
fn an_end_that_the_kernel_does_not_report_is_found_out() {
    let venue = Venue::raise();
    venue.set_conntrack_events("2");
    let (_stream, _accepted, port, seen) = connect_tcp(&venue, TRANSLATED_PORT);
    let (_other_stream, _other_accepted, other_port, other_seen) = connect_tcp(&venue, TRANSLATED_PORT);
    let watch = Watch::start_and_look_again_every(&venue, Duration::from_millis(200));
    let [gone, stays] = [(port, seen), (other_port, other_seen)]
        .map(|(port, seen)| translation(6, (CLIENT, port), TRANSLATED_PORT, seen));
    assert_eq!(watch.translations(NatEvent::Found), BTreeSet::from([gone, stays]));
    let port = port.to_string();
    let deleted =
        in_namespace(&venue.gateway, || Command::new("conntrack").args(["-D", "-p", "tcp", "--sport", &port]).output());
    assert!(deleted.unwrap().status.success());
    watch.wait_until("it is missed", |watch| !watch.translations(NatEvent::Missed).is_empty());
    assert_eq!(watch.translations(NatEvent::Missed), BTreeSet::from([gone]));
    assert_eq!(
        watch.translations(NatEvent::Destroyed),
        BTreeSet::new(),
        "the kernel reports it here: is the setting another?"
    );
    let looks = |watch: &Watch| {
        watch.facts().iter().filter(|fact| fact.event == NatEvent::Found && Translation::of(fact) == stays).count()
    };
    let before = looks(&watch);
    watch.wait_until("the other is found again", |watch| looks(watch) > before);
}

#[test]
fn events_that_are_switched_off_are_an_error_that_says_how_to_switch_them_on() {
    let venue = Venue::raise();
    venue.set_conntrack_events("0");
    let refused = in_namespace(&venue.gateway, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { NatWatcher::subscribe().map(drop) })
    });
    let Err(error) = refused else { panic!("subscribed where no event comes") };
    assert!(matches!(error, NatError::EventsOff), "{error:?}");
    assert!(error.to_string().contains("nf_conntrack_events"), "{error}");
}

/// Sends one datagram each to many ports of the server: as many new connections, and as many events.
fn flood(venue: &Venue, clients: u16) {
    for _ in 0..clients {
        let client = in_namespace(&venue.client, || UdpSocket::bind((CLIENT, 0)).unwrap());
        for port in 1..=60_000 {
            // The socket's own buffer may be full for a moment.
            while let Err(error) = client.send_to(b"?", (SERVER, port)) {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
        }
    }
}

#[test]
fn an_overrun_is_recorded_and_followed_by_everything_there_is() {
    let venue = Venue::raise();
    let watch = Watch::start(&venue);
    watch.journal.send_replace(Journal::Stalls);
    flood(&venue, 3);
    watch.journal.send_replace(Journal::Takes);
    watch.wait_until("the watch is whole again", |watch| watch.changes().len() >= 3);
    let kinds: Vec<_> = watch.changes().iter().map(|(change, _)| *change).collect();
    assert_eq!(kinds[..3], [NatWatch::Started, NatWatch::Lost, NatWatch::Started]);
    let listed = venue.listed();
    assert!(listed.len() > 100_000, "the flood went through: {}", listed.len());
    watch.wait_until("everything there is is known", |watch| {
        let known = &watch.translations(NatEvent::Created) | &watch.translations(NatEvent::Found);
        listed.is_subset(&known)
    });
}

#[test]
fn a_connection_made_right_after_an_overrun_is_known_or_said_to_be_lost() {
    let venue = Venue::raise();
    let watch = Watch::start(&venue);
    watch.journal.send_replace(Journal::Stalls);
    flood(&venue, 3);
    watch.journal.send_replace(Journal::Takes);
    watch.wait_until("the watch says it is whole again", |watch| watch.changes().len() >= 3);
    // From here on everything must be reported, or be said to be lost once more.
    let declared_ns = now_ns();
    let (port, seen) = send_udp(&venue);
    let expected = translation(17, (CLIENT, port), TRANSLATED_PORT, seen);
    watch.wait_until("the new connection is known, or another loss is", |watch| {
        let known = &watch.translations(NatEvent::Created) | &watch.translations(NatEvent::Found);
        known.contains(&expected)
            || watch.changes().iter().any(|(change, at_ns)| *change == NatWatch::Lost && *at_ns >= declared_ns)
    });
}

#[test]
fn what_the_journal_refuses_is_kept_until_it_takes_it() {
    let venue = Venue::raise();
    let mut watch = Watch::start(&venue);
    watch.journal.send_replace(Journal::Refuses);
    flood(&venue, 1);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(watch.facts().len(), 0);
    watch.journal.send_replace(Journal::Takes);
    let listed = venue.listed();
    assert!(listed.len() >= 60_000, "the flood went through: {}", listed.len());
    watch.wait_until("everything is recorded", |watch| watch.facts().len() >= listed.len());
    let created: Vec<Translation> = watch.facts().iter().map(Translation::of).collect();
    assert_eq!(created.iter().copied().collect::<BTreeSet<_>>(), listed);
    assert_eq!(created.len(), listed.len(), "each is recorded once");
    watch.end();
    let kinds: Vec<_> = watch.changes().iter().map(|(change, _)| *change).collect();
    assert_eq!(kinds, [NatWatch::Started, NatWatch::Stopped], "nothing was lost");
}

#[test]
fn what_came_last_is_recorded_when_the_watcher_stops() {
    let venue = Venue::raise();
    let mut watch = Watch::start(&venue);
    let (port, seen) = send_udp(&venue);
    watch.end();
    let expected = BTreeSet::from([translation(17, (CLIENT, port), TRANSLATED_PORT, seen)]);
    assert_eq!(watch.translations(NatEvent::Created), expected);
    let Some(Entry::NatWatch(last)) = watch.entries().pop() else { panic!("{:?}", watch.entries()) };
    assert_eq!(last.watch, NatWatch::Stopped);
}
