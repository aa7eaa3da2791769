//! What a restore was, for people and programs.

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

impl crate::outcome::Outcome for Outcome {
    fn class(&self) -> Option<Class> {
        let incomplete = self.objects.as_ref().is_some_and(|objects| objects.missing + objects.rotten > 0);
        incomplete.then_some(Class::Incomplete)
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
        if let Some(RestoredObjects { bucket, count, bytes, missing, rotten }) = &self.objects {
            lines
                .push(format!("{bucket}: {count} objects, {}, each seen with its size", indicatif::HumanBytes(*bytes)));
            if missing + rotten > 0 {
                lines.push(format!(
                    "INCOMPLETE: of the live objects, {missing} missing and {rotten} rotten (named above)"
                ));
            }
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
