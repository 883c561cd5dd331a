//! The chain at the target: is it a beginning of ours, and putting what comes next.
//!
//! Guarantees that the pieces there, put together, are always a beginning of the manifest here, byte for byte; that a piece which was
//! damaged is put again; and that a chain which is not ours, or is longer than ours, is never written over.

use std::io;

use hotspot_archive::chain::{Beside, ChainCheck};
use hotspot_archive::manifest::to_hex;
use hotspot_archive::pieces::{self, PIECE_BYTES};
use hotspot_archive::signing::parse_public_key;
use sha2::{Digest, Sha256};

use super::ShipError;
use super::lines::Lines;
use crate::store::Store;

/// The chain of one gateway at the target.
pub(crate) struct There<'a> {
    to: &'a Store,
    lines: &'a Lines,
    gateway: &'a str,
    /// First line of each piece, in order.
    pieces: Vec<u64>,
    /// Lines that are there.
    pub(crate) count: u64,
    /// Pieces that were damaged or gone, and were put again.
    pub(crate) mended: u64,
}

impl<'a> There<'a> {
    /// Finds out what is there. Pieces of lines up to `known` were verified before, and are believed where they have their length.
    pub(crate) async fn find(
        to: &'a Store,
        lines: &'a Lines,
        gateway: &'a str,
        public_key: &str,
        known: u64,
    ) -> Result<Self, ShipError> {
        let mut there = Self { to, lines, gateway, pieces: Vec::new(), count: 0, mended: 0 };
        there.claim(public_key).await?;
        let found = to.list(&pieces::directory(gateway)).await?;
        let named = |path: &str| pieces::first_line(path.rsplit_once('/').map_or(path, |(_, name)| name));
        let mut found: Vec<(u64, u64)> = found.iter().filter_map(|(path, len)| Some((named(path)?, *len))).collect();
        found.sort_unstable();
        // A first piece that is gone is put again like one that was changed.
        if found.first().is_some_and(|(first, _)| *first != 1) {
            found.insert(0, (1, 0));
        }
        for (position, (first, len)) in found.iter().copied().enumerate() {
            let next = found.get(position + 1).map(|(next, _)| *next);
            if first > lines.count() || next.is_some_and(|next| next - 1 > lines.count()) {
                return Err(there.longer());
            }
            there.check(first, next, len, known, public_key).await?;
            there.pieces.push(first);
        }
        Ok(there)
    }

    /// The public key is the gateway's name there: whoever puts it first has it.
    async fn claim(&self, public_key: &str) -> Result<(), ShipError> {
        let path = format!("manifest/{}.pub", self.gateway);
        for _ in 0..2 {
            match self.to.get(&path).await {
                Ok(found) if found == public_key.as_bytes() => return Ok(()),
                Ok(_) => return Err(self.another("its public key is another one")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if self.to.create(&path, public_key.as_bytes().to_vec()).await? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.another("its public key cannot be read back"))
    }

    /// Looks at one piece: the lines from `first` up to the one before `next`, or however many it has.
    async fn check(
        &mut self,
        first: u64,
        next: Option<u64>,
        len: u64,
        known: u64,
        public: &str,
    ) -> Result<(), ShipError> {
        let path = pieces::path(self.gateway, first);
        if let Some(next) = next {
            let (from, to) = self.lines.range(first, next - 1);
            if !(next - 1 <= known && len == to - from)
                && self.to.hash(&path).await.ok() != Some(self.hash_here(first, next - 1)?)
            {
                self.mend(first, next - 1, public).await?;
            }
            self.count = next - 1;
            return Ok(());
        }
        let text = match self.to.get(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text?,
        };
        let here = self.lines.bytes(first, self.lines.count())?;
        let is_whole = text.ends_with(b"\n");
        let count = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).count() as u64;
        if is_whole && here.starts_with(&text) {
            self.count = first - 1 + count;
            return Ok(());
        }
        // As many lines as it had, if that can be told; never fewer than are known to have been there.
        let last = (first - 1 + count).max(known).max(first).min(self.lines.count());
        self.mend(first, last, public).await?;
        self.count = last;
        Ok(())
    }

    fn hash_here(&self, first: u64, last: u64) -> io::Result<(String, u64)> {
        let bytes = self.lines.bytes(first, last)?;
        Ok((to_hex(&Sha256::digest(&bytes)), bytes.len() as u64))
    }

    /// Puts a piece again that is not as it was, unless it is a chain of its own: that is evidence, and stays.
    async fn mend(&mut self, first: u64, last: u64, public: &str) -> Result<(), ShipError> {
        if self.is_genuine(public).await? {
            return Err(self.another("it goes on otherwise, with lines that this gateway signed"));
        }
        self.put(first, last).await?;
        self.mended += 1;
        Ok(())
    }

    /// Whether everything there is a chain that the gateway signed.
    async fn is_genuine(&self, public: &str) -> Result<bool, ShipError> {
        let Some(key) = parse_public_key(public.trim()) else { return Ok(false) };
        let mut text = Vec::new();
        for (path, _) in self.to.list(&pieces::directory(self.gateway)).await? {
            text.extend(self.to.get(&path).await?);
        }
        let mut check = ChainCheck::new(self.gateway, key, Beside::default());
        let mut is_genuine = text.ends_with(b"\n");
        for line in text.strip_suffix(b"\n").unwrap_or(&text).split(|byte| *byte == b'\n') {
            check.push(line, |_| is_genuine = false);
        }
        Ok(is_genuine)
    }

    /// The last line that fits into the piece that the next line goes into.
    pub(crate) fn piece_end(&self) -> u64 {
        let (first, _) = self.next_piece();
        let (from, _) = self.lines.range(first, first);
        let mut last = self.count + 1;
        while last < self.lines.count() && self.lines.range(first, last).1 - from < PIECE_BYTES {
            last += 1;
        }
        last.min(self.lines.count())
    }

    /// The first line of the piece that the next line goes into, and whether that piece is new.
    fn next_piece(&self) -> (u64, bool) {
        match self.pieces.last() {
            Some(first) => {
                let (from, to) = self.lines.range(*first, self.count);
                if to - from < PIECE_BYTES { (*first, false) } else { (self.count + 1, true) }
            }
            None => (self.count + 1, true),
        }
    }

    /// Puts the lines up to `last`, with which the chain there is a longer beginning of ours. In one piece, so at once.
    pub(crate) async fn publish(&mut self, last: u64) -> Result<(), ShipError> {
        let (first, is_new) = self.next_piece();
        self.put(first, last).await?;
        if is_new {
            self.pieces.push(first);
        }
        self.count = last;
        Ok(())
    }

    /// Puts a piece and reads it back.
    async fn put(&self, first: u64, last: u64) -> Result<(), ShipError> {
        let path = pieces::path(self.gateway, first);
        let (from, to) = self.lines.range(first, last);
        self.to.put_range(&path, self.lines.path(), from, to).await?;
        if self.to.hash(&path).await? == self.hash_here(first, last)? {
            return Ok(());
        }
        Err(ShipError::ReadBack { path, to: self.to.url().to_owned() })
    }

    fn another(&self, why: &'static str) -> ShipError {
        ShipError::AnotherChain { gateway: self.gateway.to_owned(), to: self.to.url().to_owned(), why }
    }

    fn longer(&self) -> ShipError {
        self.another("it has more lines than are here")
    }
}
