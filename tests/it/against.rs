//! `verify --against`: what a source has lost or broken since the backup, and whether a target is what the bundle holds.

use std::path::Path;

use serde_json::Value;

use crate::support::cluster::{Cluster, target, target_server};
use crate::support::program::{Desk, Run, Running, wait_until, words};

/// The arguments that compare with a source or a target of a test's cluster.
fn args(side: &str, place: &[String], more: &[&str]) -> Vec<String> {
    let mut args = words(&["verify", "c.pacharc", "--identity", "key.txt", "--against", side]);
    // What names the databases of a backup are here those of the bundle.
    let mut words_of = place.iter();
    while let Some(word) = words_of.next() {
        if word == "--database" {
            words_of.next();
        } else {
            args.push(word.clone());
        }
    }
    args.extend(words(more));
    args
}

fn outcome(run: &Run) -> Value {
    let text = run.text();
    let finished: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    finished["outcome"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_goes_on_is_no_damage_and_one_that_rots_is() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "against_source").await else { return };
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let source = cluster.source();
    let same = outcome(&desk.run(args("source", &source, &["--json"])).code(0));
    let objects = &same["objects"];
    assert_eq!(
        (&objects["equal"], &objects["compared"]),
        (&objects["compared"], &cluster.made.objects().into()),
        "{same}"
    );
    assert!(same["databases"].as_array().unwrap().iter().all(|database| database["different"] == 0), "{same}");
    assert_eq!(same["databases"].as_array().unwrap().len(), 2);

    // It goes on: rows are added, an object that no row names goes, and one of another kind changes.
    let live = cluster.live().await;
    let orphan = an_orphan(&desk, &live);
    cluster.bucket.delete(&orphan).await.unwrap();
    let sql = "DELETE FROM storage.tracker_refs WHERE ctid = (SELECT min(ctid) FROM storage.tracker_refs)";
    cluster.server.psql(&cluster.database, sql).unwrap();
    let run = desk.run(args("source", &source, &["--json"])).code(0);
    let later = outcome(&run);
    assert_eq!((&later["objects"]["gone"], &later["objects"]["lost"]), (&1.into(), &0.into()), "{later}");

    let changed: u64 = later["databases"].as_array().unwrap().iter().map(|d| d["different"].as_u64().unwrap()).sum();
    assert_eq!((changed, &later["findings"]), (1, &serde_json::json!([])), "{later}");

    // A live object goes, another one rots; of those that have bytes.
    let mut full = Vec::new();
    for key in live {
        let bytes = cluster.bucket.get(&key).await.unwrap();
        if bytes.is_some_and(|bytes| !bytes.is_empty()) {
            full.push(key);
        }
    }
    let live = full;
    cluster.bucket.delete(&live[0]).await.unwrap();
    cluster.flip(&live[1]).await;
    let run = desk.run(args("source", &source, &[])).code(4);
    for key in [&live[0], &live[1]] {
        assert!(run.stderr.contains(key.as_str()), "{key}: {}", run.stderr);
    }
    let broken = outcome(&desk.run(args("source", &source, &["--json"])).code(4));
    assert_eq!((&broken["objects"]["lost"], &broken["objects"]["changed"]), (&1.into(), &1.into()), "{broken}");
    // Without the database nobody knows why it has gone: it is missed; the orphan is not.
    let bucket = words(&["--bucket", &cluster.bucket_url]);
    let run = desk.run(args("source", &bucket, &["--json"])).code(4).says("without the database (--postgres)");
    let alone = outcome(&run);
    assert_eq!((&alone["objects"]["lost"], &alone["objects"]["gone"]), (&1.into(), &1.into()), "{alone}");
}

