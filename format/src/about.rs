//! `bundle.json`, in clear, and `head.json`, sealed: what a reader can know before the end.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::manifest::Postgres;

/// Largest `bundle.json` that a reader accepts, in bytes.
pub(crate) const ABOUT_LIMIT: u64 = 64 * 1024;
/// Largest plaintext of a segment, shard or block that a reader accepts, in bytes.
pub const PLAIN_LIMIT: usize = 128 << 20;

/// `bundle.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The number of the format: [`crate::FORMAT`].
    pub format: u32,
    /// The bundle's UUID.
    pub bundle: Uuid,
    /// When it was begun (RFC 3339, UTC).
    pub created: String,
    /// The version that wrote it.
    pub pacharc: String,
    /// Features without which it cannot be read.
    pub required: Vec<String>,
    /// Features that a reader may ignore.
    pub optional: Vec<String>,
    /// The largest plaintext of any sealed file in it but the manifest, in bytes.
    pub largest_segment: u64,
    /// The number of this volume, from 1 on.
    pub volume: u32,
}

impl About {
    pub(crate) fn to_json(&self) -> String {
        // A struct of numbers and strings has no way to fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Reads `bundle.json`, and refuses what this version cannot read.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`], [`Error::UnknownFeature`], [`Error::Damaged`].
    pub fn from_json(json: &[u8], offset: u64) -> Result<Self> {
        /// The one field that every format has.
        #[derive(Deserialize)]
        struct Any {
            format: u32,
        }
        let damaged = |e: serde_json::Error| Error::damaged("bundle.json", offset, e.to_string());
        let any: Any = serde_json::from_slice(json).map_err(damaged)?;
        if any.format != crate::FORMAT {
            return Err(Error::UnknownFormat(any.format));
        }
        let about: Self = serde_json::from_slice(json).map_err(damaged)?;
        about.check(offset)?;
        Ok(about)
    }

    /// Refuses what this version cannot read.
    pub(crate) fn check(&self, offset: u64) -> Result<()> {
        let texts = [&self.created, &self.pacharc].into_iter().chain(&self.required).chain(&self.optional);
        if texts.into_iter().any(|text| text.contains(char::is_control)) {
            return Err(Error::damaged("bundle.json", offset, "it holds control characters"));
        }
        if let Some(feature) = self.required.first() {
            return Err(Error::UnknownFeature(feature.clone()));
        }
        if self.largest_segment > PLAIN_LIMIT as u64 {
            return Err(Error::damaged("bundle.json", offset, "it declares segments of more than 128 MiB"));
        }
        Ok(())
    }

    /// The largest plaintext, as a length in memory.
    pub(crate) fn plain_limit(&self) -> usize {
        usize::try_from(self.largest_segment).unwrap_or(PLAIN_LIMIT).min(PLAIN_LIMIT)
    }

    /// The largest sealed file but manifest and sums: what incompressible plaintext grows to.
    pub(crate) fn sealed_limit(&self) -> u64 {
        let plain = self.plain_limit() as u64;
        plain + plain / 128 + 64 * 1024
    }
}

/// `head.json`: what is known of the source at the start, so that a reader of a pipe can refuse early.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The bundle's UUID.
    pub bundle: Uuid,
    /// The PostgreSQL server.
    pub postgres: Option<Postgres>,
    /// The bucket's URL.
    pub bucket: Option<String>,
    /// Pachyderm's release family.
    pub pachyderm: Option<String>,
    /// The databases.
    pub databases: Vec<HeadDatabase>,
    /// An estimate of all bytes that will come, where known.
    pub estimated_bytes: Option<u64>,
    /// The Kubernetes namespace, where its state will come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// One database, as known at the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeadDatabase {
    /// Its name.
    pub name: String,
    /// The folder of this database inside the tree: `database/<folder>`.
    pub folder: String,
    /// What kind it is.
    pub kind: crate::manifest::DatabaseKind,
    /// Its schema's version.
    pub schema_version: Option<i64>,
    /// Encoding, locale, settings.
    pub properties: crate::manifest::DatabaseProperties,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(largest_segment: u64) -> About {
        About { format: crate::FORMAT, largest_segment, ..About::default() }
    }

    #[test]
    fn segments_have_a_limit() {
        assert_eq!((ABOUT_LIMIT, PLAIN_LIMIT), (65_536, 134_217_728));
        for (largest, is_right) in [(0, true), (134_217_728, true), (134_217_729, false), (u64::MAX, false)] {
            assert_eq!(about(largest).check(7).is_ok(), is_right, "{largest}");
        }
    }

    #[test]
    fn what_does_not_compress_has_room() {
        for (largest, limit) in [
            (0, 65_536),
            (127, 65_663),
            (128, 65_665),
            (12_800, 78_436),
            (134_217_728, 134_217_728 + 1_048_576 + 65_536),
            (u64::MAX, 134_217_728 + 1_048_576 + 65_536),
        ] {
            assert_eq!(about(largest).sealed_limit(), limit, "{largest}");
        }
    }
}
