//! The dump of one database: its children, and the order in which what they write goes into the bundle.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use pacharc_format::{Entry, manifest};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::ChildStdout;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::catalog::Table;
use super::child::{Child, Label};
use super::data::{Data, DataReader, Layout};
use super::dump::Report;
use super::pieces::PieceWriter;
use super::script::{Onlooker, ScriptError, ScriptReader};
use super::settings::{self, DumpSettings};
use super::snapshot::{LOCK_SECONDS, Snapshot};
use super::{Attempt, DumpError, Error, Server, account};
use crate::feed::Feed;

/// A table that takes this many bytes is worth a child of its own.
const LARGE_TABLE: u64 = 64 << 20;
/// How often the locks are looked at, and how often at most.
const LOCK_POLL: Duration = Duration::from_millis(100);
const LOCK_POLLS: usize = 100;

/// The children of one database, running.
pub(super) struct DatabaseDump<'a> {
    snapshot: &'a Snapshot,
    layout: Arc<Layout>,
    settings: DumpSettings,
    pre_data: File,
    post_data: File,
    owners_and_grants: File,
    /// The first one reads all that the others do not.
    data: Vec<DataChild>,
    warnings: Vec<String>,
}

/// A child whose output is kept as it is.
struct File {
    child: Child,
    output: BufReader<ChildStdout>,
}

struct DataChild {
    child: Child,
    script: ScriptReader<ChildStdout>,
}

impl<'a> DatabaseDump<'a> {
    /// Starts the children.
    pub(super) fn start(attempt: &Attempt, snapshot: &'a Snapshot, jobs: usize) -> Result<Self, Error> {
        let survey = &snapshot.survey;
        let has_data = |table: &&Table| table.has_data(survey.server.standby);
        let tables: Vec<Table> = snapshot.tables.iter().filter(has_data).cloned().collect();
        let session = settings::session(&survey.properties.encoding);
        let folder = format!("database/{}/attempt-{}", folder(&survey.name), attempt.number);
        let starter = Starter { attempt, snapshot };

        let bare = ["--no-owner", "--no-privileges"];
        let pre_data = starter.file("pre-data", &[&bare[..], &["--section=pre-data"]].concat())?;
        let post_data = starter.file("post-data", &[&bare[..], &["--section=post-data"]].concat())?;
        let owners_and_grants = starter.file("owners and grants", &["--schema-only"])?;
        let shares = shares(&tables, jobs);
        let data = starter.data(&shares, &tables)?;

        Ok(Self {
            snapshot,
            layout: Arc::new(Layout::new(folder, &session, tables)),
            settings: DumpSettings {
                database: survey.name.clone(),
                kind: survey.kind,
                schema_version: survey.schema_version,
                properties: survey.properties.clone(),
                session,
                server: survey.server.clone(),
                pg_dump: attempt.tools.pg_dump.version.clone(),
            },
            pre_data,
            post_data,
            owners_and_grants,
            data,
            warnings: Vec::new(),
        })
    }

