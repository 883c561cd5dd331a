//! NAT bindings, from the kernel's connection tracking over netlink.
//!
//! Subscribes before it dumps, so that no binding falls between the two. A receive buffer that overflowed is recorded as lost
//! and followed by a new dump. Only translated connections are recorded; that the others are not is said by the watch. Times are the
//! kernel's where it gives them (`net.netfilter.nf_conntrack_timestamp`), else those of reading.
//!
//! With `nf_conntrack_events=2` the kernel reports nothing of a connection that was made before anybody listened, not even its end
//! (`nf_ct_ecache_ext_add` in `net/netfilter/nf_conntrack_ecache.c`). So what the first dump found is looked for again until it is gone.

mod message;
mod silent;
mod socket;
mod translation;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hotspot_archive::entry::Entry;
use hotspot_core::WallNs;
use hotspot_core::fact::{NatFact, NatWatch, NatWatchFact};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::capture::clock::ClockReading;
use crate::recorder::{NotRecorded, Recorder};
use message::Message;
use silent::Silent;
use socket::{ConntrackSocket, ReadBuffer, Received};
use translation::Found;

/// Facts in one journal entry.
const BATCH_MAX: usize = 2048;
/// Facts are submitted this often while there are any.
const BATCH_EVERY: Duration = Duration::from_millis(50);
/// Messages read in a row before anything else is looked at.
const READS_MAX: usize = 256;
/// How long to wait after the journal refused.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// Facts held while the journal cannot be written, about 100 MiB. Then nothing is read, the kernel's buffer overflows in the end,
/// and that is recorded as lost.
const PENDING_MAX: usize = 1 << 20;

