//! `verify --level restore`: the dump is loaded into a PostgreSQL that nobody else uses, and nothing of that is left, however
//! it ends.

use std::path::PathBuf;

use pacharc_sample::postgres::{self, TempServer};
use serde_json::Value;

use crate::support::cluster::{Cluster, target_server};
use crate::support::program::{Desk, Run, Running, wait_until};

const LEVEL: [&str; 4] = ["--level", "restore", "--identity", "key.txt"];

fn verify(desk: &Desk, bundle: &str, more: &[&str]) -> Run {
    desk.run([&["verify", bundle][..], &LEVEL, more].concat())
}

/// Folders of throwaway servers here, and in /tmp where a socket's path would be too long.
fn folders(desk: &Desk) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(desk.folder()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("pacharc-"));
    folders.map(|entry| entry.path()).collect()
}

/// Processes that have this desk in their command line; the keeper and the server do.
fn processes(desk: &Desk) -> Vec<(u32, String)> {
    let folder = format!("{}/pacharc-", desk.folder().display());
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&folder).then_some((pid, line))
    })
    .collect()
}

fn assert_nothing_left(desk: &Desk) {
    wait_until("no process is left", || processes(desk).is_empty());
    wait_until("no folder is left", || folders(desk).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_restored_and_nothing_is_left() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "trial").await else { return };
    let sql = "CREATE ROLE trial_reader; CREATE TABLE guarded (a int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON guarded TO trial_reader USING (a > 0); INSERT INTO guarded VALUES (1), (-1);
        CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (7);
        CREATE TABLE child (id int REFERENCES parent); INSERT INTO child VALUES (7);";
    cluster.server.psql(&cluster.database, sql).unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let run = verify(&desk, "c.pacharc", &["--json-file", "events"]).code(0);
    assert_nothing_left(&desk);
    assert!(run.stderr.contains("restored into a throwaway PostgreSQL"), "{}", run.stderr);
    let events = std::fs::read_to_string(desk.path("events")).unwrap();
    let finished: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    let trial = &finished["outcome"]["trial"];
    assert_eq!((&finished["outcome"]["verdict"], &trial["throwaway"]), (&"sound".into(), &true.into()), "{finished}");
    let count = |database: &str, sql: &str| cluster.server.psql(database, sql).unwrap().parse::<u64>().unwrap();
    let databases = trial["databases"].as_array().unwrap();
    assert_eq!(databases.len(), 2, "{trial}");
    for tried in databases {
        let name = tried["name"].as_str().unwrap();
        let keys = count(name, "SELECT count(*) FROM pg_constraint WHERE contype = 'f'");
        assert_eq!(tried["foreign_keys"], keys, "{name}");
        let indexes =
            "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam
            WHERE amname = 'btree'AND c.relkind = 'i'";
        // Those of the system are checked, too, and in every database there are about as many.
        let found = tried["indexes"].as_u64().unwrap();
        assert!(found >= count(name, &format!("{indexes} AND i.indexrelid >= 16384")), "{name}: {found}");
        assert!(tried["rows"].as_u64().unwrap() > 0 && tried["tables"].as_u64().unwrap() > 0, "{trial}");
    }
    // A temporary folder whose name leaves no room for a socket's; and one that is not there.
    let deep = "d".repeat(90);
    std::fs::create_dir(desk.path(&deep)).unwrap();
    verify(&desk, "c.pacharc", &["--temp-dir", &deep]).code(0);
    assert_eq!(std::fs::read_dir(desk.path(&deep)).unwrap().count(), 0);
    assert_nothing_left(&desk);
    // It is the level above closed, which a pipe can have, too.
    let mut command = desk.command([&["verify", "-"][..], &LEVEL].concat());
    command.stdin(std::fs::File::open(desk.path("c.pacharc")).unwrap());
    Running::start(&mut command).finish().code(0).says("every live object of the dump");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_can_be_lent() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "lent").await else { return };
    let Some(server) = target_server() else { return };
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let url = server.url("postgres");
    let made = "SELECT count(*) FROM pg_database WHERE datname LIKE 'pacharc_%'
        AND shobj_description(oid, 'pg_database') IS NOT NULL AND datname ~ '^pacharc_[0-9a-f]{8}_[0-9a-f]{8}$'";
    let run = verify(&desk, "c.pacharc", &["--scratch-postgres", &url]).code(0);
    assert!(!run.stderr.contains("throwaway"), "{}", run.stderr);
    assert!(folders(&desk).is_empty());
    // Other tests restore from pipes, under names of the same form, and end.
    wait_until("no database is left", || server.psql("postgres", made).unwrap() == "0");

    let Some(newer) = TempServer::start_or_skip(&postgres::Options { major: Some(17), ..Default::default() }).unwrap()
    else {
        return;
    };
    verify(&desk, "c.pacharc", &["--scratch-postgres", &newer.url("postgres")]).code(0);
    // What the server lacks is no damage: 17 has no such extension any more.
    cluster.server.psql(&cluster.dex, "CREATE EXTENSION old_snapshot").unwrap();
    desk.backup(&cluster.source(), "extension.pacharc", &[]).code(0);
    let run = verify(&desk, "extension.pacharc", &["--scratch-postgres", &newer.url("postgres")]).code(5).advises();
    assert!(run.stderr.contains("says nothing of the bundle") && run.stderr.contains("old_snapshot"), "{}", run.stderr);
    assert_eq!(newer.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ '^pacharc'").unwrap(), "0");
    verify(&desk, "c.pacharc", &["--scratch-postgres", "postgres://u:secret@h/"]).code(2);
    verify(&desk, "c.pacharc", &["--pg-bin", "."]).code(7).says("postgres was not found").advises();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_server_takes_back_were_wrong_at_the_source() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "contradicting").await else { return };
    // An index that has lost a row, as a broken collation or disk leaves it: the rows are there twice.
    let sql = "CREATE TABLE twice (a int PRIMARY KEY); INSERT INTO twice VALUES (1);
        UPDATE pg_index SET indisunique = false, indisprimary = false WHERE indexrelid = 'twice_pkey'::regclass;";
    cluster.server.psql(&cluster.database, sql).unwrap();
    let sql = "INSERT INTO twice VALUES (1);
        UPDATE pg_index SET indisunique = true, indisprimary = true WHERE indexrelid = 'twice_pkey'::regclass;";
    cluster.server.psql(&cluster.database, sql).unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    desk.run(["verify", "c.pacharc", "--identity", "key.txt", "--level", "closed"]).code(0);
    let run = verify(&desk, "c.pacharc", &[]).code(4);
    assert!(run.stderr.contains("incomplete") && run.stderr.contains("twice_pkey"), "{}", run.stderr);
    assert_nothing_left(&desk);
    // Damage is damage, and nothing of it is tried.
    let mut bytes = std::fs::read(desk.path("c.pacharc")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(desk.path("c.pacharc"), bytes).unwrap();
    verify(&desk, "c.pacharc", &[]).code(3);
    assert_nothing_left(&desk);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_no_text_are_named_by_the_backup() {
    let desk = Desk::new();
    let Some(server) = TempServer::start_or_skip(&postgres::Options::default()).unwrap() else { return };
    server.psql("postgres", "CREATE DATABASE d TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'").unwrap();
    let sql = r"CREATE TABLE t (a text); INSERT INTO t VALUES ('Ö'), (E'\377'), ('Ö'), (E'\377');
        CREATE TABLE sound (a text); INSERT INTO sound VALUES ('Ö');";
    server.psql("d", sql).unwrap();
    let source = ["--postgres", &server.url("postgres"), "--database", "d"].map(str::to_owned);
    // There, bytes need not be text.
    desk.backup(&source, "ascii.pacharc", &[]).code(0);
    // As a broken page leaves it.
    let sql = "UPDATE pg_database SET encoding = pg_char_to_encoding('UTF8') WHERE datname = 'd'";
    server.psql("postgres", sql).unwrap();
    let row = "table \"public\".\"t\" of database \"d\": row 2 is not UTF-8";
    let run = desk.backup(&source, "c.pacharc", &["--json-file", "events"]).code(4).says(row);
    assert!(!run.stderr.contains("\"sound\""), "{}", run.stderr);
    let events = std::fs::read_to_string(desk.path("events")).unwrap();
    let finished: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(finished["outcome"]["databases"][0]["broken"].as_array().unwrap().len(), 1, "{finished}");
    desk.run(["verify", "c.pacharc", "--identity", "key.txt"]).code(4).says(row);
    verify(&desk, "c.pacharc", &[]).code(4).says(row).says("invalid byte sequence");
    assert_nothing_left(&desk);
}

/// A dump may hold any SQL: it must not be able to do more than fill its database.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dump_says_is_not_done_as_superuser() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "hostile_sql").await else { return };
    let sql = "CREATE FUNCTION run() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            EXECUTE 'COPY (SELECT 1) TO PROGRAM ''cat > /dev/null'''; END $$;
        CREATE FUNCTION spill(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
            $$ BEGIN PERFORM public.run(); RETURN a; END $$;
        CREATE TABLE bait (a int); INSERT INTO bait VALUES (1); CREATE INDEX ON bait (spill(a));";
    cluster.server.psql(&cluster.database, sql).unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    verify(&desk, "c.pacharc", &[]).code(6).says("says nothing of the bundle");
    assert_nothing_left(&desk);
}

/// Only of a bundle that is the expected one any SQL is run: of no other a server is asked for anything. Here it is not there.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_expected_bundle_is_not_tried() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "unexpected").await else { return };
    desk.run(["keygen", "--sign", "-o", "sign.key"]).code(0);
    let public = desk.run(["keygen", "-y", "sign.key"]).code(0).text();
    std::fs::write(desk.path("sign.pub"), public).unwrap();
    desk.backup(&cluster.source(), "ours.pacharc", &["--sign-key", "sign.key"]).code(0);
    desk.backup(&cluster.source(), "theirs.pacharc", &[]).code(0);
    let nowhere = ["--scratch-postgres", "postgres://postgres@127.0.0.1:1/postgres"];
    let asked = |bundle: &str, more: &[&str]| verify(&desk, bundle, &[&nowhere[..], more].concat());
    asked("theirs.pacharc", &[]).code(7).says("says nothing of the bundle");
    let (trusted, other) = (["--trusted-key", "sign.pub"], "0".repeat(64));
    for (expected, code) in
        [(trusted, 6), (["--expect-id", &other], 5), (["--not-older-than", "2999-01-01T00:00:00Z"], 5)]
    {
        asked("theirs.pacharc", &expected).code(code).advises();
    }
    asked("ours.pacharc", &trusted).code(7).says("says nothing of the bundle");
    let run = verify(&desk, "ours.pacharc", &trusted).code(0).says("signed by the trusted key");
    run.says("restored into a throwaway PostgreSQL");
    assert_nothing_left(&desk);
    // It is too late when a pipe tells.
    let mut command = desk.command([&["verify", "-"][..], &LEVEL, &trusted].concat());
    command.stdin(std::fs::File::open(desk.path("ours.pacharc")).unwrap());
    Running::start(&mut command).finish().code(2).says("standard input cannot").advises();
    // Damage is damage, whoever signed it.
    let mut bytes = std::fs::read(desk.path("ours.pacharc")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(desk.path("ours.pacharc"), bytes).unwrap();
    asked("ours.pacharc", &trusted).code(3);
}

/// A trial whose server runs, and that has seconds to go.
fn under_way(desk: &Desk) -> Running {
    let mut running = Running::start(&mut desk.command([&["verify", "c.pacharc"][..], &LEVEL].concat()));
    wait_until("the server runs", || {
        assert!(!running.has_ended());
        folders(desk).iter().any(|folder| {
            let file = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
            file.lines().nth(7).is_some_and(|line| line.trim() == "ready")
        })
    });
    running
}

fn kill(processes: &[u32]) {
    let pids = processes.iter().map(u32::to_string);
    assert!(std::process::Command::new("kill").arg("-KILL").args(pids).status().unwrap().success());
}

fn keeper(desk: &Desk) -> u32 {
    processes(desk).into_iter().find(|(_, line)| line.contains("--folder")).unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_trial_that_is_ended() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "ended_trial").await else { return };
    // Enough to be loading for a while.
    let sql =
        "CREATE TABLE many AS SELECT i, md5(i::text) m FROM generate_series(1, 1000000) i; CREATE INDEX ON many (m);";
    cluster.server.psql(&cluster.database, sql).unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let running = under_way(&desk);
        assert!(processes(&desk).len() >= 2, "{:?}", processes(&desk));
        running.signal(signal);
        let run = running.finish();
        assert_eq!(run.status.code(), code, "{signal}: {}", run.stderr);
        if code.is_some() {
            // It has waited for that.
            assert_eq!((processes(&desk), folders(&desk)), (vec![], vec![]), "{signal}");
        }
        assert_nothing_left(&desk);
    }
    // While initdb runs.
    let running = Running::start(&mut desk.command([&["verify", "c.pacharc"][..], &LEVEL].concat()));
    wait_until("initdb runs", || processes(&desk).iter().any(|(_, line)| line.contains("bin/initdb ")));
    running.signal("KILL");
    running.finish();
    assert_nothing_left(&desk);
    // The keeper alone: its server goes with it, and pacharc sees that it has gone.
    let running = under_way(&desk);
    kill(&[keeper(&desk)]);
    let run = running.finish().code(7).says("says nothing of the bundle");
    assert!(!run.stderr.contains("damaged"), "{}", run.stderr);
    assert_nothing_left(&desk);
    // Both at once: nobody is left who could remove the folder, but nothing runs.
    let running = under_way(&desk);
    kill(&[running.id(), keeper(&desk)]);
    wait_until("the server is gone", || processes(&desk).is_empty());
    drop(running);
    folders(&desk).into_iter().for_each(|folder| std::fs::remove_dir_all(folder).unwrap());

    let Some(server) = target_server() else { return };
    let inspected = desk.run(["inspect", "c.pacharc", "--json"]).code(0).text();
    let inspected: Value = serde_json::from_str(inspected.lines().last().unwrap()).unwrap();
    let begin = &inspected["outcome"]["about"]["bundle"].as_str().unwrap()[..8];
    let mine = format!("SELECT count(*) FROM pg_database WHERE datname LIKE 'pacharc\\_{begin}\\_%'");
    let url = server.url("postgres");
    let lent = [&["verify", "c.pacharc"][..], &LEVEL, &["--scratch-postgres", &url]].concat();
    let running = Running::start(&mut desk.command(lent));
    wait_until("the databases are made", || server.psql("postgres", &mine).unwrap() == "2");
    running.signal("INT");
    running.finish().code(130);
    assert_eq!(server.psql("postgres", &mine).unwrap(), "0");
}
