//! What happens to the source while it is backed up: the change waits, or a newer snapshot is taken, or the failure is
//! clear; a table is never empty that was not.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pacharc_sample::bucket::Directory;
use pacharc_sample::cluster::{self, Options};
use pacharc_sample::compare;
use pacharc_sample::postgres::{self, StopMode, TempServer, psql};

use crate::support::cluster::{Cluster, target_server};
use crate::support::program::{Desk, Run, Running, wait_until, words};

const TABLE: &str = "collections.jobs";

/// How many pg_dump read two small databases, each: pre-data, post-data, owners and grants, data.
const CHILDREN: usize = 8;

/// A cluster whose dump stands still, by a pg_dump that waits until the file `go` is there: before it begins, or, where it
/// is `stalled`, when it has its locks and has begun to write.
struct Bench {
    desk: Desk,
    cluster: Cluster,
    bin: PathBuf,
    stalled: bool,
}

const WAITS: &str = "while [ ! -e go ]; do sleep 0.05; done";

/// A pg_dump that waits until the file `go` is there; it tells in `waiting.txt` that it does.
pub fn waiting(desk: &Desk) -> PathBuf {
    made(desk, &format!("{WAITS}; exec \"$real\" \"$@\""))
}

/// The same, but when it has its locks, which it tells in `locked.txt`, and has begun to write.
fn stalling(desk: &Desk) -> PathBuf {
    // It writes nothing before it has its locks.
    let first = "dd bs=1 count=1 of=$$ 2>/dev/null; echo >> locked.txt";
    made(desk, &format!("\"$real\" \"$@\" | {{ {first}; {WAITS}; cat $$ -; }}"))
}

fn made(desk: &Desk, work: &str) -> PathBuf {
    let folder = desk.folder().display();
    let version = "[ \"$1\" = --version ] && exec \"$real\" --version";
    let script = format!("{version}\ncd '{folder}'; echo $$ >> waiting.txt\n{work}");
    crate::wrong_inputs::tools(desk, "waiting", &script)
}

impl Bench {
    async fn make(name: &str, stalled: bool) -> Option<Self> {
        let desk = Desk::new();
        let options = Options { objects: 20, jobs: 3000, ..Options::default() };
        let cluster = Cluster::make(&desk, name, options).await?;
        target_server()?;
        let bin = if stalled { stalling(&desk) } else { waiting(&desk) };
        Some(Self { desk, cluster, bin, stalled })
    }

    /// Starts a backup; on return its snapshot is open and its children wait.
    fn start(&self) -> Running {
        let more = ["--pg-bin", &self.bin.to_string_lossy(), "--json-file", "events"];
        let args = self.desk.backup_args(&self.cluster.source(), "c.pacharc", &more);
        let running = Running::start(&mut self.desk.command(args));
        wait_until("pg_dump waits", || self.desk.path("waiting.txt").exists());
        if self.stalled {
            // A change that came before one of them would make that one wait, and so cost a newer snapshot.
            wait_until("every pg_dump has its locks", || {
                std::fs::read_to_string(self.desk.path("locked.txt")).unwrap_or_default().lines().count() == CHILDREN
            });
        }
        running
    }

    fn go(&self) {
        std::fs::write(self.desk.path("go"), "").unwrap();
    }

    fn sql(&self, sql: &str) -> String {
        self.cluster.server.psql(&self.cluster.database, sql).unwrap()
    }

    /// Restores the bundle and counts the rows of a table.
    fn restored(&self, sql: &str) -> String {
        let to = target_server().unwrap();
        let name = format!("{}_restored", self.cluster.database);
        let rename = format!("{}={name}", self.cluster.database);
        let target = words(&["--postgres", &to.url("postgres"), "--database", &rename]);
        self.desk.restore("c.pacharc", &target, &[]).code(0);
        let counted = to.psql(&name, sql).unwrap();
        to.psql("postgres", &format!("DROP DATABASE \"{name}\"")).unwrap();
        counted
    }

    fn snapshots(&self) -> u64 {
        let events = std::fs::read_to_string(self.desk.path("events")).unwrap();
        let outcome: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
        outcome["outcome"]["snapshots"].as_u64().unwrap()
    }
}

const CHANGES: [&str; 3] = [
    "ALTER TABLE collections.jobs ALTER idx_pipeline TYPE varchar(4000)",
    "TRUNCATE collections.jobs",
    "DROP TABLE collections.jobs",
];

/// The number of rows, or that there is no such table.
const COUNT: &str = "SELECT CASE WHEN to_regclass('collections.jobs') IS NULL THEN 'no table' ELSE
    (xpath('//c/text()', query_to_xml('SELECT count(*) AS c FROM ' ||
        coalesce(to_regclass('collections.jobs'), 'pg_class'), false, true, '')))[1]::text END";

