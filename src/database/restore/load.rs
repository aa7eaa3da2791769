//! Rows into tables: one COPY, and so one transaction, for each table. Those of large tables are written frozen.
//!
//! Tables come mingled, as a backup's children read them, and small ones in quick succession: sooner than a server far away takes
//! them. A new one begins when fewer than `jobs` of the others have something to do, so that there are no more connections than
//! those and the tables that wait for their next piece.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::SinkExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::sessions::{Sessions, failed};
use super::statements::Script;
use super::{RestoreError, unexpected};
use crate::database::{Error, Session, copy_statement};

/// More tables than this do not mingle in any bundle: a backup has as many children that read data.
const MOST_AT_ONCE: usize = 256;

/// Bytes that go to the server in one message. Two or three copies are under way in the client for each table; a whole piece
/// in each would take memory that nobody counts.
const MESSAGE: usize = 128 << 10;

/// The line that ends the rows; no row looks like it, since a backslash in data is doubled.
const END_OF_ROWS: &[u8] = b"\\.\n";

/// Loads the tables whose pieces come in.
#[derive(Debug, Default)]
pub(super) struct Loader {
    under_way: BTreeMap<u32, Load>,
    /// Rows of the tables that are loaded.
    loaded: HashMap<u32, u64>,
    /// A load has come to its end, or waits for a piece.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Load {
    pieces: mpsc::Sender<Bytes>,
    /// Whether it has nothing to do.
    idle: Arc<AtomicBool>,
    task: JoinHandle<Result<(Session, u64), Error>>,
}

/// The pieces of a table as they come, and a word when none is there.
struct Feed {
    pieces: mpsc::Receiver<Bytes>,
    idle: Arc<AtomicBool>,
    changed: Arc<Notify>,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        if let Ok(piece) = self.pieces.try_recv() {
            return Some(piece);
        }
        self.rest();
        let piece = self.pieces.recv().await;
        self.idle.store(false, Ordering::Release);
        piece
    }

    fn rest(&self) {
        self.idle.store(true, Ordering::Release);
        self.changed.notify_one();
    }
}

/// However a load ends, it has nothing to do then.
impl Drop for Feed {
    fn drop(&mut self) {
        self.rest();
    }
}

/// A load that is given up must not go on: the server rolls it back when its connection ends.
impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Loader {
    /// Hands a piece to its table's COPY, waiting until that has room for it.
    pub(super) async fn piece(&mut self, sessions: &mut Sessions, number: u32, body: Bytes) -> Result<(), Error> {
        self.reap(sessions, false).await?;
        if self.loaded.contains_key(&number) {
            return Err(RestoreError::Rows { number, problem: "they go on behind their end" }.into());
        }
        if !self.under_way.contains_key(&number) {
            self.begin(sessions, number).await?;
        }
        let Some(load) = self.under_way.get(&number) else { return Ok(()) };
        load.idle.store(false, Ordering::Release);
        if load.pieces.send(body).await.is_err() {
            self.end(sessions, number).await?;
            return Err(RestoreError::Rows { number, problem: "they go on behind their end" }.into());
        }
        Ok(())
    }

    /// Begins a table, when few enough of the others are at work.
    async fn begin(&mut self, sessions: &mut Sessions, number: u32) -> Result<(), Error> {
        let is_at_work = |load: &&Load| !load.idle.load(Ordering::Acquire);
        while self.under_way.values().filter(is_at_work).count() >= sessions.jobs {
            // A word that came since they were counted is kept for it.
            self.changed.notified().await;
        }
        self.reap(sessions, false).await?;
        if self.under_way.len() == MOST_AT_ONCE {
            return Err(unexpected(&format!("data/{number:05}")));
        }
        let session = loop {
            let error = match sessions.take().await {
                Err(error) if error.is_full() => error,
                taken => break taken?,
            };
            // The server has no more connections for us: one that has all its rows, or something to do, will give its own.
            let ended = self.under_way.iter().find(|(_, load)| load.pieces.is_closed()).map(|(number, _)| *number);
            match ended {
                Some(number) => self.end(sessions, number).await?,
                None if self.under_way.values().any(|load| is_at_work(&load)) => self.changed.notified().await,
                None => return Err(error),
            }
        };
        // One piece waits while another is being sent.
        let (pieces, receiver) = mpsc::channel(1);
        let idle = Arc::new(AtomicBool::new(false));
        let feed = Feed { pieces: receiver, idle: Arc::clone(&idle), changed: Arc::clone(&self.changed) };
        let task = tokio::spawn(load(session, sessions.set_role(), number, feed));
        self.under_way.insert(number, Load { pieces, idle, task });
        Ok(())
    }

    /// Waits until all rows are in.
    pub(super) async fn finish(&mut self, sessions: &mut Sessions) -> Result<(), Error> {
        self.reap(sessions, true).await
    }

    /// How many rows of a table were loaded; `None` where it did not come.
    pub(super) fn rows(&self, number: u32) -> Option<u64> {
        self.loaded.get(&number).copied()
    }

    /// Collects the loads that are done, or waits for all of them.
    async fn reap(&mut self, sessions: &mut Sessions, wait: bool) -> Result<(), Error> {
        let done = |load: &Load| wait || load.task.is_finished();
        let numbers: Vec<_> = self.under_way.iter().filter(|(_, load)| done(load)).map(|(number, _)| *number).collect();
        for number in numbers {
            self.end(sessions, number).await?;
        }
        Ok(())
    }

    async fn end(&mut self, sessions: &mut Sessions, number: u32) -> Result<(), Error> {
        let Some(mut load) = self.under_way.remove(&number) else { return Ok(()) };
        // Without a sender, a table whose end has not come will learn that it never does.
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut load.pieces, closed));
        match (&mut load.task).await {
            Ok(outcome) => {
                let (session, rows) = outcome?;
                self.loaded.insert(number, rows);
                sessions.put(session);
                Ok(())
            }
            Err(_) => Err(RestoreError::Rows { number, problem: "their loading was broken off" }.into()),
        }
    }
}

