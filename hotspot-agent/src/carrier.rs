//! The carrier: the one thread that writes the journal.
//!
//! Carries what the kernel counted and what the sources reported into the journal, flushes, and only then tells them. While the
//! journal cannot be written nothing is read from the kernel, where it is safe, and nobody is told that anything was recorded.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hotspot_archive::entry::Entry;
use hotspot_archive::journal::JournalError;
use hotspot_core::WallNs;
use hotspot_core::record::CoverageRecord;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::capture::clock::{self, ClockReading};
use crate::capture::{Capture, CaptureError};
use crate::journals::Journals;
use crate::recorder::{NotRecorded, Submission};

/// How often the rings are read and what they held is flushed.
const TICK: Duration = Duration::from_millis(50);
/// How often the interfaces are looked at: whoever takes a program off is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A generation is not ended sooner than this, whatever the pressure.
const GENERATION_MIN: Duration = Duration::from_millis(500);
/// A journal is rotated when more than this was written to it, before compression: sealing holds one in memory, which takes some 1.8 times as much.
const JOURNAL_CONTENT_MAX: u64 = 512 << 20;
/// Submissions put into one flush at most.
const SUBMISSIONS_PER_COMMIT: usize = 4096;
/// What those are told who wait for a flush that does not come.
const NOT_WRITTEN: &str = "the disk does not take what is written";

/// What went wrong for good.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the sealer ended")]
    NoSealer,
    #[error("waiting for work failed")]
    Wait(#[source] std::io::Error),
}

/// How the agent is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    No,
    /// Detach, read everything, close.
    Detach,
    /// Leave the programs attached: the next start goes on.
    KeepAttached,
}

/// What a carrier needs to begin.
pub struct Beginning {
    pub capture: Capture,
    pub journals: Journals,
    pub submissions: mpsc::Receiver<Submission>,
    pub stop: watch::Receiver<Stop>,
    pub rotate: Duration,
    pub generation: Duration,
}

/// The running carrier.
pub struct Carrier {
    capture: Capture,
    journals: Journals,
    submissions: mpsc::Receiver<Submission>,
    stop: watch::Receiver<Stop>,
    rotate: Duration,
    generation: Duration,
    drained: Instant,
    looked: Instant,
    clock: ClockReading,
}

impl Carrier {
    #[must_use]
    pub fn new(beginning: Beginning) -> Self {
        let Beginning { capture, journals, submissions, stop, rotate, generation } = beginning;
        let now = Instant::now();
        Self {
            capture,
            journals,
            submissions,
            stop,
            rotate,
            generation,
            drained: now,
            looked: now,
            clock: ClockReading::now(),
        }
    }

