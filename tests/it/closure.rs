//! Whether every live object of the dumped snapshot is in the bundle, and what is said where one is not.

use std::sync::Arc;

use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::chunk::Chunk;
use pacharc_sample::cluster::Options;
use pacharc_sample::compare;

use crate::support::cluster::{Cluster, target, target_server};
use crate::support::fault_server::{Fault, FaultServer};
use crate::support::moments::Told;
use crate::support::program::{Desk, Running, wait_until, words};

/// The entries that `list` shows, each with its state in front.
fn listed(desk: &Desk, bundle: &str) -> Vec<String> {
    let text = desk.run(["list", bundle, "--identity", "key.txt"]).code(0).text();
    let fields = |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    text.lines().map(fields).map(|fields| format!("{} {}", fields[0], fields[2])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_lacks_is_named_and_the_rest_saved() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "closure").await else { return };
    let live = cluster.live().await;
    let (gone, flipped, emptied, orphan) = (&live[3], &live[7], &live[11], &cluster.made.orphans[0]);
    cluster.bucket.delete(gone).await.unwrap();
    cluster.flip(flipped).await;
    cluster.bucket.put(emptied, Vec::new().into()).await.unwrap();
    cluster.flip(orphan).await;

    let done = desk.backup(&cluster.source(), "c.pacharc", &["--json-file", "events"]).code(4);
    let done = done.says("NOT CLOSED: of the live objects, 1 missing and 2 rotten");
    for key in [gone, flipped, emptied] {
        assert_eq!(done.stderr.matches(key.as_str()).count(), 1, "{key}: {}", done.stderr);
    }
    assert!(!done.stderr.contains(orphan.as_str()), "{}", done.stderr);
    let events = std::fs::read_to_string(desk.path("events")).unwrap();
    let named = |event: &str, key: &str| events.lines().any(|line| line.contains(event) && line.contains(key));
    assert!(named("\"missing_object\"", gone) && named("\"rotten_object\"", flipped));
    assert!(events.lines().last().unwrap().contains("\"exit_code\":4"));

    // Every byte is as it was written; what is not closed is said where the key is there to know it.
    desk.run(["verify", "c.pacharc"]).code(0).says("it needs the key");
    desk.run(["verify", "c.pacharc", "--identity", "key.txt"]).code(4).says("not closed");
    desk.run(["verify", "c.pacharc", "--identity", "key.txt", "--level", "sums"]).code(4).says("not closed");
    let listed = listed(&desk, "c.pacharc");
    for (state, key) in [("missing", gone), ("rotten", flipped), ("rotten", emptied), ("orphan", orphan)] {
        assert!(listed.contains(&format!("{state} objects/{key}")), "{state} {key}: {listed:?}");
    }

    let target = target(&desk.bucket("target"));
    desk.restore("c.pacharc", &target, &[]).code(5).says("not closed").says("--allow-incomplete");
    cluster.assert_not_restored();
    assert!(!desk.path("target").join("chunk").exists());
    let done = desk.restore("c.pacharc", &target, &["--allow-incomplete", "--json-file", "restored"]).code(4);
    for key in [gone, flipped, emptied] {
        assert!(done.stderr.contains(key.as_str()), "{key}: {}", done.stderr);
    }
    cluster.assert_databases_restored();
    let restored: Arc<dyn Bucket> = Arc::new(Directory::new(desk.path("target")));
    let compared = compare::buckets(&cluster.bucket, &restored, None).await.unwrap();
    assert!(compared.is_equal() && compared.compared > 40, "{compared}");
    let restored = std::fs::read_to_string(desk.path("restored")).unwrap();
    let finished: serde_json::Value = serde_json::from_str(restored.lines().last().unwrap()).unwrap();
    let objects = &finished["outcome"]["objects"];
    assert_eq!((&objects["missing"], &objects["rotten"]), (&1.into(), &2.into()), "{objects}");
    assert_eq!(objects["count"], compared.compared);
    let mut bytes = 0;
    for key in cluster.bucket.keys().await.unwrap() {
        bytes += cluster.bucket.get(&key).await.unwrap().unwrap().len();
    }
    assert_eq!(objects["bytes"], bytes);
    done.says("INCOMPLETE: of the live objects, 1 missing and 2 rotten");

    // Where the databases alone are restored, out of a file or a pipe, they lack as much.
    let databases = |name: &str| {
        let (main, dex) = (format!("{}={name} main", cluster.database), format!("{}={name} dex", cluster.dex));
        let url = target_server().unwrap().url("postgres");
        words(&["--postgres", &url, "--database", &main, "--database", &dex])
    };
    desk.restore("c.pacharc", &databases("refused"), &[]).code(5).says("not closed");
    let args = |bundle, name| Desk::restore_args(bundle, &databases(name), &["--allow-incomplete", "--json"]);
    let mut from_pipe = desk.command(args("-", "piped"));
    from_pipe.stdin(std::fs::File::open(desk.path("c.pacharc")).unwrap());
    for run in [desk.run(args("c.pacharc", "lacking")), Running::start(&mut from_pipe).finish()] {
        let told = run.code(4).text();
        for key in [gone, flipped, emptied] {
            assert_eq!(told.matches(key.as_str()).count(), 1, "{key}: {told}");
        }
        let finished: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
        let incomplete = &finished["outcome"]["incomplete"];
        assert_eq!((&incomplete["missing"], &incomplete["rotten"]), (&1.into(), &2.into()), "{finished}");
        assert!(finished["outcome"]["objects"].is_null(), "{finished}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_stops_at_the_first_and_leaves_nothing() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "strict").await else { return };
    let live = cluster.live().await;
    desk.backup(&cluster.source(), "sound.pacharc", &["--strict"]).code(0);
    cluster.bucket.delete(&live[0]).await.unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &["--strict"]).code(4).says(&live[0]).says("missing").advises();
    let other = &live[1];
    cluster.bucket.put(&live[0], cluster.bucket.get(other).await.unwrap().unwrap()).await.unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &["--strict"]).code(4).says(&live[0]).says("rotten").advises();
    assert!(!desk.path("c.pacharc").exists());
    assert_eq!(desk.leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_never_live() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "left_out").await else { return };
    let live = cluster.live().await;
    for (name, args) in [("live", &["--live-only"][..]), ("exclude", &["--exclude", "chunk/", "--exclude", "test/"])] {
        let (bundle, bucket) = (format!("{name}.pacharc"), format!("target {name}"));
        desk.backup(&cluster.source(), &bundle, args).code(0).says("closed: all 43 live");
        let entries = listed(&desk, &bundle);
        let objects: Vec<&String> = entries.iter().filter(|entry| entry.contains(" objects/")).collect();
        assert_eq!(objects.len(), live.len(), "{objects:?}");
        assert!(objects.iter().all(|entry| entry.starts_with("live ")), "{objects:?}");
        let to = ["--bucket".to_owned(), desk.bucket(&bucket)];
        desk.restore(&bundle, &to, &[]).code(0);
        assert_eq!(Directory::new(desk.path(&bucket)).keys().await.unwrap(), live);
    }
    let foreign = &cluster.made.foreign[0];
    desk.backup(&cluster.source(), "c.pacharc", &["--exclude", "te"]).code(0);
    let objects = listed(&desk, "c.pacharc").iter().filter(|entry| entry.contains(" objects/")).count() as u64;
    assert_eq!(objects, cluster.made.objects() - 1, "{foreign}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_another_cluster_is_refused() {
    let (desk, other) = (Desk::new(), Desk::new());
    let Some(cluster) = Cluster::small(&desk, "other_bucket").await else { return };
    let options = Options { objects: 20, seed: 99, ..Options::default() };
    let Some(stranger) = Cluster::make(&other, "other_bucket_2", options).await else { return };
    let source = [cluster.databases(), vec!["--bucket".into(), stranger.bucket_url]].concat();
    desk.backup(&source, "c.pacharc", &[]).code(5).says("does not belong to this database").advises();
    let source = [cluster.databases(), vec!["--bucket".into(), desk.bucket("empty")]].concat();
    std::fs::create_dir(desk.path("empty")).unwrap();
    desk.backup(&source, "c.pacharc", &[]).code(5).says("does not belong to this database");
    assert!(!desk.path("c.pacharc").exists());
}

/// Between its listing and its copy an object may go: its row is looked at, and a newer snapshot asked.
#[tokio::test(flavor = "multi_thread")]
async fn what_vanishes_after_it_was_listed() {
    let desk = Desk::new();
    let server = Arc::new(FaultServer::start().await);
    let bucket: Arc<dyn Bucket> = Arc::clone(&server) as Arc<dyn Bucket>;
    let options = Options { objects: 30, jobs: 5, ..Options::default() };
    let Some(cluster) = Cluster::make_in(bucket, &server.url(), "vanishes", options).await else { return };
    let absent = || Fault::Refuse(404, "NoSuchKey");
    let live = cluster.live().await;
    // Gone when it is copied, there again when the snapshot names it; and an orphan that has gone.
    server.plan_for("GET", &live[5], [absent()]);
    server.plan_for("GET", &cluster.made.orphans[0], [absent()]);
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0).says("closed: all 33 live").says("(4 orphans, 1 foreign)");
    desk.run(["verify", "c.pacharc", "--identity", "key.txt"]).code(0);
    let listed = listed(&desk, "c.pacharc");
    assert!(listed.contains(&format!("live objects/{}", live[5])));
    assert!(!listed.iter().any(|entry| entry.contains(&cluster.made.orphans[0])));

    // A read that brings wrong bytes once is no damage.
    server.plan_for("GET", &live[6], [Fault::CutAndChange(1)]);
    let bytes = cluster.bucket.get(&live[6]).await.unwrap().unwrap();
    desk.backup(&cluster.source(), "rotten.pacharc", &[]).code(4).says(&live[6]);
    server.hold(&live[6], bytes);
    desk.backup(&cluster.source(), "whole.pacharc", &[]).code(0);
}

