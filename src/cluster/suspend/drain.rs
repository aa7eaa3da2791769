//! Waiting for pods: until those that write are gone, by a watch.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::Error;
use super::clock::Limit;
use super::tenure::{Lost, Tenure};
use super::workloads::{DEPLOYMENTS, Workload, Workloads};
use crate::cluster::{self, Cluster};
use crate::monitor::{Event, Monitor};

/// All of Pachyderm's pods have this label.
const SUITE: &str = "suite=pachyderm";

/// How often the controllers are asked, while pods are watched, whether anybody scaled them up again.
const LOOK: Duration = Duration::from_secs(1);

/// Before an API server is asked again that did not answer.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// Pods that are named in events and errors; more of them are counted.
const NAMED: usize = 10;

/// Who is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// pachd, and pach-enterprise.
    Pachd,
    /// Everything that writes.
    All,
}

/// Names of pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pods {
    /// How many there are.
    pub count: usize,
    /// The first ten.
    pub names: Vec<String>,
}

impl fmt::Display for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.names.join(", "))?;
        match self.count - self.names.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The pods of `who` in the namespace that run, or may run, now: asked of the server's consistent state.
pub(super) async fn running(cluster: &Cluster, who: Who) -> Result<Vec<String>, cluster::Error> {
    let params = ListParams::default().labels(SUITE);
    let pods = cluster.call("listing pods", cluster.api::<Pod>().list(&params)).await?;
    Ok(pods.items.iter().filter(|pod| writes(pod, who)).map(name).collect())
}

/// Waits until none of `who` runs, and their controllers count none.
pub(super) async fn gone(
    cluster: &Cluster,
    who: Who,
    limit: Limit,
    tenure: &Tenure,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    let mut waiting =
        Waiting { cluster, who, monitor, pods: BTreeMap::new(), told: Vec::new(), listed: false, problem: None };
    tokio::select! {
        biased;
        lost = tenure.lost() => return Err(Error::Lost(lost)),
        done = waiting.wait() => return done,
        () = limit.over() => {}
    }
    let names: Vec<String> = waiting.pods.into_values().collect();
    if let Some(problem) = waiting.problem.filter(|_| names.is_empty()) {
        return Err(Error::Late { after: limit.span(), problem });
    }
    Err(Error::Stuck { pods: pods(&names), after: limit.span() })
}

pub(super) fn pods(names: &[String]) -> Pods {
    Pods { count: names.len(), names: names.iter().take(NAMED).cloned().collect() }
}

struct Waiting<'a> {
    cluster: &'a Cluster,
    who: Who,
    monitor: &'a dyn Monitor,
    /// By uid.
    pods: BTreeMap<String, String>,
    told: Vec<String>,
    listed: bool,
    /// What the server said, where it does not answer.
    problem: Option<String>,
}

impl Waiting<'_> {
    async fn wait(&mut self) -> Result<(), Error> {
        let api = self.cluster.api::<Pod>();
        let mut watch = watcher(api, watcher::Config::default().labels(SUITE)).default_backoff().boxed();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // What one pod after the other brings is taken note of alone: there may be hundreds, and the server is asked several
            // things at each look.
            let is_due = tokio::select! {
                event = watch.try_next() => match event {
                    Ok(Some(event)) => self.take(event),
                    // The watch begins again by itself, unless it is not allowed at all.
                    Err(error) => {
                        self.problem = Some(refused(error)?);
                        false
                    }
                    Ok(None) => false,
                },
                _ = look.tick() => true,
            };
            if !self.listed || !is_due {
                continue;
            }
            self.tell();
            match self.is_empty().await {
                Ok(true) => return Ok(()),
                Ok(false) => self.problem = None,
                // As long as the Lease is held, it is tried again.
                Err(Error::Cluster(error)) if error.is_retryable() => {
                    self.problem = Some(crate::failure::chain(&error));
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes note of an event. Whether all pods are known by it, or the last one is gone.
    fn take(&mut self, event: watcher::Event<Pod>) -> bool {
        match event {
            watcher::Event::Init => self.pods.clear(),
            watcher::Event::InitDone => {
                self.listed = true;
                return true;
            }
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) if writes(&pod, self.who) => {
                self.pods.insert(uid(&pod), name(&pod));
            }
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) | watcher::Event::Delete(pod) => {
                return self.pods.remove(&uid(&pod)).is_some() && self.pods.is_empty();
            }
        }
        false
    }

    fn tell(&mut self) {
        let names: Vec<String> = self.pods.values().cloned().collect();
        if names != self.told && !names.is_empty() {
            let Pods { count, names } = pods(&names);
            self.monitor.event(Event::Waiting { count, pods: names });
        }
        self.told = names;
    }

    /// Whether nothing is left; an error where somebody scaled up what must be down.
    async fn is_empty(&self) -> Result<bool, Error> {
        let workloads = Workloads(self.cluster);
        let mut down: Vec<Workload> = workloads.deployments().await?;
        match self.who {
            Who::Pachd => down.retain(|deployment| deployment.name() != DEPLOYMENTS[2]),
            Who::All => down.extend(workloads.workers().await?),
        }
        if let Some(up) = down.iter().find(|workload| workload.replicas > 0) {
            return Err(Error::Lost(Lost::now(format!("somebody scaled {} to {}", up.title(), up.replicas))));
        }
        // The watch may lag behind: the list is consistent.
        Ok(self.pods.is_empty()
            && down.iter().all(Workload::is_empty)
            && running(self.cluster, self.who).await?.is_empty())
    }
}

