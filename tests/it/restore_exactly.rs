//! What a restore gives back although servers, roles and triggers are in its way; and what it says, and does not say, of it.

use bytes::Bytes;
use pacharc::database::restore::{DatabaseRestore, Proved, RestoreError, Start, Target, claim, release, unload};
use pacharc::database::{DumpError, Environment, Error, Server, inspect};
use pacharc::failure::{Class, Explain as _, chain};
use pacharc_format::manifest::DatabaseProperties;
use pacharc_sample::postgres::TempServer;

use crate::database_restore::{Dumped, comment, dump, dump_with, proof, restore, schema, server, target};
use crate::support::postgres::{self, Use as _, run};

const SECRET: &str = "hush-7c1f";

/// The dump with other files of SQL: what `edit` makes of each.
fn edited(dumped: &Dumped, edit: impl Fn(&str, String) -> String) -> Dumped {
    let mut edited = Dumped { manifest: dumped.manifest.clone(), entries: dumped.entries.clone() };
    for (path, body) in
        edited.entries.iter_mut().filter(|(path, _)| path.ends_with(".sql") || path.starts_with("data/"))
    {
        *body = Bytes::from(edit(path, String::from_utf8(body.to_vec()).unwrap()));
    }
    edited
}

/// Runs SQL in which a backslash in quotes is one.
fn plainly(postgres: &TempServer, database: &str, sql: &str) -> String {
    let mut psql = postgres.command("psql");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
    run(psql.env("PGOPTIONS", "-c standard_conforming_strings=on"))
}

#[tokio::test(flavor = "multi_thread")]
async fn literals_are_what_they_were_however_servers_read_backslashes() {
    let Some(source) = postgres::start() else { return };
    let Some(postgres) = postgres::start_with("", &[("standard_conforming_strings", "off")], Vec::new()) else {
        return;
    };
    // Several indexes: they are made by sessions of their own.
    let content = r"
        CREATE TABLE t (a text CHECK (a <> 'c\d'), b text DEFAULT 'a\b'); INSERT INTO t VALUES ('a\b', 'c\n');
        CREATE INDEX one ON t (a) WHERE a <> 'x\y'; CREATE INDEX two ON t ((a || '\n')); CREATE INDEX three ON t (b) WHERE b = '\''';
        CREATE VIEW v AS SELECT a || '\' AS a FROM t; CREATE MATERIALIZED VIEW m AS SELECT b || '\t' AS b FROM t;
        CREATE POLICY p ON t USING (a <> 'p\q');
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.a <> 'w\z') EXECUTE FUNCTION f();
        COMMENT ON INDEX one IS 'back\slash'";
    let told = r"SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 't'::regclass ORDER BY 1;
        SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 't'::regclass;
        SELECT pg_get_expr(polqual, polrelid) FROM pg_policy; SELECT pg_get_viewdef('v'), pg_get_viewdef('m');
        SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 't'::regclass;
        SELECT obj_description('one'::regclass), t.*, m.* FROM t, m";
    for setting in ["off", "on"] {
        let name = format!("s_{setting}");
        source.sql("postgres", &format!("CREATE DATABASE {name}"));
        source.sql("postgres", &format!("ALTER DATABASE {name} SET standard_conforming_strings = {setting}"));
        plainly(&source, &name, content);
        let new = dump(&source, &name).await;
        // As pg_dump writes it where nobody tells it otherwise.
        let before = edited(&new, |path, text| match path.strip_suffix(".sql") {
            Some(section @ ("pre-data" | "post-data")) => {
                let mut pg_dump = source.command("pg_dump");
                pg_dump.args(["--quote-all-identifiers", "--no-owner", "--no-privileges"]);
                run(pg_dump.arg(format!("--section={section}")).arg(&name))
            }
            _ => text,
        });
        for (which, dumped) in [("new", &new), ("before", &before)] {
            for to in [&source, &postgres] {
                let back = target(&server(to, "postgres"), &format!("{which} {setting}"), None);
                restore(&back, dumped).await.unwrap();
                assert!(proof(&back, dumped).await.holds());
                assert_eq!(plainly(to, &back.database, told), plainly(&source, &name, told), "{which}, {setting}");
            }
        }
    }
}

