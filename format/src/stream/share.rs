//! What is under way in a reader, by the memory that it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one outer entry takes of the memory until it is handed over.
pub(super) struct Share {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Share {
    pub(super) fn new(held: &Arc<AtomicUsize>, bytes: usize) -> Self {
        held.fetch_add(bytes, Ordering::Relaxed);
        Self { held: Arc::clone(held), bytes }
    }

    /// It is known better now.
    pub(super) fn resize(&mut self, bytes: usize) {
        *self = Self::new(&self.held, bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let held = Arc::new(AtomicUsize::new(1));
        let mut share = Share::new(&held, 10);
        assert_eq!(held.load(Ordering::Relaxed), 11);
        share.resize(4);
        assert_eq!(held.load(Ordering::Relaxed), 5);
        drop(share);
        assert_eq!(held.load(Ordering::Relaxed), 1);
    }
}
