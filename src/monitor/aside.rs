//! Work that goes on beside what a run is said to do: its phases are told when it has become what the run waits for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Counter, Event, Monitor, Phase, Relayed, Step, Wait};

/// Passes everything on, but for phases: those are held back until [`Aside::join`].
pub struct Aside {
    monitor: Arc<dyn Monitor>,
    /// `None` once they are told at once.
    held: Mutex<Option<Vec<Phase>>>,
}

impl Aside {
    /// What goes on beside what `monitor` is told.
    #[must_use]
    pub fn new(monitor: Arc<dyn Monitor>) -> Self {
        Self { monitor, held: Mutex::new(Some(Vec::new())) }
    }

    /// The run does nothing else any more: tells the phases that were held back, in their order, and each later one at once.
    pub fn join(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.take().into_iter().flatten().for_each(|phase| self.monitor.phase(phase));
    }
}

impl Monitor for Aside {
    fn phase(&self, phase: Phase) {
        match self.held.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(held) => held.push(phase),
            None => self.monitor.phase(phase),
        }
    }

    fn total(&self, counter: Counter, total: u64) {
        self.monitor.total(counter, total);
    }

    fn add(&self, counter: Counter, amount: u64) {
        self.monitor.add(counter, amount);
    }

    fn event(&self, event: Event) {
        self.monitor.event(event);
    }

    fn step(&self, step: Step) {
        self.monitor.step(step);
    }

    fn waited(&self, wait: Wait, time: Duration) {
        self.monitor.waited(wait, time);
    }

    fn relay(&self, line: Relayed<'_>) {
        self.monitor.relay(line);
    }

    fn drain(&self, since: Instant) {
        self.monitor.drain(since);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recorder;
    use super::*;

    #[test]
    fn phases_wait_for_their_turn() {
        let recorder = Arc::new(Recorder::default());
        let aside = Aside::new(Arc::<Recorder>::clone(&recorder));
        let phase = |phase| Event::Phase { phase };
        let warning = Event::Warning { message: "at once".to_owned() };
        recorder.phase(Phase::Unpack);
        aside.phase(Phase::Indexes);
        aside.event(warning.clone());
        aside.phase(Phase::Prove);
        assert_eq!(recorder.events(), [phase(Phase::Unpack), warning.clone()]);
        aside.join();
        aside.phase(Phase::Indexes);
        let order = [Phase::Unpack, Phase::Indexes, Phase::Prove, Phase::Indexes].map(phase);
        let told: Vec<_> = recorder.events().into_iter().filter(|event| *event != warning).collect();
        assert_eq!(told, order);
    }
}
