//! What can go wrong with a database, with the exit code and the next step of each.

use std::path::PathBuf;

use tokio_postgres::error::SqlState;

use super::DumpError;
use super::restore::RestoreError;
use super::throwaway::ThrowawayError;
use crate::failure::{Class, Explain};

/// A failure of this room.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A connection string that cannot be read. It is not repeated: it may hold a password.
    #[error("the PostgreSQL connection string cannot be read: {problem}")]
    ConnectionString {
        /// What is wrong with it.
        problem: String,
    },
    /// A password where every user of the machine can see it.
    #[error("a password in --postgres can be seen by every user of this machine")]
    PasswordOnCommandLine,
    /// A parameter that is unknown, not supported, or has a value that cannot be used.
    #[error("PostgreSQL parameter `{name}` ({origin}): {problem}")]
    Parameter {
        /// libpq's name of the parameter.
        name: String,
        /// Where it was set: `connection string`, `PGSSLMODE`, `service "x"`.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The service named by `service` or `PGSERVICE` is in no service file.
    #[error("service \"{service}\" is in none of the service files: {searched}")]
    ServiceMissing {
        /// Its name.
        service: String,
        /// The files that were read.
        searched: String,
    },
    /// A service file that cannot be understood.
    #[error("service file {}, line {line}: {problem}", path.display())]
    ServiceFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that the connection needs cannot be read.
    #[error("cannot read {what} {}", path.display())]
    File {
        /// What it is, e.g. `the root certificates`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or a key that cannot be used.
    #[error("{what} {} cannot be used: {problem}", path.display())]
    TlsFile {
        /// What it is, e.g. `the client key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The TLS library refuses the settings.
    #[error("TLS cannot be set up")]
    TlsSetup(#[source] rustls::Error),
    /// The server's certificate was not accepted.
    #[error("the certificate of {address} is not trusted: {problem}")]
    Certificate {
        /// The server.
        address: String,
        /// What the check said.
        problem: String,
    },
    /// The server asks for a password, and there is none.
    #[error("{address} asks for the password of user \"{user}\", and none was found")]
    PasswordMissing {
        /// The server.
        address: String,
        /// The user.
        user: String,
    },
    /// There is no such database.
    #[error("there is no database \"{database}\" on {address}")]
    DatabaseMissing {
        /// The server.
        address: String,
        /// The database.
        database: String,
    },
    /// No session could be opened.
    #[error("cannot connect to database \"{database}\" on {address}: {source}")]
    Connect {
        /// The server.
        address: String,
        /// The database.
        database: String,
        /// Why.
        source: Said,
    },
    /// No session could be opened in time.
    #[error("{address} did not answer within {seconds} seconds")]
    Timeout {
        /// The server.
        address: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// None of several servers is of the kind that `target_session_attrs` asks for.
    #[error("{address} is not what target_session_attrs={wanted} asks for")]
    SessionAttributes {
        /// The last server asked.
        address: String,
        /// What was wanted.
        wanted: String,
    },
    /// Something between here and the server passes a session on without its settings.
    #[error(
        "the settings that a session begins with do not reach the server behind {address}: {name} is `{found}` there"
    )]
    SettingDropped {
        /// What was connected to.
        address: String,
        /// The first setting that is not in force.
        name: &'static str,
        /// What it is instead.
        found: String,
    },
    /// A statement failed.
    #[error("{what}: {source}")]
    Query {
        /// What was being done, e.g. `cannot read the tables of database "x"`.
        what: String,
        /// Why.
        source: Said,
    },
    /// A snapshot or a dump failed.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// A restore failed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A server for a trial failed.
    #[error(transparent)]
    Throwaway(#[from] ThrowawayError),
    /// A program that pacharc needs is not installed.
    #[error("{program} was not found in {searched}")]
    ToolMissing {
        /// Its name.
        program: &'static str,
        /// Where it was looked for.
        searched: String,
        /// The least version that would do.
        needed: u32,
    },
    /// pg_dump refuses servers newer than itself.
    #[error("{program} {found} ({}) is older than the server, which is {needed}", path.display())]
    ToolTooOld {
        /// Its name.
        program: &'static str,
        /// The newest that was found.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The server's major version.
        needed: u32,
    },
    /// A program that cannot be started.
    #[error("cannot run {}", path.display())]
    ToolBroken {
        /// The program.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What a server or a connection said. It tells its reason and has no source: what lies below repeats it, rows included.
#[derive(Debug)]
pub struct Said(tokio_postgres::Error);

impl From<tokio_postgres::Error> for Said {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error)
    }
}

impl std::ops::Deref for Said {
    type Target = tokio_postgres::Error;

    fn deref(&self) -> &tokio_postgres::Error {
        &self.0
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&reason(&self.0))
    }
}

impl std::error::Error for Said {}

/// What the server said, or what happened to the connection, in one line.
///
/// [`tokio_postgres::Error`]'s own text is `db error` or `error connecting to server`; what matters lies below it.
pub(super) fn reason(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        // 22 and 23: of what a row holds, and of keys that contradict each other. Their details are the row, or the key.
        let is_of_rows = ["22", "23"].iter().any(|class| said.code().code().starts_with(class));
        return match said.detail().filter(|_| !is_of_rows) {
            Some(detail) => format!("{} ({detail})", said.message()),
            None => said.message().to_owned(),
        };
    }
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// The class of what a server or a connection reported, by SQLSTATE.
pub(super) fn class(error: &tokio_postgres::Error) -> Class {
    match error.code() {
        Some(code) if code.code().starts_with("28") || *code == SqlState::INSUFFICIENT_PRIVILEGE => Class::Credentials,
        // 08: connection exceptions; 57P01 to 57P03: shut down, crashed, starting; 53: no more connections.
        Some(code) if code.code().starts_with("08") || code.code().starts_with("57P") => Class::Unreachable,
        Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => Class::Unreachable,
        Some(_) => Class::Other,
        // Without an answer of the server it is the connection itself that failed.
        None => Class::Unreachable,
    }
}

impl Error {
    /// For `map_err`: a failed statement, and what it was for.
    pub(crate) fn query(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Query { what: what.into(), source: source.into() }
    }

    /// Whether the same step may well succeed when it is done again on a new connection: it was lost, the server was
    /// restarting, or the statement was the victim of a deadlock.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Connect { source, .. } | Self::Query { source, .. } => match source.code() {
                Some(code) => class(source) == Class::Unreachable || *code == SqlState::T_R_DEADLOCK_DETECTED,
                None => true,
            },
            _ => false,
        }
    }
}

