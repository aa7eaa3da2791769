//! The bucket: from `STORAGE_URL` or from the storage secret, by the rules of each chart generation.
//!
//! Sources: `etc/helm/pachyderm/templates/pachd/{deployment,storage-secret}.yaml` at each 2.x tag, and
//! `src/internal/obj/{url,bucket}.go`. Secrets of 2.10 and later may hold stale names beside the URL: the URL counts.

use serde::Serialize;
use url::Url;

use super::objects::{Object, Objects};
use super::workload::Workload;
use super::{Error, Found, account};
use crate::bucket::{BucketUrl, S3Url};
use crate::secret::Secret;

const STORAGE_SECRET: &str = "pachyderm-storage-secret";
/// Where pachd keeps its objects in a pod where the back end is LOCAL.
const LOCAL_FOLDER: &str = "/pach";

/// Where Pachyderm keeps its objects.
#[derive(Clone, Debug, Serialize)]
pub struct Bucket {
    /// `AMAZON`, `GOOGLE`, `MICROSOFT`, `MINIO` or `LOCAL`.
    pub backend: Found<String>,
    /// Its URL in pacharc's spelling.
    pub place: Place,
    /// The keys to it, where the cluster has any.
    pub credentials: Option<Credentials>,
    /// Whom the pods are to the provider, where there are no keys.
    pub account: Option<Found<String>>,
}

/// Where a bucket lies.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Place {
    /// A bucket that speaks S3.
    S3 {
        /// Its URL.
        url: Found<String>,
    },
    /// A provider that pacharc cannot read yet.
    Other {
        /// Its URL, as Pachyderm spells it.
        url: Found<String>,
    },
    /// A folder of a node.
    Folder {
        /// Its path on the node; `None` where it is not the node's own.
        path: Option<Found<String>>,
    },
}

/// Keys to a bucket.
#[derive(Clone, Debug, Serialize)]
pub struct Credentials {
    /// The access key's id.
    pub id: Found<Secret>,
    /// The access key.
    pub secret: Found<Secret>,
    /// The session's token.
    pub token: Option<Found<Secret>>,
}

/// What is said of a bucket: its facts, and what should be known of them.
struct Reader<'a, 'c> {
    pachd: &'a Workload<'c>,
    objects: &'a Objects<'c>,
    warnings: &'a mut Vec<String>,
}

impl Bucket {
    /// Reads it from `pachd`; adds to `warnings`. `None` where no back end is named: an enterprise server.
    pub(super) async fn read(
        pachd: &Workload<'_>,
        objects: &Objects<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, Error> {
        let Some(backend) = pachd.variable("STORAGE_BACKEND").await?.map(Found::plain) else { return Ok(None) };
        let mut reader = Reader { pachd, objects, warnings };
        let url = pachd.variable("STORAGE_URL").await?.map(Found::plain);
        let has_urls = pachd.variable("GOCDK_ENABLED").await?.is_none_or(|enabled| is_true(enabled.text()));
        let (place, credentials) = match (url.filter(|_| has_urls), backend.value.as_str()) {
            (Some(url), _) => reader.by_url(url).await?,
            (None, "AMAZON") => reader.amazon().await?,
            (None, "MINIO") => reader.minio().await?,
            (None, "LOCAL") => (reader.folder().await?, None),
            (None, "GOOGLE") => (reader.other("gs", "GOOGLE_BUCKET").await?, None),
            (None, "MICROSOFT") => (reader.other("azblob", "MICROSOFT_CONTAINER").await?, None),
            (None, other) => {
                let problem = format!("Pachyderm has no storage back end {other}");
                return Err(Error::Value { found_in: backend.found_in, problem });
            }
        };
        if reader.value("NO_VERIFY_SSL").await?.is_some_and(|value| is_true(value.text())) {
            let warning = "the cluster does not check the bucket's certificate (NO_VERIFY_SSL); pacharc does: name its \
                           authority with --ca-file";
            reader.warnings.push(warning.to_owned());
        }
        let account = match (&place, &credentials) {
            (Place::Folder { .. }, _) | (_, Some(_)) => None,
            _ => account::read(objects.cluster(), &pachd.account()).await?,
        };
        Ok(Some(Self { backend, place, credentials, account }))
    }
}

impl Reader<'_, '_> {
    /// A value of the storage secret, by way of the environment or of the mounted Secret itself.
    async fn value(&self, key: &str) -> Result<Option<Found<Secret>>, Error> {
        if let Some(found) = self.pachd.variable(key).await? {
            return Ok(Some(found));
        }
        let secret = Object::Secret(STORAGE_SECRET.to_owned());
        let values = self.objects.get(&secret).await?;
        let value = values.and_then(|values| values.get(key).cloned()).filter(|value| !value.expose().is_empty());
        Ok(value.map(|value| Found::new(value, format!("{secret} key {key}"))))
    }

