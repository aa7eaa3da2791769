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
/// The API server's; a release that cannot be read; [`Error::Hidden`].
pub async fn find(cluster: &Cluster, name: Option<&str>) -> Result<Option<Release>, Error> {
    let secrets: Api<Secret> = cluster.api();
    let Readable { found, complete } = readable::labelled(cluster, &secrets, "owner=helm").await?;
    let found = current(found, name);
    if !found.is_empty() {
        return choose(found, complete, name, async |object| {
            let secret = cluster.call(format!("reading Secret {object}"), secrets.get(object)).await?;
            let packed = secret.data.and_then(|mut data| data.remove("release"));
            Release::decode(&format!("Secret {object}"), &packed.unwrap_or_default().0)
        })
        .await;
    }
    let maps: Api<ConfigMap> = cluster.api();
    let readable_maps = readable::labelled(cluster, &maps, "owner=helm").await?;
    let found = current(readable_maps.found, name);
    let chosen = choose(found, readable_maps.complete, name, async |object| {
        let map = cluster.call(format!("reading ConfigMap {object}"), maps.get(object)).await?;
        let packed = map.data.and_then(|mut data| data.remove("release"));
        Release::decode(&format!("ConfigMap {object}"), packed.unwrap_or_default().as_bytes())
    })
    .await?;
    match (chosen, name) {
        (None, Some(name)) if !complete => Err(Error::Hidden { release: name.to_owned() }),
        (chosen, _) => Ok(chosen),
    }
}

/// The revision of a release that counts, among those that may be read.
#[derive(Default)]
struct Current {
    deployed: bool,
    revision: u64,
    /// The Secret or ConfigMap.
    object: String,
}

/// The one of each release.
fn current(objects: Vec<ObjectMeta>, name: Option<&str>) -> Vec<Current> {
    let mut releases: BTreeMap<String, Current> = BTreeMap::new();
    for metadata in objects {
        let Some((release, deployed, revision)) = revision(&metadata) else { continue };
        if name.is_some_and(|name| name != release) {
            continue;
        }
        let current = releases.entry(release).or_default();
        if (deployed, revision) >= (current.deployed, current.revision) {
            *current = Current { deployed, revision, object: metadata.name.unwrap_or_default() };
        }
    }
    releases.into_values().collect()
}

/// The release's name, whether this revision is deployed, and which it is.
fn revision(metadata: &ObjectMeta) -> Option<(String, bool, u64)> {
    let labels = metadata.labels.as_ref()?;
    if labels.get("owner").map(String::as_str) != Some("helm") {
        return None;
    }
    let (name, revision) = (labels.get("name")?.clone(), labels.get("version")?.parse().ok()?);
    let deployed = labels.get("status").is_some_and(|status| status == "deployed");
    Some((name, deployed, revision))
}

/// `complete`: whether `found` is of all revisions that there are.
async fn choose(
    found: Vec<Current>,
    complete: bool,
    name: Option<&str>,
    decode: impl AsyncFn(&str) -> Result<Release, Error>,
) -> Result<Option<Release>, Error> {
    for Current { deployed, object, .. } in found {
        let release = decode(&object).await?;
        if name.is_none() && !release.is_pachyderm() {
            continue;
        }
        // A newer one may be hidden, whose values say something else.
        return match deployed || complete {
            true => Ok(Some(release)),
            false => Err(Error::Hidden { release: release.name }),
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::cluster::helm::Chart;
    use crate::failure::Explain as _;

    fn stored(name: &str, revision: u64, status: &str) -> ObjectMeta {
        let labels = [("owner", "helm"), ("name", name), ("version", &revision.to_string()), ("status", status)];
        ObjectMeta {
            name: Some(format!("sh.helm.release.v1.{name}.v{revision}")),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        }
    }

    fn names(found: Vec<ObjectMeta>, name: Option<&str>) -> Vec<String> {
        current(found, name).into_iter().map(|current| current.object).collect()
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

    /// The chart of the release that is chosen among some of these charts, of which all revisions are known.
    async fn chosen(charts: &[&str], name: Option<&str>) -> Option<String> {
        let of = |chart: &&str| Current { object: (*chart).to_owned(), ..Current::default() };
        let found = charts.iter().map(of).collect();
        let found = choose(found, true, name, async |object| Ok(of_chart(object))).await.unwrap();
        found.map(|release| release.chart.name)
    }

    #[tokio::test]
    async fn without_a_name_only_a_release_of_pachyderms_chart_counts() {
        assert_eq!(chosen(&["pacharc"], None).await, None);
        assert_eq!(chosen(&["pacharc", "pachyderm"], None).await.as_deref(), Some("pachyderm"));
        assert_eq!(chosen(&["umbrella"], Some("r")).await.as_deref(), Some("umbrella"));
    }

    #[tokio::test]
    async fn where_revisions_are_hidden_only_a_deployed_one_counts() {
        let found = |deployed, chart: &str| vec![Current { deployed, revision: 1, object: chart.to_owned() }];
        for name in [None, Some("r")] {
            let hidden = choose(found(false, "pachyderm"), false, name, async |object| Ok(of_chart(object))).await;
            let error = hidden.unwrap_err();
            assert!(matches!(&error, Error::Hidden { release } if release == "r"), "{error}");
            let advice = error.advice().unwrap();
            assert!(advice.contains("sh.helm.release.v1.r.v"), "{advice}");
            let one = choose(found(true, "pachyderm"), false, name, async |object| Ok(of_chart(object))).await;
            assert!(one.unwrap().is_some());
        }
        let other = choose(found(false, "other"), false, None, async |object| Ok(of_chart(object))).await;
        assert!(other.unwrap().is_none());
    }
}
