//! Statistics of what was loaded.

use crate::database::{Error, Session};

/// What gathers them: of everything, but where something of other servers lies below a table. These would be asked for theirs,
/// which need not be reachable from here, nor let the owner in.
///
/// # Errors
/// What the server says.
pub(super) async fn statement(session: &Session) -> Result<String, Error> {
    // Partitions, and what inherits.
    const ABOVE_FOREIGN: &str = "
        WITH RECURSIVE above (oid) AS (
            SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
            WHERE c.relkind = 'f'
            UNION
            SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above a ON a.oid = i.inhrelid)
        SELECT oid FROM above";
    const OTHERS: &str = "
        SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ')
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND c.oid <> ALL ($1)";
    let failed = || Error::query("cannot look for tables of other servers");
    let rows = session.query(ABOVE_FOREIGN, &[]).await.map_err(failed())?;
    if rows.is_empty() {
        return Ok("ANALYZE".to_owned());
    }
    let above = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<u32>, _>>().map_err(failed())?;
    let row = session.query_one(OTHERS, &[&above]).await.map_err(failed())?;
    let others: Option<String> = row.try_get(0).map_err(failed())?;
    Ok(others.map(|others| format!("ANALYZE {others}")).unwrap_or_default())
}
