//! The command line, in two stages: what was typed (clap, with environment and configuration file below it), and what it
//! means (the jobs' options). Each command has one file: arguments, options, job, report, exit code.

mod arguments;
mod backup;
mod config;
mod discover;
mod exit;
mod extract;
mod generate;
mod guardian;
mod in_cluster;
mod inspect;
mod keygen;
mod list;
mod plan;
mod report;
mod restore;
mod resume;
mod status;
mod stdout;
mod suspend;
mod throwaway;
mod usage;
mod values;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use exit::{Failure, exit_code};
use report::{Report, ReportArgs};

pub use exit::CODES;
pub use generate::{command, flags_table};

/// Archives a whole Pachyderm cluster into one encrypted file, and brings it back.
#[derive(Debug, Parser)]
#[command(name = "pacharc", version, long_version = LONG_VERSION, arg_required_else_help = true)]
#[command(after_help = "`pacharc help COMMAND` describes a command with examples and exit codes.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (bundle format 1)");

#[derive(Debug, Subcommand)]
enum Command {
    Backup(backup::Backup),
    Verify(verify::Verify),
    Restore(restore::Restore),
    List(list::List),
    Extract(extract::Extract),
    Inspect(inspect::Inspect),
    Keygen(keygen::Keygen),
    Plan(plan::Plan),
    Discover(discover::Discover),
    Suspend(suspend::Suspend),
    Resume(resume::Resume),
    Status(status::Status),
    #[command(hide = true)]
    Guardian(guardian::Guardian),
    #[command(hide = true)]
    Throwaway(throwaway::Throwaway),
    Completions(generate::Completions),
    Man(generate::Man),
    #[command(hide = true)]
    Flags(generate::Flags),
}

/// A command that does work, and reports it.
trait Job: Sized {
    /// Its name, as typed.
    const NAME: &'static str;

    /// How it shall report.
    fn report(&self) -> &ReportArgs;

    /// Whether its product goes to standard output, where no event may then go.
    fn takes_stdout(&self) -> bool {
        false
    }

    /// Settles the options, reads the keys, runs the job. `matches` knows where a value came from.
    fn run(self, matches: &ArgMatches, report: &Report) -> Result<ExitCode, Failure>;

    /// All of it, up to the exit code.
    fn start(self, matches: &ArgMatches) -> ExitCode {
        let report = match Report::open(Self::NAME, self.report(), self.takes_stdout()) {
            Ok(report) => report,
            Err(failure) => return failure.print(),
        };
        match self.run(matches, &report) {
            Ok(code) => code,
            Err(failure) => report.fail(&failure),
        }
    }
}

/// Runs the command line `args`, the program's name first, and gives the process's exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let (cli, matches) = match parse(&args) {
        Ok(parsed) => parsed,
        Err(failure) => return failure.end(&args),
    };
    // The arguments of the command itself, which know where each value came from.
    let of_command = innermost(&matches);
    match cli.command {
        Command::Backup(job) => job.start(of_command),
        Command::Verify(job) => job.start(of_command),
        Command::Restore(job) => job.start(of_command),
        Command::List(job) => job.start(of_command),
        Command::Extract(job) => job.start(of_command),
        Command::Inspect(job) => job.start(of_command),
        Command::Discover(job) => job.start(of_command),
        Command::Plan(plan) => plan.start(of_command),
        Command::Suspend(job) => job.start(of_command),
        Command::Resume(job) => job.start(of_command),
        Command::Status(job) => job.start(of_command),
        Command::Guardian(job) => job.start(of_command),
        Command::Keygen(keygen) => finish(keygen.run()),
        Command::Throwaway(throwaway) => finish(throwaway.run()),
        Command::Completions(completions) => finish(completions.run()),
        Command::Man(man) => finish(man.run()),
        Command::Flags(flags) => finish(flags.run()),
    }
}

fn finish(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.print(),
    }
}

/// Why there is nothing to run.
enum ParseFailure {
    /// The command line itself; also `--help` and `--version`.
    Clap(clap::Error),
    /// The configuration file.
    Config(Failure),
}

impl ParseFailure {
    /// Prints it; as an event, too, where `--json` was among the arguments.
    fn end(self, args: &[OsString]) -> ExitCode {
        let failure = match self {
            Self::Config(failure) => failure,
            Self::Clap(error) => {
                // A closed standard error has nowhere to complain.
                let _ = error.print();
                if !error.use_stderr() {
                    return ExitCode::SUCCESS;
                }
                if args.iter().any(|arg| arg == "--json") {
                    report::print_error(&Failure::from(usage::Error::CommandLine(error)));
                }
                return exit_code(crate::failure::Class::Usage);
            }
        };
        if args.iter().any(|arg| arg == "--json") {
            report::print_error(&failure);
        }
        failure.print()
    }
}

/// Command line over environment over configuration file over default.
fn parse(args: &[OsString]) -> Result<(Cli, ArgMatches), ParseFailure> {
    let command = command();
    let mut matches = command.clone().try_get_matches_from(args).map_err(ParseFailure::Clap)?;
    if let Some(path) = config::file_of(innermost(&matches)) {
        let with_file = config::apply(command, &names(&matches), &path).map_err(|e| ParseFailure::Config(e.into()))?;
        matches = with_file.try_get_matches_from(args).map_err(ParseFailure::Clap)?;
    }
    let cli = Cli::from_arg_matches(&matches).map_err(|e| ParseFailure::Clap(e.format(&mut Cli::command())))?;
    Ok((cli, matches))
}

fn innermost(matches: &ArgMatches) -> &ArgMatches {
    match matches.subcommand() {
        Some((_, below)) => innermost(below),
        None => matches,
    }
}

/// The names of the subcommands typed, outermost first.
fn names(matches: &ArgMatches) -> Vec<String> {
    let mut names = Vec::new();
    let mut matches = matches;
    while let Some((name, below)) = matches.subcommand() {
        names.push(name.to_owned());
        matches = below;
    }
    names
}
