//! What a backup leaves word of in its cluster: Events for those who use it, and the run for later plans.

use std::sync::Arc;

use jiff::Timestamp;
use pacharc_format::manifest::Manifest;

use super::Outcome;
use crate::cluster::notice::{Notice, Notices};
use crate::cluster::{Cluster, history};
use crate::failure::chain;
use crate::monitor::Monitor;

/// Leaves word in the cluster. An account that may not do so backs up all the same.
pub(super) struct Herald<'a> {
    cluster: Option<&'a Cluster>,
    /// `None`, too, once it was in vain.
    notices: Option<Notices>,
    monitor: &'a Arc<dyn Monitor>,
}

impl<'a> Herald<'a> {
    pub(super) async fn new(cluster: Option<&'a Cluster>, monitor: &'a Arc<dyn Monitor>) -> Self {
        let notices = match cluster {
            Some(cluster) => Some(Notices::of(cluster).await),
            None => None,
        };
        Self { cluster, notices, monitor }
    }

    pub(super) async fn tell(&mut self, notice: Notice, note: String) {
        let Some(notices) = &self.notices else { return };
        if let Err(problem) = notices.tell(notice, note).await {
            self.monitor.warn(problem);
            self.notices = None;
        }
    }

    /// Keeps the run for later plans.
    pub(super) async fn keep(&self, created: Timestamp, outcome: &Outcome, manifest: &Manifest) {
        let Some(cluster) = self.cluster else { return };
        let run = history::Run {
            bundle: outcome.bundle,
            id: outcome.id.clone(),
            begun: created,
            seconds: Timestamp::now().duration_since(created).as_secs_f64(),
            bytes: outcome.bytes,
            quiesce: manifest.source.quiesce.clone(),
            pause_seconds: outcome.pause.as_ref().and_then(|pause| pause.seconds),
        };
        if let Err(error) = history::keep(cluster, &run).await {
            self.monitor.warn(format!("this run was not kept for later plans: {}", chain(&error)));
        }
    }
}
