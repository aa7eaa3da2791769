//! A restore that is run again: what it finds is its own, or it is not touched.

use pacharc::database::restore::claim;
use pacharc::database::{Environment, Server};
use pacharc_sample::postgres::{self, TempServer};

use crate::support::cluster::{Cluster, target, target_server};
use crate::support::fault_server::{Fault, FaultServer};
use crate::support::program::{Desk, Running, wait_until, words};

/// A bundle of one chunk, some foreign objects and one that is larger than a piece; without databases.
fn bundle(desk: &Desk) {
    let folder = desk.path("source");
    std::fs::create_dir_all(folder.join("notes")).unwrap();
    std::fs::write(folder.join("notes/a"), "ours").unwrap();
    std::fs::write(folder.join("notes/b"), "also ours").unwrap();
    std::fs::write(folder.join("large"), vec![7; 40 << 20]).unwrap();
    desk.backup(&words(&["--bucket", &desk.bucket("source")]), "c.pacharc", &[]).code(0);
}

#[test]
fn what_somebody_else_wrote_is_never_overwritten_nor_taken_for_ours() {
    for (key, theirs) in [
        ("notes/b", b"too".to_vec()),
        // Of the same size as ours.
        ("notes/b", b"not  ours".to_vec()),
        ("large", vec![8; 40 << 20]),
        ("large", vec![8; 10]),
    ] {
        let desk = Desk::new();
        bundle(&desk);
        let place = desk.path("target").join(key);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, &theirs).unwrap();
        let target = words(&["--bucket", &desk.bucket("target")]);
        // The first run leaves its mark, and the second one goes on where it stopped.
        for run in 1..=2 {
            desk.restore("c.pacharc", &target, &[]).code(5).says("not empty").says(key);
            assert!(std::fs::read(&place).unwrap() == theirs, "{key}, run {run}");
        }
        // What an interrupted run wrote is no obstacle.
        std::fs::remove_file(&place).unwrap();
        desk.restore("c.pacharc", &target, &[]).code(0);
        assert_eq!(std::fs::read(desk.path("target/notes/b")).unwrap(), b"also ours");
        assert!(std::fs::read(desk.path("target/large")).unwrap() == vec![7; 40 << 20]);
        assert!(!desk.path("target/pacharc.restoring").exists());
    }
}

