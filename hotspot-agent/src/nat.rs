//! NAT bindings, from the kernel's connection tracking over netlink.
//!
//! Subscribes before it dumps, so that no binding falls between the two. A receive buffer that overflowed is recorded as lost
//! and followed by a new dump. Only translated connections are recorded; that the others are not is said by the watch.

mod message;
mod socket;

use std::io;
use std::time::{Duration, Instant};

use hotspot_archive::entry::Entry;
use hotspot_core::WallNs;
use hotspot_core::fact::{NatEvent, NatFact, NatWatch, NatWatchFact};
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

use crate::capture::clock::ClockReading;
use crate::recorder::{NotRecorded, Recorder};
use message::Message;
use socket::{ConntrackSocket, Received};

/// Facts that wait for a commit; a commit is made at least this often while there are any.
const BATCH_MAX: usize = 2048;
const BATCH_EVERY: Duration = Duration::from_millis(50);

/// Why translations cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    #[error("connection tracking is not in this kernel or namespace; run with --no-nat, or load nf_conntrack")]
    NoConntrack,
    #[error("conntrack events are off; `sysctl net.netfilter.nf_conntrack_events=2`, or run with --no-nat")]
    EventsOff,
    #[error("the conntrack socket failed")]
    Socket(#[source] io::Error),
    #[error("translations could not be recorded")]
    NotRecorded(#[from] NotRecorded),
}

/// A subscribed watcher.
pub struct NatWatcher {
    events: AsyncFd<ConntrackSocket>,
    /// From when on every translation is reported.
    subscribed_ns: WallNs,
    /// The last moment of which it is known that no report had been lost: a read says so before it gives anything else.
    whole_until_ns: WallNs,
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
        Ok(Self { events, subscribed_ns, whole_until_ns: subscribed_ns })
    }

    /// Records the bindings there are; events meanwhile wait in the socket.
    pub async fn dump_first(&mut self, recorder: &Recorder) -> Result<(), NatError> {
        self.dump(recorder).await
    }

    /// Records events until the task is dropped.
    pub async fn run(mut self, recorder: Recorder) -> Result<(), NatError> {
        let mut batch: Vec<NatFact> = Vec::new();
        let mut began = Instant::now();
        loop {
            let ready = tokio::time::timeout(BATCH_EVERY, self.events.readable()).await;
            if let Ok(ready) = ready {
                let mut ready = ready.map_err(NatError::Socket)?;
                let received = ready.get_inner().receive().map_err(NatError::Socket)?;
                if matches!(received, Received::Nothing) {
                    ready.clear_ready();
                }
                drop(ready);
                if batch.is_empty() {
                    began = Instant::now();
                }
                if self.learn(&received, &mut batch) {
                    self.resync(&recorder, &mut batch).await?;
                }
            }
            if batch.len() >= BATCH_MAX || !batch.is_empty() && began.elapsed() >= BATCH_EVERY {
                record(&recorder, &mut batch).await?;
            }
        }
    }

    /// Adds what a read gave; true where something was lost before it.
    fn learn(&mut self, received: &Received, batch: &mut Vec<NatFact>) -> bool {
        let now_ns = ClockReading::now().wall_now();
        match received {
            Received::Messages(bytes) => {
                batch.extend(message::parse(bytes).filter_map(|message| fact(&message, now_ns)));
            }
            Received::Nothing => {}
            Received::Overrun => return true,
        }
        self.whole_until_ns = now_ns;
        false
    }

    async fn resync(&mut self, recorder: &Recorder, batch: &mut Vec<NatFact>) -> Result<(), NatError> {
        warn!("conntrack events were lost (the receive buffer overflowed); reading all bindings again");
        let lost = NatWatchFact { watch: NatWatch::Lost, at_ns: self.whole_until_ns };
        // After an overrun the kernel drops every report until the socket is empty, and says so only once
        // (NETLINK_S_CONGESTED in net/netlink/af_netlink.c): only from then on is everything reported again.
        loop {
            let received = self.events.get_ref().receive().map_err(NatError::Socket)?;
            self.learn(&received, batch);
            if matches!(received, Received::Nothing) {
                break;
            }
        }
        self.subscribed_ns = ClockReading::now().wall_now();
        record(recorder, batch).await?;
        recorder.record(vec![Entry::NatWatch(lost)]).await?;
        self.dump(recorder).await
    }

    /// Records the bindings there are, then that from the subscription on all are reported.
    async fn dump(&self, recorder: &Recorder) -> Result<(), NatError> {
        let mut found = Vec::new();
        let now_ns = self.subscribed_ns;
        for bytes in socket::dump().map_err(NatError::Socket)? {
            found.extend(
                message::parse(&bytes)
                    .filter_map(|message| fact(&message, now_ns))
                    .map(|fact| NatFact { event: NatEvent::Found, ..fact }),
            );
        }
        info!(bindings = found.len(), "watching translations");
        let mut entries: Vec<Entry> = found.chunks(BATCH_MAX).map(|chunk| Entry::Nat(chunk.to_vec())).collect();
        entries.push(Entry::NatWatch(NatWatchFact { watch: NatWatch::Started, at_ns: now_ns }));
        recorder.record(entries).await?;
        Ok(())
    }
}

async fn record(recorder: &Recorder, batch: &mut Vec<NatFact>) -> Result<(), NatError> {
    if batch.is_empty() {
        return Ok(());
    }
    recorder.record(vec![Entry::Nat(std::mem::take(batch))]).await?;
    Ok(())
}

/// What a message says about a translation; `None` for a connection whose client address is not translated.
fn fact(message: &Message, now_ns: WallNs) -> Option<NatFact> {
    let (original, reply) = (&message.original, &message.reply);
    let is_translated = original.source != reply.destination || original.source_port != reply.destination_port;
    is_translated.then_some(NatFact {
        event: if message.is_destroyed { NatEvent::Destroyed } else { NatEvent::Created },
        at_ns: now_ns,
        protocol: original.protocol,
        client_ip: original.source,
        client_port: original.source_port,
        peer_ip: original.destination,
        peer_port: original.destination_port,
        public_ip: reply.destination,
        public_port: reply.destination_port,
    })
}
