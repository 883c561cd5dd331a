//! The journal in use, and the way from one to the next: at a rotation, and where one cannot be written.
//!
//! Guarantees that an entry is in one journal only, that nothing is acknowledged before it is flushed, and that the time in which
//! nothing could be recorded is itself on record. Knows nothing of the kernel, and decides nothing about when.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use hotspot_archive::entry::{Entry, JournalClock, JournalHeader};
use hotspot_archive::journal::{JournalError, JournalKeys, JournalWriter};
use hotspot_archive::layout::DataDir;
use hotspot_core::WallNs;
use hotspot_core::record::CoverageRecord;
use tracing::{error, info, warn};

use crate::capture::clock::{self, ClockReading};
use crate::sealer::{SealJob, chain};

/// The journals of a data directory that are not handed to the sealer yet: one.
pub struct Journals {
    writer: JournalWriter,
    header: JournalHeader,
    data: DataDir,
    keys: JournalKeys,
    jobs: Sender<SealJob>,
    opened: Instant,
    /// How far the clock in force is ahead of the journal's.
    step_ns: i64,
    /// The journal ended in order, and there is no next one yet.
    is_closed: bool,
    /// Until when what is on disk says something, by the journal's clock: there the next one begins, so that no time lies between two.
    until_ns: WallNs,
    /// The same with what is buffered.
    buffered_until_ns: WallNs,
    failing: Option<Failing>,
}

/// The journal cannot be written.
struct Failing {
    since: Instant,
    since_ns: WallNs,
    why: String,
}

impl Journals {
    #[must_use]
    pub fn new(
        writer: JournalWriter,
        header: JournalHeader,
        data: DataDir,
        keys: JournalKeys,
        jobs: Sender<SealJob>,
    ) -> Self {
        let opened = Instant::now();
        let until_ns = header.opened_ns;
        Self {
            writer,
            header,
            data,
            keys,
            jobs,
            opened,
            step_ns: 0,
            is_closed: false,
            until_ns,
            buffered_until_ns: until_ns,
            failing: None,
        }
    }

    /// Whether nothing can be recorded now. [`Self::try_next`] ends that.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// How long the journal has been in use.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// The sequence of the journal, and of the segment it becomes.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// See [`JournalWriter::content`].
    #[must_use]
    pub fn content(&self) -> u64 {
        self.writer.content()
    }

    /// Buffers entries: they are flushed with what is written next, also where that is another journal.
    pub fn append(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), JournalError> {
        entries.into_iter().try_for_each(|entry| self.put(&entry))
    }

    fn put(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.buffered_until_ns = self.buffered_until_ns.max(entry.about_ns().unwrap_or(WallNs::MIN));
        self.writer.append(entry)
    }

    /// See [`JournalWriter::mark`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.writer.mark()
    }

    /// See [`JournalWriter::withdraw`].
    pub fn withdraw(&mut self, mark: usize) {
        self.writer.withdraw(mark);
    }

    /// Appends and flushes. The inner error is for those who wait: the journal fails, and what was appended is kept for the next.
    pub fn write<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<Result<(), String>, JournalError> {
        for entry in entries {
            self.put(entry)?;
        }
        if let Some(failing) = &self.failing {
            return Ok(Err(failing.why.clone()));
        }
        match self.writer.commit() {
            Ok(()) => {
                self.until_ns = self.buffered_until_ns;
                Ok(Ok(()))
            }
            Err(failure) => {
                error!(error = %chain(&failure), "the journal cannot be written; the kernel keeps counting until it can");
                self.fail(&failure);
                Ok(Err(chain(&failure)))
            }
        }
    }

    fn fail(&mut self, failure: &JournalError) {
        let since_ns = ClockReading::now().wall_now();
        self.failing = Some(Failing { since: Instant::now(), since_ns, why: chain(failure) });
    }

    /// Leaves a journal that fails, and goes on in the next with what was not acknowledged, with a gap that says since when, and with
    /// the names of interfaces. Where that fails too it is to be tried again.
    pub fn try_next(&mut self, names: impl IntoIterator<Item = Entry>) -> Result<(), JournalError> {
        let Some(failing) = &self.failing else { return Ok(()) };
        let header = self.next_header();
        let seconds = failing.since.elapsed().as_secs_f64();
        let why = format!("nothing could be recorded for {seconds:.3} s: {}", failing.why);
        let gap = Entry::Gap(CoverageRecord::gap("", failing.since_ns, ClockReading::now().wall_now(), &why));
        let mark = self.writer.mark();
        self.append(std::iter::once(gap).chain(names))?;
        if self.writer.move_to(&self.data.journal(header.sequence), &header).is_err() {
            // Said once, when it began. The next attempt says again how long it lasted.
            self.writer.withdraw(mark);
            return Ok(());
        }
        info!(sequence = header.sequence, "the journal can be written again");
        if !self.is_closed && self.jobs.send(SealJob::Closed { sequence: self.header.sequence }).is_err() {
            warn!("the sealer ended; the journal is sealed at the next start");
        }
        self.begin(header);
        Ok(())
    }

    /// Ends the journal with `last` and hands it to the sealer. Fails where the sealer is gone, with `Ok(false)`. `stopped_ns`: the agent
    /// stops, and has recorded nothing since.
    pub fn close(&mut self, last: &[Entry], stopped_ns: Option<WallNs>) -> Result<bool, JournalError> {
        self.append(last.iter().cloned())?;
        let mark = self.writer.mark();
        let (at_ns, shutdown) = (stopped_ns.unwrap_or_else(|| ClockReading::now().wall_now()), stopped_ns.is_some());
        if self.write([&Entry::Closed { at_ns, shutdown }])?.is_err() {
            // It ends a journal, and none may begin with it.
            self.writer.withdraw(mark);
            return Ok(true);
        }
        self.is_closed = true;
        self.until_ns = at_ns;
        Ok(self.jobs.send(SealJob::Closed { sequence: self.header.sequence }).is_ok())
    }

    /// Begins the journal after one that was closed, by the clock that is in force from then on.
    pub fn open_next(&mut self, names: impl IntoIterator<Item = Entry>) -> Result<(), JournalError> {
        if self.failing.is_some() {
            return Ok(());
        }
        self.step_ns += clock::adopt();
        let header = self.next_header();
        match JournalWriter::create(&self.data.journal(header.sequence), &header, &self.keys) {
            Ok(writer) => {
                self.writer = writer;
                self.begin(header);
                // Only buffered here; the next commit reports what fails.
                self.append(names)
            }
            Err(failure) => {
                error!(error = %chain(&failure), "no new journal; the kernel keeps counting until there is one");
                self.fail(&failure);
                Ok(())
            }
        }
    }

    fn begin(&mut self, header: JournalHeader) {
        (self.until_ns, self.buffered_until_ns) = (header.opened_ns, header.opened_ns);
        self.header = header;
        self.step_ns = 0;
        self.opened = Instant::now();
        self.is_closed = false;
        self.failing = None;
    }

    fn next_header(&self) -> JournalHeader {
        let now = ClockReading::now();
        JournalHeader {
            sequence: self.header.sequence + 1,
            // The kernel counted on meanwhile.
            opened_ns: self.until_ns.saturating_add(self.step_ns),
            clock: Some(JournalClock { boot_to_wall_ns: now.boot_to_wall_ns(), step_ns: self.step_ns }),
            ..self.header.clone()
        }
    }

    /// Tells the sealer that nothing follows; `false` where it is gone.
    #[must_use]
    pub fn finish(self) -> bool {
        self.jobs.send(SealJob::Finish).is_ok()
    }
}
