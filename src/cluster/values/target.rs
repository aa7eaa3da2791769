//! What the values of the new release must say of its place: database, bucket, host, image.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::credentials::PLACEHOLDER;
use super::{Captured, remove, set};
use crate::bucket::{BucketUrl, S3Url};
use crate::cluster::helm::lookup;

/// The Secret with the database's password, which the operator makes.
pub const DATABASE_SECRET: &str = "pachyderm-database";
/// Its key.
pub const DATABASE_KEY: &str = "postgresql-password";

/// The target of a restore, as the new release will see it.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The database server; `None`: databases were not restored, and placeholders stand for them.
    pub database: Option<Database>,
    /// The bucket; `None`: objects were not restored, and placeholders stand for it.
    pub bucket: Option<BucketUrl>,
    /// The namespace; `None`: not known yet.
    pub namespace: Option<String>,
    /// The name under which users reach the new cluster; `None`: as before.
    pub host: Option<String>,
    /// Which Pachyderm was backed up, where known.
    pub version: Option<String>,
    /// Which Pachyderm is wanted after it; `None`: the same.
    pub upgrade_to: Option<String>,
    /// Whether it is a rehearsal, cut off from the world.
    pub drill: bool,
}

/// The databases at the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// The server's name or address; empty for a socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The role that owns the databases.
    pub user: String,
    /// How the restore has spoken to it: libpq's `sslmode`.
    pub sslmode: &'static str,
    /// Whether the restore has shown it a client certificate.
    pub client_certificate: bool,
    /// Pachyderm's database; `None`: it was not restored.
    pub main: Option<String>,
    /// The identity database; `None`: it was not restored.
    pub identity: Option<String>,
}

impl Database {
    /// Whether pods cannot reach it under this name: a socket, or this very machine (perhaps a port-forward).
    fn is_local(&self) -> bool {
        let address: Option<IpAddr> = self.host.parse().ok();
        self.host.is_empty()
            || self.host.starts_with('/')
            || self.host == "localhost"
            || address.is_some_and(|address| address.is_loopback())
    }
}

impl Target {
    /// Writes it into `values`.
    pub(super) fn write(&self, values: &mut Map<String, Value>, captured: &Captured) {
        let chart = Chart::of(captured);
        write_database(values, self.database.as_ref(), &chart);
        match &self.bucket {
            Some(BucketUrl::S3(s3)) => write_s3(values, s3, &chart),
            Some(BucketUrl::Directory { .. }) => {
                set(values, "pachd.storage.backend", "LOCAL".into());
                for other in ["amazon", "google", "microsoft", "minio", "storageURL"] {
                    remove(values, &format!("pachd.storage.{other}"));
                }
                // A folder here is not one of the nodes'.
                set(values, "pachd.storage.local.hostPath", PLACEHOLDER.into());
            }
            None if self.lacks_bucket(captured) => clear_bucket(values, &chart),
            None => {}
        }
        if let Some(host) = &self.host {
            write_host(values, host, &chart);
        }
        if let Some(version) = &self.version {
            set(values, "pachd.image.tag", version.as_str().into());
        }
        if let Some(id) = captured.secret_text("pachyderm-deployment-id-secret", "CLUSTER_DEPLOYMENT_ID") {
            // An identifier that contexts of pachctl hold, and no secret.
            set(values, "pachd.clusterDeploymentID", id.into());
        }
        // It would put a snapshot of the source's over what was restored.
        if chart.value("restoreSnapshot.enabled") == Some(&Value::Bool(true)) {
            set(values, "restoreSnapshot.enabled", false.into());
        }
        if self.drill {
            write_drill(values, &chart);
        }
    }

    /// Whether the new release needs a bucket and none was restored. An enterprise server alone has none.
    pub(super) fn lacks_bucket(&self, captured: &Captured) -> bool {
        self.bucket.is_none() && Chart::of(captured).value("pachd.enabled") != Some(&Value::Bool(false))
    }
}

/// The chart of the source, as far as it is known.
struct Chart<'a> {
    computed: Option<&'a Map<String, Value>>,
}

impl<'a> Chart<'a> {
    fn of(captured: &'a Captured) -> Self {
        Self { computed: captured.own_release().map(|release| &release.computed) }
    }

    fn value(&self, path: &str) -> Option<&Value> {
        lookup(self.computed?, path)
    }

