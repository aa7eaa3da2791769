//! What is in a dump.

use std::time::Duration;

use pacharc::backup;
use pacharc::database::{DumpError, Error, LiveRows, inspect, still_live};
use pacharc::failure::{Class, Explain as _};
use pacharc::monitor::Silent;
use pacharc::options::{Limits, Postgres};
use pacharc_format::ChunkKey;
use pacharc_format::manifest::DatabaseKind;

use super::*;
use crate::support::postgres::run;

fn odd(postgres: &TempServer) {
    postgres.sql("postgres", "CREATE DATABASE odd");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/database_dump/odd.sql");
    let mut psql = postgres.command("psql");
    run(psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "odd", "-f", path]));
    // One row of 20 MB, in a table that is large enough for a child of its own.
    postgres.sql(
        "odd",
        "SET statement_timeout = 0;
         CREATE TABLE large (t text); ALTER TABLE large ALTER t SET STORAGE EXTERNAL;
         INSERT INTO large SELECT repeat('0123456789abcde' || chr(10), 1250000);
         INSERT INTO large SELECT repeat(md5(g::text), 1000) FROM generate_series(1, 2000) g;",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_database_comes_back_by_psql() {
    let Some(postgres) = postgres::start() else { return };
    odd(&postgres);
    let dumped = dump(&postgres, "odd").await.unwrap();
    load(&postgres, &dumped, "back");
    for what in ["--schema-only", "--data-only"] {
        let (before, after) = (plain_dump(&postgres, "odd", what), plain_dump(&postgres, "back", what));
        // Rows are loaded in their order, so that even the order of the data must be the same, but for what went
        // through a partition root.
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert!(sorted(&before) == sorted(&after), "{what} differs");
    }

    let [database] = &dumped.databases[..] else { panic!("one database") };
    let again = dump(&postgres, "back").await.unwrap();
    let [back] = &again.databases[..] else { panic!("one database") };
    assert_eq!(back.sequences, database.sequences);
    assert_eq!(back.large_objects, database.large_objects);
    assert_eq!(database.large_objects.count, 3);
    assert_eq!(database.large_objects.bytes, 100_005);
    let facts = |database: &Database| {
        let fact = |table: &pacharc_format::manifest::Table| {
            (table.schema.clone(), table.name.clone(), table.columns.clone(), table.rows, table.fingerprint.clone())
        };
        database.tables.iter().map(fact).collect::<Vec<_>>()
    };
    assert_eq!(facts(back), facts(database));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dump_says_of_itself() {
    let Some(postgres) = postgres::start() else { return };
    odd(&postgres);
    let dumped = dump(&postgres, "odd").await.unwrap();
    let [database] = &dumped.databases[..] else { panic!("one database") };
    let table = |name: &str| database.tables.iter().find(|table| table.name == name).unwrap();

    assert_eq!(database.properties.timezone, "Asia/Tokyo");
    assert_eq!(database.properties.comment.as_deref(), Some("odd's"));
    assert_eq!(database.properties.encoding, "UTF8");
    assert_eq!(database.properties.policy_roles, ["reader"]);
    let settings = &database.properties.settings;
    assert!(settings.iter().any(|s| s.role.as_deref() == Some("reader") && s.name == "work_mem" && s.value == "8MB"));
    assert_eq!(database.properties.extensions[0].name, "hstore");
    assert_eq!(database.left_out, ["publication all_tables"]);
    assert_eq!(database.kind, DatabaseKind::Other);

    assert_eq!(table("nothing").rows, 2);
    assert_eq!(table("nothing").columns, [""; 0]);
    assert_eq!(table("no_rows").rows, 0);
    assert_eq!(table("parent").rows, 1, "without the child's");
    assert_eq!((table("a\nb").rows, table("a b").rows), (1, 2));
    assert_eq!(table("dropped_column").columns, ["a", "c"]);
    assert_eq!(table("ta\nble; -- \"y").columns, ["id", "col, \"z\n\\"]);
    let root = |name: &str| Some(("public".to_owned(), name.to_owned()));
    assert_eq!((&table("by_hash_0").root, table("by_hash_0").via_root), (&root("by_hash"), true));
    assert_eq!(table("by_enum_rest_high").root, root("by_enum"), "the topmost");
    assert_eq!(table("by_hash_0").rows + table("by_hash_1").rows, 100);
    assert_eq!(table("large").rows, 2001);
    // A row of 20 MB, with an escape in every 16 bytes.
    assert_eq!(table("large").bytes, 1_250_000 * 17 + 1 + 2000 * 32_001);

    assert_eq!(dumped.reported, database.tables.iter().map(|table| table.bytes).sum::<u64>());

    // The fingerprint is what anyone gets with COPY and b3sum.
    assert_eq!(table("a\nb").fingerprint, blake3::hash(b"1").to_hex().as_str());
    let file = String::from_utf8(dumped.files[&format!("data/{:05}", table("a b").number)].clone()).unwrap();
    assert!(file.starts_with("SET client_encoding = 'UTF8';\n"), "{file}");
    assert!(file.ends_with("COPY \"public\".\"a b\" (\"x\") FROM stdin;\n2\n3\n\\.\n"), "{file}");
    let tsv = String::from_utf8(dumped.files["tables.tsv"].clone()).unwrap();
    assert!(tsv.contains(&format!("{:05}\tpublic\ta\\nb\n", table("a\nb").number)), "{tsv}");
    assert_eq!(tsv.lines().count(), database.tables.len());

    // The order that a restore relies on.
    let place = |name: &str| dumped.order.iter().position(|path| path.starts_with(name)).unwrap();
    let last = |name: &str| dumped.order.iter().rposition(|path| path.starts_with(name)).unwrap();
    let head = ["settings.json", "globals.sql", "owners-and-grants.sql", "pre-data.sql", "tables.tsv"];
    assert_eq!(dumped.order[..5], head);
    assert!(last("data/") < place("large-objects/"));
    assert!(last("large-objects/") < place("sequences.sql"));
    assert_eq!(place("post-data.sql"), dumped.order.len() - 1);
    let owners = String::from_utf8_lossy(&dumped.files["owners-and-grants.sql"]).into_owned();
    assert!(owners.contains("GRANT SELECT ON TABLE"));
    assert!(!String::from_utf8_lossy(&dumped.files["pre-data.sql"]).contains("GRANT"));
    assert!(String::from_utf8_lossy(&dumped.files["globals.sql"]).contains("CREATE ROLE reader;"));
    for (name, body) in &dumped.files {
        if name.starts_with("data/") {
            let pieces = database.tables.iter().find(|t| format!("data/{:05}", t.number) == *name).unwrap().pieces;
            let sent = dumped.order.iter().filter(|path| path.starts_with(&format!("{name}/"))).count();
            assert_eq!(pieces as usize, sent, "{name} of {} bytes", body.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extensions_configuration_is_dumped_by_its_filter() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE DATABASE extended");
    // What CREATE EXTENSION does with a script that calls pg_extension_config_dump.
    postgres.sql(
        "extended",
        "CREATE EXTENSION hstore;
         CREATE TABLE config (a int, standard bool); INSERT INTO config VALUES (1, true), (2, false), (3, false);
         CREATE TABLE internal (a int); INSERT INTO internal VALUES (1);
         INSERT INTO pg_depend SELECT 'pg_class'::regclass, c.oid, 0, 'pg_extension'::regclass, x.oid, 0, 'e'
         FROM pg_class c, pg_extension x WHERE c.relname IN ('config', 'internal') AND x.extname = 'hstore';
         UPDATE pg_extension SET extconfig = ARRAY['config'::regclass::oid], extcondition = ARRAY['WHERE NOT standard']
         WHERE extname = 'hstore';",
    );
    let dumped = dump(&postgres, "extended").await.unwrap();
    let [table] = &dumped.databases[0].tables[..] else { panic!("{:?}", dumped.databases[0].tables) };
    assert_eq!((table.name.as_str(), table.rows), ("config", 2));
    assert_eq!(table.extension_filter.as_deref(), Some("WHERE NOT standard"));
}

#[tokio::test(flavor = "multi_thread")]
async fn encodings() {
    let Some(postgres) = postgres::start() else { return };
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = encoding.to_lowercase();
        postgres
            .sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"));
    }
    let escaped = "CREATE TABLE U&\"\\00e9\" (U&\"\\00fc\" text); INSERT INTO U&\"\\00e9\" VALUES (U&'\\00ff')";
    postgres.sql("latin1", escaped);
    // A byte that is in no UTF-8 text.
    postgres.sql("sql_ascii", "CREATE TABLE t (a text); INSERT INTO t VALUES (E'\\377')");

    let latin1 = dump(&postgres, "latin1").await.unwrap();
    let [table] = &latin1.databases[0].tables[..] else { panic!("one table") };
    assert_eq!((table.name.as_str(), table.columns[0].as_str()), ("é", "ü"));
    assert_eq!(table.fingerprint, blake3::hash("ÿ".as_bytes()).to_hex().as_str());
    let ascii = dump(&postgres, "sql_ascii").await.unwrap();
    assert_eq!(ascii.databases[0].tables[0].fingerprint, blake3::hash(b"\xff").to_hex().as_str());
    assert!(ascii.databases[0].session.contains(&("client_encoding".into(), "SQL_ASCII".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_dumped_as_it_is() {
    let Some(primary) = postgres::start_with("local replication all trust", &[], Vec::new()) else { return };
    primary.sql("postgres", "CREATE DATABASE d");
    primary.sql(
        "d",
        "CREATE TABLE t (a serial); INSERT INTO t SELECT generate_series(1, 9);
         CREATE UNLOGGED TABLE u (a serial); INSERT INTO u VALUES (1); SELECT lo_create(7);",
    );
    let folder = tempfile::Builder::new().prefix("pacharc-standby").tempdir_in("/tmp").unwrap();
    let standby = postgres::start_standby(&primary, folder.path());
    let dumped = dump(&standby, "d").await.unwrap();
    let tables: Vec<_> = dumped.databases[0].tables.iter().map(|t| (t.name.as_str(), t.rows)).collect();
    assert_eq!(tables, [("t", 9)]);
    assert!(dumped.databases[0].left_out.contains(&"rows of unlogged table public.u".to_owned()));
    let settings: serde_json::Value = serde_json::from_slice(&dumped.files["settings.json"]).unwrap();
    assert_eq!(settings["server"]["standby"], true);
    load(&primary, &dumped, "back");
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_that_no_restore_could_send_is_refused() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE DATABASE d TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'");
    postgres.sql("d", "CREATE TABLE t (a text); COMMENT ON TABLE t IS 'Ö is text'");
    dump(&postgres, "d").await.unwrap();
    postgres.sql("d", "DO $$ BEGIN EXECUTE 'COMMENT ON TABLE t IS ''' || chr(233) || ''''; END $$");
    let refused = dump(&postgres, "d").await.unwrap_err();
    assert!(matches!(&refused, Error::Dump(DumpError::NotUtf8 { line: 10.., .. })), "{refused}");
    assert_eq!(refused.class(), Class::Refused);
    assert!(!refused.is_retryable() && refused.advice().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_path_of_the_database_leads_nobody_astray() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE DATABASE d");
    postgres.sql(
        "d",
        "CREATE SCHEMA evil;
         CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT '7' $$;
         CREATE DOMAIN evil.int4 AS text; CREATE DOMAIN evil.bool AS text;
         ALTER DATABASE d SET search_path = evil, pg_catalog; ALTER DATABASE d SET TimeZone = 'Europe/Rome';",
    );
    let surveys = inspect(&server(&postgres), &["d".to_owned()]).await.unwrap();
    assert_eq!(surveys[0].properties.timezone, "Europe/Rome");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_proves_no_pause_and_is_waited_for() {
    let Some(primary) = postgres::start_with("local replication all trust", &[], Vec::new()) else { return };
    primary.sql("postgres", "CREATE DATABASE d");
    primary.sql(
        "d",
        "CREATE SCHEMA storage; CREATE TABLE noise (a int);
         CREATE TABLE migrations (id bigint, name varchar(250), start_time timestamp, end_time timestamp);
         CREATE TABLE storage.chunk_objects (chunk_id bytea, gen bigint, size int, uploaded bool, tombstone bool);
         INSERT INTO storage.chunk_objects SELECT decode(repeat('00', 32), 'hex'), g, 1, true, false
         FROM generate_series(1, 2) g;",
    );
    let folder = tempfile::Builder::new().prefix("pacharc-standby").tempdir_in("/tmp").unwrap();
    let standby = postgres::start_standby(&primary, folder.path());

    let mut options = backup::Options {
        cluster: None,
        postgres: Some(Postgres {
            url: standby.socket().into(),
            from_command_line: false,
            pg_bin: Some(standby.bin_dir().to_owned()),
        }),
        databases: vec!["d".to_owned()],
        bucket: None,
        ca_file: None,
        output: None,
        quiesce: backup::Quiesce::Online,
        suspension: None,
        live_only: false,
        exclude: Vec::new(),
        strict: false,
        compression_level: 3,
        limits: Limits { max_memory: 64 << 20, temp_dir: folder.path().to_owned(), jobs: 1 },
    };
    backup::Source::open(&options, &Silent).await.unwrap();
    for pause in [backup::Quiesce::Suspend, backup::Quiesce::Hold] {
        options.quiesce = pause;
        let Err(refused) = backup::Source::open(&options, &Silent).await else { panic!("{pause} is taken") };
        assert!(refused.class() == Class::Refused && refused.advice().unwrap().contains("primary"), "{refused}");
    }

    // A row that is condemned already, which the standby does not know yet.
    let rows = LiveRows::new(server(&standby).connect("d").await.unwrap());
    let key = |generation| ChunkKey { id: [0; 32], generation };
    standby.sql("d", "SELECT pg_wal_replay_pause()");
    primary.sql("d", "UPDATE storage.chunk_objects SET tombstone = true WHERE gen = 1");
    let gone = key(1);
    let (stays, ()) = tokio::join!(rows.stays(&gone), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        standby.sql("d", "SELECT pg_wal_replay_resume()");
    });
    assert!(!stays.unwrap());
    // One that is live.
    let kept = key(2);
    let noise = async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            primary.sql("d", "INSERT INTO noise VALUES (1)");
        }
    };
    let stays = tokio::select! { stays = rows.stays(&kept) => stays, () = noise => unreachable!() };
    assert!(stays.unwrap() && !rows.is_stuck());
    let rows = LiveRows::new(server(&primary).connect("d").await.unwrap());
    assert!(rows.stays(&kept).await.unwrap() && !rows.is_stuck());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_cluster_comes_back_by_psql() {
    let Some(postgres) = postgres::start() else { return };
    if fixture(&postgres, "pachyderm.sql.zst", "pachyderm").is_none() {
        return;
    }
    fixture(&postgres, "dex.sql.zst", "dex");
    let server = server(&postgres);
    let surveys = inspect(&server, &[]).await.unwrap();
    let found: Vec<_> = surveys.iter().map(|s| (s.name.as_str(), s.kind, s.schema_version)).collect();
    assert_eq!(found[1], ("pachyderm", DatabaseKind::Pachyderm, Some(59)));
    assert_eq!((found[0].0, found[0].1), ("dex", DatabaseKind::Dex));

    let attempt = open(&postgres, &server, &["pachyderm", "dex"]).await.unwrap();
    let chunks = live(&attempt).await;
    assert_eq!(chunks.len(), 171);
    assert!(chunks.is_sorted_by_key(|chunk| chunk.key.key()));
    let session = server.connect("pachyderm").await.unwrap();
    assert!(still_live(&session, &chunks[0].key).await.unwrap());
    let one = chunks[0].key;
    session
        .execute("UPDATE storage.chunk_objects SET tombstone = true WHERE chunk_id = $1", &[&one.id.as_slice()])
        .await
        .unwrap();
    assert!(!still_live(&session, &one).await.unwrap(), "now");
    assert_eq!(live(&attempt).await, chunks, "in the snapshot it still is");

    let dumped = collect(attempt, 2).await.unwrap();
    let rows = |database: &Database| database.tables.iter().map(|t| t.rows).sum::<u64>();
    assert_eq!(dumped.databases.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["dex", "pachyderm"]);
    assert!(rows(&dumped.databases[1]) > 1000);
    for name in ["dex", "pachyderm"] {
        let back = format!("{name}_back");
        load(&postgres, &dump(&postgres, name).await.unwrap(), &back);
        let same = plain_dump(&postgres, name, "--no-owner") == plain_dump(&postgres, &back, "--no-owner");
        assert!(same, "{name} differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_named_before_the_first_byte() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE ROLE modest LOGIN");
    postgres.sql("postgres", "CREATE DATABASE d");
    postgres.sql(
        "d",
        "CREATE TABLE open (a serial); CREATE TABLE secret (a int);
         GRANT SELECT ON open, open_a_seq TO modest; SELECT lo_create(7);",
    );
    let modest = postgres.socket().replace("postgres@", "modest@");
    let server = Server::new(Some(&modest), false, &Environment::of_process(), None).unwrap();
    let refused = inspect(&server, &["d".to_owned()]).await.unwrap_err();
    assert_eq!(refused.class(), Class::Credentials);
    let text = refused.to_string();
    assert!(text.contains("table public.secret") && text.contains("1 other"), "{text}");
    postgres.sql("d", "GRANT SELECT ON secret TO modest; GRANT SELECT ON LARGE OBJECT 7 TO modest");
    let dumped = collect(open(&postgres, &server, &["d"]).await.unwrap(), 1).await.unwrap();
    assert_eq!(dumped.databases[0].large_objects.count, 1);

    // Rows that a policy hides would be left out in silence.
    postgres.sql("d", "ALTER TABLE open ENABLE ROW LEVEL SECURITY");
    let refused = inspect(&server, &["d".to_owned()]).await.unwrap_err();
    assert!(refused.to_string().contains("row security"), "{refused}");
}

/// pg_dump leaves out in silence what the server does not show its role.
#[tokio::test(flavor = "multi_thread")]
async fn options_of_user_mappings_that_cannot_be_read_are_named() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE ROLE modest LOGIN; CREATE ROLE other");
    postgres.sql("postgres", "CREATE DATABASE d OWNER modest");
    postgres.sql(
        "d",
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
         CREATE USER MAPPING FOR other SERVER s OPTIONS (password 'x');",
    );
    let left_out = async |role: &str| {
        let url = postgres.socket().replace("postgres@", &format!("{role}@"));
        let server = Server::new(Some(&url), false, &Environment::of_process(), None).unwrap();
        inspect(&server, &["d".to_owned()]).await.unwrap().remove(0).left_out
    };
    let options = "options, if it has any, of the user mapping of other for server s (this role may not read them)";
    assert_eq!(left_out("modest").await, [options]);
    assert_eq!(left_out("postgres").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_migration_is_refused() {
    let Some(postgres) = postgres::start() else { return };
    with_migrations(&postgres, "(0, 'init', now(), now()), (1, 'half', now(), NULL)");
    let refused = inspect(&server(&postgres), &[]).await.unwrap_err();
    assert!(matches!(&refused, Error::Dump(DumpError::UnfinishedMigration { id: 1, .. })), "{refused}");
    assert_eq!(refused.class(), Class::Refused);
    assert!(!refused.is_retryable());
}
