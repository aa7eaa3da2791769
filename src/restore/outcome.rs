//! What a restore was, for people and programs.

use pacharc_format::manifest::Manifest;
use serde::Serialize;
use uuid::Uuid;

use super::release::RestoredRelease;
use crate::evidence::Contents;
use crate::failure::Class;
use crate::signature::SignedBy;
use crate::visible::one_line;

/// A restore that was done and proved.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The bundle's UUID.
    pub bundle: Uuid,
    /// Its id.
    pub id: String,
    /// The trusted key that signed it; absent where no key was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<SignedBy>,
    /// The databases, under their names on the target.
    pub databases: Vec<RestoredDatabase>,
    /// The objects; absent where no bucket was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<RestoredObjects>,
    /// What the bundle lacks, whatever of it was restored; absent where it is closed, or has no live set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<Incomplete>,
    /// What the release to come needs; absent where that was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<RestoredRelease>,
    /// What the bundle holds, for the report.
    #[serde(skip)]
    pub contents: Option<Contents>,
}

/// One database of a restore.
#[derive(Clone, Debug, Serialize)]
pub struct RestoredDatabase {
    /// Its name on the target.
    pub name: String,
    /// Tables that were compared.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
}

/// The objects of a restore.
#[derive(Clone, Debug, Serialize)]
pub struct RestoredObjects {
    /// The bucket's URL.
    pub bucket: String,
    /// Objects in it, each seen with its size.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Live objects that the bundle lacks.
    pub missing: u64,
    /// Live objects that were rotten at the source, and are so here.
    pub rotten: u64,
}

/// What a bundle that is not closed lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Incomplete {
    /// Live objects that are not in it.
    pub missing: u64,
    /// Live objects that were rotten at the source, and are so in it.
    pub rotten: u64,
}

impl Incomplete {
    /// What the manifest says; `None` where the bundle is closed, or has no live set.
    pub(super) fn of(manifest: &Manifest) -> Option<Self> {
        let objects = manifest.objects.as_ref().filter(|objects| objects.closed == Some(false))?;
        Some(Self { missing: objects.missing.count, rotten: objects.rotten.count })
    }
}

impl crate::outcome::Outcome for Outcome {
    fn class(&self) -> Option<Class> {
        self.incomplete.map(|_| Class::Incomplete)
    }

    fn contents(&self) -> Option<&Contents> {
        self.contents.as_ref()
    }

    fn summary(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for RestoredDatabase { name, tables, rows } in &self.databases {
            lines.push(format!(
                "database {}: {rows} rows in {tables} tables, counts and fingerprints as in the bundle",
                one_line(name)
            ));
        }
        if let Some(RestoredObjects { bucket, count, bytes, .. }) = &self.objects {
            lines
                .push(format!("{bucket}: {count} objects, {}, each seen with its size", indicatif::HumanBytes(*bytes)));
        }
        if let Some(Incomplete { missing, rotten }) = self.incomplete {
            lines.push(format!("INCOMPLETE: of the live objects, {missing} missing and {rotten} rotten (named above)"));
        }
        if let Some(release) = &self.release {
            lines.extend(told(release));
        }
        let signed = self.signed_by.as_ref().map(|by| format!(", signed by the trusted key {}", by.key));
        lines.push(format!("restored from bundle {}{}, id {}", self.bundle, signed.unwrap_or_default(), self.id));
        lines.join("\n")
    }
}

fn told(release: &RestoredRelease) -> Vec<String> {
    let mut lines = Vec::new();
    let (created, unchanged) = (release.secrets_created.len(), release.secrets_unchanged.len());
    if created + unchanged > 0 {
        lines.push(format!("Secrets: {created} made, {unchanged} there already"));
    }
    let created = release.config_maps_created.len();
    let there = release.config_maps_unchanged.len() + release.config_maps_different.len();
    if created + there > 0 {
        lines.push(format!("ConfigMaps: {created} made, {there} there already"));
    }
    if let Some(folder) = &release.folder {
        lines.push(format!("{}: {} files for the new release", folder.display(), release.files.len()));
        lines.push(format!("\nWhat is left to do ({}/NEXT-STEPS.txt):\n{}", folder.display(), release.steps));
    }
    lines
}

#[cfg(test)]
mod tests {
    use pacharc_format::manifest::{Count, Objects};

    use super::*;
    use crate::outcome::Outcome as _;

    #[test]
    fn what_a_bundle_lacks_counts_where_no_object_was_restored() {
        let manifest = |closed| {
            let (missing, rotten) = (Count { count: 1, bytes: 10 }, Count { count: 2, bytes: 20 });
            Manifest { objects: Some(Objects { closed, missing, rotten, ..Objects::default() }), ..Manifest::default() }
        };
        for (manifest, incomplete) in [
            (Manifest::default(), None),
            (manifest(None), None),
            (manifest(Some(true)), None),
            (manifest(Some(false)), Some(Incomplete { missing: 1, rotten: 2 })),
        ] {
            let outcome = Outcome {
                bundle: Uuid::nil(),
                id: String::new(),
                signed_by: None,
                databases: Vec::new(),
                objects: None,
                incomplete: Incomplete::of(&manifest),
                release: None,
                contents: None,
            };
            assert_eq!(outcome.incomplete, incomplete);
            assert_eq!(outcome.class(), incomplete.map(|_| Class::Incomplete));
            assert_eq!(outcome.summary().contains("INCOMPLETE: of the live objects, 1 missing"), incomplete.is_some());
        }
    }
}