/// Loads one table from its pieces: settings, a COPY, rows, and the line that ends them.
async fn load(session: Session, set_role: String, number: u32, mut feed: Feed) -> Result<(Session, u64), Error> {
    let damaged = |problem| Error::from(RestoreError::Rows { number, problem });
    let mut head = Script::new("data");
    let copy = loop {
        let piece = feed.next().await.ok_or_else(|| damaged("they do not begin with a COPY"))?;
        head.push(&piece)?;
        let mut copy = None;
        while let Some(statement) = head.next()? {
            if statement.starts_with("COPY ") {
                copy = Some(statement);
                break;
            } else if !statement.starts_with("SET ") {
                return Err(damaged("they do not begin with a COPY"));
            }
            session.batch_execute(&statement).await.map_err(failed(&statement))?;
        }
        if let Some(copy) = copy {
            break copy;
        }
    };
    let mut rest = head.into_rest();
    if rest.is_empty() {
        rest = feed.next().await.ok_or_else(|| damaged("they do not end"))?.to_vec();
    }
    if rest.first() != Some(&b'\n') {
        return Err(damaged("a line end is missing behind the COPY"));
    }

    let kind = Kind::of(&session, &copy).await?;
    let is_extension = kind == Kind::Extension;
    if is_extension && !set_role.is_empty() {
        session.batch_execute("RESET ROLE").await.map_err(failed("RESET ROLE"))?;
    }
    let rest = Bytes::from(rest).slice(1..);
    let frozen = if kind == Kind::Plain && !rest.ends_with(END_OF_ROWS) { frozen(&copy) } else { None };
    if let Some(Frozen { before, .. }) = &frozen {
        session.batch_execute(before).await.map_err(failed(before))?;
    }
    let copy = frozen.as_ref().map_or(copy, |frozen| frozen.copy.clone());
    let sink = session.copy_in::<_, Bytes>(copy.as_str()).await.map_err(failed(&copy))?;
    let mut sink = std::pin::pin!(sink);
    let mut rows = Rows::default();
    let mut next = Some(rest);
    while !rows.complete() {
        let piece = match next.take() {
            Some(piece) => piece,
            None => feed.next().await.ok_or_else(|| damaged("they do not end"))?,
        };
        for mut part in rows.push(&piece) {
            while !part.is_empty() {
                sink.feed(part.split_to(part.len().min(MESSAGE))).await.map_err(failed(&copy))?;
            }
        }
    }
    // From here on a piece finds no taker; one that was under way already is found here.
    feed.pieces.close();
    if feed.pieces.try_recv().is_ok() {
        return Err(damaged("they go on behind their end"));
    }
    sink.feed(rows.last()).await.map_err(failed(&copy))?;
    let count = sink.finish().await.map_err(failed(&copy))?;
    if frozen.is_some() {
        session.batch_execute("COMMIT").await.map_err(failed("COMMIT"))?;
    }
    if is_extension && !set_role.is_empty() {
        session.batch_execute(&set_role).await.map_err(failed(&set_role))?;
    }
    Ok((session, count))
}

/// What a COPY goes into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A table of its own.
    Plain,
    /// An extension's own, which belongs to whoever created the extension, and may have rows already.
    Extension,
    /// Anything else, such as a table that hands its rows on to partitions.
    Other,
}

impl Kind {
    async fn of(session: &Session, copy: &str) -> Result<Self, Error> {
        let failed = || Error::query("cannot find out whose table it is");
        let sql = "SELECT relkind = 'r', EXISTS (SELECT FROM pg_catalog.pg_depend
                   WHERE classid = 'pg_catalog.pg_class'::regclass AND objid = c.oid AND deptype = 'e')
                   FROM pg_catalog.pg_class c WHERE relname = $2
                   AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1)";
        // Where there is no such table, or its name is none, the COPY will say so.
        let Some((schema, name, _)) = copy_statement(copy) else { return Ok(Self::Other) };
        let row = session.query_opt(sql, &[&schema, &name]).await.map_err(failed())?;
        let Some(row) = row else { return Ok(Self::Other) };
        let (is_plain, is_extension) = (row.try_get(0).map_err(failed())?, row.try_get(1).map_err(failed())?);
        Ok(match (is_extension, is_plain) {
            (true, _) => Self::Extension,
            (false, true) => Self::Plain,
            (false, false) => Self::Other,
        })
    }
}

