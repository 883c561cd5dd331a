//! The carrier: the one thread that writes the journal.
//!
//! Carries what the kernel counted and what the sources reported into the journal, flushes, and only then tells them. While the
//! journal cannot be written nothing is read from the kernel, where it is safe, and nobody is told that anything was recorded.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use hotspot_archive::entry::{Entry, JournalClock, JournalHeader};
use hotspot_archive::journal::{JournalError, JournalKeys, JournalWriter};
use hotspot_archive::layout::DataDir;
use hotspot_core::record::CoverageRecord;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::capture::clock::{self, ClockReading};
use crate::capture::{Capture, CaptureError, GenerationRead};
use crate::recorder::{NotRecorded, Submission};
use crate::sealer::{SealJob, chain};

/// How often the rings are read and what they held is flushed.
const TICK: Duration = Duration::from_millis(50);
/// How often the interfaces are looked at: whoever takes a program off is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A generation is not ended sooner than this, whatever the pressure.
const GENERATION_MIN: Duration = Duration::from_millis(500);
/// A journal is rotated when it grows beyond this: sealing holds one in memory.
const JOURNAL_BYTES_MAX: u64 = 512 << 20;
/// Submissions put into one flush at most.
const SUBMISSIONS_PER_COMMIT: usize = 4096;

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
    pub journal: JournalWriter,
    pub header: JournalHeader,
    pub data: DataDir,
    pub keys: JournalKeys,
    pub submissions: mpsc::Receiver<Submission>,
    pub jobs: Sender<SealJob>,
    pub stop: watch::Receiver<Stop>,
    pub rotate: Duration,
    pub generation: Duration,
}

/// The running carrier.
pub struct Carrier {
    capture: Capture,
    journal: Option<JournalWriter>,
    header: JournalHeader,
    data: DataDir,
    keys: JournalKeys,
    submissions: mpsc::Receiver<Submission>,
    jobs: Sender<SealJob>,
    stop: watch::Receiver<Stop>,
    rotate: Duration,
    generation: Duration,
    opened: Instant,
    drained: Instant,
    looked: Instant,
    clock: ClockReading,
    /// How far the clock in force is ahead of the journal's.
    step_ns: i64,
    /// Since when the journal cannot be written.
    failing_since: Option<Instant>,
}

