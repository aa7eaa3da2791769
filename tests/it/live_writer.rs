//! Backups of a cluster in use: each one is closed, restores, and agrees with itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::cluster::Options;
use pacharc_sample::compare;
use pacharc_sample::postgres::{self, TempServer};
use pacharc_sample::writer::{self, LiveWriter};

use crate::support::cluster::Cluster;
use crate::support::program::{Desk, words};

/// Whether a reference leads to a chunk that one writer is still uploading while another refers to it already: a state that
/// the source itself is in for a moment.
fn is_under_way(server: &TempServer, database: &str, difference: &str) -> bool {
    let Some(id) = difference.strip_prefix("no live row for the referenced chunk/") else { return false };
    let rows = "SELECT count(*) > 0 FROM storage.chunk_objects WHERE NOT uploaded AND NOT tombstone AND chunk_id = ";
    server.psql(database, &format!("{rows} '\\x{id}'")).unwrap() == "t"
}

const BACKUPS: usize = 20;
/// How long the writer may take to commit something.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn twenty_backups_in_a_row_are_closed_and_consistent() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::make(&desk, "live", Options { objects: 150, ..Options::default() }).await else {
        return;
    };
    let to = TempServer::start(&postgres::Options::default()).unwrap();
    let settings = writer::Options {
        pause: Duration::from_millis(20),
        ttl: Duration::from_millis(800),
        ..writer::Options::default()
    };
    let writer =
        LiveWriter::start(&cluster.server.url(&cluster.database), Arc::clone(&cluster.bucket), settings).unwrap();
    let mut before = writer.report();
    let mut snapshots = Vec::new();
    for number in 1..=BACKUPS {
        let (bundle, bucket) = (format!("{number}.pacharc"), format!("target {number}"));
        desk.backup(&cluster.source(), &bundle, &["--json-file", "events"]).code(0).says("closed: all");
        // What is garbage depends on how fast the machine is: its sum is looked at when all is over.
        let begun = Instant::now();
        while writer.report().commits == before.commits {
            if begun.elapsed() > PATIENCE {
                // Why it stands still, if it failed.
                panic!("the writer stands still: {:?}", writer.stop().await);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        before = writer.report();
        let events = std::fs::read_to_string(desk.path("events")).unwrap();
        let outcome: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
        snapshots.push(outcome["outcome"]["snapshots"].as_u64().unwrap());

        desk.run(["verify", &bundle, "--identity", "key.txt"]).code(0).says("closed");
        let rename = format!("{}=restored_{number}", cluster.database);
        let target =
            words(&["--postgres", &to.url("postgres"), "--database", &rename, "--bucket", &desk.bucket(&bucket)]);
        desk.restore(&bundle, &target, &[]).code(0);
        let restored: Arc<dyn Bucket> = Arc::new(Directory::new(desk.path(&bucket)));
        let name = format!("restored_{number}");
        let mut agrees = compare::consistency(&to.url("postgres"), &name, &restored).await.unwrap();
        agrees.differences.retain(|difference| !is_under_way(&to, &name, difference));
        assert!(agrees.is_equal() && agrees.compared > 20, "backup {number}: {agrees}");
        std::fs::remove_dir_all(desk.path(&bucket)).unwrap();
        std::fs::remove_file(desk.path(&bundle)).unwrap();
    }
    // That garbage was collected all the while is what makes it hard; how much, is up to the machine.
    assert!(writer.report().deleted > 0, "nothing was collected");
    let begun = Instant::now();
    while writer.report().deleted <= 100 && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let report = writer.stop().await.unwrap();
    println!("snapshots: {snapshots:?}, {report:?}");
    assert!(report.deleted > 100, "{report:?}: garbage collection did little");
}
