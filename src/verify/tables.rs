//! The tables of a dump against the manifest: rows and fingerprints, recomputed from the COPY text in the bundle.
//!
//! Pieces of several tables may mingle; each table holds a few hundred bytes here, and a hash while one of its rows is
//! open, whatever its size. Rows of which nothing but the fingerprint is wanted are hashed on threads of their own: a
//! fingerprint is a sum, and does not ask which piece was first.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use pacharc_format::manifest::{Manifest, Table};
use pacharc_format::{self as format, Entry, Fingerprint, LineReader};
use tokio::task::{JoinError, JoinSet};

use super::closed::{Dump, Wanted};

/// More tables, of all attempts together, than manifests can name.
const TABLES: usize = 1 << 18;
/// The scripts that every dump has.
const SCRIPTS: [&str; 3] = ["pre-data", "sequences", "post-data"];
/// The script that a dump with large objects has besides.
const LARGE_OBJECTS: &str = "large-objects";
/// More bytes than a `VALID` has: so many are kept of it.
const VALID: usize = 20;
/// The most that is kept of a line before the rows: a COPY of 1,600 columns fits.
const STATEMENT: usize = 1 << 20;
/// The line that ends the rows; no row looks like it.
const END_OF_ROWS: &[u8] = b"\\.";
/// The most that is kept of a row that is read: what is wanted stands in front, or is short.
const ROW: usize = 1 << 16;
/// The most that all tables together hold of lines that go on in their next pieces: a dozen such COPY, and of every row a beginning.
const HELD: usize = 16 << 20;
/// Rows of fewer bytes are not worth another thread.
const FEW: usize = 1 << 16;

/// Recomputes what the manifest says of tables.
#[derive(Default)]
pub(super) struct TableCheck {
    hashing: Hashing,
    /// By folder of the table: `database/<folder>/attempt-<n>/data/<number>`.
    tables: HashMap<String, Rows>,
    /// Scripts of dumps: `database/<folder>/attempt-<n>/<script>`.
    scripts: HashSet<String>,
    /// What `database/<folder>/VALID` says, by folder: by it those who have no manifest to read choose the attempt.
    valid: HashMap<String, Vec<u8>>,
    /// Bytes that are held of unfinished lines.
    held: usize,
    /// Whether there were more than [`TABLES`] of any, or [`HELD`].
    too_many: bool,
    /// Who reads rows, at level *closed*.
    pub(super) dump: Option<Dump>,
}

/// Rows that are being hashed on other threads.
#[derive(Default)]
struct Hashing {
    under_way: JoinSet<Hashed>,
    /// Bytes of them.
    bytes: usize,
    /// The most of those; one piece is always taken.
    limit: usize,
}

/// Rows that were hashed: the folder of their table, their bytes, and their fingerprint, which there is since they are whole.
type Hashed = (String, usize, Option<Fingerprint>);

/// One table's rows so far.
#[derive(Default)]
struct Rows {
    pieces: u32,
    state: State,
    fingerprint: Fingerprint,
    bytes: u64,
    /// The hash of a line whose end has not come yet.
    line: Option<Box<blake3::Hasher>>,
    /// Its first bytes: enough to know a COPY, and the end of the rows.
    head: Vec<u8>,
    /// Whether a quoted name in a statement has not ended yet.
    in_name: bool,
    /// What is read of the rows.
    wanted: Option<Wanted>,
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
    /// Holds at most so many bytes of rows, or one piece.
    pub(super) fn new(memory: usize) -> Self {
        Self { hashing: Hashing { limit: memory, ..Hashing::default() }, ..Self::default() }
    }

