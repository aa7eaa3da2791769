//! Progress for people, on standard error: a live line on a terminal, plain lines elsewhere.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::outlet::{Outlet, PATIENCE};
use super::ticker::Ticker;
use super::{Counter, Event, Meter, Monitor, Phase, Progress, Relayed};
use crate::visible::one_line;

/// Between two drawings of the live line.
const INTERVAL: Duration = Duration::from_millis(200);

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A live line, phases, warnings: for a terminal.
    Live,
    /// Begin, end, warnings: for a log.
    Plain,
    /// Phases as lines of their own, too (`-v`).
    Verbose,
    /// Warnings about the data alone (`--quiet`).
    Quiet,
}

/// Writes to standard error, on a thread of its own: a terminal that was stopped, or an ssh session that hangs, stops nothing.
/// Dropped, it waits until everything is written, as long as somebody reads it.
pub struct Terminal {
    style: Style,
    meter: Arc<Meter>,
    screen: Arc<Screen>,
    ticker: Mutex<Option<Ticker>>,
    named: Mutex<u64>,
}

/// Missing, rotten and damaged things that are named one by one; what comes after them is counted (`--json` names all).
const NAMED: u64 = 100;

/// Standard error, with the live line at its end.
struct Screen(Outlet<Shown>);

/// What comes onto it.
enum Shown {
    /// Above the live line, as it is.
    Text(Vec<u8>),
    /// As the live line.
    Live(String),
    /// Instead of the live line.
    Nothing,
}

impl Screen {
    /// Opens it, with a live line only where standard error is a terminal.
    fn open(is_live: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if is_live {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.set_style(line());
        }
        let outlet = Outlet::start("terminal", move |shown: Shown, _| {
            match shown {
                // What standard error does not take is lost: there is nowhere to say so.
                Shown::Text(text) => bar.suspend(|| {
                    let _ = io::stderr().lock().write_all(&text);
                }),
                Shown::Live(text) => bar.set_message(text),
                Shown::Nothing => bar.finish_and_clear(),
            }
            Ok(())
        });
        Self(outlet)
    }

    /// Writes text above the live line. What finds no room within [`PATIENCE`] is left out: when somebody reads again, what
    /// comes then is shown.
    fn text(&self, text: Vec<u8>) {
        let size = text.len();
        self.0.push(Shown::Text(text), size, Some(PATIENCE));
    }

    fn live(&self, text: String) {
        let size = text.len();
        self.0.offer(Shown::Live(text), size);
    }

    fn clear(&self) {
        self.0.push(Shown::Nothing, 0, Some(PATIENCE));
    }

    fn drain(&self, since: Instant) {
        self.0.drain(Some(PATIENCE), since);
    }
}

