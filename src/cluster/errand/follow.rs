//! Following a Job: until its pod runs, along its log, to its exit code.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use tokio::time::Instant;

use super::pod::{self, CONTAINER, State};
use super::{Errand, Error, GRACE, Options};
use crate::cluster::Error as ClusterError;
use crate::failure::Class;
use crate::interrupt::Interrupt;
use crate::monitor::{Monitor, Relayed};

/// Between two looks at the pod.
const LOOK: Duration = Duration::from_secs(1);

/// So long the log may be silent until the pod is looked at: a connection may be dead without a sign.
const SILENCE: Duration = Duration::from_secs(15);

/// So long an API server may be gone before the Job is left to itself.
const PATIENCE: Duration = Duration::from_secs(600);

/// A pod whose log has ended says soon how it ended; and one that was killed when its grace was over, too.
const LATE: Duration = Duration::from_secs(30);

/// The exit code of the Job.
pub(super) async fn follow(
    errand: &Errand<'_>,
    options: &Options,
    interrupt: &Interrupt,
    monitor: &dyn Monitor,
) -> Result<u8, Error> {
    let (told, stopping) = (Cell::new(None), Cell::new(false));
    let mut following = Following::new(errand, options.resume.as_deref(), monitor, &told, &stopping);
    let mut way = pin!(async {
        following.begin(options.start_timeout).await?;
        following.log().await?;
        following.end().await
    });
    let signal = tokio::select! {
        biased;
        signal = interrupt.wait() => signal,
        ended = &mut way => return ended,
    };
    let job = &errand.name;
    monitor.warn(format!("asking Job {job} to end, which may take {} s", GRACE.as_secs()));
    stopping.set(true);
    errand.delete().await.map_err(|source| Error::OutOfSight { job: job.clone(), source })?;
    let limit = GRACE + LATE;
    let how = match tokio::time::timeout(limit, way).await {
        Err(_) => return Err(Error::Ending { job: job.clone(), after: limit }),
        // What the run itself says of a cluster that it could not bring back is graver than the signal.
        Ok(Ok(code)) if code == Class::Suspended.exit_code() => return Ok(code),
        Ok(Ok(code)) => format!(" with exit code {code}"),
        Ok(Err(Error::Killed { .. })) => String::new(),
        Ok(Err(error)) => return Err(error),
    };
    monitor.warn(format!("Job {job} has ended{how}, and is removed"));
    Err(signal.into())
}

struct Following<'a> {
    errand: &'a Errand<'a>,
    monitor: &'a dyn Monitor,
    /// The pod's name, once it is there.
    pod: Option<String>,
    /// The time of the last line of the log that was read.
    last: Option<Timestamp>,
    /// Since when the API server does not answer.
    unseen: Option<Instant>,
    /// Whether the run has suspended the cluster, and has not told that it is back.
    is_down: bool,
    /// What brings it back then.
    resume: Option<&'a str>,
    /// The exit code that the run's own last event tells.
    told: &'a Cell<Option<u8>>,
    /// Whether the Job was asked to end.
    stopping: &'a Cell<bool>,
}

impl<'a> Following<'a> {
    fn new(
        errand: &'a Errand<'a>,
        resume: Option<&'a str>,
        monitor: &'a dyn Monitor,
        told: &'a Cell<Option<u8>>,
        stopping: &'a Cell<bool>,
    ) -> Self {
        Self { errand, monitor, pod: None, last: None, unseen: None, is_down: false, resume, told, stopping }
    }

