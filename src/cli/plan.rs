//! `pacharc plan`: a dry run of `backup` or `restore`, with the same flags.

use std::process::ExitCode;

use clap::{ArgMatches, Args, Subcommand};

use super::exit::{Failure, epilogue};
use super::report::{Report, ReportArgs};
use super::{Job, backup, restore};
use crate::failure::Class;

const EXAMPLES: &str = "
  What would be backed up, how large it is, and what is missing:
    pacharc plan backup --postgres postgres://pachyderm@db.example --bucket s3://pachyderm
  What a restore would do:
    pacharc plan restore cluster.pacharc --identity key.txt --config target.toml";

const CLASSES: &[Class] = &[
    Class::Other,
    Class::Usage,
    Class::Damaged,
    Class::Refused,
    Class::Credentials,
    Class::Unreachable,
    Class::Interrupted,
    Class::Terminated,
];

/// Dry run of backup or restore: what was found and where, sizes, permissions, tools, what is missing
///
/// Put `plan` before the command: the flags stay the same. Nothing is written; output and recipients may be left out.
#[derive(Args, Debug)]
#[command(after_long_help = epilogue(EXAMPLES, CLASSES), arg_required_else_help = true)]
pub(super) struct Plan {
    #[command(subcommand)]
    pub(super) what: What,
}

#[derive(Debug, Subcommand)]
pub(super) enum What {
    Backup(backup::Backup),
    Restore(restore::Restore),
}

/// `pacharc plan backup`.
pub(super) struct PlanBackup(pub(super) backup::Backup);

impl Job for PlanBackup {
    const NAME: &'static str = "plan";

    fn report(&self) -> &ReportArgs {
        self.0.report_args()
    }

    fn run(self, matches: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let options = self.0.options(matches)?;
        report.run(async |interrupt, monitor| Ok(crate::backup::plan(&options, interrupt, monitor).await?))
    }
}

/// `pacharc plan restore`.
pub(super) struct PlanRestore(pub(super) restore::Restore);

impl Job for PlanRestore {
    const NAME: &'static str = "plan";

    fn report(&self) -> &ReportArgs {
        self.0.report_args()
    }

    fn run(self, matches: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let options = self.0.options(matches)?;
        let unlock = self.0.unlock_names().read()?;
        report.run(async |interrupt, _| Ok(crate::restore::plan(&options, &unlock, interrupt).await?))
    }
}
