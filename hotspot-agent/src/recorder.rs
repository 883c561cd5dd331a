//! The way into the journal: a fact goes in, and an answer comes back once it is on disk.
//!
//! Owns the channel between the sources (RADIUS, conntrack, files) and the thread that writes the journal. Guarantees that
//! [`Recorder::record`] returns `Ok` only after the fsync that covers the facts. Never drops a fact silently.

use hotspot_archive::entry::Entry;
use tokio::sync::{mpsc, oneshot};

/// The facts could not be made durable; whoever reported them must not be told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    #[error("the journal could not be written: {0}")]
    Journal(String),
    #[error("the agent is shutting down")]
    ShuttingDown,
}

/// Facts waiting for the next commit.
pub struct Submission {
    pub entries: Vec<Entry>,
    pub committed: oneshot::Sender<Result<(), NotRecorded>>,
}

/// A handle that sources use to record facts.
#[derive(Clone)]
pub struct Recorder {
    submissions: mpsc::Sender<Submission>,
}

/// How many submissions may wait for a commit; beyond it sources wait in `record`, which slows them down and loses nothing.
const SUBMISSIONS_MAX: usize = 8192;

impl Recorder {
    /// A recorder and the end that the journal's thread reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Submission>) {
        let (submissions, receiver) = mpsc::channel(SUBMISSIONS_MAX);
        (Self { submissions }, receiver)
    }

    /// Records facts; returns after they are on disk (fdatasync).
    pub async fn record(&self, entries: Vec<Entry>) -> Result<(), NotRecorded> {
        let (committed, outcome) = oneshot::channel();
        self.submissions.send(Submission { entries, committed }).await.map_err(|_| NotRecorded::ShuttingDown)?;
        outcome.await.unwrap_or(Err(NotRecorded::ShuttingDown))
    }
}
