//! The kernel programs themselves, run by `BPF_PROG_TEST_RUN` on frames of our own: what may change, and that nothing else does.
//!
//! Needs root and a BPF file system.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cache;
mod exits;
mod fragments;
#[path = "../layouts/mod.rs"]
mod layouts;
mod notices;
mod parsing;
mod plain;
mod quotes;
mod rig;
mod snapshot;
mod tunnels;
mod upgrade;
mod verifier;
