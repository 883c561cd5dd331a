//! The kernel programs as they were with earlier layouts of the maps, without what debuggers read; never built anew.

/// The layout, as its directory of pins is called, and the object.
pub(crate) type Earlier = (&'static str, &'static [u8]);

pub(crate) static ALL: [Earlier; 2] =
    [("v1", aya::include_bytes_aligned!("v1.o")), ("v2", aya::include_bytes_aligned!("v2.o"))];
