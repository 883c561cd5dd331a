//! Frames: `[payload length u32, kind u8, 3 zero bytes, sequence u64, uncompressed length u32, CRC32C u32]`, then the payload
//! compressed with zstd. All little-endian. The checksum covers the header before it and the payload as it lies there.
//!
//! In an encrypted file the payload is nonce, AES-256-GCM of what would be there otherwise, and tag; the header up to the checksum
//! is bound to it. The checksum is over what is on disk, so that damage is found, and skipped, without the key.

use std::io;

use crate::sealed::{FrameKey, OVERHEAD};

/// First bytes of the file: magic, then the version as u32 and four zero bytes.
pub(super) const MAGIC: [u8; 8] = *b"HSJOURNL";
pub(super) const VERSION_PLAIN: u32 = 1;
pub(super) const VERSION_ENCRYPTED: u32 = 2;
pub(super) const FILE_HEADER_LEN: usize = 16;
pub(super) const HEADER_LEN: usize = 24;

/// Largest payload, compressed or not: bounds what a damaged length can make a reader allocate.
pub const PAYLOAD_MAX: usize = 16 << 20;
/// What cannot be compressed grows a little: zstd's bound is a 256th and some bytes.
const COMPRESSED_MAX: usize = PAYLOAD_MAX + PAYLOAD_MAX / 128 + OVERHEAD;
/// Bytes of the header that checksum and encryption cover.
const BOUND_LEN: usize = 20;

/// Fast, because the gateway has other things to do; segments are compressed harder.
const LEVEL: i32 = 1;

pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) sequence: u64,
    pub(super) payload: &'a [u8],
    bound: &'a [u8],
    raw_len: usize,
}

/// Whether the frame with this number is the first of those that were written at once. So it shows whether what is in front of it was
/// acknowledged: nothing is written before that.
pub(super) fn begins_commit(number: u64) -> bool {
    number.is_multiple_of(2)
}

/// The version a file header names; `None` where it is none.
pub(super) fn version(header: &[u8]) -> Option<u32> {
    [VERSION_PLAIN, VERSION_ENCRYPTED].into_iter().find(|version| header.starts_with(&file_header(*version)))
}

pub(super) fn file_header(version: u32) -> [u8; FILE_HEADER_LEN] {
    let mut header = [0; FILE_HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&version.to_le_bytes());
    header
}

/// Compresses the frames of one file: making its memory takes several times as long as a small frame.
pub(super) type Compressor = zstd::bulk::Compressor<'static>;
/// The inverse, for the same reason.
pub(super) type Decompressor = zstd::bulk::Decompressor<'static>;

pub(super) fn compressor() -> io::Result<Compressor> {
    Compressor::new(LEVEL)
}

/// Appends a frame to `to`. The payload must not be larger than [`PAYLOAD_MAX`].
pub(super) fn write(
    to: &mut Vec<u8>,
    kind: u8,
    sequence: u64,
    payload: &[u8],
    key: Option<&FrameKey>,
    compressor: &mut Compressor,
) -> io::Result<()> {
    let compressed = compressor.compress(payload)?;
    let start = to.len();
    let overhead = if key.is_some() { OVERHEAD } else { 0 };
    to.extend(length(compressed.len() + overhead).to_le_bytes());
    to.extend([kind, 0, 0, 0]);
    to.extend(sequence.to_le_bytes());
    to.extend(length(payload.len()).to_le_bytes());
    let payload = match key {
        None => compressed,
        Some(key) => {
            let mut sealed = Vec::new();
            let refused = || io::Error::other("the kernel gave no random bytes");
            key.seal(&to[start..], &compressed, &mut sealed).ok_or_else(refused)?;
            sealed
        }
    };
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&to[start..]), &payload);
    to.extend(checksum.to_le_bytes());
    to.extend(payload);
    Ok(())
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Whether `bytes`, which start with no whole frame, look like one whose end was never written.
///
/// A write that was cut short leaves a prefix of a frame, or zeros where the file had already grown. A frame that is there in
/// full but does not fit its checksum was changed later, and may have been acknowledged.
pub(super) fn is_cut_short(bytes: &[u8]) -> bool {
    let len = bytes.first_chunk::<4>().map(|len| u32::from_le_bytes(*len) as usize);
    let ends_behind = len.is_none_or(|len| len <= COMPRESSED_MAX && HEADER_LEN + len > bytes.len());
    let is_short = bytes.len() < HEADER_LEN || ends_behind || bytes.iter().all(|byte| *byte == 0);
    is_short && !is_whole_but_for_its_length(bytes)
}

/// Whether the file ends where a frame ends whose length field alone was changed.
fn is_whole_but_for_its_length(bytes: &[u8]) -> bool {
    let Some(len) = bytes.len().checked_sub(HEADER_LEN).filter(|len| *len <= COMPRESSED_MAX) else { return false };
    let mut header = [0; HEADER_LEN];
    header.copy_from_slice(&bytes[..HEADER_LEN]);
    header[..4].copy_from_slice(&length(len).to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..BOUND_LEN]), &bytes[HEADER_LEN..]);
    header[BOUND_LEN..] == checksum.to_le_bytes()
}

/// The frame at the start of `bytes`; `None` where there is no whole, undamaged one.
pub(super) fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
    let header = bytes.get(..HEADER_LEN)?;
    let u32_at = |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let len = usize::try_from(u32_at(0)?).ok()?;
    let raw_len = usize::try_from(u32_at(16)?).ok()?;
    if len > COMPRESSED_MAX || raw_len > PAYLOAD_MAX || header[5..8] != [0; 3] {
        return None;
    }
    let payload = bytes.get(HEADER_LEN..HEADER_LEN + len)?;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..BOUND_LEN]), payload);
    if u32_at(20)? != checksum {
        return None;
    }
    let sequence = u64::from_le_bytes(header[8..16].try_into().ok()?);
    Some(Frame { kind: header[4], sequence, payload, bound: &header[..BOUND_LEN], raw_len })
}

impl Frame<'_> {
    /// Bytes of the frame in the file.
    pub(super) fn len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// The payload as it was before; `None` where it, or the key, does not fit.
    pub(super) fn open(&self, key: Option<&FrameKey>, decompressor: &mut Decompressor) -> Option<Vec<u8>> {
        let raw = match key {
            None => decompressor.decompress(self.payload, self.raw_len).ok()?,
            Some(key) => decompressor.decompress(&key.open(self.bound, self.payload.to_vec())?, self.raw_len).ok()?,
        };
        (raw.len() == self.raw_len).then_some(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_payload_can_be_read_back_though_it_does_not_compress() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut payload = Vec::with_capacity(PAYLOAD_MAX);
        while payload.len() < PAYLOAD_MAX {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            payload.extend(state.to_le_bytes());
        }
        let mut written = Vec::new();
        write(&mut written, 1, 7, &payload, None, &mut compressor().unwrap()).unwrap();
        assert!(written.len() - HEADER_LEN > PAYLOAD_MAX, "it grew, or this tests nothing");
        let frame = parse(&written).unwrap();
        assert!(frame.open(None, &mut Decompressor::new().unwrap()).unwrap() == payload);
    }
}
