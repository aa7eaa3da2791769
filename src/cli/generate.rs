//! What is made from the definition of the command line: completions, man pages, the table of flags.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, Command, CommandFactory as _};
use clap_complete::Shell;

use super::exit::Failure;
use super::{Cli, config, stdout};
use crate::failure::{Class, Explain};

/// The whole command line, with environment variables.
#[must_use]
pub fn command() -> Command {
    config::with_environment(Cli::command())
}

/// Print a shell's completions
///
/// For bash: `pacharc completions bash > /etc/bash_completion.d/pacharc`
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "pacharc", &mut text);
        Ok(stdout::print(&String::from_utf8_lossy(&text))?)
    }
}

/// Write the man pages into a folder
#[derive(Args, Debug)]
pub(super) struct Man {
    /// The folder, which must exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write man pages into {}", folder.display())]
struct ManError {
    folder: PathBuf,
    source: io::Error,
}

impl Explain for ManError {
    fn class(&self) -> Class {
        Class::Other
    }
}

impl Man {
    pub(super) fn run(self) -> Result<(), Failure> {
        let written = clap_mangen::generate_to(command(), &self.folder);
        Ok(written.map_err(|source| ManError { folder: self.folder, source })?)
    }
}

/// Print the table of all flags (docs/flags.md)
#[derive(Args, Debug)]
pub(super) struct Flags {}

impl Flags {
    pub(super) fn run(self) -> Result<(), Failure> {
        Ok(stdout::print(&flags_table())?)
    }
}

const INTRODUCTION: &str = "\
# Flags

Every flag of every command. This page is generated: `pacharc flags` prints it.

A value is taken from the command line, else from the environment, else from the file that `--config` names, else it is
the default (`docs/configuration.md`). Flags marked * may be repeated.
";

/// `docs/flags.md`.
#[must_use]
pub fn flags_table() -> String {
    let root = command();
    let mut page = String::from(INTRODUCTION);
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        section(&mut page, command);
    }
    page
}

fn section(page: &mut String, command: &Command) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(page, "\n## pacharc {}\n\n{about}.\n", command.get_name());
    if command.has_subcommands() {
        let names: Vec<String> = command.get_subcommands().map(|below| format!("`{}`", below.get_name())).collect();
        let default = names.first().map(String::as_str).unwrap_or_default();
        let followed = format!("Followed by {}, with the flags of that command", names.join(" or "));
        let _ = write!(page, "\n{followed}; {default} may be left out.\n");
        return;
    }
    page.push_str("\n| flag | meaning | default | environment |\n|---|---|---|---|\n");
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            cell(&form(arg)),
            cell(&meaning(arg)),
            cell(&default(arg)),
            arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default(),
        );
    }
}

/// `-o`, `--output` FILE
fn form(arg: &Arg) -> String {
    let value = arg.get_value_names().unwrap_or_default().join(" ");
    let repeated = if matches!(arg.get_action(), ArgAction::Append) { " *" } else { "" };
    let Some(long) = arg.get_long() else { return format!("{value}{repeated}") };
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    match arg.get_action().takes_values() {
        true => format!("{short}`--{long}` {value}{repeated}"),
        false => format!("{short}`--{long}`"),
    }
}

fn meaning(arg: &Arg) -> String {
    let mut meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = match arg.get_action().takes_values() && !arg.is_hide_possible_values_set() {
        true => arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect(),
        false => Vec::new(),
    };
    if !values.is_empty() {
        let _ = write!(meaning, ": {}", values.join(", "));
    }
    meaning
}

fn default(arg: &Arg) -> String {
    let values: Vec<String> = match arg.get_action().takes_values() {
        true => arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect(),
        false => Vec::new(),
    };
    values.join(", ")
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn examples_use_flags_that_exist() {
        let root = command();
        let flags: Vec<&str> =
            root.get_subcommands().flat_map(Command::get_arguments).filter_map(Arg::get_long).collect();
        for command in root.get_subcommands().filter(|command| !WITHOUT_EXAMPLES.contains(&command.get_name())) {
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("EXAMPLES:\n  ") && help.contains("EXIT CODES:\n"), "{}", command.get_name());
            let examples = help.split("EXAMPLES:").nth(1).unwrap().split("EXIT CODES:").next().unwrap();
            let widest = help.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= 100, "{}: help of {widest} columns would be broken", command.get_name());
            for word in examples.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
                assert!(flags.contains(&word), "{}: --{word}", command.get_name());
            }
        }
    }

    const WITHOUT_EXAMPLES: [&str; 6] = ["completions", "man", "flags", "guardian", "help", "throwaway"];
}
