//! `pacharc resume`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use serde::Serialize;

use super::Job;
use super::arguments::{ClusterArgs, NetworkArgs, ResumeArgs};
use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use crate::cluster::{Cluster, suspend};
use crate::failure::Class;
use crate::outcome::Outcome;

const EXAMPLES: &str = "
  Bring back what suspend recorded:
    pacharc resume --namespace pachyderm
  What somebody else suspended:
    pacharc resume --namespace pachyderm --force
  Where somebody scaled pachd to 0 without pacharc:
    pacharc resume --namespace pachyderm --resume-replicas 1";

/// Bring back exactly what suspend recorded; safe to repeat, from any machine
///
/// Scales pachd, pach-enterprise and pachw up to their recorded counts where they are below, waits until pachd is ready,
/// and removes the record. Nothing is ever scaled down. The workers are left to pachd, which knows what each pipeline needs.
#[derive(Args, Debug)]
#[command(after_long_help = job_epilogue(EXAMPLES, super::suspend::CLASSES))]
pub(super) struct Resume {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Resume what somebody else suspended, or a run still uses
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    report: ReportArgs,
}

impl Job for Resume {
    const NAME: &'static str = "resume";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn run(self, _: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let target = self.cluster.required()?;
        let options = self.resume.options(&target, &self.network);
        report.run(async |interrupt, monitor| {
            let work = async {
                let cluster = Cluster::connect(&target, self.network.ca_file.as_deref()).await?;
                let resumed = suspend::resume(&cluster, &options, self.force, &*monitor).await?;
                let deployments = resumed.record.map(|record| record.deployments);
                Ok::<_, Failure>(Back { namespace: target.namespace.clone(), deployments })
            };
            interrupt.guard(work).await
        })
    }
}

/// A cluster that runs.
#[derive(Debug, Serialize)]
struct Back {
    namespace: String,
    /// What was recorded; absent where it was not suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployments: Option<BTreeMap<String, i32>>,
}

impl Outcome for Back {
    fn class(&self) -> Option<Class> {
        None
    }

    fn summary(&self) -> String {
        match &self.deployments {
            Some(_) => format!("{}: running again, pachd is ready", self.namespace),
            None => format!("{}: running; it was not suspended by pacharc", self.namespace),
        }
    }
}
