//! What a job tells while it works: phases, totals, amounts done, and events worth keeping.
//!
//! Jobs know one trait, and take it as their last argument. Who listens is decided at the edge: a terminal, JSON lines,
//! both, nobody, or a test.

use std::time::{Duration, Instant};

mod event;
mod json;
mod meter;
mod outlet;
mod recorder;
mod relayed;
mod resources;
mod stats;
mod step;
mod terminal;
mod ticker;

pub use event::{Event, Phase};
pub use json::Json;
pub use meter::{Amount, Counter, Meter, Progress};
pub use recorder::Recorder;
pub use relayed::Relayed;
pub use resources::Resources;
pub use stats::{Spent, Stats, Wait, timed};
pub use step::Step;
pub use terminal::{Log, Style, Terminal};

/// Follows one job. Cheap enough to be called for each object, and from any thread.
pub trait Monitor: Send + Sync {
    /// The job enters `phase`.
    fn phase(&self, phase: Phase);

    /// `counter` will reach `total`, as far as is known now; may be said again when more is known.
    fn total(&self, counter: Counter, total: u64);

    /// `amount` more of `counter` are done.
    fn add(&self, counter: Counter, amount: u64);

    /// Something happened that the user should know, or that a program may wait for.
    fn event(&self, event: Event);

    /// A step on a cluster's way down or up is about to be taken.
    fn step(&self, step: Step) {
        self.event(Event::Step { step });
    }

    /// The job has waited so long, and its one thread of work stood still meanwhile.
    fn waited(&self, _wait: Wait, _time: Duration) {}

    /// Passes on what a run elsewhere tells.
    fn relay(&self, _line: Relayed<'_>) {}

    /// Waits until what was told is written, as long as whoever reads it takes something; that one has some seconds from
    /// `since` on. Telling waits for no reader, since a cluster may be down meanwhile.
    fn drain(&self, _since: Instant) {}

    /// A warning: the job goes on.
    fn warn(&self, message: String) {
        self.event(Event::Warning { message });
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn phase(&self, _: Phase) {}
    fn total(&self, _: Counter, _: u64) {}
    fn add(&self, _: Counter, _: u64) {}
    fn event(&self, _: Event) {}
}

/// Tells each of several.
#[derive(Default)]
pub struct All(pub Vec<Box<dyn Monitor>>);

impl Monitor for All {
    fn phase(&self, phase: Phase) {
        self.0.iter().for_each(|monitor| monitor.phase(phase));
    }

    fn total(&self, counter: Counter, total: u64) {
        self.0.iter().for_each(|monitor| monitor.total(counter, total));
    }

    fn add(&self, counter: Counter, amount: u64) {
        self.0.iter().for_each(|monitor| monitor.add(counter, amount));
    }

    fn event(&self, event: Event) {
        self.0.iter().for_each(|monitor| monitor.event(event.clone()));
    }

    fn waited(&self, wait: Wait, time: Duration) {
        self.0.iter().for_each(|monitor| monitor.waited(wait, time));
    }

    fn relay(&self, line: Relayed<'_>) {
        self.0.iter().for_each(|monitor| monitor.relay(line));
    }

    fn drain(&self, since: Instant) {
        self.0.iter().for_each(|monitor| monitor.drain(since));
    }
}

/// Whoever gathers may be asked by others, too.
impl<M: Monitor + ?Sized> Monitor for std::sync::Arc<M> {
    fn phase(&self, phase: Phase) {
        self.as_ref().phase(phase);
    }

    fn total(&self, counter: Counter, total: u64) {
        self.as_ref().total(counter, total);
    }

    fn add(&self, counter: Counter, amount: u64) {
        self.as_ref().add(counter, amount);
    }

    fn event(&self, event: Event) {
        self.as_ref().event(event);
    }

    fn step(&self, step: Step) {
        self.as_ref().step(step);
    }

    fn waited(&self, wait: Wait, time: Duration) {
        self.as_ref().waited(wait, time);
    }

    fn relay(&self, line: Relayed<'_>) {
        self.as_ref().relay(line);
    }

    fn drain(&self, since: Instant) {
        self.as_ref().drain(since);
    }
}
