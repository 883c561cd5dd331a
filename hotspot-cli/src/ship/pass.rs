//! One pass over one chain: files, then the lines that name them, then what lies beside; then what may go.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use hotspot_archive::chain::{Beside, FileState, Ledger, Record, believe};
use hotspot_archive::manifest::{Event, Line, read_public_key};
use hotspot_archive::moved::Moved;
use hotspot_archive::regular;
use hotspot_archive::retention::{Hold, read_holds};

use super::chain::There;
use super::files::{Found, ensure, is_there};
use super::lines::Lines;
use super::state::State;
use super::{Done, ShipError, about};
use crate::store::Store;

pub(crate) struct Pass<'a> {
    pub(crate) archive: &'a Path,
    pub(crate) to: &'a Store,
    pub(crate) gateway: &'a str,
    pub(crate) lines: Lines,
    pub(crate) state: State,
    pub(crate) done: Done,
    /// What was moved before.
    pub(crate) moved: Moved,
    /// What must not go; read before anything does.
    pub(crate) holds: Vec<Hold>,
    /// What the lines here add up to, checked: which deletions count.
    pub(crate) ledger: Ledger,
}

/// What a pass does beside shipping.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// Believe nothing that was verified before.
    pub(crate) recheck: bool,
    /// Delete there what the chain calls deleted.
    pub(crate) delete_expired: bool,
    /// Nanoseconds after which what is there goes here.
    pub(crate) keep_here_ns: Option<i64>,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(archive: &'a Path, to: &'a Store, gateway: &'a str) -> Result<Self, ShipError> {
        let lines = Lines::read(&archive.join("manifest").join(format!("{gateway}.jsonl")))?;
        let ledger = checked(archive, gateway, &lines)?;
        Ok(Self {
            archive,
            to,
            gateway,
            lines,
            state: State::read(archive, gateway, to.url()),
            done: Done::default(),
            moved: Moved::read(archive)?,
            holds: Vec::new(),
            ledger,
        })
    }

    pub(crate) async fn run(&mut self, wanted: Wanted) -> Result<(), ShipError> {
        if wanted.recheck {
            self.state.lines = 0;
            self.state.recipients = BTreeMap::new();
            self.state.holds = BTreeMap::new();
        }
        self.ship().await?;
        self.ship_checkpoints().await?;
        self.ship_holds().await?;
        self.ship_added_keys().await?;
        if wanted.delete_expired || wanted.keep_here_ns.is_some() {
            // A hold that cannot be read stops what removes, never what ships.
            self.holds = read_holds(self.archive)?;
        }
        if wanted.delete_expired {
            self.delete_there().await?;
        }
        if let Some(keep_here_ns) = wanted.keep_here_ns {
            self.move_away(keep_here_ns).await?;
        }
        Ok(())
    }

    async fn ship(&mut self) -> Result<(), ShipError> {
        let path = self.archive.join("manifest").join(format!("{}.pub", self.gateway));
        let read = regular::open_path(&path).and_then(io::read_to_string);
        let public_key = read.map_err(about(&path))?;
        let lines = std::mem::take(&mut self.lines);
        let shipped = self.ship_lines(&lines, &public_key).await;
        self.lines = lines;
        shipped
    }

    async fn ship_lines(&mut self, lines: &Lines, public_key: &str) -> Result<(), ShipError> {
        let mut there = There::find(self.to, lines, self.gateway, public_key, self.state.lines).await?;
        self.done.sent.mended += there.mended;
        self.state.lines = self.state.lines.min(lines.count());
        // Lines that are there, but whose files are not known to be: the state was lost, or everything is to be looked at again.
        while self.state.lines < there.count {
            let last = (self.state.lines + LINES_AT_ONCE).min(there.count);
            self.ship_files(lines, self.state.lines + 1, last).await?;
            self.remember(last)?;
        }
        while there.count < lines.count() {
            let (first, mut last) = (there.count + 1, there.piece_end());
            let mut checked = first - 1;
            // A file that a later line calls deleted is gone: the line that names it comes only together with that one.
            while checked < last {
                let needed = self.ship_files(lines, checked + 1, last).await?;
                checked = last;
                last = last.max(needed);
            }
            there.publish(last).await?;
            self.done.lines += last - (first - 1);
            self.remember(last)?;
        }
        Ok(())
    }

    fn remember(&mut self, line: u64) -> io::Result<()> {
        self.state.lines = self.state.lines.max(line);
        self.state.write(self.archive)
    }

    /// Ships the files of lines. The line up to which the chain has to go there, so that what is missing is called deleted.
    async fn ship_files(&mut self, lines: &Lines, first: u64, last: u64) -> Result<u64, ShipError> {
        let mut needed = last;
        let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
        for (_, record) in lines.records(first, last)? {
            let Record::Segment(line) = record else { continue };
            let state = self.ledger.files_of(&line);
            for file in line.files.iter().filter(|file| state(file) != FileState::Foreign) {
                if self.archive.join(&file.path).try_exists()? {
                    here.push(file.clone());
                } else if let Some(deletion) = self.ledger.deleted_by(&file.path, &file.sha256) {
                    needed = needed.max(deletion);
                } else if self.moved.to(&line.gateway, line.sequence) == Some(self.to.url()) {
                    elsewhere.push(file.clone());
                } else {
                    self.done.missing.push(file.path.clone());
                }
            }
        }
        let mut sent = ensure(self.archive, self.to, here).await?;
        // What is neither here nor there as it should be is lost, which must be said, and must not stop what can be saved.
        for file in elsewhere {
            match is_there(self.to, &file).await? {
                Found::AsItShouldBe => sent.there += 1,
                Found::Otherwise | Found::Nothing => self.done.missing.push(file.path),
            }
        }
        self.done.sent.add(sent);
        Ok(needed)
    }

    /// The hold that keeps a file's segment, if there is one.
    pub(crate) fn is_held(&self, line: &Line) -> bool {
        self.holds.iter().any(|hold| hold.holds(&line.gateway, line.sequence))
    }
}

/// Lines whose files are looked at before it is remembered.
pub(crate) const LINES_AT_ONCE: u64 = 64;

/// Checks the chain here: a line that nothing vouches for is neither sent nor acted upon.
fn checked(archive: &Path, gateway: &str, lines: &Lines) -> Result<Ledger, ShipError> {
    let path = lines.path();
    let public_key = archive.join("manifest").join(format!("{gateway}.pub"));
    let root = read_public_key(&public_key).map_err(|error| about(&public_key)(io::Error::other(error.to_string())))?;
    let believed = believe(gateway, root, &lines.bytes(1, lines.count())?, Beside::default());
    match believed.broken() {
        None => Ok(believed.check.ledger().clone()),
        Some(broken) => {
            let (line, what) = (broken.line.unwrap_or_default(), broken.what.clone());
            Err(ShipError::Broken { path: path.to_path_buf(), line, what })
        }
    }
}

/// The files that a line calls deleted.
pub(crate) fn deleted_files(record: &Record) -> &[hotspot_archive::manifest::DeletedFile] {
    match record {
        Record::Event(line) => match &line.event {
            Event::Deleted { files, .. } => files,
            Event::Epoch { .. } | Event::Policy(_) | Event::Hold { .. } | Event::Lifted { .. } => &[],
        },
        Record::Segment(_) => &[],
    }
}
