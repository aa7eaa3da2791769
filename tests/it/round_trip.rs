//! A whole cluster out and back in, over every kind of bucket; compared without a line of pacharc's own code.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::compare;
use pacharc_sample::postgres::{Options, TempServer};

use crate::support::cluster::{Cluster, target, target_server};
use crate::support::fault_server::FaultServer;
use crate::support::program::{Desk, words};
use crate::support::sdk_bucket::SdkBucket;
use crate::support::versitygw;

/// The recorded state of a real cluster; `None`, having said so, where it is absent.
pub fn fixture() -> Option<PathBuf> {
    let folder = std::env::var_os("PACHARC_FIXTURES").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"));
    let folder = folder.join("pachyderm-2.11.6");
    if !folder.exists() {
        pacharc_sample::skipped(&format!("{} is absent (PACHARC_FIXTURES)", folder.display()));
        return None;
    }
    Some(folder)
}

/// A server with the recorded databases.
pub fn recorded(folder: &Path) -> Option<TempServer> {
    let server = TempServer::start_or_skip(&Options::default()).unwrap()?;
    server.psql("postgres", "CREATE ROLE pachyderm LOGIN SUPERUSER").unwrap();
    for name in ["pachyderm", "dex"] {
        server.psql("postgres", &format!("CREATE DATABASE {name} OWNER pachyderm TEMPLATE template0")).unwrap();
        let dump = folder.join(format!("{name}.sql.zst"));
        let mut zstd = Command::new("zstd").arg("-dc").arg(dump).stdout(Stdio::piped()).spawn().unwrap();
        let psql = pacharc_sample::programs::client("psql", 0).unwrap();
        let url = server.url_as("pachyderm", name);
        let mut psql = Command::new(psql);
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", &url]).stdin(zstd.stdout.take().unwrap());
        assert!(psql.stdout(Stdio::null()).status().unwrap().success());
        assert!(zstd.wait().unwrap().success());
    }
    Some(server)
}

