//! Walking Thrift's compact protocol without building anything: counts what a reader would allocate, and reads page headers.

/// Deepest nesting; Parquet's own structures have seven levels.
const DEPTH_MAX: usize = 24;
/// Elements of all lists together: 8 row groups of 50 columns with all their statistics have some 5 000.
const ELEMENTS_MAX: u64 = 1 << 18;
/// Longest page header that is looked at.
pub(super) const HEADER_BYTES_MAX: usize = 1 << 16;

/// Why a structure is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("is cut short")]
    Cut,
    #[error("is nested too deeply")]
    Deep,
    #[error("has too many elements")]
    Many,
    #[error("holds what is no type")]
    Type,
}

/// What a page says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) is_dictionary: bool,
    pub(super) unpacked_bytes: i64,
    pub(super) values: i64,
}

/// Reads the header that some bytes begin with.
pub(super) fn page_header(bytes: &[u8]) -> Result<PageHeader, Malformed> {
    let mut header = PageHeader::default();
    // `PageHeader` of parquet.thrift: 1 type, 2 uncompressed size, 5, 7 and 8 the kinds of pages, whose field 1 counts values.
    Walk::new(bytes).fields(0, 0, &mut |outer, field, value| match (outer, field) {
        (0, 1) => header.is_dictionary = value == 2,
        (0, 2) => header.unpacked_bytes = value,
        (5 | 7 | 8, 1) => header.values = header.values.max(value),
        _ => {}
    })?;
    Ok(header)
}

/// A walk over one structure.
pub(super) struct Walk<'a> {
    rest: &'a [u8],
    elements_left: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, elements_left: ELEMENTS_MAX }
    }

    /// Walks through all of it.
    pub(super) fn check(mut self) -> Result<(), Malformed> {
        self.fields(0, 0, &mut |_, _, _| {})
    }

    /// The fields of a structure; `each` is told the field it is in, the field, and an integer's value.
    fn fields(&mut self, depth: usize, outer: i64, each: &mut dyn FnMut(i64, i64, i64)) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed::Deep);
        }
        let mut id = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            id = if head >> 4 == 0 { self.zigzag()? } else { id.saturating_add(i64::from(head >> 4)) };
            match head & 0x0f {
                // A boolean's value is its type.
                1 | 2 => {}
                4..=6 => {
                    let value = self.zigzag()?;
                    each(outer, id, value);
                }
                12 => self.fields(depth + 1, id, each)?,
                kind => self.value(kind, depth)?,
            }
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed::Deep);
        }
        match kind {
            1..=3 => self.skip(1),
            4..=6 => self.zigzag().map(drop),
            7 => self.skip(8),
            8 => {
                let len = self.varint()?;
                self.skip(len)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                self.elements(count)?;
                (0..count).try_for_each(|_| self.value(head & 0x0f, depth + 1))
            }
            11 => {
                let count = self.varint()?;
                self.elements(count)?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.value(kinds >> 4, depth + 1)?;
                    self.value(kinds & 0x0f, depth + 1)
                })
            }
            12 => self.fields(depth + 1, 0, &mut |_, _, _| {}),
            13 => self.skip(16),
            _ => Err(Malformed::Type),
        }
    }

    fn elements(&mut self, count: u64) -> Result<(), Malformed> {
        self.elements_left = self.elements_left.checked_sub(count).ok_or(Malformed::Many)?;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.rest.split_first().ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(byte)
    }

    fn skip(&mut self, len: u64) -> Result<(), Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed::Cut)?;
        self.rest = self.rest.get(len..).ok_or(Malformed::Cut)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Type)
    }

    fn zigzag(&mut self) -> Result<i64, Malformed> {
        let value = self.varint()?;
        // Sign in the lowest bit.
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }
}
