//! Compares two clusters without a line of pacharc's code: `pg_dump --schema-only`, every table's rows, sorted (by the server, or
//! if they are many by `COPY` through `sort`), sequences, large objects and database settings; and the bytes of objects.

use crate::bucket::Bucket;
use crate::chunk;
use crate::cluster::quote;
use crate::connection::{connect, with_database};
use crate::postgres::psql;
use crate::programs;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

/// The characters of a table's rows that the server may sort in memory.
const SMALL: u64 = if cfg!(test) { 1 << 10 } else { 32 << 20 };

/// How values are written, on whatever server.
const STYLE: [&str; 4] = ["TimeZone=UTC", "DateStyle=ISO", "extra_float_digits=3", "bytea_output=hex"];

/// What one comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What was compared, in words.
    pub subject: String,
    /// How many things were compared: tables, sequences and the like, or objects.
    pub compared: usize,
    /// What differs, one line each.
    pub differences: Vec<String>,
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_equal() { "equal" } else { "DIFFERENT" };
        write!(f, "{}: {verdict} ({} compared)", self.subject, self.compared)?;
        self.differences.iter().take(20).try_for_each(|difference| write!(f, "\n  {difference}"))?;
        match self.differences.len().saturating_sub(20) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Compares a database of the first server with one of the second. Owners and privileges are left out: a restore may give
/// all to another role.
///
/// # Errors
/// If a program is missing or fails.
pub fn databases(from: &str, to: &str, name: &str, to_name: &str) -> Result<Comparison> {
    let newest = major(&with_database(from, name))?.max(major(&with_database(to, to_name))?);
    Contents::read_for(from, name, newest)?.compare_for(to, to_name, newest)
}

/// What was read of a database that does not change, to be compared with others again and again.
#[derive(Clone, Debug)]
pub struct Contents {
    name: String,
    facts: BTreeMap<String, String>,
    major: u32,
}

impl Contents {
    /// Reads a database; those that it is compared with are on servers of the same version.
    ///
    /// # Errors
    /// If a program is missing or fails.
    pub fn read(server: &str, name: &str) -> Result<Self> {
        Self::read_for(server, name, major(&with_database(server, name))?)
    }

    fn read_for(server: &str, name: &str, newest: u32) -> Result<Self> {
        Ok(Self { name: name.to_owned(), facts: facts(&with_database(server, name), newest)?, major: newest })
    }

    /// As [`databases`], with a database of the second server.
    ///
    /// # Errors
    /// As [`Contents::read`].
    pub fn compare(&self, to: &str, to_name: &str) -> Result<Comparison> {
        self.compare_for(to, to_name, self.major)
    }

    fn compare_for(&self, to: &str, to_name: &str, newest: u32) -> Result<Comparison> {
        let (name, right) = (&self.name, facts(&with_database(to, to_name), newest)?);
        let subject =
            if name == to_name { format!("database {name}") } else { format!("database {name} and {to_name}") };
        Ok(Comparison { subject, compared: self.facts.len(), differences: differing(&self.facts, &right) })
    }
}

fn major(url: &str) -> Result<u32> {
    Ok(psql(url, "SHOW server_version_num")?.parse::<u32>()? / 10_000)
}

fn facts(url: &str, newest: u32) -> Result<BTreeMap<String, String>> {
    let pg_dump =
        programs::client("pg_dump", newest).with_context(|| format!("no pg_dump of version {newest} or newer"))?;
    let dump = Command::new(&pg_dump).args(["--schema-only", "--no-owner", "--no-acl", "--dbname", url]).output()?;
    if !dump.status.success() {
        bail!("pg_dump: {}", String::from_utf8_lossy(&dump.stderr).trim());
    }
    let mut facts = database_facts(url)?;
    facts.extend(schema_facts(&String::from_utf8_lossy(&dump.stdout)));
    Ok(facts)
}

/// Compares the objects of these keys; `None` compares all keys of both buckets.
///
/// # Errors
/// If a bucket fails.
pub async fn buckets(from: &Arc<dyn Bucket>, to: &Arc<dyn Bucket>, keys: Option<Vec<String>>) -> Result<Comparison> {
    let (subject, keys) = match keys {
        Some(keys) => ("bucket, live objects", keys),
        None => {
            let mut keys = from.keys().await?;
            keys.extend(to.keys().await?);
            keys.sort_unstable();
            keys.dedup();
            ("bucket, all objects", keys)
        }
    };
    let mut comparison = Comparison { subject: subject.into(), compared: keys.len(), ..Comparison::default() };
    for key in keys {
        let (left, right) = tokio::try_join!(from.get(&key), to.get(&key))?;
        let difference = match (left, right) {
            (left, right) if left == right => continue,
            (Some(_), Some(_)) => "bytes differ",
            (Some(_), None) => "only in the first",
            (None, _) => "only in the second",
        };
        comparison.differences.push(format!("{key}: {difference}"));
    }
    Ok(comparison)
}

