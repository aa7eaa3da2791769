//! SIGINT, SIGTERM and SIGHUP: the first one asks the job to end cleanly, the second one ends the process at once.

use std::future::Future;
use std::io::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cluster::suspend;
use crate::failure::{Class, Explain};
use crate::farewell;
use crate::visible::visible;

/// How long a process that ends at once waits for what it says.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The signal that ended a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// Ctrl-C.
    #[error("interrupted (SIGINT)")]
    Sigint,
    /// What `kill` and Kubernetes send.
    #[error("terminated (SIGTERM)")]
    Sigterm,
    /// What a terminal sends that closes, or an ssh session that is lost.
    #[error("the terminal was closed (SIGHUP)")]
    Sighup,
}

impl Explain for Interrupted {
    fn class(&self) -> Class {
        match self {
            Self::Sigint => Class::Interrupted,
            Self::Sigterm | Self::Sighup => Class::Terminated,
        }
    }

    fn advice(&self) -> Option<String> {
        None
    }
}

/// Whether the job should end; cheap to clone, one for each task.
///
/// A job that sees it drops what is half made (temporary files, multipart uploads, children), and returns
/// [`Interrupted`] as its error.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    token: CancellationToken,
    /// The first signal, and when it came.
    signal: Arc<OnceLock<(Interrupted, Instant)>>,
}

impl Interrupt {
    /// Listens for the signals until the process ends; for SIGHUP not where `nohup` has it ignored. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the handlers cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        let interrupt = Self::default();
        let mut sigint = signal(SignalKind::interrupt())?;
        let mut sigterm = signal(SignalKind::terminate())?;
        let mut sighup = if ignores_sighup() { None } else { Some(signal(SignalKind::hangup())?) };
        // Where a file may not grow any more (`ulimit -f`), the write is to fail, and not the process to end without a word.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        let listener = interrupt.clone();
        tokio::spawn(async move {
            loop {
                let received = tokio::select! {
                    _ = sigint.recv() => Interrupted::Sigint,
                    _ = sigterm.recv() => Interrupted::Sigterm,
                    () = heard(&mut sighup) => Interrupted::Sighup,
                };
                if listener.token.is_cancelled() {
                    std::process::exit(i32::from(at_once(received).exit_code()));
                }
                listener.raise(received);
            }
        });
        Ok(interrupt)
    }

    /// Asks the job to end, as `signal` would.
    pub fn raise(&self, signal: Interrupted) {
        self.signal.get_or_init(|| (signal, Instant::now()));
        self.token.cancel();
    }

    /// The signal, once there was one: for loops that do not wait.
    ///
    /// # Errors
    /// [`Interrupted`], after a signal.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.token.is_cancelled() { Err(self.received()) } else { Ok(()) }
    }

    /// Waits for the signal.
    pub async fn wait(&self) -> Interrupted {
        self.token.cancelled().await;
        self.received()
    }

    /// Runs `work` until it is done or a signal comes; in that case `work` is dropped where it stands.
    ///
    /// # Errors
    /// What `work` returns, or [`Interrupted`].
    pub async fn guard<T, E: From<Interrupted>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        tokio::select! {
            biased;
            signal = self.wait() => Err(signal.into()),
            done = work => done,
        }
    }

    /// What is left of `patience`, which runs out from the signal on; all of it, where there was none.
    #[must_use]
    pub fn left(&self, patience: Duration) -> Duration {
        self.signal.get().map_or(patience, |(_, came)| patience.saturating_sub(came.elapsed()))
    }

    /// Runs `work` until it is done, or `patience` has passed since a signal: for what is worse half done.
    ///
    /// # Errors
    /// What `work` returns, or [`Interrupted`].
    pub async fn finish<T, E: From<Interrupted>>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let limit = async {
            let signal = self.wait().await;
            tokio::time::sleep(self.left(patience)).await;
            signal
        };
        tokio::select! {
            biased;
            done = work => done,
            signal = limit => Err(signal.into()),
        }
    }

    /// The bare token, for what takes one.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    fn received(&self) -> Interrupted {
        // The signal is set before the token; a token that someone else cancelled counts as Ctrl-C.
        self.signal.get().map_or(Interrupted::Sigint, |(signal, _)| *signal)
    }
}

/// Waits for a signal; for ever where it is not listened for.
async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether whoever started this process wants it to outlive its terminal. Where that is not known, the signal is left to the
/// system, as `nohup` has set it.
fn ignores_sighup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // SIGHUP is signal 1: the lowest bit.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & 1 == 1)
}

/// What a process ends with whose user does not wait; a cluster that it leaves down is told all the same.
fn at_once(received: Interrupted) -> Class {
    let Some(command) = farewell::owed() else { return received.class() };
    say(format!(
        "pacharc: error: {received} twice: the cluster is not yet back as it was\nhint: Bring it back, from any \
         machine:\n{}",
        visible(&suspend::from_anywhere(&command))
    ));
    received.class().graver(Class::Suspended)
}

/// Writes to standard error. It may be closed, or stuck, with somebody before us who waits for it: the exit code says the same.
fn say(text: String) {
    let (sender, said) = std::sync::mpsc::channel();
    // Without a thread, the sender is dropped at once.
    let _ = std::thread::Builder::new().spawn(move || {
        let _ = writeln!(std::io::stderr(), "{text}");
        let _ = sender.send(());
    });
    let _ = said.recv_timeout(LAST_WORDS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_real_signal_is_heard() {
        let interrupt = Interrupt::listen().unwrap();
        let pid = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(interrupt.wait().await, Interrupted::Sigterm);
    }

    #[tokio::test]
    async fn the_first_signal_counts() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.check(), Ok(()));
        let job = interrupt.clone();
        let job = tokio::spawn(async move { job.guard(std::future::pending::<Result<(), Interrupted>>()).await });
        interrupt.raise(Interrupted::Sigterm);
        interrupt.raise(Interrupted::Sigint);
        assert_eq!(job.await.unwrap(), Err(Interrupted::Sigterm));
        assert_eq!(interrupt.check(), Err(Interrupted::Sigterm));
        assert_eq!(interrupt.wait().await.class().exit_code(), 143);
    }

    #[tokio::test]
    async fn what_must_not_be_half_done_is_finished() {
        let interrupt = Interrupt::default();
        interrupt.raise(Interrupted::Sigint);
        let short = async {
            tokio::task::yield_now().await;
            Ok::<_, Interrupted>(7)
        };
        assert_eq!(interrupt.finish(Duration::from_secs(60), short).await, Ok(7));
        let endless = interrupt.finish(Duration::from_millis(5), std::future::pending::<Result<(), Interrupted>>());
        assert_eq!(endless.await, Err(Interrupted::Sigint));
    }

    #[tokio::test]
    async fn patience_runs_out_from_the_signal_on() {
        let (interrupt, patience) = (Interrupt::default(), Duration::from_secs(600));
        assert_eq!(interrupt.left(patience), patience);
        interrupt.raise(Interrupted::Sigterm);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(interrupt.left(patience) <= patience - Duration::from_millis(20));
        // It was over before this began.
        let late = interrupt.finish(Duration::from_millis(20), std::future::pending::<Result<(), Interrupted>>());
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), late).await, Ok(Err(Interrupted::Sigterm)));
        assert_eq!(interrupt.left(Duration::from_millis(20)), Duration::ZERO);
    }
}