    /// Whether it has such a value. Where it is not known, it is one of today's.
    fn has(&self, path: &str) -> bool {
        self.computed.is_none() || self.value(path).is_some()
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.value(path)?.as_str().filter(|text| !text.is_empty())
    }
}

/// What was not restored gets a placeholder: the source's would be joined, even on a new server where that is the old one.
fn write_database(values: &mut Map<String, Value>, database: Option<&Database>, chart: &Chart<'_>) {
    let host = database.filter(|database| !database.is_local()).map_or(PLACEHOLDER, |database| database.host.as_str());
    set(values, "global.postgresql.postgresqlHost", host.into());
    if let Some(database) = database {
        // The chart's own default is a text, too.
        set(values, "global.postgresql.postgresqlPort", database.port.to_string().into());
        set(values, "global.postgresql.postgresqlUsername", database.user.as_str().into());
    }
    let main = database.and_then(|database| database.main.as_deref()).unwrap_or(PLACEHOLDER);
    set(values, "global.postgresql.postgresqlDatabase", main.into());
    let identity = database.and_then(|database| database.identity.as_deref());
    // Since 2.2.
    if identity.is_some() || chart.has("global.postgresql.identityDatabaseFullNameOverride") {
        let identity = identity.unwrap_or(PLACEHOLDER);
        set(values, "global.postgresql.identityDatabaseFullNameOverride", identity.into());
    }
    // Since 2.1; the chart makes a Secret from the clear value otherwise.
    if chart.has("global.postgresql.postgresqlExistingSecretName") {
        remove(values, "global.postgresql.postgresqlPassword");
        set(values, "global.postgresql.postgresqlExistingSecretName", DATABASE_SECRET.into());
        set(values, "global.postgresql.postgresqlExistingSecretKey", DATABASE_KEY.into());
    } else {
        set(values, "global.postgresql.postgresqlPassword", PLACEHOLDER.into());
    }
    remove(values, "global.postgresql.postgresqlPostgresPassword");
    write_tls(values, database, chart);
    // The one that the chart brings would be an empty one beside; it is on where nothing is said.
    if chart.has("postgresql.enabled") {
        set(values, "postgresql.enabled", false.into());
    }
    if chart.value("cloudsqlAuthProxy.enabled") == Some(&Value::Bool(true)) {
        set(values, "cloudsqlAuthProxy.enabled", false.into());
    }
}

/// TLS to the new server as the restore has spoken to it: certificates of the old one are of no use.
fn write_tls(values: &mut Map<String, Value>, database: Option<&Database>, chart: &Chart<'_>) {
    let (authority, client) = ("global.postgresql.postgresqlSSLCACert", "global.postgresql.postgresqlSSLSecret");
    let checks = database.is_some_and(|database| matches!(database.sslmode, "verify-ca" | "verify-full"));
    // Of a server that is not known yet, what the old one needed is asked for.
    let needed = match database {
        Some(database) => [(authority, checks), (client, database.client_certificate)],
        None => [authority, client].map(|path| (path, chart.text(path).is_some())),
    };
    for (path, is_needed) in needed {
        match is_needed {
            true => set(values, path, PLACEHOLDER.into()),
            false => forget(values, chart, path, "".into()),
        }
    }
    if let Some(database) = database {
        set(values, "global.postgresql.postgresqlSSL", database.sslmode.into());
        // Of pachd's way around pg-bouncer; anything but nothing makes it `require`.
        match checks || database.sslmode == "require" {
            true => set(values, "global.postgresql.ssl", "require".into()),
            false => forget(values, chart, "global.postgresql.ssl", "".into()),
        }
    }
}

/// Takes away a value of the old place. Where the others lie elsewhere, only `nothing` in its place does that.
fn forget(values: &mut Map<String, Value>, chart: &Chart<'_>, path: &str, nothing: Value) {
    match chart.computed {
        Some(_) => remove(values, path),
        None => set(values, path, nothing),
    }
}

/// Values that name a bucket, or the server that it lies on (chart, `values.yaml`, 2.0 to 2.12).
const BUCKETS: [&str; 9] = [
    "pachd.storage.storageURL",
    "pachd.storage.amazon.bucket",
    "pachd.storage.amazon.region",
    "pachd.storage.amazon.customEndpoint",
    "pachd.storage.google.bucket",
    "pachd.storage.microsoft.container",
    "pachd.storage.minio.bucket",
    "pachd.storage.minio.endpoint",
    "pachd.storage.local.hostPath",
];

