//! A read that gives wrong bytes once is no damage: it is read again, and told how often.

use pacharc_sample::chunk::Chunk;
use serde_json::Value;

use crate::support::fault_server::{Fault, FaultServer};
use crate::support::program::{Desk, Run, words};

/// The outcome of a run with `--json`.
fn outcome(run: &Run) -> Value {
    let last = run.text().lines().last().unwrap().to_owned();
    serde_json::from_str::<Value>(&last).unwrap()["outcome"].take()
}

/// A bucket with some chunks; the key of one of them.
async fn bucket() -> (FaultServer, String) {
    let server = FaultServer::start().await;
    let mut last = String::new();
    for number in 0..5 {
        let chunk = Chunk::generate(1, number, &(1000..=1000));
        last = chunk.key(0);
        server.hold(&last, chunk.stored);
    }
    (server, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_comes_wrong_is_read_again() {
    let (desk, (server, key)) = (Desk::new(), bucket().await);
    let source = words(&["--bucket", &server.url()]);
    let back_up = |output: &str| desk.backup(&source, output, &["--json"]);
    let told = outcome(&back_up("quiet.pacharc").code(0));
    assert_eq!((&told["reread"], &told["retried"]), (&0.into(), &0.into()));
    server.plan_for("GET", &key, [Fault::Flip, Fault::Flip]);
    let told = outcome(&back_up("wrong.pacharc").code(0));
    assert_eq!((&told["reread"], &told["objects"]["rotten"]["count"]), (&2.into(), &0.into()));
    server.plan_for("GET", &key, [Fault::Refuse(503, "SlowDown"), Fault::Cut(100)]);
    let told = outcome(&back_up("slow.pacharc").code(0));
    assert_eq!((&told["reread"], &told["retried"]), (&0.into(), &2.into()));
    desk.run(["verify", "slow.pacharc", "--identity", "key.txt"]).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_comes_wrong_is_read_again() {
    let (desk, (server, _)) = (Desk::new(), bucket().await);
    desk.backup(&words(&["--bucket", &server.url()]), "c.pacharc", &[]).code(0);
    let good = std::fs::read(desk.path("c.pacharc")).unwrap();
    server.hold("c.pacharc", good.clone());
    let url = server.url().replace("s3://bucket", "s3://bucket/c.pacharc");
    // Without what stands there nothing can be read.
    let about = good.windows(9).position(|bytes| bytes == b"\"format\":").unwrap() + 1;
    for args in [&["verify", &url, "--json"][..], &["verify", &url, "--json", "--identity", "key.txt"]] {
        let verify = || desk.run(args);
        let quiet = verify().code(0);
        assert_eq!(outcome(&quiet)["reread"], 0);
        assert!(!quiet.stderr.contains("read again"), "{}", quiet.stderr);
        assert_eq!(outcome(&quiet)["id"].as_str().unwrap().len(), 64);
        // What cannot be read to its end is not damaged.
        server.plan_for("GET", "c.pacharc", [Fault::Cut(5000)].into_iter().chain([Fault::Cut(0); 9]));
        let run = verify().code(7);
        assert!(!run.text().contains("damaged"), "{}", run.text());
        server.calm();
        server.plan_for("GET", "c.pacharc", [Fault::Flip]);
        let run = verify().code(0).says("read again");
        let told = outcome(&run);
        assert_eq!((&told["reread"], &told["verdict"]), (&1.into(), &"sound".into()));
        server.plan_for("GET", "c.pacharc", [Fault::FlipAt(about)]);
        assert_eq!(outcome(&verify().code(0).says("read again"))["reread"], 1);
        assert!(!run.text().contains("\"damage\""), "{}", run.text());
        // What is wrong each time is damage, and told once.
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        server.hold("c.pacharc", bad);
        let run = verify().code(3);
        let told = outcome(&run);
        assert_eq!((&told["reread"], &told["verdict"]), (&1.into(), &"damaged".into()));
        assert_eq!(run.text().matches("\"damage\"").count() as u64, told["damages"].as_u64().unwrap());
        server.hold("c.pacharc", good.clone());
    }
}