/// A COPY that writes its rows as old ones, which everybody sees: else whoever reads them first, an index or the proof, writes
/// all pages once more. The server wants the table to be emptied in the same transaction (COPY, `FREEZE`).
struct Frozen {
    before: String,
    copy: String,
}

fn frozen(copy: &str) -> Option<Frozen> {
    let copied = copy.strip_suffix(" FROM stdin;")?;
    Some(Frozen {
        before: format!("BEGIN; TRUNCATE ONLY {}", table(copy)),
        copy: format!("{copied} FROM stdin WITH (FREEZE);"),
    })
}

/// The table's name, quoted and qualified, in `COPY "schema"."name" (…) FROM stdin;`.
fn table(copy: &str) -> &str {
    let name = copy.strip_prefix("COPY ").unwrap_or(copy);
    let mut quoted = false;
    let end = name.find(|character| {
        quoted ^= character == '"';
        character == ' ' && !quoted
    });
    &name[..end.unwrap_or(name.len())]
}

/// Rows on their way, of which the last four bytes are held back: they may be the line that ends them.
#[derive(Debug, Default)]
struct Rows {
    tail: Vec<u8>,
    sent: bool,
}

impl Rows {
    const HELD: usize = END_OF_ROWS.len() + 1;

    /// Adds a piece, and gives what can be sent.
    fn push(&mut self, piece: &Bytes) -> impl Iterator<Item = Bytes> + use<> {
        let keep_tail = Self::HELD.saturating_sub(piece.len()).min(self.tail.len());
        let first = Bytes::from(self.tail.drain(..self.tail.len() - keep_tail).collect::<Vec<_>>());
        let cut = piece.len().saturating_sub(Self::HELD);
        self.tail.extend_from_slice(&piece[cut..]);
        let parts = [first, piece.slice(..cut)].map(|part| (!part.is_empty()).then_some(part));
        self.sent |= parts.iter().any(Option::is_some);
        parts.into_iter().flatten()
    }

    /// Whether the line that ends the rows has come.
    fn complete(&self) -> bool {
        match self.tail.strip_suffix(END_OF_ROWS) {
            Some([]) => !self.sent,
            Some(before) => before.ends_with(b"\n"),
            None => false,
        }
    }

    /// What is to be sent of the bytes that were held back.
    fn last(self) -> Bytes {
        let length = self.tail.len() - END_OF_ROWS.len();
        Bytes::from(self.tail).slice(..length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str, step: usize) -> Option<String> {
        let mut rows = Rows::default();
        let mut sent = Vec::new();
        for piece in text.as_bytes().chunks(step) {
            assert!(!rows.complete(), "{text} complete too early");
            for part in rows.push(&Bytes::copy_from_slice(piece)) {
                sent.extend_from_slice(&part);
            }
        }
        rows.complete().then(|| {
            sent.extend_from_slice(&rows.last());
            String::from_utf8(sent).unwrap()
        })
    }

    #[test]
    fn the_end_is_seen_wherever_pieces_are_cut() {
        for rows in ["", "\n", "a\n", "1\t2\n3\t4\n", "\\\\.\n", "x\\.\n", "\\.x\n", "\n\n\n"] {
            for step in 1..12 {
                assert_eq!(sent(&format!("{rows}\\.\n"), step).as_deref(), Some(rows), "{rows:?} by {step}");
            }
        }
        for torn in ["", "a\n", "a\n\\.", "a\\.\n", "a", "\\"] {
            for step in 1..12 {
                assert_eq!(sent(torn, step), None, "{torn:?} by {step}");
            }
        }
    }

    #[test]
    fn a_frozen_copy_empties_its_table_first() {
        let Frozen { before, copy } = frozen("COPY \"a b\".t (\"c FROM stdin;\") FROM stdin;").unwrap();
        assert_eq!(before, "BEGIN; TRUNCATE ONLY \"a b\".t");
        assert_eq!(copy, "COPY \"a b\".t (\"c FROM stdin;\") FROM stdin WITH (FREEZE);");
        assert!(frozen("COPY t FROM stdin WITH (DELIMITER ';');").is_none());
    }

    #[test]
    fn the_name_of_the_table() {
        assert_eq!(table("COPY \"a b\".\"c \"\" (d\" (\"e\") FROM stdin;"), "\"a b\".\"c \"\" (d\"");
        assert_eq!(table("COPY \"a\".\"b\"  FROM stdin;"), "\"a\".\"b\"");
    }
}
