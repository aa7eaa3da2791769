//! The rows of Pachyderm's own tables that the check needs, sorted into spools as they come by.

use std::path::{Path, PathBuf};

use pacharc_format::{self as format, ChunkKey, Spool};

use crate::database::copy_statement;

/// The most migrations that are believed to be some.
const MIGRATIONS: usize = 10_000;
/// The most problems of rows that are told.
const PROBLEMS: usize = 10;

/// A table that is read. Columns by Pachyderm's migrations (`src/internal/clusterstate`, `src/internal/storage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    ChunkObjects,
    TrackerObjects,
    TrackerRefs,
    Filesets,
    Commits,
    Migrations,
}

const TABLES: [(&str, &str, Table, &[&str]); 6] = [
    ("storage", "chunk_objects", Table::ChunkObjects, &["chunk_id", "gen", "uploaded", "tombstone", "size"]),
    ("storage", "tracker_objects", Table::TrackerObjects, &["int_id", "str_id"]),
    ("storage", "tracker_refs", Table::TrackerRefs, &["from_id", "to_id"]),
    ("storage", "filesets", Table::Filesets, &["id"]),
    ("pfs", "commits", Table::Commits, &["int_id", "commit_id"]),
    ("public", "migrations", Table::Migrations, &["id", "end_time"]),
];

/// Which of a table's columns are read.
#[derive(Clone, Debug)]
pub(in crate::verify) struct Wanted {
    table: Table,
    columns: Vec<usize>,
}

/// A row of `public.migrations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Migration {
    pub(super) id: i64,
    pub(super) ended: bool,
}

/// What was read of the latest attempt. Integer ids are spooled as 8 bytes, big-endian, so that they sort.
pub(in crate::verify) struct Dump {
    /// `database/<folder>/attempt-`
    prefix: String,
    temp_dir: PathBuf,
    memory: usize,
    /// The attempt whose rows these are; 0 before the first.
    pub(super) attempt: u32,
    /// Live objects: path in the bundle → size, 8 bytes little-endian.
    pub(super) live: Spool,
    /// `tracker_objects`: `int_id` → `str_id`.
    pub(super) tracked: Spool,
    /// `tracker_refs`: `to_id` → `from_id`.
    pub(super) references: Spool,
    /// `filesets`: id in hex, without dashes.
    pub(super) filesets: Spool,
    /// `commits`: `int_id` → `commit_id`.
    pub(super) commits: Spool,
    pub(super) migrations: Vec<Migration>,
    /// Rows that cannot be what Pachyderm writes.
    pub(super) problems: Vec<String>,
}

