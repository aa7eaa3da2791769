//! A monitor for tests: keeps what it was told.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::{Amount, Counter, Event, Meter, Monitor, Phase};

/// Keeps phases and events in their order, and the counters' last state.
#[derive(Debug, Default)]
pub struct Recorder {
    events: Mutex<Vec<Event>>,
    meter: Meter,
}

impl Recorder {
    /// Everything so far; phases come as [`Event::Phase`].
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The state of a counter.
    #[must_use]
    pub fn amount(&self, counter: Counter) -> Amount {
        self.meter.progress(Instant::now()).amount(counter)
    }
}

impl Monitor for Recorder {
    fn phase(&self, phase: Phase) {
        self.event(Event::Phase { phase });
    }

    fn total(&self, counter: Counter, total: u64) {
        self.meter.total(counter, total);
    }

    fn add(&self, counter: Counter, amount: u64) {
        self.meter.add(counter, amount);
    }

    fn event(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}