/// What is wrong with a watch that begins again; an error where it is not allowed at all.
fn refused(error: watcher::Error) -> Result<String, Error> {
    let source = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => source,
        watcher::Error::WatchError(status) => kube::Error::Api(status),
        watcher::Error::NoResourceVersion => return Ok(error.to_string()),
    };
    let error = cluster::Error::api("watching pods".to_owned(), source);
    if error.is_forbidden() { Err(error.into()) } else { Ok(crate::failure::chain(&error)) }
}

/// Whether the pod is one of those that write, and may still do so.
fn writes(pod: &Pod, who: Who) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        // Its containers have all ended; evicted pods stay so for long.
        return false;
    }
    let label = |key: &str| pod.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let app = label("app").unwrap_or_default();
    // Jobs of the chart (configuration, preflight, restoring a snapshot) write, too, and end by themselves.
    let is_job = || pod.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Job");
    match who {
        Who::Pachd => app == "pachd" || app == "pach-enterprise",
        Who::All => DEPLOYMENTS.contains(&app) || label("component") == Some("worker") || is_job(),
    }
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::faulty::{self, Answer, FaultyServer};
    use super::*;
    use crate::monitor::Silent;
    use serde_json::json;

    fn pod(labels: &[(&str, &str)], phase: &str, owner: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {
                "labels": labels.iter().copied().collect::<BTreeMap<_, _>>(),
                "ownerReferences": [{ "apiVersion": "v1", "kind": owner, "name": "o", "uid": "u" }],
            },
            "status": { "phase": phase },
        }))
        .unwrap()
    }

    #[test]
    fn who_writes() {
        let cases = [
            (pod(&[("app", "pachd")], "Running", "ReplicaSet"), true, true),
            (pod(&[("app", "pachd")], "Pending", "ReplicaSet"), true, true),
            (pod(&[("app", "pachd")], "Failed", "ReplicaSet"), false, false),
            (pod(&[("app", "pachw")], "Running", "ReplicaSet"), false, true),
            (pod(&[("app", "pipeline"), ("component", "worker")], "Running", "ReplicationController"), false, true),
            (pod(&[("app", "pachyderm-config")], "Running", "Job"), false, true),
            (pod(&[("app", "pachyderm-config")], "Succeeded", "Job"), false, false),
            (pod(&[("app", "etcd")], "Running", "StatefulSet"), false, false),
            (pod(&[("app", "console")], "Running", "ReplicaSet"), false, false),
        ];
        for (pod, pachd, all) in cases {
            assert_eq!((writes(&pod, Who::Pachd), writes(&pod, Who::All)), (pachd, all), "{pod:?}");
        }
    }

    const PODS: &str = "/api/v1/namespaces/pachyderm/pods";

    /// A cluster whose Deployments are down, and whose pod is in the first `lists` lists. `odd` may answer otherwise.
    fn draining(
        lists: u32,
        odd: impl Fn(&faulty::Request, u32) -> Option<Answer> + Send + Sync + 'static,
    ) -> FaultyServer {
        FaultyServer::new(move |request, seen| {
            if let Some(answer) = odd(request, seen) {
                return answer;
            }
            let path = request.path.as_str();
            if path.contains("/leases") {
                let is_first = request.method == "GET" && seen == 1;
                return if is_first { Answer::Status(404) } else { Answer::Json(faulty::lease("me", seen)) };
            }
            if path.contains("/deployments/") {
                let status = json!({ "observedGeneration": 2, "replicas": 0 });
                let name = path.rsplit('/').next();
                return Answer::Json(json!({ "metadata": { "name": name, "generation": 2 }, "status": status,
                    "spec": { "replicas": 0, "selector": {}, "template": {} } }));
            }
            let pod = json!({ "metadata": { "name": "pachd-1", "uid": "u", "labels": { "app": "pachd" } },
                              "status": { "phase": "Running" } });
            let items = if path == PODS && seen <= lists { vec![pod] } else { Vec::new() };
            match request.is_watch {
                // One that is open, and quiet.
                true => Answer::Never,
                false => Answer::Json(json!({ "metadata": { "resourceVersion": "5" }, "items": items })),
            }
        })
    }

    async fn drained(server: &FaultyServer, limit: u64) -> Result<(), Error> {
        let cluster = server.cluster();
        let tenure = Tenure::begin(&cluster, "me", Duration::from_secs(60), false).await.unwrap();
        gone(&cluster, Who::All, Limit::begin(Duration::from_secs(limit)), &tenure, &Silent).await
    }

    fn event(kind: &str, object: serde_json::Value) -> serde_json::Value {
        json!({ "type": kind, "object": object })
    }

    #[tokio::test]
    async fn a_watch_that_expired_or_was_cut_begins_again() {
        let expired = || Answer::Events(vec![event("ERROR", faulty::status(410))]);
        let troubles = [expired(), Answer::Status(410), Answer::Status(500), Answer::Events(Vec::new()), Answer::Cut];
        for trouble in troubles {
            let told = format!("{trouble:?}");
            let server = draining(2, move |request, seen| match (request.is_watch, seen) {
                (true, 1) => Some(trouble.clone()),
                // The next one sees the pod go.
                (true, _) => {
                    let pod = json!({ "metadata": { "name": "pachd-1", "uid": "u", "resourceVersion": "9",
                                                    "labels": { "app": "pachd" } } });
                    Some(Answer::Events(vec![event("DELETED", pod)]))
                }
                _ => None,
            });
            drained(&server, 30).await.unwrap_or_else(|error| panic!("{told}: {error}"));
            assert!(server.seen(PODS, true) + server.seen(PODS, false) > 3, "{told}");
        }
    }

    #[tokio::test]
    async fn many_pods_that_end_are_no_reason_to_ask_as_often() {
        let worker = |number: u32, phase: &str| {
            let labels = json!({ "app": "pipeline", "component": "worker" });
            json!({ "metadata": { "name": format!("w{number}"), "uid": format!("{number}"), "resourceVersion": "6",
                                  "labels": labels }, "status": { "phase": phase } })
        };
        let server = draining(0, move |request, seen| match (request.path.as_str(), request.is_watch, seen) {
            (PODS, false, 1) => {
                let items: Vec<_> = (0..200).map(|number| worker(number, "Running")).collect();
                Some(Answer::Json(json!({ "metadata": { "resourceVersion": "5" }, "items": items })))
            }
            (PODS, true, 1) => {
                let change = |number| event("MODIFIED", worker(number, "Running"));
                let end = |number| event("DELETED", worker(number, "Running"));
                Some(Answer::Events((0..200).map(change).chain((0..200).map(end)).collect()))
            }
            _ => None,
        });
        drained(&server, 30).await.unwrap();
        let asked = server.seen("/apis/apps/v1/namespaces/pachyderm/deployments/pachd", false);
        assert!((1..20).contains(&asked), "{asked}");
    }

    #[tokio::test]
    async fn a_list_that_fails_is_made_again() {
        for trouble in [Answer::Status(500), Answer::Status(429), Answer::Cut] {
            let again = trouble.clone();
            let server = draining(0, move |request, seen| {
                let is_list = request.path == PODS && !request.is_watch;
                (is_list && (2..4).contains(&seen)).then(|| again.clone())
            });
            drained(&server, 30).await.unwrap_or_else(|error| panic!("{trouble:?}: {error}"));
            assert!(server.seen(PODS, false) >= 4, "{trouble:?}");
        }
    }

    #[tokio::test]
    async fn a_right_that_was_taken_away_is_not_waited_for() {
        let server = draining(99, |request, _| (request.path == PODS).then_some(Answer::Status(403)));
        let error = drained(&server, 30).await.unwrap_err();
        assert!(matches!(&error, Error::Cluster(error) if error.is_forbidden()), "{error}");
    }

    #[tokio::test]
    async fn what_does_not_end_is_named_even_if_the_watch_is_silent() {
        let server = draining(u32::MAX, |_, _| None);
        let error = drained(&server, 2).await.unwrap_err();
        assert!(matches!(&error, Error::Stuck { pods, .. } if pods.names == ["pachd-1"]), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_named_instead_of_pods() {
        for end in ["/pods", "/replicationcontrollers"] {
            let server = draining(0, move |request, _| request.path.ends_with(end).then_some(Answer::Status(500)));
            let error = drained(&server, 2).await.unwrap_err();
            assert!(matches!(&error, Error::Late { problem, .. } if problem.contains("HTTP 500")), "{end}: {error}");
        }
    }

    #[test]
    fn many_pods_are_counted() {
        let names: Vec<String> = (0..12).map(|n| format!("p{n}")).collect();
        assert_eq!(pods(&names[..2]).to_string(), "p0, p1");
        assert!(pods(&names).to_string().ends_with("p9 and 2 more"));
    }
}
