//! The order of a bundle's entries: which name may come next, and what it is (SPEC §4).

use crate::catalog::block_name;
use crate::entry::Packing;
use crate::index::ShardKind;
use crate::segment;

/// What an outer entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Readme,
    About,
    Key,
    Padding,
    Head,
    Segment { number: u64, packing: Packing },
    Shard { number: u64, kind: ShardKind },
    Key2,
    Padding2,
    Manifest,
    Sums,
    Signature,
    Trailer,
}

/// Which part comes next.
#[derive(Debug, Default)]
pub(crate) struct Grammar {
    last: Option<Part>,
    segments: u64,
    shards: u64,
    catalogs: u64,
    directories: u64,
}

impl Grammar {
    /// Takes the next entry's name; `None` if it may not stand here.
    pub(crate) fn next(&mut self, name: &str) -> Option<Part> {
        let part = self.parse(name)?;
        match part {
            Part::Segment { .. } => self.segments += 1,
            Part::Shard { kind: ShardKind::Index, .. } => self.shards += 1,
            Part::Shard { kind: ShardKind::Catalog, .. } => self.catalogs += 1,
            Part::Shard { kind: ShardKind::Directory, .. } => self.directories += 1,
            _ => {}
        }
        self.last = Some(part);
        Some(part)
    }

    /// Whether the bundle may end here.
    pub(crate) fn may_end(&self) -> bool {
        self.last == Some(Part::Trailer)
    }

    fn parse(&self, name: &str) -> Option<Part> {
        use Part::{
            About, Head, Key, Key2, Manifest, Padding, Padding2, Readme, Segment, Shard, Signature, Sums, Trailer,
        };
        let shard = |kind, number| (name == block_name(kind, number)).then_some(Shard { number, kind });
        let entries = || {
            [Packing::Raw, Packing::Zstd]
                .into_iter()
                .find(|&packing| name == segment::name(self.segments, packing))
                .map(|packing| Segment { number: self.segments, packing })
                .or_else(|| shard(ShardKind::Index, self.shards))
        };
        let catalog = || {
            let block = shard(ShardKind::Catalog, self.catalogs);
            block.or_else(|| shard(ShardKind::Directory, self.directories))
        };
        let fixed = |expected, part| (name == expected).then_some(part);
        match self.last {
            None => fixed("README.txt", Readme),
            Some(Readme) => fixed("bundle.json", About),
            Some(About) => fixed("bundle.key.age", Key),
            Some(Key) => fixed("PADDING", Padding),
            Some(Padding) => fixed("head.json.zst.age", Head),
            Some(Head | Segment { .. } | Shard { kind: ShardKind::Index, .. }) => {
                entries().or_else(catalog).or_else(|| fixed("bundle.key.2.age", Key2))
            }
            Some(Shard { .. }) => catalog().or_else(|| fixed("bundle.key.2.age", Key2)),
            Some(Key2) => fixed("PADDING.2", Padding2),
            Some(Padding2) => fixed("manifest.json.zst.age", Manifest),
            Some(Manifest) => fixed("BLAKE3SUMS", Sums),
            Some(Sums) => fixed("BLAKE3SUMS.minisig", Signature).or_else(|| fixed("TRAILER", Trailer)),
            Some(Signature) => fixed("TRAILER", Trailer),
            Some(Trailer) => None,
        }
    }
}

impl Part {
    /// Whether `BLAKE3SUMS` has a line for it.
    pub(crate) fn has_sum(self) -> bool {
        matches!(
            self,
            Self::Readme | Self::About | Self::Head | Self::Segment { .. } | Self::Shard { .. } | Self::Manifest
        )
    }
}
