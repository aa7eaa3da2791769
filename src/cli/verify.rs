//! `pacharc verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args, ValueEnum};

use super::arguments::{
    ClusterArgs, EvidenceArgs, ExpectArgs, MachineArgs, NetworkArgs, ServerArgs, SignArgs, UnlockArgs, is_typed,
};
use super::exit::{Failure, job_epilogue};
use super::report::{Report, ReportArgs};
use super::{Job, usage, values};
use crate::backup;
use crate::failure::Class;
use crate::options::{Location, Postgres};
use crate::restore::Rename;
use crate::secret::Secret;
use crate::verify::against::{self, Sample, Side};
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
  Has the bucket still what was backed up, a thirtieth each day?
    pacharc verify --identity key.txt --against source --bucket s3://pachyderm \\
      --postgres postgres://pachyderm@db.example/pachyderm \\
      --sample $(( $(date +%s) / 86400 % 30 + 1 ))/30 cluster.pacharc
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
    #[arg(long, value_name = "URL")]
    scratch_postgres: Option<String>,
    #[command(flatten)]
    against: AgainstArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    expect: ExpectArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    evidence: EvidenceArgs,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Comparing")]
struct AgainstArgs {
    /// Compare with what lies somewhere now (--postgres, --bucket, --namespace), instead of reading the whole bundle
    #[arg(long, value_name = "SIDE", conflicts_with = "level")]
    against: Option<SideArg>,
    /// A database that has another name there (repeatable)
    #[arg(long, value_name = "BUNDLED=THERE", value_parser = values::rename)]
    database: Vec<Rename>,
    /// Compare a part: 5%, 1000 (objects), 30s (as many as that takes), 3/30 (the third of thirty that are all)
    #[arg(long, value_name = "SAMPLE")]
    sample: Option<Sample>,
    /// Choose the sample by this number, which the verdict names, to repeat it; by chance when not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Keep progress in FILE; an interrupted comparison goes on from there, and takes it away at the end
    #[arg(long = "continue", value_name = "FILE")]
    progress: Option<PathBuf>,
}

impl AgainstArgs {
    /// Refuses what was typed for a comparison that is not asked for.
    fn check(&self, matches: &ArgMatches) -> Result<(), usage::Error> {
        let (compares, samples) = (self.against.is_some(), self.sample.is_some());
        for (id, what, needed, is_given) in [
            ("database", "--database", "--against", compares),
            ("sample", "--sample", "--against", compares),
            ("progress", "--continue", "--against", compares),
            ("seed", "--seed", "--sample", samples),
        ] {
            if !is_given && is_typed(matches, id) {
                return Err(usage::Error::Needs { what, needed });
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SideArg {
    /// What was backed up: what it has lost or broken since
    Source,
    /// What was restored: it must be as the bundle has it
    Target,
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
        let pg_bin = self.server.pg_bin();
        match &self.scratch_postgres {
            None => Scratch::Throwaway(pg_bin),
            Some(url) => Scratch::Server(Postgres {
                url: Secret::from(url.clone()),
                from_command_line: is_typed(matches, "scratch_postgres"),
                pg_bin,
            }),
        }
    }
}

impl Verify {
    /// The comparison that is asked for, if one is.
    fn comparison(&self, matches: &ArgMatches) -> Result<Option<against::Options>, Failure> {
        let AgainstArgs { against, database, sample, seed, progress } = &self.against;
        self.against.check(matches)?;
        self.sign.check()?;
        let cluster = self.cluster.cluster(matches)?;
        let Some(side) = against else { return Ok(None) };
        if self.server.is_empty() && cluster.is_none() {
            return Err(usage::Error::Missing {
                what: "what to compare with",
                advice: "Name it with --postgres, --bucket, or --namespace.",
            }
            .into());
        }
        let place = backup::Options {
            postgres: self.server.postgres(matches, cluster.as_ref()),
            cluster,
            suspension: None,
            databases: Vec::new(),
            bucket: self.server.bucket.clone(),
            ca_file: self.network.ca_file.clone(),
            output: None,
            quiesce: backup::Quiesce::Online,
            live_only: false,
            exclude: Vec::new(),
            strict: false,
            compression_level: 3,
            limits: self.machine.limits()?,
        };
        Ok(Some(against::Options {
            bundle: Location::from(self.bundle.as_str()),
            side: match side {
                SideArg::Source => Side::Source,
                SideArg::Target => Side::Target,
            },
            place,
            renames: database.clone(),
            sample: *sample,
            seed: *seed,
            progress: progress.clone(),
            expect: self.expect.expectations()?,
        }))
    }
}

impl Job for Verify {
    const NAME: &'static str = "verify";

    fn report(&self) -> &ReportArgs {
        &self.report
    }

    fn run(self, matches: &ArgMatches, report: &Report) -> Result<ExitCode, Failure> {
        let names = self.unlock.names();
        if let Some(options) = self.comparison(matches)? {
            let unlock = names.read()?;
            let keeper = self.evidence.keeper(self.sign.names().read()?)?;
            return report.run_kept(keeper.as_ref(), async |interrupt, monitor| {
                Ok(against::run(&options, &unlock, interrupt, monitor).await?)
            });
        }
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
        let keeper = self.evidence.keeper(self.sign.names().read()?)?;
        report.run_kept(keeper.as_ref(), async |interrupt, monitor| {
            Ok(crate::verify::run(&options, unlock.as_ref(), interrupt, monitor).await?)
        })
    }
}
