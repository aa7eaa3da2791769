//! The file beside each vector that says what is in it.

use pacharc_format::{Hash, Metadata, Pieces, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Metadata of more bytes than this are told by their hash.
const METADATA_MOST: usize = 1024;

#[derive(Deserialize, Serialize)]
pub struct Sidecar {
    /// What the vector is about.
    pub what: String,
    /// Files of `keys/`, each of which opens it alone.
    pub unlock: Vec<String>,
    /// The kinds of recipients, as `bundle.key.age` names them.
    pub recipients: Vec<String>,
    /// The file of `keys/` with the public key that signed it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signed_by: Option<String>,
    /// The bundle's id.
    pub id: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// `head.json`.
    pub head: Value,
    /// `manifest.json`.
    pub manifest: Value,
    /// The lines of the catalog, in order.
    pub lines: Vec<Line>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Line {
    pub state: State,
    pub path: String,
    /// The key's bytes, of an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_hex: Option<String>,
    pub size: u64,
    /// As the bundle says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
    /// BLAKE3 of the bytes, whatever `hash` is; of an object in pieces, of the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pieces: Option<Pieces>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// BLAKE3 of the canonical JSON of metadata that would be long here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_blake3: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub rotten: bool,
}

/// How a line tells metadata: themselves, or their hash, or neither.
pub fn tell(metadata: &Metadata) -> (Option<Metadata>, Option<String>) {
    let json = serde_json::to_string(metadata).unwrap();
    match json.len() {
        _ if metadata.is_empty() => (None, None),
        0..=METADATA_MOST => (Some(metadata.clone()), None),
        _ => (None, Some(blake3::hash(json.as_bytes()).to_hex().to_string())),
    }
}
