//! The `.attrs` files in which gocloud keeps an object's metadata (`blob/fileblob/attrs.go`, v0.27.0): one line of JSON.

use std::collections::BTreeMap;

use pacharc_format::Metadata;
use serde::{Deserialize, Serialize};

/// gocloud spells "not set" as the empty string.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Attributes {
    #[serde(rename = "user.cache_control")]
    cache_control: String,
    #[serde(rename = "user.content_disposition")]
    content_disposition: String,
    #[serde(rename = "user.content_encoding")]
    content_encoding: String,
    #[serde(rename = "user.content_language")]
    content_language: String,
    #[serde(rename = "user.content_type")]
    content_type: String,
    #[serde(rename = "user.metadata")]
    user: Option<BTreeMap<String, String>>,
    /// Base64; gocloud accepts `null`, and so it is written: the bundle has better hashes.
    md5: Option<String>,
}

/// Reads the content of an `.attrs` file.
pub(crate) fn parse(json: &[u8]) -> Result<Metadata, serde_json::Error> {
    let attributes: Attributes = serde_json::from_slice(json)?;
    let some = |value: String| Some(value).filter(|v| !v.is_empty());
    Ok(Metadata {
        content_type: some(attributes.content_type),
        content_encoding: some(attributes.content_encoding),
        content_disposition: some(attributes.content_disposition),
        content_language: some(attributes.content_language),
        cache_control: some(attributes.cache_control),
        user: attributes.user.unwrap_or_default(),
    })
}

/// The content of the `.attrs` file for `metadata`; `None` where no file is needed.
pub(super) fn render(metadata: &Metadata) -> Result<Option<Vec<u8>>, serde_json::Error> {
    if metadata.is_empty() {
        return Ok(None);
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut json = serde_json::to_vec(&Attributes {
        cache_control: text(&metadata.cache_control),
        content_disposition: text(&metadata.content_disposition),
        content_encoding: text(&metadata.content_encoding),
        content_language: text(&metadata.content_language),
        content_type: text(&metadata.content_type),
        user: Some(metadata.user.clone()).filter(|user| !user.is_empty()),
        md5: None,
    })?;
    json.push(b'\n');
    Ok(Some(json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gocloud_files_are_read() {
        let json = br#"{"user.cache_control":"","user.content_disposition":"","user.content_encoding":"",
            "user.content_language":"","user.content_type":"text/plain; charset=utf-8","user.metadata":null,
            "md5":"1B2M2Y8AsgTpgAmY7PhCfg=="}"#;
        let metadata = parse(json).unwrap();
        assert_eq!(metadata.content_type.as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(metadata, Metadata { content_type: metadata.content_type.clone(), ..Metadata::default() });
    }

    #[test]
    fn metadata_come_back() {
        let metadata = Metadata {
            content_type: Some("a/b".to_owned()),
            content_encoding: Some("application/octet-stream".to_owned()),
            content_disposition: Some("inline".to_owned()),
            content_language: Some("de".to_owned()),
            cache_control: Some("no-store".to_owned()),
            user: BTreeMap::from([("owner".to_owned(), "me".to_owned())]),
        };
        assert_eq!(parse(&render(&metadata).unwrap().unwrap()).unwrap(), metadata);
        assert_eq!(render(&Metadata::default()).unwrap(), None);
        assert!(parse(b"{").is_err());
    }
}