/// Why translations cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    #[error("connection tracking is not in this kernel or namespace; run with --no-nat, or load nf_conntrack")]
    NoConntrack,
    #[error(
        "conntrack events are off; `sysctl net.netfilter.nf_conntrack_events=1` before there is traffic, or run with --no-nat"
    )]
    EventsOff,
    #[error("the conntrack socket failed")]
    Socket(#[source] io::Error),
    #[error("translations could not be recorded")]
    NotRecorded(#[from] NotRecorded),
}

/// A subscribed watcher.
pub struct NatWatcher {
    events: AsyncFd<ConntrackSocket>,
    reading: Reading,
    /// From when on every translation is reported.
    subscribed_ns: WallNs,
    overruns: u64,
    /// Translations whose ends may not be reported.
    silent: Silent,
}

/// What was read, and how far.
struct Reading {
    buffer: ReadBuffer,
    pending: Pending,
    /// The last moment of which it is known that no report had been lost: a read says so before it gives anything else.
    whole_until_ns: WallNs,
    /// Messages about connections that could not be parsed.
    unreadable: u64,
}

impl NatWatcher {
    /// Subscribes in this network namespace; must be called inside the runtime.
    pub fn subscribe() -> Result<Self, NatError> {
        match std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_events") {
            Ok(value) if value.trim() == "0" => return Err(NatError::EventsOff),
            Ok(_) => {}
            Err(_) => return Err(NatError::NoConntrack),
        }
        let socket = ConntrackSocket::subscribe().map_err(NatError::Socket)?;
        let subscribed_ns = ClockReading::now().wall_now();
        // SAFETY: the socket owns its descriptor, and keeps it until it is dropped.
        let events =
            unsafe { AsyncFd::register(socket) }.map_err(|refused| NatError::Socket(refused.into_parts().1))?;
        let reading = Reading {
            buffer: socket::read_buffer(),
            pending: Pending::default(),
            whole_until_ns: subscribed_ns,
            unreadable: 0,
        };
        Ok(Self { events, reading, subscribed_ns, overruns: 0, silent: Silent::default() })
    }

    /// How long to wait before looking again for translations whose ends may not be reported.
    pub fn look_again_every(&mut self, every: Duration) {
        self.silent.look_again_every(every);
    }

    /// Records the bindings there are; events meanwhile wait in the socket.
    pub async fn dump_first(&mut self, recorder: &Recorder) -> Result<(), NatError> {
        let found = self.dump().await?;
        self.silent.begin(found);
        recorder.record(self.reading.pending.take()).await?;
        Ok(())
    }

    /// Records events until `stop` changes, then the last ones and that nobody watches any more.
    ///
    /// Goes on reading while a commit is under way, and keeps what the journal refuses until it is taken.
    pub async fn run(mut self, recorder: Recorder, mut stop: watch::Receiver<bool>) -> Result<(), NatError> {
        let mut commit: Option<Commit> = None;
        let mut next = Instant::now();
        loop {
            tokio::select! {
                outcome = poll_fn(|context| poll_commit(&mut commit, context)), if commit.is_some() => {
                    match (outcome, commit.take()) {
                        (Err(NotRecorded::Journal(_)), Some(refused)) => {
                            self.reading.pending.put_back(refused.entries);
                            next = Instant::now() + RETRY_EVERY;
                        }
                        (outcome, _) => outcome?,
                    }
                }
                () = tokio::time::sleep_until(next.into()), if commit.is_none() && !self.reading.pending.is_empty() => {
                    commit = Some(Commit::new(&recorder, self.reading.pending.take()));
                    next = Instant::now() + BATCH_EVERY;
                }
                ready = self.events.readable(), if self.reading.pending.facts < PENDING_MAX => {
                    let mut ready = ready.map_err(NatError::Socket)?;
                    let received = self.reading.read_some(ready.get_inner())?;
                    if received == Received::Nothing {
                        ready.clear_ready();
                    }
                    drop(ready);
                    if received == Received::Overrun {
                        self.resync().await?;
                    }
                }
                () = tokio::time::sleep_until(self.silent.next().into()), if self.silent.is_any() => self.look_again().await?,
                _ = stop.changed() => break,
            }
        }
        self.read_to_the_end()?;
        self.reading.pending.add_watch(NatWatch::Stopped, ClockReading::now().wall_now());
        if let Some(commit) = commit
            && commit.outcome.await.is_err()
        {
            self.reading.pending.put_back(commit.entries);
        }
        recorder.record(self.reading.pending.take()).await?;
        Ok(())
    }

    async fn resync(&mut self) -> Result<(), NatError> {
        self.overruns += 1;
        warn!(
            overruns = self.overruns,
            "conntrack events were lost (the receive buffer overflowed); reading all bindings again"
        );
        let lost_ns = self.reading.whole_until_ns;
        // After an overrun the kernel drops every report until the socket is empty, and says so only once
        // (NETLINK_S_CONGESTED in net/netlink/af_netlink.c): only from then on is everything reported again.
        self.read_to_the_end()?;
        self.subscribed_ns = ClockReading::now().wall_now();
        self.reading.pending.add_watch(NatWatch::Lost, lost_ns);
        self.dump().await.map(drop)
    }

    /// Looks for the translations whose ends may not be reported, and records which are there and which are gone.
    async fn look_again(&mut self) -> Result<(), NatError> {
        let (began, now_ns) = (Instant::now(), ClockReading::now().wall_now());
        let found = self.bindings(now_ns).await?;
        self.reading.pending.extend(self.silent.compare(found.into_iter().map(|found| found.fact), now_ns));
        self.silent.wait_for(began.elapsed());
        Ok(())
    }

    /// Reads until the socket is empty.
    fn read_to_the_end(&mut self) -> Result<(), NatError> {
        while self.reading.read_one(self.events.get_ref())? != Received::Nothing {}
        Ok(())
    }

    /// Adds the bindings there are, then that from the subscription on all are reported. Returns what was found.
    async fn dump(&mut self) -> Result<Vec<NatFact>, NatError> {
        let now_ns = self.subscribed_ns;
        let bindings = self.bindings(now_ns).await?;
        let took_ms = (ClockReading::now().wall_now() - now_ns) / 1_000_000;
        info!(bindings = bindings.len(), took_ms, "watching translations");
        self.reading.pending.extend(bindings.iter().flat_map(|found| [Some(found.fact), found.began]).flatten());
        self.reading.pending.add_watch(NatWatch::Started, now_ns);
        Ok(bindings.into_iter().map(|found| found.fact).collect())
    }

    /// The bindings there are.
    async fn bindings(&mut self, now_ns: WallNs) -> Result<Vec<Found>, NatError> {
        let answers = tokio::task::spawn_blocking(socket::dump).await;
        let answers = answers.unwrap_or_else(|failed| Err(failed.into())).map_err(NatError::Socket)?;
        let mut bindings = Vec::new();
        for bytes in answers {
            parse(&bytes, &mut self.reading.unreadable, |message| bindings.extend(translation::found(message, now_ns)));
        }
        Ok(bindings)
    }
}

