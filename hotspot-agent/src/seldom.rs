//! Saying something at most once in a while: whoever sends nonsense must not fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Every how often the same is said.
const EVERY: Duration = Duration::from_secs(10);

/// Remembers when something was said last.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it is time to say it again; then it counts as said.
    pub fn is_time(&self) -> bool {
        // Nothing can panic while holding it, and a panic ends the process anyway.
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = said.is_none_or(|at| at.elapsed() > EVERY);
        if is_time {
            *said = Some(Instant::now());
        }
        is_time
    }
}
