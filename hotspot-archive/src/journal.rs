//! The journal: facts, appended and flushed before anybody is told that they are safe.
//!
//! Guarantees that what [`JournalWriter::commit`] acknowledged is found by [`replay`] after a crash, that a file whose flush
//! failed is never written again, and that damage is named, not skipped in silence. The format is in `docs/formats/journal.md`.

mod codec;
mod frame;
mod keys;
mod reader;
mod writer;

use std::io;
use std::path::PathBuf;

use crate::keys::KeyError;
pub use frame::PAYLOAD_MAX;
pub use keys::{JournalKeys, damaged_name, wrapped_key_path};
pub use reader::{Damage, Replayed, Tail, replay, replay_what_is_left};
pub use writer::{JournalWriter, flush};

/// What went wrong, where.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{} cannot be {operation}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a journal of version {} or {}", path.display(), frame::VERSION_PLAIN, frame::VERSION_ENCRYPTED)]
    NotAJournal { path: PathBuf },
    #[error("{} is encrypted, and its key {} is not there", path.display(), key.display())]
    NoKey { path: PathBuf, key: PathBuf },
    #[error("{} was given up after a write or flush failed; go on in a new file", path.display())]
    Condemned { path: PathBuf },
    #[error("an entry of {bytes} bytes is larger than a frame may be ({})", PAYLOAD_MAX)]
    TooLarge { bytes: usize },
    #[error(transparent)]
    Key(#[from] KeyError),
}
