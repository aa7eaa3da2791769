//! Chunk garbage collection between a snapshot and the copy of what that snapshot names, moment by moment: each request
//! that matters waits at a gate of the bucket until pachd has done its part.

use std::sync::Arc;

use pacharc_sample::bucket::Bucket;
use pacharc_sample::chunk::Chunk;
use pacharc_sample::cluster::Options;

use crate::support::cluster::{Cluster, target};
use crate::support::fault_server::{FaultServer, Gate};
use crate::support::program::{Desk, Run, Running};

/// The number of a chunk that no sample cluster has made.
const UNUSED: u64 = 10_000;

struct Bench {
    desk: Desk,
    server: Arc<FaultServer>,
    cluster: Cluster,
}

impl Bench {
    async fn make(name: &str) -> Option<Self> {
        let (desk, server) = (Desk::new(), Arc::new(FaultServer::start().await));
        let bucket: Arc<dyn Bucket> = Arc::clone(&server) as Arc<dyn Bucket>;
        let options = Options { objects: 30, jobs: 5, ..Options::default() };
        let cluster = Cluster::make_in(bucket, &server.url(), name, options).await?;
        Some(Self { desk, server, cluster })
    }

    /// Starts a backup and waits until it has listed the whole bucket.
    async fn start(&self) -> (Running, Gate) {
        // The last key: when it is read, no page of the listing is left.
        let last = self.server.keys().pop().unwrap();
        let mut listed = self.server.gate("GET", &last);
        let args = self.desk.backup_args(&self.cluster.source(), "c.pacharc", &["--json-file", "events"]);
        let running = Running::start(&mut self.desk.command(args));
        listed.reached().await;
        (running, listed)
    }

    /// pachd writes a chunk: row, object, flag. Whoever reads it waits at the gate.
    async fn write(&self, number: u64) -> (String, Gate) {
        let chunk = Chunk::generate(1, UNUSED + number, &(100..=100));
        let key = chunk.key(0);
        let gate = self.server.gate("GET", &key);
        let row = format!("chunk_id = '\\x{}' AND gen = 0", hex::encode(chunk.id));
        let insert = "INSERT INTO storage.chunk_objects (chunk_id, gen, uploaded, tombstone, size)";
        self.sql(&format!("{insert} VALUES ('\\x{}', 0, false, false, 100)", hex::encode(chunk.id)));
        self.cluster.bucket.put(&key, chunk.stored.into()).await.unwrap();
        self.sql(&format!("UPDATE storage.chunk_objects SET uploaded = true WHERE {row}"));
        (key, gate)
    }

    /// pachd collects it: tombstone, object, row.
    async fn collect(&self, key: &str) {
        let id = &key["chunk/".len()..][..64];
        let row = format!("chunk_id = '\\x{id}' AND gen = 0");
        self.sql(&format!("UPDATE storage.chunk_objects SET tombstone = true WHERE {row}"));
        self.cluster.bucket.delete(key).await.unwrap();
        self.sql(&format!("DELETE FROM storage.chunk_objects WHERE {row}"));
    }

    fn sql(&self, sql: &str) {
        self.cluster.server.psql(&self.cluster.database, sql).unwrap();
    }

    fn finish(&self, running: Running) -> Run {
        let run = running.finish();
        // What was read once is in the bundle, and is not read for each snapshot again.
        let reads: Vec<String> = self.server.seen().into_iter().filter(|r| r.method == "GET").map(|r| r.path).collect();
        for key in self.server.keys() {
            let times = reads.iter().filter(|path| path.ends_with(&key)).count();
            assert!(times <= 1, "{key} was read {times} times");
        }
        run
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_collected_after_the_snapshot_means_a_newer_one() {
    let Some(bench) = Bench::make("collected").await else { return };
    let (running, listed) = bench.start().await;
    let (stays, mut stays_gate) = bench.write(1).await;
    let (goes, mut goes_gate) = bench.write(2).await;
    listed.open();
    // A snapshot is open that names both.
    stays_gate.reached().await;
    goes_gate.reached().await;
    bench.collect(&goes).await;
    stays_gate.open();
    goes_gate.open();
    let run = bench.finish(running).code(0).says("closed: all 34 live");
    let run = run.says("attempt 1 of 5 failed, trying again: 1 live objects vanished");
    assert!(!run.stderr.contains("missing: "), "{}", run.stderr);
    let events = std::fs::read_to_string(bench.desk.path("events")).unwrap();
    let finished: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(finished["outcome"]["snapshots"], 2, "{finished}");

    let listed = bench.desk.run(["list", "c.pacharc", "--identity", "key.txt"]).code(0).text();
    assert!(listed.contains(&stays) && !listed.contains(&goes), "{listed}");
    // Dumped was the snapshot that does not name it.
    let target = target(&bench.desk.bucket("target"));
    bench.desk.restore("c.pacharc", &target, &[]).code(0);
    bench.cluster.assert_databases_restored();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_collected_after_each_of_five_snapshots_ends_the_backup() {
    let Some(bench) = Bench::make("collected_always").await else { return };
    let (running, listed) = bench.start().await;
    let (mut key, mut gate) = bench.write(0).await;
    listed.open();
    for number in 1..=5 {
        gate.reached().await;
        bench.collect(&key).await;
        // The next snapshot names the next one.
        let next = bench.write(number).await;
        gate.open();
        (key, gate) = next;
    }
    let run = bench.finish(running).code(1);
    let run = run.says("could not be closed: objects kept vanishing between 5 snapshots").says("--quiesce suspend");
    assert!(run.has_advice() && run.stderr.contains("attempt 4 of 5 failed"), "{}", run.stderr);
    assert!(!bench.desk.path("c.pacharc").exists());
    assert_eq!(bench.desk.leftovers(), [""; 0]);
}