    /// Takes an entry; those that are no part of a dump are passed over.
    ///
    /// # Errors
    /// Where what was read cannot be spooled.
    pub(super) async fn entry(&mut self, entry: &Entry) -> format::Result<()> {
        let parts: Vec<&str> = entry.path.splitn(7, '/').collect();
        match parts.as_slice() {
            ["database", _, attempt, "data", _, piece] if attempt.starts_with("attempt-") => {
                let folder = entry.path.strip_suffix(piece).unwrap_or_default().trim_end_matches('/');
                self.piece(folder, piece, &entry.body).await?;
            }
            ["database", database, attempt, file, rest @ ..] if matches!(rest, [] | ["00000000"]) => {
                let script = if rest.is_empty() { file.strip_suffix(".sql") } else { Some(*file) };
                let is_known = |script: &&str| SCRIPTS.contains(script) || *script == LARGE_OBJECTS;
                if let Some(script) = script.filter(is_known) {
                    self.too_many |= self.scripts.len() == TABLES;
                    if !self.too_many {
                        self.scripts.insert(format!("database/{database}/{attempt}/{script}"));
                    }
                }
            }
            ["database", database, "VALID"] => {
                self.too_many |= self.valid.len() == TABLES;
                if !self.too_many {
                    let said = entry.body.get(..VALID).unwrap_or(&entry.body).to_vec();
                    self.valid.insert((*database).to_owned(), said);
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn piece(&mut self, folder: &str, piece: &str, body: &Bytes) -> format::Result<()> {
        self.too_many |= self.tables.len() == TABLES && !self.tables.contains_key(folder);
        if self.too_many {
            return Ok(());
        }
        if !self.tables.contains_key(folder) {
            self.tables.insert(folder.to_owned(), Rows::default());
        }
        let Some(rows) = self.tables.get_mut(folder) else { return Ok(()) };
        if piece != format!("{:08}", rows.pieces) {
            rows.problem.get_or_insert_with(|| format!("piece {piece} is out of order"));
        }
        rows.pieces += 1;
        let mut body = body.clone();
        let rows_alone = body.split_to(rows.fingerprint_alone(&body));
        let held = rows.head.capacity();
        rows.read(&body, folder, self.dump.as_mut())?;
        rows.head.shrink_to_fit();
        self.held = self.held - held + rows.head.capacity();
        self.too_many |= self.held > HELD;
        if !rows_alone.is_empty() {
            self.hash(folder.to_owned(), rows_alone).await?;
        }
        Ok(())
    }

    /// Hashes whole rows on another thread, once there is room for them.
    async fn hash(&mut self, folder: String, rows: Bytes) -> format::Result<()> {
        let length = rows.len();
        while self.hashing.bytes + length > self.hashing.limit
            && let Some(hashed) = self.hashing.under_way.join_next().await
        {
            self.add(hashed)?;
        }
        self.hashing.bytes += length;
        self.hashing.under_way.spawn_blocking(move || {
            let mut lines = LineReader::default();
            lines.read(&rows);
            (folder, rows.len(), lines.finish())
        });
        Ok(())
    }

    /// Adds rows that were hashed to those of their table.
    fn add(&mut self, hashed: Result<Hashed, JoinError>) -> format::Result<()> {
        let (folder, length, fingerprint) = hashed.map_err(|e| format::Error::Worker(e.to_string()))?;
        self.hashing.bytes -= length;
        if let (Some(rows), Some(fingerprint)) = (self.tables.get_mut(&folder), fingerprint) {
            rows.fingerprint.merge(&fingerprint);
            rows.bytes += length as u64;
        }
        Ok(())
    }

    /// What differs from the manifest, in words.
    ///
    /// # Errors
    /// [`format::Error::Worker`].
    pub(super) async fn compare(&mut self, manifest: &Manifest) -> format::Result<Vec<String>> {
        while let Some(hashed) = self.hashing.under_way.join_next().await {
            self.add(hashed)?;
        }
        let mut problems = Vec::new();
        if self.too_many {
            problems.push("the bundle holds more tables, or longer lines of them, than a dump can have".to_owned());
        }
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
            let missing = SCRIPTS.iter().find(|script| !self.scripts.contains(&format!("{folder}/{script}")));
            problems.extend(missing.map(|script| format!("database {}: {script} is not in the bundle", database.name)));
            let wanted = format!("attempt-{}\n", manifest.attempt);
            let problem = match self.valid.get(&database.folder) {
                Some(said) if said.as_slice() == wanted.as_bytes() => None,
                Some(_) => Some("names another attempt than the manifest"),
                None => Some("is not in the bundle"),
            };
            problems.extend(problem.map(|problem| format!("database {}: VALID {problem}", database.name)));
        }
        Ok(problems)
    }

    /// Databases of which the manifest counts large objects, and the bundle has none, in words.
    pub(super) fn lacking_large_objects(&self, manifest: &Manifest) -> Vec<String> {
        let counted = manifest.databases.iter().filter(|database| database.large_objects.count > 0);
        let lacking = counted.filter(|database| {
            let folder = format!("database/{}/attempt-{}", database.folder, manifest.attempt);
            !self.scripts.contains(&format!("{folder}/{LARGE_OBJECTS}"))
        });
        lacking.map(|database| format!("database {}: its large objects are not in the bundle", database.name)).collect()
    }
}

impl Rows {
    /// How many bytes at the beginning of a piece are whole rows of which nothing but the fingerprint is wanted; 0 where that
    /// is not worth another thread.
    fn fingerprint_alone(&self, body: &[u8]) -> usize {
        if self.state != State::Rows || self.line.is_some() || self.wanted.is_some() {
            return 0;
        }
        let end = match memchr::memmem::find(body, b"\n\\.\n") {
            _ if body.starts_with(b"\\.\n") => 0,
            Some(before) => before + 1,
            None => memchr::memrchr(b'\n', body).map_or(0, |end| end + 1),
        };
        if end < FEW { 0 } else { end }
    }

    fn read(&mut self, body: &Bytes, folder: &str, mut dump: Option<&mut Dump>) -> format::Result<()> {
        let mut rest = &body[..];
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            self.line_end(line, folder, dump.as_deref_mut())?;
            rest = after.get(1..).unwrap_or_default();
        }
        if !rest.is_empty() {
            self.line_part(rest);
        }
        Ok(())
    }

    /// Takes a part of a line whose end is in a later piece.
    fn line_part(&mut self, part: &[u8]) {
        self.line.get_or_insert_default().update(part);
        self.keep(part);
    }

    fn keep(&mut self, part: &[u8]) {
        let most = match (&self.state, &self.wanted) {
            (State::Statements, _) => STATEMENT,
            (_, Some(_)) => ROW,
            // One byte more than the end of the rows tells that it is none.
            (_, None) => END_OF_ROWS.len() + 1,
        };
        let room = most.saturating_sub(self.head.len());
        self.head.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
    }

    fn line_end(&mut self, end: &[u8], folder: &str, dump: Option<&mut Dump>) -> format::Result<()> {
        let (hash, length) = match self.line.take() {
            // The usual case: the whole line is here.
            None => (blake3::hash(end), end.len() as u64),
            Some(mut line) => {
                line.update(end);
                (line.finalize(), line.count())
            }
        };
        self.keep(end);
        match self.state {
            State::Statements => {
                // A statement's line may end inside a quoted name.
                self.in_name ^= self.head.iter().filter(|&&b| b == b'"').count() % 2 == 1;
                if self.head.ends_with(b" FROM stdin;") && !self.in_name {
                    self.state = State::Rows;
                    self.wanted = dump.and_then(|dump| dump.wanted(folder, &self.head));
                    self.head = Vec::new();
                }
            }
            State::Rows if self.head == END_OF_ROWS => self.state = State::Done,
            State::Rows => {
                self.fingerprint.hash(&hash);
                self.bytes += length + 1;
                if let (Some(wanted), Some(dump)) = (&self.wanted, dump) {
                    dump.row(wanted, &self.head)?;
                }
            }
            State::Done if length == 0 => {}
            State::Done => {
                self.problem.get_or_insert_with(|| "lines follow the end of its rows".to_owned());
            }
        }
        self.head.clear();
        Ok(())
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
    use pacharc_format::manifest::Database;

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
            rows.read(&Bytes::copy_from_slice(piece), "", None).unwrap();
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
    fn long_names_are_read_and_long_rows_are_not_kept() {
        let columns = vec![format!("\"{}\"", "c".repeat(120)); 1600].join(", ");
        let row = "x".repeat(1 << 20);
        let text = format!("COPY \"s\".\"t\" ({columns}) FROM stdin;\n{row}\n\\.\n");
        for piece in [text.len(), 70_000] {
            let mut found = read(text.as_bytes(), piece);
            assert_eq!(found.compare(&Table { pieces: found.pieces, ..table(&[row.as_bytes()]) }), None);
            found.read(&Bytes::from(row.clone()), "", None).unwrap();
            assert!(found.head.capacity() < 1024);
        }
    }

    #[tokio::test]
    async fn what_is_no_part_of_a_dump_takes_no_memory() {
        let mut tables = TableCheck::default();
        let others =
            ["attempt-1/settings.json", "attempt-1/sequences/00000001", "attempt-1/pre-data/00000000/x", "x/data/1"];
        let others = others.map(|path| format!("database/a/{path}"));
        for path in others.iter().map(String::as_str).chain(["objects/chunk/x", "database/a/VALID"]) {
            tables.entry(&Entry::text(path, "x")).await.unwrap();
        }
        assert!(tables.tables.is_empty() && tables.scripts.is_empty());
        let mut lacking = tables.compare(&manifest()).await.unwrap();
        let without = ["pre-data is not in the bundle", "VALID names another attempt than the manifest"];
        assert_eq!(lacking, without.map(|problem| format!("database a: {problem}")));
        for path in ["pre-data.sql", "sequences/00000000", "post-data.sql"] {
            tables.entry(&Entry::text(format!("database/a/attempt-1/{path}"), "x")).await.unwrap();
        }
        tables.entry(&Entry::text("database/a/VALID", "attempt-1\n")).await.unwrap();
        lacking = tables.compare(&manifest()).await.unwrap();
        assert_eq!(lacking, [""; 0]);
    }

    /// Whoever has bash alone loads the attempt that `VALID` names: it must be the one that the manifest says counts.
    #[tokio::test]
    async fn valid_names_the_attempt_of_the_manifest_and_nothing_else() {
        let other = Some("database a: VALID names another attempt than the manifest".to_owned());
        let absent = Some("database a: VALID is not in the bundle".to_owned());
        for (said, wanted) in [
            (Some("attempt-1\n"), &None),
            (Some("attempt-2\n"), &other),
            (Some("attempt-1"), &other),
            (Some("attempt-1\n\n"), &other),
            (Some("attempt-1\nattempt-1\nattempt-1\n"), &other),
            (Some(""), &other),
            (None, &absent),
        ] {
            let mut tables = TableCheck::default();
            if let Some(said) = said {
                tables.entry(&Entry::text("database/a/VALID", said)).await.unwrap();
            }
            let problems = tables.compare(&manifest()).await.unwrap();
            let found = problems.into_iter().find(|problem| problem.contains("VALID"));
            assert_eq!(found, *wanted, "{said:?}");
        }
    }

    #[tokio::test]
    async fn large_objects_that_are_counted_must_be_there() {
        let mut manifest = manifest();
        let mut tables = TableCheck::default();
        assert_eq!(tables.lacking_large_objects(&manifest), [""; 0]);
        manifest.databases[0].large_objects.count = 1;
        for path in ["attempt-2/large-objects/00000000", "attempt-1/large-objects/00000001"] {
            tables.entry(&Entry::text(format!("database/a/{path}"), "x")).await.unwrap();
        }
        assert_eq!(tables.lacking_large_objects(&manifest), ["database a: its large objects are not in the bundle"]);
        tables.entry(&Entry::text("database/a/attempt-1/large-objects/00000000", "x")).await.unwrap();
        assert_eq!(tables.lacking_large_objects(&manifest), [""; 0]);
    }

    fn manifest() -> Manifest {
        let database = Database { name: "a".into(), folder: "a".into(), ..Database::default() };
        Manifest { databases: vec![database], attempt: 1, ..Manifest::default() }
    }

    #[tokio::test]
    async fn many_rows_are_hashed_apart_wherever_they_are_cut() {
        // Some rows are longer than what is worth a thread, and some longer than a piece.
        let row = |n: usize| format!("{n}\t{}", "x".repeat(if n.is_multiple_of(500) { 3 * FEW } else { n % 200 }));
        let rows: Vec<String> = (0..3000).map(row).chain(["\\\\.".into(), String::new()]).collect();
        let text = format!("SET x = 'y';\nCOPY t (a) FROM stdin;\n{}\n\\.\n", rows.join("\n"));
        let whole = table(&rows.iter().map(String::as_bytes).collect::<Vec<_>>());
        let odd = text.replace("\n2999\t", "\n2998\t");
        for (memory, piece) in [(0, text.len()), (0, FEW), (1 << 20, 2 * FEW + 7), (300_000, 3 * FEW)] {
            for (text, is_right) in [(&text, true), (&odd, false)] {
                let mut tables = TableCheck::new(memory);
                let mut table = whole.clone();
                for (number, body) in text.as_bytes().chunks(piece).enumerate() {
                    let path = format!("database/a/attempt-1/data/00001/{number:08}");
                    tables.entry(&Entry::text(path, Bytes::copy_from_slice(body))).await.unwrap();
                    assert!(tables.hashing.bytes <= memory.max(piece), "{memory} {piece}");
                    table.pieces += 1;
                }
                let mut manifest = manifest();
                manifest.databases[0].tables.push(table);
                let problems = tables.compare(&manifest).await.unwrap();
                assert_eq!(!problems.iter().any(|problem| problem.starts_with("table")), is_right, "{problems:?}");
            }
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
        assert!(found.compare(&Table { bytes: 5, ..whole.clone() }).is_some());
        assert!(found.compare(&Table { pieces: 2, ..whole.clone() }).is_some());
        // Nobody but a forger writes a row that begins like the end, and goes on.
        assert_eq!(
            read(b"COPY t (a) FROM stdin;\n\\.x\n\\.\n", 100).compare(&whole).unwrap(),
            "1 rows where the manifest has 2"
        );
    }
}
