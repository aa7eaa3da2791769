//! Many objects at a time: the first copy of the bucket, and what a snapshot shows to be lacking after it.

use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt};
use pacharc_format::{Key, Sorted, Spool};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::Error;
use super::fetch::{FetchError, Fetched, Fetcher};
use crate::bucket::Bucket;
use crate::database::{self, LiveChunk, LiveRows, Server};
use crate::monitor::{Counter, Event, Monitor, Phase};

/// Which objects of a listing are copied.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Nothing that the live set does not name.
    pub live_only: bool,
    /// Prefixes of keys that are left out, unless they are live.
    pub excluded: Vec<Vec<u8>>,
}

impl Selection {
    fn takes(&self, key: &Key) -> bool {
        !self.excluded.iter().any(|prefix| key.as_bytes().starts_with(prefix))
    }
}

/// What the first copy could not store.
#[derive(Clone)]
pub(super) struct Suspects(Arc<Mutex<Spool>>);

impl Suspects {
    pub(super) fn new(spool: Spool) -> Self {
        Self(Arc::new(Mutex::new(spool)))
    }

    async fn push(&self, key: &Key) -> Result<(), Error> {
        Ok(self.0.lock().await.push(key.to_path().as_bytes(), &[])?)
    }

    /// The keys, sorted by path.
    pub(super) async fn sorted(&self) -> Result<Sorted, Error> {
        Ok(self.0.lock().await.sorted()?)
    }
}

/// Copies what the listing shows. Objects that vanish meanwhile are passed over; rotten ones are suspects.
pub(super) async fn bucket(
    bucket: &dyn Bucket,
    fetcher: Fetcher,
    selection: &Selection,
    jobs: usize,
    suspects: &Suspects,
    monitor: &Arc<dyn Monitor>,
) -> Result<(), Error> {
    monitor.phase(Phase::Copy);
    let mut listing = bucket.list(b"");
    let mut tasks = Tasks::new(jobs);
    let (mut objects, mut bytes) = (0, 0);
    while let Some(listed) = listing.next().await {
        let listed = listed?;
        if !selection.takes(&listed.key) {
            continue;
        }
        objects += 1;
        bytes += listed.size;
        let (fetcher, suspects, monitor) = (fetcher.clone(), suspects.clone(), Arc::clone(monitor));
        let work = async move {
            if listed.archived {
                suspects.push(&listed.key).await?;
                return Ok(());
            }
            match fetcher.fetch(&listed.key, listed.size).await? {
                Fetched::Stored { size } => count(monitor.as_ref(), size),
                Fetched::Rotten { .. } | Fetched::Archived => suspects.push(&listed.key).await?,
                // Deleted since it was listed: if a snapshot still names it, it will be looked for again.
                Fetched::Absent => {}
            }
            Ok(())
        };
        tasks.spawn(work).await?;
    }
    // Now the listing is at its end, and the totals are known.
    monitor.total(Counter::Objects, objects);
    monitor.total(Counter::ObjectBytes, bytes);
    tasks.finish().await
}

/// How the live set of one snapshot compares with the bundle.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lacking {
    /// Live objects that vanished while they were looked for: a newer snapshot does not name them any more.
    pub(super) vanished: u64,
}

/// What a delta needs to know.
pub(super) struct Delta<'a> {
    pub(super) fetcher: Fetcher,
    pub(super) server: &'a Server,
    pub(super) database: &'a str,
    pub(super) jobs: usize,
    pub(super) strict: bool,
    /// Whether a missing object is told; an early comparison leaves that to the last one.
    pub(super) tells_missing: bool,
}

