//! What the users of a cluster are told about a backup, where they look: Events of the Deployment, as `kubectl describe` and
//! `kubectl get events` show them.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::Cluster;
use super::permissions::Right;
use super::suspend::DEPLOYMENT_NAMES;

/// What it asks of the API server. Without it there are no Events, and nothing else is lacking.
pub const RIGHTS: &[Right] = &[Right::new("events.k8s.io", "events", "create")];

/// Nobody waits for an Event longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The API server refuses longer notes (`pkg/apis/core/validation/events.go`: 1 KiB).
const NOTE: usize = 1000;

/// Tells the users of one cluster.
pub struct Notices {
    recorder: Recorder,
    regarding: Option<ObjectReference>,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A backup begins.
    Started,
    /// It is done.
    Completed,
    /// It has failed.
    Failed,
}

impl Notices {
    /// Of the cluster's pachd, or else pach-enterprise.
    pub async fn of(cluster: &Cluster) -> Self {
        let mut regarding = None;
        for name in ["pachd", DEPLOYMENT_NAMES[0]] {
            let found = cluster.call("reading a Deployment", cluster.api::<Deployment>().get_opt(name)).await;
            if let Ok(Some(deployment)) = found {
                regarding = Some(deployment.object_ref(&()));
                break;
            }
        }
        let reporter = Reporter { controller: "pacharc".to_owned(), instance: Some(super::suspend::owner()) };
        Self { recorder: Recorder::new(cluster.client().clone(), reporter), regarding }
    }

    /// Tells it, `note` being details without secrets.
    ///
    /// # Errors
    /// Why it could not be told, in words. It hinders nothing.
    pub async fn tell(&self, notice: Notice, note: String) -> Result<(), String> {
        let Some(regarding) = &self.regarding else { return Ok(()) };
        let (type_, reason) = match notice {
            Notice::Started => (EventType::Normal, "BackupStarted"),
            Notice::Completed => (EventType::Normal, "BackupCompleted"),
            Notice::Failed => (EventType::Warning, "BackupFailed"),
        };
        let note = note.chars().scan(0, |length, c| {
            *length += c.len_utf8();
            (*length <= NOTE).then_some(c)
        });
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.collect()),
            action: "Backup".to_owned(),
            secondary: None,
        };
        match tokio::time::timeout(PATIENCE, self.recorder.publish(&event, regarding)).await {
            Ok(told) => {
                told.map_err(|error| format!("no Event {reason} was written: {}", crate::failure::chain(&error)))
            }
            Err(_) => Err(format!("no Event {reason} was written: the API server does not answer")),
        }
    }
}
