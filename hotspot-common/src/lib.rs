//! Types that the kernel programs and the agent share.
//!
//! Owns the layout of everything that crosses the boundary between kernel and userspace: the flow key, the slots of the
//! flow cache, the records of the rings, the counters. All integers are in host byte order, all padding is explicit and
//! zero, sizes and offsets are asserted at compile time. Any change here changes [`LAYOUT_VERSION`].
//!
//! Never holds logic beyond layout and the few conversions that must be the same on both sides.
#![no_std]

pub mod control;
pub mod ethertype;
pub mod flow;
pub mod head;
pub mod notice;
pub mod outcome;

pub use ethertype::{ETHERTYPES_MAX, ethertype_key, ethertype_of};
pub use flow::{Birth, Direction, EventKind, FlowEvent, FlowKey, OverflowKey, OverflowTotal, Set, Slot};
pub use head::{Active, Head};
pub use notice::{NOTICE_PAYLOAD_MAX, NOTICE_RING_BYTES, Notice, NoticeHeader, NoticeKind};
pub use outcome::{Count, Happening, Outcome, Tally};

/// Version of everything in this crate; part of the path the maps are pinned under, so that two layouts never meet.
pub const LAYOUT_VERSION: u32 = 4;

/// How many slots of the flow cache a flow may lie in (the associativity of a set).
pub const WAYS: u32 = 4;

/// How many interfaces one agent can watch; the interface shares one byte of the key with the direction.
pub const INTERFACES_MAX: u32 = 64;

/// Clients told apart, per CPU, when their shares of the detail are counted.
pub const SHARES: u32 = 1 << 12;

/// Devices told apart, per CPU, when their share of the notices is counted.
pub const NOTICE_SHARES: u32 = 1 << 10;