impl Error {
    /// Whether the server, or the role, has as many connections as it may have.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.code() == Some(&SqlState::TOO_MANY_CONNECTIONS))
    }

    /// Whether a new attempt, with a new snapshot, may succeed: beside what is transient, a lock that was not to be had
    /// in time, and a table that was dropped just now.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Dump(error) => error.is_retryable(),
            Self::Query { source, .. } => {
                let gone = [
                    SqlState::LOCK_NOT_AVAILABLE,
                    SqlState::UNDEFINED_TABLE,
                    SqlState::UNDEFINED_COLUMN,
                    SqlState::INVALID_SCHEMA_NAME,
                    SqlState::T_R_SERIALIZATION_FAILURE,
                    // A standby had to replay what the snapshot stood in the way of.
                    SqlState::QUERY_CANCELED,
                ];
                self.is_transient() || source.code().is_some_and(|code| gone.contains(code))
            }
            _ => self.is_transient(),
        }
    }

    /// Where a child has failed: which part it was to dump, and what it said. Two that failed alike are equal in this.
    #[must_use]
    pub fn of_child(&self) -> Option<String> {
        match self {
            Self::Dump(error @ (DumpError::Child { .. } | DumpError::Script { .. })) => Some(error.to_string()),
            _ => None,
        }
    }
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::ConnectionString { .. }
            | Self::PasswordOnCommandLine
            | Self::Parameter { .. }
            | Self::ServiceMissing { .. }
            | Self::ServiceFile { .. }
            | Self::File { .. }
            | Self::TlsFile { .. }
            | Self::TlsSetup(_) => Class::Usage,
            Self::PasswordMissing { .. } => Class::Credentials,
            Self::SettingDropped { .. } => Class::Refused,
            Self::Dump(error) => error.class(),
            Self::Restore(error) => error.class(),
            Self::Throwaway(error) => error.class(),
            Self::Connect { source, .. } | Self::Query { source, .. } => class(source),
            Self::Certificate { .. }
            | Self::DatabaseMissing { .. }
            | Self::Timeout { .. }
            | Self::SessionAttributes { .. }
            | Self::ToolMissing { .. }
            | Self::ToolTooOld { .. }
            | Self::ToolBroken { .. } => Class::Unreachable,
        }
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Dump(error) => return error.advice(),
            Self::Restore(error) => return error.advice(),
            Self::Throwaway(error) => return error.advice(),
            Self::PasswordOnCommandLine => {
                "Put the whole URL into the variable PACHARC_POSTGRES, or the password alone \
                 into PGPASSWORD or ~/.pgpass."
                    .to_owned()
            }
            Self::ConnectionString { .. } | Self::Parameter { .. } => {
                "docs/postgres-connections.md lists the parameters that are supported and their values.".to_owned()
            }
            Self::ServiceMissing { .. } => {
                "Add the service to ~/.pg_service.conf, or name the file in PGSERVICEFILE.".to_owned()
            }
            Self::Certificate { .. } => {
                "Name the authority that signed the server's certificate with sslrootcert= in the \
                 URL or --ca-file, and connect under a name that the certificate holds."
                    .to_owned()
            }
            Self::PasswordMissing { .. } => {
                "Set PGPASSWORD, or add a line to ~/.pgpass (mode 0600), or put the URL with its password into \
                 PACHARC_POSTGRES."
                    .to_owned()
            }
            Self::DatabaseMissing { .. } => "Name the databases with --database.".to_owned(),
            Self::SettingDropped { .. } => {
                "Connect to PostgreSQL itself: a connection pooler (PgBouncer with ignore_startup_parameters, say) stands in \
                 between, or what the server runs at each login sets it anew."
                    .to_owned()
            }
            Self::Connect { source, .. } if class(source) == Class::Credentials => {
                "Check user and password, and the server's pg_hba.conf.".to_owned()
            }
            full if full.is_full() => {
                "Let others end their connections, allow more of them (max_connections, or the role's limit), or use fewer: \
                 --jobs 1."
                    .to_owned()
            }
            Self::Connect { .. } | Self::Timeout { .. } => {
                "Check host and port, and that the server runs and is reached from here.".to_owned()
            }
            Self::Query { source, .. } if class(source) == Class::Credentials => {
                "Grant the role what is missing, or connect as the owner or a superuser.".to_owned()
            }
            Self::Query { source, .. } if class(source) == Class::Unreachable => {
                "See the server's log for why the session ended, then run the same command again.".to_owned()
            }
            Self::Query { source, .. } if source.code() == Some(&SqlState::DISK_FULL) => {
                "Free some space on the server's disk, then run the same command again.".to_owned()
            }
            Self::ToolMissing { program: "postgres", needed, .. }
            | Self::ToolTooOld { program: "postgres", needed, .. } => {
                format!(
                    "Install a PostgreSQL server of version {needed} or newer, e.g. the package postgresql-{needed} (it need \
                     not run), name the folder of its programs with --pg-bin, or a server with --scratch-postgres."
                )
            }
            Self::ToolMissing { needed, .. } | Self::ToolTooOld { needed, .. } => {
                format!(
                    "Install the PostgreSQL client programs of version {needed} or newer, e.g. the package \
                     postgresql-client-{needed}, or name their folder with --pg-bin."
                )
            }
            Self::ToolBroken { .. } => "Name the folder of PostgreSQL's programs with --pg-bin.".to_owned(),
            _ => return None,
        };
        Some(advice)
    }
}
