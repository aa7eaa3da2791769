//! Passwords, and the password file: `~/.pgpass` by libpq's rules.
//!
//! Source: PostgreSQL manual, "The Password File", and `passwordFromFile` in libpq's `fe-connect.c`.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A password; it does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps `password`.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// The password itself, to be handed to a server or a child's environment and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a line must match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// The host's name or address; `localhost` for the default socket.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The database.
    pub database: &'a str,
    /// The user.
    pub user: &'a str,
}

/// The password of the first line of the file that matches, if any.
///
/// A file that is missing, is not a plain file, or can be read by others is ignored, as libpq does; the last two with
/// a warning.
pub(super) fn find(path: &Path, wanted: Wanted<'_>) -> Option<Password> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() {
        tracing::warn!("password file {} is not a plain file: ignored", path.display());
        return None;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            "password file {} can be read by group or others: ignored (permissions should be 0600)",
            path.display()
        );
        return None;
    }
    match std::fs::read(path) {
        Ok(content) => search(&String::from_utf8_lossy(&content), wanted),
        Err(error) => {
            tracing::warn!("password file {} cannot be read: {error}", path.display());
            None
        }
    }
}

fn search(content: &str, wanted: Wanted<'_>) -> Option<Password> {
    let port = wanted.port.to_string();
    content.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let rest = matching(line, wanted.host)?;
        let rest = matching(rest, &port)?;
        let rest = matching(rest, wanted.database)?;
        let rest = matching(rest, wanted.user)?;
        let (password, _) = field(rest);
        Some(Password(password))
    })
}

/// What follows the first field of `line`, where that field is `*` or equal to `value`.
fn matching<'a>(line: &'a str, value: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let (found, rest) = field(line);
    if found == value { rest } else { None }
}

/// The field up to the next bare `:`, with `\:` and `\\` undone, and what follows that colon.
fn field(line: &str) -> (String, Option<&str>) {
    let mut text = String::new();
    let mut characters = line.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            ':' => return (text, Some(&line[at + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped)) => text.push(escaped),
                None => text.push('\\'),
            },
            _ => text.push(character),
        }
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted<'_> = Wanted { host: "db.example", port: 5432, database: "pachyderm", user: "pach" };

    fn found(content: &str) -> Option<String> {
        search(content, WANTED).map(|password| password.0)
    }

    #[test]
    fn the_first_matching_line_counts() {
        assert_eq!(found("other:5432:*:*:a\ndb.example:*:pachyderm:pach:b\n*:*:*:*:c"), Some("b".to_owned()));
        assert_eq!(found("db.example:5433:*:*:a"), None);
        assert_eq!(found("db.example:5432:Pachyderm:pach:a"), None);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(found(r"*:*:*:pach:a\:b\\c"), Some(r"a:b\c".to_owned()));
        let wanted = Wanted { host: "::1", ..WANTED };
        assert_eq!(search(r"\:\:1:*:*:*:six", wanted).unwrap().expose(), "six");
    }

    #[test]
    fn comments_and_torn_lines_are_skipped() {
        assert_eq!(found("#*:*:*:*:a\ndb.example:5432\n\n*:*:*:*:b\r\n"), Some("b".to_owned()));
    }

    #[test]
    fn a_file_that_others_can_read_is_ignored() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "*:*:*:*:secret\n").unwrap();
        let mode = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        assert_eq!(find(file.path(), WANTED), None);
        mode(0o600);
        assert_eq!(find(file.path(), WANTED).unwrap().expose(), "secret");
    }

    #[test]
    fn a_password_does_not_print() {
        assert_eq!(format!("{:?}", Password::new("secret")), "***");
    }
}
