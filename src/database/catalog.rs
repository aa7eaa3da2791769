//! What the system catalogs of one database say about the things that a dump is made of.
//!
//! Every query here reads catalogs alone: none takes a lock on a user's table, so none waits for an ALTER TABLE.

use std::collections::HashSet;

use pacharc_format::manifest::{DatabaseKind, DatabaseProperties, DatabaseSetting, Extension};
use tokio_postgres::{Client, Error, Row};

/// A table, partitioned or plain.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether it is partitioned, and so has no rows of its own.
    pub partitioned: bool,
    /// Whether it is unlogged: a standby has no contents of it.
    pub unlogged: bool,
    /// `pg_class.relfilenode` as the query's snapshot sees it.
    pub file: u32,
    /// The topmost table of the partition tree that it is a part of: schema and name.
    pub root: Option<(String, String)>,
    /// Whether rows of its partition tree may land elsewhere on another machine or under another collation.
    pub rows_may_move: bool,
    /// Whether it belongs to an extension.
    pub extension_member: bool,
    /// Of an extension's configuration table, which rows belong to the user: a `WHERE` clause, empty for all.
    pub extension_filter: Option<String>,
    /// Rows, as last estimated by the server.
    pub rows: u64,
    /// Bytes of heap and TOAST, as last estimated by the server.
    pub bytes: u64,
}

impl Table {
    /// Whether a dump holds rows of it.
    #[must_use]
    pub fn has_data(&self, standby: bool) -> bool {
        let unreadable = self.partitioned || (self.unlogged && standby);
        let left_alone = self.extension_member && self.extension_filter.is_none();
        !unreadable && !left_alone
    }

    /// Whether pg_dump takes a lock on it (it leaves an extension's members alone).
    #[must_use]
    pub fn is_locked_by_dump(&self) -> bool {
        !self.extension_member
    }

    /// `"schema"."name"`.
    #[must_use]
    pub fn quoted(&self) -> String {
        quote_qualified(&self.schema, &self.name)
    }
}

/// A sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The last value; `None` if it was never used.
    pub last_value: Option<i64>,
    /// The step.
    pub increment: i64,
    /// Whether it may begin again.
    pub cycle: bool,
}

/// `"name"`, with quotes inside doubled.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."name"`.
#[must_use]
pub fn quote_qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// Which namespaces pg_dump considers (`selectDumpableNamespace`), for a `pg_namespace` named `n`.
macro_rules! user_namespace {
    () => {
        "(n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')"
    };
}
pub(super) use user_namespace;

/// Every table that a dump may lock or read, in the order of schema and name.
///
/// # Errors
/// The server's.
pub async fn tables(client: &Client) -> Result<Vec<Table>, Error> {
    // A key that is an expression (attribute 0) counts as one that may move.
    const SQL: &str = concat!(
        "SELECT c.oid, n.nspname, c.relname, c.relkind = 'p', c.relpersistence = 'u', c.relfilenode,
                r.oid, rn.nspname, r.relname,
                coalesce(p.partstrat = 'h' OR 0 = ANY (p.partattrs::int2[]) OR EXISTS (
                    SELECT FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
                    WHERE a.attrelid = c.oid AND a.attnum = ANY (p.partattrs::int2[])
                      AND (a.attcollation <> 0 OR y.typtype = 'e')), false),
                x.oid IS NOT NULL, x.extcondition[array_position(x.extconfig, c.oid)],
                greatest(c.reltuples, 0)::int8,
                (c.relpages::int8 + coalesce(o.relpages, 0)) * current_setting('block_size')::int8
         FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_class o ON o.oid = c.reltoastrelid
         LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
         LEFT JOIN pg_class r ON c.relispartition AND r.oid = pg_partition_root(c.oid)
         LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace
         LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
              AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
         LEFT JOIN pg_extension x ON x.oid = d.refobjid
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ",
        user_namespace!(),
        " ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\""
    );
    let rows = client.query(SQL, &[]).await?;
    // Hash partitions, and keys of text or enum type, which depend on byte order, collation or oids.
    let mut moving = HashSet::new();
    for row in &rows {
        if row.try_get::<_, bool>(9)? {
            moving.insert(row.try_get::<_, Option<u32>>(6)?.unwrap_or(row.try_get(0)?));
        }
    }
    rows.iter().map(|row| table(row, &moving)).collect()
}