    /// Waits until there is a log.
    async fn begin(&mut self, limit: Duration) -> Result<(), Error> {
        let end = Instant::now() + limit;
        let mut told = None;
        loop {
            let waits = match self.look().await? {
                Some(State::Waits(why)) => why,
                Some(_) => return Ok(()),
                None if self.stopping.get() => return Ok(()),
                None => Some("no pod has been made".to_owned()),
            };
            if Instant::now() >= end {
                let waits = waits.unwrap_or_else(|| "its container is being made".to_owned());
                return Err(Error::NotStarted { job: self.errand.name.clone(), waits, after: limit });
            }
            if self.pod.is_some() && waits != told {
                if let Some(why) = &waits {
                    self.monitor.warn(format!("the pod of Job {} waits: {why}", self.errand.name));
                }
                told = waits;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Passes the log on until it ends.
    async fn log(&mut self) -> Result<(), Error> {
        let Some(name) = self.pod.clone() else { return Ok(()) };
        let (cluster, job) = (self.errand.cluster, &self.errand.name);
        let pods = cluster.api::<Pod>();
        loop {
            let params = LogParams {
                container: Some(CONTAINER.to_owned()),
                follow: true,
                timestamps: true,
                since_time: self.last,
                ..LogParams::default()
            };
            let opened = cluster.call(format!("reading the log of Job {job}"), pods.log_stream(&name, &params)).await;
            let mut lines = match opened {
                Ok(log) => log.lines(),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => {
                    self.bear(error)?;
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            let before = self.last;
            loop {
                match tokio::time::timeout(SILENCE, lines.try_next()).await {
                    Ok(Ok(Some(line))) => self.take(&line, before),
                    Ok(Ok(None)) => break,
                    Ok(Err(error)) => {
                        tracing::info!("the log of Job {job} was cut off: {error}");
                        break;
                    }
                    Err(_) => {
                        if !matches!(self.look().await?, Some(State::Runs)) {
                            break;
                        }
                    }
                }
            }
            // A log that ends while the pod runs was cut off.
            if !matches!(self.look().await?, Some(State::Runs)) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Passes a line on, but for those that were read `before` the log was opened again: the server counts in seconds.
    fn take(&mut self, line: &str, before: Option<Timestamp>) {
        let (time, text) = line.split_once(' ').unwrap_or((line, ""));
        if let Ok(time) = time.parse::<Timestamp>() {
            if before.is_some_and(|before| time <= before) {
                return;
            }
            self.last = Some(time);
        }
        let relayed = Relayed::of(text);
        if let Relayed::Event(event) = relayed {
            self.heed(event);
        }
        self.monitor.relay(relayed);
    }

    /// Takes note of what the run says of the cluster, and of its own end.
    fn heed(&mut self, event: &str) {
        let event: serde_json::Value = serde_json::from_str(event).unwrap_or_default();
        match (event["event"].as_str(), event["step"].as_str()) {
            (Some("step"), Some("record")) => self.is_down = true,
            (Some("step"), Some("resumed")) => self.is_down = false,
            (Some("finished" | "error"), _) => {
                let code = event["exit_code"].as_u64().and_then(|code| u8::try_from(code).ok());
                self.told.set(code.or(self.told.get()));
            }
            _ => {}
        }
    }

    /// Waits until the pod says how it ended.
    async fn end(&mut self) -> Result<u8, Error> {
        let end = Instant::now() + LATE;
        loop {
            let killed = match self.look().await? {
                Some(State::Exited(code)) => return Ok(code),
                Some(State::Killed(how)) => how,
                None => "was removed by somebody".to_owned(),
                Some(_) if Instant::now() < end => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Some(_) => "does not say how it ended".to_owned(),
            };
            // The run's own word is good enough.
            return self.told.get().ok_or_else(|| self.killed(killed));
        }
    }

    fn killed(&self, how: String) -> Error {
        let job = self.errand.name.clone();
        match self.resume.filter(|_| self.is_down) {
            Some(command) => Error::LeftDown { job, how, command: command.to_owned() },
            None => Error::Killed { job, how },
        }
    }

    /// The state of the Job's pod; `None` where there is none.
    async fn look(&mut self) -> Result<Option<State>, Error> {
        let (cluster, job) = (self.errand.cluster, &self.errand.name);
        // Clusters before 1.27 do not set its longer name, batch.kubernetes.io/job-name.
        let params = ListParams::default().labels(&format!("job-name={job}"));
        loop {
            match cluster.call(format!("looking for the pod of Job {job}"), cluster.api::<Pod>().list(&params)).await {
                Ok(found) => {
                    self.unseen = None;
                    let pod = found.items.into_iter().next();
                    self.pod = pod.as_ref().and_then(|pod| pod.metadata.name.clone()).or(self.pod.take());
                    return Ok(pod.as_ref().map(pod::state));
                }
                Err(error) => self.bear(error)?,
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether an error may pass.
    fn bear(&mut self, error: ClusterError) -> Result<(), Error> {
        let since = *self.unseen.get_or_insert_with(Instant::now);
        let job = self.errand.name.clone();
        if error.is_retryable() && since.elapsed() < PATIENCE {
            Ok(())
        } else {
            Err(Error::OutOfSight { job, source: error })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::suspend::faulty::{Answer, FaultyServer};
    use crate::failure::Explain as _;
    use crate::monitor::Silent;

    #[tokio::test]
    async fn the_pod_is_found_by_the_label_that_old_clusters_set_too() {
        let server = FaultyServer::new(|request, _| {
            let is_selected = request.query.split(['?', '&']).any(|part| part == "labelSelector=job-name%3Derrand");
            let pod = json!({ "metadata": { "name": "errand-x", "labels": { "job-name": "errand" } },
                              "status": { "phase": "Running" } });
            let pods = if is_selected { vec![pod] } else { Vec::new() };
            Answer::Json(json!({ "metadata": { "resourceVersion": "1" }, "items": pods }))
        });
        let cluster = server.cluster();
        let errand = Errand { cluster: &cluster, name: "errand".to_owned() };
        let (told, stopping) = (Cell::new(None), Cell::new(false));
        let mut following = Following::new(&errand, None, &Silent, &told, &stopping);
        assert_eq!(following.look().await.unwrap(), Some(State::Runs));
        assert_eq!(following.pod.as_deref(), Some("errand-x"));
    }

    #[tokio::test]
    async fn a_run_that_is_killed_in_a_pause_leaves_the_cluster_down() {
        let ended = json!({ "terminated": { "exitCode": 137, "reason": "Error" } });
        let container = json!({ "name": CONTAINER, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                                "state": ended });
        let pod = json!({ "metadata": { "name": "errand-x" },
                          "status": { "phase": "Failed", "containerStatuses": [container] } });
        let pods = json!({ "metadata": { "resourceVersion": "1" }, "items": [pod] });
        let cluster = FaultyServer::new(move |_, _| Answer::Json(pods.clone())).cluster();
        let errand = Errand { cluster: &cluster, name: "errand".to_owned() };
        let (told, stopping) = (Cell::new(None), Cell::new(false));
        let mut following = Following::new(&errand, Some("pacharc resume"), &Silent, &told, &stopping);
        let step = |step: &str| format!("2025-01-31T09:30:00Z {}", json!({ "event": "step", "step": step }));
        let cases = [("take_lease", Class::Unreachable), ("record", Class::Suspended), ("drain_all", Class::Suspended)];
        for (name, class) in cases.into_iter().chain([("resumed", Class::Unreachable)]) {
            following.take(&step(name), None);
            let error = following.end().await.unwrap_err();
            assert_eq!(error.class(), class, "{name}: {error}");
            let advice = error.advice().unwrap_or_default();
            assert_eq!(advice.ends_with("\npacharc resume --force"), class == Class::Suspended, "{name}: {advice}");
        }
        // What it says of its end counts more.
        let last = json!({ "event": "error", "exit_code": 143 });
        following.take(&format!("2025-01-31T09:30:01Z {last}"), None);
        assert_eq!(following.end().await.unwrap(), 143);
    }
}
