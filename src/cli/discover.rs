//! `pacharc discover`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use super::Job;
use super::arguments::{ClusterArgs, NetworkArgs};
use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use crate::cluster::{Cluster, discover};
use crate::failure::Class;

const EXAMPLES: &str = "
  What a backup would find:
    pacharc discover --namespace pachyderm
  In another cluster, for a program:
    pacharc discover --namespace pachyderm --context production --json";

const CLASSES: &[Class] =
    &[Class::Other, Class::Usage, Class::Credentials, Class::Unreachable, Class::Interrupted, Class::Terminated];

/// What a namespace says about its databases, bucket, version and Helm release
///
/// Reads the Deployments, and the Secrets and ConfigMaps that they refer to; says of each fact where it was found. Secrets
/// are not printed. Nothing is changed, and neither database nor bucket is spoken to.
#[derive(Args, Debug)]
#[command(after_long_help = job_epilogue(EXAMPLES, CLASSES))]
pub(super) struct Discover {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    report: ReportArgs,
}

impl Job for Discover {
    const NAME: &'static str = "discover";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn run(self, _: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let options = self.cluster.required()?;
        let ca_file = self.network.ca_file;
        report.run(async |interrupt, monitor| {
            let found = interrupt.guard(async {
                let cluster = Cluster::connect(&options, ca_file.as_deref()).await?;
                Ok::<_, Failure>(discover::discover(&cluster).await?)
            });
            let found = found.await?;
            found.warnings.iter().for_each(|warning| monitor.warn(warning.clone()));
            Ok(found)
        })
    }
}
