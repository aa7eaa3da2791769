//! The live set: the objects that a snapshot of Pachyderm's database says must exist.
//!
//! A row of `storage.chunk_objects` is written before its object and flagged `uploaded` after it; on the way out it is
//! flagged `tombstone` before the object is deleted. So a row that is uploaded and no tombstone has its object.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt as _, stream};
use pacharc_format::ChunkKey;
use tokio_postgres::CopyOutStream;

use super::dump_error::DumpError;
use super::snapshot::{Snapshot, failed};
use super::{DatabaseSurvey, Error, Session};

/// How long a standby is waited for, which replays nothing where its primary writes nothing.
const LAG: Duration = Duration::from_secs(15);
/// How often it is asked meanwhile.
const GLANCE: Duration = Duration::from_millis(250);

/// An object that must exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveChunk {
    /// Its key.
    pub key: ChunkKey,
    /// Its length in bytes, as the row says.
    pub size: u64,
}

/// The live set of the snapshot, in the order of keys. It is a stream that holds one row at a time; the snapshot's
/// session serves nothing else until it is at its end or dropped.
pub(super) async fn live_set(
    snapshot: &Snapshot,
) -> Result<impl Stream<Item = Result<LiveChunk, Error>> + Send + use<>, Error> {
    // Hexadecimal keeps the order of the bytes, and generations are positive, so this is the order of the keys.
    const SQL: &str = "COPY (SELECT encode(chunk_id, 'hex'), gen, size FROM storage.chunk_objects \
                       WHERE uploaded AND NOT tombstone ORDER BY chunk_id, gen) TO STDOUT";
    let survey = snapshot.survey.clone();
    let rows = snapshot.session.copy_out(SQL).await.map_err(|e| failed(&survey, e))?;
    let reader = LiveReader { rows: Box::pin(rows), pending: BytesMut::new(), survey };
    Ok(stream::try_unfold(reader, |mut reader| async move { Ok(reader.next().await?.map(|chunk| (chunk, reader))) }))
}

/// Rows that are looked up outside of any snapshot, since their objects are not there.
#[derive(Debug)]
pub struct LiveRows {
    session: Session,
    /// Whether replay does not move on: waiting for it is of no use.
    stuck: AtomicBool,
}

impl LiveRows {
    /// Looks them up by `session`.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self { session, stuck: AtomicBool::new(false) }
    }

    /// Whether the object's row is live still. An object is deleted after its row was condemned, but a standby may learn of
    /// that after the bucket: its row is live only if it stays so until replay has come past the moment of the question.
    ///
    /// # Errors
    /// The server's.
    pub async fn stays(&self, key: &ChunkKey) -> Result<bool, Error> {
        let asked = self.now().await?;
        let begun = Instant::now();
        loop {
            // The order counts: what was replayed by the first answer is in the second.
            let replayed = self.replayed(asked).await?;
            if !still_live(&self.session, key).await? {
                return Ok(false);
            }
            if replayed || self.is_stuck() {
                return Ok(true);
            }
            if begun.elapsed() > LAG {
                self.stuck.store(true, Ordering::Relaxed);
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Whether rows are called live of which a standby may have been behind.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// By the clock of the server, which is nearer to its primary's than ours.
    async fn now(&self) -> Result<SystemTime, Error> {
        let row = self.session.query_one("SELECT clock_timestamp()", &[]).await;
        row.and_then(|row| row.try_get(0)).map_err(Error::query("cannot read the server's clock"))
    }

    /// Whether all that was committed before `moment` is to be seen; no standby is behind in nothing.
    async fn replayed(&self, moment: SystemTime) -> Result<bool, Error> {
        let sql = "SELECT NOT pg_is_in_recovery() OR pg_last_xact_replay_timestamp() > $1";
        let row = self.session.query_one(sql, &[&moment]).await;
        let replayed = row.and_then(|row| row.try_get::<_, Option<bool>>(0));
        Ok(replayed.map_err(Error::query("cannot tell how far the standby has replayed"))?.unwrap_or(false))
    }
}

/// Whether the object's row is live now, outside of any snapshot.
///
/// # Errors
/// The server's.
pub async fn still_live(session: &Session, key: &ChunkKey) -> Result<bool, Error> {
    // A generation beyond a bigint is in no row.
    let Ok(generation) = i64::try_from(key.generation) else { return Ok(false) };
    let sql = "SELECT EXISTS (SELECT FROM storage.chunk_objects
               WHERE chunk_id = $1 AND gen = $2 AND uploaded AND NOT tombstone)";
    let row = session.query_one(sql, &[&key.id.as_slice(), &generation]).await;
    row.and_then(|row| row.try_get(0)).map_err(Error::query("cannot look up a chunk in storage.chunk_objects"))
}

struct LiveReader {
    rows: std::pin::Pin<Box<CopyOutStream>>,
    /// What was received and is not yet a whole line.
    pending: BytesMut,
    survey: DatabaseSurvey,
}

impl LiveReader {
    async fn next(&mut self) -> Result<Option<LiveChunk>, Error> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.pending) {
                let line = self.pending.split_to(end + 1);
                return chunk(&line[..end]).map(Some).ok_or_else(|| self.unreadable(&line));
            }
            let received: Option<Bytes> = self.rows.try_next().await.map_err(|e| failed(&self.survey, e))?;
            match received {
                Some(bytes) => self.pending.extend_from_slice(&bytes),
                None if self.pending.is_empty() => return Ok(None),
                None => return Err(self.unreadable(&self.pending)),
            }
        }
    }

    fn unreadable(&self, row: &[u8]) -> Error {
        let row = String::from_utf8_lossy(row).trim_end().chars().take(200).collect();
        DumpError::ChunkRow { database: self.survey.name.clone(), row }.into()
    }
}

/// A line of hex id, generation and size, parted by tabs.
fn chunk(line: &[u8]) -> Option<LiveChunk> {
    let mut fields = std::str::from_utf8(line).ok()?.split('\t');
    let mut id = [0; 32];
    hex::decode_to_slice(fields.next()?, &mut id).ok()?;
    let key = ChunkKey { id, generation: fields.next()?.parse().ok()? };
    let size = fields.next()?.parse().ok()?;
    fields.next().is_none().then_some(LiveChunk { key, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let id = "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8";
        let read = chunk(format!("{id}\t42\t7").as_bytes()).unwrap();
        assert_eq!(read.key.key().as_str(), Some(format!("chunk/{id}.000000000000002a").as_str()));
        assert_eq!(read.size, 7);
        for odd in
            [format!("{id}\t42"), format!("{id}\t-1\t7"), format!("{}\t1\t7", &id[2..]), format!("{id}\t1\t2\t3")]
        {
            assert_eq!(chunk(odd.as_bytes()), None, "{odd}");
        }
    }
}
