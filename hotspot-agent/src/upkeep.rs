//! What happens to an archive beside sealing: retention, quota, new signing keys, and the head of the chain told to others.
//!
//! All of it runs on the sealer's thread after a segment, because only it writes the manifest. Nothing here stops sealing: what
//! fails is said in the log and tried again with a later segment.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use hotspot_archive::manifest::Manifest;
use hotspot_archive::retention::{ClockEvidence, Moment};
use tracing::{error, info, warn};

use crate::capture::clock::ClockReading;
use crate::cli::UpkeepArguments;
use crate::sealer::chain;

/// How often it is looked whose time is over, and how large the archive is.
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);
/// How long a checkpoint's command may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(10);
const HOUR_NS: i64 = 3_600_000_000_000;

/// Where the head of the chain is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointTarget {
    File(PathBuf),
    Command(String),
    Syslog(String),
}

impl FromStr for CheckpointTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("command", command)) if !command.is_empty() => Ok(Self::Command(command.to_owned())),
            Some(("syslog", address)) if address.contains(':') => Ok(Self::Syslog(address.to_owned())),
            _ => Err("write file:PATH, command:COMMAND or syslog:HOST:PORT".to_owned()),
        }
    }
}

impl CheckpointTarget {
    fn report(&self, gateway: &str, checkpoint: &str) -> io::Result<()> {
        match self {
            Self::File(path) => {
                let mut file = OpenOptions::new().append(true).create(true).open(path)?;
                file.write_all(format!("{checkpoint}\n").as_bytes())?;
                file.sync_data()
            }
            Self::Command(command) => run_command(command, checkpoint),
            Self::Syslog(address) => {
                // RFC 5424 over UDP: facility 10 (security), severity 5 (notice).
                let time = jiff::Timestamp::now();
                let message = format!("<85>1 {time:.3} {gateway} hotspot-agent - checkpoint - {checkpoint}");
                let local = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                UdpSocket::bind(local)?.send_to(message.as_bytes(), address).map(drop)
            }
        }
    }
}

fn run_command(command: &str, checkpoint: &str) -> io::Result<()> {
    let mut child =
        Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read fits into the pipe; one that ended is judged by how.
        let _ = input.write_all(format!("{checkpoint}\n").as_bytes());
    }
    let until = Instant::now() + COMMAND_WITHIN;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(io::Error::other(format!("the command ended with {status}"))),
            None if Instant::now() >= until => {
                child.kill()?;
                child.wait()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// What is known of time now.
#[must_use]
pub fn evidence(now: &ClockReading, boot_id: &str) -> ClockEvidence {
    ClockEvidence {
        boot: boot_id.to_owned(),
        boottime_ns: i64::try_from(now.monotonic_ns).unwrap_or(i64::MAX).saturating_add(now.boot_offset_ns),
        synchronised: is_synchronised(),
    }
}

/// Whether the kernel's clock follows a reference.
fn is_synchronised() -> bool {
    // SAFETY: all zeros is a value of a structure of integers, and asks for nothing to be changed.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}

/// What is kept up, and when it was looked at last.
pub struct Upkeep {
    settings: UpkeepArguments,
    boot_id: String,
    looked: Option<Instant>,
}

impl Upkeep {
    #[must_use]
    pub fn new(settings: &UpkeepArguments, boot_id: String) -> Self {
        Self { settings: settings.clone(), boot_id, looked: None }
    }

    /// After each segment.
    pub fn after_seal(&mut self, manifest: &mut Manifest) {
        let now = ClockReading::now();
        let moment = Moment { wall_ns: now.wall_now(), clock: Some(evidence(&now, &self.boot_id)) };
        self.begin_epoch(manifest, &moment);
        if let Err(failure) = manifest.state(self.settings.retain.as_ref(), &moment) {
            error!(error = %chain(&failure), "retentions and holds could not be stated in the chain; nothing is deleted until they are");
        }
        if self.looked.is_none_or(|looked| looked.elapsed() >= EXPIRE_EVERY) {
            self.expire(manifest, &moment);
            self.check_quota(manifest.archive());
            self.looked = Some(Instant::now());
        }
        let Some(checkpoint) = manifest.checkpoint(moment.wall_ns) else { return };
        for target in &self.settings.checkpoints {
            if let Err(failure) = target.report(manifest.gateway(), &checkpoint) {
                warn!(?target, error = %failure, "the head of the chain could not be reported; the next one says more");
            }
        }
    }

    fn begin_epoch(&self, manifest: &mut Manifest, now: &Moment) {
        let epoch_ns = i64::from(self.settings.signing_epoch) * HOUR_NS;
        let Some(began_ns) = manifest.epoch_began_ns() else { return };
        // A clock that was set back must not keep a key in use.
        if epoch_ns == 0 || now.wall_ns.saturating_sub(began_ns).saturating_abs() < epoch_ns {
            return;
        }
        match manifest.begin_epoch(now.wall_ns, now.clock.clone()) {
            Ok(()) => info!("a new signing key took over"),
            Err(failure) => error!(error = %chain(&failure), "no new signing key; the old one goes on"),
        }
    }

    fn expire(&self, manifest: &mut Manifest, now: &Moment) {
        let Some(policy) = &self.settings.retain else { return };
        let outcome = manifest.finish_deletions().and_then(|()| manifest.expire(policy, now));
        match outcome {
            Ok(done) if done.files == 0 && done.held == 0 => {}
            Ok(done) => info!(files = done.files, bytes = done.bytes, held = done.held, "deleted what was over"),
            Err(failure) => error!(error = %chain(&failure), "what is over could not be deleted"),
        }
    }

    fn check_quota(&self, archive: &Path) {
        let Some(quota) = self.settings.quota else { return };
        match bytes_of(archive) {
            Ok(bytes) if bytes > quota => error!(
                bytes,
                quota, "the archive is larger than --quota; nothing is deleted for it: add space, or shorten --retain"
            ),
            Ok(bytes) if bytes > quota / 10 * 9 => warn!(bytes, quota, "the archive reaches --quota"),
            Ok(_) => {}
            Err(failure) => warn!(error = %failure, "the archive's size is not known"),
        }
    }
}

fn bytes_of(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        bytes += if metadata.is_dir() { bytes_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_go_where_they_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file: CheckpointTarget = format!("file:{}", dir.path().join("f").display()).parse().unwrap();
        file.report("g", "one").unwrap();
        file.report("g", "two").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("f")).unwrap(), "one\ntwo\n");
        let command: CheckpointTarget = format!("command:cat > {}", dir.path().join("c").display()).parse().unwrap();
        command.report("g", "three").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("c")).unwrap(), "three\n");
        assert!("command:exit 3".parse::<CheckpointTarget>().unwrap().report("g", "x").is_err());
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let syslog: CheckpointTarget = format!("syslog:{}", receiver.local_addr().unwrap()).parse().unwrap();
        syslog.report("g", "{\"checkpoint\":1}").unwrap();
        let mut bytes = [0; 512];
        let len = receiver.recv(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
        assert!(
            text.starts_with("<85>1 ") && text.ends_with(" g hotspot-agent - checkpoint - {\"checkpoint\":1}"),
            "{text}"
        );
        for bad in ["", "file:", "elsewhere:x", "syslog:nowhere"] {
            assert!(bad.parse::<CheckpointTarget>().is_err(), "{bad}");
        }
    }
}