impl Reading {
    /// Reads until there is nothing more, something was lost, or it is time to look at the rest; says how it ended.
    fn read_some(&mut self, socket: &ConntrackSocket) -> Result<Received, NatError> {
        for _ in 0..READS_MAX {
            let received = self.read_one(socket)?;
            if !matches!(received, Received::Messages(_)) {
                return Ok(received);
            }
        }
        Ok(Received::Messages(0))
    }

    fn read_one(&mut self, socket: &ConntrackSocket) -> Result<Received, NatError> {
        let received = socket.receive(&mut self.buffer).map_err(NatError::Socket)?;
        let now_ns = ClockReading::now().wall_now();
        if let Received::Messages(len) = received {
            parse(&self.buffer[..len], &mut self.unreadable, |message| {
                self.pending.extend(translation::event(message, now_ns));
            });
        }
        if received != Received::Overrun {
            self.whole_until_ns = now_ns;
        }
        Ok(received)
    }
}

/// Entries that wait to be recorded, in order.
#[derive(Default)]
struct Pending {
    entries: Vec<Entry>,
    facts: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn extend(&mut self, facts: impl IntoIterator<Item = NatFact>) {
        for fact in facts {
            self.facts += 1;
            match self.entries.last_mut() {
                Some(Entry::Nat(batch)) if batch.len() < BATCH_MAX => batch.push(fact),
                _ => self.entries.push(Entry::Nat(vec![fact])),
            }
        }
    }

    fn add_watch(&mut self, watch: NatWatch, at_ns: WallNs) {
        self.entries.push(Entry::NatWatch(NatWatchFact { watch, at_ns }));
    }

    fn take(&mut self) -> Vec<Entry> {
        self.facts = 0;
        std::mem::take(&mut self.entries)
    }

    /// Before everything that came since.
    fn put_back(&mut self, mut entries: Vec<Entry>) {
        let facts = |entry: &Entry| if let Entry::Nat(facts) = entry { facts.len() } else { 0 };
        self.facts += entries.iter().map(facts).sum::<usize>();
        entries.append(&mut self.entries);
        self.entries = entries;
    }
}

/// A commit under way, with what to submit again where the journal refuses.
struct Commit {
    entries: Vec<Entry>,
    outcome: Pin<Box<dyn Future<Output = Result<(), NotRecorded>> + Send>>,
}

impl Commit {
    fn new(recorder: &Recorder, entries: Vec<Entry>) -> Self {
        let (recorder, submitted) = (recorder.clone(), entries.clone());
        Self { entries, outcome: Box::pin(async move { recorder.record(submitted).await }) }
    }
}

fn poll_commit(commit: &mut Option<Commit>, context: &mut Context<'_>) -> Poll<Result<(), NotRecorded>> {
    commit.as_mut().map_or(Poll::Pending, |commit| commit.outcome.as_mut().poll(context))
}

/// Every connection in a datagram; those that cannot be read are counted.
fn parse(bytes: &[u8], unreadable: &mut u64, mut each: impl FnMut(&Message)) {
    for message in message::parse(bytes) {
        if let Some(message) = message {
            each(&message);
            continue;
        }
        *unreadable += 1;
        if unreadable.is_power_of_two() {
            warn!(so_far = unreadable, "conntrack sent a message that cannot be read; its translation is not known");
        }
    }
}
