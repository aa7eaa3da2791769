//! Where a run's time went, for whoever wants to know what limits it (`--stats`).
//!
//! A run has one thread of work that all others serve: it waits for the source, for processors, for the output, one after
//! the other, and tells each [`Wait`] when it is over. What is left of its time, processors had.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::resources::Resources;
use super::{Counter, Event, Monitor, Phase};

/// What a run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The bucket: objects to come, or to be written.
    Bucket,
    /// The databases: rows to come, or to be loaded.
    Databases,
    /// The bundle that is read.
    Input,
    /// The bundle that is written.
    Output,
}

impl Wait {
    const ALL: [Self; 4] = [Self::Bucket, Self::Databases, Self::Input, Self::Output];
}

/// Waits for `work`, and tells for how long.
pub async fn timed<T>(monitor: &dyn Monitor, wait: Wait, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = work.await;
    monitor.waited(wait, begun.elapsed());
    done
}

/// Where a run's time went, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    /// All of it.
    pub seconds: f64,
    /// Waiting for the bucket.
    pub bucket: f64,
    /// Waiting for the databases.
    pub databases: f64,
    /// Waiting for the bundle that is read.
    pub input: f64,
    /// Waiting for the bundle that is written.
    pub output: f64,
    /// What is left: waiting for processors (hashes, compression, encryption), or working.
    pub processors: f64,
    /// Each phase, in the order in which they were first entered.
    pub phases: Vec<(Phase, f64)>,
    /// Bytes of objects, of databases and of the bundle.
    pub bytes: u64,
    /// What the process took, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Resources>,
}

/// Gathers it.
pub struct Stats {
    begun: Instant,
    /// Microseconds of each [`Wait`].
    waits: [AtomicU64; Wait::ALL.len()],
    bytes: AtomicU64,
    phases: Mutex<Phases>,
}

#[derive(Default)]
struct Phases {
    over: Vec<(Phase, Duration)>,
    now: Option<(Phase, Instant)>,
}

impl Phases {
    fn enter(&mut self, next: Option<Phase>) {
        let now = Instant::now();
        if let Some((phase, begun)) = std::mem::replace(&mut self.now, next.map(|next| (next, now))) {
            match self.over.iter_mut().find(|(over, _)| *over == phase) {
                Some((_, spent)) => *spent += now - begun,
                None => self.over.push((phase, now - begun)),
            }
        }
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self { begun: Instant::now(), waits: Default::default(), bytes: AtomicU64::new(0), phases: Mutex::default() }
    }
}

impl Stats {
    /// What was gathered so far.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        let now = phases.now.map(|(phase, _)| phase);
        phases.enter(now);
        let phases = phases.over.iter().map(|(phase, spent)| (*phase, spent.as_secs_f64())).collect();
        let [bucket, databases, input, output] =
            Wait::ALL.map(|wait| Duration::from_micros(self.waits[wait as usize].load(Relaxed)).as_secs_f64());
        let seconds = self.begun.elapsed().as_secs_f64();
        // What is read by ranges may be waited for twice at a time.
        let processors = (seconds - bucket - databases - input - output).max(0.0);
        let bytes = self.bytes.load(Relaxed);
        Spent { seconds, bucket, databases, input, output, processors, phases, bytes, process: Resources::now() }
    }
}

impl Monitor for Stats {
    fn phase(&self, phase: Phase) {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).enter(Some(phase));
    }

    fn total(&self, _: Counter, _: u64) {}

    fn add(&self, counter: Counter, amount: u64) {
        if matches!(counter, Counter::ObjectBytes | Counter::DatabaseBytes) {
            self.bytes.fetch_add(amount, Relaxed);
        }
    }

    fn event(&self, _: Event) {}

    fn waited(&self, wait: Wait, time: Duration) {
        self.waits[wait as usize].fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// One line, the dearest first.
impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} s", self.seconds)?;
        if self.bytes > 0 && self.seconds > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "for people to read")]
            let rate = self.bytes as f64 / self.seconds / f64::from(1 << 20);
            write!(f, " ({rate:.0} MiB/s)")?;
        }
        let mut waits = [
            ("waiting for the bucket", self.bucket),
            ("waiting for the databases", self.databases),
            ("reading the bundle", self.input),
            ("writing the bundle", self.output),
            ("on processors", self.processors),
        ];
        waits.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        for (number, (what, seconds)) in waits.into_iter().filter(|(_, seconds)| *seconds >= 0.05).enumerate() {
            write!(f, "{} {seconds:.1} s {what}", if number == 0 { ":" } else { "," })?;
        }
        if let Some(process) = &self.process {
            write!(f, "; {process}")?;
        }
        for (number, (phase, seconds)) in self.phases.iter().filter(|(_, seconds)| *seconds >= 0.05).enumerate() {
            write!(f, "{} {} {seconds:.1} s", if number == 0 { ";" } else { "," }, phase.label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_waited_for_is_left_to_processors() {
        let stats = Stats::default();
        stats.phase(Phase::Copy);
        stats.waited(Wait::Bucket, Duration::from_millis(1));
        stats.waited(Wait::Bucket, Duration::from_millis(2));
        std::thread::sleep(Duration::from_millis(20));
        stats.phase(Phase::Finish);
        stats.phase(Phase::Copy);
        let spent = stats.spent();
        assert!((spent.bucket - 0.003).abs() < 1e-9 && spent.input == 0.0, "{spent:?}");
        assert!(spent.processors >= 0.016 && spent.processors < spent.seconds, "{spent:?}");
        let phases: Vec<_> = spent.phases.iter().map(|(phase, _)| *phase).collect();
        assert_eq!(phases, [Phase::Copy, Phase::Finish]);
        assert!(spent.phases[0].1 >= 0.02, "{spent:?}");
        stats.waited(Wait::Output, Duration::from_secs(1000));
        assert!(stats.spent().processors.abs() < f64::EPSILON);
    }

    #[test]
    fn the_line_names_the_dearest_first() {
        let spent = Spent {
            seconds: 12.34,
            bucket: 7.5,
            output: 1.04,
            processors: 3.8,
            bytes: 4 << 30,
            phases: vec![(Phase::Copy, 11.0), (Phase::Snapshot, 0.01), (Phase::Finish, 1.34)],
            ..Spent::default()
        };
        let line = "12.3 s (332 MiB/s): 7.5 s waiting for the bucket, 3.8 s on processors, 1.0 s writing the bundle; \
            copying objects 11.0 s, finishing 1.3 s";
        assert_eq!(spent.to_string(), line);
    }
}
