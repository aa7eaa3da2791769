//! A monitor that keeps what was warned of and which objects the source lacked, and passes everything on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::monitor::{Counter, Event, Monitor, Phase, Wait};

/// Lines that are kept.
const KEPT: usize = 100;

/// Keeps warnings and names of objects for the report.
pub struct Notes {
    inner: Arc<dyn Monitor>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    warnings: Vec<String>,
    objects: Vec<String>,
}

impl Notes {
    /// Passes everything on to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Monitor>) -> Self {
        Self { inner, kept: Mutex::default() }
    }

    /// What was warned of, and then the objects that were missing, rotten or archived; the first hundred. However many those
    /// are, no warning is left out for them.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.warnings.iter().chain(&kept.objects).take(KEPT).cloned().collect()
    }

    fn keep(&self, line: String, list: fn(&mut Kept) -> &mut Vec<String>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = list(&mut kept);
        if lines.len() < KEPT {
            lines.push(line);
        }
    }
}

impl Monitor for Notes {
    fn phase(&self, phase: Phase) {
        self.inner.phase(phase);
    }

    fn total(&self, counter: Counter, total: u64) {
        self.inner.total(counter, total);
    }

    fn add(&self, counter: Counter, amount: u64) {
        self.inner.add(counter, amount);
    }

    fn event(&self, event: Event) {
        match &event {
            Event::Warning { message } => self.keep(message.clone(), |kept| &mut kept.warnings),
            Event::MissingObject { key, .. } => self.keep(format!("missing: {key}"), |kept| &mut kept.objects),
            Event::RottenObject { key, .. } => self.keep(format!("rotten: {key}"), |kept| &mut kept.objects),
            Event::ArchivedObject { key } => {
                self.keep(format!("archived, must be thawed: {key}"), |kept| &mut kept.objects);
            }
            _ => {}
        }
        self.inner.event(event);
    }

    fn waited(&self, wait: Wait, time: Duration) {
        self.inner.waited(wait, time);
    }
}
