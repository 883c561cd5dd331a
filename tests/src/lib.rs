//! The lab: a venue built from network namespaces, with real servers and clients, and the programs under test in it.
//!
//! Everything is inside namespaces this process made, and removed again on drop; what a killed run left is removed by the next.
//! Needs root and the programs `cargo xtask setup` installs.

pub mod aaa;
pub mod cable;
pub mod captures;
pub mod demo;
pub mod differential;
pub mod foreign;
pub mod frames;
pub mod generator;
pub mod lab;
pub mod mount;
pub mod namespace;
pub mod pcap;
pub mod programs;
pub mod random;
pub mod venue;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Waits until something is so; fails when it is not in time.
pub fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
