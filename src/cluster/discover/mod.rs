//! What a namespace says about its Pachyderm: version, databases, bucket, and who else writes to its Deployments.
//!
//! The live Deployments decide, as the pods that they start would; Helm's values do not, since hands and defaults have been
//! over them. Nothing is changed, and only what is needed is read.

mod account;
mod bucket;
mod database;
mod error;
mod found;
mod objects;
mod report;
mod tools;
mod version;
mod workload;

use kube::ResourceExt as _;
use serde::Serialize;

pub use bucket::{Bucket, Credentials, Place};
pub use database::{Client, Database};
pub use error::Error;
pub use found::Found;
pub use tools::{Tool, ToolKind, Tools};

use super::{Cluster, helm};
use crate::failure::{Explain as _, chain};
use objects::Objects;
use workload::Workload;

/// The annotation by which Helm marks what it has installed.
pub(in crate::cluster) const HELM_RELEASE: &str = "meta.helm.sh/release-name";

/// What was found. Secrets are in it, and do not print.
#[derive(Clone, Debug, Serialize)]
pub struct Discovery {
    /// The namespace.
    pub namespace: String,
    /// The API server.
    pub server: String,
    /// Pachyderm's version.
    pub version: Option<Found<String>>,
    /// Whether it is an enterprise server alone, which has no bucket.
    pub enterprise_server: bool,
    /// The name of the Helm release.
    pub release: Option<Found<String>>,
    /// What Helm's own record says of it; `None` where that may not be read.
    pub chart: Option<Found<Installed>>,
    /// The databases.
    pub database: Database,
    /// The bucket.
    pub bucket: Option<Bucket>,
    /// Who else writes to the Deployments.
    pub tools: Tools,
    /// What should be known of it, in words.
    pub warnings: Vec<String>,
}

/// What Helm has installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// The chart's name.
    pub chart: String,
    /// The chart's version.
    pub version: String,
    /// Which revision of the release.
    pub revision: u64,
    /// Helm's word for its state, e.g. `deployed`.
    pub status: String,
}

/// Looks at a namespace.
///
/// # Errors
/// [`Error`]: no Pachyderm, references that lead nowhere, rights that are missing, an API server that does not answer.
pub async fn discover(cluster: &Cluster) -> Result<Discovery, Error> {
    let objects = Objects::new(cluster);
    // The container of an enterprise server is called pachd, too.
    let pachd = Workload::read(&objects, "pachd", "pachd").await?;
    let enterprise = Workload::read(&objects, "pach-enterprise", "pachd").await?;
    let enterprise_server = pachd.is_none();
    let mut warnings = Vec::new();
    if let (Some(_), Some(_)) = (&pachd, &enterprise) {
        let warning = "an enterprise server (Deployment/pach-enterprise) runs here, too: databases of its own are not found \
                       unless --database names them";
        warnings.push(warning.to_owned());
    }
    let main = pachd.or(enterprise).ok_or_else(|| Error::NoPachyderm { namespace: cluster.namespace().to_owned() })?;
    let bouncer = Workload::read(&objects, "pg-bouncer", "pg-bouncer").await?;
    let database = Database::read(&main, bouncer.as_ref()).await?;
    if !database.is_verified() {
        let Found { value, found_in } = &database.sslmode;
        warnings.push(format!(
            "the cluster does not check whom it speaks to at {} (sslmode {value}, {found_in}): PGSSLMODE=verify-full and \
             --ca-file make pacharc do so",
            database.host.value
        ));
    }
    let bucket = match enterprise_server {
        true => None,
        false => Bucket::read(&main, &objects, &mut warnings).await?,
    };
    let release = main.deployment.annotations().get(HELM_RELEASE).cloned();
    let chart = match &release {
        Some(name) => installed(cluster, name, &mut warnings).await?,
        None => None,
    };
    Ok(Discovery {
        namespace: cluster.namespace().to_owned(),
        server: cluster.server().to_owned(),
        version: main.image().and_then(version::of_image),
        enterprise_server,
        chart,
        release: release.map(|name| Found::new(name, format!("{} annotation {HELM_RELEASE}", main.label()))),
        tools: Tools::read(cluster, &[&main.deployment]).await?,
        database,
        bucket,
        warnings,
    })
}

/// What Helm says of a release. Known is better, but it is not needed.
async fn installed(
    cluster: &Cluster,
    name: &str,
    warnings: &mut Vec<String>,
) -> Result<Option<Found<Installed>>, Error> {
    match helm::find(cluster, Some(name)).await {
        Ok(None) => Ok(None),
        Ok(Some(release)) => {
            let helm::Release { revision, status, chart, .. } = release;
            let found_in = format!("Helm's sh.helm.release.v1.{name}.v{revision}");
            let installed = Installed { chart: chart.name, version: chart.version, revision, status };
            Ok(Some(Found::new(installed, found_in)))
        }
        Err(helm::Error::Cluster(error)) if error.is_forbidden() => Ok(None),
        Err(helm::Error::Cluster(error)) => Err(error.into()),
        Err(error) => {
            let advice = error.advice().map(|advice| format!(". {advice}")).unwrap_or_default();
            warnings.push(chain(&error) + &advice);
            Ok(None)
        }
    }
}
