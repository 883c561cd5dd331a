//! Rows that can be proved alone: a signed root over the rows of a file, and for each row a few hashes that lead to it.
//!
//! Owns the bytes that stand for a row, their salts, and the proofs. A proof shows the row it is about and nothing of another, and needs no key.
//! The format is in `docs/formats/row-proof.md`.

mod columns;
mod encoding;
mod fields;
mod flows;
mod leaves;
mod proof;
mod salt;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;

pub(crate) use self::columns::BatchRows;
pub(crate) use self::flows::FlowRows;
pub use self::proof::{RowProof, Value};
pub(crate) use self::salt::SaltKey;
use crate::merkle::{self, Hash};
use crate::segment::{SegmentError, SegmentReader};

/// What stands for all rows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsRoot {
    pub rows: u64,
    pub root: Hash,
}

/// Why rows cannot be proved.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    #[error("{} was sealed before rows could be proved alone; disclose it whole, with its manifest line", path.display())]
    NoSalts { path: PathBuf },
    #[error("{} has {rows} rows, so none is number {index} (the first is 0)", path.display())]
    NoSuchRow { path: PathBuf, index: u64, rows: u64 },
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// The root over the rows of a segment, from what its columns hold.
pub fn root(segment: &SegmentReader) -> Result<RowsRoot, RowsError> {
    let mut rows = begin(segment)?;
    for batch in segment.stored() {
        rows.push(segment.path(), &batch?)?;
    }
    Ok(rows.finish())
}

/// A proof for each of these rows, in the order asked; rows are numbered from 0 as they lie in the file. Reads all rows, and holds a hash of
/// each.
pub fn prove(segment: &SegmentReader, indices: &[u64]) -> Result<Vec<RowProof>, RowsError> {
    let mut rows = begin(segment)?;
    let (mut hashes, mut shown) = (Vec::new(), HashMap::new());
    let wanted: std::collections::HashSet<u64> = indices.iter().copied().collect();
    for batch in segment.stored() {
        rows.each(segment.path(), &batch?, |row| {
            let index = hashes.len() as u64;
            hashes.push(row.hash);
            if wanted.contains(&index) {
                shown.insert(index, (row.salt, row.shared.to_vec(), row.own.to_vec()));
            }
        })?;
    }
    let size = hashes.len() as u64;
    let no_such = |index| RowsError::NoSuchRow { path: segment.path().to_path_buf(), index, rows: size };
    let places = indices.iter().map(|index| {
        let place = usize::try_from(*index).ok().filter(|_| *index < size);
        place.ok_or_else(|| no_such(*index))
    });
    let places = places.collect::<Result<Vec<_>, _>>()?;
    let paths = merkle::inclusions(hashes, &places).unwrap_or_default();
    let proofs = indices.iter().zip(paths).map(|(index, path)| {
        let (salt, shared, own) = shown.get(index).cloned().ok_or_else(|| no_such(*index))?;
        Ok(RowProof { shared, own, salt, index: *index, size, path })
    });
    proofs.collect()
}

fn begin(segment: &SegmentReader) -> Result<BatchRows, RowsError> {
    let salts = segment.salt_key()?.ok_or_else(|| RowsError::NoSalts { path: segment.path().to_path_buf() })?;
    Ok(BatchRows::new(segment.class(), &salts))
}
