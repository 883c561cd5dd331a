//! Keys of the map `ETHERTYPES`: what is counted of frames that are not read because of their ethertype.
//!
//! The map came to layout 4 later, and changes nothing of what was there: programs without it count nothing here.

/// Elements of the map: of both halves and all interfaces together.
pub const ETHERTYPES_MAX: u32 = 256;

/// The key of an ethertype on an interface, in a half of the cache (0 or 1).
#[must_use]
#[inline(always)]
pub const fn ethertype_key(half: u32, interface: u8, ethertype: u16) -> u32 {
    half << 24 | (interface as u32) << 16 | ethertype as u32
}

/// Half, interface and ethertype of a key.
#[must_use]
pub const fn ethertype_of(key: u32) -> (u32, u8, u16) {
    let [half, interface, high, low] = key.to_be_bytes();
    (half as u32, interface, u16::from_be_bytes([high, low]))
}

const _: () = assert!(matches!(ethertype_of(ethertype_key(1, 63, 0x8847)), (1, 63, 0x8847)));
