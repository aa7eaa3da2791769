//! Bucket URLs: `s3://bucket[/prefix]?endpoint=…&region=…&path_style=true` and `file:///dir`. Whatever is not understood is
//! refused, since a parameter that is ignored may be the one that names the right server.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use pacharc_format::Key;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use url::Url;

use super::Error;

/// What stays as it is in the path of a URL that is printed.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');
/// Providers that are planned and not yet there.
const LATER: [&str; 5] = ["gs", "azblob", "az", "abfs", "abfss"];

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BucketUrl {
    /// An S3 bucket.
    S3(S3Url),
    /// A local directory.
    Directory {
        /// Absolute.
        path: PathBuf,
    },
}

/// Where an S3 bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Url {
    /// The bucket's name.
    pub bucket: String,
    /// What all keys begin with: empty, or ending in `/`.
    pub prefix: String,
    /// The server, where it is not Amazon's.
    pub endpoint: Option<Url>,
    /// The region, where the environment does not say it.
    pub region: Option<String>,
    /// Whether the bucket's name goes into the path instead of the host name.
    pub path_style: bool,
}

impl BucketUrl {
    /// Takes `url` for the URL of a single object: its bucket, and its key in there.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is no URL of a bucket, or names no object.
    pub fn parse_object(url: &str) -> Result<(Self, Key), Error> {
        let no_object = || Error::Usage { reason: format!("{} names no object", redacted(url)) };
        match Self::parse(url)? {
            Self::S3(mut s3) => {
                let key = s3.prefix.strip_suffix('/').ok_or_else(no_object)?.to_owned();
                s3.prefix.clear();
                Ok((Self::S3(s3), Key::new(key)))
            }
            Self::Directory { mut path } => {
                let name = path.file_name().ok_or_else(no_object)?.as_bytes().to_vec();
                path.pop();
                Ok((Self::Directory { path }, Key::new(name)))
            }
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Usage { reason: format!("bucket URL {}: {reason}", redacted(text)) };
        let url = Url::parse(text).map_err(|e| refuse(&e.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("credentials do not belong into a URL; give them in the environment"));
        }
        if url.fragment().is_some() {
            return Err(refuse("it has a #fragment; write %23 for a # in a name"));
        }
        match url.scheme() {
            "s3" => Self::parse_s3(&url, &refuse),
            "file" => {
                if url.query().is_some() {
                    return Err(refuse("a directory takes no parameters; write %3F for a ? in a name"));
                }
                if url.host_str().is_some_and(|host| host != "localhost") {
                    return Err(refuse("a directory's URL has three slashes: file:///dir"));
                }
                let path: Vec<u8> = percent_decode_str(url.path()).collect();
                if path.contains(&0) {
                    return Err(refuse("a path cannot hold a zero byte"));
                }
                Ok(Self::Directory { path: PathBuf::from(OsString::from_vec(path)) })
            }
            scheme if LATER.contains(&scheme) => Err(refuse(&format!("{scheme}:// is not yet supported"))),
            _ => Err(refuse("unknown kind of bucket; known are s3:// and file:///")),
        }
    }

    fn parse_s3(url: &Url, refuse: &dyn Fn(&str) -> Error) -> Result<Self, Error> {
        let bucket = url.host_str().unwrap_or_default().to_owned();
        if bucket.is_empty() {
            return Err(refuse("it names no bucket"));
        }
        if url.port().is_some() {
            return Err(refuse("a server is named by endpoint=http://HOST:PORT, not before the bucket"));
        }
        let path = percent_decode_str(url.path()).decode_utf8().map_err(|_| refuse("the prefix is not UTF-8"))?;
        let mut prefix = path.strip_prefix('/').unwrap_or(&path).to_owned();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let mut s3 = S3Url { bucket, prefix, endpoint: None, region: None, path_style: false };
        let mut seen = Vec::new();
        for (name, value) in url.query_pairs() {
            if seen.contains(&name) {
                return Err(refuse(&format!("{name} is given twice")));
            }
            match &*name {
                "endpoint" => s3.endpoint = Some(parse_endpoint(&value, refuse)?),
                "region" if !value.is_empty() => s3.region = Some(value.into_owned()),
                "path_style" => match &*value {
                    "true" => s3.path_style = true,
                    "false" => s3.path_style = false,
                    _ => return Err(refuse("path_style is true or false")),
                },
                _ => return Err(refuse(&format!("unknown or empty parameter {name}"))),
            }
            seen.push(name);
        }
        Ok(Self::S3(s3))
    }
}

/// Reads the server's URL; without a scheme it is taken for https.
fn parse_endpoint(value: &str, refuse: &dyn Fn(&str) -> Error) -> Result<Url, Error> {
    let whole = if value.contains("://") { value.to_owned() } else { format!("https://{value}") };
    let endpoint = Url::parse(&whole).map_err(|e| refuse(&format!("endpoint: {e}")))?;
    if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host_str().is_none() {
        return Err(refuse("the endpoint is an http:// or https:// URL"));
    }
    if !endpoint.username().is_empty() || endpoint.password().is_some() {
        return Err(refuse("credentials do not belong into an endpoint; give them in the environment"));
    }
    if endpoint.query().is_some() || endpoint.fragment().is_some() {
        return Err(refuse("the endpoint has parameters of its own; write & between the parameters of the bucket"));
    }
    Ok(endpoint)
}

/// `url` without what may be a secret: no user information anywhere, no query.
fn redacted(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => url.to_owned(),
    }
}