    async fn required(&self, key: &str) -> Result<Found<Secret>, Error> {
        let missing = || Error::NoKey {
            referrer: format!("{} env STORAGE_BACKEND", self.pachd.label()),
            object: format!("Secret/{STORAGE_SECRET}"),
            key: key.to_owned(),
        };
        self.value(key).await?.ok_or_else(missing)
    }

    async fn by_url(&mut self, found: Found<String>) -> Result<(Place, Option<Credentials>), Error> {
        let problem = |problem: &str| Error::Value { found_in: found.found_in.clone(), problem: problem.to_owned() };
        let url = Url::parse(&found.value).map_err(|_| problem("it is no URL"))?;
        match url.scheme() {
            "s3" | "minio" | "test-minio" => {}
            "file" => return Ok((self.folder().await?, None)),
            "gs" | "gcs" | "azblob" | "wasb" => return Ok((Place::Other { url: found }, None)),
            _ => return Err(problem("Pachyderm knows no such kind of bucket")),
        }
        let name = url.host_str().filter(|name| !name.is_empty()).ok_or_else(|| problem("it names no bucket"))?;
        if !matches!(url.path(), "" | "/") {
            let (from, path) = (&found.found_in, url.path());
            self.warnings.push(format!("{from}: Pachyderm ignores the path {path}, and so does pacharc"));
        }
        let (mut endpoint, mut region, mut plain) = (None, None, false);
        for (name, value) in url.query_pairs().filter(|(_, value)| !value.is_empty()) {
            match &*name {
                "endpoint" => endpoint = Some(value.into_owned()),
                "region" => region = Some(value.into_owned()),
                "disableSSL" => plain = is_true(&value),
                other => {
                    let from = &found.found_in;
                    self.warnings.push(format!("{from}: Pachyderm ignores the parameter {other}, and so does pacharc"));
                }
            }
        }
        let region = match region {
            Some(region) => Some(region),
            None => self.value("AWS_REGION").await?.map(|found| found.plain().value),
        };
        let url = s3(name, endpoint.as_deref(), plain, region).ok_or_else(|| problem("its endpoint is no URL"))?;
        let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
        Ok((Place::S3 { url: found.map(|_| url) }, self.credentials(keys).await?))
    }

    async fn amazon(&mut self) -> Result<(Place, Option<Credentials>), Error> {
        let bucket = self.required("AMAZON_BUCKET").await?.plain();
        let region = self.value("AMAZON_REGION").await?.map(|found| found.plain().value);
        let endpoint = self.value("CUSTOM_ENDPOINT").await?.map(Found::plain);
        let plain = self.value("DISABLE_SSL").await?.is_some_and(|value| is_true(value.text()));
        let url = s3(&bucket.value, endpoint.as_ref().map(|found| found.value.as_str()), plain, region);
        let url = url.ok_or_else(|| Error::Value {
            found_in: endpoint.map_or(String::new(), |found| found.found_in),
            problem: "it is no URL of a server".to_owned(),
        })?;
        let keys = self.credentials(["AMAZON_ID", "AMAZON_SECRET", "AMAZON_TOKEN"]).await?;
        Ok((Place::S3 { url: bucket.map(|_| url) }, keys))
    }

