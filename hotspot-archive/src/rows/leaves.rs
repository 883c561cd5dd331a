//! The leaves of a file's tree: salt, hash of what rows share, and the row's own bytes.

use super::RowsRoot;
use super::salt::{SALT_BYTES, Salt, SaltKey, Salts};
use crate::merkle::{Hash, LEAF, Tree};
use crate::sha256::digest_in_place;

/// Bytes of a leaf before the row's own: what makes it a leaf, the salt, the hash of the shared part.
const HEAD_BYTES: usize = 1 + SALT_BYTES + 32;

/// The hash of a leaf.
pub(super) fn leaf_hash(salt: &Salt, shared: &Hash, own: &[u8]) -> Hash {
    let mut message = vec![0; HEAD_BYTES];
    message.extend_from_slice(own);
    put_head(salt, shared, &mut message);
    digest_in_place(&mut message)
}

#[inline]
fn put_head(salt: &Salt, shared: &Hash, message: &mut [u8]) {
    message[0] = LEAF;
    message[1..=SALT_BYTES].copy_from_slice(salt);
    message[1 + SALT_BYTES..HEAD_BYTES].copy_from_slice(shared);
}

/// The hash of what rows share.
pub(super) fn shared_hash(shared: &[u8]) -> Hash {
    digest_in_place(&mut shared.to_vec())
}

/// The tree of a file in the making: holds one hash per bit of the number of rows.
pub(super) struct Leaves {
    salts: Salts,
    tree: Tree,
    /// The leaf at hand, which is written where it is hashed.
    message: Vec<u8>,
}

impl Leaves {
    pub(super) fn new(key: &SaltKey) -> Self {
        Self { salts: Salts::new(key), tree: Tree::default(), message: Vec::new() }
    }

    /// Begins a row; its own bytes are to be put behind what is there.
    #[inline]
    pub(super) fn begin(&mut self) -> &mut Vec<u8> {
        self.message.resize(HEAD_BYTES, 0);
        &mut self.message
    }

    /// Adds the row that was begun behind the others; its salt and its leaf's hash.
    #[inline]
    pub(super) fn end(&mut self, shared: &Hash) -> (Salt, Hash) {
        let salt = self.salts.next();
        put_head(&salt, shared, &mut self.message);
        let hash = digest_in_place(&mut self.message);
        self.tree.push(hash);
        (salt, hash)
    }

    pub(super) fn finish(&self) -> RowsRoot {
        RowsRoot { rows: self.tree.len(), root: self.tree.root() }
    }
}