/// Objects that are larger than an entry go in piece by piece. One that was begun when the snapshot was lost must not be
/// left without an end: the bundle would be called whole, and refused by a restore.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_lost_in_the_midst_of_an_object_in_pieces() {
    let desk = Desk::new();
    let server = Arc::new(FaultServer::start().await);
    let bucket: Arc<dyn Bucket> = Arc::clone(&server) as Arc<dyn Bucket>;
    let options = Options { objects: 2, sizes: 10_000_000..=10_000_001, jobs: 5, ..Options::default() };
    let Some(cluster) = Cluster::make_in(bucket, &server.url(), "in_pieces", options).await else { return };
    let [absent, begun] = [&cluster.live().await[0], &cluster.live().await[1]];
    server.plan_for("GET", begun, [Fault::Stall(9_000_000)]);
    server.plan_for("GET", absent, [Fault::Refuse(404, "NoSuchKey")]);
    let mut gate = server.gate("GET", absent);
    let args = desk.backup_args(&cluster.source(), "c.pacharc", &["--live-only", "--max-memory", "128M"]);
    let running = Running::start(&mut desk.command(args));
    gate.reached().await;
    let mut gets = 0;
    wait_until("the object is read for its hash", || {
        gets += server.seen().iter().filter(|seen| seen.method == "GET" && seen.path.ends_with(begun.as_str())).count();
        gets == 2
    });
    // Nothing tells when the first piece is under way.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = '{}' AND application_name LIKE 'pacharc%'",
        cluster.database
    );
    cluster.server.psql("postgres", &sql).unwrap();
    gate.open();
    running.finish().code(0).says("attempt 1 of 5 failed");
    desk.run(["verify", "c.pacharc", "--identity", "key.txt", "--level", "closed"]).code(0);
    desk.restore("c.pacharc", &target(&desk.bucket("target")), &[]).code(0);
    cluster.assert_databases_restored();
}

