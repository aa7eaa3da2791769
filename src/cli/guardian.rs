//! `pacharc guardian`: started by pacharc alone, see `src/cluster/suspend/guardian`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args};
use serde::Serialize;
use uuid::Uuid;

use super::arguments::{ClusterArgs, NetworkArgs, ResumeArgs};
use super::exit::Failure;
use super::report::{Report, ReportArgs};
use super::{Job, values};
use crate::cluster::suspend::guardian::{End, Watch, watch};
use crate::cluster::{Cluster, suspend};
use crate::failure::Class;
use crate::outcome::Outcome;

/// Resume a suspended cluster when the run that suspended it is gone
#[derive(Args, Debug)]
pub(super) struct Guardian {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The run that it guards
    #[arg(long, value_name = "UUID")]
    run: Uuid,
    /// The command that asked for it
    #[arg(long, value_name = "UUID")]
    asked: Option<Uuid>,
    /// What it runs as
    #[arg(long, value_name = "KIND")]
    kind: String,
    /// How long a hold may last
    #[arg(long = "for", value_name = "TIME", value_parser = values::duration)]
    limit: Option<Duration>,
    #[command(flatten)]
    resume: ResumeArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    report: ReportArgs,
}

impl Job for Guardian {
    const NAME: &'static str = "guardian";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn run(self, _: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let target = self.cluster.required()?;
        let options = suspend::Options { hold: self.limit, ..self.resume.options(&target, &self.network) };
        let guarded = Watch { run: self.run, asked: self.asked, kind: self.kind };
        report.run(async |interrupt, monitor| {
            let work = async {
                let cluster = Cluster::connect(&target, self.network.ca_file.as_deref()).await?;
                Ok::<_, Failure>(Ended { end: watch(&cluster, &guarded, &options, &*monitor).await? })
            };
            interrupt.guard(work).await
        })
    }
}

/// How it ended.
#[derive(Debug, Serialize)]
struct Ended {
    end: End,
}

impl Outcome for Ended {
    fn class(&self) -> Option<Class> {
        None
    }

    fn summary(&self) -> String {
        match self.end {
            End::NotNeeded => "no guardian is needed any more".to_owned(),
            End::Replaced => "another guardian has taken over".to_owned(),
            End::Resumed => "the cluster was resumed".to_owned(),
        }
    }
}
