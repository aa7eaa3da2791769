//! A monitor that keeps what was warned of, and passes everything on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::monitor::{Counter, Event, Monitor, Phase, Wait};

/// Warnings that are kept.
const KEPT: usize = 100;

/// Keeps warnings for the report.
pub struct Notes {
    inner: Arc<dyn Monitor>,
    warnings: Mutex<Vec<String>>,
}

impl Notes {
    /// Passes everything on to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Monitor>) -> Self {
        Self { inner, warnings: Mutex::default() }
    }

    /// What was warned of; the first hundred.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        if let Event::Warning { message } = &event {
            let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
            if warnings.len() < KEPT {
                warnings.push(message.clone());
            }
        }
        self.inner.event(event);
    }

    fn waited(&self, wait: Wait, time: Duration) {
        self.inner.waited(wait, time);
    }
}
