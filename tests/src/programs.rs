//! The programs under test: the agent in the gateway, and the tool.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::wait_until;

/// A built program; `cargo xtask` says where with `HOTSPOT_BIN_DIR`.
pub fn path(name: &str) -> Result<PathBuf> {
    let dir = std::env::var_os("HOTSPOT_BIN_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"), PathBuf::from);
    let path = dir.join(name);
    if path.exists() { Ok(path) } else { bail!("{} is not built; run `cargo build --release`", path.display()) }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
    /// How often agents before it said in the same log that they capture.
    captured_before: usize,
}

impl Agent {
    /// The command line of an agent in a gateway.
    pub fn command(gateway: &Namespace, data_dir: &Path, options: &[&str]) -> Result<Command> {
        Self::command_on("lan", gateway, data_dir, options)
    }

    /// The same, for other interfaces than the lab's.
    pub fn command_on(interface: &str, gateway: &Namespace, data_dir: &Path, options: &[&str]) -> Result<Command> {
        let mut command = gateway.command(&path("hotspot-agent")?.display().to_string());
        command
            .args(["run", "--interface", interface, "--site", "lab", "--gateway", "gw1", "--data-dir"])
            .arg(data_dir)
            .args(options);
        Ok(command)
    }

    /// Starts an agent and waits until it captures.
    pub fn start(gateway: &Namespace, data_dir: &Path, options: &[&str]) -> Result<Self> {
        Self::start_command(&mut Self::command(gateway, data_dir, options)?, data_dir)
    }

    /// The same, of a command line.
    pub fn start_command(command: &mut Command, data_dir: &Path) -> Result<Self> {
        let mut agent = Self::begin(command, data_dir)?;
        agent.wait_until_it_captures()?;
        Ok(agent)
    }

    /// Starts an agent and does not wait for it.
    pub fn begin(command: &mut Command, data_dir: &Path) -> Result<Self> {
        let log = data_dir.with_extension("log");
        let file = File::options().create(true).append(true).open(&log)?;
        let captured_before = fs::read_to_string(&log)?.matches(CAPTURING).count();
        let child =
            command.stderr(file).stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log, captured_before })
    }

    pub fn wait_until_it_captures(&mut self) -> Result<()> {
        wait_until("the agent captures", Duration::from_secs(30), || {
            self.has_ended() || self.log().matches(CAPTURING).count() > self.captured_before
        })?;
        if self.has_ended() {
            bail!("the agent ended:\n{}", self.log());
        }
        Ok(())
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in order, and says how it ended.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        wait_until("the agent stops", Duration::from_secs(120), || self.has_ended())?;
        Ok(self.child.wait()?)
    }

    /// Ends it in order, and says what it cost from its start on.
    pub fn stop_and_count(self) -> Result<Cost> {
        self.signal("TERM")?;
        let pid = i32::try_from(self.child.id())?;
        let mut status = 0;
        // SAFETY: all zeros is a value of a structure of integers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: status and structure outlive the call.
        if unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } != pid {
            return Err(std::io::Error::last_os_error()).context("wait4");
        }
        ensure!(status == 0, "the agent failed:\n{}", self.log());
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        Ok(Cost {
            cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            rss_max_mib: u64::try_from(usage.ru_maxrss)? / 1024,
        })
    }

    /// Kills it as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.signal("KILL")?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends it a signal, by name.
    pub fn signal(&self, name: &str) -> Result<()> {
        // nsenter became the agent: it executes it in its own place.
        crate::namespace::run(Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()])).map(drop)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.signal("KILL");
            let _ = self.child.wait();
            remove_pins();
        }
    }
}

/// What a killed agent of a lab left pinned. Labs run one after the other, so it can only be ours.
fn remove_pins() {
    let Ok(instances) = fs::read_dir("/sys/fs/bpf/hotspot") else { return };
    for instance in instances.flatten().filter(|instance| instance.file_name().to_string_lossy().starts_with("gw1-")) {
        let _ = fs::remove_dir_all(instance.path());
    }
}

/// What a program that has ended took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Processor time.
    pub cpu_s: f64,
    /// The most memory it ever had.
    pub rss_max_mib: u64,
}

const CAPTURING: &str = "capturing";

/// Runs the tool.
pub fn hotspot(arguments: &[&str]) -> Result<Output> {
    Command::new(path("hotspot")?).args(arguments).stdin(Stdio::null()).output().context("cannot start hotspot")
}

