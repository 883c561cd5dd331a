//! The tool as a person runs it, on archives that are sealed here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small numbers")]

mod answers;
mod asking;
mod attacks;
mod audit;
mod fleet;
mod gaps;
mod keys;
mod outside;
mod s3;
mod shipping;
mod stamps;
mod venue;
mod written;