impl FromStr for BucketUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Error> {
        Self::parse(url)
    }
}

/// The URL, in the spelling that [`BucketUrl::from_str`] reads; it holds no secret.
impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path } => {
                write!(f, "file://{}", percent_encode(path.as_os_str().as_bytes(), PATH))
            }
            Self::S3(s3) => {
                write!(f, "s3://{}", s3.bucket)?;
                if !s3.prefix.is_empty() {
                    write!(f, "/{}", percent_encode(s3.prefix.trim_end_matches('/').as_bytes(), PATH))?;
                }
                let mut separator = '?';
                let endpoint = s3.endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
                let path_style = s3.path_style.then(|| "true".to_owned());
                for (name, value) in [("endpoint", endpoint), ("region", s3.region.clone()), ("path_style", path_style)]
                {
                    if let Some(value) = value {
                        write!(f, "{separator}{name}={value}")?;
                        separator = '&';
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(url: &str) -> String {
        url.parse::<BucketUrl>().unwrap_err().to_string()
    }

    #[test]
    fn urls_come_back_as_they_are_printed() {
        for url in [
            "s3://bucket",
            "s3://bucket/a%20prefix/b",
            "s3://bucket?endpoint=http://127.0.0.1:9000&region=eu-west-1&path_style=true",
            "s3://My_Bucket?region=us-east-1",
            "file:///var/pachyderm/a%20b",
        ] {
            let parsed: BucketUrl = url.parse().unwrap();
            assert_eq!(parsed.to_string(), url);
            assert_eq!(parsed.to_string().parse::<BucketUrl>().unwrap(), parsed);
        }
    }

    #[test]
    fn a_prefix_is_a_folder() {
        let Ok(BucketUrl::S3(s3)) = "s3://b/p".parse() else { panic!("not S3") };
        assert_eq!(s3.prefix, "p/");
    }

    #[test]
    fn an_endpoint_without_scheme_is_https() {
        let Ok(BucketUrl::S3(s3)) = "s3://b?endpoint=minio.example:9000".parse() else { panic!("not S3") };
        assert_eq!(s3.endpoint.unwrap().as_str(), "https://minio.example:9000/");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (url, why) in [
            ("s3://b?acl=private", "unknown or empty parameter acl"),
            ("s3://b?region=", "unknown or empty parameter region"),
            ("s3://b?region=a&region=b", "twice"),
            ("s3://b?path_style=yes", "true or false"),
            ("s3://b?endpoint=ftp://x", "http"),
            ("s3://", "no bucket"),
            ("s3://host:9000/b", "endpoint="),
            ("s3://b#x", "fragment"),
            ("file://dir", "three slashes"),
            ("file:///dir?x=y", "no parameters"),
            ("gs://b", "not yet supported"),
            ("azblob://b", "not yet supported"),
            ("http://b", "unknown kind"),
            ("/dir", "relative URL"),
        ] {
            assert!(reason(url).contains(why), "{url}: {}", reason(url));
        }
    }

    #[test]
    fn secrets_are_refused_and_not_repeated() {
        for url in ["s3://key:hush@bucket", "s3://b?endpoint=http://key:hush@h", "s3://b?secret_key=hush"] {
            assert!(!reason(url).contains("hush"), "{}", reason(url));
        }
    }

    #[test]
    fn an_object_is_split_off() {
        let (bucket, key) = BucketUrl::parse_object("s3://b/backups/x.pacharc?region=r").unwrap();
        assert_eq!((bucket.to_string().as_str(), key), ("s3://b?region=r", Key::from("backups/x.pacharc")));
        let (bucket, key) = BucketUrl::parse_object("file:///d/x.pacharc").unwrap();
        assert_eq!((bucket.to_string().as_str(), key), ("file:///d", Key::from("x.pacharc")));
        assert!(BucketUrl::parse_object("s3://b").is_err());
    }
}
