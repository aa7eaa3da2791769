//! One JSON object a line, for programs: `docs/json.md`.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::ticker::Ticker;
use super::{Counter, Event, Meter, Monitor, Phase, Relayed};

/// Between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(1);

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

struct Lines(Mutex<Output>);

struct Output {
    /// `None` once a line could not be written.
    writer: Option<Box<dyn Write + Send>>,
    /// Whether the run's end was told: no progress comes after it.
    ended: bool,
}

impl Lines {
    /// Writes a line at once. The first that cannot be written is the last: a reader that has gone must not end a backup.
    fn write(&self, event: &Event) {
        let mut output = self.lock();
        if output.ended && matches!(event, Event::Progress(_)) {
            return;
        }
        output.ended |= matches!(event, Event::Finished { .. } | Event::Error { .. });
        let time = Timestamp::now().round(jiff::Unit::Millisecond).unwrap_or_default().to_string();
        if let Ok(line) = serde_json::to_vec(&Line { time, event }) {
            output.write(line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output {
    fn write(&mut self, mut line: Vec<u8>) {
        line.push(b'\n');
        let written = self.writer.as_mut().map(|writer| writer.write_all(&line).and_then(|()| writer.flush()));
        if let Some(Err(error)) = written {
            tracing::warn!("no more JSON events: {error}");
            self.writer = None;
        }
    }
}

impl Json {
    /// Writes to `output`, flushing each line.
    #[must_use]
    pub fn new(output: Box<dyn Write + Send>) -> Self {
        let lines = Arc::new(Lines(Mutex::new(Output { writer: Some(output), ended: false })));
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
            self.lines.lock().write(event.as_bytes().to_vec());
        }
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
        json.warn("two".into());
        assert!(json.lines.lock().writer.is_none());
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
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().last().unwrap().contains("\"event\":\"error\""), "{text}");
    }
}
