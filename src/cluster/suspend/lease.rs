//! The Leases: `pacharc`, whose holder alone may scale, and `pacharc-guardian`, by which a guardian shows that it lives.
//!
//! Nobody compares the time in a Lease with a clock of his own. Who waits for a holder to be gone watches the Lease's
//! version: unchanged for the lease's duration on the waiter's own clock, it is stale, and may be taken by
//! compare-and-swap. The holder counts from before its last successful renewal, so it gives up before anybody takes over.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};

use super::Error;
use super::clock::{Stillness, boottime};
use crate::cluster::{self, Cluster};

/// Whose holder alone may scale.
pub const RUN: &str = "pacharc";

/// Which the guardian renews, to show that it lives.
pub const GUARDIAN: &str = "pacharc-guardian";

/// How long a Lease lives without being renewed, where nothing else is said.
pub const DURATION: Duration = Duration::from_secs(60);

/// Renewals in a Lease's duration.
const RENEWALS: u32 = 4;

/// Between two renewals.
pub(super) fn interval(duration: Duration) -> Duration {
    duration / RENEWALS
}

/// Between two looks at another's Lease.
pub(super) fn glance(duration: Duration) -> Duration {
    (duration / 30).min(Duration::from_secs(2))
}

/// One of the Leases of a namespace.
#[derive(Clone, Debug)]
pub(super) struct Store {
    cluster: Cluster,
    name: &'static str,
}

impl Store {
    pub(super) fn new(cluster: &Cluster, name: &'static str) -> Self {
        Self { cluster: cluster.clone(), name }
    }

    pub(super) async fn read(&self) -> Result<Option<Lease>, cluster::Error> {
        let api = self.cluster.api::<Lease>();
        self.cluster.call(format!("reading Lease {}", self.name), api.get_opt(self.name)).await
    }

    /// Makes the Lease, for `holder`.
    pub(super) async fn create(
        &self,
        holder: &str,
        duration: Duration,
        annotations: BTreeMap<String, String>,
    ) -> Result<Lease, cluster::Error> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.to_owned()),
                namespace: Some(self.cluster.namespace().to_owned()),
                annotations: (!annotations.is_empty()).then_some(annotations),
                labels: Some([("app.kubernetes.io/managed-by".to_owned(), "pacharc".to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(spec(holder, duration, 0)),
        };
        let api = self.cluster.api::<Lease>();
        self.cluster.call(format!("making Lease {}", self.name), api.create(&PostParams::default(), &lease)).await
    }

    /// Writes a Lease that was read, if nobody has written it since.
    pub(super) async fn replace(&self, lease: &Lease) -> Result<Lease, cluster::Error> {
        let api = self.cluster.api::<Lease>();
        let what = format!("renewing Lease {}", self.name);
        self.cluster.call(what, api.replace(self.name, &PostParams::default(), lease)).await
    }

    /// Renews a Lease that was read, if nobody has written it since.
    pub(super) async fn renew(&self, lease: &Lease) -> Result<Lease, cluster::Error> {
        let mut lease = lease.clone();
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(Timestamp::now()));
        self.replace(&lease).await
    }

    /// Gives a Lease that was read to another holder, if nobody has written it since.
    pub(super) async fn take(&self, lease: &Lease, holder: &str, duration: Duration) -> Result<Lease, cluster::Error> {
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
        let taken = Lease { spec: Some(spec(holder, duration, transitions.saturating_add(1))), ..lease.clone() };
        self.replace(&taken).await
    }

    /// Removes the Lease, if `holder` has it.
    pub(super) async fn release(&self, me: &str) -> Result<(), cluster::Error> {
        while let Some(lease) = self.read().await?.filter(|lease| holder(lease) == Some(me)) {
            match self.discard(&lease).await {
                Ok(()) => break,
                // A renewal was still on its way.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes a Lease that was read, if nobody has written it since.
    pub(super) async fn discard(&self, lease: &Lease) -> Result<(), cluster::Error> {
        let meta = lease.metadata.clone();
        let same = Preconditions { uid: meta.uid, resource_version: meta.resource_version };
        let params = DeleteParams::default().preconditions(same);
        let api = self.cluster.api::<Lease>();
        self.cluster.call(format!("removing Lease {}", self.name), api.delete(self.name, &params)).await.map(|_| ())
    }

    /// Makes `me` the holder: at once where the Lease is free or is taken by `force`, else when its holder was seen not
    /// to renew it for the Lease's duration. Also when the request was sent that did it: the Lease counts from then.
    pub(super) async fn acquire(&self, me: &str, duration: Duration, force: bool) -> Result<(Lease, Duration), Error> {
        let mut seen = Stillness::default();
        loop {
            let sent = boottime();
            let attempt = match self.read().await? {
                None => self.create(me, duration, BTreeMap::new()).await,
                Some(lease) => {
                    let is_free = holder(&lease).is_none_or(|holder| holder == me);
                    if !is_free && !force {
                        if seen.has_changed(version(&lease)) {
                            return Err(Error::Busy { holder: holder(&lease).unwrap_or_default().to_owned() });
                        }
                        if seen.observe(version(&lease)) < duration_of(&lease) {
                            tokio::time::sleep(glance(duration_of(&lease))).await;
                            continue;
                        }
                    }
                    self.take(&lease, me, duration).await
                }
            };
            match attempt {
                Ok(lease) => return Ok((lease, sent)),
                // Somebody was quicker: who, the next look tells.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn spec(holder: &str, duration: Duration, transitions: i32) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX).max(1)),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    }
}

/// Who holds it; `None` where nobody does.
pub(super) fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// What changes with each renewal.
pub(super) fn version(lease: &Lease) -> &str {
    lease.metadata.resource_version.as_deref().unwrap_or_default()
}

pub(super) fn duration_of(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DURATION, Duration::from_secs)
}

pub(super) fn annotation<'a>(lease: &'a Lease, key: &str) -> Option<&'a str> {
    lease.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}