    /// Carries until it is told to stop, then reads everything, closes the journal and lets the sealer finish.
    pub fn run(mut self, runtime: &Handle) -> Result<(), CarrierError> {
        let rings = {
            let _inside = runtime.enter();
            let fds = self.capture.ring_fds().map_err(CarrierError::Wait)?.into_iter();
            fds.map(|fd| {
                // SAFETY: an owned descriptor that nobody else closes, and the same for as long as it is registered.
                unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
                    .map_err(|refused| refused.into_parts().1)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(CarrierError::Wait)?
        };
        let mut tick = Instant::now() + TICK;
        loop {
            let first = runtime.block_on(wait(&mut self.submissions, &mut self.stop, &rings, tick));
            let stop = *self.stop.borrow();
            if stop != Stop::No {
                drop(rings);
                return self.end(stop, first);
            }
            self.journals.try_next(self.capture.interface_names())?;
            let read_rings = Instant::now() >= tick || first.is_none();
            self.commit(first, read_rings)?;
            if read_rings {
                tick = Instant::now() + TICK;
                self.turn()?;
            }
        }
    }

    /// Ends the generation and the journal when their time has come.
    fn turn(&mut self) -> Result<(), CarrierError> {
        // The wall clock is taken over between two journals.
        let mut clock_is_set = false;
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            let mut found = self.look_for_sleep();
            found.extend(self.capture.look_after_interfaces()?);
            self.keep(&found)?;
            clock_is_set = clock::set_by().is_some();
        }
        if self.journals.is_failing() {
            return Ok(());
        }
        let too_large = self.journals.content() > JOURNAL_CONTENT_MAX;
        let rotate = self.journals.age() >= self.rotate || too_large || clock_is_set;
        if rotate || self.drained.elapsed() >= self.generation || self.is_under_pressure() {
            self.drain()?;
        }
        if rotate && !self.journals.is_failing() {
            if let Some(step_ns) = clock::set_by() {
                self.note_step(step_ns)?;
            }
            self.close(None)?;
            self.journals.open_next(self.capture.interface_names())?;
        }
        Ok(())
    }

    /// Time the machine was suspended since the last look: nothing was seen.
    fn look_for_sleep(&mut self) -> Vec<Entry> {
        let now = ClockReading::now();
        let slept_ns = now.slept_since(&self.clock);
        self.clock = now;
        if slept_ns == 0 {
            return Vec::new();
        }
        info!(seconds = seconds(slept_ns), "the machine slept");
        let (from_ns, to_ns) = (now.wall_now().saturating_sub(slept_ns), now.wall_now());
        let why = format!("the machine slept for {:.3} s", seconds(slept_ns));
        vec![Entry::Gap(CoverageRecord::gap("", from_ns, to_ns, &why))]
    }

    /// Records that the wall clock was set, as the last of the journal that is by the clock before.
    fn note_step(&mut self, step_ns: i64) -> Result<(), CarrierError> {
        let way = if step_ns > 0 { "forward" } else { "back" };
        warn!(seconds = seconds(step_ns), way, "the wall clock was set; what follows is by the new one");
        let now_ns = ClockReading::now().wall_now();
        let then_ns = now_ns.saturating_add(step_ns);
        let why =
            format!("the wall clock was set {way} by {:.3} s; times before may be wrong by that", seconds(step_ns));
        self.keep(&[Entry::Gap(CoverageRecord::gap("", now_ns.min(then_ns), now_ns.max(then_ns), &why))])
    }

    /// Many flows had to make room: a new generation gives them room again.
    fn is_under_pressure(&self) -> bool {
        let dimensions = self.capture.dimensions();
        let slots = u64::from(dimensions.cpus) << dimensions.slots_per_cpu_log2;
        self.drained.elapsed() >= GENERATION_MIN && self.capture.evictions_so_far() > slots / 8
    }

    /// Puts what waits, and what the rings hold, on disk, and tells everybody.
    fn commit(&mut self, first: Option<Submission>, read_rings: bool) -> Result<(), CarrierError> {
        let mut submissions: Vec<Submission> = first.into_iter().collect();
        while submissions.len() < SUBMISSIONS_PER_COMMIT
            && let Ok(next) = self.submissions.try_recv()
        {
            submissions.push(next);
        }
        let outcome = if self.journals.is_failing() {
            Err(NOT_WRITTEN.to_owned())
        } else {
            let entries = submissions.iter_mut().flat_map(|submission| std::mem::take(&mut submission.entries));
            let entries: Vec<Entry> = entries.collect();
            self.capture.begin_segment(self.journals.sequence());
            let rings = read_rings.then(|| self.capture.read_rings());
            if let Some(rings) = &rings {
                self.journals.append(rings.entries())?;
            }
            let mark = self.journals.mark();
            let written = self.journals.write(&entries)?;
            if written.is_err() {
                // Sources report again what is refused, and then it would be there twice. Rings are read once: that stays.
                self.journals.withdraw(mark);
            } else if let Some(rings) = &rings {
                self.capture.release_rings(rings);
            }
            written
        };
        for submission in submissions {
            // Whoever asked may be gone.
            let _ = submission.committed.send(outcome.clone().map_err(NotRecorded::Journal));
        }
        Ok(())
    }

    /// Ends the active generation and puts it on disk. While the journal fails this is not called, so nothing piles up.
    fn drain(&mut self) -> Result<(), CarrierError> {
        self.capture.flush_logs();
        self.capture.begin_segment(self.journals.sequence());
        let journals = &mut self.journals;
        let read = self.capture.drain(|entry| {
            if let Entry::Done(done) = &entry {
                journals.append(unbalanced(&done.coverage).chain(coarse(&done.coverage)))?;
            }
            Ok::<_, CarrierError>(journals.append([entry])?)
        })?;
        self.drained = Instant::now();
        if self.journals.write(&[])?.is_ok() {
            self.capture.drained(&read);
            return Ok(());
        }
        // The kernel's half stays as it is until it is on disk; what was read is in the writer's buffer and goes first.
        while self.journals.is_failing() && *self.stop.borrow() == Stop::No {
            std::thread::sleep(TICK);
            self.refuse_submissions();
            self.journals.try_next(self.capture.interface_names())?;
        }
        if !self.journals.is_failing() {
            self.capture.drained(&read);
        }
        Ok(())
    }

    /// Writes what must not be lost, also while the journal fails: then with what is flushed next.
    fn keep(&mut self, entries: &[Entry]) -> Result<(), CarrierError> {
        if !entries.is_empty() {
            self.journals.write(entries)?.unwrap_or_default();
        }
        Ok(())
    }

    fn refuse_submissions(&mut self) {
        while let Ok(submission) = self.submissions.try_recv() {
            let failed = NotRecorded::Journal(NOT_WRITTEN.to_owned());
            let _ = submission.committed.send(Err(failed));
        }
    }

    /// Closes the journal and hands it to the sealer.
    fn close(&mut self, stopped_ns: Option<WallNs>) -> Result<(), CarrierError> {
        let last = self.capture.open_gaps();
        if self.journals.close(&last, stopped_ns)? { Ok(()) } else { Err(CarrierError::NoSealer) }
    }

    /// The last things: detach, read what is left, close, seal.
    fn end(mut self, stop: Stop, first: Option<Submission>) -> Result<(), CarrierError> {
        self.commit(first, true)?;
        // From here on nothing is counted, and what is still read was counted before.
        let stopped_ns = (stop == Stop::Detach).then(|| ClockReading::now().wall_now());
        if stop == Stop::Detach {
            self.capture.detach()?;
        }
        if !self.journals.is_failing() {
            self.drain()?;
        }
        self.close(stopped_ns)?;
        if self.journals.is_failing() {
            warn!("the journal could not be closed; what the kernel holds stays pinned for the next start");
        } else if stop == Stop::Detach {
            self.capture.remove_pins()?;
        }
        if self.journals.finish() { Ok(()) } else { Err(CarrierError::NoSealer) }
    }
}

/// A gap for each interface of which not every packet is accounted for.
fn unbalanced(coverage: &[CoverageRecord]) -> impl Iterator<Item = Entry> {
    coverage.iter().filter(|row| !row.balances()).map(|row| {
        error!(?row, "packets seen are not packets accounted for; a gap is recorded");
        let why = "packets seen are not packets accounted for";
        Entry::Gap(CoverageRecord::gap(&row.interface, row.from_ns, row.to_ns, why))
    })
}

/// A gap for each interface of which some packets are known by their client only: who asks for peers or ports does not find them.
fn coarse(coverage: &[CoverageRecord]) -> impl Iterator<Item = Entry> {
    coverage.iter().filter(|row| row.overflow.packets > 0).map(|row| {
        let why = "clients had used up what they have in detail: what more they did is in their totals only, without peers and ports";
        Entry::Gap(CoverageRecord::gap(&row.interface, row.from_ns, row.to_ns, why))
    })
}

fn seconds(nanoseconds: i64) -> f64 {
    nanoseconds.unsigned_abs() as f64 / 1e9
}

/// Waits for a submission, for the tick, for a ring that is half full, or for the end.
async fn wait(
    submissions: &mut mpsc::Receiver<Submission>,
    stop: &mut watch::Receiver<Stop>,
    rings: &[AsyncFd<OwnedFd>],
    tick: Instant,
) -> Option<Submission> {
    tokio::select! {
        submission = submissions.recv() => if let Some(submission) = submission { Some(submission) } else {
            tokio::time::sleep_until(tick.into()).await;
            None
        },
        () = tokio::time::sleep_until(tick.into()) => None,
        () = any_readable(rings) => None,
        _ = stop.changed() => None,
    }
}

async fn any_readable(rings: &[AsyncFd<OwnedFd>]) {
    let mut pending: Vec<_> = rings.iter().map(|ring| Box::pin(ring.readable())).collect();
    std::future::poll_fn(|context| {
        for ring in &mut pending {
            if let std::task::Poll::Ready(ready) = ring.as_mut().poll(context) {
                if let Ok(mut ready) = ready {
                    ready.clear_ready();
                }
                return std::task::Poll::Ready(());
            }
        }
        std::task::Poll::Pending
    })
    .await;
}