/// Checks a cluster against itself, by the rules of Pachyderm's storage: every live row has an object with the bytes that
/// its key promises, no reference leads to a chunk without a live row, file sets and their tracker agree.
///
/// # Errors
/// If the server or the bucket fails.
pub async fn consistency(server: &str, database: &str, bucket: &Arc<dyn Bucket>) -> Result<Comparison> {
    const DANGLING: &str = "\
        SELECT 'no live row for the referenced ' || o.str_id FROM storage.tracker_objects o \
        WHERE o.str_id LIKE 'chunk/%' AND EXISTS (SELECT FROM storage.tracker_refs r JOIN storage.tracker_objects f \
            ON f.int_id = r.from_id AND f.str_id NOT LIKE 'tmp/%' WHERE r.to_id = o.int_id) \
        AND NOT EXISTS (SELECT FROM storage.chunk_objects c \
            WHERE c.chunk_id = decode(substr(o.str_id, 7), 'hex') AND c.uploaded AND NOT c.tombstone) \
        UNION ALL SELECT 'no row for ' || o.str_id FROM storage.tracker_objects o WHERE o.str_id LIKE 'fileset/%' \
        AND NOT EXISTS (SELECT FROM storage.filesets f WHERE f.id = substr(o.str_id, 9)::uuid) \
        UNION ALL SELECT 'a reference from nowhere to ' || r.to_id FROM storage.tracker_refs r \
        WHERE NOT EXISTS (SELECT FROM storage.tracker_objects o WHERE o.int_id = r.from_id)";
    let url = with_database(server, database);
    let client = connect(&url).await?;
    let live = live_keys(&url).await?;
    let mut found =
        Comparison { subject: format!("{database} with its bucket"), compared: live.len(), ..Comparison::default() };
    found.differences = client.query(DANGLING, &[]).await?.iter().map(|row| row.get(0)).collect();
    for key in live {
        match bucket.get(&key).await? {
            None => found.differences.push(format!("{key}: no object")),
            Some(bytes) if !key.contains(&hex::encode(chunk::hash(&bytes))) => {
                found.differences.push(format!("{key}: other bytes than the key promises"));
            }
            Some(_) => {}
        }
    }
    Ok(found)
}

/// The keys of all live rows, sorted.
///
/// # Errors
/// If the server fails.
pub async fn live_keys(url: &str) -> Result<Vec<String>> {
    const LIVE: &str = "SELECT 'chunk/' || encode(chunk_id, 'hex') || '.' || lpad(to_hex(gen), 16, '0') \
        FROM storage.chunk_objects WHERE uploaded AND NOT tombstone ORDER BY chunk_id, gen";
    Ok(connect(url).await?.query(LIVE, &[]).await?.iter().map(|row| row.get(0)).collect())
}

