//! The tables of a dump against the manifest: rows and fingerprints, recomputed from the COPY text in the bundle.
//!
//! Pieces of several tables may mingle; each table holds a few kilobytes here, whatever its size.

use std::collections::HashMap;

use bytes::Bytes;
use pacharc_format::manifest::{Database, Manifest, Table};
use pacharc_format::{Entry, Fingerprint};

/// Recomputes what the manifest says of tables.
#[derive(Default)]
pub(super) struct TableCheck {
    /// By folder of the table: `database/<folder>/attempt-<n>/data/<number>`.
    tables: HashMap<String, Rows>,
    /// Other files of dumps, by path.
    files: HashMap<String, u64>,
}

/// One table's rows so far.
#[derive(Default)]
struct Rows {
    pieces: u32,
    state: State,
    fingerprint: Fingerprint,
    bytes: u64,
    /// The hash of a line whose end has not come yet.
    line: Option<Box<blake3::Hasher>>,
    /// Its bytes, while they are few: enough to know the end of the data.
    head: Vec<u8>,
    /// Whether a quoted name in a statement has not ended yet.
    in_name: bool,
    problem: Option<String>,
}

/// Where in a table's file the reader is.
#[derive(Default, PartialEq, Eq)]
enum State {
    /// In the settings and the COPY statement.
    #[default]
    Statements,
    /// In the rows.
    Rows,
    /// Behind `\.`.
    Done,
}

impl TableCheck {
    /// Takes an entry; those that are no part of a dump are passed over.
    pub(super) fn entry(&mut self, entry: &Entry) {
        if !entry.path.starts_with("database/") {
            return;
        }
        let table = entry.path.rsplit_once('/').filter(|(folder, _)| is_table(folder));
        let Some((folder, piece)) = table else {
            *self.files.entry(entry.path.clone()).or_default() += entry.body.len() as u64;
            return;
        };
        let rows = self.tables.entry(folder.to_owned()).or_default();
        if piece != format!("{:08}", rows.pieces) {
            rows.problem.get_or_insert_with(|| format!("piece {piece} is out of order"));
        }
        rows.pieces += 1;
        rows.read(&entry.body);
    }

    /// What differs from the manifest, in words.
    pub(super) fn compare(&self, manifest: &Manifest) -> Vec<String> {
        let mut problems = Vec::new();
        for database in &manifest.databases {
            let folder = format!("database/{}/attempt-{}", database.folder, manifest.attempt);
            for table in &database.tables {
                let problem = match self.tables.get(&format!("{folder}/data/{:05}", table.number)) {
                    Some(rows) => rows.compare(table),
                    None if table.pieces == 0 && table.rows == 0 => None,
                    None => Some("its rows are not in the bundle".to_owned()),
                };
                let name = || format!("table {}.{} of database {}", table.schema, table.name, database.name);
                problems.extend(problem.map(|problem| format!("{}: {problem}", name())));
            }
            problems.extend(self.missing_file(database, &folder));
        }
        problems
    }

    fn missing_file(&self, database: &Database, folder: &str) -> Option<String> {
        let has = |name: &str| {
            let (file, pieces) = (format!("{folder}/{name}.sql"), format!("{folder}/{name}/00000000"));
            self.files.contains_key(&file) || self.files.contains_key(&pieces)
        };
        let missing = ["pre-data", "sequences", "post-data"].into_iter().find(|name| !has(name))?;
        Some(format!("database {}: {missing} is not in the bundle", database.name))
    }
}

/// Whether `folder` is that of a table's pieces.
fn is_table(folder: &str) -> bool {
    let parts: Vec<_> = folder.split('/').collect();
    matches!(parts.as_slice(), ["database", _, attempt, "data", _] if attempt.starts_with("attempt-"))
}

