//! What a suspend writes down before it scales anything: the counts that a resume brings back, and whose they are.
//!
//! It lies twice: whole in the ConfigMap `pacharc-suspended`, which is made and changed by compare-and-swap alone; and,
//! without the workers (which pachd scales itself), in an annotation of each Deployment, in case the ConfigMap is lost.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::Error;
use super::workloads::{DEPLOYMENTS, Workloads};
use crate::cluster::{self, Cluster};

/// The ConfigMap.
pub const NAME: &str = "pacharc-suspended";

/// Its key.
const KEY: &str = "record.json";

/// The annotation that holds the record on each Deployment.
pub const SUSPENDED: &str = "pacharc/suspended";

/// The annotation by which a resume makes scale requests fail that were on their way when it began.
const RESUMING: &str = "pacharc/resuming";

/// The version of the record's form.
const FORMAT: u32 = 1;

/// Why the cluster is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// For the time of one run, which holds the Lease.
    Run,
    /// Until `pacharc resume`, or until its time is over.
    Hold,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Some may still run.
    Suspending,
    /// Nothing ran when this was written.
    Suspended,
    /// Some may run again.
    Resuming,
}

/// What was there before, and who took it down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    /// The run's own number.
    pub run: Uuid,
    /// `user@host`.
    pub owner: String,
    /// When it began, by the owner's clock: for people alone.
    pub since: Timestamp,
    /// The version of pacharc.
    pub pacharc: String,
    /// Why.
    pub kind: Kind,
    /// How far.
    pub state: State,
    /// When a hold ends, by the owner's clock: for people alone, the guardian counts by its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Replicas of each Deployment.
    pub deployments: BTreeMap<String, i32>,
    /// Replicas of each worker's ReplicationController.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workers: BTreeMap<String, i32>,
}

