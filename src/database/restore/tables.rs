//! The tables that a proof reads, and what it reads of each.

use std::collections::{BTreeMap, BTreeSet};

use pacharc_format::Fingerprint;
use pacharc_format::manifest::Table;

use crate::database::catalog::{quote_identifier, quote_qualified};
use crate::database::{Error, Session};

/// One reading: a table, or all partitions of one where rows may have moved from one to another.
pub(super) struct Check {
    /// Schema and name.
    pub(super) place: (String, String),
    /// The same, quoted.
    pub(super) name: String,
    pub(super) columns: Vec<String>,
    /// What is read, one after the other: tables, or queries in parentheses.
    sources: Vec<String>,
    pub(super) expected: Fingerprint,
    /// Of all rows, as the manifest has them.
    pub(super) bytes: u64,
    pub(super) tables: u64,
    pub(super) extension: bool,
    /// Whether it is the root of a tree of partitions.
    is_tree: bool,
}

/// The readings that compare all of a manifest's `tables`.
pub(super) fn checks(tables: &[Table]) -> Vec<Check> {
    let mut layouts: BTreeMap<_, BTreeSet<&[String]>> = BTreeMap::new();
    for table in tables {
        if let Some(root) = &table.root {
            layouts.entry(root).or_default().insert(&table.columns);
        }
    }
    let mut checks = Vec::new();
    let mut roots: BTreeMap<_, Check> = BTreeMap::new();
    for table in tables {
        let columns = list(&table.columns);
        // Without a fingerprint that can be read nothing can be equal to it.
        let expected = Fingerprint::from_hex(&table.fingerprint, table.rows).unwrap_or_default();
        // Where partitions list their columns in different orders, a row's text tells where it was: it must be there.
        if let Some(root) = table.root.as_ref().filter(|root| layouts[root].len() == 1) {
            let name = quote_qualified(&root.0, &root.1);
            roots
                .entry(root)
                .or_insert_with(|| Check {
                    place: root.clone(),
                    columns: table.columns.clone(),
                    sources: vec![format!("(SELECT {columns} FROM {name})")],
                    name,
                    expected: Fingerprint::default(),
                    bytes: 0,
                    tables: 0,
                    extension: false,
                    is_tree: true,
                })
                .add(&expected, table.bytes);
            continue;
        }
        let name = quote_qualified(&table.schema, &table.name);
        let source = match &table.extension_filter {
            Some(filter) if !filter.is_empty() => format!("(SELECT {columns} FROM ONLY {name} {filter})"),
            _ if columns.is_empty() => name.clone(),
            _ => format!("{name} ({columns})"),
        };
        checks.push(Check {
            place: (table.schema.clone(), table.name.clone()),
            name,
            columns: table.columns.clone(),
            sources: vec![source],
            expected,
            bytes: table.bytes,
            tables: 1,
            extension: table.extension_filter.is_some(),
            is_tree: false,
        });
    }
    checks.extend(roots.into_values());
    checks
}

/// Names of columns, quoted.
fn list(columns: &[String]) -> String {
    columns.iter().map(|column| quote_identifier(column)).collect::<Vec<_>>().join(", ")
}

impl Check {
    fn add(&mut self, expected: &Fingerprint, bytes: u64) {
        self.expected.merge(expected);
        self.bytes = self.bytes.saturating_add(bytes);
        self.tables += 1;
    }

    /// What reads it.
    pub(super) fn copies(&self) -> impl Iterator<Item = String> {
        self.sources.iter().map(|source| format!("COPY {source} TO STDOUT"))
    }

    /// Where a tree has partitions that are on other servers, the others are read one by one: no dump holds rows of those, and the
    /// root would ask their servers for them.
    ///
    /// # Errors
    /// What the server says.
    pub(super) async fn leave_out_foreign(&mut self, session: &Session) -> Result<(), Error> {
        const SQL: &str = "
            SELECT n.nspname, c.relname, c.relkind = 'f'
            FROM pg_catalog.pg_partition_tree((
                SELECT oid FROM pg_catalog.pg_class WHERE relname = $2 AND relnamespace =
                    (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1))::regclass) t
            JOIN pg_catalog.pg_class c ON c.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE t.isleaf ORDER BY 1, 2";
        if !self.is_tree {
            return Ok(());
        }
        let failed = || Error::query(format!("cannot look for the partitions of table {}", self.name));
        let (schema, name) = &self.place;
        let mut leaves: Vec<(String, bool)> = Vec::new();
        for row in session.query(SQL, &[schema, name]).await.map_err(failed())? {
            let (schema, name): (&str, &str) = (row.try_get(0).map_err(failed())?, row.try_get(1).map_err(failed())?);
            leaves.push((quote_qualified(schema, name), row.try_get(2).map_err(failed())?));
        }
        if leaves.iter().any(|(_, is_foreign)| *is_foreign) {
            let columns = list(&self.columns);
            let own = leaves.iter().filter(|(_, is_foreign)| !is_foreign);
            self.sources = own.map(|(leaf, _)| format!("(SELECT {columns} FROM ONLY {leaf})")).collect();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, columns: &[&str], root: Option<&str>) -> Table {
        Table {
            schema: "s".into(),
            name: name.into(),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            root: root.map(|root| ("s".to_owned(), root.to_owned())),
            rows: 1,
            fingerprint: blake3::hash(name.as_bytes()).to_hex().to_string(),
            ..Table::default()
        }
    }

    #[test]
    fn partitions_are_compared_together_where_their_rows_look_alike() {
        let tables = [
            table("a", &["x"], None),
            table("p1", &["x", "y"], Some("p")),
            table("p2", &["x", "y"], Some("p")),
            table("q1", &["x", "y"], Some("q")),
            table("q2", &["y", "x"], Some("q")),
            table("none", &[], None),
        ];
        let checks = checks(&tables);
        let copies: Vec<String> = checks.iter().flat_map(Check::copies).collect();
        let expected = [
            "COPY \"s\".\"a\" (\"x\") TO STDOUT",
            "COPY \"s\".\"q1\" (\"x\", \"y\") TO STDOUT",
            "COPY \"s\".\"q2\" (\"y\", \"x\") TO STDOUT",
            "COPY \"s\".\"none\" TO STDOUT",
            "COPY (SELECT \"x\", \"y\" FROM \"s\".\"p\") TO STDOUT",
        ];
        assert_eq!(copies, expected);
        assert_eq!((checks[4].tables, checks[4].expected.count()), (2, 2));
    }
}
