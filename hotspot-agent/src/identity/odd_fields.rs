//! Fields of reports that did not keep to their format: left out, or read in another way, counted by name, and named in the log.
//!
//! A report counts without such a field. Names are those in the code, never what somebody sent, so there are as many counters as fields.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use tracing::{debug, warn};

use crate::seldom::Seldom;

/// How often each field was odd.
#[derive(Default)]
pub(crate) struct OddFields {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    warned: Seldom,
}

impl OddFields {
    /// Counts the odd fields of one report; `source` is what sent it, for the log.
    pub(crate) fn count(&self, source: &'static str, fields: &[&'static str]) {
        if fields.is_empty() {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for field in fields {
            *counts.entry(field).or_default() += 1;
        }
        drop(counts);
        if self.warned.is_time() {
            warn!(source, ?fields, counted = %self, "fields of a report were not as they should be; it counts without them (logged at most every 10 s)");
        } else {
            debug!(source, ?fields, "fields of a report were not as they should be; it counts without them");
        }
    }
}

impl fmt::Debug for OddFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.counts.lock().unwrap_or_else(PoisonError::into_inner), f)
    }
}

/// ` odd_FIELD=COUNT` of each, behind other counters.
impl fmt::Display for OddFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().try_for_each(|(field, count)| write!(f, " odd_{field}={count}"))
    }
}
