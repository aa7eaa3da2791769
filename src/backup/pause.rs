//! The pause: the time for which a source is suspended, so that its snapshot is one of a cluster at rest.
//!
//! ```text
//!            begin                 prove               snapshot_is_kept     await_return
//!  running ────────► suspended ───────────► (proved) ────────────────► returning ──────► running
//!                        │ too long, Lease lost, somebody scaled           ▲
//!                        └─────────────────────────────────────────────────┘
//! ```
//!
//! The cluster comes back beside the work, never after it, and work is never cut off for it: what is lost is only the claim
//! that nothing ran. Whether the bundle is closed is decided elsewhere, and in the same way with a pause and without one.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use pacharc_format::manifest;
use tokio::sync::oneshot;

use super::options::{Quiesce, Suspending};
use super::{Error, Options};
use crate::cluster::Cluster;
use crate::cluster::suspend::clock::{Limit, boottime};
use crate::cluster::suspend::{self, Lost, Suspension};
use crate::failure::{Class, Explain as _, chain};
use crate::farewell;
use crate::monitor::{Counter, Event, Monitor, Phase, Step};

/// The pause of one backup; of one that is online, nothing.
pub(super) struct Pause {
    quiesce: Quiesce,
    suspending: Option<(Cluster, Suspending)>,
    watch: Arc<Watch>,
    state: State,
    /// The attempt whose snapshot was opened while nothing ran.
    proved: Option<u32>,
    lost: Option<Lost>,
    /// Whose hold it is that is used.
    held_by: Option<suspend::Record>,
    /// Whether it was left suspended at the end.
    left: bool,
}

enum State {
    Running,
    Suspended(Box<Suspension>),
    Returning(oneshot::Receiver<Result<(), suspend::Error>>),
    /// It did not come back.
    Down(suspend::Error),
}

