//! `pacharc list`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use super::Job;
use super::arguments::{MachineArgs, NetworkArgs, TrustArgs, UnlockArgs};
use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use super::stdout::Output;
use crate::failure::Class;
use crate::list::Options;
use crate::options::Location;

const EXAMPLES: &str = "
  Everything:
    pacharc list cluster.pacharc --identity key.txt
  The databases' entries:
    pacharc list cluster.pacharc database --identity key.txt
  For a program:
    pacharc list cluster.pacharc --identity key.txt --json | jq .";

pub(super) const CLASSES: &[Class] = &[
    Class::Other,
    Class::Usage,
    Class::Damaged,
    Class::Refused,
    Class::Credentials,
    Class::Unreachable,
    Class::Interrupted,
    Class::Terminated,
];

/// The entries inside: databases, tables, objects, cluster files
#[derive(Args, Debug)]
#[command(after_long_help = job_epilogue(EXAMPLES, CLASSES))]
pub(super) struct List {
    /// A file, `-` for standard input, or s3://bucket/key
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// Only these entries, and those below them; all when not given
    #[arg(value_name = "PATH")]
    path: Vec<String>,
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

impl Job for List {
    const NAME: &'static str = "list";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn run(self, _: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let options = Options {
            bundle: Location::from(self.bundle.as_str()),
            paths: self.path.clone(),
            trusted: self.trust.keys()?,
            ca_file: self.network.ca_file.clone(),
            limits: self.machine.limits()?,
        };
        let unlock = self.unlock.names().read()?;
        let mut output = Output::new();
        let reader = output.reader();
        // Where events go to standard output, they are the list.
        let text = !report.has_events_on_stdout();
        let listed = report.run(async |interrupt, monitor| {
            let output = text.then_some(&mut output as &mut (dyn std::io::Write + Send));
            Ok(crate::list::run(&options, &unlock, output, interrupt, monitor).await?)
        });
        match listed {
            // `pacharc list … | head`
            Err(_) if reader.has_gone() => Ok(ExitCode::SUCCESS),
            listed => listed,
        }
    }
}
