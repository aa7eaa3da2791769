//! The proof of the bucket: what the target lists, against what the bundle's catalog says must be there.

use pacharc_format::{CatalogLine, Key, Spool, State};

use super::{Error, mark};
use crate::bucket::Bucket;
use crate::monitor::{Counter, Event, Monitor, Phase};
use futures::StreamExt;

/// What must be in the bucket, by path.
pub(super) struct Expected {
    objects: Spool,
    pub(super) count: u64,
    pub(super) bytes: u64,
}

impl Expected {
    pub(super) fn new(objects: Spool) -> Self {
        Self { objects, count: 0, bytes: 0 }
    }

    /// Takes a line of the catalog; an object that is not as it should be is told.
    pub(super) fn line(&mut self, line: &CatalogLine, monitor: &dyn Monitor) -> Result<(), Error> {
        tell(line, monitor);
        if line.state == State::Missing || Key::from_path(&line.entry.path).is_none() {
            return Ok(());
        }
        self.count += 1;
        self.bytes = self.bytes.saturating_add(line.entry.size);
        Ok(self.objects.push(line.entry.path.as_bytes(), &line.entry.size.to_le_bytes())?)
    }

    /// Lists the target and compares. Returns the first difference, and how many there are.
    pub(super) async fn prove(
        &mut self,
        bucket: &dyn Bucket,
        mut listed: Spool,
        monitor: &dyn Monitor,
    ) -> Result<Option<(String, u64)>, Error> {
        monitor.phase(Phase::Prove);
        monitor.total(Counter::ProvedObjects, self.count);
        let mut listing = bucket.list(b"");
        while let Some(found) = listing.next().await {
            let found = found?;
            if !mark::is_mark(&found.key) {
                listed.push(found.key.to_path().as_bytes(), &found.size.to_le_bytes())?;
            }
        }
        let (mut first, mut count) = (None, 0);
        let mut differ = |what: String| {
            count += 1;
            first.get_or_insert(what);
        };
        let mut found = listed.sorted()?.peekable();
        for expected in self.objects.sorted()? {
            let (path, size) = expected?;
            // Other keys may lie beside: what matters is that each of the bundle's is there.
            while found.next_if(|next| next.as_ref().is_ok_and(|(other, _)| *other < path)).is_some() {}
            let name = || String::from_utf8_lossy(&path).into_owned();
            match found.next_if(|next| next.as_ref().map_or(true, |(other, _)| *other == path)).transpose()? {
                None => differ(format!("{} is not in the bucket", name())),
                Some((_, there)) if there != size => differ(format!("{} has another size", name())),
                Some(_) => monitor.add(Counter::ProvedObjects, 1),
            }
        }
        Ok(first.map(|first| (first, count)))
    }
}

/// Tells of a live object that the bundle lacks, or has as it was at the source: rotten.
pub(super) fn tell(line: &CatalogLine, monitor: &dyn Monitor) {
    let (State::Missing | State::Rotten) = line.state else { return };
    let Some(key) = Key::from_path(&line.entry.path) else { return };
    let size = line.entry.size;
    monitor.event(match line.state {
        State::Missing => Event::MissingObject { key, size: Some(size) },
        _ => Event::RottenObject { key, size },
    });
}