/// Keys that differ between two maps, with what each side has.
fn differing(left: &BTreeMap<String, String>, right: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: Vec<_> = left.keys().chain(right.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let side = |map: &BTreeMap<String, String>, name| map.get(name).map_or("absent".to_owned(), Clone::clone);
    let differs = names.into_iter().filter(|name| left.get(*name) != right.get(*name));
    differs.map(|name| format!("{name}: {} / {}", side(left, name), side(right, name))).collect()
}

/// The statements of a schema dump, each one a fact of its own, without comments and without the lines that hold no schema.
fn schema_facts(dump: &str) -> BTreeMap<String, String> {
    let lines =
        dump.lines().filter(|line| !line.starts_with("--") && !line.starts_with('\\') && !line.starts_with("SET "));
    let text: Vec<_> = lines.collect();
    let statements = text.join("\n");
    let statements = statements.split("\n\n").map(str::trim).filter(|statement| !statement.is_empty());
    statements.map(|statement| (format!("schema: {statement}"), "present".to_owned())).collect()
}

/// A database's settings, and the contents of its tables, sequences and large objects.
fn database_facts(url: &str) -> Result<BTreeMap<String, String>> {
    const SETTINGS: &str = "\
        SELECT 'encoding and locale', pg_encoding_to_char(encoding) || ' ' || datcollate || ' ' || datctype \
            FROM pg_database WHERE datname = current_database() \
        UNION ALL SELECT 'setting ' || s, 'set' FROM pg_db_role_setting, unnest(setconfig) s \
            WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) \
        UNION ALL SELECT 'large object ' || oid, md5(lo_get(oid)) FROM pg_largeobject_metadata";
    const RELATIONS: &str = "\
        SELECT 'relation', c.relkind, format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'p', 'm', 'S') AND NOT c.relispartition AND c.relpersistence = 'p' \
        AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 3";
    let (mut facts, mut relations) = (BTreeMap::new(), Vec::new());
    // A session costs more than most of what is asked here.
    let told = psql(url, &format!("{SETTINGS};\n{RELATIONS}"))?;
    for line in told.lines() {
        let (name, value) = line.split_once('|').unwrap_or((line, ""));
        match name {
            "relation" => relations.extend(value.split_once('|')),
            _ => drop(facts.insert(name.to_owned(), value.to_owned())),
        }
    }
    let names = |sequences: bool| relations.iter().filter(move |(kind, _)| (*kind == "S") == sequences);
    let tables: Vec<_> = names(false)
        .map(|(kind, name)| if *kind == "r" { format!("ONLY {name}") } else { (*name).to_owned() })
        .collect();
    // By what is in them, and so the same on both sides.
    let values = names(true).map(|(_, name)| format!("SELECT last_value, is_called FROM {name}"));
    let sizes = per_table(&tables, "count(*), coalesce(sum(length(t::text)), 0)");
    let mut values = answers(url, values.chain(sizes))?;
    let sizes = values.split_off(names(true).count());
    facts.extend(names(true).map(|(_, name)| (*name).to_owned()).zip(values));
    let is_small =
        |size: &str| size.split_once('|').is_some_and(|(_, size)| size.parse().is_ok_and(|size: u64| size <= SMALL));
    let (small, large): (Vec<_>, Vec<_>) = tables.into_iter().zip(sizes).partition(|(_, size)| is_small(size));
    let names = |tables: &[(String, String)]| tables.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let hash = "count(*), md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\"), ''))";
    let (small, large) = (names(&small), names(&large));
    let hashes = [answers(url, per_table(&small, hash))?, rows(url, &large)?].concat();
    facts.extend(
        [small, large].concat().into_iter().map(|table| table.trim_start_matches("ONLY ").to_owned()).zip(hashes),
    );
    Ok(facts)
}

/// Asks for this of each table, which is called `t` there.
fn per_table(tables: &[String], select: &str) -> impl Iterator<Item = String> {
    tables.iter().map(move |table| format!("SELECT {select} FROM {table} t"))
}

/// The one line that each statement gives.
fn answers(url: &str, statements: impl Iterator<Item = String>) -> Result<Vec<String>> {
    let statements: Vec<String> = statements.map(|statement| format!("{statement};\n")).collect();
    let style = STYLE.map(|setting| format!("SET {setting};\n"));
    let output = psql(url, &[style.concat(), statements.concat()].concat())?;
    let lines: Vec<String> = output.lines().map(str::to_owned).collect();
    if lines.len() != statements.len() {
        bail!("{} answers to {} statements", lines.len(), statements.len());
    }
    Ok(lines)
}

/// `<hash of the sorted lines>, <number> rows` of each table, in bounded memory: `sort` spills to disk. (Should `sort` fail,
/// the hash is of less, and differs.)
fn rows(url: &str, tables: &[String]) -> Result<Vec<String>> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let copy = |table| format!("\\copy (SELECT * FROM {table}) TO PROGRAM 'LC_ALL=C sort | b2sum --length=128 >&2'\n");
    let program = programs::client("psql", 0).context("psql is not installed")?;
    let mut psql = Command::new(program)
        .args(["--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file=-", "--dbname", url])
        .env("PGOPTIONS", STYLE.map(|setting| format!("-c {setting}")).join(" "))
        .env("PGCLIENTENCODING", "UTF8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let script: String = tables.iter().map(copy).collect();
    let mut stdin = psql.stdin.take().context("psql's input")?;
    let output = thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(script.as_bytes())));
        psql.wait_with_output()
    })?;
    // The hashes come on standard error, since psql keeps its `COPY <number>` back.
    let (counts, hashes) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() || [&counts, &hashes].iter().any(|text| text.lines().count() != tables.len()) {
        bail!("the rows could not be read: {hashes}");
    }
    let word = |line: &str, number| line.split_whitespace().nth(number).unwrap_or_default().to_owned();
    Ok(hashes
        .lines()
        .zip(counts.lines())
        .map(|(hash, count)| format!("{}, {} rows", word(hash, 0), word(count, 1)))
        .collect())
}

