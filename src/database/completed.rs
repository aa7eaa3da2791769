//! A connection string of which a part is known from elsewhere: what a cluster says of its server, under what the user says.

use super::resolve::is_secret;
use super::{Error, conninfo};
use crate::secret::Secret;

/// Parameters that name the server together: one of the user's makes all others his.
const SERVER: [&str; 4] = ["host", "hostaddr", "port", "service"];

/// Whether `url` itself names a server. `PG*` variables do not count.
///
/// # Errors
/// Of class *usage*: a string that cannot be read.
pub fn names_server(url: &Secret) -> Result<bool, Error> {
    Ok(conninfo::parse(url.expose())?.iter().any(|(name, _)| SERVER.contains(&name.as_str())))
}

/// `url` with those of the `known` parameters (libpq's names) that it leaves open.
///
/// # Errors
/// Of class *usage*: a string that cannot be read, or a password in one that comes `from_command_line`.
pub fn complete(url: &Secret, from_command_line: bool, known: &[(&str, &str)]) -> Result<Secret, Error> {
    let mut parameters = conninfo::parse(url.expose())?;
    if from_command_line && parameters.iter().any(|(name, _)| is_secret(name)) {
        return Err(Error::PasswordOnCommandLine);
    }
    let sets = |wanted: &[&str]| parameters.iter().any(|(name, _)| wanted.contains(&name.as_str()));
    let (names_server, names_roots) = (sets(&SERVER), sets(&["sslrootcert"]));
    let is_open = |name: &str| match name {
        _ if SERVER.contains(&name) => !names_server,
        // Roots of the user's own may demand a mode.
        "sslmode" => !names_roots && !sets(&["sslmode"]),
        // A password belongs to a role.
        "password" => !sets(&["user", "password"]),
        _ => !sets(&[name]),
    };
    let added: Vec<_> = known.iter().filter(|(name, _)| is_open(name)).copied().collect();
    parameters.extend(added.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let keywords = parameters.iter().map(|(name, value)| format!("{name}='{}'", escaped(value)));
    Ok(Secret::from(keywords.collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(&str, &str); 5] = [
        ("host", "postgres"),
        ("hostaddr", "127.0.0.1"),
        ("password", "it's \\ "),
        ("sslmode", "require"),
        ("user", "p"),
    ];

    fn completed(url: &str) -> Vec<(String, String)> {
        let secret = complete(&Secret::from(url.to_owned()), true, &KNOWN).unwrap();
        let mut parameters = conninfo::parse(secret.expose()).unwrap();
        parameters.sort();
        parameters
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_left_open_is_known_from_elsewhere() {
        assert_eq!(completed(""), pairs(&KNOWN));
        assert_eq!(completed("postgres://"), pairs(&KNOWN));
        let with_user = completed("postgres://u@/?sslmode=verify-full");
        let own = [KNOWN[0], KNOWN[1], ("sslmode", "verify-full"), ("user", "u")];
        assert_eq!(with_user, pairs(&own));
    }

    #[test]
    fn a_server_and_roots_of_the_users_own_are_whole() {
        let own = [("host", "db.example"), KNOWN[2], KNOWN[3], KNOWN[4]];
        assert_eq!(completed("postgres://db.example"), pairs(&own));
        assert_eq!(completed("port=1"), pairs(&[KNOWN[2], ("port", "1"), KNOWN[3], KNOWN[4]]));
        let own = [KNOWN[0], KNOWN[1], KNOWN[2], ("sslrootcert", "system"), KNOWN[4]];
        assert_eq!(completed("sslrootcert=system"), pairs(&own));
        assert!(names_server(&Secret::from("service=x".to_owned())).unwrap());
        assert!(!names_server(&Secret::from("user=x".to_owned())).unwrap());
    }

    #[test]
    fn a_password_that_was_typed_is_refused_still() {
        let error = complete(&Secret::from("password=x".to_owned()), true, &KNOWN).unwrap_err();
        assert!(matches!(error, Error::PasswordOnCommandLine));
        complete(&Secret::from("password=x".to_owned()), false, &KNOWN).unwrap();
    }
}
