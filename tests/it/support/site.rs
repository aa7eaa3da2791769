//! A cluster in a namespace: a release that the real helm has installed on a real API server, whose database and bucket are
//! real servers of this machine.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use pacharc_sample::bucket::Bucket;
use pacharc_sample::cluster::{self, Options};
use pacharc_sample::compare;
use pacharc_sample::postgres::{self, TempServer};
use serde_json::{Value, json};

use super::cluster::{target, target_server};
use super::kubelab::{Kubelab, Lab};
use super::program::{Desk, Run, Running, words};
use super::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};
use super::sdk_bucket::SdkBucket;
use super::versitygw;
use crate::discover::chart;

pub const PASSWORD: &str = "plantedPassword'5e\\2a";

/// A cluster's servers, and a namespace for its release.
pub struct Site {
    pub lab: Lab,
    pub desk: Desk,
    pub postgres: TempServer,
    pub s3: S3Server,
    pub bucket: Arc<dyn Bucket>,
    pub made: cluster::Made,
}

impl Site {
    /// Small servers that ask for passwords; `None`, having said so, where something is not installed.
    pub async fn make() -> Option<Self> {
        Self::make_with(postgres::Options::default(), "host").await
    }

    /// The same with servers that are set up otherwise.
    pub async fn make_with(server: postgres::Options, connections: &str) -> Option<Self> {
        Self::make_of(server, connections, &Options { objects: 60, jobs: 500, ..Options::default() }).await
    }

    /// The same with other contents.
    pub async fn make_of(mut options: postgres::Options, connections: &str, contents: &Options) -> Option<Self> {
        let lab = Kubelab::shared()?.namespace().await;
        let hba = format!(
            "local all all trust\nhost all postgres 127.0.0.1/32 trust\n{connections} all all 127.0.0.1/32 scram-sha-256\n"
        );
        options.files.push(("pg_hba.conf".into(), hba.into()));
        let postgres = TempServer::start_or_skip(&options).unwrap()?;
        let s3 = versitygw::start().await?;
        let role = format!("CREATE ROLE pachyderm LOGIN PASSWORD '{}'", PASSWORD.replace('\'', "''"));
        postgres.psql("postgres", &role).unwrap();
        let bucket: Arc<dyn Bucket> = Arc::new(SdkBucket::make(&s3, "lake").await);
        let made = cluster::make(&postgres.url("postgres"), Arc::clone(&bucket), contents).await.unwrap();
        Some(Self { lab, desk: Desk::new(), postgres, s3, bucket, made })
    }

    /// Values of a release whose servers are inside the cluster, as pods see it.
    pub fn inside(&self) -> Value {
        let forward = |port: u16, to: u16| json!({ format!("kubelab/forward-{port}"): format!("127.0.0.1:{to}") });
        json!({
            "global": { "postgresql": { "postgresqlPassword": PASSWORD } },
            "postgresql": { "podAnnotations": forward(5432, self.postgres.port()) },
            "minio": { "enabled": true, "podAnnotations": forward(9000, self.s3.port()) },
            "pachd": { "storage": {
                "storageURL": "s3://lake?endpoint=minio:9000&disableSSL=true&region=us-east-1",
                "amazon": { "id": ACCESS_KEY, "secret": SECRET_KEY },
            }},
        })
    }

    /// Values of a release whose servers are outside, and reached as from anywhere.
    pub fn outside(&self) -> Value {
        let port = self.postgres.port().to_string();
        json!({
            "generation": "2.9",
            "global": { "postgresql": {
                "postgresqlHost": "127.0.0.1", "postgresqlPort": port, "postgresqlPassword": PASSWORD,
            }},
            "postgresql": { "enabled": false },
            "pachd": { "image": { "tag": "2.9.4" }, "storage": { "amazon": {
                "bucket": "lake", "id": ACCESS_KEY, "secret": SECRET_KEY, "region": "us-east-1",
                "customEndpoint": self.s3.endpoint(),
            }}},
        })
    }

    pub fn install(&self, values: &Value) {
        let file = self.desk.path("values.json");
        std::fs::write(&file, values.to_string()).unwrap();
        self.lab.helm(
            ["upgrade".as_ref(), "--install".as_ref(), "pachyderm".as_ref(), chart().as_os_str()]
                .into_iter()
                .chain(["--values".as_ref(), file.as_os_str()]),
        );
    }

    pub async fn wait_for(&self, set: &str) {
        let ready = |set: Option<&StatefulSet>| {
            set.and_then(|set| set.status.as_ref()).and_then(|status| status.ready_replicas) == Some(1)
        };
        kube::runtime::wait::await_condition(self.lab.api::<StatefulSet>(), set, ready).await.unwrap();
    }

    pub fn args(&self, command: &[&str], more: &[&str]) -> Vec<String> {
        [words(command), self.lab.flags(), words(more)].concat()
    }

    /// A command with `--namespace`, in surroundings that would lead it astray.
    pub fn command(&self, command: &[&str], more: &[&str]) -> std::process::Command {
        let mut command = self.desk.command(self.args(command, more));
        command.env("AWS_ACCESS_KEY_ID", "stranger").env("AWS_SECRET_ACCESS_KEY", "stranger");
        command.env("PGHOST", "stranger.invalid").env("PGHOSTADDR", "127.0.0.99").env("PGPASSWORD", "stranger");
        command
    }

    pub fn run(&self, command: &[&str], more: &[&str]) -> Run {
        Running::start(&mut self.command(command, more)).finish()
    }

    pub fn backup(&self, output: &str, more: &[&str]) -> Run {
        let recipient = self.desk.recipient.clone();
        self.run(&["backup", "-o", output, "--recipient", &recipient], more)
    }

    /// Verifies a bundle, restores it elsewhere, and compares that with the source. `database` names the target's.
    pub async fn assert_whole(&self, bundle: &str, name: &str) {
        self.desk.run(["verify", bundle, "--identity", "key.txt"]).code(0).says("closed");
        let folder = self.desk.path("restored");
        std::fs::create_dir(&folder).unwrap();
        let (pachyderm, dex) = (format!("pachyderm_{name}"), format!("dex_{name}"));
        let renamed = [format!("pachyderm={pachyderm}"), format!("dex={dex}")];
        let more = ["--database", renamed[0].as_str(), "--database", renamed[1].as_str()];
        self.desk.restore(bundle, &target(&self.desk.bucket("restored")), &more).code(0);
        let (from, to) = (self.postgres.url("postgres"), target_server().unwrap().url("postgres"));
        for (source, restored) in [("pachyderm", &pachyderm), ("dex", &dex)] {
            let compared = compare::databases(&from, &to, source, restored).unwrap();
            assert!(compared.is_equal() && compared.compared > 30, "{compared}");
        }
        let restored: Arc<dyn Bucket> = Arc::new(pacharc_sample::bucket::Directory::new(folder));
        let compared = compare::buckets(&self.bucket, &restored, None).await.unwrap();
        assert!(compared.is_equal() && compared.compared > 60, "{compared}");
    }
}