impl Dump {
    /// Of the database in `folder`; each of five spools holds a fifth of `memory` bytes before it spills.
    pub(super) fn new(folder: &str, temp_dir: &Path, memory: usize) -> Self {
        let memory = memory / 5;
        let spool = || Spool::new(temp_dir, memory);
        Self {
            prefix: format!("database/{folder}/attempt-"),
            temp_dir: temp_dir.to_owned(),
            memory,
            attempt: 0,
            live: spool(),
            tracked: spool(),
            references: spool(),
            filesets: spool(),
            commits: spool(),
            migrations: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Another spool, for what is made of these.
    pub(super) fn spool(&self) -> Spool {
        Spool::new(&self.temp_dir, self.memory)
    }

    /// Whether, and how, the rows of a table are read: `folder` is the table's, `statement` its `COPY … FROM stdin;`.
    pub(in crate::verify) fn wanted(&mut self, folder: &str, statement: &[u8]) -> Option<Wanted> {
        let attempt = folder.strip_prefix(&self.prefix)?.split_once('/')?.0.parse().ok()?;
        let (schema, name, columns) = copy_statement(std::str::from_utf8(statement).ok()?)?;
        let (.., table, wanted) = TABLES.iter().find(|(s, n, ..)| *s == schema && *n == name)?;
        if attempt > self.attempt {
            // What an earlier attempt wrote does not count (SPEC §7.1).
            let empty =
                Self { prefix: std::mem::take(&mut self.prefix), ..Self::new("", &self.temp_dir, self.memory * 5) };
            *self = Self { attempt, ..empty };
        }
        if attempt < self.attempt {
            return None;
        }
        let place = |wanted: &&str| columns.iter().position(|column| column == wanted);
        let Some(columns) = wanted.iter().map(place).collect() else {
            self.problem(format!("{schema}.{name} lacks a column that every release of Pachyderm has"));
            return None;
        };
        Some(Wanted { table: *table, columns })
    }

    /// Takes a row in COPY text, of which the end may be missing.
    pub(in crate::verify) fn row(&mut self, wanted: &Wanted, row: &[u8]) -> format::Result<()> {
        let fields: Vec<&[u8]> = row.split(|&byte| byte == b'\t').collect();
        let values: Option<Vec<&[u8]>> = wanted.columns.iter().map(|&column| fields.get(column).copied()).collect();
        let taken = match values {
            Some(values) => self.take(wanted.table, &values),
            None => Ok(None),
        };
        match taken {
            Ok(Some(())) => Ok(()),
            Ok(None) => {
                self.problem(format!("a row of {:?} is not what Pachyderm writes", wanted.table));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// `None` for what cannot be read. No value here has a character that COPY text escapes, but for bytea's `\x`, which
    /// comes as `\\x`.
    fn take(&mut self, table: Table, values: &[&[u8]]) -> format::Result<Option<()>> {
        match (table, values) {
            (Table::ChunkObjects, [id, generation, uploaded, tombstone, size]) => {
                if *uploaded != b"t" || *tombstone != b"f" {
                    return Ok(Some(()));
                }
                let id =
                    id.strip_prefix(b"\\\\x").and_then(|hex| hex::decode(hex).ok()).and_then(|id| id.try_into().ok());
                let (Some(id), Some(generation), Some(size)) = (id, number(generation), number(size)) else {
                    return Ok(None);
                };
                let path = ChunkKey { id, generation }.key().to_path();
                self.live.push(path.as_bytes(), &size.to_le_bytes())?;
            }
            (Table::TrackerObjects, [int_id, name]) => {
                let Some(int_id) = number(int_id) else { return Ok(None) };
                self.tracked.push(&int_id.to_be_bytes(), name)?;
            }
            (Table::TrackerRefs, [from, to]) => {
                let (Some(from), Some(to)) = (number(from), number(to)) else { return Ok(None) };
                self.references.push(&to.to_be_bytes(), &from.to_be_bytes())?;
            }
            (Table::Filesets, [id]) => {
                let hex: Vec<u8> = id.iter().copied().filter(|&byte| byte != b'-').collect();
                self.filesets.push(&hex, b"")?;
            }
            (Table::Commits, [int_id, key]) => {
                let Some(int_id) = number(int_id) else { return Ok(None) };
                self.commits.push(&int_id.to_be_bytes(), key)?;
            }
            (Table::Migrations, [id, end]) => {
                let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
                let Some(id) = id.filter(|_| self.migrations.len() < MIGRATIONS) else { return Ok(None) };
                self.migrations.push(Migration { id, ended: *end != b"\\N" });
            }
            _ => return Ok(None),
        }
        Ok(Some(()))
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// A number that is not negative.
fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump() -> Dump {
        Dump::new("pachyderm", &std::env::temp_dir(), 1 << 20)
    }

    const CHUNKS: &[u8] =
        br#"COPY "storage"."chunk_objects" ("size", "chunk_id", "gen", "uploaded", "tombstone") FROM stdin;"#;

    #[test]
    fn rows_are_read_by_the_names_of_their_columns() {
        let mut dump = dump();
        let wanted = dump.wanted("database/pachyderm/attempt-1/data/00007", CHUNKS).unwrap();
        let id = "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8";
        for (row, live) in [
            (format!("7\t\\\\x{id}\t42\tt\tf"), 1),
            (format!("7\t\\\\x{id}\t43\tf\tf"), 1),
            (format!("7\t\\\\x{id}\t44\tt\tt"), 1),
        ] {
            dump.row(&wanted, row.as_bytes()).unwrap();
            assert_eq!(dump.live.sorted().unwrap().count(), live, "{row}");
        }
        let (path, size) = dump.live.sorted().unwrap().next().unwrap().unwrap();
        assert_eq!(String::from_utf8(path).unwrap(), format!("objects/chunk/{id}.000000000000002a"));
        assert_eq!(size, 7_u64.to_le_bytes());
        assert_eq!(dump.problems, [""; 0]);
        for row in ["7\t\\\\xzz\t42\tt\tf", "7", "-7\t\\\\x00\t1\tt\tf", ""] {
            dump.problems.clear();
            dump.row(&wanted, row.as_bytes()).unwrap();
            assert_eq!(dump.problems.len(), 1, "{row}");
            dump.row(&wanted, row.as_bytes()).unwrap();
            assert_eq!(dump.problems.len(), 1, "told once: {row}");
        }
    }

    #[test]
    fn another_attempt_begins_anew_and_an_earlier_one_does_not_count() {
        let mut dump = dump();
        let wanted = dump.wanted(
            "database/pachyderm/attempt-1/data/1",
            b"COPY \"public\".\"migrations\" (\"id\", \"end_time\") FROM stdin;",
        );
        dump.row(&wanted.unwrap(), b"0\t2026-01-01").unwrap();
        assert_eq!(dump.migrations, [Migration { id: 0, ended: true }]);
        assert!(dump.wanted("database/pachyderm/attempt-2/data/1", CHUNKS).is_some());
        assert!(dump.migrations.is_empty() && dump.attempt == 2);
        assert!(dump.wanted("database/pachyderm/attempt-1/data/1", CHUNKS).is_none());
        // The next table of the same attempt goes on.
        dump.live.push(b"objects/chunk/x", &[0; 8]).unwrap();
        assert!(dump.wanted("database/pachyderm/attempt-2/data/2", CHUNKS).is_some());
        assert_eq!(dump.live.sorted().unwrap().count(), 1);
        assert!(dump.wanted("database/dex/attempt-2/data/1", CHUNKS).is_none());
        let text = std::str::from_utf8(CHUNKS).unwrap();
        let elsewhere = [text.replace("\"storage\"", "\"public\""), text.replace("chunk_objects", "chunks")];
        for other in elsewhere.iter().map(String::as_str).chain([r#"COPY "a"."b" ("c") FROM stdin;"#]) {
            assert!(dump.wanted("database/pachyderm/attempt-2/data/1", other.as_bytes()).is_none(), "{other}");
        }
        assert_eq!(dump.problems, [""; 0]);
    }
}
