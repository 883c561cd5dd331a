//! The chain: what each line means, whether it follows from the line before, and whether it may say what it says. No I/O.
//!
//! `line` is what is written, `check` reads line after line, `ledger` is what they add up to and what deletions need, `times` what
//! clocks must have to do with each other, `believed` the quick way for readers, `pins` whom a reader believes beside the archive.
//! The format is in `docs/formats/manifest.md`.

mod believed;
mod check;
mod ledger;
mod line;
mod pins;
mod times;

pub use self::believed::{Believed, believe};
pub use self::check::{Beside, ChainCheck, Remark, Severity};
pub use self::ledger::{Deletion, FileState, Ledger};
pub use self::line::{
    CoverageSummary, DeletedFile, EVENT_FORMAT, Event, EventLine, FORMAT, FileEntry, Line, NO_LINE, Record, Signed,
    parse,
};
pub(crate) use self::line::{SIGNATURE_FIELD, is_spelled, split_signature};
pub use self::pins::{BadPins, Pins, Until};
pub(crate) use self::times::{lasted_until_ns, needed_step_ns};
pub use crate::checkpoint::{CHECKPOINT_FORMAT, Checkpoint, SignedCheckpoint, parse_checkpoint};
