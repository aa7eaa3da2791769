//! What can go wrong with a snapshot and its dump, and whether a new snapshot may mend it.

use std::process::ExitStatus;

use super::catalog::quote_identifier;
use super::script::ScriptError;
use crate::failure::{Class, Explain};
use crate::feed::Closed;

/// A failure of a snapshot or a dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The role may not read everything that a dump needs.
    #[error("no permission to read {object} of database \"{database}\"{}", others(*more))]
    Permission {
        /// The database.
        database: String,
        /// What may not be read, e.g. `table "a"."b"`.
        object: String,
        /// How many others there are.
        more: usize,
    },
    /// A restore of the database was begun and has not ended: its rows may not all be there.
    #[error("database \"{database}\" is the target of a restore that has not finished")]
    HalfRestored {
        /// The database.
        database: String,
    },
    /// A migration of the schema was begun and never ended: the state is neither the old nor the new one.
    #[error("migration {id} ({name}) of database \"{database}\" was begun and never ended")]
    UnfinishedMigration {
        /// The database.
        database: String,
        /// The migration's number.
        id: i64,
        /// The migration's name.
        name: String,
    },
    /// The schema was upgraded after the backup had said which one it holds.
    #[error("the schema of database \"{database}\" went from migration {} to {} during the backup", number(*before), number(*now))]
    Migrated {
        /// The database.
        database: String,
        /// The last migration when the backup began.
        before: Option<i64>,
        /// The last one in the snapshot.
        now: Option<i64>,
    },
    /// One bucket belongs to one cluster, and so does one bundle.
    #[error("\"{one}\" and \"{other}\" are both main databases of Pachyderm")]
    TwoPachyderms {
        /// One database.
        one: String,
        /// The other.
        other: String,
    },
    /// Tables come and go so fast that not even their list holds still.
    #[error("table {table} of database \"{database}\" was made, replaced or dropped while the snapshot was opened")]
    TableChanged {
        /// The database.
        database: String,
        /// The table.
        table: String,
    },
    /// The session that holds the snapshot is gone, and the snapshot with it.
    #[error("the connection that holds the snapshot of database \"{database}\" was lost")]
    HolderLost {
        /// The database.
        database: String,
    },
    /// A child does not hold the locks that it should.
    #[error("{program} ({part}) holds no locks on the tables of database \"{database}\"")]
    Unlocked {
        /// The database.
        database: String,
        /// The program.
        program: String,
        /// What it dumps.
        part: String,
    },
    /// A child could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A child failed.
    #[error("{program} ({part} of database \"{database}\") failed with {status}: {message}")]
    Child {
        /// The database.
        database: String,
        /// The program.
        program: String,
        /// What it dumps.
        part: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error; the beginning where that is long.
        message: String,
    },
    /// A child's output could not be read or understood.
    #[error("{program} ({part} of database \"{database}\"): {source}")]
    Script {
        /// The database.
        database: String,
        /// The program.
        program: String,
        /// What it dumps.
        part: String,
        /// Why.
        source: ScriptError,
    },
    /// The dump holds a table that the snapshot does not, or holds it twice.
    #[error("the dump of database \"{database}\" holds table {table}, which was not expected there")]
    UnexpectedTable {
        /// The database.
        database: String,
        /// The table.
        table: String,
    },
    /// The dump lacks something that the snapshot has.
    #[error("the dump of database \"{database}\" lacks {object}")]
    Lacks {
        /// The database.
        database: String,
        /// What it lacks, e.g. `table "a"."b"`.
        object: String,
    },
    /// The dump's rows are not as many as the snapshot's.
    #[error("the dump of {object} of database \"{database}\" has {dumped} rows, and the snapshot {counted}")]
    Count {
        /// The database.
        database: String,
        /// What was counted.
        object: String,
        /// In the dump.
        dumped: u64,
        /// In the snapshot.
        counted: u64,
    },
    /// A sequence was set back while the dump ran: its numbers would be given out twice.
    #[error("sequence {sequence} of database \"{database}\" went back from {before} to {after} during the dump")]
    SequenceWentBack {
        /// The database.
        database: String,
        /// The sequence.
        sequence: String,
        /// Its value before.
        before: i64,
        /// Its value in the dump.
        after: i64,
    },
    /// What a restore sends to the server is UTF-8, and this is not: DDL of a database without an encoding.
    #[error("{program} ({part} of database \"{database}\") wrote what is not UTF-8, in line {line}")]
    NotUtf8 {
        /// The database.
        database: String,
        /// The program.
        program: String,
        /// What it dumps.
        part: String,
        /// Where, from 1 on.
        line: u64,
    },
    /// A row of `storage.chunk_objects` that cannot be one.
    #[error("a row of storage.chunk_objects of database \"{database}\" cannot be read: {row}")]
    ChunkRow {
        /// The database.
        database: String,
        /// The row.
        row: String,
    },
    /// The bundle is no longer being written: its writer's error says why.
    #[error(transparent)]
    Closed(#[from] Closed),
}

