//! The kernel programs as they were with earlier layouts of the maps, without what debuggers read; never built anew.

/// The layout, as its directory of pins is called, and the object.
pub(crate) type Earlier = (&'static str, &'static [u8]);

pub(crate) static ALL: [Earlier; 1] = [("v3", aya::include_bytes_aligned!("v3.o"))];
