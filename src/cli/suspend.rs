//! `pacharc suspend`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, Args};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::arguments::{ClusterArgs, NetworkArgs, ResumeArgs, SuspendArgs};
use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use super::{Job, usage, values};
use crate::cluster::{Cluster, suspend};
use crate::failure::Class;
use crate::outcome::{Facts, Outcome};

const EXAMPLES: &str = "
  Until somebody resumes it:
    pacharc suspend --namespace pachyderm
  For two hours at most, whatever becomes of this machine:
    pacharc suspend --namespace pachyderm --for 2h --guardian-image registry.example/pacharc:0.1.0
  And back:
    pacharc resume --namespace pachyderm";

/// Exit codes of what works on a cluster.
pub(super) const CLASSES: &[Class] = &[
    Class::Other,
    Class::Usage,
    Class::Refused,
    Class::Credentials,
    Class::Unreachable,
    Class::Suspended,
    Class::Interrupted,
    Class::Terminated,
];

/// Scale pachd, pachw and the workers to zero, recording the counts
///
/// In the order that lets nothing scale up again: pachd, and its pods gone; pachw; the workers; no pod left. The cluster
/// stays down until `pacharc resume`, or until the time of --for is over. Where it cannot be brought down, it is resumed.
#[derive(Args, Debug)]
#[command(after_long_help = job_epilogue(EXAMPLES, CLASSES))]
pub(super) struct Suspend {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Resume after this time at the latest: a guardian does it
    #[arg(long = "for", value_name = "TIME", value_parser = values::duration)]
    limit: Option<Duration>,
    #[command(flatten)]
    suspend: SuspendArgs,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    report: ReportArgs,
}

impl Job for Suspend {
    const NAME: &'static str = "suspend";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn run(self, matches: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let target = self.cluster.required()?;
        self.suspend.check(matches)?;
        let guardian = match self.limit {
            Some(_) => self.suspend.guard()?,
            None if self.suspend.names_guardian() => {
                return Err(usage::Error::Needs { what: "a guardian", needed: "--for" }.into());
            }
            None => suspend::guardian::Guard::None,
        };
        if self.limit.is_some() && guardian == suspend::guardian::Guard::None {
            return Err(usage::Error::Conflict { one: "--for", other: "--guardian none" }.into());
        }
        let options = suspend::Options {
            hold: self.limit,
            guardian,
            ..self.suspend.options(&self.resume, &target, &self.network)
        };
        report.run(async |interrupt, monitor| {
            let work = async {
                let cluster = Cluster::connect(&target, self.network.ca_file.as_deref()).await?;
                let command = options.command.clone();
                let suspension = suspend::suspend(&cluster, options, Arc::clone(&monitor)).await?;
                let record = suspension.hold().await?;
                Ok::<_, Failure>(Held {
                    namespace: target.namespace.clone(),
                    run: record.run,
                    owner: record.owner,
                    since: record.since,
                    deadline: record.deadline,
                    deployments: record.deployments,
                    workers: record.workers,
                    resume: command,
                })
            };
            interrupt.guard(work).await
        })
    }
}

/// A cluster that is down.
#[derive(Debug, Serialize)]
struct Held {
    namespace: String,
    run: Uuid,
    owner: String,
    since: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    deployments: BTreeMap<String, i32>,
    workers: BTreeMap<String, i32>,
    resume: String,
}

impl Outcome for Held {
    fn class(&self) -> Option<Class> {
        None
    }

    fn summary(&self) -> String {
        let mut facts = Facts::default();
        for (name, count) in &self.deployments {
            facts.add(name, format_args!("{count} replicas recorded"));
        }
        let replicas: i32 = self.workers.values().sum();
        facts.add("workers", format_args!("{replicas} replicas of {} pipelines recorded", self.workers.len()));
        if let Some(deadline) = self.deadline {
            facts.add("until", format_args!("{deadline:.0} at the latest"));
        }
        let command = suspend::from_anywhere(&self.resume);
        format!("{}suspended; bring it back, from any machine, with:\n{command}", facts.into_text())
    }
}
