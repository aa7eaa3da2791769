//! The large runs: many objects, large objects, large tables, each through every command, within `--max-memory`.
//!
//! They take gigabytes and many minutes, so `make test-long` runs them and `cargo test` does not. What they are made of is
//! seeded; a run that was broken off goes on with the first step that is not done. `PACHARC_LONG_DIR` is where they keep
//! their files (`target/long`; servers do not run as root, so others must be able to enter it), `PACHARC_LONG_SCALE` a
//! number by which all sizes are divided: 50 makes it a matter of a minute.

mod course;
mod pattern;
mod pause;

use std::sync::Arc;

use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::chunk::Chunk;
use pacharc_sample::{cluster, compare};

use self::course::Course;
use self::pattern::Pattern;
use crate::support::program::words;
use crate::support::sdk_bucket::SdkBucket;
use crate::support::{minio, s3_server::S3Server, versitygw};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long"]
async fn a_hundred_thousand_objects() {
    let mut course = Course::open("objects", 256 * MIB);
    let Some(from) = course.server("from") else { return };
    let to = course.server("to").unwrap();
    let directory: Arc<dyn Bucket> = Arc::new(Directory::new(course.path("source")));
    if !course.is_done("source") {
        let options = cluster::Options { objects: course.scaled(100_000), sizes: 1..=6000, ..Default::default() };
        cluster::make(&from.url("postgres"), Arc::clone(&directory), &options).await.unwrap();
        course.done("source", "");
    }
    let bucket = course.desk.bucket("source");
    course.backup("backup", &words(&["--postgres", &from.url("postgres"), "--bucket", &bucket]), "c.pacharc");
    course.verify("c.pacharc");
    let one = format!("objects/{}", directory.keys().await.unwrap()[0]);
    course.look_into("c.pacharc", &one);

    let target = course.desk.bucket("target");
    let postgres = words(&["--postgres", &to.url("postgres"), "--owner", "pachyderm"]);
    to.psql("postgres", "DROP ROLE IF EXISTS pachyderm; CREATE ROLE pachyderm LOGIN").ok();
    course.restore("restore", "c.pacharc", &[postgres, words(&["--bucket", &target])].concat());
    for name in ["pachyderm", "dex"] {
        let compared = compare::databases(&from.url("postgres"), &to.url("postgres"), name, name).unwrap();
        assert!(compared.is_equal() && compared.compared > 30, "{compared}");
    }
    let restored: Arc<dyn Bucket> = Arc::new(Directory::new(course.path("target")));
    assert_equal(&directory, &restored).await;

    // A server does not outlive the test: what goes through it is one step.
    if !course.is_done("backup from S3") {
        course.undo("restore to S3");
        let Some(s3) = server().await else { return course.finish((from, to)) };
        let bucket = SdkBucket::make(&s3, "many").await;
        course.restore("restore to S3", "c.pacharc", &words(&["--bucket", &bucket.url]));
        let source = words(&["--postgres", &from.url("postgres"), "--bucket", &bucket.url]);
        course.backup("backup from S3", &source, "from-s3.pacharc");
        assert_equal(&directory, &(Arc::new(bucket) as Arc<dyn Bucket>)).await;
    }
    course.finish((from, to));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long"]
async fn an_object_of_6_gib() {
    let mut course = Course::open("object", 128 * MIB);
    let huge = Pattern { seed: 1, size: course.scaled(6 * GIB) + 12345 };
    // A chunk above the largest entry: Pachyderm makes none, yet its key says what it must be.
    let chunk = || Chunk::generate(1, 1, &(70 * MIB..=70 * MIB));
    let directory = Directory::new(course.path("source"));
    if !course.is_done("source") {
        let chunk = chunk();
        directory.put(&chunk.key(1), chunk.stored.into()).await.unwrap();
        huge.write(&directory.path("a/huge"));
        course.done("source", "");
    }
    let source = words(&["--bucket", &course.desk.bucket("source")]);
    course.backup("backup", &source, "c.pacharc");
    course.verify("c.pacharc");
    course.look_into("c.pacharc", "objects/other/a%2Fhuge");
    huge.assert_is_file(&course.path("out/objects/other/a%2Fhuge")).await;
    std::fs::remove_dir_all(course.path("out")).unwrap();
    course.restore("restore", "c.pacharc", &words(&["--bucket", &course.desk.bucket("target")]));
    let target = Directory::new(course.path("target"));
    huge.assert_is_file(&target.path("a/huge")).await;
    assert!(target.get(&chunk().key(1)).await.unwrap().unwrap() == chunk().stored);
    std::fs::remove_dir_all(course.path("target")).unwrap();

    if !course.is_done("backup from S3") {
        course.undo("restore to S3");
        let Some(s3) = server().await else { return course.finish(()) };
        let bucket = SdkBucket::make(&s3, "large").await;
        course.restore("restore to S3", "c.pacharc", &words(&["--bucket", &bucket.url]));
        let got = bucket.client.get_object().bucket(&bucket.name).key("a/huge").send().await.unwrap();
        assert!(got.e_tag().unwrap().contains('-'), "not written in parts");
        huge.assert_is(got.body.into_async_read()).await;
        assert_eq!(bucket.uploads().await, 0);
        std::fs::remove_file(course.path("c.pacharc")).unwrap();
        course.backup("backup from S3", &words(&["--bucket", &bucket.url]), "from-s3.pacharc");
        course.run("verify from S3", &words(&["verify", "from-s3.pacharc", "--identity", "key.txt"]));
    }
    course.finish(());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long"]
async fn a_table_of_5_gib() {
    const NAME: &str = "Große \"Datenbank\"";
    let mut course = Course::open("table", 256 * MIB);
    let Some(from) = course.server("from") else { return };
    let to = course.server("to").unwrap();
    if !course.is_done("source") {
        from.psql("postgres", "CREATE ROLE holder").unwrap();
        from.psql("postgres", "CREATE DATABASE \"Große \"\"Datenbank\"\"\" TEMPLATE template0").unwrap();
        // Rows of about 1 KiB, and one row of 200 MB.
        let sizes = [("rows", course.scaled(5 * GIB / 1060)), ("row_size", course.scaled(200_000_000))];
        let set: String = sizes.iter().map(|(name, value)| format!("\\set {name} {value}\n")).collect();
        from.psql(NAME, &(set + include_str!("database.sql"))).unwrap();
        course.done("source", "");
    }
    let source = words(&["--postgres", &from.url("postgres"), "--database", NAME]);
    course.backup("backup", &source, "c.pacharc");
    course.verify("c.pacharc");
    course.restore("restore", "c.pacharc", &words(&["--postgres", &to.url("postgres")]));
    let size = "SELECT pg_total_relation_size('\"Größe\".big') >= 1000::bigint * (SELECT count(*) FROM \"Größe\".big)";
    assert_eq!(to.psql(NAME, size).unwrap(), "t");
    if !course.is_done("compare") {
        let compared = compare::databases(&from.url("postgres"), &to.url("postgres"), NAME, NAME).unwrap();
        assert!(compared.is_equal() && compared.compared > 30, "{compared}");
        course.done("compare", "");
    }
    course.finish((from, to));
}

/// An S3 server that lists many keys fast, or the one that is there.
async fn server() -> Option<S3Server> {
    match minio::start().await {
        Some(server) => Some(server),
        None => versitygw::start().await,
    }
}

async fn assert_equal(from: &Arc<dyn Bucket>, to: &Arc<dyn Bucket>) {
    let compared = compare::buckets(from, to, None).await.unwrap();
    assert!(compared.is_equal() && compared.compared > 0, "{compared}");
}