/// What is rotten and larger than an entry goes in piece by piece, too: the bundle is as whole as any that is not closed.
#[tokio::test(flavor = "multi_thread")]
async fn rotten_objects_in_pieces_are_saved_like_others() {
    let desk = Desk::new();
    let options = Options { objects: 3, sizes: 10_000_000..=10_000_001, jobs: 5, ..Options::default() };
    let Some(cluster) = Cluster::make(&desk, "rotten_pieces", options).await else { return };
    let mut large = cluster.live().await;
    large.retain(|key| std::fs::metadata(desk.path("source").join(key)).unwrap().len() > 9_000_000);
    assert_eq!(large.len(), 3);
    // No row names this one.
    let chunk = Chunk::generate(2, 0, &(10_000_000..=10_000_000));
    let orphan = chunk.key(1);
    cluster.bucket.put(&orphan, chunk.stored.into()).await.unwrap();
    cluster.flip(&large[1]).await;
    cluster.flip(&orphan).await;

    let args = ["--max-memory", "128M"];
    desk.backup(&cluster.source(), "c.pacharc", &args).code(4).says("0 missing and 1 rotten").says(&large[1]);
    for level in ["contents", "closed"] {
        let verified = desk.run(["verify", "c.pacharc", "--identity", "key.txt", "--level", level]);
        verified.code(4).says("not closed: every byte is as it was written");
    }
    let listed = listed(&desk, "c.pacharc");
    for (state, key) in [("live", &large[0]), ("rotten", &large[1]), ("live", &large[2]), ("orphan", &orphan)] {
        assert!(listed.contains(&format!("{state} objects/{key}")), "{state} {key}: {listed:?}");
    }
    assert_eq!(listed.iter().filter(|entry| entry.ends_with("/joined")).count(), 4, "{listed:?}");

    // By the catalog, from a pipe, and out of one that is torn.
    let bundle = std::fs::read(desk.path("c.pacharc")).unwrap();
    std::fs::write(desk.path("torn.pacharc"), &bundle[..bundle.len() - 1]).unwrap();
    let extract = |bundle: &str, folder: &str, more: &[&str]| {
        let args = ["extract", bundle, "objects", "--identity", "key.txt", "-o", folder];
        let mut command = desk.command([&args[..], more].concat());
        if bundle == "-" {
            command.stdin(std::fs::File::open(desk.path("c.pacharc")).unwrap());
        }
        Running::start(&mut command).finish()
    };
    extract("c.pacharc", "by ranges", &[]).code(0);
    extract("-", "by stream", &[]).code(0);
    extract("torn.pacharc", "salvaged", &["--keep-going"]).code(3);
    for folder in ["by ranges", "by stream", "salvaged"] {
        for key in large.iter().chain([&orphan]) {
            let extracted = std::fs::read(desk.path(folder).join("objects").join(key)).unwrap();
            assert!(extracted == std::fs::read(desk.path("source").join(key)).unwrap(), "{folder}: {key}");
        }
    }

    let to = target(&desk.bucket("target"));
    desk.restore("c.pacharc", &to, &[]).code(5).says("not closed").says("--allow-incomplete");
    desk.restore("c.pacharc", &to, &["--allow-incomplete"]).code(4).says("0 missing and 1 rotten").says(&large[1]);
    cluster.assert_databases_restored();
    let restored: Arc<dyn Bucket> = Arc::new(Directory::new(desk.path("target")));
    let compared = compare::buckets(&cluster.bucket, &restored, None).await.unwrap();
    assert!(compared.is_equal() && compared.compared > 4, "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_half_restored_is_refused() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "half_restored").await else { return };
    cluster.bucket.put("pacharc.restoring", "pacharc restore of bundle 1\n".into()).await.unwrap();
    for command in [&["backup", "-o", "c.pacharc", "--recipient", &desk.recipient][..], &["plan", "backup"]] {
        let args = [words(command), cluster.source()].concat();
        desk.run(args).code(5).says("is the target of a restore that has not finished").advises();
    }
    assert!(!desk.path("c.pacharc").exists());
    assert_eq!(desk.leftovers(), [""; 0]);
    cluster.bucket.delete("pacharc.restoring").await.unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_half_restored_is_refused() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "half_loaded").await else { return };
    let Some(to) = target_server() else { return };
    desk.backup(&cluster.databases(), "c.pacharc", &[]).code(0);
    let place = words(&["--postgres", &to.url("postgres")]);
    let half = [place.clone(), words(&["--database", &cluster.database, "--database", &cluster.dex])].concat();
    // All rows are there or not: its mark says that it is not done.
    for phase in ["unpack", "prove"] {
        let mut command = desk.command(Desk::restore_args("c.pacharc", &place, &["--json"]));
        assert!(Told::kill_at(&mut command, phase), "{phase}");
        for command in [&["backup", "-o", "half.pacharc", "--recipient", &desk.recipient][..], &["plan", "backup"]] {
            let run = desk.run([words(command), half.clone()].concat()).code(5).advises();
            run.says(&format!("database \"{}\" is the target of a restore that has not finished", cluster.database));
        }
    }
    assert!(!desk.path("half.pacharc").exists());
    desk.restore("c.pacharc", &place, &[]).code(0);
    desk.backup(&half, "again.pacharc", &[]).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_table_of_migrations_is_warned_of() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "no_migrations").await else { return };
    let says = "its table of migrations is empty";
    let run = desk.backup(&cluster.databases(), "c.pacharc", &[]).code(0);
    assert!(!run.stderr.contains(says), "{}", run.stderr);
    cluster.server.psql(&cluster.database, "DELETE FROM migrations").unwrap();
    desk.backup(&cluster.databases(), "empty.pacharc", &[]).code(0).says(says);
}