/// Where every packet ended, also where there are gaps. An archive of which nothing is told is an error.
pub fn coverage(archive: &Path) -> Result<Vec<Value>> {
    told(archive).map(|(_, rows)| rows)
}

/// What `hotspot coverage` says, and how it ends: 3 where something is missing.
fn told(archive: &Path) -> Result<(Option<i32>, Vec<Value>)> {
    let output = hotspot(&["coverage", "--archive", &archive.display().to_string(), "--json"])?;
    let (code, rows) = (output.status.code(), parse(&output)?);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(code, Some(0 | 3)), "hotspot coverage: {}\n{said}", output.status);
    ensure!(!rows.is_empty(), "hotspot coverage tells of nothing: {said}");
    Ok((code, rows))
}

/// Fails unless every packet is accounted for, nothing is a gap, and the archive is what was sealed.
pub fn ensure_whole(archive: &Path) -> Result<()> {
    let (code, rows) = told(archive)?;
    for row in &rows {
        ensure!(row["balanced"] == true && row["gaps"] == serde_json::json!([]), "{row}");
    }
    ensure!(code == Some(0), "hotspot coverage ends with {code:?} where nothing is missing: {rows:?}");
    let verified = ask("verify", archive, &[])?;
    ensure!(verified[0]["verify"] == "ok", "{verified:?}");
    Ok(())
}

/// Writes what nobody else may read, as the agent demands of secrets.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(|| format!("chmod {}", path.display()))
}

/// The files of a directory, also of those in it, by name.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?.flatten() {
            if entry.path().is_dir() { dirs.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files.sort_by(|left, right| left.file_name().cmp(&right.file_name()));
    Ok(files)
}

/// What `hotspot decode` says of a segment or journal, line by line.
pub fn decoded(file: &Path) -> Result<Vec<Value>> {
    // A segment lies in an archive, a journal does not.
    let archive = file.ancestors().find(|dir| dir.file_name().is_some_and(|name| name == "archive"));
    let log = archive.map(|archive| questions(archive).display().to_string());
    let audit: Vec<&str> = log.iter().flat_map(|log| ["--audit", log]).collect();
    let output = hotspot(&[&["decode", "--json"], &audit[..], &[&file.display().to_string()]].concat())?;
    ensure!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    parse(&output)
}

/// The rows of a class, those of a later segment behind those of an earlier one: sequences are the last part of a file's name.
pub fn rows(archive: &Path, class: &str) -> Result<Vec<Value>> {
    let decoded: Result<Vec<_>> = files(&archive.join(class))?.iter().map(|file| decoded(file)).collect();
    Ok(decoded?.into_iter().flatten().collect())
}

/// The last that the archive says of every session, by its id.
pub fn sessions(archive: &Path) -> Result<BTreeMap<String, Value>> {
    let id = |row: &Value| row["session_id"].as_str().unwrap_or_default().to_owned();
    Ok(rows(archive, "sessions")?.into_iter().map(|row| (id(&row), row)).collect())
}

/// Whom a row of flows names.
#[must_use]
pub fn users(flow: &Value) -> Vec<&str> {
    flow["user"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Where those who ask an archive keep the log of their questions: beside it, because nobody outside vouches for one inside of it, and
/// `verify` says so.
#[must_use]
pub fn questions(archive: &Path) -> PathBuf {
    archive.with_extension("questions.jsonl")
}

/// Runs the tool on an archive and parses its JSON lines. Exit codes but 0 and 1 are errors, but for 3 of a question that says
/// that not everything was recorded.
pub fn ask(command: &str, archive: &Path, arguments: &[&str]) -> Result<Vec<Value>> {
    let log = questions(archive).display().to_string();
    let audit = if matches!(command, "find" | "who") { vec!["--audit", &*log] } else { Vec::new() };
    let archive = archive.display().to_string();
    let output = hotspot(&[&[command, "--archive", &archive, "--json"], &audit[..], arguments].concat())?;
    let is_of_gaps = || String::from_utf8_lossy(&output.stdout).contains("\"verdict\":\"not_recorded\"");
    let is_answered = match output.status.code() {
        Some(0 | 1) => true,
        Some(3) => matches!(command, "find" | "who") && is_of_gaps(),
        Some(_) | None => false,
    };
    if !is_answered {
        bail!("hotspot {command} {arguments:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    parse(&output)
}

/// The rows of an answer, without the last line, which says what the answer is.
fn parse(output: &Output) -> Result<Vec<Value>> {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Result<Vec<Value>> = text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect();
    Ok(lines?.into_iter().filter(|line| line.get("answer").is_none()).collect())
}
