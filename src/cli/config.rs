//! The layers below the command line: environment and configuration file.
//!
//! Both become properties of clap's arguments (`env` and `default_values`), so that clap's own order and each flag's own
//! parser hold for every layer.

use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

use super::usage::Error;

/// What variables begin with: `PACHARC_MAX_MEMORY` is `--max-memory`.
const PREFIX: &str = "PACHARC_";

/// Keys are made, and texts are generated, by what is typed alone.
const WITHOUT_SETTINGS: [&str; 4] = ["keygen", "completions", "man", "flags"];

/// Makes every flag of `command` and its subcommands take its value from the environment, too. An empty variable counts
/// as unset, as it does for libpq.
pub(super) fn with_environment(command: Command) -> Command {
    let command = command.mut_args(|arg| match variable(&arg) {
        None => arg,
        Some(name) => {
            let counts = std::env::var_os(&name).is_none_or(|value| !value.is_empty());
            // Help says once that every flag has its variable.
            let arg = if counts { arg.env(name).hide_env(true) } else { arg };
            // `PACHARC_QUIET=1` and `=yes` are as good as `=true`.
            match arg.get_action() {
                ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
                _ => arg,
            }
        }
    });
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    // Each one is altered, even if into itself: what is not would change its place.
    names.into_iter().fold(command, |command, name| {
        let takes_settings = !WITHOUT_SETTINGS.contains(&name.as_str());
        command.mut_subcommand(name, |below| if takes_settings { with_environment(below) } else { below })
    })
}

fn variable(arg: &Arg) -> Option<String> {
    Some(format!("{PREFIX}{}", arg.get_long()?.replace('-', "_").to_uppercase()))
}

/// The configuration file that is named, if one is.
pub(super) fn file_of(matches: &ArgMatches) -> Option<PathBuf> {
    matches.try_get_one::<PathBuf>("config").ok().flatten().cloned()
}

/// Makes the settings in `file` the defaults of the command named by `names` (`["plan", "backup"]`).
///
/// Keys are the long names of flags. At the top they hold for every command that has such a flag; in a table named after
/// a command, for this one alone.
pub(super) fn apply(mut root: Command, names: &[String], file: &Path) -> Result<Command, Error> {
    let table = read(file)?;
    let (Some(name), Some(command)) = (names.last(), descend(&root, names)) else { return Ok(root) };
    // A plan takes the settings of what it plans: of a backup, where that is not said.
    let name = if command.has_subcommands() { "backup" } else { name };

    let mut settings: Vec<(Arg, Vec<String>)> = Vec::new();
    for (key, value) in table.iter().filter(|(_, value)| !value.is_table()) {
        if let Some(arg) = find(command, key) {
            settings.push((arg.clone(), values(file, key, arg, value)?));
        } else if !root.get_subcommands().any(|command| find(command, key).is_some()) {
            return Err(unknown(file, key, &root));
        }
    }
    for (of, value) in &table {
        let Value::Table(inner) = value else { continue };
        let owner = root.find_subcommand(of).filter(|owner| !owner.has_subcommands());
        let Some(owner) = owner else { return Err(unknown(file, of, &root)) };
        for (key, value) in inner {
            let Some(arg) = find(owner, key) else { return Err(unknown(file, &format!("{of}.{key}"), &root)) };
            if of == name {
                settings.push((arg.clone(), values(file, &format!("{of}.{key}"), arg, value)?));
            }
        }
    }
    root = alter(root, names, settings);
    Ok(root)
}

fn read(file: &Path) -> Result<Table, Error> {
    let text =
        std::fs::read_to_string(file).map_err(|source| Error::ConfigUnreadable { path: file.to_owned(), source })?;
    text.parse::<Table>().map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        Error::ConfigSyntax {
            path: file.to_owned(),
            line: before.matches('\n').count() + 1,
            problem: error.message().to_owned(),
        }
    })
}

fn descend<'a>(root: &'a Command, names: &[String]) -> Option<&'a Command> {
    names.iter().try_fold(root, |command, name| command.find_subcommand(name))
}

/// The flag that `key` names; a file does not name another one.
fn find<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(key) && key != "config")
}

/// Sets the defaults of the command named by `names`; later settings win.
fn alter(command: Command, names: &[String], settings: Vec<(Arg, Vec<String>)>) -> Command {
    match names {
        [] => settings
            .into_iter()
            .fold(command, |command, (arg, values)| command.mut_arg(arg.get_id(), |arg| arg.default_values(values))),
        [name, below @ ..] => command.mut_subcommand(name, |command| alter(command, below, settings)),
    }
}

