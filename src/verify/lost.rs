//! What a damaged bundle has lost: the entries of the segments that do not open, named by the catalog as it comes by; or,
//! where reading broke off before it came, by walking the whole file past what is broken.

use std::collections::BTreeSet;

use pacharc_format::manifest::Manifest;
use pacharc_format::{self as format, CatalogLine, IndexLine, RangeReader, SalvageReader, Salvaged, Unlock};
use serde::Serialize;

use crate::bundle::what_lies_at;

/// Entries that the outcome names.
const NAMED: usize = 100;

/// An entry that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Its path in the bundle.
    pub path: String,
    /// The object, table or file that it is, where the path does not say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// The number of the segment that it lies in; absent for an object in pieces, which lies in several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<u64>,
    /// Where that segment begins in the file, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path)?;
        self.what.iter().try_for_each(|what| write!(f, " ({what})"))?;
        match (self.segment, self.offset) {
            (Some(segment), Some(offset)) => write!(f, ", in segment {segment} at byte {offset}"),
            _ => Ok(()),
        }
    }
}

/// What is lost, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Numbers of segments that do not open.
    broken: BTreeSet<u64>,
    /// Those whose entries were named.
    named: BTreeSet<u64>,
    pub(super) lost: Vec<Lost>,
    pub(super) count: u64,
}

impl Losses {
    /// Takes what was damaged.
    pub(super) fn damage(&mut self, error: &format::Error) {
        if let format::Error::Damaged { entry, .. } = error
            && let Some(number) = entry.strip_prefix("data/").and_then(|name| name.split('.').next()?.parse().ok())
        {
            self.broken.insert(number);
        }
    }

    /// Takes a block of the catalog, which comes after all segments.
    pub(super) fn catalog(&mut self, lines: &[CatalogLine]) {
        if self.broken.is_empty() {
            return;
        }
        for CatalogLine { entry, .. } in lines {
            if let Some(place) = entry.place.filter(|place| self.broken.contains(&place.segment)) {
                self.named.insert(place.segment);
                self.lose(entry);
            }
        }
    }

    fn lose(&mut self, line: &IndexLine) {
        self.count += 1;
        if self.lost.len() < NAMED {
            let (segment, offset) = line.place.map(|place| (place.segment, place.offset)).unzip();
            self.lost.push(Lost { path: line.path.clone(), what: None, segment, offset });
        }
    }

    /// Whether there is more to name than the catalog has named.
    pub(super) fn is_unnamed(&self) -> bool {
        self.named != self.broken
    }

    /// Walks the whole file: names what is lost, and gives the damage that was met.
    pub(super) async fn walk<S: RangeReader>(
        &mut self,
        source: S,
        unlock: &Unlock,
    ) -> Result<(Vec<format::Error>, Option<Manifest>), format::Error> {
        (self.lost, self.count) = (Vec::new(), 0);
        let mut reader = SalvageReader::open(source, unlock).await?;
        let (mut damage, mut manifest) = (Vec::new(), None);
        while let Some(salvaged) = reader.next().await? {
            match salvaged {
                Salvaged::Lost(lines) => lines.iter().for_each(|line| self.lose(line)),
                Salvaged::Damage(error) if damage.len() < NAMED => damage.push(error),
                Salvaged::Manifest(found) => manifest = Some(*found),
                Salvaged::Entries(_) | Salvaged::Catalog(_) | Salvaged::Damage(_) => {}
            }
        }
        Ok((damage, manifest))
    }

    /// What was lost, by the names that people know.
    pub(super) fn into_named(self, manifest: Option<&Manifest>) -> (Vec<Lost>, u64) {
        let named = |lost: Lost| Lost { what: what_lies_at(&lost.path, manifest), ..lost };
        (self.lost.into_iter().map(named).collect(), self.count)
    }
}
