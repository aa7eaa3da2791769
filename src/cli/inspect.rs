//! `pacharc inspect`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use super::Job;
use super::arguments::{NetworkArgs, UnlockArgs};
use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use crate::inspect::Options;
use crate::options::Location;

const EXAMPLES: &str = "
  What anybody can know:
    pacharc inspect cluster.pacharc
  The manifest, too:
    pacharc inspect cluster.pacharc --identity key.txt";

/// What a bundle is: id, version, size, kinds of recipients; the manifest
///
/// Without a key: what anybody who has the file can know. With one: the manifest, too.
#[derive(Args, Debug)]
#[command(after_long_help = job_epilogue(EXAMPLES, super::list::CLASSES))]
pub(super) struct Inspect {
    /// A file, `-` for standard input, or s3://bucket/key
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    report: ReportArgs,
}

impl Job for Inspect {
    const NAME: &'static str = "inspect";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn run(self, _: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let options = Options { bundle: Location::from(self.bundle.as_str()), ca_file: self.network.ca_file.clone() };
        let names = self.unlock.names();
        // Nobody is asked for a passphrase here: much is said without one.
        let unlock = if names.is_empty() { None } else { Some(names.read()?) };
        report.run(async |interrupt, monitor| {
            Ok(crate::inspect::run(&options, unlock.as_ref(), interrupt, monitor).await?)
        })
    }
}
