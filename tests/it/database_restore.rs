//! Restores into a real server: equal to the source, refused where something would be lost, begun again after a kill.

use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use pacharc::database::restore::{
    DatabaseRestore, Proof, Proved, RestoreError, Start, Target, drop_database, prove, release, system_identifier,
};
use pacharc::database::{Attempt, DumpSettings, Environment, Error, Server, Tools, inspect};
use pacharc::failure::{Class, Explain};
use pacharc::feed::Feed;
use pacharc_format::manifest::{Database, DatabaseProperties, DatabaseSetting};
use pacharc_sample::postgres::{StopMode, TempServer};

use crate::support::postgres::{self, Use as _, run};
use crate::support::program::wait_until;

pub type Entries = Vec<(String, Bytes)>;

/// A dump: its entries in the bundle's order, by their paths in the attempt's folder.
pub struct Dumped {
    pub manifest: Database,
    pub entries: Entries,
}

pub fn server(postgres: &TempServer, user: &str) -> Server {
    let url = postgres.socket().replace("postgres@", &format!("{user}@"));
    Server::new(Some(&url), true, &Environment::of_process(), None).unwrap()
}

pub async fn dump(postgres: &TempServer, name: &str) -> Dumped {
    dump_with(postgres, name, None).await
}

pub async fn dump_with(postgres: &TempServer, name: &str, pg_bin: Option<&Path>) -> Dumped {
    let server = server(postgres, "postgres");
    let surveys = inspect(&server, &[name.to_owned()]).await.unwrap();
    let tools = Tools::find(surveys[0].server.version_num, pg_bin).await.unwrap();
    let attempt = Attempt::open(&server, &tools, &surveys, 1).await.unwrap();
    // Small pieces, so that rows and statements are cut.
    let (feed, mut queue) = Feed::new(4 << 20, 100_000);
    let collecting = tokio::spawn(async move {
        let mut entries = Vec::new();
        while let Some(entry) = queue.recv().await {
            let path = entry.path.splitn(4, '/').nth(3).unwrap().to_owned();
            entries.push((path, Bytes::copy_from_slice(entry.body.first())));
        }
        entries
    });
    let mut databases = attempt.dump(&feed, 3, |_| {}).await.unwrap();
    drop(feed);
    Dumped { manifest: databases.remove(0), entries: collecting.await.unwrap() }
}

pub fn target(server: &Server, database: &str, owner: Option<&str>) -> Target {
    let owner = owner.map(str::to_owned);
    Target { server: server.clone(), database: database.to_owned(), owner, jobs: 3, mark: "bundle-1".to_owned() }
}

async fn create(target: &Target, properties: &DatabaseProperties) -> Result<Box<DatabaseRestore>, Error> {
    match DatabaseRestore::create(target.clone(), properties).await? {
        Start::Empty(restore) => Ok(restore),
        Start::Loaded => panic!("{} was loaded already", target.database),
    }
}

/// Restores and proves; what could not be done.
pub async fn restore(target: &Target, dumped: &Dumped) -> Result<Vec<String>, Error> {
    // As a reader of a pipe does: what it knows comes from the first entry.
    let (first, settings) = &dumped.entries[0];
    assert_eq!(first, "settings.json");
    let settings: DumpSettings = serde_json::from_slice(settings).unwrap();
    let mut restore = create(target, &settings.properties).await?;
    for (path, body) in &dumped.entries {
        restore.entry(path, body.clone()).await?;
    }
    restore.finish(&dumped.manifest).await
}

pub async fn proof(target: &Target, dumped: &Dumped) -> Proof {
    let psql = Tools::find_psql(150_000, None).await.unwrap();
    prove(target, &psql, &dumped.manifest).await.unwrap()
}

pub fn comment(postgres: &TempServer, database: &str) -> String {
    let sql = format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{database}'");
    postgres.sql("postgres", &sql).trim().to_owned()
}

