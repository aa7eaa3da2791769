//! Service files: sets of parameters under one name.
//!
//! Source: PostgreSQL manual, "The Connection Service File", and `parseServiceInfo` in libpq's `fe-connect.c`.

use std::path::{Path, PathBuf};

use super::{Environment, Error};

/// The parameters of `service`: from `file`, or `PGSERVICEFILE` or `~/.pg_service.conf`, then from
/// `$PGSYSCONFDIR/pg_service.conf`; the first file that has it wins.
pub(super) fn read(
    service: &str,
    file: Option<&str>,
    environment: &Environment,
) -> Result<Vec<(String, String)>, Error> {
    let own = file
        .map(PathBuf::from)
        .or_else(|| environment.os("PGSERVICEFILE").map(PathBuf::from))
        .or_else(|| Some(environment.home()?.join(".pg_service.conf")));
    let shared = environment.os("PGSYSCONFDIR").map(|folder| Path::new(folder).join("pg_service.conf"));
    let mut searched = Vec::new();
    for path in own.into_iter().chain(shared) {
        match std::fs::read_to_string(&path) {
            Ok(content) => {
                if let Some(parameters) = parse(&content, service, &path)? {
                    return Ok(parameters);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::File { what: "service file", path, source }),
        }
        searched.push(path.display().to_string());
    }
    Err(Error::ServiceMissing { service: service.to_owned(), searched: searched.join(", ") })
}

fn parse(content: &str, service: &str, path: &Path) -> Result<Option<Vec<(String, String)>>, Error> {
    let fail =
        |line, problem: &str| Error::ServiceFile { path: path.to_owned(), line: line + 1, problem: problem.to_owned() };
    let mut found: Option<Vec<(String, String)>> = None;
    for (number, line) in content.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if header.strip_suffix(']') == Some(service) {
                found = Some(Vec::new());
            }
        } else if let Some(parameters) = &mut found {
            if line.starts_with("ldap") {
                return Err(fail(number, "LDAP lookup is not supported"));
            }
            let (name, value) = line.split_once('=').ok_or_else(|| fail(number, "`name=value` expected"))?;
            if name == "service" || name == "servicefile" {
                return Err(fail(number, "services cannot be nested"));
            }
            if parameters.iter().all(|(earlier, _)| earlier != name) {
                parameters.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(content: &str) -> Result<Option<Vec<(String, String)>>, Error> {
        parse(content, "prod", Path::new("x"))
    }

    #[test]
    fn only_the_named_group_is_read() {
        let content = "# comment\n[test]\nhost=a\n[prod]\n host=b \nport=1\nport=2\noptions=-c x=y\n[prod2]\nuser=c\n";
        let pairs = [("host", "b"), ("port", "1"), ("options", "-c x=y")];
        let expected = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parsed(content).unwrap().unwrap(), expected);
        assert_eq!(parsed("[test]\nhost=a\n").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_understood_is_named_by_line() {
        assert!(matches!(parsed("[prod]\nhost\n"), Err(Error::ServiceFile { line: 2, .. })));
        assert!(matches!(parsed("[prod]\nservice=x\n"), Err(Error::ServiceFile { line: 2, .. })));
        assert!(matches!(parsed("[prod]\nldap://x\n"), Err(Error::ServiceFile { line: 2, .. })));
    }

    #[test]
    fn the_second_file_is_read_where_the_first_lacks_the_service() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pg_service.conf"), "[prod]\nhost=shared\n").unwrap();
        let environment: Environment = [("PGSYSCONFDIR", folder.path()), ("HOME", folder.path())].into_iter().collect();
        assert_eq!(read("prod", None, &environment).unwrap()[0].1, "shared");
        std::fs::write(folder.path().join(".pg_service.conf"), "[prod]\nhost=own\n").unwrap();
        assert_eq!(read("prod", None, &environment).unwrap()[0].1, "own");
        let error = read("none", None, &environment).unwrap_err();
        assert!(error.to_string().contains(".pg_service.conf"), "{error}");
    }
}