impl Carrier {
    #[must_use]
    pub fn new(beginning: Beginning) -> Self {
        let Beginning { capture, journal, header, data, keys, submissions, jobs, stop, rotate, generation } = beginning;
        let now = Instant::now();
        Self {
            capture,
            journal: Some(journal),
            header,
            data,
            keys,
            submissions,
            jobs,
            stop,
            rotate,
            generation,
            opened: now,
            drained: now,
            looked: now,
            clock: ClockReading::now(),
            step_ns: 0,
            failing_since: None,
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
            if self.failing_since.is_some() {
                self.try_new_journal();
            }
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
        if self.failing_since.is_some() {
            return Ok(());
        }
        let too_large = self.journal.as_ref().is_some_and(|journal| journal.len() > JOURNAL_BYTES_MAX);
        let rotate = self.opened.elapsed() >= self.rotate || too_large || clock_is_set;
        if rotate || self.drained.elapsed() >= self.generation || self.is_under_pressure() {
            self.drain()?;
        }
        if rotate && self.failing_since.is_none() {
            if let Some(step_ns) = clock::set_by() {
                self.note_step(step_ns)?;
            }
            self.close(false)?;
            self.open_next();
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
        let outcome = if self.failing_since.is_some() {
            Err("the disk does not take what is written".to_owned())
        } else {
            let entries = submissions.iter_mut().flat_map(|submission| std::mem::take(&mut submission.entries));
            let entries: Vec<Entry> = entries.collect();
            let rings = read_rings.then(|| self.capture.read_rings());
            if let (Some(journal), Some(rings)) = (self.journal.as_mut(), &rings) {
                rings.entries().try_for_each(|entry| journal.append(&entry))?;
            }
            let mark = self.journal.as_ref().map_or(0, JournalWriter::mark);
            let written = self.write(entries.iter())?;
            if written.is_err() {
                // Sources report again what is refused, and then it would be there twice. Rings are read once: that stays.
                self.journal.iter_mut().for_each(|journal| journal.withdraw(mark));
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
        let read = self.capture.drain()?;
        self.drained = Instant::now();
        self.record(&read)
    }

    fn record(&mut self, read: &GenerationRead) -> Result<(), CarrierError> {
        let mut entries: Vec<Entry> = read.rings.entries().collect();
        entries.extend(read.parts.iter().cloned().map(Entry::Part));
        for row in read.done.coverage.iter().filter(|row| !row.balances()) {
            error!(?row, "packets seen are not packets accounted for; a gap is recorded");
            let why = "packets seen are not packets accounted for";
            entries.push(Entry::Gap(CoverageRecord::gap(&row.interface, row.from_ns, row.to_ns, why)));
        }
        entries.push(Entry::Done(read.done.clone()));
        if self.write(entries.iter())?.is_ok() {
            self.capture.drained(read);
            return Ok(());
        }
        // The kernel's half stays as it is until it is on disk; what was read is in the writer's buffer and goes first.
        while self.failing_since.is_some() && *self.stop.borrow() == Stop::No {
            std::thread::sleep(TICK);
            self.refuse_submissions();
            self.try_new_journal();
        }
        if self.failing_since.is_none() {
            self.capture.drained(read);
        }
        Ok(())
    }

    /// Writes what must not be lost, also while the journal fails: then with what is flushed next.
    fn keep(&mut self, entries: &[Entry]) -> Result<(), CarrierError> {
        if self.failing_since.is_none() && !entries.is_empty() {
            return self.write(entries.iter()).map(drop);
        }
        if let Some(journal) = self.journal.as_mut() {
            entries.iter().try_for_each(|entry| journal.append(entry))?;
        }
        Ok(())
    }

    /// Appends and flushes. The inner error is for those who wait: the journal failed, and what was appended is kept.
    fn write<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) -> Result<Result<(), String>, CarrierError> {
        let Some(journal) = self.journal.as_mut() else { return Ok(Err("no journal".to_owned())) };
        for entry in entries {
            journal.append(entry)?;
        }
        match journal.commit() {
            Ok(()) => Ok(Ok(())),
            Err(failure) => {
                error!(error = %chain(&failure), "the journal cannot be written; the kernel keeps counting until it can");
                self.failing_since = Some(Instant::now());
                Ok(Err(chain(&failure)))
            }
        }
    }

    fn refuse_submissions(&mut self) {
        while let Ok(submission) = self.submissions.try_recv() {
            let failed = NotRecorded::Journal("the disk does not take what is written".to_owned());
            let _ = submission.committed.send(Err(failed));
        }
    }

    /// Leaves a journal that failed, and goes on in the next with what was not acknowledged.
    fn try_new_journal(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        let failed = self.header.sequence;
        let header = self.next_header();
        let path = self.data.journal(header.sequence);
        // Left by an attempt before this one.
        let _ = std::fs::remove_file(&path);
        match journal.move_to(&path, &header) {
            Ok(fresh) => {
                info!(sequence = header.sequence, "the journal can be written again");
                self.begin(fresh, header);
                self.failing_since = None;
                if self.jobs.send(SealJob::Closed { sequence: failed }).is_err() {
                    warn!("the sealer ended; the journal is sealed at the next start");
                }
            }
            Err((journal, _)) => self.journal = Some(*journal),
        }
    }

    /// Closes the journal and hands it to the sealer.
    fn close(&mut self, shutdown: bool) -> Result<(), CarrierError> {
        let at_ns = ClockReading::now().wall_now();
        let mut last = self.capture.open_gaps();
        last.push(Entry::Closed { at_ns, shutdown });
        if self.write(last.iter())?.is_ok() {
            self.jobs.send(SealJob::Closed { sequence: self.header.sequence }).map_err(|_| CarrierError::NoSealer)?;
        }
        Ok(())
    }

    fn open_next(&mut self) {
        if self.failing_since.is_some() {
            return;
        }
        self.step_ns += clock::adopt();
        let header = self.next_header();
        match JournalWriter::create(&self.data.journal(header.sequence), &header, &self.keys) {
            Ok(journal) => self.begin(journal, header),
            Err(failure) => {
                error!(error = %chain(&failure), "no new journal; the kernel keeps counting until there is one");
                self.failing_since = Some(Instant::now());
            }
        }
    }

    fn begin(&mut self, mut journal: JournalWriter, header: JournalHeader) {
        for entry in self.capture.interface_names() {
            // Only buffered here; the next commit reports what fails.
            let _ = journal.append(&entry);
        }
        self.journal = Some(journal);
        self.header = header;
        self.step_ns = 0;
        self.opened = Instant::now();
    }

    fn next_header(&self) -> JournalHeader {
        let now = ClockReading::now();
        JournalHeader {
            sequence: self.header.sequence + 1,
            opened_ns: now.wall_now(),
            clock: Some(JournalClock { boot_to_wall_ns: now.boot_to_wall_ns(), step_ns: self.step_ns }),
            ..self.header.clone()
        }
    }

    /// The last things: detach, read what is left, close, seal.
    fn end(mut self, stop: Stop, first: Option<Submission>) -> Result<(), CarrierError> {
        self.commit(first, true)?;
        if stop == Stop::Detach {
            self.capture.detach()?;
        }
        if self.failing_since.is_none() {
            self.drain()?;
        }
        self.close(stop == Stop::Detach)?;
        if self.failing_since.is_some() {
            warn!("the journal could not be closed; what the kernel holds stays pinned for the next start");
        } else if stop == Stop::Detach {
            self.capture.remove_pins()?;
        }
        self.jobs.send(SealJob::Finish).map_err(|_| CarrierError::NoSealer)
    }
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