/// No bucket was restored, and a second `pachd` on the source's would delete what the first one needs.
fn clear_bucket(values: &mut Map<String, Value>, chart: &Chart<'_>) {
    for path in BUCKETS {
        if chart.computed.is_none() || chart.text(path).is_some() {
            set(values, path, PLACEHOLDER.into());
        }
    }
    // The one that must be given in any case.
    match chart.text("pachd.storage.backend").or_else(|| chart.text("deployTarget")) {
        Some("LOCAL") => set(values, "pachd.storage.local.hostPath", PLACEHOLDER.into()),
        _ if chart.has("pachd.storage.storageURL") => set(values, "pachd.storage.storageURL", PLACEHOLDER.into()),
        _ => {}
    }
}

fn write_s3(values: &mut Map<String, Value>, s3: &S3Url, chart: &Chart<'_>) {
    set(values, "pachd.storage.backend", "AMAZON".into());
    for other in ["google", "microsoft", "minio", "local"] {
        remove(values, &format!("pachd.storage.{other}"));
    }
    // Where the target says no region, it is in the environment of whoever restores: the source's would be wrong.
    let region = s3.region.as_deref().unwrap_or(PLACEHOLDER);
    set(values, "pachd.storage.amazon.bucket", s3.bucket.as_str().into());
    set(values, "pachd.storage.amazon.region", region.into());
    let endpoint = s3.endpoint.as_ref().map(|url| {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        (format!("{}{port}", url.host_str().unwrap_or_default()), url.scheme() == "http")
    });
    match &endpoint {
        Some((host, plain)) => {
            set(values, "pachd.storage.amazon.customEndpoint", host.as_str().into());
            set(values, "pachd.storage.amazon.disableSSL", (*plain).into());
        }
        None => {
            forget(values, chart, "pachd.storage.amazon.customEndpoint", "".into());
            forget(values, chart, "pachd.storage.amazon.disableSSL", false.into());
        }
    }
    // Whether the old server's certificate was checked, and how the old bucket was read, says nothing of the new one.
    forget(values, chart, "pachd.storage.amazon.verifySSL", true.into());
    forget(values, chart, "pachd.storage.amazon.cloudFrontDistribution", "".into());
    // From 2.9 on, and from 2.10 on it is what counts.
    if chart.has("pachd.storage.storageURL") {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("region", region);
        if let Some((host, plain)) = &endpoint {
            query.append_pair("endpoint", host);
            if *plain {
                query.append_pair("disableSSL", "true");
            }
        }
        set(values, "pachd.storage.storageURL", format!("s3://{}?{}", s3.bucket, query.finish()).into());
    }
    // Given at the source, and so by no role of the pods: the target needs its own.
    let is_given = |path| chart.text(path).is_some();
    if endpoint.is_some() || is_given("pachd.storage.amazon.id") || is_given("pachd.storage.minio.id") {
        set(values, "pachd.storage.amazon.id", PLACEHOLDER.into());
        set(values, "pachd.storage.amazon.secret", PLACEHOLDER.into());
    }
}

/// Puts the new host in the place of the old ones, also inside of URLs.
fn write_host(values: &mut Map<String, Value>, host: &str, chart: &Chart<'_>) {
    let mut old: Vec<&str> = ["proxy.host", "ingress.host"].into_iter().filter_map(|path| chart.text(path)).collect();
    // One may be a part of the other.
    old.sort_by_key(|old| std::cmp::Reverse(old.len()));
    for path in super::HOSTS {
        let Some(text) = lookup(values, path).and_then(Value::as_str) else { continue };
        // One and no more: the new host may have an old one in it.
        if let Some(old) = old.iter().find(|old| text.contains(**old)) {
            let moved = text.replace(old, host);
            set(values, path, moved.into());
        }
    }
    if chart.value("ingress.enabled") == Some(&Value::Bool(true)) {
        set(values, "ingress.host", host.into());
    }
    if chart.has("proxy.host") {
        set(values, "proxy.host", host.into());
    }
}

/// No door to the outside, and no reports to the makers.
fn write_drill(values: &mut Map<String, Value>, chart: &Chart<'_>) {
    let closed = [
        ("ingress.enabled", json!(false)),
        ("proxy.service.type", json!("ClusterIP")),
        ("pachd.externalService.enabled", json!(false)),
        ("pachd.metrics.enabled", json!(false)),
        ("console.config.disableTelemetry", json!(true)),
    ];
    for (path, value) in closed {
        if chart.has(path) {
            set(values, path, value);
        }
    }
}
