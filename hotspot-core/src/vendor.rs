//! Who made a device: the registry of MAC address blocks of the IEEE, as a table of lines.
//!
//! A line is a prefix of 6, 7 or 9 hexadecimal digits (MA-L, MA-M, MA-S), a tabulator and a name; the longest prefix counts. A random
//! address has no maker.

use crate::MacAddr;

/// Why a table is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not a prefix of 6, 7 or 9 hexadecimal digits, a tabulator and a name")]
pub struct BadLine {
    pub line: usize,
}

/// Makers by prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VendorTable {
    text: String,
    /// The address block's first address, the digits that count, and where its name lies; sorted.
    blocks: Vec<(u64, u8, u32, u32)>,
}

/// Digits of a prefix, longest first.
const DIGITS: [u8; 3] = [9, 7, 6];

impl VendorTable {
    pub fn parse(text: String) -> Result<Self, BadLine> {
        let mut blocks = Vec::new();
        let mut start = 0;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let bad = BadLine { line: number + 1 };
            let (prefix, name) = line.trim_end_matches('\n').split_once('\t').ok_or_else(|| bad.clone())?;
            let digits = u8::try_from(prefix.len()).ok().filter(|digits| DIGITS.contains(digits));
            let digits = digits.ok_or_else(|| bad.clone())?;
            let is_hex = prefix.bytes().all(|digit| digit.is_ascii_hexdigit());
            let block = u64::from_str_radix(prefix, 16).ok().filter(|_| is_hex && !name.is_empty());
            let block = block.ok_or_else(|| bad.clone())? << (4 * (12 - u32::from(digits)));
            let name_start = start + prefix.len() + 1;
            let place = |at: usize| u32::try_from(at).map_err(|_| bad.clone());
            blocks.push((block, digits, place(name_start)?, place(name_start + name.len())?));
            start += line.len();
        }
        blocks.sort_unstable();
        Ok(Self { text, blocks })
    }

    /// The maker of a device with this address.
    #[must_use]
    pub fn of(&self, mac: MacAddr) -> Option<&str> {
        if mac.is_random() || mac.is_group() {
            return None;
        }
        let address = mac.0.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        DIGITS.into_iter().find_map(|digits| {
            let block = address & (u64::MAX << (4 * (12 - u32::from(digits))));
            let found =
                self.blocks.binary_search_by_key(&(block, digits), |(block, digits, ..)| (*block, *digits)).ok()?;
            let (_, _, from, to) = self.blocks[found];
            self.text.get(from as usize..to as usize)
        })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<VendorTable, BadLine> {
        VendorTable::parse(text.to_owned())
    }

    #[test]
    fn the_longest_prefix_counts() {
        let table = table("001B21\tIntel\n70B3D5\tBlocks\n70B3D5F2F\tTiny Ltd\n741AE09\tMedium\n").unwrap();
        assert_eq!(table.len(), 4);
        assert_eq!(table.of(MacAddr([0, 0x1b, 0x21, 1, 2, 3])), Some("Intel"));
        assert_eq!(table.of(MacAddr([0x70, 0xb3, 0xd5, 0xf2, 0xf3, 1])), Some("Tiny Ltd"));
        assert_eq!(table.of(MacAddr([0x70, 0xb3, 0xd5, 0xf2, 0xe3, 1])), Some("Blocks"));
        assert_eq!(table.of(MacAddr([0x74, 0x1a, 0xe0, 0x9f, 0, 1])), Some("Medium"));
        assert_eq!(table.of(MacAddr([0x74, 0x1a, 0xe0, 0xaf, 0, 1])), None);
    }

    #[test]
    fn a_random_address_has_no_maker() {
        assert_eq!(table("021B21\tNobody\n").unwrap().of(MacAddr([2, 0x1b, 0x21, 1, 2, 3])), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(table("001B21\tIntel\n001B2\tx\n"), Err(BadLine { line: 2 }));
        assert_eq!(table("+01B21\tx\n"), Err(BadLine { line: 1 }));
        assert_eq!(table("001B21\t\n"), Err(BadLine { line: 1 }));
        assert_eq!(table("001B21 Intel\n"), Err(BadLine { line: 1 }));
    }
}