fn exists(postgres: &TempServer, database: &str) -> bool {
    postgres.sql("postgres", &format!("SELECT FROM pg_database WHERE datname = '{database}'")) == "\n"
}

fn odd(postgres: &TempServer) {
    postgres.sql("postgres", "CREATE DATABASE odd");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/database_dump/odd.sql");
    run(postgres.command("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "odd", "-f", path]));
    postgres.sql(
        "odd",
        "SET statement_timeout = 0;
         CREATE TABLE large (t text); ALTER TABLE large ALTER t SET STORAGE EXTERNAL;
         INSERT INTO large SELECT repeat('0123456789abcde' || chr(10), 1250000);
         CREATE FUNCTION atomic(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a > 0 THEN 1 ELSE 2 END; END;
         CREATE INDEX ON plain (t); CREATE INDEX ON plain (f); CREATE INDEX ON plain (n); CREATE UNIQUE INDEX ON plain (id, t);
         COMMENT ON EXTENSION hstore IS 'ours';",
    );
}

fn proved<'a>(database: &'a str, rename_to: Option<&'a str>, dumped: &'a Dumped) -> Proved<'a> {
    Proved { database, rename_to, properties: &dumped.manifest.properties }
}

/// What pg_dump says of a database's schema, without what differs each time.
pub fn schema(postgres: &TempServer, database: &str) -> String {
    let mut command = postgres.command("pg_dump");
    command.args(["--schema-only", "--no-owner", "--no-privileges", "--no-publications", "--restrict-key=x", database]);
    command.env("PGOPTIONS", "-c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0");
    run(&mut command)
}

/// A partition is part of another table, and not to be analyzed once more with that; nor, from 18 on, is what inherits.
fn analyzed_once(postgres: &TempServer, database: &str) {
    let counts = "SELECT DISTINCT analyze_count FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = relid
                  WHERE schemaname = 'public' AND relkind = 'r'";
    // Servers before 15 count a moment later.
    wait_until("each table is analyzed once", || postgres.sql(database, counts).trim() == "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_database_comes_back_whoever_restores_it() {
    let Some(postgres) = postgres::start() else { return };
    odd(&postgres);
    postgres.sql("postgres", "CREATE ROLE pach LOGIN; CREATE ROLE maker LOGIN CREATEDB");
    let dumped = dump(&postgres, "odd").await;
    assert!(dumped.entries.iter().filter(|(path, _)| path.starts_with("data/")).count() > 100);
    let settings = "SELECT setrole::regrole, unnest(setconfig) FROM pg_db_role_setting s
                    JOIN pg_database d ON d.oid = setdatabase WHERE datname = current_database() ORDER BY 1, 2";
    for (user, owner, database) in
        [("postgres", None, "by superuser"), ("postgres", Some("pach"), "for pach"), ("maker", None, "by maker")]
    {
        let target = target(&server(&postgres, user), database, owner);
        let warnings = restore(&target, &dumped).await.expect(database);
        assert_eq!(schema(&postgres, database), schema(&postgres, "odd"), "{database}");
        let proof = proof(&target, &dumped).await;
        assert!(proof.holds(), "{database}: {:?}", proof.differences);
        assert_eq!(proof.tables, dumped.manifest.tables.len() as u64);
        assert_eq!(proof.rows, dumped.manifest.tables.iter().map(|table| table.rows).sum::<u64>());
        let owners = "SELECT DISTINCT relowner::regrole FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        assert_eq!(postgres.sql(database, owners).trim(), owner.unwrap_or(user));
        analyzed_once(&postgres, database);
        if user == "postgres" {
            assert!(warnings.is_empty(), "{warnings:?}");
            assert_eq!(postgres.sql(database, settings), postgres.sql("odd", settings));
        } else {
            // Who may not change other roles' settings is told so.
            assert!(matches!(&warnings[..], [warning] if warning.contains("work_mem")), "{warnings:?}");
        }
        assert!(comment(&postgres, database).contains("bundle-1"));
        release(&target.server, &[proved(database, None, &dumped)]).await.unwrap();
        assert_eq!(comment(&postgres, database), "odd's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proof_names_what_differs() {
    let Some(postgres) = postgres::start() else { return };
    odd(&postgres);
    // Too large to be read in the session that reads the small ones.
    let megabytes = "CREATE TABLE megabytes AS SELECT g AS n, repeat('x', 300) AS t FROM generate_series(1, 10000) g";
    postgres.sql("odd", megabytes);
    let dumped = dump(&postgres, "odd").await;
    let target = target(&server(&postgres, "postgres"), "back", None);
    restore(&target, &dumped).await.unwrap();
    // Rows that are where another collation or byte order would put them are no difference, a changed byte is.
    for (change, object) in [
        ("UPDATE plain SET t = 'row 1 ' WHERE t = 'row 1'", "table \"public\".\"plain\""),
        ("UPDATE megabytes SET t = t || 'y' WHERE n = 9999", "table \"public\".\"megabytes\""),
        ("DELETE FROM by_hash WHERE v = 1", "table \"public\".\"by_hash\""),
        ("INSERT INTO nothing DEFAULT VALUES", "table \"public\".\"nothing\""),
        ("SELECT nextval('unused')", "sequence \"public\".\"unused\""),
        ("SELECT lo_put(4713, 50000, 'y')", "large objects"),
        ("SELECT lo_unlink(4712)", "large objects"),
    ] {
        assert!(proof(&target, &dumped).await.holds(), "before {change}");
        postgres.sql("postgres", "CREATE DATABASE kept TEMPLATE back");
        postgres.sql("back", &format!("SET statement_timeout = 0; SET lock_timeout = 0; {change}"));
        let proof = proof(&target, &dumped).await;
        let found: Vec<_> = proof.differences.iter().map(|difference| difference.object.as_str()).collect();
        assert_eq!(found, [object], "{change}");
        drop_database(&target.server, "back").await.unwrap();
        postgres.sql("postgres", "ALTER DATABASE kept RENAME TO back");
    }
}

/// A server that comes back has lost what it did not write at once: triggers made a moment before, which the proof of rows does
/// not miss.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashed_and_came_back_is_noticed() {
    let Some(mut postgres) = postgres::start_with("", &[("wal_writer_delay", "10s")], Vec::new()) else { return };
    postgres.sql("postgres", "CREATE DATABASE crashed");
    postgres.sql(
        "crashed",
        "CREATE TABLE a (n int PRIMARY KEY); CREATE TABLE b (n int REFERENCES a, m int REFERENCES a);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f()",
    );
    let dumped = dump(&postgres, "crashed").await;
    let back = target(&server(&postgres, "postgres"), "back", None);
    let (first, settings) = &dumped.entries[0];
    assert_eq!(first, "settings.json");
    let settings: DumpSettings = serde_json::from_slice(settings).unwrap();
    let mut restore_of_it = create(&back, &settings.properties).await.unwrap();
    for (path, body) in &dumped.entries {
        let trigger = body.windows(14).position(|bytes| bytes == b"CREATE TRIGGER");
        let Some(at) = trigger.filter(|_| path == "post-data.sql") else {
            restore_of_it.entry(path, body.clone()).await.unwrap();
            continue;
        };
        // All that comes before the trigger is on the disk. It is made when the next statement comes.
        let end = at + body[at..].windows(2).position(|bytes| bytes == b";\n").unwrap() + 2;
        restore_of_it.entry(path, body.slice(..end)).await.unwrap();
        postgres.sql("postgres", "CHECKPOINT");
        restore_of_it.entry(path, body.slice(end..)).await.unwrap();
        let made = postgres.sql("back", "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal");
        assert_eq!(made.trim(), "1");
    }
    // Only the foreign keys are not made yet.
    postgres.stop(StopMode::Immediate).unwrap();
    postgres.restart().unwrap();
    let ended = restore_of_it.finish(&dumped.manifest).await;
    assert!(
        ended.is_err(),
        "triggers: {}",
        postgres.sql("back", "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")
    );
    // It is not taken for a whole one, and comes back whole.
    restore(&back, &dumped).await.unwrap();
    assert_eq!(schema(&postgres, "back"), schema(&postgres, "crashed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tables_need_few_connections() {
    let Some(postgres) = postgres::start_with("", &[("max_connections", "14")], Vec::new()) else { return };
    postgres.sql("postgres", "CREATE DATABASE many");
    // They take their time, as with a server far away.
    let tables = "CREATE FUNCTION slow(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
        DO $$BEGIN FOR t IN 1..60 LOOP
        EXECUTE format('CREATE TABLE t%s (n int CHECK (slow(n))); INSERT INTO t%s VALUES (1)', t, t); END LOOP; END$$;
        CREATE OR REPLACE FUNCTION slow(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_catalog.pg_sleep(0.1); RETURN true; END'";
    postgres.sql("many", tables);
    // Indexes, too, by more sessions than there may be.
    postgres
        .sql("many", "DO $$BEGIN FOR t IN 1..60 LOOP EXECUTE format('CREATE INDEX ON t%s (n)', t); END LOOP; END$$");
    let dumped = dump(&postgres, "many").await;
    assert_eq!(dumped.manifest.tables.len(), 60);
    for jobs in [3, 20] {
        let target = Target { jobs, ..target(&server(&postgres, "postgres"), "back", None) };
        restore(&target, &dumped).await.unwrap();
        assert!(proof(&target, &dumped).await.holds());
        drop_database(&target.server, "back").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_large_tables_are_not_written_again_by_whoever_reads_them_first() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE DATABASE wide");
    let rows = "SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n";
    let tables = format!(
        "CREATE TABLE large (n int, t text); INSERT INTO large {rows};
         CREATE TABLE small (n int); INSERT INTO small VALUES (1);
         CREATE TABLE heir () INHERITS (large); INSERT INTO heir {rows};
         CREATE TYPE state AS ENUM ('a', 'b');
         CREATE TABLE parts (n int, t text, s state) PARTITION BY HASH (s);
         CREATE TABLE part_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE part_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO parts SELECT n, t, CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END::state FROM ({rows}) r (n, t);
         CREATE INDEX ON large (n)"
    );
    postgres.sql("wide", &tables);
    let dumped = dump(&postgres, "wide").await;
    let target = target(&server(&postgres, "postgres"), "back", None);
    restore(&target, &dumped).await.unwrap();
    assert!(proof(&target, &dumped).await.holds());
    let frozen = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
                  AND relpages > 0 AND relallvisible = relpages ORDER BY 1";
    // Rows of partitions go through their root, where the server knows no such rows.
    assert_eq!(postgres.sql("back", frozen), "heir\nlarge\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_lose_something_is_refused() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE ROLE pach LOGIN; CREATE ROLE other LOGIN");
    postgres.sql("postgres", "CREATE DATABASE source");
    postgres.sql("source", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let dumped = dump(&postgres, "source").await;
    let properties = &dumped.manifest.properties;
    let superuser = server(&postgres, "postgres");
    let refused = async |target: &Target, properties: &DatabaseProperties, class: Class| {
        let error = create(target, properties).await.expect_err(&target.database);
        assert_eq!(error.class(), class, "{error}");
        assert!(error.advice().is_some());
        match error {
            Error::Restore(error) => error,
            error => panic!("{error:?}"),
        }
    };

    for (number, content) in [
        "CREATE TABLE x ()",
        "CREATE VIEW x AS SELECT 1",
        "CREATE SCHEMA x",
        "CREATE TYPE x AS ENUM ()",
        "CREATE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT lo_create(0)",
        "CREATE SEQUENCE x",
    ]
    .iter()
    .enumerate()
    {
        let database = format!("full_{number}");
        postgres.sql("postgres", &format!("CREATE DATABASE {database}"));
        postgres.sql(&database, content);
        let error = refused(&target(&superuser, &database, None), properties, Class::Refused).await;
        assert!(matches!(error, RestoreError::NotEmpty { .. }), "{content}: {error:?}");
    }

    // An empty one is taken, with its extensions; then it bears the mark.
    postgres.sql("postgres", "CREATE DATABASE empty");
    postgres.sql("empty", "CREATE EXTENSION hstore");
    let empty = target(&superuser, "empty", None);
    create(&empty, properties).await.unwrap();
    let another = Target { mark: "bundle-2".to_owned(), ..empty.clone() };
    let error = refused(&another, properties, Class::Refused).await;
    assert!(matches!(error, RestoreError::OtherBundle { ref bundle, .. } if bundle == "bundle-1"), "{error:?}");
    // Still empty, it is taken again; with something in it, it is not dropped.
    create(&empty, properties).await.unwrap();
    postgres.sql("empty", "CREATE TABLE x ()");
    let error = refused(&empty, properties, Class::Refused).await;
    assert!(matches!(error, RestoreError::Unfinished { .. }), "{error:?}");

    postgres.sql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let error = refused(&target(&superuser, "latin", None), properties, Class::Refused).await;
    assert!(matches!(error, RestoreError::Encoding { .. }), "{error:?}");

    let lacking = DatabaseProperties { policy_roles: vec!["nobody here".to_owned()], ..properties.clone() };
    let error = refused(&target(&superuser, "new", None), &lacking, Class::Refused).await;
    assert!(matches!(error, RestoreError::RolesMissing { .. }), "{error:?}");
    let extension = pacharc_format::manifest::Extension { name: "none_such".to_owned(), ..Default::default() };
    let lacking = DatabaseProperties { extensions: vec![extension], ..properties.clone() };
    let error = refused(&target(&superuser, "new", None), &lacking, Class::Refused).await;
    assert!(matches!(error, RestoreError::ExtensionsMissing { .. }), "{error:?}");
    let setting =
        DatabaseSetting { name: "TimeZone".to_owned(), value: "Nowhere/City".to_owned(), ..Default::default() };
    for lacking in [
        DatabaseProperties { timezone: "Nowhere/City".to_owned(), ..properties.clone() },
        DatabaseProperties { settings: vec![setting], ..properties.clone() },
    ] {
        let error = refused(&target(&superuser, "new", None), &lacking, Class::Refused).await;
        assert!(matches!(&error, RestoreError::TimeZone { zone } if zone == "Nowhere/City"), "{error:?}");
    }
    let builtin = DatabaseProperties { locale_provider: "builtin".to_owned(), ..properties.clone() };
    let error = refused(&target(&superuser, "new", None), &builtin, Class::Refused).await;
    assert!(matches!(error, RestoreError::LocaleProvider { .. }), "{error:?}");

    let pach = server(&postgres, "pach");
    let error = refused(&target(&pach, "new", None), properties, Class::Credentials).await;
    assert!(matches!(error, RestoreError::MayNotCreate { .. }), "{error:?}");
    let error = refused(&target(&pach, "new", Some("other")), properties, Class::Credentials).await;
    assert!(matches!(error, RestoreError::MayNotActFor { .. }), "{error:?}");
    assert!(!exists(&postgres, "new"), "nothing was made");

    let session = superuser.connect("postgres").await.unwrap();
    assert!(system_identifier(&session).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_versions_of_the_server_take_it() {
    for (from, to) in [(15, 13), (15, 17), (18, 15), (18, 18)] {
        let (Some(source), Some(postgres)) = (postgres::start_version(from), postgres::start_version(to)) else {
            continue;
        };
        source.sql("postgres", "CREATE DATABASE source TEMPLATE template0");
        source.sql(
            "source",
            "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT now(), n numeric NOT NULL);
             INSERT INTO t (n) SELECT g / 7.0 FROM generate_series(1, 1000) g;
             CREATE TABLE u (id int REFERENCES t); INSERT INTO u VALUES (1), (2); CREATE INDEX ON u (id);
             CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ begin return 1; end $$;
             CREATE TABLE p (k int) PARTITION BY HASH (k);
             CREATE TABLE p_0 PARTITION OF p FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent);
             COMMENT ON SCHEMA public IS 'ours'; SELECT lo_from_bytea(7, 'seven')",
        );
        postgres.sql("postgres", "CREATE ROLE pach");
        // pg_dump 15 dumps what is not newer; its output for 18 has settings that 15 does not know.
        let pg_bin = (from > 15).then(|| source.bin_dir().to_owned());
        let dumped = dump_with(&source, "source", pg_bin.as_deref()).await;
        let target = target(&server(&postgres, "postgres"), "back", Some("pach"));
        let warnings = restore(&target, &dumped).await.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
        assert_eq!(warnings, [""; 0], "{from} to {to}");
        let proof = proof(&target, &dumped).await;
        assert!(proof.holds(), "{from} to {to}: {:?}", proof.differences);
        analyzed_once(&postgres, "back");
        assert_eq!(postgres.sql("back", "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'").trim(), "2");
        println!("restored from {from} to {to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encodings_locales_and_time_zones_come_back() {
    let Some(source) = postgres::start_with("", &[("timezone", "Asia/Tokyo")], Vec::new()) else { return };
    let Some(postgres) = postgres::start() else { return };
    for (name, options, content) in [
        ("latin", "ENCODING 'LATIN1' LOCALE 'C'", "INSERT INTO t VALUES ('Größe')"),
        ("bytes", "ENCODING 'SQL_ASCII' LOCALE 'C'", r"INSERT INTO t VALUES (E'\xff\xfe')"),
        (
            "icu",
            "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LOCALE 'C.UTF-8'",
            "INSERT INTO t VALUES ('ß')",
        ),
    ] {
        source.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 {options}"));
        source.sql(name, &format!("CREATE TABLE t (a text PRIMARY KEY, at timestamptz DEFAULT now()); {content}"));
        let dumped = dump(&source, name).await;
        let server = server(&postgres, "postgres");
        let target = target(&server, "kept apart", None);
        assert_eq!(restore(&target, &dumped).await.expect(name), [""; 0]);
        assert!(proof(&target, &dumped).await.holds(), "{name}");
        release(&server, &[proved("kept apart", Some(name), &dumped)]).await.unwrap();
        let properties = format!(
            "SELECT encoding, datcollate, datctype, datlocprovider, daticulocale FROM pg_database WHERE datname = '{name}'"
        );
        assert_eq!(postgres.sql("postgres", &properties), source.sql("postgres", &properties));
        for sql in ["SHOW timezone", "SELECT encode(convert_to(a, getdatabaseencoding()), 'hex'), at::text FROM t"] {
            assert_eq!(postgres.sql(name, sql), source.sql(name, sql), "{name}: {sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_killed_is_begun_again() {
    let Some(postgres) = postgres::start() else { return };
    odd(&postgres);
    let dumped = dump(&postgres, "odd").await;
    let server = server(&postgres, "postgres");
    let target = target(&server, "back", None);
    for taken in [1, 5, dumped.entries.len() / 2, dumped.entries.len() - 1] {
        let mut restore = create(&target, &dumped.manifest.properties).await.unwrap();
        for (path, body) in &dumped.entries[..taken] {
            restore.entry(path, body.clone()).await.unwrap();
        }
    }
    restore(&target, &dumped).await.unwrap();
    assert!(proof(&target, &dumped).await.holds());
    // Until it is released, the same bundle finds it loaded.
    let start = DatabaseRestore::create(target.clone(), &dumped.manifest.properties).await.unwrap();
    assert!(matches!(start, Start::Loaded));
    // All are released or none.
    let other =
        DatabaseRestore::create(Target { database: "other".into(), ..target.clone() }, &dumped.manifest.properties);
    drop(other.await.unwrap());
    let both = [proved("back", Some("final"), &dumped), proved("other", Some("postgres"), &dumped)];
    release(&server, &both).await.unwrap_err();
    let start = DatabaseRestore::create(target.clone(), &dumped.manifest.properties).await.unwrap();
    assert!(matches!(start, Start::Loaded));
    release(&server, &[proved("back", None, &dumped)]).await.unwrap();
    let error = create(&target, &dumped.manifest.properties).await.unwrap_err();
    assert!(matches!(error, Error::Restore(RestoreError::NotEmpty { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_damaged_are_noticed() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE DATABASE source");
    postgres.sql("source", "CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)");
    let dumped = dump(&postgres, "source").await;
    let server = server(&postgres, "postgres");
    let rows = dumped.entries.iter().position(|(path, _)| path == "data/00001/00000000").unwrap();
    let with = |change: &dyn Fn(&mut Entries)| {
        let mut entries = dumped.entries.clone();
        change(&mut entries);
        Dumped { manifest: dumped.manifest.clone(), entries }
    };
    let edit = |edit: &dyn Fn(String) -> String| {
        with(&|entries| {
            let text = String::from_utf8(entries[rows].1.to_vec()).unwrap();
            entries[rows].1 = Bytes::from(edit(text));
        })
    };
    for (what, damaged) in [
        ("no rows", with(&|entries| drop(entries.remove(rows)))),
        ("twice", with(&|entries| entries.insert(rows, entries[rows].clone()))),
        ("no end", edit(&|text| text.replace("\\.\n", ""))),
        ("no COPY", edit(&|text| text.replace("COPY", "SELECT"))),
        ("one row less", edit(&|text| text.replace("\n77\n", "\n"))),
        ("more behind the end", edit(&|text| text + "1\n")),
        ("unknown path", with(&|entries| entries.push(("x".to_owned(), Bytes::new())))),
        ("cut SQL", with(&|entries| entries.last_mut().unwrap().1 = Bytes::from("SELECT 1"))),
    ] {
        let target = target(&server, what, None);
        let error = restore(&target, &damaged).await.expect_err(what);
        assert_eq!(error.class(), Class::Damaged, "{what}: {error:?}");
    }
    // What only a wrong bundle would hold is the server's to refuse.
    let text = edit(&|text| text.replace("\n77\n", "\nx\n"));
    let error = restore(&target(&server, "wrong", None), &text).await.unwrap_err();
    assert!(error.to_string().contains("COPY"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_cluster_comes_back() {
    let Some(postgres) = postgres::start() else { return };
    let folder = std::env::var("PACHARC_FIXTURES")
        .unwrap_or_else(|_| format!("{}/../shared/fixtures", env!("CARGO_MANIFEST_DIR")));
    postgres.sql("postgres", "CREATE ROLE pachyderm LOGIN SUPERUSER; CREATE ROLE owner");
    for name in ["pachyderm", "dex"] {
        let path = Path::new(&folder).join("pachyderm-2.11.6").join(format!("{name}.sql.zst"));
        if !path.exists() {
            println!("skipped: {} is absent", path.display());
            return;
        }
        postgres.sql("postgres", &format!("CREATE DATABASE {name}"));
        let mut zstd = Command::new("zstd").arg("-dc").arg(&path).stdout(Stdio::piped()).spawn().unwrap();
        let mut psql = postgres.command("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", name]).stdin(zstd.stdout.take().unwrap());
        assert!(psql.stdout(Stdio::null()).status().unwrap().success());
        assert!(zstd.wait().unwrap().success());

        let dumped = dump(&postgres, name).await;
        let back = format!("{name}_back");
        let target = target(&server(&postgres, "postgres"), &back, Some("owner"));
        assert_eq!(restore(&target, &dumped).await.unwrap(), [""; 0]);
        let proof = proof(&target, &dumped).await;
        assert!(proof.holds(), "{:?}", proof.differences);
        assert!(proof.rows > 0);
        assert_eq!(schema(&postgres, &back), schema(&postgres, name));
    }
}
