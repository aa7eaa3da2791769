//! Statistics of what was loaded.

use std::collections::VecDeque;

use crate::database::catalog::quote_qualified;
use crate::database::{Error, Session};

/// Bytes from which on a table is looked at by a statement of its own: of a larger one ANALYZE takes a sample.
const LARGE: i64 = 1 << 20;
/// Small ones that share a statement.
const SHARED: usize = 100;

/// Statements that may run at the same time, the longest first, and gather statistics of everything that the role may look at;
/// but where something of other servers lies below a table, these would be asked for theirs, which need not be reachable from
/// here, nor let the owner in.
///
/// # Errors
/// What the server says.
pub(super) async fn statements(session: &Session) -> Result<VecDeque<String>, Error> {
    // Above: partitioned, and what others inherit from. A partition is looked at with the table that it is part of, unless that one
    // is left out; from PostgreSQL 18 on, so is what inherits.
    const TABLES: &str = "
        WITH RECURSIVE above (oid) AS (
            SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
            WHERE c.relkind = 'f'
            UNION
            SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above a ON a.oid = i.inhrelid)
        SELECT n.nspname, c.relname, coalesce(CASE c.relkind
            WHEN 'p' THEN (SELECT sum(pg_catalog.pg_table_size(relid)) FROM pg_catalog.pg_partition_tree(c.oid))
            ELSE pg_catalog.pg_table_size(c.oid) END, 0)::int8 AS size
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND c.oid NOT IN (SELECT oid FROM above)
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid
            AND (c.relispartition OR pg_catalog.current_setting('server_version_num')::int8 >= 180000)
            AND i.inhparent NOT IN (SELECT oid FROM above))
        AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        ORDER BY size DESC";
    let failed = || Error::query("cannot look for tables to analyze");
    let (mut large, mut small) = (VecDeque::new(), Vec::new());
    for row in session.query(TABLES, &[]).await.map_err(failed())? {
        let (schema, name): (&str, &str) = (row.try_get(0).map_err(failed())?, row.try_get(1).map_err(failed())?);
        let table = quote_qualified(schema, name);
        match row.try_get::<_, i64>(2).map_err(failed())? >= LARGE {
            true => large.push_back(format!("ANALYZE {table}")),
            false => small.push(table),
        }
    }
    large.extend(small.chunks(SHARED).map(|tables| format!("ANALYZE {}", tables.join(", "))));
    Ok(large)
}
