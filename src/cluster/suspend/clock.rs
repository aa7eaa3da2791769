//! The clock that waiting for others is measured by: it goes on while the machine sleeps, and nobody sets it.

use std::time::Duration;

/// Time since the machine was started, its sleep included.
#[cfg(target_os = "linux")]
pub(crate) fn boottime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
}

/// Time since this was first asked for; elsewhere the standard library's clock has to do.
#[cfg(not(target_os = "linux"))]
pub(crate) fn boottime() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGIN.elapsed()
}

/// How long something may last, from a moment on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    begun: Duration,
    span: Duration,
}

impl Limit {
    pub(crate) fn begin(span: Duration) -> Self {
        Self::since(boottime(), span)
    }

    pub(crate) fn since(begun: Duration, span: Duration) -> Self {
        Self { begun, span }
    }

    pub(crate) fn span(&self) -> Duration {
        self.span
    }

    /// Waits until it is over. A machine that slept has slept through it, too.
    pub(crate) async fn over(&self) {
        let left = || self.span.checked_sub(boottime().saturating_sub(self.begun)).filter(|left| !left.is_zero());
        while let Some(left) = left() {
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }
}

/// Since when one thing was seen unchanged.
#[derive(Debug, Default)]
pub(super) struct Stillness {
    seen: Option<(String, Duration)>,
}

impl Stillness {
    /// Takes note of what is there now. How long it has been seen so.
    pub(super) fn observe(&mut self, now: &str) -> Duration {
        let clock = boottime();
        match &self.seen {
            Some((before, since)) if before == now => clock.saturating_sub(*since),
            _ => {
                self.seen = Some((now.to_owned(), clock));
                Duration::ZERO
            }
        }
    }

    /// Whether something else was seen before.
    pub(super) fn has_changed(&self, now: &str) -> bool {
        self.seen.as_ref().is_some_and(|(before, _)| before != now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_as_it_was_grows_old() {
        let mut lease = Stillness::default();
        assert!(!lease.has_changed("1"));
        assert_eq!(lease.observe("1"), Duration::ZERO);
        std::thread::sleep(Duration::from_millis(5));
        assert!(lease.observe("1") >= Duration::from_millis(5));
        assert!(lease.has_changed("2") && !lease.has_changed("1"));
        assert_eq!(lease.observe("2"), Duration::ZERO);
    }
}
