//! File systems of a test's own, unmounted when they are dropped.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::namespace::run;

/// A mount.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// A file system in memory with limits of its own: `size=3m`, `nr_inodes=40`.
    pub fn tmpfs(at: &Path, options: &str) -> Result<Self> {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at))?;
        Ok(Self(at.to_path_buf()))
    }

    /// Makes a directory read-only for whoever opens something in it from now on. The kernel refuses to make a file system read-only that
    /// has files open for writing, unless it is damaged; then too those that are open can be written for a while.
    pub fn read_only(at: &Path) -> Result<Self> {
        run(Command::new("mount").arg("--bind").args([at, at]))?;
        let mount = Self(at.to_path_buf());
        run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(at))?;
        Ok(mount)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, because the agent of a failed test may still be there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
