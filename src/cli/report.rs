//! How a command reports: to people on standard error, to programs as JSON lines, and at the end by its exit code.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;

use super::exit::{Failure, exit_code};
use super::{stdout, usage};
use crate::cluster::suspend;
use crate::evidence::{Evidence, Failed, Keeper, Notes};
use crate::failure::{Class, Explain};
use crate::farewell;
use crate::interrupt::Interrupt;
use crate::monitor::{All, Event, Json, Log, Monitor, Stats, Style, Terminal};
use crate::outcome::Outcome;
use crate::visible::visible;

/// How long a process that ends waits for what must still be taken back.
const FAREWELL: Duration = Duration::from_secs(25);

/// Threads for what blocks: files, and the work of processors. Each has its own stack and its own share of the allocator, so
/// that hundreds, as tokio would have, take more memory than the data. The most that wait for each other are a few.
const BLOCKING_THREADS: usize = 32;

#[derive(Args, Debug)]
#[command(next_help_heading = "Reports")]
pub(super) struct ReportArgs {
    /// Write events as JSON lines to standard output (to standard error when the product goes to standard output)
    #[arg(long)]
    json: bool,
    /// Write events as JSON lines to FILE
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
    /// Tell people nothing but warnings and errors
    #[arg(long, short)]
    quiet: bool,
    /// Tell more; twice for details, three times for everything
    #[arg(long, short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Tell at the end where the time went: waiting for bucket, databases or bundle, or on processors
    #[arg(long)]
    stats: bool,
    /// Take settings from FILE (TOML): long names of flags, without dashes in front
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ReportArgs {
    /// The flags by which a run elsewhere tells all that this one passes on.
    pub(super) fn elsewhere(&self) -> Vec<String> {
        let mut flags = vec!["--json".to_owned()];
        flags.extend(self.quiet.then(|| "--quiet".to_owned()));
        flags.extend(self.stats.then(|| "--stats".to_owned()));
        flags.extend((0..self.verbose).map(|_| "--verbose".to_owned()));
        flags
    }
}

/// One command's reporting.
pub(super) struct Report {
    command: &'static str,
    monitor: Arc<All>,
    stats: Option<Arc<Stats>>,
    /// What plain text goes to, where it may go to standard error.
    people: Option<Arc<Terminal>>,
    quiet: bool,
    /// Whether standard output carries events instead of the product.
    json_on_stdout: bool,
    started: Instant,
}

impl Report {
    pub(super) fn open(command: &'static str, args: &ReportArgs, stdout_is_taken: bool) -> Result<Self, Failure> {
        if args.quiet && args.verbose > 0 {
            return Err(usage::Error::Conflict { one: "--quiet", other: "--verbose" }.into());
        }
        let json_on_stderr = args.json && stdout_is_taken;
        let mut monitor = All::default();
        let people = (!json_on_stderr).then(|| Arc::new(Terminal::new(style(args))));
        if let Some(terminal) = &people {
            log_to(terminal.log(), args.verbose);
            monitor.0.push(Box::new(Arc::clone(terminal)));
        }
        if args.json {
            let output: Box<dyn std::io::Write + Send> =
                if json_on_stderr { Box::new(std::io::stderr()) } else { Box::new(std::io::stdout()) };
            monitor.0.push(Box::new(Json::new(output)));
        }
        if let Some(path) = &args.json_file {
            let file = File::create(path).map_err(|source| usage::Error::JsonFile { path: path.clone(), source })?;
            monitor.0.push(Box::new(Json::new(Box::new(file))));
        }
        let stats = args.stats.then(|| Arc::new(Stats::default()));
        monitor.0.extend(stats.clone().map(|stats| Box::new(stats) as Box<dyn Monitor>));
        Ok(Self {
            command,
            monitor: Arc::new(monitor),
            stats,
            people,
            quiet: args.quiet,
            json_on_stdout: args.json && !json_on_stderr,
            started: Instant::now(),
        })
    }

    /// Whether standard output carries events.
    pub(super) fn has_events_on_stdout(&self) -> bool {
        self.json_on_stdout
    }

    /// Runs `job` to its end, with signals handled, and tells what came of it.
    pub(super) fn run<O: Outcome>(
        &self,
        job: impl AsyncFnOnce(&Interrupt, Arc<dyn Monitor>) -> Result<O, Failure>,
    ) -> Result<ExitCode, Failure> {
        self.start();
        let outcome = self.drive(job, Arc::clone(&self.monitor) as Arc<dyn Monitor>)?;
        self.finish(&outcome)
    }