/// What the bundle has of a chunk that was rotten is nothing that a source should have kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_healed_is_not_broken() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "against_healed").await else { return };
    let rotten = [cluster.live().await[7].clone(), cluster.made.orphans[0].clone()];
    for key in &rotten {
        cluster.flip(key).await;
    }
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(4);
    let counts = |side: &str, place: &[String], code: i32| {
        let objects = outcome(&desk.run(args(side, place, &["--json"])).code(code))["objects"].take();
        ["changed", "healed"].map(|count| objects[count].as_u64().unwrap())
    };
    let (source, bucket) = (cluster.source(), words(&["--bucket", &cluster.bucket_url]));
    assert_eq!(counts("source", &source, 0), [0, 0]);
    for key in &rotten {
        cluster.flip(key).await;
    }
    assert_eq!(counts("source", &source, 0), [0, 2]);
    desk.run(args("source", &source, &[])).code(0).says("sound: the source").says("2 healed");
    // A target must be what the bundle holds, rotten or not.
    assert_eq!(counts("target", &bucket, 3), [2, 0]);
    // Other wrong bytes are no right ones.
    cluster.bucket.put(&rotten[0], vec![7; 100].into()).await.unwrap();
    assert_eq!(counts("source", &source, 4), [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_bucket_is_not_called_sound() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "against_emptied").await else { return };
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    for key in cluster.bucket.keys().await.unwrap() {
        cluster.bucket.delete(&key).await.unwrap();
    }
    let bucket = words(&["--bucket", &cluster.bucket_url]);
    let emptied = outcome(&desk.run(args("source", &bucket, &["--json"])).code(4));
    assert!(emptied["objects"]["lost"].as_u64().unwrap() >= cluster.made.live, "{emptied}");
    desk.run(args("source", &cluster.source(), &[])).code(5).says("does not belong to this database");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changed_is_told_where_it_must_not() {
    use crate::support::fault_server::{Fault, FaultServer};

    let (desk, server) = (Desk::new(), FaultServer::start().await);
    let chunks: Vec<_> = (0..40).map(|n| pacharc_sample::chunk::Chunk::generate(1, n, &(100..=900))).collect();
    let mut bytes = 3;
    server.hold("notes/a", "one");
    for chunk in &chunks {
        bytes += chunk.stored.len();
        server.hold(&chunk.key(0), chunk.stored.clone());
    }
    let place = words(&["--bucket", &server.url()]);
    desk.backup(&place, "c.pacharc", &[]).code(0);
    let compare = |side, more: &[&str], code| {
        outcome(&desk.run(args(side, &place, &[&["--json"], more].concat())).code(code))["objects"].take()
    };
    let key = chunks[7].key(0);
    // A read that comes wrong once is read again.
    server.plan_for("GET", &key, [Fault::Flip]);
    let whole = compare("source", &[], 0);
    assert_eq!((&whole["equal"], &whole["bytes"]), (&41.into(), &bytes.into()), "{whole}");
    assert_eq!(server.planned(), 0);
    // What is not a chunk may be another one at the source, and not at a target.
    server.hold("notes/a", "two");
    let later = compare("source", &[], 0);
    assert_eq!((&later["equal"], &later["changed"]), (&40.into(), &1.into()), "{later}");
    assert_eq!(compare("target", &[], 3)["changed"], 1);
    server.hold("notes/a", "one");
    // A chunk is what its key says, for ever.
    server.hold(&key, vec![7; chunks[7].stored.len()]);
    for (side, code) in [("source", 4), ("target", 3)] {
        let rotten = compare(side, &[], code);
        assert_eq!((&rotten["changed"], &rotten["lost"]), (&1.into(), &0.into()), "{side}: {rotten}");
        desk.run(args(side, &place, &[])).code(code).says(&key);
    }
    server.hold(&key, chunks[7].stored.clone());
    // A time is a time.
    server.plan("GET", (0..41).map(|_| Fault::Late(900)));
    let timed = compare("source", &["--sample", "1s"], 0);
    let compared = timed["compared"].as_u64().unwrap();
    assert!((1..41).contains(&compared), "{compared}");
}

/// An object of the bundle that is an orphan.
fn an_orphan(desk: &Desk, live: &[String]) -> String {
    let listed = desk.run(["list", "c.pacharc", "--identity", "key.txt", "objects/chunk"]).code(0).text();
    let orphan = listed.lines().find(|line| line.starts_with("orphan")).unwrap();
    let key = orphan.rsplit(' ').next().unwrap().strip_prefix("objects/").unwrap().to_owned();
    assert!(!live.contains(&key));
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_must_be_what_the_bundle_holds() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "against_target").await else { return };
    let Some(server) = target_server() else { return };
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let place = target(&desk.bucket("target"));
    desk.restore("c.pacharc", &place, &[]).code(0);
    desk.run(args("target", &place, &[])).code(0).says("the target has what c.pacharc has");

    let live = cluster.live().await;
    let bytes = std::fs::read(object(&desk.path("target"), &live[3])).unwrap();
    std::fs::write(object(&desk.path("target"), &live[3]), &bytes[1..]).unwrap();
    std::fs::remove_file(object(&desk.path("target"), &live[4])).unwrap();
    let run = desk.run(args("target", &place, &[])).code(3).says(&live[3]).says(&live[4]);
    assert!(run.stderr.contains("damaged: the target"), "{}", run.stderr);
    // A row less, in the databases alone.
    let databases = words(&["--postgres", &server.url("postgres")]);
    desk.run(args("target", &databases, &[])).code(0);
    let delete = "DELETE FROM storage.chunk_objects WHERE ctid = (SELECT min(ctid) FROM storage.chunk_objects)";
    server.psql(&cluster.database, delete).unwrap();
    desk.run(args("target", &databases, &[])).code(3).says("chunk_objects");
    // Under another name: one that holds something else, and one that there is not.
    let renamed = |name: &str| format!("{}={name}", cluster.database);
    let run = desk.run(args("target", &databases, &["--database", &renamed(&cluster.dex)])).code(3);
    for found in ["no table found", "other columns found"] {
        assert!(run.stderr.contains(found), "{}", run.stderr);
    }
    desk.run(args("target", &databases, &["--database", &renamed("absent")])).code(7).advises();
}