/// Takes what the program logs, and writes it where a [`Terminal`] writes.
#[derive(Clone)]
pub struct Log(Arc<Screen>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.text(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Terminal {
    /// A monitor in `style`. Live only where standard error is a terminal.
    #[must_use]
    pub fn new(style: Style) -> Self {
        let meter = Arc::new(Meter::default());
        let screen = Arc::new(Screen::open(style == Style::Live));
        let ticker = (style == Style::Live).then(|| {
            let (meter, screen) = (Arc::clone(&meter), Arc::clone(&screen));
            Ticker::start(INTERVAL, move || {
                let progress = meter.progress(Instant::now());
                if progress.phase.is_some() {
                    screen.live(describe(&progress));
                }
            })
        });
        Self { style, meter, screen, ticker: Mutex::new(ticker), named: Mutex::default() }
    }

    /// Where the program's own log goes to.
    #[must_use]
    pub fn log(&self) -> Log {
        Log(Arc::clone(&self.screen))
    }

    /// Writes `text` as it is, and a line break.
    pub fn print(&self, text: &str) {
        self.screen.text(format!("{text}\n").into_bytes());
    }

    /// Writes a line above the live one.
    fn line(&self, line: &str) {
        self.print(&one_line(line));
    }

    /// Writes the line for one of possibly very many things.
    fn name(&self, line: &str) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        *named += 1;
        if *named <= NAMED {
            self.line(line);
        }
    }

    fn finish(&self) {
        drop(self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.screen.clear();
        let named = *self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named > NAMED {
            self.line(&format!("… and {} more; --json-file names all of them", HumanCount(named - NAMED)));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.screen.clear();
        self.screen.drain(Instant::now());
    }
}

impl Monitor for Terminal {
    fn phase(&self, phase: Phase) {
        self.meter.phase(phase);
        if self.style == Style::Verbose {
            self.line(phase.label());
        }
    }

    fn total(&self, counter: Counter, total: u64) {
        self.meter.total(counter, total);
    }

    fn add(&self, counter: Counter, amount: u64) {
        self.meter.add(counter, amount);
    }

    fn event(&self, event: Event) {
        let quiet = self.style == Style::Quiet;
        match event {
            Event::Started { command, version } if !quiet => self.line(&format!("pacharc {version}: {command}")),
            Event::Warning { message } => self.line(&format!("pacharc: warning: {message}")),
            Event::Hint { message } if !quiet => self.line(&format!("hint: {message}")),
            Event::MissingObject { key, .. } => self.name(&format!("missing: {key}")),
            Event::RottenObject { key, .. } => self.name(&format!("rotten: {key}")),
            Event::ArchivedObject { key } => self.name(&format!("archived, must be thawed: {key}")),
            Event::Damage { path, problem } => self.name(&format!("damaged: {path}: {problem}")),
            Event::AttemptFailed { attempt, attempts, reason } if !quiet => {
                self.line(&format!("attempt {attempt} of {attempts} failed, trying again: {reason}"));
            }
            Event::Step { step } if !quiet => self.line(step.label()),
            Event::Scaled { kind, name, from, to } if !quiet => self.line(&format!("{kind} {name}: {from} to {to}")),
            Event::Waiting { count, pods } if !quiet => {
                let more = if count > pods.len() { ", …" } else { "" };
                self.line(&format!("still {count} pods: {}{more}", pods.join(", ")));
            }
            // Whoever is quiet has asked for it nevertheless.
            Event::Stats(spent) => self.line(&format!("stats: {spent}")),
            Event::Finished { .. } | Event::Error { .. } => self.finish(),
            _ => {}
        }
    }

    fn relay(&self, line: Relayed<'_>) {
        match line {
            // How much it is was settled where it comes from.
            Relayed::Text(text) => self.line(text),
            Relayed::Event(event) if self.style == Style::Live => {
                let progress = Progress::of_event(event);
                progress.iter().for_each(|progress| self.screen.live(describe(progress)));
            }
            Relayed::Event(_) => {}
        }
    }

    fn drain(&self, since: Instant) {
        self.screen.drain(since);
    }
}

fn line() -> ProgressStyle {
    ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// `copying objects  30%  1.20 GiB of 4.00 GiB  210.00 MiB/s  2m 10s to go  1,234 of 5,678 objects`: what matters most
/// comes first, since a narrow terminal cuts the end.
fn describe(progress: &Progress) -> String {
    let mut parts = Vec::with_capacity(6);
    parts.extend(progress.phase.map(|phase| phase.label().to_owned()));
    if matches!(progress.phase, Some(Phase::Suspend | Phase::Resume | Phase::Guard)) {
        // Nothing is copied: the lines above tell the steps.
        return parts.join("  ");
    }
    let work = progress.work(true);
    match work.total {
        Some(total) if total > 0 => {
            parts.push(format!("{}%", u128::from(work.done) * 100 / u128::from(total)));
            parts.push(format!("{} of {}", BinaryBytes(work.done), BinaryBytes(total)));
        }
        _ => parts.push(BinaryBytes(work.done).to_string()),
    }
    parts.push(format!("{}/s", BinaryBytes(progress.bytes_per_second)));
    parts.push(match progress.eta_seconds {
        Some(seconds) => format!("{} to go", duration(seconds)),
        None => "…".to_owned(),
    });
    let things = [(Counter::Objects, "objects"), (Counter::Entries, "entries"), (Counter::ProvedObjects, "proved")];
    for (counter, noun) in things {
        let amount = progress.amount(counter);
        match (amount.done, amount.total) {
            (0, None) => {}
            (done, Some(total)) if done <= total => {
                parts.push(format!("{} of {} {noun}", HumanCount(done), HumanCount(total)));
            }
            // No total, or one that was too low.
            (done, _) => parts.push(format!("{} {noun}", HumanCount(done))),
        }
    }
    parts.join("  ")
}

/// Two units at most: `3d 4h`, `2m 10s`, `5s`.
fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Amount;
    use super::*;

    #[test]
    fn a_line_says_what_is_known_and_no_more() {
        let mut progress = Progress { phase: Some(Phase::Copy), ..Progress::default() };
        progress.object_bytes = Amount { done: 3 << 29, total: None };
        assert_eq!(describe(&progress), "copying objects  1.50 GiB  0 B/s  …");
        progress.object_bytes.total = Some(3 << 30);
        progress.objects = Amount { done: 1234, total: Some(5678) };
        progress.bytes_per_second = 200 << 20;
        progress.eta_seconds = Some(130);
        assert_eq!(
            describe(&progress),
            "copying objects  50%  1.50 GiB of 3.00 GiB  200.00 MiB/s  2m 10s to go  1,234 of 5,678 objects"
        );
        // It is more than was thought.
        progress.object_bytes.done = 4 << 30;
        progress.objects.done = 9999;
        progress.eta_seconds = None;
        assert_eq!(describe(&progress), "copying objects  4.00 GiB  200.00 MiB/s  …  9,999 objects");
    }

    #[test]
    fn a_run_elsewhere_tells_as_much() {
        let objects = Amount { done: 1234, total: Some(5678) };
        let progress = Progress { phase: Some(Phase::Copy), objects, bytes_per_second: 7, ..Progress::default() };
        let event = serde_json::to_string(&Event::Progress(progress.clone())).unwrap();
        assert_eq!(Progress::of_event(&event), Some(progress));
        let other = serde_json::to_string(&Event::Phase { phase: Phase::Copy }).unwrap();
        assert_eq!(Progress::of_event(&other), None);
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let cases = [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3_700, "1h 1m"), (90_000, "1d 1h")];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }
}