    /// Runs a job that passes on what a run elsewhere tells, its beginning and its end, too; its exit code is returned.
    pub(super) fn follow(
        &self,
        job: impl AsyncFnOnce(&Interrupt, Arc<dyn Monitor>) -> Result<u8, Failure>,
    ) -> Result<ExitCode, Failure> {
        self.drive(job, Arc::clone(&self.monitor) as Arc<dyn Monitor>).map(ExitCode::from)
    }

    fn start(&self) {
        let version = env!("CARGO_PKG_VERSION").into();
        self.monitor.event(Event::Started { command: self.command.into(), version });
    }

    /// The same, and keeps evidence of it where that is wanted.
    pub(super) fn run_kept<O: Outcome>(
        &self,
        keeper: Option<&Keeper>,
        job: impl AsyncFnOnce(&Interrupt, Arc<dyn Monitor>) -> Result<O, Failure>,
    ) -> Result<ExitCode, Failure> {
        let Some(keeper) = keeper else { return self.run(job) };
        let began = Timestamp::now();
        let notes = Arc::new(Notes::new(Arc::clone(&self.monitor) as Arc<dyn Monitor>));
        self.start();
        let outcome = self.drive(job, Arc::clone(&notes) as Arc<dyn Monitor>);
        let evidence = match &outcome {
            Ok(outcome) => {
                let class = outcome.class();
                let good = if self.command == "verify" { "sound" } else { "done" };
                let code = class.map_or(0, Class::exit_code);
                Evidence {
                    summary: outcome.summary(),
                    contents: outcome.contents().cloned(),
                    outcome: Some(serde_json::to_value(outcome).map_err(Unspeakable)?),
                    ..Evidence::new(self.command, began, class.map_or(good, Class::name), code)
                }
            }
            Err(failure) => {
                let class = failure.class();
                let (message, advice) = (failure.message(), failure.advice());
                let failed = Failed { class: class.name().to_owned(), message: message.clone(), advice };
                Evidence {
                    summary: message,
                    failure: Some(failed),
                    ..Evidence::new(self.command, began, class.name(), class.exit_code())
                }
            }
        };
        let kept = keeper.keep(&Evidence { warnings: notes.warnings(), ..evidence });
        match (outcome, kept) {
            (Ok(outcome), Ok(())) => self.finish(&outcome),
            (Ok(outcome), Err(lost)) => {
                // What was done is done, and said; that there is no evidence of it is the exit code, unless there is worse.
                self.finish(&outcome)?;
                match outcome.class().filter(|class| class.graver(lost.class()) == *class) {
                    Some(class) => {
                        self.monitor.warn(crate::failure::chain(&lost));
                        Ok(exit_code(class))
                    }
                    None => Err(lost.into()),
                }
            }
            (Err(failure), Ok(())) => Err(failure),
            (Err(failure), Err(lost)) => {
                self.monitor.warn(crate::failure::chain(&lost));
                Err(failure)
            }
        }
    }

    /// Runs `job` to its end, with signals handled.
    fn drive<T>(
        &self,
        job: impl AsyncFnOnce(&Interrupt, Arc<dyn Monitor>) -> Result<T, Failure>,
        monitor: Arc<dyn Monitor>,
    ) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()
            .map_err(NoRuntime)?;
        let outcome = runtime.block_on(async {
            let interrupt = Interrupt::listen().map_err(NoRuntime)?;
            let outcome = job(&interrupt, monitor).await;
            let is_owed = farewell::owed().is_some();
            // The job may have waited for it since the signal.
            let patience = if is_owed { interrupt.left(farewell::RETURN) } else { FAREWELL };
            if !farewell::finish(patience).await && !is_owed {
                self.monitor.warn(
                    "what is unfinished may be left, parts of uploads or databases under temporary names: a server did not \
                     answer"
                        .into(),
                );
            }
            match (outcome, farewell::owed()) {
                (Err(failure), Some(_)) if failure.class() == Class::Suspended => Err(failure),
                (outcome, Some(command)) => {
                    if let Err(failure) = outcome {
                        self.monitor.warn(failure.message());
                    }
                    Err(LeftSuspended { command }.into())
                }
                (outcome, None) => {
                    // Here, a signal still ends the process that waits for its reader.
                    self.monitor.drain(Instant::now());
                    outcome
                }
            }
        });
        // A thread that still waits for standard input must not keep the process.
        runtime.shutdown_timeout(Duration::from_millis(100));
        outcome
    }

