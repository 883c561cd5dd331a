//! What an archive *is*: record schema, journal, segments, manifest, search.
//!
//! No network, no eBPF, no async. Used by the agent, which writes, and by the tool, which reads.
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod at_rest;
pub mod audit;
pub mod chain;
pub mod checkpoint;
pub mod checkpoints;
pub mod correction;
pub mod cosignature;
pub mod draft;
pub mod elapsed;
pub mod entry;
pub mod filter;
pub mod first;
pub mod journal;
pub mod keys;
pub mod layout;
pub mod manifest;
pub mod merkle;
pub mod moved;
pub mod note;
pub mod output_file;
pub mod pieces;
pub mod place;
pub mod policy;
pub mod private;
pub mod regular;
pub mod retention;
pub mod rows;
pub mod search;
pub mod segment;
pub mod signing;
pub mod stamp;
pub mod state;
pub mod unrecorded;
pub mod verify;
pub mod when;
pub mod witness;

mod blocks;
mod durable;
mod index;
mod sealed;
mod sha256;