fn number(migration: Option<i64>) -> String {
    migration.map_or("none".to_owned(), |id| id.to_string())
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(", nor {more} other objects") }
}

impl DumpError {
    /// Whether a new attempt with a new snapshot may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TableChanged { .. }
            | Self::HolderLost { .. }
            | Self::Unlocked { .. }
            | Self::Child { .. }
            | Self::Lacks { .. }
            | Self::UnexpectedTable { .. }
            | Self::Count { .. }
            | Self::SequenceWentBack { .. } => true,
            // A dump that ends too early is a child that died.
            Self::Script { source, .. } => matches!(source, ScriptError::Truncated | ScriptError::Read(_)),
            Self::Permission { .. }
            | Self::HalfRestored { .. }
            | Self::UnfinishedMigration { .. }
            | Self::Migrated { .. }
            | Self::TwoPachyderms { .. }
            | Self::NotUtf8 { .. }
            | Self::Start { .. }
            | Self::ChunkRow { .. }
            | Self::Closed(_) => false,
        }
    }
}

impl Explain for DumpError {
    fn class(&self) -> Class {
        match self {
            Self::Permission { .. } => Class::Credentials,
            Self::HalfRestored { .. }
            | Self::UnfinishedMigration { .. }
            | Self::Migrated { .. }
            | Self::NotUtf8 { .. } => Class::Refused,
            Self::TwoPachyderms { .. } => Class::Usage,
            Self::HolderLost { .. } | Self::Unlocked { .. } | Self::Start { .. } | Self::Child { .. } => {
                Class::Unreachable
            }
            Self::Script { source, .. } if self.is_retryable() || matches!(source, ScriptError::Read(_)) => {
                Class::Unreachable
            }
            _ => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Permission { .. } => {
                "Connect as the owner of the database, or grant the role USAGE on its schemas and SELECT on its tables \
                 and sequences (from PostgreSQL 14 on: GRANT pg_read_all_data)."
            }
            Self::HalfRestored { database } => {
                return Some(format!(
                    "Finish that restore first: run its command again. Where none is under way and the database is whole, its \
                     comment alone says so: COMMENT ON DATABASE {} IS NULL.",
                    quote_identifier(database)
                ));
            }
            Self::UnfinishedMigration { .. } => {
                "Let pachd start and finish its migrations, or mend what stopped them, and back up then."
            }
            Self::Migrated { .. } => "Back up again when the upgrade is done.",
            Self::NotUtf8 { .. } => {
                "Write that function, comment or default anew in UTF-8 or ASCII, or convert the database; a bundle of it as \
                 it is could not be restored."
            }
            Self::TwoPachyderms { .. } => {
                "Name with --database the databases of one cluster, and back up the other alone."
            }
            Self::TableChanged { .. } | Self::Count { .. } | Self::Lacks { .. } | Self::UnexpectedTable { .. } => {
                "Back up again when nobody changes the schema (no upgrade, no pg_repack)."
            }
            Self::SequenceWentBack { .. } => "Back up again when nobody resets sequences.",
            Self::HolderLost { .. } | Self::Child { .. } => {
                "See the server's log for why it ended the session; no connection pooler may stand in between."
            }
            Self::Start { .. } => "Check the programs in the folder that --pg-bin names, or leave it out.",
            Self::Unlocked { .. } => "Back up again when nobody changes the schema (no upgrade, no pg_repack).",
            Self::Script { source: ScriptError::Truncated | ScriptError::Read(_), .. } => {
                "See the server's log for why its session ended, and try another pg_dump with --pg-bin."
            }
            Self::Script { source: ScriptError::Unknown(_), .. } => {
                "This pg_dump may be newer than this version of pacharc: use the one of the server's own version."
            }
            _ => return None,
        };
        Some(advice.to_owned())
    }
}