    fn finish(&self, outcome: &impl Outcome) -> Result<ExitCode, Failure> {
        if let Some(product) = outcome.product().filter(|_| !self.json_on_stdout) {
            // In a terminal, it comes after what was told before.
            self.monitor.drain(Instant::now());
            stdout::print(&visible(&product))?;
        }
        let class = outcome.class();
        self.tell_stats();
        self.monitor.event(Event::Finished {
            command: self.command.into(),
            exit_code: class.map_or(0, Class::exit_code),
            seconds: self.started.elapsed().as_secs_f64(),
            outcome: serde_json::to_value(outcome).map_err(Unspeakable)?,
        });
        let summary = outcome.summary();
        if let Some(people) = &self.people
            && !summary.is_empty()
            && (!self.quiet || class.is_some())
        {
            people.print(&visible(summary.trim_end()));
        }
        Ok(class.map_or(ExitCode::SUCCESS, exit_code))
    }

    /// Where the time went, also of a run that failed.
    fn tell_stats(&self) {
        let Some(spent) = self.stats.as_ref().map(|stats| stats.spent()) else { return };
        self.monitor.event(Event::Stats(spent));
    }

    /// Tells a failure, to people and programs.
    pub(super) fn fail(&self, failure: &Failure) -> ExitCode {
        self.tell_stats();
        self.monitor.event(error_event(failure));
        if let Some(people) = &self.people {
            people.print(&failure.lines());
        }
        exit_code(failure.class())
    }
}

/// All that was told is written before the process ends, if somebody reads it.
impl Drop for Report {
    fn drop(&mut self) {
        self.monitor.drain(Instant::now());
    }
}

/// Writes a failure as an event to standard output, where there is no [`Report`] yet.
pub(super) fn print_error(failure: &Failure) {
    Json::new(Box::new(std::io::stdout())).event(error_event(failure));
}

fn error_event(failure: &Failure) -> Event {
    Event::Error {
        exit_code: failure.class().exit_code(),
        class: failure.class().name(),
        message: failure.message(),
        advice: failure.advice(),
    }
}

fn style(args: &ReportArgs) -> Style {
    match (args.quiet, args.verbose) {
        (true, _) => Style::Quiet,
        (false, 0) if std::io::stderr().is_terminal() => Style::Live,
        (false, 0) => Style::Plain,
        (false, _) => Style::Verbose,
    }
}

/// What the program itself logs; libraries stay silent, since they may log headers and addresses with secrets.
fn log_to(log: Log, verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::new(format!("pacharc={level},pacharc_format={level}"));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || log.clone()).with_target(verbose > 1);
    // Only a test that runs two commands in one process has a logger already.
    let _ = subscriber.try_init();
}

#[derive(Debug, thiserror::Error)]
#[error("the cluster is not yet back as it was")]
struct LeftSuspended {
    command: String,
}

impl Explain for LeftSuspended {
    fn class(&self) -> Class {
        Class::Suspended
    }

    fn advice(&self) -> Option<String> {
        Some(format!("Bring it back, from any machine:\n{}", suspend::from_anywhere(&self.command)))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot start")]
struct NoRuntime(#[source] std::io::Error);

impl Explain for NoRuntime {
    fn class(&self) -> Class {
        Class::Other
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot put the outcome into JSON")]
struct Unspeakable(#[source] serde_json::Error);

impl Explain for Unspeakable {
    fn class(&self) -> Class {
        Class::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Contents;

    #[derive(serde::Serialize)]
    struct Found {
        #[serde(skip)]
        class: Option<Class>,
    }

    impl Outcome for Found {
        fn class(&self) -> Option<Class> {
            self.class
        }

        fn summary(&self) -> String {
            String::new()
        }

        fn contents(&self) -> Option<&Contents> {
            None
        }
    }

    #[test]
    fn evidence_that_is_lost_hides_nothing_graver() {
        let end = |class| {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().join("reports");
            std::fs::create_dir(&place).unwrap();
            let keeper = Keeper::new(&place.join("r.json"), None).unwrap();
            let args = ReportArgs { json: false, json_file: None, quiet: true, verbose: 0, stats: false, config: None };
            let report = Report::open("verify", &args, false).unwrap();
            let job = async |_: &Interrupt, _: Arc<dyn Monitor>| {
                std::fs::remove_dir_all(&place).unwrap();
                Ok(Found { class })
            };
            report.run_kept(Some(&keeper), job).map_err(|failure| failure.class())
        };
        assert_eq!(end(Some(Class::Damaged)), Ok(exit_code(Class::Damaged)));
        assert_eq!(end(None), Err(Class::Other));
    }
}
