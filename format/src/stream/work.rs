//! What is read ahead of whoever consumes it: outer entries on blocking threads, as many as there is memory for.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::future::{Either, Ready, ready};
use tokio::task::{JoinError, JoinHandle};

use super::share::Share;
use super::{BundleStream, JSON_LIMIT};
use crate::container::EntryHeader;
use crate::entry::{Entry, Packing};
use crate::error::{Error, Result};
use crate::grammar::Part;
use crate::index::IndexLine;
use crate::keyslot::SLOT_MAX;
use crate::segment::{self, SegmentPlace};
use crate::source::Source;

/// What an opened entry takes beside its body, path and metadata, in bytes: headers, index line.
const ENTRY: usize = 2048;
/// Segments beside those that are opened: of those, the prover has the chunks; it takes four forward together, and the next two
/// are to be ready when one of them is done.
const AWAITED: usize = 6;

/// An outer entry that is being worked on, or was hashed as it came.
pub(super) type Work = Either<JoinHandle<Result<Worked>>, Ready<std::result::Result<Result<Worked>, JoinError>>>;

/// An outer entry after its blocking thread.
pub(super) struct Worked {
    pub(super) part: Part,
    pub(super) header: EntryHeader,
    pub(super) hash: blake3::Hash,
    pub(super) sealed: usize,
    pub(super) opened: std::result::Result<Opened, Error>,
    /// Goes back when it is handed over.
    _share: Share,
}

/// The hash of what could not be read: nothing has it.
const UNREAD: blake3::Hash = blake3::Hash::from_bytes([0; 32]);

impl Worked {
    /// Its content could not be read apart. Where it is damaged, what comes behind it is read all the same.
    fn unread(self, error: Error) -> Result<Self> {
        match error {
            Error::Damaged { .. } => Ok(Self { opened: Err(error), ..self }),
            error => Err(error),
        }
    }
}

pub(super) enum Opened {
    /// There is no key, or nothing to open.
    Closed,
    Plain(Bytes),
    Entries(Vec<(Entry, IndexLine)>),
}

impl Opened {
    /// Roughly the bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Closed => 0,
            Self::Plain(plain) => plain.len(),
            // Entry and line have path and metadata each.
            Self::Entries(entries) => {
                let records = |entry: &Entry| 2 * (entry.path.len() + entry.metadata.memory());
                entries.iter().map(|(entry, _)| entry.body.len() + ENTRY + records(entry)).sum()
            }
        }
    }
}

/// What a compressed segment is taken to unpack to before it is opened, where none may have more than `limit` bytes, and the
/// largest so far had `largest`. One small segment, such as that of a lone text, says nothing of those of a dump behind it:
/// a writer fills them to about a quarter of the limit.
fn foretold(largest: Option<usize>, limit: usize) -> usize {
    largest.map_or(limit, |largest| largest.max(limit / 4))
}

impl<R: Source> BundleStream<'_, R> {
    pub(super) fn has_room(&self, part: Part, header: &EntryHeader) -> bool {
        let held = self.held.load(Ordering::Relaxed);
        self.working.is_empty()
            || (self.working.len() <= self.options.jobs + AWAITED
                && held + self.estimate(part, header) <= self.options.memory)
    }

    /// The most that an outer entry will take, while it is opened: its sealed bytes, beside its plain ones if those are not
    /// made of them where they lie; nothing without a key.
    fn estimate(&self, part: Part, header: &EntryHeader) -> usize {
        if self.key.is_none() {
            return 0;
        }
        let sealed = usize::try_from(header.size).unwrap_or(usize::MAX);
        let plain = match part {
            Part::Segment { packing: Packing::Raw, .. } => 0,
            Part::Segment { packing: Packing::Zstd, .. } => foretold(self.largest_plain, self.about.plain_limit()),
            _ => sealed,
        };
        sealed.saturating_add(plain)
    }

    /// Reads one outer entry, and hands it to a blocking thread if it can be opened.
    pub(super) async fn read_part(&mut self, part: Part, header: EntryHeader) -> Result<()> {
        let mut share = Share::new(&self.held, self.estimate(part, &header));
        match part {
            Part::Key2 => {
                let key = self.container.read_all(SLOT_MAX).await?;
                self.slot2 = self.read_padding(header, key).await?;
                return Ok(());
            }
            // What follows the sums is small and needs all the rest: it is read in `end`.
            Part::Manifest => self.finished_reading = true,
            _ => {}
        }
        let limit = match part {
            Part::Manifest | Part::Head => JSON_LIMIT as u64,
            _ => self.about.sealed_limit(),
        };
        let Some(key) = self.key.clone() else {
            let sealed = usize::try_from(header.size).unwrap_or(usize::MAX);
            let worked = move |hash| Worked { part, header, hash, sealed, opened: Ok(Opened::Closed), _share: share };
            self.working.push_back(match self.container.detach(limit)? {
                Some(content) => Either::Left(tokio::task::spawn_blocking(move || match content.hash() {
                    Ok(hash) => Ok(worked(hash)),
                    Err(error) => worked(UNREAD).unread(error),
                })),
                None => Either::Right(ready(Ok(Ok(worked(self.container.hash_all(limit).await?))))),
            });
            return Ok(());
        };
        let content = match self.container.detach(limit)? {
            Some(content) => Either::Left(content),
            None => Either::Right(self.container.read_all(limit).await?),
        };
        let (bundle, plain_limit) = (self.about.bundle, self.about.plain_limit());
        let prover = self.prover.clone();
        self.working.push_back(Either::Left(tokio::task::spawn_blocking(move || {
            let sealed = match content {
                Either::Left(content) => content.read_all(),
                Either::Right(sealed) => Ok(sealed),
            };
            let sealed = match sealed {
                Ok(sealed) => sealed,
                Err(error) => {
                    let sealed = usize::try_from(header.size).unwrap_or(usize::MAX);
                    let opened = Ok(Opened::Closed);
                    return Worked { part, header, hash: UNREAD, sealed, opened, _share: share }.unread(error);
                }
            };
            let (hash, length) = (blake3::hash(&sealed), sealed.len());
            let damaged = |what| Error::damaged(&header.name, header.offset, what);
            let opened = match part {
                Part::Segment { number, packing } => {
                    let place = SegmentPlace { number, packing, offset: header.offset };
                    let plain = key.open(packing, sealed, plain_limit).map_err(damaged);
                    plain.and_then(|plain| {
                        // While the prover has its chunks, the next segment may take the place of what is not needed any more.
                        share.resize(plain.len());
                        segment::unpack(bundle, place, length, &plain, &prover).map(Opened::Entries)
                    })
                }
                _ => {
                    let limit = match part {
                        Part::Shard { kind, .. } => kind.limit(plain_limit),
                        _ => JSON_LIMIT,
                    };
                    key.open(Packing::Zstd, sealed, limit).map(Opened::Plain).map_err(damaged)
                }
            };
            share.resize(opened.as_ref().map_or(0, Opened::bytes));
            Ok(Worked { part, header, hash, sealed: length, opened, _share: share })
        })));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_segment_does_not_speak_for_the_next_ones() {
        assert_eq!(foretold(None, 4000), 4000);
        for (largest, expected) in [(0, 1000), (300, 1000), (999, 1000), (1001, 1001), (4000, 4000)] {
            assert_eq!(foretold(Some(largest), 4000), expected, "{largest}");
        }
    }
}
