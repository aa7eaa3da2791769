//! What a bundle holds, in numbers: the part of its manifest that a report shows.

use pacharc_format::manifest::{Manifest, Objects};
use serde::Serialize;

/// What a bundle holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contents {
    /// When the backup was complete.
    pub finished: String,
    /// The source's PostgreSQL: version and place.
    pub postgres: Option<String>,
    /// The source's bucket, without credentials.
    pub bucket: Option<String>,
    /// The source's namespace.
    pub namespace: Option<String>,
    /// Pachyderm's release family.
    pub pachyderm: Option<String>,
    /// When the snapshot was opened that was dumped.
    pub snapshot: Option<String>,
    /// The databases.
    pub databases: Vec<ContentsDatabase>,
    /// The objects; `None` where no bucket was backed up.
    pub objects: Option<Objects>,
}

/// One database of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContentsDatabase {
    /// Its name.
    pub name: String,
    /// Its tables, the largest first.
    pub tables: Vec<ContentsTable>,
    /// How many large objects it has.
    pub large_objects: u64,
    /// Their bytes.
    pub large_object_bytes: u64,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContentsTable {
    /// Schema and name, e.g. `storage.chunk_objects`.
    pub name: String,
    /// Rows.
    pub rows: u64,
    /// Bytes of COPY text.
    pub bytes: u64,
}

impl From<&Manifest> for Contents {
    fn from(manifest: &Manifest) -> Self {
        let source = &manifest.source;
        let databases = manifest.databases.iter().map(|database| {
            let tables = database.tables.iter().map(|table| ContentsTable {
                name: format!("{}.{}", table.schema, table.name),
                rows: table.rows,
                bytes: table.bytes,
            });
            let mut tables: Vec<_> = tables.collect();
            tables.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
            ContentsDatabase {
                name: database.name.clone(),
                tables,
                large_objects: database.large_objects.count,
                large_object_bytes: database.large_objects.bytes,
            }
        });
        Self {
            finished: manifest.finished.clone(),
            postgres: source.postgres.as_ref().map(|postgres| format!("{} at {}", postgres.version, postgres.host)),
            bucket: source.bucket.clone(),
            namespace: source.cluster.as_ref().map(|cluster| cluster.namespace.clone()),
            pachyderm: source.pachyderm.clone(),
            snapshot: source.snapshot_opened.clone(),
            databases: databases.collect(),
            objects: manifest.objects.clone(),
        }
    }
}
