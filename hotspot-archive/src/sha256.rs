//! SHA-256 of short messages that lie in memory whole.
//!
//! A hasher that takes a message piece by piece keeps a buffer, and for two blocks takes as long for that as for hashing.

use sha2::block_api::compress256;

use crate::merkle::Hash;

const BLOCK_BYTES: usize = 64;
/// FIPS 180-4, section 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The hash of a message, which is padded to whole blocks where it lies (FIPS 180-4, section 5.1.1).
pub(crate) fn digest_in_place(message: &mut Vec<u8>) -> Hash {
    let bits = message.len() as u64 * 8;
    message.push(0x80);
    // The length takes the last 8 bytes of a block.
    message.resize((message.len() + 8).next_multiple_of(BLOCK_BYTES) - 8, 0);
    message.extend(bits.to_be_bytes());
    digest_of_blocks(message.as_chunks().0)
}

/// The hash of a message of which the padding is part already.
pub(crate) fn digest_of_blocks(blocks: &[[u8; BLOCK_BYTES]]) -> Hash {
    let mut state = INITIAL;
    compress256(&mut state, blocks);
    let mut hash = [0; 32];
    for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    hash
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_library_for_every_length() {
        for len in 0..400 {
            let mut message: Vec<u8> = (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
            let expected: Hash = Sha256::digest(&message).into();
            assert_eq!(digest_in_place(&mut message), expected, "{len} bytes");
        }
    }
}