    async fn minio(&mut self) -> Result<(Place, Option<Credentials>), Error> {
        let bucket = self.required("MINIO_BUCKET").await?.plain();
        let endpoint = self.required("MINIO_ENDPOINT").await?.plain();
        let secure = self.value("MINIO_SECURE").await?.is_some_and(|value| is_true(value.text()));
        if self.value("MINIO_SIGNATURE").await?.is_some_and(|value| is_true(value.text())) {
            let warning = "the cluster signs its requests to the bucket by S3's version 2 (MINIO_SIGNATURE); pacharc does \
                           by version 4";
            self.warnings.push(warning.to_owned());
        }
        let url = s3(&bucket.value, Some(&endpoint.value), !secure, None).ok_or_else(|| Error::Value {
            found_in: endpoint.found_in,
            problem: "it is no host and port".to_owned(),
        })?;
        let keys = self.credentials(["MINIO_ID", "MINIO_SECRET", ""]).await?;
        Ok((Place::S3 { url: bucket.map(|_| url) }, keys))
    }

    async fn folder(&self) -> Result<Place, Error> {
        let told = self.pachd.variable("STORAGE_HOST_PATH").await?.map(Found::plain);
        Ok(Place::Folder { path: self.pachd.host_folder(LOCAL_FOLDER).or(told) })
    }

    async fn other(&self, scheme: &str, key: &str) -> Result<Place, Error> {
        let name = self.required(key).await?.plain();
        Ok(Place::Other { url: name.map(|name| format!("{scheme}://{name}")) })
    }

    async fn credentials(&self, [id, secret, token]: [&str; 3]) -> Result<Option<Credentials>, Error> {
        let (Some(id), Some(secret)) = (self.value(id).await?, self.value(secret).await?) else { return Ok(None) };
        let token = if token.is_empty() { None } else { self.value(token).await? };
        Ok(Some(Credentials { id, secret, token }))
    }
}

/// The URL of an S3 bucket; `None` where the endpoint is none. One of another server than Amazon's has the bucket in its
/// path, as Pachyderm's requests have; `plain` is for an endpoint that does not say itself whether it speaks TLS.
fn s3(bucket: &str, endpoint: Option<&str>, plain: bool, region: Option<String>) -> Option<String> {
    let endpoint = match endpoint {
        None => None,
        Some(text) if text.contains("://") => Some(Url::parse(text).ok()?),
        Some(text) => Some(Url::parse(&format!("{}://{text}", if plain { "http" } else { "https" })).ok()?),
    };
    if endpoint.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https") || url.host_str().is_none()) {
        return None;
    }
    let path_style = endpoint.is_some();
    let url = S3Url { bucket: bucket.to_owned(), prefix: String::new(), endpoint, region, path_style };
    Some(BucketUrl::S3(url).to_string())
}

/// As Go's `strconv.ParseBool` does, which reads these values.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_what_the_cluster_makes_of_them() {
        let url = |endpoint, plain| s3("b", endpoint, plain, Some("r".to_owned())).unwrap();
        assert_eq!(url(None, true), "s3://b?region=r");
        assert_eq!(url(Some("minio:9000"), true), "s3://b?endpoint=http://minio:9000&region=r&path_style=true");
        assert_eq!(url(Some("minio:9000"), false), "s3://b?endpoint=https://minio:9000&region=r&path_style=true");
        assert_eq!(url(Some("http://h/"), false), "s3://b?endpoint=http://h&region=r&path_style=true");
        assert_eq!(s3("b", Some("ftp://h"), false, None), None);
        assert_eq!(s3("b", Some("http://"), false, None), None);
    }
}
