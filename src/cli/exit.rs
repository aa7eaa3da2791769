//! The way out: any error as two lines and an exit code.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use crate::failure::{Class, Explain};
use crate::visible::{one_line, visible};

/// Any room's error, on its way to the user.
#[derive(Debug)]
pub(super) struct Failure(Box<dyn Explain>);

impl<E: Explain> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl Failure {
    pub(super) fn class(&self) -> Class {
        self.0.class()
    }

    pub(super) fn advice(&self) -> Option<String> {
        self.0.advice()
    }

    /// What happened, with its causes, in one line.
    pub(super) fn message(&self) -> String {
        let mut message = self.0.to_string();
        let causes: Vec<String> =
            std::iter::successors(self.0.source(), |&error| StdError::source(error)).map(ToString::to_string).collect();
        for (at, cause) in causes.iter().enumerate() {
            // Some errors have their cause, or the root of it, in their own text.
            let is_told = causes.iter().skip(at).any(|cause| message.contains(cause.as_str()));
            if !is_told {
                let _ = write!(message, ": {cause}");
            }
        }
        message.replace(['\n', '\r'], " ")
    }

    /// Two lines: what happened, and what to do next.
    pub(super) fn lines(&self) -> String {
        let mut lines = format!("pacharc: error: {}", one_line(&self.message()));
        if let Some(advice) = self.advice() {
            // Where a cluster is left suspended, the last line is the command that brings it back.
            let shown = if self.class() == Class::Suspended { visible(&advice) } else { one_line(&advice) };
            let _ = write!(lines, "\nhint: {shown}");
        }
        lines
    }

    /// Writes them to standard error, where there is no report.
    pub(super) fn print(&self) -> ExitCode {
        // Where standard error is closed, the exit code has to do.
        let _ = writeln!(std::io::stderr().lock(), "{}", self.lines());
        exit_code(self.class())
    }
}

/// The process's exit code of a class.
pub(super) fn exit_code(class: Class) -> ExitCode {
    ExitCode::from(class.exit_code())
}

/// Every exit code but 0, with its meaning: what help texts and `docs/exit-codes.md` say.
pub const CODES: [(Class, &str); 10] = [
    (Class::Other, "any other failure (a full disk included)"),
    (Class::Usage, "wrong usage: command line, environment or configuration file"),
    (Class::Damaged, "the bundle, or the copy, is damaged"),
    (Class::Incomplete, "incomplete: the source lacked live objects, or the bundle is not closed"),
    (Class::Refused, "refused: target not empty or the source itself, output exists, unknown format, cluster in use"),
    (Class::Credentials, "key, signature, credentials or permission"),
    (Class::Unreachable, "database, bucket or cluster not reached; a tool is missing, too old, or died"),
    (Class::Suspended, "the cluster is suspended, or did not become ready again"),
    (Class::Interrupted, "interrupted by SIGINT"),
    (Class::Terminated, "interrupted by SIGTERM"),
];

/// The end of a long help text: where else values come from, examples, and the exit codes that this command can have.
pub(super) fn job_epilogue(examples: &str, classes: &[Class]) -> String {
    let environment =
        "ENVIRONMENT:\n  A flag --some-flag takes its value from PACHARC_SOME_FLAG, too, or from the file of --config.";
    format!("{environment}\n\n{}", epilogue(examples, classes))
}

/// The same for a command without settings: examples and exit codes.
pub(super) fn epilogue(examples: &str, classes: &[Class]) -> String {
    let mut text = format!("EXAMPLES:{}\n\nEXIT CODES:\n    0  done and proved\n", examples.trim_end());
    for (class, meaning) in CODES.iter().filter(|(class, _)| classes.contains(class)) {
        let _ = writeln!(text, "  {:>3}  {meaning}", class.exit_code());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot copy object chunk/1")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("request failed: {0}")]
    struct Middle(#[source] std::io::Error);

    impl Explain for Outer {
        fn class(&self) -> Class {
            Class::Unreachable
        }
    }

    #[test]
    fn causes_are_joined_and_not_repeated() {
        let failure = Failure::from(Outer(Middle(std::io::Error::other("connection\nreset"))));
        assert_eq!(failure.message(), "cannot copy object chunk/1: request failed: connection reset");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect: connection reset")]
    struct RootInText(#[source] Wrapped);

    #[derive(Debug, thiserror::Error)]
    #[error("error connecting to server")]
    struct Wrapped(#[source] std::io::Error);

    impl Explain for RootInText {
        fn class(&self) -> Class {
            Class::Unreachable
        }
    }

    #[test]
    fn what_lies_between_an_error_and_the_root_that_it_names_is_left_out() {
        let failure = Failure::from(RootInText(Wrapped(std::io::Error::other("connection reset"))));
        assert_eq!(failure.message(), "cannot connect: connection reset");
    }

    #[test]
    fn every_class_has_its_line() {
        let mut codes: Vec<u8> = CODES.iter().map(|(class, _)| class.exit_code()).collect();
        codes.sort_unstable();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 8, 130, 143]);
        let text = epilogue("\n  $ x", &[Class::Terminated, Class::Usage]);
        assert!(text.ends_with("    0  done and proved\n    2  wrong usage: command line, environment or configuration file\n  143  interrupted by SIGTERM\n"), "{text}");
    }
}
