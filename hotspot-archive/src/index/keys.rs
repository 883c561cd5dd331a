//! Keys of encrypted indexes: a chain, in which every key is made from the one before.
//!
//! A search asks every index there is, and unwrapping a key for each would take most of its time. So a gateway wraps the first key of a
//! chain for its recipients, seals one index with each key, and forgets the key once it has made the next. Whoever unwraps the
//! first has all of them; whoever takes the gateway away has only those that are still to come. Format: `docs/formats/encryption.md`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::keys::{DataKey, KeyError, Keyring, Recipients};
use crate::sealed;

/// Keys of a chain: two weeks of indexes of five minutes. With more, one forged index could keep a reader busy.
const KEYS_MAX: u32 = 1 << 12;
/// Chains a reader remembers, and keys of each: those of the indexes that were asked last.
const CHAINS_MAX: usize = 1 << 14;
const LAST_MAX: usize = 32;

/// A place in a chain: from it follow the key of one index and the next place.
#[derive(Clone)]
struct Link(DataKey);

impl Link {
    fn follow(&self) -> Option<(DataKey, Self)> {
        let [key, next] = sealed::derived(self.0.expose(), ["index key", "index chain"])?;
        Some((DataKey::from_bytes(&*key)?, Self(DataKey::from_bytes(&*next)?)))
    }
}

/// The key of one index, and what a reader needs to find it.
pub(crate) struct IndexKey {
    pub(super) key: DataKey,
    /// The chain's first key, as an age file.
    pub(super) wrapped: Arc<[u8]>,
    /// How many keys of the chain come before.
    pub(super) number: u32,
}

/// The chain that a gateway seals with.
pub(crate) struct KeyChain {
    wrapped: Arc<[u8]>,
    next: Link,
    number: u32,
}

impl KeyChain {
    pub(crate) fn begin(recipients: &Recipients) -> Result<Self, KeyError> {
        let first = DataKey::generate()?;
        let wrapped = recipients.wrap(&first)?.into();
        Ok(Self { wrapped, next: Link(first), number: 0 })
    }

    /// A key nobody has had before; `None` at the end of the chain.
    pub(crate) fn take(&mut self) -> Option<IndexKey> {
        let number = Some(self.number).filter(|number| *number < KEYS_MAX)?;
        let (key, next) = self.next.follow()?;
        self.next = next;
        self.number += 1;
        Some(IndexKey { key, wrapped: Arc::clone(&self.wrapped), number })
    }
}

/// The chains a reader has unwrapped, by their wrapped first keys; nothing of those that are not for it.
#[derive(Default)]
pub(crate) struct KnownChains(Mutex<HashMap<Box<[u8]>, Option<Followed>>>);

impl KnownChains {
    /// The key with a number; `None` where the chain is not for the keyring.
    pub(super) fn key(&self, keyring: &Keyring, wrapped: &[u8], number: u32) -> Option<DataKey> {
        let mut chains = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !chains.contains_key(wrapped) {
            if chains.len() >= CHAINS_MAX {
                chains.clear();
            }
            let first = keyring.unwrap_bytes(wrapped).ok();
            chains.insert(wrapped.into(), first.map(|first| Followed::new(Link(first))));
        }
        chains.get_mut(wrapped)?.as_mut()?.key(number)
    }
}

/// A chain as far as it was followed. Indexes are asked about in the order in which they were sealed.
struct Followed {
    first: Link,
    next: Link,
    /// How many keys lie before `next`, and the last of them.
    reached: u32,
    last: VecDeque<DataKey>,
}

impl Followed {
    fn new(first: Link) -> Self {
        Self { next: first.clone(), first, reached: 0, last: VecDeque::new() }
    }

    fn key(&mut self, number: u32) -> Option<DataKey> {
        if number >= KEYS_MAX {
            return None;
        }
        if (number as usize) + self.last.len() < self.reached as usize {
            *self = Self::new(self.first.clone());
        }
        while self.reached <= number {
            let (key, next) = self.next.follow()?;
            self.next = next;
            self.reached += 1;
            self.last.push_back(key);
            if self.last.len() > LAST_MAX {
                self.last.pop_front();
            }
        }
        let back = (self.reached - number) as usize;
        self.last.get(self.last.len().checked_sub(back)?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Identity;

    fn recipients(identities: &[&Identity]) -> Recipients {
        Recipients::parse(&identities.iter().map(|identity| identity.recipient()).collect::<Vec<_>>(), true).unwrap()
    }

    #[test]
    fn who_has_the_first_key_has_all_in_any_order() {
        let (reader, other) = (Identity::generate(), Identity::generate());
        let mut chain = KeyChain::begin(&recipients(&[&reader])).unwrap();
        let keys: Vec<IndexKey> = (0..100).map(|_| chain.take().unwrap()).collect();
        let (keyring, stranger) = (Keyring::of(vec![reader]), Keyring::of(vec![other]));
        let known = KnownChains::default();
        for number in [3, 0, 4, 1, 2, 99, 98, 68, 67, 66, 0, 99].into_iter().chain(0..100) {
            let IndexKey { key, wrapped, number } = &keys[number];
            assert!(known.key(&keyring, wrapped, *number).as_ref() == Some(key), "number {number}");
            assert!(KnownChains::default().key(&stranger, wrapped, *number).is_none());
        }
        for (at, key) in keys.iter().enumerate() {
            assert!(keys[..at].iter().all(|before| before.key != key.key), "a key of its own");
        }
        // What the gateway holds now gives what comes later, and nothing that was.
        let mut later = chain.next.clone();
        for _ in 0..100 {
            let (key, next) = later.follow().unwrap();
            assert!(keys.iter().all(|before| key != before.key));
            later = next;
        }
    }

    #[test]
    fn a_chain_ends_for_its_gateway_where_it_ends_for_readers() {
        let reader = Identity::generate();
        let mut chain = KeyChain::begin(&recipients(&[&reader])).unwrap();
        chain.number = KEYS_MAX - 1;
        assert!(chain.take().is_some() && chain.take().is_none());
        let (keyring, known) = (Keyring::of(vec![reader]), KnownChains::default());
        assert!(known.key(&keyring, &chain.wrapped, KEYS_MAX - 1).is_some());
        assert!(known.key(&keyring, &chain.wrapped, KEYS_MAX).is_none());
        assert!(known.key(&keyring, &chain.wrapped, u32::MAX).is_none());
    }
}
