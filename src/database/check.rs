//! Whether the role may read everything that a dump reads, asked before the first byte.

use tokio_postgres::{Client, Error};

use super::catalog::user_namespace;

/// What the connected role may not read of this database, as people name it: `table "a"."b"`, `large object 7`; at most
/// a thousand. Locks nothing.
///
/// # Errors
/// The server's.
pub async fn unreadable(client: &Client) -> Result<Vec<String>, Error> {
    // pg_dump fails, rather than dump a part, on a table whose rows a policy hides from the role. Large objects have no
    // privilege function before PostgreSQL 18.
    const SQL: &str = concat!(
        "SELECT 'schema ' || quote_ident(n.nspname) FROM pg_namespace n
         WHERE NOT has_schema_privilege(n.oid, 'USAGE') AND EXISTS (
             SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'S')) AND ",
        user_namespace!(),
        "UNION ALL
         SELECT CASE c.relkind WHEN 'S' THEN 'sequence ' ELSE 'table ' END
                || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
              AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
         LEFT JOIN pg_extension x ON x.oid = d.refobjid
         WHERE c.relpersistence <> 't' AND (x.oid IS NULL OR c.oid = ANY (x.extconfig))
           AND CASE WHEN c.relkind IN ('r', 'p') THEN NOT has_table_privilege(c.oid, 'SELECT')
                    WHEN c.relkind = 'S' THEN NOT has_sequence_privilege(c.oid, 'SELECT') END
           AND ",
        user_namespace!(),
        "UNION ALL
         SELECT 'all rows (row security) of table ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND row_security_active(c.oid) AND ",
        user_namespace!(),
        "UNION ALL
         SELECT 'large object ' || l.oid FROM pg_largeobject_metadata l
         WHERE NOT pg_has_role(l.lomowner, 'USAGE') AND NOT EXISTS (
             SELECT FROM aclexplode(l.lomacl) a WHERE a.privilege_type = 'SELECT'
                AND CASE WHEN a.grantee = 0 THEN true ELSE pg_has_role(a.grantee, 'USAGE') END)
         LIMIT 1000"
    );
    client.query(SQL, &[]).await?.iter().map(|row| row.try_get(0)).collect()
}