/// The value of a key as texts, checked by the flag's own parser.
fn values(file: &Path, key: &str, arg: &Arg, value: &Value) -> Result<Vec<String>, Error> {
    let refuse = |problem: String| Error::ConfigValue { path: file.to_owned(), key: key.to_owned(), problem };
    let texts = match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(on)) => return Ok(vec![on.to_string()]),
        (ArgAction::SetTrue, _) => return Err(refuse("it is true or false".to_owned())),
        (ArgAction::Count, Value::Integer(n @ 0..=3)) => return Ok(vec![n.to_string()]),
        (ArgAction::Count, _) => return Err(refuse("it is a number from 0 to 3".to_owned())),
        (ArgAction::Append, Value::Array(items)) => items.iter().map(text).collect(),
        (ArgAction::Append, one) => text(one).map(|text| vec![text]),
        (_, Value::Array(_)) => return Err(refuse("it takes one value, not a list".to_owned())),
        (_, one) => text(one).map(|text| vec![text]),
    };
    let texts = texts.ok_or_else(|| refuse("it is a text or a number".to_owned()))?;
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    let typed = texts.iter().map(|text| format!("{flag}={text}"));
    let alone = Command::new("value").no_binary_name(true).arg(arg.clone().env(None::<&str>));
    match alone.try_get_matches_from(typed) {
        Ok(_) => Ok(texts),
        Err(error) => Err(refuse(reason(&error))),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What a flag's parser has against a value, without the value itself.
fn reason(error: &clap::Error) -> String {
    match (error.kind(), error.get(ContextKind::ValidValue)) {
        (ErrorKind::InvalidValue, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            format!("it is one of {}", valid.join(", "))
        }
        _ => match std::error::Error::source(error) {
            Some(source) => source.to_string(),
            None => "it has a value that cannot be used".to_owned(),
        },
    }
}

fn unknown(file: &Path, key: &str, root: &Command) -> Error {
    let name = key.rsplit('.').next().unwrap_or(key).replace('_', "-");
    let flags = root.get_subcommands().flat_map(Command::get_arguments).filter_map(Arg::get_long);
    let near = |flag: &&str| *flag == name || (name.len() > 3 && (flag.contains(&name) || name.contains(*flag)));
    let similar = flags.filter(|flag| *flag != "config").find(near).map(str::to_owned);
    Error::ConfigKey { path: file.to_owned(), key: key.to_owned(), similar }
}

#[cfg(test)]
mod tests {
    use super::super::generate::command;
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn with(text: &str, args: &[&str]) -> Result<ArgMatches, Error> {
        let file = file(text);
        let names: Vec<String> = args.iter().take_while(|a| !a.starts_with('-')).map(ToString::to_string).collect();
        let names = if names[0] == "plan" { names } else { vec![names[0].clone()] };
        let command = apply(command(), &names, file.path())?;
        let args = std::iter::once("pacharc").chain(args.iter().copied());
        let mut matches = command.try_get_matches_from(args).unwrap();
        while let Some((_, below)) = matches.remove_subcommand() {
            matches = below;
        }
        Ok(matches)
    }

    fn error(text: &str) -> String {
        with(text, &["backup"]).unwrap_err().to_string()
    }

    fn strings(matches: &ArgMatches, id: &str) -> Vec<String> {
        matches.get_many::<String>(id).unwrap_or_default().cloned().collect()
    }

    #[test]
    fn a_file_is_below_the_command_line_and_above_the_default() {
        let text = "jobs = 3\nmax-memory = '1GiB'\nrecipient = ['a', 'b']\nstrict = true\nverbose = 2";
        let matches = with(text, &["backup", "--jobs", "5"]).unwrap();
        assert_eq!(matches.get_one::<usize>("jobs"), Some(&5));
        assert_eq!(matches.get_one::<u64>("max_memory"), Some(&(1 << 30)));
        assert_eq!(strings(&matches, "recipient"), ["a", "b"]);
        assert!(matches.get_flag("strict"));
        assert_eq!(matches.get_count("verbose"), 2);
        let matches = with(text, &["backup", "--recipient", "c"]).unwrap();
        assert_eq!(strings(&matches, "recipient"), ["c"]);
    }

    #[test]
    fn a_table_of_the_command_wins_and_another_one_is_not_for_it() {
        let text = "bucket = 's3://top'\n[restore]\nbucket = 's3://restore'\nowner = 'o'\n[backup]\nstrict = true";
        let bucket = |args| with(text, args).unwrap().get_one::<String>("bucket").cloned();
        assert_eq!(bucket(&["backup"]), Some("s3://top".into()));
        assert_eq!(bucket(&["plan", "backup"]), Some("s3://top".into()));
        assert_eq!(bucket(&["plan", "restore", "--json", "x"]), Some("s3://restore".into()));
        assert_eq!(bucket(&["plan", "--json"]), Some("s3://top".into()));
        assert!(with(text, &["plan", "--json"]).unwrap().get_flag("strict"));
    }

    #[test]
    fn a_key_of_other_commands_alone_is_fine_at_the_top() {
        with("owner = 'o'\nidentity = 'k'", &["backup"]).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key() {
        let cases = [
            ("recipent = 'x'", "unknown key `recipent` in"),
            ("[backup]\nowner = 'x'", "unknown key `backup.owner` in"),
            ("[bakup]\n", "unknown key `bakup` in"),
            ("[plan]\nbucket = 'x'", "unknown key `plan` in"),
            ("config = 'x'", "unknown key `config` in"),
            ("max-memory = 'lots'", "a size is a number with a unit, such as 256MiB"),
            ("jobs = 0", "a number from 1 to 256"),
            ("quiesce = 'hard'", "it is one of online"),
            ("strict = 1", "it is true or false"),
            ("verbose = true", "it is a number from 0 to 3"),
            ("output = ['a']", "it takes one value, not a list"),
            ("database = [['a']]", "it is a text or a number"),
            ("output = '{x}'", "unknown field {x}"),
            ("a =\n", "line 1: "),
            ("jobs = 1\njobs = 2\n", "line 2: "),
        ];
        for (text, message) in cases {
            let error = error(text);
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_is_not_repeated() {
        let error = error("jobs = 1\npostgres = \"postgres://u:hunter2@h\n");
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_file_in_the_documentation_fits() {
        let page = include_str!("../../docs/configuration.md");
        let text = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        for name in ["backup", "verify", "restore", "list", "extract", "inspect"] {
            let file = file(text);
            apply(command(), &[name.to_owned()], file.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let matches = with(text, &["restore", "x"]).unwrap();
        assert_eq!(matches.get_many::<crate::restore::Rename>("database").unwrap().count(), 2);
    }
}
