//! A file of which only what is read is compared with what was vouched for: block by block, when it is read.
//!
//! A search reads a few columns of a segment, or a few pages; to hash the rest of it would take longer than to answer.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use sha2::{Digest, Sha256};

/// Bytes of a block; the last of a file may be shorter.
const BLOCK_BYTES: usize = 16 << 10;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;

/// The SHA-256 of every block of a file, one behind the other.
pub(crate) fn hash_blocks(mut file: impl Read) -> io::Result<Vec<u8>> {
    let mut hashes = Vec::new();
    loop {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        if file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)? == 0 {
            return Ok(hashes);
        }
        hashes.extend_from_slice(&Sha256::digest(&block));
    }
}

/// A file to be read at any place.
#[derive(Debug)]
pub(crate) struct BlockFile {
    file: File,
    len: u64,
    /// `None` where nothing is compared, or the whole file was.
    blocks: Option<Blocks>,
}

/// What the blocks of a file must be.
#[derive(Debug)]
struct Blocks {
    hashes: Vec<u8>,
    /// Those that were compared.
    are_compared: Vec<AtomicBool>,
}

impl BlockFile {
    /// `blocks` are what [`hash_blocks`] said of it.
    pub(crate) fn new(file: File, blocks: Option<Vec<u8>>) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let Some(hashes) = blocks else { return Ok(Self { file, len, blocks: None }) };
        let count = len.div_ceil(BLOCK_BYTES as u64);
        if hashes.len() as u64 != count * HASH_BYTES as u64 {
            return Err(changed("it has another length"));
        }
        let are_compared = (0..count).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { file, len, blocks: Some(Blocks { hashes, are_compared }) })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// So many bytes at a place; an error where the file ends before, or is not what it was.
    pub(crate) fn read_at(&self, at: u64, len: usize) -> io::Result<Bytes> {
        let outside = || io::Error::new(io::ErrorKind::UnexpectedEof, "it points out of itself");
        let end = at.checked_add(len as u64).filter(|end| *end <= self.len).ok_or_else(outside)?;
        let Some(blocks) = self.blocks.as_ref().filter(|blocks| len > 0 && !blocks.has(at, end)) else {
            return read_exact_at(&self.file, at, len).map(Bytes::from);
        };
        let begin = at / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let end = end.next_multiple_of(BLOCK_BYTES as u64).min(self.len);
        let bytes = read_exact_at(&self.file, begin, usize_of(end - begin)?)?;
        blocks.compare(begin, &bytes)?;
        let skipped = usize_of(at - begin)?;
        Ok(Bytes::from(bytes).slice(skipped..skipped + len))
    }
}

impl Blocks {
    /// Whether all between two places was compared.
    fn has(&self, begin: u64, end: u64) -> bool {
        let block = |at: u64| usize_of(at / BLOCK_BYTES as u64).unwrap_or(usize::MAX);
        let blocks = block(begin)..block(end.next_multiple_of(BLOCK_BYTES as u64));
        self.are_compared.get(blocks).is_some_and(|blocks| blocks.iter().all(|block| block.load(Ordering::Relaxed)))
    }

    /// Compares whole blocks, which begin at a place.
    fn compare(&self, begin: u64, bytes: &[u8]) -> io::Result<()> {
        let first = usize_of(begin / BLOCK_BYTES as u64)?;
        let expected = self.hashes.chunks_exact(HASH_BYTES).zip(&self.are_compared).skip(first);
        for ((hash, is_compared), block) in expected.zip(bytes.chunks(BLOCK_BYTES)) {
            if !is_compared.load(Ordering::Relaxed) {
                if Sha256::digest(block)[..] != *hash {
                    return Err(changed("SHA-256 differs from its line"));
                }
                is_compared.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// So many bytes at a place in a file, read into memory that nobody cleared before.
pub(crate) fn read_exact_at(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let next = at + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), next) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

fn changed(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it was changed ({how})"))
}

fn usize_of(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content: &[u8], blocks: Vec<u8>) -> io::Result<BlockFile> {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, content).unwrap();
        BlockFile::new(file, Some(blocks))
    }

    #[test]
    fn what_is_read_is_what_was_hashed_and_a_change_is_noticed_where_it_is() {
        for len in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 77] {
            let content: Vec<u8> = (0..len).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect();
            let hashes = hash_blocks(content.as_slice()).unwrap();
            assert_eq!(hashes.len(), len.div_ceil(BLOCK_BYTES) * 32);
            let ranges = [0..len, 0..len.min(10), len / 2..len, len..len, len / 3..len - len / 4];
            let file = of(&content, hashes.clone()).unwrap();
            for range in &ranges {
                assert_eq!(file.read_at(range.start as u64, range.len()).unwrap(), content[range.clone()]);
            }
            assert!(file.read_at(len as u64, 1).is_err() && file.read_at(u64::MAX, 1).is_err());
            for at in [0, len / 2, len.saturating_sub(1)].into_iter().filter(|at| *at < len) {
                let mut changed = content.clone();
                changed[at] ^= 1;
                for range in &ranges {
                    let file = of(&changed, hashes.clone()).unwrap();
                    let read = file.read_at(range.start as u64, range.len());
                    let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
                    let is_read = !range.is_empty() && blocks.contains(&(at / BLOCK_BYTES));
                    assert_eq!(read.is_err(), is_read, "{at} of {len} changed, {range:?} read");
                }
            }
            assert!(of(&[content, vec![0; BLOCK_BYTES]].concat(), hashes).is_err(), "longer");
        }
    }
}
