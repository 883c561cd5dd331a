//! The table of the makers of devices: from the public listing of the IEEE's registration authority to lines that the agent reads.
//!
//! "IEEE does not assert any copyright in the OUI Public Listing or attempt to restrict distribution of the listing in any way"
//! (/usr/share/doc/ieee-data/copyright of Debian's package).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The registries: MA-L, MA-M and MA-S.
const FILES: [(&str, usize); 3] = [("oui.csv", 6), ("mam.csv", 7), ("oui36.csv", 9)];
/// Holds the blocks that are given away in smaller ones: no maker.
const AUTHORITY: &str = "IEEE Registration Authority";

pub(crate) fn make(registry: &Path, table: &Path) -> Result<()> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (file, digits) in FILES {
        let path = registry.join(file);
        let mut reader = csv::Reader::from_path(&path).with_context(|| {
            format!(
                "cannot read {}; install Debian's package ieee-data, or name its directory with --registry",
                path.display()
            )
        })?;
        for record in reader.records() {
            let record = record.with_context(|| format!("{} is damaged", path.display()))?;
            let (prefix, name) = (record.get(1).unwrap_or_default(), record.get(2).unwrap_or_default());
            ensure!(prefix.len() == digits, "{}: {prefix:?} is no prefix of {digits} digits", path.display());
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            if !name.is_empty() && name != AUTHORITY {
                // A few prefixes are listed twice; the first was there first.
                names.entry(prefix.to_owned()).or_insert(name);
            }
        }
    }
    let text: String = names.iter().flat_map(|(prefix, name)| [prefix, "\t", name, "\n"]).collect();
    let packed = zstd::encode_all(text.as_bytes(), 19)?;
    if let Some(dir) = table.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(table, packed).with_context(|| format!("cannot write {}", table.display()))
}