    /// Waits until every child has locked what it reads.
    ///
    /// pg_dump writes nothing before it has locked its tables and read the catalogs: the first byte says that it is
    /// that far, and `pg_locks` that the locks are there (unless the child has ended already, with all data read).
    pub(super) async fn locked(&mut self, server: &Server) -> Result<(), Error> {
        for file in [&mut self.pre_data, &mut self.post_data, &mut self.owners_and_grants] {
            let outcome = match file.output.fill_buf().await {
                Ok([]) => Err(ScriptError::Truncated),
                Ok(_) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = outcome {
                return Err(file.child.explain(error).await);
            }
        }
        for data in &mut self.data {
            if let Err(error) = data.script.ready().await {
                return Err(data.child.explain(error).await);
            }
        }
        let session = server.connect(&self.snapshot.survey.name).await?;
        let files = [&self.pre_data, &self.post_data, &self.owners_and_grants].map(|file| &file.child);
        for child in files.into_iter().chain(self.data.iter().map(|data| &data.child)) {
            child.check_locks(&session, LOCK_POLL, LOCK_POLLS).await?;
        }
        Ok(())
    }

    /// Writes everything, checks that it is what the snapshot holds, and says what it is.
    pub(super) async fn write(
        mut self,
        feed: &Feed,
        globals: &Result<String, String>,
        report: &Report,
    ) -> Result<manifest::Database, Error> {
        let path = |name: &str| format!("{}/{name}", self.layout.folder);
        let mut warnings = std::mem::take(&mut self.warnings);
        let settings = serde_json::to_vec_pretty(&self.settings).unwrap_or_default();
        feed.send(Entry::text(path("settings.json"), settings)).await.map_err(DumpError::from)?;
        match globals {
            Ok(globals) => text(feed, &path("globals.sql"), globals.as_bytes()).await?,
            Err(reason) => warnings.push(format!("roles and grants of the server: {reason}")),
        }
        warnings.extend(self.owners_and_grants.copy(feed, &path("owners-and-grants.sql")).await?);
        warnings.extend(self.pre_data.copy(feed, &path("pre-data.sql")).await?);
        text(feed, &path("tables.tsv"), tables_tsv(&self.layout.tables).as_bytes()).await?;

        let reading = read(self.data, &self.layout, feed, report);
        let (counts, (data, more)) = tokio::try_join!(count(self.snapshot, &self.layout.tables), reading)?;
        warnings.extend(more);
        account::check(self.snapshot, &self.layout.tables, &counts, &data)?;

        let sequences = [self.layout.preamble.as_bytes(), &data.sequences_sql].concat();
        text(feed, &path("sequences.sql"), &sequences).await?;
        warnings.extend(self.post_data.copy(feed, &path("post-data.sql")).await?);

        let DumpSettings { database, kind, schema_version, properties, session, pg_dump, .. } = self.settings;
        for warning in &warnings {
            tracing::warn!(database, "{warning}");
        }
        Ok(manifest::Database {
            folder: folder(&database),
            name: database,
            kind,
            schema_version,
            properties,
            session,
            pg_dump,
            tables: data.tables,
            sequences: data.sequences,
            large_objects: data.large_objects,
            left_out: self.snapshot.survey.left_out.iter().cloned().chain(warnings).collect(),
        })
    }
}

impl File {
    /// Copies the child's output to `path`; returns what the child warned about.
    async fn copy(mut self, feed: &Feed, path: &str) -> Result<Option<String>, Error> {
        let mut pieces = PieceWriter::file(feed, path);
        let mut onlooker = Onlooker::default();
        loop {
            let available = self.output.fill_buf().await.map_err(|e| self.child.label.script(e.into()))?;
            if available.is_empty() {
                break;
            }
            if let Err(line) = onlooker.see(available) {
                let Label { program, database, part } = self.child.label.clone();
                return Err(DumpError::NotUtf8 { database, program, part, line }.into());
            }
            pieces.write(available).await.map_err(DumpError::from)?;
            let length = available.len();
            self.output.consume(length);
        }
        if !onlooker.is_complete() {
            return Err(self.child.explain(ScriptError::Truncated).await);
        }
        let warning = self.child.finish().await?;
        pieces.finish().await.map_err(DumpError::from)?;
        Ok(warning)
    }
}

/// Reads all data children at once, each in a task of its own.
async fn read(
    children: Vec<DataChild>,
    layout: &Arc<Layout>,
    feed: &Feed,
    report: &Report,
) -> Result<(Data, Vec<String>), Error> {
    let mut tasks = JoinSet::new();
    let (running, others) = mpsc::channel(1);
    let mut others = Some(others);
    for (number, DataChild { mut child, script }) in children.into_iter().enumerate() {
        // The first one waits, before its large objects, until the rest have dropped their sender.
        let others = others.take();
        let sender = others.is_none().then(|| running.clone());
        let mut reader = DataReader {
            script,
            label: child.label.clone(),
            layout: Arc::clone(layout),
            feed: feed.clone(),
            report: Arc::clone(report),
            others,
        };
        tasks.spawn(async move {
            let data = match reader.read().await {
                Ok(data) => data,
                Err(Error::Dump(DumpError::Script { source, .. })) => return Err(child.explain(source).await),
                Err(error) => return Err(error),
            };
            drop(sender);
            Ok((number, data, child.finish().await?))
        });
    }
    drop(running);
    let mut whole = Data::default();
    let mut warnings = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let (number, mut data, warning) = match ended {
            Ok(outcome) => outcome?,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return Err(DumpError::Closed(crate::feed::Closed).into()),
            },
        };
        warnings.extend(warning);
        whole.tables.append(&mut data.tables);
        // Children of single tables write the sequences of those too: once is enough.
        if number == 0 {
            whole = Data { tables: whole.tables, ..data };
        }
    }
    whole.tables.sort_by_key(|table| table.number);
    Ok((whole, warnings))
}

