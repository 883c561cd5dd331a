//! What an archive *is*: record schema, journal, segments, manifest, search.
//!
//! No network, no eBPF, no async. Used by the agent, which writes, and by the tool, which reads.
#![forbid(unsafe_code)]

pub mod entry;