/// Whether the database has this table.
///
/// # Errors
/// If the server fails.
pub fn has_table(url: &str, schema: &str, table: &str) -> Result<bool> {
    let name = format!("{}.{}", quote(schema), quote(table)).replace('\'', "''");
    Ok(psql(url, &format!("SELECT to_regclass('{name}') IS NOT NULL"))? == "t")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::Directory;
    use crate::cluster::{self, Made, Options};
    use crate::postgres::{self, TempServer};
    use bytes::Bytes;

    async fn made(server: &TempServer, bucket: &Arc<dyn Bucket>, options: &Options) -> Made {
        cluster::make(&server.url("postgres"), bucket.clone(), options).await.unwrap()
    }

    fn directory(root: &tempfile::TempDir) -> Arc<dyn Bucket> {
        Arc::new(Directory::new(root.path()))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_seed_makes_one_cluster_and_every_difference_is_seen() {
        let Some(first) = TempServer::start_or_skip(&postgres::Options::default()).unwrap() else { return };
        let second = TempServer::start(&postgres::Options::default()).unwrap();
        let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (bucket, other) = (directory(&root), directory(&other_root));
        let options = Options { objects: 60, jobs: 5, ..Options::default() };
        let count = made(&first, &bucket, &options).await;
        assert_eq!(count, made(&second, &other, &options).await);

        // What has been made is what the report says, and is sound.
        assert_eq!(count.live, 63);
        assert_eq!(bucket.keys().await.unwrap().len() as u64, count.objects());
        let (from, to) = (first.url("postgres"), second.url("postgres"));
        let sound = consistency(&from, "pachyderm", &bucket).await.unwrap();
        assert!(sound.is_equal() && sound.compared == 63, "{sound}");
        let migrations = psql(&first.url("pachyderm"), "SELECT count(*), max(id) FROM migrations").unwrap();
        assert_eq!(migrations, "60|59");

        // Equal, then each kind of difference.
        for name in ["pachyderm", "dex"] {
            let same = databases(&from, &to, name, name).unwrap();
            assert!(same.is_equal() && same.compared > 30, "{same}");
        }
        assert!(buckets(&bucket, &other, None).await.unwrap().is_equal());
        let mut before: Vec<String> = Vec::new();
        for (change, named) in [
            (
                "UPDATE storage.filesets SET metadata_pb = '' WHERE id = (SELECT min(id::text)::uuid FROM storage.filesets)",
                "storage.filesets",
            ),
            ("SELECT nextval('storage.chunk_objects_gen_seq')", "storage.chunk_objects_gen_seq"),
            ("CREATE INDEX extra ON storage.filesets (created_at)", "CREATE INDEX extra"),
            ("DROP TRIGGER notify ON pfs.repos", "CREATE TRIGGER notify"),
            ("SELECT lo_from_bytea(0, 'x')", "large object"),
            ("ALTER DATABASE pachyderm SET timezone = 'Asia/Tokyo'", "setting"),
        ] {
            psql(&second.url("pachyderm"), change).unwrap();
            let after = databases(&from, &to, "pachyderm", "pachyderm").unwrap().differences;
            let new: Vec<_> = after.iter().filter(|difference| !before.contains(difference)).collect();
            assert!(new.len() == 1 && new[0].contains(named), "{change}: {new:?}");
            before = after;
        }

        let keys = live_keys(&first.url("pachyderm")).await.unwrap();
        other.delete(&keys[0]).await.unwrap();
        other.put(&keys[1], Bytes::from_static(b"rotten")).await.unwrap();
        other.put("test/more", Bytes::new()).await.unwrap();
        assert_eq!(buckets(&bucket, &other, None).await.unwrap().differences.len(), 3);
        assert_eq!(buckets(&bucket, &other, Some(keys)).await.unwrap().differences.len(), 2);
        assert_eq!(consistency(&to, "pachyderm", &other).await.unwrap().differences.len(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_empty_cluster_and_other_names_are_possible() {
        let Some(server) = TempServer::start_or_skip(&postgres::Options::default()).unwrap() else { return };
        let root = tempfile::tempdir().unwrap();
        let options = Options {
            objects: 0,
            oddities: false,
            jobs: 0,
            database: "Pachyderm".into(),
            dex: None,
            owner: "o'w\"ner".into(),
            ..Options::default()
        };
        assert_eq!(made(&server, &directory(&root), &options).await, Made::default());
        assert_eq!(psql(&server.url("Pachyderm"), "SELECT count(*) FROM pfs.commits").unwrap(), "0");
        assert!(has_table(&server.url("Pachyderm"), "storage", "chunk_objects").unwrap());
        assert!(!has_table(&server.url("postgres"), "storage", "chunk_objects").unwrap());
    }
}
