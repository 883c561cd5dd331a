//! How far a search is, on one line of the terminal that is gone when there is an answer.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use hotspot_archive::search::Progress;

/// Whoever waits shorter than this needs no line, and nobody reads faster.
const EVERY: Duration = Duration::from_millis(200);

pub(crate) struct ProgressLine {
    is_wanted: Cell<bool>,
    is_shown: Cell<bool>,
    next: Cell<Instant>,
}

impl ProgressLine {
    pub(crate) fn new() -> Self {
        Self {
            is_wanted: Cell::new(std::io::stderr().is_terminal()),
            is_shown: Cell::new(false),
            next: Cell::new(Instant::now() + EVERY),
        }
    }

    pub(crate) fn show(&self, progress: Progress) {
        if self.is_wanted.get() && Instant::now() >= self.next.get() {
            let _ =
                write!(std::io::stderr(), "\r{} of {} segments searched ", progress.segments_done, progress.segments);
            self.is_shown.set(true);
            self.next.set(Instant::now() + EVERY);
        }
    }

    /// Takes the line away; an answer to the same terminal begins.
    pub(crate) fn end(&self) {
        if self.is_shown.take() {
            // A line that stays would be ugly, and is no reason to fail.
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
        self.is_wanted.set(false);
    }
}
