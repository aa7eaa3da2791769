//! What a backup was, for people and programs.

use std::fmt::Write as _;

use pacharc_format::manifest::{Manifest, Objects, Pause};
use serde::Serialize;
use uuid::Uuid;

use crate::cluster::suspend::from_anywhere;
use crate::database::broken_rows;
use crate::evidence::Contents;
use crate::failure::Class;
use crate::visible::one_line;

/// A bundle that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Where it lies.
    pub output: String,
    /// Its UUID.
    pub bundle: Uuid,
    /// Its id: BLAKE3 of its sums.
    pub id: String,
    /// The number of the key that signed it; absent where it is not signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// Its bytes.
    pub bytes: u64,
    /// Snapshots that were opened until one was closed and dumped.
    pub snapshots: u32,
    /// The databases.
    pub databases: Vec<DatabaseOutcome>,
    /// The objects; absent where no bucket was backed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<Objects>,
    /// Transient faults of the bucket, each of which was met by trying again.
    pub retried: u64,
    /// How often an object was read again because its bytes did not fit its key.
    pub reread: u64,
    /// How the source was suspended; absent where it was not to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// The command that brings back a cluster that was left suspended, as asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// What the bundle holds, for the report.
    #[serde(skip)]
    pub contents: Option<Contents>,
}

/// One database of a backup.
#[derive(Clone, Debug, Serialize)]
pub struct DatabaseOutcome {
    /// Its name.
    pub name: String,
    /// Tables with data.
    pub tables: usize,
    /// Rows of all.
    pub rows: u64,
    /// Bytes of COPY text.
    pub bytes: u64,
    /// What a dump leaves out.
    pub left_out: Vec<String>,
    /// What was broken at the source, in words: tables with rows that no server takes back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<String>,
}

impl Outcome {
    pub(super) fn new(output: String, written: &pacharc_format::Written, manifest: &Manifest) -> Self {
        let databases = manifest.databases.iter().map(|database| DatabaseOutcome {
            name: database.name.clone(),
            tables: database.tables.len(),
            rows: database.tables.iter().map(|table| table.rows).sum(),
            bytes: database.tables.iter().map(|table| table.bytes).sum(),
            left_out: database.left_out.clone(),
            broken: broken_rows(database).iter().map(|(what, problem)| format!("{what}: {problem}")).collect(),
        });
        Self {
            output,
            bundle: manifest.about.bundle,
            id: written.id.clone(),
            signed_by: None,
            bytes: written.bytes,
            snapshots: manifest.source.snapshots,
            databases: databases.collect(),
            objects: manifest.objects.clone(),
            retried: 0,
            reread: 0,
            pause: None,
            resume: None,
            contents: Some(manifest.into()),
        }
    }
}

impl crate::outcome::Outcome for Outcome {
    fn class(&self) -> Option<Class> {
        let closed = self.objects.as_ref().and_then(|objects| objects.closed);
        let is_broken = self.databases.iter().any(|database| !database.broken.is_empty());
        (closed == Some(false) || is_broken).then_some(Class::Incomplete)
    }

    fn contents(&self) -> Option<&Contents> {
        self.contents.as_ref()
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        // Writing to a string has no way to fail.
        for database in &self.databases {
            let DatabaseOutcome { name, tables, rows, broken, .. } = database;
            let _ = writeln!(text, "database {}: {rows} rows in {tables} tables", one_line(name));
            for broken in broken {
                let _ = writeln!(text, "BROKEN AT THE SOURCE: {}", one_line(broken));
            }
        }
        if let Some(objects) = &self.objects {
            let Objects { live, orphan, foreign, rotten, missing, .. } = objects;
            let stored = live.count + orphan.count + foreign.count + rotten.count;
            let bytes = indicatif::HumanBytes(live.bytes + orphan.bytes + foreign.bytes + rotten.bytes);
            let _ = writeln!(
                text,
                "bucket: {stored} objects, {bytes} ({} orphans, {} foreign)",
                orphan.count, foreign.count
            );
            let _ = match objects.closed {
                Some(true) => writeln!(
                    text,
                    "closed: all {} live objects are in the bundle, each with the bytes its key promises",
                    live.count
                ),
                Some(false) => writeln!(
                    text,
                    "NOT CLOSED: of the live objects, {} missing and {} rotten at the source (named above)",
                    missing.count, rotten.count
                ),
                None => writeln!(text, "no Pachyderm database was backed up: there is no live set to compare with"),
            };
        }
        if self.retried + self.reread > 0 {
            let (retried, reread) = (self.retried, self.reread);
            let _ = writeln!(
                text,
                "bucket faults: {retried} requests made again; {reread} reads made again, since the bytes did not fit the key"
            );
        }
        if let Some(pause) = &self.pause {
            let _ = writeln!(text, "{}", describe(pause, self.resume.is_some()));
        }
        let signed = self.signed_by.as_ref().map(|key| format!(", signed by the key {key}")).unwrap_or_default();
        let _ = write!(text, "{}: {}{signed}, id {}", self.output, indicatif::HumanBytes(self.bytes), self.id);
        if let Some(command) = &self.resume {
            let command = from_anywhere(command);
            let _ = write!(text, "\nthe cluster stays suspended; bring it back, from any machine, with:\n{command}");
        }
        text
    }
}

/// A pause in one line.
fn describe(pause: &Pause, is_left: bool) -> String {
    let Pause { seconds, held_by, lost, .. } = pause;
    let how_long = match (seconds, held_by) {
        (_, Some(owner)) => format!("the cluster was held by {}, and is still", one_line(owner)),
        (Some(seconds), None) => format!("the cluster was suspended for {seconds:.1} s"),
        (None, None) if is_left => "the cluster is suspended".to_owned(),
        (None, None) => "the cluster was not suspended".to_owned(),
    };
    match lost {
        None => format!("quiesced: {how_long}; nothing ran that writes when the snapshot was opened"),
        Some(lost) => format!("quiesced: lost at {} because {}; {how_long}", lost.at, one_line(&lost.because)),
    }
}
