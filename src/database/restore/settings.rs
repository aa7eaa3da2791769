//! What the source had set on its database, and for roles in it: `ALTER DATABASE … SET`, which no dump of sections holds.

use pacharc_format::manifest::DatabaseProperties;
use tokio_postgres::error::SqlState;

use super::Target;
use super::sessions::failed;
use crate::database::Error;
use crate::database::catalog::quote_identifier;
use crate::database::error::reason;

/// Sets what the source had set on its database. Returns what could not be set, in words.
pub(super) async fn apply(target: &Target, properties: &DatabaseProperties) -> Result<Vec<String>, Error> {
    let session = target.server.bare().connect(&target.database).await?;
    let database = quote_identifier(&target.database);
    // Each with what is told where it fails: a value may be a secret.
    let mut statements = Vec::new();
    let has_zone = |role: Option<&String>, name: &str| role.is_none() && name.eq_ignore_ascii_case("TimeZone");
    if !properties.timezone.is_empty() && !properties.settings.iter().any(|s| has_zone(s.role.as_ref(), &s.name)) {
        let row = session.query_one("SELECT current_setting('TimeZone')", &[]).await;
        let own: String = row.and_then(|row| row.try_get(0)).map_err(Error::query("cannot read the time zone"))?;
        if own != properties.timezone {
            let what = format!("ALTER DATABASE {database} SET \"TimeZone\"");
            statements.push((format!("{what} = {}", literal(&properties.timezone)), what));
        }
    }
    for setting in &properties.settings {
        let whom = match &setting.role {
            None => format!("DATABASE {database}"),
            Some(role) => format!("ROLE {} IN DATABASE {database}", quote_identifier(role)),
        };
        let name = setting.name.split('.').map(quote_identifier).collect::<Vec<_>>().join(".");
        let what = format!("ALTER {whom} SET {name}");
        statements.push((format!("{what} = {}", setting_value(&setting.name, &setting.value)), what));
    }
    let mut warnings = Vec::new();
    for (statement, what) in statements {
        match session.batch_execute(&statement).await {
            Ok(()) => {}
            // Another version's setting, a role that is not here, a setting for superusers: named, and left out.
            Err(error) if error.as_db_error().is_some() => {
                // The server's own words would repeat it.
                let is_value = error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE);
                let why = if is_value { "the server does not take its value".to_owned() } else { reason(&error) };
                warnings.push(format!("left out: {what}: {why}"));
            }
            Err(error) => return Err(failed(&what)(error)),
        }
    }
    Ok(warnings)
}

/// A value for `SET`. Some settings are lists of names, each of which is quoted by itself (`GUC_LIST_QUOTE`).
pub(super) fn setting_value(name: &str, value: &str) -> String {
    const LISTS: &[&str] = &[
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    ];
    if !LISTS.iter().any(|list| name.eq_ignore_ascii_case(list)) {
        return literal(value);
    }
    let mut names = Vec::new();
    let mut rest = value.trim();
    while !rest.is_empty() {
        let mut name = String::new();
        let mut quoted = false;
        let mut end = rest.len();
        for (at, character) in rest.char_indices() {
            match character {
                // A doubled quote opens again at once: it stands for one.
                '"' => {
                    quoted = !quoted;
                    if quoted && at > 0 && rest[..at].ends_with('"') {
                        name.push('"');
                    }
                }
                ',' if !quoted => {
                    end = at;
                    break;
                }
                character if character.is_whitespace() && !quoted => {}
                character => name.push(character),
            }
        }
        names.push(literal(&name));
        rest = rest.get(end + 1..).unwrap_or_default().trim_start();
    }
    if names.is_empty() { "''".to_owned() } else { names.join(", ") }
}

/// A string literal that means the same whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_quoted_name_by_name() {
        assert_eq!(setting_value("search_path", r#""$user", public, "a, ""b""#), r#"'$user', 'public', 'a, "b'"#);
        assert_eq!(setting_value("search_path", r#""""#), "''");
        assert_eq!(setting_value("search_path", ""), "''");
        assert_eq!(setting_value("work_mem", "a, b"), "'a, b'");
        assert_eq!(setting_value("work_mem", r"a\'b"), r" E'a\\''b'");
    }
}
