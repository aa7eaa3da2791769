//! Counts what is done, measures how fast, and says how long it still takes, or nothing where that is not known.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Phase;

/// What is counted. Counters belong to the whole run, not to a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Objects copied or restored.
    Objects,
    /// Their bytes.
    ObjectBytes,
    /// Rows dumped or loaded.
    Rows,
    /// Bytes of databases dumped or loaded, as COPY text.
    DatabaseBytes,
    /// Entries of the bundle checked or read.
    Entries,
    /// Bytes of the bundle itself, written or read.
    BundleBytes,
    /// Objects of the target proved after a restore.
    ProvedObjects,
    /// Bytes of the target proved after a restore.
    ProvedBytes,
}

impl Counter {
    const COUNT: usize = 8;
    const ALL: [Self; Self::COUNT] = [
        Self::Objects,
        Self::ObjectBytes,
        Self::Rows,
        Self::DatabaseBytes,
        Self::Entries,
        Self::BundleBytes,
        Self::ProvedObjects,
        Self::ProvedBytes,
    ];

    /// Whether it counts bytes rather than things.
    #[must_use]
    pub fn is_bytes(self) -> bool {
        matches!(self, Self::ObjectBytes | Self::DatabaseBytes | Self::BundleBytes | Self::ProvedBytes)
    }
}

/// What is done of a counter, and its total where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Done so far.
    pub done: u64,
    /// All of it; an estimate for rows and bytes of databases, and for objects until all are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

impl Amount {
    fn is_untouched(&self) -> bool {
        *self == Self::default()
    }

    /// Whether more is done than there should be: the total was too low, and nobody knows by how much.
    #[must_use]
    pub fn exceeds(&self) -> bool {
        self.total.is_some_and(|total| self.done > total)
    }
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The phase it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Objects copied or restored.
    #[serde(skip_serializing_if = "Amount::is_untouched")]
    pub objects: Amount,
    /// Their bytes.
    #[serde(skip_serializing_if = "Amount::is_untouched")]
    pub object_bytes: Amount,
    /// Rows dumped or loaded.
    #[serde(skip_serializing_if = "Amount::is_untouched")]
    pub rows: Amount,
    /// Bytes of databases, as COPY text.
    #[serde(skip_serializing_if = "Amount::is_untouched")]
    pub database_bytes: Amount,
    /// Entries of the bundle.
    #[serde(skip_serializing_if = "Amount::is_untouched")]
    pub entries: Amount,
    /// Bytes of the bundle.
    #[serde(skip_serializing_if = "Amount::is_untouched")]
    pub bundle_bytes: Amount,
    /// Objects proved after a restore.
    #[serde(skip_serializing_if = "Amount::is_untouched")]
    pub proved_objects: Amount,
    /// Bytes proved after a restore.
    #[serde(skip_serializing_if = "Amount::is_untouched")]
    pub proved_bytes: Amount,
    /// Bytes a second over the last half minute.
    pub bytes_per_second: u64,
    /// Seconds to go, where all totals are known and the rate is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
}

impl Progress {
    /// The progress that an event of a run elsewhere tells, if it is such an event.
    pub(super) fn of_event(event: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Line {
            event: String,
            #[serde(flatten)]
            progress: Progress,
        }
        let line: Line = serde_json::from_str(event).ok()?;
        (line.event == "progress").then_some(line.progress)
    }

    /// The amount of `counter`.
    #[must_use]
    pub fn amount(&self, counter: Counter) -> Amount {
        match counter {
            Counter::Objects => self.objects,
            Counter::ObjectBytes => self.object_bytes,
            Counter::Rows => self.rows,
            Counter::DatabaseBytes => self.database_bytes,
            Counter::Entries => self.entries,
            Counter::BundleBytes => self.bundle_bytes,
            Counter::ProvedObjects => self.proved_objects,
            Counter::ProvedBytes => self.proved_bytes,
        }
    }

    /// All counters of bytes (or of things) that have a total, added up: what the run's length is measured by.
    /// Where none has one, what is done alone; and there is no total where one of them was too low.
    #[must_use]
    pub fn work(&self, bytes: bool) -> Amount {
        let of_kind = || Counter::ALL.into_iter().filter(|c| c.is_bytes() == bytes).map(|c| self.amount(c));
        if of_kind().all(|amount| amount.total.is_none()) {
            return Amount { done: of_kind().map(|amount| amount.done).max().unwrap_or_default(), total: None };
        }
        of_kind().fold(Amount { done: 0, total: Some(0) }, |sum, amount| match amount.total {
            Some(total) => Amount {
                done: sum.done.saturating_add(amount.done),
                total: sum.total.filter(|_| !amount.exceeds()).map(|so_far| so_far.saturating_add(total)),
            },
            None => sum,
        })
    }
}

