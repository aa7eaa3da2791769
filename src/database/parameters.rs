//! libpq's connection parameters: which of them pacharc supports. This table is the single truth: the parser, the
//! environment and `docs/postgres-connections.md` follow it.
//!
//! Source: PostgreSQL 18 manual, "Parameter Key Words" and "Environment Variables".

use super::Error;

/// How far a parameter is supported. What is not supported is an error, wherever it is set; it is never ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Any value that libpq takes.
    Full,
    /// These values; another one is an error.
    Only(&'static [&'static str]),
    /// Not at all.
    None,
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// libpq's name.
    pub name: &'static str,
    /// The environment variable that libpq reads it from, if any.
    pub variable: Option<&'static str>,
    /// Whether pacharc supports it.
    pub support: Support,
    /// What it means, or why it is not supported; one line.
    pub meaning: &'static str,
}

const fn parameter(name: &'static str, variable: &'static str, support: Support, meaning: &'static str) -> Parameter {
    let variable = if variable.is_empty() { None } else { Some(variable) };
    Parameter { name, variable, support, meaning }
}

use Support::{Full, None as No, Only};

/// All parameters of libpq 18, in the manual's order.
pub const PARAMETERS: &[Parameter] = &[
    parameter(
        "host",
        "PGHOST",
        Full,
        "Names, addresses or socket folders, separated by commas; each in turn until one answers. Default: the folder `/var/run/postgresql` where it exists, else `/tmp`",
    ),
    parameter(
        "hostaddr",
        "PGHOSTADDR",
        Full,
        "Addresses to connect to, as many as `host`; `host` is then the name to check",
    ),
    parameter("port", "PGPORT", Full, "One port, or as many as hosts. Default: 5432"),
    parameter("dbname", "PGDATABASE", Full, "The database; `--database` wins"),
    parameter("user", "PGUSER", Full, "Default: the operating system's user"),
    parameter("password", "PGPASSWORD", Full, "Refused on the command line"),
    parameter("passfile", "PGPASSFILE", Full, "Default: `~/.pgpass`; ignored with a warning where others can read it"),
    parameter("require_auth", "PGREQUIREAUTH", No, "The way of authentication cannot be restricted"),
    parameter("channel_binding", "PGCHANNELBINDING", Only(&["disable", "prefer", "require"]), "Default: `prefer`"),
    parameter(
        "connect_timeout",
        "PGCONNECT_TIMEOUT",
        Full,
        "Seconds for each host, 0 for no limit. Default: 30 (libpq's: no limit)",
    ),
    parameter(
        "client_encoding",
        "PGCLIENTENCODING",
        Only(&["UTF8", "utf8", "UTF-8", "utf-8"]),
        "pacharc speaks UTF-8; a dump is in the database's encoding",
    ),
    parameter("options", "PGOPTIONS", Full, "Settings of the session; pacharc's own come after and win"),
    parameter("application_name", "PGAPPNAME", Full, "Default: `pacharc`"),
    parameter("fallback_application_name", "", No, "Use `application_name`"),
    parameter("keepalives", "", Full, "1 or 0. Default: 1"),
    parameter("keepalives_idle", "", Full, "Seconds; 0 for the default, which is 60"),
    parameter("keepalives_interval", "", Full, "Seconds; 0 for the system's default"),
    parameter("keepalives_count", "", Full, "Number; 0 for the system's default"),
    parameter("tcp_user_timeout", "", Full, "Milliseconds; 0 for the system's default"),
    parameter("replication", "", No, "pacharc needs an ordinary session"),
    parameter(
        "gssencmode",
        "PGGSSENCMODE",
        Only(&["disable", "prefer"]),
        "GSSAPI is never used: `prefer` is the same as `disable`",
    ),
    parameter(
        "sslmode",
        "PGSSLMODE",
        Only(&["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
        "Default: `prefer`, as in libpq; `verify-full` is recommended",
    ),
    parameter("requiressl", "PGREQUIRESSL", No, "Long obsolete; use `sslmode`"),
    parameter(
        "sslnegotiation",
        "PGSSLNEGOTIATION",
        Only(&["postgres", "direct"]),
        "`direct` needs a server and client programs of version 17, and `sslmode` of at least `require`",
    ),
    parameter("sslcompression", "PGSSLCOMPRESSION", Only(&["0"]), "Insecure, and in no current server"),
    parameter(
        "sslcert",
        "PGSSLCERT",
        Full,
        "Client certificate, PEM. Default: `~/.postgresql/postgresql.crt` where it exists",
    ),
    parameter(
        "sslkey",
        "PGSSLKEY",
        Full,
        "Its key, PEM, not encrypted, readable by the owner alone. Default: `~/.postgresql/postgresql.key`",
    ),
    parameter("sslkeylogfile", "", No, "It would lay open what TLS protects"),
    parameter("sslpassword", "", No, "Encrypted client keys cannot be read"),
    parameter(
        "sslcertmode",
        "PGSSLCERTMODE",
        Only(&["allow"]),
        "A client certificate is sent where there is one and the server asks",
    ),
    parameter(
        "sslrootcert",
        "PGSSLROOTCERT",
        Full,
        "Root certificates, PEM, or `system`. Default: `--ca-file`, else `~/.postgresql/root.crt` where it exists",
    ),
    parameter(
        "sslcrl",
        "PGSSLCRL",
        No,
        "Revocation lists are not read; neither is `~/.postgresql/root.crl`, whose presence is an error",
    ),
    parameter("sslcrldir", "PGSSLCRLDIR", No, "Revocation lists are not read"),
    parameter("sslsni", "PGSSLSNI", Only(&["0", "1"]), "Default: 1"),
    parameter("requirepeer", "PGREQUIREPEER", No, "The user behind a socket cannot be checked"),
    parameter(
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        Only(&["TLSv1.2", "TLSv1.3"]),
        "Default: `TLSv1.2`; there is nothing older",
    ),
    parameter(
        "ssl_max_protocol_version",
        "PGSSLMAXPROTOCOLVERSION",
        Only(&["TLSv1.2", "TLSv1.3"]),
        "Default: `TLSv1.3`",
    ),
    parameter(
        "min_protocol_version",
        "PGMINPROTOCOLVERSION",
        Only(&["3.0"]),
        "pacharc speaks protocol 3.0, which every server knows",
    ),
    parameter(
        "max_protocol_version",
        "PGMAXPROTOCOLVERSION",
        Only(&["3.0"]),
        "pacharc speaks protocol 3.0, which every server knows",
    ),
    parameter("krbsrvname", "PGKRBSRVNAME", No, "No GSSAPI"),
    parameter("gsslib", "PGGSSLIB", No, "No GSSAPI"),
    parameter("gssdelegation", "PGGSSDELEGATION", No, "No GSSAPI"),
    parameter("scram_client_key", "", No, "Use the password"),
    parameter("scram_server_key", "", No, "Use the password"),
    parameter("service", "PGSERVICE", Full, "A group of parameters in a service file"),
    parameter(
        "servicefile",
        "PGSERVICEFILE",
        Full,
        "Default: `~/.pg_service.conf`, then `$PGSYSCONFDIR/pg_service.conf`",
    ),
    parameter(
        "target_session_attrs",
        "PGTARGETSESSIONATTRS",
        Only(&["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]),
        "Default: `any`",
    ),
    parameter(
        "load_balance_hosts",
        "PGLOADBALANCEHOSTS",
        Only(&["disable"]),
        "Every session and child must reach the same server",
    ),
    parameter("oauth_issuer", "", No, "No OAuth"),
    parameter("oauth_client_id", "", No, "No OAuth"),
    parameter("oauth_client_secret", "", No, "No OAuth"),
    parameter("oauth_scope", "", No, "No OAuth"),
];

/// The parameter `name`, set at `origin` to `value`, if pacharc can do what it asks for.
pub(super) fn check(name: &str, value: &str, origin: &str) -> Result<&'static Parameter, Error> {
    let fail = |problem: String| Error::Parameter { name: name.to_owned(), origin: origin.to_owned(), problem };
    let parameter =
        PARAMETERS.iter().find(|p| p.name == name).ok_or_else(|| fail("libpq knows no such parameter".to_owned()))?;
    match parameter.support {
        No => Err(fail(format!("not supported. {}", parameter.meaning))),
        Only(values) if !value.is_empty() && !values.contains(&value) => {
            Err(fail(format!("`{value}` is not supported; one of {}", values.join(", "))))
        }
        Only(_) | Full => Ok(parameter),
    }
}

/// The table of `docs/postgres-connections.md`, in Markdown.
#[must_use]
pub fn parameter_table() -> String {
    let mut table = String::from("| parameter | variable | supported | meaning |\n|---|---|---|---|\n");
    for Parameter { name, variable, support, meaning } in PARAMETERS {
        let variable = variable.map(|v| format!("`{v}`")).unwrap_or_default();
        let support = match support {
            Full => "yes".to_owned(),
            No => "no".to_owned(),
            Only(values) => values.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" "),
        };
        table += &format!("| `{name}` | {variable} | {support} | {meaning} |\n");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_the_table_says() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/postgres-connections.md");
        let text = std::fs::read_to_string(page).unwrap();
        let (before, rest) = text.split_once("<!-- table -->\n").unwrap();
        let (table, after) = rest.split_once("<!-- end of table -->").unwrap();
        if std::env::var_os("PACHARC_UPDATE_DOCS").is_some() {
            let text = format!("{before}<!-- table -->\n{}<!-- end of table -->{after}", parameter_table());
            std::fs::write(page, text).unwrap();
        } else {
            assert_eq!(table, parameter_table(), "run the test with PACHARC_UPDATE_DOCS=1 to renew the page");
        }
    }

    #[test]
    fn names_and_variables_are_unique() {
        for (n, a) in PARAMETERS.iter().enumerate() {
            for b in &PARAMETERS[n + 1..] {
                assert_ne!(a.name, b.name);
                assert!(a.variable.is_none() || a.variable != b.variable, "{}", a.name);
            }
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert!(check("sslmode", "verify-full", "x").is_ok());
        let error = check("sslmode", "verify", "PGSSLMODE").unwrap_err().to_string();
        assert!(error.contains("sslmode") && error.contains("PGSSLMODE") && error.contains("verify-ca"), "{error}");
        assert!(check("requirepeer", "postgres", "x").is_err());
        assert!(check("sslmod", "", "x").is_err());
    }
}
