//! Turns the data section of one pg_dump into entries of the bundle: a folder of pieces for each table and for the large
//! objects, each of which psql can load, with counts and fingerprints taken on the way.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

use pacharc_format::manifest::{self, LargeObjects, Sequence};
use pacharc_format::{Fingerprint, LineReader};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use super::Error;
use super::catalog::{Table, quote_qualified};
use super::child::Label;
use super::dump::{Progress, Report};
use super::dump_error::DumpError;
use super::pieces::PieceWriter;
use super::script::{self, ScriptError, ScriptReader};
use super::statement::{Copy, LargeObject, Statement, Step};
use super::utf8::Utf8Check;
use crate::feed::Feed;

/// The size of a piece of a table, in bytes: each data child fills one at a time.
const PIECE: usize = 4 << 20;
/// How many bytes are read between two reports of progress.
const REPORT: u64 = 1 << 20;

/// The tables of a database that a dump holds, numbered in their order from 1.
#[derive(Debug)]
pub(super) struct Layout {
    /// `database/<folder>/attempt-<n>`.
    pub(super) folder: String,
    /// `SET` statements that every file of data begins with.
    pub(super) preamble: String,
    /// Whether the rows are to be UTF-8.
    is_utf8: bool,
    pub(super) tables: Vec<Table>,
    /// Indexes of the tables above which pg_dump writes this comment; two names may look alike in it.
    labels: HashMap<String, Vec<usize>>,
}

impl Layout {
    pub(super) fn new(folder: String, session: &[(String, String)], tables: Vec<Table>) -> Self {
        let quoted = |value: &str| value.replace('\'', "''");
        let is_utf8 = session.iter().any(|(name, value)| name == "client_encoding" && value == "UTF8");
        let preamble = session.iter().map(|(name, value)| format!("SET {name} = '{}';\n", quoted(value))).collect();
        let mut labels: HashMap<_, Vec<_>> = HashMap::new();
        for (index, table) in tables.iter().enumerate() {
            labels.entry(script::label(&table.schema, &table.name)).or_default().push(index);
        }
        Self { folder, preamble, is_utf8, tables, labels }
    }

    /// Which table's rows follow `copy`: the one it names, or a partition of it.
    fn index(&self, copy: &Copy, done: &HashSet<usize>) -> Option<usize> {
        let candidates = copy.label.as_ref().and_then(|label| self.labels.get(label))?;
        let is_named = |table: &Table| table.schema == copy.schema && table.name == copy.table;
        let is_below = |table: &Table| {
            table.root.as_ref().is_some_and(|(schema, name)| *schema == copy.schema && *name == copy.table)
        };
        let mut open = candidates.iter().copied().filter(|index| !done.contains(index));
        open.clone().find(|&index| is_named(&self.tables[index])).or_else(|| open.find(|&i| is_below(&self.tables[i])))
    }
}

/// What one child's data was.
#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) tables: Vec<manifest::Table>,
    pub(super) sequences: Vec<Sequence>,
    /// The `setval` statements.
    pub(super) sequences_sql: Vec<u8>,
    pub(super) large_objects: LargeObjects,
}

/// Reads one child's output to its end.
pub(super) struct DataReader<R> {
    pub(super) script: ScriptReader<R>,
    pub(super) label: Label,
    pub(super) layout: Arc<Layout>,
    pub(super) feed: Feed,
    pub(super) report: Report,
    /// Closes when the other children's tables are all read, since in a bundle large objects come after them.
    pub(super) others: Option<mpsc::Receiver<Infallible>>,
}

impl<R: AsyncRead + Unpin> DataReader<R> {
    pub(super) async fn read(&mut self) -> Result<Data, Error> {
        let mut data = Data::default();
        let mut done = HashSet::new();
        let mut large_objects: Option<LargeObjectWriter> = None;
        while let Some(statement) = self.script.statement().await.map_err(|e| self.label.script(e))? {
            match statement {
                // The pieces begin with settings of their own.
                Statement::Setting(_) => {}
                Statement::Copy(copy) => {
                    let unexpected = || DumpError::UnexpectedTable {
                        database: self.label.database.clone(),
                        table: quote_qualified(&copy.schema, &copy.table),
                    };
                    let index = self.layout.index(&copy, &done).ok_or_else(unexpected)?;
                    done.insert(index);
                    data.tables.push(self.table(index, copy).await?);
                }
                Statement::Sequence(set) => {
                    data.sequences_sql.extend_from_slice(&set.text);
                    data.sequences_sql.push(b'\n');
                    data.sequences.push(Sequence {
                        schema: set.schema,
                        name: set.name,
                        last_value: set.last_value,
                        is_called: set.is_called,
                    });
                }
                Statement::LargeObject(statement) => {
                    let writer = match &mut large_objects {
                        Some(writer) => writer,
                        None => {
                            if let Some(mut others) = self.others.take() {
                                while others.recv().await.is_some() {}
                            }
                            large_objects.insert(LargeObjectWriter::new(&self.feed, &self.layout).await?)
                        }
                    };
                    writer.write(&statement).await?;
                }
            }
        }
        if let Some(writer) = large_objects {
            data.large_objects = writer.finish().await?;
        }
        Ok(data)
    }

