//! Merkle trees of RFC 6962, section 2.1, over SHA-256: a root stands for a list, and a few hashes show that one item is in it.
//!
//! Proofs are made and checked as RFC 9162, sections 2.1.3 and 2.1.4, has it; its trees are the same. Knows nothing of what the items are.

use sha2::{Digest, Sha256};

use crate::sha256::digest_of_blocks;

/// SHA-256 of a leaf or a node.
pub type Hash = [u8; 32];

/// What is hashed before a leaf's content, so that no leaf is taken for a node.
pub(crate) const LEAF: u8 = 0;
/// What is hashed before a node's two children.
const NODE: u8 = 1;

/// The hash of a leaf.
#[must_use]
pub fn leaf_hash(content: &[u8]) -> Hash {
    Sha256::new().chain_update([LEAF]).chain_update(content).finalize().into()
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    // 65 bytes, padded to two blocks.
    let mut message = [0; 128];
    message[0] = NODE;
    message[1..33].copy_from_slice(left);
    message[33..65].copy_from_slice(right);
    message[65] = 0x80;
    message[126..].copy_from_slice(&(65u16 * 8).to_be_bytes());
    digest_of_blocks(message.as_chunks().0)
}

/// A tree that grows at its end, of which only the roots of its whole subtrees are kept: one hash for each bit of its length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    len: u64,
    /// Largest subtree first.
    whole: Vec<Hash>,
}

impl Tree {
    /// Adds a leaf behind the others.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each one at the end of the length is a subtree as large as the one that was just finished.
        for _ in 0..self.len.trailing_ones() {
            if let Some(left) = self.whole.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.whole.push(hash);
        self.len += 1;
    }

    /// Leaves.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The root of the tree as it is now; that of no leaves is the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        let folded = self.whole.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        folded.unwrap_or_else(|| Sha256::digest([]).into())
    }
}

/// The root over these hashes of leaves.
#[must_use]
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree.root()
}

/// The hashes that lead from a leaf to the root, lowest first; `None` where there is no such leaf.
#[must_use]
pub fn inclusion(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    inclusions(leaves.to_vec(), &[index])?.pop()
}

/// The same for many leaves, in one pass over the tree: a proof for each index, in the order asked. `None` where one of them is no leaf.
#[must_use]
pub fn inclusions(mut level: Vec<Hash>, indices: &[usize]) -> Option<Vec<Vec<Hash>>> {
    if indices.iter().any(|index| *index >= level.len()) {
        return None;
    }
    let mut proofs = vec![Vec::new(); indices.len()];
    let mut height = 0;
    while level.len() > 1 {
        for (proof, index) in proofs.iter_mut().zip(indices) {
            // The last of an odd level has no sibling and rises as it is.
            proof.extend(level.get((index >> height) ^ 1));
        }
        let parents = level.len().div_ceil(2);
        for parent in 0..parents {
            level[parent] = match level.get(2 * parent + 1) {
                Some(right) => node_hash(&level[2 * parent], right),
                None => level[2 * parent],
            };
        }
        level.truncate(parents);
        height += 1;
    }
    Some(proofs)
}