/// The server goes on making a database for a run that was killed: the next run finds that it is not there, and then that it
/// is.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_still_being_made_for_a_killed_run_is_taken() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "still_being_made").await else { return };
    let to = TempServer::start(&postgres::Options::default()).unwrap();
    desk.backup(&cluster.databases(), "c.pacharc", &[]).code(0);
    // Nobody can make a database as long as this lock is held.
    let (holder, connection) = tokio_postgres::connect(&to.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    holder.batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_database IN SHARE MODE").await.unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%' AND wait_event_type = 'Lock'";
    let start = || {
        let args = Desk::restore_args("c.pacharc", &words(&["--postgres", &to.url("postgres")]), &[]);
        Running::start(&mut desk.command(args))
    };
    let first = start();
    wait_until("the first one makes a database", || to.psql("postgres", waiting).unwrap() != "0");
    first.signal("KILL");
    first.finish();
    let before = to.psql("postgres", waiting).unwrap();
    let second = start();
    wait_until("the second one makes it, too", || to.psql("postgres", waiting).unwrap() > before);
    holder.batch_execute("COMMIT").await.unwrap();
    let second = tokio::task::spawn_blocking(move || second.finish()).await.unwrap().code(0);
    assert!(second.stderr.contains("counts and fingerprints as in the bundle"), "{}", second.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_proved_wrong_is_loaded_anew() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "proved_wrong").await else { return };
    let to = target_server().unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let bucket = FaultServer::start().await;
    bucket.plan_for("PUT", &cluster.live().await[0], [Fault::Forget]);
    let args = target(&bucket.url());
    // The databases are proved, and kept for the next run.
    desk.restore("c.pacharc", &args, &[]).code(3).says("is not in the bucket");
    let plan = [words(&["plan"]), Desk::restore_args("c.pacharc", &args, &[])].concat();
    assert!(desk.run(plan).code(0).text().contains("loaded by an earlier run"));
    to.psql(&cluster.database, "SELECT lo_create(0)").unwrap();
    desk.restore("c.pacharc", &args, &[]).code(3).says("large objects");
    desk.restore("c.pacharc", &args, &[]).code(0);
    cluster.assert_databases_restored();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_loaded_for_another_owner_is_not_called_restored() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "other_owner").await else { return };
    if target_server().is_none() {
        return;
    }
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let bucket = FaultServer::start().await;
    let args = target(&bucket.url());
    let restore_for = |owner: &str| desk.restore("c.pacharc", &args, &["--owner", owner]);
    // The databases are loaded for the connecting role, and kept; then they are released, and the bucket's mark is left.
    for stopped in ["proof", "end"] {
        match stopped {
            "proof" => bucket.plan_for("PUT", &cluster.live().await[0], [Fault::Forget]),
            _ => bucket.plan_for("DELETE", "pacharc.restoring", [Fault::Refuse(403, "AccessDenied")]),
        }
        desk.restore("c.pacharc", &args, &[]).code(if stopped == "proof" { 3 } else { 6 });
        assert_eq!(bucket.planned(), 0, "{stopped}");
        restore_for("pachyderm").code(6).advises().says("role \"pachyderm\" may not use");
        restore_for("nobody_here").code(5).advises().says("nobody_here");
        let plan = [words(&["plan"]), Desk::restore_args("c.pacharc", &args, &["--owner", "nobody_here"])].concat();
        desk.run(plan).code(5).advises().says("nobody_here");
    }
    desk.restore("c.pacharc", &args, &[]).code(0);
    cluster.assert_databases_restored();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_has_touched_no_database() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "untouched").await else { return };
    let to = TempServer::start(&postgres::Options::default()).unwrap();
    desk.backup(&cluster.databases(), "c.pacharc", &[]).code(0);
    let (free, taken) = (format!("{}=free", cluster.database), format!("{}=taken", cluster.dex));
    let args = words(&["--postgres", &to.url("postgres"), "--database", &free, "--database", &taken]);
    to.psql("postgres", "CREATE DATABASE taken").unwrap();
    to.psql("taken", "CREATE TABLE theirs ()").unwrap();
    let databases = || to.psql("postgres", "SELECT datname FROM pg_database WHERE datname = 'free'").unwrap();
    let plan = || desk.run([words(&["plan"]), Desk::restore_args("c.pacharc", &args, &[])].concat());
    // Whichever of the two comes first.
    for _ in 0..6 {
        desk.restore("c.pacharc", &args, &[]).code(5).says("taken").says("is not empty");
        plan().code(5).says("taken").says("is not empty");
        assert_eq!(databases(), "");
    }
    to.psql("taken", "DROP TABLE theirs").unwrap();
    let planned = plan().code(0).text();
    assert!(planned.contains("-> free") && planned.contains("(will be created)"), "{planned}");
    assert!(planned.contains("-> taken") && planned.contains("(exists, and is empty)"), "{planned}");
    assert_eq!(databases(), "");
    // Another run is at work on one of them.
    let server = Server::new(Some(&to.url("postgres")), true, &Environment::of_process(), None).unwrap();
    let other = claim(&server, &["taken"]).await.unwrap();
    desk.restore("c.pacharc", &args, &[]).code(5).advises().says("into database \"taken\" is under way");
    assert_eq!(databases(), "");
    drop(other);
    desk.restore("c.pacharc", &args, &[]).code(0);
}

#[test]
fn a_server_is_not_named_for_a_bundle_without_databases() {
    let desk = Desk::new();
    bundle(&desk);
    let Some(to) = target_server() else { return };
    for args in [words(&["--postgres", &to.url("postgres")]), target(&desk.bucket("target"))] {
        desk.restore("c.pacharc", &args, &[]).code(2).advises().says("the bundle holds no databases");
        let plan = [words(&["plan"]), Desk::restore_args("c.pacharc", &args, &[])].concat();
        desk.run(plan).code(2).advises().says("the bundle holds no databases");
    }
    assert!(!desk.path("target").exists());
}
