//! One JSON object a line, for programs: `docs/json.md`.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::outlet::{Outlet, PATIENCE};
use super::ticker::Ticker;
use super::{Counter, Event, Meter, Monitor, Phase, Progress, Relayed};

/// Between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(1);

/// For so long an event is waited for to be written: what it announces begins behind it, where somebody reads.
const PROMPT: Duration = Duration::from_secs(1);

/// So many bytes of a line are written at a time: a pipe takes them whole or not at all, and a reader that takes one such step
/// after the other is seen to do so.
const STEP: usize = 4096;

/// Writes events, and the progress once a second.
pub struct Json {
    lines: Arc<Lines>,
    meter: Arc<Meter>,
    _ticker: Ticker,
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

struct Lines {
    outlet: Outlet<Vec<u8>>,
    told: Mutex<Told>,
}

/// What was told so far.
struct Told {
    /// Whether the run's end was: no progress comes after it.
    ended: bool,
    /// How long a reader is waited for that takes nothing.
    patience: Option<Duration>,
    /// Whether the reader is behind: it is waited for once, and not at every event.
    is_behind: bool,
}

impl Lines {
    /// Hands on a line. The first that cannot be written is the last: a reader that has gone, or that hangs, must not end a
    /// backup, nor keep a cluster down.
    fn write(&self, event: &Event) {
        let mut told = self.lock();
        let is_progress = matches!(event, Event::Progress(_));
        if told.ended && is_progress {
            return;
        }
        told.ended |= matches!(event, Event::Finished { .. } | Event::Error { .. });
        if matches!(event, Event::Entry { .. }) {
            // Of a listing the lines are the product, and nothing waits for its end but who reads them, in a pager perhaps.
            told.patience = None;
        }
        let time = Timestamp::now().round(jiff::Unit::Millisecond).unwrap_or_default().to_string();
        if let Ok(line) = serde_json::to_vec(&Line { time, event }) {
            self.hand_on(&mut told, line, is_progress);
        }
    }

    fn hand_on(&self, told: &mut Told, mut line: Vec<u8>, is_progress: bool) {
        line.push(b'\n');
        let size = line.len();
        if is_progress {
            self.outlet.offer(line, size);
        } else if !self.outlet.push(line, size, told.patience) {
            self.outlet.give_up();
            nobody_reads();
        } else if told.patience.is_some() {
            let limit = if told.is_behind { Duration::ZERO } else { PROMPT };
            told.is_behind = !self.outlet.settle(limit);
        }
    }

    fn drain(&self, since: Instant) {
        let patience = self.lock().patience;
        if !self.outlet.drain(patience, since) {
            nobody_reads();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nobody_reads() {
    tracing::warn!("no more JSON events: nobody has read any for {} s", PATIENCE.as_secs());
}

/// Writes a line, calling `moved` whenever a step of it was taken.
fn write(output: &mut dyn Write, line: &[u8], moved: &dyn Fn()) -> std::io::Result<()> {
    for step in line.chunks(STEP) {
        output.write_all(step)?;
        moved();
    }
    output.flush()
}

impl Json {
    /// Writes to `output`, flushing each line, on a thread of its own. Dropped, it waits until everything is written, as long
    /// as the reader takes something.
    #[must_use]
    pub fn new(mut output: Box<dyn Write + Send>) -> Self {
        let outlet = Outlet::start("events", move |line: Vec<u8>, moved| {
            write(&mut *output, &line, moved).inspect_err(|error| tracing::warn!("no more JSON events: {error}"))
        });
        let told = Mutex::new(Told { ended: false, patience: Some(PATIENCE), is_behind: false });
        let lines = Arc::new(Lines { outlet, told });
        let meter = Arc::new(Meter::default());
        let ticker = Ticker::start(INTERVAL, {
            let (lines, meter) = (Arc::clone(&lines), Arc::clone(&meter));
            let mut last = None;
            move || {
                let progress = meter.progress(Instant::now());
                // Before the first phase, and while nothing was counted at all, there is nothing to say.
                if progress.phase.is_some() && last.as_ref() != Some(&progress) {
                    lines.write(&Event::Progress(progress.clone()));
                    last = Some(progress);
                }
            }
        });
        Self { lines, meter, _ticker: ticker }
    }
}

impl Drop for Json {
    fn drop(&mut self) {
        self.lines.drain(Instant::now());
    }
}

impl Monitor for Json {
    fn phase(&self, phase: Phase) {
        self.meter.phase(phase);
        self.lines.write(&Event::Phase { phase });
    }

    fn total(&self, counter: Counter, total: u64) {
        self.meter.total(counter, total);
    }

    fn add(&self, counter: Counter, amount: u64) {
        self.meter.add(counter, amount);
    }

    fn event(&self, event: Event) {
        self.lines.write(&event);
    }

    fn relay(&self, line: Relayed<'_>) {
        if let Relayed::Event(event) = line {
            let is_progress = Progress::of_event(event).is_some();
            self.lines.hand_on(&mut self.lines.lock(), event.as_bytes().to_vec(), is_progress);
        }
    }

    fn drain(&self, since: Instant) {
        self.lines.drain(since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_event_is_a_line_with_its_time_and_name() {
        let output = Shared::default();
        let json = Json::new(Box::new(output.clone()));
        json.phase(Phase::List);
        json.event(Event::MissingObject { key: "a b".into(), size: Some(7) });
        json.warn("x\ny".into());
        drop(json);
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let mut lines = text.lines().map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            let time = line.as_object_mut().unwrap().remove("time").unwrap();
            time.as_str().unwrap().parse::<Timestamp>().unwrap();
            line
        });
        assert_eq!(lines.next().unwrap(), serde_json::json!({"event": "phase", "phase": "list"}));
        let missing = serde_json::json!({"event": "missing_object", "key": "objects/other/a%20b", "size": 7});
        assert_eq!(lines.next().unwrap(), missing);
        assert_eq!(lines.next().unwrap(), serde_json::json!({"event": "warning", "message": "x\ny"}));
        assert!(lines.next().is_none());
    }

    #[test]
    fn a_reader_that_has_gone_ends_nothing() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let json = Json::new(Box::new(Gone));
        json.warn("one".into());
        json.drain(Instant::now());
        json.warn("two".into());
        assert!(json.lines.outlet.is_over());
    }

    #[test]
    fn no_progress_comes_after_the_end() {
        let output = Shared::default();
        let json = Json::new(Box::new(output.clone()));
        let progress = json.meter.progress(Instant::now());
        json.lines.write(&Event::Progress(progress.clone()));
        json.event(Event::Error { exit_code: 1, class: "other", message: "x".into(), advice: None });
        // As the ticker does, however late it comes.
        json.lines.write(&Event::Progress(progress));
        drop(json);
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().last().unwrap().contains("\"event\":\"error\""), "{text}");
    }

    #[test]
    fn a_listing_is_read_as_slowly_as_one_likes() {
        let json = Json::new(Box::new(Shared::default()));
        assert_eq!(json.lines.lock().patience, Some(PATIENCE));
        json.event(Event::Entry {
            path: "a".into(),
            size: 1,
            state: pacharc_format::State::Live,
            key: None,
            hash: None,
            metadata: pacharc_format::Metadata::default(),
        });
        assert_eq!(json.lines.lock().patience, None);
    }
}
