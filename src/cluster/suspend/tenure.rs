//! Holding the Lease: renewed in the background, and on demand before each step that only its holder may take.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::clock::boottime;
use super::lease::{self, Store};
use crate::cluster::Cluster;

/// How often a server is asked to take a Lease back.
const RELEASES: u32 = 5;

/// Why a cluster can no longer be called quiesced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{because}")]
pub struct Lost {
    /// When it was noticed.
    pub at: Timestamp,
    /// What was noticed.
    pub because: String,
}

impl Lost {
    pub(crate) fn now(because: impl fmt::Display) -> Self {
        Self { at: Timestamp::now(), because: because.to_string() }
    }
}

/// The Lease, held. Dropping it ends the renewals; [`Tenure::release`] gives it back.
pub(super) struct Tenure {
    shared: Arc<Shared>,
    renewals: JoinHandle<()>,
}

struct Shared {
    store: Store,
    holder: String,
    duration: Duration,
    state: Mutex<State>,
    /// Cancelled when the Lease is lost.
    end: CancellationToken,
}

enum State {
    Held {
        lease: Box<Lease>,
        /// Before the last successful renewal was sent.
        renewed: Duration,
    },
    Lost(Lost),
}

/// What a renewal came to.
enum Renewal {
    Done,
    /// It may succeed later.
    Failed,
    Lost(Lost),
}

impl Tenure {
    /// Becomes the holder, as [`Store::acquire`] does, and goes on renewing.
    pub(super) async fn begin(cluster: &Cluster, holder: &str, duration: Duration, force: bool) -> Result<Self, Error> {
        let store = Store::new(cluster, lease::RUN);
        let (lease, renewed) = store.acquire(holder, duration, force).await?;
        Ok(Self::of(store, lease, holder, duration, renewed))
    }

    /// Takes a Lease that was seen to be stale, if nobody has written it since.
    pub(super) async fn take_over(
        cluster: &Cluster,
        stale: Option<&Lease>,
        holder: &str,
        duration: Duration,
    ) -> Result<Self, crate::cluster::Error> {
        let store = Store::new(cluster, lease::RUN);
        let renewed = boottime();
        let lease = match stale {
            Some(stale) => store.take(stale, holder, duration).await?,
            None => store.create(holder, duration, std::collections::BTreeMap::new()).await?,
        };
        Ok(Self::of(store, lease, holder, duration, renewed))
    }

    fn of(store: Store, lease: Lease, holder: &str, duration: Duration, renewed: Duration) -> Self {
        let shared = Arc::new(Shared {
            store,
            holder: holder.to_owned(),
            duration,
            state: Mutex::new(State::Held { lease: Box::new(lease), renewed }),
            end: CancellationToken::new(),
        });
        let renewals = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut pause = lease::interval(shared.duration);
                loop {
                    tokio::time::sleep(pause).await;
                    pause = match shared.renew().await {
                        Renewal::Done => lease::interval(shared.duration),
                        Renewal::Failed => lease::glance(shared.duration),
                        Renewal::Lost(_) => return,
                    };
                }
            }
        });
        Self { shared, renewals }
    }

    /// Renews now: proof that nobody has taken over. Tries again while the Lease may still be ours.
    pub(super) async fn demand(&self) -> Result<(), Lost> {
        loop {
            match self.shared.renew().await {
                Renewal::Done => return Ok(()),
                Renewal::Failed => tokio::time::sleep(lease::glance(self.shared.duration)).await,
                Renewal::Lost(lost) => return Err(lost),
            }
        }
    }

    /// Waits until the Lease is lost.
    pub(super) async fn lost(&self) -> Lost {
        self.shared.end.cancelled().await;
        match &*self.shared.state.lock().await {
            State::Lost(lost) => lost.clone(),
            State::Held { .. } => Lost::now("the Lease is no longer renewed"),
        }
    }

    /// Whether the Lease is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.shared.end.is_cancelled()
    }

    /// Gives the Lease back. Where the server does not take it at once, it is asked some times more; then it lapses.
    pub(super) async fn release(&self) {
        self.renewals.abort();
        let mut state = self.shared.state.lock().await;
        let mut left = RELEASES;
        while matches!(*state, State::Held { .. })
            && let Err(error) = self.shared.store.release(&self.shared.holder).await
        {
            left -= 1;
            if left == 0 || !error.is_retryable() {
                tracing::warn!("the Lease {} will lapse by itself: {}", lease::RUN, crate::failure::chain(&error));
                break;
            }
            tokio::time::sleep(lease::glance(self.shared.duration)).await;
        }
        *state = State::Lost(Lost::now("the Lease was given back"));
        self.shared.end.cancel();
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.renewals.abort();
    }
}