/// A rate is measured over this long.
const WINDOW: Duration = Duration::from_secs(30);
/// A rate is not believed before so much time has passed.
const SETTLED: Duration = Duration::from_secs(3);
/// No total is known.
const UNKNOWN: u64 = u64::MAX;

/// The counters of one run.
#[derive(Debug)]
pub struct Meter {
    done: [AtomicU64; Counter::COUNT],
    totals: [AtomicU64; Counter::COUNT],
    phase: Mutex<Option<Phase>>,
    samples: Mutex<VecDeque<Sample>>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    bytes: u64,
    things: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            done: Default::default(),
            totals: std::array::from_fn(|_| AtomicU64::new(UNKNOWN)),
            phase: Mutex::default(),
            samples: Mutex::default(),
        }
    }
}

impl Meter {
    /// Enters a phase. A total that was too low for the one before is known now: it is what was done.
    pub fn phase(&self, phase: Phase) {
        for (done, total) in self.done.iter().zip(&self.totals) {
            // What is not known is more than anything.
            total.fetch_max(done.load(Relaxed), Relaxed);
        }
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Some(phase);
    }

    /// Sets a total.
    pub fn total(&self, counter: Counter, total: u64) {
        self.totals[counter as usize].store(total.min(UNKNOWN - 1), Relaxed);
    }

    /// Counts.
    pub fn add(&self, counter: Counter, amount: u64) {
        self.done[counter as usize].fetch_add(amount, Relaxed);
    }

    /// How far the run is at `now`. To be called regularly: the rate is measured from one call to the next.
    pub fn progress(&self, now: Instant) -> Progress {
        let amount = |counter: Counter| {
            let total = self.totals[counter as usize].load(Relaxed);
            Amount { done: self.done[counter as usize].load(Relaxed), total: (total != UNKNOWN).then_some(total) }
        };
        let mut progress = Progress {
            phase: *self.phase.lock().unwrap_or_else(PoisonError::into_inner),
            objects: amount(Counter::Objects),
            object_bytes: amount(Counter::ObjectBytes),
            rows: amount(Counter::Rows),
            database_bytes: amount(Counter::DatabaseBytes),
            entries: amount(Counter::Entries),
            bundle_bytes: amount(Counter::BundleBytes),
            proved_objects: amount(Counter::ProvedObjects),
            proved_bytes: amount(Counter::ProvedBytes),
            bytes_per_second: 0,
            eta_seconds: None,
        };
        let (bytes, things) = (progress.work(true), progress.work(false));

        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back(Sample { at: now, bytes: bytes.done, things: things.done });
        // The oldest one kept is just outside the window, so that the window is whole.
        while samples.get(1).is_some_and(|second| now.duration_since(second.at) >= WINDOW) {
            samples.pop_front();
        }
        let Some(&oldest) = samples.front() else { return progress };
        let elapsed = now.duration_since(oldest.at);
        if !elapsed.is_zero() {
            progress.bytes_per_second = rate(bytes.done.saturating_sub(oldest.bytes), elapsed);
        }
        let is_known = Counter::ALL.into_iter().all(|counter| !progress.amount(counter).exceeds());
        if elapsed >= SETTLED && is_known {
            progress.eta_seconds = longer(
                to_go(bytes, oldest.bytes, elapsed),
                // Many small objects take their time by number, not by size: the slower of the two is honest.
                to_go(things, oldest.things, elapsed),
            );
        }
        progress
    }
}

fn rate(amount: u64, elapsed: Duration) -> u64 {
    let millis = elapsed.as_millis().max(1);
    u64::try_from(u128::from(amount) * 1000 / millis).unwrap_or(u64::MAX)
}

/// What is left of an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// There is no total.
    NotCounted,
    /// There is a total, and nothing moves.
    Unknown,
    /// So many seconds.
    Seconds(u64),
}

fn to_go(work: Amount, before: u64, elapsed: Duration) -> Left {
    let Some(total) = work.total else { return Left::NotCounted };
    let left = total.saturating_sub(work.done);
    let moved = work.done.saturating_sub(before);
    if left == 0 {
        return Left::Seconds(0);
    }
    if moved == 0 {
        return Left::Unknown;
    }
    let seconds = u128::from(left) * elapsed.as_millis() / (u128::from(moved) * 1000);
    Left::Seconds(u64::try_from(seconds).unwrap_or(u64::MAX))
}

