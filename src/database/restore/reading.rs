//! What one reader of a proof reads at a time: the rows of a table, or those of some pages of a large one.

use super::tables::Check;
use crate::database::{Error, Session};

/// Bytes of rows, about, that are read at a time of a large table: a reader begins with a child and a connection, which take as
/// long as some megabytes of rows do.
const PART: u64 = 256 << 20;

/// Rows that are read at a time.
pub(super) struct Reading {
    /// Which of the checks they belong to.
    pub(super) check: usize,
    pub(super) copies: Vec<String>,
    /// How many bytes they have, about.
    pub(super) bytes: u64,
}

/// What `readers` read of `checks`, all of their rows: those of a table in parts where all others would wait for it. Its server
/// process, psql and our own thread work at the same time: it may be somewhat more than one reader's share.
///
/// # Errors
/// What the server says.
pub(super) async fn readings(session: &Session, checks: &[Check], readers: usize) -> Result<Vec<Reading>, Error> {
    let all: u64 = checks.iter().map(|check| check.bytes).fold(0, u64::saturating_add);
    let whole = (all / readers.max(1) as u64).saturating_mul(3) / 2;
    let mut readings = Vec::new();
    for (number, check) in checks.iter().enumerate() {
        let parts = check.bytes.div_ceil(PART);
        let pages = if parts > 1 && check.bytes > whole { pages(session, check).await? } else { None };
        match pages.and_then(|pages| check.ranges(starts(pages, parts))) {
            Some(copies) => {
                let bytes = check.bytes / copies.len().max(1) as u64;
                readings.extend(copies.into_iter().map(|copy| Reading { check: number, copies: vec![copy], bytes }));
            }
            None => readings.push(Reading { check: number, copies: check.copies().collect(), bytes: check.bytes }),
        }
    }
    Ok(readings)
}

/// Where each of about as many parts begins but the first, in pages.
fn starts(pages: u64, parts: u64) -> impl Iterator<Item = u64> {
    let step = pages.div_ceil(parts.max(1)).max(1);
    (1..parts).map(move |part| part.saturating_mul(step)).take_while(move |start| *start < pages)
}

/// How many pages a check's table has; `None` where it is not one that can be read by them: servers before 14 would read all of
/// it for each part, and what is not a heap may number its rows as it likes.
async fn pages(session: &Session, check: &Check) -> Result<Option<u64>, Error> {
    const SQL: &str = "
        SELECT pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am a ON a.oid = c.relam
        WHERE c.relname = $2 AND c.relkind = 'r' AND a.amname = 'heap'
        AND c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1)
        AND pg_catalog.current_setting('server_version_num')::int8 >= 140000";
    let failed = || Error::query(format!("cannot look how large table {} is", check.name));
    let (schema, name) = &check.place;
    let row = session.query_opt(SQL, &[schema, name]).await.map_err(failed())?;
    let pages = row.map(|row| row.try_get::<_, i64>(0)).transpose().map_err(failed())?;
    Ok(pages.and_then(|pages| u64::try_from(pages).ok()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn parts_begin_within_the_table() {
        let starts = |pages, parts| super::starts(pages, parts).collect::<Vec<_>>();
        assert_eq!(starts(10, 3), [4, 8]);
        assert_eq!(starts(9, 3), [3, 6]);
        assert_eq!(starts(2, 4), [1]);
        assert!(starts(0, 4).is_empty() && starts(5, 1).is_empty() && starts(5, 0).is_empty());
    }
}
