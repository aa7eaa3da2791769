//! What the source had set on its database, and for roles in it: `ALTER DATABASE … SET`, which no dump of sections holds.

use pacharc_format::manifest::{DatabaseProperties, DatabaseSetting};
use tokio_postgres::error::SqlState;

use super::sessions::failed;
use super::{RestoreError, Target};
use crate::database::catalog::quote_identifier;
use crate::database::error::reason;
use crate::database::{Error, Session};

/// What the server says of a setting that it does not have, or does not let this role set: another version's, one for superusers,
/// one of a role that is not here.
const NOT_HERE: [SqlState; 6] = [
    SqlState::UNDEFINED_OBJECT,
    SqlState::INVALID_PARAMETER_VALUE,
    SqlState::INSUFFICIENT_PRIVILEGE,
    SqlState::CANT_CHANGE_RUNTIME_PARAM,
    // Names that former versions took.
    SqlState::INVALID_NAME,
    SqlState::FEATURE_NOT_SUPPORTED,
];

/// Checks that the server knows the time zone of the source: times that are kept without one would be others under another.
///
/// # Errors
/// [`RestoreError::TimeZone`]; what the server says.
pub(super) async fn check_zone(session: &Session, properties: &DatabaseProperties) -> Result<(), Error> {
    let Some(zone) = zone(properties) else { return Ok(()) };
    // It holds for this statement alone.
    match session.query_one("SELECT pg_catalog.set_config('TimeZone', $1, true)", &[&zone]).await {
        Ok(_) => Ok(()),
        Err(error) if is_unknown_zone(&error) => Err(RestoreError::TimeZone { zone: zone.to_owned() }.into()),
        Err(error) => Err(Error::query("cannot find out whether the server knows the source's time zone")(error)),
    }
}

/// The time zone that the database is to have for everybody; `None` where the bundle names none.
fn zone(properties: &DatabaseProperties) -> Option<&str> {
    let own = properties.settings.iter().find(|setting| is_zone(setting)).map(|setting| setting.value.as_str());
    own.or(Some(properties.timezone.as_str())).filter(|zone| !zone.is_empty())
}

/// Whether it is the time zone, for whoever has none of its own.
fn is_zone(setting: &DatabaseSetting) -> bool {
    setting.role.is_none() && setting.name.eq_ignore_ascii_case("TimeZone")
}

fn is_unknown_zone(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE)
}

/// Sets what the source had set on its database. Returns what could not be set, in words.
///
/// # Errors
/// [`RestoreError::TimeZone`]; what the server says, but that it does not have a setting.
pub(super) async fn apply(target: &Target, properties: &DatabaseProperties) -> Result<Vec<String>, Error> {
    let session = target.server.bare().connect(&target.database).await?;
    let database = quote_identifier(&target.database);
    // Each with what is told where it fails: a value may be a secret. And whether it is the time zone.
    let mut statements = Vec::new();
    if !properties.timezone.is_empty()
        && !properties.settings.iter().any(is_zone)
        && !has_zone(&session, properties).await?
    {
        let what = format!("ALTER DATABASE {database} SET \"TimeZone\"");
        statements.push((format!("{what} = {}", literal(&properties.timezone)), what, true));
    }
    for setting in &properties.settings {
        let whom = match &setting.role {
            None => format!("DATABASE {database}"),
            Some(role) => format!("ROLE {} IN DATABASE {database}", quote_identifier(role)),
        };
        let name = setting.name.split('.').map(quote_identifier).collect::<Vec<_>>().join(".");
        let what = format!("ALTER {whom} SET {name}");
        statements.push((format!("{what} = {}", setting_value(&setting.name, &setting.value)), what, is_zone(setting)));
    }
    let mut warnings = Vec::new();
    for (statement, what, is_zone) in statements {
        match session.batch_execute(&statement).await {
            Ok(()) => {}
            Err(error) if is_zone && is_unknown_zone(&error) => {
                let zone = zone(properties).unwrap_or_default().to_owned();
                return Err(RestoreError::TimeZone { zone }.into());
            }
            // Named, and left out.
            Err(error) if !is_zone && error.code().is_some_and(|code| NOT_HERE.contains(code)) => {
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

/// Whether new sessions have the source's time zone already, whoever opens them.
async fn has_zone(session: &Session, properties: &DatabaseProperties) -> Result<bool, Error> {
    // What the connecting role has for itself hides what all others get.
    let sql = "SELECT setting = $1 AND source NOT IN ('user', 'database user') FROM pg_catalog.pg_settings
               WHERE name = 'TimeZone'";
    let row = session.query_one(sql, &[&properties.timezone]).await;
    row.and_then(|row| row.try_get(0)).map_err(Error::query("cannot read the time zone"))
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
    fn the_time_zone_is_the_databases_own_or_the_servers() {
        let setting = |role: Option<&str>, name: &str, value: &str| DatabaseSetting {
            role: role.map(str::to_owned),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let mut properties = DatabaseProperties::default();
        assert_eq!(zone(&properties), None);
        properties.timezone = "US/Eastern".to_owned();
        properties.settings.push(setting(Some("reader"), "TimeZone", "Asia/Tokyo"));
        assert_eq!(zone(&properties), Some("US/Eastern"));
        properties.settings.push(setting(None, "timezone", "Europe/Rome"));
        assert_eq!(zone(&properties), Some("Europe/Rome"));
    }

    #[test]
    fn only_what_a_server_does_not_have_is_left_out() {
        for code in ["42704", "22023", "42501", "55P02", "42602", "0A000"] {
            assert!(NOT_HERE.contains(&SqlState::from_code(code)), "{code}");
        }
        for code in ["57P01", "57014", "53100", "40P01", "XX000"] {
            assert!(!NOT_HERE.contains(&SqlState::from_code(code)), "{code}");
        }
    }

    #[test]
    fn lists_are_quoted_name_by_name() {
        assert_eq!(setting_value("search_path", r#""$user", public, "a, ""b""#), r#"'$user', 'public', 'a, "b'"#);
        assert_eq!(setting_value("search_path", r#""""#), "''");
        assert_eq!(setting_value("search_path", ""), "''");
        assert_eq!(setting_value("work_mem", "a, b"), "'a, b'");
        assert_eq!(setting_value("work_mem", r"a\'b"), r" E'a\\''b'");
    }
}