impl Rows {
    fn read(&mut self, body: &Bytes) {
        let mut rest = &body[..];
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            self.line_end(line);
            rest = after.get(1..).unwrap_or_default();
        }
        if !rest.is_empty() {
            self.line_part(rest);
        }
    }

    /// Takes a part of a line whose end is in a later piece.
    fn line_part(&mut self, part: &[u8]) {
        self.line.get_or_insert_default().update(part);
        let room = (64 * 1024_usize).saturating_sub(self.head.len());
        self.head.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
    }

    fn line_end(&mut self, end: &[u8]) {
        let (hash, length) = match self.line.take() {
            // The usual case: the whole line is here.
            None => {
                self.head.clear();
                self.head.extend_from_slice(end.get(..end.len().min(64 * 1024)).unwrap_or_default());
                (blake3::hash(end), end.len())
            }
            Some(mut line) => {
                line.update(end);
                let room = (64 * 1024_usize).saturating_sub(self.head.len());
                self.head.extend_from_slice(end.get(..end.len().min(room)).unwrap_or_default());
                (line.finalize(), usize::try_from(line.count()).unwrap_or(usize::MAX))
            }
        };
        let line = std::mem::take(&mut self.head);
        match self.state {
            State::Statements => {
                // A statement's line may end inside a quoted name.
                self.in_name ^= line.iter().filter(|&&b| b == b'"').count() % 2 == 1;
                if line.ends_with(b" FROM stdin;") && !self.in_name {
                    self.state = State::Rows;
                }
            }
            State::Rows if line == b"\\." && length == 2 => self.state = State::Done,
            State::Rows => {
                self.fingerprint.hash(&hash);
                self.bytes += length as u64 + 1;
            }
            State::Done if line.is_empty() => {}
            State::Done => {
                self.problem.get_or_insert_with(|| "lines follow the end of its rows".to_owned());
            }
        }
        self.head = line;
        self.head.clear();
    }

    fn compare(&self, table: &Table) -> Option<String> {
        if let Some(problem) = &self.problem {
            return Some(problem.clone());
        }
        if self.state != State::Done || self.line.is_some() {
            return Some("its rows have no end".to_owned());
        }
        let (rows, told) = (self.fingerprint.count(), table.rows);
        if rows != told {
            return Some(format!("{rows} rows where the manifest has {told}"));
        }
        if self.fingerprint.to_hex() != table.fingerprint {
            return Some("the fingerprint of its rows differs from the manifest's".to_owned());
        }
        (self.bytes != table.bytes || self.pieces != table.pieces)
            .then(|| "the size of its rows differs from the manifest's".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[&[u8]]) -> Table {
        let mut fingerprint = Fingerprint::default();
        rows.iter().for_each(|row| fingerprint.line(row));
        let bytes = rows.iter().map(|row| row.len() as u64 + 1).sum();
        Table { number: 1, rows: fingerprint.count(), bytes, fingerprint: fingerprint.to_hex(), ..Table::default() }
    }

    fn read(text: &[u8], piece: usize) -> Rows {
        let mut rows = Rows::default();
        for piece in text.chunks(piece) {
            rows.pieces += 1;
            rows.read(&Bytes::copy_from_slice(piece));
        }
        rows
    }

    #[test]
    fn rows_are_counted_however_they_are_cut() {
        let text = b"SET x = 'y';\nCOPY \"a\n FROM stdin;\n\".\"b\" (\"c\") FROM stdin;\n1\n\\\\.\n\n22\n\\.\n";
        let rows: &[&[u8]] = &[b"1", b"\\\\.", b"", b"22"];
        for piece in 1..text.len() {
            let found = read(text, piece);
            assert_eq!(found.compare(&Table { pieces: found.pieces, ..table(rows) }), None, "{piece}");
        }
    }

    #[test]
    fn what_is_lacking_is_told() {
        let text = b"COPY t (a) FROM stdin;\n1\n2\n\\.\n";
        let found = read(text, 100);
        let whole = Table { pieces: 1, ..table(&[b"1", b"2"]) };
        assert_eq!(found.compare(&whole), None);
        assert!(found.compare(&Table { rows: 3, ..whole.clone() }).is_some());
        assert!(found.compare(&Table { fingerprint: table(&[b"1", b"3"]).fingerprint, ..whole.clone() }).is_some());
        assert!(read(&text[..text.len() - 3], 100).compare(&whole).is_some());
    }
}
