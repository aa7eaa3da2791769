//! The databases alone, out of a bundle that can be read in any place: all of its sums were just checked, and what is not restored
//! is not read again.

use pacharc_format::manifest::Manifest;
use pacharc_format::{BundleReader, Head, HeadDatabase, RangeReader};

use super::{Error, proof};
use crate::monitor::Monitor;

/// Where objects lie in a bundle.
const OBJECTS: &str = "objects/";

/// The head of a bundle, as its manifest knows it.
pub(super) fn head(manifest: &Manifest) -> Head {
    let databases = manifest.databases.iter().map(|database| HeadDatabase {
        name: database.name.clone(),
        folder: database.folder.clone(),
        kind: database.kind,
        schema_version: database.schema_version,
        properties: database.properties.clone(),
    });
    let source = &manifest.source;
    Head {
        bundle: manifest.about.bundle,
        postgres: source.postgres.clone(),
        bucket: source.bucket.clone(),
        pachyderm: source.pachyderm.clone(),
        databases: databases.collect(),
        estimated_bytes: None,
        namespace: source.cluster.as_ref().map(|cluster| cluster.namespace.clone()),
    }
}

/// Names the live objects that a bundle lacks, or has rotten.
pub(super) async fn tell_lacking<S: RangeReader>(reader: &BundleReader<S>, monitor: &dyn Monitor) -> Result<(), Error> {
    let mut catalog = reader.catalog(OBJECTS);
    while let Some(lines) = catalog.next().await? {
        lines.iter().for_each(|line| proof::tell(line, monitor));
        if lines.last().is_some_and(|line| !line.entry.path.starts_with(OBJECTS)) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pacharc_format::About;
    use pacharc_format::manifest::{Cluster, Database, DatabaseKind, DatabaseProperties, Postgres, Source};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_manifest_knows_what_the_head_does() {
        let postgres = Some(Postgres { host: "db:5432".into(), ..Postgres::default() });
        let properties = DatabaseProperties { encoding: "UTF8".into(), ..DatabaseProperties::default() };
        let wanted = Head {
            bundle: Uuid::from_u128(7),
            postgres: postgres.clone(),
            bucket: Some("s3://b".into()),
            pachyderm: Some("2.11.x".into()),
            databases: vec![HeadDatabase {
                name: "a b".into(),
                folder: "a%20b".into(),
                kind: DatabaseKind::Pachyderm,
                schema_version: Some(59),
                properties: properties.clone(),
            }],
            estimated_bytes: None,
            namespace: Some("ns".into()),
        };
        let manifest = Manifest {
            about: About { bundle: Uuid::from_u128(7), ..About::default() },
            source: Source {
                postgres,
                bucket: Some("s3://b".into()),
                pachyderm: Some("2.11.x".into()),
                cluster: Some(Cluster { namespace: "ns".into(), ..Cluster::default() }),
                ..Source::default()
            },
            databases: vec![Database {
                name: "a b".into(),
                folder: "a%20b".into(),
                kind: DatabaseKind::Pachyderm,
                schema_version: Some(59),
                properties,
                ..Database::default()
            }],
            ..Manifest::default()
        };
        assert_eq!(head(&manifest), wanted);
    }
}