    /// Reads the rows below `copy`.
    async fn table(&mut self, index: usize, copy: Copy) -> Result<manifest::Table, Error> {
        let table = &self.layout.tables[index];
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let mut pieces = PieceWriter::new(&self.feed, format!("{}/data/{number:05}", self.layout.folder), PIECE);
        pieces.write(self.layout.preamble.as_bytes()).await.map_err(DumpError::from)?;
        pieces.write(&copy.text).await.map_err(DumpError::from)?;
        pieces.write(b"\n").await.map_err(DumpError::from)?;
        pieces.end_row();

        let mut lines = LineReader::default();
        // A server looks at the text that it is given, not at what it has stored: such rows it gives out, and none takes them back.
        let mut text = self.layout.is_utf8.then(Utf8Check::default);
        let mut broken_row = None;
        let mut bytes = 0;
        let mut reported = 0;
        while let Some(rows) = self.script.rows().await.map_err(|e| self.label.script(e))? {
            bytes += rows.len() as u64;
            lines.read(rows);
            if let Some(Err(row)) = text.as_mut().map(|text| text.see(rows)) {
                (text, broken_row) = (None, Some(row));
            }
            pieces.write_rows(rows).await.map_err(DumpError::from)?;
            if bytes - reported >= REPORT {
                (self.report)(Progress::Bytes(bytes - reported));
                reported = bytes;
            }
        }
        let fingerprint = lines.finish().ok_or_else(|| self.label.script(ScriptError::Truncated))?;
        (self.report)(Progress::Bytes(bytes - reported));
        pieces.write(b"\\.\n").await.map_err(DumpError::from)?;
        let via_root = (copy.schema.as_str(), copy.table.as_str()) != (table.schema.as_str(), table.name.as_str());
        Ok(manifest::Table {
            number,
            schema: table.schema.clone(),
            name: table.name.clone(),
            columns: copy.columns,
            root: if via_root || table.rows_may_move { table.root.clone() } else { None },
            via_root,
            extension_filter: table.extension_filter.clone(),
            rows: fingerprint.count(),
            bytes,
            pieces: pieces.finish().await.map_err(DumpError::from)?,
            fingerprint: fingerprint.to_hex(),
            broken_row,
        })
    }
}

/// The tables with rows that no server takes back: which one, and what is wrong with it, in words.
#[must_use]
pub(crate) fn broken_rows(database: &manifest::Database) -> Vec<(String, String)> {
    let told = |table: &manifest::Table| {
        let (name, database) = (quote_qualified(&table.schema, &table.name), &database.name);
        let problem = format!("row {} is not UTF-8, and no server takes it back", table.broken_row?);
        Some((format!("table {name} of database \"{database}\""), problem))
    };
    database.tables.iter().filter_map(told).collect()
}

/// Writes the folder `large-objects`.
struct LargeObjectWriter {
    pieces: PieceWriter,
    open: blake3::Hasher,
    fingerprint: Fingerprint,
    bytes: u64,
}

impl LargeObjectWriter {
    async fn new(feed: &Feed, layout: &Layout) -> Result<Self, DumpError> {
        let mut pieces = PieceWriter::new(feed, format!("{}/large-objects", layout.folder), PIECE);
        pieces.write(layout.preamble.as_bytes()).await?;
        pieces.end_row();
        Ok(Self { pieces, open: blake3::Hasher::new(), fingerprint: Fingerprint::default(), bytes: 0 })
    }

    async fn write(&mut self, statement: &LargeObject) -> Result<(), DumpError> {
        match &statement.step {
            Step::Open(oid) => {
                self.open.reset().update(&oid.to_be_bytes());
            }
            Step::Write(bytes) => {
                self.open.update(bytes);
                self.bytes += bytes.len() as u64;
            }
            Step::Close => self.fingerprint.hash(&self.open.finalize()),
            Step::Other => {}
        }
        self.pieces.write(&statement.text).await?;
        self.pieces.write(b"\n").await?;
        self.pieces.end_row();
        Ok(())
    }

    async fn finish(self) -> Result<LargeObjects, DumpError> {
        self.pieces.finish().await?;
        let Self { fingerprint, bytes, .. } = self;
        Ok(LargeObjects { count: fingerprint.count(), bytes, fingerprint: fingerprint.to_hex() })
    }
}