fn table(row: &Row, moving: &HashSet<u32>) -> Result<Table, Error> {
    let root: Option<u32> = row.try_get(6)?;
    Ok(Table {
        oid: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        partitioned: row.try_get(3)?,
        unlogged: row.try_get(4)?,
        file: row.try_get(5)?,
        root: match root {
            Some(_) => Some((row.try_get(7)?, row.try_get(8)?)),
            None => None,
        },
        rows_may_move: moving.contains(&root.unwrap_or(row.try_get(0)?)),
        extension_member: row.try_get(10)?,
        extension_filter: row.try_get(11)?,
        rows: unsigned(row.try_get(12)?),
        bytes: unsigned(row.try_get(13)?),
    })
}

/// Every sequence that a dump holds.
///
/// # Errors
/// The server's.
pub async fn sequences(client: &Client) -> Result<Vec<Sequence>, Error> {
    // A standby has no unlogged ones (which there are from PostgreSQL 15 on).
    const SQL: &str = concat!(
        "SELECT n.nspname, c.relname, pg_sequence_last_value(c.oid), s.seqincrement, s.seqcycle
         FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_sequence s ON s.seqrelid = c.oid
         WHERE c.relpersistence <> 't' AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery()) AND NOT EXISTS (
             SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
           AND ",
        user_namespace!(),
        " ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\""
    );
    let rows = client.query(SQL, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Sequence {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
                last_value: row.try_get(2)?,
                increment: row.try_get(3)?,
                cycle: row.try_get(4)?,
            })
        })
        .collect()
}

/// How many large objects there are.
///
/// # Errors
/// The server's.
pub async fn large_objects(client: &Client) -> Result<u64, Error> {
    Ok(unsigned(client.query_one("SELECT count(*) FROM pg_largeobject_metadata", &[]).await?.try_get(0)?))
}

/// What the database is to Pachyderm.
///
/// Both products keep `public.migrations`; Dex's has the column `num`.
///
/// # Errors
/// The server's.
pub async fn kind(client: &Client) -> Result<DatabaseKind, Error> {
    let row = client
        .query_one(
            "SELECT to_regclass('storage.chunk_objects') IS NOT NULL,
                    to_regclass('public.connector') IS NOT NULL AND EXISTS (
                        SELECT FROM pg_attribute WHERE attrelid = to_regclass('public.migrations') AND attname = 'num')",
            &[],
        )
        .await?;
    Ok(if row.try_get(0)? {
        DatabaseKind::Pachyderm
    } else if row.try_get(1)? {
        DatabaseKind::Dex
    } else {
        DatabaseKind::Other
    })
}

/// How far the schema of a database is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrations {
    /// The number of the last migration.
    pub last: Option<i64>,
    /// The first one that was begun and never ended: number and name.
    pub unfinished: Option<(i64, String)>,
}

