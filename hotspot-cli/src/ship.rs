//! `hotspot ship`: sealed segments and the chain that vouches for them go elsewhere, and are proved to be there.
//!
//! Guarantees an order: files first, each read back and compared with its signed line, then the line; so what is there is always an
//! archive that verifies, if a shorter one. Nothing is removed here before that, and nothing without being asked for.

mod beside;
mod chain;
mod checkpoints;
mod files;
mod leaving;
mod lines;
mod pass;
mod state;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotspot_archive::moved::SHIPPED;
use hotspot_archive::retention::RetentionError;
use rustix::fs::{FlockOperation, flock};

use self::files::Sent;
use self::pass::{Pass, Wanted};
use crate::arguments::ShipArguments;
use crate::output::{line, say, stdout};
use crate::store::Store;
use crate::{Failure, Outcome};

const DAY_NS: i64 = 86_400_000_000_000;

/// Why something could not be shipped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShipError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Holds(#[from] RetentionError),
    #[error("{} is not what its manifest line says; it is not shipped: run `hotspot verify`", path.display())]
    ChangedHere { path: PathBuf },
    #[error("{}: line {line} {what}. Nothing is shipped or removed: run `hotspot verify`", path.display())]
    Broken { path: PathBuf, line: u64, what: String },
    #[error("{to}/{path} is not what a line deletes; it stays: run `hotspot verify` there")]
    AnotherThere { path: String, to: String },
    #[error(
        "{to}/{path} is not what was sent, right after it was sent; nothing that depends on it was shipped or removed"
    )]
    ReadBack { path: String, to: String },
    #[error(
        "{to} holds another chain of gateway {gateway}: {why}. Nothing there was changed. Was the gateway set up anew, or set back, or is \
         there another of its name? Ship to another prefix, and keep both"
    )]
    AnotherChain { gateway: String, to: String, why: &'static str },
}

/// Says which file here an error is about.
fn about(path: &Path) -> impl Fn(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("{path}: {error}"))
}

/// What a run did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) sent: Sent,
    pub(crate) lines: u64,
    /// Objects that the chain calls deleted, and that were deleted there.
    pub(crate) deleted: u64,
    /// Segments that were removed here.
    pub(crate) moved: u64,
    pub(crate) moved_bytes: u64,
    /// Files that a line names and that are neither here nor there.
    pub(crate) missing: Vec<String>,
}

pub(crate) fn run(arguments: &ShipArguments) -> Result<Outcome, Failure> {
    let archive = crate::remote::here(&arguments.archive)?;
    let gateways = gateways(archive)?;
    let to = Store::open(&arguments.to)?;
    if fs::canonicalize(archive).is_ok_and(|archive| archive == Path::new(to.url())) {
        return Err(Failure::Usage("--to is the archive itself".to_owned()));
    }
    let _lock = lock(archive)?;
    loop {
        let outcome = ship_all(arguments, archive, &gateways, &to);
        let Some(every) = arguments.every else { return outcome };
        match outcome {
            Ok(_) => {}
            // The next one tries again; whoever reads the journal of the service must see it.
            Err(Failure::Damaged(what) | Failure::Refused(what)) => say(&what),
            Err(other) => return Err(other),
        }
        std::thread::sleep(Duration::from_secs(every.into()));
    }
}

fn ship_all(arguments: &ShipArguments, archive: &Path, gateways: &[String], to: &Store) -> Result<Outcome, Failure> {
    let wanted = Wanted {
        recheck: arguments.recheck,
        delete_expired: arguments.delete_expired,
        keep_here_ns: arguments.keep_here.map(|days| i64::from(days) * DAY_NS),
    };
    let mut outcome = Outcome::Done;
    for gateway in gateways {
        let failed = |error: ShipError| {
            let what = format!("gateway {gateway}: {error}");
            let is_denied = matches!(&error, ShipError::Io(source) if source.kind() == io::ErrorKind::PermissionDenied);
            if is_denied { Failure::Refused(what) } else { Failure::Damaged(what) }
        };
        let mut pass = Pass::new(archive, to, gateway).map_err(failed)?;
        let shipped = to.wait(pass.run(wanted));
        // What was done before it failed was done.
        report(arguments, gateway, to, &pass.done)?;
        for path in &pass.done.missing {
            say(format!("gateway {gateway}: {path} is neither here nor there as its line says"));
            outcome = Outcome::Damaged;
        }
        shipped.map_err(failed)?;
    }
    Ok(outcome)
}

fn report(arguments: &ShipArguments, gateway: &str, to: &Store, done: &Done) -> io::Result<()> {
    let Done { sent, lines, deleted, moved, moved_bytes, .. } = done;
    let is_idle = *sent == Sent::default() && *lines == 0 && *deleted == 0 && *moved == 0;
    if is_idle && arguments.every.is_some() {
        return Ok(());
    }
    let mut text = format!(
        "{gateway}: {lines} lines, {} files of {} bytes shipped to {} and read back; {} were there",
        sent.files,
        sent.bytes,
        to.url(),
        sent.there
    );
    for (count, what) in [
        (sent.mended, "were damaged there or gone, and shipped again"),
        (*deleted, "deleted there"),
        (*moved, "segments removed here"),
    ] {
        if count > 0 {
            text = format!("{text}; {count} {what}");
        }
    }
    if *moved > 0 {
        text = format!("{text} ({moved_bytes} bytes)");
    }
    let mut to = stdout();
    line(&mut to, text)?;
    to.flush()
}

/// Gateways whose chains are written here.
fn gateways(archive: &Path) -> Result<Vec<String>, Failure> {
    let dir = archive.join("manifest");
    let failed = |error: io::Error| {
        Failure::Damaged(format!(
            "{} is not an archive: its directory manifest cannot be read: {error}",
            archive.display()
        ))
    };
    let mut gateways = Vec::new();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        gateways.extend(name.to_str().and_then(|name| name.strip_suffix(".jsonl")).map(str::to_owned));
    }
    if gateways.is_empty() {
        return Err(Failure::Usage(format!(
            "{} holds no chain that a gateway writes; what was shipped already is copied by the store's own tools",
            archive.display()
        )));
    }
    gateways.sort();
    Ok(gateways)
}

/// One shipper per archive.
fn lock(archive: &Path) -> Result<fs::File, Failure> {
    let dir = archive.join(SHIPPED);
    let path = dir.join("lock");
    let failed = |error: io::Error| {
        Failure::Damaged(format!(
            "{} cannot be written: {error}; make the directory {} for the user that ships",
            path.display(),
            dir.display()
        ))
    };
    fs::create_dir_all(&dir).map_err(failed)?;
    let file = fs::File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Failure::Damaged(format!("another `hotspot ship` is at work on {}", archive.display())))?;
    Ok(file)
}
