//! A network namespace with a name, and commands run in it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// First part of the names of all namespaces of the lab, before the pid of the process that made them.
const PREFIX: &str = "hs";

/// Removed with everything that runs in it when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes `hs<pid>-<lab>-<role>`.
    pub fn new(lab: u32, role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{lab}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command in this namespace. Not `ip netns exec`, which would show another `/sys`, without the BPF file system.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program);
        command
    }

    /// Runs a command line of words in the namespace and returns what it printed.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().unwrap_or_default());
        run(command.args(words))
    }

    /// Runs a part of this program in the namespace, on a thread of its own.
    pub fn within<T: Send>(&self, part: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = File::open(self.path())?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                // SAFETY: moves only this thread, which ends soon.
                if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(io::Error::last_os_error()).context("setns");
                }
                part()
            });
            inside.join().map_err(|_| anyhow::anyhow!("a thread in {} panicked", self.name))?
        })
    }

    pub fn ip(&self, line: &str) -> Result<String> {
        run(Command::new("ip").args(["-n", &self.name]).args(line.split_whitespace()))
    }

    /// Sets a sysctl of the namespace.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.run(&format!("sysctl -qw {name}={value}")).map(drop)
    }

    /// Starts a command that goes on; it is killed with the namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {command:?}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes what killed runs left behind.
pub fn remove_stale() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}

/// Removes every namespace of the lab, also those of a run that was kept.
pub fn remove_all() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    let pids =
        Command::new("ip").args(["netns", "pids", name]).output().map(|output| output.stdout).unwrap_or_default();
    for pid in String::from_utf8_lossy(&pids).split_whitespace() {
        // Whatever it is, it runs only in a namespace of ours; and it may have ended meanwhile.
        let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
    }
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Runs a command to its end; its output, or an error that says what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