/// The connecting role may have a time zone of its own, which nobody else has.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_zone_is_the_sources_for_everybody() {
    let Some(from) = postgres::start_with("", &[("timezone", "Asia/Tokyo")], Vec::new()) else { return };
    let Some(postgres) = postgres::start() else { return };
    source(&from);
    let dumped = dump(&from, "source").await;
    postgres.sql("postgres", "CREATE ROLE pach LOGIN");
    let zone = |database: &str| {
        let mut psql = postgres.command("psql");
        psql.env("PGUSER", "pach").args(["-X", "-q", "-A", "-t", "-d", database, "-c", "SHOW timezone"]);
        run(&mut psql).trim().to_owned()
    };
    for (set, database) in [("SET timezone = 'Asia/Tokyo'", "as the source"), ("RESET timezone", "as the server")] {
        postgres.sql("postgres", &format!("ALTER ROLE postgres {set}"));
        let back = target(&server(&postgres, "postgres"), database, Some("pach"));
        assert_eq!(restore(&back, &dumped).await.unwrap(), [""; 0]);
        assert_eq!(zone(database), "Asia/Tokyo", "{database}");
    }
    assert_eq!(zone("postgres"), "UTC");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_holds_a_value() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE ROLE maker LOGIN CREATEDB; CREATE ROLE other");
    for database in ["source", "simple"] {
        postgres.sql("postgres", &format!("CREATE DATABASE {database}"));
        let setting = format!("ALTER ROLE other IN DATABASE {database} SET app.jwt_secret = '{SECRET}'");
        postgres.sql("postgres", &setting);
    }
    let content = format!(
        "CREATE TABLE t (a text PRIMARY KEY, b text NOT NULL, c text CHECK (c <> '{SECRET}')); INSERT INTO t VALUES ('1', '2', '3');
         CREATE EXTENSION postgres_fdw; CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'h');
         CREATE USER MAPPING FOR other SERVER s OPTIONS (password '{SECRET}')"
    );
    postgres.sql("source", &content);
    let dumped = dump(&postgres, "source").await;
    let to = target(&server(&postgres, "postgres"), "back", None);
    for (file, from, with, text) in [
        ("pre-data.sql", "FOR \"other\"", "FOR \"nobody\"".to_owned(), "CREATE USER MAPPING FOR \"nobody\""),
        ("data/", "1\t2\t3\n", format!("1\t{SECRET}\t{SECRET}\n"), "violates check constraint"),
        ("data/", "1\t2\t3\n", format!("{SECRET}\t2\t3\n{SECRET}\t2\t3\n"), "t_pkey"),
    ] {
        let wrong = edited(&dumped, |path, body| match path.starts_with(file) {
            true => body.replace(from, &with),
            false => body,
        });
        let error = restore(&to, &wrong).await.unwrap_err();
        let told = chain(&error);
        assert!(told.contains(text) && !told.contains(SECRET), "{told}");
    }
    // Who may not change another role's settings is told which.
    let back = target(&server(&postgres, "maker"), "by maker", None);
    let warnings = restore(&back, &dump(&postgres, "simple").await).await.unwrap();
    assert!(matches!(&warnings[..], [one] if one.contains("jwt_secret") && !one.contains(SECRET)), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proof_makes_do_with_few_connections() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE ROLE few LOGIN CREATEDB CONNECTION LIMIT 8");
    postgres.sql("postgres", "CREATE DATABASE many");
    let tables = "DO $$BEGIN FOR t IN 1..12 LOOP
        EXECUTE format('CREATE TABLE t%s AS SELECT n, repeat(''x'', 300) FROM generate_series(1, 5000) n', t); END LOOP; END$$";
    postgres.sql("many", tables);
    let dumped = dump(&postgres, "many").await;
    assert!(dumped.manifest.tables.iter().all(|table| table.bytes > 1 << 20));
    let back = Target { jobs: 20, ..target(&server(&postgres, "few"), "back", None) };
    restore(&back, &dumped).await.unwrap();
    for limit in [4, 2] {
        postgres.sql("postgres", &format!("ALTER ROLE few CONNECTION LIMIT {limit}"));
        let proof = proof(&back, &dumped).await;
        assert!(proof.holds() && proof.tables == 12, "{:?}", proof.differences);
    }
}

