//! What happens to an archive beside sealing: retention, quota, new signing keys, and the head of the chain told to others.
//!
//! All of it runs on the sealer's thread after a segment, because only it writes the manifest. Nothing here stops sealing: what
//! fails is said in the log and tried again with a later segment.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hotspot_archive::chain::parse_checkpoint;
use hotspot_archive::checkpoints;
use hotspot_archive::manifest::Manifest;
use hotspot_archive::retention::{ClockEvidence, Moment};
use hotspot_archive::stamp;
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
                let mut options = OpenOptions::new();
                let mut file = options.append(true).create(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
                file.write_all(format!("{checkpoint}\n").as_bytes())?;
                file.sync_data()
            }
            Self::Command(command) => run_command(command, format!("{checkpoint}\n").as_bytes()).map(drop),
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

/// Runs a command of the operator's with this input. What it writes, up to the length of a time stamp, comes back.
fn run_command(command: &str, input: &[u8]) -> io::Result<Vec<u8>> {
    let mut shell = Command::new("/bin/sh");
    // A group of its own: what the shell began ends with it.
    let shell = shell.args(["-c", command]).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = shell.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read fits into the pipe; one that ended is judged by how.
        let _ = stdin.write_all(input);
    }
    let (sender, receiver) = mpsc::channel();
    let stdout = child.stdout.take();
    std::thread::spawn(move || {
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            // A command that writes more than that ends by SIGPIPE.
            let _ = stdout.take(stamp::REPLY_BYTES_MAX as u64 + 1).read_to_end(&mut output);
        }
        let _ = sender.send(output);
    });
    let until = Instant::now() + COMMAND_WITHIN;
    loop {
        match child.try_wait()? {
            // What it began and left running may hold its output open.
            Some(status) if status.success() => {
                let left = until.saturating_duration_since(Instant::now());
                return receiver.recv_timeout(left).map_err(|_| io::ErrorKind::TimedOut.into());
            }
            Some(status) => return Err(io::Error::other(format!("the command ended with {status}"))),
            None if Instant::now() >= until => {
                let group = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL)?;
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
        if let Err(failure) = checkpoints::keep(manifest.archive(), manifest.gateway(), &checkpoint) {
            warn!(error = %failure, "the checkpoint is not beside the chain; the next one says more");
        }
        for target in &self.settings.checkpoints {
            if let Err(failure) = target.report(manifest.gateway(), &checkpoint) {
                warn!(?target, error = %failure, "the head of the chain could not be reported; the next one says more");
            }
        }
        self.stamp(manifest, &checkpoint);
    }

    /// Has a checkpoint stamped, once the last stamp is old enough. What failed is tried again with the next checkpoint, which covers more.
    fn stamp(&self, manifest: &Manifest, checkpoint: &str) {
        let Some(command) = &self.settings.checkpoint_tsa else { return };
        let (archive, gateway) = (manifest.archive(), manifest.gateway());
        let every_ns = i64::from(self.settings.checkpoint_tsa_every) * HOUR_NS;
        let Some(kept) = parse_checkpoint(checkpoint) else { return };
        let at_ns = kept.checkpoint.at_ns;
        // A clock that was set back must not put stamps off.
        let is_over = |last_ns: i64| at_ns.saturating_sub(last_ns).saturating_abs() >= every_ns;
        let stamped = checkpoints::stamped_ns(archive, gateway).and_then(|last_ns| {
            if !last_ns.is_none_or(is_over) {
                return Ok(());
            }
            let imprint = kept.imprint();
            let reply = run_command(command, &stamp::query(&imprint))?;
            if !stamp::is_answer(&reply, &imprint) {
                return Err(io::Error::other("what came back is no time stamp of this checkpoint"));
            }
            checkpoints::keep_stamp(archive, gateway, kept.checkpoint.line, &reply)
        });
        if let Err(failure) = stamped {
            warn!(error = %failure, "the checkpoint was not stamped; the next one is tried");
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
        std::os::unix::fs::symlink("f", dir.path().join("link")).unwrap();
        let link: CheckpointTarget = format!("file:{}", dir.path().join("link").display()).parse().unwrap();
        assert!(link.report("g", "three").is_err(), "no link is followed");
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

    fn manifest(dir: &Path) -> Manifest {
        let key = hotspot_archive::manifest::GatewayKey::open(&dir.join("keys/k")).unwrap();
        Manifest::open(&dir.join("archive"), "g", key).unwrap()
    }

    fn seal(manifest: &mut Manifest) {
        let sequence = manifest.last_sequence() + 1;
        let origin = hotspot_archive::segment::Origin { site: "s".into(), gateway: "g".into(), sequence };
        let draft = manifest.draft(&origin, 1).unwrap();
        let (sessions, devices, coverage) = (&[], &[], &[]);
        let sealing = hotspot_archive::manifest::Sealing {
            closed_ns: 2,
            sealed_ns: 3,
            clock: None,
            step_ns: 0,
            sessions,
            devices,
            coverage,
        };
        manifest.seal(draft, &sealing).unwrap();
    }

    fn done(command: &mut Command) {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
    }

    #[test]
    fn a_checkpoint_is_stamped_once_the_authority_answers_and_then_not_for_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut request = Command::new("openssl");
        request.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=tsa",
        ]);
        request.args([
            "-addext",
            "extendedKeyUsage=critical,timeStamping",
            "-keyout",
            &path("key"),
            "-out",
            &path("cert"),
        ]);
        done(&mut request);
        let (serial, cert, key) = (path("serial"), path("cert"), path("key"));
        let settings = format!(
            "[tsa]\ndefault_tsa=t\n[t]\nserial={serial}\nsigner_cert={cert}\nsigner_key={key}\nsigner_digest=sha256\n\
             default_policy=1.2.3\ndigests=sha256\n"
        );
        fs::write(path("conf"), settings).unwrap();
        fs::write(&serial, "01\n").unwrap();
        let (asked, question, conf, up) = (path("asked"), path("question"), path("conf"), path("up"));
        let command = format!(
            "cat > {question}; echo . >> {asked}; test -e {up} && openssl ts -reply -config {conf} -queryfile {question} 2>/dev/null"
        );
        let arguments =
            UpkeepArguments { checkpoint_tsa: Some(command), checkpoint_tsa_every: 24, ..UpkeepArguments::default() };
        let mut upkeep = Upkeep::new(&arguments, "boot".into());
        let mut manifest = manifest(dir.path());
        let stamp = |line| dir.path().join("archive").join(stamp::path("g", line));
        seal(&mut manifest);
        upkeep.after_seal(&mut manifest);
        assert!(!stamp(1).exists(), "the authority is down");
        fs::write(&up, "").unwrap();
        for _ in 0..3 {
            seal(&mut manifest);
            upkeep.after_seal(&mut manifest);
        }
        assert!(stamp(2).exists() && !stamp(3).exists() && !stamp(4).exists());
        assert_eq!(fs::read_to_string(&asked).unwrap(), ".\n.\n", "not again within the day");
        let kept = checkpoints::read(&dir.path().join("archive"), "g").unwrap();
        let lines: Vec<_> = kept.iter().map(|line| parse_checkpoint(line).unwrap().checkpoint.line).collect();
        assert_eq!(lines, [2, 4], "the stamped one, and the newest of the hour");
        fs::write(path("text"), &kept[0]).unwrap();
        let mut verify = Command::new("openssl");
        verify.args(["ts", "-verify", "-data", &path("text"), "-CAfile", &cert, "-in"]).arg(stamp(2));
        done(&mut verify);
    }

    #[test]
    fn a_command_that_hangs_ends_with_all_that_it_began() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let command = format!("sleep 600 & echo $! > {}; sleep 600", pids.display());
        let error = run_command(&command, b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let pid: u32 = fs::read_to_string(&pids).unwrap().trim().parse().unwrap();
        // Whoever adopts it may not have waited for it yet.
        let is_over = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
        let until = Instant::now() + COMMAND_WITHIN;
        while !is_over() {
            assert!(Instant::now() < until, "{pid} goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
