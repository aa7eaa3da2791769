//! A discovery for people: each fact with the place where it was found, secrets masked.

use std::fmt::Display;

use super::{Bucket, Discovery, Found, Installed, Place};
use crate::failure::Class;
use crate::outcome::{Facts, Outcome};

impl Discovery {
    /// Adds what was found to what people read.
    pub(crate) fn describe(&self, facts: &mut Facts) {
        facts.add("namespace", format!("{} at {}", self.namespace, self.server));
        let kind = if self.enterprise_server { "enterprise server" } else { "Pachyderm" };
        match &self.version {
            Some(version) => add(facts, kind, &version.value, version),
            None => facts.add(kind, "of an unknown version: its image has no tag"),
        }
        if let Some(release) = &self.release {
            add(facts, "Helm", format!("release {}", release.value), release);
        }
        if let Some(installed) = &self.chart {
            let Installed { chart, version, revision, status } = &installed.value;
            add(facts, "", format!("chart {chart} {version}, revision {revision} ({status})"), installed);
        }
        let database = &self.database;
        let server = format!("{}:{}", database.host.value, database.port.value);
        add(facts, "PostgreSQL", server, &database.host);
        add(facts, "role", &database.user.value, &database.user);
        match &database.password {
            Some(password) => add(facts, "password", "***", password),
            None => facts.add("password", "none: Cloud SQL's proxy logs in by IAM"),
        }
        add(facts, "TLS", format!("sslmode {}", database.sslmode.value), &database.sslmode);
        if let Some(authorities) = &database.authorities {
            add(facts, "", "authorities", authorities);
        }
        if let Some(client) = &database.client {
            add(facts, "", "client certificate", &client.certificate);
        }
        add(facts, "database", &database.pachyderm.value, &database.pachyderm);
        add(facts, "database", format!("{}, where it exists", database.dex.value), &database.dex);
        match &self.bucket {
            Some(bucket) => bucket.describe(facts),
            None => facts.add("bucket", "none: an enterprise server keeps no objects"),
        }
        for tool in &self.tools.found {
            let what = format!("{} {} writes to {}", tool.kind.label(), tool.name, tool.target);
            facts.add("others", format!("{what}  [{}]", tool.found_in));
        }
        for unknown in &self.tools.unknown {
            facts.add("unknown", format!("{unknown}: may not be listed"));
        }
    }
}

impl Bucket {
    fn describe(&self, facts: &mut Facts) {
        add(facts, "storage", &self.backend.value, &self.backend);
        match &self.place {
            Place::S3 { url } => add(facts, "bucket", &url.value, url),
            Place::Other { url } => add(facts, "bucket", format!("{}, not yet supported", url.value), url),
            Place::Folder { path: Some(path) } => {
                add(facts, "bucket", format!("folder {} of a node", path.value), path)
            }
            Place::Folder { path: None } => facts.add("bucket", "a folder inside the pods"),
        }
        match (&self.credentials, &self.account, &self.place) {
            (Some(credentials), ..) => add(facts, "access key", "***", &credentials.id),
            (None, Some(account), _) => {
                add(facts, "access key", format!("none: pods are {}", account.value), account);
            }
            (None, None, Place::Folder { .. }) => {}
            (None, None, _) => facts.add("access key", "none in the cluster"),
        }
    }
}

fn add<T>(facts: &mut Facts, name: &str, value: impl Display, found: &Found<T>) {
    facts.add(name, format!("{value}  [{}]", found.found_in));
}

impl Outcome for Discovery {
    fn class(&self) -> Option<Class> {
        None
    }

    fn summary(&self) -> String {
        String::new()
    }

    fn product(&self) -> Option<String> {
        let mut facts = Facts::default();
        self.describe(&mut facts);
        Some(facts.into_text())
    }
}
