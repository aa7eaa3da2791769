//! What can go wrong with a restore.

use crate::failure::{Class, Explain};

/// A failure of a restore into a database.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something in it.
    #[error("database \"{database}\" is not empty: it has {found}")]
    NotEmpty {
        /// The database.
        database: String,
        /// The first thing that was found, e.g. `table public.a`.
        found: String,
    },
    /// Another restore has begun on it.
    #[error("a restore of another bundle ({bundle}) into database \"{database}\" is not finished")]
    OtherBundle {
        /// The database.
        database: String,
        /// The other bundle.
        bundle: String,
    },
    /// Another run is at work on it.
    #[error("another restore into database \"{database}\" is under way")]
    UnderWay {
        /// The database.
        database: String,
        /// The process of the server that says so.
        session: i32,
    },
    /// It cannot be begun anew, since the database would have to be dropped, and pacharc did not make it.
    #[error("an earlier restore into database \"{database}\", which was there before it, has not ended")]
    Unfinished {
        /// The database.
        database: String,
    },
    /// The text in it would not be the same.
    #[error("database \"{database}\" has the encoding {found}, and the bundle's is {wanted}")]
    Encoding {
        /// The database.
        database: String,
        /// Its encoding.
        found: String,
        /// The source's.
        wanted: String,
    },
    /// The server is too old for the source's kind of locale.
    #[error("PostgreSQL {version} has no databases with the locale provider {provider}, which the source uses")]
    LocaleProvider {
        /// The server's version.
        version: String,
        /// `icu` or `builtin`.
        provider: String,
    },
    /// The server does not know the source's time zone.
    #[error("the server does not know the time zone {zone}, which the source's database has")]
    TimeZone {
        /// Its name.
        zone: String,
    },
    /// The role may not create databases.
    #[error("role \"{role}\" may not create database \"{database}\"")]
    MayNotCreate {
        /// The role.
        role: String,
        /// The database.
        database: String,
    },
    /// The role may not act for the owner.
    #[error("role \"{role}\" may not make things that \"{owner}\" owns")]
    MayNotActFor {
        /// The connecting role.
        role: String,
        /// The owner.
        owner: String,
    },
    /// Roles that the dump names are not on the server.
    #[error("the server lacks the roles that are needed: {}", roles.join(", "))]
    RolesMissing {
        /// Their names.
        roles: Vec<String>,
    },
    /// Extensions that the source uses are not on the server.
    #[error("the server lacks the extensions that the source uses: {}", extensions.join(", "))]
    ExtensionsMissing {
        /// Their names.
        extensions: Vec<String>,
    },
    /// SQL that cannot be split into statements.
    #[error("{file} cannot be understood: {problem}")]
    Script {
        /// The file in the bundle.
        file: String,
        /// Why not.
        problem: String,
    },
    /// A path below the database's folder that no dump has.
    #[error("the bundle holds {path}, which has no place in a database")]
    UnexpectedEntry {
        /// The path.
        path: String,
    },
    /// A table's rows do not end, go on behind their end, or do not begin with a COPY.
    #[error("data/{number:05} is not the rows of a table: {problem}")]
    Rows {
        /// The table's number.
        number: u32,
        /// What is wrong.
        problem: &'static str,
    },
    /// Not as many rows as the manifest says.
    #[error("table {table} has {found} rows, and the manifest says {wanted}")]
    RowCount {
        /// The table.
        table: String,
        /// Rows that were loaded.
        found: u64,
        /// Rows that the manifest names.
        wanted: u64,
    },
    /// The owner lacks what it needs.
    #[error("role \"{owner}\" may not use {object} of database \"{database}\"")]
    OwnerLacks {
        /// The role.
        owner: String,
        /// What it may not use.
        object: String,
        /// The database.
        database: String,
    },
}

impl Explain for RestoreError {
    fn class(&self) -> Class {
        match self {
            Self::NotEmpty { .. }
            | Self::OtherBundle { .. }
            | Self::UnderWay { .. }
            | Self::Unfinished { .. }
            | Self::Encoding { .. }
            | Self::LocaleProvider { .. }
            | Self::TimeZone { .. }
            | Self::RolesMissing { .. }
            | Self::ExtensionsMissing { .. } => Class::Refused,
            Self::MayNotCreate { .. } | Self::MayNotActFor { .. } | Self::OwnerLacks { .. } => Class::Credentials,
            Self::Script { .. } | Self::UnexpectedEntry { .. } | Self::Rows { .. } | Self::RowCount { .. } => {
                Class::Damaged
            }
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::NotEmpty { .. } | Self::OtherBundle { .. } => {
                "Restore under another name with --database BUNDLED=TARGET, or drop the database if nothing in it is \
                 needed."
                    .to_owned()
            }
            Self::UnderWay { session, .. } => {
                format!("Let it end. If it does not run any more: SELECT pg_terminate_backend({session}).")
            }
            Self::Unfinished { database } => {
                format!("Drop the database \"{database}\", then run the restore again: it is created anew.")
            }
            Self::Encoding { .. } => {
                "Drop the empty database: the restore creates it with the source's encoding.".to_owned()
            }
            Self::LocaleProvider { .. } => "Restore onto the source's version of PostgreSQL or a newer one.".to_owned(),
            Self::TimeZone { .. } => {
                "Install it where the server runs: Debian and Ubuntu have former names, such as US/Eastern, in the \
                 package tzdata-legacy. Or restore onto a server that knows it: times without a zone would be others."
                    .to_owned()
            }
            Self::MayNotCreate { role, database } => {
                format!(
                    "Create the database \"{database}\" first, empty, or let the role: ALTER ROLE \"{role}\" CREATEDB."
                )
            }
            Self::MayNotActFor { role, owner } => {
                format!("Connect as \"{owner}\", or GRANT \"{owner}\" TO \"{role}\".")
            }
            Self::RolesMissing { .. } => {
                "Create them first; the bundle's globals.sql has the source's roles, without passwords.".to_owned()
            }
            Self::ExtensionsMissing { .. } => "Install them on the server.".to_owned(),
            Self::OwnerLacks { database, .. } => {
                format!(
                    "Grant it, or restore with another --owner. Where an earlier run has loaded the database, that is the \
                     owner that it was given; to have another one, drop \"{database}\" first."
                )
            }
            Self::Script { .. } | Self::UnexpectedEntry { .. } | Self::Rows { .. } | Self::RowCount { .. } => {
                return None;
            }
        })
    }
}
