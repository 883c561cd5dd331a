//! The index of a segment of flows: which values occur in it, and in which rows, so that a search opens only what can match.
//!
//! One small file per segment, written once beside it and never changed. It is exact: sorted values, no fingerprints, so an address
//! or a whole network that is not in it is not in the segment. It is a help only: a search without it reads more and finds the
//! same. Bytes are checked before they are believed, because a wrong index would hide a flow: the manifest line vouches for the header, the
//! header for the directories, these for the pieces that are read of a section, and the last section for the blocks of the segment. Format:
//! `docs/formats/index.md`.

mod beginning;
mod builder;
mod bytes;
mod keys;
mod lookup;
mod rows;
mod sealed;
mod section;

use std::net::IpAddr;

pub(crate) use builder::{Builder, Parts};
pub(crate) use keys::{IndexKey, KeyChain, KnownChains};
pub(crate) use lookup::{Index, Said};
pub(crate) use rows::Rows;
pub(crate) use sealed::{Sealed, seal};

/// What an index file begins with.
const MAGIC: [u8; 8] = *b"HSINDEX\n";
/// Version of the format.
const FORMAT: u32 = 3;
/// Longest directory, and longest piece of a section, that is read.
const BYTES_MAX: usize = 256 << 20;

/// What a section is about; the numbers are in the file, the order is that of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    Mac = 1,
    ClientIp = 2,
    User = 3,
    Public = 4,
    Peer = 5,
    Blocks = 6,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Mac, Self::ClientIp, Self::User, Self::Public, Self::Peer, Self::Blocks];
}

/// Why an index cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("is no index of format {FORMAT}")]
    Format,
    #[error("is damaged")]
    Damaged,
    #[error("is of another segment")]
    OtherSegment,
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// An address as 16 bytes, IPv4 mapped into IPv6: one order for both.
fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