impl Delta<'_> {
    /// Copies the live objects that are not among `copied` (sorted by path, as the live set is), and spools the live set.
    pub(super) async fn run(
        &self,
        live_set: impl Stream<Item = Result<LiveChunk, database::Error>>,
        copied: Sorted,
        live: &mut Spool,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Lacking, Error> {
        monitor.phase(Phase::Delta);
        let rows = Arc::new(LiveRows::new(self.server.connect(self.database).await?));
        let vanished = Arc::new(AtomicU64::new(0));
        let mut copied = copied.peekable();
        let mut live_set = std::pin::pin!(live_set);
        let mut tasks = Tasks::new(self.jobs);
        while let Some(chunk) = live_set.next().await {
            let LiveChunk { key: chunk, size } = chunk?;
            let key = chunk.key();
            let path = key.to_path();
            live.push(path.as_bytes(), &size.to_le_bytes())?;
            if contains(&mut copied, path.as_bytes())? {
                continue;
            }
            let (fetcher, rows, monitor) = (self.fetcher.clone(), Arc::clone(&rows), Arc::clone(monitor));
            let (vanished, strict, tells_missing) = (Arc::clone(&vanished), self.strict, self.tells_missing);
            let work = async move {
                match fetcher.fetch(&key, size).await? {
                    Fetched::Stored { size } => count(monitor.as_ref(), size),
                    Fetched::Rotten { size } => {
                        monitor.event(Event::RottenObject { key: key.clone(), size });
                        if strict {
                            return Err(Error::Rotten(key));
                        }
                    }
                    Fetched::Archived => {
                        monitor.event(Event::ArchivedObject { key: key.clone() });
                        return Err(Error::Bucket(crate::bucket::Error::Archived {
                            bucket: fetcher.bucket_url().to_owned(),
                            key,
                        }));
                    }
                    // The object is deleted after its row was condemned, never before (reference: Pachyderm,
                    // `src/internal/storage/chunk/gc.go`). If the row is live still, nobody deleted it rightly.
                    Fetched::Absent if rows.stays(&chunk).await? => {
                        if tells_missing {
                            monitor.event(Event::MissingObject { key: key.clone(), size: Some(size) });
                        }
                        if strict {
                            return Err(Error::Missing(key));
                        }
                    }
                    Fetched::Absent => {
                        vanished.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            };
            tasks.spawn(work).await?;
        }
        tasks.finish().await?;
        if rows.is_stuck() && self.tells_missing {
            monitor.warn(
                "the server is a standby that does not move on: an object that is called missing may have been collected \
                 rightly, by a transaction of its primary that is not here yet"
                    .to_owned(),
            );
        }
        Ok(Lacking { vanished: vanished.load(Ordering::Relaxed) })
    }
}

/// Stores what stayed rotten and is neither live nor `copied` yet, as it is, so that nothing is lost.
pub(super) async fn rotten_orphans(
    fetcher: Fetcher,
    suspects: &Suspects,
    copied: Sorted,
    live: &mut Spool,
    jobs: usize,
    monitor: &Arc<dyn Monitor>,
) -> Result<(), Error> {
    let mut live = live.sorted()?.peekable();
    let mut copied = copied.peekable();
    let mut tasks = Tasks::new(jobs);
    for suspect in suspects.sorted().await? {
        let (path, _) = suspect?;
        // An earlier snapshot may have named it, and had it copied.
        if contains(&mut live, &path)? || contains(&mut copied, &path)? {
            continue;
        }
        let Some(key) = std::str::from_utf8(&path).ok().and_then(Key::from_path) else { continue };
        let (fetcher, monitor) = (fetcher.clone(), Arc::clone(monitor));
        let work = async move {
            match fetcher.fetch(&key, 0).await? {
                Fetched::Stored { size } | Fetched::Rotten { size } => count(monitor.as_ref(), size),
                Fetched::Archived => {
                    monitor.event(Event::ArchivedObject { key: key.clone() });
                    monitor
                        .warn(format!("object {key} lies in an archive class and was left out: no live row names it"));
                }
                Fetched::Absent => {}
            }
            Ok(())
        };
        tasks.spawn(work).await?;
    }
    tasks.finish().await
}

/// Whether `path` is among `sorted`, which is walked up to it; the paths asked for must ascend.
fn contains(sorted: &mut Peekable<Sorted>, path: &[u8]) -> Result<bool, Error> {
    loop {
        match sorted.next_if(|record| record.as_ref().map_or(true, |(other, _)| other.as_slice() < path)) {
            Some(record) => drop(record?),
            None => return Ok(sorted.peek().is_some_and(|next| next.as_ref().is_ok_and(|(other, _)| other == path))),
        }
    }
}

fn count(monitor: &dyn Monitor, size: u64) {
    monitor.add(Counter::Objects, 1);
    monitor.add(Counter::ObjectBytes, size);
}

/// A bounded number of tasks; the first error ends all of them.
struct Tasks {
    set: JoinSet<Result<(), Error>>,
    most: usize,
}

impl Tasks {
    fn new(most: usize) -> Self {
        Self { set: JoinSet::new(), most: most.max(1) }
    }

    async fn spawn(&mut self, work: impl Future<Output = Result<(), Error>> + Send + 'static) -> Result<(), Error> {
        while self.set.len() >= self.most {
            self.join().await?;
        }
        self.set.spawn(work);
        Ok(())
    }

    async fn join(&mut self) -> Result<bool, Error> {
        match self.set.join_next().await {
            None => Ok(false),
            Some(Ok(done)) => done.map(|()| true),
            Some(Err(error)) => Err(Error::Worker(error.to_string())),
        }
    }

    async fn finish(mut self) -> Result<(), Error> {
        while self.join().await? {}
        Ok(())
    }
}

impl From<crate::feed::Closed> for Error {
    fn from(closed: crate::feed::Closed) -> Self {
        FetchError::from(closed).into()
    }
}
