//! The segments with certain entries, such as a dump's: found by the catalog, and held against it before anything of them is
//! used.

use std::iter::Peekable;

use super::{BundleReader, packing};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::index::IndexLine;
use crate::range::RangeReader;
use crate::segment;
use crate::spool::Sorted;

/// Walks the segments that hold certain entries, one at a time, in the order of the file.
pub struct SegmentReader<'a, S> {
    reader: &'a BundleReader<S>,
    prefix: String,
    /// Index lines, by the offset of their segment; those of a segment's entries follow each other.
    lines: Peekable<Sorted>,
}

impl<'a, S: RangeReader> SegmentReader<'a, S> {
    /// `lines` are the index lines of the entries that are asked for, in JSON, by the offset of their segment.
    pub(super) fn new(reader: &'a BundleReader<S>, prefix: &str, lines: Sorted) -> Self {
        Self { reader, prefix: prefix.to_owned(), lines: lines.peekable() }
    }

    /// The entries of the next segment that are asked for, in the order in which they were written; `None` at the end. They
    /// are exactly those that the catalog names: whoever has the bundle's key could seal others.
    ///
    /// # Errors
    /// Damage of the segment, [`Error::Read`], [`Error::Spool`].
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        let parse = |line: &[u8]| serde_json::from_slice::<IndexLine>(line).map_err(|e| Error::Worker(e.to_string()));
        let Some(first) = self.lines.next() else { return Ok(None) };
        let (offset, first) = first?;
        let mut named = vec![parse(&first)?];
        while let Some(record) = self.lines.next_if(|record| record.as_ref().map_or(true, |(at, _)| *at == offset)) {
            named.push(parse(&record?.1)?);
        }
        let Some(place) = named.first().and_then(|line| line.place) else { return Ok(None) };
        let (mut entries, mut found) = (Vec::new(), Vec::new());
        for (entry, line) in self.reader.segment(place).await? {
            if entry.path.starts_with(&self.prefix) {
                entries.push(entry);
                found.push(line);
            }
        }
        for lines in [&mut named, &mut found] {
            lines.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        }
        match found == named {
            true => Ok(Some(entries)),
            false => {
                let name = segment::name(place.segment, packing(place));
                Err(Error::damaged(name, place.offset, "its entries are not those that the catalog says are in it"))
            }
        }
    }
}