impl Record {
    pub(super) fn new(run: Uuid, owner: &str, kind: Kind) -> Self {
        Self {
            format: FORMAT,
            run,
            owner: owner.to_owned(),
            since: Timestamp::now(),
            pacharc: env!("CARGO_PKG_VERSION").to_owned(),
            kind,
            state: State::Suspending,
            deadline: None,
            deployments: BTreeMap::new(),
            workers: BTreeMap::new(),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let record: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match record.format {
            FORMAT => Ok(record),
            other => Err(format!("it has form {other}, of a newer pacharc")),
        }
    }

    fn text(&self) -> String {
        // Strings, numbers and maps of them: there is nothing that JSON could not hold.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A record as it lies in the cluster.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) record: Record,
    /// The ConfigMap; `None` where only the annotation is left.
    map: Option<ConfigMap>,
}

impl Found {
    /// What is nowhere in the cluster any more.
    pub(super) fn remembered(record: Record) -> Self {
        Self { record, map: None }
    }

    /// Whether its ConfigMap is there.
    pub(super) fn is_in_config_map(&self) -> bool {
        self.map.is_some()
    }
}

/// Where the records of a namespace lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Records<'a>(pub(super) &'a Cluster);

impl Records<'_> {
    /// The record, from the ConfigMap or else from an annotation.
    pub(super) async fn read(&self) -> Result<Option<Found>, Error> {
        let maps = self.0.api::<ConfigMap>();
        let map = self.0.call(format!("reading ConfigMap {NAME}"), maps.get_opt(NAME)).await?;
        let text = map.as_ref().and_then(|map| map.data.as_ref()?.get(KEY));
        match (text.map(|text| Record::parse(text)), map) {
            (Some(Ok(record)), map) => return Ok(Some(Found { record, map })),
            (None, None) => {}
            // Somebody edited it: what the annotation says may still hold, and the ConfigMap goes with it at the end.
            (unreadable, map) => {
                return match self.annotated().await? {
                    Some(record) => Ok(Some(Found { record, map })),
                    None => {
                        let problem = unreadable.and_then(Result::err).unwrap_or_else(|| format!("it has no {KEY}"));
                        Err(Error::Unreadable { problem })
                    }
                };
            }
        }
        // `kubectl rollout undo` brings back annotations of long ago: alone they are believed of what is down.
        match self.annotated().await? {
            Some(record) if self.is_down(&record).await? => Ok(Some(Found { record, map: None })),
            _ => Ok(None),
        }
    }

    /// Whether something is down that was not; pachd itself takes pachw down.
    async fn is_down(&self, record: &Record) -> Result<bool, Error> {
        let had = |name: &str| name != "pachw" && record.deployments.get(name).is_some_and(|count| *count > 0);
        let now = Workloads(self.0).deployments().await?;
        Ok(now.iter().any(|deployment| deployment.replicas == 0 && had(deployment.name())))
    }

    async fn annotated(&self) -> Result<Option<Record>, Error> {
        for name in DEPLOYMENTS {
            let what = format!("reading Deployment {name}");
            let deployment = self.0.call(what, self.0.api::<Deployment>().get_opt(name)).await?;
            let text = deployment.and_then(|deployment| deployment.metadata.annotations?.remove(SUSPENDED));
            if let Some(Ok(record)) = text.as_deref().map(Record::parse) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Writes the first record; it is never written over one that is there.
    pub(super) async fn create(&self, record: &Record) -> Result<Found, Error> {
        let map = self.0.api::<ConfigMap>();
        let (params, data) = (PostParams::default(), self.map(record));
        let made = self.0.call(format!("making ConfigMap {NAME}"), map.create(&params, &data)).await;
        match made {
            Ok(map) => Ok(Found { record: record.clone(), map: Some(map) }),
            Err(error) if error.is_conflict() => self.as_wanted(record).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The record, if it is just this one: then it was our own request that came through, and its answer that did not.
    async fn as_wanted(&self, record: &Record) -> Result<Found, Error> {
        self.read().await?.filter(|found| found.record == *record && found.map.is_some()).ok_or(Error::RecordChanged)
    }

    /// Changes the state of the record, if nobody changed it meanwhile.
    pub(super) async fn set_state(&self, found: &Found, state: State) -> Result<Found, Error> {
        let record = Record { state, ..found.record.clone() };
        let Some(before) = &found.map else { return Ok(Found { record, map: None }) };
        let mut map = self.map(&record);
        map.metadata.resource_version.clone_from(&before.metadata.resource_version);
        map.metadata.uid.clone_from(&before.metadata.uid);
        let maps = self.0.api::<ConfigMap>();
        let what = format!("changing ConfigMap {NAME}");
        match self.0.call(what, maps.replace(NAME, &PostParams::default(), &map)).await {
            Ok(map) => Ok(Found { record, map: Some(map) }),
            Err(error) if error.is_conflict() || error.is_not_found() => self.as_wanted(&record).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the ConfigMap that was found; one that was made since stays.
    pub(super) async fn remove(&self, found: &Found) -> Result<(), cluster::Error> {
        let Some(map) = &found.map else { return Ok(()) };
        let same = Preconditions { uid: map.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::default().preconditions(same);
        match self.0.call(format!("removing ConfigMap {NAME}"), self.0.api::<ConfigMap>().delete(NAME, &params)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn map(&self, record: &Record) -> ConfigMap {
        let labels = [("app.kubernetes.io/managed-by".to_owned(), "pacharc".to_owned())];
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(self.0.namespace().to_owned()),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            },
            data: Some([(KEY.to_owned(), record.text())].into()),
            ..ConfigMap::default()
        }
    }

    /// Writes the record onto a Deployment.
    pub(super) async fn annotate(&self, name: &str, record: &Record) -> Result<(), cluster::Error> {
        let short = Record { workers: BTreeMap::new(), ..record.clone() };
        self.patch(name, json!({ SUSPENDED: short.text(), RESUMING: null }), false).await
    }

    /// Changes a Deployment in a way that does nothing, so that scale requests made before can no longer succeed: they
    /// name the version that they were made for.
    pub(super) async fn fence(&self, name: &str, by: &str) -> Result<(), cluster::Error> {
        self.patch(name, json!({ RESUMING: by }), false).await
    }

    /// Asks whether a Deployment's annotations may be changed.
    pub(super) async fn try_patch(&self, name: &str) -> Result<(), cluster::Error> {
        self.patch(name, json!({ RESUMING: null }), true).await
    }

    /// Takes the annotations away.
    pub(super) async fn clear(&self, name: &str) -> Result<(), cluster::Error> {
        self.patch(name, json!({ SUSPENDED: null, RESUMING: null }), false).await
    }

    async fn patch(&self, name: &str, annotations: serde_json::Value, dry: bool) -> Result<(), cluster::Error> {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
        let params = if dry { PatchParams::default().dry_run() } else { PatchParams::default() };
        let what = format!("annotating Deployment {name}");
        self.0.call(what, self.0.api::<Deployment>().patch(name, &params, &patch)).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::super::faulty::Pachyderm;
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let mut record = Record::new(Uuid::nil(), "alice@desk", Kind::Hold);
        record.deployments.insert("pachd".into(), 2);
        record.workers.insert("default-edges-v1".into(), 4);
        assert_eq!(Record::parse(&record.text()), Ok(record));
    }

    #[test]
    fn a_record_of_another_form_is_not_guessed_at() {
        let text = Record { format: 2, ..Record::new(Uuid::nil(), "a@b", Kind::Run) }.text();
        assert_eq!(Record::parse(&text), Err("it has form 2, of a newer pacharc".into()));
        assert!(Record::parse("{}").is_err());
    }

    #[tokio::test]
    async fn an_annotation_alone_is_believed_of_what_is_down() {
        let pachyderm = Pachyderm::new(&[("pach-enterprise", 0), ("pachd", 2), ("pachw", 1)]);
        let cluster = pachyderm.server(|_, _| None).cluster();
        let records = Records(&cluster);
        let mut record = Record::new(Uuid::nil(), "alice@desk", Kind::Hold);
        record.deployments =
            [("pach-enterprise", 0), ("pachd", 2), ("pachw", 1)].map(|(n, c)| (n.to_owned(), c)).into();
        records.create(&record).await.unwrap();
        records.annotate("pachd", &record).await.unwrap();
        let read = async || records.read().await.unwrap().map(|found| (found.record.run, found.is_in_config_map()));
        assert_eq!(read().await, Some((Uuid::nil(), true)));
        pachyderm.remove(NAME);
        assert_eq!(read().await, None);
        pachyderm.scale("pachw", 0);
        assert_eq!(read().await, None, "pachd has scaled it");
        pachyderm.scale("pachd", 0);
        assert_eq!(read().await, Some((Uuid::nil(), false)));
    }
}
