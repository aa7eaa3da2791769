//! From the first copy to a dump that is closed: snapshots, what they show to be lacking, and the pause around them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pacharc_format::{BundleWriter, Spool, manifest};
use tokio::io::AsyncWrite;

use super::Error;
use super::copy::Delta;
use super::fetch::{Fetcher, Shared};
use super::job::Job;
use super::pause::Pause;
use crate::cluster::suspend::Lost;
use crate::database::{self, Attempt, ForeignSession, Progress, broken_rows, foreign_sessions};
use crate::failure::chain;
use crate::monitor::{Counter, Event, Phase, Wait};

/// How many snapshots are opened, at most, until one is closed and dumped.
const SNAPSHOTS: u32 = 5;
/// How many delta passes there are, at most, before a suspend.
const PASSES: u32 = 5;
/// Sessions of others are waited for so long: those of pods that were ended, and a monitor's short queries.
const QUIET: Duration = Duration::from_secs(15);
/// And looked for so often.
const GLANCE: Duration = Duration::from_millis(500);
/// How long a server may be away between two attempts: restarts take less, and so do the fail-overs of managed databases, of a
/// minute or two. Hours of copying are lost with it. A pause of the cluster has its own limit.
const AWAY: Duration = Duration::from_secs(180);

/// The databases as they were dumped, and the snapshot that they were dumped from.
#[derive(Default)]
pub(super) struct Dumped {
    pub(super) databases: Vec<manifest::Database>,
    pub(super) snapshots: u32,
    pub(super) opened: Option<Timestamp>,
    /// The live set of that snapshot, by path; `None` where no database is Pachyderm's.
    pub(super) live: Option<Spool>,
}

/// What became of an attempt's live set.
enum Closure {
    /// Every live object was looked for and is in the bundle, or is known to be missing.
    Closed(Option<Spool>),
    /// So many live objects vanished: a newer snapshot is needed.
    Vanished(u64),
    /// The snapshot was lost.
    Lost(database::Error),
}

