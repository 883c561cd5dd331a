//! The daemon on the gateway: capture, identities, NAT, journal, seal.
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod capture;
pub mod carrier;
pub mod cli;
pub mod devices;
pub mod identity;
pub mod journals;
pub mod locks;
pub mod nat;
mod netlink;
pub mod recorder;
pub mod recovery;
pub mod run;
pub mod sealer;
pub mod secrecy;
pub mod seldom;
pub mod upkeep;
pub mod vendors;
