//! The pause of a backup that suspends, with a small bucket and with a large one, while pachd writes as long as it runs: what
//! lies in the bucket must not matter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use pacharc_sample::cluster::Options;
use pacharc_sample::postgres;
use pacharc_sample::writer::{self, LiveWriter};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::support::pachyderm::settled;
use crate::support::program::Running;
use crate::support::site::Site;

/// Bytes a second that the bucket gives: so slow that the copy takes far longer than the pause may.
const RATE: f64 = 150e6;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long"]
async fn the_pause_does_not_grow_with_the_bucket() {
    let scale: u64 = std::env::var("PACHARC_LONG_SCALE").map_or(1, |scale| scale.parse().unwrap());
    let mut figures = String::new();
    for objects in [100, 1000] {
        let Some((copy, pause, took)) = measure(u64::div_ceil(objects, scale)).await else { return };
        figures += &format!(
            "{objects:>5} objects of 10 MB: copied in {copy:.1} s, pause {pause:.2} s, backup {:.1} s\n",
            took.as_secs_f64()
        );
    }
    println!("{figures}");
}

/// How long the copy took, and the pause; `None` where a server is not installed.
async fn measure(objects: u64) -> Option<(f64, f64, Duration)> {
    let contents = Options { objects, sizes: 9_500_000..=10_500_000, jobs: 500, ..Options::default() };
    let site = Site::make_of(postgres::Options::default(), "host", &contents).await?;
    let mut values = site.outside();
    values["pachd"]["replicas"] = 2.into();
    // As a real one does: it ends what it is at.
    values["pachd"]["podAnnotations"] = json!({ "kubelab/stop-after": "2s" });
    let slow = slow_way_to(site.s3.port()).await;
    values["pachd"]["storage"]["amazon"]["customEndpoint"] = format!("http://127.0.0.1:{slow}").into();
    site.install(&values);
    settled(&site.lab, "pachd", 2).await;
    let end = CancellationToken::new();
    let pachd = tokio::spawn(write_while_it_runs(
        site.lab.api::<Deployment>(),
        site.postgres.url("pachyderm"),
        Arc::clone(&site.bucket),
        end.clone(),
    ));

    let recipient = site.desk.recipient.clone();
    let args = ["backup", "-o", "b.pacharc", "--recipient", &recipient, "--quiesce=suspend", "--json"];
    let mut command = site.command(&args, &[]);
    let begun = Instant::now();
    let run = tokio::task::spawn_blocking(move || Running::start(&mut command).finish()).await.unwrap().code(0);
    let took = begun.elapsed();
    let report = {
        end.cancel();
        pachd.await.unwrap()
    };
    assert!(report.commits > 0 && report.uploaded > 0, "{report:?}: nothing was written meanwhile");
    let text = run.text();
    let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let time = |name: &str| {
        let event = told.iter().find(|event| event["phase"] == name || event["step"] == name).unwrap();
        event["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
    };
    let copy = time("delta").duration_since(time("copy")).as_secs_f64();
    let pause = &told.last().unwrap()["outcome"]["pause"];
    // Not quiesced would mean that it grew past --max-pause, or that the writer went on.
    assert_eq!(pause["lost"], Value::Null, "{pause}");
    site.desk.run(["verify", "b.pacharc", "--identity", "key.txt"]).code(0).says("closed");
    Some((copy, pause["seconds"].as_f64().unwrap(), took))
}

/// What pachd does: writes as long as it is to run, and stops when it is scaled to zero.
async fn write_while_it_runs(
    deployments: kube::Api<Deployment>,
    url: String,
    bucket: Arc<dyn pacharc_sample::bucket::Bucket>,
    end: CancellationToken,
) -> writer::Report {
    let settings = writer::Options { pause: Duration::from_millis(20), ..writer::Options::default() };
    let (mut total, mut running) = (writer::Report::default(), None::<LiveWriter>);
    while !end.is_cancelled() {
        let wanted = deployments.get("pachd").await.unwrap().spec.unwrap().replicas.unwrap();
        running = match (running, wanted) {
            (None, 1..) => {
                let settings = writer::Options { seed: total.commits + 1, ..settings.clone() };
                Some(LiveWriter::start(&url, Arc::clone(&bucket), settings).unwrap())
            }
            (Some(writer), 0) => {
                let report = writer.stop().await.unwrap();
                total.commits += report.commits;
                total.uploaded += report.uploaded;
                None
            }
            (running, _) => running,
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if let Some(writer) = running {
        writer.stop().await.unwrap();
    }
    total
}

/// A port that leads to `port`, and from it at [`RATE`] for all connections together.
async fn slow_way_to(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let free = Arc::new(Mutex::new(tokio::time::Instant::now()));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let free = Arc::clone(&free);
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let up = async move { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
                let down = async move {
                    let mut buffer = vec![0; 64 << 10];
                    loop {
                        let read = from_server.read(&mut buffer).await?;
                        if read == 0 {
                            return to_client.shutdown().await;
                        }
                        let turn = {
                            let mut free = free.lock().await;
                            *free =
                                (*free).max(tokio::time::Instant::now()) + Duration::from_secs_f64(read as f64 / RATE);
                            *free
                        };
                        tokio::time::sleep_until(turn).await;
                        to_client.write_all(&buffer[..read]).await?;
                    }
                };
                let _ = tokio::join!(up, down);
            });
        }
    });
    own
}
