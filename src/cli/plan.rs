//! `pacharc plan`: a dry run of `backup` or `restore`, with the same flags.

use std::process::ExitCode;

use clap::{ArgMatches, Args, Subcommand};

use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use super::{Job, backup, restore, usage};
use crate::failure::Class;

const EXAMPLES: &str = "
  What would be backed up, how large it is, and what is missing:
    pacharc plan --postgres postgres://pachyderm@db.example --bucket s3://pachyderm
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
/// Put `plan` before the command: the flags stay the same; without a command, `backup` is meant. Nothing is written; output
/// and recipients may be left out.
#[derive(Args, Debug)]
#[command(after_long_help = job_epilogue(EXAMPLES, CLASSES), arg_required_else_help = true)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Plan {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    backup: Box<backup::Backup>,
}

#[derive(Debug, Subcommand)]
enum What {
    Backup(backup::Backup),
    Restore(restore::Restore),
}

impl Plan {
    /// All of it, up to the exit code.
    pub(super) fn start(self, matches: &ArgMatches) -> ExitCode {
        match self.what {
            None => PlanBackup(*self.backup).start(matches),
            Some(What::Backup(backup)) => PlanBackup(backup).start(matches),
            Some(What::Restore(restore)) => PlanRestore(restore).start(matches),
        }
    }
}

/// `pacharc plan backup`.
struct PlanBackup(backup::Backup);

impl Job for PlanBackup {
    const NAME: &'static str = "plan";

    fn report(&self) -> &ReportArgs {
        self.0.report_args()
    }

    fn run(self, matches: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        if self.0.is_in_cluster() {
            return Err(usage::Error::Conflict { one: "plan", other: "--in-cluster" }.into());
        }
        let options = self.0.options(matches)?;
        report.run(async |interrupt, monitor| Ok(crate::backup::plan(&options, interrupt, monitor).await?))
    }
}

/// `pacharc plan restore`.
struct PlanRestore(restore::Restore);

impl Job for PlanRestore {
    const NAME: &'static str = "plan";

    fn report(&self) -> &ReportArgs {
        self.0.report_args()
    }

    fn run(self, matches: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let options = self.0.options(matches)?;
        let unlock = self.0.unlock_names().read()?;
        report.run(async |interrupt, monitor| Ok(crate::restore::plan(&options, &unlock, interrupt, monitor).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command, innermost, parse};
    use super::*;

    /// The bucket that is planned for, and whether by a restore.
    fn planned(args: &[&str]) -> (String, bool) {
        let args: Vec<_> = ["pacharc", "plan"].iter().chain(args).map(Into::into).collect();
        let Ok((Cli { command: Command::Plan(plan) }, matches)) = parse(&args) else { panic!("{args:?}") };
        let matches = innermost(&matches);
        match plan.what {
            None => (plan.backup.options(matches).unwrap().bucket.unwrap(), false),
            Some(What::Backup(backup)) => (backup.options(matches).unwrap().bucket.unwrap(), false),
            Some(What::Restore(restore)) => (restore.options(matches).unwrap().bucket.unwrap(), true),
        }
    }

    #[test]
    fn a_backup_is_planned_where_nothing_else_is_said() {
        let bucket = || "file:///b".to_owned();
        assert_eq!(planned(&["--bucket=file:///b"]), (bucket(), false));
        assert_eq!(planned(&["backup", "--bucket=file:///b"]), (bucket(), false));
        assert_eq!(planned(&["restore", "x.pacharc", "--bucket=file:///b"]), (bucket(), true));
        for args in [&["pacharc", "plan", "--bucket=b", "restore", "x"][..], &["pacharc", "plan", "x"]] {
            let args: Vec<_> = args.iter().map(Into::into).collect();
            assert!(parse(&args).is_err(), "{args:?}");
        }
    }
}