/// The migrations of a database of this kind.
///
/// # Errors
/// The server's.
pub async fn migrations(client: &Client, kind: DatabaseKind) -> Result<Migrations, Error> {
    match kind {
        DatabaseKind::Pachyderm => {
            let last = client.query_one("SELECT max(id)::int8 FROM public.migrations", &[]).await?.try_get(0)?;
            let unfinished = client
                .query_opt(
                    "SELECT id::int8, name::text FROM public.migrations WHERE end_time IS NULL ORDER BY id LIMIT 1",
                    &[],
                )
                .await?;
            let unfinished = unfinished.map(|row| Ok::<_, Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?;
            Ok(Migrations { last, unfinished })
        }
        DatabaseKind::Dex => {
            let last = client.query_one("SELECT max(num)::int8 FROM public.migrations", &[]).await?.try_get(0)?;
            Ok(Migrations { last, unfinished: None })
        }
        DatabaseKind::Other => Ok(Migrations::default()),
    }
}

/// Encoding, locale, owner, settings, extensions, roles of policies; `version` is `server_version_num`. The time zone
/// is left empty: the session's own settings hide it.
///
/// # Errors
/// The server's.
pub async fn properties(client: &Client, version: u32) -> Result<DatabaseProperties, Error> {
    // PostgreSQL renamed or added these columns in 15, 16 and 17.
    let provider = if version >= 150_000 { "d.datlocprovider::text" } else { "'c'" };
    let locale = match version {
        170_000.. => "d.datlocale::text",
        150_000.. => "d.daticulocale::text",
        _ => "NULL",
    };
    let rules = if version >= 160_000 { "d.daticurules::text" } else { "NULL" };
    let sql = format!(
        "SELECT pg_encoding_to_char(d.encoding)::text, d.datcollate::text, d.datctype::text, {provider}, {locale},
                {rules}, pg_get_userbyid(d.datdba)::text, shobj_description(d.oid, 'pg_database')
         FROM pg_database d WHERE d.datname = current_database()"
    );
    let row = client.query_one(&sql, &[]).await?;
    let provider: String = row.try_get(3)?;
    Ok(DatabaseProperties {
        encoding: row.try_get(0)?,
        collate: row.try_get(1)?,
        ctype: row.try_get(2)?,
        locale_provider: match provider.as_str() {
            "i" => "icu".into(),
            "b" => "builtin".into(),
            _ => "libc".into(),
        },
        locale: row.try_get(4)?,
        icu_rules: row.try_get(5)?,
        owner: row.try_get(6)?,
        comment: row.try_get(7)?,
        timezone: String::new(),
        settings: settings(client).await?,
        extensions: extensions(client).await?,
        policy_roles: policy_roles(client).await?,
    })
}

async fn settings(client: &Client) -> Result<Vec<DatabaseSetting>, Error> {
    let rows = client
        .query(
            "SELECT r.rolname::text, split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
             FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
             LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
             WHERE d.datname = current_database() ORDER BY 1 NULLS FIRST, 2",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(DatabaseSetting { role: row.try_get(0)?, name: row.try_get(1)?, value: row.try_get(2)? }))
        .collect()
}

async fn extensions(client: &Client) -> Result<Vec<Extension>, Error> {
    let rows = client
        .query(
            "SELECT e.extname::text, e.extversion, n.nspname::text
             FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
             WHERE e.extname <> 'plpgsql' ORDER BY 1",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(Extension { name: row.try_get(0)?, version: row.try_get(1)?, schema: row.try_get(2)? }))
        .collect()
}

async fn policy_roles(client: &Client) -> Result<Vec<String>, Error> {
    let sql = "SELECT DISTINCT r.rolname::text FROM pg_policy p JOIN pg_roles r ON r.oid = ANY (p.polroles) ORDER BY 1";
    client.query(sql, &[]).await?.iter().map(|row| row.try_get(0)).collect()
}

/// What a dump leaves out, in words.
///
/// # Errors
/// The server's.
pub async fn left_out(client: &Client, standby: bool) -> Result<Vec<String>, Error> {
    const SQL: &str = concat!(
        "SELECT 'publication ' || quote_ident(pubname) FROM pg_publication
         UNION ALL
         SELECT 'subscription ' || quote_ident(subname) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
         WHERE d.datname = current_database()
         UNION ALL
         SELECT 'tablespace ' || quote_ident(t.spcname) || ' of ' || quote_ident(n.nspname) || '.'
                || quote_ident(c.relname)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_tablespace t ON t.oid = c.reltablespace
         WHERE t.spcname <> 'pg_global' AND ",
        user_namespace!(),
        "UNION ALL
         SELECT CASE c.relkind WHEN 'f' THEN 'rows of foreign table ' WHEN 'S' THEN 'state of unlogged sequence '
                               ELSE 'rows of unlogged table ' END
                || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE (c.relkind = 'f' OR $1 AND c.relkind IN ('r', 'S') AND c.relpersistence = 'u') AND ",
        user_namespace!(),
        "UNION ALL
         SELECT 'options, if it has any, of the user mapping of ' || coalesce(quote_ident(usename), umuser::text)
                || ' for server ' || quote_ident(srvname) || ' (this role may not read them)'
         FROM pg_user_mappings
         WHERE umoptions IS NULL AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND rolsuper)
         UNION ALL
         SELECT count(*) || ' security labels' FROM pg_seclabel HAVING count(*) > 0
         ORDER BY 1"
    );
    client.query(SQL, &[&standby]).await?.iter().map(|row| row.try_get(0)).collect()
}

/// A count of the server, which is never negative.
pub(super) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quote_qualified("a b", "c\"d"), "\"a b\".\"c\"\"d\"");
    }
}
