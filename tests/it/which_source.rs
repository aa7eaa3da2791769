//! A restore never goes into its source. Where it cannot be told whether that is what the target is, it says so and goes on:
//! the old source may be gone for good.

use pacharc::keys::LockNames;
use pacharc_format::manifest::{self, Manifest};
use pacharc_format::{BundleWriter, Head, WriterOptions};
use pacharc_sample::bucket::{Bucket as _, Directory};
use pacharc_sample::postgres::{Options, TempServer};

use crate::support::cluster::Cluster;
use crate::support::program::{Desk, words};

const UNKNOWN: &str = "pacharc: warning: cannot tell whether";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_say_which_one_it_is() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "which").await else { return };
    let Some(to) = TempServer::start_or_skip(&Options::default()).unwrap() else { return };
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    to.psql("postgres", "CREATE ROLE modest LOGIN CREATEDB").unwrap();
    let target = words(&["--postgres", &to.url_as("modest", "postgres"), "--database", &cluster.dex]);
    to.psql("postgres", "REVOKE EXECUTE ON FUNCTION pg_control_system FROM public").unwrap();
    let planned = [words(&["plan"]), Desk::restore_args("c.pacharc", &target, &[])].concat();
    desk.run(planned).code(0).says(UNKNOWN);
    desk.restore("c.pacharc", &target, &[]).code(0).says(UNKNOWN);

    // Under another name nothing of the source can be meant; and who may ask knows.
    let renamed = words(&["--postgres", &to.url_as("modest", "postgres"), "--database", &format!("{}=x", cluster.dex)]);
    let run = desk.restore("c.pacharc", &renamed, &[]).code(0);
    assert!(!run.stderr.contains(UNKNOWN), "{}", run.stderr);
    to.psql("postgres", &format!("DROP DATABASE \"{}\"", cluster.dex)).unwrap();
    to.psql("postgres", "GRANT EXECUTE ON FUNCTION pg_control_system TO public").unwrap();
    let run = desk.restore("c.pacharc", &target, &[]).code(0);
    assert!(!run.stderr.contains(UNKNOWN), "{}", run.stderr);
}

#[tokio::test]
async fn a_source_that_does_not_say_which_one_it_is() {
    let desk = Desk::new();
    let Some(from) = TempServer::start_or_skip(&Options::default()).unwrap() else { return };
    from.psql("postgres", "CREATE ROLE modest LOGIN").unwrap();
    from.psql("postgres", "CREATE DATABASE d OWNER modest").unwrap();
    from.psql("d", "REVOKE EXECUTE ON FUNCTION pg_control_system FROM public").unwrap();
    let source = words(&["--postgres", &from.url_as("modest", "postgres"), "--database", "d"]);
    desk.backup(&source, "c.pacharc", &[]).code(0);
}

#[tokio::test]
async fn a_directory_that_is_gone_is_not_the_source() {
    let desk = Desk::new();
    let source = Directory::new(desk.path("source"));
    source.put("a", "text".into()).await.unwrap();
    let bucket = |name| words(&["--bucket", &desk.bucket(name)]);
    desk.backup(&bucket("source"), "c.pacharc", &[]).code(0);
    desk.restore("c.pacharc", &bucket("source"), &[]).code(5).says("is the source of this bundle");
    std::fs::remove_dir_all(desk.path("source")).unwrap();
    for name in ["other", "source"] {
        let run = desk.restore("c.pacharc", &bucket(name), &[]).code(0);
        assert!(!run.stderr.contains(UNKNOWN), "{}", run.stderr);
        assert_eq!(Directory::new(desk.path(name)).keys().await.unwrap(), ["a"]);
    }
}

#[tokio::test]
async fn a_bucket_of_a_kind_that_is_not_known_is_no_obstacle() {
    let desk = Desk::new();
    let bucket = Some("gs://pachyderm".to_owned());
    let bundle = uuid::Uuid::new_v4();
    let head = Head {
        bundle,
        postgres: None,
        bucket: bucket.clone(),
        pachyderm: None,
        databases: Vec::new(),
        estimated_bytes: None,
        namespace: None,
    };
    let options = WriterOptions {
        bundle,
        created: "2025-01-01T00:00:00Z".to_owned(),
        version: "0".to_owned(),
        lock: LockNames { recipients: vec![desk.recipient.clone()], ..LockNames::default() }.read().unwrap(),
        jobs: 1,
        segment_target: 1 << 20,
        entry_limit: 1 << 20,
        sealing: 4 << 20,
        level: 3,
        temp_dir: desk.folder().to_owned(),
        spool_memory: 1 << 20,
    };
    let file = tokio::fs::File::create(desk.path("c.pacharc")).await.unwrap();
    let (catalog, _) = BundleWriter::create(file, options, head).await.unwrap().finish_entries().await.unwrap();
    let source = manifest::Source { bucket, ..manifest::Source::default() };
    let objects = Some(manifest::Objects::default());
    catalog.finish(Manifest { source, objects, ..Manifest::default() }, None).await.unwrap();

    std::fs::create_dir(desk.path("target")).unwrap();
    let target = words(&["--bucket", &desk.bucket("target")]);
    desk.restore("c.pacharc", &target, &[]).code(0).says(UNKNOWN).says("gs://pachyderm");
}
