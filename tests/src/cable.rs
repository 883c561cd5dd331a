//! The smallest lab: a gateway's interface and a cable to somebody who sends exactly what he wants.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::differential::{Told, by_hotspot, by_tshark};
use crate::generator::send_frames;
use crate::namespace::{self, Namespace};
use crate::pcap;
use crate::programs::Agent;

/// Nothing is sent on it but what a test sends.
#[derive(Debug)]
pub struct Cable {
    pub gateway: Namespace,
    pub sender: Namespace,
    dir: TempDir,
}

/// Keeps the names apart from those of labs.
static CABLES: AtomicU32 = AtomicU32::new(1000);

impl Cable {
    pub fn new() -> Result<Self> {
        namespace::remove_stale();
        let number = CABLES.fetch_add(1, Ordering::Relaxed);
        let (gateway, sender) = (Namespace::new(number, "gw")?, Namespace::new(number, "tx")?);
        gateway.ip(&format!("link add lan mtu 65535 type veth peer name eth0 mtu 65535 netns {}", sender.name()))?;
        for (namespace, name) in [(&gateway, "lan"), (&sender, "eth0")] {
            // The machine itself has nothing to say here.
            namespace.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"), "1")?;
            namespace.ip(&format!("link set dev {name} up"))?;
        }
        Ok(Self { gateway, sender, dir: tempfile::tempdir()? })
    }

    /// A directory for what belongs to this cable.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Sends frames past an agent, and says what tshark reads in them and what the agent recorded.
    pub fn compare(&self, frames: &[Vec<u8>], hook: &str) -> Result<(Told, Told)> {
        let (data, capture) = (self.dir.path().join("data"), self.dir.path().join("sent.pcap"));
        pcap::write(&capture, frames)?;
        let agent =
            Agent::start(&self.gateway, &data, &["--hook", hook, "--no-nat", "--generation", "1", "--grace", "0"])?;
        send_frames(&self.sender, "eth0", frames)?;
        let status = agent.stop()?;
        let log = fs::read_to_string(data.with_extension("log"))?;
        ensure!(status.success(), "the agent ended with {status}:\n{log}");
        let recorded = by_hotspot(&data.join("archive"), "lan").with_context(|| format!("the agent said:\n{log}"))?;
        let told = (by_tshark(&capture)?, recorded);
        fs::remove_dir_all(&data)?;
        Ok(told)
    }
}