impl Shared {
    async fn renew(&self) -> Renewal {
        let mut state = self.state.lock().await;
        let (lease, renewed) = match &*state {
            State::Lost(lost) => return Renewal::Lost(lost.clone()),
            State::Held { lease, renewed } => (lease, *renewed),
        };
        let now = boottime();
        if now.saturating_sub(renewed) >= self.duration {
            let because = format!("the Lease could not be renewed for {} s", self.duration.as_secs());
            return self.lose(&mut state, because);
        }
        // An answer that comes later than the next renewal is due is of no use.
        let renewal = tokio::time::timeout(lease::interval(self.duration), self.store.renew(lease)).await;
        match renewal {
            Ok(Ok(lease)) => {
                *state = State::Held { lease: Box::new(lease), renewed: now };
                Renewal::Done
            }
            Ok(Err(error)) if error.is_conflict() || error.is_not_found() => {
                // Written by somebody else; or by us, where the answer did not arrive.
                match self.store.read().await {
                    Ok(Some(lease)) if lease::holder(&lease) == Some(&self.holder) => {
                        *state = State::Held { lease: Box::new(lease), renewed };
                        Renewal::Failed
                    }
                    Ok(Some(lease)) => {
                        let by = lease::holder(&lease).unwrap_or("somebody");
                        let because = format!("{by} took the Lease over");
                        self.lose(&mut state, because)
                    }
                    Ok(None) => self.lose(&mut state, "somebody deleted the Lease".to_owned()),
                    Err(_) => Renewal::Failed,
                }
            }
            Ok(Err(error)) => {
                tracing::info!("the Lease was not renewed: {}", crate::failure::chain(&error));
                Renewal::Failed
            }
            Err(_) => Renewal::Failed,
        }
    }

    fn lose(&self, state: &mut State, because: String) -> Renewal {
        let lost = Lost::now(because);
        *state = State::Lost(lost.clone());
        self.end.cancel();
        Renewal::Lost(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::super::faulty::{self, Answer, FaultyServer, Request};
    use super::*;

    /// Of a Lease that is waited for until it lapses.
    const SHORT: Duration = Duration::from_secs(1);
    /// Of one that must not lapse, however slow the machine is.
    const LONG: Duration = Duration::from_secs(30);

    /// A Lease of `me`, whose renewals are answered so; `read` is who has it, as the server says afterwards.
    async fn held(
        duration: Duration,
        renewal: impl Fn(u32) -> Answer + Send + Sync + 'static,
        read: Option<&'static str>,
    ) -> Tenure {
        let server = FaultyServer::new(move |request: &Request, seen| match request.method.as_str() {
            "POST" => Answer::Json(faulty::lease("me", 1)),
            "PUT" => renewal(seen),
            // The first look is before the Lease is made.
            _ if seen == 1 => Answer::Status(404),
            _ => read.map_or(Answer::Status(404), |holder| Answer::Json(faulty::lease(holder, 7))),
        });
        Tenure::begin(&server.cluster(), "me", duration, false).await.unwrap()
    }

    #[tokio::test]
    async fn somebody_who_took_the_lease_over_is_named() {
        let tenure = held(LONG, |_| Answer::Status(409), Some("guardian")).await;
        assert_eq!(tenure.demand().await.unwrap_err().because, "guardian took the Lease over");
        assert!(tenure.is_lost());
        // For good, and without another question.
        assert_eq!(tenure.demand().await.unwrap_err().because, "guardian took the Lease over");
        assert_eq!(tenure.lost().await.because, "guardian took the Lease over");
    }

    #[tokio::test]
    async fn a_renewal_whose_answer_was_lost_is_none_of_somebody_else() {
        let renewal = |seen| if seen == 1 { Answer::Status(409) } else { Answer::Json(faulty::lease("me", 8)) };
        let tenure = held(LONG, renewal, Some("me")).await;
        assert_eq!(tenure.demand().await.map_err(|lost| lost.because), Ok(()));
    }

    #[tokio::test]
    async fn a_lease_that_was_deleted_is_lost() {
        let tenure = held(LONG, |_| Answer::Status(404), None).await;
        assert_eq!(tenure.demand().await.unwrap_err().because, "somebody deleted the Lease");
    }

    #[tokio::test]
    async fn a_server_in_trouble_is_asked_again_until_the_lease_may_have_lapsed() {
        for trouble in [Answer::Status(500), Answer::Status(429), Answer::Cut] {
            let again = trouble.clone();
            let brief = move |seen| if seen < 3 { again.clone() } else { Answer::Json(faulty::lease("me", 8)) };
            let tenure = held(LONG, brief, Some("me")).await;
            assert_eq!(tenure.demand().await.map_err(|lost| lost.because), Ok(()), "{trouble:?}");
            let (long, begun) = (trouble.clone(), boottime());
            let tenure = held(SHORT, move |_| long.clone(), Some("me")).await;
            let lost = tenure.demand().await.unwrap_err();
            assert_eq!(lost.because, "the Lease could not be renewed for 1 s", "{trouble:?}");
            assert!(boottime().saturating_sub(begun) >= SHORT, "given up too early");
        }
    }

    #[tokio::test]
    async fn a_server_in_trouble_is_asked_again_to_take_the_lease_back() {
        let removed = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = Arc::clone(&removed);
        let server = FaultyServer::new(move |request: &Request, seen| match request.method.as_str() {
            "POST" => Answer::Json(faulty::lease("me", 1)),
            "DELETE" => {
                count.store(seen, std::sync::atomic::Ordering::Relaxed);
                if seen < 3 { Answer::Status(500) } else { Answer::Json(faulty::lease("me", 1)) }
            }
            _ if seen == 1 => Answer::Status(404),
            _ => Answer::Json(faulty::lease("me", 1)),
        });
        Tenure::begin(&server.cluster(), "me", LONG, false).await.unwrap().release().await;
        assert_eq!(removed.load(std::sync::atomic::Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_none() {
        let tenure = held(SHORT, |_| Answer::Never, Some("me")).await;
        assert_eq!(tenure.demand().await.unwrap_err().because, "the Lease could not be renewed for 1 s");
    }
}
