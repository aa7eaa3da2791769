//! How a failure reaches the user: one exit code, what happened, and what to do next.
//!
//! Each room has its own error type; all of them [`Explain`] themselves, where the knowledge is. The edge (`src/cli`)
//! prints two lines and exits.

use std::error::Error;

/// The kinds of failure that users' scripts tell apart. The numbers are a promise (`docs/exit-codes.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Any other failure, a full disk included.
    Other,
    /// The command line or the configuration is wrong.
    Usage,
    /// The bundle, or the copy, is damaged.
    Damaged,
    /// The source lacked live objects, or a volume is missing.
    Incomplete,
    /// Refused, so that nothing is lost or undone.
    Refused,
    /// Key, signature, credentials or permission.
    Credentials,
    /// A server could not be reached, or a tool is missing, too old, or died.
    Unreachable,
    /// The cluster is suspended, or did not become ready again.
    Suspended,
    /// Ended by SIGINT.
    Interrupted,
    /// Ended by SIGTERM.
    Terminated,
}

impl Class {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::Damaged => 3,
            Self::Incomplete => 4,
            Self::Refused => 5,
            Self::Credentials => 6,
            Self::Unreachable => 7,
            Self::Suspended => 8,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// Its name in JSON events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Usage => "usage",
            Self::Damaged => "damaged",
            Self::Incomplete => "incomplete",
            Self::Refused => "refused",
            Self::Credentials => "credentials",
            Self::Unreachable => "unreachable",
            Self::Suspended => "suspended",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }

    /// The graver of two: 8 first (somebody has to act), then 143 and 130 (the user asked), then 3, 6, 7, 5, 4, 2, 1.
    #[must_use]
    pub fn graver(self, other: Self) -> Self {
        if self.rank() >= other.rank() { self } else { other }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::Usage => 1,
            Self::Incomplete => 2,
            Self::Refused => 3,
            Self::Unreachable => 4,
            Self::Credentials => 5,
            Self::Damaged => 6,
            Self::Interrupted => 7,
            Self::Terminated => 8,
            Self::Suspended => 9,
        }
    }
}

/// An error that knows its class and the next step.
pub trait Explain: Error + Send + Sync + 'static {
    /// Which exit code it leads to.
    fn class(&self) -> Class;

    /// What the user can do about it, as one sentence; `None` where there is nothing to add.
    fn advice(&self) -> Option<String> {
        None
    }
}

/// What happened, and why: the error and its sources, each said once.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // A transparent error says what its source says.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the gravest on, with what scripts see of each.
    const CLASSES: [(Class, u8, &str); 10] = [
        (Class::Suspended, 8, "suspended"),
        (Class::Terminated, 143, "terminated"),
        (Class::Interrupted, 130, "interrupted"),
        (Class::Damaged, 3, "damaged"),
        (Class::Credentials, 6, "credentials"),
        (Class::Unreachable, 7, "unreachable"),
        (Class::Refused, 5, "refused"),
        (Class::Incomplete, 4, "incomplete"),
        (Class::Usage, 2, "usage"),
        (Class::Other, 1, "other"),
    ];

    #[test]
    fn the_graver_of_two_is_what_counts() {
        for (at, (class, code, name)) in CLASSES.into_iter().enumerate() {
            assert_eq!((class.exit_code(), class.name()), (code, name));
            for (less, ..) in CLASSES.into_iter().skip(at) {
                assert_eq!((class.graver(less), less.graver(class)), (class, class));
            }
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Told {
        said: &'static str,
        source: Option<Box<Told>>,
    }

    #[test]
    fn causes_are_told_once() {
        let told = |all: &[&'static str]| {
            let link = |source: Option<Box<Told>>, &said: &&'static str| Some(Box::new(Told { said, source }));
            all.iter().rev().fold(None, link).map(|error| chain(&*error)).unwrap_or_default()
        };
        assert_eq!(told(&["no copy", "no answer", "reset"]), "no copy: no answer: reset");
        assert_eq!(told(&["no copy: no answer", "no answer", "reset"]), "no copy: no answer: reset");
        assert_eq!(told(&["no copy"]), "no copy");
    }
}