/// A tree whose rows may move is compared as a whole, but for what is not here: no dump holds it.
#[tokio::test(flavor = "multi_thread")]
async fn no_other_server_is_asked_for_its_part_of_a_table() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE DATABASE source");
    // Of the trees, one is too large to be read in the session that reads the small ones.
    let tables = ["small", "large"].map(|tree| {
        format!(
            "CREATE TABLE {tree} (k text, n int, t text) PARTITION BY LIST (k);
             CREATE TABLE {tree}_a PARTITION OF {tree} FOR VALUES IN ('a');
             CREATE TABLE {tree}_rest PARTITION OF {tree} DEFAULT PARTITION BY RANGE (n);
             CREATE TABLE {tree}_low PARTITION OF {tree}_rest FOR VALUES FROM (MINVALUE) TO (100);
             CREATE TABLE {tree}_high PARTITION OF {tree}_rest FOR VALUES FROM (100) TO (MAXVALUE);
             CREATE FOREIGN TABLE {tree}_far PARTITION OF {tree} FOR VALUES IN ('far') SERVER nowhere;"
        )
    });
    let rows = "INSERT INTO small VALUES ('a', 1, 'x'), ('b', 2, 'y'), ('c', 200, 'z');
        INSERT INTO large SELECT CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END, n, repeat('x', 300) FROM generate_series(1, 10000) n";
    let nowhere = "CREATE EXTENSION postgres_fdw;
        CREATE SERVER nowhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nowhere');
        CREATE USER MAPPING FOR PUBLIC SERVER nowhere;";
    postgres.sql("source", &[nowhere, &tables.concat(), rows].concat());
    let dumped = dump(&postgres, "source").await;
    assert_eq!(dumped.manifest.tables.len(), 6);
    assert!(dumped.manifest.tables.iter().all(|table| table.root.is_some()));
    let back = target(&server(&postgres, "postgres"), "back", None);
    restore(&back, &dumped).await.unwrap();
    let found = proof(&back, &dumped).await;
    assert!(found.holds() && (found.tables, found.rows) == (6, 10_003), "{:?}", found.differences);
    assert_eq!(postgres.sql("back", "SELECT DISTINCT relkind FROM pg_class WHERE relname LIKE '%_far'").trim(), "f");
    postgres.sql("back", "DELETE FROM small_high; UPDATE large_low SET t = 'y' WHERE n = 7");
    let found = proof(&back, &dumped).await;
    let names: Vec<_> = found.differences.iter().map(|difference| difference.object.as_str()).collect();
    assert_eq!(names, ["table \"public\".\"large\"", "table \"public\".\"small\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_triggers_see_nothing_of_a_restore() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE ROLE pach");
    postgres.sql("postgres", "CREATE DATABASE logged");
    postgres.sql(
        "logged",
        "CREATE TABLE t (a int PRIMARY KEY); CREATE INDEX ON t (a); INSERT INTO t VALUES (1); CREATE TABLE log (tag text);
         CREATE MATERIALIZED VIEW m AS SELECT * FROM t; CREATE SCHEMA empty; ALTER TABLE t ADD CHECK (a > 0) NOT VALID;
         CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO public.log VALUES (tg_tag); END';
         CREATE EVENT TRIGGER logs ON ddl_command_end EXECUTE FUNCTION f();
         CREATE EVENT TRIGGER silent ON sql_drop EXECUTE FUNCTION f(); ALTER EVENT TRIGGER silent DISABLE;
         COMMENT ON EVENT TRIGGER logs IS 'all'",
    );
    let dumped = dump(&postgres, "logged").await;
    let back = target(&server(&postgres, "postgres"), "back", Some("pach"));
    restore(&back, &dumped).await.unwrap();
    let proof = proof(&back, &dumped).await;
    assert!(proof.holds(), "{:?}", proof.differences);
    assert_eq!(schema(&postgres, "back"), schema(&postgres, "logged"));
}

