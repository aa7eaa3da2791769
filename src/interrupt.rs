//! SIGINT and SIGTERM: the first one asks the job to end cleanly, the second one ends the process at once.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Class, Explain};

/// The signal that ended a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// Ctrl-C.
    #[error("interrupted (SIGINT)")]
    Sigint,
    /// What `kill` and Kubernetes send.
    #[error("terminated (SIGTERM)")]
    Sigterm,
}

impl Explain for Interrupted {
    fn class(&self) -> Class {
        match self {
            Self::Sigint => Class::Interrupted,
            Self::Sigterm => Class::Terminated,
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
    signal: Arc<OnceLock<Interrupted>>,
}

impl Interrupt {
    /// Listens for SIGINT and SIGTERM until the process ends. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the handlers cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        let interrupt = Self::default();
        let mut sigint = signal(SignalKind::interrupt())?;
        let mut sigterm = signal(SignalKind::terminate())?;
        let listener = interrupt.clone();
        tokio::spawn(async move {
            loop {
                let received = tokio::select! {
                    _ = sigint.recv() => Interrupted::Sigint,
                    _ = sigterm.recv() => Interrupted::Sigterm,
                };
                if listener.token.is_cancelled() {
                    std::process::exit(i32::from(received.class().exit_code()));
                }
                listener.raise(received);
            }
        });
        Ok(interrupt)
    }

    /// Asks the job to end, as `signal` would.
    pub fn raise(&self, signal: Interrupted) {
        self.signal.get_or_init(|| signal);
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

    /// Runs `work` until it is done, which a signal cuts off only `patience` later: for what is short, and worse half done.
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
            tokio::time::sleep(patience).await;
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
        self.signal.get().copied().unwrap_or(Interrupted::Sigint)
    }
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
}