async fn count(snapshot: &Snapshot, tables: &[Table]) -> Result<Vec<u64>, Error> {
    let mut counts = Vec::with_capacity(tables.len());
    for table in tables {
        counts.push(snapshot.count(table).await?);
    }
    Ok(counts)
}

async fn text(feed: &Feed, path: &str, text: &[u8]) -> Result<(), DumpError> {
    let mut pieces = PieceWriter::file(feed, path);
    pieces.write(text).await?;
    pieces.finish().await?;
    Ok(())
}

/// The number, schema and name of each table, escaped as COPY escapes.
fn tables_tsv(tables: &[Table]) -> String {
    let escape = |name: &str| name.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r");
    let line = |(index, table): (usize, &Table)| {
        format!("{:05}\t{}\t{}\n", index + 1, escape(&table.schema), escape(&table.name))
    };
    tables.iter().enumerate().map(line).collect()
}

/// A database's name as the name of a folder: all bytes but `[A-Za-z0-9._-]` percent-encoded, and the first dot of `.`
/// and `..` too.
#[must_use]
pub fn folder(name: &str) -> String {
    let mut folder = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            folder.push(char::from(byte));
        } else {
            folder.push_str(&format!("%{byte:02X}"));
        }
    }
    if matches!(folder.as_str(), "." | "..") {
        folder.replace_range(..1, "%2E");
    }
    folder
}

/// Which tables the second data child reads alone, the third, and so on; the first reads what is left. At most
/// `jobs` children, and none for less than a large table.
fn shares(tables: &[Table], jobs: usize) -> Vec<Vec<usize>> {
    let is_large = |table: &Table| table.bytes >= LARGE_TABLE && table.extension_filter.is_none();
    let mut large: Vec<usize> = (0..tables.len()).filter(|&index| is_large(&tables[index])).collect();
    large.sort_by_key(|&index| std::cmp::Reverse(tables[index].bytes));
    let rest: u64 = tables.iter().filter(|table| !is_large(table)).map(|table| table.bytes).sum();
    let mut loads = vec![0; jobs.max(1)];
    loads[0] = rest;
    let mut shares = vec![Vec::new(); loads.len()];
    for index in large {
        if let Some(least) = (0..loads.len()).min_by_key(|&child| loads[child]) {
            loads[least] += tables[index].bytes;
            shares[least].push(index);
        }
    }
    shares.into_iter().skip(1).filter(|share| !share.is_empty()).collect()
}

/// Starts the children of one database.
struct Starter<'a> {
    attempt: &'a Attempt,
    snapshot: &'a Snapshot,
}