/// From 17 on, a trigger may fire for every session.
#[tokio::test(flavor = "multi_thread")]
async fn triggers_on_login_see_nothing_of_the_proof() {
    let Some(postgres) = postgres::start_version(18) else { return };
    postgres.sql("postgres", "CREATE DATABASE counted");
    postgres.sql(
        "counted",
        "CREATE TABLE logins (who text); CREATE TABLE large AS SELECT n, repeat('x', 300) FROM generate_series(1, 5000) n;
         CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO public.logins VALUES (session_user); END';
         CREATE EVENT TRIGGER logs ON login EXECUTE FUNCTION f()",
    );
    let dumped = dump_with(&postgres, "counted", Some(postgres.bin_dir())).await;
    let back = target(&server(&postgres, "postgres"), "back", None);
    restore(&back, &dumped).await.unwrap();
    for _ in 0..2 {
        let proof = proof(&back, &dumped).await;
        assert!(proof.holds(), "{:?}", proof.differences);
    }
    assert_eq!(postgres.sql("back", "SELECT evtenabled FROM pg_event_trigger").trim(), "O");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_owner_may_not_the_connecting_role_does() {
    let Some(postgres) = postgres::start() else { return };
    postgres.sql("postgres", "CREATE ROLE pach; CREATE ROLE agent LOGIN CREATEDB IN ROLE pach");
    // What an extension's own script would make, configuration included, where only its creator may look.
    let extension = "CREATE EXTENSION hstore; CREATE SCHEMA ext;
        CREATE SEQUENCE ext.numbers; CREATE TABLE ext.config (a int);
        INSERT INTO pg_depend SELECT 'pg_class'::regclass, c.oid, 0, 'pg_extension'::regclass, x.oid, 0, 'e'
            FROM pg_class c, pg_extension x WHERE c.relnamespace = 'ext'::regnamespace AND x.extname = 'hstore';
        INSERT INTO pg_depend SELECT 'pg_namespace'::regclass, 'ext'::regnamespace, 0, 'pg_extension'::regclass, x.oid, 0, 'e'
            FROM pg_extension x WHERE x.extname = 'hstore';
        UPDATE pg_extension SET extconfig = ARRAY['ext.numbers'::regclass::oid, 'ext.config'::regclass::oid],
            extcondition = ARRAY['', ''] WHERE extname = 'hstore'";
    for database in ["source", "back"] {
        postgres.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0"));
        postgres.sql(database, extension);
    }
    let forced = "CREATE TABLE forced (a int); INSERT INTO forced VALUES (1); CREATE POLICY p ON forced USING (false);
        ALTER TABLE forced ENABLE ROW LEVEL SECURITY; ALTER TABLE forced FORCE ROW LEVEL SECURITY";
    postgres.sql("source", &format!("SELECT setval('ext.numbers', 77); INSERT INTO ext.config VALUES (5); {forced}"));
    let dumped = dump(&postgres, "source").await;
    assert_eq!((dumped.manifest.sequences.len(), dumped.manifest.tables.len()), (1, 2));
    postgres.sql("postgres", "GRANT CREATE ON DATABASE back TO pach");
    postgres.sql("back", "GRANT CREATE ON SCHEMA public TO pach");
    let back = target(&server(&postgres, "postgres"), "back", Some("pach"));
    restore(&back, &dumped).await.unwrap();
    let found = proof(&back, &dumped).await;
    assert!(found.holds() && found.rows == 2, "{:?}", found.differences);
    assert_eq!(postgres.sql("back", "SELECT relowner::regrole FROM pg_class WHERE relname = 'forced'").trim(), "pach");
    // Who sees no more than the owner reads as the owner.
    postgres.sql("postgres", "CREATE DATABASE plain");
    postgres.sql("plain", "CREATE TABLE t (a serial); INSERT INTO t VALUES (1)");
    let dumped = dump(&postgres, "plain").await;
    let by_agent = target(&server(&postgres, "agent"), "by agent", Some("pach"));
    restore(&by_agent, &dumped).await.unwrap();
    assert!(proof(&by_agent, &dumped).await.holds());
}

async fn start(target: &Target, dumped: &Dumped) -> Result<Start, Error> {
    DatabaseRestore::create(target.clone(), &dumped.manifest.properties).await
}

fn source(postgres: &TempServer) {
    postgres.sql("postgres", "CREATE DATABASE source");
    postgres.sql("source", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_proved_wrong_is_loaded_anew_if_it_was_made_for_that() {
    let Some(postgres) = postgres::start() else { return };
    source(&postgres);
    let dumped = dump(&postgres, "source").await;
    let superuser = server(&postgres, "postgres");
    for database in ["found", "theirs"] {
        postgres.sql("postgres", &format!("CREATE DATABASE {database}"));
    }
    let made = target(&superuser, "made", None);
    let found = target(&superuser, "found", None);
    for target in [&made, &found] {
        restore(target, &dumped).await.unwrap();
        assert!(matches!(start(target, &dumped).await, Ok(Start::Loaded)));
        postgres.sql(&target.database, "INSERT INTO t VALUES (2)");
        assert!(!proof(target, &dumped).await.holds());
        unload(target).await.unwrap();
    }
    restore(&made, &dumped).await.unwrap();
    assert!(proof(&made, &dumped).await.holds());
    let error = start(&found, &dumped).await.unwrap_err();
    assert!(matches!(error, Error::Restore(RestoreError::Unfinished { .. })), "{error}");
    assert_eq!(postgres.sql("found", "SELECT count(*) FROM t").trim(), "2", "it is not dropped");
    // One without a mark stays so.
    unload(&target(&superuser, "theirs", None)).await.unwrap();
    assert_eq!(comment(&postgres, "theirs"), "");
}

/// Bundles of earlier versions may hold a mark: their source had it from a restore that had not ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_is_neither_backed_up_nor_brought_back() {
    let Some(postgres) = postgres::start() else { return };
    source(&postgres);
    let dumped = dump(&postgres, "source").await;
    let back = target(&server(&postgres, "postgres"), "back", None);
    restore(&back, &dumped).await.unwrap();
    let mark = comment(&postgres, "back");
    assert!(mark.starts_with("pacharc restore of bundle-1: "), "{mark}");
    let refused = inspect(&back.server, &["back".to_owned()]).await.unwrap_err();
    assert!(matches!(&refused, Error::Dump(DumpError::HalfRestored { database }) if database == "back"), "{refused}");
    assert_eq!(refused.class(), Class::Refused);

    let properties = DatabaseProperties { comment: Some(mark), ..dumped.manifest.properties.clone() };
    release(&back.server, &[Proved { database: "back", rename_to: None, properties: &properties }]).await.unwrap();
    assert_eq!(comment(&postgres, "back"), "");
    assert_eq!(inspect(&back.server, &["back".to_owned()]).await.unwrap()[0].properties.comment, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_on_the_same_database_is_refused() {
    let Some(postgres) = postgres::start() else { return };
    let server = server(&postgres, "postgres");
    let first = claim(&server, &["a", "b"]).await.unwrap();
    claim(&server, &["c"]).await.unwrap();
    let error = claim(&server, &["b", "c"]).await.unwrap_err();
    assert!(matches!(&error, Error::Restore(RestoreError::UnderWay { database, .. }) if database == "b"), "{error}");
    assert_eq!(error.class(), Class::Refused);
    let ends = error.advice().unwrap().split("SELECT ").nth(1).unwrap().replace(").", ")");
    drop(claim(&server, &["c"]).await.unwrap());
    postgres.sql("postgres", &format!("SELECT {ends}"));
    claim(&server, &["a", "b"]).await.unwrap();
    drop(first);
}

/// A session on `template1` would keep everybody from making a database.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_stands_in_nobodys_way_where_there_is_no_database_postgres() {
    let Some(postgres) = postgres::start() else { return };
    for database in ["admin", "other"] {
        postgres.sql("postgres", &format!("CREATE DATABASE {database}"));
    }
    postgres.sql("admin", "DROP DATABASE postgres");
    let named = |database: &str| {
        let url = postgres.socket().replace("@/?", &format!("@/{database}?"));
        Server::new(Some(&url), true, &Environment::of_process(), None).unwrap()
    };
    let first = claim(&named("admin"), &["a"]).await.unwrap();
    postgres.sql("admin", "CREATE DATABASE theirs");
    // Whichever way the second one comes in.
    for database in ["admin", "other"] {
        let error = claim(&named(database), &["a"]).await.unwrap_err();
        assert!(matches!(&error, Error::Restore(RestoreError::UnderWay { .. })), "{database}: {error}");
    }
    drop(first);
    claim(&named("other"), &["a"]).await.unwrap();
    // Where there is nothing else, it has to do.
    claim(&server(&postgres, "postgres"), &["b"]).await.unwrap();
}