/// Where a directory bucket keeps an object.
fn object(folder: &Path, key: &str) -> std::path::PathBuf {
    let name = key.rsplit('/').next().unwrap();
    let below = std::fs::read_dir(folder.join("chunk")).unwrap().flatten();
    below.map(|entry| entry.path()).find(|path| path.file_name().unwrap().to_string_lossy() == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_repeatable_and_together_everything() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "samples").await else { return };
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let bucket = words(&["--bucket", &cluster.bucket_url]);
    let compared = |more: &[&str]| {
        let outcome = outcome(&desk.run(args("source", &bucket, &[&["--json"][..], more].concat())).code(0));
        (outcome["objects"]["compared"].as_u64().unwrap(), outcome["seed"].as_u64())
    };
    let all = cluster.made.objects();
    assert_eq!(compared(&[]), (all, None));
    let parts: u64 = (1..=5).map(|part| compared(&["--sample", &format!("{part}/5")]).0).sum();
    assert_eq!(parts, all);
    let (count, seed) = compared(&["--sample", "50%"]);
    assert!(count > 0 && count < all, "{count} of {all}");
    assert_eq!(compared(&["--sample", "50%", "--seed", &seed.unwrap().to_string()]), (count, seed));
    let seeds: std::collections::BTreeSet<u64> =
        (0..8).map(|seed| compared(&["--sample", "10", "--seed", &seed.to_string()]).0).collect();
    assert!(seeds.len() > 1, "{seeds:?}");
    // As much time as is needed is everything; less is what comes first.
    assert_eq!(compared(&["--sample", "1h", "--seed", "7"]), (all, Some(7)));
    // Databases have no part in it: none of their tables can be read for a time.
    let timed = outcome(&desk.run(args("source", &cluster.source(), &["--json", "--sample", "1h"])).code(0));
    assert_eq!(timed["databases"], serde_json::json!([]));
    for (more, code) in [(["--sample", "0%"], 2), (["--seed", "7"], 2)] {
        desk.run(args("source", &bucket, &more)).code(code);
    }
    desk.run(["verify", "c.pacharc", "--sample", "5%"]).code(2);
    desk.run(args("source", &bucket, &["--level", "sums"])).code(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_comparison_goes_on() {
    use crate::support::fault_server::{Fault, FaultServer};
    use pacharc_sample::bucket::Bucket;
    use std::sync::Arc;

    let desk = Desk::new();
    let server = Arc::new(FaultServer::start().await);
    let bucket: Arc<dyn Bucket> = Arc::clone(&server) as Arc<dyn Bucket>;
    let options = pacharc_sample::cluster::Options { objects: 400, jobs: 10, ..Default::default() };
    let Some(cluster) = Cluster::make_in(bucket, &server.url(), "continued", options).await else { return };
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let place = words(&["--bucket", &cluster.bucket_url]);
    let asked = || -> Vec<String> {
        let gets = server.seen().into_iter().filter(|request| request.method == "GET");
        gets.filter_map(|request| Some(request.path.strip_prefix("/bucket/chunk/")?.to_owned())).collect()
    };
    // By time, chunks are walked from somewhere in their midst, and round: with this seed from three fifths on.
    for sample in [&[][..], &["--sample", "1h", "--seed", "10"]] {
        let compare = |more: &[&str]| args("source", &place, &[&["--json"], sample, more].concat());
        asked();
        desk.run(compare(&[])).code(0);
        let walk = asked();
        // Some are asked for at a time, in any order.
        let (first, least) = (walk[..32].iter().min(), walk.iter().min());
        assert!((first == least) == sample.is_empty(), "{walk:?}");
        // What comes late does not come.
        let late = &walk[walk.len() * 9 / 10];
        assert!(sample.is_empty() || *late < walk[0], "it is behind the turn");
        server.plan_for("GET", &format!("chunk/{late}"), [Fault::Stall(0)]);
        let running = Running::start(&mut desk.command(compare(&["--continue", "progress"])));
        wait_until("it has come so far", || asked().contains(late));
        // Progress is written from time to time.
        wait_until("progress is kept", || {
            asked();
            desk.path("progress").exists()
        });
        running.signal("INT");
        running.finish().code(130);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(desk.path("progress")).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        // Of another comparison it is not.
        desk.run(args("target", &place, &["--continue", "progress"])).code(5).says("another comparison").advises();

        asked();
        let done = outcome(&desk.run(compare(&["--continue", "progress"])).code(0));
        let again = asked().len() as u64;
        assert_eq!(
            (&done["continued"], &done["objects"]["compared"]),
            (&true.into(), &cluster.made.objects().into()),
            "{done}"
        );
        assert!(done["since"].is_string(), "it says from when on: {done}");
        assert!(again < cluster.made.objects() / 2, "{again} were asked for again");
        assert!(!desk.path("progress").exists());
        let anew = outcome(&desk.run(compare(&["--continue", "progress"])).code(0));
        assert_eq!((&anew["continued"], &anew["objects"]), (&false.into(), &done["objects"]));
    }
    std::fs::write(desk.path("progress"), "{}").unwrap();
    desk.run(args("source", &place, &["--continue", "progress"])).code(1).advises();
}