/// Makes each of the changes while a dump stands still. Returns the rows before it and after it, those that were restored,
/// whether the change waited, and the number of snapshots.
fn changed(bench: &Bench, statement: &'static str) -> (String, String, String, bool, u64) {
    for left in ["go", "waiting.txt", "locked.txt", "c.pacharc"] {
        std::fs::remove_file(bench.desk.path(left)).ok();
    }
    let url = bench.cluster.server.url(&bench.cluster.database);
    let before = bench.sql(COUNT);
    let running = bench.start();
    let changing = std::thread::spawn(move || psql(&url, statement).unwrap());
    // Either it stands and waits, or it is done.
    let waits =
        format!("SELECT count(*) > 0 FROM pg_stat_activity WHERE query = '{statement}' AND wait_event_type = 'Lock'");
    let mut waited = false;
    wait_until("the change waits, or is made", || {
        waited = bench.sql(&waits) == "t";
        waited || changing.is_finished()
    });
    bench.go();
    running.finish().code(0);
    changing.join().unwrap();
    (before, bench.sql(COUNT), bench.restored(COUNT), waited, bench.snapshots())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_empties_or_rewrites_a_table_waits_for_the_dump() {
    let Some(bench) = Bench::make("ddl", true).await else { return };
    for statement in CHANGES {
        let (before, _, restored, waited, snapshots) = changed(&bench, statement);
        assert!(waited, "{statement} did not wait");
        assert_eq!((restored, snapshots), (before, 1), "{statement}");
    }
}

/// A change that comes between the holder's lock and a pg_dump's own: either may win, and the bundle is one or the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_between_the_locks_means_a_newer_snapshot() {
    let Some(bench) = Bench::make("between", false).await else { return };
    let (before, after, restored, _, snapshots) = changed(&bench, CHANGES[0]);
    let wanted = if snapshots == 1 { before } else { after };
    assert_eq!(restored, wanted, "{snapshots} snapshots");
}

/// The sessions of a backup are ended, by their names.
fn terminate(bench: &Bench, names: &str) -> Run {
    let running = bench.start();
    bench.sql(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE '{names}'"
    ));
    bench.go();
    running.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_holder_means_a_newer_snapshot() {
    let Some(bench) = Bench::make("holder", false).await else { return };
    let rows = bench.sql(&format!("SELECT count(*) FROM {TABLE}"));
    terminate(&bench, "pacharc").code(0).says("attempt 1");
    assert_eq!(bench.snapshots(), 2);
    assert_eq!(bench.restored(&format!("SELECT count(*) FROM {TABLE}")), rows);
    let listed = bench.desk.run(["list", "c.pacharc", "database", "--identity", "key.txt"]).code(0).text();
    assert!(listed.contains("/attempt-2/"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_that_the_server_sets_do_not_count() {
    let Some(bench) = Bench::make("timeouts", false).await else { return };
    let name = &bench.cluster.database;
    for (scope, setting) in [
        (format!("DATABASE \"{name}\""), "statement_timeout = '100ms'"),
        (format!("DATABASE \"{name}\""), "idle_in_transaction_session_timeout = '100ms'"),
        (format!("DATABASE \"{name}\""), "lock_timeout = '50ms'"),
        (format!("DATABASE \"{name}\""), "idle_session_timeout = '100ms'"),
        (format!("DATABASE \"{name}\""), "default_transaction_read_only = on"),
        (format!("DATABASE \"{name}\""), "client_encoding = 'LATIN1'"),
        (format!("DATABASE \"{name}\""), "DateStyle = 'German'"),
    ] {
        bench.cluster.server.psql("postgres", &format!("ALTER {scope} SET {setting}")).unwrap();
    }
    // Longer than each of them.
    let running = bench.start();
    std::thread::sleep(Duration::from_millis(600));
    bench.go();
    running.finish().code(0);
    assert_eq!(bench.snapshots(), 1);
    // They are restored with the database.
    let to = target_server().unwrap();
    let target = words(&["--postgres", &to.url("postgres"), "--database", name]);
    bench.desk.restore("c.pacharc", &target, &[]).code(0);
    let from = bench.cluster.server.url("postgres");
    let reset = |server: &str| {
        psql(server, &format!("ALTER DATABASE \"{name}\" RESET statement_timeout")).unwrap();
        psql(server, &format!("ALTER DATABASE \"{name}\" RESET idle_in_transaction_session_timeout")).unwrap();
        psql(server, &format!("ALTER DATABASE \"{name}\" RESET lock_timeout")).unwrap();
        psql(server, &format!("ALTER DATABASE \"{name}\" RESET idle_session_timeout")).unwrap();
    };
    let settings = "SELECT unnest(setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase
                    WHERE datname = ";
    let settings = format!("{settings}'{name}' ORDER BY 1");
    assert_eq!(to.psql("postgres", &settings).unwrap(), bench.cluster.server.psql("postgres", &settings).unwrap());
    reset(&from);
    reset(&to.url("postgres"));
    let compared = compare::databases(&from, &to.url("postgres"), name, name).unwrap();
    assert!(compared.is_equal(), "{compared}");
}

/// A server that is away for longer than all attempts would last one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_again_is_waited_for() {
    let desk = Desk::new();
    let Some(mut server) = TempServer::start_or_skip(&postgres::Options::default()).unwrap() else { return };
    let bucket = Arc::new(Directory::new(desk.path("source")));
    cluster::make(&server.url("postgres"), bucket, &Options { objects: 20, ..Options::default() }).await.unwrap();
    let bin = waiting(&desk);
    let source = words(&["--postgres", &server.url("postgres"), "--bucket", &desk.bucket("source")]);
    let more = ["--pg-bin", &bin.to_string_lossy(), "--json-file", "events"];
    let running = Running::start(&mut desk.command(desk.backup_args(&source, "c.pacharc", &more)));
    wait_until("pg_dump waits", || desk.path("waiting.txt").exists());
    server.stop(StopMode::Immediate).unwrap();
    std::fs::write(desk.path("go"), "").unwrap();
    let events = || std::fs::read_to_string(desk.path("events")).unwrap();
    wait_until("the server is waited for", || events().contains("does not answer: waiting for it"));
    server.restart().unwrap();
    running.finish().code(0).says("attempt 1");
    assert_eq!(events().matches("\"attempt_failed\"").count(), 1);
    desk.run(["verify", "c.pacharc", "--identity", "key.txt", "--level", "closed"]).code(0);
}