/// Whether a leaf is the one at `index` in the tree of `size` leaves with this root (RFC 9162, section 2.1.3.2). Root and size must
/// come from the same signed place: the path to the third of three leaves is that to the second of two.
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut place, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            hash = node_hash(sibling, &hash);
            // Levels at which it was the last of an odd number: nothing was hashed there.
            rise_to_right_child(&mut place, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// The hashes that show that the first `old` leaves are still the first; `None` where there are not so many.
#[must_use]
pub fn consistency(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    if old > leaves.len() {
        return None;
    }
    let mut proof = Vec::new();
    if old > 0 {
        add_consistency(leaves, old, true, &mut proof);
    }
    Some(proof)
}

/// SUBPROOF of RFC 9162, section 2.1.4.1. `is_known`: this subtree is all of the old tree, whose root the verifier has.
fn add_consistency(leaves: &[Hash], old: usize, is_known: bool, proof: &mut Vec<Hash>) {
    if old == leaves.len() {
        if !is_known {
            proof.push(root_of(leaves));
        }
        return;
    }
    // The largest power of two that leaves something for the right side.
    let split = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(split);
    if old <= split {
        add_consistency(left, old, is_known, proof);
        proof.push(root_of(right));
    } else {
        add_consistency(right, old - split, false, proof);
        proof.push(root_of(left));
    }
}

/// Whether the tree of `new` leaves begins with that of `old` leaves (RFC 9162, section 2.1.4.2). Every tree begins with the empty one.
#[must_use]
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old >= new {
        return old == new && old_root == new_root && proof.is_empty();
    }
    if old == 0 {
        return *old_root == Tree::default().root() && proof.is_empty();
    }
    // A whole subtree is its own beginning, which the verifier has.
    let own = old.is_power_of_two().then_some(old_root);
    let mut path = own.into_iter().chain(proof);
    let Some(first) = path.next() else { return false };
    let (mut place, mut last) = (old - 1, new - 1);
    let shared = place.trailing_ones();
    place >>= shared;
    last >>= shared;
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            rise_to_right_child(&mut place, &mut last);
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// Up to the level at which a place is a right child, or the root.
fn rise_to_right_child(place: &mut u64, last: &mut u64) {
    while *place & 1 == 0 && *place != 0 {
        *place >>= 1;
        *last >>= 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::{from_hex, to_hex};

    /// Leaves, and the roots over the first one, two … eight of them: the reference data of Certificate Transparency
    /// (`cpp/merkletree/merkle_tree_test.cc` of google/certificate-transparency).
    const REFERENCE: [(&str, &str); 8] = [
        ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
        ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
        ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
        ("5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        ("606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ];

    /// The definition of RFC 6962, section 2.1, word for word.
    fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => *leaf,
            _ => {
                let mut split = 1;
                while split * 2 < leaves.len() {
                    split *= 2;
                }
                let (left, right) = leaves.split_at(split);
                Sha256::digest([&[1][..], &naive_root(left), &naive_root(right)].concat()).into()
            }
        }
    }

    /// PATH of RFC 6962, section 2.1.1.
    fn naive_path(leaves: &[Hash], index: usize) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let mut split = 1;
        while split * 2 < leaves.len() {
            split *= 2;
        }
        let (left, right) = leaves.split_at(split);
        let (mut path, other) =
            if index < split { (naive_path(left, index), right) } else { (naive_path(right, index - split), left) };
        path.push(naive_root(other));
        path
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    fn reference() -> Vec<Hash> {
        REFERENCE.iter().map(|(content, _)| leaf_hash(&from_hex(content).unwrap())).collect()
    }

    fn texts(proof: &[Hash]) -> Vec<String> {
        proof.iter().map(|hash| to_hex(hash)).collect()
    }

    #[test]
    fn roots_are_those_of_the_reference() {
        assert_eq!(to_hex(&root_of(&[])), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let mut tree = Tree::default();
        for (position, (leaf, (_, root))) in reference().iter().zip(REFERENCE).enumerate() {
            tree.push(*leaf);
            assert_eq!(to_hex(&tree.root()), root);
            assert_eq!(to_hex(&root_of(&reference()[..=position])), root);
        }
    }

    #[test]
    fn proofs_are_those_of_the_reference() {
        let of_first = [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ];
        let of_sixth = [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        assert_eq!(texts(&inclusion(&reference(), 0).unwrap()), of_first);
        assert_eq!(texts(&inclusion(&reference(), 5).unwrap()), of_sixth);
        assert_eq!(texts(&consistency(&reference(), 1).unwrap()), of_first);
        let of_six = [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        assert_eq!(texts(&consistency(&reference(), 6).unwrap()), of_six);
    }

    #[test]
    fn each_leaf_is_proved_at_its_place_and_at_no_other() {
        for size in 1..40 {
            let leaves = leaves(size);
            let root = naive_root(&leaves);
            let all: Vec<usize> = (0..size).collect();
            let proofs = inclusions(leaves.clone(), &all).unwrap();
            for (index, proof) in proofs.iter().enumerate() {
                assert_eq!(*proof, naive_path(&leaves, index));
                for (place, leaf) in leaves.iter().enumerate() {
                    let holds = verify_inclusion(leaf, index as u64, size as u64, proof, &root);
                    assert_eq!(holds, place == index, "{place} as {index} of {size}");
                }
                assert!(!verify_inclusion(&leaves[index], size as u64, size as u64, proof, &root));
                assert!(!verify_inclusion(&leaves[index], index as u64, 4 * size as u64, proof, &root), "too short");
            }
            assert_eq!(inclusion(&leaves, size), None);
        }
    }

    #[test]
    fn each_beginning_is_consistent_and_another_is_not() {
        for new in 0..40 {
            let leaves = leaves(new);
            let new_root = naive_root(&leaves);
            for old in 0..=new {
                let (old_root, proof) = (naive_root(&leaves[..old]), consistency(&leaves, old).unwrap());
                let holds = |old_root, new_root, proof: &[Hash]| {
                    verify_consistency(old as u64, old_root, new as u64, new_root, proof)
                };
                assert!(holds(&old_root, &new_root, &proof), "{old} of {new}");
                let mut other = old_root;
                other[7] ^= 1;
                assert!(!holds(&other, &new_root, &proof), "another beginning of {old}");
                let longer = [&proof[..], &[old_root]].concat();
                assert!(!holds(&old_root, &new_root, &longer), "a hash too many, {old} of {new}");
                if let Some((_, shorter)) = proof.split_last() {
                    assert!(!holds(&old_root, &new_root, shorter), "a hash too few, {old} of {new}");
                }
                if old > 0 {
                    let mut other = new_root;
                    other[31] ^= 128;
                    assert!(!holds(&old_root, &other, &proof), "another end, {old} of {new}");
                    assert!(!verify_consistency(new as u64, &new_root, old as u64, &old_root, &proof) || old == new);
                }
            }
            assert_eq!(consistency(&leaves, new + 1), None);
        }
    }

    proptest! {
        #[test]
        fn a_growing_tree_has_the_root_of_its_leaves(count in 0usize..3000) {
            let leaves = leaves(count);
            let mut tree = Tree::default();
            leaves.iter().for_each(|leaf| tree.push(*leaf));
            prop_assert_eq!(tree.len(), count as u64);
            prop_assert_eq!(tree.is_empty(), count == 0);
            prop_assert_eq!(tree.root(), naive_root(&leaves));
        }

        #[test]
        fn any_change_of_a_proof_is_refused(
            size in 2usize..3000, at in any::<prop::sample::Index>(), which in any::<prop::sample::Index>(), bit in 0usize..256
        ) {
            let leaves = leaves(size);
            let (index, root) = (at.index(size), root_of(&leaves));
            let proof = inclusion(&leaves, index).unwrap();
            let holds = |proof: &[Hash]| verify_inclusion(&leaves[index], index as u64, size as u64, proof, &root);
            prop_assert!(holds(&proof));
            let mut changed = proof.clone();
            changed[which.index(proof.len())][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!holds(&changed));
            prop_assert!(!holds(&proof[1..]));
            prop_assert!(!holds(&proof[..proof.len() - 1]));
            prop_assert!(!holds(&[&proof[..], &[root]].concat()));
        }
    }
}
