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

#[cfg(test)]
mod tests {
    use super::*;

    const START: [&str; 5] = ["README.txt", "bundle.json", "bundle.key.age", "PADDING", "head.json.zst.age"];
    const SEGMENTS: [&str; 4] =
        ["data/00000000.tar.age", "data/00000001.tar.zst.age", "index/00000000.jsonl.zst.age", "data/00000002.tar.age"];
    const CATALOG: [&str; 5] = [
        "index/00000001.jsonl.zst.age",
        "catalog/00000000.jsonl.zst.age",
        "catalog/00000001.jsonl.zst.age",
        "directory/00000000.jsonl.zst.age",
        "catalog/00000002.jsonl.zst.age",
    ];
    const END: [&str; 4] =
        ["directory/00000001.jsonl.zst.age", "bundle.key.2.age", "PADDING.2", "manifest.json.zst.age"];
    const PROOF: [&str; 3] = ["BLAKE3SUMS", "BLAKE3SUMS.minisig", "TRAILER"];

    fn names() -> Vec<&'static str> {
        [&START[..], &SEGMENTS, &CATALOG, &END, &PROOF].concat()
    }

    /// Names that may stand behind the first `count` of [`names`], but for the next of them.
    fn others(count: usize) -> Vec<&'static str> {
        let begin = [
            "data/00000000.tar.zst.age",
            "index/00000000.jsonl.zst.age",
            "catalog/00000000.jsonl.zst.age",
            "directory/00000000.jsonl.zst.age",
            "bundle.key.2.age",
        ];
        match names()[..count].last() {
            Some(&"head.json.zst.age") => begin.to_vec(),
            Some(&"BLAKE3SUMS") => vec!["TRAILER"],
            // Behind these the numbers are what they are: told apart below.
            _ => Vec::new(),
        }
    }

    #[test]
    fn each_part_has_its_places() {
        let names = names();
        let mut vocabulary = names.clone();
        vocabulary.extend(others(5));
        vocabulary.extend(["", "README", "data/0.tar.age", "data/00000000.tar", "bundle.key.3.age"]);
        for count in 0..=names.len() {
            // What is the same from here on, whatever numbers there are: only the fixed names before and behind.
            let is_fixed = count < START.len() || count >= names.len() - END.len() - PROOF.len() + 2;
            for name in &vocabulary {
                let mut grammar = Grammar::default();
                for before in &names[..count] {
                    assert!(!grammar.may_end(), "before {before}");
                    assert!(grammar.next(before).is_some(), "{before}");
                }
                assert_eq!(grammar.may_end(), count == names.len());
                let expected = names.get(count) == Some(name) || others(count).contains(name);
                if is_fixed || count == START.len() || expected {
                    assert_eq!(grammar.next(name).is_some(), expected, "{name} behind {:?}", names[..count].last());
                }
            }
        }
    }

    #[test]
    fn numbers_go_on_without_a_gap() {
        let after = |before: &[&str], name: &str| {
            let mut grammar = Grammar::default();
            START.iter().chain(before).for_each(|name| assert!(grammar.next(name).is_some(), "{name}"));
            grammar.next(name)
        };
        let number = |part| match part {
            Some(Part::Segment { number, .. } | Part::Shard { number, .. }) => Some(number),
            _ => None,
        };
        assert_eq!(number(after(&SEGMENTS, "data/00000003.tar.age")), Some(3));
        assert_eq!(number(after(&SEGMENTS, "index/00000001.jsonl.zst.age")), Some(1));
        for again in ["data/00000002.tar.age", "data/00000004.tar.age", "index/00000000.jsonl.zst.age"] {
            assert_eq!(after(&SEGMENTS, again), None, "{again}");
        }
        let whole = [&SEGMENTS[..], &CATALOG].concat();
        assert_eq!(number(after(&whole, "catalog/00000003.jsonl.zst.age")), Some(3));
        assert_eq!(number(after(&whole, "directory/00000001.jsonl.zst.age")), Some(1));
        for name in [
            "catalog/00000002.jsonl.zst.age",
            "directory/00000000.jsonl.zst.age",
            "index/00000002.jsonl.zst.age",
            "data/00000003.tar.age",
            "manifest.json.zst.age",
        ] {
            assert_eq!(after(&whole, name), None, "{name}");
        }
    }

    #[test]
    fn the_sums_name_what_the_trailer_does_not() {
        let mut grammar = Grammar::default();
        let summed = names().into_iter().filter(|name| grammar.next(name).is_some_and(Part::has_sum));
        let without = ["key", "PADDING", "BLAKE3SUMS", "TRAILER"];
        let expected = names().into_iter().filter(|name| !without.iter().any(|part| name.contains(part)));
        assert!(summed.eq(expected));
    }
}
