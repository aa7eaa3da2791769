//! What happens to the source while it is dumped.

use std::time::Duration;

use pacharc::database::{DumpError, Error};
use pacharc::failure::{Class, Explain as _};
use pacharc_format::{Entry, Parts};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;

use super::*;
use crate::support::program::{Desk, wait_until};

fn with_table(postgres: &TempServer) {
    postgres.sql("postgres", "CREATE DATABASE d");
    postgres.sql(
        "d",
        "CREATE TABLE t (a int, b text); INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g",
    );
}

/// Whether `statement` must wait for somebody's lock.
fn waits(postgres: &TempServer, statement: &str) -> bool {
    let mut psql = postgres.command("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "d", "-c", "SET lock_timeout = '100ms'", "-c", statement]);
    let output = psql.output().unwrap();
    String::from_utf8_lossy(&output.stderr).contains("lock timeout")
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_cannot_be_emptied_under_a_snapshot() {
    let Some(postgres) = postgres::start() else { return };
    with_table(&postgres);
    let attempt = open(&postgres, &server(&postgres), &["d"]).await.unwrap();
    for statement in ["TRUNCATE t", "ALTER TABLE t ALTER a TYPE bigint", "DROP TABLE t", "VACUUM FULL t"] {
        assert!(waits(&postgres, statement), "{statement}");
    }
    postgres.sql("d", "DELETE FROM t WHERE a > 10; INSERT INTO t VALUES (-1); CREATE TABLE later (a int)");
    let dumped = collect(attempt, 2).await.unwrap();
    let tables: Vec<_> = dumped.databases[0].tables.iter().map(|t| (t.name.as_str(), t.rows)).collect();
    assert_eq!(tables, [("t", 20000)]);
    // A backend may outlive its client by a moment, and autovacuum come by.
    wait_until("the locks are gone", || !waits(&postgres, "TRUNCATE t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rewritten_while_the_lock_was_awaited_is_read_anew() {
    let Some(postgres) = postgres::start() else { return };
    with_table(&postgres);
    let server = server(&postgres);
    let changing = server.connect("d").await.unwrap();
    for (change, rows) in [
        ("TRUNCATE public.t; INSERT INTO public.t VALUES (1, 'a')", 1),
        ("DROP TABLE public.t; CREATE TABLE public.t (c int); INSERT INTO public.t VALUES (1), (2)", 2),
        ("ALTER TABLE public.t ALTER c TYPE text; INSERT INTO public.t VALUES ('x')", 3),
    ] {
        changing.batch_execute(&format!("BEGIN; {change}")).await.unwrap();
        let (attempt, ()) = tokio::join!(open(&postgres, &server, &["d"]), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            changing.batch_execute("COMMIT").await.unwrap();
        });
        let dumped = collect(attempt.unwrap(), 2).await.unwrap();
        assert_eq!(dumped.databases[0].tables[0].rows, rows, "{change}");
    }
}

/// Starts a dump that nobody takes entries from, so that it stands still in the midst of a table.
async fn stalled(postgres: &TempServer) -> (JoinHandle<Result<Vec<Database>, Error>>, Receiver<Entry<Parts>>) {
    let attempt = open(postgres, &server(postgres), &["d"]).await.unwrap();
    let (feed, entries) = Feed::new(1 << 20, 1 << 20);
    let (locked, mut is_locked) = tokio::sync::mpsc::unbounded_channel();
    let dumping = tokio::spawn(async move {
        attempt
            .dump(&feed, 2, move |progress| {
                if progress == Progress::Locked {
                    locked.send(()).unwrap();
                }
            })
            .await
    });
    is_locked.recv().await.unwrap();
    (dumping, entries)
}

const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pacharc%'";

fn no_sessions_are_left(postgres: &TempServer) {
    wait_until("no session is left", || postgres.sql("postgres", SESSIONS).trim() == "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_snapshot_ends_the_dump() {
    let Some(postgres) = postgres::start() else { return };
    with_table(&postgres);
    let (dumping, _entries) = stalled(&postgres).await;
    let held = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessShareLock'";
    let before: u32 = postgres.sql("d", held).trim().parse().unwrap();
    assert!(before >= 2, "the holder and the child that stands in the table");
    postgres
        .sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pacharc'");
    let lost = dumping.await.unwrap().unwrap_err();
    assert!(matches!(lost, Error::Dump(DumpError::HolderLost { .. })), "{lost}");
    assert!(lost.is_retryable());
    no_sessions_are_left(&postgres);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_is_dropped_leaves_nothing_behind() {
    let Some(postgres) = postgres::start() else { return };
    with_table(&postgres);
    let (dumping, _entries) = stalled(&postgres).await;
    dumping.abort();
    no_sessions_are_left(&postgres);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_dies_is_named() {
    let Some(postgres) = postgres::start() else { return };
    with_table(&postgres);
    let (dumping, mut entries) = stalled(&postgres).await;
    postgres.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pacharc %'",
    );
    while entries.recv().await.is_some() {}
    let died = dumping.await.unwrap().unwrap_err();
    assert!(matches!(died, Error::Dump(DumpError::Child { .. })), "{died}");
    assert!(died.is_retryable() && died.to_string().contains("terminat"), "{died}");
    no_sessions_are_left(&postgres);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_after_the_survey_ends_the_attempt() {
    let Some(postgres) = postgres::start() else { return };
    with_migrations(&postgres, "(0, 'init', now(), now())");
    let server = server(&postgres);
    let surveys = inspect(&server, &[]).await.unwrap();
    let tools = Tools::find(surveys[0].server.version_num, Some(postgres.bin_dir())).await.unwrap();
    Attempt::open(&server, &tools, &surveys, 1).await.unwrap();
    postgres.sql("pachyderm", "INSERT INTO migrations VALUES (1, 'new', now(), NULL)");
    let half = Attempt::open(&server, &tools, &surveys, 2).await.unwrap_err();
    assert!(matches!(&half, Error::Dump(DumpError::UnfinishedMigration { id: 1, .. })), "{half}");
    postgres.sql("pachyderm", "UPDATE migrations SET end_time = now()");
    let done = Attempt::open(&server, &tools, &surveys, 3).await.unwrap_err();
    assert!(matches!(&done, Error::Dump(DumpError::Migrated { before: Some(0), now: Some(1), .. })), "{done}");
    assert!(done.class() == Class::Refused && !done.is_retryable() && done.advice().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_without_its_end_is_no_dump() {
    let Some(postgres) = postgres::start() else { return };
    with_table(&postgres);
    let desk = Desk::new();
    for (number, part) in ["--section=pre-data", "--section=post-data", "--schema-only"].into_iter().enumerate() {
        // It ends with success, and without what follows the last statement.
        let cut = format!(
            "case \"$*\" in *{part}*) \"$real\" \"$@\" | sed '/database dump complete/,$d';; *) exec \"$real\" \"$@\";; esac"
        );
        let folder = crate::wrong_inputs::tools(&desk, &format!("cut {number}"), &cut);
        let server = server(&postgres);
        let surveys = inspect(&server, &["d".to_owned()]).await.unwrap();
        let tools = Tools::find(surveys[0].server.version_num, Some(&folder)).await.unwrap();
        let attempt = Attempt::open(&server, &tools, &surveys, 1).await.unwrap();
        let error = collect(attempt, 1).await.unwrap_err();
        assert!(matches!(&error, Error::Dump(DumpError::Script { .. })) && error.is_retryable(), "{part}: {error}");
    }
}