fn assert_databases_equal(from: &TempServer, to: &TempServer) {
    for name in ["pachyderm", "dex"] {
        let compared = compare::databases(&from.url("postgres"), &to.url("postgres"), name, name).unwrap();
        assert!(compared.is_equal() && compared.compared > 30, "{compared}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_cluster_from_s3_to_another_bucket() {
    let Some(folder) = fixture() else { return };
    let Some(from) = recorded(&folder) else { return };
    let to = TempServer::start(&Options::default()).unwrap();
    to.psql("postgres", "CREATE ROLE pachyderm LOGIN").unwrap();
    let Some(s3) = versitygw::start().await else { return };
    let (source, other) = (SdkBucket::make(&s3, "source").await, SdkBucket::make(&s3, "other").await);
    let recorded_bucket: Arc<dyn Bucket> = Arc::new(Directory::new(folder.join("bucket")));
    for key in recorded_bucket.keys().await.unwrap() {
        source.put(&key, recorded_bucket.get(&key).await.unwrap().unwrap()).await.unwrap();
    }
    source.put_with("notes/read me.html", b"<p>", "text/html", ("author", "someone")).await;
    // Enough for parts, and more than a segment.
    source.put_with("big", &vec![7; 50 << 20], "application/x-big", ("parts", "several")).await;

    let desk = Desk::new();
    let postgres = words(&["--postgres", &from.url("postgres")]);
    let done = desk.backup(&[postgres, words(&["--bucket", &source.url])].concat(), "c.pacharc", &[]).code(0);
    done.says("closed: all 171 live objects are in the bundle").says("database pachyderm").says("database dex");
    desk.run(["verify", "c.pacharc"]).code(0).says("sound");
    desk.run(["verify", "c.pacharc", "--identity", "key.txt"]).code(0).says("closed");
    let postgres = words(&["--postgres", &to.url("postgres"), "--owner", "pachyderm"]);
    let done = desk.restore("c.pacharc", &[postgres, words(&["--bucket", &other.url])].concat(), &[]).code(0);
    done.says("counts and fingerprints as in the bundle");

    assert_databases_equal(&from, &to);
    let owner = "SELECT count(*) FROM pg_class c WHERE relkind IN ('r', 'S') AND relowner <> 'pachyderm'::regrole
                 AND relnamespace = 'pfs'::regnamespace";
    assert_eq!(to.psql("pachyderm", owner).unwrap(), "0");
    let (left, right) = (source.whole().await, other.whole().await);
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (key, whole) in &left {
        assert!(right[key] == *whole, "{key}: {:?} {:?}", whole.content_type, right[key].content_type);
    }
    assert!(left.len() > 170 && left["big"].metadata.as_ref().unwrap()["parts"] == "several");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_cluster_from_a_directory_to_s3() {
    let Some(folder) = fixture() else { return };
    let Some(from) = recorded(&folder) else { return };
    let to = TempServer::start(&Options::default()).unwrap();
    let Some(s3) = versitygw::start().await else { return };
    let target = SdkBucket::make(&s3, "target").await;
    let desk = Desk::new();
    let bucket = format!("file://{}", folder.join("bucket").display());
    let source = words(&["--postgres", &from.url("postgres"), "--bucket", &bucket]);
    desk.backup(&source, "c.pacharc", &[]).code(0);
    desk.restore("c.pacharc", &words(&["--postgres", &to.url("postgres"), "--bucket", &target.url]), &[]).code(0);
    assert_databases_equal(&from, &to);
    let (from, to): (Arc<dyn Bucket>, Arc<dyn Bucket>) =
        (Arc::new(Directory::new(folder.join("bucket"))), Arc::new(target));
    let compared = compare::buckets(&from, &to, None).await.unwrap();
    assert!(compared.is_equal() && compared.compared > 170, "{compared}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_cluster_and_back() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "round_trip").await else { return };
    if target_server().is_none() {
        return;
    }
    let done = desk.backup(&cluster.source(), "{time}-{uuid}.pacharc", &[]).code(0);
    assert!(done.stdout.is_empty());
    let bundles = std::fs::read_dir(desk.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let bundle = bundles.map(|name| name.into_string().unwrap()).find(|name| name.ends_with(".pacharc")).unwrap();
    desk.restore(&bundle, &target(&desk.bucket("target")), &["--owner", "pachyderm"]).code(0);
    let restored: Arc<dyn Bucket> = Arc::new(Directory::new(desk.path("target")));
    cluster.assert_restored(&restored).await;
    let consistent =
        compare::consistency(&target_server().unwrap().url("postgres"), &cluster.database, &restored).await.unwrap();
    assert!(consistent.is_equal(), "{consistent}");

    // What is restored can be backed up again, and is the same then.
    let again = words(&["--postgres", &target_server().unwrap().url("postgres"), "--database", &cluster.database]);
    let again = [again, words(&["--database", &cluster.dex, "--bucket", &desk.bucket("target")])].concat();
    desk.backup(&again, "again.pacharc", &[]).code(0);
    assert_eq!(desk.leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_bundle_in_s3() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "in_s3").await else { return };
    let Some(s3) = versitygw::start().await else { return };
    let bundles = SdkBucket::make(&s3, "bundles").await;
    let bundle = bundles.url.replace("s3://bundles", "s3://bundles/folder/c.pacharc");
    // More than one part.
    cluster.bucket.put("big", vec![1; 20 << 20].into()).await.unwrap();
    desk.backup(&cluster.source(), &bundle, &[]).code(0);
    desk.backup(&cluster.source(), &bundle, &[]).code(5).says("exists");
    desk.run(["verify", &bundle]).code(0).says("sound");
    desk.run(["verify", &bundle, "--identity", "key.txt"]).code(0).says("closed");
    let listed = desk.run(["list", &bundle, "--identity", "key.txt"]).code(0).text();
    assert!(listed.contains("objects/other/big"), "{listed}");
    desk.run(["inspect", &bundle]).code(0);
    desk.run(["extract", &bundle, "--identity", "key.txt", "objects/other/big", "-o", "out"]).code(0);
    assert_eq!(std::fs::read(desk.path("out/objects/other/big")).unwrap(), vec![1; 20 << 20]);
    desk.restore(&bundle, &target(&desk.bucket("target")), &[]).code(0);
    let restored: Arc<dyn Bucket> = Arc::new(Directory::new(desk.path("target")));
    let compared = compare::buckets(&cluster.bucket, &restored, None).await.unwrap();
    assert!(compared.is_equal(), "{compared}");
    cluster.assert_databases_restored();
    assert_eq!((bundles.keys().await.unwrap().len(), bundles.uploads().await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn for_the_databases_alone_no_object_is_read_again() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "dumps_alone").await else { return };
    let Some(to) = target_server() else { return };
    let mut noise = vec![0; 8 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    cluster.bucket.put("big", noise.into()).await.unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let (store, bundle) = (FaultServer::start().await, std::fs::read(desk.path("c.pacharc")).unwrap());
    let length = bundle.len();
    store.hold("c.pacharc", bundle);
    let url = store.url().replace("s3://bucket?", "s3://bucket/c.pacharc?");
    let done = desk.restore(&url, &words(&["--postgres", &to.url("postgres")]), &[]).code(0);
    done.says("counts and fingerprints as in the bundle");
    cluster.assert_databases_restored();
    let (mut whole, mut ranges) = (0, 0);
    for request in store.seen().into_iter().filter(|request| request.method == "GET") {
        let Some(range) = request.headers.get("range") else {
            whole += 1;
            continue;
        };
        let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        ranges += end.parse().unwrap_or(length) - start.parse::<usize>().unwrap() + 1;
    }
    assert!(whole == 1 && ranges < length / 2, "{whole} times as a whole, then {ranges} of {length} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_under_other_names_and_each_half_alone() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "halves").await else { return };
    let to = target_server().unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let url = to.url("postgres");
    let rename = format!("{}=Other \"name\"", cluster.database);
    desk.restore("c.pacharc", &words(&["--postgres", &url, "--database", &rename]), &[]).code(0);
    let from = cluster.server.url("postgres");
    let compared = compare::databases(&from, &url, &cluster.database, "Other \"name\"").unwrap();
    assert!(compared.is_equal(), "{compared}");
    desk.restore("c.pacharc", &words(&["--bucket", &desk.bucket("target")]), &[]).code(0);
    let restored: Arc<dyn Bucket> = Arc::new(Directory::new(desk.path("target")));
    let compared = compare::buckets(&cluster.bucket, &restored, None).await.unwrap();
    assert!(compared.is_equal(), "{compared}");

    // Backups of one half each.
    desk.backup(&cluster.databases(), "databases.pacharc", &[]).code(0);
    desk.run(["verify", "databases.pacharc", "--identity", "key.txt"]).code(0);
    desk.restore("databases.pacharc", &words(&["--postgres", &url]), &[]).code(0);
    cluster.assert_databases_restored();
    desk.restore("databases.pacharc", &words(&["--bucket", &desk.bucket("none")]), &[]).code(2).says("no bucket");
    desk.backup(&words(&["--bucket", &cluster.bucket_url]), "bucket.pacharc", &[]).code(0).says("no live set");
    desk.restore("bucket.pacharc", &words(&["--bucket", &desk.bucket("target 2")]), &[]).code(0);
    let restored: Arc<dyn Bucket> = Arc::new(Directory::new(desk.path("target 2")));
    let compared = compare::buckets(&cluster.bucket, &restored, None).await.unwrap();
    assert!(compared.is_equal(), "{compared}");
}

/// Whoever says which bundle it must be gets databases of what the catalog names, also where nothing else is restored.
#[tokio::test(flavor = "multi_thread")]
async fn databases_alone_of_the_bundle_that_it_must_be() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "must_be").await else { return };
    let Some(server) = target_server() else { return };
    desk.backup(&cluster.source(), "c.pacharc", &["--json-file", "events"]).code(0);
    let events = std::fs::read_to_string(desk.path("events")).unwrap();
    let finished: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    let id = finished["outcome"]["id"].as_str().unwrap();
    let databases = words(&["--postgres", &server.url("postgres")]);
    desk.restore("c.pacharc", &databases, &["--expect-id", &"0".repeat(64)]).code(5);
    cluster.assert_not_restored();
    desk.restore("c.pacharc", &databases, &["--expect-id", id]).code(0);
    cluster.assert_databases_restored();
}