impl Starter<'_> {
    fn file(&self, part: &str, arguments: &[&str]) -> Result<File, Error> {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (child, output) = self.start(part, arguments, self.locked_by_all())?;
        Ok(File { child, output: BufReader::new(output) })
    }

    fn data(&self, shares: &[Vec<usize>], tables: &[Table]) -> Result<Vec<DataChild>, Error> {
        let mut common = vec!["--section=data".to_owned(), "--no-owner".to_owned(), "--no-privileges".to_owned()];
        if tables.iter().any(|table| table.rows_may_move && table.root.is_some()) {
            common.push("--load-via-partition-root".to_owned());
        }
        if self.snapshot.survey.server.standby {
            common.push("--no-unlogged-table-data".to_owned());
        }
        let child = |(child, output): (Child, ChildStdout)| DataChild { child, script: ScriptReader::new(output) };
        let apart = shares.iter().flatten().map(|&index| format!("--exclude-table-data={}", tables[index].quoted()));
        let rest = self.start("data", common.iter().cloned().chain(apart).collect(), self.locked_by_all())?;
        let mut children = vec![child(rest)];
        for share in shares {
            let names = share.iter().map(|&index| format!("--table={}", tables[index].quoted()));
            let arguments = common.iter().cloned().chain(["--strict-names".to_owned()]).chain(names).collect();
            let oids = share.iter().map(|&index| tables[index].oid).collect();
            let part = format!("data of {}", share.iter().map(|&i| tables[i].quoted()).collect::<Vec<_>>().join(", "));
            children.push(child(self.start(&part, arguments, oids)?));
        }
        Ok(children)
    }

    /// What a child that dumps the whole database, or its schema, locks.
    fn locked_by_all(&self) -> Vec<u32> {
        self.snapshot.tables.iter().filter(|table| table.is_locked_by_dump()).map(|table| table.oid).collect()
    }

    fn start(&self, part: &str, arguments: Vec<String>, locks: Vec<u32>) -> Result<(Child, ChildStdout), Error> {
        let Self { attempt, snapshot } = self;
        let tool = &attempt.tools.pg_dump;
        let database = &snapshot.survey.name;
        let mut all: Vec<OsString> = [
            "--format=plain",
            "--no-password",
            "--quote-all-identifiers",
            "--no-publications",
            "--no-subscriptions",
            "--no-tablespaces",
            "--no-security-labels",
        ]
        .map(Into::into)
        .to_vec();
        all.push(format!("--encoding={}", settings::client_encoding(&snapshot.survey.properties.encoding)).into());
        all.push(format!("--snapshot={}", snapshot.id).into());
        all.push(format!("--lock-wait-timeout={}", u64::from(LOCK_SECONDS) * 1000).into());
        if tool.number.0 >= 18 {
            all.push("--no-statistics".into());
        }
        all.extend(arguments.into_iter().map(OsString::from));
        let label = Label { program: "pg_dump".into(), database: database.clone(), part: part.to_owned() };
        let environment = attempt.server.child_environment(database);
        Child::start_dump(label, &tool.path, &all, environment, locks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, bytes: u64) -> Table {
        Table {
            oid: 0,
            schema: "s".into(),
            name: name.into(),
            partitioned: false,
            unlogged: false,
            file: 0,
            root: None,
            rows_may_move: false,
            extension_member: false,
            extension_filter: None,
            rows: 0,
            bytes,
        }
    }

    #[test]
    fn large_tables_are_shared_out() {
        let tables =
            [table("a", LARGE_TABLE), table("b", 10 * LARGE_TABLE), table("c", 5), table("d", 3 * LARGE_TABLE)];
        assert_eq!(shares(&tables, 1), Vec::<Vec<usize>>::new());
        assert_eq!(shares(&tables, 2), [[1]], "the rest, a and d, is less than b");
        assert_eq!(shares(&tables, 8), [[1], [3], [0]]);
        assert_eq!(shares(&tables[2..3], 8), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn folders_and_lines_are_plain() {
        for (name, expected) in
            [("pachyderm", "pachyderm"), ("..", "%2E."), (".", "%2E"), ("a/b ü%", "a%2Fb%20%C3%BC%25")]
        {
            assert_eq!(folder(name), expected);
        }
        assert_eq!(tables_tsv(&[table("a\tb\n\\", 1)]), "00001\ts\ta\\tb\\n\\\\\n");
    }
}
