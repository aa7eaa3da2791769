//! Which revision of which release counts, and where it lies.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;

use super::{Error, Release};
use crate::cluster::Cluster;
use crate::cluster::readable::{self, Readable};

/// The current revision of a release: the one that is `deployed` with the highest number, or where none is (an
/// installation whose `--wait` ran out is `failed`, and runs nevertheless), the highest one.
///
/// Without a `name` it is the release of the chart `pachyderm`: any other one may be of something that was installed beside it.
/// `None` where Helm has no such release here, as under Argo CD.
///
/// # Errors
/// The API server's; a release that cannot be read.
pub async fn find(cluster: &Cluster, name: Option<&str>) -> Result<Option<Release>, Error> {
    let secrets: Api<Secret> = cluster.api();
    let found = current(readable::labelled(cluster, &secrets, "owner=helm").await?, name);
    if !found.is_empty() {
        return choose(found, name, async |object| {
            let secret = cluster.call(format!("reading Secret {object}"), secrets.get(object)).await?;
            let packed = secret.data.and_then(|mut data| data.remove("release"));
            Release::decode(&format!("Secret {object}"), &packed.unwrap_or_default().0)
        })
        .await;
    }
    let maps: Api<ConfigMap> = cluster.api();
    let found = current(readable::labelled(cluster, &maps, "owner=helm").await?, name);
    choose(found, name, async |object| {
        let map = cluster.call(format!("reading ConfigMap {object}"), maps.get(object)).await?;
        let packed = map.data.and_then(|mut data| data.remove("release"));
        Release::decode(&format!("ConfigMap {object}"), packed.unwrap_or_default().as_bytes())
    })
    .await
}

/// The name of the object with the current revision of each release.
fn current(objects: Readable, name: Option<&str>) -> Vec<String> {
    let mut releases: BTreeMap<String, (bool, u64, String)> = BTreeMap::new();
    for metadata in objects.found {
        let Some((release, revision)) = revision(&metadata) else { continue };
        if name.is_some_and(|name| name != release.name) {
            continue;
        }
        let current = releases.entry(release.name).or_default();
        if (release.deployed, revision) >= (current.0, current.1) {
            *current = (release.deployed, revision, metadata.name.unwrap_or_default());
        }
    }
    releases.into_values().map(|(_, _, object)| object).collect()
}

struct Labels {
    name: String,
    deployed: bool,
}

fn revision(metadata: &ObjectMeta) -> Option<(Labels, u64)> {
    let labels = metadata.labels.as_ref()?;
    if labels.get("owner").map(String::as_str) != Some("helm") {
        return None;
    }
    let (name, revision) = (labels.get("name")?.clone(), labels.get("version")?.parse().ok()?);
    let deployed = labels.get("status").is_some_and(|status| status == "deployed");
    Some((Labels { name, deployed }, revision))
}

async fn choose(
    objects: Vec<String>,
    name: Option<&str>,
    decode: impl AsyncFn(&str) -> Result<Release, Error>,
) -> Result<Option<Release>, Error> {
    for object in objects {
        let release = decode(&object).await?;
        if name.is_some() || release.is_pachyderm() {
            return Ok(Some(release));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::cluster::helm::Chart;

    fn stored(name: &str, revision: u64, status: &str) -> ObjectMeta {
        let labels = [("owner", "helm"), ("name", name), ("version", &revision.to_string()), ("status", status)];
        ObjectMeta {
            name: Some(format!("sh.helm.release.v1.{name}.v{revision}")),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        }
    }

    fn names(found: Vec<ObjectMeta>, name: Option<&str>) -> Vec<String> {
        current(Readable { found, complete: true }, name)
    }

    #[test]
    fn the_highest_deployed_revision_counts() {
        let history = vec![
            stored("pachyderm", 9, "superseded"),
            stored("pachyderm", 11, "failed"),
            stored("pachyderm", 10, "deployed"),
            stored("other", 1, "failed"),
            stored("other", 2, "failed"),
            ObjectMeta { name: Some("no-release".into()), ..ObjectMeta::default() },
        ];
        assert_eq!(names(history.clone(), None), ["sh.helm.release.v1.other.v2", "sh.helm.release.v1.pachyderm.v10"]);
        assert_eq!(names(history, Some("pachyderm")), ["sh.helm.release.v1.pachyderm.v10"]);
    }

    fn of_chart(chart: &str) -> Release {
        Release {
            name: "r".into(),
            namespace: "ns".into(),
            revision: 1,
            status: "deployed".into(),
            deployed: None,
            chart: Chart { name: chart.into(), ..Chart::default() },
            values: Map::new(),
            computed: Map::new(),
            manifest: String::new(),
        }
    }

    /// The chart of the release that is chosen among some of these charts.
    async fn chosen(charts: &[&str], name: Option<&str>) -> Option<String> {
        let objects: Vec<String> = charts.iter().map(|chart| (*chart).to_owned()).collect();
        let found = choose(objects, name, async |object| Ok(of_chart(object))).await.unwrap();
        found.map(|release| release.chart.name)
    }

    #[tokio::test]
    async fn without_a_name_only_a_release_of_pachyderms_chart_counts() {
        assert_eq!(chosen(&["pacharc"], None).await, None);
        assert_eq!(chosen(&["pacharc", "pachyderm"], None).await.as_deref(), Some("pachyderm"));
        assert_eq!(chosen(&["umbrella"], Some("r")).await.as_deref(), Some("umbrella"));
    }
}
