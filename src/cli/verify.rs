//! `pacharc verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};

use super::Job;
use super::arguments::{ExpectArgs, MachineArgs, NetworkArgs, UnlockArgs};
use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use crate::failure::Class;
use crate::options::{Location, Postgres};
use crate::secret::Secret;
use crate::verify::{Level, Options, Scratch};

const EXAMPLES: &str = "
  Every byte, without a key:
    pacharc verify cluster.pacharc
  Every entry, with the key:
    pacharc verify --identity key.txt cluster.pacharc
  Does the dump name objects that are lacking, and which commits would they hurt?
    pacharc verify --identity key.txt --level closed cluster.pacharc
  Does it restore? Into a PostgreSQL that is made for it, and goes with it:
    pacharc verify --identity key.txt --level restore cluster.pacharc
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
    /// Level restore: load into this server instead of a throwaway one; what is made on it is dropped
    #[arg(long, value_name = "URL", help_heading = "Trial restore")]
    scratch_postgres: Option<String>,
    /// The folder of PostgreSQL's programs, the server's included; found where not given
    #[arg(long, value_name = "DIR", help_heading = "Trial restore")]
    pg_bin: Option<PathBuf>,
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
    /// Also: the dump is loaded into a PostgreSQL of its own, and read out again; foreign keys and indexes hold
    Restore,
}

impl Verify {
    fn scratch(&self, matches: &ArgMatches) -> Scratch {
        let pg_bin = self.pg_bin.clone();
        match &self.scratch_postgres {
            None => Scratch::Throwaway(pg_bin),
            Some(url) => Scratch::Server(Postgres {
                url: Secret::from(url.clone()),
                from_command_line: matches.value_source("scratch_postgres") == Some(ValueSource::CommandLine),
                pg_bin,
            }),
        }
    }
}

impl Job for Verify {
    const NAME: &'static str = "verify";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn run(self, matches: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let names = self.unlock.names();
        let level = match self.level {
            Some(LevelArg::Sums) => Level::Sums,
            Some(LevelArg::Contents) => Level::Contents,
            Some(LevelArg::Closed) => Level::Closed,
            Some(LevelArg::Restore) => Level::Restore,
            None if names.is_empty() => Level::Sums,
            None => Level::Contents,
        };
        let options = Options {
            bundle: Location::from(self.bundle.as_str()),
            level,
            scratch: self.scratch(matches),
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
