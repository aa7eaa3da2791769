//! `pacharc extract`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};

use super::Job;
use super::arguments::{MachineArgs, NetworkArgs, TrustArgs, UnlockArgs};
use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use super::usage;
use crate::extract::{Destination, Options};
use crate::failure::Class;
use crate::options::Location;

const EXAMPLES: &str = "
  One object, below the folder out:
    pacharc extract cluster.pacharc objects/chunk/… --identity key.txt -o out
  The schema of a database, to the screen:
    pacharc extract --identity key.txt -o - cluster.pacharc \\
      database/pachyderm/attempt-1/pre-data.sql | less
  Everything of one database:
    pacharc extract cluster.pacharc database/pachyderm --identity key.txt -o out
  Everything that is left of a damaged bundle, or of one whose end is lacking:
    pacharc extract --keep-going cluster.pacharc database objects cluster \
      --identity key.txt -o out";

/// Those of a listing, and what a source did not have.
const CLASSES: &[Class] = &[
    Class::Other,
    Class::Usage,
    Class::Damaged,
    Class::Incomplete,
    Class::Refused,
    Class::Credentials,
    Class::Unreachable,
    Class::Interrupted,
    Class::Terminated,
];

/// Take single entries out
#[derive(Args, Debug)]
#[command(after_long_help = job_epilogue(EXAMPLES, CLASSES))]
pub(super) struct Extract {
    /// A file, `-` for standard input, or s3://bucket/key
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// Entries as `pacharc list` prints them, or folders of entries
    #[arg(value_name = "PATH", required = true)]
    path: Vec<String>,
    /// The folder to write below, or `-` for standard output; never anything outside of it
    #[arg(long, short, value_name = "DIR|-", default_value = ".")]
    output: PathBuf,
    /// Go on past damage: extract what is undamaged, also of a torn bundle, and name the rest (exit code 3)
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    report: ReportArgs,
}

impl Job for Extract {
    const NAME: &'static str = "extract";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn takes_stdout(&self) -> bool {
        self.output.as_os_str() == "-"
    }

    fn run(self, _: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let stdout = self.takes_stdout();
        if stdout && self.keep_going {
            return Err(usage::Error::Conflict { one: "--keep-going", other: "--output -" }.into());
        }
        let options = Options {
            bundle: Location::from(self.bundle.as_str()),
            paths: self.path.clone(),
            keep_going: self.keep_going,
            destination: if stdout { Destination::Stdout } else { Destination::Folder(self.output.clone()) },
            trusted: self.trust.keys()?,
            ca_file: self.network.ca_file.clone(),
            limits: self.machine.limits()?,
        };
        let unlock = self.unlock.names().read()?;
        report.run(async |interrupt, monitor| Ok(crate::extract::run(&options, &unlock, interrupt, monitor).await?))
    }
}