fn longer(a: Left, b: Left) -> Option<u64> {
    match (a, b) {
        (Left::Seconds(a), Left::Seconds(b)) => Some(a.max(b)),
        (Left::Seconds(one), Left::NotCounted) | (Left::NotCounted, Left::Seconds(one)) => Some(one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn no_eta_without_a_total_or_before_the_rate_has_settled() {
        let (meter, start) = (Meter::default(), Instant::now());
        meter.progress(start);
        meter.add(Counter::ObjectBytes, 10 * MIB);
        assert_eq!(meter.progress(at(start, 10)).eta_seconds, None, "no total");
        assert_eq!(meter.progress(at(start, 10)).bytes_per_second, MIB);

        let (meter, start) = (Meter::default(), Instant::now());
        meter.total(Counter::ObjectBytes, 100 * MIB);
        meter.progress(start);
        meter.add(Counter::ObjectBytes, MIB);
        assert_eq!(meter.progress(at(start, 1)).eta_seconds, None, "one second is too short");
    }

    #[test]
    fn the_eta_comes_from_what_is_left_of_all_totals() {
        let (meter, start) = (Meter::default(), Instant::now());
        meter.total(Counter::ObjectBytes, 100 * MIB);
        meter.total(Counter::DatabaseBytes, 50 * MIB);
        meter.progress(start);
        meter.add(Counter::ObjectBytes, 50 * MIB);
        assert_eq!(meter.progress(at(start, 10)).eta_seconds, Some(20));
    }

    #[test]
    fn many_small_objects_count_by_number() {
        let (meter, start) = (Meter::default(), Instant::now());
        meter.total(Counter::ObjectBytes, 100);
        meter.total(Counter::Objects, 1000);
        meter.progress(start);
        meter.add(Counter::ObjectBytes, 99);
        meter.add(Counter::Objects, 10);
        assert_eq!(meter.progress(at(start, 10)).eta_seconds, Some(990));
    }

    #[test]
    fn a_run_that_stands_still_has_no_eta() {
        let (meter, start) = (Meter::default(), Instant::now());
        meter.total(Counter::ObjectBytes, 100);
        for second in 0..40 {
            if second < 5 {
                meter.add(Counter::ObjectBytes, 1);
            }
            meter.progress(at(start, second));
        }
        assert_eq!(meter.progress(at(start, 40)).eta_seconds, None);
    }

    #[test]
    fn an_estimate_that_was_too_low_is_none_until_the_phase_is_over() {
        let (meter, start) = (Meter::default(), Instant::now());
        meter.total(Counter::DatabaseBytes, 10);
        meter.total(Counter::ObjectBytes, 1000);
        meter.progress(start);
        meter.add(Counter::DatabaseBytes, 1000);
        let progress = meter.progress(at(start, 10));
        assert_eq!(progress.work(true), Amount { done: 1000, total: None });
        assert_eq!((progress.bytes_per_second, progress.eta_seconds), (100, None));
        meter.phase(Phase::Finish);
        let progress = meter.progress(at(start, 20));
        assert_eq!(progress.work(true), Amount { done: 1000, total: Some(2000) });
        assert_eq!(progress.eta_seconds, Some(20));
    }

    #[test]
    fn what_no_live_row_names_is_copied_as_fast_as_the_rest() {
        let (meter, start) = (Meter::default(), Instant::now());
        meter.phase(Phase::Copy);
        // As the live set has it: the half of what lies there.
        meter.total(Counter::Objects, 100);
        meter.total(Counter::ObjectBytes, 100 * MIB);
        meter.total(Counter::DatabaseBytes, MIB);
        for second in 0..200 {
            let progress = meter.progress(at(start, second));
            if second >= 3 {
                assert_eq!(progress.bytes_per_second, MIB, "{second} s");
                let expected = 101_u64.checked_sub(second).filter(|left| *left > 0);
                assert_eq!(progress.eta_seconds, expected, "{second} s");
            }
            meter.add(Counter::Objects, 1);
            meter.add(Counter::ObjectBytes, MIB);
        }
        // The listing is at its end.
        meter.total(Counter::Objects, 200);
        meter.total(Counter::ObjectBytes, 200 * MIB);
        assert_eq!(meter.progress(at(start, 200)).eta_seconds, Some(1));
    }

    #[test]
    fn what_was_not_counted_stays_out_of_the_json() {
        let meter = Meter::default();
        meter.phase(Phase::Copy);
        meter.add(Counter::Objects, 3);
        let json = serde_json::to_value(meter.progress(Instant::now())).unwrap();
        assert_eq!(json, serde_json::json!({"phase": "copy", "objects": {"done": 3}, "bytes_per_second": 0}));
    }
}
