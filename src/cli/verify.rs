//! `pacharc verify`.

use std::process::ExitCode;

use clap::{ArgMatches, Args, ValueEnum};

use super::Job;
use super::arguments::{ExpectArgs, MachineArgs, NetworkArgs, UnlockArgs};
use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use crate::failure::Class;
use crate::options::Location;
use crate::verify::{Level, Options};

const EXAMPLES: &str = "
  Every byte, without a key:
    pacharc verify cluster.pacharc
  Every entry, with the key:
    pacharc verify --identity key.txt cluster.pacharc
  Does the dump name objects that are lacking, and which commits would they hurt?
    pacharc verify --identity key.txt --level closed cluster.pacharc
  On the way into cold storage:
    pacharc backup --config cluster.toml -o - | tee /vault/cluster.pacharc | pacharc verify -
  Is it this one, and fresh?
    pacharc verify --expect-id ID --not-older-than 36h cluster.pacharc";

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

/// Prove a bundle, with or without a key
///
/// The verdict is one word: sound, damaged or incomplete.
#[derive(Args, Debug)]
#[command(after_long_help = job_epilogue(EXAMPLES, CLASSES))]
pub(super) struct Verify {
    /// A file, `-` for standard input, or s3://bucket/key
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// How deep; contents where a key is given, else sums
    #[arg(long, value_name = "LEVEL")]
    level: Option<LevelArg>,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    expect: ExpectArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LevelArg {
    /// Every byte of the file against its sums; no key needed
    Sums,
    /// Every entry: hash, size, a chunk's key; tables' rows and fingerprints
    Contents,
    /// Also: the dump names no object that is lacking, migrations are complete, tracker, file sets and chunks agree
    Closed,
}

impl Job for Verify {
    const NAME: &'static str = "verify";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn run(self, _: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let names = self.unlock.names();
        let level = match self.level {
            Some(LevelArg::Sums) => Level::Sums,
            Some(LevelArg::Contents) => Level::Contents,
            Some(LevelArg::Closed) => Level::Closed,
            None if names.is_empty() => Level::Sums,
            None => Level::Contents,
        };
        let options = Options {
            bundle: Location::from(self.bundle.as_str()),
            level,
            expect: self.expect.expectations()?,
            ca_file: self.network.ca_file.clone(),
            limits: self.machine.limits()?,
        };
        let unlock = match (level, names.is_empty()) {
            (Level::Sums, true) => None,
            _ => Some(names.read()?),
        };
        report.run(async |interrupt, monitor| {
            Ok(crate::verify::run(&options, unlock.as_ref(), interrupt, monitor).await?)
        })
    }
}
