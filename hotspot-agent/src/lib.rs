//! The daemon on the gateway: capture, identities, NAT, journal, seal.

pub mod capture;
pub mod recorder;
