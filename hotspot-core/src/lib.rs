//! What hotspot decides, without doing anything: merging what the kernel counted into flows, who held an address when,
//! which NAT binding was whose, and how sure all that is.
//!
//! No input, no output, no clock: time is an argument, in nanoseconds since the Unix epoch. Everything here can be tested
//! and fuzzed without a kernel, a network or privileges.
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod assembly;
pub mod attribute;
pub mod detail;
pub mod device;
pub mod dhcp;
pub mod dhcpv6;
mod domain_name;
pub mod fact;
pub mod losses;
pub mod mac;
pub mod merge;
pub mod nat;
pub mod neighbour;
pub mod notice;
mod person;
pub mod radius;
pub mod record;
pub mod sessions;
pub mod text;
pub mod vendor;

pub use mac::MacAddr;
pub use person::named_device;

/// Wall-clock time: nanoseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
pub type WallNs = i64;