impl Pause {
    /// Looks whether the cluster can be suspended, before anything else is done. One that is held already is used as it is,
    /// unless it is `behind`: read from a standby, of which nobody knows whether it has caught up with the hold.
    pub(super) async fn prepare(
        options: &Options,
        cluster: Option<&Cluster>,
        behind: bool,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Self, Error> {
        let mut pause = Self {
            quiesce: options.quiesce,
            suspending: cluster.cloned().zip(options.suspension.clone()),
            watch: Arc::new(Watch { monitor: Arc::clone(monitor), down: OnceLock::new(), up: OnceLock::new() }),
            state: State::Running,
            proved: None,
            lost: None,
            held_by: None,
            left: false,
        };
        let Some((cluster, suspending)) = pause.suspending.clone() else { return Ok(pause) };
        let held = match options.quiesce {
            Quiesce::Online => pause.look_for_hold(&cluster).await,
            Quiesce::Suspend | Quiesce::Hold => suspend::look(&cluster, &suspending.options, &**monitor).await?,
        };
        if let Some(record) = held {
            if behind {
                let owner = &record.owner;
                pause.watch.warn(format!("the hold of {owner} is not made use of: the server is a standby"));
                return Ok(pause);
            }
            pause.adopt(&cluster, &suspending, record).await?;
        }
        Ok(pause)
    }

    /// Whether a hold lies on the cluster. Nobody asked for one: what hinders the answer is no reason to stop.
    async fn look_for_hold(&self, cluster: &Cluster) -> Option<suspend::Record> {
        match suspend::held(cluster).await {
            Ok(record) => record,
            Err(error) => {
                tracing::info!("whether the cluster is held is not known: {}", chain(&error));
                None
            }
        }
    }

    async fn adopt(
        &mut self,
        cluster: &Cluster,
        suspending: &Suspending,
        record: suspend::Record,
    ) -> Result<(), Error> {
        match suspend::adopt(cluster, suspending.options.clone(), Arc::clone(&self.watch) as _).await {
            Ok(suspension) => {
                self.quiesce = Quiesce::Hold;
                self.state = State::Suspended(Box::new(suspension));
                self.held_by = Some(record);
                Ok(())
            }
            Err(error) if self.quiesce == Quiesce::Online => {
                let owner = &record.owner;
                self.watch.warn(format!("the hold of {owner} is not made use of: {}", chain(&error)));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the cluster is to be suspended yet.
    pub(super) fn is_due(&self) -> bool {
        let is_asked = self.quiesce != Quiesce::Online && self.suspending.is_some();
        is_asked && self.lost.is_none() && matches!(self.state, State::Running)
    }

    pub(super) fn is_suspended(&self) -> bool {
        matches!(self.state, State::Suspended(_))
    }

    /// The longest that the cluster may be down, where there is such a limit.
    fn limit(&self) -> Option<Duration> {
        let (_, suspending) = self.suspending.as_ref()?;
        (self.quiesce == Quiesce::Suspend && !suspending.stay).then_some(suspending.max_pause)
    }

    /// Forgoes a pause that would be too short. What is done in it was done before, beside the running cluster, and `took` so long
    /// the last time: to read the live set, and to copy what is new.
    pub(super) fn weigh(&mut self, took: Duration) {
        if let Some(limit) = self.limit().filter(|limit| took > *limit) {
            let (took, limit) = (took.as_secs_f64(), limit.as_secs_f64());
            let because = format!("what a pause of {limit} s is for took {took:.1} s while the cluster ran");
            self.lose(Lost::now(because));
        }
    }

    /// Suspends the cluster. Where that does not succeed and the cluster runs again, the backup goes on as online.
    ///
    /// # Errors
    /// The cluster is down, and could not be brought back.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        let Some((cluster, suspending)) = &self.suspending else { return Ok(()) };
        self.watch.monitor.phase(Phase::Suspend);
        let drain_timeout = suspending.options.drain_timeout;
        let drain_timeout = self.limit().map_or(drain_timeout, |limit| limit.min(drain_timeout));
        let options =
            suspend::Options { drain_timeout, kind: suspend::Kind::Run, hold: None, ..suspending.options.clone() };
        match suspend::suspend(cluster, options, Arc::clone(&self.watch) as _).await {
            Ok(suspension) => self.state = State::Suspended(Box::new(suspension)),
            Err(error) if error.class() == Class::Suspended => return Err(error.into()),
            Err(error) => {
                self.watch.is_up();
                self.lose(Lost::now(chain(&error)));
            }
        }
        Ok(())
    }

    /// Does `work`, which is never cut off. Should the pause have to end before, the cluster comes back meanwhile.
    pub(super) async fn within<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let lost = tokio::select! {
            biased;
            done = &mut work => return done,
            lost = self.over() => lost,
        };
        self.lose(lost);
        work.await
    }

    /// Waits until the cluster must come back; for ever, where it runs.
    async fn over(&self) -> Lost {
        let State::Suspended(suspension) = &self.state else { return std::future::pending().await };
        let too_long = async {
            let (Some(limit), Some((_, down))) = (self.limit(), self.watch.down.get()) else {
                return std::future::pending().await;
            };
            Limit::since(*down, limit).over().await;
            Lost::now(format!("the pause grew past {} s", limit.as_secs_f64()))
        };
        tokio::select! {
            lost = suspension.lost() => lost,
            lost = too_long => lost,
        }
    }

    /// Proves that the snapshot of an attempt, which was just opened, is one of a cluster at rest; and again later, where
    /// the pause goes on, that it still is. The pause grows no longer for a proof.
    pub(super) async fn prove(&mut self, attempt: u32) {
        let State::Suspended(suspension) = &self.state else { return };
        let proved = tokio::select! {
            biased;
            proved = suspension.check() => proved,
            lost = self.over() => Err(lost),
        };
        match proved {
            Ok(()) => self.proved = Some(attempt),
            Err(lost) => self.lose(lost),
        }
    }

    /// The snapshot is open and has all its objects: a cluster that was suspended for that comes back.
    pub(super) fn snapshot_is_kept(&mut self) {
        let stays = self.suspending.as_ref().is_some_and(|(_, suspending)| suspending.stay);
        if self.quiesce == Quiesce::Suspend && !stays {
            self.give_back();
        }
    }

    /// The cluster can no longer be called quiesced.
    pub(super) fn lose(&mut self, lost: Lost) {
        self.watch.warn(format!("not quiesced, so the backup goes on as online: {lost}"));
        self.lost.get_or_insert(lost);
        self.give_back();
    }

    /// Begins to bring the cluster back, beside whatever else is done. The process does not end before that has.
    pub(super) fn give_back(&mut self) {
        let suspension = match std::mem::replace(&mut self.state, State::Running) {
            State::Suspended(suspension) => suspension,
            other => {
                self.state = other;
                return;
            }
        };
        let (sender, receiver) = oneshot::channel();
        let watch = Arc::clone(&self.watch);
        farewell::start(async move {
            let result = suspension.resume().await;
            match &result {
                Ok(()) => watch.is_up(),
                // Now, and not when the dump has ended: somebody must look at it.
                Err(error) => {
                    let advice = error.advice().map(|advice| format!(": {advice}")).unwrap_or_default();
                    watch.warn(format!("{}{advice}", chain(error)));
                }
            }
            drop(sender.send(result));
        });
        self.state = State::Returning(receiver);
    }

    /// Waits until a cluster that was given back is back, or has failed to come.
    pub(super) async fn await_return(&mut self) {
        if let State::Returning(receiver) = &mut self.state {
            // Without an answer the process is about to end, and says itself what is owed.
            self.state = match receiver.await {
                Ok(Err(error)) => State::Down(error),
                Ok(Ok(())) | Err(_) => State::Running,
            };
        }
    }

    /// The bundle is complete: ends what is left of the pause, or leaves the cluster suspended where that was asked.
    ///
    /// # Errors
    /// The cluster is not back; or it was to be left suspended, and is not.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        let stays = self.suspending.as_ref().is_some_and(|(_, suspending)| suspending.stay);
        if stays && self.held_by.is_none() {
            match std::mem::replace(&mut self.state, State::Running) {
                State::Suspended(suspension) => {
                    suspension.hold().await?;
                    self.left = true;
                    return Ok(());
                }
                other => self.state = other,
            }
        }
        if self.is_suspended() {
            self.watch.monitor.phase(Phase::Resume);
        }
        self.give_back();
        self.await_return().await;
        if let State::Down(error) = std::mem::replace(&mut self.state, State::Running) {
            return Err(error.into());
        }
        if stays && !self.is_still_held().await? {
            let because = self.lost.as_ref().map_or_else(|| "it was not suspended".to_owned(), ToString::to_string);
            return Err(Error::NotLeft { because });
        }
        Ok(())
    }

    /// Whether somebody's hold that was made use of lies on the cluster still.
    async fn is_still_held(&self) -> Result<bool, Error> {
        match (&self.held_by, &self.suspending) {
            (Some(_), Some((cluster, _))) => Ok(suspend::held(cluster).await?.is_some()),
            _ => Ok(false),
        }
    }

    /// Where the cluster was left suspended, as asked: what brings it back.
    pub(super) fn command_to_resume(&self) -> Option<String> {
        self.left.then(|| self.suspending.as_ref().map(|(_, suspending)| suspending.options.command.clone())).flatten()
    }

    /// How the source was quiesced.
    pub(super) fn quiesce(&self) -> Quiesce {
        self.quiesce
    }

    /// What became of it, as far as it has come; `None` where the backup is online. `attempt` is the one that counts.
    pub(super) fn report(&self, attempt: u32) -> Option<manifest::Pause> {
        if self.quiesce == Quiesce::Online {
            return None;
        }
        let unproved = || Lost::now("the snapshot that was opened in the pause was lost, and a newer one taken");
        let lost = self.lost.clone().or_else(|| (self.proved != Some(attempt)).then(unproved));
        let begun = match &self.held_by {
            Some(record) => Some(record.since),
            None => self.watch.down.get().map(|(begun, _)| *begun),
        };
        let seconds = self.watch.down.get().zip(self.watch.up.get());
        Some(manifest::Pause {
            begun: begun.map(|begun| begun.to_string()),
            seconds: seconds.map(|((_, down), up)| millis(up.saturating_sub(*down))),
            held_by: self.held_by.as_ref().map(|record| record.owner.clone()),
            lost: lost.map(|Lost { at, because }| manifest::LostQuiescence { at: at.to_string(), because }),
        })
    }
}

/// Seconds, to the millisecond.
fn millis(time: Duration) -> f64 {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

/// Tells what a suspension tells, but for the phases, of which the backup has its own; and takes the time.
struct Watch {
    monitor: Arc<dyn Monitor>,
    /// When pachd was about to be scaled to zero.
    down: OnceLock<(Timestamp, Duration)>,
    /// When it was ready again.
    up: OnceLock<Duration>,
}

impl Watch {
    fn is_up(&self) {
        self.up.get_or_init(boottime);
    }
}

impl Monitor for Watch {
    fn phase(&self, _: Phase) {}

    fn total(&self, counter: Counter, total: u64) {
        self.monitor.total(counter, total);
    }

    fn add(&self, counter: Counter, amount: u64) {
        self.monitor.add(counter, amount);
    }

    fn event(&self, event: Event) {
        match event {
            Event::Step { step: Step::ScalePachd } => {
                self.down.get_or_init(|| (Timestamp::now(), boottime()));
            }
            // The Lease and the guardian are given back after it: by then the cluster serves its users.
            Event::Step { step: Step::RemoveRecord } => self.is_up(),
            _ => {}
        }
        self.monitor.event(event);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::cluster::suspend::faulty::{self, Answer, FaultyServer, Pachyderm, Request};
    use crate::monitor::{Json, Silent};

    fn pause(server: &FaultyServer, max_pause: Duration, monitor: Arc<dyn Monitor>) -> Pause {
        let options = suspend::Options { drain_timeout: Duration::from_secs(300), ..faulty::options() };
        Pause {
            quiesce: Quiesce::Suspend,
            suspending: Some((server.cluster(), Suspending { options, max_pause, stay: false })),
            watch: Arc::new(Watch { monitor, down: OnceLock::new(), up: OnceLock::new() }),
            state: State::Running,
            proved: None,
            lost: None,
            held_by: None,
            left: false,
        }
    }

    #[tokio::test]
    async fn a_pause_that_would_be_too_short_is_none() {
        let pachyderm = Pachyderm::new(&[("pachd", 2)]);
        let longest = Duration::from_secs(60);
        let mut pause = pause(&pachyderm.server(|_, _| None), longest, Arc::new(Silent));
        for took in [Duration::ZERO, longest] {
            pause.weigh(took);
            assert!(pause.is_due(), "{took:?}");
        }
        // Of a hold nobody knows how long it may be.
        pause.quiesce = Quiesce::Hold;
        pause.weigh(longest * 2);
        assert!(pause.is_due());
        pause.quiesce = Quiesce::Suspend;
        pause.weigh(longest * 2);
        assert!(!pause.is_due());
        pause.finish().await.unwrap();
        let told = pause.report(1).unwrap();
        let because = "what a pause of 60 s is for took 120.0 s while the cluster ran";
        assert_eq!(told.lost.map(|lost| lost.because).as_deref(), Some(because));
        assert_eq!((told.begun, told.seconds, pachyderm.replicas("pachd")), (None, None, 2));
    }

    #[tokio::test]
    async fn a_proof_makes_no_pause_longer() {
        let pachyderm = Pachyderm::new(&[("pachd", 2)]);
        let is_hindered = Arc::new(AtomicBool::new(false));
        let hindered = Arc::clone(&is_hindered);
        let odd = move |request: &Request, _| {
            (request.path.ends_with("/pods") && hindered.load(Ordering::Relaxed)).then_some(Answer::Status(500))
        };
        let mut pause = pause(&pachyderm.server(odd), Duration::from_secs(3), Arc::new(Silent));
        pause.begin().await.unwrap();
        assert!(pause.is_suspended());
        is_hindered.store(true, Ordering::Relaxed);
        // A part of the pause is over when a proof is asked for.
        tokio::time::sleep(Duration::from_secs(1)).await;
        pause.prove(1).await;
        pause.finish().await.unwrap();
        assert_eq!((pause.proved, pachyderm.replicas("pachd")), (None, 2));
        let because = pause.lost.unwrap().because;
        assert_eq!(because, "the pause grew past 3 s");
    }

    #[tokio::test]
    async fn a_cluster_comes_back_though_nobody_reads_of_it() {
        /// Takes nothing as long as the other end is there.
        struct Hangs(mpsc::Receiver<()>);
        impl Write for Hangs {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (reader, hangs) = mpsc::channel();
        let monitor = Arc::new(Json::new(Box::new(Hangs(hangs))));
        let pachyderm = Pachyderm::new(&[("pachd", 2)]);
        let mut pause = pause(&pachyderm.server(|_, _| None), Duration::from_secs(60), monitor);
        pause.begin().await.unwrap();
        assert!(pause.is_suspended());
        pause.finish().await.unwrap();
        assert_eq!(pachyderm.replicas("pachd"), 2);
        drop(reader);
    }
}