impl Job<'_> {
    /// Opens snapshots until one is closed, and dumps that one.
    pub(super) async fn dump<W: AsyncWrite + Unpin + Send>(
        &self,
        bundle: &mut BundleWriter<W>,
        shared: &Arc<Shared>,
        pause: &mut Pause,
    ) -> Result<Dumped, Error> {
        let Some((server, tools)) = &self.source.server else { return Ok(Dumped::default()) };
        if pause.is_due() {
            let took = self.approach(bundle, shared).await?;
            pause.weigh(took);
        }
        if pause.is_due() {
            pause.begin().await?;
        }
        if pause.is_suspended() {
            self.await_quiet(pause).await;
        }
        let mut number = 0;
        // What a child of the last dump has died of.
        let mut died_of = None;
        loop {
            number += 1;
            self.monitor.phase(Phase::Snapshot);
            let opening = Attempt::open(server, tools, &self.source.databases, number);
            let attempt = match pause.within(opening).await {
                Ok(attempt) => attempt,
                Err(error) if error.is_retryable() && number < SNAPSHOTS => {
                    pause.within(self.attempt_failed(number, &error)).await?;
                    continue;
                }
                Err(error) => return Err(give_up(number, error)),
            };
            pause.prove(number).await;
            let live = match pause.within(self.close(&attempt, bundle, shared, Round::Last)).await? {
                Closure::Closed(live) => live,
                Closure::Vanished(count) if number < SNAPSHOTS => {
                    let reason = format!("{count} live objects vanished before they could be copied");
                    self.monitor.event(Event::AttemptFailed { attempt: number, attempts: SNAPSHOTS, reason });
                    continue;
                }
                Closure::Vanished(_) => return Err(Error::CannotClose(number)),
                Closure::Lost(error) if error.is_retryable() && number < SNAPSHOTS => {
                    pause.within(self.attempt_failed(number, &error)).await?;
                    continue;
                }
                Closure::Lost(error) => return Err(give_up(number, error)),
            };
            pause.snapshot_is_kept();
            self.monitor.phase(Phase::Dump);
            let opened = attempt.opened();
            let locked = Arc::new(AtomicBool::new(false));
            let (monitor, is_locked) = (Arc::clone(&self.monitor), Arc::clone(&locked));
            let progress = move |progress| match progress {
                Progress::Bytes(bytes) => monitor.add(Counter::DatabaseBytes, bytes),
                Progress::Locked => is_locked.store(true, Ordering::Relaxed),
            };
            let jobs = self.options.limits.jobs;
            let dumped = self.feed(bundle, Wait::Databases, |feed| {
                Box::pin(async move { attempt.dump(&feed, jobs, progress).await })
            });
            match pause.within(dumped).await? {
                Ok(databases) => {
                    // A hold is proved to its end.
                    pause.prove(number).await;
                    for (what, problem) in databases.iter().flat_map(broken_rows) {
                        self.monitor.warn(format!("{what}: {problem}: mend it at the source, and back up again"));
                    }
                    return Ok(Dumped { databases, snapshots: number, opened, live });
                }
                Err(error) if error.is_retryable() && number < SNAPSHOTS => {
                    let answers = pause.within(self.attempt_failed(number, &error)).await?;
                    // What comes again word for word, at a server that is well, comes for ever, and each dump takes room in the
                    // bundle. Before there are locks, nothing is written, and what stands in their way may go.
                    let of = error.of_child().filter(|_| locked.load(Ordering::Relaxed));
                    if answers && of.is_some() && of == died_of {
                        return Err(give_up(number, error));
                    }
                    died_of = of;
                }
                Err(error) => return Err(give_up(number, error)),
            }
        }
    }

    /// Copies what is new, again and again, so that little is left to be copied while the cluster is down: until a pass is
    /// short beside the longest pause, or no shorter than the one before. How long the last one took; nothing, where that is not
    /// known.
    async fn approach<W: AsyncWrite + Unpin + Send>(
        &self,
        bundle: &mut BundleWriter<W>,
        shared: &Arc<Shared>,
    ) -> Result<Duration, Error> {
        let Some((server, tools)) = &self.source.server else { return Ok(Duration::ZERO) };
        let longest = self.options.suspension.as_ref().map_or(Duration::ZERO, |suspension| suspension.max_pause);
        let (mut before, mut took) = (Duration::MAX, Duration::ZERO);
        for _ in 0..PASSES {
            let begun = Instant::now();
            let lost = match Attempt::open(server, tools, &self.source.databases, 0).await {
                // What has vanished, or is missing, the snapshot that counts will tell.
                Ok(attempt) => match self.close(&attempt, bundle, shared, Round::Early).await? {
                    Closure::Lost(error) => Some(error),
                    Closure::Closed(_) | Closure::Vanished(_) => None,
                },
                Err(error) => Some(error),
            };
            // A pass saves time in the pause, and is worth no failure: what is wrong, the snapshot that counts meets again.
            if let Some(error) = lost {
                tracing::info!("a pass before the pause was given up: {}", chain(&error));
                return Ok(Duration::ZERO);
            }
            took = begun.elapsed();
            if took <= longest / 4 || took > before / 5 * 4 {
                break;
            }
            before = took;
        }
        Ok(took)
    }

    /// Waits until no session of others is at work on the databases.
    async fn await_quiet(&self, pause: &mut Pause) {
        match pause.within(self.busy_sessions()).await {
            Ok(sessions) if sessions.is_empty() => {}
            Ok(sessions) => {
                let told: Vec<String> = sessions.iter().map(ToString::to_string).collect();
                pause.lose(Lost::now(format!("others are at work on the databases: {}", told.join("; "))));
            }
            Err(error) => {
                pause.lose(Lost::now(format!("who is at work on the databases is not known: {}", chain(&error))));
            }
        }
    }

    /// The sessions that are still at work when all patience is gone.
    async fn busy_sessions(&self) -> Result<Vec<ForeignSession>, database::Error> {
        let Some((server, _)) = &self.source.server else { return Ok(Vec::new()) };
        let names: Vec<&str> = self.source.databases.iter().map(|database| database.name.as_str()).collect();
        let Some(first) = names.first() else { return Ok(Vec::new()) };
        let session = server.connect(first).await?;
        let begun = Instant::now();
        loop {
            let sessions = foreign_sessions(&session, &names).await?;
            if sessions.is_empty() || begun.elapsed() > QUIET {
                return Ok(sessions);
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Copies what the attempt's live set shows to be lacking.
    async fn close<W: AsyncWrite + Unpin + Send>(
        &self,
        attempt: &Attempt,
        bundle: &mut BundleWriter<W>,
        shared: &Arc<Shared>,
        round: Round,
    ) -> Result<Closure, Error> {
        let Some((server, _)) = &self.source.server else { return Ok(Closure::Closed(None)) };
        let (Some(database), Some(bucket)) = (self.source.pachyderm(), &self.source.bucket) else {
            return Ok(Closure::Closed(None));
        };
        bundle.flush().await?;
        let copied = bundle.entries()?;
        let live_set = match attempt.live_set().await {
            Ok(live_set) => live_set,
            Err(error) => return Ok(Closure::Lost(error)),
        };
        let mut live = self.spool();
        let lacking = self.feed(bundle, Wait::Bucket, |feed| {
            let delta = Delta {
                fetcher: Fetcher::new(Arc::clone(bucket), feed, Arc::clone(shared), true),
                server,
                database: &database.name,
                jobs: self.fetches(),
                strict: self.options.strict,
                tells_missing: round == Round::Last,
            };
            let (live, monitor) = (&mut live, &self.monitor);
            Box::pin(async move { delta.run(live_set, copied, live, monitor).await })
        });
        match lacking.await? {
            Ok(lacking) if lacking.vanished > 0 => Ok(Closure::Vanished(lacking.vanished)),
            Ok(_) => Ok(Closure::Closed(Some(live))),
            Err(Error::Database(error)) if error.is_retryable() => Ok(Closure::Lost(error)),
            Err(error) => Err(error),
        }
    }

    /// Tells it, and waits until the server is there again: attempts are for what goes wrong at a server, not for how long
    /// one takes to start. Whether it was there all the time.
    async fn attempt_failed(&self, attempt: u32, error: &database::Error) -> Result<bool, Error> {
        let reason = chain(error);
        self.monitor.event(Event::AttemptFailed { attempt, attempts: SNAPSHOTS, reason });
        let (Some((server, _)), Some(first)) = (&self.source.server, self.source.databases.first()) else {
            return Ok(true);
        };
        let mut answers = true;
        let tell = || {
            answers = false;
            self.monitor.warn(format!("{} does not answer: waiting for it", server.address()));
        };
        let session = server.await_session(&first.name, AWAY, tell).await;
        session.map(|_| answers).map_err(|error| give_up(attempt, error))
    }
}

/// What a live set is compared for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// To have less to do later.
    Early,
    /// To be dumped.
    Last,
}

fn give_up(attempts: u32, error: database::Error) -> Error {
    match attempts {
        1 => error.into(),
        _ => Error::Attempts { attempts, source: Box::new(error) },
    }
}
