//! Asks the user on the terminal, whatever standard input and output are used for.

use age::secrecy::SecretString;
use console::Term;

use crate::secret::Secret;

/// Asks for a passphrase without showing it; `None` without a terminal, or where nothing was typed.
pub(super) fn passphrase(what: &str) -> Option<Secret> {
    let terminal = Term::stderr();
    if !terminal.is_term() {
        return None;
    }
    terminal.write_str(&format!("{what}: ")).ok()?;
    // Reads from /dev/tty where standard input is something else, such as the bundle.
    let typed = terminal.read_secure_line().ok()?;
    (!typed.is_empty()).then(|| Secret::from(typed))
}

/// What age's plugins and encrypted ssh keys may ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prompt;

impl age::Callbacks for Prompt {
    fn display_message(&self, message: &str) {
        // Nobody to show it to is no reason to fail.
        let _ = Term::stderr().write_line(message);
    }

    fn confirm(&self, message: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        let question = match no {
            Some(no) => format!("{message} (y: {yes}, n: {no}) "),
            None => format!("{message} (y: {yes}) "),
        };
        match self.request_public_string(&question)?.trim() {
            "y" | "Y" | "yes" => Some(true),
            "n" | "N" | "no" if no.is_some() => Some(false),
            _ => None,
        }
    }

    fn request_public_string(&self, description: &str) -> Option<String> {
        let terminal = Term::stderr();
        if !terminal.is_term() {
            return None;
        }
        terminal.write_str(&format!("{description} ")).ok()?;
        terminal.read_line().ok().filter(|line| !line.is_empty())
    }

    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        passphrase(description).map(Secret::into_inner)
    }
}
